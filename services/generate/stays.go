package generate

import (
	"math/rand/v2"
	"strings"
	"time"
)

// stay makes the lines of an inpatient claim that ends on a day: room and
// board, and what a stay uses, dated by the statement.
func stay(rng *rand.Rand, c *Claim, through string) {
	nights := 1 + rng.IntN(5)
	c.Kind, c.Facility = "stay by the day", "11"
	c.Through, c.From = through, before(through, nights)
	c.Admitted, c.AdmissionType, c.AdmissionSource, c.PatientStatus = c.From, pick(rng, []string{"1", "2", "3"}), "1", "01"
	intensive := 0
	if nights > 2 && rng.IntN(3) == 0 {
		intensive = 1 + rng.IntN(nights-1)
	}
	add := func(revenue, unit string, quantity int, each int64) {
		c.Lines = append(c.Lines, Line{Revenue: revenue, Unit: unit, Quantity: int64(quantity) * 1000, Date: c.From, End: c.Through,
			Charge: each*int64(quantity) + int64(rng.IntN(97))})
	}
	add("0120", "DA", nights-intensive, 1450_00)
	if intensive > 0 {
		add("0206", "DA", intensive, 2600_00)
	}
	for _, extra := range []struct {
		revenue string
		each    int64
	}{{"0250", 310_00}, {"0270", 185_00}, {"0301", 96_00}, {"0360", 2400_00}} {
		if rng.IntN(2) == 0 {
			add(extra.revenue, "UN", 1+rng.IntN(3), extra.each)
		}
	}
	days := int64(nights)
	switch rng.IntN(3) {
	case 0:
		c.Kind, c.DRG = "stay by group", pick(rng, []string{"470", "419", "392", "871"}) // the last has no weight
	case 1:
		c.CoveredDays = &days
	}
	switch rng.IntN(14) {
	case 0:
		c.Kind, c.Admitted = "stay without admission", ""
	case 1:
		c.Kind, c.Lines[0].Quantity = "stay of too many days", c.Lines[0].Quantity+1000
	case 2:
		c.Kind, c.PatientStatus = "stay that goes on", "30"
		c.Lines[0].Quantity += 1000
		c.CoveredDays = nil
	case 3:
		if c.CoveredDays != nil {
			days--
			c.Kind = "stay beyond covered days"
		}
	case 4, 5:
		l := &c.Lines[len(c.Lines)-1]
		l.Noncovered = l.Charge / 3
	}
}

// stay tells whether the claim is an inpatient's.
func (c *Claim) stay() bool { return c.Through != "" }

// move puts the claim's services on another day, a stay's last.
func (c *Claim) move(date string) {
	shift := func(day *string, by int) {
		if *day != "" {
			*day = before(*day, by)
		}
	}
	by := daysBetween(date, max(c.Lines[0].Date, c.Through))
	for i := range c.Lines {
		shift(&c.Lines[i].Date, by)
		shift(&c.Lines[i].End, by)
	}
	shift(&c.From, by)
	shift(&c.Through, by)
	shift(&c.Admitted, by)
}

// daysBetween counts the days from one date to another.
func daysBetween(from, to string) int {
	a, err1 := time.Parse(time.DateOnly, from)
	b, err2 := time.Parse(time.DateOnly, to)
	if err1 != nil || err2 != nil {
		panic("generate: a date of our own is none")
	}
	return int(b.Sub(a).Hours() / 24)
}

// pairRows are the pairs of the claim's setting.
func (c *Claim) pairRows() []pairRow {
	if c.Form == "I" {
		return hospitalPairs
	}
	return practitionerPairs
}

// apart says by a modifier of some second procedures that they were given
// apart from the first.
func (c *Claim) apart(rng *rand.Rand) {
	for i := range c.Lines {
		l := &c.Lines[i]
		for _, p := range partners(c.pairRows(), l.Procedure) {
			if p.second || !c.bills(p.code) {
				continue
			}
			if len(l.Modifiers) < 2 && rng.IntN(3) == 0 {
				l.Modifiers = append(l.Modifiers, pick(rng, []string{"59", "XU", "XS"}))
			}
			break
		}
	}
}

func (c *Claim) bills(procedure string) bool {
	for i := range c.Lines {
		if c.Lines[i].Procedure == procedure {
			return true
		}
	}
	return false
}

// restOfDay bills more of an earlier claim's day on a claim of its own: what
// is part of a service that was billed, the whole of which a part was billed,
// or more units of the same.
func (w *World) restOfDay(rng *rand.Rand, f *Family) bool {
	list := &f.Professional
	if len(f.Institutional) > 0 && rng.IntN(3) == 0 {
		list = &f.Institutional
	}
	for _, first := range *list {
		if first.Kind != "clean" || first.stay() {
			continue
		}
		for _, was := range first.Lines {
			v, kind := w.more(rng, &first, &was)
			if kind == "" {
				continue
			}
			c := first
			c.Kind = kind
			l := Line{Procedure: v.code, Revenue: was.Revenue, Unit: "UN", Quantity: 1000, Date: was.Date, Charge: v.charge + int64(rng.IntN(97)), Pointers: was.Pointers}
			if v.code == was.Procedure {
				l.Quantity = was.Quantity + 1000
			}
			if kind == "part of the day's whole" && rng.IntN(3) == 0 {
				l.Modifiers = []string{"59"}
			}
			c.Lines = []Line{l}
			c.sum()
			*list = append(*list, c)
			return true
		}
	}
	return false
}

// more chooses what else to bill of a line's day.
func (w *World) more(rng *rand.Rand, c *Claim, was *Line) (service, string) {
	if ps := partners(c.pairRows(), was.Procedure); len(ps) > 0 {
		p := pick(rng, ps)
		if v, ok := serviceOf(p.code, c.Form); ok && !c.bills(p.code) && (p.second || rng.IntN(3) == 0) {
			if p.second {
				return v, "part of the day's whole"
			}
			return v, "whole after its part"
		}
	}
	units := practitionerUnits
	switch {
	case c.Form == "I":
		units = hospitalUnits
	case strings.HasPrefix(c.Taxonomy, "332B"):
		units = supplierUnits
	}
	for _, u := range units {
		if u.code == was.Procedure && was.Unit == "UN" {
			if v, ok := serviceOf(u.code, c.Form); ok {
				return v, "more units of the day"
			}
		}
	}
	return service{}, ""
}

// serviceOf finds a procedure in the catalogue of hospitals or of the others.
func serviceOf(code, form string) (service, bool) {
	for i := range specialties {
		s := &specialties[i]
		if s.hospital != (form == "I") {
			continue
		}
		for _, list := range [][]service{s.visits, s.extras} {
			for _, v := range list {
				if v.code == code {
					return v, true
				}
			}
		}
	}
	return service{}, false
}
