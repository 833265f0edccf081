package claim_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/failure"
)

const (
	claimID = "clm_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	fileID  = "fil_aaaaaaaaaaaaaaaaaaaaaaaaaa"
)

// claims is a claims service with one pended claim.
type claims struct {
	mu       sync.Mutex
	status   claimsv1.ClaimStatus
	resolved []*claimsv1.ResolveClaimRequest
	asked    int
	fail     func(call int) error
	file     string // that the claim came in

	needed    int // reviews until it is decided; 0 is one
	clock     func() time.Time
	deadlines []deadline
	stopped   bool // the prompt-pay clock
	escalated uint32
	appeal    claimsv1.AppealState
	advanced  int
	refuse    error
}

// deadline is something that the service does when it is asked at its time or later.
type deadline struct {
	kind string
	at   time.Time
	do   func(*claims)
}

// AdvanceCase does what is due by the test's clock, once.
func (c *claims) AdvanceCase(context.Context, *claimsv1.AdvanceCaseRequest) (*claimsv1.AdvanceCaseResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advanced++
	if c.refuse != nil {
		return nil, c.refuse
	}
	now := c.clock()
	for _, d := range slices.Clone(c.deadlines) {
		if !now.Before(d.at) {
			c.drop(d.kind)
			d.do(c)
		}
	}
	out := &claimsv1.Case{ClaimId: claimID, Status: c.status}
	if c.appeal != 0 {
		out.Appeals = []*claimsv1.Appeal{{AppealId: appealID, State: c.appeal}}
	}
	if c.status == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		out.Task = &claimsv1.Task{ClaimId: claimID, Escalation: c.escalated}
		out.Clock = &claimsv1.PromptPayClock{DueDate: "2026-12-21"}
		if c.stopped {
			out.Clock = &claimsv1.PromptPayClock{StoppedTime: timestamppb.New(now)}
		}
	}
	slices.SortFunc(c.deadlines, func(a, b deadline) int { return a.at.Compare(b.at) })
	for _, d := range c.deadlines {
		out.Deadlines = append(out.Deadlines, &claimsv1.Deadline{Kind: d.kind, Time: timestamppb.New(d.at)})
	}
	return &claimsv1.AdvanceCaseResponse{Case: out, Now: timestamppb.New(now)}, nil
}

// drop takes a deadline back; the caller holds mu.
func (c *claims) drop(kind string) {
	c.deadlines = slices.DeleteFunc(c.deadlines, func(d deadline) bool { return d.kind == kind })
}

func (c *claims) ResolveClaim(_ context.Context, q *claimsv1.ResolveClaimRequest) (*claimsv1.ResolveClaimResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resolved = append(c.resolved, q)
	if c.fail != nil {
		if err := c.fail(len(c.resolved)); err != nil {
			return nil, err
		}
	}
	if c.status != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "claims.not-pended", Message: "the claim isn't pended"})
	}
	if c.needed--; c.needed > 0 {
		return &claimsv1.ResolveClaimResponse{Claim: &claimsv1.ClaimSummary{ClaimId: claimID, Status: c.status}}, nil
	}
	c.status = claimsv1.ClaimStatus_CLAIM_STATUS_PAID
	if q.GetResolution() == "deny" {
		c.status = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED
	}
	return &claimsv1.ResolveClaimResponse{Claim: &claimsv1.ClaimSummary{ClaimId: claimID, Status: c.status}}, nil
}

func (c *claims) GetClaim(context.Context, *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	return &claimsv1.GetClaimResponse{Claim: &claimsv1.ClaimSummary{ClaimId: claimID, Status: c.status, FileId: c.file}}, nil
}

// files is a claims service's side of files, with one file that is open for
// the first questions.
type files struct {
	mu        sync.Mutex
	open      int // questions until the file is complete
	runs      []string
	completed []string
}

func (f *files) GetFile(context.Context, *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state := claimsv1.FileState_FILE_STATE_COMPLETE
	if f.open > 0 {
		f.open--
		state = claimsv1.FileState_FILE_STATE_PROCESSING
	}
	return &claimsv1.GetFileResponse{File: &claimsv1.File{FileId: fileID, State: state}}, nil
}

