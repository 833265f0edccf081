package claims

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// intend intends the payments of everything issued so far and returns those
// that wait.
func (w *world) intend(s *Service) []*claimsv1.Payment {
	w.t.Helper()
	w.seen(s)
	_, err := s.IntendPayments(service(), &claimsv1.IntendPaymentsRequest{PayerId: payer})
	require.NoError(w.t, err)
	return w.waiting(s)
}

func (w *world) waiting(s *Service) []*claimsv1.Payment {
	w.t.Helper()
	res, err := s.ListPayments(service(), &claimsv1.ListPaymentsRequest{PayerId: payer, Open: true, PageSize: 1000})
	require.NoError(w.t, err)
	return res.GetPayments()
}

func (w *world) send(id string, confirmed bool) (*claimsv1.Payment, error) {
	res, err := w.RecordPayment(service(), &claimsv1.RecordPaymentRequest{PaymentId: id, Reference: "drop/" + id, Confirmed: confirmed})
	return res.GetPayment(), err
}

func (w *world) fail(ctx context.Context, id string, withdrawn bool) (*claimsv1.FailPaymentResponse, error) {
	return w.FailPayment(ctx, &claimsv1.FailPaymentRequest{PaymentId: id, Reason: "account-closed", Withdrawn: withdrawn})
}

// payAfterAll decides that a failed payment is paid anew.
func (w *world) payAfterAll(s *Service, id string) (*claimsv1.ResolvePaymentTaskResponse, error) {
	return s.ResolvePaymentTask(supervisor("sup-1"), &claimsv1.ResolvePaymentTaskRequest{PaymentId: id, Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY})
}

func TestARemittanceThatPaysIsPaidOnce(t *testing.T) {
	// Given a remittance of a cycle that pays, one of a file, and one that pays nothing.
	w := newWorld(t, 2)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01")) // the deductible
	w.submit(lakeside(), "r1", visit(0, "2026-02-02"))
	pays := w.cycle("c1").Remittances[0]
	file, _ := w.adjudicate(visit(0, "2026-02-03"))
	_, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run"})
	require.NoError(t, err)
	w.submit(lakeside(), "d1", visit(1, "2026-02-01"))
	w.pass(time.Second)
	require.Zero(t, w.cycle("c2").Remittances[0].PaidCents)

	// When payments are intended, twice.
	w.seen(w.Service)
	first, err := w.IntendPayments(service(), &claimsv1.IntendPaymentsRequest{PayerId: payer, MinPositions: []*ledgerv1.Position{pays.Position}})
	require.NoError(t, err)
	again, err := w.IntendPayments(service(), &claimsv1.IntendPaymentsRequest{PayerId: payer})
	require.NoError(t, err)

	// Then each remittance that pays has one payment, and the other none.
	require.EqualValues(t, 2, first.Count)
	require.EqualValues(t, 16000, first.AmountCents)
	require.Zero(t, again.Count)
	open := w.waiting(w.Service)
	require.Len(t, open, 2)
	p := open[0]
	require.Equal(t, paymentID(pays.RemittanceId), p.PaymentId)
	require.Equal(t, []any{pays.PaidCents, pays.TraceNumber, pays.PaymentDate, biller}, []any{p.AmountCents, p.TraceNumber, p.PaymentDate, p.PayeeNpi})

	// And it goes from hand to hand, each step once.
	_, err = w.ConfirmPayment(planAdmin(), &claimsv1.ConfirmPaymentRequest{PaymentId: p.PaymentId})
	require.True(t, problem.Is(err, problem.Conflict), "nobody has handed it over: %v", err)
	_, err = w.fail(planAdmin(), p.PaymentId, false)
	require.True(t, problem.Is(err, problem.Conflict), "it may still be handed over: %v", err)
	_, err = w.fail(planAdmin(), p.PaymentId, true)
	require.True(t, problem.Is(err, problem.Invalid), "a person can't know that: %v", err)
	for range 2 {
		sent, err := w.send(p.PaymentId, false)
		require.NoError(t, err)
		require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_SENT, sent.State)
	}
	before := len(w.events())
	for range 2 {
		res, err := w.ConfirmPayment(planAdmin(), &claimsv1.ConfirmPaymentRequest{PaymentId: p.PaymentId, Reference: "bank-1"})
		require.NoError(t, err)
		require.Equal(t, "bank-1", res.Payment.Reference)
		require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, res.Payment.State)
	}
	require.Len(t, w.events(), before+1)
	_, err = w.fail(planAdmin(), p.PaymentId, false)
	require.True(t, problem.Is(err, problem.Conflict), "it was made: %v", err)
	_, err = w.send(open[1].PaymentId, true)
	require.NoError(t, err)
	w.seen(w.Service)
	require.Empty(t, w.waiting(w.Service))

	t.Run("the list is what the streams say", func(t *testing.T) {
		res, err := w.ListPayments(planAdmin(), &claimsv1.ListPaymentsRequest{PayerId: payer})
		require.NoError(t, err)
		require.Len(t, res.Payments, 2)
		for _, row := range res.Payments {
			got, err := w.GetPayment(planAdmin(), &claimsv1.GetPaymentRequest{PaymentId: row.PaymentId})
			require.NoError(t, err)
			require.EqualExportedValues(t, got.Payment, row)
		}
		theirs, err := w.ListPayments(otherOrg(), &claimsv1.ListPaymentsRequest{})
		require.NoError(t, err)
		require.Empty(t, theirs.Payments)
		_, err = w.GetPayment(otherOrg(), &claimsv1.GetPaymentRequest{PaymentId: p.PaymentId})
		require.True(t, problem.Is(err, problem.NotFound), "whether it exists is no stranger's business: %v", err)
		_, err = w.ListPayments(planAdmin(), &claimsv1.ListPaymentsRequest{Open: true})
		require.True(t, problem.Is(err, problem.Invalid), "%v", err)
	})
}

