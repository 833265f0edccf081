package casework

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/problem"
)

// Outcomes of an appeal.
const (
	Overturned = "overturned"
	Upheld     = "upheld"
)

// Now is an instant and the payer's calendar, in which prompt-pay days are.
type Now struct {
	Time time.Time
	Zone *time.Location // nil is UTC
}

func (n Now) zone() *time.Location {
	if n.Zone == nil {
		return time.UTC
	}
	return n.Zone
}

func (n Now) day(t time.Time) string { return t.In(n.zone()).Format(time.DateOnly) }

// begins is when a calendar day begins; zero where it is none.
func (n Now) begins(date string) time.Time {
	t, err := time.ParseInLocation(time.DateOnly, date, n.zone())
	if err != nil {
		return time.Time{}
	}
	return t
}

// Claim gives the task to a reviewer; by is empty where the reviewer takes it.
// Taking what one has already does nothing.
func (s State) Claim(assignee, by string, now Now, t Terms) ([]proto.Message, error) {
	switch {
	case !s.Pended():
		return nil, notPended()
	case s.WaitsForProvider():
		return nil, refuse("casework.task.waiting", "the claim waits for its provider; there is nothing to decide yet", "wait for what was asked for, or for its deadline")
	case s.opinionOf(assignee) != "":
		return nil, refuse("casework.task.same-person", "who has given an opinion on the claim can't give the second", "let another reviewer take it")
	case s.Assignee == assignee:
		return nil, nil
	case s.Assignee != "" && by == "":
		return nil, heldByOther()
	}
	return []proto.Message{&eventsv1.TaskClaimed{
		ClaimId: s.ClaimID, PayerId: s.PayerID, Assignee: assignee, AssignedBy: by, HeldUntil: timestamppb.New(t.Hold.after(now.Time)),
	}}, nil
}

// Release gives the task back. To give back what nobody has does nothing.
func (s State) Release(who string) ([]proto.Message, error) {
	switch {
	case !s.Pended():
		return nil, notPended()
	case s.Assignee == "":
		return nil, nil
	case s.Assignee != who:
		return nil, heldByOther()
	}
	return []proto.Message{s.released("request")}, nil
}

func (s State) released(cause string) proto.Message {
	return &eventsv1.TaskReleased{ClaimId: s.ClaimID, PayerId: s.PayerID, Assignee: s.Assignee, Cause: cause}
}

// Escalate raises the task because somebody asks for it; each time by one.
func (s State) Escalate() ([]proto.Message, error) {
	if !s.Pended() {
		return nil, notPended()
	}
	return []proto.Message{s.escalated(CauseRequest)}, nil
}

// SetEscalation sets how far the task is escalated, up or down.
func (s State) SetEscalation(level uint32) ([]proto.Message, error) {
	switch {
	case !s.Pended():
		return nil, notPended()
	case s.Escalation == level:
		return nil, nil
	}
	return []proto.Message{&eventsv1.TaskEscalated{ClaimId: s.ClaimID, PayerId: s.PayerID, Level: level, Cause: CauseSet}}, nil
}

func (s State) escalated(cause string) proto.Message {
	return &eventsv1.TaskEscalated{ClaimId: s.ClaimID, PayerId: s.PayerID, Level: s.Escalation + 1, Cause: cause}
}

// MayReview tells whether a person may decide the claim now, and whether it is
// decided by what the person says: as many as are needed then agree.
func (s State) MayReview(who, resolution string) (decides bool, err error) {
	switch {
	case !s.Pended():
		return false, notPended()
	case s.Assignee != "" && s.Assignee != who:
		return false, heldByOther()
	case s.opinionOf(who) != "":
		return false, refuse("casework.review.same-person", "the claim needs another person's opinion beside yours", "let another reviewer decide it")
	}
	agree := uint32(1)
	for _, o := range s.Opinions {
		if o.GetResolution() == resolution {
			agree++
		}
	}
	return agree >= s.Needed, nil
}

// Propose records an opinion that doesn't decide; reviewers who differ
// escalate the task. MayReview has allowed it.
func (s State) Propose(e *eventsv1.ReviewProposed) []proto.Message {
	e.ClaimId, e.PayerId, e.Needed = s.ClaimID, s.PayerID, s.Needed
	out := []proto.Message{e}
	differ := slices.ContainsFunc(s.Opinions, func(o *claimsv1.Opinion) bool { return o.GetResolution() != e.GetResolution() })
	if differ && !slices.Contains(s.Escalated, CauseDispute) {
		out = append(out, s.escalated(CauseDispute))
	}
	return out
}

func (s State) opinionOf(who string) string {
	for _, o := range s.Opinions {
		if o.GetReviewer() == who {
			return o.GetResolution()
		}
	}
	return ""
}

