package adjudication

import (
	"errors"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"pgregory.net/rapid"
)

func ruleOf(when string, change ...func(*PlanRuleSpec)) PlanRuleSpec {
	s := PlanRuleSpec{ID: "one_visit", Clause: "One office visit a day is covered.", When: when, Group: "CO", CARC: "96", RARC: "N130"}
	for _, c := range change {
		c(&s)
	}
	return s
}

func TestPlanRules(t *testing.T) {
	under := func(rules ...PlanRuleSpec) func(*Input) {
		return func(in *Input) { replan(in, func(p *PlanSpec) { p.Rules = rules }) }
	}
	asks := func(s *PlanRuleSpec) { s.Pend = true }
	const denied = "denied\n1 denied, CO-96 N130 180.00 plan_rule.one_visit"
	holds := []string{
		`line.procedure == "99213" && line.units_milli <= 1000`,
		`line.procedure in ["99213", "99214"]`,
		`claim.diagnoses.exists(d, d.startsWith("E11"))`,
		`line.diagnoses == ["E119"]`,
		`line.service_date >= "2026-03-10" && line.service_date < "2026-03-11"`,
		`coverage.days == 252`,
		`claim.form == "professional" && line.network == "in" && line.benefit == "office_visit"`,
		`!claim.has_referral && !claim.has_authorization && !line.emergency && !coverage.other_payer_primary`,
		`claim.line_count == 1 && line.number == 1 && size(claim.procedures) == 1 && claim.charge_cents == line.charge_cents`,
		`claim.received_date == "2026-03-12" && line.days == 1 && line.place_of_service == "11" && coverage.relationship == "18"`,
		`line.modifiers.filter(m, m == "25").size() == 0 && line.unit_code == "UN" && line.revenue_code == ""`,
		`claim.billing_npi.endsWith("893") && claim.billing_taxonomy == "" && claim.type_of_bill == "" && claim.place_of_service.contains("1")`,
	}
	var stories []story
	for _, when := range holds {
		stories = append(stories, story{when, under(ruleOf(when)), denied}, story{"not " + when, under(ruleOf("!(" + when + ")")), cleanVisit})
	}
	tell(t, append(stories, []story{
		{"for another benefit", under(ruleOf("true", func(s *PlanRuleSpec) { s.Benefits = []string{"imaging"} })), cleanVisit},
		{"a person decides", under(ruleOf("true", asks)), "pended\n1 plan_rule.one_visit 96 N130"},
		{"approved", func(in *Input) {
			under(ruleOf("true", asks))(in)
			in.Review = Review{Resolution: Approved, Reasons: []PendReason{{RuleID: "plan_rule.one_visit", Line: 1}}}
		}, cleanVisit},
		{"refused with the rule's own codes", func(in *Input) {
			under(ruleOf("true", asks, func(s *PlanRuleSpec) { s.Group = "PR" }))(in)
			in.Review = Review{Resolution: Refused, Reasons: []PendReason{{RuleID: "plan_rule.one_visit", Line: 1}}}
		}, "denied\n1 denied, PR-96 N130 180.00 plan_rule.one_visit"},
		{"a rule that errs never denies", under(ruleOf("1000 / (line.units_milli - 1000) > 0")), "pended\n1 plan_rule.failed.one_visit 216"},
		{"an index beyond the list", under(ruleOf(`line.modifiers[0] == "59"`)), "pended\n1 plan_rule.failed.one_visit 216"},
		{"arithmetic that overflows", under(ruleOf("line.charge_cents * 9223372036854775807 > 0")), "pended\n1 plan_rule.failed.one_visit 216"},
		{"an error that doesn't matter is none", under(ruleOf("line.charge_cents * 9223372036854775807 > 0 && false")), cleanVisit},
		{"a failed rule, approved by a person", func(in *Input) {
			under(ruleOf("1 / (line.units_milli - 1000) > 0"))(in)
			in.Review = Review{Resolution: Approved, Reasons: []PendReason{{RuleID: "plan_rule.failed.one_visit", Line: 1}}}
		}, cleanVisit},
		{"a value longer than a rule may read", func(in *Input) {
			under(ruleOf(`line.unit_code == "UN"`))(in)
			in.Claim.Lines[0].UnitCode = strings.Repeat("U", ruleText+1)
		}, "pended\n1 plan_rule.failed.one_visit 216"},
		{"the first rule that holds ends the line", under(
			ruleOf("false"), ruleOf("true", func(s *PlanRuleSpec) { s.ID = "second" }), ruleOf("true", func(s *PlanRuleSpec) { s.ID = "third" }),
		), "denied\n1 denied, CO-96 N130 180.00 plan_rule.second"},
	}...))
}

