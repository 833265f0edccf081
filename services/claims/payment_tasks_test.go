package claims

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/claims/payments"
	"github.com/probity-health/probity/services/problem"
)

const (
	toRetry    = claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY
	toChange   = claimsv1.PaymentResolution_PAYMENT_RESOLUTION_CHANGE_METHOD
	toWriteOff = claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF
)

// failing is a world with one payment that the port has refused, another of the
// payee that was intended before that, and a remittance to it made since.
func failing(t *testing.T) (w *world, failed, early *claimsv1.Payment) {
	w = newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01")) // the deductible
	w.submit(lakeside(), "r1", visit(0, "2026-02-02"))
	first := w.cycle("c1").Remittances[0]
	w.submit(lakeside(), "r2", visit(0, "2026-02-03"))
	w.cycle("c1 too")
	open := w.intend(w.Service)
	require.Len(t, open, 2)
	res, err := w.fail(service(), paymentID(first.RemittanceId), true)
	require.NoError(t, err)
	w.submit(lakeside(), "r3", visit(0, "2026-02-04"))
	w.cycle("c2")
	return w, res.Payment, open[1]
}

func (w *world) tasks() []*claimsv1.PaymentTask {
	w.t.Helper()
	w.seen(w.Service)
	res, err := w.ListPaymentTasks(supervisor("sup-1"), &claimsv1.ListPaymentTasksRequest{PayerId: payer})
	require.NoError(w.t, err)
	return res.Tasks
}

func TestAFailedPaymentIsATaskAndHoldsItsPayee(t *testing.T) {
	w, failed, early := failing(t)

	// Then it is listed, and what the payee is due since is intended and held.
	tasks := w.tasks()
	require.Len(t, tasks, 1)
	require.Equal(t, failed.PaymentId, tasks[0].Payment.PaymentId)
	require.True(t, tasks[0].HoldsPayee)
	require.Empty(t, tasks[0].Assignee)
	asked, err := w.IntendPayments(service(), &claimsv1.IntendPaymentsRequest{PayerId: payer})
	require.NoError(t, err)
	require.EqualValues(t, 1, asked.Held)
	require.Zero(t, asked.Count)
	open := w.waiting(w.Service)
	require.Len(t, open, 1, "the failed one is a person's, not a cycle's")
	require.Equal(t, early.PaymentId, open[0].PaymentId)
	require.Equal(t, failed.PaymentId, open[0].HeldBy, "what was intended before is held as well")
	got, err := w.GetPayment(service(), &claimsv1.GetPaymentRequest{PaymentId: open[0].PaymentId})
	require.NoError(t, err)
	require.Equal(t, failed.PaymentId, got.Payment.HeldBy)

	// When it is taken, nobody else decides it, until it is given to another.
	_, err = w.ClaimPaymentTask(planAdmin(), &claimsv1.ClaimPaymentTaskRequest{PaymentId: failed.PaymentId})
	require.NoError(t, err)
	_, err = w.payAfterAll(w.Service, failed.PaymentId)
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	_, err = w.ClaimPaymentTask(supervisor("sup-1"), &claimsv1.ClaimPaymentTaskRequest{PaymentId: failed.PaymentId})
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	_, err = w.ReleasePaymentTask(supervisor("sup-1"), &claimsv1.ReleasePaymentTaskRequest{PaymentId: failed.PaymentId})
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	given, err := w.ReassignPaymentTask(supervisor("sup-2"), &claimsv1.ReassignPaymentTaskRequest{PaymentId: failed.PaymentId, Assignee: "sup-1"})
	require.NoError(t, err)
	require.Equal(t, "sup-1", given.Task.Assignee)
	mine, err := w.ListPaymentTasks(supervisor("sup-1"), &claimsv1.ListPaymentTasksRequest{Assignee: "sup-1"})
	require.NoError(t, err)
	require.Len(t, mine.Tasks, 1)
	none, err := w.ListPaymentTasks(supervisor("sup-1"), &claimsv1.ListPaymentTasksRequest{Assignee: "-"})
	require.NoError(t, err)
	require.Empty(t, none.Tasks)

	// And the hold is lifted while the task stays.
	for range 2 {
		freed, err := w.ReleasePayee(supervisor("sup-1"), &claimsv1.ReleasePayeeRequest{PaymentId: failed.PaymentId})
		require.NoError(t, err)
		require.False(t, freed.Task.HoldsPayee)
		require.True(t, freed.Task.Open)
	}
	require.Empty(t, w.waiting(w.Service)[0].HeldBy)
	require.False(t, w.tasks()[0].HoldsPayee)

	// And decided once: the list is empty, and another decision is refused.
	_, err = w.payAfterAll(w.Service, failed.PaymentId)
	require.NoError(t, err)
	require.Empty(t, w.tasks())
	before := len(w.events())
	_, err = w.payAfterAll(w.Service, failed.PaymentId)
	require.NoError(t, err, "the same again is the same")
	require.Len(t, w.events(), before)
	_, err = w.ResolvePaymentTask(supervisor("sup-1"), &claimsv1.ResolvePaymentTaskRequest{PaymentId: failed.PaymentId, Resolution: toWriteOff, Reference: "x"})
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
}

