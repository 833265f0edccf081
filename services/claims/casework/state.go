package casework

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
)

// Causes of escalation.
const (
	CauseDueSoon              = "due-soon"
	CauseOverdue              = "overdue"
	CauseDispute              = "dispute"
	CauseAuthorizationOverdue = "authorization-overdue"
	CauseInformationExpired   = "information-expired"
	CauseRequest              = "request"
	CauseSet                  = "set" // by a supervisor, perhaps lower
)

// Rules of the engine that wait for others; adjudication has them.
const (
	ruleOtherPayerAwaited    = "cob.awaited"
	ruleAuthorizationAwaited = "authorization.awaited"
	carcDocument             = "252" // an attachment is required to adjudicate
)

// State is the work on one claim. The zero State is that on no claim. A State
// is never changed in place: what Evolve returns shares nothing that changes.
type State struct {
	ClaimID, PayerID, Org string
	Status                claimsv1.ClaimStatus
	ChargeCents           int64

	// Of the decision that stands.
	DecisionRevision uint64
	DecidedTime      time.Time
	Reasons          []*claimsv1.PendReason // why it is pended
	Codes            []string               // distinct "group-CARC"
	Needed           uint32                 // reviewers that must agree
	Rule             *claimsv1.ReviewersRule

	Assignee   string
	HeldUntil  time.Time
	Escalation uint32
	Escalated  []string // causes
	Opinions   []*claimsv1.Opinion

	Requests []*claimsv1.InformationRequest
	Answered int // answers of every kind, asked for or not
	Appeals  []*claimsv1.Appeal
	Clock    *claimsv1.PromptPayClock

	// Deciders are those who had a say in a decision of the claim: they decide
	// no appeal of it.
	Deciders []string
}

// Pended tells whether the claim waits.
func (s State) Pended() bool { return s.Status == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED }

func (s State) final() bool {
	return s.Status == claimsv1.ClaimStatus_CLAIM_STATUS_PAID || s.Status == claimsv1.ClaimStatus_CLAIM_STATUS_DENIED
}

// KindOf is what would answer a doubt; unspecified where a person must.
func KindOf(r *claimsv1.PendReason) claimsv1.InformationKind {
	switch {
	case r.GetRuleId() == ruleOtherPayerAwaited:
		return claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER
	case r.GetRuleId() == ruleAuthorizationAwaited:
		return claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION
	case r.GetCarc() == carcDocument:
		return claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT
	}
	return claimsv1.InformationKind_INFORMATION_KIND_UNSPECIFIED
}

// fromProvider tells whether the provider is asked for it, so that the
// prompt-pay clock stops.
func fromProvider(k claimsv1.InformationKind) bool {
	return k == claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT || k == claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER
}

// request returns the last request of a kind; nil when there is none.
func (s State) request(k claimsv1.InformationKind) *claimsv1.InformationRequest {
	for _, r := range slices.Backward(s.Requests) {
		if r.GetKind() == k {
			return r
		}
	}
	return nil
}

func open(r *claimsv1.InformationRequest) bool {
	return r.GetState() == claimsv1.InformationState_INFORMATION_STATE_REQUESTED
}

// WaitsForProvider tells whether nobody at the payer can do anything now.
func (s State) WaitsForProvider() bool {
	if !s.Pended() {
		return false
	}
	if slices.ContainsFunc(s.Requests, func(r *claimsv1.InformationRequest) bool { return open(r) && r.GetStopsClock() }) {
		return true
	}
	return len(s.Reasons) > 0 && !slices.ContainsFunc(s.Reasons, func(r *claimsv1.PendReason) bool {
		k := KindOf(r)
		return !fromProvider(k) || s.request(k) != nil
	})
}

// NextActor is who must act on a pended claim once its provider has been asked
// for something: "provider" or "payer"; empty where it never was.
func (s State) NextActor() string {
	switch {
	case !s.Pended() || !slices.ContainsFunc(s.Requests, (*claimsv1.InformationRequest).GetStopsClock):
		return ""
	case s.Clock.GetStoppedTime() != nil:
		return Provider
	}
	return Payer
}

// Who acts next, as ClaimSummary.next_actor has it.
const (
	Provider = "provider"
	Payer    = "payer"
)

