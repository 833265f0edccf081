package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"

	"github.com/probity-health/probity/e2e/claimgen"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/heap"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
	"github.com/probity-health/probity/workflows/worker"
)

const (
	// workflowBatch is how many workflows of one kind run before the other's turn.
	workflowBatch = 150
	// workflowBatches of each kind, taking turns.
	workflowBatches = 4
	// starters start workflows side by side, as many as the follower does.
	starters = 16
	// straightClaims are decided at once while nobody may touch Temporal.
	straightClaims = 1000
)

// workflows measures what workflows cost, on a stack in this process, so that
// its Temporal server can be asked:
//
//   - the rate at which claims that wait for a person come to wait, from their
//     submission until the server lists their workflow, beside the rate at
//     which an empty workflow starts and ends on the same server; the two take
//     turns in one run;
//   - the rate at which those claims are then reviewed, from the review until
//     the server lists their workflow as ended;
//   - Temporal actions of a file and of claims decided at once, counted in the
//     histories of all workflows that were started meanwhile.
func (b *bench) workflows(ctx context.Context, round int) (err error) {
	dir, err := os.MkdirTemp("", "probity-bench-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tended, stop := context.WithCancel(ctx)
	defer stop()
	go heap.Tend(tended, heap.DefaultFloor()) // as the command has it
	stack, err := standalone.Start(ctx, standalone.Config{DataDir: dir, Listen: "127.0.0.1:0", LogOutput: io.Discard})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.Stop()) }()
	clients, err := stack.As("developer")
	if err != nil {
		return err
	}
	w := &workflowBench{bench: b, stack: stack, clients: clients}
	if err := w.connect(dir); err != nil {
		return err
	}
	defer w.close()
	if err := w.load(ctx); err != nil {
		return err
	}
	b.say(round, "workflows: claims decided at once")
	if err := w.straightThrough(ctx); err != nil {
		return err
	}
	b.say(round, "workflows: %d claims that wait and as many empty workflows, in turns", workflowBatch*workflowBatches)
	stopProfile, err := b.profileCPU(fmt.Sprintf("workflows-%d.pprof", round+1))
	if err != nil {
		return err
	}
	err = w.waiting(ctx)
	stopProfile()
	if err != nil {
		return err
	}
	b.say(round, "workflows: a file of %d claims", b.FileClaims)
	return w.file(ctx)
}

// profileCPU profiles this process, which holds the stack, where asked to.
func (b *bench) profileCPU(name string) (stop func(), err error) {
	if b.Profile == "" {
		return func() {}, nil
	}
	f, err := os.Create(filepath.Join(b.Profile, name))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

type workflowBench struct {
	*bench
	stack    *standalone.Stack
	clients  standalone.Clients
	world    *claimgen.World
	temporal client.Client
	empties  sdkworker.Worker
}

const emptyQueue = "bench-empty"

// waitingClaims are the claims' workflows.
const waitingClaims = "WorkflowType = 'claim'"

// reviewedClaims are those whose workflow has ended.
const reviewedClaims = "WorkflowType = 'claim' AND ExecutionStatus = 'Completed'"

// endedEmpties are the empty workflows that have ended.
const endedEmpties = "WorkflowType = 'bench-empty' AND ExecutionStatus = 'Completed'"

func empty(workflow.Context, []byte) error { return nil }

// connect dials the stack's Temporal as its own worker does, with sealed
// payloads, and starts a worker for the empty workflow.
func (w *workflowBench) connect(dir string) error {
	keys, err := worker.ReadKeys(filepath.Join(dir, "secrets", "workflow-payloads.key"))
	if err != nil {
		return err
	}
	data, failures := worker.Converters(keys)
	w.temporal, err = client.Dial(client.Options{
		HostPort: w.stack.Temporal, Namespace: "probity", DataConverter: data, FailureConverter: failures,
		Logger: quiet{},
	})
	if err != nil {
		return err
	}
	w.empties = sdkworker.New(w.temporal, emptyQueue, sdkworker.Options{BuildID: "bench"}) //nolint:staticcheck // without any the SDK hashes the executable
	w.empties.RegisterWorkflowWithOptions(empty, workflow.RegisterOptions{Name: "bench-empty"})
	return w.empties.Start()
}

func (w *workflowBench) close() {
	w.empties.Stop()
	w.temporal.Close()
}

func (w *workflowBench) load(ctx context.Context) error {
	if _, err := sample.Load(ctx, w.clients.Policies); err != nil {
		return err
	}
	w.world = claimgen.New(1, w.Families, claimgen.Payer{ID: sample.PayerID, Name: "KEYSTONE HEALTH PLAN", PolicyID: "pol_tidewater_gold"}, providers)
	s := &stack{clients: w.clients}
	if err := s.enrol(ctx, w.world); err != nil {
		return err
	}
	claims, err := submissions(w.world.File(9, 1, 9, rpcMonths), "look")
	if err != nil {
		return err
	}
	return s.awaitPlans(ctx, claims[0])
}

// straightThrough counts the actions of claims that are decided in the request
// that brings them. Their events reach the follower too, which must leave
// Temporal alone: it has, once it has started what a claim after them asks for.
func (w *workflowBench) straightThrough(ctx context.Context) error {
	before, err := w.actions(ctx)
	if err != nil {
		return err
	}
	claims, err := submissions(w.world.File(4, straightClaims, 4, rpcMonths), "straight")
	if err != nil {
		return err
	}
	var waited atomic.Int64
	if err := w.submit(ctx, claims, func(c *claimsv1.ClaimSummary) {
		if c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
			waited.Add(1)
		}
	}); err != nil {
		return err
	}
	if waited.Load() > 0 {
		return fmt.Errorf("bench: %d claims wait that should not", waited.Load())
	}
	started, err := w.startedBy(ctx, w.pended(5, 16, "marker"))
	if err != nil {
		return err
	}
	after, err := w.actions(ctx)
	if err != nil {
		return err
	}
	own := 0
	for id := range started {
		own += after[id]
		delete(after, id)
	}
	w.report.Add("straight_through.temporal_actions", float64(sum(after)-sum(before)), "actions per 1,000 claims", Lower)
	w.report.Add("claim_workflow.actions_to_wait", float64(own)/float64(len(started)), "actions", Lower)
	return nil
}

