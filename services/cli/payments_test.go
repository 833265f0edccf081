package cli_test

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/problem"
)

// paymentsFake knows one payment, which was handed over.
type paymentsFake struct {
	claimsv1connect.UnimplementedPaymentServiceHandler

	mu      sync.Mutex
	payment *claimsv1.Payment // guarded by mu
}

func aPayment() *claimsv1.Payment {
	return &claimsv1.Payment{
		PaymentId: "pay_aaaaaaaaaaaaaaaaaaaaaaaaaa", RemittanceId: remitID, PayerId: "KEYSTONE", PayeeNpi: "1234567893",
		AmountCents: 8500, PaymentDate: "2026-11-21", TraceNumber: "T17", Reference: "outbox/one.json",
		State: claimsv1.PaymentState_PAYMENT_STATE_SENT, StateTime: timestamppb.New(noon),
	}
}

func (f *paymentsFake) ListPayments(_ context.Context, q *claimsv1.ListPaymentsRequest) (*claimsv1.ListPaymentsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.GetState() != 0 && q.GetState() != f.payment.GetState() {
		return &claimsv1.ListPaymentsResponse{}, nil
	}
	return &claimsv1.ListPaymentsResponse{Payments: []*claimsv1.Payment{f.payment}}, nil
}

func (f *paymentsFake) GetPayment(_ context.Context, q *claimsv1.GetPaymentRequest) (*claimsv1.GetPaymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.GetPaymentId() != f.payment.GetPaymentId() {
		return nil, problem.New(problem.NotFound, problem.Problem{RuleID: "claims.payment.unknown", Message: "there is no such payment, or it is not yours to see", Fix: "check the id"})
	}
	return &claimsv1.GetPaymentResponse{Payment: f.payment}, nil
}

func (f *paymentsFake) ConfirmPayment(_ context.Context, q *claimsv1.ConfirmPaymentRequest) (*claimsv1.ConfirmPaymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := proto.CloneOf(f.payment)
	p.State, p.Reference = claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, q.GetReference()
	return &claimsv1.ConfirmPaymentResponse{Payment: p}, nil
}

func (f *paymentsFake) FailPayment(_ context.Context, q *claimsv1.FailPaymentRequest) (*claimsv1.FailPaymentResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.payment = proto.CloneOf(f.payment)
	f.payment.State, f.payment.FailureReason = claimsv1.PaymentState_PAYMENT_STATE_FAILED, q.GetReason()
	f.payment.Returned = q.GetReturned()
	return &claimsv1.FailPaymentResponse{Payment: f.payment}, nil
}

// payTasksFake knows the task of that payment, once it has failed.
type payTasksFake struct {
	claimsv1connect.UnimplementedPaymentTaskServiceHandler

	payments *paymentsFake
}

func (f payTasksFake) task(change func(*claimsv1.PaymentTask)) (*claimsv1.PaymentTask, error) {
	f.payments.mu.Lock()
	defer f.payments.mu.Unlock()
	if f.payments.payment.GetState() != claimsv1.PaymentState_PAYMENT_STATE_FAILED {
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "payments.task.none", Message: "the payment doesn't wait for a person", Fix: "read the payment"})
	}
	t := &claimsv1.PaymentTask{Payment: proto.CloneOf(f.payments.payment), HoldsPayee: true, Open: true, OpenedTime: timestamppb.New(noon), DueTime: timestamppb.New(noon.Add(120 * time.Hour)), Escalation: 1}
	if change != nil {
		change(t)
	}
	return t, nil
}

func (f payTasksFake) ListPaymentTasks(_ context.Context, q *claimsv1.ListPaymentTasksRequest) (*claimsv1.ListPaymentTasksResponse, error) {
	t, err := f.task(nil)
	if err != nil || q.GetMinEscalation() > t.GetEscalation() {
		return &claimsv1.ListPaymentTasksResponse{}, nil
	}
	return &claimsv1.ListPaymentTasksResponse{Tasks: []*claimsv1.PaymentTask{t}}, nil
}

func (f payTasksFake) ClaimPaymentTask(context.Context, *claimsv1.ClaimPaymentTaskRequest) (*claimsv1.ClaimPaymentTaskResponse, error) {
	t, err := f.task(func(t *claimsv1.PaymentTask) { t.Assignee = "me" })
	return &claimsv1.ClaimPaymentTaskResponse{Task: t}, err
}

func (f payTasksFake) ReleasePaymentTask(context.Context, *claimsv1.ReleasePaymentTaskRequest) (*claimsv1.ReleasePaymentTaskResponse, error) {
	t, err := f.task(nil)
	return &claimsv1.ReleasePaymentTaskResponse{Task: t}, err
}

func (f payTasksFake) ReassignPaymentTask(_ context.Context, q *claimsv1.ReassignPaymentTaskRequest) (*claimsv1.ReassignPaymentTaskResponse, error) {
	t, err := f.task(func(t *claimsv1.PaymentTask) { t.Assignee = q.GetAssignee() })
	return &claimsv1.ReassignPaymentTaskResponse{Task: t}, err
}

func (f payTasksFake) ReleasePayee(context.Context, *claimsv1.ReleasePayeeRequest) (*claimsv1.ReleasePayeeResponse, error) {
	t, err := f.task(func(t *claimsv1.PaymentTask) { t.HoldsPayee = false })
	return &claimsv1.ReleasePayeeResponse{Task: t}, err
}

func (f payTasksFake) ResolvePaymentTask(_ context.Context, q *claimsv1.ResolvePaymentTaskRequest) (*claimsv1.ResolvePaymentTaskResponse, error) {
	t, err := f.task(func(t *claimsv1.PaymentTask) {
		t.Open, t.HoldsPayee, t.Payment.Resolution, t.Payment.NextMethod = false, false, q.GetResolution(), q.GetMethod()
		t.Payment.State = claimsv1.PaymentState_PAYMENT_STATE_VOIDED
	})
	return &claimsv1.ResolvePaymentTaskResponse{Task: t, ClaimCount: 3, RestoredCents: 1200}, err
}

type cyclesFake struct {
	workflowsv1connect.UnimplementedPaymentCycleServiceHandler
}

func (cyclesFake) RunPayments(_ context.Context, q *workflowsv1.RunPaymentsRequest) (*workflowsv1.RunPaymentsResponse, error) {
	if q.GetPayerId() != "KEYSTONE" {
		return nil, problem.New(problem.Unavailable, problem.Problem{RuleID: "payments.off", Message: "this installation has no payment port", Fix: "set payments in the worker's configuration"})
	}
	return &workflowsv1.RunPaymentsResponse{Run: &workflowsv1.PaymentRun{
		StartTime: timestamppb.New(noon), EndTime: timestamppb.New(noon.Add(time.Minute)), Remittances: 3, Paid: 2, PaidCents: 17000, Failed: 1, Held: 4, InDoubt: 1,
	}}, nil
}
