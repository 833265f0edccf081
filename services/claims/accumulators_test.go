package claims

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// neverBelowZero adds up what the ledger holds, commit by commit, apart from the
// code under test: no decision takes less than nothing from an accumulator, and
// after no commit is one below zero. Every property of families ends with it:
// a reversal takes back what one standing decision has posted, to the cent and
// once, so the sums stay those of the decisions that stand, none of which is
// negative.
func neverBelowZero(t require.TestingT, w *world) {
	type account struct{ stream, scope, subject, kind, network, year string }
	sums, moved := map[account]int64{}, map[account]bool{}
	settle := func() {
		for a := range moved {
			require.GreaterOrEqual(t, sums[a], int64(0), "%+v", a)
		}
		clear(moved)
	}
	var at eventstore.Position
	for _, r := range w.events() {
		if r.Position != at {
			settle()
			at = r.Position
		}
		e, ok := r.Event.(*eventsv1.AccumulatorsPosted)
		if !ok {
			continue
		}
		for _, p := range e.GetPostings() {
			require.Equal(t, e.GetReversal(), p.GetAmount() < 0, "%v", p)
			a := account{r.Stream, p.GetScope(), p.GetSubject(), p.GetKind(), p.GetNetwork(), p.GetPlanYear()}
			sums[a] += p.GetAmount()
			moved[a] = true
		}
	}
	settle()
}

// As far as a user can get: the accumulators that a claim moved are lowered
// afterwards by a plan's correction, moved to another plan year, and asked back
// twice. What is given back is what the decision that stands has taken, and
// what asks for more is refused and changes nothing.
func TestNothingIsGivenBackThatWasNotTaken(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId // takes the deductible
	second := w.submit(lakeside(), "r2", visit(0, "2026-02-11")).Claim.ClaimId
	deductible, _ := w.used(0)
	require.EqualValues(t, 10000, deductible)

	// A correction lowers what the first had taken, before the first is voided.
	w.publishVersion(2, dearerPlan(2500))
	w.caughtUp(w.Service)
	_, err := w.ReprocessClaims(planAdmin(), reprocess("p1", first, second))
	require.NoError(t, err)
	deductible, _ = w.used(0)
	require.EqualValues(t, 2500, deductible)
	w.submit(lakeside(), "v1", visit(0, "2026-02-10", voids(first)))
	deductible, _ = w.used(0)
	require.EqualValues(t, 2500, deductible, "the second takes it now")

	// Asked back twice, or in another's name, it is refused.
	refused := func(request string, c *claimsv1.Claim) {
		t.Helper()
		sums, _ := w.sums(0)
		res, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: request, Claim: c})
		require.NoError(t, err)
		require.NotEmpty(t, res.Problems, "why, and what to do")
		require.NotEmpty(t, res.Problems[0].Fix)
		after, _ := w.sums(0)
		require.Equal(t, sums, after)
	}
	refused("v2", visit(0, "2026-02-10", voids(first)))
	refused("v3", visit(0, "2026-02-10", replaces(first)))
	_, err = w.VoidClaim(lakeside(), &claimsv1.VoidClaimRequest{ClaimId: first, RequestId: "v4"})
	require.Error(t, err)

	// The plan year moves: what stands is under the year it was decided in.
	moved := dearerPlan(2500)
	moved.PlanYear = "policy"
	moved.Effective.StartDate = "2026-01-01"
	w.publishVersion(3, moved)
	w.caughtUp(w.Service)
	w.submit(lakeside(), "r3", visit(0, "2026-02-12", replaces(second)))
	neverBelowZero(t, w)
	_, err = w.VoidClaim(lakeside(), &claimsv1.VoidClaimRequest{ClaimId: second, RequestId: "v5"})
	require.Error(t, err, "it was replaced")
	inOrder(t, w, 0)
	replayed(t, w)
}

// A posting that would take an accumulator below zero gets to the ledger by no
// call. Where one stands there all the same, nothing is decided on it: the
// family's claims are refused and nothing is written; others go on.
func TestAFamilyWhoseAccumulatorsAreBelowZeroIsNotDecidedFor(t *testing.T) {
	w := newWorld(t, 2)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	stream := accumulatorStream(w.index.Subscriber(payer, memberID(0)))
	_, err := w.store.Append(context.Background(), eventstore.Commit{
		Log: logName, RoutingKey: claimKey(first), RequestID: "forged",
		Writes: []eventstore.Write{{Stream: stream, Expected: 0, Events: []proto.Message{&eventsv1.AccumulatorsPosted{
			ClaimId: "clm_" + first[4:], Reversal: true, Postings: []*claimsv1.AccumulatorPosting{
				{Scope: "family", Kind: "deductible", Network: "in", PlanYear: "2026-01-01", Amount: -10001},
			},
		}}}},
	})
	require.NoError(t, err)
	// What a submission's key is taken for stands before anything is decided.
	standing := func() (n int) {
		for _, r := range w.events() {
			if !strings.HasPrefix(r.Stream, "submission-") {
				n++
			}
		}
		return n
	}
	before := standing()
	fresh := w.start(w.index) // it has not seen the family before
	for request, c := range map[string]*claimsv1.Claim{"r2": visit(0, "2026-02-11"), "r3": visit(0, "2026-02-10", voids(first))} {
		_, err = fresh.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: request, Claim: c})
		require.True(t, problem.Is(err, problem.Internal), "%v", err)
		require.Equal(t, "claims.accumulators.range", problem.As(err).Problems[0].RuleID)
		require.NotEmpty(t, problem.As(err).Problems[0].Fix)
	}
	require.Equal(t, before, standing())
	other, err := fresh.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "r4", Claim: visit(1, "2026-02-11")})
	require.NoError(t, err)
	require.Equal(t, "paid", statusOf(other))
}
