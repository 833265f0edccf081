package claims

import (
	"encoding/binary"

	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/money"
)

// packed is a family's snapshot while nobody uses it: one string in place of
// some fifty objects, which the collector would otherwise mark again and again
// for as long as the family is remembered. Sums and history follow from the
// claims and aren't in it. It never leaves the process, so its form may change
// with any build; what was unpacked shares its bytes.
type packed string

// packer writes a packed. Most strings repeat the one that stood before them
// in the same place, so each place remembers its last.
type packer struct {
	b    []byte
	last places
}

// places are the last strings of the fields that repeat.
type places struct{ claim, subject, benefit, tier, owner, billing, rendering, procedure string }

func (p *packer) uint(v uint64) { p.b = binary.AppendUvarint(p.b, v) }
func (p *packer) int(v int64)   { p.b = binary.AppendVarint(p.b, v) }

func (p *packer) bool(v bool) {
	if v {
		p.b = append(p.b, 1)
	} else {
		p.b = append(p.b, 0)
	}
}

// str writes 0 for the place's last string, else the length and one, and the bytes.
func (p *packer) str(last *string, s string) {
	if s == *last {
		p.uint(0)
		return
	}
	p.uint(uint64(len(s)) + 1)
	p.b = append(p.b, s...)
	*last = s
}

// pack is the whole family as one string; empty for a snapshot that is no
// whole family, or none.
func (l *Ledgered) pack() packed {
	if l == nil || l.before != nil {
		return ""
	}
	p := packer{b: make([]byte, 0, 1024)}
	p.int(l.Revision)
	p.str(&p.last.claim, l.unsettled)
	p.uint(uint64(len(l.claims)))
	for i := range l.claims {
		c := &l.claims[i]
		p.str(&p.last.claim, c.claim)
		p.int(c.place)
		p.bool(c.live)
		p.uint(uint64(len(c.postings)))
		for j := range c.postings {
			k := &c.postings[j].Key
			p.b = append(p.b, byte(k.Scope), byte(k.Kind), byte(k.Network))
			p.int(int64(k.PlanYear))
			p.str(&p.last.subject, k.Subject)
			p.str(&p.last.benefit, k.Benefit)
			p.str(&p.last.tier, k.Tier)
			p.int(c.postings[j].Amount)
		}
		p.uint(uint64(len(c.lines)))
		for j := range c.lines {
			p.line(&c.lines[j])
		}
	}
	return packed(p.b)
}

func (p *packer) line(h *adjudication.HistoryLine) {
	p.str(&p.last.claim, h.ClaimID)
	p.uint(uint64(h.Number))
	p.str(&p.last.owner, h.Subject)
	p.str(&p.last.billing, h.BillingNPI)
	p.str(&p.last.rendering, h.RenderingNPI)
	p.int(int64(h.ServiceDate))
	p.int(int64(h.ServiceEndDate))
	p.str(&p.last.procedure, h.Procedure)
	p.uint(uint64(len(h.Modifiers)))
	for _, m := range h.Modifiers {
		p.uint(uint64(len(m)))
		p.b = append(p.b, m...)
	}
	p.int(h.QuantityMilli)
	p.int(int64(h.Charge))
	p.bool(h.Allowed)
	p.int(h.AllowedQuantityMilli)
}

// unpacker reads what packer wrote in this process; anything else is a defect
// of ours and panics.
type unpacker struct {
	s    packed
	last places
}

func (u *unpacker) uint() uint64 {
	var v uint64
	for i := 0; ; i++ {
		b := u.s[i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			u.s = u.s[i+1:]
			return v
		}
	}
}

func (u *unpacker) int() int64 {
	v := u.uint()
	return int64(v>>1) ^ -int64(v&1)
}

func (u *unpacker) byte() byte {
	b := u.s[0]
	u.s = u.s[1:]
	return b
}

func (u *unpacker) take(n uint64) string {
	s := string(u.s[:n])
	u.s = u.s[n:]
	return s
}

func (u *unpacker) str(last *string) string {
	if n := u.uint(); n > 0 {
		*last = u.take(n - 1)
	}
	return *last
}

// unpack is the snapshot again; nil for the empty packed.
func (p packed) unpack() *Ledgered {
	if p == "" {
		return nil
	}
	u := unpacker{s: p}
	l := &Ledgered{Revision: u.int(), unsettled: u.str(&u.last.claim)}
	lines := 0
	if n := u.uint(); n > 0 {
		l.claims = make([]standing, n)
	}
	for i := range l.claims {
		c := &l.claims[i]
		c.claim, c.place, c.live = u.str(&u.last.claim), u.int(), u.byte() == 1
		if n := u.uint(); n > 0 {
			c.postings = make([]adjudication.Posting, n)
		}
		for j := range c.postings {
			c.postings[j] = adjudication.Posting{Key: adjudication.Key{
				Scope: adjudication.Scope(u.byte()), Kind: adjudication.Kind(u.byte()), Network: adjudication.Network(u.byte()),
				PlanYear: adjudication.Date(u.int()), Subject: u.str(&u.last.subject), Benefit: u.str(&u.last.benefit), Tier: u.str(&u.last.tier),
			}, Amount: u.int()}
		}
		if n := u.uint(); n > 0 {
			c.lines = make([]adjudication.HistoryLine, n)
		}
		for j := range c.lines {
			u.line(&c.lines[j])
		}
		lines += len(c.lines)
	}
	l.sum(lines)
	return l
}

func (u *unpacker) line(h *adjudication.HistoryLine) {
	h.ClaimID, h.Number = u.str(&u.last.claim), uint32(u.uint())
	h.Subject, h.BillingNPI, h.RenderingNPI = u.str(&u.last.owner), u.str(&u.last.billing), u.str(&u.last.rendering)
	h.ServiceDate, h.ServiceEndDate = adjudication.Date(u.int()), adjudication.Date(u.int())
	h.Procedure = u.str(&u.last.procedure)
	if n := u.uint(); n > 0 {
		h.Modifiers = make([]string, n)
	}
	for i := range h.Modifiers {
		h.Modifiers[i] = u.take(u.uint())
	}
	h.QuantityMilli, h.Charge = u.int(), money.Cents(u.int())
	h.Allowed, h.AllowedQuantityMilli = u.byte() == 1, u.int()
}

// sum makes sums and history from the claims: what post has made of them step
// by step. A reversed claim holds neither, and a sum of zero isn't kept.
func (l *Ledgered) sum(lines int) {
	if lines > 0 {
		l.History = make([]adjudication.HistoryLine, 0, lines)
	}
	for i := range l.claims {
		c := &l.claims[i]
		l.History = append(l.History, c.lines...)
		if len(c.postings) > 0 && l.Sums == nil {
			l.Sums = make(adjudication.Accumulators, 2*len(c.postings))
		}
		for j := range c.postings {
			l.Sums[c.postings[j].Key] += c.postings[j].Amount
		}
	}
	for k, v := range l.Sums {
		if v == 0 {
			delete(l.Sums, k)
		}
	}
}
