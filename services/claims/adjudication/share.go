package adjudication

import "github.com/probity-health/probity/services/money"

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
	share, b, allowed := l.plan.share(l), l.benefit, l.out.Allowed
	copay, ownBps := b.CopayIn, b.CoinsuranceInBps
	switch at := b.inTier(l.named); {
	case at != nil:
		copay, ownBps = at.Copay, at.CoinsuranceBps
	case l.tier == OutOfNetwork:
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
