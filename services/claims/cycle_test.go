package claims

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// cycle runs a payment cycle of the world's payer over everything so far, once
// the lists know it.
func (w *world) cycle(request string) *claimsv1.CreateRemittancesResponse {
	w.t.Helper()
	w.seen(w.Service)
	w.pass(time.Second)
	res, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{PayerId: payer, RequestId: request})
	require.NoError(w.t, err)
	return res
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// seen waits until a service's lists have followed the whole log.
func (w *world) seen(s *Service) {
	w.t.Helper()
	for _, r := range w.events() {
		require.NoError(w.t, s.view.WaitFor(service(), r.Position.Token()))
	}
}

// told is what a remittance says, a line a CLP.
func (w *world) told(id string) []string {
	w.t.Helper()
	res, err := w.GetRemittance(service(), &claimsv1.GetRemittanceRequest{RemittanceId: id})
	require.NoError(w.t, err)
	var out []string
	for _, c := range res.GetClaims() {
		sign, kind := int64(1), "pays"
		if c.GetReversal() {
			sign, kind = -1, "reverses"
		}
		out = append(out, fmt.Sprintf("%s %s %d", c.GetClaimId(), kind, sign*c.GetDecision().GetPaidCents()))
	}
	return out
}

func plb(m *claimsv1.Remittance) []string {
	var out []string
	for _, a := range m.GetAdjustments() {
		out = append(out, fmt.Sprintf("%s %d", a.GetReasonCode(), a.GetAmountCents()))
	}
	return out
}

func TestAPaymentCycleTakesWhateverHasNotBeenTold(t *testing.T) {
	w := newWorld(t, 3)
	// claims by RPC, without a file, and claims of a file that was remitted by itself
	byRPC := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	paidTo := w.submit(lakeside(), "r2", visit(0, "2026-02-11")).Claim.ClaimId
	waits := w.submit(lakeside(), "r3", visit(0, "2026-02-12", charged(600000))).Claim.ClaimId
	theirs := w.submit(otherOrg(), "r1", visit(1, "2026-02-10")).Claim.ClaimId
	file, inFile := w.adjudicate(visit(2, "2026-02-10"), visit(2, "2026-02-11"))
	_, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
	require.NoError(t, err)

	first := w.cycle("c1")

	require.Len(t, first.Remittances, 2, "one a payee and sender")
	var claims []string
	for _, m := range first.Remittances {
		claims = append(claims, m.ClaimIds...)
	}
	require.ElementsMatch(t, []string{byRPC, paidTo, theirs}, claims)
	require.NotContains(t, claims, waits)
	require.NotContains(t, claims, inFile[0])
	t.Run("the same cycle answers alike", func(t *testing.T) {
		before := len(w.events())
		again, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{PayerId: payer, RequestId: "c1"})
		require.NoError(t, err)
		require.True(t, proto.Equal(first, again))
		require.Len(t, w.events(), before)
	})
	t.Run("the next takes what became final since", func(t *testing.T) {
		require.Empty(t, w.cycle("c2").Remittances)
		_, err := w.ResolveClaim(service(), resolve(waits, "v1", "approve"))
		require.NoError(t, err)
		next := w.cycle("c3")
		require.Len(t, next.Remittances, 1)
		require.Equal(t, []string{waits}, next.Remittances[0].ClaimIds)
	})
	t.Run("up to its cutoff", func(t *testing.T) {
		cutoff := timestamppb.New(w.clock())
		w.pass(time.Minute)
		late := w.submit(lakeside(), "late", visit(0, "2026-02-20")).Claim.ClaimId
		w.seen(w.Service)
		res, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{PayerId: payer, RequestId: "c4", CutoffTime: cutoff})
		require.NoError(t, err)
		require.Empty(t, res.Remittances)
		require.Equal(t, []string{late}, w.cycle("c5").Remittances[0].ClaimIds)
	})
	t.Run("its request says what it is for", func(t *testing.T) {
		for _, req := range []*claimsv1.CreateRemittancesRequest{
			{RequestId: "x"}, {RequestId: "x", FileId: file, PayerId: payer}, {PayerId: payer},
			{RequestId: "x", PayerId: payer, CutoffTime: timestamppb.New(w.clock().Add(time.Hour))},
		} {
			_, err := w.CreateRemittances(service(), req)
			require.True(t, problem.Is(err, problem.Invalid), "%v", err)
		}
	})
	t.Run("a payer that published nothing is misspelt", func(t *testing.T) {
		before := len(w.events())
		_, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{PayerId: payer + "X", RequestId: "c6"})
		require.True(t, problem.Is(err, problem.Invalid), "the workflow would repeat anything else: %v", err)
		require.Equal(t, "remittances.payer.unknown", problem.As(err).Problems[0].RuleID)
		require.Len(t, w.events(), before)
	})
}