func TestAPayeeIsPaidAnotherWayFromThenOn(t *testing.T) {
	w, failed, early := failing(t)
	change := &claimsv1.ResolvePaymentTaskRequest{PaymentId: failed.PaymentId, Resolution: toChange}
	_, err := w.ResolvePaymentTask(supervisor("sup-1"), change)
	require.True(t, problem.Is(err, problem.Invalid), "to which? %v", err)
	change.Method = "check"
	_, err = w.ResolvePaymentTask(supervisor("sup-1"), change)
	require.NoError(t, err)
	w.pass(time.Second)
	again := w.cycle("c3").Remittances[0]
	require.Equal(t, failed.AmountCents, again.PaidCents)
	methods := map[string]int{}
	for _, p := range w.intend(w.Service) {
		require.Empty(t, p.HeldBy)
		if p.PaymentId != early.PaymentId {
			methods[p.Method]++
		}
	}
	require.Equal(t, map[string]int{"check": 2}, methods, "what is intended from now on")
}

// What is settled outside stays told, and nothing of it is paid again.
func TestAWrittenOffPaymentLeavesItsRemittanceStanding(t *testing.T) {
	w, failed, early := failing(t)
	off := &claimsv1.ResolvePaymentTaskRequest{PaymentId: failed.PaymentId, Resolution: toWriteOff}
	_, err := w.ResolvePaymentTask(supervisor("sup-1"), off)
	require.True(t, problem.Is(err, problem.Invalid), "under which reference? %v", err)
	off.Reference = "OH-unclaimed-2026/17"
	for range 2 {
		res, err := w.ResolvePaymentTask(supervisor("sup-1"), off)
		require.NoError(t, err)
		require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF, res.Task.Payment.State)
		require.Equal(t, off.Reference, res.Task.Payment.ResolutionReference)
		require.Zero(t, res.ClaimCount)
	}
	got, err := w.GetRemittance(service(), &claimsv1.GetRemittanceRequest{RemittanceId: failed.RemittanceId})
	require.NoError(t, err)
	require.False(t, got.Remittance.Voided)
	require.Empty(t, w.cycle("c3").Remittances)
	open := w.intend(w.Service)
	require.Len(t, open, 2)
	require.Equal(t, early.PaymentId, open[0].PaymentId)
	require.Empty(t, open[0].HeldBy)
	_, err = w.send(failed.PaymentId, true)
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	list, err := w.ListPayments(planAdmin(), &claimsv1.ListPaymentsRequest{State: claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF})
	require.NoError(t, err)
	require.Len(t, list.Payments, 1)
}

// Money comes back after the payment was confirmed: only who says so by that
// name is believed, and another person decides what becomes of it.
func TestAReturnedPaymentIsDecidedByAnotherThanWhoReportsIt(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01"))
	w.submit(lakeside(), "r1", visit(0, "2026-02-02"))
	w.cycle("c1")
	p := w.intend(w.Service)[0]
	_, err := w.send(p.PaymentId, true)
	require.NoError(t, err)
	_, err = w.fail(planAdmin(), p.PaymentId, false)
	require.True(t, problem.Is(err, problem.Conflict), "it was made: %v", err)
	back, err := w.FailPayment(planAdmin(), &claimsv1.FailPaymentRequest{PaymentId: p.PaymentId, Reason: "returned", Returned: true})
	require.NoError(t, err)
	require.True(t, back.Payment.Returned)
	require.Len(t, w.tasks(), 1)

	_, err = w.ResolvePaymentTask(planAdmin(), &claimsv1.ResolvePaymentTaskRequest{PaymentId: p.PaymentId, Resolution: toRetry})
	require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	_, err = w.ClaimPaymentTask(planAdmin(), &claimsv1.ClaimPaymentTaskRequest{PaymentId: p.PaymentId})
	require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	_, err = w.payAfterAll(w.Service, p.PaymentId)
	require.NoError(t, err)
	w.pass(time.Second)
	again := w.cycle("c2").Remittances[0]
	require.Equal(t, p.AmountCents, again.PaidCents)
	require.Empty(t, w.cycle("c3").Remittances)
}

