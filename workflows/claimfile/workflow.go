// Package claimfile carries one file of claims from receipt to remittance.
//
// One workflow a file, "file:<file id>". It cuts the file into spans of
// ordinals, has a few decided at a time, and when every claim has an outcome
// has the remittances made and the file marked complete. It holds counts and
// ordinals only: the claims stay with the services. Every step may be
// repeated, because the services recognise what they have done by file and
// ordinal; so a crash anywhere costs time, never a second decision.
package claimfile

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/failure"
)

// Names by which Temporal knows the parts. Renaming one strands open workflows.
const (
	WorkflowType  = "claimfile"
	QueryProgress = "progress"

	activityLoad     = "file.load"
	activityDecide   = "file.decide"
	activityRemit    = "file.remit"
	activityComplete = "file.complete"
)

// Stages of GetFileProgressResponse.
const (
	StageWaiting   = "waiting"
	StageDeciding  = "deciding"
	StageRemitting = "remitting"
	StageComplete  = "complete"
	StageRefused   = "refused"
	StageStalled   = "stalled"
	StageCanceling = "canceling"
	StageCanceled  = "canceled"
)

const (
	// chunkClaims go into one RPC: enough to share its cost, few enough to
	// finish in a second and to repeat without regret. The RPC's limit is 500.
	chunkClaims = 250
	// spansPerFile bounds a file's activities: a larger file has longer spans
	// instead of a longer history.
	spansPerFile = 64
	// window is how many spans are decided at once. More would only queue at
	// the claims service, and one large file must leave room for others.
	window = 4
)

// WorkflowID is the id of a file's workflow: opaque, as the file's id is.
func WorkflowID(fileID string) string { return "file:" + fileID }

// Input starts the workflow, and carries it over when its history has grown long.
type Input struct {
	FileID string
	// The rest is set when continuing.
	Claims  uint32 `json:",omitempty"`
	Next    uint32 `json:",omitempty"` // every ordinal below has an outcome or is in Refused
	Tally   Tally  `json:",omitzero"`
	Refused []Span `json:",omitempty"`
	// Canceled: the file's cancel was asked for, so nothing more is begun.
	Canceled bool `json:",omitempty"`
}

// Tally counts outcomes.
type Tally struct {
	Done, Paid, Denied, Pended, Rejected uint32
}

func (t Tally) plus(o Tally) Tally {
	return Tally{t.Done + o.Done, t.Paid + o.Paid, t.Denied + o.Denied, t.Pended + o.Pended, t.Rejected + o.Rejected}
}

// Decided is what an activity has done of a span: all of it, or, where the
// file was canceled meanwhile, what had been begun.
type Decided struct {
	Tally
	Canceled bool `json:",omitempty"`
}

// Span is a run of ordinals [First, First+Count) that one activity has decided.
type Span struct {
	FileID       string
	First, Count uint32
}

// spanClaims is the length of a file's spans: a chunk, or as many as keep the
// number of spans bounded.
func spanClaims(claims uint32) uint32 {
	chunks := (claims + chunkClaims - 1) / chunkClaims
	return max(1, (chunks+spansPerFile-1)/spansPerFile) * chunkClaims
}

// Workflow brings a file to its end. It fails only when a service calls some
// span invalid, which is a defect of ours: the rest is decided all the same,
// nothing is remitted, and a follower that reads the log from its beginning
// tries again.
//
// A canceled file ends here too. That it is canceled is a fact of the file and
// not of this workflow: loading says so, and so does every chunk, so a cancel
// needs no message to get here and is met though Temporal was away when it was
// asked for. What was begun is brought to its end and remitted, and closing the
// file lists the rest as not processed.
func Workflow(ctx workflow.Context, in Input) error {
	f := &file{in: in, stage: StageWaiting}
	if err := workflow.SetQueryHandler(ctx, QueryProgress, f.progress); err != nil {
		return err
	}
	if f.in.Claims == 0 {
		var loaded Loaded
		if err := workflow.ExecuteActivity(withStep(ctx), activityLoad, in.FileID).Get(ctx, &loaded); err != nil {
			f.stage = StageStalled
			return err
		}
		switch {
		case loaded.Refused:
			f.stage = StageRefused
			return nil
		case loaded.Complete:
			f.in.Claims, f.in.Tally.Done = loaded.Claims, loaded.Claims
			f.remittances, f.stage = loaded.Remittances, StageComplete
			return nil
		}
		f.in.Claims, f.in.Canceled = loaded.Claims, loaded.Canceled
	}

	if !f.in.Canceled {
		f.stage = StageDeciding
		more, err := f.decide(ctx)
		if err != nil {
			return err
		}
		if more {
			return workflow.NewContinueAsNewError(ctx, WorkflowType, f.in)
		}
	}
	if f.in.Canceled {
		return f.close(ctx, StageCanceling, StageCanceled)
	}
	if len(f.in.Refused) > 0 {
		f.stage = StageStalled
		workflow.GetMetricsHandler(ctx).Counter("probity_files_stalled").Inc(1)
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("%d spans from ordinal %d on were refused as invalid", len(f.in.Refused), f.in.Refused[0].First), "file.span-refused", nil)
	}

	return f.close(ctx, StageRemitting, StageComplete)
}

