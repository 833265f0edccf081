package book

import (
	"slices"
	"strings"
	"time"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/policies"
)

// Query is what a claim says of its payer, person, providers and dates.
type Query struct {
	PayerID    string
	Subscriber string // keys.Index.Subscriber of the card
	// BirthIndex and PersonIndex of the patient (keys.Index); the person
	// decides, the birth index helps where a first name is spelled otherwise.
	BirthIndex  []byte
	PersonIndex []byte
	// NPIs of the providers, the billing provider first.
	NPIs []string
	// ServiceDates as ISO 8601, in any order; they choose contracts and fee schedules.
	ServiceDates []string
	// KnownAt asks for the coverage as it was known at a time; zero is now. It
	// is of coverage alone: documents are versions of their own.
	KnownAt time.Time
	// Authorizations are number indexes (keys.Index.Authorization) the claim quotes.
	Authorizations [][]byte
}

// Match says how the person was found.
type Match uint8

// The matches.
const (
	MatchNone      Match = iota // no such person on this card
	MatchPerson                 // card, birth date and first name agree
	MatchBirth                  // card and birth date agree, and nobody else has both
	MatchAmbiguous              // several persons have the card and birth date, none the first name
)

// Context is what the book knows about a claim. Everything in it is immutable.
type Context struct {
	// AsOf is how much of the policies log this answer knows.
	AsOf AsOf
	// PayerKnown: the payer has published a plan here.
	PayerKnown bool
	// CardKnown: somebody is enrolled under the subscriber.
	CardKnown bool
	// Persons enrolled under the subscriber, ever.
	Persons int
	Match   Match
	// Member is nil unless Match is MatchPerson or MatchBirth.
	Member *policies.Member
	// CoverageRef names the state of the coverage: member stream and
	// revision, "member-sub_…@2". Empty without a member.
	CoverageRef string
	// Coverage in order of days, without overlap: each span cut to its
	// policy's period and wherever another plan version takes over.
	Coverage []Coverage
	// Contracts that list one of the NPIs and govern one of the dates, the
	// best first: billing NPI before the others, one that names its plans
	// before one for all, the later begun, then by id.
	Contracts []*Contract
	// FeeSchedules that govern one of the dates and are named by a contract
	// or plan above, by Ref.
	FeeSchedules []*FeeSchedule
	// Networks of the payer that govern one of the dates, by id: all of them,
	// because a plan on trial may name others than the plan in force.
	Networks []*Network
	// Edits that govern one of the dates.
	Edits []*EditSet
	// Providers of the query's NPIs that the payer knows something of, in that order.
	Providers []*Provider
	// Authorizations in the query's order, cancelled ones too; nil where the
	// number is unknown to the payer.
	Authorizations []*Authorization
}

// Coverage is a run of days on which one plan version governs the person.
type Coverage struct {
	Period       policies.Period
	PolicyID     string
	GroupNumber  string
	PlanID       string
	Relationship string
	// SpanStart is the first day of the coverage span this was cut from: a
	// "coverage" plan year restarts on its anniversary.
	SpanStart         string
	OtherPayerPrimary bool
	// Plan is nil where no version is in force.
	Plan *Plan
}

// KnowsPayer tells whether a payer has published a plan here.
func (b *Book) KnowsPayer(id string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_, ok := b.payers[id]
	return ok
}

// For answers a query from one state of the book.
func (b *Book) For(q Query) Context {
	b.mu.RLock()
	defer b.mu.RUnlock()
	c := Context{AsOf: b.asOf}
	_, c.PayerKnown = b.payers[q.PayerID]
	if f := b.families[q.Subscriber]; f != nil {
		c.CardKnown, c.Persons = true, len(f.subjects)
	}
	c.Member, c.Match = b.match(q)
	if !q.KnownAt.IsZero() && c.Member != nil {
		known, ok := c.Member.KnownAt(q.KnownAt)
		if c.Member = known; !ok {
			c.Match = MatchNone
		}
	}
	if m := c.Member; m != nil {
		c.CoverageRef = policies.Ref(policies.MemberStream(m.Subject), uint32(m.Revision))
		c.Coverage = b.coverage(m)
	}
	c.Contracts = b.contractsFor(q)
	c.FeeSchedules = b.feeSchedulesFor(q.ServiceDates, c)
	c.Networks = b.networksFor(q.PayerID, q.ServiceDates)
	c.Edits = b.editsFor(q.PayerID, q.ServiceDates)
	for _, npi := range q.NPIs {
		if p := b.providers[providerKey{q.PayerID, npi}]; p != nil && !slices.Contains(c.Providers, p) {
			c.Providers = append(c.Providers, p)
		}
	}
	if len(q.Authorizations) > 0 {
		c.Authorizations = make([]*Authorization, len(q.Authorizations))
		for i, number := range q.Authorizations {
			if a := b.authorizations[string(number)]; a != nil && a.PayerID == q.PayerID {
				c.Authorizations[i] = a
			}
		}
	}
	return c
}