func TestOnlyAFailedPaymentHasATask(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01"))
	w.submit(lakeside(), "r1", visit(0, "2026-02-02"))
	w.cycle("c1")
	p := w.intend(w.Service)[0]
	before := len(w.events())
	_, err := w.payAfterAll(w.Service, p.PaymentId)
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	_, err = w.ClaimPaymentTask(supervisor("sup-1"), &claimsv1.ClaimPaymentTaskRequest{PaymentId: p.PaymentId})
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	_, err = w.ClaimPaymentTask(otherOrg(), &claimsv1.ClaimPaymentTaskRequest{PaymentId: p.PaymentId})
	require.True(t, problem.Is(err, problem.NotFound), "%v", err)
	_, err = w.ListPaymentTasks(lakeside(), &claimsv1.ListPaymentTasksRequest{})
	require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	require.Len(t, w.events(), before)
}

func (w *world) cleared(s *Service, id string) string {
	w.t.Helper()
	res, err := s.ClearPayment(service(), &claimsv1.ClearPaymentRequest{PaymentId: id})
	require.NoError(w.t, err)
	return res.HeldBy
}

// twoWaiting is a world with two payments of one payee that nobody has handed
// over, the second intended after the first.
func twoWaiting(t *testing.T) (w *world, first, second *claimsv1.Payment) {
	w = newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01")) // the deductible
	w.submit(lakeside(), "r1", visit(0, "2026-02-02"))
	w.cycle("c1")
	w.submit(lakeside(), "r2", visit(0, "2026-02-03"))
	w.pass(time.Second)
	w.cycle("c2")
	open := w.intend(w.Service)
	require.Len(t, open, 2)
	return w, open[0], open[1]
}

// A run has read its page, which shows nothing held. Then a payment of the same
// payee fails, by another process, and only then does the run come to the
// second one: it isn't handed over, whatever the page said.
func TestARunThatReadItsPageBeforeAHoldHandsNothingOver(t *testing.T) {
	w, first, second := twoWaiting(t)
	other := w.start(w.index)
	w.seen(other)
	page := w.waiting(other)
	require.Len(t, page, 2)
	require.Empty(t, page[1].HeldBy)

	_, err := w.fail(service(), first.PaymentId, true)
	require.NoError(t, err)
	require.Equal(t, first.PaymentId, w.cleared(other, page[1].PaymentId))
	_, err = other.ClearPayment(service(), &claimsv1.ClearPaymentRequest{PaymentId: page[0].PaymentId})
	require.True(t, problem.Is(err, problem.Conflict), "the one that failed: %v", err)

	// When the hold is lifted it goes, and each attempt is a decision of its own.
	_, err = w.ReleasePayee(supervisor("sup-1"), &claimsv1.ReleasePayeeRequest{PaymentId: first.PaymentId})
	require.NoError(t, err)
	require.Empty(t, w.cleared(other, second.PaymentId))
	require.Empty(t, w.cleared(w.Service, second.PaymentId))
	_, err = w.send(second.PaymentId, true)
	require.NoError(t, err)
	_, err = other.ClearPayment(service(), &claimsv1.ClearPaymentRequest{PaymentId: second.PaymentId})
	require.True(t, problem.Is(err, problem.Conflict), "it is made: %v", err)
	require.Equal(t, []string{"PayeeHeld", "PayeeFreed", "PaymentCleared", "PaymentCleared"}, w.names(payeeStream(w.index, payer, biller)))
}

// names are a stream's event types in order.
func (w *world) names(stream string) (out []string) {
	w.t.Helper()
	for _, r := range w.events() {
		if r.Stream == stream {
			out = append(out, string(r.Event.ProtoReflect().Descriptor().Name()))
		}
	}
	return out
}

// A process dies between the failure and the hold, or between the decision and
// its end: whoever clears the next payment, or keeps the task, completes it.
func TestAHoldThatBrokeOffIsCompleted(t *testing.T) {
	failAlone := func(w *world, id string) {
		_, err := w.commandPayment(service(), "FailPayment", id, payments.Fail{Reason: "account-closed", Withdrawn: true})
		require.NoError(w.t, err)
		w.seen(w.Service)
	}
	t.Run("by who clears", func(t *testing.T) {
		w, first, second := twoWaiting(t)
		failAlone(w, first.PaymentId)
		require.Empty(t, w.names(payeeStream(w.index, payer, biller)))
		require.Equal(t, first.PaymentId, w.cleared(w.Service, second.PaymentId))

		// And the end of the hold, likewise.
		_, err := w.commandPayment(supervisor("sup-1"), "ReleasePayee", first.PaymentId, payments.ReleasePayee{Who: "sup-1"})
		require.NoError(t, err)
		require.Empty(t, w.cleared(w.Service, second.PaymentId))
	})
	t.Run("by who keeps the task", func(t *testing.T) {
		w, first, _ := twoWaiting(t)
		failAlone(w, first.PaymentId)
		for range 2 {
			_, err := w.AdvancePaymentTask(service(), &claimsv1.AdvancePaymentTaskRequest{PaymentId: first.PaymentId})
			require.NoError(t, err)
		}
		require.Equal(t, []string{"PayeeHeld"}, w.names(payeeStream(w.index, payer, biller)))
	})
}

