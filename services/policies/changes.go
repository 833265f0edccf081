package policies

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/problem"
)

// amendment is the command to change one person's coverage, as 834 knows it.
// Only keyed hashes and dates reach the decider.
type amendment struct {
	enrol // subject, indexes, policy (nil where none is named), coverage, relationship
	kind  policiesv1.MaintenanceType
	// coverageSaid: the change speaks of a coverage, not of the person alone,
	// so its policy, end and coordination are meant.
	coverageSaid bool
	batchID      string
	ownCard      string
	// The indexes that found the person until now, where they differ.
	previousBirth, previousPerson []byte
	// detailsChanged: names, birth date or sex differ from what is recorded.
	detailsChanged bool
}

// amended is what an amendment came to: events still without what is sealed,
// and the days whose coverage they touch.
type amended struct {
	events  []proto.Message
	touched Period
	// differs is what an audit found; no event goes with it.
	differs []problem.Problem
}

// decideAmendment decides a change. No event and no error means that it is so already.
func decideAmendment(m Member, c amendment) (amended, error) {
	switch c.kind {
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD:
		return decideAddition(m, c)
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE:
		return decideEnd(m, c)
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_REINSTATE:
		return decideReinstatement(m, c)
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE:
		return decideChange(m, c)
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_AUDIT:
		return decideAudit(m, c)
	}
	return amended{}, problem.New(problem.Invalid, problem.Problem{RuleID: "enrollment.maintenance", FieldPath: "maintenance_type",
		Message: "no such maintenance type", Fix: "send an addition, change, termination, reinstatement or audit"})
}

func decideAddition(m Member, c amendment) (amended, error) {
	events, err := decideEnrol(m, c.enrol)
	if err != nil || len(events) == 0 {
		return amended{}, err
	}
	e := events[0].(*eventsv1.MemberEnrolled)
	e.BatchId, e.OwnCard = c.batchID, c.ownCard
	return amended{events: events, touched: span(m, c.coverage)}, nil
}

// span widens p to the span it amends: days that lose their coverage are touched too.
func span(m Member, p Period) Period {
	for _, s := range m.Spans {
		if s.Period.Start == p.Start && p.endsBefore(s.Period) {
			p.End = s.Period.End
		}
	}
	return p
}

// decideEnd ends coverage after a day. Unlike decideTerminate it takes a day
// before the coverage begins, as sponsors send it: the coverage never was.
func decideEnd(m Member, c amendment) (amended, error) {
	end := c.coverage.End
	if m.Ended == end && !slices.ContainsFunc(m.Spans, func(s Span) bool { return s.Period.End == "" || s.Period.End > end }) {
		return amended{}, nil
	}
	terminated := &eventsv1.MemberTerminated{Subject: m.Subject, EndDate: end, Subscriber: m.Subscriber, BatchId: c.batchID}
	touched := Period{Start: DayAfter(end)}
	if n := len(m.Spans); n > 0 {
		touched.End = m.Spans[n-1].Period.End
	}
	if i := slices.IndexFunc(m.Spans, func(s Span) bool { return s.Period.Start > end }); i >= 0 {
		if _, covered := m.On(end); !covered {
			touched.Start = m.Spans[i].Period.Start
		}
		return amended{events: []proto.Message{terminated}, touched: touched}, nil
	}
	events, err := decideTerminate(m, end)
	if err != nil || len(events) == 0 {
		return amended{}, err
	}
	return amended{events: []proto.Message{terminated}, touched: touched}, nil
}

