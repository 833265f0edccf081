package x12

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/money"
)

// check holds a segment's elements against its specification (X12.6 and the guide).
func (p *setParser) check(sp *segmentSpec, s *Segment, loop string) {
	bad := func(el, comp int, code, rule, msg, fix string) {
		p.fault(Fault{Rule: rule, Segment: s.ID, Loop: loop, Element: el, Component: comp, SegmentCode: "8", ElementCode: code,
			Status: p.status(category(code), loop, s.ID, el), scope: p.scopeOf(loop), Message: msg, Fix: fix})
	}
	if s.fault != "" {
		bad(0, 0, "6", s.fault, "the segment holds characters that may not stand in it", "send only characters of the X12 basic and extended sets, in ASCII or UTF-8")
	}
	if n, known := elementCount[s.ID]; known && len(s.elems) > n {
		bad(n+1, 0, "3", ruleTooMany, fmt.Sprintf("the segment has more than %d elements", n), fixTooMany)
	}
	for i := range sp.elems {
		e := &sp.elems[i]
		v := s.El(i + 1)
		format := ""
		if i > 0 {
			format = s.El(i)
		}
		switch {
		case e.usage == 'N':
		case v == "" || e.kind == '(' && strings.Trim(v, string(s.d.component)) == "":
			if e.usage == 'R' {
				name := nameOf(s, i+1)
				bad(i+1, 0, "1", "x12.element.missing", name+" is required", "send "+name+": "+e.accepts(name, format))
			}
		case e.kind == '(':
			p.composite(e, s, i+1, bad)
		case strings.IndexByte(v, s.d.component) >= 0:
			bad(i+1, 0, "12", "x12.element.components", nameOf(s, i+1)+" is not composite", "send one value without component separators")
		default:
			if s.d.repetition != 0 && strings.IndexByte(v, s.d.repetition) >= 0 {
				bad(i+1, 0, "11", "x12.element.repeated", nameOf(s, i+1)+" may not repeat", "send one value without repetition separators")
				continue
			}
			if code, what := e.fails(v, format); code != "" {
				name := nameOf(s, i+1)
				bad(i+1, 0, code, elementRules[code], p.g.wrong(name, v, code, what), "send "+name+" as "+e.accepts(name, format))
			}
		}
	}
}

// nameOf is how an element is spoken of: NM109. It is formed for a fault only,
// for every element of every claim passes here.
func nameOf(s *Segment, n int) string { return fmt.Sprintf("%s%02d", s.ID, n) }

// componentOf is the same of a component: SV101-2.
func componentOf(s *Segment, n, c int) string { return fmt.Sprintf("%s%02d-%d", s.ID, n, c) }

func (p *setParser) composite(e *elementSpec, s *Segment, n int, bad func(int, int, string, string, string, string)) {
	var room [16]string
	comps := appendSplit(room[:0], s.El(n), s.d.component)
	for len(comps) > len(e.comps) && comps[len(comps)-1] == "" {
		comps = comps[:len(comps)-1]
	}
	if len(comps) > max(len(e.comps), 9) {
		bad(n, len(comps), "12", "x12.element.components", fmt.Sprintf("%s%02d has too many components", s.ID, n), "leave out what the guide doesn't define")
	}
	for c := range e.comps {
		ce, v := &e.comps[c], ""
		if c < len(comps) {
			v = comps[c]
		}
		if v == "" {
			if ce.usage == 'R' {
				name := componentOf(s, n, c+1)
				bad(n, c+1, "1", "x12.element.missing", name+" is required", "send "+name+": "+ce.accepts(name, ""))
			}
			continue
		}
		if ce.usage == 'N' {
			continue
		}
		if code, what := ce.fails(v, ""); code != "" {
			name := componentOf(s, n, c+1)
			bad(n, c+1, code, elementRules[code], p.g.wrong(name, v, code, what), "send "+name+" as "+ce.accepts(name, ""))
		}
	}
}

// appendSplit appends what strings.Split returns.
func appendSplit(to []string, s string, separator byte) []string {
	for {
		i := strings.IndexByte(s, separator)
		if i < 0 {
			return append(to, s)
		}
		to, s = append(to, s[:i]), s[i+1:]
	}
}

// category is the 277CA category of an element fault: A6 missing, A7 invalid.
func category(code string) string {
	if code == "1" {
		return "A6"
	}
	return "A7"
}

var elementRules = map[string]string{
	"4": "x12.element.short", "5": "x12.element.long", "6": "x12.element.character", "7": "x12.element.code",
	"8": "x12.element.date", "9": "x12.element.time",
}

