package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/standalone/embedded"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/follower"
	"github.com/probity-health/probity/workflows/hook"
	"github.com/probity-health/probity/workflows/service"
	"github.com/probity-health/probity/workflows/worker"
)

const (
	fileID   = "fil_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	claimID  = "clm_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	appealID = "apl_aaaaaaaaaaaaaaaaaaaaaaaaaa"
)

// installation is every service the workflows call, with one file and one pended claim.
type installation struct {
	mu       sync.Mutex
	claims   uint32
	decided  map[uint32]int
	holdAt   uint32        // the chunk from this ordinal on waits
	reached  chan struct{} // closed when it is asked for
	release  chan struct{} // closed to let it through
	once     sync.Once
	complete bool
	canceled bool // the file's cancel was asked for
	status   claimsv1.ClaimStatus
	resolved int
	appeal   claimsv1.AppealState
	advanced map[string][]time.Time // when each case was asked about
}

func newInstallation(claims uint32) *installation {
	i := &installation{
		claims: claims, decided: map[uint32]int{}, holdAt: claims + 1,
		reached: make(chan struct{}), release: make(chan struct{}), advanced: map[string][]time.Time{}, status: claimsv1.ClaimStatus_CLAIM_STATUS_PENDED,
	}
	return i
}

func (i *installation) AdjudicateChunk(ctx context.Context, q *gatewayv1.AdjudicateChunkRequest) (*gatewayv1.AdjudicateChunkResponse, error) {
	if q.GetFirstOrdinal() >= i.holdAt {
		i.once.Do(func() { close(i.reached) })
		select {
		case <-i.release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.canceled && !q.GetFinish() {
		return &gatewayv1.AdjudicateChunkResponse{Canceled: true}, nil
	}
	for n := range q.GetCount() {
		i.decided[q.GetFirstOrdinal()+n]++
	}
	return &gatewayv1.AdjudicateChunkResponse{Paid: q.GetCount()}, nil
}

func (i *installation) GetFile(context.Context, *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f := &claimsv1.File{FileId: fileID, SubmitterOrg: "prov", ClaimCount: i.claims, State: claimsv1.FileState_FILE_STATE_PROCESSING, PaidCount: uint32(len(i.decided))}
	switch {
	case i.complete && i.canceled:
		f.State, f.OutcomeCount, f.NotProcessedCount = claimsv1.FileState_FILE_STATE_CANCELED, i.claims, i.claims-uint32(len(i.decided))
	case i.complete:
		f.State, f.OutcomeCount = claimsv1.FileState_FILE_STATE_COMPLETE, i.claims
	case i.canceled:
		f.State = claimsv1.FileState_FILE_STATE_CANCELING
	}
	return &claimsv1.GetFileResponse{File: f}, nil
}

func (i *installation) CreateRemittances(context.Context, *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error) {
	return &claimsv1.CreateRemittancesResponse{Remittances: []*claimsv1.Remittance{{RemittanceId: "rem_1"}}}, nil
}

func (i *installation) CompleteFile(context.Context, *claimsv1.CompleteFileRequest) (*claimsv1.CompleteFileResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.complete = true
	return &claimsv1.CompleteFileResponse{}, nil
}

func (i *installation) summary() *claimsv1.ClaimSummary {
	return &claimsv1.ClaimSummary{ClaimId: claimID, Status: i.status, SubmitterOrg: "prov", PayerId: "payer"}
}

func (i *installation) GetClaim(context.Context, *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return &claimsv1.GetClaimResponse{Claim: i.summary()}, nil
}

func (i *installation) ResolveClaim(_ context.Context, q *claimsv1.ResolveClaimRequest) (*claimsv1.ResolveClaimResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if q.GetRequestId() == "refused" {
		return nil, problem.New(problem.Forbidden, problem.Problem{RuleID: "test.refused", Message: "not now", Fix: "MARKER-FIX"})
	}
	i.resolved++
	i.status = claimsv1.ClaimStatus_CLAIM_STATUS_PAID
	return &claimsv1.ResolveClaimResponse{Claim: i.summary()}, nil
}

// AdvanceCase has nothing to do before the prompt-pay day. The appeal is open
// until it is overturned.
func (i *installation) AdvanceCase(_ context.Context, q *claimsv1.AdvanceCaseRequest) (*claimsv1.AdvanceCaseResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.advanced[q.GetClaimId()] = append(i.advanced[q.GetClaimId()], time.Now())
	return &claimsv1.AdvanceCaseResponse{Case: i.caseNow(), Now: timestamppb.Now()}, nil
}

func (i *installation) GetCase(context.Context, *claimsv1.GetCaseRequest) (*claimsv1.GetCaseResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return &claimsv1.GetCaseResponse{Case: i.caseNow()}, nil
}

func (i *installation) caseNow() *claimsv1.Case {
	day := time.Date(2099, 12, 21, 0, 0, 0, 0, time.UTC)
	out := &claimsv1.Case{ClaimId: claimID, Status: i.status, Deadlines: []*claimsv1.Deadline{{Kind: "escalation", Time: timestamppb.New(day.AddDate(0, 0, -5))}}}
	if i.status == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		out.Clock = &claimsv1.PromptPayClock{DueDate: day.Format(time.DateOnly)}
	}
	if i.appeal != 0 {
		out.Appeals = []*claimsv1.Appeal{{AppealId: appealID, State: i.appeal}}
	}
	return out
}

var testKeys = worker.Keys{Current: [32]byte{1, 2, 3}}

func dialSealed(t *testing.T, server *embedded.Temporal) client.Client {
	t.Helper()
	c, err := worker.Dial(worker.Connection{HostPort: server.HostPort(), Namespace: embedded.Namespace, Keys: testKeys})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func startWorker(t *testing.T, c client.Client, i *installation) *worker.Worker {
	t.Helper()
	w := worker.New(worker.Deps{Temporal: c, Gateway: i, Files: i, Remittances: i, Claims: i, Cases: i})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	return w
}

func newService(t *testing.T, c client.Client, i *installation) *service.Service {
	t.Helper()
	authorizer, err := identity.NewAuthorizer()
	require.NoError(t, err)
	return service.New(service.Deps{Temporal: c, TaskQueue: worker.TaskQueue, Files: i, Claims: i, Cases: i, Authorizer: authorizer})
}

func TestAFileGoesOnWithAnotherWorkerWhereTheFirstStopped(t *testing.T) {
	// Given a file half of whose claims are decided when its worker stops in the middle of a chunk.
	ctx := testContext(t)
	server := startTemporal(t, t.TempDir())
	c := dialSealed(t, server)
	i := newInstallation(2_100)
	i.holdAt = 1_000
	starter := follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}
	w := startWorker(t, c, i)
	require.NoError(t, starter.Start(ctx, claimfile.Start(fileID)))
	require.NoError(t, starter.Start(ctx, claimfile.Start(fileID)), "starting twice is starting once")
	<-i.reached
	svc := newService(t, c, i)
	asBiller := identity.WithPrincipal(ctx, identity.Principal{Subject: "biller", Org: "prov", Roles: []identity.Role{identity.RoleSubmitter}})
	require.Eventually(t, func() bool {
		p, err := svc.GetFileProgress(asBiller, &workflowsv1.GetFileProgressRequest{FileId: fileID})
		return err == nil && p.GetDone() == 1_000 && p.GetStage() == claimfile.StageDeciding && p.GetClaimCount() == 2_100
	}, 20*time.Second, 20*time.Millisecond)
	stopped := make(chan struct{})
	go func() { w.Stop(); close(stopped) }()

	// When another worker takes over, on another connection.
	c2 := dialSealed(t, server)
	startWorker(t, c2, i)
	close(i.release)
	<-stopped

	// Then the file is completed, every claim decided, and starting it again does nothing.
	require.NoError(t, c2.GetWorkflow(ctx, claimfile.WorkflowID(fileID), "").Get(ctx, nil))
	require.Len(t, i.decided, 2_100)
	require.True(t, i.complete)
	p, err := newService(t, c2, i).GetFileProgress(asBiller, &workflowsv1.GetFileProgressRequest{FileId: fileID})
	require.NoError(t, err)
	require.Equal(t, claimfile.StageComplete, p.GetStage())
	require.EqualValues(t, 2_100, p.GetPaid())
	require.NoError(t, follower.Temporal{Client: c2, TaskQueue: worker.TaskQueue}.Start(ctx, claimfile.Start(fileID)))
	_, err = svc.GetFileProgress(identity.WithPrincipal(ctx, identity.Principal{Subject: "x", Org: "other", Roles: []identity.Role{identity.RoleSubmitter}}),
		&workflowsv1.GetFileProgressRequest{FileId: fileID})
	require.True(t, problem.Is(err, problem.Forbidden), "another organisation's file isn't shown: %v", err)
	record(t, ctx, c2, claimfile.WorkflowID(fileID), "claimfile.json")
}

// A file's workflow is stopped in Temporal itself, where nobody asked the file's
// record: its sender has it resumed, and nothing is decided twice.
func TestAFileWhoseWorkflowWasStoppedIsResumed(t *testing.T) {
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	i := newInstallation(2_100)
	i.holdAt = 1_000
	startWorker(t, c, i)
	require.NoError(t, follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}.Start(ctx, claimfile.Start(fileID)))
	<-i.reached
	svc := newService(t, c, i)
	asBiller := identity.WithPrincipal(ctx, identity.Principal{Subject: "biller", Org: "prov", Roles: []identity.Role{identity.RoleSubmitter}})
	resume := func(ctx context.Context) (bool, error) {
		r, err := svc.ResumeFile(ctx, &workflowsv1.ResumeFileRequest{FileId: fileID})
		return r.GetStarted(), err
	}
	started, err := resume(asBiller)
	require.NoError(t, err)
	require.False(t, started, "it is being worked on")
	_, err = resume(identity.WithPrincipal(ctx, identity.Principal{Subject: "x", Org: "other", Roles: []identity.Role{identity.RoleSubmitter}}))
	require.True(t, problem.Is(err, problem.Forbidden), "%v", err)

	require.NoError(t, c.TerminateWorkflow(ctx, claimfile.WorkflowID(fileID), "", "by hand"))
	started, err = resume(asBiller)
	require.NoError(t, err)
	require.True(t, started)
	close(i.release)
	require.NoError(t, c.GetWorkflow(ctx, claimfile.WorkflowID(fileID), "").Get(ctx, nil))
	require.Len(t, i.decided, 2_100)
	_, err = resume(asBiller)
	require.True(t, problem.Is(err, problem.Conflict), "it is complete: %v", err)
}

