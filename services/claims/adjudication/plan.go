package adjudication

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/probity-health/probity/services/money"
)

// PlanSpec is one version of a plan's benefits in the terms of
// probity.policies.v1.PlanDocument, where each field's meaning is written.
type PlanSpec struct {
	ID      string
	Version string // "plan_gold@3", as decisions record it
	// CoverageYear: accumulators restart on the coverage's anniversary rather
	// than on 1 January.
	CoverageYear     bool
	TimelyFilingDays int64
	InNetwork        CostShare
	OutOfNetwork     *CostShare // nil: not covered out of network
	// Tiers in network, tried in order; InNetwork is for whom none takes in.
	Tiers    []Tier
	Benefits []Benefit
	// OutOfNetworkAllowedBps of the fee schedule; 0 is 10000.
	OutOfNetworkAllowedBps int64
	FeeScheduleID          string
	ReferralRequired       bool
	// MultipleProcedureBps for second and further surgical procedures of a day; 0 is 10000.
	MultipleProcedureBps int64
	ReviewAbove          money.Cents // 0: never
	SequestrationBps     int64
	// Coordination is how the plan pays after other payers; "" is standard.
	Coordination Coordination
	// PriorAuthorizationProcedures are codes and inclusive ranges that need an
	// authorisation whichever benefit they fall to.
	PriorAuthorizationProcedures []string
	// AwaitOtherPayer pends, instead of denying, what another payer decides
	// first and hasn't; AwaitAuthorization what has no prior authorisation yet.
	AwaitOtherPayer, AwaitAuthorization bool
	// Networks whose participants are in network; empty: whoever has a contract.
	Networks []NetworkUse
	// SecondReviewer says when two people must agree on a claim that pends; nil
	// leaves it to the caller. The engine only hands it on.
	SecondReviewer *SecondReviewer
	// Rules are the plan's own, tried in order on every line of a covered benefit.
	Rules []PlanRuleSpec
}

// SecondReviewer is a plan's amount for two reviewers.
type SecondReviewer struct {
	From  money.Cents // of charge; 0 is always
	Never bool
}

// Coordination is how a plan pays as secondary or later.
type Coordination string

const (
	// StandardCoordination pays what the plan would alone, at most what the
	// patient still owes.
	StandardCoordination Coordination = "standard"
	// CarveOut, also called non-duplication, pays what the plan would alone
	// less what the payers before it paid, at most what the patient still owes.
	CarveOut Coordination = "carve_out"
)

// CostShare is what the patient pays in one network tier.
type CostShare struct {
	DeductibleIndividual  money.Cents
	DeductibleFamily      money.Cents // 0: none
	AggregateDeductible   bool        // else embedded
	CoinsuranceBps        int64
	OutOfPocketIndividual money.Cents // 0: no cap
	OutOfPocketFamily     money.Cents // 0: no cap
}

// Tier is what the patient pays at some participants of the plan's networks. It
// has accumulators of its own.
type Tier struct {
	Name         string
	Participants []NetworkUse
	Share        CostShare
}

// BenefitTier is what the patient pays for a benefit in one of the plan's tiers.
type BenefitTier struct {
	Tier           string
	Copay          money.Cents
	CoinsuranceBps int64
}

// planTier is a compiled tier; decisions quote what is built once.
type planTier struct {
	Tier
	network                             string // as decisions record it
	clauseDeductible, clauseCoinsurance string
}

type benefitTier struct {
	BenefitTier
	clauseCopay, clauseCoinsurance string
}

