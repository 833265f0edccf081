package claim

import (
	"go.temporal.io/sdk/workflow"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/workflows/hook"
)

// Hook is the workflow's row in the catalog. A review may be open for months,
// longer than any build is kept running: a new build takes it over.
func Hook(a *Activities) hook.Workflow {
	return hook.Workflow{
		Type: WorkflowType, Run: Workflow, Versioning: workflow.VersioningBehaviorAutoUpgrade,
		Activities: map[string]any{activityResolve: a.Resolve, activityStatus: a.Status, activityRemit: a.Remit},
		Log:        "claims",
		Facts:      []hook.Fact{hook.On(decided)},
	}
}

// decided: a claim that pends gets its workflow; one that becomes final by
// another way tells its workflow so.
func decided(e *eventsv1.ClaimDecided, at hook.Place) []hook.Ask {
	switch {
	case e.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		start := Start(e.GetClaimId(), e.GetPromptPayDueDate())
		start.Attributes = hook.Attributes(e.GetPayerId(), e.GetPromptPayDueDate())
		return []hook.Ask{start}
	// A straight-through decision is its stream's revision 1, after the
	// receipt: only a later one can end a wait.
	case Final(e.GetStatus()) && at.Revision > 1:
		return []hook.Ask{Decided(e.GetClaimId())}
	}
	return nil
}

// Start begins a pended claim's workflow; dueDate is Input's.
func Start(claimID, dueDate string) hook.Start {
	return hook.Start{ID: WorkflowID(claimID), Type: WorkflowType, Input: Input{ClaimID: claimID, DueDate: dueDate}}
}

// Decided tells a claim's workflow that the claim is final.
func Decided(claimID string) hook.Tell {
	return hook.Tell{ID: WorkflowID(claimID), Signal: SignalDecided, Ends: true}
}
