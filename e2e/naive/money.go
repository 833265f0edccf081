package naive

import (
	"slices"
	"strings"
)

// money splits each allowed amount between the plan, the patient and other
// payers, line after line, and adds to the accumulators as it goes.
func (m *Model) money(c *claim, f *family, who *enrolment, lines []*work) {
	// Of a day's operations by one biller the dearest is paid in full: CO-59.
	for i, w := range lines {
		if !w.open() || !w.surgical || w.plan.MultipleBps == 0 || w.plan.MultipleBps == 10000 {
			continue
		}
		first := true
		for j, o := range lines {
			if j != i && o.open() && o.surgical && o.Date == w.Date && (o.price > w.price || (o.price == w.price && j < i)) {
				first = false
			}
		}
		for _, p := range f.past {
			if p.allowed && p.person == name(who) && p.date == w.Date && p.billing == c.Billing {
				if fee := w.schedule.fee(p.code, p.modifiers); fee != nil && fee.Surgical {
					first = false
				}
			}
		}
		if !first {
			less := round(w.price, int64(w.plan.MultipleBps), 10000)
			w.take("CO", "59", w.price-less)
			w.out.Allowed = less
		}
	}
	visited := map[string]bool{}
	for _, w := range lines {
		if w.open() {
			m.split(c, f, who, lines, w, visited)
		}
	}
}

func name(e *enrolment) string { return e.Birth + e.First }

// split is one line's money.
func (m *Model) split(c *claim, f *family, who *enrolment, lines []*work, w *work, visited map[string]bool) {
	b, me := w.benefit, name(who)
	at := func(kind string) string { return kind + "|" + w.tier + "|" + w.year }
	own := func(kind string) string { return at(kind) + "|" + me }
	visits, dollars, lifetime := "visits|"+w.year+"|"+me+"|"+b.Name, "dollars|"+w.year+"|"+me+"|"+b.Name, "lifetime|"+me+"|"+b.Name
	today := b.Name + w.Date

	// A limit with nothing left denies: PR-35, PR-119.
	switch {
	case b.Lifetime > 0 && f.used[lifetime] >= int64(b.Lifetime):
		w.deny("PR", "35")
		return
	case b.Dollars > 0 && f.used[dollars] >= int64(b.Dollars):
		w.deny("PR", "119")
		return
	case b.Visits > 0 && !visited[today] && f.used[visits] >= int64(b.Visits):
		w.deny("PR", "119")
		return
	}
	owed, secondary, answered := owedBefore(c, who, lines, w)
	if secondary && !answered {
		w.deny("CO", "22")
		return
	}

	// The member's share: a copay alone, or deductible and coinsurance.
	s := &w.plan.In
	copay, coinsurance := int64(b.CopayIn), int64(b.CoinsuranceIn)
	if w.tier == "out" {
		s, copay, coinsurance = w.plan.Out, int64(b.CopayOut), int64(b.CoinsuranceOut)
	}
	for i, t := range w.plan.Tiers {
		if w.tier == "in:"+t.Name {
			s = &w.plan.Tiers[i].Share
		}
	}
	for _, t := range b.Tiers {
		if w.tier == "in:"+t.Tier {
			copay, coinsurance = int64(t.Copay), int64(t.Coinsurance)
		}
	}
	if !b.Own {
		coinsurance = int64(s.Coinsurance)
	}
	allowed := w.out.Allowed
	var deductible, percent int64
	if copay > 0 {
		copay = min(copay, allowed)
	} else {
		if !b.Waived {
			deductible = min(allowed, deductibleLeft(s, f, own("deductible"), at("deductible")))
		}
		percent = round(allowed-deductible, coinsurance, 10000)
	}
	// The out-of-pocket cap: the person's and the family's.
	left := int64(1) << 60
	if s.Cap > 0 {
		left = max(0, int64(s.Cap)-f.used[own("pocket")])
	}
	if s.FamilyCap > 0 {
		left = min(left, max(0, int64(s.FamilyCap)-f.used[at("pocket")]))
	}
	copay = min(copay, left)
	deductible = min(deductible, left)
	percent = min(percent, left-deductible)

	// The benefit's limits in dollars: what is above them is the patient's.
	paid := allowed - copay - deductible - percent
	room, limit := paid, ""
	if b.Dollars > 0 && int64(b.Dollars)-f.used[dollars] < room {
		room, limit = int64(b.Dollars)-f.used[dollars], "119"
	}
	if b.Lifetime > 0 && int64(b.Lifetime)-f.used[lifetime] < room {
		room, limit = int64(b.Lifetime)-f.used[lifetime], "35"
	}
	over := paid - room
	paid = room
	credited := deductible // as if this plan were alone

	// Other payers: this plan pays at most what the patient still owed.
	var others int64
	if secondary {
		base := min(owed, allowed)
		others = w.Charge - owed // all they paid and wrote off: X12's note to CARC 23
		if w.plan.Coordination.Method == "carve_out" {
			paid = max(0, paid-paidBefore(c, lines, w)) // no cent that they paid is paid twice
		}
		paid = min(paid, base)
		rest := base - paid
		for _, part := range []*int64{&copay, &deductible, &percent, &over} {
			*part = min(*part, rest)
			rest -= *part
		}
		// What they took may not be told again as this plan's own reduction
		// (X12's note to CARC 45): the excess gives way first, then the rest.
		// Carved out, there is a rest that is no share of the member's: so much
		// of this plan's own reductions stands beside what they took.
		reduced := w.Charge - allowed
		stands := min(rest, others, reduced)
		told := min(others, reduced) - stands
		others += rest - stands
		for _, carcs := range []string{"45", "96 222 59"} {
			for i := range w.out.Adjustments {
				if a := &w.out.Adjustments[i]; strings.Contains(" "+carcs+" ", " "+a.CARC+" ") {
					again := min(told, a.Amount)
					a.Amount -= again
					told -= again
				}
			}
		}
		w.out.Adjustments = slices.DeleteFunc(w.out.Adjustments, func(a Adjustment) bool { return a.Amount == 0 })
	}
	sequestered := round(paid, int64(w.plan.Sequestration), 10000)
	paid -= sequestered

	w.take("PR", limit, over)
	w.take("PR", "3", copay)
	w.take("PR", "1", deductible)
	w.take("PR", "2", percent)
	w.take("OA", "23", others)
	w.take("CO", "253", sequestered)
	w.out.Paid = paid
	for _, a := range w.out.Adjustments {
		if a.Group == "PR" {
			w.out.Patient += a.Amount
		}
	}

	f.used[own("deductible")] += credited
	f.used[at("deductible")] += credited
	f.used[own("pocket")] += copay + deductible + percent
	f.used[at("pocket")] += copay + deductible + percent
	if !visited[today] {
		f.used[visits]++
		visited[today] = true
	}
	f.used[dollars] += paid
	f.used[lifetime] += paid
}

