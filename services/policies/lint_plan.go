package policies

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/problem"
)

var (
	procedurePattern = regexp.MustCompile(`^[A-Z0-9]{4,5}(-[A-Z0-9]{4,5})?$`)
	revenuePattern   = regexp.MustCompile(`^[0-9]{4}(-[0-9]{4})?$`)
	placePattern     = regexp.MustCompile(`^[0-9]{2}$`)
	diagnosisPattern = regexp.MustCompile(`^[A-Z0-9]{1,7}$`)
	feeSchedulePat   = regexp.MustCompile(`^fs_[a-z0-9_]{1,40}$`)
)

// maxPlanRanges bounds the codes and ranges of all benefits together, and
// with it what finding unreachable benefits costs.
const maxPlanRanges = 20_000

// LintPlan finds what a plan's fields allow one by one but not together:
// figures that contradict each other, figures nothing would ever read, and
// benefits that no service can reach because earlier ones take them all.
func LintPlan(d *policiesv1.PlanDocument) []problem.Problem {
	var f finding
	f.period(PeriodOf(d.GetEffective()), "effective")
	lintCostShare(&f, d.GetInNetwork(), "in_network")
	lintNetwork(&f, d)
	lintTiers(&f, d)
	lintBenefits(&f, d)
	switch method := adjudication.Coordination(d.GetCoordination().GetMethod()); method {
	case "", adjudication.StandardCoordination, adjudication.CarveOut:
	default:
		f.add("plan.coordination.method", "coordination.method", "not a way to pay after other payers", `write "standard" or "carve_out"`)
	}
	if r := d.GetSecondReviewer(); r.GetNever() && r.GetFromCents() > 0 {
		f.add("plan.second-reviewer.never-and-from", "second_reviewer.from_cents", "two reviewers are never needed, and are from an amount on", "leave one of the two out")
	}
	lintAuthorizationList(&f, d.GetPriorAuthorizationProcedures())
	lintRules(&f, d)
	if len(f.problems) == 0 {
		// The engine has the last word: what it wouldn't take isn't published.
		if _, err := CompilePlan(d, Ref(d.GetPlanId(), 1)); err != nil {
			f.add(compiled, "", err.Error(), "correct what the message names")
		}
	}
	return f.problems
}

// lintRules asks the engine about each rule: what it means, which codes it
// sends, and whether its cost on the largest claim is bounded.
func lintRules(f *finding, d *policiesv1.PlanDocument) {
	names := make(map[string]bool, len(d.GetBenefits()))
	for _, b := range d.GetBenefits() {
		names[b.GetName()] = true
	}
	ids := make(map[string]int, len(d.GetRules()))
	for i, rule := range d.GetRules() {
		path := fmt.Sprintf("rules[%d]", i)
		if j, ok := ids[rule.GetId()]; ok {
			f.add("plan.rule.repeated", path+".id", fmt.Sprintf("rules[%d] has this id already", j), "give each rule an id of its own: decisions name it")
		} else {
			ids[rule.GetId()] = i
		}
		for k, name := range rule.GetBenefits() {
			if !names[name] {
				f.add("plan.rule.benefit-unknown", fmt.Sprintf("%s.benefits[%d]", path, k), "the plan has no such benefit", "name a benefit of this plan, or none for all")
			}
		}
		_, err := adjudication.CompilePlanRule(ruleSpec(rule))
		var refused *adjudication.PlanRuleError
		switch {
		case err == nil:
		case errors.As(err, &refused):
			for _, fault := range refused.Faults {
				field := ruleFields[fault.Field]
				f.problems = append(f.problems, problem.Problem{RuleID: "plan.rule." + field, FieldPath: path + "." + field,
					Message: field + " " + fault.Message, Fix: ruleFix(fault), Line: fault.Line, Column: fault.Column})
			}
		default:
			f.add("plan.rule.unchecked", path, "the rule could not be checked", "report this to the operator")
		}
	}
}

// ruleFields are the engine's names of a rule's fields as the document's.
var ruleFields = map[string]string{"id": "id", "clause": "clause", "when": "when", "benefits": "benefits", "groupCode": "group_code", "carc": "carc", "rarc": "rarc"}

