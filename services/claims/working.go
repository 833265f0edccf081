package claims

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/claims/casework"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
)

// The work on a claim stands in the claim's stream, and casework has its
// rules. What of it a decision reads is here: answers to what the claim
// lacked, and findings that an appeal set aside.

const (
	fieldAnswer  = "answer"
	fieldGrounds = "grounds"
)

// sealedAnswer is what a claim lacked and has come since.
type sealedAnswer struct {
	box      *typev1.Sealed
	revision uint64
}

// worked is Evolve's part for the work on a claim.
func (s State) worked(r eventstore.Recorded) State {
	s.Case = casework.Evolve(s.Case, r.Event, r.Revision)
	switch e := r.Event.(type) {
	case *eventsv1.ReviewProposed:
		s.Reviews = marked(s.Reviews, r.RequestID)
	case *eventsv1.InformationReceived:
		s.Handled = marked(s.Handled, e.GetRequestKey())
		if e.GetAnswer() != nil {
			s.Answers = append(slices.Clone(s.Answers), sealedAnswer{e.GetAnswer(), r.Revision})
		}
		if e.GetClock() != nil {
			s.Unclean = false // from then on it was clean, and the clock says since when
		}
		if !e.GetRefused() {
			s.Review = withoutKind(s.Review, e.GetKind())
		}
	case *eventsv1.AppealDecided:
		s.Handled = marked(s.Handled, e.GetRequestKey())
		if e.GetOutcome() == casework.Overturned {
			s.Review = adjudication.Review{Resolution: adjudication.Approved, SetAside: append(slices.Clone(s.Review.SetAside), asFindings(e.GetOverturned())...)}
			s.Righted = true
		}
	case *eventsv1.TaskClaimed, *eventsv1.TaskReleased, *eventsv1.TaskEscalated, *eventsv1.InformationRequested, *eventsv1.AppealFiled:
		s.Handled = marked(s.Handled, r.RequestID)
	}
	return s
}

func marked(set map[string]bool, key string) map[string]bool {
	if key == "" {
		return set
	}
	out := make(map[string]bool, len(set)+1)
	maps.Copy(out, set)
	out[key] = true
	return out
}

// withoutKind forgets a refusal for want of what has now come.
func withoutKind(r adjudication.Review, kind claimsv1.InformationKind) adjudication.Review {
	if r.Resolution != adjudication.Refused {
		return r
	}
	r.Reasons = slices.DeleteFunc(slices.Clone(r.Reasons), func(p adjudication.PendReason) bool {
		return casework.KindOf(&claimsv1.PendReason{RuleId: p.RuleID, Carc: p.CARC}) == kind
	})
	if len(r.Reasons) == 0 {
		return adjudication.Review{SetAside: r.SetAside}
	}
	return r
}

func asFindings(list []*claimsv1.Finding) []adjudication.Finding {
	out := make([]adjudication.Finding, len(list))
	for i, f := range list {
		out[i] = adjudication.Finding{RuleID: f.GetRuleId(), Line: f.GetLine()}
	}
	return out
}

// openAnswered unseals the claim with what has come since in place of what it
// said: the claim that the engine decides.
func (s *Service) openAnswered(ctx context.Context, state State) (*claimsv1.Claim, error) {
	claim, err := s.openClaim(ctx, state)
	if err != nil {
		return nil, err
	}
	for _, a := range state.Answers {
		answer := &claimsv1.InformationAnswer{}
		at := keys.Place{Tenant: state.Received.GetPayerId(), Stream: claimStream(state.Received.GetClaimId()), Revision: a.revision, Field: fieldAnswer}
		if err := s.open(ctx, at, a.box, answer); err != nil {
			return nil, err
		}
		addAnswer(claim, answer)
	}
	return claim, nil
}

func addAnswer(claim *claimsv1.Claim, a *claimsv1.InformationAnswer) {
	for _, p := range a.GetOtherPayers() {
		at := slices.IndexFunc(claim.GetOtherPayers(), func(o *claimsv1.OtherPayer) bool { return o.GetPayer().GetId() == p.GetPayer().GetId() })
		if at < 0 {
			claim.OtherPayers = append(claim.OtherPayers, p)
		} else {
			claim.OtherPayers[at] = p
		}
	}
	if n := a.GetPriorAuthorizationNumber(); n != "" {
		claim.PriorAuthorizationNumber = n
	}
}