// Benefit is one benefit; the first that matches a line applies.
type Benefit struct {
	Name               string
	Procedures         []string // codes and inclusive ranges
	PlacesOfService    []string
	RevenueCodes       []string // codes and inclusive ranges
	Covered            bool
	CopayIn            money.Cents
	CopayOut           money.Cents
	DeductibleWaived   bool
	CoinsuranceInBps   int64
	CoinsuranceOutBps  int64
	UseCoinsurance     bool
	VisitsPerYear      int64
	DollarsPerYear     money.Cents
	LifetimeDollars    money.Cents
	PriorAuthorization bool
	DocumentRequired   bool
	DiagnosisPrefixes  []string
	Specialist         bool
	Review             bool
	Tiers              []BenefitTier // a tier that isn't here takes CopayIn and CoinsuranceInBps
}

// Plan is a compiled plan: immutable, safe to share between goroutines.
type Plan struct {
	spec     PlanSpec
	tiers    []planTier
	benefits []benefit
	rules    []*PlanRule
	// authorize are the ranges that need an authorisation under any benefit,
	// ascending and apart.
	authorize []codeRange
	// starts are the lowest codes of elementary ranges, ascending; claimed[i]
	// are the benefits that name the range starts[i] up to starts[i+1], in
	// the plan's order. unnamed are those that name no procedure.
	starts  []codeKey
	claimed [][]int32
	unnamed []int32
}

type benefit struct {
	Benefit
	tiers   []benefitTier
	revenue []codeRange
	rules   []*PlanRule // those that apply to the benefit's lines, in the plan's order
	// Clauses are built once: every decision quotes them.
	clause, clauseCopay, clauseCoinsurance string
	clauseVisits, clauseDollars            string
	clauseLifetime, clauseDiagnosis        string
	clauseAuthorization, clauseDocument    string
	clauseReview, clauseSpecialist         string
}

// SecondReviewer is what the plan's version says of two reviewers; nil where it
// says nothing, and for no plan.
func (p *Plan) SecondReviewer() (version string, says *SecondReviewer) {
	if p == nil {
		return "", nil
	}
	return p.spec.Version, p.spec.SecondReviewer
}

// maxClaims bounds a compiled plan's index: a document that lets many
// benefits compete for the same codes in many pieces is refused, because it
// would be as unreadable to a person as it is large here.
const maxClaims = 1 << 20

