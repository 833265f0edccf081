package claimfile_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/claimfile"
)

const fileID = "fil_aaaaaaaaaaaaaaaaaaaaaaaaaa"

// services is a gateway, file and remittance service that remembers which
// ordinals were decided. Faults are named; each is asked before the call takes effect.
type services struct {
	mu        sync.Mutex
	file      *claimsv1.File
	decided   map[uint32]int // ordinal -> times
	calls     int
	remitted  int
	completed []string
	recorded  map[uint32]bool // the file knows their outcome
	canceled  bool
	afterward int // chunks decided after the cancel

	failChunk  func(first uint32, call int) error // before deciding
	loseAnswer func(first uint32, call int) error // after deciding
	failRemit  func(call int) error
	dieHalfway func(call int) bool // after deciding, before the file knows
	cancelAt   int                 // the call before which the file is canceled
}

func newServices(claims uint32) *services {
	return &services{
		decided: map[uint32]int{}, recorded: map[uint32]bool{},
		file: &claimsv1.File{FileId: fileID, ClaimCount: claims, State: claimsv1.FileState_FILE_STATE_PROCESSING},
	}
}

func (s *services) AdjudicateChunk(_ context.Context, q *gatewayv1.AdjudicateChunkRequest) (*gatewayv1.AdjudicateChunkResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.failChunk != nil {
		if err := s.failChunk(q.GetFirstOrdinal(), s.calls); err != nil {
			return nil, err
		}
	}
	if s.cancelAt != 0 && s.calls >= s.cancelAt {
		s.canceled, s.file.State = true, claimsv1.FileState_FILE_STATE_CANCELING
	}
	if s.canceled && !q.GetFinish() {
		return &gatewayv1.AdjudicateChunkResponse{Canceled: true}, nil
	}
	if s.canceled {
		s.afterward++
	}
	for i := range q.GetCount() {
		s.decided[q.GetFirstOrdinal()+i]++
	}
	if s.dieHalfway != nil && s.dieHalfway(s.calls) {
		return nil, errors.New("the gateway died")
	}
	for i := range q.GetCount() {
		s.recorded[q.GetFirstOrdinal()+i] = true
	}
	if s.loseAnswer != nil {
		if err := s.loseAnswer(q.GetFirstOrdinal(), s.calls); err != nil {
			return nil, err
		}
	}
	return &gatewayv1.AdjudicateChunkResponse{Paid: q.GetCount() - 1, Denied: 1}, nil
}

func (s *services) GetFile(context.Context, *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error) {
	return &claimsv1.GetFileResponse{File: s.file}, nil
}

func (s *services) CreateRemittances(_ context.Context, q *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remitted++
	if s.failRemit != nil {
		if err := s.failRemit(s.remitted); err != nil {
			return nil, err
		}
	}
	return &claimsv1.CreateRemittancesResponse{Remittances: []*claimsv1.Remittance{{RemittanceId: "rem_1"}, {RemittanceId: "rem_2"}}}, nil
}

func (s *services) CompleteFile(_ context.Context, q *claimsv1.CompleteFileRequest) (*claimsv1.CompleteFileResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.completed = q.GetRemittanceIds()
	return &claimsv1.CompleteFileResponse{}, nil
}

func (s *services) decidedAll(t require.TestingT, claims uint32) {
	require.Len(t, s.decided, int(claims))
	for i := range claims {
		if s.decided[i] == 0 {
			require.Fail(t, "undecided", "ordinal %d", i)
		}
	}
}

func environment(s *services) *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	claimfile.Register(env, &claimfile.Activities{Gateway: s, Files: s, Remittances: s})
	return env
}

func progressOf(t require.TestingT, env *testsuite.TestWorkflowEnvironment) *workflowsv1.GetFileProgressResponse {
	v, err := env.QueryWorkflow(claimfile.QueryProgress)
	require.NoError(t, err)
	var p workflowsv1.GetFileProgressResponse
	require.NoError(t, v.Get(&p))
	return &p
}

func unavailable() error {
	return problem.New(problem.Unavailable, problem.Problem{RuleID: "test.away", Message: "the service is away"})
}