func TestTheRemittanceQuotesTheClause(t *testing.T) {
	in := visit99213()
	replan(in, func(p *PlanSpec) { p.Rules = []PlanRuleSpec{ruleOf("true")} })
	d := Adjudicate(in)
	if got := d.Lines[0].Adjustments[0].Clause; got != "rules.one_visit: One office visit a day is covered." {
		t.Errorf("the clause is %q", got)
	}
}

func TestUnsoundRulesAreRefusedWithTheirPlace(t *testing.T) {
	nested := `claim.procedures.exists(a, claim.procedures.exists(b, a == b && claim.procedures.exists(c, c == b)))`
	for name, c := range map[string]struct {
		spec PlanRuleSpec
		at   PlanRuleFault // Message is a part
	}{
		"syntax":             {ruleOf("line.procedure =="), PlanRuleFault{"when", 1, 18, "Syntax error"}},
		"second line":        {ruleOf("true &&\n  line.procdure == 'x'"), PlanRuleFault{"when", 2, 3, "undeclared reference"}},
		"not a condition":    {ruleOf("line.charge_cents"), PlanRuleFault{"when", 1, 1, "not true or false"}},
		"types":              {ruleOf("line.charge_cents == '5'"), PlanRuleFault{"when", 1, 19, "no matching overload"}},
		"too costly":         {ruleOf(nested), PlanRuleFault{"when", 1, 1, "may cost"}},
		"a clock":            {ruleOf("now() > 5"), PlanRuleFault{"when", 1, 4, "undeclared reference to 'now'"}},
		"a time zone":        {ruleOf("timestamp('2026-01-01T00:00:00Z').getHours('Asia/Tokyo') == 9"), PlanRuleFault{"when", 1, 10, "undeclared reference"}},
		"a regex":            {ruleOf("line.procedure.matches('(a+)+b')"), PlanRuleFault{"when", 1, 23, "undeclared reference"}},
		"a map":              {ruleOf("{'a': 1, 'b': 2}.exists(k, k == line.procedure)"), PlanRuleFault{"when", 1, 1, "no maps"}},
		"floating point":     {ruleOf("0.1 + 0.2 == 0.3"), PlanRuleFault{"when", 1, 7, "no floating point"}},
		"too long":           {ruleOf("true" + strings.Repeat(" || true", 300)), PlanRuleFault{"when", 0, 0, "size"}},
		"no id":              {ruleOf("true", func(s *PlanRuleSpec) { s.ID = "One" }), PlanRuleFault{"id", 0, 0, "lower case"}},
		"no clause":          {ruleOf("true", func(s *PlanRuleSpec) { s.Clause = " " }), PlanRuleFault{"clause", 0, 0, "quotes the plan"}},
		"no such group":      {ruleOf("true", func(s *PlanRuleSpec) { s.Group = "XX" }), PlanRuleFault{"groupCode", 0, 0, "none of"}},
		"group not allowed":  {ruleOf("true", func(s *PlanRuleSpec) { s.CARC = "18" }), PlanRuleFault{"groupCode", 0, 0, "X12 allows"}},
		"no such reason":     {ruleOf("true", func(s *PlanRuleSpec) { s.CARC = "999" }), PlanRuleFault{"carc", 0, 0, "not a reason code"}},
		"no such remark":     {ruleOf("true", func(s *PlanRuleSpec) { s.RARC = "N0" }), PlanRuleFault{"rarc", 0, 0, "not a remark code"}},
		"a remark is needed": {ruleOf("true", func(s *PlanRuleSpec) { s.RARC = "" }), PlanRuleFault{"rarc", 0, 0, "needed"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := CompilePlanRule(c.spec)
			var refused *PlanRuleError
			if !errors.As(err, &refused) {
				t.Fatalf("compiles with %v", err)
			}
			for _, f := range refused.Faults {
				if f.Field == c.at.Field && strings.Contains(f.Message, c.at.Message) && (c.at.Line == 0 || f.Line == c.at.Line && f.Column == c.at.Column) {
					return
				}
			}
			t.Errorf("found %+v, want %+v", refused.Faults, c.at)
		})
	}
	both := ruleOf("line.procedure ==", func(s *PlanRuleSpec) { s.CARC = "999" })
	var refused *PlanRuleError
	if _, err := CompilePlanRule(both); !errors.As(err, &refused) || len(refused.Faults) < 2 || !strings.Contains(err.Error(), "when line 1 column 18") {
		t.Errorf("not every fault is told at once: %v", err)
	}
}