// CompilePlan checks a plan and builds its index. Errors name the benefit and
// field; they hold no health data.
func CompilePlan(spec PlanSpec) (*Plan, error) {
	if spec.ID == "" || spec.Version == "" {
		return nil, errors.New("adjudication: plan without id or version")
	}
	if spec.TimelyFilingDays <= 0 {
		return nil, fmt.Errorf("adjudication: plan %s: timely filing must be at least a day", spec.Version)
	}
	if err := spec.check(); err != nil {
		return nil, fmt.Errorf("adjudication: plan %s: %w", spec.Version, err)
	}
	p := &Plan{spec: spec, benefits: make([]benefit, len(spec.Benefits))}
	if spec.OutOfNetwork != nil {
		out := *spec.OutOfNetwork
		p.spec.OutOfNetwork = &out
	}
	p.spec.Benefits = nil // the compiled ones are read
	if err := p.compileTiers(spec); err != nil {
		return nil, fmt.Errorf("adjudication: plan %s: %w", spec.Version, err)
	}
	p.spec.Tiers = nil // the compiled ones are read
	p.spec.OutOfNetworkAllowedBps = orWhole(spec.OutOfNetworkAllowedBps)
	p.spec.MultipleProcedureBps = orWhole(spec.MultipleProcedureBps)

	type edge struct {
		at      codeKey
		benefit int32
		opens   bool
	}
	var edges []edge
	seen := make(map[string]bool, len(spec.Benefits))
	for i, b := range spec.Benefits {
		if b.Name == "" || seen[b.Name] {
			return nil, fmt.Errorf("adjudication: plan %s: benefits[%d].name is empty or used twice", spec.Version, i)
		}
		seen[b.Name] = true
		if err := b.check(); err != nil {
			return nil, fmt.Errorf("adjudication: plan %s: benefits.%s: %w", spec.Version, b.Name, err)
		}
		compiled := newBenefit(b)
		if err := p.compileBenefitTiers(&compiled); err != nil {
			return nil, fmt.Errorf("adjudication: plan %s: benefits.%s.%w", spec.Version, b.Name, err)
		}
		for _, s := range b.RevenueCodes {
			r, err := parseRange(s)
			if err != nil {
				return nil, fmt.Errorf("adjudication: plan %s: benefits.%s.match.revenueCodes: %w", spec.Version, b.Name, err)
			}
			compiled.revenue = append(compiled.revenue, r)
		}
		p.benefits[i] = compiled
		if len(b.Procedures) == 0 {
			p.unnamed = append(p.unnamed, int32(i))
		}
		for _, s := range b.Procedures {
			r, err := parseRange(s)
			if err != nil {
				return nil, fmt.Errorf("adjudication: plan %s: benefits.%s.match.procedures: %w", spec.Version, b.Name, err)
			}
			edges = append(edges, edge{r.low, int32(i), true}, edge{r.high + 1, int32(i), false})
		}
	}

	var err error
	if p.authorize, err = compileRanges(spec.PriorAuthorizationProcedures); err != nil {
		return nil, fmt.Errorf("adjudication: plan %s: priorAuthorizationProcedures: %w", spec.Version, err)
	}
	p.spec.PriorAuthorizationProcedures = nil // the compiled ones are read
	if err := p.compileRules(spec.Rules); err != nil {
		return nil, fmt.Errorf("adjudication: plan %s: %w", spec.Version, err)
	}

	// Sweep the codes from low to high, keeping who is open, and cut a piece
	// wherever that changes.
	slices.SortFunc(edges, func(a, b edge) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	open := make([]int32, len(spec.Benefits)) // how many ranges of a benefit are open
	var now []int32                           // open benefits in the plan's order
	claims := 0
	for i := 0; i < len(edges); {
		at := edges[i].at
		for ; i < len(edges) && edges[i].at == at; i++ {
			b := edges[i].benefit
			where, _ := slices.BinarySearch(now, b)
			if edges[i].opens {
				if open[b]++; open[b] == 1 {
					now = slices.Insert(now, where, b)
				}
			} else if open[b]--; open[b] == 0 {
				where, found := slices.BinarySearch(now, b)
				if found {
					now = slices.Delete(now, where, where+1)
				}
			}
		}
		p.starts = append(p.starts, at)
		p.claimed = append(p.claimed, slices.Clone(now))
		if claims += len(now); claims > maxClaims {
			return nil, fmt.Errorf("adjudication: plan %s: benefits overlap in too many pieces; merge ranges or drop unreachable benefits", spec.Version)
		}
	}
	return p, nil
}

// compileRanges reads a list of codes and ranges into ranges that ascend and
// share no code, which is what a search needs.
func compileRanges(list []string) ([]codeRange, error) {
	var ranges []codeRange
	for _, s := range list {
		r, err := parseRange(s)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, r)
	}
	slices.SortFunc(ranges, func(a, b codeRange) int { return cmp.Compare(a.low, b.low) })
	apart := ranges[:0]
	for _, r := range ranges {
		if last := len(apart) - 1; last >= 0 && r.low <= apart[last].high {
			apart[last].high = max(apart[last].high, r.high)
			continue
		}
		apart = append(apart, r)
	}
	return apart, nil
}

// listsForAuthorization tells whether the procedure needs an authorisation
// under any benefit.
func (p *Plan) listsForAuthorization(procedure string) bool {
	if len(p.authorize) == 0 {
		return false
	}
	key, ok := rangeKeyOf(procedure)
	if !ok {
		return false
	}
	// The first range that doesn't end below the code.
	i, _ := slices.BinarySearchFunc(p.authorize, key, func(r codeRange, k codeKey) int { return cmp.Compare(r.high, k) })
	return i < len(p.authorize) && p.authorize[i].contains(key)
}