func TestACanceledFileComesToItsEnd(t *testing.T) {
	// Given a file that is canceled while a chunk of it is with the gateway.
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	i := newInstallation(5_000)
	i.holdAt = 1_500
	startWorker(t, c, i)
	starter := follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}
	require.NoError(t, starter.Start(ctx, claimfile.Start(fileID)))
	<-i.reached
	i.mu.Lock()
	i.canceled = true
	i.mu.Unlock()
	close(i.release)

	// Then the workflow ends by itself, and its progress says what was left.
	require.NoError(t, c.GetWorkflow(ctx, claimfile.WorkflowID(fileID), "").Get(ctx, nil))
	asBiller := identity.WithPrincipal(ctx, identity.Principal{Subject: "biller", Org: "prov", Roles: []identity.Role{identity.RoleSubmitter}})
	p, err := newService(t, c, i).GetFileProgress(asBiller, &workflowsv1.GetFileProgressRequest{FileId: fileID})
	require.NoError(t, err)
	require.Equal(t, claimfile.StageCanceled, p.GetStage())
	require.True(t, p.GetComplete())
	require.Less(t, p.GetPaid(), uint32(5_000))
	require.EqualValues(t, 5_000, p.GetPaid()+p.GetNotProcessed())
	// The follower meets the cancel on the log afterwards, and again: nothing is left to do.
	require.NoError(t, starter.Start(ctx, claimfile.Start(fileID)))
	record(t, ctx, c, claimfile.WorkflowID(fileID), "claimfile-canceled.json")
}

