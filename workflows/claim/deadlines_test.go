package claim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/claim"
)

const appealID = "apl_aaaaaaaaaaaaaaaaaaaaaaaaaa"

// Every deadline of a case, as the claims service names them, and how long it
// is by default.
var deadlines = map[string]time.Duration{
	"information-reminder":       15 * 24 * time.Hour,
	"information-due":            45 * 24 * time.Hour,
	"authorization-due urgent":   72 * time.Hour,
	"authorization-due standard": 7 * 24 * time.Hour,
	"task-hold":                  24 * time.Hour,
	"escalation":                 25 * 24 * time.Hour,
	"prompt-pay":                 31 * 24 * time.Hour,
}

// waitingFor is a claim whose case has one deadline; when it passes, what the
// service does is noted.
func waitingFor(t *testing.T, kind string, length time.Duration) (s *story, done *[]time.Time) {
	s = given(t)
	done = new([]time.Time)
	s.claims.deadlines = []deadline{{kind, s.began.Add(length), func(c *claims) { *done = append(*done, c.clock()) }}}
	return s, done
}

// change alters the case at a time and tells the workflow, as the follower does.
func (s *story) change(after time.Duration, change func(*claims)) {
	s.RegisterDelayedCallback(func() {
		s.claims.mu.Lock()
		change(s.claims)
		s.claims.mu.Unlock()
		s.SignalWorkflow(claim.SignalChanged, nil)
	}, after)
}

func TestADeadlinePassesAndNobodyComes(t *testing.T) {
	for kind, length := range deadlines {
		t.Run(kind, func(t *testing.T) {
			s, done := waitingFor(t, kind, length)
			before, after := s.state(length-time.Second), s.state(length+time.Second)
			s.review(length+time.Hour, request(nil))
			require.NoError(t, s.run())

			require.Equal(t, []time.Time{s.began.Add(length)}, *done, "at that very time, and once")
			require.Len(t, before.GetDeadlines(), 1, "the query shows what is waited for")
			require.Equal(t, kind, before.GetDeadlines()[0].GetKind())
			require.Equal(t, s.began.Add(length), before.GetDeadlines()[0].GetTime().AsTime())
			require.Empty(t, after.GetDeadlines())
		})
	}
}

func TestADeadlineIsMetOneSecondBefore(t *testing.T) {
	for kind, length := range deadlines {
		t.Run(kind, func(t *testing.T) {
			s, done := waitingFor(t, kind, length)
			s.change(length-time.Second, func(c *claims) { c.drop(kind) })
			after := s.state(length + time.Hour)
			s.review(length+2*time.Hour, request(nil))
			require.NoError(t, s.run())
			require.Empty(t, *done)
			require.Empty(t, after.GetDeadlines())
		})
	}
}

// Answer and deadline fall on one instant: the service's order decides, and
// whichever it is, one of the two happens and not both.
func TestAnAnswerAndItsDeadlineRace(t *testing.T) {
	for kind, length := range deadlines {
		t.Run(kind, func(t *testing.T) {
			s, done := waitingFor(t, kind, length)
			answered := 0
			s.change(length, func(c *claims) {
				for _, d := range c.deadlines {
					if d.kind == kind {
						answered++
					}
				}
				c.drop(kind)
			})
			s.review(length+time.Hour, request(nil))
			require.NoError(t, s.run())
			require.Equal(t, 1, answered+len(*done))
		})
	}
}

func TestADeadlineThatComesNearerIsKept(t *testing.T) {
	s, done := waitingFor(t, "prompt-pay", 30*24*time.Hour)
	s.change(24*time.Hour, func(c *claims) { // a reviewer takes the task
		c.deadlines = append(c.deadlines, deadline{"task-hold", s.began.Add(48 * time.Hour), func(c *claims) { *done = append(*done, c.clock()) }})
	})
	held := s.state(30 * time.Hour)
	s.review(72*time.Hour, request(nil))
	require.NoError(t, s.run())
	require.Equal(t, []time.Time{s.began.Add(48 * time.Hour)}, *done)
	require.Equal(t, "task-hold", held.GetDeadlines()[0].GetKind(), "the earliest first")
}

