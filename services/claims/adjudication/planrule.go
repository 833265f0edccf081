package adjudication

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/probity-health/probity/services/codes"
)

// PlanRuleSpec is one rule of a plan, in the terms of
// probity.policies.v1.PlanRule: a condition on a service line, written in the
// Common Expression Language, and what follows where it holds.
//
// A condition reads these variables; dates are ISO 8601 text, which compares
// as dates do:
//
//	claim.form                 "professional" or "institutional"
//	claim.charge_cents         int
//	claim.line_count           int
//	claim.procedures           list of string, a line each, in order
//	claim.diagnoses            list of string, without dots, in order
//	claim.place_of_service     string
//	claim.type_of_bill         string, "131"; empty on a professional claim
//	claim.billing_npi          string
//	claim.billing_taxonomy     string
//	claim.has_referral         bool
//	claim.has_authorization    bool
//	claim.received_date        string
//	line.number                int
//	line.procedure             string
//	line.modifiers             list of string
//	line.charge_cents          int
//	line.units_milli           int, thousandths of the billed unit
//	line.unit_code             string
//	line.place_of_service      string, the claim's where the line names none
//	line.revenue_code          string
//	line.diagnoses             list of string: those the line points to
//	line.service_date          string
//	line.days                  int, days of service
//	line.emergency             bool
//	line.benefit               string
//	line.network               "in" or "out"
//	coverage.relationship      string
//	coverage.other_payer_primary  bool
//	coverage.days              int, from the coverage's first day to the service
//
// There are comparisons, arithmetic on integers, &&, ||, !, ?:, in, size,
// startsWith, endsWith, contains, and the macros all, exists, exists_one and
// filter. There is no clock, no chance, no floating point, no map (its order
// would be chance) and no regular expression.
type PlanRuleSpec struct {
	ID string // lower case letters, digits and _; at most 41
	// Clause is the plan's wording that the rule puts into effect; remittances
	// and explanations quote it. At most 300 characters, no health data.
	Clause string
	When   string // the condition
	// Benefits limits the rule to lines of these; empty is every covered line.
	Benefits []string
	// Pend: where the condition holds a person decides; else the line is denied.
	Pend bool
	// Group, CARC and RARC of the denial, or of a reviewer's refusal.
	Group, CARC, RARC string
}

// PlanRuleFault is one thing wrong with a rule. Line and Column, from 1, are
// the place in When; 0 where the fault isn't the condition's.
type PlanRuleFault struct {
	Field        string // "id", "clause", "when", "benefits", "groupCode", "carc", "rarc"
	Line, Column int
	Message      string
}

// PlanRuleError lists everything wrong with a rule.
type PlanRuleError struct {
	ID     string
	Faults []PlanRuleFault
}

func (e *PlanRuleError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "rules.%s", e.ID)
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteString(";")
		}
		fmt.Fprintf(&b, " %s", f.Field)
		if f.Line > 0 {
			fmt.Fprintf(&b, " line %d column %d", f.Line, f.Column)
		}
		fmt.Fprintf(&b, ": %s", f.Message)
	}
	return b.String()
}

// PlanRule is a compiled rule: immutable, safe to share.
type PlanRule struct {
	spec    PlanRuleSpec
	rule    Rule
	clause  string
	program cel.Program
	cost    uint64
}

// ID returns the rule's id.
func (p *PlanRule) ID() string { return p.spec.ID }

// Cost returns the most that an evaluation can cost, in CEL's units: about
// one a variable read, operation or ten characters compared.
func (p *PlanRule) Cost() uint64 { return p.cost }

// The cost limits. A rule whose worst case on the largest claim is above
// MaxRuleCost isn't compiled. The worst case rests on the sizes below, which
// are enforced where values enter a rule, so one that is at most unmetered is
// run without counting; any other is counted while it runs and stopped at
// MaxRuleCost, whatever its estimate said.
const (
	MaxRuleCost = 50_000
	unmetered   = 500

	ruleText   = 80  // characters of one string
	ruleLines  = 999 // lines of a claim
	ruleCodes  = 25  // diagnoses of a claim
	ruleShort  = 12  // modifiers, pointers of a line
	ruleSource = 2000
	maxClause  = 300
)