// close has remitted what is decided and the file marked complete, or, after
// a cancel, closed.
func (f *file) close(ctx workflow.Context, now, then string) error {
	f.stage = now
	if err := workflow.ExecuteActivity(withStep(ctx), activityRemit, f.in.FileID).Get(ctx, &f.remittances); err != nil {
		f.stage = StageStalled
		return err
	}
	if err := workflow.ExecuteActivity(withStep(ctx), activityComplete, f.in.FileID, f.remittances).Get(ctx, nil); err != nil {
		f.stage = StageStalled
		return err
	}
	f.stage = then
	return nil
}

// file is one run's state; workflow code runs one coroutine at a time, so it needs no lock.
type file struct {
	in          Input
	stage       string
	remittances []string
}

func (f *file) progress() (*workflowsv1.GetFileProgressResponse, error) {
	t := f.in.Tally
	return &workflowsv1.GetFileProgressResponse{
		ClaimCount: f.in.Claims, Done: t.Done, Paid: t.Paid, Denied: t.Denied, Pended: t.Pended, Rejected: t.Rejected,
		Complete: f.stage == StageComplete || f.stage == StageCanceled, RemittanceIds: f.remittances, Stage: f.stage,
	}, nil
}

// decide slides a window of spans over the file. When Temporal suggests a
// fresh history it lets the window run empty, so that Next says it all, and
// returns true. A span refused as invalid is noted; its neighbours go on. A
// span that finds the file canceled is the last: the window runs empty.
func (f *file) decide(ctx workflow.Context) (more bool, err error) {
	info, size := workflow.GetInfo(ctx), spanClaims(f.in.Claims)
	ctx = withDecide(ctx)
	next, inFlight, draining := f.in.Next, 0, false
	selector := workflow.NewSelector(ctx)
	launch := func(s Span) {
		inFlight++
		selector.AddFuture(workflow.ExecuteActivity(ctx, activityDecide, s), func(done workflow.Future) {
			inFlight--
			var d Decided
			switch spanErr := done.Get(ctx, &d); {
			case spanErr == nil:
				f.in.Tally = f.in.Tally.plus(d.Tally)
				f.in.Canceled = f.in.Canceled || d.Canceled
			case failure.IsKind(spanErr, problem.Invalid):
				f.in.Refused = append(f.in.Refused, s)
				workflow.GetLogger(ctx).Error("a span of a file was refused as invalid",
					"first_ordinal", s.First, "count", s.Count)
			case err == nil:
				err = spanErr
			}
		})
	}
	for {
		draining = draining || err != nil || f.in.Canceled || info.GetContinueAsNewSuggested()
		for inFlight < window && next < f.in.Claims && !draining {
			count := min(size, f.in.Claims-next)
			launch(Span{FileID: f.in.FileID, First: next, Count: count})
			next += count
		}
		if inFlight == 0 {
			f.in.Next = next
			return next < f.in.Claims && !f.in.Canceled, err
		}
		selector.Select(ctx)
	}
}

// withDecide: a span is repeated until it succeeds, whatever is away and for
// however long; only what the gateway calls invalid is not. The heartbeat
// tells within seconds that a worker died, and carries how far it had come.
func withDecide(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Hour,
		HeartbeatTimeout:    heartbeatTimeout,
		RetryPolicy:         retry(problem.Invalid),
	})
}

// withStep: loading, remitting and completing are single calls, of which
// remitting a large file takes long. Without a heartbeat a worker that died
// at it would be waited for as long as the call may take.
func withStep(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 2 * time.Minute,
		HeartbeatTimeout:    heartbeatTimeout,
		RetryPolicy:         retry(problem.Invalid),
	})
}

func retry(never ...problem.Kind) *temporal.RetryPolicy {
	p := &temporal.RetryPolicy{InitialInterval: 500 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second}
	for _, kind := range never {
		p.NonRetryableErrorTypes = append(p.NonRetryableErrorTypes, string(kind))
	}
	return p
}
