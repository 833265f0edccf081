package policies_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
)

func networkOf(payer, id, start string, parts ...*policiesv1.NetworkParticipant) *policiesv1.ProviderNetwork {
	if len(parts) == 0 {
		parts = []*policiesv1.NetworkParticipant{{Npi: "1234567893"}}
	}
	return &policiesv1.ProviderNetwork{NetworkId: id, Name: "A network", PayerId: payer, Effective: &typev1.Period{StartDate: start}, Participants: parts}
}

func ruleIDs(err error) (out []string) {
	for _, p := range problem.As(err).Problems {
		out = append(out, p.RuleID+" "+p.FieldPath)
	}
	return out
}

// A plan may name what its payer has published; versions of a network follow
// one another like those of any document, and the book knows the one in force.
func TestPlansReferToNetworksById(t *testing.T) {
	h := open(t)
	plan := planOf("P1", "plan_narrow")
	plan.FeeScheduleId = ""
	plan.Networks = []*policiesv1.PlanNetwork{{NetworkId: "net_p1", Tiers: []string{"preferred"}}}
	_, err := h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "1", Plan: plan})
	require.Equal(t, []string{"plan.network.unknown networks[0].network_id"}, ruleIDs(err))

	network := networkOf("P1", "net_p1", "2026-01-01")
	first, err := h.PublishNetwork(h.ctx, &policiesv1.PublishNetworkRequest{RequestId: "2", Network: network})
	require.NoError(t, err)
	require.EqualValues(t, 1, first.GetVersion())
	_, err = h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "3", Plan: plan})
	require.Equal(t, []string{"plan.network.tier-unknown networks[0].tiers[0]"}, ruleIDs(err))

	tiered := proto.CloneOf(network)
	tiered.Tiers, tiered.Participants[0].Tier = []string{"preferred"}, "preferred"
	second, err := h.PublishNetwork(h.ctx, &policiesv1.PublishNetworkRequest{RequestId: "4", Network: tiered, Etag: first.GetEtag()})
	require.NoError(t, err)
	require.EqualValues(t, 2, second.GetVersion())
	_, err = h.PublishNetwork(h.ctx, &policiesv1.PublishNetworkRequest{RequestId: "5", Network: network, Etag: first.GetEtag()})
	require.Equal(t, []string{"network.etag etag"}, ruleIDs(err), "somebody was first")
	_, err = h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "6", Plan: plan})
	require.NoError(t, err)
	again, err := h.PublishNetwork(h.ctx, &policiesv1.PublishNetworkRequest{RequestId: "7", Network: tiered})
	require.NoError(t, err)
	require.EqualValues(t, 2, again.GetVersion(), "an equal document is no version")

	require.NoError(t, h.book.WaitFor(h.ctx, second.GetToken()))
	found := h.book.For(book.Query{PayerID: "P1", ServiceDates: []string{"2026-02-01", "2025-12-31"}}).Networks
	require.Len(t, found, 1)
	require.Equal(t, "net_p1@2", found[0].Ref)
	refs, retroactive := h.book.Superseded("net_p1", 2)
	require.True(t, retroactive)
	require.Equal(t, []string{"net_p1@1"}, refs)
	require.Empty(t, h.book.For(book.Query{PayerID: "P2", ServiceDates: []string{"2026-02-01"}}).Networks, "another payer's are its own")
}

func TestAnotherPayersNetworkIsNone(t *testing.T) {
	h := open(t)
	_, err := h.PublishNetwork(h.ctx, &policiesv1.PublishNetworkRequest{RequestId: "1", Network: networkOf("P2", "net_p2", "2026-01-01")})
	require.Equal(t, problem.Forbidden, problem.As(err).Kind)
}

func TestANetworksFaultsAreToldWhereTheyStand(t *testing.T) {
	days := func(from, to string) *typev1.Period { return &typev1.Period{StartDate: from, EndDate: to} }
	for name, c := range map[string]struct {
		change func(*policiesv1.ProviderNetwork)
		told   string
	}{
		"nobody":          {func(n *policiesv1.ProviderNetwork) { n.Participants[0].Npi = "" }, "network.participant.who participants[0]"},
		"both":            {func(n *policiesv1.ProviderNetwork) { n.Participants[0].Tin = "341234567" }, "network.participant.who participants[0]"},
		"check digit":     {func(n *policiesv1.ProviderNetwork) { n.Participants[0].Npi = "1234567890" }, "network.npi.check-digit participants[0].npi"},
		"a tier of none":  {func(n *policiesv1.ProviderNetwork) { n.Participants[0].Tier = "gold" }, "network.tier.none participants[0].tier"},
		"no such tier":    {func(n *policiesv1.ProviderNetwork) { n.Tiers = []string{"gold"} }, "network.tier.unknown participants[0].tier"},
		"left and joined": {func(n *policiesv1.ProviderNetwork) { n.Participants[0].Participates = days("2026-03-01", "2026-02-01") }, "period.reversed participants[0].participates"},
		"never there":     {func(n *policiesv1.ProviderNetwork) { n.Participants[0].Participates = days("2025-03-01", "2025-06-01") }, "network.participant.outside participants[0].participates"},
		"no such day":     {func(n *policiesv1.ProviderNetwork) { n.Participants[0].Participates = days("2026-02-30", "") }, "date.calendar participants[0].participates.start_date"},
		"twice": {func(n *policiesv1.ProviderNetwork) {
			n.Participants = append(n.Participants, &policiesv1.NetworkParticipant{Npi: "1234567893", Participates: days("2026-05-01", "")})
		}, "network.participant.repeated participants[1]"},
		"ends before it starts": {func(n *policiesv1.ProviderNetwork) { n.Effective = days("2026-01-01", "2025-01-01") }, "period.reversed effective"},
	} {
		t.Run(name, func(t *testing.T) {
			n := networkOf("P1", "net_p1", "2026-01-01")
			require.Empty(t, policies.LintNetwork(n))
			c.change(n)
			found := policies.LintNetwork(n)
			require.NotEmpty(t, found)
			require.Equal(t, c.told, found[0].RuleID+" "+found[0].FieldPath, fmt.Sprint(found))
			require.NotEmpty(t, found[0].Fix)
		})
	}

	apart := networkOf("P1", "net_p1", "2026-01-01",
		&policiesv1.NetworkParticipant{Npi: "1234567893", Participates: days("2026-01-01", "2026-03-31")},
		&policiesv1.NetworkParticipant{Npi: "1234567893", Participates: days("2026-06-01", "")})
	require.Empty(t, policies.LintNetwork(apart), "who left may come back")
}