// Lapsed tells whether the claim is to be denied for want of what was asked
// for: every reason it waits for was asked of the provider in vain, or was
// refused.
func (s State) Lapsed() bool {
	return s.Pended() && len(s.Reasons) > 0 && !slices.ContainsFunc(s.Reasons, func(r *claimsv1.PendReason) bool {
		switch q := s.request(KindOf(r)); q.GetState() {
		case claimsv1.InformationState_INFORMATION_STATE_REFUSED:
			return false
		case claimsv1.InformationState_INFORMATION_STATE_EXPIRED:
			return !fromProvider(q.GetKind())
		}
		return true
	})
}

// Task is the claim as a reviewer's list shows it; nil when it isn't pended.
func (s State) Task() *claimsv1.Task {
	if !s.Pended() {
		return nil
	}
	t := &claimsv1.Task{
		ClaimId: s.ClaimID, PayerId: s.PayerID, ChargeCents: s.ChargeCents, PendReasons: s.Reasons, DueDate: s.Clock.GetDueDate(),
		Assignee: s.Assignee, Escalation: s.Escalation, Opinions: s.Opinions, ReviewersNeeded: s.Needed, Status: s.Status,
		OpinionCount:  uint32(len(s.Opinions)), //nolint:gosec // one a person
		ReviewersRule: s.Rule,
	}
	if s.Assignee != "" {
		t.HeldUntil = timestamppb.New(s.HeldUntil)
	}
	return t
}

// Appeal returns an appeal by its id; nil when there is none.
func (s State) Appeal(id string) *claimsv1.Appeal {
	for _, a := range s.Appeals {
		if a.GetAppealId() == id {
			return a
		}
	}
	return nil
}

func undecided(a *claimsv1.Appeal) bool {
	return a.GetState() == claimsv1.AppealState_APPEAL_STATE_FILED || a.GetState() == claimsv1.AppealState_APPEAL_STATE_OVERDUE
}

// Evolve applies one event of the claim's stream, at its revision. Events that
// are not about the work are ignored.
func Evolve(s State, e proto.Message, revision uint64) State {
	switch e := e.(type) {
	case *eventsv1.ClaimReceived:
		s.ClaimID, s.PayerID, s.Org, s.ChargeCents = e.GetClaimId(), e.GetPayerId(), e.GetSubmitterOrg(), e.GetChargeCents()
		s.Clock = &claimsv1.PromptPayClock{Paper: e.GetPaper()}
	case *eventsv1.ClaimDecided:
		return s.decided(e, revision)
	case *eventsv1.ClaimReviewed:
		s.Deciders = with(s.Deciders, e.GetReviewer())
	case *eventsv1.ClaimReversed:
		if e.GetReason() == eventsv1.ReversalReason_REVERSAL_REASON_VOIDED || e.GetReason() == eventsv1.ReversalReason_REVERSAL_REASON_REPLACED {
			s.Status = claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED
			s = s.moot(0)
		}
	case *eventsv1.TaskClaimed:
		s.Assignee, s.HeldUntil = e.GetAssignee(), e.GetHeldUntil().AsTime()
	case *eventsv1.TaskReleased:
		s.Assignee, s.HeldUntil = "", time.Time{}
	case *eventsv1.TaskEscalated:
		s.Escalation, s.Escalated = e.GetLevel(), with(s.Escalated, e.GetCause())
	case *eventsv1.ReviewProposed:
		s.Opinions = append(slices.Clone(s.Opinions), &claimsv1.Opinion{Reviewer: e.GetReviewer(), Resolution: e.GetResolution()})
		s.Deciders = with(s.Deciders, e.GetReviewer())
		s.Assignee, s.HeldUntil = "", time.Time{} // the next is another person
	case *eventsv1.InformationRequested:
		s.Requests = append(slices.Clone(s.Requests), e.GetRequest())
		if e.GetRequest().GetStopsClock() {
			s.Clock = stopClock(s.Clock, e.GetRequest().GetRequestedTime().AsTime())
			s.Assignee, s.HeldUntil = "", time.Time{}
		}
	case *eventsv1.InformationReminded:
		s.Requests = changed(s.Requests, e.GetInformationId(), func(r *claimsv1.InformationRequest) {
			r.Reminders, r.ReminderTime = e.GetReminder(), e.GetNextReminderTime()
		})
	case *eventsv1.InformationReceived:
		s.Answered++
		to := claimsv1.InformationState_INFORMATION_STATE_RECEIVED
		if e.GetRefused() {
			to = claimsv1.InformationState_INFORMATION_STATE_REFUSED
		}
		if e.GetInformationId() == "" { // nobody had asked
			s.Requests = slices.DeleteFunc(slices.Clone(s.Requests), func(r *claimsv1.InformationRequest) bool {
				return r.GetInformationId() == "" && r.GetKind() == e.GetKind()
			})
			s.Requests = append(s.Requests, &claimsv1.InformationRequest{Kind: e.GetKind(), State: to})
		} else {
			s.Requests = settled(s.Requests, e.GetInformationId(), to)
		}
		s.Clock = orClock(e.GetClock(), s.Clock)
	case *eventsv1.InformationExpired:
		s.Requests = settled(s.Requests, e.GetInformationId(), claimsv1.InformationState_INFORMATION_STATE_EXPIRED)
		s.Clock = orClock(e.GetClock(), s.Clock)
	case *eventsv1.AppealFiled:
		s = s.moot(0) // an overdue one of the level below
		s.Appeals = append(slices.Clone(s.Appeals), e.GetAppeal())
	case *eventsv1.AppealDecided:
		to := claimsv1.AppealState_APPEAL_STATE_UPHELD
		if e.GetOutcome() == Overturned {
			to = claimsv1.AppealState_APPEAL_STATE_OVERTURNED
		}
		s.Deciders = with(s.Deciders, e.GetDecider())
		s.Appeals = heard(s.Appeals, e.GetAppealId(), func(a *claimsv1.Appeal) {
			a.State, a.Decider, a.DecidedTime = to, e.GetDecider(), e.GetDecidedTime()
		})
	case *eventsv1.AppealOverdue:
		s.Appeals = heard(s.Appeals, e.GetAppealId(), func(a *claimsv1.Appeal) { a.State = claimsv1.AppealState_APPEAL_STATE_OVERDUE })
	}
	return s
}

