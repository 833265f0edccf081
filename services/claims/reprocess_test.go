package claims

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/problem"
)

func reprocess(request string, ids ...string) *claimsv1.ReprocessClaimsRequest {
	return &claimsv1.ReprocessClaimsRequest{ClaimIds: ids, RequestId: request, Cause: "plan"}
}

// affected is the whole list of claims that a version touches.
func (w *world) affected(req *claimsv1.ListAffectedClaimsRequest) []string {
	w.t.Helper()
	req.PayerId, req.PageSize = payer, 2
	var out []string
	for {
		res, err := w.ListAffectedClaims(planAdmin(), req)
		require.NoError(w.t, err)
		out = append(out, res.GetClaimIds()...)
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			return out
		}
	}
}

// A plan's deductible is corrected after claims were decided: what the change
// touches is decided again in the order of the first decisions.
func TestARetroactiveChangeReprocessesWhatItTouches(t *testing.T) {
	w := newWorld(t, 2)
	var ids []string
	for i, day := range []string{"2026-02-10", "2026-02-11", "2026-02-12"} {
		ids = append(ids, w.submit(lakeside(), fmt.Sprint(i), visit(0, day)).Claim.ClaimId)
	}
	w.submit(lakeside(), "other", visit(1, "2026-02-10"))
	w.correct(2, 15000, w.Service)
	last := w.submit(lakeside(), "later", visit(0, "2026-02-13", spouse))

	listed := w.affected(&claimsv1.ListAffectedClaimsRequest{Change: &claimsv1.ListAffectedClaimsRequest_Version{Version: "plan_acme@1"}, MinToken: last.Token})
	require.Subset(t, listed, ids)
	require.NotContains(t, listed, last.Claim.ClaimId, "decided under the new version")

	before := len(w.events())
	dry := reprocess("p1", listed...)
	dry.DryRun = true
	shown, err := w.ReprocessClaims(planAdmin(), dry)
	require.NoError(t, err)
	require.Len(t, w.events(), before, "a dry run records nothing")

	done, err := w.ReprocessClaims(planAdmin(), reprocess("p1", listed...))
	require.NoError(t, err)
	require.Equal(t, len(shown.Corrections), len(done.Corrections))
	require.Equal(t, shown.PaidDifferenceCents, done.PaidDifferenceCents)
	require.Len(t, done.Corrections, 1, "only the second visit meets the higher deductible")
	c := done.Corrections[0]
	require.Equal(t, ids[1], c.ClaimId)
	require.EqualValues(t, 8000, c.PaidBeforeCents)
	require.EqualValues(t, 4000, c.PaidAfterCents, "$50 of deductible, 80 % of the other $50")
	require.EqualValues(t, -4000, done.PaidDifferenceCents)
	require.EqualValues(t, 4000, done.PatientDifferenceCents)

	state := w.claim(ids[1])
	require.Equal(t, paid, state.Status())
	require.Equal(t, "plan", state.Corrections[0].GetCause())
	require.Contains(t, Timeline(w.stream(ids[1]))[2].Text, "decided again because of plan")
	inOrder(t, w, 0)
	replayed(t, w)

	t.Run("once", func(t *testing.T) {
		before := len(w.events())
		again, err := w.ReprocessClaims(planAdmin(), reprocess("p1", listed...))
		require.NoError(t, err)
		require.Len(t, w.events(), before)
		require.Len(t, again.Corrections, 1, "and the same request is answered alike")
		require.Equal(t, ids[1], again.Corrections[0].ClaimId)
		require.Equal(t, done.PaidDifferenceCents, again.PaidDifferenceCents)
		other, err := w.ReprocessClaims(planAdmin(), reprocess("p2", listed...))
		require.NoError(t, err)
		require.Empty(t, other.Corrections)
	})
	t.Run("whose claims they aren't sees none", func(t *testing.T) {
		for _, ctx := range []context.Context{lakeside(), adjudicator(), auditor()} {
			_, err := w.ReprocessClaims(ctx, reprocess("p3", ids...))
			require.True(t, problem.Is(err, problem.NotFound), "%v", err)
		}
		_, err := w.ListAffectedClaims(lakeside(), &claimsv1.ListAffectedClaimsRequest{PayerId: payer, Change: &claimsv1.ListAffectedClaimsRequest_Version{Version: "plan_acme@1"}})
		require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	})
}