// A payment fails: its claims are payable again, the debt that its remittance
// had recovered is owed again, and the next remittance does both anew.
func TestAFailedPaymentIsAsIfNeverMade(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01"))
	taken := w.submit(lakeside(), "r1", visit(0, "2026-02-02")).Claim.ClaimId
	w.cycle("c1")
	_, err := w.send(w.intend(w.Service)[0].PaymentId, true)
	require.NoError(t, err)
	w.submit(lakeside(), "v1", visit(0, "2026-02-02", voids(taken)))
	owes := w.cycle("c2").Remittances[0]
	require.EqualValues(t, 8000, owes.BalanceCents)
	one, two := w.submit(lakeside(), "r2", visit(0, "2026-02-03")).Claim.ClaimId, w.submit(lakeside(), "r3", visit(0, "2026-02-04")).Claim.ClaimId
	lost := w.cycle("c3").Remittances[0]
	require.Equal(t, []string{"FB 8000"}, plb(lost))
	require.EqualValues(t, 8000, lost.PaidCents)
	p := w.intend(w.Service)[0]

	// When it is withdrawn and fails, however often that is said, nothing is
	// undone before a person has decided.
	for range 2 {
		failed, err := w.fail(service(), p.PaymentId, true)
		require.NoError(t, err)
		require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_FAILED, failed.Payment.State)
		require.Equal(t, "account-closed", failed.Payment.FailureReason)
	}
	w.pass(time.Second)
	require.Empty(t, w.cycle("c3 again").Remittances)
	require.Equal(t, lost.RemittanceId, w.claim(one).Summary().GetRemittanceId())
	// And it is decided to pay after all, however often.
	for range 2 {
		decided, err := w.payAfterAll(w.Service, p.PaymentId)
		require.NoError(t, err)
		require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_VOIDED, decided.Task.Payment.State)
		require.False(t, decided.Task.Open)
		require.EqualValues(t, 2, decided.ClaimCount)
		require.EqualValues(t, 8000, decided.RestoredCents)
	}

	// Then nobody hands it over or confirms it any more,
	_, err = w.send(p.PaymentId, true)
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	got, err := w.GetRemittance(service(), &claimsv1.GetRemittanceRequest{RemittanceId: lost.RemittanceId})
	require.NoError(t, err)
	require.True(t, got.Remittance.Voided)
	require.Empty(t, w.claim(one).Summary().GetRemittanceId())
	// and the next remittance pays the same, once.
	again := w.cycle("c4").Remittances[0]
	require.ElementsMatch(t, []string{one + " pays 8000", two + " pays 8000"}, w.told(again.RemittanceId))
	require.Equal(t, []string{"FB 8000"}, plb(again))
	require.Equal(t, owes.TraceNumber, again.Adjustments[0].Reference)
	require.NotEqual(t, lost.TraceNumber, again.TraceNumber)
	require.EqualValues(t, 8000, again.PaidCents)
	require.Equal(t, paymentID(again.RemittanceId), w.intend(w.Service)[0].PaymentId)
	require.Empty(t, w.cycle("c5").Remittances)
	require.Equal(t, again.RemittanceId, w.claim(one).Summary().GetRemittanceId())
}

