package service

import (
	"context"
	"errors"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/failure"
	"github.com/probity-health/probity/workflows/payment"
)

var _ workflowsv1connect.PaymentCycleServiceHandler = (*Service)(nil)

// RunPayments asks a payer's cycle for a run, starting the cycle where it
// isn't there yet, and answers when that run has ended.
func (s *Service) RunPayments(ctx context.Context, q *workflowsv1.RunPaymentsRequest) (*workflowsv1.RunPaymentsResponse, error) {
	if err := s.deps.Authorizer.Authorize(ctx, "RunPayments", identity.Resource{Type: identity.Payment, Payer: q.GetPayerId()}); err != nil {
		return nil, err
	}
	if !s.deps.Payments {
		return nil, problem.New(problem.Unavailable, problem.Problem{
			RuleID: "payments.off", Message: "this installation has no payment port", Fix: "set payments in the worker's configuration",
		})
	}
	caller, _ := identity.FromContext(ctx)
	id := payment.WorkflowID(q.GetPayerId())
	handle, err := s.deps.Temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: s.deps.Temporal.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
			ID: id, TaskQueue: s.deps.TaskQueue,
			WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		}, payment.WorkflowType, payment.Input{PayerID: q.GetPayerId()}),
		UpdateOptions: client.UpdateWorkflowOptions{
			// Named here too: the payload codec binds the request to it.
			WorkflowID: id, UpdateID: caller.Org + "/" + q.GetRequestId(), UpdateName: payment.UpdateRun,
			WaitForStage: client.WorkflowUpdateStageCompleted, Args: []any{q.GetRequestId()},
		},
	})
	var run workflowsv1.PaymentRun
	if err == nil {
		err = handle.Get(ctx, &run)
	}
	if err != nil {
		return nil, failure.ToProblem(err)
	}
	return &workflowsv1.RunPaymentsResponse{Run: &run}, nil
}

// GetPaymentCycle answers from the payer's workflow. A payer without one has
// never been paid by a cycle: that is an answer too.
func (s *Service) GetPaymentCycle(ctx context.Context, q *workflowsv1.GetPaymentCycleRequest) (*workflowsv1.GetPaymentCycleResponse, error) {
	if err := s.deps.Authorizer.Authorize(ctx, "GetPaymentCycle", identity.Resource{Type: identity.Payment, Payer: q.GetPayerId()}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	out := &workflowsv1.GetPaymentCycleResponse{}
	v, err := s.deps.Temporal.QueryWorkflow(ctx, payment.WorkflowID(q.GetPayerId()), "", payment.QueryCycle)
	var gone *serviceerror.NotFound
	switch {
	case errors.As(err, &gone):
		return out, nil
	case err == nil:
		err = v.Get(out)
	}
	if err != nil {
		return nil, failure.ToProblem(err)
	}
	return out, nil
}