func (f *files) CreateRemittances(_ context.Context, q *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs = append(f.runs, q.GetFileId()+" "+q.GetRequestId())
	return &claimsv1.CreateRemittancesResponse{Remittances: []*claimsv1.Remittance{{RemittanceId: "rem_aaaaaaaaaaaaaaaaaaaaaaaaaa"}}}, nil
}

func (f *files) CompleteFile(_ context.Context, q *claimsv1.CompleteFileRequest) (*claimsv1.CompleteFileResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.completed = append(f.completed, q.GetRemittanceIds()...)
	return &claimsv1.CompleteFileResponse{}, nil
}

// answer is an Update's fate as the test sees it.
type answer struct {
	accepted bool
	rejected error
	out      *workflowsv1.ReviewClaimResponse
	err      error
}

func (a *answer) Accept()          { a.accepted = true }
func (a *answer) Reject(err error) { a.rejected = err }
func (a *answer) Complete(v any, err error) {
	a.out, _ = v.(*workflowsv1.ReviewClaimResponse)
	a.err = err
}

type story struct {
	*testsuite.TestWorkflowEnvironment
	t      *testing.T
	claims *claims
	files  *files
	began  time.Time
}

func given(t *testing.T) *story {
	var suite testsuite.WorkflowTestSuite
	s := &story{
		TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t,
		claims: &claims{status: claimsv1.ClaimStatus_CLAIM_STATUS_PENDED}, files: &files{},
		began: time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC),
	}
	s.SetStartTime(s.began)
	s.claims.clock = func() time.Time { return s.Now().UTC() }
	s.claims.deadlines = []deadline{{"escalation", time.Date(2026, 12, 21, 0, 0, 0, 0, time.UTC), func(c *claims) { c.escalated++ }}}
	claim.Register(s.TestWorkflowEnvironment, &claim.Activities{Claims: s.claims, Cases: s.claims, Files: s.files, Remittances: s.files})
	return s
}

// review sends a review when that much time has passed.
func (s *story) review(after time.Duration, q *workflowsv1.ReviewClaimRequest) *answer {
	a := new(answer)
	s.RegisterDelayedCallback(func() { s.UpdateWorkflow(claim.UpdateReview, q.GetRequestId(), a, q) }, after)
	return a
}

func (s *story) state(after time.Duration) *workflowsv1.GetReviewResponse {
	r := new(workflowsv1.GetReviewResponse)
	s.RegisterDelayedCallback(func() {
		v, err := s.QueryWorkflow(claim.QueryReview)
		require.NoError(s.t, err)
		require.NoError(s.t, v.Get(r))
	}, after)
	return r
}

func (s *story) run() error {
	s.ExecuteWorkflow(claim.WorkflowType, claim.Start(claimID, "2026-12-21").Input)
	return s.GetWorkflowError()
}

func request(change func(*workflowsv1.ReviewClaimRequest)) *workflowsv1.ReviewClaimRequest {
	q := &workflowsv1.ReviewClaimRequest{
		ClaimId: claimID, RequestId: "req-1", Resolution: "approve", Reason: "documents received", Reviewer: "rev-7",
	}
	if change != nil {
		change(q)
	}
	return q
}

func TestAnApprovalIsAnsweredWithTheDecisionAndEndsTheReview(t *testing.T) {
	s := given(t)
	before, a, after := s.state(time.Hour), s.review(2*time.Hour, request(nil)), s.state(3*time.Hour)
	require.NoError(t, s.run())

	require.Equal(t, claim.StateOpen, before.GetState())
	require.Equal(t, time.Date(2026, 12, 22, 0, 0, 0, 0, time.UTC), before.GetDueTime().AsTime())
	require.NoError(t, a.err)
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, a.out.GetClaim().GetStatus())
	require.Len(t, s.claims.resolved, 1)
	got := s.claims.resolved[0]
	require.Equal(t, []string{claimID, "req-1", "approve", "rev-7", "documents received"},
		[]string{got.GetClaimId(), got.GetRequestId(), got.GetResolution(), got.GetReviewer(), got.GetReason()})
	require.Empty(t, after.GetClaimId(), "the workflow is over and asks nothing more of anyone")
}