// variables of a condition and the most items of those that are lists.
var variables = []struct {
	name string
	kind *cel.Type
	most uint64
}{
	{"claim.form", cel.StringType, 0},
	{"claim.charge_cents", cel.IntType, 0},
	{"claim.line_count", cel.IntType, 0},
	{"claim.procedures", cel.ListType(cel.StringType), ruleLines},
	{"claim.diagnoses", cel.ListType(cel.StringType), ruleCodes},
	{"claim.place_of_service", cel.StringType, 0},
	{"claim.type_of_bill", cel.StringType, 0},
	{"claim.billing_npi", cel.StringType, 0},
	{"claim.billing_taxonomy", cel.StringType, 0},
	{"claim.has_referral", cel.BoolType, 0},
	{"claim.has_authorization", cel.BoolType, 0},
	{"claim.received_date", cel.StringType, 0},
	{"line.number", cel.IntType, 0},
	{"line.procedure", cel.StringType, 0},
	{"line.modifiers", cel.ListType(cel.StringType), ruleShort},
	{"line.charge_cents", cel.IntType, 0},
	{"line.units_milli", cel.IntType, 0},
	{"line.unit_code", cel.StringType, 0},
	{"line.place_of_service", cel.StringType, 0},
	{"line.revenue_code", cel.StringType, 0},
	{"line.diagnoses", cel.ListType(cel.StringType), ruleCodes},
	{"line.service_date", cel.StringType, 0},
	{"line.days", cel.IntType, 0},
	{"line.emergency", cel.BoolType, 0},
	{"line.benefit", cel.StringType, 0},
	{"line.network", cel.StringType, 0},
	{"coverage.relationship", cel.StringType, 0},
	{"coverage.other_payer_primary", cel.BoolType, 0},
	{"coverage.days", cel.IntType, 0},
}

// RuleVariables are the names of what a condition may read.
func RuleVariables() []string {
	names := make([]string, len(variables))
	for i, v := range variables {
		names[i] = v.name
	}
	return names
}

// ruleEnv is the language of conditions, built when the first rule is compiled.
var ruleEnv = sync.OnceValues(func() (*cel.Env, error) {
	allowed := env.NewLibrarySubset().AddIncludedMacros("all", "exists", "exists_one", "filter")
	for _, f := range []string{
		operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional, operators.NotStrictlyFalse,
		operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals,
		operators.Add, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo, operators.Negate,
		operators.In, operators.Index, "size", "startsWith", "endsWith", "contains",
	} {
		allowed.AddIncludedFunctions(env.NewFunction(f))
	}
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(allowed)), cel.EagerlyValidateDeclarations(true),
		cel.ParserExpressionSizeLimit(ruleSource), cel.ParserRecursionLimit(50),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.kind))
	}
	return cel.NewCustomEnv(options...)
})

// CompilePlanRule checks a rule and compiles its condition. The error is a
// *PlanRuleError with every fault found; it is the one judge of a rule, for
// those who publish plans and for the engine alike.
func CompilePlanRule(spec PlanRuleSpec) (*PlanRule, error) {
	spec.Benefits = slices.Clone(spec.Benefits)
	p := &PlanRule{
		spec:   spec,
		rule:   Rule{ID: "plan_rule." + spec.ID, Group: spec.Group, CARC: spec.CARC, RARC: spec.RARC},
		clause: "rules." + spec.ID + ": " + spec.Clause,
	}
	if spec.Pend {
		p.rule.Pend = "The plan asks for a decision: " + spec.Clause
	}
	faults := spec.check()
	language, err := ruleEnv()
	if err != nil {
		return nil, err // a defect of this package, which its tests would show
	}
	faults = append(faults, p.compile(language, MaxRuleCost)...)
	if len(faults) > 0 {
		return nil, &PlanRuleError{ID: spec.ID, Faults: faults}
	}
	return p, nil
}

func (s PlanRuleSpec) check() (faults []PlanRuleFault) {
	add := func(field, message string) {
		faults = append(faults, PlanRuleFault{Field: field, Message: message})
	}
	if !validRuleID(s.ID) {
		add("id", "is not a lower case letter and up to forty letters, digits and _")
	}
	if n := utf8.RuneCountInString(s.Clause); strings.TrimSpace(s.Clause) == "" || n > maxClause {
		add("clause", fmt.Sprintf("quotes the plan in 1 to %d characters", maxClause))
	}
	if _, ok := codes.Group(s.Group); !ok {
		add("groupCode", "is none of CO, OA, PI, PR")
	} else if !codes.GroupAllowed(s.Group, s.CARC) {
		add("groupCode", "is not a group that X12 allows with this reason code")
	}
	if _, ok := codes.CARC(s.CARC); !ok {
		add("carc", "is not a reason code that this system sends")
	}
	if _, ok := codes.RARC(s.RARC); s.RARC != "" && !ok {
		add("rarc", "is not a remark code that this system sends")
	} else if s.RARC == "" && codes.NeedsRemark(s.CARC) {
		add("rarc", "is needed with this reason code")
	}
	return faults
}

