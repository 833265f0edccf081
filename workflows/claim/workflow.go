// Package claim keeps the deadlines of claims that can't be decided at once.
//
// One workflow a pended claim, "claim:<claim id>", from the pending decision
// until the claim is final and remitted; one an appeal, "appeal:<appeal id>",
// until it is decided. The claims service has the last word, and its ledger
// every fact: it says what is waited for and until when, and what is due it
// does itself when it is woken (AdvanceCase: ask, remind, expire, escalate).
// So a workflow holds nothing that isn't on the ledger, and one started again
// from the log waits for the same.
//
//	state      waits for                                            leaves it by
//	open       a review (Update), the earliest deadline (timer)     decided, or the case has changed
//	waiting    the provider: its answer (signal), the deadline      open, decided
//	escalated  a review; more senior people have been told          decided
//	decided    the file's remittance, where it came in a file       end
//
// The deadlines are the case's: a reminder, the end of the time to answer, a
// task held too long, the days before the prompt-pay day and the day itself,
// the time to decide an appeal. All of them show in the query; casework in the
// claims service has the table of what each does.
//
// A review comes in as an Update and is answered when the engine has decided
// again, or when the opinion of one of several reviewers is recorded. Reviews
// of one claim are handled one after another. A signal says that the case has
// changed; it carries nothing, since the case is read again.
package claim

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/failure"
)

// Names by which Temporal knows the parts. Renaming one strands open workflows.
const (
	WorkflowType  = "claim"
	UpdateReview  = "review"  // ReviewClaimRequest -> ReviewClaimResponse
	QueryReview   = "review"  // -> GetReviewResponse
	SignalDecided = "decided" // the claim became final; no argument
	SignalChanged = "changed" // something of the case has changed; no argument

	activityResolve = "claim.resolve"
	activityStatus  = "claim.status"
	activityRemit   = "claim.remit"
	activityAdvance = "claim.advance"

	changeRemit = "remit what a review decided"
	changeCase  = "the case says what is waited for"
)

// States of GetReviewResponse.
const (
	StateOpen      = "open"
	StateWaiting   = "waiting" // for the provider
	StateEscalated = "escalated"
	StateDecided   = "decided"
)

// defaultDue is the prompt-pay time where the decision named none: most
// states give thirty days for a clean electronic claim.
const defaultDue = 30 * 24 * time.Hour

const (
	maxRequestID = 120
	maxReason    = 2000
)

// WorkflowID is the id of a claim's workflow: opaque, as the claim's id is.
func WorkflowID(claimID string) string { return "claim:" + claimID }

// Input starts the workflow.
type Input struct {
	ClaimID string
	// DueDate is the prompt-pay clock's last day, ISO 8601; empty is thirty days from the start.
	DueDate string
	// Escalated is set when continuing after escalation.
	Escalated bool `json:",omitempty"`
	// Case is set by every start since cases are kept. Such a workflow has no
	// older form, and so asks for no version of what came up to then: asking
	// costs a marker and a write to the server's lists for each claim.
	Case bool `json:",omitempty"`
	// First is what the case first waits for, where its start knew that nothing
	// is due before: then the claims service isn't asked until then, or until
	// something has changed. Zero asks at once.
	First Deadline `json:",omitzero"`
}

// Deadline is when something of a case is due, and what; see claimsv1.Deadline.
type Deadline struct {
	Kind string    `json:",omitempty"`
	Time time.Time `json:",omitzero"`
}

