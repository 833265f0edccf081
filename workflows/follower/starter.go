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
}

// Start starts a workflow unless it runs or has ended, or, with Again, has ended well.
func (t Temporal) Start(ctx context.Context, s hook.Start) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	reuse := enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	if s.Again {
		reuse = enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY
	}
	_, err := t.Client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: s.ID, TaskQueue: t.TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    reuse,
		TypedSearchAttributes:    s.Attributes,
		EnableEagerStart:         true,
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
func (t Temporal) Tell(ctx context.Context, s hook.Tell) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := t.Client.SignalWorkflow(ctx, s.ID, "", s.Signal, nil)
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return nil
	}
	return err
}
