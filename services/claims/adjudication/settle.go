package adjudication

import "github.com/probity-health/probity/services/money"

// split is where a line's allowed amount goes. Its parts add up to it.
type split struct {
	copay, deductible, coinsurance money.Cents // the member's share
	overLimit                      money.Cents // above a benefit's limit: the patient's
	priorPayers                    money.Cents // taken up by earlier payers
	carvedOut                      money.Cents // what they paid, where the plan subtracts it
	paid                           money.Cents
	sequestered                    money.Cents
}

func (s *split) share() money.Cents { return s.copay + s.deductible + s.coinsurance }

// settle moves one line's money, from the allowed amount to what is paid, and
// posts it before the next line is settled: the second line of a claim meets
// the deductible that the first left.
func settle(r *run, l *line) {
	k := r.keys(l)
	if r.exhausted(l, &k) {
		return
	}
	owed, secondary := r.owedAfterPriorPayers(l)
	if secondary && owed == unanswered {
		if l.plan.spec.AwaitOtherPayer {
			r.stop(l, cobAwaited)
			return
		}
		r.deny(l, cobNoPrimaryDecision, "")
		return
	}
	var s split
	shared := r.memberShare(l, &k, &s)
	s.paid = l.out.Allowed - s.share()
	ceiling := r.ceiling(l, &k, &s)
	alone := s
	if secondary {
		r.afterPriorPayers(l, &s, owed)
	}
	sequester(l, &s)

	r.explain(l, &s, shared, ceiling, owed)
	l.out.Paid = s.paid
	for i := range l.out.Adjustments {
		if a := &l.out.Adjustments[i]; a.Group == "PR" {
			l.out.Patient += a.Amount
		}
	}

	r.postings(l, &k, &s, &alone)
}

// explain writes the split down as adjustments.
func (r *run) explain(l *line, s *split, had basis, hit limits, owed money.Cents) {
	deductible, coinsurance := "costShare.inNetwork.deductible", "costShare.inNetwork.coinsurance"
	copay := l.benefit.clauseCopay
	switch {
	case l.named != nil:
		deductible, coinsurance = l.named.clauseDeductible, l.named.clauseCoinsurance
	case l.tier == OutOfNetwork:
		deductible, coinsurance = "costShare.outOfNetwork.deductible", "costShare.outOfNetwork.coinsurance"
	}
	if had.own {
		coinsurance = l.benefit.clauseCoinsurance
	}
	if at := l.benefit.inTier(l.named); at != nil {
		if copay = at.clauseCopay; had.own {
			coinsurance = at.clauseCoinsurance
		}
	}
	if s.overLimit > 0 {
		r.adjust(l, hit.rule, s.overLimit, hit.clause, Fact{"limit_cents", int64(hit.limit)}, Fact{"limit_remaining_cents", int64(hit.left)})
	}
	r.share(l, shareCopay, s.copay, copay, had, Fact{"allowed_cents", int64(l.out.Allowed)})
	r.share(l, shareDeductible, s.deductible, deductible, had, Fact{"deductible_remaining_cents", int64(had.deductibleLeft)})
	r.share(l, shareCoinsurance, s.coinsurance, coinsurance, had, Fact{"coinsurance_bps", had.bps})
	left := Fact{"owed_after_prior_payers_cents", int64(owed)}
	switch {
	case s.priorPayers > 0 && l.plan.spec.Coordination == CarveOut:
		r.adjust(l, cobPriorPayers, s.priorPayers, clauseCarveOut, left, Fact{"paid_by_prior_payers_cents", int64(s.carvedOut)})
	case s.priorPayers > 0:
		r.adjust(l, cobPriorPayers, s.priorPayers, "", left)
	}
	r.adjust(l, sequestrationReduction, s.sequestered, "sequestrationBps", Fact{"sequestration_bps", l.plan.spec.SequestrationBps})
}

// share writes one part of the member's share, with the cap when it cut it.
func (r *run) share(l *line, why rule, amount money.Cents, clause string, had basis, fact Fact) {
	if had.capped {
		r.adjust(l, why, amount, clause, fact, Fact{"out_of_pocket_remaining_cents", int64(had.capLeft)})
		return
	}
	r.adjust(l, why, amount, clause, fact)
}
