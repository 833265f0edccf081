package worker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/hook"
	"github.com/probity-health/probity/workflows/payment"
	"github.com/probity-health/probity/workflows/worker"
)

// recordedKeys sealed the histories in testdata; standalone/embedded records them.
var recordedKeys = worker.Keys{Current: [32]byte{1, 2, 3}}

// histories that open workflows of released builds may have; none is ever
// removed while a workflow that old can still be open.
var histories = map[string]string{
	"claimfile.json": claimfile.WorkflowID("fil_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
	// A file canceled half way; its payloads name their workflow.
	"claimfile-canceled.json": claimfile.WorkflowID("fil_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
	"claim.json":              claim.WorkflowID("clm_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
	// From when the case says what is waited for.
	"claim-case.json": claim.WorkflowID("clm_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
	// From when the start says that the case is kept.
	"claim-case-unversioned.json": claim.WorkflowID("clm_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
	// From when the start knows what the case first waits for.
	// Its first task was put off until a review came.
	"claim-delayed.json": claim.WorkflowID("clm_rrrrrrrrrrrrrrrrrrrrrrrrrr"),
	"claim-first.json":   claim.WorkflowID("clm_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
	"appeal.json":        claim.AppealWorkflowID("apl_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
	"payments.json":      payment.WorkflowID("KEYSTONE"),
	// Escalated by its timer, then ended by the signal.
	"payment-task.json": payment.TaskWorkflowID("pay_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
}

func replayer(t *testing.T, keys worker.Keys) sdk.WorkflowReplayer {
	data, failures := worker.Converters(keys)
	r, err := sdk.NewWorkflowReplayerWithOptions(sdk.WorkflowReplayerOptions{DataConverter: data, FailureConverter: failures})
	require.NoError(t, err)
	return r
}

func TestRecordedHistoriesReplayWithTodaysWorkflows(t *testing.T) {
	for name, id := range histories {
		t.Run(strings.TrimSuffix(name, ".json"), func(t *testing.T) {
			r := replayer(t, recordedKeys)
			for _, w := range worker.Catalog(worker.Deps{}) {
				r.RegisterWorkflowWithOptions(w.Run, workflow.RegisterOptions{Name: w.Type})
			}
			require.NoError(t, r.ReplayWorkflowHistoryWithOptions(nil, read(t, name), execution(id)))
		})
	}
}

func TestAChangedWorkflowOrKeyIsNoticedByReplay(t *testing.T) {
	const name = "claimfile.json"
	r := replayer(t, recordedKeys)
	r.RegisterWorkflowWithOptions(func(workflow.Context, claimfile.Input) error { return nil }, workflow.RegisterOptions{Name: claimfile.WorkflowType})
	require.Error(t, r.ReplayWorkflowHistoryWithOptions(nil, read(t, name), execution(histories[name])), "another course of steps")

	r = replayer(t, worker.Keys{Current: [32]byte{9}})
	r.RegisterWorkflowWithOptions(claimfile.Workflow, workflow.RegisterOptions{Name: claimfile.WorkflowType})
	require.Error(t, r.ReplayWorkflowHistoryWithOptions(nil, read(t, name), execution(histories[name])), "another key")
}

// hookPlace is any place of an event.
var hookPlace = hook.Place{Stream: "file-fil_aaaaaaaaaaaaaaaaaaaaaaaaaa", Revision: 3}

// recordedTypes are the workflow types that testdata holds a history of.
func recordedTypes(t *testing.T) map[string]bool {
	types := map[string]bool{}
	for name := range histories {
		types[read(t, name).GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowType().GetName()] = true
	}
	return types
}

func execution(id string) sdk.ReplayWorkflowHistoryOptions {
	return sdk.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id, RunID: "recorded"}}
}

func read(t *testing.T, name string) *historypb.History {
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	var h historypb.History
	require.NoError(t, temporalproto.CustomJSONUnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, &h))
	return &h
}
