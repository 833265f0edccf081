package claimfile

import (
	"strings"

	"go.temporal.io/sdk/workflow"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/workflows/hook"
)

// Hook is the workflow's row in the catalog. A file takes minutes, so it ends
// on the build that began it.
func Hook(a *Activities) hook.Workflow {
	return hook.Workflow{
		Type: WorkflowType, Run: Workflow, Versioning: workflow.VersioningBehaviorPinned,
		Activities: map[string]any{
			activityLoad: a.Load, activityDecide: a.Decide, activityRemit: a.Remit, activityComplete: a.Complete,
		},
		Log:   "claims",
		Facts: []hook.Fact{hook.On(received), hook.On(completed)},
	}
}

// received: a file refused whole has nothing to decide.
func received(e *eventsv1.FileReceived, _ hook.Place) []hook.Ask {
	if e.GetFile().GetState() == claimsv1.FileState_FILE_STATE_REFUSED {
		return nil
	}
	return []hook.Ask{Start(e.GetFile().GetFileId())}
}

// completed: the file's workflow knows that; one not started yet need not be.
func completed(_ *eventsv1.FileCompleted, at hook.Place) []hook.Ask {
	return []hook.Ask{hook.Tell{ID: WorkflowID(strings.TrimPrefix(at.Stream, "file-")), Ends: true}}
}

// Start begins a file's workflow, anew where it had failed.
func Start(fileID string) hook.Start {
	return hook.Start{ID: WorkflowID(fileID), Type: WorkflowType, Input: Input{FileID: fileID}, Again: true}
}