// pended are claims whose charge a person must look at.
func (w *workflowBench) pended(control, n int, prefix string) []*claimsv1.SubmitClaimRequest {
	claims, err := submissions(w.world.File(uint64(control), n, control, rpcMonths.AddDate(0, 0, -60*(control%2))), prefix)
	if err != nil {
		return nil
	}
	for _, c := range claims {
		l := c.Claim.Lines[0]
		c.Claim.ChargeCents += 600_000 - l.ChargeCents
		l.ChargeCents = 600_000
	}
	return claims
}

// startedBy submits claims that wait and returns the ids of their workflows
// once each has been started.
func (w *workflowBench) startedBy(ctx context.Context, claims []*claimsv1.SubmitClaimRequest) (map[string]bool, error) {
	ids := make(chan string, len(claims))
	if err := w.submit(ctx, claims, func(c *claimsv1.ClaimSummary) {
		if c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
			ids <- "claim:" + c.GetClaimId()
		}
	}); err != nil {
		return nil, err
	}
	if len(ids) != len(claims) || len(claims) == 0 {
		return nil, fmt.Errorf("bench: of %d claims for a person %d wait", len(claims), len(ids))
	}
	out := map[string]bool{}
	for range claims {
		id := <-ids
		if err := until(ctx, "the claim's workflow is started", func() (bool, error) {
			d, err := w.temporal.DescribeWorkflowExecution(ctx, id, "")
			return err == nil && d.GetWorkflowExecutionInfo().GetHistoryLength() > 0, nil
		}); err != nil {
			return nil, err
		}
		out[id] = true
	}
	return out, nil
}

// submit sends claims, sixteen at a time.
func (w *workflowBench) submit(ctx context.Context, claims []*claimsv1.SubmitClaimRequest, each func(*claimsv1.ClaimSummary)) error {
	var g errgroup.Group
	g.SetLimit(starters)
	for _, c := range claims {
		g.Go(func() error {
			res, err := w.clients.Claims.SubmitClaim(ctx, c)
			switch {
			case err != nil:
				return err
			case len(res.GetProblems()) > 0:
				return fmt.Errorf("bench: a generated claim is refused: %s", res.GetProblems()[0].GetRuleId())
			}
			each(res.GetClaim())
			return nil
		})
	}
	return g.Wait()
}