func lintCostShare(f *finding, c *policiesv1.CostShare, path string) {
	individual, family := c.GetDeductibleIndividualCents(), c.GetDeductibleFamilyCents()
	if family > 0 && individual > family {
		f.add("plan.deductible.individual-over-family", path+".deductible_individual_cents",
			"the individual deductible exceeds the family's", "raise deductible_family_cents or lower deductible_individual_cents")
	}
	if c.GetDeductibleKind() == "aggregate" && family == 0 {
		f.add("plan.deductible.aggregate-without-family", path+".deductible_family_cents",
			"an aggregate deductible is the family's, and there is none", `give deductible_family_cents, or make deductible_kind "embedded"`)
	}
	if c.GetDeductibleKind() == "embedded" && individual == 0 && family > 0 {
		f.add("plan.deductible.embedded-without-individual", path+".deductible_individual_cents",
			"an embedded deductible of zero is always met, so the family's would never be read",
			`give deductible_individual_cents, or make deductible_kind "aggregate"`)
	}
	capIndividual, capFamily := c.GetOutOfPocketIndividualCents(), c.GetOutOfPocketFamilyCents()
	if capFamily > 0 && capIndividual > capFamily {
		f.add("plan.out-of-pocket.individual-over-family", path+".out_of_pocket_individual_cents",
			"the individual out-of-pocket maximum exceeds the family's", "raise out_of_pocket_family_cents or lower out_of_pocket_individual_cents")
	}
	if capIndividual > 0 && individual > capIndividual {
		f.add("plan.out-of-pocket.below-deductible", path+".out_of_pocket_individual_cents",
			"the individual out-of-pocket maximum is below the individual deductible, which then can't be met",
			"raise out_of_pocket_individual_cents to the deductible or more")
	}
	if capFamily > 0 && family > capFamily {
		f.add("plan.out-of-pocket.below-deductible", path+".out_of_pocket_family_cents",
			"the family out-of-pocket maximum is below the family deductible, which then can't be met",
			"raise out_of_pocket_family_cents to the deductible or more")
	}
}

func lintNetwork(f *finding, d *policiesv1.PlanDocument) {
	if id := d.GetFeeScheduleId(); id != "" && !feeSchedulePat.MatchString(id) {
		f.add("plan.fee_schedule.shape", "fee_schedule_id", "not a fee schedule id", `write it as "fs_standard"`)
	}
	if d.GetOutOfNetwork() == nil {
		if d.GetOutOfNetworkAllowedBps() != 0 {
			f.add("plan.out-of-network.absent", "out_of_network_allowed_bps",
				"out of network is not covered, so this share would never be read", "give out_of_network, or leave this out")
		}
		return
	}
	lintCostShare(f, d.GetOutOfNetwork(), "out_of_network")
	if d.GetOutOfNetworkAllowedBps() == 0 {
		f.add("plan.out-of-network.share", "out_of_network_allowed_bps",
			"out of network is covered, but not at which share of the fee schedule", "give the share of the fee schedule, 10000 for all of it")
	}
	if d.GetFeeScheduleId() == "" {
		f.add("plan.out-of-network.fee_schedule", "fee_schedule_id",
			"out-of-network amounts are a share of the plan's fee schedule, and it names none", "name a fee schedule")
	}
}

func lintBenefits(f *finding, d *policiesv1.PlanDocument) {
	outOfNetwork := d.GetOutOfNetwork() != nil
	names := make(map[string]int, len(d.GetBenefits()))
	ranges, specialist := 0, false
	for i, b := range d.GetBenefits() {
		path := fmt.Sprintf("benefits[%d]", i)
		if j, ok := names[b.GetName()]; ok {
			f.add("plan.benefit.repeated", path+".name", fmt.Sprintf("benefits[%d] has this name already", j),
				"name each benefit once: accumulators and explanations are kept by name")
		} else {
			names[b.GetName()] = i
		}
		specialist = specialist || b.GetSpecialist()
		ranges += len(b.GetMatch().GetProcedures()) + len(b.GetMatch().GetRevenueCodes())
		lintBenefit(f, b, path, outOfNetwork)
	}
	if d.GetReferralRequired() && !specialist {
		f.add("plan.referral.no-specialist", "referral_required", "no benefit is a specialist's, so a referral would never be asked for",
			"mark benefits with specialist: true, or leave referral_required out")
	}
	if ranges > maxPlanRanges {
		f.add("plan.match.count", "benefits", fmt.Sprintf("all benefits together list %d codes and ranges; at most %d are read", ranges, maxPlanRanges),
			"use ranges for runs of codes")
		return
	}
	lintReach(f, d.GetBenefits())
}

