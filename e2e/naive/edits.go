package naive

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// table is one of CMS's quarterly tables of claim edits.
type table struct {
	name  string // "ptp-practitioner", "mue-hospital" …
	from  string // first day it governs
	pairs []pairEdit
	most  []unitEdit
}

// pairEdit: two isn't paid beside one. Days are CCYYMMDD, to may be empty.
type pairEdit struct{ one, two, from, to, modifier, why string }

// unitEdit: more units than these are not paid.
type unitEdit struct {
	code      string
	units     int64
	indicator string // 1 a line, 2 and 3 a day
}

// AddTable takes a table in the layout that CMS publishes, tab separated:
// pairs have the columns 1, 2, prior, effective, deletion, modifier, rationale;
// units have code, units, indicator, rationale. It governs days of service
// from its first day to the next table of its name.
func (m *Model) AddTable(name, from string, text []byte) error {
	t := table{name: name, from: from}
	for line := range strings.SplitSeq(string(text), "\n") {
		cell := strings.Split(strings.TrimRight(line, "\r"), "\t")
		if len(cell[0]) != 5 {
			continue // licence, headings
		}
		switch {
		case strings.HasPrefix(name, "ptp-") && len(cell) == 7:
			to := cell[4]
			if to == "*" {
				to = ""
			}
			t.pairs = append(t.pairs, pairEdit{one: cell[0], two: cell[1], from: cell[3], to: to, modifier: cell[5], why: strings.ToLower(cell[6])})
		case strings.HasPrefix(name, "mue-") && len(cell) == 4:
			n, err := strconv.ParseInt(cell[1], 10, 64)
			if err != nil {
				return fmt.Errorf("naive: units of %s: %w", cell[0], err)
			}
			t.most = append(t.most, unitEdit{code: cell[0], units: n, indicator: cell[2][:1]})
		}
	}
	if len(t.pairs)+len(t.most) == 0 {
		return fmt.Errorf("naive: %s has no rows", name)
	}
	m.tables = append(m.tables, t)
	return nil
}

// governing is the table of a name for a day of service: the last begun.
func (m *Model) governing(name, day string) *table {
	var found *table
	for i := range m.tables {
		t := &m.tables[i]
		if t.name == name && t.from <= day && (found == nil || t.from >= found.from) {
			found = t
		}
	}
	return found
}

// setting: practitioners, outpatient hospitals and suppliers have tables of
// their own; suppliers' are of units alone. A stay meets none.
func (c *claim) setting(units bool) string {
	switch {
	case c.stay():
		return ""
	case c.Form == "I":
		return "hospital"
	case units && strings.HasPrefix(c.Taxonomy, "332B"):
		return "supplier"
	}
	return "practitioner"
}

// gave is the one provider that an edit is about.
func gave(c *claim) string {
	if c.Form == "I" {
		return c.Billing
	}
	return rendering(c)
}

func (p *pastLine) gave(c *claim) string {
	if c.Form == "I" {
		return p.billing
	}
	return p.rendering
}

// units denies more of a procedure than is likely, CO-151: by the line, or by
// all that the provider billed of the day and was allowed of it before.
func (m *Model) units(c *claim, f *family, who *enrolment, lines []*work) {
	for _, w := range lines {
		t := m.governing("mue-"+c.setting(true), w.Date)
		if !w.open() || w.Unit == "MJ" || t == nil {
			continue
		}
		for _, e := range t.most {
			if e.code != w.Procedure {
				continue
			}
			billed := w.Quantity
			if e.indicator != "1" {
				billed = 0
				for _, o := range lines {
					if o.Procedure == w.Procedure && o.Date == w.Date && o.Unit != "MJ" && !o.again {
						billed += o.Quantity
					}
				}
				for _, p := range f.past {
					if p.allowed && p.person == name(who) && p.code == w.Procedure && p.date == w.Date && p.gave(c) == gave(c) {
						billed += p.payable
					}
				}
			}
			if billed > e.units*1000 {
				w.deny("CO", "151")
			}
		}
	}
}

// pairs denies the second procedure of a pair where one provider gave both to
// a person on a day, here or before. It doesn't matter in which order a claim
// lists its lines, nor whether the first is itself the second of another
// pair. The first after its second was paid is for a person to look at.
func (m *Model) pairs(c *claim, f *family, who *enrolment, lines []*work) (doubts []doubt) {
	var billed []*work
	for _, w := range lines {
		if w.open() {
			billed = append(billed, w)
		}
	}
	for _, w := range billed {
		t := m.governing("ptp-"+c.setting(false), w.Date)
		if t == nil || w.Procedure == "" {
			continue
		}
		for _, o := range billed {
			if o == w || o.Date != w.Date || !w.open() {
				continue
			}
			if e := t.pair(o.Procedure, w.Procedure, w.Date); e != nil && !e.apart(o.Modifiers, w.Modifiers) {
				w.deny("CO", e.reason())
			}
		}
		for _, p := range f.past {
			if !w.open() || !p.allowed || p.person != name(who) || p.date != w.Date || p.gave(c) != gave(c) {
				continue
			}
			if e := t.pair(p.code, w.Procedure, w.Date); e != nil && !e.apart(p.modifiers, w.Modifiers) {
				w.deny("CO", e.reason())
				continue
			}
			if e := t.pair(w.Procedure, p.code, w.Date); e != nil && !e.apart(w.Modifiers, p.modifiers) {
				doubts = append(doubts, doubt{w.Number, "unbundled"})
			}
		}
	}
	return doubts
}

func (t *table) pair(one, two, day string) *pairEdit {
	day = strings.ReplaceAll(day, "-", "")
	for i := range t.pairs {
		e := &t.pairs[i]
		if e.one == one && e.two == two && e.modifier != "9" && e.from <= day && (e.to == "" || day <= e.to) {
			return e
		}
	}
	return nil
}

// apart: with indicator 1 a modifier on either procedure says that they were
// given apart; one of a side doesn't where the other has the same side.
func (e *pairEdit) apart(one, two []string) bool {
	if e.modifier != "1" {
		return false
	}
	for _, m := range append(slices.Clone(one), two...) {
		switch m {
		case "24", "25", "27", "57", "58", "59", "78", "79", "91", "XE", "XP", "XS", "XU":
			return true
		case "LT", "RT":
			if !slices.Contains(one, m) || !slices.Contains(two, m) {
				return true
			}
		}
	}
	return false
}

// reason by CMS's rationale.
func (e *pairEdit) reason() string {
	switch {
	case strings.Contains(e.why, "mutually exclusive"):
		return "231"
	case strings.Contains(e.why, "misuse"), strings.Contains(e.why, "coding instruction"), strings.Contains(e.why, "code definition"):
		return "236"
	}
	return "97"
}