func validRuleID(s string) bool {
	if s == "" || len(s) > 41 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func (p *PlanRule) compile(language *cel.Env, limit uint64) (faults []PlanRuleFault) {
	checked, issues := language.Compile(p.spec.When)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			faults = append(faults, PlanRuleFault{"when", e.Location.Line(), e.Location.Column() + 1, e.Message})
		}
		return faults
	}
	if !checked.OutputType().IsExactType(cel.BoolType) {
		return []PlanRuleFault{{"when", 1, 1, "the condition is " + checked.OutputType().String() + ", not true or false"}}
	}
	tree := checked.NativeRep()
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		at := tree.SourceInfo().GetStartLocation(e.ID())
		refuse := func(what string) {
			faults = append(faults, PlanRuleFault{"when", at.Line(), at.Column() + 1, what})
		}
		switch e.Kind() {
		case ast.MapKind, ast.StructKind:
			refuse("a rule has no maps or messages: the order of their entries isn't fixed")
		case ast.LiteralKind:
			switch e.AsLiteral().Type() {
			case types.DoubleType:
				refuse("a rule has no floating point numbers; amounts are whole cents, units thousandths")
			case types.BytesType, types.UintType:
				refuse("a rule has no bytes and no unsigned numbers")
			}
		}
	}))
	if len(faults) > 0 {
		return faults
	}
	estimate, err := language.EstimateCost(checked, sizes{})
	if err != nil {
		return []PlanRuleFault{{"when", 1, 1, "the rule's cost can't be bounded: " + err.Error()}}
	}
	if estimate.Max > limit {
		return []PlanRuleFault{{"when", 1, 1, fmt.Sprintf("the rule may cost %d on the largest claim, more than %d; read fewer lists inside one another", estimate.Max, limit)}}
	}
	p.cost = estimate.Max
	p.program, err = p.plan(language, checked, limit)
	if err != nil {
		return []PlanRuleFault{{"when", 1, 1, err.Error()}}
	}
	return nil
}

func (p *PlanRule) plan(language *cel.Env, checked *cel.Ast, limit uint64) (cel.Program, error) {
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if p.cost > unmetered {
		options = append(options, cel.EvalOptions(cel.OptOptimize, cel.OptTrackCost), cel.CostLimit(limit))
	}
	return language.Program(checked, options...)
}

// sizes are the bounds of what a rule reads.
type sizes struct{}

func (sizes) EstimateSize(n checker.AstNode) *checker.SizeEstimate {
	if path := n.Path(); len(path) == 1 {
		for _, v := range variables {
			if v.name == path[0] && v.most > 0 {
				return &checker.SizeEstimate{Max: v.most}
			}
		}
	}
	if n.Type().Kind() == types.StringKind {
		return &checker.SizeEstimate{Max: ruleText}
	}
	return nil
}

func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

var errRuleSize = errors.New("adjudication: a value is larger than a rule may read")

// ruleVars are the variables of one line's conditions. Each is made when it
// is first read and kept for the line's other rules.
type ruleVars struct {
	r     *run
	l     *line
	claim [12]ref.Val
	line  [17]ref.Val
}

var _ cel.Activation = (*ruleVars)(nil)

// Parent implements cel.Activation.
func (v *ruleVars) Parent() cel.Activation { return nil }

// of turns the variables to another line.
func (v *ruleVars) of(l *line) {
	v.l = l
	clear(v.line[:])
}

// ResolveName implements cel.Activation.
func (v *ruleVars) ResolveName(name string) (any, bool) {
	at, known := variableIndex[name]
	if !known {
		return nil, false
	}
	slot := &v.line[max(0, at-len(v.claim))]
	if at < len(v.claim) {
		slot = &v.claim[at]
	}
	if *slot == nil {
		*slot = v.read(name)
	}
	return *slot, true
}

var variableIndex = func() map[string]int {
	index := make(map[string]int, len(variables))
	for i, v := range variables {
		index[v.name] = i
	}
	return index
}()