// waiting takes turns between claims that wait and empty workflows. Each turn
// is at its end when the server's lists show every workflow of the turn as it
// then stays: what it still writes to them would otherwise fall on the other
// kind's turn. Both ends are looked for in one way, for looking costs too.
func (w *workflowBench) waiting(ctx context.Context) error {
	var claimTook, emptyTook, reviewTook time.Duration
	for batch := range workflowBatches {
		claims := w.pended(10+batch, workflowBatch, fmt.Sprint("waits-", batch))
		if len(claims) != workflowBatch {
			return errors.New("bench: the claims that wait could not be made")
		}
		listed, err := w.listed(ctx, waitingClaims)
		if err != nil {
			return err
		}
		began := time.Now()
		ids := make(chan string, len(claims))
		if err := w.submit(ctx, claims, func(c *claimsv1.ClaimSummary) { ids <- c.GetClaimId() }); err != nil {
			return err
		}
		close(ids)
		if err := w.awaitListed(ctx, waitingClaims, listed, began); err != nil {
			return err
		}
		claimTook += time.Since(began)

		began = time.Now()
		var g errgroup.Group
		g.SetLimit(starters)
		for range workflowBatch {
			g.Go(func() error {
				_, err := w.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
					ID: "bench:" + uuid.NewString(), TaskQueue: emptyQueue, EnableEagerStart: true,
					WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
				}, "bench-empty", make([]byte, 64))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if err := w.awaitListed(ctx, endedEmpties, int64(batch*workflowBatch), began); err != nil {
			return err
		}
		emptyTook += time.Since(began)

		began = time.Now()
		if err := w.review(ctx, ids); err != nil {
			return err
		}
		if err := w.awaitListed(ctx, reviewedClaims, int64(batch*workflowBatch), began); err != nil {
			return err
		}
		reviewTook += time.Since(began)
	}
	n := float64(workflowBatch * workflowBatches)
	w.report.Add("claim_workflow.rate", n/claimTook.Seconds(), "claims/s", Higher)
	w.report.Add("claim_workflow.empty_rate", n/emptyTook.Seconds(), "workflows/s", Higher)
	w.report.Add("claim_workflow.vs_empty", emptyTook.Seconds()/claimTook.Seconds(), "share", Higher)
	w.report.Add("claim_workflow.review_rate", n/reviewTook.Seconds(), "reviews/s", Higher)
	return nil
}

// review denies the claims, sixteen reviews at a time.
func (w *workflowBench) review(ctx context.Context, ids <-chan string) error {
	var g errgroup.Group
	g.SetLimit(starters)
	for id := range ids {
		g.Go(func() error {
			res, err := w.clients.Workflows.ReviewClaim(ctx, &workflowsv1.ReviewClaimRequest{
				ClaimId: id, RequestId: "bench-review", Resolution: "deny", Reason: "measured",
			})
			if s := res.GetClaim().GetStatus(); err == nil && s != claimsv1.ClaimStatus_CLAIM_STATUS_DENIED {
				return fmt.Errorf("bench: a reviewed claim stands at %v", s)
			}
			return err
		})
	}
	return g.Wait()
}

// awaitListed waits until the server's lists show a whole batch more than
// before it. Looking costs the server what a workflow costs it, so the next
// look is when half of what is missing should be there.
func (w *workflowBench) awaitListed(ctx context.Context, query string, before int64, began time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	for {
		shown, err := w.listed(ctx, query)
		if err != nil {
			return err
		}
		missing := workflowBatch - (shown - before)
		if missing <= 0 {
			return nil
		}
		pause := time.Since(began) * time.Duration(missing) / time.Duration(2*(workflowBatch-missing)+1)
		select {
		case <-ctx.Done():
			return fmt.Errorf("bench: %d workflows of a batch are not listed", missing)
		case <-time.After(min(max(pause, 10*time.Millisecond), time.Second)):
		}
	}
}

// listed is how many workflows the server's lists show for a query.
func (w *workflowBench) listed(ctx context.Context, query string) (int64, error) {
	n, err := w.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: query})
	return n.GetCount(), err
}

// file counts the actions of one file, of whichever workflows.
func (w *workflowBench) file(ctx context.Context) error {
	before, err := w.actions(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	submitted, err := standalone.Submit(ctx, w.clients.Gateway, w.world.File(3, w.FileClaims, 3, fileMonths))
	if err != nil {
		return err
	}
	if err := until(ctx, "the file is complete", func() (bool, error) {
		p, err := w.clients.Workflows.GetFileProgress(ctx, &workflowsv1.GetFileProgressRequest{FileId: submitted.GetFile().GetFileId()})
		return p.GetComplete(), err
	}); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := w.actions(ctx)
	if err != nil {
		return err
	}
	n := float64(w.FileClaims)
	w.report.Add("file.claims", n, "claims", Higher)
	w.report.Add("file.actions_per_1000_claims", 1000*float64(sum(after)-sum(before))/n, "actions", Lower)
	w.report.Add("file.rate", n/took.Seconds(), "claims/s", Higher)
	return nil
}

// actions counts what each workflow on the server has cost, by its id, from
// its histories.
func (w *workflowBench) actions(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	var token []byte
	for {
		page, err := w.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1000, NextPageToken: token})
		if err != nil {
			return nil, err
		}
		for _, x := range page.GetExecutions() {
			if x.GetType().GetName() == "bench-empty" {
				continue
			}
			history := w.temporal.GetWorkflowHistory(ctx, x.GetExecution().GetWorkflowId(), x.GetExecution().GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
			for history.HasNext() {
				e, err := history.Next()
				if err != nil {
					return nil, err
				}
				out[x.GetExecution().GetWorkflowId()] += cost(e)
			}
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			return out, nil
		}
	}
}

func sum(m map[string]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}

// until asks every few milliseconds, for some minutes at most.
func until(ctx context.Context, what string, yes func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	for {
		done, err := yes()
		if err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bench: waited in vain: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
