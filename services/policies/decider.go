package policies

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/problem"
)

// Document is a versioned document of a payer.
type Document interface {
	proto.Message
	GetEffective() *typev1.Period
	GetPayerId() string
}

// History is every version published of one document: version n is History[n-1].
type History[D Document] []D

// Newest returns the last version published and its number, 0 when there is none.
func (h History[D]) Newest() (D, uint32) {
	if len(h) == 0 {
		var none D
		return none, 0
	}
	return h[len(h)-1], uint32(len(h))
}

// InForce returns the version that governs a date of service: the newest
// whose period holds it. Version 0 is none.
func (h History[D]) InForce(day string) (D, uint32) {
	for i := len(h) - 1; i >= 0; i-- {
		if PeriodOf(h[i].GetEffective()).Contains(day) {
			return h[i], uint32(i + 1)
		}
	}
	var none D
	return none, 0
}

// Governs returns the days on which version (from 1) is in force: its period
// until a later version takes over; false when no day is left to it. It is one
// run of days, because a version that overlaps an earlier one never ends
// before it (takesOver).
func (h History[D]) Governs(version uint32) (Period, bool) {
	p := PeriodOf(h[version-1].GetEffective())
	for _, later := range h[version:] {
		q := PeriodOf(later.GetEffective())
		if !p.Overlaps(q) {
			continue
		}
		if q.Start <= p.Start {
			return Period{}, false
		}
		p.End = DayBefore(q.Start)
	}
	return p, true
}

// kind says how one kind of document stands on the ledger and in messages.
type kind[D Document] struct {
	name      string // "plan"; also the path of the field in its publish request
	stream    func(id string) string
	id        func(D) string
	lint      func(D) []problem.Problem
	published func(D, uint32) proto.Message
	document  func(proto.Message) (D, bool)
}

func planKind() kind[*policiesv1.PlanDocument] {
	return kind[*policiesv1.PlanDocument]{
		name: "plan", stream: planStream, id: (*policiesv1.PlanDocument).GetPlanId, lint: LintPlan,
		published: func(d *policiesv1.PlanDocument, v uint32) proto.Message {
			return &eventsv1.PlanPublished{Plan: d, Version: v}
		},
		document: func(m proto.Message) (*policiesv1.PlanDocument, bool) {
			e, ok := m.(*eventsv1.PlanPublished)
			return e.GetPlan(), ok
		},
	}
}

func feeScheduleKind() kind[*policiesv1.FeeSchedule] {
	return kind[*policiesv1.FeeSchedule]{
		name: "fee_schedule", stream: feeScheduleStream, id: (*policiesv1.FeeSchedule).GetFeeScheduleId, lint: LintFeeSchedule,
		published: func(d *policiesv1.FeeSchedule, v uint32) proto.Message {
			return &eventsv1.FeeSchedulePublished{FeeSchedule: d, Version: v}
		},
		document: func(m proto.Message) (*policiesv1.FeeSchedule, bool) {
			e, ok := m.(*eventsv1.FeeSchedulePublished)
			return e.GetFeeSchedule(), ok
		},
	}
}

func contractKind() kind[*policiesv1.ProviderContract] {
	return kind[*policiesv1.ProviderContract]{
		name: "contract", stream: contractStream, id: (*policiesv1.ProviderContract).GetContractId, lint: LintContract,
		published: func(d *policiesv1.ProviderContract, v uint32) proto.Message {
			return &eventsv1.ContractPublished{Contract: d, Version: v}
		},
		document: func(m proto.Message) (*policiesv1.ProviderContract, bool) {
			e, ok := m.(*eventsv1.ContractPublished)
			return e.GetContract(), ok
		},
	}
}

// References are the documents another one names, as far as they exist.
// They only ever gain versions, so a check against them can't be overtaken.
type References struct {
	FeeSchedule History[*policiesv1.FeeSchedule]
	Plans       map[string]History[*policiesv1.PlanDocument]
	Networks    map[string]History[*policiesv1.ProviderNetwork]
}

