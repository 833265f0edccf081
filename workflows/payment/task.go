package payment

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/failure"
	"github.com/probity-health/probity/workflows/hook"
)

// Names of the workflow that keeps the deadlines of a failed payment's task.
const (
	TaskWorkflowType  = "payment-task"
	SignalTaskChanged = "changed" // something of the task has changed; no argument
	QueryTask         = "task"    // -> probity.claims.v1.PaymentTask; null before the first look

	activityAdvanceTask = "payments.task.advance"
)

const (
	// soonest between two looks at a task: the service's clock and this one's
	// may differ by a little, and a deadline must not be asked for in a circle.
	soonest = time.Second
	// again after the service refused to look: an operator must act.
	again = time.Hour
	// idle is the time between two looks where no deadline is left. Its end is
	// told; but nothing may wait for ever because it wasn't.
	idle = 7 * 24 * time.Hour
)

// TaskWorkflowID is the id of the workflow of a payment's task: opaque, as the
// payment's id is. A payment fails once.
func TaskWorkflowID(paymentID string) string { return "payment-task:" + paymentID }

// TaskInput starts the workflow.
type TaskInput struct{ PaymentID string }

// Tasks does what is due of the task of a failed payment; asking too often does
// nothing twice.
type Tasks interface {
	AdvancePaymentTask(context.Context, *claimsv1.AdvancePaymentTaskRequest) (*claimsv1.AdvancePaymentTaskResponse, error)
}

// TaskActivities are the task workflow's hands.
type TaskActivities struct{ Tasks Tasks }

// TaskHook is the task workflow's row in the catalog. A task may be open for
// longer than any build is kept running.
func TaskHook(a *TaskActivities) hook.Workflow {
	return hook.Workflow{
		Type: TaskWorkflowType, Run: TaskWorkflow, Versioning: workflow.VersioningBehaviorAutoUpgrade,
		Activities: map[string]any{activityAdvanceTask: a.Advance},
		Log:        "claims",
		Facts:      []hook.Fact{hook.On(failed), hook.On(assigned), hook.On(resolved)},
	}
}

func failed(e *eventsv1.PaymentFailed, _ hook.Place) []hook.Ask {
	if !e.GetTask() {
		return nil
	}
	start := StartTask(e.GetPaymentId())
	start.Attributes = hook.Attributes(e.GetPayerId(), dayOf(e))
	return []hook.Ask{start}
}

// dayOf is the calendar day in UTC on which a task is due, ISO 8601.
func dayOf(e *eventsv1.PaymentFailed) string {
	if e.GetDueTime() == nil {
		return ""
	}
	return e.GetDueTime().AsTime().Format(time.DateOnly)
}

func assigned(e *eventsv1.PaymentTaskAssigned, _ hook.Place) []hook.Ask {
	if e.GetLapsed() {
		return nil // the workflow had it done
	}
	return []hook.Ask{hook.Tell{ID: TaskWorkflowID(e.GetPaymentId()), Signal: SignalTaskChanged}}
}

func resolved(e *eventsv1.PaymentResolved, _ hook.Place) []hook.Ask {
	return []hook.Ask{TaskResolved(e.GetPaymentId())}
}

// TaskResolved tells the workflow of a payment's task that it is decided.
func TaskResolved(paymentID string) hook.Tell {
	return hook.Tell{ID: TaskWorkflowID(paymentID), Signal: SignalTaskChanged, Ends: true}
}

// StartTask begins the workflow of a payment's task.
func StartTask(paymentID string) hook.Start {
	return hook.Start{ID: TaskWorkflowID(paymentID), Type: TaskWorkflowType, Input: TaskInput{PaymentID: paymentID}}
}

// TaskWorkflow wakes the claims service at every deadline of a failed payment's
// task until the task is decided. The service's clock judges what is due; this
// one's only wakes.
func TaskWorkflow(ctx workflow.Context, in TaskInput) error {
	var now *claimsv1.PaymentTask
	if err := workflow.SetQueryHandler(ctx, QueryTask, func() (*claimsv1.PaymentTask, error) { return now, nil }); err != nil {
		return err
	}
	changed := false
	workflow.GoNamed(ctx, "changes", func(ctx workflow.Context) {
		for workflow.GetSignalChannel(ctx, SignalTaskChanged).Receive(ctx, nil) {
			changed = true
		}
	})
	for {
		changed = false
		var told claimsv1.AdvancePaymentTaskResponse
		err := workflow.ExecuteActivity(withTask(ctx), activityAdvanceTask, in.PaymentID).Get(ctx, &told)
		wait := again
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			workflow.GetLogger(ctx).Error("a payment's task can't be kept; it is looked at again in an hour", "payment_id", in.PaymentID, "error", err)
		case !told.GetTask().GetOpen():
			return nil
		default:
			if rose := told.GetTask().GetEscalation(); rose > now.GetEscalation() {
				workflow.GetMetricsHandler(ctx).Counter("probity_payment_tasks_escalated").Inc(1)
				workflow.GetLogger(ctx).Warn("nobody has decided what becomes of a failed payment (probity tasks payments list --escalated)", "payment_id", in.PaymentID, "escalation", rose)
			}
			now = told.GetTask()
			wait = idle
			if next := told.GetNextTime(); next != nil {
				wait = next.AsTime().Sub(told.GetNow().AsTime())
			}
		}
		if _, err := workflow.AwaitWithTimeout(ctx, max(wait, soonest), func() bool { return changed }); err != nil {
			return err // cancelled
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return workflow.NewContinueAsNewError(ctx, TaskWorkflowType, in)
		}
	}
}

// withTask: a service that is away is asked until it is back.
func withTask(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second,
			NonRetryableErrorTypes: []string{string(problem.Invalid), string(problem.NotFound), string(problem.Forbidden)},
		},
	})
}

// Advance has what is due of the task done and returns how it then stands.
func (a *TaskActivities) Advance(ctx context.Context, paymentID string) (*claimsv1.AdvancePaymentTaskResponse, error) {
	r, err := a.Tasks.AdvancePaymentTask(ctx, &claimsv1.AdvancePaymentTaskRequest{PaymentId: paymentID})
	if err == nil && r.GetTask().GetReminderCount() > 0 {
		activity.GetLogger(ctx).Info("a failed payment still waits for a person", "payment_id", paymentID, "reminder", r.GetTask().GetReminderCount())
	}
	return r, failure.FromRPC(err)
}