// Workflow ends when the claim is final and, where it came in a file, remitted.
func Workflow(ctx workflow.Context, in Input) error {
	r := &review{in: in, state: StateOpen, turn: workflow.NewMutex(ctx)}
	day, err := time.Parse(time.DateOnly, in.DueDate)
	if err != nil {
		day = workflow.Now(ctx).UTC().Truncate(24 * time.Hour).Add(defaultDue)
		r.in.DueDate = day.Format(time.DateOnly)
	}
	// The clock runs out with the due day; people are told as it begins. Both
	// are taken in UTC, hours ahead of any payer's own midnight.
	r.due = day.Add(24 * time.Hour)
	if in.Escalated {
		r.state = StateEscalated
	}
	if err := workflow.SetQueryHandler(ctx, QueryReview, r.get); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateReview, r.handle, workflow.UpdateHandlerOptions{
		Validator: r.validate, Description: "Approve or deny the pended claim.",
	}); err != nil {
		return err
	}
	workflow.GoNamed(ctx, "decided elsewhere", func(ctx workflow.Context) {
		workflow.GetSignalChannel(ctx, SignalDecided).Receive(ctx, nil)
		r.state = StateDecided
	})
	if in.Case || workflow.GetVersion(ctx, changeCase, workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		r.keep(ctx)
	} else if r.state == StateOpen {
		workflow.GoNamed(ctx, "prompt-pay clock", func(ctx workflow.Context) { r.watchClock(ctx, day) })
	}

	info := workflow.GetInfo(ctx)
	if err := workflow.Await(ctx, func() bool { return r.state == StateDecided || info.GetContinueAsNewSuggested() }); err != nil {
		return err
	}
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	if r.state != StateDecided {
		r.in.Escalated, r.in.First = r.state == StateEscalated, Deadline{}
		return workflow.NewContinueAsNewError(ctx, WorkflowType, r.in)
	}
	if !in.Case && workflow.GetVersion(ctx, changeRemit, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return nil
	}
	return workflow.ExecuteActivity(withRemit(ctx), activityRemit, in.ClaimID).Get(ctx, nil)
}

// review is the workflow's state; its code runs one coroutine at a time.
type review struct {
	in    Input
	state string
	due   time.Time      // zero while the clock is stopped
	turn  workflow.Mutex // one review is with the claims service at a time

	watch *watch // nil in workflows from before cases
}

func (r *review) get() (*workflowsv1.GetReviewResponse, error) {
	out := &workflowsv1.GetReviewResponse{ClaimId: r.in.ClaimID, State: r.state}
	if !r.due.IsZero() {
		out.DueTime = timestamppb.New(r.due)
	}
	switch {
	case r.watch != nil && r.watch.now != nil:
		out.Deadlines = r.watch.now.GetDeadlines()
	case !r.in.First.Time.IsZero():
		out.Deadlines = []*claimsv1.Deadline{{Kind: r.in.First.Kind, Time: timestamppb.New(r.in.First.Time)}}
	}
	return out, nil
}

// keep has the case kept until the claim is final.
func (r *review) keep(ctx workflow.Context) {
	r.watch = newWatch(ctx, r.in.ClaimID)
	workflow.GoNamed(ctx, "case", func(ctx workflow.Context) {
		r.watch.keep(ctx, r.in.First.Time, func(c *claimsv1.Case) (done bool) {
			r.take(ctx, c)
			return r.state == StateDecided
		})
	})
}

// take notes what the claims service says of the case.
func (r *review) take(ctx workflow.Context, c *claimsv1.Case) {
	was := r.state
	if was == StateDecided {
		return
	}
	now := Review(c)
	r.state = now.GetState()
	if r.state == StateDecided {
		return
	}
	r.due = time.Time{}
	if now.GetDueTime() != nil {
		r.due = now.GetDueTime().AsTime()
	}
	if r.state == StateEscalated && was != StateEscalated {
		r.escalated(ctx)
	}
}

// Review is how a review stands by the claim's case.
func Review(c *claimsv1.Case) *workflowsv1.GetReviewResponse {
	out := &workflowsv1.GetReviewResponse{ClaimId: c.GetClaimId(), State: StateOpen, Deadlines: c.GetDeadlines()}
	switch {
	case Final(c.GetStatus()):
		out.State = StateDecided
		return out
	case c.GetClock().GetStoppedTime() != nil:
		out.State = StateWaiting
	case c.GetTask().GetEscalation() > 0:
		out.State = StateEscalated
	}
	// The clock runs out with the due day, in UTC.
	if day, err := time.Parse(time.DateOnly, c.GetClock().GetDueDate()); err == nil {
		out.DueTime = timestamppb.New(day.Add(24 * time.Hour))
	}
	return out
}

func (r *review) escalated(ctx workflow.Context) {
	workflow.GetMetricsHandler(ctx).Counter("probity_reviews_escalated").Inc(1)
	workflow.GetLogger(ctx).Warn("a pended claim is escalated", "claim_id", r.in.ClaimID, "due_date", r.in.DueDate)
}

// watchClock escalates when the due day begins, unless the claim turns out to
// have been decided meanwhile.
func (r *review) watchClock(ctx workflow.Context, day time.Time) {
	if err := workflow.Sleep(ctx, day.Sub(workflow.Now(ctx))); err != nil || r.state != StateOpen {
		return
	}
	if r.finalNow(ctx) || r.state != StateOpen {
		return
	}
	r.state = StateEscalated
	workflow.GetMetricsHandler(ctx).Counter("probity_reviews_escalated").Inc(1)
	workflow.GetLogger(ctx).Warn("a claim's prompt-pay day has come and it is still pended",
		"claim_id", r.in.ClaimID, "due_date", r.in.DueDate)
}

