package payment_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/payment"
)

const payer = "KEYSTONE"

// books are a claims service's side of payments, by the same rules: one
// payment a remittance, no confirmation after a failure, nothing undone in doubt.
type books struct {
	mu       sync.Mutex
	payments map[string]*claimsv1.Payment
	told     []string // remittances still to be made, by call; "" a call that makes none and has more after it
	requests []string
	away     int // calls that are answered Unavailable
	page     int
	holds    map[string]string // by payment: the failed one that holds its payee since the lists were read
}

func newBooks(remittances ...string) *books {
	return &books{payments: map[string]*claimsv1.Payment{}, told: remittances, page: 100}
}

func (b *books) enter() error {
	if b.away > 0 {
		b.away--
		return problem.New(problem.Unavailable, problem.Problem{RuleID: "test.away", Message: "away"})
	}
	return nil
}

func (b *books) CreateRemittances(_ context.Context, q *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.enter(); err != nil {
		return nil, err
	}
	b.requests = append(b.requests, q.GetRequestId())
	out := &claimsv1.CreateRemittancesResponse{}
	if len(b.told) > 0 {
		out.Remittances = []*claimsv1.Remittance{{RemittanceId: b.told[0], PaidCents: 100, Position: &ledgerv1.Position{Log: "claims", Shard: 3, Index: uint64(len(b.requests))}}}
		b.payments["pay_"+b.told[0][4:]] = nil
		b.told = b.told[1:]
	}
	out.More = len(b.told) > 0
	return out, nil
}

func (b *books) IntendPayments(_ context.Context, q *claimsv1.IntendPaymentsRequest) (*claimsv1.IntendPaymentsResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.enter(); err != nil {
		return nil, err
	}
	out := &claimsv1.IntendPaymentsResponse{}
	for id, p := range b.payments {
		if p == nil {
			b.payments[id] = &claimsv1.Payment{PaymentId: id, RemittanceId: "rem_" + id[4:], PayerId: q.GetPayerId(), AmountCents: 100, State: claimsv1.PaymentState_PAYMENT_STATE_INTENDED}
			out.Count++
		}
	}
	return out, nil
}

func conflict() error {
	return problem.New(problem.Conflict, problem.Problem{RuleID: "test.conflict", Message: "it stands elsewhere"})
}

// ClearPayment answers by who holds the payee now, whatever the lists showed.
func (b *books) ClearPayment(_ context.Context, q *claimsv1.ClearPaymentRequest) (*claimsv1.ClearPaymentResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.enter(); err != nil {
		return nil, err
	}
	if b.payments[q.GetPaymentId()].GetState() != claimsv1.PaymentState_PAYMENT_STATE_INTENDED {
		return nil, conflict()
	}
	return &claimsv1.ClearPaymentResponse{HeldBy: b.holds[q.GetPaymentId()]}, nil
}

func (b *books) RecordPayment(_ context.Context, q *claimsv1.RecordPaymentRequest) (*claimsv1.RecordPaymentResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.enter(); err != nil {
		return nil, err
	}
	p := b.payments[q.GetPaymentId()]
	if p.GetState() >= claimsv1.PaymentState_PAYMENT_STATE_FAILED {
		return nil, conflict()
	}
	p.State = claimsv1.PaymentState_PAYMENT_STATE_SENT
	if q.GetConfirmed() {
		p.State = claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED
	}
	return &claimsv1.RecordPaymentResponse{Payment: p}, nil
}

func (b *books) FailPayment(_ context.Context, q *claimsv1.FailPaymentRequest) (*claimsv1.FailPaymentResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.enter(); err != nil {
		return nil, err
	}
	p := b.payments[q.GetPaymentId()]
	if p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED || !q.GetWithdrawn() {
		return nil, conflict()
	}
	switch {
	case p.GetState() != claimsv1.PaymentState_PAYMENT_STATE_FAILED:
		p.State, p.FailureReason = claimsv1.PaymentState_PAYMENT_STATE_FAILED, q.GetReason()
	case p.GetResolution() != 0:
		p.State = claimsv1.PaymentState_PAYMENT_STATE_VOIDED
	}
	return &claimsv1.FailPaymentResponse{Payment: p}, nil
}

func (b *books) GetPayment(_ context.Context, q *claimsv1.GetPaymentRequest) (*claimsv1.GetPaymentResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &claimsv1.GetPaymentResponse{Payment: proto.CloneOf(b.payments[q.GetPaymentId()])}, b.enter()
}