func lintBenefit(f *finding, b *policiesv1.Benefit, path string, outOfNetwork bool) {
	type figure struct {
		field string
		set   bool
	}
	figures := []figure{
		{"copay_in_cents", b.GetCopayInCents() != 0}, {"copay_out_cents", b.GetCopayOutCents() != 0},
		{"deductible_waived", b.GetDeductibleWaived()}, {"use_coinsurance", b.GetUseCoinsurance()},
		{"coinsurance_in_bps", b.GetCoinsuranceInBps() != 0}, {"coinsurance_out_bps", b.GetCoinsuranceOutBps() != 0},
		{"visits_per_year", b.GetVisitsPerYear() != 0}, {"dollars_per_year_cents", b.GetDollarsPerYearCents() != 0},
		{"lifetime_cents", b.GetLifetimeCents() != 0}, {"prior_authorization", b.GetPriorAuthorization()},
		{"document_required", b.GetDocumentRequired()}, {"diagnosis_prefixes", len(b.GetDiagnosisPrefixes()) != 0},
		{"specialist", b.GetSpecialist()}, {"review", b.GetReview()}, {"tiers", len(b.GetTiers()) != 0},
	}
	if !b.GetCovered() {
		for _, g := range figures {
			if g.set {
				f.add("plan.benefit.not-covered", path+"."+g.field, "the benefit is not covered, so this would never be read",
					"set covered: true, or leave this out")
			}
		}
	}
	if b.GetCopayInCents() > 0 && b.GetCoinsuranceInBps() > 0 {
		f.add("plan.benefit.copay-and-coinsurance", path+".coinsurance_in_bps",
			"a copay replaces coinsurance, and this benefit has both in network", "keep one of copay_in_cents and coinsurance_in_bps")
	}
	if b.GetCopayOutCents() > 0 && b.GetCoinsuranceOutBps() > 0 {
		f.add("plan.benefit.copay-and-coinsurance", path+".coinsurance_out_bps",
			"a copay replaces coinsurance, and this benefit has both out of network", "keep one of copay_out_cents and coinsurance_out_bps")
	}
	if !b.GetUseCoinsurance() && (b.GetCoinsuranceInBps() > 0 || b.GetCoinsuranceOutBps() > 0) {
		f.add("plan.benefit.coinsurance-unused", path+".use_coinsurance",
			"the benefit names a coinsurance but doesn't use it: the tier's would apply", "set use_coinsurance: true, or leave the figures out")
	}
	if !outOfNetwork {
		for _, g := range figures {
			if g.set && (g.field == "copay_out_cents" || g.field == "coinsurance_out_bps") {
				f.add("plan.out-of-network.absent", path+"."+g.field, "the plan doesn't cover services out of network, so this would never be read",
					"give the plan out_of_network, or leave this out")
			}
		}
	}
	if b.GetLifetimeCents() > 0 && b.GetDollarsPerYearCents() > b.GetLifetimeCents() {
		f.add("plan.benefit.year-over-lifetime", path+".dollars_per_year_cents", "a year's limit exceeds the lifetime's", "lower it, or raise lifetime_cents")
	}
	lintMatch(f, b.GetMatch(), path+".match")
	lintShapes(f, b.GetDiagnosisPrefixes(), path+".diagnosis_prefixes", diagnosisPattern, "not the beginning of a diagnosis code", `write it without a point, "Z00"`)
}

// lintAuthorizationList reports what is no range, and what another entry says
// already. Benefits that need an authorisation themselves may stand in it too.
func lintAuthorizationList(f *finding, list []string) {
	ranges := make([]codeRange, len(list))
	for i, s := range list {
		path := fmt.Sprintf("prior_authorization_procedures[%d]", i)
		if !procedurePattern.MatchString(s) {
			f.add("plan.prior_authorization.shape", path, "not a procedure code or range", `write it as "70551" or "70540-70559"`)
			continue
		}
		r, ok := parseRange(s)
		if !ok {
			f.add("plan.prior_authorization.range", path, rangeMessage, rangeFix)
			continue
		}
		ranges[i] = r
		for j, other := range ranges[:i] {
			if other.shape == r.shape && (codeSet{other}.holds(r) || codeSet{r}.holds(other)) {
				f.add("plan.prior_authorization.repeated", path, fmt.Sprintf("of this and prior_authorization_procedures[%d] one holds all codes of the other", j),
					"keep the wider of the two")
				break
			}
		}
	}
}

