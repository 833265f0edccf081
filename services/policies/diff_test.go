package policies_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/problem"
)

func yamlOf(t *testing.T, p *policiesv1.PlanDocument) string {
	t.Helper()
	b, err := protojson.Marshal(p)
	require.NoError(t, err)
	return string(b)
}

func TestADifferenceIsToldByBenefitAndWhoGains(t *testing.T) {
	h := sponsored(t)
	h.applied(t, "a", asks(add, "Ann"), asks(add, "Bob"))
	h.applied(t, "b", asks(terminate, "Bob", ends("2026-03-31")))
	h.enrol(t, "c", &policiesv1.Enrollment{PolicyId: "pol_g2", MemberId: "CARD-5", RelationshipCode: "18", LastName: "X", FirstName: "Y", BirthDate: "1980-01-01", Sex: "F", Coverage: from("2026-01-01")})

	old := planOf("P1", "plan_a")
	old.InNetwork.DeductibleIndividualCents = 50000
	old.Benefits = []*policiesv1.Benefit{
		{Name: "office", Match: &policiesv1.ServiceMatch{Procedures: []string{"99202-99215"}}, Covered: true, CopayInCents: 2500},
		{Name: "therapy", Match: &policiesv1.ServiceMatch{Procedures: []string{"97110"}}, Covered: true, VisitsPerYear: 20},
		{Name: "dental", Match: &policiesv1.ServiceMatch{Procedures: []string{"D0120-D9999"}}, Covered: true},
		{Name: "rest", Covered: true},
	}
	fresh := planOf("P1", "plan_a")
	fresh.Effective = from("2026-07-01")
	fresh.InNetwork.DeductibleIndividualCents = 75000
	fresh.Benefits = []*policiesv1.Benefit{
		{Name: "therapy", Match: &policiesv1.ServiceMatch{Procedures: []string{"97110", "97140"}}, Covered: true},
		{Name: "office", Match: &policiesv1.ServiceMatch{Procedures: []string{"99202-99215"}}, Covered: true, CopayInCents: 2000, PriorAuthorization: true},
		{Name: "imaging", Match: &policiesv1.ServiceMatch{Procedures: []string{"70010-79999"}}, Covered: true},
		{Name: "rest", Covered: true},
	}
	fresh.Rules = []*policiesv1.PlanRule{{Id: "stay", Clause: "Stays over thirty days.", When: "line.days > 30", Pend: true, GroupCode: "CO", Carc: "96", Rarc: "N130"}}

	old.Networks = []*policiesv1.PlanNetwork{{NetworkId: "net_wide"}, {NetworkId: "net_kept", Tiers: []string{"a"}}}
	fresh.Networks = []*policiesv1.PlanNetwork{{NetworkId: "net_kept", Tiers: []string{"a", "b"}}, {NetworkId: "net_narrow"}}

	got, err := h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{OldDocument: yamlOf(t, old), NewDocument: yamlOf(t, fresh)})
	require.NoError(t, err)
	require.Empty(t, got.GetProblems())
	var lines []string
	for _, d := range got.GetDifferences() {
		lines = append(lines, fmt.Sprintf("%s|%s|%s|%s|%s|%s", d.GetBenefit(), d.GetKind(), d.GetField(), d.GetOldValue(), d.GetNewValue(), d.GetFavours()))
	}
	require.Equal(t, []string{
		"|changed|effective.start_date|2026-01-01|2026-07-01|",
		"|changed|in_network.deductible_individual_cents|$500.00|$750.00|plan",
		"dental|removed||||",
		"therapy|changed|match.procedures|97110|97110, 97140|",
		"therapy|changed|visits_per_year|20|none|member",
		"office|moved||||",
		"office|changed|copay_in_cents|$25.00|$20.00|member",
		"office|changed|prior_authorization|no|yes|plan",
		"imaging|added||||",
		"|added|rules.stay||Stays over thirty days.|",
		"|changed|networks.net_kept|a|a, b|",
		"|added|networks.net_narrow||all tiers|",
		"|removed|networks.net_wide|all tiers||",
	}, lines)
	require.EqualValues(t, 1, got.GetMembersAffected(), "Bob has left before, the other family has another plan")
	require.EqualValues(t, 1, got.GetFamiliesAffected())

	same, err := h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{PlanId: "plan_a", NewDocument: yamlOf(t, planOf("P1", "plan_a"))})
	require.NoError(t, err)
	require.Empty(t, same.GetDifferences())

	broken, err := h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{PlanId: "plan_a", Version: 1, NewDocument: yamlOf(t, planOf("P1", "plan_a")) + "\n]"})
	require.NoError(t, err)
	require.Equal(t, "document.syntax", broken.GetProblems()[0].GetRuleId())

	for text, message := range map[string]string{
		"network_id: net_wide\nmembers: []\n":                   "the document is no plan: it is a network",
		`{"contractId": "ctr_a", "feeScheduleId": "fs_a"}`:      "the document is no plan: it is a contract",
		"fee_schedule_id: fs_a\neffective: {start_date: \"x\"}": "the document is no plan: it is a fee schedule",
		"name: something\n":                                     "the document is no plan: it has no plan_id",
		"- a list\n":                                            "the document is no plan: it has no plan_id",
	} {
		none, err := h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{PlanId: "plan_a", Version: 1, NewDocument: text})
		require.NoError(t, err)
		require.Len(t, none.GetProblems(), 1, "that alone")
		require.Equal(t, message, none.GetProblems()[0].GetMessage())
		require.Empty(t, none.GetDifferences())
		require.Zero(t, none.GetMembersAffected())
		_, err = h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{OldDocument: text, NewDocument: yamlOf(t, planOf("P1", "plan_a"))})
		refused(t, err, problem.Invalid, "plan.diff.no-plan")
	}

	contradictory := planOf("P1", "plan_a")
	contradictory.InNetwork.DeductibleKind = "aggregate"
	both, err := h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{PlanId: "plan_a", NewDocument: yamlOf(t, contradictory)})
	require.NoError(t, err)
	require.Len(t, both.GetDifferences(), 1, "told although it can't be published")
	require.Len(t, both.GetProblems(), 1)

	_, err = h.DiffPlans(admin("P2"), &policiesv1.DiffPlansRequest{PlanId: "plan_a", NewDocument: yamlOf(t, fresh)})
	require.True(t, problem.Is(err, problem.Forbidden))
	_, err = h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{PlanId: "plan_none", NewDocument: yamlOf(t, fresh)})
	refused(t, err, problem.NotFound, "plan.unknown")
}