// match finds the person. Both indexes are hashes over payer and card, so a
// person of another payer or card can't be found; it is asked all the same.
func (b *Book) match(q Query) (*policies.Member, Match) {
	ours := func(subject string) *policies.Member {
		if m := b.members[subject]; m != nil && m.PayerID == q.PayerID && m.Subscriber == q.Subscriber {
			return m
		}
		return nil
	}
	if subject, ok := b.persons[string(q.PersonIndex)]; ok {
		if m := ours(subject); m != nil {
			return m, MatchPerson
		}
	}
	switch subjects := b.births[string(q.BirthIndex)]; len(subjects) {
	case 0:
		return nil, MatchNone
	case 1:
		if m := ours(subjects[0]); m != nil {
			return m, MatchBirth
		}
		return nil, MatchNone
	default:
		return nil, MatchAmbiguous
	}
}

func (b *Book) coverage(m *policies.Member) []Coverage {
	out := make([]Coverage, 0, len(m.Spans))
	for _, s := range m.Spans {
		policy := b.policies[s.PolicyID]
		if policy == nil {
			continue // enrolled here, but the policy's shard is still behind
		}
		period, ok := s.Period.Within(policies.PeriodOf(policy.GetEffective()))
		if !ok {
			continue
		}
		out = b.cut(out, Coverage{
			Period: period, PolicyID: s.PolicyID, GroupNumber: policy.GetGroupNumber(), PlanID: policy.GetPlanId(),
			Relationship: s.Relationship, SpanStart: s.Period.Start, OtherPayerPrimary: s.OtherPayerPrimary,
		})
	}
	return out
}

// cut appends c to out in pieces, one a plan version; days without a version
// stay, with no plan, because the person is covered on them.
func (b *Book) cut(out []Coverage, c Coverage) []Coverage {
	shelf := b.plans[c.PlanID]
	rest, left := c.Period, true
	if shelf != nil {
		for _, v := range shelf.inForce {
			governed, ok := v.Governs.Within(rest)
			if !ok {
				continue
			}
			if rest.Start < governed.Start {
				gap := c
				gap.Period = policies.Period{Start: rest.Start, End: policies.DayBefore(governed.Start)}
				out = append(out, gap)
			}
			piece := c
			piece.Period, piece.Plan = governed, v
			out = append(out, piece)
			if governed.End == rest.End {
				left = false
				break
			}
			rest.Start = policies.DayAfter(governed.End)
		}
	}
	if left {
		c.Period = rest
		out = append(out, c)
	}
	return out
}