func TestEveryClaimOfAFileIsDecidedThenRemittedThenComplete(t *testing.T) {
	s := newServices(1_003)
	env := environment(s)
	env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})

	require.NoError(t, env.GetWorkflowError())
	s.decidedAll(t, 1_003)
	require.Equal(t, 5, s.calls, "1,003 claims are five chunks")
	require.Equal(t, []string{"rem_1", "rem_2"}, s.completed)
	p := progressOf(t, env)
	require.Equal(t, claimfile.StageComplete, p.GetStage())
	require.True(t, p.GetComplete())
	require.EqualValues(t, 1_003, p.GetDone())
	require.EqualValues(t, 998, p.GetPaid())
	require.EqualValues(t, 5, p.GetDenied())
	require.Equal(t, []string{"rem_1", "rem_2"}, p.GetRemittanceIds())
}

func TestACanceledFileBeginsNothingMoreAndIsClosed(t *testing.T) {
	// Given a file of 5,000 claims that is canceled before its seventh chunk.
	s := newServices(5_000)
	s.cancelAt = 7
	env := environment(s)
	env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})

	// Then the six are remitted, nothing else was begun, and the file is closed.
	require.NoError(t, env.GetWorkflowError())
	require.Len(t, s.recorded, 6*250)
	require.Zero(t, s.afterward)
	require.Equal(t, 1, s.remitted)
	require.Equal(t, []string{"rem_1", "rem_2"}, s.completed)
	p := progressOf(t, env)
	require.Equal(t, claimfile.StageCanceled, p.GetStage())
	require.True(t, p.GetComplete())
	require.EqualValues(t, 1_500, p.GetDone())
}

func TestACancelClosesAFileWhoseWorkflowHadFailed(t *testing.T) {
	s := newServices(1_000)
	s.file.State = claimsv1.FileState_FILE_STATE_CANCELING
	env := environment(s)
	env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})
	require.NoError(t, env.GetWorkflowError())
	require.Zero(t, s.calls)
	require.NotNil(t, s.completed)
	require.Equal(t, claimfile.StageCanceled, progressOf(t, env).GetStage())
}

func TestWheneverAFileIsCanceledNoDecidedClaimIsLeftUnlisted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Given any file, a gateway that dies between deciding and recording,
		// and a cancel, at any calls.
		s := newServices(rapid.Uint32Range(0, 1_500).Draw(t, "claims"))
		s.cancelAt = rapid.IntRange(1, 14).Draw(t, "canceled at call")
		deaths := rapid.SliceOfN(rapid.IntRange(1, 14), 0, 4).Draw(t, "deaths at calls")
		s.dieHalfway = func(call int) bool { return slices.Contains(deaths, call) }
		env := environment(s)
		env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})
		require.NoError(t, env.GetWorkflowError())

		// Then the file knows the outcome of every claim that was decided, and is closed.
		for ordinal := range s.decided {
			require.True(t, s.recorded[ordinal], "ordinal %d is decided and would be listed as not processed", ordinal)
		}
		require.Equal(t, []string{"rem_1", "rem_2"}, s.completed)
		require.EqualValues(t, len(s.recorded), progressOf(t, env).GetDone())
	})
}

func TestAServiceThatIsAwayIsAskedUntilItIsBack(t *testing.T) {
	// Given a gateway that is away for a while and then loses an answer, and
	// a remittance service that fails at first.
	s := newServices(600)
	s.failChunk = func(_ uint32, call int) error {
		if call <= 20 {
			return unavailable()
		}
		return nil
	}
	lost := false
	s.loseAnswer = func(first uint32, _ int) error {
		if first == 250 && !lost {
			lost = true
			return unavailable()
		}
		return nil
	}
	s.failRemit = func(call int) error {
		if call == 1 {
			return unavailable()
		}
		return nil
	}
	env := environment(s)
	env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})

	// Then the file is finished all the same, and counts nothing twice.
	require.NoError(t, env.GetWorkflowError())
	s.decidedAll(t, 600)
	require.Equal(t, 2, s.decided[250], "the lost answer's chunk was asked for again")
	require.EqualValues(t, 600, progressOf(t, env).GetDone())
	require.Equal(t, 2, s.remitted)
}

func TestAChunkCalledInvalidStallsTheFileButNotItsNeighbours(t *testing.T) {
	s := newServices(1_000)
	s.failChunk = func(first uint32, _ int) error {
		if first == 250 {
			return problem.Invalidf("gateway.translate", "", "ordinals can't be translated")
		}
		return nil
	}
	env := environment(s)
	env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})

	var failed *temporal.ApplicationError
	require.ErrorAs(t, env.GetWorkflowError(), &failed)
	require.Equal(t, "file.span-refused", failed.Type())
	require.Len(t, s.decided, 750, "the other three spans are decided")
	require.Zero(t, s.remitted, "a file with a hole isn't remitted")
	p := progressOf(t, env)
	require.Equal(t, claimfile.StageStalled, p.GetStage())
	require.EqualValues(t, 750, p.GetDone())
}

