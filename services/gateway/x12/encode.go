package x12

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Envelope is what an interchange is addressed with. Control and Time are
// given by the caller: the same input always makes the same bytes.
type Envelope struct {
	SenderQualifier, Sender     string // ISA05 (default ZZ), ISA06
	ReceiverQualifier, Receiver string // ISA07 (default ZZ), ISA08
	// GroupSender and GroupReceiver are GS02 and GS03; empty takes ISA06 and ISA08.
	GroupSender, GroupReceiver string
	// Control is ISA13 of the first interchange written, from 1 to 999999999.
	Control int
	// Usage is P (default) or T.
	Usage string
	// Time is ISA09, ISA10, GS04 and GS05, in its own zone.
	Time time.Time
}

// composite is an element made of components.
type composite []string

// encoder writes segments; the first error of w sticks.
type encoder struct {
	w   io.Writer
	buf []byte
	env Envelope
	err error

	control         int // of the open interchange
	groups, sets, n int // groups of the interchange, sets of the group, segments of the set
}

// The delimiters written; see clean for what happens to them in data.
const outDelimiters = "*:^~"

func newEncoder(w io.Writer, env Envelope) *encoder {
	orDefault := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	orDefault(&env.SenderQualifier, "ZZ")
	orDefault(&env.ReceiverQualifier, "ZZ")
	orDefault(&env.Usage, "P")
	orDefault(&env.GroupSender, env.Sender)
	orDefault(&env.GroupReceiver, env.Receiver)
	return &encoder{w: w, env: env, control: env.Control - 1}
}

// clean keeps data from being read as delimiters: those and control
// characters become blanks; blanks at the ends go, as X12 doesn't send them.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || strings.ContainsRune(outDelimiters, r) {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// seg writes a segment of strings and composites; empty elements at the end are left out.
func (e *encoder) seg(id string, elems ...any) {
	var texts []string
	for _, el := range elems {
		switch v := el.(type) {
		case string:
			texts = append(texts, clean(v))
		case composite:
			comps := make([]string, len(v))
			for i, c := range v {
				comps[i] = clean(c)
			}
			texts = append(texts, strings.TrimRight(strings.Join(comps, ":"), ":"))
		}
	}
	for len(texts) > 0 && texts[len(texts)-1] == "" {
		texts = texts[:len(texts)-1]
	}
	e.buf = append(e.buf, id...)
	for _, t := range texts {
		e.buf = append(append(e.buf, '*'), t...)
	}
	e.buf = append(e.buf, "~\n"...)
	e.n++
	if len(e.buf) > 32<<10 {
		e.flush()
	}
}

func (e *encoder) flush() {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *encoder) interchange() {
	e.control++
	e.groups = 0
	fixed := func(s string, n int) string {
		s = clean(s)
		if len(s) > n {
			s = s[:n]
		}
		return s + strings.Repeat(" ", n-len(s))
	}
	e.buf = fmt.Appendf(e.buf, "ISA*00*%10s*00*%10s*%s*%s*%s*%s*%s*%s*^*00501*%09d*0*%s*:~\n", "", "",
		fixed(e.env.SenderQualifier, 2), fixed(e.env.Sender, 15), fixed(e.env.ReceiverQualifier, 2), fixed(e.env.Receiver, 15),
		e.env.Time.Format("060102"), e.env.Time.Format("1504"), e.control%1_000_000_000, e.env.Usage)
}

func (e *encoder) group(function, version string) {
	e.groups++
	e.sets = 0
	e.seg("GS", function, short(e.env.GroupSender, 15), short(e.env.GroupReceiver, 15), e.env.Time.Format("20060102"), e.env.Time.Format("1504"), itoa(e.groups), "X", version)
}

func (e *encoder) set(id, version string) {
	e.sets++
	e.n = 0
	e.seg("ST", id, fmt.Sprintf("%04d", e.sets), version)
}

func (e *encoder) endSet() { e.seg("SE", itoa(e.n+1), fmt.Sprintf("%04d", e.sets)) }

func (e *encoder) endGroup() { e.seg("GE", itoa(e.sets), itoa(e.groups)) }

func (e *encoder) endInterchange() {
	e.seg("IEA", itoa(e.groups), fmt.Sprintf("%09d", e.control%1_000_000_000))
	e.flush()
}

// short cuts s to at most n characters.
func short(s string, n int) string {
	r := []rune(clean(s))
	return strings.TrimSpace(string(r[:min(n, len(r))]))
}

// x12Date turns an ISO 8601 date into CCYYMMDD.
func x12Date(iso string) string { return strings.ReplaceAll(iso, "-", "") }
