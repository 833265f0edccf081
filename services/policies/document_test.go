package policies

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/problem"
)

// soundPlan passes every rule; tests change one thing.
const soundPlan = `
plan_id: plan_gold
name: Gold
payer_id: P1
effective: {start_date: 2026-01-01}
plan_year: calendar
timely_filing_days: 365
in_network:
  deductible_individual_cents: 50000
  deductible_family_cents: 100000
  deductible_kind: embedded
  coinsurance_bps: 2000
  out_of_pocket_individual_cents: 300000
  out_of_pocket_family_cents: 600000
out_of_network:
  deductible_kind: embedded
  coinsurance_bps: 4000
out_of_network_allowed_bps: 8000
fee_schedule_id: fs_standard
benefits:
  - name: office_visit
    match: {procedures: [99202-99215]}
    covered: true
    copay_in_cents: 2500
  - name: rest
    covered: true
`

func problemsOf(t *testing.T, err error) []problem.Problem {
	t.Helper()
	require.Error(t, err)
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, problem.Invalid, e.Kind)
	require.NotEmpty(t, e.Problems)
	for _, p := range e.Problems {
		require.NotEmpty(t, p.RuleID)
		require.NotEmpty(t, p.Message)
		require.NotEmpty(t, p.Fix, p.RuleID)
	}
	return e.Problems
}

func TestAPlanIsReadFromYAMLAndJSONAlike(t *testing.T) {
	fromYAML, err := ParsePlan([]byte(soundPlan))
	require.NoError(t, err)
	require.Equal(t, "99202-99215", fromYAML.GetBenefits()[0].GetMatch().GetProcedures()[0])
	require.Equal(t, "2026-01-01", fromYAML.GetEffective().GetStartDate())

	text, err := protojson.MarshalOptions{Multiline: true, Indent: "\t"}.Marshal(fromYAML)
	require.NoError(t, err)
	fromJSON, err := ParsePlan(text)
	require.NoError(t, err)
	require.True(t, proto.Equal(fromYAML, fromJSON))
}

func TestReadingIsStrict(t *testing.T) {
	for name, c := range map[string]struct{ old, new, rule, path, fix string }{
		"unknown field":        {"copay_in_cents: 2500", "copay_in_cent: 2500", "document.unknown-field", "benefits[0].copay_in_cent", "did you mean copay_in_cents?"},
		"unknown camel field":  {"plan_year:", "planYeer:", "document.unknown-field", "planYeer", "did you mean planYear?"},
		"field twice":          {"name: Gold", "name: Gold\nname: Silver", "document.repeated-field", "name", ""},
		"field in two forms":   {"plan_year: calendar", "plan_year: calendar\nplanYear: calendar", "document.repeated-field", "plan_year", ""},
		"dollars for cents":    {"copay_in_cents: 2500", "copay_in_cents: 25.00", "document.kind", "benefits[0].copay_in_cents", "write whole US cents: 1250 is $12.50"},
		"a percentage":         {"coinsurance_bps: 2000", "coinsurance_bps: 20%", "document.kind", "in_network.coinsurance_bps", "write basis points: 2000 is 20 %"},
		"octal":                {"timely_filing_days: 365", "timely_filing_days: 0o555", "document.kind", "timely_filing_days", ""},
		"yes for true":         {"covered: true\n    copay", "covered: yes\n    copay", "document.kind", "benefits[0].covered", "write true or false"},
		"quoted bool":          {"covered: true\n    copay", "covered: \"true\"\n    copay", "document.kind", "benefits[0].covered", ""},
		"null":                 {"name: Gold", "name:", "document.kind", "name", ""},
		"list for a value":     {"name: Gold", "name: [Gold]", "document.kind", "name", ""},
		"value for a list":     {"procedures: [99202-99215]", "procedures: 99202-99215", "document.kind", "benefits[0].match.procedures", ""},
		"value for fields":     {"effective: {start_date: 2026-01-01}", "effective: 2026", "document.kind", "effective", ""},
		"alias":                {"name: Gold\npayer_id: P1", "name: &n Gold\npayer_id: *n", "document.alias", "payer_id", ""},
		"beyond 64 bits":       {"copay_in_cents: 2500", "copay_in_cents: 9223372036854775808", "document.kind", "benefits[0].copay_in_cents", ""},
		"negative count":       {"timely_filing_days: 365", "timely_filing_days: -1", "document.kind", "timely_filing_days", ""},
		"two documents":        {"  - name: rest\n    covered: true\n", "---\nplan_id: plan_b\n", "document.one", "", ""},
		"not YAML":             {"effective: {", "effective: {{{", "document.syntax", "", ""},
		"a key that's no name": {"name: Gold", "\"Jane Doe, 1984\": Gold", "document.unknown-field", "(unreadable key)", "remove it"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, soundPlan, c.old)
			_, err := ParsePlan([]byte(strings.Replace(soundPlan, c.old, c.new, 1)))
			p := problemsOf(t, err)[0]
			require.Equal(t, c.rule, p.RuleID)
			require.Equal(t, c.path, p.FieldPath)
			if c.fix != "" {
				require.Equal(t, c.fix, p.Fix)
			}
		})
	}
}