func (v *ruleVars) read(name string) ref.Val {
	c, l := &v.r.in.Claim, v.l
	switch name {
	case "claim.form":
		if c.Form == Institutional {
			return boxed("institutional")
		}
		return boxed("professional")
	case "claim.charge_cents":
		return types.Int(c.Charge)
	case "claim.line_count":
		return types.Int(len(c.Lines))
	case "claim.procedures":
		all := make([]string, len(c.Lines))
		for i := range c.Lines {
			all[i] = c.Lines[i].Procedure
		}
		return texts(all, ruleLines)
	case "claim.diagnoses":
		all := make([]string, len(c.Diagnoses))
		for i := range c.Diagnoses {
			all[i] = c.Diagnoses[i].Code
		}
		return texts(all, ruleCodes)
	case "claim.place_of_service":
		return text(c.PlaceOfService)
	case "claim.type_of_bill":
		return text(c.TypeOfBill)
	case "claim.billing_npi":
		return text(c.BillingNPI)
	case "claim.billing_taxonomy":
		return text(c.BillingTaxonomy)
	case "claim.has_referral":
		return types.Bool(c.ReferralNumber != "")
	case "claim.has_authorization":
		return types.Bool(c.PriorAuthorizationNumber != "")
	case "claim.received_date":
		return text(c.ReceivedDate.String())
	case "line.number":
		return types.Int(l.Number)
	case "line.procedure":
		return text(l.Procedure)
	case "line.modifiers":
		return texts(l.Modifiers, ruleShort)
	case "line.charge_cents":
		return types.Int(l.Charge)
	case "line.units_milli":
		return milli(l.QuantityMilli)
	case "line.unit_code":
		return text(l.UnitCode)
	case "line.place_of_service":
		return text(v.r.place(l))
	case "line.revenue_code":
		return text(l.RevenueCode)
	case "line.diagnoses":
		var pointed []string
		v.r.anyDiagnosis(l, func(d Diagnosis) bool {
			pointed = append(pointed, d.Code)
			return false
		})
		return texts(pointed, ruleCodes)
	case "line.service_date":
		return text(l.ServiceDate.String())
	case "line.days":
		return types.Int(l.days())
	case "line.emergency":
		return types.Bool(l.Emergency)
	case "line.benefit":
		return text(l.benefit.Name)
	case "line.network":
		return text(l.tier.String())
	case "coverage.relationship":
		return text(v.r.in.Member.Relationship)
	case "coverage.other_payer_primary":
		return types.Bool(v.r.in.Member.OtherPayerPrimary)
	case "coverage.days":
		from := l.coverage.YearStart
		if from == 0 {
			from = l.coverage.Period.Start
		}
		return types.Int(l.ServiceDate - from)
	}
	return types.WrapErr(errRuleSize)
}

func text(s string) ref.Val {
	if len(s) > ruleText && utf8.RuneCountInString(s) > ruleText {
		return types.WrapErr(errRuleSize)
	}
	return boxed(s)
}

func texts(all []string, most int) ref.Val {
	if len(all) > most {
		return types.WrapErr(errRuleSize)
	}
	values := make([]ref.Val, len(all))
	for i, s := range all {
		if values[i] = text(s); types.IsError(values[i]) {
			return values[i]
		}
	}
	return types.NewRefValList(types.DefaultTypeAdapter, values)
}

// milli boxes a quantity: whole units up to a hundred are boxed already.
func milli(n int64) ref.Val {
	if n >= 0 && n%1000 == 0 && n/1000 < int64(len(wholeUnits)) {
		return wholeUnits[n/1000]
	}
	return types.Int(n)
}

var wholeUnits = func() (all [101]ref.Val) {
	for i := range all {
		all[i] = types.Int(i * 1000)
	}
	return all
}()

// boxes hold texts as CEL's values: claims use few different codes, and boxing
// one costs an allocation. A slot keeps the last text that fell into it; which
// that is can't change an outcome.
var (
	boxes   [4096]atomic.Pointer[box]
	boxSeed = maphash.MakeSeed()
)

type box struct {
	text  string
	value ref.Val
}

func boxed(s string) ref.Val {
	slot := &boxes[maphash.String(boxSeed, s)%uint64(len(boxes))]
	if b := slot.Load(); b != nil && b.text == s {
		return b.value
	}
	// A copy: the text may be a piece of a claim's far larger buffer.
	s = strings.Clone(s)
	b := &box{s, types.String(s)}
	slot.Store(b)
	return b.value
}

// holds evaluates the condition; failed is the engine's own rule where that
// can't be done.
func (p *PlanRule) holds(v *ruleVars) (holds bool, failed rule, ok bool) {
	out, _, err := p.program.Eval(v)
	if err != nil {
		if p.cost > unmetered && strings.Contains(err.Error(), "cost limit exceeded") {
			return false, planRuleCost, false
		}
		return false, planRuleFailed, false
	}
	b, isBool := out.(types.Bool)
	if !isBool {
		return false, planRuleFailed, false
	}
	return bool(b), 0, true
}

// planRules applies the plan's own rules to a line, in the plan's order. One
// that can't be evaluated never denies: a person decides by its clause.
func planRules(r *run, l *line) {
	if len(l.benefit.rules) == 0 {
		return
	}
	if r.vars == nil {
		r.vars = new(ruleVars)
	}
	r.vars.r = r
	r.vars.of(l)
	for _, p := range l.benefit.rules {
		holds, failed, ok := p.holds(r.vars)
		switch {
		case !ok:
			r.pends = append(r.pends, pend{rule: failed, line: l, plan: p})
		case !holds:
		case p.spec.Pend:
			r.pends = append(r.pends, pend{line: l, plan: p, asked: true})
		default:
			r.denyBy(l, &p.rule, p.clause)
			return
		}
	}
}
