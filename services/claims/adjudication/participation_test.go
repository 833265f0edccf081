package adjudication

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A plan that names networks takes the tier from them; the contract prices
// what is in network, and what a provider agreed to for others doesn't count.
func TestNetworksDecideTheTier(t *testing.T) {
	const tin = "341234567"
	const outVisit = "paid\n1 pays 20.00, PR-45 100.00 price.above_allowed_out_of_network, PR-3 60.00 share.copay"
	network := func(id string, period Period, parts ...Participant) *ProviderNetwork {
		n, err := CompileNetwork(NetworkSpec{ID: id, Version: id + "@1", Period: period, Participants: parts})
		require.NoError(t, err)
		return n
	}
	always := Period{Start: on("2010-01-01")}
	with := func(use NetworkUse, change func(*Input), networks ...*ProviderNetwork) func(*Input) {
		return func(in *Input) {
			replan(in, func(p *PlanSpec) { p.Networks = []NetworkUse{use} })
			in.Claim.BillingTIN, in.Networks = tin, networks
			change(in)
		}
	}
	unchanged := func(*Input) {}
	all := NetworkUse{ID: "net_gold"}
	preferred := NetworkUse{ID: "net_gold", Tiers: []string{"preferred"}}
	tell(t, []story{
		{"by NPI", with(all, unchanged, network("net_gold", always, Participant{NPI: lakeside})), cleanVisit},
		{"by tax id", with(all, unchanged, network("net_gold", always, Participant{TIN: tin})), cleanVisit},
		{"by who rendered", with(all, func(in *Input) { in.Claim.RenderingNPI = stranger }, network("net_gold", always, Participant{NPI: stranger})), cleanVisit},
		{"not listed, though under contract", with(all, unchanged, network("net_gold", always, Participant{NPI: stranger})), outVisit},
		{"joined later", with(all, unchanged, network("net_gold", always, Participant{NPI: lakeside, Period: Period{Start: on("2026-03-11")}})), outVisit},
		{"left before", with(all, unchanged, network("net_gold", always, Participant{NPI: lakeside, Period: Period{End: on("2026-03-09")}})), outVisit},
		{"on the last day", with(all, unchanged, network("net_gold", always, Participant{NPI: lakeside, Period: Period{End: on("2026-03-10")}})), cleanVisit},
		{"in the plan's tier", with(preferred, unchanged, network("net_gold", always, Participant{NPI: lakeside, Tier: "preferred"})), cleanVisit},
		{"in another tier", with(preferred, unchanged, network("net_gold", always, Participant{NPI: lakeside, Tier: "standard"})), outVisit},
		{"another network's participant", with(all, unchanged, network("net_gold", always, Participant{NPI: stranger}), network("net_other", always, Participant{NPI: lakeside})), outVisit},
		{"an emergency", with(all, func(in *Input) { in.Claim.Lines[0].Emergency = true }, network("net_gold", always, Participant{NPI: stranger})), cleanVisit},
		{"no version on the day", with(all, unchanged, network("net_gold", Period{Start: on("2026-04-01")}, Participant{NPI: lakeside})), "pended\n1 network.no_version 242"},
	})

	// A participant without a contract is priced by the plan's schedule, and
	// the excess is the provider's.
	in := visit99213()
	with(all, func(in *Input) { in.Contracts = nil }, network("net_gold", always, Participant{NPI: lakeside}))(in)
	d := Adjudicate(in)
	require.Equal(t, cleanVisit, tale(&d))
	require.Equal(t, "net_gold@1", d.Versions.Network)

	// Also a version in which nobody was found is one that the decision read.
	with(all, unchanged, network("net_gold", always, Participant{NPI: stranger}))(in)
	d = Adjudicate(in)
	require.Equal(t, "net_gold@1", d.Versions.Network)
	require.Empty(t, d.Versions.Contract)
}

func TestAnUnsoundNetworkIsRefused(t *testing.T) {
	for name, spec := range map[string]NetworkSpec{
		"nameless":       {Version: "x@1"},
		"nobody":         {ID: "x", Version: "x@1", Participants: []Participant{{Tier: "a"}}},
		"both names":     {ID: "x", Version: "x@1", Participants: []Participant{{NPI: lakeside, TIN: "341234567"}}},
		"left and joins": {ID: "x", Version: "x@1", Participants: []Participant{{NPI: lakeside, Period: Period{Start: 2, End: 1}}}},
	} {
		_, err := CompileNetwork(spec)
		require.Error(t, err, name)
	}
}