// decidePublish decides a new version of a document. No event and no error
// means that it equals the newest version. The document has been checked.
func decidePublish[D Document](k kind[D], h History[D], doc D, named []problem.Problem) ([]proto.Message, error) {
	newest, version := h.Newest()
	if version > 0 {
		if proto.Equal(newest, doc) {
			return nil, nil
		}
		if newest.GetPayerId() != doc.GetPayerId() {
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: k.name + ".payer.changed", FieldPath: "payer_id",
				Message: "this id belongs to a document of another payer", Fix: "publish under an id of your own"})
		}
	}
	ps := slices.Clone(named)
	if p, ok := takesOver(h, PeriodOf(doc.GetEffective())); !ok {
		p.RuleID = k.name + "." + p.RuleID
		ps = append(ps, p)
	}
	if len(ps) > 0 {
		return nil, invalid(ps)
	}
	return []proto.Message{k.published(doc, version+1)}, nil
}

// takesOver holds a new version's period against the days earlier versions
// govern: where it shares days with one it must last at least as long.
// Otherwise an older version would come back into force afterwards, which
// nobody reading the newer one would expect.
func takesOver[D Document](h History[D], p Period) (problem.Problem, bool) {
	for i := range h {
		version := uint32(i + 1)
		if governs, ok := h.Governs(version); ok && governs.Overlaps(p) && p.endsBefore(governs) {
			return problem.Problem{RuleID: "effective.gives-back", FieldPath: "effective.end_date",
				Message: fmt.Sprintf("the version would end while version %d still runs, and that one would come back into force", version),
				Fix:     "leave end_date empty or let it reach the earlier version's end; publish what follows as a version of its own",
			}, false
		}
	}
	return problem.Problem{}, true
}

// namedByPlan checks the fee schedule a plan names.
func namedByPlan(d *policiesv1.PlanDocument, refs References) []problem.Problem {
	var ps []problem.Problem
	if d.GetFeeScheduleId() != "" {
		ps = namedSchedule("plan", d, refs)
	}
	for i, use := range d.GetNetworks() {
		ps = append(ps, namedNetwork(fmt.Sprintf("networks[%d]", i), d, use, refs.Networks[use.GetNetworkId()])...)
	}
	for i, t := range d.GetTiers() {
		for j, use := range t.GetParticipants() {
			ps = append(ps, namedNetwork(fmt.Sprintf("tiers[%d].participants[%d]", i, j), d, use, refs.Networks[use.GetNetworkId()])...)
		}
	}
	return ps
}

// namedNetwork checks a network that a plan names, and the tiers it wants of it.
func namedNetwork(path string, d *policiesv1.PlanDocument, use *policiesv1.PlanNetwork, known History[*policiesv1.ProviderNetwork]) []problem.Problem {
	newest, version := known.Newest()
	if version == 0 || newest.GetPayerId() != d.GetPayerId() {
		return []problem.Problem{{RuleID: "plan.network.unknown", FieldPath: path + ".network_id",
			Message: "the payer has no such network", Fix: "publish the network first, or correct its id"}}
	}
	governing, version := known.InForce(d.GetEffective().GetStartDate())
	if version == 0 {
		return []problem.Problem{{RuleID: "plan.network.not-in-force", FieldPath: path + ".network_id",
			Message: "no version of the network is in force on the first effective day",
			Fix:     "publish a version of the network for that day, or start later"}}
	}
	var ps []problem.Problem
	for j, tier := range use.GetTiers() {
		if !slices.Contains(governing.GetTiers(), tier) {
			ps = append(ps, problem.Problem{RuleID: "plan.network.tier-unknown", FieldPath: fmt.Sprintf("%s.tiers[%d]", path, j),
				Message: "the network has no such tier on the first effective day", Fix: "name a tier of the network, or none for all"})
		}
	}
	return ps
}

