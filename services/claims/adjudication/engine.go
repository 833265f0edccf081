// Package adjudication decides health claims. It is pure: no clock, no
// store, no randomness, no map order; the same Input gives the same Decision,
// bit for bit, on every replica and in every later year.
//
// A claim's way through it, in the order the money moves. What comes before is
// not here: syntax, control counts and check digits of the envelope turn a
// claim back before it is one (999, 277CA).
//
//  1. The claim itself (sound.go): its total is its lines' sum, no amount is
//     absurd, it isn't the replacement of another claim.
//  2. The member (member.go): whose claim is it, and is that person ours
//     (CO-109, PR-31)?
//  3. Dates, and what an institutional claim must say (dates.go,
//     institutional.go: CO-16, CO-110).
//  4. Eligibility, per line: was a plan in force on the date (eligibility.go:
//     PR-26, PR-27)?
//  5. Timely filing: did it arrive within the plan's days (timely.go: CO-29)?
//     A replacement is judged as a whole, and one too late leaves its original.
//  6. Duplicates: was the very service allowed before (duplicates.go: OA-18)?
//     Nearly so pends.
//  7. Completeness: are codes, units and diagnoses there, and valid on the
//     date (complete.go, validity.go: CO-16, CO-146, CO-181, CO-182, CO-4)?
//  8. The provider and the network tier (provider.go, network.go,
//     participation.go: CO-206 to 208, CO-B7, CO-185, CO-242, CO-288).
//  9. The benefit: does the plan cover it, for this diagnosis (benefit.go:
//     PR-204, PR-96, CO-50, CO-11)?
//  10. Prior authorisation, which the benefit or the plan's list asks for, and
//     documents (authorization.go, documents.go: CO-197, CO-15, CO-198,
//     CO-252), and the plan's own rules (planrule.go: codes of the plan's
//     choosing).
//  11. Reference edits: unit limits (units.go: CO-151), then pairs of
//     procedures (pairs.go: CO-97, CO-236, CO-231). Units first, because a
//     line they deny must not take its partner with it.
//  12. The price: what contract or plan allows (price.go, facility.go,
//     anesthesia.go: CO-24, CO-147, CO-222, CO-45, CO-59, CO-97, PR-96).
//  13. Signals of fraud and waste pend (signals.go), and so does what a person
//     must look at; what a person refused is denied (review.go). Here and not
//     at the end, because a refused line must neither rank among the day's
//     procedures nor move an accumulator.
//  14. Further procedures of the day are reduced (reduction.go: CO-59).
//  15. Then, line by line, the money (settle.go): benefit limits (limits.go:
//     PR-119, PR-35), the member's copay or deductible and coinsurance under
//     the out-of-pocket cap (share.go: PR-3, PR-1, PR-2), other payers, by
//     the plan's coordination (cob.go: CO-22, OA-23), sequestration
//     (sequestration.go: CO-253), and what all that adds to the family's
//     accumulators (posting.go).
//  16. The decision: paid, denied, or pended for a person.
//
// The first stage that denies a line ends it: the line's full charge carries
// that one reason. A doubt pends instead and the stages go on, so that a
// reviewer sees every doubt at once; a doubt about a line that is denied
// anyway is dropped. Invariants, held for every input within the protos'
// bounds: charge = paid + adjustments on every line; what is paid and shared
// adds up to the lesser of the allowed amount and what earlier payers left, or
// to no more than that where the plan carves out what they paid;
// nothing is negative; no accumulator passes its limit through the engine; a
// denied line and a pended claim move no accumulator.
package adjudication

import (
	"slices"
	"strings"
	"sync"

	"github.com/probity-health/probity/services/money"
)

// EngineVersion names this set of rules. A change of any outcome changes it,
// so that a replay knows which rules decided.
const EngineVersion = "probity-rules/4"