func (b *books) ListPayments(_ context.Context, q *claimsv1.ListPaymentsRequest) (*claimsv1.ListPaymentsResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &claimsv1.ListPaymentsResponse{}
	for _, id := range slices.Sorted(maps.Keys(b.payments)) {
		p := b.payments[id]
		if id <= q.GetPageToken() || p == nil || (p.State != claimsv1.PaymentState_PAYMENT_STATE_INTENDED && (p.State != claimsv1.PaymentState_PAYMENT_STATE_FAILED || p.Resolution == 0)) {
			continue
		}
		if len(out.Payments) == b.page {
			out.NextPageToken = out.Payments[b.page-1].PaymentId
			break
		}
		out.Payments = append(out.Payments, proto.CloneOf(p))
	}
	return out, b.enter()
}

func (b *books) state(id string) claimsv1.PaymentState { return b.payments[id].GetState() }

// bank is a port whose faults have names. It keeps the port's promise unless a
// fault's name says that its answer lies.
type bank struct {
	mu     sync.Mutex
	faults map[string][]fault // by payment, a call each
	made   map[string]int
	gone   map[string]bool // withdrawn
	calls  int
	later  bool // answers that somebody confirms it later
}

type fault string

const (
	fails           fault = "fails"
	failsButPaid    fault = "fails but paid"
	timesOut        fault = "times out"
	timesOutButPaid fault = "times out but paid"
	refuses         fault = "refuses"
	noWithdrawal    fault = "can't be asked to withdraw"
)

func newBank() *bank {
	return &bank{faults: map[string][]fault{}, made: map[string]int{}, gone: map[string]bool{}}
}

func (b *bank) next(id string) fault {
	if len(b.faults[id]) == 0 {
		return ""
	}
	f := b.faults[id][0]
	b.faults[id] = b.faults[id][1:]
	return f
}

var errBank = errors.New("the bank's line is dead")

func (b *bank) Pay(ctx context.Context, o payment.Order, _ payment.Advice) (payment.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	pay := func() {
		if b.made[o.PaymentID] == 0 {
			b.made[o.PaymentID]++
		}
	}
	if b.gone[o.PaymentID] {
		return payment.Receipt{}, payment.ErrWithdrawn
	}
	switch b.next(o.PaymentID) {
	case fails, noWithdrawal:
		return payment.Receipt{}, errBank
	case failsButPaid:
		pay()
		return payment.Receipt{}, errBank
	case timesOut:
		return payment.Receipt{}, context.DeadlineExceeded
	case timesOutButPaid:
		pay()
		return payment.Receipt{}, context.DeadlineExceeded
	case refuses:
		return payment.Receipt{}, &payment.RefusedError{Reason: "account-closed"}
	}
	pay()
	return payment.Receipt{Reference: "bank/" + o.PaymentID, Made: !b.later}, nil
}

func (b *bank) Withdraw(_ context.Context, o payment.Order) (payment.Receipt, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next(o.PaymentID) == noWithdrawal {
		return payment.Receipt{}, false, errBank
	}
	if b.made[o.PaymentID] > 0 {
		return payment.Receipt{Reference: "bank/" + o.PaymentID, Made: true}, true, nil
	}
	b.gone[o.PaymentID] = true
	return payment.Receipt{}, false, nil
}

// run starts a cycle, asks it for runs at the given times after that, and
// ends it a month later.
type run struct {
	*testsuite.TestWorkflowEnvironment
	t       *testing.T
	answers []*workflowsv1.PaymentRun
	failed  []error
}

var begin = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func start(t *testing.T, b *books, p payment.Port) *run {
	var suite testsuite.WorkflowTestSuite
	r := &run{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t}
	r.SetStartTime(begin)
	r.SetTestTimeout(20 * time.Second)
	r.SetWorkerOptions(worker.Options{})
	payment.Hook(&payment.Activities{Remittances: b, Payments: b, Port: p}).Register(r)
	r.RegisterDelayedCallback(r.CancelWorkflow, 30*24*time.Hour)
	return r
}

func (r *run) ask(after time.Duration, id string) {
	r.RegisterDelayedCallback(func() {
		r.UpdateWorkflow(payment.UpdateRun, id, &testsuite.TestUpdateCallback{
			OnAccept: func() {},
			OnReject: func(err error) { r.failed = append(r.failed, err) },
			OnComplete: func(v any, err error) {
				if err != nil {
					r.failed = append(r.failed, err)
					return
				}
				r.answers = append(r.answers, v.(*workflowsv1.PaymentRun))
			},
		}, id)
	}, after)
}

func (r *run) until(s payment.Schedule) {
	r.t.Helper()
	r.ExecuteWorkflow(payment.WorkflowType, payment.Input{PayerID: payer, Schedule: s})
	require.True(r.t, r.IsWorkflowCompleted())
	var cancelled interface{ Error() string }
	require.ErrorAs(r.t, r.GetWorkflowError(), &cancelled)
	require.Contains(r.t, cancelled.Error(), "canceled")
}