// namedByContract checks the fee schedule and the plans a contract names.
func namedByContract(d *policiesv1.ProviderContract, refs References) []problem.Problem {
	ps := namedSchedule("contract", d, refs)
	for i, id := range d.GetPlanIds() {
		if newest, version := refs.Plans[id].Newest(); version == 0 || newest.GetPayerId() != d.GetPayerId() {
			ps = append(ps, problem.Problem{RuleID: "contract.plan.unknown", FieldPath: fmt.Sprintf("plan_ids[%d]", i),
				Message: "the payer has no such plan", Fix: "publish the plan first, or correct its id"})
		}
	}
	return ps
}

func namedSchedule(by string, d Document, refs References) []problem.Problem {
	newest, version := refs.FeeSchedule.Newest()
	if version == 0 || newest.GetPayerId() != d.GetPayerId() {
		return []problem.Problem{{RuleID: by + ".fee_schedule.unknown", FieldPath: "fee_schedule_id",
			Message: "the payer has no such fee schedule", Fix: "publish the fee schedule first, or correct its id"}}
	}
	if _, version := refs.FeeSchedule.InForce(d.GetEffective().GetStartDate()); version == 0 {
		return []problem.Problem{{RuleID: by + ".fee_schedule.not-in-force", FieldPath: "fee_schedule_id",
			Message: "no version of the fee schedule is in force on the first effective day",
			Fix:     "publish a version of the fee schedule for that day, or start later"}}
	}
	return nil
}

// decidePolicy decides a policy. No event and no error means that the same
// policy exists.
func decidePolicy(existing, want *policiesv1.Policy, plan History[*policiesv1.PlanDocument]) ([]proto.Message, error) {
	if existing != nil {
		if proto.Equal(existing, want) {
			return nil, nil
		}
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "policy.exists", FieldPath: "policy.policy_id",
			Message: "another policy has this id", Fix: "a policy never changes: create one with an id of its own and enrol the members there"})
	}
	newest, version := plan.Newest()
	if version == 0 || newest.GetPayerId() != want.GetPayerId() {
		return nil, invalid([]problem.Problem{{RuleID: "policy.plan.unknown", FieldPath: "policy.plan_id",
			Message: "the payer has no such plan", Fix: "publish the plan first, or correct its id"}})
	}
	return []proto.Message{&eventsv1.PolicyCreated{Policy: want}}, nil
}

// enrol is the command to cover a person, with what the handler derived from
// the enrolment. Only keyed hashes reach the decider.
type enrol struct {
	subject, subscriber     string
	birthIndex, personIndex []byte
	policy                  *policiesv1.Policy
	coverage                Period
	relationship            string
	otherPayerPrimary       bool
	// corrected: the sealed details differ from those recorded last.
	corrected bool
}

// decideEnrol decides an enrolment; its event still lacks the sealed details.
// No event and no error means that the person is covered so already.
func decideEnrol(m Member, c enrol) ([]proto.Message, error) {
	inForce := PeriodOf(c.policy.GetEffective())
	if !inForce.Contains(c.coverage.Start) || c.coverage.End != "" && !inForce.Contains(c.coverage.End) {
		return nil, invalid([]problem.Problem{{RuleID: "member.coverage.outside-policy", FieldPath: "coverage",
			Message: "the coverage reaches beyond the days the policy is in force",
			Fix:     "keep start_date and end_date within the policy's period; an open end follows the policy's"}})
	}
	span := Span{PolicyID: c.policy.GetPolicyId(), Period: c.coverage, Relationship: c.relationship, OtherPayerPrimary: c.otherPayerPrimary}
	for _, have := range m.Spans {
		if have.same(span) && !c.corrected {
			return nil, nil
		}
		if !have.amendedBy(span) && have.Period.Overlaps(span.Period) {
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "member.coverage.overlap", FieldPath: "coverage",
				Message: "the person is covered on some of these days already",
				Fix:     "end the earlier coverage with TerminateMember, or enrol from the day after it"})
		}
	}
	return []proto.Message{&eventsv1.MemberEnrolled{
		Subject: c.subject, Subscriber: c.subscriber, BirthIndex: c.birthIndex, PersonIndex: c.personIndex,
		PolicyId: span.PolicyID, PayerId: c.policy.GetPayerId(), RelationshipCode: span.Relationship,
		Coverage: span.Period.proto(), OtherPayerPrimary: span.OtherPayerPrimary,
	}}, nil
}