// run is one adjudication under way.
type run struct {
	in    *Input
	out   Decision
	lines []line
	tally tally
	// facts is the arena that adjustments' Facts are cut from.
	facts []Fact
	pends []pend
	// visited are the benefit days this claim has counted as visits already.
	visited []visit
	// vars are what the plan's rules read; nil until one is evaluated.
	vars *ruleVars
	// authorized is what earlier lines of this claim took of each authorisation.
	authorized []int64
}

// line is one service line under way.
type line struct {
	*Line
	out      *LineDecision
	coverage *Coverage
	plan     *Plan
	benefit  *benefit
	contract *Contract
	fees     *FeeSchedule
	// The tables of reference edits that the line was held against.
	pairTable, limitTable *Edits
	// networks are the versions that the provider was looked for in.
	networks []*ProviderNetwork
	tier     Network
	named    *planTier   // the plan's tier that the provider is in; nil: none
	yearly   Date        // first day of the plan year that the line falls in
	billable money.Cents // charge less what the facility bills as not covered
	priced   money.Cents // allowed before any reduction for further procedures
	surgical bool
	rate     *FacilityRate // the contract's rate that takes the line in
	rated    bool          // priced by it
	minutes  int64         // thousandths of a minute of the provider's own time; 0 not known
	// repeated: denied as a service already billed.
	repeated bool
	// stuck: pended for want of something without which no later stage can run.
	stuck bool
}

type pend struct {
	rule rule
	line *line // nil: the whole claim
	// firm pends aren't cleared by a reviewer's approval: the cause must go.
	firm    bool
	facts   []Fact
	related string // earlier claim's opaque id
	// plan is the plan's rule that asked for a decision or failed; asked tells
	// which of the two.
	plan  *PlanRule
	asked bool
}

func (l *line) open() bool { return !l.out.Denied && !l.stuck }

// stage is one step: either sees the claim at once or one open line after another.
type stage struct {
	claim func(*run)
	line  func(*run, *line)
}

// stages in the order the money moves. Each decides on lines that every
// stage before it left open.
var stages = [...]stage{
	{claim: soundClaim},
	{claim: matchMember},
	{line: dated},
	{claim: institutional},
	{line: eligible},
	{claim: correctedInTime},
	{line: filedInTime},
	{claim: repeats},
	{line: complete},
	{line: validCodes},
	{line: knownProvider},
	{line: network},
	{line: covered},
	{line: necessary},
	{line: authorized},
	{line: documented},
	{line: planRules},
	{claim: units},
	{claim: pairs},
	{line: noncovered},
	{line: capitated},
	{claim: facility},
	{line: price},
	{claim: signals},
	{claim: thresholds},
	{claim: reviewed},
	{claim: reduceFurtherProcedures},
	{line: settle},
}

// runs are workspaces to use again. What a decision holds is never among it.
var runs = sync.Pool{New: func() any { return new(run) }}

// Adjudicate decides a claim. It doesn't keep or change the Input, and it
// doesn't panic on any: what isn't sound is denied or pends.
func Adjudicate(in *Input) Decision {
	r := runs.Get().(*run)
	r.begin(in)
	d := r.decideClaim()
	r.end()
	return d
}

func (r *run) begin(in *Input) {
	n := len(in.Claim.Lines)
	r.in, r.tally.base = in, in.Accumulators
	r.lines = slices.Grow(r.lines[:0], n)[:n]
	r.out.Lines = make([]LineDecision, n)
	r.facts = make([]Fact, 0, 12*n)
	adjustments := make([]Adjustment, 4*n)
	for i := range r.lines {
		l := &in.Claim.Lines[i]
		r.lines[i] = line{Line: l, out: &r.out.Lines[i], billable: l.Charge}
		r.out.Lines[i] = LineDecision{
			Number: l.Number, Charge: l.Charge,
			Adjustments: adjustments[4*i : 4*i : 4*i+4],
		}
	}
}

// manyLines is more than almost any claim has: the workspace of one that has
// more isn't kept.
const manyLines = 100

