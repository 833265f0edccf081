package distributed

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/workflows/payment"
)

// bank moves the money of an installation: it takes orders and says what became
// of each.
type bank struct {
	*story
	taken map[string]payment.Order // by payment id
	kept  map[string]bool
}

// sweep takes what is in the outbox.
func (b *bank) sweep(t *testing.T) {
	t.Helper()
	outbox := b.path("payments", "outbox")
	files, err := os.ReadDir(outbox)
	require.NoError(t, err)
	for _, f := range files {
		raw, err := os.ReadFile(b.path("payments", "outbox", f.Name()))
		require.NoError(t, err)
		var o payment.Order
		require.NoError(t, json.Unmarshal(raw, &o))
		require.NotContains(t, b.taken, o.PaymentID, "an order comes once")
		b.taken[o.PaymentID] = o
		require.NoError(t, os.Remove(b.path("payments", "outbox", f.Name())))
	}
}

// cycle runs a payment cycle to its end while a process is killed.
func (b *bank) cycle(t *testing.T, victim string) *workflowsv1.PaymentRun {
	t.Helper()
	ended := make(chan *workflowsv1.PaymentRun, 1)
	go func() {
		defer close(ended)
		for n := 0; t.Context().Err() == nil; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			got, err := b.planAdmin.Cycles.RunPayments(ctx, &workflowsv1.RunPaymentsRequest{PayerId: sample.PayerID, RequestId: fmt.Sprint(victim, n, len(b.taken))})
			cancel()
			if err == nil {
				ended <- got.GetRun()
				return
			}
			select {
			case <-t.Context().Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	if victim != "" {
		b.running[victim].Kill()
		b.start(victim)
		if victim == "temporal" {
			b.listens(victim)
		} else {
			b.ready(victim)
		}
	}
	select {
	case run := <-ended:
		require.NotNil(t, run)
		b.sweep(t)
		return run
	case <-time.After(patience):
		t.Fatalf("the cycle stands still with %s restarted", victim)
	}
	return nil
}

// settled repeats a call that says what became of a payment; one that had its
// effect and lost its answer is answered the same.
func settled[A any](t *testing.T, call func(context.Context) (A, error)) {
	t.Helper()
	_ = patiently(t, call)
}

// pays: given claims that are decided and cycles in which claims service, worker
// and Temporal are killed one after the other, when the bank rejects orders,
// sends back what it had confirmed and refuses a payee, and people decide what
// becomes of each, then what the bank kept is what the claims are paid.
func (s *story) pays(t *testing.T) {
	s.enrols(t)
	b := &bank{story: s, taken: map[string]payment.Order{}, kept: map[string]bool{}}
	supervisor := s.as("supervisor")
	decideAll := func() (decided int) {
		list := patiently(t, func(ctx context.Context) (*claimsv1.ListPaymentTasksResponse, error) {
			return supervisor.PayTasks.ListPaymentTasks(ctx, &claimsv1.ListPaymentTasksRequest{PageSize: 1000})
		})
		for _, task := range list.GetTasks() {
			settled(t, func(ctx context.Context) (*claimsv1.ResolvePaymentTaskResponse, error) {
				return supervisor.PayTasks.ResolvePaymentTask(ctx, &claimsv1.ResolvePaymentTaskRequest{
					PaymentId: task.GetPayment().GetPaymentId(), Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY,
				})
			})
		}
		return len(list.GetTasks())
	}
	// Each order is confirmed, but the first, which is rejected; the next that
	// was confirmed comes back.
	rejected, returned := 0, 0
	answer := func() {
		for id := range b.taken {
			if _, known := b.kept[id]; known {
				continue
			}
			b.kept[id] = rejected > 0
			if rejected == 0 {
				rejected++
				settled(t, func(ctx context.Context) (*claimsv1.FailPaymentResponse, error) {
					return s.planAdmin.Payments.FailPayment(ctx, &claimsv1.FailPaymentRequest{PaymentId: id, Reason: "account-unknown"})
				})
				continue
			}
			settled(t, func(ctx context.Context) (*claimsv1.ConfirmPaymentResponse, error) {
				return s.planAdmin.Payments.ConfirmPayment(ctx, &claimsv1.ConfirmPaymentRequest{PaymentId: id, Reference: "bank/1"})
			})
			if returned == 0 {
				returned++
				b.kept[id] = false
				settled(t, func(ctx context.Context) (*claimsv1.FailPaymentResponse, error) {
					return s.planAdmin.Payments.FailPayment(ctx, &claimsv1.FailPaymentRequest{PaymentId: id, Reason: "returned", Returned: true})
				})
			}
		}
	}

	// First the bank takes nothing for the payee of the generated files.
	stop := s.path("payments", "stop", "1600100014")
	require.NoError(t, os.WriteFile(stop, []byte("account-closed\n"), 0o600))
	b.cycle(t, "worker")
	again := b.cycle(t, "")
	require.Zero(t, again.GetFailed(), "a payee whose payment has failed is not tried again")
	require.NoError(t, os.Remove(stop))
	require.Positive(t, decideAll())
	failures := 0
	for _, victim := range []string{"claims", "worker", "temporal"} {
		s.completes(t, s.submit(t, s.generated(30)))
		b.cycle(t, victim)
		answer()
		failures += decideAll()
	}
	for n := 0; ; n++ {
		require.Less(t, n, 10, "the cycles come to an end")
		run := b.cycle(t, "")
		answer()
		failures += decideAll()
		if run.GetRemittances() == 0 && run.GetPaid() == 0 {
			break
		}
	}
	require.Equal(t, []int{1, 1, 2}, []int{rejected, returned, failures})

	// Then each payment stands as the bank says, and together they pay the claims.
	list := patiently(t, func(ctx context.Context) (*claimsv1.ListPaymentsResponse, error) {
		return s.planAdmin.Payments.ListPayments(ctx, &claimsv1.ListPaymentsRequest{PageSize: 1000})
	})
	kept, voided := int64(0), 0
	for _, p := range list.GetPayments() {
		switch p.GetState() {
		case claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED:
			require.True(t, b.kept[p.GetPaymentId()], p.GetPaymentId())
			require.Equal(t, b.taken[p.GetPaymentId()].AmountCents, p.GetAmountCents())
			kept += p.GetAmountCents()
		case claimsv1.PaymentState_PAYMENT_STATE_VOIDED:
			require.False(t, b.kept[p.GetPaymentId()], p.GetPaymentId())
			voided++
		default:
			t.Errorf("%s is %s", p.GetPaymentId(), p.GetState())
		}
	}
	require.Greater(t, voided, 2, "the refused, the rejected and the returned")
	decided := int64(0)
	for _, c := range s.list(t, "") {
		if c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PAID {
			decided += c.GetPaidCents()
		}
	}
	require.Equal(t, decided, kept)
	// And a submitter of claims has no say in it.
	_, err := s.biller.PayTasks.ListPaymentTasks(t.Context(), &claimsv1.ListPaymentTasksRequest{})
	require.Equal(t, problem.Forbidden, problem.As(err).Kind)
}