// maxPlanRules bounds what one line may cost to decide.
const maxPlanRules = 200

// compileRules compiles the plan's rules and hangs each on its benefits.
func (p *Plan) compileRules(specs []PlanRuleSpec) error {
	if len(specs) > maxPlanRules {
		return fmt.Errorf("rules: %d, more than %d", len(specs), maxPlanRules)
	}
	p.spec.Rules = nil // the compiled ones are read
	for i, spec := range specs {
		if slices.ContainsFunc(specs[:i], func(s PlanRuleSpec) bool { return s.ID == spec.ID }) {
			return fmt.Errorf("rules[%d].id is used twice", i)
		}
		rule, err := CompilePlanRule(spec)
		if err != nil {
			return err
		}
		p.rules = append(p.rules, rule)
		for _, name := range spec.Benefits {
			if !slices.ContainsFunc(p.benefits, func(b benefit) bool { return b.Name == name }) {
				return fmt.Errorf("rules.%s.benefits names %q, which the plan hasn't", spec.ID, name)
			}
		}
		for b := range p.benefits {
			if len(spec.Benefits) == 0 || slices.Contains(spec.Benefits, p.benefits[b].Name) {
				p.benefits[b].rules = append(p.benefits[b].rules, rule)
			}
		}
	}
	return nil
}

// ID returns the plan's id, Version its version.
func (p *Plan) ID() string { return p.spec.ID }

// Version returns the version as decisions record it.
func (p *Plan) Version() string { return p.spec.Version }

func newBenefit(b Benefit) benefit {
	at := "benefits." + b.Name
	b.DiagnosisPrefixes = slices.Clone(b.DiagnosisPrefixes)
	for i, p := range b.DiagnosisPrefixes { // people write them with the dot
		b.DiagnosisPrefixes[i] = strings.ToUpper(strings.ReplaceAll(p, ".", ""))
	}
	b.PlacesOfService = slices.Clone(b.PlacesOfService)
	return benefit{
		Benefit:             b,
		clause:              at,
		clauseCopay:         at + ".copay",
		clauseCoinsurance:   at + ".coinsurance",
		clauseVisits:        at + ".visitsPerYear",
		clauseDollars:       at + ".dollarsPerYear",
		clauseLifetime:      at + ".lifetime",
		clauseDiagnosis:     at + ".diagnosisPrefixes",
		clauseAuthorization: at + ".priorAuthorization",
		clauseDocument:      at + ".documentRequired",
		clauseReview:        at + ".review",
		clauseSpecialist:    at + ".specialist",
	}
}

// benefitFor returns the first benefit whose match holds, or nil.
func (p *Plan) benefitFor(procedure, placeOfService, revenueCode string) *benefit {
	var named []int32
	if key, ok := rangeKeyOf(procedure); ok {
		where, exact := slices.BinarySearch(p.starts, key)
		if !exact {
			where--
		}
		if where >= 0 {
			named = p.claimed[where]
		}
	}
	unnamed := p.unnamed
	for len(named)+len(unnamed) > 0 {
		var i int32
		if len(unnamed) == 0 || (len(named) > 0 && named[0] < unnamed[0]) {
			i, named = named[0], named[1:]
		} else {
			i, unnamed = unnamed[0], unnamed[1:]
		}
		if b := &p.benefits[i]; b.matches(placeOfService, revenueCode) {
			return b
		}
	}
	return nil
}

func (b *benefit) matches(placeOfService, revenueCode string) bool {
	if len(b.PlacesOfService) > 0 && !slices.Contains(b.PlacesOfService, placeOfService) {
		return false
	}
	if len(b.revenue) == 0 {
		return true
	}
	key, ok := rangeKeyOf(fullRevenueCode(revenueCode))
	return ok && slices.ContainsFunc(b.revenue, func(r codeRange) bool { return r.contains(key) })
}