func (s State) decided(e *eventsv1.ClaimDecided, revision uint64) State {
	was := s.Pended()
	s.Status, s.DecisionRevision, s.DecidedTime = e.GetStatus(), revision, e.GetDecidedTime().AsTime()
	s.Codes, s.Reasons, s.Needed, s.Opinions = e.GetCodes(), e.GetPendReasons(), max(1, e.GetReviewersNeeded()), nil
	s.Rule = e.GetReviewersRule()
	if s.Clock.GetStartDate() == "" {
		s.Clock = NewClock(e.GetPromptPayState(), s.Clock.GetPaper(), e.GetVersions().GetReceivedDate())
	}
	s = s.moot(revision)
	if s.Pended() && was {
		return s
	}
	s.Assignee, s.HeldUntil, s.Escalation, s.Escalated = "", time.Time{}, 0, nil
	if !s.Pended() {
		s.Reasons, s.Needed, s.Rule = nil, 0, nil
		for _, r := range s.Requests {
			if open(r) {
				s.Requests = settled(s.Requests, r.GetInformationId(), claimsv1.InformationState_INFORMATION_STATE_WITHDRAWN)
			}
		}
	}
	return s
}

// moot closes appeals of a decision other than the one at revision.
func (s State) moot(revision uint64) State {
	for _, a := range s.Appeals {
		if undecided(a) && a.GetDecisionRevision() != revision {
			s.Appeals = heard(s.Appeals, a.GetAppealId(), func(a *claimsv1.Appeal) { a.State = claimsv1.AppealState_APPEAL_STATE_MOOT })
		}
	}
	return s
}

func with(list []string, v string) []string {
	if v == "" || slices.Contains(list, v) {
		return list
	}
	return append(slices.Clone(list), v)
}

func changed(list []*claimsv1.InformationRequest, id string, change func(*claimsv1.InformationRequest)) []*claimsv1.InformationRequest {
	list = slices.Clone(list)
	for i, r := range list {
		if r.GetInformationId() == id {
			list[i] = proto.CloneOf(r)
			change(list[i])
		}
	}
	return list
}

func settled(list []*claimsv1.InformationRequest, id string, to claimsv1.InformationState) []*claimsv1.InformationRequest {
	return changed(list, id, func(r *claimsv1.InformationRequest) { r.State, r.ReminderTime = to, nil })
}

func heard(list []*claimsv1.Appeal, id string, change func(*claimsv1.Appeal)) []*claimsv1.Appeal {
	list = slices.Clone(list)
	for i, a := range list {
		if a.GetAppealId() == id {
			list[i] = proto.CloneOf(a)
			change(list[i])
		}
	}
	return list
}

func orClock(c, otherwise *claimsv1.PromptPayClock) *claimsv1.PromptPayClock {
	if c != nil {
		return c
	}
	return otherwise
}