func TestACycleOfManyClaimsIsCalledAgain(t *testing.T) {
	w := newWorld(t, 1, func(d *Deps) { d.Config.CycleClaims = 2 })
	for i := range 5 {
		w.submit(lakeside(), fmt.Sprint(i), visit(0, fmt.Sprintf("2026-02-%02d", 10+i)))
	}
	var sizes []int
	for n, more := 0, true; more; n++ {
		res := w.cycle(fmt.Sprint("c", n))
		for _, m := range res.Remittances {
			sizes = append(sizes, len(m.ClaimIds))
		}
		more = res.More
	}
	require.Equal(t, []int{2, 2, 1}, sizes)
}

// A replacement's remittance, of whichever scope, tells the original's
// reversal before it.
func TestAReplacementIsToldAsReversalAndCorrection(t *testing.T) {
	for _, byFile := range []bool{true, false} {
		t.Run(fmt.Sprintf("by file %v", byFile), func(t *testing.T) {
			w := newWorld(t, 1)
			w.submit(lakeside(), "r0", visit(0, "2026-02-01"))
			first := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
			w.cycle("c1")

			var res *claimsv1.CreateRemittancesResponse
			var next string
			if byFile {
				file, ids := w.adjudicate(visit(0, "2026-02-10", charged(9000), replaces(first)))
				next = ids[0]
				var err error
				res, err = w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
				require.NoError(t, err)
			} else {
				next = w.submit(lakeside(), "r2", visit(0, "2026-02-10", charged(9000), replaces(first))).Claim.ClaimId
				res = w.cycle("c2")
			}

			require.Len(t, res.Remittances, 1)
			m := res.Remittances[0]
			require.Equal(t, []string{first + " reverses -8000", next + " pays 7200"}, w.told(m.RemittanceId))
			require.EqualValues(t, -800, m.ClaimsCents)
			require.Equal(t, []string{"FB -800"}, plb(m), "what reversals take back beyond what is paid is carried")
			require.Zero(t, m.PaidCents)
			require.EqualValues(t, 800, m.BalanceCents)
			require.Empty(t, w.cycle("c3").Remittances, "once")
		})
	}
}

func TestWhatWasReversedBeforeItWasToldIsNeverTold(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	w.submit(lakeside(), "r2", visit(0, "2026-02-10", voids(first)))
	require.Empty(t, w.cycle("c1").Remittances)
}

// A decision that was made again is told as a pair under the claim's own
// number.
func TestACorrectionIsToldAsAPair(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01"))
	id := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	w.submit(lakeside(), "r2", visit(0, "2026-02-11"))
	w.cycle("c1")
	w.correct(2, 15000, w.Service)
	_, err := w.ReprocessClaims(planAdmin(), reprocess("p1", id))
	require.NoError(t, err)

	res := w.cycle("c2")

	require.Equal(t, []string{id + " reverses -8000", id + " pays 4000"}, w.told(res.Remittances[0].RemittanceId))
	require.Equal(t, res.Remittances[0].RemittanceId, w.claim(id).Summary().GetRemittanceId())
}