func TestAReviewerDecidesAPendedClaimOnce(t *testing.T) {
	ctx := testContext(t)
	dir := t.TempDir()
	server := startTemporal(t, dir)
	c := dialSealed(t, server)
	i := newInstallation(0)
	startWorker(t, c, i)
	starter := follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}
	require.NoError(t, starter.Start(ctx, claim.Start(claimID, "2099-12-21")))
	svc := newService(t, c, i)
	reviewer := identity.WithPrincipal(ctx, identity.Principal{
		Subject: "rev-7", Org: "payer-org", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"payer"},
	})
	review := func(ctx context.Context, id, reason string) (*workflowsv1.ReviewClaimResponse, error) {
		return svc.ReviewClaim(ctx, &workflowsv1.ReviewClaimRequest{ClaimId: claimID, RequestId: id, Resolution: "approve", Reason: reason})
	}

	// Given the review is open, and refusals reach the reviewer in the services' words.
	var open *workflowsv1.GetReviewResponse
	require.Eventually(t, func() bool {
		var err error
		open, err = svc.GetReview(reviewer, &workflowsv1.GetReviewRequest{ClaimId: claimID})
		return err == nil && len(open.GetDeadlines()) == 1
	}, 20*time.Second, 20*time.Millisecond, "what is waited for shows")
	require.Equal(t, claim.StateOpen, open.GetState())
	require.Equal(t, time.Date(2099, 12, 22, 0, 0, 0, 0, time.UTC), open.GetDueTime().AsTime())
	_, err := review(reviewer, "refused", "MARKER-REASON")
	p := problem.As(err)
	require.Equal(t, problem.Forbidden, p.Kind, err)
	require.Equal(t, []problem.Problem{{RuleID: "test.refused", Message: "not now", Fix: "MARKER-FIX"}}, p.Problems)
	_, err = review(reviewer, "r0", "")
	require.Equal(t, problem.Invalid, problem.As(err).Kind, "the workflow's own refusal")
	biller := identity.WithPrincipal(ctx, identity.Principal{Subject: "b", Org: "prov", Roles: []identity.Role{identity.RoleSubmitter}})
	_, err = review(biller, "r0", "please")
	require.Equal(t, problem.Forbidden, problem.As(err).Kind, "a submitter doesn't review its own claim")

	// When the reviewer approves, then the answer is the decision, and asking again repeats it.
	for range 2 {
		answer, err := review(reviewer, "r1", "MARKER-REASON")
		require.NoError(t, err)
		require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, answer.GetClaim().GetStatus())
	}
	require.NoError(t, c.GetWorkflow(ctx, claim.WorkflowID(claimID), "").Get(ctx, nil))
	_, err = review(reviewer, "r2", "another")
	require.Equal(t, problem.Conflict, problem.As(err).Kind, err)
	answer, err := review(reviewer, "r1", "MARKER-REASON")
	require.NoError(t, err, "also after the workflow's end")
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, answer.GetClaim().GetStatus())
	require.Equal(t, 1, i.resolved)
	decided, err := svc.GetReview(reviewer, &workflowsv1.GetReviewRequest{ClaimId: claimID})
	require.NoError(t, err)
	require.Equal(t, claim.StateDecided, decided.GetState())

	// And the follower's late messages are no trouble.
	require.NoError(t, starter.Start(ctx, claim.Start(claimID, "2099-12-21")))
	require.NoError(t, starter.Tell(ctx, claim.Decided(claimID)))
	require.NoError(t, starter.Tell(ctx, claim.Decided("clm_unknown")))
	record(t, ctx, c, claim.WorkflowID(claimID), "claim-case-unversioned.json")

	// And nothing of the review is in clear on the server's disk.
	c.Close()
	require.NoError(t, server.Stop())
	files, err := filepath.Glob(filepath.Join(dir, "temporal.db*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		raw, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, secret := range []string{"MARKER-REASON", "rev-7", "not now", "test.refused"} {
			require.False(t, bytes.Contains(raw, []byte(secret)), "%s is in clear in %s", secret, filepath.Base(name))
		}
	}
}