// lead is what goes before one claim's new decision, in its stream and its
// commit, and is read by it.
type lead struct {
	claim string
	facts func(context.Context, State) ([]proto.Message, error)
	// must: where the decision doesn't change nothing is recorded, and the
	// caller is told.
	must bool
}

// put returns the claim with the lead's facts applied, and the facts.
func (l *lead) put(ctx context.Context, state State) (State, []proto.Message, error) {
	if l == nil || l.claim != state.Received.GetClaimId() {
		return state, nil, nil
	}
	facts, err := l.facts(ctx, state)
	if err != nil {
		return state, nil, err
	}
	for _, e := range facts {
		state = Evolve(state, eventstore.Recorded{Stream: claimStream(l.claim), Revision: uint64(state.Revision + 1), Event: e})
	}
	return state, facts, nil
}

// keep records a lead's facts where no decision follows from them.
func (am *amendment) keep(state State, facts []proto.Message, was, now *claimsv1.Decision) error {
	switch {
	case facts == nil:
		return nil
	case am.lead.must && now.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		return conflict("claims.appeal.pends", "with the findings set aside the claim would wait for something else; nothing was recorded")
	case am.lead.must:
		return conflict("claims.appeal.no-effect", "with these findings set aside the claim is decided as before: what denies it is no judgement that an appeal can set aside; correct what the decision read and reprocess the claim")
	}
	am.claims = append(am.claims, amended{state: state, events: facts, decision: was})
	return nil
}

// workText tells an event of the work in plain words, and whose doing it was;
// empty for an event that is none.
func workText(e proto.Message, who string) (string, string) {
	switch e := e.(type) {
	case *eventsv1.TaskClaimed:
		if e.GetAssignedBy() != "" {
			return "Task given to " + e.GetAssignee(), e.GetAssignedBy()
		}
		return "Task taken", e.GetAssignee()
	case *eventsv1.TaskReleased:
		if e.GetCause() == "deadline" {
			return "Task of " + e.GetAssignee() + " went back to the list: it was held too long", who
		}
		return "Task given back", e.GetAssignee()
	case *eventsv1.TaskEscalated:
		return fmt.Sprintf("Escalated to level %d: %s", e.GetLevel(), e.GetCause()), who
	case *eventsv1.ReviewProposed:
		return fmt.Sprintf("Opinion: %s; %d reviewers must agree", e.GetResolution(), e.GetNeeded()), e.GetReviewer()
	case *eventsv1.InformationRequested:
		return fmt.Sprintf("Asked for %s, due %s", kindWord(e.GetRequest().GetKind()), e.GetRequest().GetDueTime().AsTime().Format("2006-01-02 15:04 MST")), who
	case *eventsv1.InformationReminded:
		return fmt.Sprintf("Reminder %d", e.GetReminder()), who
	case *eventsv1.InformationReceived:
		if e.GetRefused() {
			return "Answered no: " + kindWord(e.GetKind()), who
		}
		return "Received " + kindWord(e.GetKind()), who
	case *eventsv1.InformationExpired:
		return "The time to answer has passed", who
	case *eventsv1.AppealFiled:
		return "Appeal filed: " + levelWord(e.GetAppeal().GetLevel()), who
	case *eventsv1.AppealDecided:
		return "Appeal " + e.GetOutcome(), e.GetDecider()
	case *eventsv1.AppealOverdue:
		return "The time to decide the appeal has passed", who
	}
	return "", who
}

func kindWord(k claimsv1.InformationKind) string {
	switch k {
	case claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT:
		return "a document"
	case claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER:
		return "the other payer's decision"
	case claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION:
		return "a prior authorisation"
	}
	return "something"
}

func levelWord(l claimsv1.AppealLevel) string {
	switch l {
	case claimsv1.AppealLevel_APPEAL_LEVEL_RECONSIDERATION:
		return "reconsideration"
	case claimsv1.AppealLevel_APPEAL_LEVEL_SECOND:
		return "second level"
	case claimsv1.AppealLevel_APPEAL_LEVEL_EXTERNAL:
		return "external review"
	}
	return "unknown level"
}
