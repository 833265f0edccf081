package adjudication

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/money"
)

// tiered is a plan with a network of three tiers: at "centre" the deductible is
// $20.00, at "regional" everything is half the patient's, at the rest it is what
// the plan has in network.
func tiered(t *testing.T, at string, change ...func(*PlanSpec)) *Input {
	t.Helper()
	in := visit99213()
	n, err := CompileNetwork(NetworkSpec{ID: "net_gold", Version: "net_gold@1", Period: Period{Start: on("2010-01-01")}, Participants: []Participant{{NPI: lakeside, Tier: at}}})
	require.NoError(t, err)
	in.Networks = []*ProviderNetwork{n}
	replan(in, func(p *PlanSpec) {
		p.Networks = []NetworkUse{{ID: "net_gold"}}
		p.Tiers = []Tier{
			{Name: "centre", Participants: []NetworkUse{{ID: "net_gold", Tiers: []string{"a"}}}, Share: CostShare{DeductibleIndividual: 2000, CoinsuranceBps: 1000, OutOfPocketIndividual: 2500}},
			{Name: "regional", Participants: []NetworkUse{{ID: "net_gold", Tiers: []string{"a", "b"}}}, Share: CostShare{CoinsuranceBps: 5000}},
		}
		for i := range p.Benefits {
			p.Benefits[i].CopayIn = 0
		}
		for _, c := range change {
			c(p)
		}
	})
	return in
}

func posted(d *Decision) map[string]money.Cents {
	out := map[string]money.Cents{}
	for _, p := range d.Postings {
		if p.Key.Scope == Individual {
			out[p.Key.KindName()+" "+p.Key.NetworkName()] += money.Cents(p.Amount)
		}
	}
	return out
}

// The first tier that takes the provider in applies, with its own share, clause
// and accumulators; who is in none is in network as without tiers.
func TestTheFirstTierThatTakesTheProviderInApplies(t *testing.T) {
	d := Adjudicate(tiered(t, "a"))
	require.Equal(t, "in:centre", d.Network)
	allowed := d.Lines[0].Allowed
	require.Greater(t, allowed, money.Cents(2000))
	coinsurance := min((allowed-2000)/10, 500) // $25.00 a year is the most
	require.Equal(t, 2000+coinsurance, d.Lines[0].Patient)
	require.Equal(t, map[string]money.Cents{"deductible in:centre": 2000, "out_of_pocket in:centre": 2000 + coinsurance}, posted(&d))
	var clauses []string
	for _, a := range d.Lines[0].Adjustments {
		if a.Group == "PR" {
			clauses = append(clauses, a.Clause)
		}
	}
	require.Equal(t, []string{"costShare.tiers.centre.deductible", "costShare.tiers.centre.coinsurance"}, clauses)
	require.Equal(t, "net_gold@1", d.Versions.Network)

	d = Adjudicate(tiered(t, "b"))
	require.Equal(t, "in:regional", d.Network)
	require.Equal(t, allowed/2, d.Lines[0].Patient)

	d = Adjudicate(tiered(t, "c"))
	require.Equal(t, "in", d.Network, "in none of them: the fallback")
	without := tiered(t, "c", func(p *PlanSpec) { p.Tiers = nil })
	plain := Adjudicate(without)
	require.Equal(t, plain.Explain(), d.Explain(), "as if the plan had no tiers")
}

// What was met in one tier doesn't count in another.
func TestTiersHaveAccumulatorsOfTheirOwn(t *testing.T) {
	in := tiered(t, "a")
	first := Adjudicate(in)
	in.Accumulators = Accumulators{}
	require.NoError(t, in.Accumulators.Post(first.Postings...))
	again := Adjudicate(in)
	require.Zero(t, posted(&again)["deductible in:centre"], "it is met")
	elsewhere := tiered(t, "c")
	elsewhere.Accumulators = in.Accumulators
	fresh := tiered(t, "c")
	require.Equal(t, tale(ptr(Adjudicate(fresh))), tale(ptr(Adjudicate(elsewhere))))
	for key := range in.Accumulators {
		back, ok := ParseKey(key.Scope.String(), key.Subject, key.KindName(), key.NetworkName(), key.PlanYear.String())
		require.True(t, ok)
		require.Equal(t, key, back, "what is recorded is read as it was written")
	}
	for _, network := range []string{"in:", ":centre", "out:centre", "centre"} {
		_, ok := ParseKey("family", "", "deductible", network, "2026-01-01")
		require.False(t, ok, network)
	}
}