// A claim was corrected, and the correction told, while the payment of what
// was told first was under way; then that fails. What was told first is told
// again as it was, because the correction builds on it.
func TestATellingThatOthersBuildOnIsToldAgainAsItWas(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01"))
	id := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	lost := w.cycle("c1").Remittances[0]
	p := w.intend(w.Service)[0]
	_, err := w.send(p.PaymentId, false)
	require.NoError(t, err)
	w.correct(2, 15000, w.Service)
	_, err = w.ReprocessClaims(planAdmin(), reprocess("p1", id))
	require.NoError(t, err)
	carried := w.cycle("c2").Remittances[0]
	require.Equal(t, []string{id + " reverses -8000", id + " pays 4000"}, w.told(carried.RemittanceId))

	_, err = w.fail(planAdmin(), p.PaymentId, false)
	require.NoError(t, err)
	_, err = w.payAfterAll(w.Service, p.PaymentId)
	require.NoError(t, err)

	require.Equal(t, carried.RemittanceId, w.claim(id).Summary().GetRemittanceId(), "the row goes on showing what was told last")
	again := w.cycle("c3").Remittances[0]
	require.Contains(t, w.told(again.RemittanceId), id+" pays 8000")
	require.Equal(t, lost.ClaimsCents, again.ClaimsCents)
	require.Equal(t, []string{"FB 4000"}, plb(again), "and recovers what the correction took back")
	require.EqualValues(t, 4000, again.PaidCents)
	require.Empty(t, w.cycle("c4").Remittances, "once")
	require.EqualValues(t, 4000, w.claim(id).Told.GetPaidCents())
}

// Two balances are open where a remittance that had recovered one is void
// while another has carried one since: both are recovered, each under its own
// trace number.
func TestTwoOpenBalancesAreRecoveredEachUnderItsOwnNumber(t *testing.T) {
	a := foldAccount(nil)
	step := func(id string, net int64) *eventsv1.PayeeAccountPosted {
		e := a.post(&claimsv1.Remittance{RemittanceId: id, TraceNumber: "T-" + id}, net)
		a = foldAccountMore(a, e)
		return e
	}
	step("a", -300)
	require.EqualValues(t, 300, step("b", 1000).GetRecoveredCents())
	step("c", -500)
	restored, err := a.restore("b")
	require.NoError(t, err)
	require.EqualValues(t, 800, restored.GetBalanceCents())
	a = foldAccountMore(a, restored)

	e := step("d", 1000)

	require.EqualValues(t, 800, e.GetRecoveredCents())
	require.Equal(t, []string{"T-c 500", "T-a 300"}, balances(recoveredBalances(e)))
	require.Zero(t, a.Balance())
	_, err = a.restore("c")
	require.True(t, problem.Is(err, problem.Internal), "a remittance that carries pays nothing, so no payment of it can fail: %v", err)
}

