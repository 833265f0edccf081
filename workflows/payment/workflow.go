// Package payment pays providers: one workflow a payer, "payments:<payer>",
// that runs the payment cycle by its schedule and when asked.
//
// A run has remittances made of what the providers have not been told, has a
// payment intended for each that pays, and hands the payments to a Port. What
// the port can't take is tried again a few times; then it is withdrawn, and
// the payment fails, which makes its claims payable again. A payment that can
// be neither made nor withdrawn stays as it is: nothing is undone in doubt.
//
// Exactly once is the ledger's and the port's: the workflow holds counts and
// ids, every step may be repeated, and a run takes up whatever an earlier one
// left, whatever became of that one's workflow.
package payment

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
)

// Names by which Temporal knows the parts. Renaming one strands open workflows.
const (
	WorkflowType   = "payments"
	UpdateRun      = "run"      // request id -> PaymentRun, when the run has ended
	QueryCycle     = "cycle"    // -> GetPaymentCycleResponse
	SignalSchedule = "schedule" // Schedule

	activityRemit    = "payments.remit"
	activityIntend   = "payments.intend"
	activityPay      = "payments.pay"
	activityRepay    = "payments.repay"
	activityWithdraw = "payments.withdraw"
)

// retryAfter are the pauses between a payment's attempts; after the last one
// it is withdrawn.
var retryAfter = [...]time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}

// reasonNotDelivered is the failure of a payment that the port never took.
const reasonNotDelivered = "not-delivered"

// WorkflowID is the id of a payer's workflow.
func WorkflowID(payerID string) string { return "payments:" + payerID }

// Input starts the workflow, and is what it carries over to a fresh history.
type Input struct {
	PayerID  string
	Schedule Schedule                `json:",omitzero"`
	Last     *workflowsv1.PaymentRun `json:",omitempty"`
}

// Workflow runs for ever, and ends only when it is cancelled.
func Workflow(ctx workflow.Context, in Input) error {
	c := &cycle{in: in}
	if err := workflow.SetQueryHandler(ctx, QueryCycle, c.query); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateRun, c.asked, workflow.UpdateHandlerOptions{
		Description: "Run the payment cycle now.",
	}); err != nil {
		return err
	}
	schedules := workflow.GetSignalChannel(ctx, SignalSchedule)
	workflow.GoNamed(ctx, "schedule", func(ctx workflow.Context) {
		for {
			var s Schedule
			if !schedules.Receive(ctx, &s) {
				return
			}
			c.moved = c.moved || s != c.in.Schedule
			c.in.Schedule = s
		}
	})
	info := workflow.GetInfo(ctx)
	for {
		due, err := c.await(ctx, func() bool { return c.wanted > c.begun || c.moved || info.GetContinueAsNewSuggested() })
		if err != nil {
			return err
		}
		c.moved = false
		if due || c.wanted > c.begun {
			c.run(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if info.GetContinueAsNewSuggested() {
			if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) || c.wanted > c.begun }); err != nil {
				return err
			}
			if c.wanted == c.begun {
				return workflow.NewContinueAsNewError(ctx, WorkflowType, c.in)
			}
		}
	}
}

// cycle is the workflow's state; its code runs one coroutine at a time.
type cycle struct {
	in    Input
	next  time.Time // by the schedule; zero without one
	moved bool      // the schedule is another

	// Runs are numbered from 1 in this history: wanted is the last that was
	// asked for, begun and ended say how far they have come.
	wanted, begun, ended int
	failed               error // of the last run
}

func (c *cycle) query() (*workflowsv1.GetPaymentCycleResponse, error) {
	out := &workflowsv1.GetPaymentCycleResponse{Running: c.begun > c.ended, Last: c.in.Last}
	if !c.next.IsZero() {
		out.NextTime = timestamppb.New(c.next)
	}
	return out, nil
}