// end forgets the claim and gives the workspace back.
func (r *run) end() {
	if len(r.lines) > manyLines || len(r.pends) > manyLines {
		return
	}
	clear(r.lines)
	clear(r.pends)
	clear(r.visited)
	clear(r.tally.added)
	vars := r.vars
	if vars != nil {
		*vars = ruleVars{}
	}
	*r = run{
		lines: r.lines[:0], pends: r.pends[:0], visited: r.visited[:0],
		tally: tally{added: r.tally.added[:0]}, vars: vars,
	}
	runs.Put(r)
}

func (r *run) decideClaim() Decision {
	for _, s := range stages {
		if s.claim != nil {
			s.claim(r)
			continue
		}
		for i := range r.lines {
			if l := &r.lines[i]; l.open() {
				s.line(r, l)
			}
		}
	}
	return r.decide()
}

// decide closes the run: status, totals, versions, postings.
func (r *run) decide() Decision {
	d := &r.out
	d.Versions = r.versions()
	open, denied := r.openPends(), 0
	for i := range d.Lines {
		l := &d.Lines[i]
		d.Charge = plus(d.Charge, l.Charge)
		d.Allowed += l.Allowed
		d.Paid += l.Paid
		d.Patient = plus(d.Patient, l.Patient)
		if l.Denied {
			denied++
		}
		if d.Network == "" {
			d.Network = l.Network
		}
	}
	r.providerDays()
	switch {
	case len(open) > 0:
		// Nothing is decided yet: figures that could still change must not be
		// taken for a promise, and nothing is posted.
		return Decision{Status: Pended, Charge: d.Charge, PendReasons: open, ProviderDays: d.ProviderDays, Versions: d.Versions}
	case denied == len(d.Lines):
		d.Status = Denied
	default:
		d.Status = Paid
	}
	if len(r.tally.added) > 0 {
		d.Postings = slices.Clone(r.tally.added)
	}
	return *d
}

// openPends turns the doubts that neither a denial nor a reviewer settled
// into reasons, in the order they arose.
func (r *run) openPends() []PendReason {
	var reasons []PendReason
	for _, p := range r.pends {
		if !p.open(r) {
			continue
		}
		reasons = append(reasons, p.reason())
	}
	return reasons
}

func (p pend) reason() PendReason {
	rule := &rules[p.rule]
	if p.asked {
		rule = &p.plan.rule
	}
	reason := PendReason{RuleID: rule.ID, CARC: rule.CARC, RARC: rule.RARC, Message: rule.Pend}
	if p.plan != nil && !p.asked {
		reason.RuleID += "." + p.plan.spec.ID
		reason.Message += " Clause: " + p.plan.clause
	}
	reason.Facts = p.facts
	if p.related != "" {
		reason.Related = []string{p.related}
	}
	if p.line != nil {
		reason.Line = p.line.Number
	}
	return reason
}

// open tells whether the doubt still matters: its line (or, for the claim,
// any line) isn't denied, and no reviewer cleared it.
func (p pend) open(r *run) bool {
	switch {
	case p.line != nil && p.line.out.Denied:
		return false
	case p.line == nil && len(r.lines) > 0 && !slices.ContainsFunc(r.lines, func(l line) bool { return !l.out.Denied }):
		return false
	case p.firm || r.in.Review.Resolution != Approved:
		return true
	}
	seen := r.in.Review.Reasons
	if len(seen) == 0 {
		return false
	}
	now := p.reason()
	return !slices.ContainsFunc(seen, func(was PendReason) bool {
		return was.RuleID == now.RuleID && was.Line == now.Line
	})
}

// deny ends a line: its full charge carries the rule, what earlier stages
// had put on it is gone.
func (r *run) deny(l *line, why rule, clause string, facts ...Fact) {
	r.denyBy(l, &rules[why], clause, facts...)
}

// denyBy is deny by a rule that may be the plan's own.
func (r *run) denyBy(l *line, rule *Rule, clause string, facts ...Fact) {
	if r.setAside(l, rule.ID) {
		return
	}
	l.out.Denied = true
	l.out.Allowed, l.out.Paid, l.out.AllowedQuantityMilli = 0, 0, 0
	l.out.Adjustments = l.out.Adjustments[:0]
	r.adjustBy(l, rule, l.Charge, clause, facts...)
	l.out.Patient = 0
	if rule.Group == "PR" {
		l.out.Patient = l.Charge
	}
}

