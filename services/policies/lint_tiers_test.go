package policies

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const tieredPlan = `plan_id: plan_tiered
name: Tiered
payer_id: KEYSTONE
effective: {start_date: 2026-01-01}
plan_year: calendar
timely_filing_days: 365
in_network: {deductible_individual_cents: 10000, deductible_kind: embedded, coinsurance_bps: 2000}
networks: [{network_id: net_wide, tiers: [a, b]}, {network_id: net_far}]
tiers:
  - name: centre
    participants: [{network_id: net_wide, tiers: [a]}]
    cost_share: {deductible_individual_cents: 5000, deductible_kind: embedded, coinsurance_bps: 1000}
  - name: regional
    participants: [{network_id: net_wide, tiers: [b]}, {network_id: net_far}]
    cost_share: {deductible_kind: embedded, coinsurance_bps: 3000}
benefits:
  - name: office
    match: {procedures: [99202-99215]}
    covered: true
    copay_in_cents: 3000
    tiers: [{tier: centre, copay_cents: 1000}, {tier: regional, copay_cents: 2000}]
  - name: other
    covered: true
`

func TestAPlanMayHaveTiers(t *testing.T) {
	plan, err := ParsePlan([]byte(tieredPlan))
	require.NoError(t, err)
	_, err = CompilePlan(plan, "plan_tiered@1")
	require.NoError(t, err)
}

// Each fault of tiers, by what it changes in a plan that is sound.
func TestFaultyTiersAreTold(t *testing.T) {
	for name, c := range map[string]struct{ old, fresh, rule, at string }{
		"an unknown tier":              {"tier: regional, copay", "tier: lunar, copay", "plan.benefit.tier-unknown", "benefits[0].tiers[1].tier"},
		"a tier said twice":            {"tier: regional, copay", "tier: centre, copay", "plan.benefit.tier-repeated", "benefits[0].tiers[1].tier"},
		"a name used twice":            {"name: regional", "name: centre", "plan.tier.repeated", "tiers[1].name"},
		"a network not in the plan":    {"{network_id: net_far}]\n    cost", "{network_id: net_else}]\n    cost", "plan.tier.network-unnamed", "tiers[1].participants[1].network_id"},
		"who is out of network":        {"tiers: [b]}, {", "tiers: [c]}, {", "plan.tier.out-of-network", "tiers[1].participants[0].tiers[0]"},
		"nobody left for it":           {"tiers: [b]}, {network_id: net_far}", "tiers: [a]}", "plan.tier.unreachable", "tiers[1].participants"},
		"copay and coinsurance":        {"copay_cents: 2000}", "copay_cents: 2000, coinsurance_bps: 100}", "plan.benefit.copay-and-coinsurance", "benefits[0].tiers[1].coinsurance_bps"},
		"a coinsurance that is unused": {"copay_cents: 2000}", "coinsurance_bps: 100}", "plan.benefit.coinsurance-unused", "benefits[0].use_coinsurance"},
		"a cost share that can't be":   {"cost_share: {deductible_kind: embedded", "cost_share: {deductible_kind: aggregate", "plan.deductible.aggregate-without-family", "tiers[1].cost_share.deductible_family_cents"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, tieredPlan, c.old)
			_, err := ParsePlan([]byte(strings.Replace(tieredPlan, c.old, c.fresh, 1)))
			var told []string
			for _, p := range problemsOf(t, err) {
				require.NotEmpty(t, p.Fix)
				told = append(told, p.RuleID+" "+p.FieldPath)
			}
			require.Contains(t, told, c.rule+" "+c.at)
		})
	}
	// There is always a fallback: who is in no tier is in network.
	_, err := ParsePlan([]byte(strings.Replace(tieredPlan, "in_network: {deductible_individual_cents: 10000, deductible_kind: embedded, coinsurance_bps: 2000}\n", "", 1)))
	require.NotEmpty(t, problemsOf(t, err))
}
