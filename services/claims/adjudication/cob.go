package adjudication

import (
	"slices"

	"github.com/probity-health/probity/services/money"
)

// unanswered: another payer decides first and has not.
const unanswered money.Cents = -1

// owedAfterPriorPayers returns what the patient still owed on the line when
// the payers before this one had decided, and whether there are any.
// secondary is false when this plan pays first.
func (r *run) owedAfterPriorPayers(l *line) (owed money.Cents, secondary bool) {
	c := &r.in.Claim
	sequence := c.PayerSequence
	if !r.in.Member.OtherPayerPrimary && (sequence == "" || sequence == "P") {
		return 0, false
	}
	owed, answered := l.Charge, false
	for _, p := range l.PriorAdjudications {
		owed, answered = min(owed, patientOwes(l.Charge, p.Paid, p.Adjustments)), true
	}
	if answered {
		return owed, true
	}
	// Where payers answered by line, a line without an answer has none: their
	// claim-level amounts are about the other lines.
	if slices.ContainsFunc(c.Lines, func(l Line) bool { return len(l.PriorAdjudications) > 0 }) {
		return unanswered, true
	}
	for i := range c.OtherPayers {
		p := &c.OtherPayers[i]
		if !p.Adjudicated {
			continue
		}
		total := patientOwes(c.Charge, p.Paid, p.Adjustments)
		owed, answered = min(owed, r.lineShare(l, total)), true
	}
	if !answered {
		return unanswered, true
	}
	return owed, true
}

// patientOwes reads another payer's answer: the charge less what it paid and
// what it adjusted off, and never more than what it said the patient owes
// when it said so. An answer that doesn't balance is read in the sense that
// pays less, and never beyond the charge.
func patientOwes(charge, paid money.Cents, adjustments []PriorAdjustment) money.Cents {
	owed := plus(charge, -bounded(paid))
	var patients money.Cents
	said := false
	for _, a := range adjustments {
		if a.Group == "PR" {
			patients, said = plus(patients, bounded(a.Amount)), true
			continue
		}
		owed = plus(owed, -bounded(a.Amount))
	}
	if said {
		owed = min(owed, patients)
	}
	return min(max(owed, 0), charge)
}

// clauseCarveOut is quoted where the plan subtracts what others paid.
const clauseCarveOut = "coordination.carve_out"

// paidByPriorPayers is what all payers before this one paid on the line, read
// from the same answers as what the patient still owed. A negative payment is
// none: an answer that can't be is read in the sense that pays less.
func (r *run) paidByPriorPayers(l *line) money.Cents {
	var paid money.Cents
	if len(l.PriorAdjudications) > 0 {
		for _, p := range l.PriorAdjudications {
			paid = plus(paid, max(bounded(p.Paid), 0))
		}
		return paid
	}
	for i := range r.in.Claim.OtherPayers {
		if p := &r.in.Claim.OtherPayers[i]; p.Adjudicated {
			paid = plus(paid, r.lineShare(l, max(bounded(p.Paid), 0)))
		}
	}
	return paid
}

// bounded keeps a stranger's figure inside the range of amounts.
func bounded(c money.Cents) money.Cents { return min(max(c, -maxAmount), maxAmount) }

// lineShare is the line's part of a claim-level amount, by charge. The parts
// of all lines add up to the amount to the cent, because each is the
// difference of two rounded running sums.
func (r *run) lineShare(l *line, amount money.Cents) money.Cents {
	total := r.in.Claim.Charge
	if total <= 0 {
		return 0
	}
	var before money.Cents
	for i := range r.lines {
		if r.lines[i].Line == l.Line {
			break
		}
		before += r.lines[i].Charge
	}
	upTo := portion(amount, int64(before+l.Charge), int64(total))
	return upTo - portion(amount, int64(before), int64(total))
}

// afterPriorPayers cuts the split to what the patient still owed: this plan
// pays at most that, and no more than it would have paid alone. Everything
// that earlier payers paid or adjusted off the charge is OA-23, and this
// plan's own reductions are left only as far as they go beyond it: CARC 45
// may not repeat what a prior payer's adjudication took (X12's notes to CARC
// 23 and 45).
//
// A plan that carves out first subtracts what those payers paid. What it then
// pays less than by the standard method is the member's only as far as it is
// the member's share under this plan. The rest stays with this plan's own
// reductions, which then give way by so much less: a contract's excess remains
// the provider's, and without a contract the patient's. A rest beyond those,
// from answers that don't balance, is OA-23 as well.
func (r *run) afterPriorPayers(l *line, s *split, owed money.Cents) {
	base := min(owed, l.out.Allowed)
	s.priorPayers = l.Charge - owed
	if l.plan.spec.Coordination == CarveOut {
		s.carvedOut = r.paidByPriorPayers(l)
		s.paid = max(s.paid-s.carvedOut, 0)
	}
	s.paid = min(s.paid, base)
	// What remains the patient's keeps the reasons in the order they arose.
	patient := base - s.paid
	take := func(part *money.Cents) {
		*part = min(*part, patient)
		patient -= *part
	}
	take(&s.copay)
	take(&s.deductible)
	take(&s.coinsurance)
	take(&s.overLimit)

	// The excess over the allowed amount gives way first, then the others.
	taken := min(s.priorPayers, l.Charge-l.out.Allowed)
	beside := min(patient, taken) // nothing unless carved out
	taken -= beside
	s.priorPayers += patient - beside
	for _, excess := range []bool{true, false} {
		kept := l.out.Adjustments[:0]
		for _, a := range l.out.Adjustments {
			if (a.CARC == rules[priceAboveAllowed].CARC) == excess {
				off := min(taken, a.Amount)
				taken -= off
				if a.Amount -= off; a.Amount == 0 {
					continue
				}
			}
			kept = append(kept, a)
		}
		l.out.Adjustments = kept
	}
}