// first is a start that knows what its claim's case first waits for, years off.
func first(claimID string) hook.Start {
	start := claim.Start(claimID, "2099-12-21")
	start.Idle = time.Date(2099, 12, 16, 0, 0, 0, 0, time.UTC)
	in := start.Input.(claim.Input)
	in.First = claim.Deadline{Kind: "escalation", Time: start.Idle}
	start.Input = in
	return start
}

// Nothing of a claim's workflow runs before its deadline but what is asked of
// it or told it.
func TestAClaimThatWaitsHasNoTaskBeforeItsDeadline(t *testing.T) {
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	i := newInstallation(0)
	startWorker(t, c, i)
	starter := follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}
	events := func(id string) []enumspb.EventType {
		var out []enumspb.EventType
		for _, e := range history(t, ctx, c, claim.WorkflowID(id)).GetEvents() {
			out = append(out, e.GetEventType())
		}
		return out
	}
	ends := func(id string) {
		require.NoError(t, c.GetWorkflow(ctx, claim.WorkflowID(id), "").Get(ctx, nil))
	}
	const reviewed, changed, decided, due = "clm_rrrrrrrrrrrrrrrrrrrrrrrrrr", "clm_cccccccccccccccccccccccccc", "clm_dddddddddddddddddddddddddd", "clm_eeeeeeeeeeeeeeeeeeeeeeeeee"
	for _, id := range []string{reviewed, changed, decided} {
		for range 2 {
			require.NoError(t, starter.Start(ctx, first(id)), "starting twice is starting once")
		}
		require.Equal(t, []enumspb.EventType{enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED}, events(id))
	}
	// One that is due soon is no trouble to a worker.
	soon := first(due)
	soon.Idle = time.Now().Add(time.Minute)
	require.NoError(t, starter.Start(ctx, soon))
	require.Eventually(t, func() bool { return len(events(due)) > 3 }, 20*time.Second, 10*time.Millisecond)

	// Its case tells how the review stands.
	svc := newService(t, c, i)
	reviewer := identity.WithPrincipal(ctx, identity.Principal{Subject: "rev-7", Org: "payer-org", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"payer"}})
	open, err := svc.GetReview(reviewer, &workflowsv1.GetReviewRequest{ClaimId: reviewed})
	require.NoError(t, err)
	require.Equal(t, claim.StateOpen, open.GetState())
	require.Equal(t, "escalation", open.GetDeadlines()[0].GetKind())

	// A change is looked at when it is told, then the deadline is waited for.
	require.NoError(t, starter.Tell(ctx, claim.Changed(changed)))
	require.Eventually(t, func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return len(i.advanced[changed]) == 1
	}, 20*time.Second, 10*time.Millisecond)
	// A decision elsewhere ends it.
	require.NoError(t, starter.Tell(ctx, claim.Decided(decided)))
	ends(decided)
	// So does a review.
	_, err = svc.ReviewClaim(reviewer, &workflowsv1.ReviewClaimRequest{ClaimId: reviewed, RequestId: "r1", Resolution: "approve", Reason: "seen"})
	require.NoError(t, err)
	ends(reviewed)
	for _, id := range []string{reviewed, decided} {
		require.NoError(t, starter.Tell(ctx, claim.Changed(id)), "a late message is no trouble")
		require.Equal(t, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, events(id)[len(events(id))-1])
	}
	record(t, ctx, c, claim.WorkflowID(reviewed), "claim-delayed.json")
	i.mu.Lock()
	defer i.mu.Unlock()
	require.Empty(t, i.advanced[reviewed])
	require.Empty(t, i.advanced[decided])
}