// A plan that says nothing coordinates by the standard method: saying so is no
// change of method, carving out is one that favours the plan.
func TestADifferenceInCoordinationAndAuthorisationsIsTold(t *testing.T) {
	h := open(t).stocked(t)
	diff := func(old, fresh func(*policiesv1.PlanDocument)) []string {
		before, after := planOf("P1", "plan_a"), planOf("P1", "plan_a")
		old(before)
		fresh(after)
		got, err := h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{OldDocument: yamlOf(t, before), NewDocument: yamlOf(t, after)})
		require.NoError(t, err)
		require.Empty(t, got.GetProblems())
		var lines []string
		for _, d := range got.GetDifferences() {
			lines = append(lines, fmt.Sprintf("%s|%s|%s|%s|%s", d.GetKind(), d.GetField(), d.GetOldValue(), d.GetNewValue(), d.GetFavours()))
		}
		return lines
	}
	by := func(method string) func(*policiesv1.PlanDocument) {
		return func(d *policiesv1.PlanDocument) { d.Coordination = &policiesv1.CoordinationRules{Method: method} }
	}
	silent := func(*policiesv1.PlanDocument) {}
	require.Equal(t, []string{"changed|coordination.method|standard|carve_out|plan"}, diff(by("standard"), by("carve_out")))
	require.Equal(t, []string{"changed|coordination.method|carve_out|standard|member"}, diff(by("carve_out"), by("standard")))
	require.Equal(t, []string{"added|coordination|||", "changed|coordination.method|standard|carve_out|plan"}, diff(silent, by("carve_out")))
	require.Equal(t, []string{"removed|coordination|||", "changed|coordination.method|carve_out|standard|member"}, diff(by("carve_out"), silent))
	require.Equal(t, []string{"added|coordination|||"}, diff(silent, by("standard")))
	require.Equal(t, []string{"changed|prior_authorization_procedures|70551|70551, 97110-97140|"}, diff(
		func(d *policiesv1.PlanDocument) { d.PriorAuthorizationProcedures = []string{"70551"} },
		func(d *policiesv1.PlanDocument) { d.PriorAuthorizationProcedures = []string{"70551", "97110-97140"} }))
}

func TestACorrectionNamesTheVersionItCorrects(t *testing.T) {
	h := open(t).stocked(t)
	first, err := h.GetPlan(h.ctx, &policiesv1.GetPlanRequest{PlanId: "plan_a"})
	require.NoError(t, err)
	next := planOf("P1", "plan_a")
	next.TimelyFilingDays = 100
	second, err := h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "2", Plan: next, Etag: first.GetEtag()})
	require.NoError(t, err)
	require.NotEqual(t, first.GetEtag(), second.GetEtag())
	again, err := h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "3", Plan: next, Etag: first.GetEtag()})
	require.NoError(t, err, "what was to be published is published")
	require.EqualValues(t, 2, again.GetVersion())

	other := planOf("P1", "plan_a")
	other.TimelyFilingDays = 110
	_, err = h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "4", Plan: other, Etag: first.GetEtag()})
	refused(t, err, problem.Conflict, "plan.etag")
	got, err := h.GetPlan(h.ctx, &policiesv1.GetPlanRequest{PlanId: "plan_a"})
	require.NoError(t, err)
	require.EqualValues(t, 2, got.GetVersion())
	require.Equal(t, second.GetEtag(), got.GetEtag())
	unseen := planOf("P1", "plan_new")
	_, err = h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "5", Plan: unseen, Etag: first.GetEtag()})
	refused(t, err, problem.Conflict, "plan.etag")
}