func TestARunRemitsIntendsAndPays(t *testing.T) {
	// Given three remittances to be made in as many calls, a payment that an
	// earlier run left, one whose voiding broke off, and one whose payee is held.
	b := newBooks("rem_a", "rem_b", "rem_c")
	b.page = 2
	b.payments["pay_left"] = &claimsv1.Payment{PaymentId: "pay_left", AmountCents: 7, State: claimsv1.PaymentState_PAYMENT_STATE_INTENDED}
	b.payments["pay_void"] = &claimsv1.Payment{PaymentId: "pay_void", AmountCents: 7, State: claimsv1.PaymentState_PAYMENT_STATE_FAILED, FailureReason: "returned", Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY}
	b.payments["pay_held"] = &claimsv1.Payment{PaymentId: "pay_held", AmountCents: 9, State: claimsv1.PaymentState_PAYMENT_STATE_INTENDED, HeldBy: "pay_other"}
	port := newBank()
	r := start(t, b, port)
	b.away = 2 // and a service that is away at first

	// When a run is asked for twice.
	r.ask(time.Second, "one")
	r.ask(time.Hour, "two")
	r.until(payment.Schedule{})

	// Then everything is paid once.
	require.Empty(t, r.failed)
	require.Len(t, r.answers, 2)
	first := r.answers[0]
	require.Equal(t, []any{uint32(3), uint32(4), int64(307), uint32(0), uint32(1), uint32(0)},
		[]any{first.GetRemittances(), first.GetPaid(), first.GetPaidCents(), first.GetFailed(), first.GetHeld(), first.GetInDoubt()})
	require.NotNil(t, first.GetEndTime())
	require.Zero(t, r.answers[1].GetPaid())
	require.Equal(t, map[string]int{"pay_a": 1, "pay_b": 1, "pay_c": 1, "pay_left": 1}, port.made)
	require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, b.state("pay_a"))
	require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_VOIDED, b.state("pay_void"))
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(b.requests))), 4, "each call has a request id of its own")
}

func TestWhatAPortAnswersIsTakenAtItsWord(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults []fault
		paid   bool
		state  claimsv1.PaymentState
		doubt  bool
		reason string
	}{
		{"answers at once", nil, true, claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, false, ""},
		{"fails twice, then takes it", []fault{fails, timesOut}, true, claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, false, ""},
		{"fails but has paid", []fault{failsButPaid}, true, claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, false, ""},
		{"times out but has paid, and fails to the end", []fault{timesOutButPaid, fails, fails, fails, fails}, true, claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, false, ""},
		{"fails to the end", []fault{fails, fails, fails, fails, fails}, false, claimsv1.PaymentState_PAYMENT_STATE_FAILED, false, "not-delivered"},
		{"refuses", []fault{refuses}, false, claimsv1.PaymentState_PAYMENT_STATE_FAILED, false, "account-closed"},
		{"refuses at the second attempt", []fault{timesOut, refuses}, false, claimsv1.PaymentState_PAYMENT_STATE_FAILED, false, "account-closed"},
		{"can't be asked any more", []fault{fails, fails, fails, fails, fails, noWithdrawal}, false, claimsv1.PaymentState_PAYMENT_STATE_INTENDED, true, ""},
		{"can't be asked any more but has paid", []fault{failsButPaid, fails, fails, fails, fails, noWithdrawal}, true, claimsv1.PaymentState_PAYMENT_STATE_INTENDED, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, port := newBooks("rem_a", "rem_b"), newBank()
			port.faults["pay_a"] = c.faults
			r := start(t, b, port)
			r.ask(time.Second, "one")
			r.until(payment.Schedule{})

			require.Empty(t, r.failed)
			require.Equal(t, c.state, b.state("pay_a"))
			require.Equal(t, c.reason, b.payments["pay_a"].GetFailureReason())
			require.Equal(t, c.paid, port.made["pay_a"] == 1)
			require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, b.state("pay_b"), "others are paid all the same")
			require.Equal(t, c.doubt, r.answers[0].GetInDoubt() == 1)
			require.Equal(t, c.state == claimsv1.PaymentState_PAYMENT_STATE_FAILED, r.answers[0].GetFailed() == 1)
		})
	}
}

// A payment whose payee is held after the run has read its page stays where it
// is, also where the hold comes between two attempts, and goes once it is lifted.
func TestAPayeeHeldAfterThePageWasReadIsPaidNothing(t *testing.T) {
	b, port := newBooks("rem_a", "rem_b"), newBank()
	b.holds = map[string]string{"pay_a": "pay_other"}
	port.faults["pay_b"] = []fault{fails}
	r := start(t, b, port)
	r.ask(time.Second, "one")
	r.RegisterDelayedCallback(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.holds["pay_b"] = "pay_other"
	}, 30*time.Second) // before the second attempt
	r.RegisterDelayedCallback(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		require.Equal(t, 1, port.calls, "only the attempt from before the hold")
		clear(b.holds)
	}, time.Hour)
	r.ask(2*time.Hour, "two")
	r.until(payment.Schedule{})
	require.EqualValues(t, 2, r.answers[0].GetHeld())
	require.Zero(t, r.answers[0].GetPaid())
	require.EqualValues(t, 2, r.answers[1].GetPaid())
	require.Equal(t, map[string]int{"pay_a": 1, "pay_b": 1}, port.made)
}