// Request asks for what a pended claim lacks. id names the request.
func (s State) Request(id string, kind claimsv1.InformationKind, urgent bool, by string, now Now, t Terms) ([]proto.Message, error) {
	switch {
	case !s.Pended():
		return nil, notPended()
	case len(s.Requests) >= maxRequests:
		return nil, tooMany()
	case open(s.request(kind)):
		return nil, refuse("casework.information.open", "that is asked for already", "wait for the answer, or hand it in")
	}
	return []proto.Message{s.requested(id, kind, urgent, by, now, t)}, nil
}

func (s State) requested(id string, kind claimsv1.InformationKind, urgent bool, by string, now Now, t Terms) proto.Message {
	r := &claimsv1.InformationRequest{
		InformationId: id, Kind: kind, State: claimsv1.InformationState_INFORMATION_STATE_REQUESTED, RequestedBy: by,
		Urgent:        urgent && kind == claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION,
		RequestedTime: timestamppb.New(now.Time), DueTime: timestamppb.New(t.answer(kind, urgent).after(now.Time)), StopsClock: fromProvider(kind),
	}
	r.ReminderTime = reminder(r, now.Time, t)
	return &eventsv1.InformationRequested{ClaimId: s.ClaimID, PayerId: s.PayerID, Request: r}
}

// reminder is when the next one is due, if that is before the deadline. The
// payer isn't reminded of its own clock: that is escalation.
func reminder(r *claimsv1.InformationRequest, from time.Time, t Terms) *timestamppb.Timestamp {
	next := t.Remind.after(from)
	if !r.GetStopsClock() || !next.Before(r.GetDueTime().AsTime()) {
		return nil
	}
	return timestamppb.New(next)
}

// maxRequests bounds what is asked for and answered on one claim: more is a
// mistake or worse, and every event of a claim is read with it.
const maxRequests = 50

func tooMany() error {
	return refuse("casework.information.many", "too much has been asked for and answered on this claim", "decide the claim, or void it and send it anew")
}

// wants are the denials for want of something that may still come.
var wants = map[claimsv1.InformationKind][]string{
	claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER:         {"CO-22"},
	claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION: {"CO-197", "CO-15", "CO-198"},
}

// Answers returns the open request of a kind. A denied claim takes what it
// lacked without having been asked; then the request is nil.
func (s State) Answers(kind claimsv1.InformationKind) (*claimsv1.InformationRequest, error) {
	last := s.request(kind)
	if open(last) {
		return last, nil
	}
	if len(s.Requests) >= maxRequests || s.Answered >= maxRequests {
		return nil, tooMany()
	}
	if s.Status == claimsv1.ClaimStatus_CLAIM_STATUS_DENIED && slices.ContainsFunc(s.Codes, func(c string) bool { return slices.Contains(wants[kind], c) }) {
		return nil, nil
	}
	if s.Pended() && slices.ContainsFunc(s.Reasons, func(r *claimsv1.PendReason) bool { return KindOf(r) == kind }) {
		return last, nil // before it was asked for, or after the deadline while the claim still waits
	}
	if last.GetState() == claimsv1.InformationState_INFORMATION_STATE_EXPIRED {
		return nil, refuse("casework.information.late", "the time to send it has passed and the claim is decided without it", "appeal the decision, and send it with the appeal")
	}
	if s.final() && last.GetState() == claimsv1.InformationState_INFORMATION_STATE_RECEIVED {
		return nil, refuse("casework.information.decided", "an answer came before and the claim is decided by it", "where that one was wrong, send a replacement of the claim, or appeal the decision")
	}
	return nil, refuse("casework.information.none", "nothing of the kind is asked for", "read the case to see what the claim lacks")
}

// Received completes the event of an answer: which request, and how the
// prompt-pay clock runs from now on. A claim that can be made clean only by
// more than this stays as it is.
func (s State) Received(e *eventsv1.InformationReceived, r *claimsv1.InformationRequest, now Now) {
	e.ClaimId, e.PayerId, e.InformationId = s.ClaimID, s.PayerID, r.GetInformationId()
	e.ReceivedTime = timestamppb.New(now.Time)
	e.Clock = s.clockAfter(r.GetInformationId(), now)
}

// clockAfter is the clock once a request is settled; nil where it doesn't change.
func (s State) clockAfter(id string, now Now) *claimsv1.PromptPayClock {
	if s.Clock.GetStoppedTime() == nil {
		return nil
	}
	for _, r := range s.Requests {
		if r.GetInformationId() != id && open(r) && r.GetStopsClock() {
			return nil
		}
	}
	return runClock(s.Clock, now.day(s.Clock.GetStoppedTime().AsTime()), now.day(now.Time))
}

