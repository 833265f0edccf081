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
// pays at most that, and no more than it would have paid alone. What earlier
// payers paid or wrote off of the allowed amount is OA-23.
func (r *run) afterPriorPayers(l *line, s *split, owed money.Cents) {
	base := min(owed, l.out.Allowed)
	s.priorPayers = l.out.Allowed - base
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

	// Out of network the excess over the allowed amount is the patient's only
	// as far as the earlier payers left it so. The rest joins OA-23, because a
	// reason may stand only once in a line's group (835 TR3, CAS).
	kept := l.out.Adjustments[:0]
	for _, a := range l.out.Adjustments {
		if a.RuleID == rules[priceAboveAllowedOut].ID {
			still := min(a.Amount, max(0, owed-l.out.Allowed))
			s.priorPayers += a.Amount - still
			if a.Amount = still; still == 0 {
				continue
			}
		}
		kept = append(kept, a)
	}
	l.out.Adjustments = kept
}