// Two contracts of one provider that begin on one day for the same plans
// leave nothing to choose between them.
func TestContractsThatOverlapAreRefused(t *testing.T) {
	h := open(t).stocked(t)
	contract := func(id, start string, plans ...string) *policiesv1.PublishContractRequest {
		return &policiesv1.PublishContractRequest{RequestId: id + start, Contract: &policiesv1.ProviderContract{
			ContractId: id, PayerId: "P1", Npis: []string{"1234567893"}, Effective: from(start), FeeScheduleId: "fs_p1", PlanIds: plans}}
	}
	_, err := h.PublishContract(h.ctx, contract("ctr_a", "2026-01-01"))
	require.NoError(t, err)
	_, err = h.PublishContract(h.ctx, contract("ctr_b", "2026-01-01"))
	refused(t, err, problem.Invalid, "contract.overlap")
	for _, sound := range []*policiesv1.PublishContractRequest{
		contract("ctr_b", "2026-02-01"), contract("ctr_c", "2026-01-01", "plan_a"), contract("ctr_a", "2026-03-01"),
	} {
		_, err = h.PublishContract(h.ctx, sound)
		require.NoError(t, err)
	}
	_, err = h.PublishContract(h.ctx, contract("ctr_d", "2026-01-01", "plan_a"))
	refused(t, err, problem.Invalid, "contract.overlap")
}

// Tiers are told apart by name: who is in each, what it costs, which comes first,
// and what a benefit costs in it.
func TestADifferenceOfTiersIsTold(t *testing.T) {
	h := sponsored(t)
	share := func(deductible int64) *policiesv1.CostShare {
		return &policiesv1.CostShare{DeductibleIndividualCents: deductible, DeductibleKind: "embedded"}
	}
	tier := func(name string, deductible int64, networks ...string) *policiesv1.CostShareTier {
		out := &policiesv1.CostShareTier{Name: name, CostShare: share(deductible)}
		for _, n := range networks {
			out.Participants = append(out.Participants, &policiesv1.PlanNetwork{NetworkId: n})
		}
		return out
	}
	old, fresh := planOf("P1", "plan_a"), planOf("P1", "plan_a")
	for _, p := range []*policiesv1.PlanDocument{old, fresh} {
		p.Networks = []*policiesv1.PlanNetwork{{NetworkId: "net_a"}, {NetworkId: "net_b"}, {NetworkId: "net_c"}, {NetworkId: "net_d"}}
		p.Benefits = []*policiesv1.Benefit{{Name: "office", Covered: true, Tiers: []*policiesv1.BenefitTier{{Tier: "one", CopayCents: 1000}, {Tier: "two", CopayCents: 2000}}}}
	}
	old.Tiers = []*policiesv1.CostShareTier{tier("one", 1000, "net_a"), tier("two", 2000, "net_b"), tier("three", 0, "net_c")}
	fresh.Tiers = []*policiesv1.CostShareTier{tier("two", 2500, "net_b", "net_c"), tier("one", 1000, "net_a"), tier("new", 500, "net_d")}
	fresh.Benefits[0].Tiers = []*policiesv1.BenefitTier{{Tier: "two", CopayCents: 1500}, {Tier: "new", CopayCents: 500}}
	got, err := h.DiffPlans(h.ctx, &policiesv1.DiffPlansRequest{OldDocument: yamlOf(t, old), NewDocument: yamlOf(t, fresh)})
	require.NoError(t, err)
	require.Empty(t, got.GetProblems())
	var lines []string
	for _, d := range got.GetDifferences() {
		lines = append(lines, fmt.Sprintf("%s|%s|%s|%s|%s|%s", d.GetBenefit(), d.GetKind(), d.GetField(), d.GetOldValue(), d.GetNewValue(), d.GetFavours()))
	}
	require.Equal(t, []string{
		"office|changed|tiers.two.copay_cents|$20.00|$15.00|member",
		"office|added|tiers.new|||",
		"office|added|tiers.new.copay_cents||$5.00|", // it was no $0.00 before
		"office|removed|tiers.one|||",
		"|removed|tiers.three|||",
		"|added|tiers.two.participants.net_c||all tiers|",
		"|changed|tiers.two.cost_share.deductible_individual_cents|$20.00|$25.00|plan",
		"|moved|tiers.one|||",
		"|added|tiers.new|||",
		"|added|tiers.new.participants.net_d||all tiers|",
		"|added|tiers.new.cost_share.deductible_individual_cents||$5.00|",
		"|added|tiers.new.cost_share.deductible_kind||embedded|",
	}, lines)
}
