package policies

import (
	"fmt"
	"slices"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
)

// lintTiers finds tiers that nobody could be in, names that are nobody's, and
// shares that would never be read. A participant whom no tier takes in, and a
// benefit that says nothing of a tier, fall back to what is so in network, which
// every plan has.
func lintTiers(f *finding, d *policiesv1.PlanDocument) {
	takes := map[string][]string{} // the plan's networks, and which of their tiers
	for _, use := range d.GetNetworks() {
		takes[use.GetNetworkId()] = use.GetTiers()
	}
	names := map[string]int{}
	for i, t := range d.GetTiers() {
		path := fmt.Sprintf("tiers[%d]", i)
		if j, ok := names[t.GetName()]; ok {
			f.add("plan.tier.repeated", path+".name", fmt.Sprintf("tiers[%d] has this name already", j), "give each tier a name of its own: decisions and accumulators name it")
		} else {
			names[t.GetName()] = i
		}
		lintCostShare(f, t.GetCostShare(), path+".cost_share")
		reached := false
		for j, use := range t.GetParticipants() {
			at := fmt.Sprintf("%s.participants[%d]", path, j)
			taken, named := takes[use.GetNetworkId()]
			if !named {
				f.add("plan.tier.network-unnamed", at+".network_id", "the plan doesn't name this network, so nobody of it is in network", "name it under the plan's networks, or leave it out here")
				reached = true // told once
				continue
			}
			for k, tier := range use.GetTiers() {
				if len(taken) > 0 && !slices.Contains(taken, tier) {
					f.add("plan.tier.out-of-network", fmt.Sprintf("%s.tiers[%d]", at, k), "the plan takes the network without this tier, so nobody of it is in network",
						"add the tier to the plan's networks, or leave it out here")
				}
			}
			reached = reached || !takenBefore(d.GetTiers()[:i], use)
		}
		if !reached {
			f.add("plan.tier.unreachable", path+".participants", "earlier tiers take in everybody who is in this one", "put this tier before them, or leave it out")
		}
	}
	for i, b := range d.GetBenefits() {
		said := map[string]int{}
		for j, t := range b.GetTiers() {
			path := fmt.Sprintf("benefits[%d].tiers[%d]", i, j)
			if _, ok := names[t.GetTier()]; !ok {
				f.add("plan.benefit.tier-unknown", path+".tier", "the plan has no such tier", "write the name of one of the plan's tiers")
			}
			if k, ok := said[t.GetTier()]; ok {
				f.add("plan.benefit.tier-repeated", path+".tier", fmt.Sprintf("tiers[%d] says already what the benefit costs there", k), "keep one of the two")
			}
			said[t.GetTier()] = j
			switch {
			case t.GetCopayCents() > 0 && t.GetCoinsuranceBps() > 0:
				f.add("plan.benefit.copay-and-coinsurance", path+".coinsurance_bps", "a copay replaces coinsurance, and this tier has both", "keep one of copay_cents and coinsurance_bps")
			case t.GetCoinsuranceBps() > 0 && !b.GetUseCoinsurance():
				f.add("plan.benefit.coinsurance-unused", fmt.Sprintf("benefits[%d].use_coinsurance", i), "the benefit names a coinsurance but doesn't use it: the tier's would apply", "set use_coinsurance: true, or leave the figures out")
			}
		}
	}
}

// takenBefore tells whether one of the tiers takes in all that use names.
func takenBefore(tiers []*policiesv1.CostShareTier, use *policiesv1.PlanNetwork) bool {
	for _, t := range tiers {
		for _, p := range t.GetParticipants() {
			if p.GetNetworkId() != use.GetNetworkId() {
				continue
			}
			all := len(p.GetTiers()) == 0
			some := len(use.GetTiers()) > 0 && !slices.ContainsFunc(use.GetTiers(), func(tier string) bool { return !slices.Contains(p.GetTiers(), tier) })
			if all || some {
				return true
			}
		}
	}
	return false
}