// deductibleLeft: embedded, the person's own or what the family's has left;
// aggregate, the family's for a family and the person's for one alone.
func deductibleLeft(s *share, f *family, own, family string) int64 {
	mine := max(0, int64(s.Deductible)-f.used[own])
	if s.FamilyDeductible == 0 {
		return mine
	}
	ours := max(0, int64(s.FamilyDeductible)-f.used[family])
	if s.Kind == "aggregate" {
		if len(f.persons) > 1 {
			return ours
		}
		return mine
	}
	return min(mine, ours)
}

// owedBefore is what the patient still owed when the payers before this one
// had decided: the charge less what they paid and wrote off, and at most what
// they called the patient's.
func owedBefore(c *claim, who *enrolment, lines []*work, w *work) (owed int64, secondary, answered bool) {
	if c.Sequence == "P" && !who.OtherPrimary {
		return 0, false, false
	}
	// The last payer's answer tells what was left to the patient.
	if n := len(w.Priors); n > 0 {
		last := w.Priors[n-1]
		rest, patient, said := w.Charge-last.Paid, int64(0), false
		for _, a := range last.Adjustments {
			if a.Group == "PR" {
				patient, said = patient+a.Amount, true
			} else {
				rest -= a.Amount
			}
		}
		if said {
			rest = min(rest, patient)
		}
		return max(0, rest), true, true
	}
	for _, l := range lines {
		if len(l.Priors) > 0 {
			return 0, true, false // they answered by line, and not on this one
		}
	}
	paid, answered := c.paidByOthers()
	if !answered {
		return 0, true, false
	}
	// Decided as a whole: each line's part by charge, to the cent.
	return c.part(max(0, c.Charge-paid), lines, w), true, true
}

// paidByOthers is what those payers paid that answered for the whole claim.
func (c *claim) paidByOthers() (paid int64, answered bool) {
	for _, o := range c.Others {
		if o.Decided {
			paid, answered = paid+o.Paid, true
		}
	}
	return paid, answered
}

