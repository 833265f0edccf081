package adjudication

import "github.com/probity-health/probity/services/money"

// visit is a day on which this claim has counted a visit of a benefit.
type visit struct {
	benefit *benefit
	on      Date
}

// split is where a line's allowed amount goes. Its parts add up to it.
type split struct {
	copay, deductible, coinsurance money.Cents // the member's share
	overLimit                      money.Cents // above a benefit's limit: the patient's
	priorPayers                    money.Cents // taken up by earlier payers
	paid                           money.Cents
	sequestered                    money.Cents
}

func (s *split) share() money.Cents { return s.copay + s.deductible + s.coinsurance }

// keys of a line's accumulators.
type keys struct {
	deductible, familyDeductible   Key
	outOfPocket, familyOutOfPocket Key
	visits, dollars, lifetime      Key
}

func (r *run) keys(l *line) keys {
	subject := r.in.Member.Subject
	return keys{
		deductible:        Key{Scope: Individual, Kind: Deductible, Network: l.tier, PlanYear: l.yearly, Subject: subject},
		familyDeductible:  Key{Scope: Family, Kind: Deductible, Network: l.tier, PlanYear: l.yearly},
		outOfPocket:       Key{Scope: Individual, Kind: OutOfPocket, Network: l.tier, PlanYear: l.yearly, Subject: subject},
		familyOutOfPocket: Key{Scope: Family, Kind: OutOfPocket, Network: l.tier, PlanYear: l.yearly},
		visits:            Key{Scope: Individual, Kind: Visits, Network: AllNetworks, PlanYear: l.yearly, Subject: subject, Benefit: l.benefit.Name},
		dollars:           Key{Scope: Individual, Kind: Dollars, Network: AllNetworks, PlanYear: l.yearly, Subject: subject, Benefit: l.benefit.Name},
		lifetime:          Key{Scope: Individual, Kind: Lifetime, Network: AllNetworks, Subject: subject, Benefit: l.benefit.Name},
	}
}

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
	if bps := l.plan.spec.SequestrationBps; bps > 0 {
		s.sequestered = portion(s.paid, bps, whole)
		s.paid -= s.sequestered
	}

	r.explain(l, &s, shared, ceiling, owed)
	l.out.Paid = s.paid
	for i := range l.out.Adjustments {
		if a := &l.out.Adjustments[i]; a.Group == "PR" {
			l.out.Patient += a.Amount
		}
	}

	// The deductible is credited as if this plan were alone, as the NAIC's
	// coordination of benefits model asks of a secondary plan; out of pocket
	// is what the patient really still owes.
	r.tally.post(k.deductible, alone.deductible)
	r.tally.post(k.familyDeductible, alone.deductible)
	r.tally.post(k.outOfPocket, s.share())
	r.tally.post(k.familyOutOfPocket, s.share())
	if l.benefit.VisitsPerYear > 0 && !r.counted(l) {
		r.tally.post(k.visits, 1)
		r.visited = append(r.visited, visit{l.benefit, l.ServiceDate})
	}
	if l.benefit.DollarsPerYear > 0 {
		r.tally.post(k.dollars, s.paid)
	}
	if l.benefit.LifetimeDollars > 0 {
		r.tally.post(k.lifetime, s.paid)
	}
}

// counted tells whether this claim's visit of the benefit's day was counted:
// the lines of one day are one visit.
func (r *run) counted(l *line) bool {
	for _, v := range r.visited {
		if v.benefit == l.benefit && v.on == l.ServiceDate {
			return true
		}
	}
	return false
}

// exhausted denies a line whose benefit has nothing left.
func (r *run) exhausted(l *line, k *keys) bool {
	b := l.benefit
	if b.LifetimeDollars > 0 {
		if used := r.tally.sum(k.lifetime); used >= b.LifetimeDollars {
			r.deny(l, limitLifetime, b.clauseLifetime, Fact{"limit_cents", int64(b.LifetimeDollars)}, Fact{"used_cents", int64(used)})
			return true
		}
	}
	if b.DollarsPerYear > 0 {
		if used := r.tally.sum(k.dollars); used >= b.DollarsPerYear {
			r.deny(l, limitDollars, b.clauseDollars, Fact{"limit_cents", int64(b.DollarsPerYear)}, Fact{"used_cents", int64(used)})
			return true
		}
	}
	if b.VisitsPerYear > 0 && !r.counted(l) {
		if used := int64(r.tally.sum(k.visits)); used >= b.VisitsPerYear {
			r.deny(l, limitVisits, b.clauseVisits, Fact{"limit_visits", b.VisitsPerYear}, Fact{"used_visits", used})
			return true
		}
	}
	return false
}

// basis is what the member's share was reckoned from, for the explanation.
type basis struct {
	deductibleLeft money.Cents
	bps            int64
	own            bool // the benefit's own coinsurance
	capLeft        money.Cents
	capped         bool // the out-of-pocket cap cut the share
}

