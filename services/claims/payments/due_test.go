package payments_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/casework"
	"github.com/probity-health/probity/services/claims/payments"
)

const day = 24 * time.Hour

// at is a time after the failure.
func at(after time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.AsTime().Add(after)) }

// do is the state after a command at a time after the failure, and what was written.
func do(t require.TestingT, s payments.State, after time.Duration, c payments.Command) (payments.State, string) {
	events, err := s.Decide(c, at(after))
	require.NoError(t, err)
	story := ""
	for _, e := range events {
		switch e := e.(type) {
		case *eventsv1.PaymentTaskReminded:
			story += fmt.Sprintf("reminder %d; ", e.Count)
		case *eventsv1.PaymentTaskEscalated:
			story += fmt.Sprintf("level %d; ", e.Level)
		case *eventsv1.PaymentTaskAssigned:
			story += fmt.Sprintf("with %q; ", e.Assignee)
		}
	}
	return grown(s, events), story
}

// Nobody takes the task: it is reminded of until it is due, and rises from then
// on to the last level; a second before each time nothing happens.
func TestATaskThatNobodyDecidesIsRemindedOfAndRises(t *testing.T) {
	s := given(t, sent, reported)
	require.Equal(t, at(5*day).AsTime(), s.Task().GetDueTime().AsTime(), "the default")
	var told []string
	for next := s.NextTime(); !next.IsZero(); next = s.NextTime() {
		after := next.Sub(noon.AsTime())
		_, nothing := do(t, s, after-time.Second, advance)
		require.Empty(t, nothing)
		var story string
		s, story = do(t, s, after, advance)
		told = append(told, fmt.Sprintf("after %v days: %s", after.Hours()/24, story))
	}
	require.Equal(t, []string{
		"after 2 days: reminder 1; ", "after 4 days: reminder 2; ",
		"after 5 days: level 1; ", "after 7 days: level 2; ", "after 9 days: level 3; ",
	}, told)
	require.EqualValues(t, 3, s.Task().GetEscalation())
	require.EqualValues(t, 2, s.Task().GetReminderCount())
	require.True(t, s.Task().GetOpen(), "and it stays a person's")
}

// Who was away for a month finds the task risen to where it then would stand,
// and is reminded once.
func TestATaskThatNobodyLookedAtCatchesUp(t *testing.T) {
	s, story := do(t, given(t, sent, reported), 30*day, advance)
	require.Equal(t, "level 1; level 2; level 3; reminder 1; ", story)
	_, again := do(t, s, 30*day, advance)
	require.Empty(t, again)
	require.Zero(t, s.NextTime())
}

func TestATaskThatIsHeldTooLongGoesBack(t *testing.T) {
	s, story := do(t, given(t, sent, reported), day, payments.Assign{Assignee: "bob", Who: "bob"})
	require.Equal(t, `with "bob"; `, story)
	require.Equal(t, at(4*day).AsTime(), s.Task().GetHeldUntil().AsTime())
	s, story = do(t, s, 4*day, advance)
	require.Equal(t, `with ""; reminder 1; `, story)
	require.Nil(t, s.Task().GetHeldUntil())
	_, story = do(t, s, 4*day, payments.Assign{Assignee: "eve", Who: "eve"})
	require.Equal(t, `with "eve"; `, story, "another may take it")
}

func TestAPayersOwnTimeCounts(t *testing.T) {
	terms := payments.Terms{Decide: casework.Days(10), DecideFor: map[string]casework.Span{"ACME": casework.Span(36 * time.Hour)}}
	fail := reported
	fail.Terms = terms
	s := given(t, sent, fail)
	require.Equal(t, at(36*time.Hour).AsTime(), s.Task().GetDueTime().AsTime())
	s, story := do(t, s, 36*time.Hour, payments.Advance{Terms: terms})
	require.Equal(t, "level 1; ", story, "due before the first reminder")
	require.EqualValues(t, 1, s.Task().GetEscalation())
}