// A rule whose estimate was wrong is stopped while it runs.
func TestARuleIsStoppedAtItsLimit(t *testing.T) {
	in := visit99213()
	replan(in, func(p *PlanSpec) {
		p.Rules = []PlanRuleSpec{ruleOf("claim.procedures.exists(a, a == 'x' || a == 'y') || claim.diagnoses.exists(d, d == 'z')")}
	})
	rule := in.Member.Coverage[0].Plan.rules[0]
	if rule.Cost() <= unmetered {
		t.Fatalf("the rule costs %d at most and isn't metered", rule.Cost())
	}
	language, err := ruleEnv()
	if err != nil {
		t.Fatal(err)
	}
	checked, issues := language.Compile(rule.spec.When)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	if rule.program, err = rule.plan(language, checked, 3); err != nil {
		t.Fatal(err)
	}
	d := Adjudicate(in)
	sound(t, in, &d)
	if got, want := tale(&d), "pended\n1 plan_rule.cost.one_visit 216"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What a rule costs at run is never above what was estimated when it was
// compiled: that is why a cheap one needs no meter.
func TestTheEstimateBoundsTheCost(t *testing.T) {
	language, err := ruleEnv()
	if err != nil {
		t.Fatal(err)
	}
	conditions := []string{
		`line.procedure == "99213" && line.units_milli <= 1000 || line.charge_cents + 5 > 7`,
		`claim.diagnoses.exists(d, d.startsWith("E11") || d.endsWith("9") || d.contains("x"))`,
		`line.diagnoses == claim.diagnoses`,
		`line.modifiers.filter(m, m == "25" || m == line.procedure).size() == 0 ? line.network == "in" : line.benefit in ["a", line.benefit]`,
		`claim.procedures.all(p, p != "") && size(claim.procedures) % 2 == 0`,
		`claim.procedures.exists_one(p, p == line.procedure)`,
		`line.service_date + line.unit_code >= "2026" && line.modifiers + claim.diagnoses != []`,
		`claim.diagnoses.exists(a, line.modifiers.exists(b, a == b + "1"))`,
	}
	rapid.Check(t, func(t *rapid.T) {
		when := rapid.SampledFrom(conditions).Draw(t, "condition")
		rule, err := CompilePlanRule(ruleOf(when))
		if err != nil {
			t.Fatal(err)
		}
		checked, issues := language.Compile(when)
		if issues.Err() != nil {
			t.Fatal(issues.Err())
		}
		metered, err := language.Program(checked, cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost))
		if err != nil {
			t.Fatal(err)
		}
		in := visit99213()
		word := rapid.SampledFrom([]string{"", "x", "E119", strings.Repeat("é", ruleText), strings.Repeat("y", ruleText)})
		var lines []Line
		for range rapid.SampledFrom([]int{1, 3, maxLines}).Draw(t, "lines") {
			lines = append(lines, given("99213", 100, 1))
		}
		serve(in, lines...)
		l := &in.Claim.Lines[0]
		l.Procedure, l.UnitCode = word.Draw(t, "procedure"), word.Draw(t, "unit")
		l.Modifiers = rapid.SliceOfN(word, 0, ruleShort).Draw(t, "modifiers")
		in.Claim.Diagnoses, l.DiagnosisPointers = nil, nil
		for i := range rapid.IntRange(0, ruleCodes).Draw(t, "diagnoses") {
			in.Claim.Diagnoses = append(in.Claim.Diagnoses, Diagnosis{Code: word.Draw(t, "diagnosis")})
			l.DiagnosisPointers = append(l.DiagnosisPointers, uint32(i+1))
		}
		vars := &ruleVars{r: &run{in: in}}
		vars.of(&line{Line: l, benefit: &benefit{Benefit: Benefit{Name: word.Draw(t, "benefit")}}, coverage: &in.Member.Coverage[0]})
		_, details, _ := metered.Eval(vars)
		if cost := details.ActualCost(); cost == nil || *cost > rule.Cost() {
			t.Fatalf("costs %d, estimated at most %d", *cost, rule.Cost())
		}
	})
}

func TestUnsoundRulesMakeAnUnsoundPlan(t *testing.T) {
	for name, c := range map[string]struct {
		rules []PlanRuleSpec
		says  string
	}{
		"one that doesn't compile": {[]PlanRuleSpec{ruleOf("line.")}, "rules.one_visit when line 1"},
		"an id twice":              {[]PlanRuleSpec{ruleOf("true"), ruleOf("false")}, "rules[1].id is used twice"},
		"an unknown benefit":       {[]PlanRuleSpec{ruleOf("true", func(s *PlanRuleSpec) { s.Benefits = []string{"spa"} })}, `"spa"`},
		"too many":                 {make([]PlanRuleSpec, maxPlanRules+1), "more than"},
	} {
		spec := goldSpec()
		spec.Rules = c.rules
		if _, err := CompilePlan(spec); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkPlanRule(b *testing.B) {
	in := visit99213()
	replan(in, func(p *PlanSpec) {
		p.Rules = []PlanRuleSpec{ruleOf(`line.procedure in ["99204", "99205"] && line.charge_cents > 50000`)}
	})
	b.ReportAllocs()
	for b.Loop() {
		if d := Adjudicate(in); d.Status != Paid {
			b.Fatal(d.Explain())
		}
	}
}