func (b *Book) contractsFor(q Query) []*Contract {
	type ranked struct {
		*Contract
		npi int
	}
	var found []ranked
	for rank, npi := range q.NPIs {
		for _, id := range b.listed[providerKey{q.PayerID, npi}] {
			for _, day := range q.ServiceDates {
				v := b.contracts[id].on(day)
				if v == nil || !slices.Contains(v.Document.GetNpis(), npi) || slices.ContainsFunc(found, func(f ranked) bool { return f.Contract == v }) {
					continue
				}
				found = append(found, ranked{v, rank})
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.SortFunc(found, func(x, y ranked) int {
		if x.npi != y.npi {
			return x.npi - y.npi
		}
		if xAll, yAll := len(x.Document.GetPlanIds()) == 0, len(y.Document.GetPlanIds()) == 0; xAll != yAll {
			if xAll {
				return 1
			}
			return -1
		}
		if c := strings.Compare(y.Governs.Start, x.Governs.Start); c != 0 {
			return c
		}
		return strings.Compare(x.Ref, y.Ref)
	})
	out := make([]*Contract, len(found))
	for i, f := range found {
		out[i] = f.Contract
	}
	return out
}

func (b *Book) feeSchedulesFor(days []string, c Context) []*FeeSchedule {
	var out []*FeeSchedule
	add := func(id string) {
		for _, day := range days {
			if v := b.schedules[id].on(day); v != nil && !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	for _, contract := range c.Contracts {
		add(contract.Document.GetFeeScheduleId())
	}
	for _, cover := range c.Coverage {
		if cover.Plan != nil {
			add(cover.Plan.Document.GetFeeScheduleId())
		}
	}
	slices.SortFunc(out, func(x, y *FeeSchedule) int { return strings.Compare(x.Ref, y.Ref) })
	return out
}

func (b *Book) networksFor(payerID string, days []string) []*Network {
	var out []*Network
	for _, id := range b.networksOf[payerID] {
		for _, day := range days {
			if v := b.networks[id].on(day); v != nil && !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// Plans implements policies.Directory.
func (b *Book) Plans(after string, limit int) []policies.PlanVersion {
	b.mu.RLock()
	defer b.mu.RUnlock()
	at, found := slices.BinarySearch(b.planIDs, after)
	if found {
		at++
	}
	var out []policies.PlanVersion
	for _, id := range b.planIDs[at:] {
		if len(out) == limit {
			break
		}
		plan, version := b.plans[id].history.Newest()
		out = append(out, policies.PlanVersion{Plan: plan, Version: version})
	}
	return out
}

// MembersByBirth implements policies.Directory.
func (b *Book) MembersByBirth(birthIndex []byte) []policies.Member {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []policies.Member
	for _, subject := range b.births[string(birthIndex)] {
		out = append(out, *b.members[subject])
	}
	return out
}

// Knows implements policies.Directory.
func (b *Book) Knows(subject string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_, ok := b.members[subject]
	return ok
}

// Family implements policies.Directory.
func (b *Book) Family(subscriber string) []policies.Member {
	b.mu.RLock()
	defer b.mu.RUnlock()
	f := b.families[subscriber]
	if f == nil {
		return nil
	}
	out := make([]policies.Member, len(f.subjects))
	for i, subject := range f.subjects {
		out[i] = *b.members[subject]
	}
	return out
}

// DependsOn implements policies.Directory.
func (b *Book) DependsOn(ownCard string) (string, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	subscriber, ok := b.cards[ownCard]
	return subscriber, ok
}

// PoliciesOf implements policies.Directory.
func (b *Book) PoliciesOf(payerID, groupNumber string) []*policiesv1.Policy {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []*policiesv1.Policy
	for _, p := range b.policies {
		if p.GetPayerId() == payerID && (groupNumber == "" || p.GetGroupNumber() == groupNumber) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(x, y *policiesv1.Policy) int { return strings.Compare(x.GetPolicyId(), y.GetPolicyId()) })
	return out
}

// Affected implements policies.Directory. It looks at every member.
func (b *Book) Affected(planID string, period policies.Period) (persons, families int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, f := range b.families {
		before := persons
		for _, subject := range f.subjects {
			if slices.ContainsFunc(b.members[subject].Spans, func(s policies.Span) bool {
				p := b.policies[s.PolicyID]
				if p.GetPlanId() != planID {
					return false
				}
				covered, ok := s.Period.Within(policies.PeriodOf(p.GetEffective()))
				return ok && covered.Overlaps(period)
			}) {
				persons++
			}
		}
		if persons > before {
			families++
		}
	}
	return persons, families
}

// ContractsListing implements policies.Directory.
func (b *Book) ContractsListing(payerID, npi string) []*policiesv1.ProviderContract {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []*policiesv1.ProviderContract
	for _, id := range b.listed[providerKey{payerID, npi}] {
		for _, v := range b.contracts[id].inForce {
			if slices.Contains(v.Document.GetNpis(), npi) {
				out = append(out, v.Document)
			}
		}
	}
	return out
}
