package claim

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/problem"
)

const (
	// soonest between two looks at a case: the service's clock and this one's
	// may differ by a little, and a deadline must not be asked for in a circle.
	soonest = time.Second
	// again after the service refused to look: an operator must act.
	again = time.Hour
	// idle is the time between two looks where no deadline is left. What ends
	// such a wait is told; but an overdue appeal is made moot by events that
	// don't name it, and nothing may wait for ever because it wasn't told.
	idle = 7 * 24 * time.Hour
)

// watch wakes the claims service at every deadline of a case.
type watch struct {
	claimID string
	changed bool // guarded by the workflow's one-coroutine-at-a-time
	// now is the case as it was last told; nil before that.
	now *claimsv1.Case
}

func newWatch(ctx workflow.Context, claimID string) *watch {
	w := &watch{claimID: claimID}
	workflow.GoNamed(ctx, "changes", func(ctx workflow.Context) {
		for workflow.GetSignalChannel(ctx, SignalChanged).Receive(ctx, nil) {
			w.changed = true
		}
	})
	return w
}

// keep looks at the case, hands it to take, and looks again at its earliest
// deadline or when it has changed, until take says that it is done. It looks
// first at a time that the start knew, or when something changes before it;
// zero is at once.
func (w *watch) keep(ctx workflow.Context, first time.Time, take func(*claimsv1.Case) (done bool)) {
	woken := func() bool { return w.changed }
	if !first.IsZero() {
		if _, err := workflow.AwaitWithTimeout(ctx, max(first.Sub(workflow.Now(ctx)), 0), woken); err != nil {
			return // canceled
		}
	}
	for ctx.Err() == nil {
		w.changed = false
		var told claimsv1.AdvanceCaseResponse
		err := workflow.ExecuteActivity(withAdvance(ctx), activityAdvance, w.claimID).Get(ctx, &told)
		wait := again
		if err != nil {
			workflow.GetLogger(ctx).Error("a case can't be kept; it is looked at again in an hour", "claim_id", w.claimID, "error", err)
		} else {
			w.now = told.GetCase()
			if take(w.now) {
				return
			}
			wait = untilNext(&told)
		}
		if _, err := workflow.AwaitWithTimeout(ctx, max(wait, soonest), woken); err != nil {
			return // cancelled
		}
	}
}

// untilNext is how long it is to the earliest deadline, by the service's own
// clock.
func untilNext(told *claimsv1.AdvanceCaseResponse) time.Duration {
	deadlines := told.GetCase().GetDeadlines()
	if len(deadlines) == 0 {
		return idle
	}
	return max(0, deadlines[0].GetTime().AsTime().Sub(told.GetNow().AsTime()))
}

// withAdvance: a service that is away is asked until it is back.
func withAdvance(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second,
			NonRetryableErrorTypes: []string{string(problem.Invalid), string(problem.NotFound), string(problem.Forbidden)},
		},
	})
}