func TestWhatTheServiceDoesAtADeadlineMayDecideTheClaim(t *testing.T) {
	// Given documents that are waited for, the clock stopped.
	s, _ := waitingFor(t, "information-due", 45*24*time.Hour)
	s.claims.stopped = true
	s.claims.deadlines[0].do = func(c *claims) { c.status = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED }
	before := s.state(44 * 24 * time.Hour)
	require.NoError(t, s.run())
	// Then the workflow is over with it.
	require.Equal(t, claim.StateWaiting, before.GetState())
	require.Nil(t, before.GetDueTime(), "a stopped clock has no last day")
	require.Empty(t, s.claims.resolved)
}

func TestAnOpinionLeavesTheReviewOpenForTheNext(t *testing.T) {
	s := given(t)
	s.claims.needed = 2
	first := s.review(time.Hour, request(nil))
	between := s.state(2 * time.Hour)
	second := s.review(3*time.Hour, request(func(q *workflowsv1.ReviewClaimRequest) { q.RequestId, q.Reviewer = "req-2", "rev-8" }))
	require.NoError(t, s.run())
	require.NoError(t, first.err)
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PENDED, first.out.GetClaim().GetStatus())
	require.Equal(t, claim.StateOpen, between.GetState())
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, second.out.GetClaim().GetStatus())
}

func TestAServiceThatRefusesToLookIsAskedAgainLater(t *testing.T) {
	s := given(t)
	s.claims.refuse = problem.New(problem.Forbidden, problem.Problem{RuleID: "test.forbidden", Message: "no"})
	s.RegisterDelayedCallback(func() {
		s.claims.mu.Lock()
		defer s.claims.mu.Unlock()
		require.Equal(t, 1, s.claims.advanced, "not in a circle")
		s.claims.refuse = nil
	}, 30*time.Minute)
	s.review(2*time.Hour, request(nil))
	require.NoError(t, s.run())
	require.Equal(t, 2, s.claims.advanced)
}

func (s *story) runAppeal() error {
	s.claims.status, s.claims.appeal = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, claimsv1.AppealState_APPEAL_STATE_FILED
	s.ExecuteWorkflow(claim.AppealWorkflowType, claim.AppealInput{AppealID: appealID, ClaimID: claimID})
	return s.GetWorkflowError()
}

// The three levels' times to decide, and the expedited one.
var hearings = map[string]time.Duration{
	"reconsideration": 30 * 24 * time.Hour, "external": 45 * 24 * time.Hour, "expedited": 72 * time.Hour,
}

func TestAnAppealThatNobodyDecidesIsOverdueAndStaysOpen(t *testing.T) {
	for name, length := range hearings {
		t.Run(name, func(t *testing.T) {
			s := given(t)
			var overdue []time.Time
			s.claims.deadlines = []deadline{{"appeal-due", s.began.Add(length), func(c *claims) {
				c.appeal = claimsv1.AppealState_APPEAL_STATE_OVERDUE
				overdue = append(overdue, c.clock())
			}}}
			s.change(length+24*time.Hour, func(c *claims) { c.appeal = claimsv1.AppealState_APPEAL_STATE_UPHELD })
			require.NoError(t, s.runAppeal())
			require.Equal(t, []time.Time{s.began.Add(length)}, overdue)
			require.Zero(t, s.claims.asked, "nothing has changed, so nothing is remitted")
		})
	}
}

func TestAnAppealDecidedOneSecondBeforeIsNotOverdue(t *testing.T) {
	for name, length := range hearings {
		t.Run(name, func(t *testing.T) {
			s := given(t)
			s.claims.file = fileID
			s.claims.deadlines = []deadline{{"appeal-due", s.began.Add(length), func(*claims) { t.Error("it was decided in time") }}}
			s.change(length-time.Second, func(c *claims) {
				c.drop("appeal-due")
				c.appeal = claimsv1.AppealState_APPEAL_STATE_OVERTURNED
			})
			require.NoError(t, s.runAppeal())
			require.Equal(t, []string{fileID + " remit:" + appealID}, s.files.runs, "the correction is remitted, under a name of its own")
		})
	}
}