// asked wants a run that begins from now on, since one under way may have
// passed by what is to be paid.
func (c *cycle) asked(ctx workflow.Context, _ string) (*workflowsv1.PaymentRun, error) {
	mine := c.begun + 1
	c.wanted = mine
	if err := workflow.Await(ctx, func() bool { return c.ended >= mine }); err != nil {
		return nil, err
	}
	if c.failed != nil {
		return nil, c.failed
	}
	return c.in.Last, nil
}

// await waits until the schedule's next run is due or there is something else to do.
func (c *cycle) await(ctx workflow.Context, until func() bool) (due bool, err error) {
	next, scheduled := c.in.Schedule.Next(workflow.Now(ctx))
	if c.next = next; !scheduled {
		return false, workflow.Await(ctx, until)
	}
	other, err := workflow.AwaitWithTimeout(ctx, next.Sub(workflow.Now(ctx)), until)
	return !other, err
}

// run is one run of the cycle. Its error is told to who asked; the next run
// takes up what this one left.
func (c *cycle) run(ctx workflow.Context) {
	c.begun++
	c.in.Last = &workflowsv1.PaymentRun{StartTime: timestamppb.New(workflow.Now(ctx))}
	c.failed = c.steps(ctx, c.in.Last)
	if c.failed != nil {
		workflow.GetLogger(ctx).Error("a payment cycle broke off; the next takes up what it left", "payer_id", c.in.PayerID, "error", c.failed)
	}
	// A copy: who asked for an earlier run may still hold that one's.
	c.in.Last = proto.CloneOf(c.in.Last)
	c.in.Last.EndTime = timestamppb.New(workflow.Now(ctx))
	c.ended = c.begun
	c.wanted = max(c.wanted, c.begun)
}

func (c *cycle) steps(ctx workflow.Context, r *workflowsv1.PaymentRun) error {
	ctx = withStep(ctx)
	began := workflow.Now(ctx).UnixNano()
	var written []*ledgerv1.Position
	for n, more := 0, true; more; n++ {
		var made Remitted
		if err := workflow.ExecuteActivity(ctx, activityRemit, c.in.PayerID, fmt.Sprintf("cycle-%d-%d", began, n)).Get(ctx, &made); err != nil {
			return err
		}
		r.Remittances += made.Count
		written, more = lastOf(append(written, made.Positions...)), made.More
	}
	var waiting uint32
	if err := workflow.ExecuteActivity(ctx, activityIntend, c.in.PayerID, written).Get(ctx, &waiting); err != nil {
		return err
	}
	var all Paid
	for token, more := "", true; more; more = token != "" {
		var page Paid
		if err := workflow.ExecuteActivity(ctx, activityPay, c.in.PayerID, token).Get(ctx, &page); err != nil {
			return err
		}
		token = page.Next
		all.add(page)
	}
	for _, pause := range retryAfter {
		if len(all.Unsure) == 0 {
			break
		}
		if err := workflow.Sleep(ctx, pause); err != nil {
			return err
		}
		var again Paid
		if err := workflow.ExecuteActivity(ctx, activityRepay, all.Unsure).Get(ctx, &again); err != nil {
			return err
		}
		all.Unsure = nil
		all.add(again)
	}
	for _, id := range all.Unsure {
		all.Refused = append(all.Refused, Refusal{PaymentID: id, Reason: reasonNotDelivered})
	}
	all.Unsure = nil
	if len(all.Refused) > 0 {
		var last Paid
		if err := workflow.ExecuteActivity(ctx, activityWithdraw, all.Refused).Get(ctx, &last); err != nil {
			return err
		}
		all.add(last)
	}
	r.Paid, r.PaidCents, r.Failed, r.Held, r.InDoubt = all.Count, all.Cents, all.Failed, waiting+all.Held, uint32(len(all.Unsure))
	return nil
}

// withStep: each step is repeated until the services have answered, for
// however long they are away; only what they call invalid, a defect of ours, is not.
func withStep(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 15 * time.Minute,
		HeartbeatTimeout:    heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 500 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second,
			NonRetryableErrorTypes: []string{string(problem.Invalid), string(problem.Forbidden)},
		},
	})
}