// validate refuses before anything is written to the history.
func (r *review) validate(_ workflow.Context, q *workflowsv1.ReviewClaimRequest) error {
	invalid := func(field, message string) error {
		return failure.Refuse(problem.Invalid, problem.Problem{RuleID: "review." + field, FieldPath: field, Message: message})
	}
	switch {
	case q.GetClaimId() != r.in.ClaimID:
		return invalid("claim_id", "the review is for another claim")
	case q.GetRequestId() == "" || len(q.GetRequestId()) > maxRequestID:
		return invalid("request_id", "a request id of at most 120 characters is needed")
	case q.GetResolution() != "approve" && q.GetResolution() != "deny":
		return invalid("resolution", `the resolution is "approve" or "deny"`)
	case q.GetReason() == "" || len(q.GetReason()) > 4*maxReason:
		return invalid("reason", "a reason of at most 2,000 characters is needed")
	case q.GetReviewer() == "":
		return invalid("reviewer", "the reviewer is not known")
	case r.state == StateDecided:
		return alreadyDecided()
	}
	return nil
}

func alreadyDecided() error {
	return failure.Refuse(problem.Conflict, problem.Problem{
		RuleID: "review.decided", Message: "the claim is decided already", Fix: "read the claim; nothing is left to review",
	})
}

// handle passes the review on and answers with the claim as it then stands.
func (r *review) handle(ctx workflow.Context, q *workflowsv1.ReviewClaimRequest) (*workflowsv1.ReviewClaimResponse, error) {
	if err := r.turn.Lock(ctx); err != nil {
		return nil, err
	}
	defer r.turn.Unlock()
	if r.state == StateDecided {
		return nil, alreadyDecided()
	}
	var out claimsv1.ResolveClaimResponse
	err := workflow.ExecuteActivity(withResolve(ctx), activityResolve, &claimsv1.ResolveClaimRequest{
		ClaimId: q.GetClaimId(), RequestId: q.GetRequestId(), Resolution: q.GetResolution(),
		Reviewer: q.GetReviewer(), Reason: q.GetReason(),
	}).Get(ctx, &out)
	switch {
	case failure.IsKind(err, problem.Conflict):
		// Perhaps it was decided by another way; then this workflow is over too.
		r.finalNow(ctx)
		return nil, err
	case err != nil:
		return nil, err
	}
	if Final(out.GetClaim().GetStatus()) {
		r.state = StateDecided
	} else if r.watch != nil {
		r.watch.changed = true // an opinion: others must agree
	}
	return &workflowsv1.ReviewClaimResponse{Claim: out.GetClaim()}, nil
}

// finalNow asks the claims service, and ends the workflow if the claim is
// final. While nobody answers the claim counts as open: an escalation too
// many does less harm than one too few.
func (r *review) finalNow(ctx workflow.Context) bool {
	var status claimsv1.ClaimStatus
	if err := workflow.ExecuteActivity(withStatus(ctx), activityStatus, r.in.ClaimID).Get(ctx, &status); err != nil {
		return false
	}
	if Final(status) {
		r.state = StateDecided
	}
	return r.state == StateDecided
}

// Final tells whether a claim of that status waits for nobody.
func Final(s claimsv1.ClaimStatus) bool {
	switch s {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED,
		claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED, claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED:
		return true
	}
	return false
}

// withResolve: what the claims service refuses goes back to the reviewer;
// what is away is asked again for a while, since the review is durable and a
// reviewer who asks again with the same request id meets it here.
func withResolve(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    30 * time.Second,
		ScheduleToCloseTimeout: 10 * time.Minute,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 10 * time.Second,
			NonRetryableErrorTypes: []string{
				string(problem.Invalid), string(problem.NotFound), string(problem.Conflict), string(problem.Forbidden),
			},
		},
	})
}

func withStatus(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout:    30 * time.Second,
		ScheduleToCloseTimeout: 5 * time.Minute,
	})
}

// withRemit: money that is owed is tried for until it is paid.
func withRemit(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second,
			NonRetryableErrorTypes: []string{string(problem.Invalid)},
		},
	})
}