func ptr(d Decision) *Decision { return &d }

// A benefit's copay in a tier is that tier's; one that says nothing of the tier
// takes what it has in network.
func TestABenefitMayCostOtherwiseInATier(t *testing.T) {
	copay := func(p *PlanSpec) {
		for i := range p.Benefits {
			p.Benefits[i].CopayIn = 3000
			p.Benefits[i].Tiers = []BenefitTier{{Tier: "regional", Copay: 1200}}
		}
	}
	for at, want := range map[string]struct {
		cents  money.Cents
		clause string
	}{"b": {1200, ".tiers.regional.copay"}, "c": {3000, ".copay"}} {
		d := Adjudicate(tiered(t, at, copay))
		require.Equal(t, want.cents, d.Lines[0].Patient, at)
		require.True(t, strings.HasSuffix(d.Lines[0].Adjustments[len(d.Lines[0].Adjustments)-1].Clause, want.clause), "%v", d.Lines[0].Adjustments)
	}
	d := Adjudicate(tiered(t, "a", copay))
	require.Equal(t, money.Cents(2500), d.Lines[0].Patient, "its copay in network, cut by the tier's own maximum")
}

// A tier hangs on the networks: where no version governs the day it isn't guessed.
func TestATierIsNotGuessed(t *testing.T) {
	in := tiered(t, "c", func(p *PlanSpec) {
		p.Networks = append(p.Networks, NetworkUse{ID: "net_far"})
		p.Tiers[0].Participants = []NetworkUse{{ID: "net_far"}}
	})
	d := Adjudicate(in)
	require.Equal(t, "pended\n1 network.no_version 242", tale(&d))
}

func TestAnEmergencyOutOfNetworkCostsWhatTheRestOfTheNetworkDoes(t *testing.T) {
	in := tiered(t, "c")
	in.Networks[0].byNPI = map[string][]participation{} // a stranger
	in.Claim.Lines[0].Emergency = true
	d := Adjudicate(in)
	require.Equal(t, "in", d.Network)
}

func TestUnsoundTiersAreRefused(t *testing.T) {
	for name, change := range map[string]func(*PlanSpec){
		"a name twice":            func(p *PlanSpec) { p.Tiers[1].Name = "centre" },
		"nobody in it":            func(p *PlanSpec) { p.Tiers[0].Participants = nil },
		"another plan's network":  func(p *PlanSpec) { p.Tiers[0].Participants[0].ID = "net_else" },
		"more than all":           func(p *PlanSpec) { p.Tiers[0].Share.CoinsuranceBps = 10001 },
		"a benefit's unknown one": func(p *PlanSpec) { p.Benefits[0].Tiers = []BenefitTier{{Tier: "lunar"}} },
		"a benefit's twice":       func(p *PlanSpec) { p.Benefits[0].Tiers = []BenefitTier{{Tier: "centre"}, {Tier: "centre"}} },
		"a negative copay":        func(p *PlanSpec) { p.Benefits[0].Tiers = []BenefitTier{{Tier: "centre", Copay: -1}} },
	} {
		spec := goldSpec()
		spec.Networks = []NetworkUse{{ID: "net_gold"}}
		spec.Tiers = []Tier{
			{Name: "centre", Participants: []NetworkUse{{ID: "net_gold", Tiers: []string{"a"}}}},
			{Name: "regional", Participants: []NetworkUse{{ID: "net_gold", Tiers: []string{"b"}}}},
		}
		change(&spec)
		_, err := CompilePlan(spec)
		require.Error(t, err, name)
	}
}
