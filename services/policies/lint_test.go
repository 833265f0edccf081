package policies

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// Everything wrong with a document is told at once, in the order of its
// lines, each at its line and column.
func TestEveryFaultIsToldAtOnceWhereItStands(t *testing.T) {
	_, err := ParsePlan([]byte(`plan_id: plan_gold
name: Gold
payer_id: KEYSTONE
effective: {start_date: 2026-02-30}
plan_year: fiscal
timely_filing_days: 0
in_network:
  deductible_individual_cents: 100.50
  deductible_kind: embedded
  out_of_pocket_individual_cents: 5
benefits:
  - name: office_visit
    match: {procedures: [99202-99215], places_of_service: ["11", "98"]}
    covered: true
    copay_in_cents: 2500
    coinsurance_in_bps: 1000
  - name: therapy
    match: {procedures: [97010-J7799]}
    covered: true
    dollars_per_year_cents: 200
    lifetime_cents: 100
  - name: therapy
    covered: true
    colour: red
rules:
  - id: no_such_thing
    clause: Nothing of the kind.
    when: line.colour == "red"
    pend: true
    group_code: CO
    carc: "96"
    rarc: N130
  - id: endless
    clause: Pairs of pairs of pairs.
    when: >
      claim.procedures.exists(a,
        claim.procedures.exists(b, claim.procedures.exists(c, a == b && b == c)))
    group_code: CO
    carc: "9999"
    benefits: [dental]
`))
	var got []string
	for _, p := range problemsOf(t, err) {
		require.NotEmpty(t, p.Message)
		require.NotEmpty(t, p.Fix)
		got = append(got, fmt.Sprintf("%d:%d %s %s", p.Line, p.Column, p.RuleID, p.FieldPath))
	}
	require.Equal(t, []string{
		"4:25 date.calendar effective.start_date",
		"5:12 field.string.in plan_year",
		"6:21 field.uint32.gte_lte timely_filing_days",
		"8:32 document.kind in_network.deductible_individual_cents",
		"12:5 plan.benefit.coinsurance-unused benefits[0].use_coinsurance",
		"13:67 plan.match.place-unknown benefits[0].match.places_of_service[1]",
		"16:25 plan.benefit.copay-and-coinsurance benefits[0].coinsurance_in_bps",
		"18:26 plan.match.range benefits[1].match.procedures[0]",
		"20:29 plan.benefit.year-over-lifetime benefits[1].dollars_per_year_cents",
		"24:5 document.unknown-field benefits[2].colour",
		"28:11 plan.rule.when rules[0].when",
		"36:0 plan.rule.when rules[1].when",
		"39:12 plan.rule.carc rules[1].carc",
		"40:16 plan.rule.benefit-unknown rules[1].benefits[0]",
	}, got)
}

// What may only follow from something that can't be read isn't told beside it:
// a range that is the wrong way round takes in nobody's knowledge what, and the
// engine's refusal of a figure says again what the field's rule said.
func TestNothingIsToldThatMayOnlyFollow(t *testing.T) {
	plan := func(share, match string) string {
		return `plan_id: plan_gold
name: Gold
payer_id: KEYSTONE
effective: {start_date: 2026-01-01}
plan_year: calendar
timely_filing_days: 90
in_network: {deductible_kind: embedded, coinsurance_bps: ` + share + `}
benefits:
  - {name: office_visit, match: {procedures: ["` + match + `"]}, covered: true}
  - {name: surgery, match: {procedures: ["10004-69990"]}, covered: true}
`
	}
	told := func(text string) (got []string) {
		_, err := ParsePlan([]byte(text))
		for _, p := range problemsOf(t, err) {
			got = append(got, p.RuleID+" "+p.FieldPath)
		}
		return got
	}
	require.Equal(t, []string{"plan.match.range benefits[0].match.procedures[0]"}, told(plan("2000", "99215-99202")))
	require.Equal(t, []string{"field.uint32.lte in_network.coinsurance_bps"}, told(plan("20000", "99202-99215")))
}

// A condition that reads what there is not is told what there is.
func TestAConditionIsToldWhatItMayRead(t *testing.T) {
	d := sound()
	d.Rules = []*policiesv1.PlanRule{{Id: "r", Clause: "A clause.", When: "member.age > 5", GroupCode: "PR", Carc: "96", Rarc: "N130"}}
	ps := LintPlan(d)
	require.Len(t, ps, 1)
	require.Contains(t, ps[0].Fix, "claim.form, ")
	require.Contains(t, ps[0].Fix, "coverage.days")
}

