package follower

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/probity-health/probity/workflows/hook"
)

// startTimeout bounds one call to Temporal, so that a lost connection is noticed.
const startTimeout = 10 * time.Second

// Temporal is the Starter that starts real workflows.
type Temporal struct {
	Client    client.Client
	TaskQueue string
	// Now tells the time; nil is time.Now.
	Now func() time.Time
}

// Start starts a workflow unless it runs or has ended, or, with Again, has
// ended well. One that would only wait is delayed until then: the server keeps
// the time by itself, and no worker has a task of it before.
func (t Temporal) Start(ctx context.Context, s hook.Start) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	reuse := enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	if s.Again {
		reuse = enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY
	}
	now := time.Now
	if t.Now != nil {
		now = t.Now
	}
	delay := s.Idle.Sub(now())
	if s.Idle.IsZero() || delay < idleFor {
		delay = 0
	}
	_, err := t.Client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: s.ID, TaskQueue: t.TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    reuse,
		TypedSearchAttributes:    s.Attributes,
		StartDelay:               delay,
		EnableEagerStart:         delay == 0, // the server takes one or the other
	}, s.Type, s.Input)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	var refused *serviceerror.InvalidArgument
	switch {
	case errors.As(err, &started):
		return nil
	case errors.As(err, &refused):
		return fmt.Errorf("%w (probity-worker setup makes the namespace's search attributes: has it been run?)", err)
	}
	return err
}

// Tell signals a workflow. One that isn't there, or has ended, needs no telling.
//
// A signal alone doesn't end the delay of a delayed start; a start with a
// signal does, for a workflow of that id that is there already (API of
// SignalWithStartWorkflowExecution, workflow_start_delay). Should it end just
// then, the reuse policy keeps another from being started.
func (t Temporal) Tell(ctx context.Context, s hook.Tell) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	at, err := t.Client.DescribeWorkflowExecution(ctx, s.ID, "")
	info := at.GetWorkflowExecutionInfo()
	switch {
	case err != nil:
	case info.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return nil
	case info.GetExecutionTime().AsTime().After(info.GetStartTime().AsTime()):
		_, err = t.Client.SignalWithStartWorkflow(ctx, s.ID, s.Signal, nil, client.StartWorkflowOptions{
			ID: s.ID, TaskQueue: t.TaskQueue, WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		}, info.GetType().GetName())
	default:
		err = t.Client.SignalWorkflow(ctx, s.ID, "", s.Signal, nil)
	}
	var gone *serviceerror.NotFound
	var ended *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &gone) || errors.As(err, &ended) {
		return nil
	}
	return err
}
