package embedded_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/follower"
	"github.com/probity-health/probity/workflows/payment"
	"github.com/probity-health/probity/workflows/service"
	"github.com/probity-health/probity/workflows/worker"
)

// ledgered is the claims service's side of payments: one new remittance to be
// paid at each call.
type ledgered struct {
	mu       sync.Mutex
	calls    int
	payments map[string]*claimsv1.Payment
}

func (l *ledgered) CreateRemittances(context.Context, *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	suffix := fmt.Sprintf("%026d", l.calls)
	id := ""
	for _, r := range suffix {
		id += string('a' + r - '0')
	}
	l.payments["pay_"+id] = &claimsv1.Payment{PaymentId: "pay_" + id, RemittanceId: "rem_" + id, PayerId: "KEYSTONE", AmountCents: 100, State: claimsv1.PaymentState_PAYMENT_STATE_INTENDED}
	return &claimsv1.CreateRemittancesResponse{Remittances: []*claimsv1.Remittance{{RemittanceId: "rem_" + id}}}, nil
}

func (l *ledgered) IntendPayments(context.Context, *claimsv1.IntendPaymentsRequest) (*claimsv1.IntendPaymentsResponse, error) {
	return &claimsv1.IntendPaymentsResponse{}, nil
}

func (l *ledgered) ClearPayment(context.Context, *claimsv1.ClearPaymentRequest) (*claimsv1.ClearPaymentResponse, error) {
	return &claimsv1.ClearPaymentResponse{}, nil
}

func (l *ledgered) RecordPayment(_ context.Context, q *claimsv1.RecordPaymentRequest) (*claimsv1.RecordPaymentResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.payments[q.GetPaymentId()].State = claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED
	return &claimsv1.RecordPaymentResponse{}, nil
}

func (l *ledgered) FailPayment(context.Context, *claimsv1.FailPaymentRequest) (*claimsv1.FailPaymentResponse, error) {
	return nil, problem.New(problem.Internal, problem.Problem{RuleID: "test.fails", Message: "no payment of this test fails"})
}

func (l *ledgered) GetPayment(_ context.Context, q *claimsv1.GetPaymentRequest) (*claimsv1.GetPaymentResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &claimsv1.GetPaymentResponse{Payment: proto.CloneOf(l.payments[q.GetPaymentId()])}, nil
}

func (l *ledgered) ListPayments(context.Context, *claimsv1.ListPaymentsRequest) (*claimsv1.ListPaymentsResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &claimsv1.ListPaymentsResponse{}
	for _, p := range l.payments {
		if p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_INTENDED {
			out.Payments = append(out.Payments, proto.CloneOf(p))
		}
	}
	return out, nil
}