// decideTerminate ends all coverage after a day. No event and no error means
// that it ends on that day already.
func decideTerminate(m Member, endDate string) ([]proto.Message, error) {
	if len(m.Spans) == 0 {
		return nil, problem.New(problem.NotFound, problem.Problem{RuleID: "member.unknown", FieldPath: "subject",
			Message: "no such member", Fix: "look the member up by card and birth date"})
	}
	// A last covered day must be covered: a day in a gap would be one nobody
	// can name again, so that the repeated command would be refused.
	if !slices.ContainsFunc(m.Spans, func(s Span) bool { return s.Period.Contains(endDate) }) {
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "member.termination.not-covered", FieldPath: "end_date",
			Message: "the person is not covered on this day", Fix: "name the last covered day; to extend coverage enrol the member again"})
	}
	if m.Spans[len(m.Spans)-1].Period.End == endDate {
		return nil, nil
	}
	return []proto.Message{&eventsv1.MemberTerminated{Subject: m.Subject, EndDate: endDate, Subscriber: m.Subscriber}}, nil
}

// authorize is the command to record a prior authorisation.
type authorize struct {
	numberIndex []byte
	subject     string
	payerID     string
	units       uint32
	effective   Period
	npis        []string
	cancelled   bool
	// corrected: the sealed details differ from those recorded.
	corrected bool
	// narrowed: they name fewer procedures, or somebody else.
	narrowed bool
}

// extends tells whether an authorisation covers all that the recorded one does.
func (c authorize) extends(existing *eventsv1.PriorAuthorizationRecorded) bool {
	was := PeriodOf(existing.GetEffective())
	return c.subject == existing.GetSubject() && !c.narrowed &&
		(c.units == 0 || existing.GetUnits() != 0 && c.units >= existing.GetUnits()) &&
		c.effective.Start <= was.Start && !c.effective.endsBefore(was) &&
		(len(c.npis) == 0 || len(existing.GetNpis()) > 0 && !slices.ContainsFunc(existing.GetNpis(), func(npi string) bool { return !slices.Contains(c.npis, npi) }))
}

// decideAuthorization decides a prior authorisation; its event still lacks
// the sealed details. No event and no error means that it is recorded so.
func decideAuthorization(existing *eventsv1.PriorAuthorizationRecorded, c authorize) ([]proto.Message, error) {
	recorded := &eventsv1.PriorAuthorizationRecorded{
		NumberIndex: c.numberIndex, Subject: c.subject, Units: c.units, Effective: c.effective.proto(), PayerId: c.payerID,
		Npis: c.npis, Cancelled: c.cancelled,
	}
	if existing == nil {
		return []proto.Message{recorded}, nil
	}
	same := existing.GetSubject() == c.subject && existing.GetUnits() == c.units && slices.Equal(existing.GetNpis(), c.npis) &&
		PeriodOf(existing.GetEffective()) == c.effective && bytes.Equal(existing.GetNumberIndex(), c.numberIndex)
	switch {
	case same && !c.corrected && existing.GetCancelled() == c.cancelled:
		return nil, nil
	case same && c.cancelled && !existing.GetCancelled():
		return []proto.Message{recorded}, nil
	case !c.cancelled && !existing.GetCancelled() && c.extends(existing):
		return []proto.Message{recorded}, nil
	case existing.GetCancelled():
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "authorization.cancelled", FieldPath: "authorization.number",
			Message: "this authorisation was cancelled", Fix: "give what is approved now a number of its own"})
	case c.subject == existing.GetSubject():
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "authorization.narrowed", FieldPath: "authorization",
			Message: "an authorisation can be extended, and this would cover less than what was approved under the number",
			Fix:     "keep its procedures, days, units and providers and add to them; to take it back, cancel it and give what remains a number of its own"})
	}
	return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "authorization.exists", FieldPath: "authorization.number",
		Message: "another authorisation has this number", Fix: "give each authorisation a number of its own"})
}