// share is the cost sharing of a line's tier; the plan has one for every line
// that passed the network stage.
func (p *Plan) share(l *line) *CostShare {
	switch {
	case l.named != nil:
		return &l.named.Share
	case l.tier == OutOfNetwork:
		return p.spec.OutOfNetwork
	}
	return &p.spec.InNetwork
}

// inTier is what the benefit says of a tier; nil where that is nothing.
func (b *benefit) inTier(t *planTier) *benefitTier {
	if t == nil {
		return nil
	}
	for i := range b.tiers {
		if b.tiers[i].Tier == t.Name {
			return &b.tiers[i]
		}
	}
	return nil
}

func (p *Plan) compileTiers(spec PlanSpec) error {
	for i, t := range spec.Tiers {
		if t.Name == "" || slices.ContainsFunc(p.tiers, func(o planTier) bool { return o.Name == t.Name }) {
			return fmt.Errorf("tiers[%d].name is empty or used twice", i)
		}
		if len(t.Participants) == 0 {
			return fmt.Errorf("tiers.%s takes nobody in", t.Name)
		}
		for _, use := range t.Participants {
			if !slices.ContainsFunc(spec.Networks, func(n NetworkUse) bool { return n.ID == use.ID }) {
				return fmt.Errorf("tiers.%s takes in participants of a network that the plan doesn't name", t.Name)
			}
		}
		if err := t.Share.check(); err != nil {
			return fmt.Errorf("tiers.%s: %w", t.Name, err)
		}
		at := "costShare.tiers." + t.Name
		p.tiers = append(p.tiers, planTier{Tier: t, network: tierName(t.Name), clauseDeductible: at + ".deductible", clauseCoinsurance: at + ".coinsurance"})
	}
	return nil
}

func (p *Plan) compileBenefitTiers(b *benefit) error {
	for i, t := range b.Tiers {
		if !slices.ContainsFunc(p.tiers, func(o planTier) bool { return o.Name == t.Tier }) {
			return fmt.Errorf("tiers[%d].tier is none of the plan's", i)
		}
		if slices.ContainsFunc(b.tiers, func(o benefitTier) bool { return o.Tier == t.Tier }) {
			return fmt.Errorf("tiers[%d].tier is named twice", i)
		}
		if t.Copay < 0 || t.Copay > maxAmount || t.CoinsuranceBps < 0 || t.CoinsuranceBps > whole {
			return fmt.Errorf("tiers.%s: copay or coinsurance out of range", t.Tier)
		}
		at := "benefits." + b.Name + ".tiers." + t.Tier
		b.tiers = append(b.tiers, benefitTier{BenefitTier: t, clauseCopay: at + ".copay", clauseCoinsurance: at + ".coinsurance"})
	}
	return nil
}