// decideReinstatement resumes coverage that ended. Without a first day it
// resumes without a gap.
func decideReinstatement(m Member, c amendment) (amended, error) {
	last, ok := lastSpan(m)
	if !ok {
		return amended{}, problem.New(problem.NotFound, problem.Problem{RuleID: "member.unknown", FieldPath: "member_id",
			Message: "this person was never covered", Fix: "send an addition"})
	}
	policy, p := c.policy, c.coverage
	if p.Start == "" {
		p.Start = last.Period.Start
		if len(m.Spans) > 0 && last.Period.End != "" {
			p.Start = DayAfter(last.Period.End)
		}
	}
	for _, s := range m.Spans {
		if s.PolicyID == policy.GetPolicyId() && s.Period.Contains(p.Start) && !s.Period.endsBefore(p) {
			return amended{}, nil
		}
		// Sponsors repeat the coverage's own first day where they mean to
		// undo a termination: then it resumes after the day it ended.
		if s.PolicyID == policy.GetPolicyId() && s.Period.Contains(p.Start) && s.Period.End != "" {
			p.Start = DayAfter(s.Period.End)
		}
	}
	if err := withinPolicy(policy, p); err != nil {
		return amended{}, err
	}
	if slices.ContainsFunc(m.Spans, func(s Span) bool { return s.Period.Overlaps(p) }) {
		return amended{}, overlap()
	}
	relationship := c.relationship
	if relationship == "" {
		relationship = last.Relationship
	}
	return amended{touched: p, events: []proto.Message{&eventsv1.MemberReinstated{
		Subject: m.Subject, Subscriber: m.Subscriber, PolicyId: policy.GetPolicyId(), Coverage: p.proto(),
		RelationshipCode: relationship, OtherPayerPrimary: c.otherPayerPrimary, BatchId: c.batchID,
	}}}, nil
}

// lastSpan is the newest span, or the last there was before a cancellation.
func lastSpan(m Member) (Span, bool) {
	for at := &m; at != nil; at = at.Before {
		if n := len(at.Spans); n > 0 {
			return at.Spans[n-1], true
		}
	}
	return Span{}, false
}

// decideChange corrects what is known of a person, and moves the person to
// another policy, or amends the coverage, where the change speaks of one.
func decideChange(m Member, c amendment) (amended, error) {
	var out amended
	if c.detailsChanged {
		out.events = append(out.events, &eventsv1.MemberChanged{
			Subject: m.Subject, Subscriber: m.Subscriber, BirthIndex: c.birthIndex, PersonIndex: c.personIndex,
			PreviousBirthIndex: c.previousBirth, PreviousPersonIndex: c.previousPerson, BatchId: c.batchID,
		})
	}
	if !c.coverageSaid || c.policy == nil {
		return out, nil
	}
	start := c.coverage.Start
	have, covered := m.On(start)
	if start == "" {
		have, covered = lastSpan(m)
		start = have.Period.Start
	}
	if !covered {
		return amended{}, problem.New(problem.Conflict, problem.Problem{RuleID: "member.change.not-covered", FieldPath: "start_date",
			Message: "the person is not covered on the day the change takes effect", Fix: "send an addition or a reinstatement, or correct the day"})
	}
	if have.PolicyID != c.policy.GetPolicyId() {
		return moved(m, c, out, have, start)
	}
	want := c.enrol
	want.coverage = have.Period
	if c.coverage.End != "" {
		want.coverage.End = c.coverage.End
	}
	want.corrected = false
	events, err := decideEnrol(m, want)
	if err != nil || len(events) == 0 {
		return out, err
	}
	e := events[0].(*eventsv1.MemberEnrolled)
	e.BatchId, e.OwnCard = c.batchID, c.ownCard
	out.events = append(out.events, e)
	out.touched = span(m, want.coverage)
	return out, nil
}

// moved ends the coverage the day before and grants that of the other policy.
func moved(m Member, c amendment, out amended, have Span, start string) (amended, error) {
	if slices.ContainsFunc(m.Spans, func(s Span) bool { return s.Period.Start > have.Period.Start }) {
		return amended{}, problem.New(problem.Conflict, problem.Problem{RuleID: "member.change.later-coverage", FieldPath: "start_date",
			Message: "the person has coverage after this one, which the change doesn't speak of", Fix: "end or change the later coverage first"})
	}
	ended := &eventsv1.MemberTerminated{Subject: m.Subject, EndDate: DayBefore(start), Subscriber: m.Subscriber, BatchId: c.batchID}
	next := m.Evolve(ended, uint64(m.Revision+1))
	want := c.enrol
	want.coverage = Period{Start: start, End: c.coverage.End}
	events, err := decideEnrol(next, want)
	if err != nil {
		return amended{}, err
	}
	e := events[0].(*eventsv1.MemberEnrolled)
	e.BatchId, e.OwnCard = c.batchID, c.ownCard
	out.events = append(out.events, ended, e)
	out.touched = Period{Start: start, End: have.Period.End}
	if n := len(m.Spans); n > 0 {
		out.touched.End = m.Spans[n-1].Period.End
	}
	if out.touched.endsBefore(want.coverage) {
		out.touched.End = want.coverage.End
	}
	return out, nil
}