func TestADenialDenies(t *testing.T) {
	s := given(t)
	a := s.review(time.Hour, request(func(q *workflowsv1.ReviewClaimRequest) { q.Resolution = "deny" }))
	require.NoError(t, s.run())
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, a.out.GetClaim().GetStatus())
}

func TestTheReviewIsEscalatedWhenThePromptPayDayBegins(t *testing.T) {
	s := given(t)
	day := time.Date(2026, 12, 21, 0, 0, 0, 0, time.UTC)
	before, after := s.state(day.Add(-time.Minute).Sub(s.began)), s.state(day.Add(time.Minute).Sub(s.began))
	a := s.review(day.Add(time.Hour).Sub(s.began), request(nil))
	require.NoError(t, s.run())

	require.Equal(t, claim.StateOpen, before.GetState())
	require.Equal(t, claim.StateEscalated, after.GetState())
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, a.out.GetClaim().GetStatus(), "a late review still counts")
}

func TestAClaimDecidedBehindTheWorkflowsBackIsNotEscalated(t *testing.T) {
	s := given(t)
	s.RegisterDelayedCallback(func() {
		s.claims.mu.Lock()
		defer s.claims.mu.Unlock()
		s.claims.status = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED
	}, time.Hour)
	require.NoError(t, s.run())
	require.Equal(t, 1, s.claims.asked, "to remit it")
	require.Equal(t, 2, s.claims.advanced, "at the start, and when the day came")
	require.Empty(t, s.claims.resolved)
}

func TestTheFollowersSignalEndsTheReview(t *testing.T) {
	s := given(t)
	s.RegisterDelayedCallback(func() { s.SignalWorkflow(claim.SignalDecided, nil) }, time.Hour)
	require.NoError(t, s.run())
	require.Equal(t, 1, s.claims.asked, "to remit it")
}

func TestAnInvalidReviewIsRefusedAndLeavesNoTrace(t *testing.T) {
	wrong := map[string]func(*workflowsv1.ReviewClaimRequest){
		"review.claim_id":   func(q *workflowsv1.ReviewClaimRequest) { q.ClaimId = "clm_bbbbbbbbbbbbbbbbbbbbbbbbbb" },
		"review.request_id": func(q *workflowsv1.ReviewClaimRequest) { q.RequestId = strings.Repeat("r", 121) },
		"review.resolution": func(q *workflowsv1.ReviewClaimRequest) { q.Resolution = "perhaps" },
		"review.reason":     func(q *workflowsv1.ReviewClaimRequest) { q.Reason = "" },
		"review.reviewer":   func(q *workflowsv1.ReviewClaimRequest) { q.Reviewer = "" },
	}
	for rule, change := range wrong {
		t.Run(rule, func(t *testing.T) {
			s := given(t)
			a := s.review(time.Hour, request(change))
			s.RegisterDelayedCallback(func() { s.SignalWorkflow(claim.SignalDecided, nil) }, 2*time.Hour)
			require.NoError(t, s.run())
			require.False(t, a.accepted)
			p := failure.ToProblem(a.rejected)
			require.Equal(t, problem.Invalid, p.Kind)
			require.Equal(t, rule, p.Problems[0].RuleID)
			require.Empty(t, s.claims.resolved)
		})
	}
}

func TestAServiceThatIsAwayIsAskedAgainAndTheReviewAnsweredOnce(t *testing.T) {
	s := given(t)
	s.claims.fail = func(call int) error {
		if call < 4 {
			return problem.New(problem.Unavailable, problem.Problem{RuleID: "test.away", Message: "away"})
		}
		return nil
	}
	a := s.review(time.Hour, request(nil))
	require.NoError(t, s.run())
	require.NoError(t, a.err)
	require.Len(t, s.claims.resolved, 4)
	for _, q := range s.claims.resolved {
		require.Equal(t, "req-1", q.GetRequestId(), "every attempt carries the same request id")
	}
}