func (s PlanSpec) check() error {
	for _, n := range []int64{s.MultipleProcedureBps, s.SequestrationBps} {
		if n < 0 || n > whole {
			return errors.New("basis points outside 0 to 10000")
		}
	}
	if s.OutOfNetworkAllowedBps < 0 || s.OutOfNetworkAllowedBps > maxBps {
		return errors.New("outOfNetworkAllowedBps outside 0 to 100000")
	}
	if c := s.Coordination; c != "" && c != StandardCoordination && c != CarveOut {
		return errors.New("coordination: the method is neither standard nor carve_out")
	}
	if s.ReviewAbove < 0 {
		return errors.New("reviewAboveCents is negative")
	}
	shares := []*CostShare{&s.InNetwork, s.OutOfNetwork}
	for _, c := range shares {
		if c == nil {
			continue
		}
		if err := c.check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *CostShare) check() error {
	if c.CoinsuranceBps < 0 || c.CoinsuranceBps > whole {
		return errors.New("cost share: coinsurance outside 0 to 10000 basis points")
	}
	for _, n := range []money.Cents{c.DeductibleIndividual, c.DeductibleFamily, c.OutOfPocketIndividual, c.OutOfPocketFamily} {
		if n < 0 || n > maxAmount {
			return errors.New("cost share: amount out of range")
		}
	}
	return nil
}

func (b Benefit) check() error {
	for _, n := range []money.Cents{b.CopayIn, b.CopayOut, b.DollarsPerYear, b.LifetimeDollars} {
		if n < 0 {
			return errors.New("an amount is negative")
		}
	}
	for _, n := range []int64{b.CoinsuranceInBps, b.CoinsuranceOutBps} {
		if n < 0 || n > whole {
			return errors.New("coinsurance outside 0 to 10000 basis points")
		}
	}
	if b.VisitsPerYear < 0 {
		return errors.New("visitsPerYear is negative")
	}
	return nil
}

// Basis points: the whole, and the most that a schedule may be multiplied by.
const (
	whole  = 10000
	maxBps = 100000
)

// maxAmount bounds every amount of a claim and a plan, the protos' limit on
// X12's ten digits: sums of a thousand of them stay far inside int64.
const maxAmount money.Cents = 9_999_999_999

func orWhole(bps int64) int64 {
	if bps == 0 {
		return whole
	}
	return bps
}

// codeKey is a code of one to five characters as a number.
type codeKey uint64

// keyOf packs a code of one to five characters.
func keyOf(code string) (codeKey, bool) {
	if len(code) == 0 || len(code) > 5 {
		return 0, false
	}
	key := codeKey(len(code)) << 40
	for i := range len(code) {
		key |= codeKey(code[i]) << (32 - 8*i)
	}
	return key, true
}

// code is the text that keyOf packed.
func (k codeKey) code() string {
	var b [5]byte
	n := min(int(k>>40), len(b))
	for i := range n {
		b[i] = byte(k >> (32 - 8*i))
	}
	return string(b[:n])
}

// rangeKeyOf packs a code so that a range holds only codes shaped like its
// ends: length, then which characters are letters, then the letters, then the
// digits. Category II codes (0001F, 3008F) are thus in no range of five digits,
// though as text they would be.
func rangeKeyOf(code string) (codeKey, bool) {
	if len(code) == 0 || len(code) > 5 {
		return 0, false
	}
	var shape, letters, digits codeKey
	n := 0
	for i := range len(code) {
		if c := code[i]; '0' <= c && c <= '9' {
			digits, n = digits<<8|codeKey(c), n+8
		} else {
			letters, shape = letters<<8|codeKey(c), shape|1<<i
		}
	}
	return codeKey(len(code))<<45 | shape<<40 | letters<<n | digits, true
}

// sameShape tells whether two codes have the same letters at the same places.
func sameShape(a, b string) bool {
	for i := range len(a) {
		digit := '0' <= a[i] && a[i] <= '9' && '0' <= b[i] && b[i] <= '9'
		if !digit && a[i] != b[i] {
			return false
		}
	}
	return true
}

// codeRange is an inclusive range of rangeKeyOf.
type codeRange struct{ low, high codeKey }

func (r codeRange) contains(k codeKey) bool { return r.low <= k && k <= r.high }

// parseRange reads "99213" or "99202-99215".
func parseRange(s string) (codeRange, error) {
	from, to, ranged := strings.Cut(s, "-")
	if !ranged {
		to = from
	}
	low, okLow := rangeKeyOf(from)
	high, okHigh := rangeKeyOf(to)
	switch {
	case !okLow || !okHigh:
		return codeRange{}, fmt.Errorf("%q is not a code or a range of codes", s)
	case len(from) != len(to):
		return codeRange{}, fmt.Errorf("range %q has ends of different length", s)
	case !sameShape(from, to):
		return codeRange{}, fmt.Errorf("range %q has ends of different letters", s)
	case low > high:
		return codeRange{}, fmt.Errorf("range %q runs backwards", s)
	}
	return codeRange{low, high}, nil
}
