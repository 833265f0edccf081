package claim

import (
	"time"

	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/workflows/hook"
)

// Hook is the workflow's row in the catalog. A review may be open for months,
// longer than any build is kept running: a new build takes it over.
func Hook(a *Activities) hook.Workflow {
	return hook.Workflow{
		Type: WorkflowType, Run: Workflow, Versioning: workflow.VersioningBehaviorAutoUpgrade,
		Activities: map[string]any{activityResolve: a.Resolve, activityStatus: a.Status, activityRemit: a.Remit, activityAdvance: a.Advance},
		Log:        "claims",
		Facts:      []hook.Fact{decisions(), hook.On(taken), hook.On(requested), hook.On(answered)},
	}
}

// AppealHook is the appeal's row in the catalog; its case is looked at by the
// activity of the claim's row.
func AppealHook(a *Activities) hook.Workflow {
	return hook.Workflow{
		Type: AppealWorkflowType, Run: AppealWorkflow, Versioning: workflow.VersioningBehaviorAutoUpgrade,
		Activities: map[string]any{activityRemitAppeal: a.RemitAppeal},
		Log:        "claims",
		Facts:      []hook.Fact{hook.On(appealed), hook.On(heard)},
	}
}

// What changes a case's deadlines and isn't the workflow's own doing is told;
// the workflow then reads the case.

func taken(e *eventsv1.TaskClaimed, _ hook.Place) []hook.Ask {
	return []hook.Ask{Changed(e.GetClaimId())}
}

func requested(e *eventsv1.InformationRequested, _ hook.Place) []hook.Ask {
	if e.GetRequest().GetRequestedBy() == "" {
		return nil // the workflow had it done
	}
	return []hook.Ask{Changed(e.GetClaimId())}
}

func answered(e *eventsv1.InformationReceived, _ hook.Place) []hook.Ask {
	return []hook.Ask{Changed(e.GetClaimId())}
}

func appealed(e *eventsv1.AppealFiled, _ hook.Place) []hook.Ask {
	start := StartAppeal(e.GetAppeal().GetAppealId(), e.GetClaimId())
	start.Attributes = hook.Attributes(e.GetPayerId(), dayOf(e.GetAppeal().GetDueTime()))
	return []hook.Ask{start}
}

func heard(e *eventsv1.AppealDecided, _ hook.Place) []hook.Ask {
	return []hook.Ask{AppealDecided(e.GetAppealId())}
}

// Changed tells a claim's workflow that its case has other deadlines.
func Changed(claimID string) hook.Tell {
	return hook.Tell{ID: WorkflowID(claimID), Signal: SignalChanged}
}

// StartAppeal begins an appeal's workflow.
func StartAppeal(appealID, claimID string) hook.Start {
	return hook.Start{ID: AppealWorkflowID(appealID), Type: AppealWorkflowType, Input: AppealInput{AppealID: appealID, ClaimID: claimID}}
}

// AppealDecided tells an appeal's workflow to look at its case again.
func AppealDecided(appealID string) hook.Tell {
	return hook.Tell{ID: AppealWorkflowID(appealID), Signal: SignalChanged, Ends: true}
}

// decisions are decided's facts. Most decisions are straight-through and ask for
// nothing: they aren't decoded, sealed decision and all, to find that out.
func decisions() hook.Fact {
	all := hook.On(decided)
	return hook.Fact{Event: all.Event, Asks: func(payload []byte, at hook.Place) ([]hook.Ask, error) {
		if at.Revision <= 1 && Final(statusOf(payload)) {
			return nil, nil
		}
		return all.Asks(payload, at)
	}}
}

// statusOf is the status of an encoded ClaimDecided; unspecified where it
// can't be read. Of a field that stands twice the last counts, as in decoding.
func statusOf(payload []byte) (status claimsv1.ClaimStatus) {
	for len(payload) > 0 {
		field, kind, n := protowire.ConsumeTag(payload)
		if n < 0 {
			return claimsv1.ClaimStatus_CLAIM_STATUS_UNSPECIFIED
		}
		payload = payload[n:]
		if field == statusField && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(payload)
			if n < 0 {
				return claimsv1.ClaimStatus_CLAIM_STATUS_UNSPECIFIED
			}
			status, payload = claimsv1.ClaimStatus(int32(v)), payload[n:] //nolint:gosec // an enum is an int32, however it is written
			continue
		}
		if n = protowire.ConsumeFieldValue(field, kind, payload); n < 0 {
			return claimsv1.ClaimStatus_CLAIM_STATUS_UNSPECIFIED
		}
		payload = payload[n:]
	}
	return status
}

var statusField = (&eventsv1.ClaimDecided{}).ProtoReflect().Descriptor().Fields().ByName("status").Number()

// decided: a claim that pends gets its workflow; one that becomes final by
// another way tells its workflow so.
func decided(e *eventsv1.ClaimDecided, at hook.Place) []hook.Ask {
	switch {
	case e.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		start := Start(e.GetClaimId(), e.GetPromptPayDueDate())
		start.Attributes = hook.Attributes(e.GetPayerId(), e.GetPromptPayDueDate())
		switch first := e.GetFirstDeadline(); {
		case at.Revision > 1:
			// It has pended before: its workflow is there, and may wait for what
			// was needed then.
			return []hook.Ask{start, Changed(e.GetClaimId())}
		case first != nil:
			start.Late, start.Idle = start.Input, first.GetTime().AsTime()
			start.Input = Input{
				ClaimID: e.GetClaimId(), DueDate: e.GetPromptPayDueDate(), Case: true,
				First: Deadline{Kind: first.GetKind(), Time: first.GetTime().AsTime()},
			}
		}
		return []hook.Ask{start}
	// A straight-through decision is its stream's revision 1, after the
	// receipt: only a later one can end a wait.
	case Final(e.GetStatus()) && at.Revision > 1:
		return []hook.Ask{Decided(e.GetClaimId())}
	}
	return nil
}

// dayOf is a time's calendar day in UTC, ISO 8601; empty where there is none.
func dayOf(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.DateOnly)
}

// Start begins a pended claim's workflow; dueDate is Input's.
func Start(claimID, dueDate string) hook.Start {
	return hook.Start{ID: WorkflowID(claimID), Type: WorkflowType, Input: Input{ClaimID: claimID, DueDate: dueDate, Case: true}}
}

// Decided tells a claim's workflow that the claim is final.
func Decided(claimID string) hook.Tell {
	return hook.Tell{ID: WorkflowID(claimID), Signal: SignalDecided, Ends: true}
}