// Nobody decides: the task is reminded of and escalated at its times, the list
// shows it to the supervisor, and what one person has too long goes back.
func TestATaskHasADeadlineAndIsEscalated(t *testing.T) {
	w, failed, _ := failing(t)
	advance := func() *claimsv1.AdvancePaymentTaskResponse {
		t.Helper()
		res, err := w.AdvancePaymentTask(service(), &claimsv1.AdvancePaymentTaskRequest{PaymentId: failed.PaymentId})
		require.NoError(t, err)
		return res
	}
	escalated := func(least uint32) int {
		t.Helper()
		w.seen(w.Service)
		res, err := w.ListPaymentTasks(supervisor("sup-1"), &claimsv1.ListPaymentTasksRequest{PayerId: payer, MinEscalation: least})
		require.NoError(t, err)
		return len(res.Tasks)
	}
	day := 24 * time.Hour
	opened := w.tasks()[0].OpenedTime.AsTime()
	require.Equal(t, opened.Add(5*day), w.tasks()[0].DueTime.AsTime())
	_, err := w.AdvancePaymentTask(supervisor("sup-1"), &claimsv1.AdvancePaymentTaskRequest{PaymentId: failed.PaymentId})
	require.True(t, problem.Is(err, problem.NotFound), "%v", err)

	// Before the first reminder nothing is due, however often somebody looks.
	before := len(w.events())
	for range 2 {
		res := advance()
		require.Equal(t, opened.Add(2*day), res.NextTime.AsTime())
	}
	require.Len(t, w.events(), before)

	// A reminder comes; then somebody takes the task and leaves it.
	w.pass(2 * day)
	require.EqualValues(t, 1, advance().Task.ReminderCount)
	taken, err := w.ClaimPaymentTask(planAdmin(), &claimsv1.ClaimPaymentTaskRequest{PaymentId: failed.PaymentId})
	require.NoError(t, err)
	require.Equal(t, taken.Task.HeldUntil.AsTime(), w.tasks()[0].HeldUntil.AsTime())
	w.pass(3 * day)
	require.Zero(t, escalated(1))
	late := advance()
	require.Empty(t, late.Task.Assignee, "it goes back")
	require.EqualValues(t, 1, late.Task.Escalation)
	require.Equal(t, 1, escalated(1), "and is the supervisor's to see")
	require.Zero(t, escalated(2))

	// The list says what the stream says, to the end.
	w.pass(30 * day)
	last := advance()
	require.EqualValues(t, 3, last.Task.Escalation)
	require.Nil(t, last.NextTime)
	w.seen(w.Service)
	require.EqualExportedValues(t, last.Task, w.tasks()[0])
	_, err = w.payAfterAll(w.Service, failed.PaymentId)
	require.NoError(t, err)
	closed := advance()
	require.False(t, closed.Task.Open)
	require.Nil(t, closed.NextTime)
}

func TestATaskOfAPaymentThatIsNotThereIsNotKept(t *testing.T) {
	w, first, _ := twoWaiting(t)
	before := len(w.events())
	res, err := w.AdvancePaymentTask(service(), &claimsv1.AdvancePaymentTaskRequest{PaymentId: first.PaymentId})
	require.NoError(t, err)
	require.Nil(t, res.Task, "it has not failed")
	for _, id := range []string{"pay_" + "aaaaaaaaaaaaaaaaaaaaaaaaaa", "pay_", ""} {
		_, err = w.AdvancePaymentTask(service(), &claimsv1.AdvancePaymentTaskRequest{PaymentId: id})
		require.True(t, problem.Is(err, problem.NotFound), "%v", err)
		_, err = w.ClearPayment(service(), &claimsv1.ClearPaymentRequest{PaymentId: id})
		require.True(t, problem.Is(err, problem.NotFound), "%v", err)
	}
	require.Len(t, w.events(), before)
}