// What the lint takes for the codes of a range is what the engine takes.
func TestLintAndEngineReadRangesAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := func(label string) string { return rapid.StringMatching(`[0-3AJ][0-3]{2}[0-3F]`).Draw(t, label) }
		text := code("from")
		if rapid.Bool().Draw(t, "ranged") {
			text += "-" + code("to")
		}
		d := sound()
		d.Benefits = []*policiesv1.Benefit{{Name: "one", Covered: true, Match: &policiesv1.ServiceMatch{Procedures: []string{text}}}, {Name: "rest", Covered: true}}
		_, engine := CompilePlan(d, "plan_x@1")
		_, lint := parseRange(text)
		if (engine == nil) != lint {
			t.Fatalf("%s: engine %v, lint %v", text, engine, lint)
		}
	})
}

func sound() *policiesv1.PlanDocument {
	d, err := ParsePlan([]byte(soundPlan))
	if err != nil {
		panic(err)
	}
	return d
}

// What the plan's list of procedures to authorise says twice, or doesn't say
// at all, is told; that a benefit needs an authorisation itself is no fault.
func TestTheListOfAuthorisationsIsRead(t *testing.T) {
	for _, c := range []struct {
		list []string
		want []string
	}{
		{[]string{"70551", "99202-99215", "J0120-J9999", "0001F"}, nil},
		{[]string{"70551", "knee"}, []string{"plan.prior_authorization.shape prior_authorization_procedures[1]"}},
		{[]string{"97010-J7799", "99215-99202"}, []string{"plan.prior_authorization.range prior_authorization_procedures[0]", "plan.prior_authorization.range prior_authorization_procedures[1]"}},
		{[]string{"70551", "70551"}, []string{"plan.prior_authorization.repeated prior_authorization_procedures[1]"}},
		{[]string{"70551", "J0120", "70540-70559"}, []string{"plan.prior_authorization.repeated prior_authorization_procedures[2]"}},
		{[]string{"70540-70559", "70550-70570"}, nil},
	} {
		d := sound()
		d.Benefits[0].PriorAuthorization, d.PriorAuthorizationProcedures = true, c.list
		var got []string
		for _, p := range LintPlan(d) {
			got = append(got, p.RuleID+" "+p.FieldPath)
		}
		require.Equal(t, c.want, got, "%v", c.list)
	}
}

// An unknown method is told once, where it stands, and the engine refuses it
// too: a plan never pays by a word that nobody knows.
func TestAnUnknownWayToCoordinateIsRefused(t *testing.T) {
	for _, text := range []string{"coordination: {method: maintenance}", "coordination: {}"} {
		_, err := ParsePlan([]byte(soundPlan + text + "\n"))
		ps := problemsOf(t, err)
		require.Len(t, ps, 1)
		require.Equal(t, "field.string.in coordination.method", ps[0].RuleID+" "+ps[0].FieldPath)
	}
	d := sound()
	d.Coordination = &policiesv1.CoordinationRules{Method: "maintenance"}
	ps := LintPlan(d)
	require.Len(t, ps, 1)
	require.Equal(t, "plan.coordination.method", ps[0].RuleID)
	_, err := CompilePlan(d, "plan_gold@1")
	require.ErrorContains(t, err, "coordination")
	for _, method := range []string{"standard", "carve_out"} {
		_, err := ParsePlan([]byte(soundPlan + "coordination: {method: " + method + "}\nprior_authorization_procedures: [\"70551\", 99202-99215]\n"))
		require.NoError(t, err)
	}
}

func TestAContractsRatesAreHeldAgainstTheEngine(t *testing.T) {
	sound := func() *policiesv1.ProviderContract {
		return &policiesv1.ProviderContract{
			ContractId: "ctr_x", PayerId: "P1", Npis: []string{"1234567893"}, Effective: &typev1.Period{StartDate: "2026-01-01"}, FeeScheduleId: "fs_x",
			FacilityRates: []*policiesv1.FacilityRate{
				{Name: "day", RevenueCodes: []string{"0110-0219"}, Method: &policiesv1.FacilityRate_PerDiemCents{PerDiemCents: 150000}},
				{Name: "joints", Method: &policiesv1.FacilityRate_CaseRate{CaseRate: &policiesv1.CaseRate{BaseCents: 400000, Weights: []*policiesv1.GroupWeight{{Drg: "470", Weight: 18938}}}}},
			},
		}
	}
	if ps := LintContract(sound()); len(ps) > 0 {
		t.Fatalf("a sound contract: %v", ps)
	}
	for rule, spoil := range map[string]func(*policiesv1.ProviderContract){
		"contract.rate.repeated": func(c *policiesv1.ProviderContract) { c.FacilityRates[1].Name = "day" },
		"contract.rate.compile":  func(c *policiesv1.ProviderContract) { c.FacilityRates[0].RevenueCodes[0] = "0219-0110" },
		"contract.rate.weight-repeated": func(c *policiesv1.ProviderContract) {
			r := c.FacilityRates[1].GetCaseRate()
			r.Weights = append(r.Weights, r.Weights[0])
		},
	} {
		c := sound()
		spoil(c)
		if ps := LintContract(c); len(ps) != 1 || ps[0].RuleID != rule {
			t.Errorf("%s: %v", rule, ps)
		}
	}
}
