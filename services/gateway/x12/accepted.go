package x12

import (
	"fmt"
	"slices"
	"strings"
)

// What a fault tells its sender to do names what is accepted in its place. Of
// what was sent only codes are told: a value that is none of the grammar's own
// codes and no number of up to three digits may be a name in the wrong element.

// meanings say in a word what a code of an element stands for (X12's code
// sources, the implementation guides' notes), as far as a sender has to choose.
var meanings = map[string]string{
	"BGN01":   "00 original, 15 sent again, 22 copy for information",
	"BGN08":   "2 changes only, 4 verify, RX replaces all",
	"CLM05-3": "1 original, 7 replaces a claim, 8 voids a claim",
	"COB01":   "P primary, S secondary, T tertiary, U unknown",
	"COB03":   "1 coordinated, 5 unknown, 6 nothing to coordinate",
	"DMG03":   "F female, M male, U unknown",
	"DTP01":   "303 change takes effect, 343 premium paid to, 348 benefits begin, 349 benefits end, 356 eligibility begins, 357 eligibility ends, 472 service, 434 statement, 435 admission",
	"DTP02":   "D8 a day, RD8 a range of days",
	"HD01":    "001 change, 002 delete, 021 addition, 024 termination, 025 reinstatement, 026 correction, 030 audit, 032 not applicable",
	"HD03":    "DEN dental, EPO exclusive provider, HLT health, HMO health maintenance, LTC long-term care, MM major medical, PDG prescription drug, POS point of service, PPO preferred provider, STD short-term disability, LTD long-term disability, VIS vision",
	"INS01":   "Y subscriber, N dependant",
	"INS02":   "18 the subscriber, 01 spouse, 09 adopted child, 10 foster child, 15 ward, 17 stepchild, 19 child, 25 former spouse, 53 life partner, G8 other",
	"INS03":   "001 change, 021 addition, 024 termination, 025 reinstatement, 030 audit",
	"INS05":   "A active, C COBRA, S surviving insured, T TEFRA",
	"N101":    "P5 plan sponsor, IN insurer, BO broker, TV administrator",
	"NM101":   "IL member, 74 member whose data are corrected, 70 member as known before, 31 postal address, 36 employer, 45 drop-off place, M8 school, QD responsible person, S3 custodian, 85 billing provider, 82 rendering provider, 77 service facility, PR payer, QC patient",
	"REF01":   "0F subscriber's number, 1L group or policy number, 38 master policy number, F8 payer's claim number, G1 prior authorisation number, 9F referral number",
}

// meaning is what a code of an element stands for, in brackets; empty where
// nobody has to be told.
func meaning(element, code string) string {
	for word := range strings.SplitSeq(meanings[element], ", ") {
		if c, says, _ := strings.Cut(word, " "); c == code {
			return " (" + says + ")"
		}
	}
	return ""
}

// oneOf lists codes of an element, those that mean something by what they mean.
func oneOf(element string, codes []string) string {
	var all []string
	for _, c := range codes {
		all = append(all, c+meaning(element, c))
	}
	if len(all) == 1 {
		return all[0]
	}
	return strings.Join(all[:len(all)-1], ", ") + " or " + all[len(all)-1]
}

// accepts says what may stand in an element; format is the element before it.
func (e *elementSpec) accepts(element, format string) string {
	switch e.kind {
	case '=':
		return oneOf(element, e.codes)
	case 'r':
		return "a decimal number of at most 18 digits, with a point and no commas"
	case 'n':
		return "a whole number of at most 9 digits"
	case 'd':
		return "a day of the calendar as CCYYMMDD, like 20260131"
	case 't':
		return "a time as HHMM, like 1430"
	case 'p':
		switch format {
		case "RD8":
			return "two days as CCYYMMDD-CCYYMMDD, the first not after the last, like 20260101-20260131"
		case "DT":
			return "a day and time as CCYYMMDDHHMM, like 202601311430"
		case "TM":
			return "a time as HHMM, like 1430"
		case "D8":
			return "a day of the calendar as CCYYMMDD, like 20260131"
		}
		return "a date in the format that the element before it names"
	case '(':
		return "its components, as the implementation guide lists them"
	}
	switch e.max {
	case 0:
		return "a value"
	case e.min:
		return fmt.Sprintf("%d characters", e.max)
	}
	return fmt.Sprintf("%d to %d characters", e.min, e.max)
}

// found is a code that was sent, to be told in a message; empty where it might
// be something else.
func (g *grammar) found(v string) string {
	if g.codes[v] || len(v) <= 3 && digits(v) {
		return v
	}
	return ""
}

// wrong says what is wrong with an element; of what was sent it repeats a code.
func (g *grammar) wrong(element, v, code, what string) string {
	if is := g.found(v); code == "7" && is != "" {
		return element + " is " + is + ", which " + what
	}
	return element + " " + what
}

// telling is the element, "REF01", by which one kind of a segment is told from
// another, and its codes; empty where there is one kind.
func (sp *segmentSpec) telling() (element string, codes []string) {
	for i := range sp.elems {
		e := &sp.elems[i]
		if e.tells {
			return fmt.Sprintf("%s%02d", sp.id, i+1), e.codes
		}
		if e.kind == '(' && e.comps[0].tells {
			return fmt.Sprintf("%s%02d-1", sp.id, i+1), e.comps[0].codes
		}
	}
	return "", nil
}

// kinds are the codes by which segments of an id are told apart in a loop and
// just below it, in the guide's order.
func (l *loop) kinds(id string) (element string, codes []string) {
	take := func(sp *segmentSpec) {
		if sp.id != id {
			return
		}
		if at, of := sp.telling(); at != "" {
			element = at
			for _, c := range of {
				if !slices.Contains(codes, c) {
					codes = append(codes, c)
				}
			}
		}
	}
	for _, sp := range l.segs {
		take(sp)
	}
	for _, k := range l.kids {
		take(k.segs[0])
	}
	return element, codes
}

// order is the order of a loop's segments and of the loops below it.
func (l *loop) order() string {
	type part struct {
		pos  int
		name string
	}
	var parts []part
	for _, sp := range l.segs {
		parts = append(parts, part{sp.pos, sp.id})
	}
	for _, k := range l.kids {
		parts = append(parts, part{k.pos, "loop " + k.id})
	}
	// What stands at one place may stand there in any order; the first segment
	// begins the loop wherever its number lies.
	slices.SortStableFunc(parts[1:], func(a, b part) int { return a.pos - b.pos })
	var names []string
	for _, p := range parts {
		if len(names) == 0 || names[len(names)-1] != p.name {
			names = append(names, p.name)
		}
	}
	return strings.Join(names, ", ")
}

// homes are the loops in which a segment may stand, in the guide's order.
func (g *grammar) homes(id string) string {
	var out []string
	within := map[string]string{} // the loop that a loop stands in
	var walk func(l *loop)
	walk = func(l *loop) {
		if !slices.Contains(out, l.id) && slices.ContainsFunc(l.segs, func(sp *segmentSpec) bool { return sp.id == id }) {
			out = append(out, l.id)
		}
		for _, k := range l.kids {
			within[k.id] = l.id
			walk(k)
		}
	}
	walk(g.root)
	switch n := len(out); {
	case n == 0:
		return ""
	case n == 1:
		if above := within[out[0]]; above != "" && above != g.root.id {
			return "loop " + out[0] + " of a loop " + above
		}
		return "loop " + out[0]
	case n > 6:
		return "loops " + strings.Join(out[:6], ", ") + " and others"
	default:
		return "loops " + strings.Join(out[:n-1], ", ") + " and " + out[n-1]
	}
}