func TestEmptyAndOversizeDocumentsAreRefused(t *testing.T) {
	for text, rule := range map[string]string{
		"": "document.empty", "# only a comment\n": "document.empty",
		strings.Repeat(" ", MaxDocumentBytes+1): "document.size",
	} {
		_, err := ParsePlan([]byte(text))
		require.Equal(t, rule, problemsOf(t, err)[0].RuleID)
	}
}

func TestLongListsAreRefusedBeforeTheyAreRead(t *testing.T) {
	_, err := ParsePlan([]byte("benefits: [" + strings.Repeat("{},", maxItems+1) + "]"))
	p := problemsOf(t, err)
	require.Len(t, p, 1)
	require.Equal(t, [2]string{"document.list", "benefits"}, [2]string{p[0].RuleID, p[0].FieldPath})

	_, err = ParseContract([]byte("npis: [" + strings.Repeat(strings.Repeat("1", 100)+",", 9_100) + "]"))
	require.Equal(t, "document.size", problemsOf(t, err)[0].RuleID, "what can't be recorded isn't looked into")
}

func TestManyProblemsAreBounded(t *testing.T) {
	_, err := ParsePlan([]byte(strings.Repeat("x: 1\ny: 2\n", 5000)))
	require.Len(t, problemsOf(t, err), maxProblems)
}

func TestFieldRulesNameTheFieldAndNotTheValue(t *testing.T) {
	text := strings.Replace(soundPlan, "plan_id: plan_gold", "plan_id: Secret-Value", 1)
	_, err := ParsePlan([]byte(text))
	p := problemsOf(t, err)[0]
	require.Equal(t, "plan_id", p.FieldPath)
	require.Equal(t, "field.string.pattern", p.RuleID)
	require.NotContains(t, p.Message, "Secret-Value")
}

