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
		Facts: []hook.Fact{hook.On(received), hook.On(cancelRequested), hook.On(canceled), hook.On(completed)},
	}
}

// received: a file refused whole has nothing to decide.
func received(e *eventsv1.FileReceived, _ hook.Place) []hook.Ask {
	if e.GetFile().GetState() == claimsv1.FileState_FILE_STATE_REFUSED {
		return nil
	}
	return []hook.Ask{Start(e.GetFile().GetFileId())}
}

// cancelRequested: a workflow that runs meets the cancel at its next chunk; a
// file whose workflow had failed is closed by a new one.
func cancelRequested(_ *eventsv1.FileCancelRequested, at hook.Place) []hook.Ask {
	return []hook.Ask{Start(fileOf(at))}
}

// completed, canceled: the file's workflow knows that; one not started yet need not be.
func completed(_ *eventsv1.FileCompleted, at hook.Place) []hook.Ask { return ended(at) }
func canceled(_ *eventsv1.FileCanceled, at hook.Place) []hook.Ask   { return ended(at) }

func ended(at hook.Place) []hook.Ask {
	return []hook.Ask{hook.Tell{ID: WorkflowID(fileOf(at)), Ends: true}}
}

func fileOf(at hook.Place) string { return strings.TrimPrefix(at.Stream, "file-") }

// Start begins a file's workflow, anew where it had failed.
func Start(fileID string) hook.Start {
	return hook.Start{ID: WorkflowID(fileID), Type: WorkflowType, Input: Input{FileID: fileID}, Again: true}
}