func TestARefusalReachesTheReviewerAndTheReviewStaysOpen(t *testing.T) {
	s := given(t)
	s.claims.fail = func(call int) error {
		if call == 1 {
			return problem.New(problem.Forbidden, problem.Problem{RuleID: "identity.denied", Message: "not yours", Fix: "ask the payer's staff"})
		}
		return nil
	}
	first := s.review(time.Hour, request(nil))
	open := s.state(2 * time.Hour)
	second := s.review(3*time.Hour, request(func(q *workflowsv1.ReviewClaimRequest) { q.RequestId = "req-2" }))
	require.NoError(t, s.run())

	p := failure.ToProblem(first.err)
	require.Equal(t, problem.Forbidden, p.Kind)
	require.Equal(t, "identity.denied", p.Problems[0].RuleID)
	require.Equal(t, "ask the payer's staff", p.Problems[0].Fix)
	require.Equal(t, claim.StateOpen, open.GetState())
	require.NoError(t, second.err)
}

func TestOfTwoReviewersAtOnceTheSecondLearnsThatItIsDecided(t *testing.T) {
	s := given(t)
	first := s.review(time.Hour, request(nil))
	second := s.review(time.Hour, request(func(q *workflowsv1.ReviewClaimRequest) {
		q.RequestId, q.Resolution, q.Reviewer = "req-2", "deny", "rev-8"
	}))
	require.NoError(t, s.run())
	require.NoError(t, first.err)
	refused := second.err
	if refused == nil {
		refused = second.rejected
	}
	require.Equal(t, problem.Conflict, failure.ToProblem(refused).Kind)
	require.Len(t, s.claims.resolved, 1)
}

func TestALongHistoryIsContinuedWithItsClock(t *testing.T) {
	// Given an escalated review whose history has grown long by refused attempts.
	s := given(t)
	day := time.Date(2026, 12, 21, 0, 0, 0, 0, time.UTC)
	s.claims.fail = func(int) error {
		s.SetContinueAsNewSuggested(true)
		return problem.Invalidf("test.refused", "", "no")
	}
	a := s.review(day.Add(2*time.Minute).Sub(s.began), request(nil))
	err := s.run()

	// Then it goes on afresh, the attempt answered, still escalated.
	require.Equal(t, problem.Invalid, failure.ToProblem(a.err).Kind)
	var again *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &again)
	var carried claim.Input
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &carried))
	require.Equal(t, claim.Input{ClaimID: claimID, DueDate: "2026-12-21", Escalated: true, Case: true}, carried)
}

func TestTheClockIsTheCasesWhateverTheWorkflowWasStartedWith(t *testing.T) {
	s := given(t)
	r := s.state(time.Hour)
	s.review(2*time.Hour, request(nil))
	s.ExecuteWorkflow(claim.WorkflowType, claim.Start(claimID, "").Input)
	require.NoError(t, s.GetWorkflowError())
	require.Equal(t, time.Date(2026, 12, 22, 0, 0, 0, 0, time.UTC), r.GetDueTime().AsTime())
}

func TestWhatAReviewDecidedIsRemittedOnceItsFileIsComplete(t *testing.T) {
	s := given(t)
	s.claims.file, s.files.open = fileID, 3
	a := s.review(time.Hour, request(nil))
	require.NoError(t, s.run())
	require.NoError(t, a.err)
	require.Equal(t, []string{fileID + " remit:" + claimID}, s.files.runs, "one run of its own, after the file's")
	require.Equal(t, []string{"rem_aaaaaaaaaaaaaaaaaaaaaaaaaa"}, s.files.completed)
}

func TestAClaimWithoutAFileIsRemittedWithNone(t *testing.T) {
	s := given(t)
	a := s.review(time.Hour, request(nil))
	require.NoError(t, s.run())
	require.NoError(t, a.err)
	require.Empty(t, s.files.runs)
}