// The workflow is lost with Temporal's store and started again from the log,
// ten days later: it waits for the same deadline, because the case has it.
func TestAWorkflowStartedAgainWaitsForTheSame(t *testing.T) {
	lost, done := waitingFor(t, "information-due", 45*24*time.Hour)
	lost.RegisterDelayedCallback(lost.CancelWorkflow, 10*24*time.Hour)
	require.Error(t, lost.run())
	require.Empty(t, *done)

	again := given(t)
	again.SetStartTime(lost.began.Add(20 * 24 * time.Hour))
	again.claims.deadlines = lost.claims.deadlines
	shown := again.state(time.Hour)
	again.review(26*24*time.Hour, request(nil))
	require.NoError(t, again.run())
	require.Equal(t, []time.Time{lost.began.Add(45 * 24 * time.Hour)}, *done)
	require.Equal(t, lost.began.Add(45*24*time.Hour), shown.GetDeadlines()[0].GetTime().AsTime())
}

// Another decision, or the next level, makes an overdue appeal moot without
// naming it: its workflow finds out by itself and ends.
func TestAnOverdueAppealThatBecameMootIsFoundOut(t *testing.T) {
	s := given(t)
	s.claims.deadlines = []deadline{{"appeal-due", s.began.Add(72 * time.Hour), func(c *claims) { c.appeal = claimsv1.AppealState_APPEAL_STATE_OVERDUE }}}
	s.RegisterDelayedCallback(func() {
		s.claims.mu.Lock()
		defer s.claims.mu.Unlock()
		s.claims.appeal = claimsv1.AppealState_APPEAL_STATE_MOOT
	}, 96*time.Hour)
	require.NoError(t, s.runAppeal())
	require.Equal(t, s.began.Add(72*time.Hour+7*24*time.Hour), s.Now().UTC())
}

// runKnowing runs a claim's workflow whose start knew what it first waits for.
func (s *story) runKnowing(first time.Duration) error {
	in := claim.Start(claimID, "2026-12-21").Input.(claim.Input)
	in.First = claim.Deadline{Kind: "escalation", Time: s.began.Add(first)}
	s.ExecuteWorkflow(claim.WorkflowType, in)
	return s.GetWorkflowError()
}

func TestAStartThatKnowsWhatItWaitsForAsksNobodyBefore(t *testing.T) {
	const length = 25 * 24 * time.Hour
	s, done := waitingFor(t, "escalation", length)
	shown := s.state(length - time.Second)
	s.RegisterDelayedCallback(func() {
		s.claims.mu.Lock()
		defer s.claims.mu.Unlock()
		require.Zero(t, s.claims.advanced)
	}, length-time.Second)
	s.review(length+time.Hour, request(nil))
	require.NoError(t, s.runKnowing(length))
	require.Equal(t, []time.Time{s.began.Add(length)}, *done, "at that very time, and once")
	require.Equal(t, claim.StateOpen, shown.GetState())
	require.Len(t, shown.GetDeadlines(), 1, "the query shows it all the same")
	require.Equal(t, "escalation", shown.GetDeadlines()[0].GetKind())
	require.Equal(t, s.began.Add(length), shown.GetDeadlines()[0].GetTime().AsTime())
}

func TestWhatChangesBeforeTheFirstDeadlineIsLookedAtAtOnce(t *testing.T) {
	s, done := waitingFor(t, "escalation", 25*24*time.Hour)
	s.change(24*time.Hour, func(c *claims) { // a reviewer takes the task
		c.deadlines = append(c.deadlines, deadline{"task-hold", s.began.Add(48 * time.Hour), func(c *claims) { *done = append(*done, c.clock()) }})
	})
	s.review(72*time.Hour, request(nil))
	require.NoError(t, s.runKnowing(25*24*time.Hour))
	require.Equal(t, []time.Time{s.began.Add(48 * time.Hour)}, *done)
}

func TestAFirstDeadlineThatHasPassedIsDueNow(t *testing.T) {
	s, done := waitingFor(t, "escalation", -time.Hour)
	s.review(time.Minute, request(nil))
	require.NoError(t, s.runKnowing(-time.Hour))
	require.Equal(t, []time.Time{s.began}, *done)
}

func TestAClaimDecidedBeforeItsFirstDeadlineAsksNothing(t *testing.T) {
	s, _ := waitingFor(t, "escalation", 25*24*time.Hour)
	s.review(time.Hour, request(nil))
	require.NoError(t, s.runKnowing(25*24*time.Hour))
	require.Zero(t, s.claims.advanced)
}
