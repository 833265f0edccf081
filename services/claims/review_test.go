package claims

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/problem"
)

// large is a claim over the plan's review limit: it pends.
func large(day string) *claimsv1.Claim { return visit(0, day, charged(600000)) }

func resolve(id, request, resolution string) *claimsv1.ResolveClaimRequest {
	return &claimsv1.ResolveClaimRequest{ClaimId: id, RequestId: request, Resolution: resolution, Reviewer: "adj-7", Reason: "looked at the record"}
}

func TestAPendedClaimWaitsWithItsReasonAndItsClock(t *testing.T) {
	w := newWorld(t, 1)
	res := w.submit(lakeside(), "r1", large("2026-02-10"))

	require.Equal(t, "pended", statusOf(res))
	require.NotEmpty(t, res.Claim.PendReasons)
	require.Equal(t, "payer", res.Claim.NextActor)
	for _, r := range w.events() {
		if e, ok := r.Event.(*eventsv1.ClaimDecided); ok {
			// Texas has 30 days for an electronic claim, counted from receipt.
			require.Equal(t, "2026-04-01", e.GetPromptPayDueDate())
		}
		_, posted := r.Event.(*eventsv1.AccumulatorsPosted)
		require.False(t, posted, "nothing is used before the decision")
	}
}

func TestAReviewDecidesAPendedClaim(t *testing.T) {
	for resolution, status := range map[string]string{"approve": "paid", "deny": "denied"} {
		t.Run(resolution, func(t *testing.T) {
			w := newWorld(t, 1)
			claim := w.submit(lakeside(), "r1", large("2026-02-10")).Claim
			// and meanwhile another claim of the person met the deductible
			w.submit(lakeside(), "r2", visit(0, "2026-02-12"))

			res, err := w.ResolveClaim(service(), resolve(claim.ClaimId, "v1", resolution))

			require.NoError(t, err)
			require.Equal(t, status, statusWord(res.Claim.Status))
			require.Equal(t, claim.ReceivedTime.AsTime(), res.Claim.ReceivedTime.AsTime())
			if resolution == "approve" {
				require.EqualValues(t, 8000, res.Claim.PaidCents, "decided on the accumulators of the day of the review")
			}
			got, err := w.GetClaim(lakeside(), &claimsv1.GetClaimRequest{ClaimId: claim.ClaimId, MinToken: res.Token})
			require.NoError(t, err)
			require.True(t, proto.Equal(res.Claim, got.Claim), "%v and %v", res.Claim, got.Claim)
			names := []string{}
			for _, e := range got.Timeline {
				names = append(names, e.Event)
			}
			require.Equal(t, []string{"ClaimReceived", "ClaimDecided", "ClaimReviewed", "ClaimDecided"}, names)
			require.Equal(t, []string{"adj-7", "svc-worker"}, []string{got.Timeline[2].Actor, got.Timeline[3].Actor}, "who reviewed, and who handed it in")

			t.Run("once", func(t *testing.T) {
				before := len(w.events())
				again, err := w.ResolveClaim(service(), resolve(claim.ClaimId, "v1", resolution))
				require.NoError(t, err)
				require.True(t, proto.Equal(res.Claim, again.Claim))
				_, err = w.ResolveClaim(service(), resolve(claim.ClaimId, "v2", resolution))
				require.True(t, problem.Is(err, problem.Conflict), "%v", err)
				require.Len(t, w.events(), before)
			})
		})
	}
}

func TestOnlyServicesResolveAndStrangersSeeNothing(t *testing.T) {
	w := newWorld(t, 1)
	claim := w.submit(lakeside(), "r1", large("2026-02-10")).Claim
	for _, ctx := range []context.Context{lakeside(), adjudicator(), auditor()} {
		_, err := w.ResolveClaim(ctx, resolve(claim.ClaimId, "v1", "approve"))
		require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	}
	get := &claimsv1.GetClaimRequest{ClaimId: claim.ClaimId}
	for _, ctx := range []context.Context{lakeside(), adjudicator(), auditor(), service()} {
		_, err := w.GetClaim(ctx, get)
		require.NoError(t, err)
	}
	_, err := w.GetClaim(otherOrg(), get)
	require.True(t, problem.Is(err, problem.NotFound), "%v", err)
	_, absent := w.GetClaim(otherOrg(), &claimsv1.GetClaimRequest{ClaimId: "clm_bbbbbbbbbbbbbbbbbbbbbbbbbb"})
	require.Equal(t, absent.Error(), err.Error(), "what isn't yours looks like what isn't there")
	_, err = w.GetClaim(context.Background(), get)
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
}

func TestExplainShowsEveryCentAndTheClaimToItsOwn(t *testing.T) {
	w := newWorld(t, 1)
	submitted := visit(0, "2026-02-10")
	claim := w.submit(lakeside(), "r1", submitted).Claim
	for name, ctx := range map[string]context.Context{"sender": lakeside(), "payer": adjudicator(), "service": service()} {
		t.Run(name, func(t *testing.T) {
			res, err := w.ExplainClaim(ctx, &claimsv1.ExplainClaimRequest{ClaimId: claim.ClaimId})
			require.NoError(t, err)
			require.True(t, proto.Equal(submitted, res.Submitted))
			for _, l := range res.Decision.Lines {
				sum := l.PaidCents
				for _, a := range l.Adjustments {
					sum += a.AmountCents
					require.NotEmpty(t, a.RuleId)
				}
				require.Equal(t, l.ChargeCents, sum)
			}
		})
	}
}

func TestAWatcherSeesTheClaimUntilItIsFinal(t *testing.T) {
	w := newWorld(t, 1)
	claim := w.submit(lakeside(), "r1", large("2026-02-10")).Claim
	seen := make(chan claimsv1.ClaimStatus, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- w.watchClaim(lakeside(), claim.ClaimId, func(c *claimsv1.ClaimSummary) error {
			seen <- c.Status
			return nil
		})
	}()
	require.Equal(t, pended, <-seen)

	// when another process resolves it: only the ledger tells this one
	second := w.start(w.index)
	_, err := second.ResolveClaim(service(), resolve(claim.ClaimId, "v1", "deny"))
	require.NoError(t, err)

	require.Equal(t, denied, <-seen)
	require.NoError(t, <-ended)
}

func TestWatchersAreBoundedAndClosingEndsThem(t *testing.T) {
	w := newWorld(t, 1, func(d *Deps) { d.Config.MaxWatchers = 1 })
	claim := w.submit(lakeside(), "r1", large("2026-02-10")).Claim
	seen, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- w.watchClaim(lakeside(), claim.ClaimId, func(*claimsv1.ClaimSummary) error { seen <- struct{}{}; return nil })
	}()
	<-seen
	err := w.watchClaim(lakeside(), claim.ClaimId, nil)
	require.True(t, problem.Is(err, problem.Exhausted), "%v", err)

	require.NoError(t, w.Close(context.Background()))

	require.True(t, problem.Is(<-ended, problem.Unavailable))
	_, err = w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "r2", Claim: visit(0, "2026-02-10")})
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
}