// part is a line's share of a claim's amount.
func (c *claim) part(amount int64, lines []*work, w *work) int64 {
	var before int64
	for _, l := range lines {
		if l.Number == w.Number {
			break
		}
		before += l.Charge
	}
	return round(amount, before+w.Charge, c.Charge) - round(amount, before, c.Charge)
}

// paidBefore is what the payers before this one paid on the line.
func paidBefore(c *claim, lines []*work, w *work) (paid int64) {
	for _, p := range w.Priors {
		paid += p.Paid
	}
	if len(w.Priors) > 0 {
		return paid
	}
	// Each payer's payment is shared by itself: so are its cents.
	for _, o := range c.Others {
		if o.Decided {
			paid += c.part(o.Paid, lines, w)
		}
	}
	return paid
}

// twice: an earlier open line of the claim is the same service.
func (m *Model) twice(c *claim, lines []*work, i int) bool {
	w := lines[i]
	if repeated(w.Modifiers) {
		return false
	}
	for _, o := range lines[:i] {
		if o.open() && o.Procedure == w.Procedure && o.Revenue == w.Revenue && o.Date == w.Date && o.last() == w.last() && o.Charge == w.Charge &&
			o.Quantity == w.Quantity && sameSet(o.Modifiers, w.Modifiers) {
			return true
		}
	}
	return false
}

// before looks among the person's allowed lines for the same service, and
// for one that differs in one point.
func (f *family) before(c *claim, who *enrolment, w *work) (same, nearly bool) {
	for _, p := range f.past {
		if !p.allowed || p.person != name(who) || p.code != w.code() || p.date > w.last() || p.end < w.Date {
			continue
		}
		points := 0
		if p.date != w.Date || p.end != w.last() {
			points++
		}
		if p.billing != c.Billing || p.rendering != rendering(c) {
			points++
		}
		if p.quantity != w.Quantity {
			points++
		}
		if p.charge != w.Charge {
			points++
		}
		modifiers := !sameSet(p.modifiers, w.Modifiers)
		if modifiers {
			points++
		}
		switch {
		case points == 0:
			return true, false
		case points > 1, repeated(w.Modifiers):
		case modifiers && (separate(p.modifiers) || separate(w.Modifiers)):
		default:
			nearly = true
		}
	}
	return false, nearly
}

func (w *work) code() string {
	if w.Procedure == "" {
		return "revenue " + w.Revenue
	}
	return w.Procedure
}

func rendering(c *claim) string {
	if c.Rendering == "" {
		return c.Billing
	}
	return c.Rendering
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// repeated modifiers say that the service was given again on purpose.
func repeated(modifiers []string) bool {
	for _, m := range modifiers {
		if slices.Contains([]string{"76", "77", "91", "59", "XE", "XP", "XS", "XU"}, m) {
			return true
		}
	}
	return false
}

// separate modifiers set a service apart; of those generated, the
// professional component and left and right.
func separate(modifiers []string) bool {
	for _, m := range modifiers {
		if slices.Contains([]string{"26", "TC", "LT", "RT", "50"}, m) {
			return true
		}
	}
	return repeated(modifiers)
}

// authorized returns the CARC of a line that lacks its authorisation.
func (f *family) authorized(c *claim, who *enrolment, w *work) string {
	for _, a := range f.authorizations {
		if a.Number != c.Auth || a.Birth != who.Birth || !within(a.Procedures, w.Procedure) {
			continue
		}
		if !a.Effective.has(w.Date) {
			return "197"
		}
		used := w.Quantity
		for _, p := range f.past {
			if p.allowed && p.person == name(who) && a.Effective.has(p.date) && within(a.Procedures, p.code) {
				used += p.payable
			}
		}
		if a.Units > 0 && used > int64(a.Units)*1000 {
			return "198"
		}
		return ""
	}
	return "197"
}

// remember keeps what later claims of the family must know; a claim of which
// nothing was allowed leaves nothing.
func (m *Model) remember(c *claim, f *family, who *enrolment, lines []*work) {
	for _, w := range lines {
		f.past = append(f.past, pastLine{
			person: name(who), billing: c.Billing, rendering: rendering(c), date: w.Date, end: w.last(), code: w.code(), modifiers: w.Modifiers,
			quantity: w.Quantity, charge: w.Charge, allowed: w.open(), payable: w.payable, surgical: w.surgical,
		})
	}
}