// A payee that owes is paid nothing until what it owes is recovered, and then
// the rest. The balance goes from remittance to remittance as one sum, under
// the trace number of the one that carries it.
func TestANegativeBalanceIsCarriedAndRecovered(t *testing.T) {
	w := newWorld(t, 2)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01")) // the deductible
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-02")).Claim.ClaimId
	second := w.submit(lakeside(), "r2", visit(0, "2026-02-03")).Claim.ClaimId
	require.EqualValues(t, 16000, w.cycle("c1").Remittances[0].PaidCents)

	w.submit(lakeside(), "v1", visit(0, "2026-02-02", voids(first)))
	owes := w.cycle("c2").Remittances[0]
	require.Zero(t, owes.PaidCents)
	require.Equal(t, []string{"FB -8000"}, plb(owes))
	require.Equal(t, owes.TraceNumber, owes.Adjustments[0].Reference)
	require.EqualValues(t, 8000, owes.BalanceCents)

	w.submit(lakeside(), "v2", visit(0, "2026-02-03", voids(second)))
	more := w.cycle("c3").Remittances[0]
	require.Equal(t, []string{"FB 8000", "FB -16000"}, plb(more), "two debts become one")
	require.Equal(t, []string{owes.TraceNumber, more.TraceNumber}, []string{more.Adjustments[0].Reference, more.Adjustments[1].Reference})
	require.EqualValues(t, 16000, more.BalanceCents)

	w.submit(lakeside(), "nothing", visit(1, "2026-02-01")) // a deductible: nothing is paid
	nothing := w.cycle("c4").Remittances[0]
	require.Empty(t, plb(nothing), "where nothing is paid no balance is moved about")
	require.EqualValues(t, 16000, nothing.BalanceCents)

	w.submit(lakeside(), "r3", visit(0, "2026-02-04"))
	part := w.cycle("c5").Remittances[0]
	require.Zero(t, part.PaidCents)
	require.Equal(t, []string{"FB 16000", "FB -8000"}, plb(part))
	require.Equal(t, more.TraceNumber, part.Adjustments[0].Reference)

	w.submit(lakeside(), "r4", visit(0, "2026-02-05"))
	w.submit(lakeside(), "r5", visit(0, "2026-02-06"))
	rest := w.cycle("c6").Remittances[0]
	require.Equal(t, []string{"FB 8000"}, plb(rest))
	require.Equal(t, part.TraceNumber, rest.Adjustments[0].Reference)
	require.EqualValues(t, 8000, rest.PaidCents)
	require.Zero(t, rest.BalanceCents)
}

// Texas has 30 days; a clean claim paid on the 40th bears ten days of 18 %.
func TestAClaimPaidLateBearsInterestAndAVoidTakesItBack(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r0", visit(0, "2026-02-01"))
	id := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	w.pass(40 * 24 * time.Hour)
	late := w.cycle("c1").Remittances[0]
	require.Equal(t, []string{"L6 -39"}, plb(late), "8000 × 18 % × 10 / 365 = 39.45")
	require.Equal(t, id, late.Adjustments[0].Reference)
	require.EqualValues(t, 8039, late.PaidCents)

	w.pass(100 * 24 * time.Hour)
	next := w.submit(lakeside(), "r2", visit(0, "2026-02-10", voids(id)))
	require.Equal(t, "reversed", statusOf(next))
	back := w.cycle("c2").Remittances[0]
	require.Equal(t, []string{"L6 39", "FB -8039"}, plb(back))
	require.Zero(t, back.PaidCents)
}

