package payment_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/hook"
	"github.com/probity-health/probity/workflows/payment"
)

// desk is a claims service's side of one task: what is due when, by its clock.
type desk struct {
	mu     sync.Mutex
	clock  func() time.Time
	due    []time.Time // of escalation, one level each
	level  uint32
	closed bool
	looks  []time.Duration // since begin
	refuse error
}

func (d *desk) AdvancePaymentTask(context.Context, *claimsv1.AdvancePaymentTaskRequest) (*claimsv1.AdvancePaymentTaskResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.clock()
	d.looks = append(d.looks, now.Sub(begin))
	if d.refuse != nil {
		return nil, d.refuse
	}
	for len(d.due) > 0 && !now.Before(d.due[0]) {
		d.due, d.level = d.due[1:], d.level+1
	}
	out := &claimsv1.AdvancePaymentTaskResponse{Now: timestamppb.New(now), Task: &claimsv1.PaymentTask{Open: !d.closed, Escalation: d.level}}
	if len(d.due) > 0 && !d.closed {
		out.NextTime = timestamppb.New(d.due[0])
	}
	return out, nil
}

const day = 24 * time.Hour

func task(t *testing.T) (*testsuite.TestWorkflowEnvironment, *desk) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetStartTime(begin)
	env.SetTestTimeout(20 * time.Second)
	env.SetWorkerOptions(worker.Options{})
	d := &desk{clock: env.Now, due: []time.Time{begin.Add(5 * day), begin.Add(7 * day), begin.Add(9 * day)}}
	payment.TaskHook(&payment.TaskActivities{Tasks: d}).Register(env)
	return env, d
}

// at changes the task at a time and tells its workflow.
func (d *desk) at(env *testsuite.TestWorkflowEnvironment, after time.Duration, change func()) {
	env.RegisterDelayedCallback(func() {
		d.mu.Lock()
		change()
		d.mu.Unlock()
		env.SignalWorkflow(payment.SignalTaskChanged, nil)
	}, after)
}

func TestATaskIsLookedAtWhenSomethingIsDueAndUntilItIsDecided(t *testing.T) {
	env, d := task(t)
	var seen []string
	for _, after := range []time.Duration{day, 5*day + time.Minute, 10 * day} {
		env.RegisterDelayedCallback(func() {
			v, err := env.QueryWorkflow(payment.QueryTask)
			require.NoError(t, err)
			var now claimsv1.PaymentTask
			require.NoError(t, v.Get(&now))
			seen = append(seen, fmt.Sprintf("after %v: level %d", after, now.GetEscalation()))
		}, after)
	}
	d.at(env, 10*day+time.Hour, func() { d.closed = true })
	env.ExecuteWorkflow(payment.TaskWorkflowType, payment.TaskInput{PaymentID: "pay_a"})
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []time.Duration{0, 5 * day, 7 * day, 9 * day, 10*day + time.Hour}, d.looks)
	require.Equal(t, []string{"after 24h0m0s: level 0", "after 120h1m0s: level 1", "after 240h0m0s: level 3"}, seen)
}

func TestATaskDecidedBeforeItIsDueIsNotEscalated(t *testing.T) {
	env, d := task(t)
	d.at(env, 5*day-time.Second, func() { d.closed = true })
	env.ExecuteWorkflow(payment.TaskWorkflowType, payment.TaskInput{PaymentID: "pay_a"})
	require.NoError(t, env.GetWorkflowError())
	require.Zero(t, d.level)
	require.Len(t, d.looks, 2)
}

// Somebody takes the task: what is then due sooner is kept.
func TestATaskWhoseDeadlineComesNearerIsKept(t *testing.T) {
	env, d := task(t)
	d.at(env, day, func() { d.due = append([]time.Time{begin.Add(2 * day)}, d.due...) })
	d.at(env, 3*day, func() { d.closed = true })
	env.ExecuteWorkflow(payment.TaskWorkflowType, payment.TaskInput{PaymentID: "pay_a"})
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []time.Duration{0, day, 2 * day, 3 * day}, d.looks)
}

// Nothing is due any more and nobody tells: it is looked at once a week.
func TestATaskThatNobodyTellsOfIsStillLookedAt(t *testing.T) {
	env, d := task(t)
	d.due = nil
	env.RegisterDelayedCallback(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.closed = true
	}, 8*day)
	env.ExecuteWorkflow(payment.TaskWorkflowType, payment.TaskInput{PaymentID: "pay_a"})
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []time.Duration{0, 7 * day, 14 * day}, d.looks)
}

func TestATaskThatTheServiceRefusesToKeepIsTriedAgainInAnHour(t *testing.T) {
	env, d := task(t)
	d.refuse = problem.New(problem.Forbidden, problem.Problem{RuleID: "test.forbidden", Message: "no"})
	env.RegisterDelayedCallback(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.refuse, d.closed = nil, true
	}, 30*time.Minute)
	env.ExecuteWorkflow(payment.TaskWorkflowType, payment.TaskInput{PaymentID: "pay_a"})
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []time.Duration{0, time.Hour}, d.looks)
}

// What of the log begins, moves and ends the workflow.
func TestTheFactsOfATask(t *testing.T) {
	facts := payment.TaskHook(&payment.TaskActivities{}).Facts
	ask := func(e proto.Message) []hook.Ask {
		t.Helper()
		raw, err := proto.Marshal(e)
		require.NoError(t, err)
		for _, f := range facts {
			if f.Event == string(e.ProtoReflect().Descriptor().FullName()) {
				asks, err := f.Asks(raw, hook.Place{})
				require.NoError(t, err)
				return asks
			}
		}
		t.Fatalf("%T asks for nothing", e)
		return nil
	}
	require.Empty(t, ask(&eventsv1.PaymentFailed{PaymentId: "pay_a"}), "from before payments had tasks")
	begins := ask(&eventsv1.PaymentFailed{PaymentId: "pay_a", Task: true, PayerId: payer, DueTime: timestamppb.New(begin)})
	require.Equal(t, "payment-task:pay_a", begins[0].Workflow())
	require.Equal(t, hook.Attributes(payer, "2026-11-21"), begins[0].(hook.Start).Attributes)
	require.Equal(t, hook.Tell{ID: "payment-task:pay_a", Signal: "changed"}, ask(&eventsv1.PaymentTaskAssigned{PaymentId: "pay_a", Assignee: "bob"})[0])
	require.Empty(t, ask(&eventsv1.PaymentTaskAssigned{PaymentId: "pay_a", Lapsed: true}), "its own doing")
	require.Equal(t, hook.Tell{ID: "payment-task:pay_a", Signal: "changed", Ends: true}, ask(&eventsv1.PaymentResolved{PaymentId: "pay_a"})[0])
}