func TestAFileRefusedWholeOrCompleteNeedsNothing(t *testing.T) {
	for state, stage := range map[claimsv1.FileState]string{
		claimsv1.FileState_FILE_STATE_REFUSED:  claimfile.StageRefused,
		claimsv1.FileState_FILE_STATE_COMPLETE: claimfile.StageComplete,
	} {
		s := newServices(10)
		s.file.State = state
		env := environment(s)
		env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})
		require.NoError(t, env.GetWorkflowError())
		require.Zero(t, s.calls)
		require.Zero(t, s.remitted)
		require.Equal(t, stage, progressOf(t, env).GetStage())
	}
}

func TestALongHistoryIsContinuedAsNewWithoutLosingOrRepeatingClaims(t *testing.T) {
	// Given a file whose run is advised after its second span to start afresh.
	s := newServices(5_000)
	env := environment(s)
	s.failChunk = func(_ uint32, call int) error {
		if call == 2 {
			env.SetContinueAsNewSuggested(true)
		}
		return nil
	}
	env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})

	var again *workflow.ContinueAsNewError
	require.ErrorAs(t, env.GetWorkflowError(), &again)
	var carried claimfile.Input
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &carried))
	require.EqualValues(t, len(s.decided), carried.Next, "everything below the cursor is decided")
	require.Less(t, carried.Next, uint32(5_000))
	require.Equal(t, carried.Next, carried.Tally.Done)

	// When the next run takes over, then it ends the file and no chunk was decided twice.
	s.failChunk = nil
	env = environment(s)
	env.ExecuteWorkflow(claimfile.WorkflowType, carried)
	require.NoError(t, env.GetWorkflowError())
	s.decidedAll(t, 5_000)
	for ordinal, times := range s.decided {
		require.Equal(t, 1, times, "ordinal %d", ordinal)
	}
	require.EqualValues(t, 5_000, progressOf(t, env).GetDone())
}

func TestALargeFileKeepsItsWindowAndItsHistoryBounded(t *testing.T) {
	// Given a file of 40,000 claims whose run is advised again and again to start afresh.
	s := newServices(40_000)
	var mu sync.Mutex
	spans, inFlight, widest := 0, 0, 0
	in := claimfile.Input{FileID: fileID}
	runs := 0
	for ; ; runs++ {
		require.Less(t, runs, 100, "it comes to no end")
		env := environment(s)
		env.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
			mu.Lock()
			defer mu.Unlock()
			if info.ActivityType.Name == "file.decide" {
				spans++
				inFlight++
				widest = max(widest, inFlight)
				if spans%7 == 0 {
					env.SetContinueAsNewSuggested(true)
				}
			}
		})
		env.SetOnActivityCompletedListener(func(info *activity.Info, _ converter.EncodedValue, _ error) {
			mu.Lock()
			defer mu.Unlock()
			if info.ActivityType.Name == "file.decide" {
				inFlight--
			}
		})
		env.ExecuteWorkflow(claimfile.WorkflowType, in)
		var again *workflow.ContinueAsNewError
		if !errors.As(env.GetWorkflowError(), &again) {
			require.NoError(t, env.GetWorkflowError())
			require.EqualValues(t, 40_000, progressOf(t, env).GetDone())
			break
		}
		in = claimfile.Input{}
		require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &in))
	}
	// Then it took several runs, never more than the window at once, few
	// activities in all, and decided each claim once.
	require.Greater(t, runs, 3)
	require.LessOrEqual(t, widest, 4)
	require.LessOrEqual(t, spans, 64)
	s.decidedAll(t, 40_000)
	for ordinal, times := range s.decided {
		if times != 1 {
			require.Fail(t, "decided more than once", "ordinal %d", ordinal)
		}
	}
}