func TestAPaymentCycleRunsWhenAskedAndKeepsItsSchedule(t *testing.T) {
	// Given a worker with a file drop.
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	drop := t.TempDir()
	port, err := payment.NewFileDrop(drop, payment.FileDropOptions{})
	require.NoError(t, err)
	books := &ledgered{payments: map[string]*claimsv1.Payment{}}
	i := newInstallation(0)
	w := worker.New(worker.Deps{
		Temporal: c, Gateway: i, Files: i, Remittances: i, Claims: i,
		Payments: &payment.Activities{Remittances: books, Payments: books, Port: port},
	})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	authorizer, err := identity.NewAuthorizer()
	require.NoError(t, err)
	svc := service.New(service.Deps{Temporal: c, TaskQueue: worker.TaskQueue, Files: i, Claims: i, Authorizer: authorizer, Payments: true})
	admin := identity.WithPrincipal(ctx, identity.Principal{Subject: "a", Org: "payer", Roles: []identity.Role{identity.RolePlanAdmin}, Payers: []string{"KEYSTONE"}})
	run := func(id string) *workflowsv1.PaymentRun {
		r, err := svc.RunPayments(admin, &workflowsv1.RunPaymentsRequest{PayerId: "KEYSTONE", RequestId: id})
		require.NoError(t, err)
		return r.GetRun()
	}
	none, err := svc.GetPaymentCycle(admin, &workflowsv1.GetPaymentCycleRequest{PayerId: "KEYSTONE"})
	require.NoError(t, err)
	require.Nil(t, none.GetLast(), "a payer that was never paid by a cycle")

	// When a run is asked for, then it answers with what it did; and the same request meets it again.
	first := run("one")
	require.EqualValues(t, 1, first.GetPaid())
	require.True(t, proto.Equal(first, run("one")))
	require.EqualValues(t, 1, run("two").GetPaid())
	files, err := os.ReadDir(filepath.Join(drop, "outbox"))
	require.NoError(t, err)
	require.Len(t, files, 2)

	// And a schedule is told to a cycle that is there, and to one that isn't.
	all := []payment.Scheduled{
		{PayerID: "KEYSTONE", Schedule: payment.Schedule{Every: 24 * time.Hour}},
		{PayerID: "OTHER", Schedule: payment.Schedule{Every: time.Hour}},
	}
	payment.KeepSchedules(ctx, c, worker.TaskQueue, all, slog.New(slog.DiscardHandler))
	for _, s := range all {
		anyone := identity.WithPrincipal(ctx, identity.Principal{Subject: "a", Roles: []identity.Role{identity.RoleAuditor}})
		require.Eventually(t, func() bool {
			cycle, err := svc.GetPaymentCycle(anyone, &workflowsv1.GetPaymentCycleRequest{PayerId: s.PayerID})
			next, _ := s.Schedule.Next(time.Now())
			return err == nil && cycle.GetNextTime().AsTime().Equal(next)
		}, 20*time.Second, 20*time.Millisecond)
	}

	// And who may not run it is told so, as is everybody where there is no port.
	biller := identity.WithPrincipal(ctx, identity.Principal{Subject: "b", Org: "prov", Roles: []identity.Role{identity.RoleSubmitter}})
	_, err = svc.RunPayments(biller, &workflowsv1.RunPaymentsRequest{PayerId: "KEYSTONE", RequestId: "x"})
	require.Equal(t, problem.Forbidden, problem.As(err).Kind)
	_, err = newService(t, c, i).RunPayments(admin, &workflowsv1.RunPaymentsRequest{PayerId: "KEYSTONE", RequestId: "x"})
	require.Equal(t, problem.Unavailable, problem.As(err).Kind)
	record(t, ctx, c, payment.WorkflowID("KEYSTONE"), "payments.json")
}

// taskKept is the claims service's side of one failed payment's task.
type taskKept struct {
	mu    sync.Mutex
	looks int
	due   time.Time
	done  bool
}

func (k *taskKept) AdvancePaymentTask(_ context.Context, q *claimsv1.AdvancePaymentTaskRequest) (*claimsv1.AdvancePaymentTaskResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looks++
	now := time.Now()
	out := &claimsv1.AdvancePaymentTaskResponse{
		Now: timestamppb.New(now), NextTime: timestamppb.New(k.due),
		Task: &claimsv1.PaymentTask{Payment: &claimsv1.Payment{PaymentId: q.GetPaymentId()}, Open: !k.done, DueTime: timestamppb.New(k.due)},
	}
	if !now.Before(k.due) {
		out.Task.Escalation, out.NextTime = 1, nil
	}
	return out, nil
}

func TestAFailedPaymentsTaskIsKeptUntilItIsDecided(t *testing.T) {
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	kept := &taskKept{due: time.Now().Add(1500 * time.Millisecond)}
	i := newInstallation(0)
	w := worker.New(worker.Deps{Temporal: c, Gateway: i, Files: i, Remittances: i, Claims: i, PaymentTasks: kept})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	const id = "pay_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	starter := follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}
	for range 2 {
		require.NoError(t, starter.Start(ctx, payment.StartTask(id)), "starting twice is starting once")
	}
	// Its time comes, in a worker that runs no cycles as well.
	require.Eventually(t, func() bool {
		var shown claimsv1.PaymentTask
		v, err := c.QueryWorkflow(ctx, payment.TaskWorkflowID(id), "", payment.QueryTask)
		return err == nil && v.Get(&shown) == nil && shown.GetEscalation() == 1
	}, 2*time.Minute, 20*time.Millisecond)
	kept.mu.Lock()
	kept.done = true
	kept.mu.Unlock()
	require.NoError(t, starter.Tell(ctx, payment.TaskResolved(id)))
	require.NoError(t, c.GetWorkflow(ctx, payment.TaskWorkflowID(id), "").Get(ctx, nil))
	require.NoError(t, starter.Tell(ctx, payment.TaskResolved(id)), "a late message is no trouble")
	record(t, ctx, c, payment.TaskWorkflowID(id), "payment-task.json")
}