// Somebody is enrolled after the fact: the claim that was nobody's is decided
// again and takes its place in the family.
func TestALateEnrolmentReprocessesWhatWasNobodys(t *testing.T) {
	w := newWorld(t, 1)
	early := w.submit(lakeside(), "r1", visit(5, "2026-02-10"))
	require.Equal(t, []string{"PR-31"}, early.Claim.Codes)
	subscriber := w.index.Subscriber(payer, memberID(5))
	w.enrol(5)
	w.caughtUp(w.Service)

	listed := w.affected(&claimsv1.ListAffectedClaimsRequest{Change: &claimsv1.ListAffectedClaimsRequest_Subscriber{Subscriber: subscriber}, MinToken: early.Token})
	require.Equal(t, []string{early.Claim.ClaimId}, listed)
	done, err := w.ReprocessClaims(planAdmin(), reprocess("p1", listed...))

	require.NoError(t, err)
	require.Len(t, done.Corrections, 1)
	require.Equal(t, denied, done.Corrections[0].StatusBefore)
	require.Equal(t, paid, done.Corrections[0].StatusAfter)
	deductible, _ := w.used(5)
	require.EqualValues(t, 10000, deductible)
	require.Equal(t, listed, w.affected(&claimsv1.ListAffectedClaimsRequest{Change: &claimsv1.ListAffectedClaimsRequest_Subscriber{Subscriber: subscriber}}))
	replayed(t, w)
}

// enrol puts a family's first person on the policies log.
func (w *world) enrol(family int) {
	member, born := memberID(family), birthOf("ADA")
	w.append("member", &eventsv1.MemberEnrolled{
		Subject: w.index.Person(payer, member, born, "ADA"), Subscriber: w.index.Subscriber(payer, member), PayerId: payer, PolicyId: "pol_acme",
		BirthIndex: w.index.BirthIndex(payer, member, born), PersonIndex: w.index.PersonIndex(payer, member, born, "ADA"),
		RelationshipCode: "18", Coverage: &typev1.Period{StartDate: "2026-01-01"},
	})
}

// What would now wait for a person stands as it was decided, and is named.
func TestWhatWouldPendStandsAndIsNamed(t *testing.T) {
	w := newWorld(t, 1)
	id := w.submit(lakeside(), "r1", visit(0, "2026-02-10")).Claim.ClaimId
	strict := dearerPlan(10000)
	strict.ReviewAboveCents = 100
	w.append("plan", &eventsv1.PlanPublished{Version: 2, Plan: strict})
	w.caughtUp(w.Service)
	before := len(w.events())

	res, err := w.ReprocessClaims(planAdmin(), reprocess("p1", id))

	require.NoError(t, err)
	require.Empty(t, res.Corrections)
	require.Len(t, res.Waiting, 1)
	require.Equal(t, "review.threshold", res.Waiting[0].PendReasons[0].RuleId)
	require.Len(t, w.events(), before)
}

// A claim that waits is asked about again: what it waited for may be there.
func TestAPendedClaimIsAskedAboutAgain(t *testing.T) {
	w := newWorld(t, 1)
	id := w.submit(lakeside(), "r1", large("2026-02-10")).Claim.ClaimId
	lenient := dearerPlan(10000)
	lenient.ReviewAboveCents = 0
	w.append("plan", &eventsv1.PlanPublished{Version: 2, Plan: lenient})
	w.caughtUp(w.Service)

	res, err := w.ReprocessClaims(planAdmin(), reprocess("p1", id))

	require.NoError(t, err)
	require.Len(t, res.Corrections, 1)
	require.Equal(t, pended, res.Corrections[0].StatusBefore)
	require.Equal(t, paid, w.claim(id).Status())
	require.Empty(t, w.claim(id).Corrections, "nothing was taken back")
	inOrder(t, w, 0)
	replayed(t, w)
}

// A call that breaks off at any append is completed by repeating it.
func TestAReprocessingThatBrokeOffIsCompletedByRepeatingIt(t *testing.T) {
	for _, fault := range []eventstore.Fault{eventstore.FaultRefused, eventstore.FaultLostAck} {
		for after := range 4 {
			t.Run(fmt.Sprintf("fault %d at append %d", fault, after), func(t *testing.T) {
				store := &flaky{after: -1, fault: fault}
				w := newWorld(t, 2, func(d *Deps) {
					store.Memory = d.Store.(*eventstore.Memory)
					d.Store = store
					d.Config.AmendClaims = 1
				})
				var ids []string
				for i := range 6 {
					ids = append(ids, w.submit(lakeside(), fmt.Sprint(i), visit(i%2, fmt.Sprintf("2026-02-%02d", 10+i))).Claim.ClaimId)
				}
				w.correct(2, 30000, w.Service)
				store.after = after
				if _, err := w.ReprocessClaims(planAdmin(), reprocess("p1", ids...)); err != nil {
					require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
				}
				store.after = -1
				_, err := w.ReprocessClaims(planAdmin(), reprocess("p1", ids...))
				require.NoError(t, err)
				inOrder(t, w, 0)
				inOrder(t, w, 1)
				for _, id := range ids[2:] {
					require.Len(t, w.claim(id).Corrections, 1, "each is corrected once")
				}
			})
		}
	}
}

// step is one thing that happens to a family in the property below.
type step struct {
	kind   int // 0, 1, 2 a claim; 3 a replacement; 4 a void; 5 a plan's correction; 6 a replay of the last request
	spouse bool
	cents  int64
	target int
}