func TestLintFindsContradictionsInPlans(t *testing.T) {
	for name, c := range map[string]struct{ old, new, rule, path string }{
		"reversed period":                {"{start_date: 2026-01-01}", "{start_date: 2026-01-01, end_date: 2025-12-31}", "period.reversed", "effective"},
		"no such day":                    {"{start_date: 2026-01-01}", "{start_date: 2026-02-29}", "date.calendar", "effective.start_date"},
		"deductible over family's":       {"deductible_individual_cents: 50000", "deductible_individual_cents: 100001", "plan.deductible.individual-over-family", "in_network.deductible_individual_cents"},
		"aggregate without family":       {"deductible_family_cents: 100000\n  deductible_kind: embedded", "deductible_kind: aggregate", "plan.deductible.aggregate-without-family", "in_network.deductible_family_cents"},
		"embedded without individual":    {"deductible_individual_cents: 50000", "deductible_individual_cents: 0", "plan.deductible.embedded-without-individual", "in_network.deductible_individual_cents"},
		"cap over family's":              {"out_of_pocket_individual_cents: 300000", "out_of_pocket_individual_cents: 600001", "plan.out-of-pocket.individual-over-family", "in_network.out_of_pocket_individual_cents"},
		"cap below deductible":           {"out_of_pocket_individual_cents: 300000", "out_of_pocket_individual_cents: 49999", "plan.out-of-pocket.below-deductible", "in_network.out_of_pocket_individual_cents"},
		"family cap below deductible":    {"out_of_pocket_individual_cents: 300000\n  out_of_pocket_family_cents: 600000", "out_of_pocket_family_cents: 99999", "plan.out-of-pocket.below-deductible", "in_network.out_of_pocket_family_cents"},
		"nothing allowed out":            {"out_of_network_allowed_bps: 8000", "out_of_network_allowed_bps: 0", "plan.out-of-network.share", "out_of_network_allowed_bps"},
		"no schedule out of network":     {"fee_schedule_id: fs_standard\n", "", "plan.out-of-network.fee_schedule", "fee_schedule_id"},
		"share without tier":             {"out_of_network:\n  deductible_kind: embedded\n  coinsurance_bps: 4000\n", "", "plan.out-of-network.absent", "out_of_network_allowed_bps"},
		"copay and coinsurance":          {"copay_in_cents: 2500", "copay_in_cents: 2500\n    use_coinsurance: true\n    coinsurance_in_bps: 1000", "plan.benefit.copay-and-coinsurance", "benefits[0].coinsurance_in_bps"},
		"coinsurance not used":           {"copay_in_cents: 2500", "coinsurance_in_bps: 1000", "plan.benefit.coinsurance-unused", "benefits[0].use_coinsurance"},
		"figures of an uncovered":        {"covered: true\n    copay", "covered: false\n    copay", "plan.benefit.not-covered", "benefits[0].copay_in_cents"},
		"year over lifetime":             {"copay_in_cents: 2500", "dollars_per_year_cents: 2\n    lifetime_cents: 1", "plan.benefit.year-over-lifetime", "benefits[0].dollars_per_year_cents"},
		"name twice":                     {"name: rest", "name: office_visit", "plan.benefit.repeated", "benefits[1].name"},
		"range reversed":                 {"99202-99215", "99215-99202", "plan.match.range", "benefits[0].match.procedures[0]"},
		"range of two shapes":            {"99202-99215", "J0120-99215", "plan.match.range", "benefits[0].match.procedures[0]"},
		"place of service":               {"match: {procedures: [99202-99215]}", "match: {places_of_service: [office]}", "plan.match.shape", "benefits[0].match.places_of_service[0]"},
		"diagnosis with point":           {"copay_in_cents: 2500", "diagnosis_prefixes: [\"Z00.0\"]", "plan.match.shape", "benefits[0].diagnosis_prefixes[0]"},
		"referral without specialist":    {"fee_schedule_id: fs_standard", "fee_schedule_id: fs_standard\nreferral_required: true", "plan.referral.no-specialist", "referral_required"},
		"second reviewer never and from": {"fee_schedule_id: fs_standard", "fee_schedule_id: fs_standard\nsecond_reviewer: {from_cents: 1, never: true}", "plan.second-reviewer.never-and-from", "second_reviewer.from_cents"},
		"first benefit takes all":        {"    match: {procedures: [99202-99215]}\n", "", "plan.benefit.unreachable", "benefits[1].match"},
		"earlier range takes the later":  {"  - name: rest\n", "  - name: low\n    match: {procedures: [99210, 99212-99215]}\n    covered: true\n  - name: rest\n", "plan.benefit.unreachable", "benefits[1].match"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, soundPlan, c.old)
			_, err := ParsePlan([]byte(strings.Replace(soundPlan, c.old, c.new, 1)))
			p := problemsOf(t, err)[0]
			require.Equal(t, [2]string{c.rule, c.path}, [2]string{p.RuleID, p.FieldPath})
		})
	}
}

func TestLintOfFeeSchedulesAndContracts(t *testing.T) {
	_, err := ParseFeeSchedule([]byte("{fee_schedule_id: fs_a, payer_id: P1, effective: {start_date: 2026-01-01}, fees: [{procedure: 99213}, {procedure: 99213, modifier: \"26\"}, {procedure: 99213}]}"))
	p := problemsOf(t, err)
	require.Len(t, p, 1)
	require.Equal(t, [2]string{"fee_schedule.fee.repeated", "fees[2]"}, [2]string{p[0].RuleID, p[0].FieldPath})

	_, err = ParseContract([]byte("{contract_id: ctr_a, payer_id: P1, npis: [1234567893, 1234567890, 1234567893], effective: {start_date: 2026-01-01}, fee_schedule_id: fs_a, capitated: true, fee_bps: 9000, plan_ids: [plan_a, plan_a]}"))
	var rules []string
	for _, p := range problemsOf(t, err) {
		rules = append(rules, p.RuleID)
	}
	require.Equal(t, []string{"contract.npi.check-digit", "contract.npi.repeated", "contract.capitated.fee", "contract.plan.repeated"}, rules)
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(soundPlan))
	f.Add([]byte("{plan_id: [&a *a], benefits: {}}"))
	f.Add([]byte("a: &a [*a]\n<<: *a"))
	f.Add([]byte("- 1\n--- \n..."))
	f.Add([]byte("name: \"\\ud800\""))
	f.Fuzz(func(t *testing.T, data []byte) {
		var doc policiesv1.PlanDocument
		err := Read(data, &doc)
		if err != nil {
			if n := len(problemsOf(t, err)); n > maxProblems {
				t.Fatalf("%d problems", n)
			}
			return
		}
		// What was accepted can be recorded, and checked without falling over.
		if _, err := proto.Marshal(&doc); err != nil {
			t.Fatal(err)
		}
		LintPlan(&doc)
	})
}