// File files an appeal of the decision that stands, at the next open level.
func (s State) File(id, by string, expedited bool, now Now, t Terms) (*claimsv1.Appeal, error) {
	if s.Status == claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED {
		return nil, refuse("casework.appeal.replaced", "the claim was voided or replaced; its decision holds no more", "appeal the decision of the claim that took its place")
	}
	if !s.final() {
		return nil, refuse("casework.appeal.not-final", "only a decision that pays or denies is appealed", "wait for the decision, or hand in what the claim lacks")
	}
	level, since := claimsv1.AppealLevel_APPEAL_LEVEL_RECONSIDERATION, s.DecidedTime
	if n := len(s.Appeals); n > 0 && s.Appeals[n-1].GetDecisionRevision() == s.DecisionRevision {
		last := s.Appeals[n-1]
		switch last.GetState() {
		case claimsv1.AppealState_APPEAL_STATE_FILED:
			return nil, refuse("casework.appeal.open", "an appeal of this decision is open already", "wait until it is decided or its time has passed")
		case claimsv1.AppealState_APPEAL_STATE_OVERDUE:
			since = last.GetDueTime().AsTime()
		default:
			since = last.GetDecidedTime().AsTime()
		}
		if last.GetLevel() == claimsv1.AppealLevel_APPEAL_LEVEL_EXTERNAL {
			return nil, refuse("casework.appeal.exhausted", "the external review was the last level", "no level is left")
		}
		level = last.GetLevel() + 1
	}
	if until := t.filing(level).after(since); now.Time.After(until) {
		return nil, refuse("casework.appeal.late", "the time to appeal at this level has passed; it ended on "+now.day(until), "no level is open any more")
	}
	return &claimsv1.Appeal{
		AppealId: id, ClaimId: s.ClaimID, PayerId: s.PayerID, Level: level, State: claimsv1.AppealState_APPEAL_STATE_FILED, Expedited: expedited,
		FiledBy: by, FiledTime: timestamppb.New(now.Time), DueTime: timestamppb.New(t.deciding(level, expedited).after(now.Time)),
		DecisionRevision: s.DecisionRevision,
	}, nil
}

// MayHear tells whether a person may decide an appeal.
func (s State) MayHear(id, who string) error {
	a := s.Appeal(id)
	switch {
	case a == nil:
		return problem.New(problem.NotFound, problem.Problem{RuleID: "casework.appeal.unknown", FieldPath: "appeal_id", Message: "the claim has no such appeal", Fix: "list the appeals"})
	case !undecided(a):
		return refuse("casework.appeal.decided", "the appeal is no longer open", "read the case to see what became of it")
	case slices.Contains(s.Deciders, who):
		return problem.New(problem.Forbidden, problem.Problem{
			RuleID: "casework.appeal.same-person", Message: "who had a say in the decision doesn't decide an appeal of it", Fix: "let a reviewer decide who had no part in it",
		})
	}
	return nil
}

// Due are the events of everything that is due now, in order of urgency.
// newID names a request that is made. Applied, they leave nothing due.
func (s State) Due(now Now, t Terms, newID func(claimsv1.InformationKind) string) []proto.Message {
	var out []proto.Message
	for {
		e := s.nextDue(now, t, newID)
		if e == nil {
			return out
		}
		out = append(out, e)
		s = Evolve(s, e, s.DecisionRevision)
	}
}

func (s State) nextDue(now Now, t Terms, newID func(claimsv1.InformationKind) string) proto.Message {
	past := func(when *timestamppb.Timestamp) bool { return when != nil && !now.Time.Before(when.AsTime()) }
	for _, a := range s.Appeals {
		if a.GetState() == claimsv1.AppealState_APPEAL_STATE_FILED && past(a.GetDueTime()) {
			return &eventsv1.AppealOverdue{ClaimId: s.ClaimID, PayerId: s.PayerID, AppealId: a.GetAppealId(), SubmitterOrg: s.Org}
		}
	}
	if !s.Pended() {
		return nil
	}
	for _, reason := range s.Reasons {
		if k := KindOf(reason); k != claimsv1.InformationKind_INFORMATION_KIND_UNSPECIFIED && s.request(k) == nil {
			return s.requested(newID(k), k, false, "", now, t)
		}
	}
	for _, r := range s.Requests {
		switch {
		case !open(r):
		case past(r.GetDueTime()) && r.GetStopsClock():
			return &eventsv1.InformationExpired{ClaimId: s.ClaimID, PayerId: s.PayerID, InformationId: r.GetInformationId(), Clock: s.clockAfter(r.GetInformationId(), now)}
		case past(r.GetDueTime()):
			if !slices.Contains(s.Escalated, CauseAuthorizationOverdue) {
				return s.escalated(CauseAuthorizationOverdue)
			}
		case past(r.GetReminderTime()):
			return &eventsv1.InformationReminded{
				ClaimId: s.ClaimID, PayerId: s.PayerID, InformationId: r.GetInformationId(), Reminder: r.GetReminders() + 1,
				NextReminderTime: reminder(r, now.Time, t),
			}
		}
	}
	if s.Lapsed() {
		return nil // the claim is to be denied; the caller does it
	}
	expired := slices.ContainsFunc(s.Requests, func(r *claimsv1.InformationRequest) bool {
		return r.GetState() == claimsv1.InformationState_INFORMATION_STATE_EXPIRED
	})
	switch {
	case expired && !s.WaitsForProvider() && !slices.Contains(s.Escalated, CauseInformationExpired):
		return s.escalated(CauseInformationExpired)
	case s.Assignee != "" && !now.Time.Before(s.HeldUntil):
		return s.released("deadline")
	}
	if soon := s.escalates(now, t); !soon.IsZero() && !now.Time.Before(soon) {
		return s.escalated(CauseDueSoon)
	}
	if late := s.overdue(now); !late.IsZero() && !now.Time.Before(late) {
		return s.escalated(CauseOverdue)
	}
	return nil
}