// The claim's decision said what its case first waits for: nobody is asked
// before something changes. This is the history of one that was not delayed.
func TestAClaimWhoseStartKnowsItsDeadlineAsksNobodyBefore(t *testing.T) {
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	i := newInstallation(0)
	startWorker(t, c, i)
	starter := follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}
	start := first(claimID)
	start.Idle = time.Time{}
	require.NoError(t, starter.Start(ctx, start))
	svc := newService(t, c, i)
	reviewer := identity.WithPrincipal(ctx, identity.Principal{Subject: "rev-7", Org: "payer-org", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"payer"}})
	asked := func() int {
		i.mu.Lock()
		defer i.mu.Unlock()
		return len(i.advanced[claimID])
	}
	open, err := svc.GetReview(reviewer, &workflowsv1.GetReviewRequest{ClaimId: claimID})
	require.NoError(t, err)
	require.Len(t, open.GetDeadlines(), 1)
	require.Equal(t, "escalation", open.GetDeadlines()[0].GetKind())
	require.Zero(t, asked())
	require.NoError(t, starter.Tell(ctx, claim.Changed(claimID)))
	require.Eventually(t, func() bool { return asked() == 1 }, 20*time.Second, 10*time.Millisecond)
	_, err = svc.ReviewClaim(reviewer, &workflowsv1.ReviewClaimRequest{ClaimId: claimID, RequestId: "r1", Resolution: "approve", Reason: "seen"})
	require.NoError(t, err)
	require.NoError(t, c.GetWorkflow(ctx, claim.WorkflowID(claimID), "").Get(ctx, nil))
	require.Equal(t, 1, asked())
	record(t, ctx, c, claim.WorkflowID(claimID), "claim-first.json")
}