func TestAClaimThatWaitedForItsProviderBearsNoInterest(t *testing.T) {
	late := Remit{RemittanceID: "rem_1", PaymentDate: "2026-12-31", Rates: map[string]int64{"TX": 1800}}
	decided := func(status claimsv1.ClaimStatus, cents int64) *eventsv1.ClaimDecided {
		e := decidedAs(status, cents)
		e.PromptPayState, e.PromptPayDueDate = "TX", "2026-04-01"
		return e
	}
	interest := func(events ...proto.Message) int64 {
		out, err := Decide(given(events...), late)
		require.NoError(t, err)
		return out[0].(*eventsv1.ClaimRemitted).GetInterestCents()
	}
	doc, person := decided(pended, 0), decided(pended, 0)
	doc.PendReasons = []*claimsv1.PendReason{{RuleId: "authorization.document", Carc: carcDocumentNeeded}}
	person.PendReasons = []*claimsv1.PendReason{{RuleId: "review.threshold", Carc: "216"}}
	review := &eventsv1.ClaimReviewed{ClaimId: aClaim}
	require.EqualValues(t, 1081, interest(receivedClaim(), decided(paid, 8000)))
	require.Zero(t, interest(receivedClaim(), doc, review, decided(paid, 8000)))
	require.EqualValues(t, 1081, interest(receivedClaim(), person, review, decided(paid, 8000)), "the payer's own wait is no excuse")
}

// A correction bears interest only on what was paid late the first time.
func TestInterestOnACorrectionFollowsTheFirstPayment(t *testing.T) {
	decided := func(cents int64) *eventsv1.ClaimDecided {
		e := decidedAs(paid, cents)
		e.PromptPayState, e.PromptPayDueDate = "TX", "2026-04-01"
		return e
	}
	for _, c := range []struct {
		name      string
		firstDate string
		after     int64
		first     int64
		second    int64
	}{
		{"paid in time, corrected upwards a year later", "2026-04-01", 9000, 0, 0},
		{"paid late, corrected upwards", "2026-04-11", 9000, 39, 0},
		{"paid late, corrected downwards", "2026-04-11", 4000, 39, 20 - 39},
	} {
		t.Run(c.name, func(t *testing.T) {
			rates := map[string]int64{"TX": 1800}
			state := given(receivedClaim(), decided(8000))
			first, err := Decide(state, Remit{RemittanceID: "rem_1", PaymentDate: c.firstDate, Rates: rates})
			require.NoError(t, err)
			require.Equal(t, c.first, first[0].(*eventsv1.ClaimRemitted).GetInterestCents())
			again := &eventsv1.ClaimReversed{ClaimId: aClaim, DecisionRevision: 1, PaidCents: 8000, Remitted: true, Reason: eventsv1.ReversalReason_REVERSAL_REASON_REPROCESSED}
			state = given(receivedClaim(), decided(8000), first[0], again, decided(c.after))
			second, err := Decide(state, Remit{RemittanceID: "rem_2", PaymentDate: "2027-04-11", Rates: rates})
			require.NoError(t, err)
			require.Equal(t, c.second, second[0].(*eventsv1.ClaimRemitted).GetInterestCents())
		})
	}
}

// exhaustFaults uses up the faults that are left, on a trace of a refusal.
func (w *world) exhaustFaults(name string) {
	for i := range 6 {
		_, _ = w.memory.Append(service(), eventstore.Commit{
			Log: logName, RoutingKey: "refusal-noise", RequestID: fmt.Sprint("noise", name, i),
			Writes: []eventstore.Write{{Stream: "refusal-noise", Expected: eventstore.Any, Events: []proto.Message{&eventsv1.SubmissionRefused{SubmitterOrg: "noise"}}}},
		})
	}
}