// escalates is when people are told that the prompt-pay day is near; zero when
// they have been, or the clock is stopped.
func (s State) escalates(now Now, t Terms) time.Time {
	last := now.begins(s.Clock.GetDueDate())
	if last.IsZero() || slices.Contains(s.Escalated, CauseDueSoon) {
		return time.Time{}
	}
	return last.Add(-time.Duration(t.EscalateBefore))
}

// overdue is when the prompt-pay day has passed.
func (s State) overdue(now Now) time.Time {
	last := now.begins(s.Clock.GetDueDate())
	if last.IsZero() || slices.Contains(s.Escalated, CauseOverdue) {
		return time.Time{}
	}
	return last.AddDate(0, 0, 1)
}

// Deadlines are what is waited for, earliest first: at each of them Due has
// something. What is due already is "work".
func (s State) Deadlines(now Now, t Terms) []*claimsv1.Deadline {
	var out []*claimsv1.Deadline
	add := func(kind, about string, when time.Time) {
		if !when.IsZero() {
			out = append(out, &claimsv1.Deadline{Kind: kind, AboutId: about, Time: timestamppb.New(when)})
		}
	}
	for _, a := range s.Appeals {
		if a.GetState() == claimsv1.AppealState_APPEAL_STATE_FILED {
			add("appeal-due", a.GetAppealId(), a.GetDueTime().AsTime())
		}
	}
	if s.Pended() {
		if s.Lapsed() || len(s.Due(now, t, func(claimsv1.InformationKind) string { return "" })) > 0 {
			add("work", "", now.Time)
		}
		for _, r := range s.Requests {
			if !open(r) {
				continue
			}
			switch {
			case r.GetStopsClock():
				add("information-due", r.GetInformationId(), r.GetDueTime().AsTime())
			case !slices.Contains(s.Escalated, CauseAuthorizationOverdue):
				add("authorization-due", r.GetInformationId(), r.GetDueTime().AsTime())
			}
			if r.GetReminderTime() != nil {
				add("information-reminder", r.GetInformationId(), r.GetReminderTime().AsTime())
			}
		}
		if s.Assignee != "" {
			add("task-hold", "", s.HeldUntil)
		}
		add("escalation", "", s.escalates(now, t))
		add("prompt-pay", "", s.overdue(now))
	}
	slices.SortStableFunc(out, func(a, b *claimsv1.Deadline) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	return out
}

// First is the earliest deadline of a claim as its first decision leaves it;
// nil where something is due at once, or nothing is waited for.
func First(received *eventsv1.ClaimReceived, decided *eventsv1.ClaimDecided, now Now, t Terms) *claimsv1.Deadline {
	s := Evolve(Evolve(State{}, received, 0), decided, 1)
	if deadlines := s.Deadlines(now, t); len(deadlines) > 0 && deadlines[0].GetTime().AsTime().After(now.Time) {
		return deadlines[0]
	}
	return nil
}

// Case is the work as it is told.
func (s State) Case(now Now, t Terms) *claimsv1.Case {
	c := &claimsv1.Case{
		ClaimId: s.ClaimID, Status: s.Status, Task: s.Task(), Requests: s.Requests, Appeals: s.Appeals, Deadlines: s.Deadlines(now, t),
	}
	if s.Pended() {
		c.Clock = s.Clock
	}
	return c
}

func refuse(rule, message, fix string) error {
	return problem.New(problem.Conflict, problem.Problem{RuleID: rule, Message: message, Fix: fix})
}

func notPended() error {
	return refuse("casework.task.none", "the claim doesn't wait for anybody", "read the claim to see how it stands")
}

func heldByOther() error {
	return refuse("casework.task.held", "another reviewer has the task", "wait until it is released, or have it reassigned")
}
