package claims

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/claims/payments"
	"github.com/probity-health/probity/services/identity"
)

var _ claimsv1connect.PaymentTaskServiceHandler = (*Service)(nil)

// ListPaymentTasks implements claimsv1connect.PaymentTaskServiceHandler.
func (s *Service) ListPaymentTasks(ctx context.Context, req *claimsv1.ListPaymentTasksRequest) (*claimsv1.ListPaymentTasksResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListPaymentTasks", identity.Resource{Type: identity.Payment, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	// A task is the payer's: a sender's own organisation shows it none.
	scope := paymentScope(caller)
	scope.Org = ""
	reading, err := s.view.At(ctx, req.GetMinToken())
	if err != nil {
		return nil, err
	}
	rows, next, err := pageOf(ctx, reading, listing[*claimsv1.PaymentTask]{
		kind: kindPaymentTasks, indexes: indexesFor(kindPaymentTasks, scope, req.GetPayerId()), ascending: true,
		size: int(req.GetPageSize()), token: req.GetPageToken(), row: paymentTaskRow,
		filter: filterOf(caller, "payment-tasks", req.GetPayerId(), req.GetAssignee(), itoa(req.GetMinEscalation())),
		keep: func(t *claimsv1.PaymentTask) bool {
			return t.GetOpen() && scope.Includes("", t.GetPayment().GetPayerId()) && t.GetEscalation() >= req.GetMinEscalation() &&
				(req.GetAssignee() == "" || req.GetAssignee() == t.GetAssignee() || (req.GetAssignee() == "-" && t.GetAssignee() == ""))
		},
	})
	if err != nil {
		return nil, err
	}
	return &claimsv1.ListPaymentTasksResponse{Tasks: rows, NextPageToken: next}, nil
}

// workPayment records a command to a payment's task and returns when the lists show it.
func (s *Service) workPayment(ctx context.Context, action, id string, command func(identity.Principal) payments.Command) (paymentRecord, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return paymentRecord{}, err
	}
	record, err := s.commandPayment(ctx, action, id, command(caller))
	if err != nil {
		return record, err
	}
	if err := s.holdPayee(ctx, caller, record.State); err != nil {
		return record, err
	}
	return record, s.view.WaitFor(ctx, record.position.Token())
}

// ClaimPaymentTask implements claimsv1connect.PaymentTaskServiceHandler.
func (s *Service) ClaimPaymentTask(ctx context.Context, req *claimsv1.ClaimPaymentTaskRequest) (*claimsv1.ClaimPaymentTaskResponse, error) {
	record, err := s.workPayment(ctx, "ClaimPaymentTask", req.GetPaymentId(), func(p identity.Principal) payments.Command {
		return payments.Assign{Assignee: p.Subject, Who: p.Subject, Terms: s.config.PaymentTasks}
	})
	return &claimsv1.ClaimPaymentTaskResponse{Task: record.Task()}, err
}

// ReleasePaymentTask implements claimsv1connect.PaymentTaskServiceHandler.
func (s *Service) ReleasePaymentTask(ctx context.Context, req *claimsv1.ReleasePaymentTaskRequest) (*claimsv1.ReleasePaymentTaskResponse, error) {
	record, err := s.workPayment(ctx, "ReleasePaymentTask", req.GetPaymentId(), func(p identity.Principal) payments.Command {
		return payments.Assign{Who: p.Subject}
	})
	return &claimsv1.ReleasePaymentTaskResponse{Task: record.Task()}, err
}

// ReassignPaymentTask implements claimsv1connect.PaymentTaskServiceHandler.
func (s *Service) ReassignPaymentTask(ctx context.Context, req *claimsv1.ReassignPaymentTaskRequest) (*claimsv1.ReassignPaymentTaskResponse, error) {
	record, err := s.workPayment(ctx, "ReassignPaymentTask", req.GetPaymentId(), func(p identity.Principal) payments.Command {
		return payments.Assign{Assignee: req.GetAssignee(), Who: p.Subject, By: p.Subject, Terms: s.config.PaymentTasks}
	})
	return &claimsv1.ReassignPaymentTaskResponse{Task: record.Task()}, err
}

// ReleasePayee implements claimsv1connect.PaymentTaskServiceHandler.
func (s *Service) ReleasePayee(ctx context.Context, req *claimsv1.ReleasePayeeRequest) (*claimsv1.ReleasePayeeResponse, error) {
	record, err := s.workPayment(ctx, "ReleasePayee", req.GetPaymentId(), func(p identity.Principal) payments.Command {
		return payments.ReleasePayee{Who: p.Subject}
	})
	return &claimsv1.ReleasePayeeResponse{Task: record.Task()}, err
}

// ResolvePaymentTask implements claimsv1connect.PaymentTaskServiceHandler.
func (s *Service) ResolvePaymentTask(ctx context.Context, req *claimsv1.ResolvePaymentTaskRequest) (*claimsv1.ResolvePaymentTaskResponse, error) {
	record, err := s.workPayment(ctx, "ResolvePaymentTask", req.GetPaymentId(), func(p identity.Principal) payments.Command {
		return payments.Resolve{Resolution: req.GetResolution(), Method: req.GetMethod(), Reference: req.GetReference(), Who: p.Subject}
	})
	if err != nil || record.Payment.GetState() == claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF {
		return &claimsv1.ResolvePaymentTaskResponse{Task: record.Task()}, err
	}
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	voided, err := s.voidRemittance(ctx, caller, record.Payment)
	if err != nil {
		return nil, err
	}
	record.Payment = voided.GetPayment()
	return &claimsv1.ResolvePaymentTaskResponse{Task: record.Task(), ClaimCount: voided.GetClaimCount(), RestoredCents: voided.GetRestoredCents()}, nil
}

// AdvancePaymentTask implements claimsv1connect.PaymentTaskServiceHandler. The
// service's own clock judges what is due: a workflow only wakes it.
func (s *Service) AdvancePaymentTask(ctx context.Context, req *claimsv1.AdvancePaymentTaskRequest) (*claimsv1.AdvancePaymentTaskResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	now := s.second()
	record, err := s.commandPayment(ctx, "AdvancePaymentTask", req.GetPaymentId(), payments.Advance{Terms: s.config.PaymentTasks})
	if err != nil {
		return nil, err
	}
	if err := s.holdPayee(ctx, caller, record.State); err != nil {
		return nil, err
	}
	out := &claimsv1.AdvancePaymentTaskResponse{Task: record.Task(), Now: now}
	if next := record.NextTime(); !next.IsZero() {
		out.NextTime = timestamppb.New(next)
	}
	return out, nil
}
