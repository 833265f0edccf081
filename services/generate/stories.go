package generate

import (
	"fmt"
	"math/rand/v2"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// Claims of a family fall on days of their own, so that none is taken for
// another's repetition unless it is meant to be one. The oldest timely service
// is oldest days before receipt: with Slack inside the shortest filing limit.
const (
	oldest   = 86
	youngest = 6
)

// stories makes a family's claims.
func (w *World) stories(rng *rand.Rand, f *Family, n int, course bool) {
	step := max(1, (oldest-youngest)/(n+1))
	f.nextDay = oldest - rng.IntN(step)
	who := rng.IntN(len(f.persons))
	what := 7 + rng.IntN(2) // physical therapy or chiropractic
	for range n {
		if !course || sometimes(rng, 150) {
			who, what = rng.IntN(len(f.persons)), w.specialty(rng)
		}
		if sometimes(rng, w.mix.Duplicate) && w.again(rng, f, false) {
			continue
		}
		if sometimes(rng, w.mix.Suspected) && w.again(rng, f, true) {
			continue
		}
		if sometimes(rng, w.mix.SameDay) && w.restOfDay(rng, f) {
			continue
		}
		c := w.claim(rng, f, who, what)
		if c.Form == "I" {
			f.Institutional = append(f.Institutional, c)
		} else {
			f.Professional = append(f.Professional, c)
		}
		f.nextDay -= step
	}
}

// specialty of a claim, by share.
func (w *World) specialty(rng *rand.Rand) int {
	if sometimes(rng, w.mix.Institutional) {
		return len(specialties) - 1
	}
	for n := rng.IntN(1000); ; {
		for s, kind := range specialties {
			if n -= kind.share; n < 0 {
				return s
			}
		}
	}
}

// again files an earlier claim once more, as it was or with one field changed.
func (w *World) again(rng *rand.Rand, f *Family, changed bool) bool {
	list := &f.Professional
	if len(*list) == 0 || (len(f.Institutional) > 0 && rng.IntN(4) == 0) {
		list = &f.Institutional
	}
	if len(*list) == 0 {
		return false
	}
	first := pick(rng, *list)
	c := first
	c.Lines = append([]Line{}, first.Lines...)
	c.Kind = "duplicate"
	if changed {
		c.Kind = "suspected duplicate"
		l := &c.Lines[rng.IntN(len(c.Lines))]
		switch way := rng.IntN(3); {
		case way == 0:
			l.Charge += 100
			l.Priors = nil
		// A modifier has its place behind a procedure, so a line of a hospital
		// that names none can't differ by one: no 837I could say so.
		case way == 1 || l.Procedure == "":
			l.Quantity += 1000
		default:
			l.Modifiers = append(append([]string{}, l.Modifiers...), "KX")
		}
	}
	c.sum()
	*list = append(*list, c)
	return true
}

// claim makes one claim of a person by a specialty, with at most one thing out of the ordinary.
func (w *World) claim(rng *rand.Rand, f *Family, who, what int) Claim {
	p, kind := &f.persons[who], &specialties[what]
	c := Claim{
		Kind: "clean", Form: "P", MemberID: f.memberID, Subscriber: f.persons[0].Person, Patient: p.Person, Relationship: p.relationship,
		Frequency: "1", Sequence: "P", Place: kind.place, Diagnoses: diagnoses(rng, kind),
	}
	if kind.hospital {
		c.Form, c.Place, c.Facility = "I", "", "13"
	}
	date := w.day(f.nextDay)
	w.provide(rng, f, &c, what)
	if kind.hospital && sometimes(rng, w.mix.Stays) {
		stay(rng, &c, date)
	} else {
		w.lines(rng, &c, kind, date)
	}
	w.authorize(rng, f, &c, p, kind, date)
	if f.plan == planHMO && kind.referral && !sometimes(rng, 12*w.mix.NoReferral) {
		c.Referral, c.ReferringNPI = fmt.Sprintf("RF%06d", rng.IntN(1_000_000)), w.providers[0].npi
	}
	if p.secondary {
		w.coordinate(rng, &c, date)
	}
	w.trouble(rng, f, &c, p, kind)
	c.sum()
	if c.Kind == "out of balance" {
		c.Charge += 500
	}
	return c
}

func diagnoses(rng *rand.Rand, kind *specialty) []string {
	out := []string{pick(rng, kind.diagnoses)}
	if d := pick(rng, kind.diagnoses); d != out[0] && rng.IntN(3) == 0 {
		out = append(out, d)
	}
	return out
}

// provide chooses who bills.
func (w *World) provide(rng *rand.Rand, f *Family, c *Claim, what int) {
	at := what * (providersEach + 1)
	n := rng.IntN(providersEach)
	if sometimes(rng, w.mix.OutOfNetwork) {
		n, c.Kind = providersEach, "out of network"
	}
	c.billing = w.providers[at+n]
	if more := w.providers[capitated+1:]; what == anesthesia && n < providersEach && len(more) > 0 {
		if k := rng.IntN(providersEach + len(more)); k >= providersEach {
			c.billing = more[k-providersEach]
		}
	}
	if f.plan == planHMO && what == 0 && n < providersEach && rng.IntN(6) == 0 {
		c.billing, c.Kind = w.providers[capitated], "capitated"
	}
	c.BillingNPI, c.RenderingNPI, c.TaxID, c.Taxonomy = c.billing.npi, c.billing.rendering, c.billing.taxID, specialties[c.billing.specialty].taxonomy
}

// lines are the services of one day: a visit and what follows from it.
func (w *World) lines(rng *rand.Rand, c *Claim, kind *specialty, date string) {
	services := []service{pick(rng, kind.visits)}
	extras := append([]service{}, kind.extras...)
	for range min(rng.IntN(4), len(extras)) {
		i := rng.IntN(len(extras))
		if extras[i].code != services[0].code {
			services = append(services, extras[i])
		}
		extras = append(extras[:i], extras[i+1:]...)
	}
	for i, v := range services {
		units := int64(1)
		if v.maxUnits > 0 {
			units = int64(1 + rng.IntN(v.maxUnits))
			if rng.IntN(20) == 0 {
				units = int64(v.maxUnits) + 1 // more than the contract pays for
			}
		}
		l := Line{Procedure: v.code, Revenue: v.revenue, Unit: "UN", Quantity: units * 1000, Date: date,
			Charge: v.charge*units + int64(rng.IntN(97))}
		if v.base > 0 {
			minutes := int64(15 + rng.IntN(200))
			l.Unit, l.Quantity, l.Charge = "MJ", minutes*1000, v.charge+minutes*int64(250+rng.IntN(400))
			l.Modifiers = []string{pick(rng, []string{"AA", "AA", "QZ", "QK", "QX", "QY", "AD"})}
		}
		if c.Form == "P" {
			l.Pointers = []int{1 + rng.IntN(len(c.Diagnoses))}
		}
		switch {
		case i == 0 && len(services) > 1 && len(v.code) == 5 && v.code[:2] == "99" && c.Form == "P":
			l.Modifiers = []string{"25"}
		case (v.code == "73721" || v.code == "71046") && rng.IntN(5) == 0 && c.Form == "P":
			l.Modifiers = []string{"26"}
		}
		l.Emergency = c.Kind == "out of network" && c.Form == "P" && sometimes(rng, 5*w.mix.Emergency)
		c.Lines = append(c.Lines, l)
	}
	c.apart(rng)
	if c.Form == "I" && rng.IntN(12) == 0 {
		l := &c.Lines[len(c.Lines)-1]
		l.Noncovered = l.Charge * int64(1+rng.IntN(4)) / 4
	}
	if c.Form == "P" && rng.IntN(200) == 0 {
		c.Kind, c.Lines = "line twice", append(c.Lines, c.Lines[len(c.Lines)-1])
	}
}

// authorize asks the payer beforehand where the service needs it, mostly.
func (w *World) authorize(rng *rand.Rand, f *Family, c *Claim, p *member, kind *specialty, date string) {
	i := 0
	for ; i < len(kind.visits); i++ {
		if (kind.visits[i].auth || kind.visits[i].listed && f.plan == planHDHP) && kind.visits[i].code == c.Lines[0].Procedure {
			break
		}
	}
	if i == len(kind.visits) {
		return
	}
	if sometimes(rng, 5*w.mix.NoAuthorization) {
		c.Kind = "no authorization"
		return
	}
	c.Auth = fmt.Sprintf("PA%s%02d", f.memberID[2:], len(f.Authorizations)+1)
	a := &policiesv1.PriorAuthorization{
		Number: c.Auth, PayerId: PayerID, MemberId: f.memberID, BirthDate: p.Birth, Procedures: []string{kind.visits[i].code},
		Units: uint32(rng.IntN(3)), Effective: &typev1.Period{StartDate: before(date, 10), EndDate: before(date, -60)},
	}
	switch rng.IntN(25) {
	case 0:
		c.Kind, a.Procedures = "other service authorized", []string{"72141"}
	case 1:
		c.Kind, a.Effective.EndDate = "authorization expired", before(date, 1)
	case 2:
		c.Kind, a.Units = "authorization exceeded", 1
		c.Lines[0].Quantity, c.Lines[0].Charge = 2000, 2*c.Lines[0].Charge
	}
	f.Authorizations = append(f.Authorizations, a)
}

// coordinate adds the payers that decide first, mostly with their decisions:
// one, or for a third payer's claim two.
func (w *World) coordinate(rng *rand.Rand, c *Claim, date string) {
	c.Sequence = "S"
	c.Others = []OtherPayer{{ID: "TIDEWATER", Name: "TIDEWATER MUTUAL", Sequence: "P"}}
	if rng.IntN(w.mix.OtherPayer+w.mix.NoPrimaryAnswer) < w.mix.NoPrimaryAnswer {
		c.Kind = "no primary decision"
		return
	}
	c.Kind = "secondary"
	if rng.IntN(4) == 0 {
		c.Kind, c.Sequence = "tertiary", "T"
		c.Others = append(c.Others, OtherPayer{ID: "GALEFORCE", Name: "GALEFORCE BENEFIT TRUST", Sequence: "S"})
	}
	for i := range c.Others {
		c.Others[i].Decided, c.Others[i].Date = true, before(date, -4*(i+1))
	}
	byLine := rng.IntN(4) > 0
	for i := range c.Lines {
		l := &c.Lines[i]
		priors := []Prior{primary(rng, l.Charge)}
		if len(c.Others) == 2 {
			priors = append(priors, next(rng, l.Charge, &priors[0]))
		}
		for j := range priors {
			priors[j].Payer, priors[j].Date = c.Others[j].ID, c.Others[j].Date
			c.Others[j].Paid += priors[j].Paid
		}
		if byLine {
			l.Priors = priors
		}
	}
	if !byLine {
		c.Kind += ", decided as a whole"
	}
}

// primary is what the first payer says to a charge.
func primary(rng *rand.Rand, charge int64) Prior {
	allowed := charge * int64(55+rng.IntN(35)) / 100
	patient := allowed * int64(rng.IntN(60)) / 100
	if rng.IntN(10) == 0 {
		patient = allowed // its deductible
	}
	p := Prior{Paid: allowed - patient}
	if charge > allowed {
		p.Adjustments = append(p.Adjustments, Adjustment{"CO", "45", charge - allowed})
	}
	if patient > 0 {
		p.Adjustments = append(p.Adjustments, Adjustment{"PR", pick(rng, []string{"1", "2", "3"}), patient})
	}
	return p
}

// next is what the second payer says to what the first has left: OA-23 is all
// that the first paid and wrote off (X12's note to CARC 23).
func next(rng *rand.Rand, charge int64, first *Prior) Prior {
	left := int64(0)
	for _, a := range first.Adjustments {
		if a.Group == "PR" {
			left += a.Amount
		}
	}
	p := Prior{Paid: left * int64(rng.IntN(101)) / 100, Adjustments: []Adjustment{{"OA", "23", charge - left}}}
	if patient := left - p.Paid; patient > 0 {
		p.Adjustments = append(p.Adjustments, Adjustment{"PR", pick(rng, []string{"1", "2"}), patient})
	}
	return p
}

// trouble is what goes wrong, at most one thing a claim.
func (w *World) trouble(rng *rand.Rand, f *Family, c *Claim, p *member, kind *specialty) {
	chance := rng.IntN(1000)
	happens := func(perMille int) bool {
		chance -= perMille
		return chance < 0 && chance >= -perMille
	}
	switch {
	case happens(w.mix.Late):
		c.Kind = "late"
		date := w.day(filingDays[f.plan] + 3 + (oldest - f.nextDay))
		c.move(date)
	case happens(w.mix.UnknownMember):
		c.Kind = "unknown member"
		c.MemberID = "XX" + c.MemberID[2:]
	case happens(w.mix.NotCovered):
		if p.to != "" {
			return
		}
		c.Kind = "after the end of cover"
		p.to = before(c.Lines[0].Date, 1)
	case happens(w.mix.Modifiers):
		if c.stay() {
			return
		}
		c.Kind = "modifiers contradict"
		c.Lines = append(c.Lines, Line{Procedure: "80061", Modifiers: []string{"25"}, Revenue: revenueIf(c, "0301"), Unit: "UN", Quantity: 1000, Charge: 61_00,
			Pointers: c.Lines[0].Pointers, Date: c.Lines[0].Date})
	case happens(w.mix.Review):
		c.Kind = "high charge"
		c.Lines[0].Charge = 26_000_00
		c.Lines[0].Priors = nil
	case happens(w.mix.BadNPI):
		c.Kind = "bad NPI"
		c.BillingNPI = broken(c.BillingNPI)
	case happens(w.mix.OutOfBalance):
		c.Kind = "out of balance"
	case happens(w.mix.Accident):
		if c.Form == "P" {
			c.Kind, c.Accident = "accident", pick(rng, []string{"AA", "EM", "OA"})
		}
	}
}

func revenueIf(c *Claim, code string) string {
	if c.Form == "I" {
		return code
	}
	return ""
}

// correct makes what is said of a family once its claims are decided:
// replacements and voids, or a coverage that ended before some of them.
func (w *World) correct(rng *rand.Rand, f *Family) {
	if sometimes(rng, w.mix.Terminated) {
		w.terminate(rng, f)
		return
	}
	for _, list := range [][]Claim{f.Professional, f.Institutional} {
		for _, c := range list {
			chance := rng.IntN(1000)
			if !c.decidable() || c.MemberID != f.memberID {
				continue // never decided, or nobody's
			}
			was := c
			c.ID, c.Original = was.ID+"C", was.ID
			c.Lines = append([]Line{}, was.Lines...)
			late := chance >= w.mix.Replaced+w.mix.Voided
			switch {
			case chance >= w.mix.Replaced+w.mix.Voided+w.mix.LateReplaced:
				continue
			case chance < w.mix.Replaced || late:
				c.Kind, c.Frequency = "replacement", "7"
				l := &c.Lines[len(c.Lines)-1]
				l.Charge, l.Noncovered, l.Priors = l.Charge*9/10+1, 0, nil
				c.sum()
				if late {
					c.Kind = "late replacement"
					c.move(w.day(filingDays[f.plan] + 5))
				}
			default:
				c.Kind, c.Frequency = "void", "8"
			}
			f.Corrections = append(f.Corrections, c)
		}
	}
}

// decidable tells whether the edge lets the claim through.
func (c *Claim) decidable() bool {
	var total int64
	for i := range c.Lines {
		total += c.Lines[i].Charge
	}
	return total == c.Charge && c.BillingNPI == c.billing.npi
}

// terminate ends the coverage of somebody who was treated, some days before.
func (w *World) terminate(rng *rand.Rand, f *Family) {
	all := append(append([]Claim{}, f.Professional...), f.Institutional...)
	c := pick(rng, all)
	for _, p := range f.persons {
		if p.Person == c.Patient && p.to == "" && c.MemberID == f.memberID {
			f.Terminations = append(f.Terminations, Termination{MemberID: f.memberID, Person: p.Person, End: before(c.Lines[0].Date, 1+rng.IntN(20))})
			return
		}
	}
}