// However often and late somebody looks: the level only rises, to 3 at most,
// never before the task is due, and nothing follows once it is decided.
func TestDeadlinesWheneverSomebodyLooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := given(t, sent, reported)
		passed := time.Duration(0)
		for range rapid.IntRange(1, 12).Draw(t, "looks") {
			passed += time.Duration(rapid.IntRange(0, 72).Draw(t, "hours")) * time.Hour
			before := s.Task()
			commands := map[string]payments.Command{
				"look": advance, "take": payments.Assign{Assignee: "bob", Who: "bob"}, "lift": payments.ReleasePayee{Who: "bob"}, "decide": retry,
			}
			name := rapid.SampledFrom([]string{"look", "look", "look", "take", "lift", "decide"}).Draw(t, "command")
			events, err := s.Decide(commands[name], at(passed))
			s = grown(s, events)
			if !before.GetOpen() {
				require.Empty(t, events)
				require.Zero(t, s.NextTime())
				return
			}
			require.NoError(t, err)
			now := s.Task()
			if passed < 5*day {
				require.Zero(t, now.GetEscalation())
			}
			require.GreaterOrEqual(t, now.GetEscalation(), before.GetEscalation())
			require.LessOrEqual(t, now.GetEscalation(), uint32(3))
			if name == "look" {
				next := s.NextTime()
				require.True(t, next.IsZero() || next.After(at(passed).AsTime()), "nothing due is left")
				if passed >= 9*day {
					require.EqualValues(t, 3, now.GetEscalation())
				}
			}
		}
	})
}

// A payee's stream: whatever comes in whatever order, nothing is cleared while
// any failed payment holds the payee, and each holds it once, also where
// somebody tells what was so when it was read.
func TestNothingIsClearedWhileThePayeeIsHeld(t *testing.T) {
	ids := []string{"pay_a", "pay_b", "pay_c"}
	rapid.Check(t, func(t *rapid.T) {
		var payee payments.Payee
		tasks, stale := map[string]payments.State{}, map[string]payments.State{}
		for _, id := range ids {
			intended, err := payments.Intend(remittance(), id, "", noon)
			require.NoError(t, err)
			tasks[id] = payments.Evolve(payments.State{}, intended)
			stale[id] = tasks[id]
		}
		holding, everHeld := map[string]bool{}, map[string]int{}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			id := rapid.SampledFrom(ids).Draw(t, "payment")
			change := func(c payments.Command) {
				stale[id] = tasks[id]
				events, _ := tasks[id].Decide(c, noon)
				tasks[id] = grown(tasks[id], events)
			}
			tell := func(of payments.State) {
				for _, e := range payee.Hold(of) {
					switch e.(type) {
					case *eventsv1.PayeeHeld:
						holding[id] = true
						everHeld[id]++
					case *eventsv1.PayeeFreed:
						delete(holding, id)
					}
					payee = payments.EvolvePayee(payee, e)
				}
			}
			switch rapid.SampledFrom([]string{"fail", "lift", "tell", "tell what was read before", "clear", "clear"}).Draw(t, "step") {
			case "fail":
				change(withdrawn)
			case "lift":
				change(payments.ReleasePayee{Who: "bob"})
			case "tell":
				tell(tasks[id])
				require.Equal(t, tasks[id].Task().GetHoldsPayee(), holding[id])
			case "tell what was read before":
				tell(stale[id])
			case "clear":
				events, heldBy, err := payee.Clear(tasks[id], noon)
				switch {
				case tasks[id].Payment.GetState() != claimsv1.PaymentState_PAYMENT_STATE_INTENDED:
					require.Error(t, err)
					require.Empty(t, events)
				case len(holding) > 0:
					require.Empty(t, events)
					require.True(t, holding[heldBy])
				default:
					require.Len(t, events, 1)
					require.Empty(t, heldBy)
				}
			}
			require.Len(t, payee.Held(), len(holding))
			require.LessOrEqual(t, everHeld[id], 1)
		}
	})
}