func TestAPaymentInDoubtIsAskedAgainByTheNextRun(t *testing.T) {
	b, port := newBooks("rem_a"), newBank()
	port.faults["pay_a"] = []fault{failsButPaid, fails, fails, fails, fails, noWithdrawal}
	r := start(t, b, port)
	r.ask(time.Second, "one")
	r.ask(24*time.Hour, "two")
	r.until(payment.Schedule{})
	require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, b.state("pay_a"))
	require.Equal(t, 1, port.made["pay_a"])
}

func TestAPaymentThatSomebodyConfirmsLaterIsSent(t *testing.T) {
	b, port := newBooks("rem_a"), newBank()
	port.later = true
	r := start(t, b, port)
	r.ask(time.Second, "one")
	r.ask(time.Hour, "two")
	r.until(payment.Schedule{})
	require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_SENT, b.state("pay_a"))
	require.Equal(t, 1, port.calls, "it isn't handed over again")
}

// Two who ask while a run is under way share the one after it: what they want
// paid may be younger than the run.
func TestWhoAsksDuringARunGetsTheNext(t *testing.T) {
	b, port := newBooks("rem_a"), newBank()
	port.faults["pay_a"] = []fault{fails} // the run pauses a minute
	r := start(t, b, port)
	r.ask(time.Second, "one")
	r.RegisterDelayedCallback(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = []string{"rem_b"}
	}, 10*time.Second)
	r.ask(20*time.Second, "two")
	r.ask(21*time.Second, "three")
	r.until(payment.Schedule{})
	require.Len(t, r.answers, 3)
	require.EqualValues(t, 1, r.answers[0].GetPaid())
	require.True(t, proto.Equal(r.answers[1], r.answers[2]))
	require.EqualValues(t, 1, r.answers[1].GetPaid())
	require.Equal(t, map[string]int{"pay_a": 1, "pay_b": 1}, port.made)
	require.Len(t, b.requests, 2)
}

func TestACycleRunsByItsScheduleAndTakesAnother(t *testing.T) {
	b := newBooks()
	r := start(t, b, newBank())
	var seen []string
	look := func(after time.Duration) {
		r.RegisterDelayedCallback(func() {
			v, err := r.QueryWorkflow(payment.QueryCycle)
			require.NoError(t, err)
			var c workflowsv1.GetPaymentCycleResponse
			require.NoError(t, v.Get(&c))
			next := "none"
			if c.GetNextTime() != nil {
				next = c.GetNextTime().AsTime().Format("01-02 15:04")
			}
			seen = append(seen, fmt.Sprintf("%d runs, next %s", len(b.requests), next))
		}, after)
	}
	look(time.Hour)
	look(3*24*time.Hour + time.Hour)
	r.RegisterDelayedCallback(func() { r.SignalWorkflow(payment.SignalSchedule, payment.Schedule{Every: 7 * 24 * time.Hour}) }, 4*24*time.Hour)
	look(4*24*time.Hour + time.Minute)
	r.RegisterDelayedCallback(func() { r.SignalWorkflow(payment.SignalSchedule, payment.Schedule{}) }, 6*24*time.Hour)
	look(29 * 24 * time.Hour)
	r.until(payment.Schedule{Every: 24 * time.Hour, Offset: 2 * time.Hour})
	require.Equal(t, []string{
		"0 runs, next 11-22 02:00", "3 runs, next 11-25 02:00", "4 runs, next 11-26 00:00", "5 runs, next none",
	}, seen)
}

func TestTheNextRunIsAfterNowAndOnTheSchedule(t *testing.T) {
	daily := payment.Schedule{Every: 24 * time.Hour, Offset: 2 * time.Hour}
	for _, c := range []struct{ after, next string }{
		{"2026-11-21T01:59:59Z", "2026-11-21T02:00:00Z"},
		{"2026-11-21T02:00:00Z", "2026-11-22T02:00:00Z"},
		{"1970-01-01T00:00:00Z", "1970-01-01T02:00:00Z"},
		{"1969-12-31T12:00:00Z", "1970-01-01T02:00:00Z"},
	} {
		after, err := time.Parse(time.RFC3339, c.after)
		require.NoError(t, err)
		next, scheduled := daily.Next(after)
		require.True(t, scheduled)
		require.Equal(t, c.next, next.Format(time.RFC3339), c.after)
	}
	_, scheduled := payment.Schedule{}.Next(begin)
	require.False(t, scheduled)
}