// adjust records cents not paid. Zero cents need no reason, but a denial of a
// zero charge does.
func (r *run) adjust(l *line, why rule, amount money.Cents, clause string, facts ...Fact) {
	if amount == 0 && !l.out.Denied {
		return
	}
	r.adjustBy(l, &rules[why], amount, clause, facts...)
}

func (r *run) adjustBy(l *line, rule *Rule, amount money.Cents, clause string, facts ...Fact) {
	a := Adjustment{Group: rule.Group, CARC: rule.CARC, Amount: amount, RuleID: rule.ID, Clause: clause}
	if rule.RARC != "" {
		a.RARCs = remarks(rule.RARC)
	}
	if len(facts) > 0 {
		from := len(r.facts)
		r.facts = append(r.facts, facts...)
		a.Facts = r.facts[from:len(r.facts):len(r.facts)]
	}
	l.out.Adjustments = append(l.out.Adjustments, a)
}

// pend notes a doubt about a line, or about the claim when l is nil.
func (r *run) pend(l *line, why rule) { r.pends = append(r.pends, pend{rule: why, line: l}) }

// pendAbout is pend with what raised the doubt: figures, and an earlier claim
// by its opaque id. The same doubt about the same line is noted once.
func (r *run) pendAbout(l *line, why rule, earlier string, facts ...Fact) {
	for _, p := range r.pends {
		if p.rule == why && p.line == l {
			return
		}
	}
	r.pends = append(r.pends, pend{rule: why, line: l, related: earlier, facts: slices.Clone(facts)})
}

// stop pends a line, or the whole claim when l is nil, for a cause that
// approval can't replace, and keeps later stages from judging it.
func (r *run) stop(l *line, why rule) {
	r.pends = append(r.pends, pend{rule: why, line: l, firm: true})
	if l != nil {
		l.stuck = true
		return
	}
	for i := range r.lines {
		r.lines[i].stuck = true
	}
}

// denyAll denies every open line for one reason.
func (r *run) denyAll(why rule, facts ...Fact) {
	for i := range r.lines {
		if l := &r.lines[i]; !l.out.Denied {
			r.deny(l, why, "", facts...)
		}
	}
}

func (r *run) versions() Versions {
	v := r.in.Versions
	v.Engine = EngineVersion
	v.Plan, v.Contract, v.FeeSchedule, v.Network, v.Edits = "", "", "", "", ""
	v.ReceivedDate = r.in.Claim.ReceivedDate.String()
	for i := range r.lines {
		l := &r.lines[i]
		if l.plan != nil {
			v.Plan = listed(v.Plan, l.plan.spec.Version)
		}
		if l.contract != nil {
			v.Contract = listed(v.Contract, l.contract.Version)
		}
		if l.fees != nil {
			v.FeeSchedule = listed(v.FeeSchedule, l.fees.version)
		}
		for _, n := range l.networks {
			v.Network = listed(v.Network, n.version)
		}
		for _, e := range [...]*Edits{l.limitTable, l.pairTable} {
			if e != nil {
				v.Edits = listed(v.Edits, e.version)
			}
		}
	}
	return v
}

// listed adds a version to a comma-separated list that doesn't name it yet.
func listed(list, version string) string {
	switch {
	case list == "" || list == version:
		return version
	case slices.Contains(strings.Split(list, ","), version):
		return list
	}
	return list + "," + version
}

// plus adds and stops at the ends of the range: sums of charges that no
// bounded claim can reach must not wrap into a payable figure.
func plus(a, b money.Cents) money.Cents {
	s, err := money.Add(a, b)
	switch {
	case err == nil:
		return s
	case b > 0:
		return 1<<63 - 1
	}
	return -1 << 63
}