// decideAudit compares; it never decides an event.
func decideAudit(m Member, c amendment) (amended, error) {
	var f finding
	if c.detailsChanged {
		f.add("enrollment.audit.details", "", "the person's recorded details are others", "send a change with the right ones")
	}
	day := c.coverage.Start
	have, covered := m.On(day)
	if day == "" {
		have, covered = lastSpan(m)
	}
	switch {
	case !covered:
		f.add("enrollment.audit.not-covered", "start_date", "the person is not covered on this day", "send an addition or a reinstatement")
	case c.coverageSaid && c.policy != nil && have.PolicyID != c.policy.GetPolicyId():
		f.add("enrollment.audit.policy", "policy_id", "the person is covered by another policy on this day", "send a change with the right one")
	case c.coverage.End != "" && have.Period.End != c.coverage.End:
		f.add("enrollment.audit.end", "end_date", "the coverage ends on another day", "send a termination, or a reinstatement")
	case c.relationship != "" && have.Relationship != c.relationship:
		f.add("enrollment.audit.relationship", "relationship_code", "the person is recorded with another relationship", "send a change with the right one")
	}
	return amended{differs: f.problems}, nil
}

func withinPolicy(policy *policiesv1.Policy, p Period) error {
	inForce := PeriodOf(policy.GetEffective())
	if !inForce.Contains(p.Start) || p.End != "" && !inForce.Contains(p.End) {
		return invalid([]problem.Problem{{RuleID: "member.coverage.outside-policy", FieldPath: "coverage",
			Message: "the coverage reaches beyond the days the policy is in force",
			Fix:     "keep start_date and end_date within the policy's period; an open end follows the policy's"}})
	}
	return nil
}

func overlap() error {
	return problem.New(problem.Conflict, problem.Problem{RuleID: "member.coverage.overlap", FieldPath: "coverage",
		Message: "the person is covered on some of these days already",
		Fix:     "end the earlier coverage with TerminateMember, or enrol from the day after it"})
}

// agedOut cuts a child's coverage at the plan's age limit: with the last day
// of the month in which it turns so many years old. False when no day is left.
func agedOut(limit uint32, birthDate string, p Period) (Period, bool) {
	var year, month, day int
	if _, err := fmt.Sscanf(birthDate, "%4d-%2d-%2d", &year, &month, &day); err != nil || limit == 0 {
		return p, true
	}
	next := fmt.Sprintf("%04d-%02d-01", year+int(limit)+month/12, month%12+1)
	last := DayBefore(next)
	if p.Start > last {
		return Period{}, false
	}
	if p.End == "" || p.End > last {
		p.End = last
	}
	return p, true
}

// dependsOn walks from the card a person depends on to the card that one's
// holder depends on, and so on. next gives it, for a dependant's own card.
// It answers for a dependant with a card of its own: rule and message of what
// is wrong, or nothing.
func dependsOn(card, own string, next func(card string) (string, bool)) (rule, message string) {
	seen := []string{own}
	for at, steps := card, 0; ; steps++ {
		if own != "" && slices.Contains(seen, at) {
			return "member.dependent.cycle", "the person would depend on somebody who depends on the person"
		}
		up, dependent := next(at)
		if !dependent {
			if steps > 0 {
				return "member.dependent.of-dependent", "the subscriber's card is a dependant's own"
			}
			return "", ""
		}
		if slices.Contains(seen, up) && own != "" {
			return "member.dependent.cycle", "the person would depend on somebody who depends on the person"
		}
		if steps > 8 {
			return "member.dependent.of-dependent", "the subscriber's card is a dependant's own"
		}
		seen = append(seen, at)
		at = up
	}
}

// medical are the insurance lines (HD03) whose claims are adjudicated here;
// empty is a change that names none.
const medical = " AG AH AJ AK EPO FAC HLT HMO MM POS PPO PRA "

func isMedical(line string) bool {
	return line == "" || strings.Contains(medical, " "+line+" ")
}
