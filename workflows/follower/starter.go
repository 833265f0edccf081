package follower

import (
	"context"
	"errors"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
)

// startTimeout bounds one call to Temporal, so that a lost connection is noticed.
const startTimeout = 10 * time.Second

// Temporal is the Starter that starts real workflows.
type Temporal struct {
	Client    client.Client
	TaskQueue string
}

// StartFile starts a file's workflow unless it runs or has ended well. One
// that failed is begun anew: what it was refused for may have been repaired.
func (t Temporal) StartFile(ctx context.Context, fileID string) error {
	return t.start(ctx, claimfile.WorkflowID(fileID), enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
		claimfile.WorkflowType, claimfile.Input{FileID: fileID})
}

// StartClaim starts a pended claim's workflow unless it runs or has ended.
func (t Temporal) StartClaim(ctx context.Context, claimID, dueDate string) error {
	return t.start(ctx, claim.WorkflowID(claimID), enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		claim.WorkflowType, claim.Input{ClaimID: claimID, DueDate: dueDate})
}

func (t Temporal) start(ctx context.Context, id string, reuse enumspb.WorkflowIdReusePolicy, workflowType string, input any) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := t.Client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: t.TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    reuse,
		EnableEagerStart:         true,
	}, workflowType, input)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &started) {
		return nil
	}
	return err
}

// StartAppeal starts an appeal's workflow unless it runs or has ended.
func (t Temporal) StartAppeal(ctx context.Context, appealID, claimID string) error {
	return t.start(ctx, claim.AppealWorkflowID(appealID), enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		claim.AppealWorkflowType, claim.AppealInput{AppealID: appealID, ClaimID: claimID})
}

// ClaimChanged tells a claim's workflow to look at its case again.
func (t Temporal) ClaimChanged(ctx context.Context, claimID string) error {
	return t.signal(ctx, claim.WorkflowID(claimID), claim.SignalChanged)
}

// AppealDecided tells an appeal's workflow to look at its case again.
func (t Temporal) AppealDecided(ctx context.Context, appealID string) error {
	return t.signal(ctx, claim.AppealWorkflowID(appealID), claim.SignalChanged)
}

// ClaimDecided tells a claim's workflow that the claim is final. A workflow
// that isn't there, or has ended, needs no telling.
func (t Temporal) ClaimDecided(ctx context.Context, claimID string) error {
	return t.signal(ctx, claim.WorkflowID(claimID), claim.SignalDecided)
}

func (t Temporal) signal(ctx context.Context, workflowID, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := t.Client.SignalWorkflow(ctx, workflowID, "", name, nil)
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return nil
	}
	return err
}