func foldAccountMore(a PayeeAccount, more any) PayeeAccount {
	var events []eventstore.Recorded
	for _, id := range []string{"a", "b", "c", "d"} {
		if e := a.posted[id]; e != nil {
			events = append(events, eventstore.Recorded{Event: e})
		}
		if id == "c" {
			if e := a.restored["b"]; e != nil {
				events = append(events, eventstore.Recorded{Event: e})
			}
		}
	}
	switch e := more.(type) {
	case *eventsv1.PayeeAccountPosted:
		events = append(events, eventstore.Recorded{Event: e})
	case *eventsv1.PayeeAccountRestored:
		events = append(events, eventstore.Recorded{Event: e})
	}
	return foldAccount(events)
}

func balances(list []*eventsv1.OpenBalance) []string {
	var out []string
	for _, b := range list {
		out = append(out, fmt.Sprintf("%s %d", b.GetTraceNumber(), b.GetAmountCents()))
	}
	return out
}

// Claims are sent, corrected and voided; cycles run; payments are handed over,
// confirmed, fail, come back; persons decide what becomes of them; appends fail
// at any point; two processes do it. In the end what was confirmed or settled
// outside, less what is owed back, is what stands of all claims.
func TestPaymentsTogetherPayWhatStands(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const n = 4
		w := newWorld(t, 1, func(d *Deps) { d.Config.RemittanceClaims = rapid.IntRange(1, 3).Draw(rt, "claims a remittance") })
		defer w.stop()
		second := w.start(w.index)
		latest := make([]string, n)
		try := func(err error) {
			if err != nil {
				require.True(rt, problem.Is(err, problem.Unavailable), "%v", err)
			}
		}
		for i, rounds := 0, rapid.IntRange(1, 4).Draw(rt, "rounds"); i < rounds; i++ {
			for c := range n {
				day, key := fmt.Sprintf("2026-02-%02d", 10+c), fmt.Sprintf("r%d-%d", i, c)
				switch rapid.IntRange(0, 3).Draw(rt, "what") {
				case 0:
				case 1:
					if latest[c] != "" {
						w.submit(lakeside(), key, visit(0, day, voids(latest[c])))
						latest[c] = ""
					}
				default:
					claim := visit(0, day, charged(rapid.SampledFrom([]int64{3000, 9000, 15000}).Draw(rt, "cents")))
					if latest[c] != "" {
						replaces(latest[c])(claim)
					}
					latest[c] = w.submit(lakeside(), key, claim).GetClaim().GetClaimId()
				}
			}
			w.seen(w.Service)
			w.seen(second)
			w.pass(time.Second)
			w.memory.Inject(rapid.SliceOfN(rapid.SampledFrom([]eventstore.Fault{eventstore.FaultRefused, eventstore.FaultLostAck}), 0, 6).Draw(rt, "faults")...)
			_, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{PayerId: payer, RequestId: fmt.Sprint("cycle", i)})
			try(err)
			for _, s := range []*Service{w.Service, second} {
				w.seen(s)
				_, err := s.IntendPayments(service(), &claimsv1.IntendPaymentsRequest{PayerId: payer})
				try(err)
			}
			w.seen(w.Service)
			all, err := w.ListPayments(service(), &claimsv1.ListPaymentsRequest{PayerId: payer, PageSize: 1000})
			require.NoError(rt, err)
			for _, p := range all.GetPayments() {
				switch {
				case p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_FAILED && rapid.Bool().Draw(rt, "is decided"):
					decision := &claimsv1.ResolvePaymentTaskRequest{PaymentId: p.GetPaymentId(), Reference: "case-1"}
					decision.Resolution = rapid.SampledFrom([]claimsv1.PaymentResolution{
						claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY, claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF,
					}).Draw(rt, "what becomes of it")
					if p.GetResolution() != 0 { // by an earlier call that broke off
						decision.Resolution = p.GetResolution()
					}
					ended := make(chan error, 2)
					for _, s := range []*Service{w.Service, second} {
						go func() {
							_, err := s.ResolvePaymentTask(supervisor("sup-1"), decision)
							ended <- err
						}()
					}
					try(<-ended)
					try(<-ended)
				case p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED && rapid.IntRange(0, 3).Draw(rt, "comes back") == 0:
					_, err := w.FailPayment(planAdmin(), &claimsv1.FailPaymentRequest{PaymentId: p.GetPaymentId(), Reason: "returned", Returned: true})
					try(err)
				case p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_INTENDED && rapid.Bool().Draw(rt, "hands over"):
					by := rapid.SampledFrom([]*Service{w.Service, second}).Draw(rt, "by")
					cleared, err := by.ClearPayment(service(), &claimsv1.ClearPaymentRequest{PaymentId: p.GetPaymentId()})
					if try(err); err == nil && cleared.HeldBy == "" {
						_, err = w.send(p.GetPaymentId(), rapid.Bool().Draw(rt, "with that made"))
						try(err)
					}
				case p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_INTENDED && rapid.Bool().Draw(rt, "withdraws"),
					p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_SENT && rapid.Bool().Draw(rt, "comes back"):
					ended := make(chan error, 2)
					for _, s := range []*Service{w.Service, second} {
						go func() {
							_, err := s.FailPayment(service(), &claimsv1.FailPaymentRequest{PaymentId: p.GetPaymentId(), Reason: "returned", Withdrawn: true})
							ended <- err
						}()
					}
					try(<-ended)
					try(<-ended)
				}
			}
			w.exhaustFaults(fmt.Sprint("pay", i))
		}
		// When everything is brought to its end: what failed is voided, what waits is made.
		for round := 0; ; round++ {
			require.Less(rt, round, 8, "it comes to an end")
			told := len(w.cycle(fmt.Sprint("end", round)).Remittances)
			w.intend(w.Service)
			done := told == 0
			all, err := w.ListPayments(service(), &claimsv1.ListPaymentsRequest{PayerId: payer, PageSize: 1000})
			require.NoError(rt, err)
			for _, p := range all.GetPayments() {
				switch p.GetState() {
				case claimsv1.PaymentState_PAYMENT_STATE_FAILED:
					done = false
					if p.GetResolution() == 0 {
						_, err = w.payAfterAll(w.Service, p.GetPaymentId())
					} else { // a decision that broke off: the next cycle completes it
						_, err = w.fail(service(), p.GetPaymentId(), true)
					}
				case claimsv1.PaymentState_PAYMENT_STATE_INTENDED:
					cleared, failed := second.ClearPayment(service(), &claimsv1.ClearPaymentRequest{PaymentId: p.GetPaymentId()})
					if err = failed; err == nil && cleared.HeldBy == "" {
						_, err = w.send(p.GetPaymentId(), true)
					}
					done = done && cleared.GetHeldBy() == ""
				case claimsv1.PaymentState_PAYMENT_STATE_SENT:
					_, err = w.send(p.GetPaymentId(), true)
				}
				require.NoError(rt, err)
				// As its task's workflow does when it is told of the decision.
				_, err = second.AdvancePaymentTask(service(), &claimsv1.AdvancePaymentTaskRequest{PaymentId: p.GetPaymentId()})
				require.NoError(rt, err)
			}
			if done {
				break
			}
		}

		amounts, intents := map[string]int64{}, map[string]int{}
		made, settled := int64(0), int64(0)
		confirmed, failed, ended := map[string]bool{}, map[string]bool{}, map[string]bool{}
		owed, standing := int64(0), int64(0)
		held := map[string]bool{}
		for _, r := range w.events() {
			switch e := r.Event.(type) {
			case *eventsv1.PayeeHeld:
				held[e.GetPaymentId()] = true
			case *eventsv1.PayeeFreed:
				delete(held, e.GetPaymentId())
			case *eventsv1.PaymentCleared:
				require.Empty(rt, held, "nothing is cleared while the payee is held")
			case *eventsv1.PaymentIntended:
				intents[e.GetPayment().GetRemittanceId()]++
				amounts[e.GetPayment().GetPaymentId()] = e.GetPayment().GetAmountCents()
			case *eventsv1.PaymentConfirmed:
				require.False(rt, confirmed[e.GetPaymentId()], "confirmed twice")
				confirmed[e.GetPaymentId()] = true
				made += amounts[e.GetPaymentId()]
			case *eventsv1.PaymentFailed:
				require.False(rt, failed[e.GetPaymentId()], "failed twice")
				require.Equal(rt, e.GetReturned(), confirmed[e.GetPaymentId()])
				if failed[e.GetPaymentId()] = true; e.GetReturned() {
					made -= amounts[e.GetPaymentId()]
					delete(confirmed, e.GetPaymentId())
				}
			case *eventsv1.PaymentVoided:
				require.False(rt, ended[e.GetPaymentId()], "voided twice")
				ended[e.GetPaymentId()] = true
			case *eventsv1.PaymentResolved:
				if e.GetResolution() == claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF {
					require.False(rt, ended[e.GetPaymentId()], "written off and voided")
					ended[e.GetPaymentId()] = true
					settled += amounts[e.GetPaymentId()]
				}
			case *eventsv1.PayeeAccountPosted:
				owed = e.GetBalanceCents()
			case *eventsv1.PayeeAccountRestored:
				owed = e.GetBalanceCents()
			}
		}
		require.Empty(rt, held, "no hold outlives its task")
		for remittance, n := range intents {
			require.Equal(rt, 1, n, remittance)
			id := paymentID(remittance)
			require.NotEqual(rt, confirmed[id], failed[id], "a payment was made or failed, never both nor neither")
			require.Equal(rt, failed[id], ended[id], "one that failed came to its end, once")
		}
		for _, id := range latest {
			if id != "" {
				standing += w.claim(id).Summary().GetPaidCents()
			}
		}
		require.Equal(rt, standing, made+settled-owed, "made or settled outside, less what is owed back, is what stands")
	})
}