// memberShare splits off what the member owes: a copay alone, or the
// deductible and then coinsurance of the rest; never more than the
// out-of-pocket cap has left, which what comes last gives up first.
func (r *run) memberShare(l *line, k *keys, s *split) basis {
	share, b, allowed := l.plan.share(l.tier), l.benefit, l.out.Allowed
	copay, ownBps := b.CopayIn, b.CoinsuranceInBps
	if l.tier == OutOfNetwork {
		copay, ownBps = b.CopayOut, b.CoinsuranceOutBps
	}
	had := basis{bps: share.CoinsuranceBps, own: b.UseCoinsurance}
	if b.UseCoinsurance {
		had.bps = ownBps
	}
	if copay > 0 {
		s.copay = min(copay, allowed)
	} else {
		if !b.DeductibleWaived {
			had.deductibleLeft = r.deductibleLeft(share, k)
			s.deductible = min(allowed, had.deductibleLeft)
		}
		s.coinsurance = portion(allowed-s.deductible, had.bps, whole)
	}
	had.capLeft = min(r.left(share.OutOfPocketIndividual, &k.outOfPocket), r.left(share.OutOfPocketFamily, &k.familyOutOfPocket))
	uncut := s.share()
	s.copay = min(s.copay, had.capLeft)
	s.deductible = min(s.deductible, had.capLeft)
	s.coinsurance = min(s.coinsurance, had.capLeft-s.deductible)
	had.capped = s.share() < uncut
	return had
}

// deductibleLeft is what the member must still meet. Embedded: the person's
// own, or less when the family's is nearly met. Aggregate: a family has only
// the family's; a person alone has the individual one.
func (r *run) deductibleLeft(share *CostShare, k *keys) money.Cents {
	own := rest(share.DeductibleIndividual, r.tally.sum(k.deductible))
	if share.DeductibleFamily == 0 {
		return own
	}
	family := rest(share.DeductibleFamily, r.tally.sum(k.familyDeductible))
	switch {
	case share.AggregateDeductible && r.in.Member.Family:
		return family
	case share.AggregateDeductible:
		return own
	}
	return min(own, family)
}

// noCap is more than any line can owe.
const noCap = maxAmount + 1

// left is what a limit has left; a limit of 0 is none.
func (r *run) left(limit money.Cents, k *Key) money.Cents {
	if limit == 0 {
		return noCap
	}
	return rest(limit, r.tally.sum(*k))
}

func rest(limit, used money.Cents) money.Cents {
	if used < 0 {
		used = 0 // a snapshot below zero is a reversal too many: not a larger limit
	}
	return max(0, limit-used)
}

// limits names the benefit limit that a line ran into.
type limits struct {
	rule        rule
	clause      string
	limit, left money.Cents
}

// ceiling keeps the plan's payment within what the benefit's limits have
// left; the patient owes the rest.
func (r *run) ceiling(l *line, k *keys, s *split) limits {
	b := l.benefit
	var hit limits
	room := s.paid
	if left := r.left(b.DollarsPerYear, &k.dollars); left < room {
		room = left
		hit = limits{limitDollars, b.clauseDollars, b.DollarsPerYear, left}
	}
	if left := r.left(b.LifetimeDollars, &k.lifetime); left < room {
		room = left
		hit = limits{limitLifetime, b.clauseLifetime, b.LifetimeDollars, left}
	}
	s.overLimit, s.paid = s.paid-room, room
	return hit
}

// explain writes the split down as adjustments.
func (r *run) explain(l *line, s *split, had basis, hit limits, owed money.Cents) {
	deductible, coinsurance := "costShare.inNetwork.deductible", "costShare.inNetwork.coinsurance"
	if l.tier == OutOfNetwork {
		deductible, coinsurance = "costShare.outOfNetwork.deductible", "costShare.outOfNetwork.coinsurance"
	}
	if had.own {
		coinsurance = l.benefit.clauseCoinsurance
	}
	if s.overLimit > 0 {
		r.adjust(l, hit.rule, s.overLimit, hit.clause, Fact{"limit_cents", int64(hit.limit)}, Fact{"limit_remaining_cents", int64(hit.left)})
	}
	r.share(l, shareCopay, s.copay, l.benefit.clauseCopay, had, Fact{"allowed_cents", int64(l.out.Allowed)})
	r.share(l, shareDeductible, s.deductible, deductible, had, Fact{"deductible_remaining_cents", int64(had.deductibleLeft)})
	r.share(l, shareCoinsurance, s.coinsurance, coinsurance, had, Fact{"coinsurance_bps", had.bps})
	if s.priorPayers > 0 {
		r.adjust(l, cobPriorPayers, s.priorPayers, "", Fact{"owed_after_prior_payers_cents", int64(owed)})
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