func TestAnyFileUnderAnyPassingFaultsIsDecidedWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		claims := rapid.Uint32Range(0, 1_500).Draw(t, "claims")
		faults := rapid.MapOfN(rapid.IntRange(1, 12), rapid.Bool(), 0, 6).Draw(t, "faults: call -> after effect")
		s := newServices(claims)
		s.failChunk = func(_ uint32, call int) error {
			if after, faulty := faults[call]; faulty && !after {
				return unavailable()
			}
			return nil
		}
		s.loseAnswer = func(_ uint32, call int) error {
			if after, faulty := faults[call]; faulty && after {
				return errors.New("connection reset")
			}
			return nil
		}
		env := environment(s)
		env.ExecuteWorkflow(claimfile.WorkflowType, claimfile.Input{FileID: fileID})
		require.NoError(t, env.GetWorkflowError())
		s.decidedAll(t, claims)
		p := progressOf(t, env)
		require.Equal(t, claims, p.GetDone())
		require.Equal(t, claimfile.StageComplete, p.GetStage())
	})
}

func TestAnAttemptContinuesWhereTheLastOneHeartbeat(t *testing.T) {
	// Given a span of a large file and an earlier attempt that had decided its first two chunks.
	s := newServices(100_000)
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	a := &claimfile.Activities{Gateway: s, Files: s, Remittances: s}
	env.RegisterActivity(a.Decide)
	env.SetHeartbeatDetails(map[string]any{"Next": 1_500, "Tally": claimfile.Tally{Done: 500, Paid: 498, Denied: 2}})

	v, err := env.ExecuteActivity(a.Decide, claimfile.Span{FileID: fileID, First: 1_000, Count: 1_750})
	require.NoError(t, err)

	// Then only the rest is asked for, and the counts are of the whole span.
	var tally claimfile.Tally
	require.NoError(t, v.Get(&tally))
	require.Len(t, s.decided, 1_250)
	require.NotContains(t, s.decided, uint32(1_499))
	require.Equal(t, claimfile.Tally{Done: 1_750, Paid: 1_743, Denied: 7}, tally)
}

// A span's chunks are decided two at a time: the second is asked for while the
// first waits. Of a span that fails nothing that was begun is left half done.
func TestASpansChunksAreDecidedAbreast(t *testing.T) {
	s := newServices(100_000)
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	pair := &pairs{services: s, met: make(chan struct{})}
	a := &claimfile.Activities{Gateway: pair, Files: s, Remittances: s}
	env.RegisterActivity(a.Decide)
	s.failChunk = func(first uint32, _ int) error {
		if first == 500 {
			return problem.New(problem.Invalid, problem.Problem{RuleID: "test.refused", Message: "no"})
		}
		return nil
	}

	_, err := env.ExecuteActivity(a.Decide, claimfile.Span{FileID: fileID, Count: 1_500})

	// The first two met; the third was refused, the fourth brought to its end,
	// the fifth not begun.
	require.Error(t, err)
	require.Contains(t, err.Error(), "no")
	require.Contains(t, s.decided, uint32(250))
	require.NotContains(t, s.decided, uint32(1_000))
	require.Equal(t, len(s.decided), len(s.recorded), "what was begun is whole")
}

// pairs holds each of the first two chunks until the other has come.
type pairs struct {
	*services
	come atomic.Int32
	met  chan struct{}
}

func (p *pairs) AdjudicateChunk(ctx context.Context, q *gatewayv1.AdjudicateChunkRequest) (*gatewayv1.AdjudicateChunkResponse, error) {
	if p.come.Add(1) == 2 {
		close(p.met)
	}
	select {
	case <-p.met:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return p.services.AdjudicateChunk(ctx, q)
}

// A heartbeat is a call and a write of Temporal's; most files' spans are one chunk.
func TestASpanOfOneChunkCostsNoHeartbeat(t *testing.T) {
	for claims, beats := range map[uint32]bool{250: false, 750: true} {
		s := newServices(claims)
		var suite testsuite.WorkflowTestSuite
		env := suite.NewTestActivityEnvironment()
		a := &claimfile.Activities{Gateway: s, Files: s, Remittances: s}
		env.RegisterActivity(a.Decide)
		heard := 0
		env.SetOnActivityHeartbeatListener(func(*activity.Info, converter.EncodedValues) { heard++ })
		_, err := env.ExecuteActivity(a.Decide, claimfile.Span{FileID: fileID, Count: claims})
		require.NoError(t, err)
		require.Equal(t, beats, heard > 0, "%d claims", claims)
	}
}

func TestTheNumberOfSpansIsBounded(t *testing.T) {
	for _, claims := range []uint32{1, 250, 16_000, 16_001, 100_000, 1_000_000} {
		t.Run(fmt.Sprint(claims), func(t *testing.T) {
			size := claimfile.SpanClaims(claims)
			require.NotZero(t, size)
			require.LessOrEqual(t, (claims+size-1)/size, uint32(64))
		})
	}
}
