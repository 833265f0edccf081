package adjudication

import "slices"

// noSurprises is 2022-01-01: from then emergency services of providers
// without a contract carry in-network cost sharing, need no prior
// authorisation, and the patient may not be billed above the allowed amount
// (45 CFR 149.110, 149.410).
const noSurprises Date = 738156

// network finds the contract and the tier, then asks for the referral that the
// plan wants for a specialist's service. A plan that names networks takes the
// tier from them; for any other a contract is what makes a provider in network.
func network(r *run, l *line) {
	l.benefit = l.plan.benefitFor(l.Procedure, r.place(l), l.RevenueCode)
	emergency := l.Emergency && l.ServiceDate >= noSurprises
	l.contract = r.contractFor(l)
	l.tier = InNetwork
	switch {
	case emergency:
	case len(l.plan.spec.Networks) == 0:
		if l.contract == nil {
			l.tier = OutOfNetwork
		}
	default:
		in, known := r.participates(l)
		if !known {
			r.stop(l, networkNoVersion)
			return
		}
		if !in {
			// What a provider has agreed to for another network isn't this plan's.
			l.tier, l.contract = OutOfNetwork, nil
		}
	}
	if l.tier == InNetwork && len(l.plan.tiers) > 0 {
		var known bool
		if l.named, known = r.tierFor(l); !known {
			r.stop(l, networkNoVersion)
			return
		}
	}
	l.out.Network = l.tier.String()
	if l.named != nil {
		l.out.Network = l.named.network
	}
	if l.tier == OutOfNetwork && l.plan.spec.OutOfNetwork == nil {
		r.deny(l, networkOut, "outOfNetwork")
		return
	}
	if l.plan.spec.ReferralRequired && l.benefit != nil && l.benefit.Specialist && !emergency &&
		r.in.Claim.ReferralNumber == "" {
		r.deny(l, networkNoReferral, l.benefit.clauseSpecialist)
	}
}

// tierFor is the first of the plan's tiers that takes the line's provider in;
// nil where none does. known is false where that hangs on a network of which no
// version governs the date.
func (r *run) tierFor(l *line) (tier *planTier, known bool) {
	for i := range l.plan.tiers {
		t := &l.plan.tiers[i]
		for _, use := range t.Participants {
			n := r.networkFor(use.ID, l.ServiceDate)
			if n == nil {
				return nil, false
			}
			if !slices.Contains(l.networks, n) {
				l.networks = append(l.networks, n)
			}
			if r.takesPart(l, n, use.Tiers) {
				return t, true
			}
		}
	}
	return nil, true
}

func (r *run) contractFor(l *line) *Contract {
	for _, c := range r.in.Contracts {
		if c != nil && c.Period.Contains(l.ServiceDate) &&
			(len(c.PlanIDs) == 0 || slices.Contains(c.PlanIDs, l.plan.spec.ID)) {
			return c
		}
	}
	return nil
}