func TestAReviewedAppealIsWatchedUntilItIsDecided(t *testing.T) {
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	i := newInstallation(0)
	i.status, i.appeal = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, claimsv1.AppealState_APPEAL_STATE_FILED
	startWorker(t, c, i)
	starter := follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}
	for range 2 {
		require.NoError(t, starter.Start(ctx, claim.StartAppeal(appealID, claimID)), "starting twice is starting once")
	}
	require.Eventually(t, func() bool {
		var shown claimsv1.Case
		v, err := c.QueryWorkflow(ctx, claim.AppealWorkflowID(appealID), "", claim.QueryAppeal)
		return err == nil && v.Get(&shown) == nil && len(shown.GetDeadlines()) == 1
	}, 20*time.Second, 20*time.Millisecond)
	i.mu.Lock()
	i.status, i.appeal = claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.AppealState_APPEAL_STATE_OVERTURNED
	i.mu.Unlock()
	require.NoError(t, starter.Tell(ctx, claim.AppealDecided(appealID)))
	require.NoError(t, c.GetWorkflow(ctx, claim.AppealWorkflowID(appealID), "").Get(ctx, nil))
	require.NoError(t, starter.Tell(ctx, claim.AppealDecided(appealID)), "a late message is no trouble")
	record(t, ctx, c, claim.AppealWorkflowID(appealID), "appeal.json")
}

func TestAReviewStartsAWorkflowThatTheFollowerHasNot(t *testing.T) {
	ctx := testContext(t)
	c := dialSealed(t, startTemporal(t, t.TempDir()))
	i := newInstallation(0)
	startWorker(t, c, i)
	svc := newService(t, c, i)
	reviewer := identity.WithPrincipal(ctx, identity.Principal{Subject: "rev-7", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"*"}})
	answer, err := svc.ReviewClaim(reviewer, &workflowsv1.ReviewClaimRequest{ClaimId: claimID, RequestId: "r1", Resolution: "deny", Reason: "x"})
	require.NoError(t, err)
	require.Equal(t, claimID, answer.GetClaim().GetClaimId())
	require.NoError(t, c.GetWorkflow(ctx, claim.WorkflowID(claimID), "").Get(ctx, nil))
}

// record keeps a workflow's history for the replay test, when asked to:
// PROBITY_RECORD_HISTORIES=../../workflows/worker/testdata go test -run 'AFileGoesOnWithAnother|AReviewer|ACanceled' ./embedded
func record(t *testing.T, ctx context.Context, c client.Client, workflowID, name string) {
	t.Helper()
	dir := os.Getenv("PROBITY_RECORD_HISTORIES")
	if dir == "" {
		return
	}
	var h historypb.History
	for events := c.GetWorkflowHistory(ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		event, err := events.Next()
		require.NoError(t, err)
		h.Events = append(h.Events, event)
	}
	raw, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(&h)
	require.NoError(t, err)
	// The machine that recorded it is nobody's business.
	if host, err := os.Hostname(); err == nil {
		raw = bytes.ReplaceAll(raw, []byte("@"+host+"@"), []byte("@worker@"))
		raw = bytes.ReplaceAll(raw, []byte(`"`+host+":"), []byte(`"worker:`))
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), raw, 0o644))
	fmt.Println("recorded", name, len(h.Events), "events")
}
