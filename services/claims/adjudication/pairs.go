package adjudication

import (
	"slices"
	"strings"

	"github.com/probity-health/probity/services/codes"
)

// eitherColumn is 2019-07-01: from then a modifier of distinct services on
// either procedure of a pair opens it, before that only on column 2's (CMS
// change request 11168).
const eitherColumn Date = 737241

// pairTable and limitTable are the versions of the reference edits that hold
// the setting's table for the day: CMS publishes each table by itself, so a
// payer's may come as one Edits or as several. nil where the payer has none,
// and then nothing is denied for them.
func (r *run) pairTable(s Setting, on Date) *Edits {
	for _, e := range r.in.Edits {
		if e != nil && len(e.pairs[s]) > 0 && e.period.Contains(on) {
			return e
		}
	}
	return nil
}

func (r *run) limitTable(s Setting, on Date) *Edits {
	for _, e := range r.in.Edits {
		if e != nil && len(e.limits[s]) > 0 && e.period.Contains(on) {
			return e
		}
	}
	return nil
}

// setting says which tables the claim meets; 0 is none.
func (r *run) setting() Setting {
	c := &r.in.Claim
	switch {
	case c.Form == Professional:
		return Practitioner
	case c.Form == Institutional && c.outpatient():
		return OutpatientHospital
	}
	return 0
}

// supplier tells whether a durable medical equipment supplier bills: a
// taxonomy of the suppliers' grouping.
func (c *Claim) supplier() bool { return strings.HasPrefix(c.BillingTaxonomy, "332B") }

// giver is the one provider that a reference edit is about: who rendered a
// professional service, the hospital of an institutional one.
func (r *run) giver(l *line) string {
	if r.in.Claim.Form == Institutional {
		return r.in.Claim.BillingNPI
	}
	return r.rendering(l)
}

func (r *run) gave(h *HistoryLine) string {
	if r.in.Claim.Form == Institutional || h.RenderingNPI == "" {
		return h.BillingNPI
	}
	return h.RenderingNPI
}

// pairs denies the second of two procedures that coding rules don't pay
// together, on this claim or with one allowed before.
//
// The edits are about what was reported together (CMS, NCCI Policy Manual,
// chapter 1, section A): a line that is itself denied as the second of a pair
// still takes its own seconds with it. So the order of a claim's lines doesn't
// choose the outcome.
//
// Where it is the first that comes late, its component having been paid on an
// earlier claim, nobody can tell here which of the two is to give way: the
// earlier payment would have to be taken back. That pends.
func pairs(r *run) {
	s := r.setting()
	if s == 0 || len(r.in.Edits) == 0 {
		return
	}
	for i := range r.lines {
		l := &r.lines[i]
		if _, ok := keyOf(l.Procedure); ok && l.open() {
			l.pairTable = r.pairTable(s, l.ServiceDate)
		}
	}
	for i := range r.lines {
		if l := &r.lines[i]; l.pairTable != nil {
			r.componentsOf(l, s)
		}
	}
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() || l.pairTable == nil {
			continue
		}
		key, _ := keyOf(l.Procedure)
		rows := l.pairTable.column2(s, key)
		for j := range r.in.History {
			if h := &r.in.History[j]; h.Allowed && h.ServiceDate == l.ServiceDate && h.Subject == r.in.Member.Subject && r.gave(h) == r.giver(l) {
				r.pairedBefore(l, key, rows, s, h)
				if l.out.Denied {
					break
				}
			}
		}
	}
}

// componentsOf denies the claim's lines that a line's procedure takes in.
func (r *run) componentsOf(first *line, s Setting) {
	key, _ := keyOf(first.Procedure)
	rows := first.pairTable.column2(s, key)
	if len(rows) == 0 {
		return
	}
	for i := range r.lines {
		second := &r.lines[i]
		if second == first || !second.open() || second.ServiceDate != first.ServiceDate || r.giver(second) != r.giver(first) {
			continue
		}
		key, ok := keyOf(second.Procedure)
		if !ok {
			continue
		}
		pair, found := pairOn(rows, key, first.ServiceDate)
		if !found || pair.opened(first.Modifiers, second.Modifiers, first.ServiceDate) || r.takenBy(second, first) {
			continue
		}
		r.deny(second, pair.rule(), "", Fact{factPairedLine, int64(first.Number)}, Fact{"modifier_indicator", int64(pair.indicator)})
	}
}

// takenBy tells whether the first of two was just denied as the second of the
// same two: a table that names a pair both ways round costs one line, not both.
func (r *run) takenBy(second, first *line) bool {
	return first.out.Denied && slices.ContainsFunc(first.out.Adjustments[0].Facts, func(f Fact) bool {
		return f.Key == factPairedLine && f.Value == int64(second.Number)
	})
}

const factPairedLine = "paired_line"

// pairedBefore looks at one earlier line of the person, provider and day.
func (r *run) pairedBefore(l *line, key codeKey, rows []pairRow, s Setting, h *HistoryLine) {
	earlier, ok := keyOf(h.Procedure)
	if !ok {
		return
	}
	if pair, found := pairOn(l.pairTable.column2(s, earlier), key, l.ServiceDate); found && !pair.opened(h.Modifiers, l.Modifiers, l.ServiceDate) {
		r.deny(l, pair.rule(), "", Fact{"earlier_line", int64(h.Number)}, Fact{"modifier_indicator", int64(pair.indicator)})
		return
	}
	if pair, found := pairOn(rows, earlier, l.ServiceDate); found && !pair.opened(l.Modifiers, h.Modifiers, l.ServiceDate) {
		r.pendAbout(l, signalUnbundled, h.ClaimID, Fact{"earlier_line", int64(h.Number)}, Fact{"modifier_indicator", int64(pair.indicator)})
	}
}

func (p pairRow) rule() rule {
	switch p.reason {
	case PairComponent:
		return pairComponent
	case PairExclusive:
		return pairExclusive
	}
	return pairIncompatible
}

// opened tells whether a modifier says that the two were given apart.
func (p pairRow) opened(first, second []string, on Date) bool {
	if p.indicator != PairModifier {
		return false
	}
	for _, m := range second {
		if codes.OpensPair(m) && !sameSite(m, first) {
			return true
		}
	}
	for _, m := range first {
		if codes.OpensPair(m) && (on >= eitherColumn || !codes.DistinctService(m)) && !sameSite(m, second) {
			return true
		}
	}
	return false
}

// sameSite tells whether a modifier of side or digit stands on the other
// procedure too: then it doesn't set the two apart.
func sameSite(modifier string, other []string) bool {
	if !codes.BodySite(modifier) {
		return false
	}
	for _, m := range other {
		if m == modifier {
			return true
		}
	}
	return false
}