// Whatever comes in whatever order (claims, replacements, voids, corrections
// of the plan with a reprocessing of all they touch), the family ends as if
// the claims that stand had been decided in their order under the plan as it
// is, no limit is exceeded, and every decision ever made replays.
func TestAccumulatorsEndAsIfEverythingHadComeInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		aggregate := rapid.Bool().Draw(rt, "aggregate")
		amend := rapid.SampledFrom([]int{1, 2, 90}).Draw(rt, "claims a commit")
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				kind: rapid.IntRange(0, 6).Draw(rt, "kind"), spouse: rapid.Bool().Draw(rt, "spouse"),
				cents: rapid.SampledFrom([]int64{2500, 9000, 15000}).Draw(rt, "cents"), target: rapid.IntRange(0, 20).Draw(rt, "target"),
			}
		}), 1, 14).Draw(rt, "steps")
		w := newWorld(t, 1, func(d *Deps) { d.Config.AmendClaims = amend })
		defer w.stop()
		version, plan := uint32(1), familyPlan(10000, aggregate)
		publish := func() {
			version++
			w.publishVersion(version, plan)
			w.caughtUp(w.Service)
		}
		publish()
		day := func(n int) string { return fmt.Sprintf("2026-02-%02d", 1+n) }
		var sent []*claimsv1.Claim
		var ids []string
		var last *claimsv1.SubmitClaimRequest
		send := func(c *claimsv1.Claim) {
			last = &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprint(len(ids)), Claim: c}
			res, err := w.SubmitClaim(lakeside(), last)
			require.NoError(rt, err)
			sent, ids = append(sent, c), append(ids, res.GetClaim().GetClaimId())
		}
		about := func(s step, change func(string) func(*claimsv1.Claim)) {
			if n := s.target % max(1, len(ids)); len(ids) > 0 && ids[n] != "" {
				was := sent[n]
				c := visit(0, was.GetLines()[0].GetServiceDate(), charged(s.cents), change(ids[n]))
				if was.GetPatient() != nil {
					spouse(c)
				}
				send(c)
			}
		}
		for n, s := range steps {
			switch s.kind {
			default:
				c := visit(0, day(n), charged(s.cents))
				if s.spouse {
					spouse(c)
				}
				send(c)
			case 3:
				about(s, replaces)
			case 4:
				about(s, voids)
			case 5:
				plan = familyPlan(s.cents, aggregate)
				publish()
				var all []string
				for _, id := range ids {
					if id != "" {
						all = append(all, id)
					}
				}
				if len(all) > 0 {
					_, err := w.ReprocessClaims(planAdmin(), reprocess(fmt.Sprint("p", n), all...))
					require.NoError(rt, err)
				}
			case 6:
				if last != nil {
					_, err := w.SubmitClaim(lakeside(), last)
					require.NoError(rt, err)
				}
			}
		}
		inOrder(rt, w, 0)
		share := plan.GetInNetwork()
		sums, _ := w.sums(0)
		for k, v := range sums {
			require.GreaterOrEqual(rt, v, int64(0))
			switch {
			case k.Kind == adjudication.Deductible && k.Scope == adjudication.Family:
				require.LessOrEqual(rt, v, share.GetDeductibleFamilyCents())
			case k.Kind == adjudication.Deductible && !aggregate:
				require.LessOrEqual(rt, v, share.GetDeductibleIndividualCents())
			case k.Kind == adjudication.OutOfPocket && k.Scope == adjudication.Family:
				require.LessOrEqual(rt, v, share.GetOutOfPocketFamilyCents())
			case k.Kind == adjudication.OutOfPocket:
				require.LessOrEqual(rt, v, share.GetOutOfPocketIndividualCents())
			}
		}
		told, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{})
		require.Empty(rt, told)
		require.Equal(rt, end.GetDecisions(), end.GetIdentical())
	})
}

// publishVersion puts a plan's version behind the one before it, in the stream
// that the world has for its plan.
func (w *world) publishVersion(version uint32, plan *policiesv1.PlanDocument) {
	w.t.Helper()
	_, err := w.store.Append(context.Background(), eventstore.Commit{
		Log: policies.Log, RoutingKey: w.plan, RequestID: fmt.Sprint(w.plan, "@", version),
		Writes: []eventstore.Write{{Stream: w.plan, Expected: int64(version) - 2, Events: []proto.Message{&eventsv1.PlanPublished{Version: version, Plan: plan}}}},
	})
	require.NoError(w.t, err)
}

// familyPlan is a plan whose limits a handful of visits reach.
func familyPlan(deductible int64, aggregate bool) *policiesv1.PlanDocument {
	p := dearerPlan(deductible)
	p.InNetwork.DeductibleFamilyCents = deductible + deductible/2
	p.InNetwork.OutOfPocketIndividualCents, p.InNetwork.OutOfPocketFamilyCents = deductible+2000, 2*deductible
	if aggregate {
		p.InNetwork.DeductibleKind = "aggregate"
	}
	return p
}