// Whatever is adjusted between cycles and files, with appends that fail at any
// point and two processes that run cycles at the same time: every remittance
// balances and pays nothing negative, no decision is told twice, and what all
// of them together have paid and are owed is what stands.
func TestRemittancesTogetherPayWhatStands(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const n = 5
		w := newWorld(t, 1, func(d *Deps) { d.Config.RemittanceClaims = rapid.IntRange(1, 3).Draw(rt, "claims a remittance") })
		defer w.stop()
		second := w.start(w.index)
		latest := make([]string, n) // of each chain; empty before it and after a void
		for i, round := 0, rapid.IntRange(1, 4).Draw(rt, "rounds"); i < round; i++ {
			for c := range n {
				day := fmt.Sprintf("2026-02-%02d", 10+c)
				key := fmt.Sprintf("r%d-%d", i, c)
				cents := rapid.SampledFrom([]int64{3000, 9000, 15000}).Draw(rt, "cents")
				switch rapid.IntRange(0, 3).Draw(rt, "what") {
				case 0:
				case 1:
					if latest[c] != "" {
						w.submit(lakeside(), key, visit(0, day, voids(latest[c])))
						latest[c] = ""
					}
				default:
					claim := visit(0, day, charged(cents))
					if latest[c] != "" {
						replaces(latest[c])(claim)
					}
					latest[c] = w.submit(lakeside(), key, claim).GetClaim().GetClaimId()
				}
			}
			w.seen(w.Service)
			w.seen(second)
			w.pass(time.Second)
			w.memory.Inject(rapid.SliceOfN(rapid.SampledFrom([]eventstore.Fault{eventstore.FaultRefused, eventstore.FaultLostAck}), 0, 5).Draw(rt, "faults")...)
			ended := make(chan error, 2)
			for j, s := range []*Service{w.Service, second} {
				go func() {
					_, err := s.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{PayerId: payer, RequestId: fmt.Sprint("cycle", i, j)})
					ended <- err
				}()
			}
			for range 2 {
				if err := <-ended; err != nil {
					require.True(rt, problem.Is(err, problem.Unavailable), "%v", err)
				}
			}
			w.exhaustFaults(fmt.Sprint(i))
		}
		w.cycle("end")

		paidOut, balance, standing := int64(0), int64(0), int64(0)
		issued := map[string]bool{}
		for _, r := range w.events() {
			e, ok := r.Event.(*eventsv1.RemittanceIssued)
			if !ok || len(e.GetRemittance().GetClaimIds()) == 0 {
				continue
			}
			m := e.GetRemittance()
			require.False(rt, issued[m.GetRemittanceId()], "issued twice")
			issued[m.GetRemittanceId()] = true
			require.GreaterOrEqual(rt, m.GetPaidCents(), int64(0))
			sum := m.GetClaimsCents()
			for _, a := range m.GetAdjustments() {
				sum -= a.GetAmountCents()
			}
			require.Equal(rt, sum, m.GetPaidCents())
			paidOut += m.GetPaidCents()
		}
		for _, r := range w.events() {
			if e, ok := r.Event.(*eventsv1.ClaimRemitted); ok {
				require.True(rt, issued[e.GetRemittanceId()], "a mark of a remittance that was never issued")
			}
			if e, ok := r.Event.(*eventsv1.PayeeAccountPosted); ok {
				balance += e.GetCarriedCents() - e.GetRecoveredCents()
				require.Equal(rt, balance, e.GetBalanceCents())
			}
		}
		for _, id := range latest {
			if id != "" {
				standing += w.claim(id).Summary().GetPaidCents()
			}
		}
		require.Equal(rt, standing, paidOut-balance, "paid, less what is owed back, is what stands")
	})
}

// The lists are behind what was just decided; a cycle waits for its own
// process's part of them.
func TestACycleTellsWhatItsProcessHasJustDecided(t *testing.T) {
	w := newWorld(t, 20)
	for i := range 20 {
		w.submit(lakeside(), fmt.Sprint("r", i), visit(i, "2026-02-10"))
		w.pass(time.Second)
		res, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{PayerId: payer, RequestId: fmt.Sprint("cycle", i)})
		require.NoError(t, err)
		require.Len(t, res.Remittances, 1, "the cycle after claim %d", i)
		require.Len(t, res.Remittances[0].ClaimIds, 1)
	}
}