func lintMatch(f *finding, m *policiesv1.ServiceMatch, path string) {
	for i, s := range m.GetProcedures() {
		if _, ok := parseRange(s); !ok {
			f.add("plan.match.range", fmt.Sprintf("%s.procedures[%d]", path, i), rangeMessage, rangeFix)
		}
	}
	lintShapes(f, m.GetPlacesOfService(), path+".places_of_service", placePattern, "not a place of service code", `write two digits, "11"`)
	for i, place := range m.GetPlacesOfService() {
		if _, known := codes.PlaceOfService(place); !known && placePattern.MatchString(place) {
			f.add("plan.match.place-unknown", fmt.Sprintf("%s.places_of_service[%d]", path, i), "CMS has assigned no place of service to this code", "look the code up in CMS's place of service code set")
		}
	}
	lintShapes(f, m.GetRevenueCodes(), path+".revenue_codes", revenuePattern, "not a revenue code or range", `write four digits, "0450" or "0450-0459"`)
	for i, s := range m.GetRevenueCodes() {
		if _, ok := parseRange(s); !ok {
			f.add("plan.match.range", fmt.Sprintf("%s.revenue_codes[%d]", path, i), rangeMessage, rangeFix)
		}
	}
}

func lintShapes(f *finding, values []string, path string, shape *regexp.Regexp, message, fix string) {
	for i, v := range values {
		if !shape.MatchString(v) {
			f.add("plan.match.shape", fmt.Sprintf("%s[%d]", path, i), message, fix)
		}
	}
}

// reach is a benefit's match in a form that can be compared.
type reach struct {
	procedures, revenue codeSet
	places              []string
}

func reachOf(m *policiesv1.ServiceMatch) reach {
	r := reach{places: slices.Compact(slices.Sorted(slices.Values(m.GetPlacesOfService())))}
	r.procedures, r.revenue = setOf(m.GetProcedures()), setOf(m.GetRevenueCodes())
	return r
}

func setOf(texts []string) codeSet {
	ranges := make([]codeRange, 0, len(texts))
	for _, s := range texts {
		if c, ok := parseRange(s); ok {
			ranges = append(ranges, c)
		}
	}
	return union(ranges)
}

// unbounded by place and revenue code, or bounded no tighter than later is.
func (r reach) admits(later reach) bool {
	if len(r.places) > 0 {
		if len(later.places) == 0 {
			return false
		}
		for _, p := range later.places {
			if _, ok := slices.BinarySearch(r.places, p); !ok {
				return false
			}
		}
	}
	return len(r.revenue) == 0 || len(later.revenue) > 0 && r.revenue.holdsAll(later.revenue)
}

// unreachable is about a benefit and those before it; compiled is the engine's
// own word on a plan that nothing else is wrong with.
const (
	unreachable = "plan.benefit.unreachable"
	compiled    = "plan.compile"
)

// unread tells whether a range of one of the benefits could not be read: what
// the benefit takes in is then not known.
func unread(benefits []*policiesv1.Benefit) bool {
	return slices.ContainsFunc(benefits, func(b *policiesv1.Benefit) bool {
		return slices.ContainsFunc(slices.Concat(b.GetMatch().GetProcedures(), b.GetMatch().GetRevenueCodes()), func(s string) bool {
			_, ok := parseRange(s)
			return !ok
		})
	})
}

// lintReach reports benefits every service of which an earlier benefit, or
// several together, would have taken: they could never apply.
func lintReach(f *finding, benefits []*policiesv1.Benefit) {
	reaches := make([]reach, len(benefits))
	for i, b := range benefits {
		reaches[i] = reachOf(b.GetMatch())
		var earlier []codeRange
		var takers []string
		all := false
		for j := range i {
			if !reaches[j].admits(reaches[i]) {
				continue
			}
			if len(reaches[j].procedures) == 0 {
				all, takers = true, []string{benefits[j].GetName()}
				break
			}
			before := len(earlier)
			for _, r := range reaches[j].procedures {
				if reaches[i].procedures.meets(r) {
					earlier = append(earlier, r)
				}
			}
			if len(earlier) > before {
				takers = append(takers, benefits[j].GetName())
			}
		}
		if unread(benefits[:i+1]) {
			continue
		}
		if all || len(reaches[i].procedures) > 0 && union(earlier).holdsAll(reaches[i].procedures) {
			f.add(unreachable, fmt.Sprintf("benefits[%d].match", i),
				"every service it matches is taken earlier by "+listed(takers), "move it before those, or narrow their match")
		}
	}
}

func listed(names []string) string {
	if len(names) > 4 {
		return strings.Join(names[:4], ", ") + fmt.Sprintf(" and %d more", len(names)-4)
	}
	return strings.Join(names, ", ")
}

// ruleFix says what a condition may read where it reads something else.
func ruleFix(fault adjudication.PlanRuleFault) string {
	if strings.Contains(fault.Message, "undeclared reference") {
		return "a condition reads " + strings.Join(adjudication.RuleVariables(), ", ") + "; see PlanRuleSpec for operators and functions"
	}
	return "see PlanRule in rules.proto and PlanRuleSpec in package adjudication"
}