// A list of payments shows exactly the rows that could be opened one by one.
func TestTheScopeOfPaymentsAgreesWithThePolicySet(t *testing.T) {
	authorizer, err := identity.NewAuthorizer()
	require.NoError(t, err)
	orgs := rapid.SampledFrom([]string{"", "lakeside", "elsewhere"})
	payers := rapid.SampledFrom([]string{"", "keystone", "rival", identity.AllPayers})
	roles := rapid.SampledFrom([]identity.Role{identity.RoleSubmitter, identity.RoleAdjudicator, identity.RoleSupervisor, identity.RolePlanAdmin, identity.RoleAuditor, identity.RoleService, "unheard-of"})
	rapid.Check(t, func(t *rapid.T) {
		p := identity.Principal{
			Subject: "u", Org: orgs.Draw(t, "org"),
			Roles:  rapid.SliceOfN(roles, 0, 3).Draw(t, "roles"),
			Payers: rapid.SliceOfN(payers, 0, 3).Draw(t, "payers"),
		}
		row := identity.Resource{Type: identity.Payment, ID: "pay_x", Org: orgs.Draw(t, "row org"), Payer: payers.Draw(t, "row payer")}
		may := authorizer.Decide(p, "GetPayment", row).Allowed
		if sees := paymentScope(p).Includes(row.Org, row.Payer); sees != may {
			t.Fatalf("%+v lists %+v: %v, opens it: %v", p, row, sees, may)
		}
	})
}