// fails returns IK403 and what is wrong, or nothing. It never repeats the value.
func (e *elementSpec) fails(v, format string) (string, string) {
	switch e.kind {
	case '=':
		if !e.has(v) {
			return "7", "is not one of the codes the guide allows"
		}
	case 'r':
		if len(v) > 19 {
			return "5", "is longer than 18 digits"
		}
		if !decimal(v) {
			return "6", "is not a decimal number"
		}
	case 'n':
		if len(v) > 9 {
			return "5", "is longer than 9 digits"
		}
		if !digits(v) {
			return "6", "is not a whole number"
		}
	case 'd':
		if !calendar(v) {
			return "8", "is not a calendar date written CCYYMMDD"
		}
	case 't':
		if !clock(v) {
			return "9", "is not a time written HHMM, HHMMSS or with hundredths"
		}
	case 'p':
		switch format {
		case "D8":
			if !calendar(v) {
				return "8", "is not a calendar date written CCYYMMDD"
			}
		case "RD8":
			if _, _, ok := isoRange(v); !ok {
				return "8", "is not a range of calendar dates written CCYYMMDD-CCYYMMDD, first not after last"
			}
		case "DT":
			if len(v) != 12 || !clock(v[8:]) {
				return "8", "is not a date and time written CCYYMMDDHHMM"
			} else if !calendar(v[:8]) {
				return "8", "is not a date and time written CCYYMMDDHHMM"
			}
		case "TM":
			if !clock(v) {
				return "9", "is not a time written HHMM"
			}
		}
	case 'a':
		n := len([]rune(v))
		if e.max > 0 && n > e.max {
			return "5", fmt.Sprintf("is longer than %d characters", e.max)
		}
		if n < e.min {
			return "4", fmt.Sprintf("is shorter than %d characters", e.min)
		}
		if strings.TrimSpace(v) == "" {
			return "6", "is blank"
		}
	}
	return "", ""
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// decimal tells whether s is an X12 R: an optional minus, digits, one point at most.
func decimal(s string) bool {
	s = strings.TrimPrefix(s, "-")
	whole, frac, _ := strings.Cut(s, ".")
	return (whole == "" || digits(whole)) && (frac == "" || digits(frac)) && (whole != "" || frac != "")
}

// clock tells whether s is HHMM, HHMMSS, HHMMSSD or HHMMSSDD.
func clock(s string) bool {
	if len(s) < 4 || len(s) == 5 || len(s) > 8 || !digits(s) {
		return false
	}
	return s[:2] < "24" && s[2:4] < "60" && (len(s) == 4 || s[4:6] < "60")
}

// isoDate turns CCYYMMDD into an ISO 8601 date; false when it is no day of the calendar.
func isoDate(s string) (string, bool) {
	if !calendar(s) {
		return "", false
	}
	return s[:4] + "-" + s[4:6] + "-" + s[6:], true
}

// calendar tells whether s is a day of the calendar, CCYYMMDD.
func calendar(s string) bool {
	if len(s) != 8 || !digits(s) || s < "18000101" {
		return false
	}
	year, month, day := atoi(s[:4]), atoi(s[4:6]), atoi(s[6:])
	last := [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
	if month < 1 || month > 12 {
		return false
	}
	n := last[month-1]
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		n = 29
	}
	return day >= 1 && day <= n
}

// isoRange turns CCYYMMDD-CCYYMMDD into two ISO 8601 dates in order.
func isoRange(s string) (string, string, bool) {
	a, b, both := strings.Cut(s, "-")
	first, ok1 := isoDate(a)
	last, ok2 := isoDate(b)
	return first, last, both && ok1 && ok2 && first <= last
}

// atoi reads digits that have been checked and are few.
func atoi(s string) int {
	n := 0
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n
}

// maxCents bounds every amount so that sums of a claim's lines can't overflow.
const maxCents = 9_999_999_999

// cents reads an amount; false when it has parts of a cent or is out of range.
func cents(s string) (int64, bool) {
	c, err := money.Parse(s)
	return int64(c), err == nil && c <= maxCents && c >= -maxCents
}

// milli reads a quantity in thousandths; false with more decimals or out of range.
func milli(s string) (int64, bool) {
	if !decimal(s) || strings.HasPrefix(s, "-") {
		return 0, false
	}
	whole, frac, _ := strings.Cut(s, ".")
	frac = strings.TrimRight(frac, "0")
	whole = strings.TrimLeft(whole, "0")
	if len(frac) > 3 || len(whole) > 7 {
		return 0, false
	}
	n := int64(0)
	for _, digits := range [3]string{whole, frac, "000"[:3-len(frac)]} {
		for i := range len(digits) {
			n = 10*n + int64(digits[i]-'0')
		}
	}
	return n, true
}

func itoa(n int) string { return strconv.Itoa(n) }
