package claims

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views/redisstore"
)

const (
	identical = claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL
	different = claimsv1.ReplayVerdict_REPLAY_VERDICT_DIFFERENT
)

// replayAll replays and returns what was told and the counts at the end.
func replayAll(ctx context.Context, t testing.TB, s *Service, req *claimsv1.ReplayDecisionsRequest) (told []*claimsv1.ReplayedDecision, end *claimsv1.ReplayCounts) {
	t.Helper()
	err := s.replay(ctx, req, func(m *claimsv1.ReplayDecisionsResponse) error {
		require.Nil(t, end, "nothing follows the end")
		if m.GetDecision() != nil {
			told = append(told, m.GetDecision())
		}
		if m.GetDone() {
			end = m.GetCounts()
		}
		return nil
	})
	require.NoError(t, err)
	require.NotNil(t, end)
	return told, end
}

// aBusyWeek is eight claims of every outcome, the pended ones approved.
func aBusyWeek(w *world) {
	w.t.Helper()
	for i, c := range []*claimsv1.Claim{
		visit(0, "2026-02-10"), visit(0, "2026-02-11", spouse), visit(0, "2026-02-10"), visit(0, "2026-02-12"),
		visit(1, "2026-02-10", charged(600000)), visit(1, "2026-02-11", billedBy(otherBiller)), visit(9, "2026-02-10"), visit(1, "2025-11-01"),
	} {
		w.submit(lakeside(), string(rune('a'+i)), c)
	}
	for _, r := range w.events() {
		if e, ok := r.Event.(*eventsv1.ClaimDecided); ok && e.GetStatus() == pended {
			_, err := w.ResolveClaim(service(), resolve(e.GetClaimId(), "v", "approve"))
			require.NoError(w.t, err)
		}
	}
}

// dearerPlan is the world's plan with another deductible, in force from the
// beginning as if it had always been so.
func dearerPlan(deductible int64) *policiesv1.PlanDocument {
	return &policiesv1.PlanDocument{
		PlanId: "plan_acme", Name: "Acme", PayerId: payer, Effective: &typev1.Period{StartDate: "2026-01-01"}, PlanYear: "calendar", TimelyFilingDays: 90,
		InNetwork: &policiesv1.CostShare{
			DeductibleIndividualCents: deductible, DeductibleFamilyCents: 2 * deductible, DeductibleKind: "embedded", CoinsuranceBps: 2000,
			OutOfPocketIndividualCents: 50000, OutOfPocketFamilyCents: 80000,
		},
		FeeScheduleId: "fs_acme", ReviewAboveCents: 500000,
		Benefits: []*policiesv1.Benefit{
			{Name: "imaging", Covered: true, PriorAuthorization: true, Match: &policiesv1.ServiceMatch{Procedures: []string{"73721"}}},
			{Name: "care", Covered: true, Match: &policiesv1.ServiceMatch{Procedures: []string{"90000-99999"}}},
		},
	}
}

// correct publishes a plan version and waits until the services know it.
func (w *world) correct(version uint32, deductible int64, services ...*Service) {
	w.t.Helper()
	w.append("plan", &eventsv1.PlanPublished{Version: version, Plan: dearerPlan(deductible)})
	w.caughtUp(services...)
}

// caughtUp waits until the services know all that is published.
func (w *world) caughtUp(services ...*Service) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var next map[uint32]uint64
	require.ErrorIs(w.t, w.store.Follow(ctx, policies.Log, nil, nil, func(_ context.Context, b eventstore.Batch) error {
		if next = b.Next; b.CaughtUp {
			return errReached
		}
		return nil
	}), errReached)
	for _, s := range services {
		require.Eventually(w.t, func() bool { return s.book.For(book.Query{}).AsOf == book.AsOfNext(next) }, 10*time.Second, time.Millisecond)
	}
}

// Every decision on the ledger can be made again from what it says it read:
// the claim, the day of receipt, the documents, the family's accumulators at
// the recorded revision and the review before it. The hashes agree, on a
// process that has never seen the claims and after the documents have changed.
func TestARecordedDecisionIsReproducedBitForBit(t *testing.T) {
	w := newWorld(t, 2)
	aBusyWeek(w)
	other := w.start(w.index)
	w.correct(2, 15000, other)

	told, end := replayAll(auditor(), t, other, &claimsv1.ReplayDecisionsRequest{})
	require.Empty(t, told)
	require.Equal(t, uint64(9), end.GetDecisions())
	require.Equal(t, uint64(9), end.GetIdentical())

	// Each claim by itself, last first: the reference data goes back in time.
	events := w.events()
	for i := len(events) - 1; i >= 0; i-- {
		if e, ok := events[i].Event.(*eventsv1.ClaimReceived); ok {
			told, _ := replayAll(auditor(), t, other, &claimsv1.ReplayDecisionsRequest{ClaimId: e.GetClaimId()})
			for _, d := range told {
				require.Equal(t, identical, d.GetVerdict(), "%v", d.GetDifferences())
				require.Equal(t, d.GetRecordedSha256(), d.GetReplayedSha256())
			}
		}
	}
}

// Claims before and after a retroactive correction of the plan each replay
// under what was known when they were decided, in any order.
func TestAReplayKnowsWhatWasKnownThen(t *testing.T) {
	w := newWorld(t, 1)
	before := w.submit(lakeside(), "a", visit(0, "2026-02-10"))
	w.correct(2, 15000, w.Service)
	after := w.submit(lakeside(), "b", visit(0, "2026-02-11"))
	require.Equal(t, int64(10000), before.GetDecision().GetPatientCents(), "the deductible of version 1")
	require.Equal(t, int64(5000+1000), after.GetDecision().GetPatientCents(), "what version 2 added, then 20 %")
	w.correct(3, 20000, w.Service)

	for _, claim := range []string{after.GetClaim().GetClaimId(), before.GetClaim().GetClaimId(), after.GetClaim().GetClaimId()} {
		told, _ := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{ClaimId: claim})
		require.Len(t, told, 1)
		require.Equal(t, identical, told[0].GetVerdict(), "%v", told[0].GetDifferences())
	}
}

func TestARangeOfPositionsIsReplayedAndNothingElse(t *testing.T) {
	w := newWorld(t, 1)
	var at []*ledgerv1.Position
	for i, day := range []string{"2026-02-10", "2026-02-11", "2026-02-12", "2026-02-13"} {
		at = append(at, w.submit(lakeside(), string(rune('a'+i)), visit(0, day)).GetClaim().GetPosition())
	}
	_, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{From: at[1], To: at[2]})
	require.Equal(t, uint64(2), end.GetIdentical())
	require.Equal(t, uint64(2), end.GetDecisions())
	_, end = replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{From: at[3]})
	require.Equal(t, uint64(1), end.GetIdentical())
}

// record is what one decision left on the ledger, opened.
type record struct {
	decided  *eventsv1.ClaimDecided
	decision *claimsv1.Decision
	posted   *eventsv1.AccumulatorsPosted
	history  *eventsv1.ServiceHistory
	rehash   bool // the recorded hash is made to fit
}

// tampering is a ledger whose writer changes the first decision it records.
type tampering struct {
	eventstore.Store
	w     *world
	plant func(*record)
}

func (s *tampering) AppendBatch(ctx context.Context, commits []eventstore.Commit) ([]eventstore.Outcome, error) {
	for i := range commits {
		if _, ok := commits[i].Writes[0].Events[0].(*eventsv1.ClaimReceived); ok && s.plant != nil {
			commits[i] = s.tamper(commits[i])
			s.plant = nil
		}
	}
	return s.Store.AppendBatch(ctx, commits)
}

// tamper opens a commit, lets plant change it, and seals it again in its place.
func (s *tampering) tamper(c eventstore.Commit) eventstore.Commit {
	ctx, t, sealer := context.Background(), s.w.t, s.w.sealer
	received := c.Writes[0].Events[0].(*eventsv1.ClaimReceived)
	x := &record{decided: proto.CloneOf(c.Writes[0].Events[1].(*eventsv1.ClaimDecided)), decision: &claimsv1.Decision{}, history: &eventsv1.ServiceHistory{}, rehash: true}
	x.posted = proto.CloneOf(c.Writes[1].Events[0].(*eventsv1.AccumulatorsPosted))
	decision := keys.Place{Tenant: payer, Stream: c.Writes[0].Stream, Revision: 1, Field: fieldDecision}
	history := keys.Place{Tenant: payer, Stream: c.Writes[1].Stream, Revision: uint64(c.Writes[1].Expected + 1), Field: fieldHistory}
	require.NoError(t, s.w.open(ctx, decision, x.decided.GetDecision(), x.decision))
	require.NoError(t, s.w.open(ctx, history, x.posted.GetHistory(), x.history))
	s.plant(x)
	plain, err := encode(x.decision)
	require.NoError(t, err)
	x.decided.Decision, err = sealer.Seal(ctx, received.GetSubject(), decision, plain)
	require.NoError(t, err)
	if x.rehash {
		x.decided.DecisionSha256 = decisionHash(plain)
	}
	plain, err = encode(x.history)
	require.NoError(t, err)
	x.posted.History, err = sealer.Seal(ctx, received.GetSubject(), history, plain)
	require.NoError(t, err)
	c.Writes = []eventstore.Write{
		{Stream: c.Writes[0].Stream, Expected: c.Writes[0].Expected, Events: []proto.Message{received, x.decided}},
		{Stream: c.Writes[1].Stream, Expected: c.Writes[1].Expected, Events: []proto.Message{x.posted}},
	}
	return c
}

// Whatever is changed in one recorded decision, with everything around it made
// to fit, the replay names the first place that differs and ends there.
func TestAPlantedDifferenceIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(*record)
		path  string
		shown string
	}{
		"a cent more is paid": {func(x *record) {
			x.decision.PaidCents++
			x.decided.PaidCents++
		}, "decision.paid_cents", "1"},
		"only what is told in clear is changed": {func(x *record) { x.decided.Codes = []string{"CO-45"} }, "decided.codes", "1 of them"},
		"a cent less is posted":                 {func(x *record) { x.posted.Postings[0].Amount-- }, "posted.postings[0].amount", "9999"},
		"the history names another procedure":   {func(x *record) { x.history.Lines[0].Procedure = "99214" }, "history.lines[0].procedure", "(sealed)"},
		"a figure of the explanation is changed": {func(x *record) {
			x.decision.Lines[0].Adjustments[1].Facts["deductible_remaining_cents"] = "1"
		}, "decision.lines[0].adjustments[1].facts.deductible_remaining_cents", "(sealed)"},
		"the hash isn't the decision's": {func(x *record) {
			x.decided.DecisionSha256, x.rehash = make([]byte, 32), false
		}, "decision_sha256", "another hash"},
		"another accumulator state is named": {func(x *record) {
			x.decision.Versions.AccumulatorsRevision = -1
			x.decided.Versions.AccumulatorsRevision = -1
		}, "posted.revision", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.submit(lakeside(), "sound", visit(0, "2026-02-09", spouse, charged(4000)))
			evil := w.start(w.index, func(d *Deps) { d.Store = &tampering{w.store, w, c.plant} })
			planted, err := evil.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "planted", Claim: visit(0, "2026-02-10", charged(20000))})
			require.NoError(t, err)
			w.submit(lakeside(), "later", visit(0, "2026-02-11"))

			told, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{})
			require.Equal(t, uint64(1), end.GetDifferent())
			require.Equal(t, uint64(2), end.GetDecisions(), "it ends at the first difference")
			require.Len(t, told, 1)
			require.Equal(t, different, told[0].GetVerdict())
			require.Equal(t, planted.GetClaim().GetClaimId(), told[0].GetClaimId())
			require.Equal(t, c.path, told[0].GetDifferences()[0].GetPath(), "%v", told[0].GetDifferences())
			require.Equal(t, c.shown, told[0].GetDifferences()[0].GetRecorded())

			_, end = replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{KeepGoing: true})
			require.Equal(t, uint64(3), end.GetDecisions())
		})
	}
}

// What can't be read any more is counted and not called a difference, and
// what it left to the family still counts for the others.
func TestAnErasedPersonsDecisionsAreToldAsErased(t *testing.T) {
	w := newWorld(t, 1)
	gone := w.submit(lakeside(), "a", visit(0, "2026-02-10"))
	w.submit(lakeside(), "b", visit(0, "2026-02-11", spouse))
	w.authority.Destroy(gone.GetClaim().GetMemberHash())
	other := w.start(w.index)
	told, end := replayAll(auditor(), t, other, &claimsv1.ReplayDecisionsRequest{})
	require.Equal(t, uint64(1), end.GetErased())
	require.Equal(t, uint64(1), end.GetIdentical())
	require.Equal(t, claimsv1.ReplayVerdict_REPLAY_VERDICT_ERASED, told[0].GetVerdict())
}

func TestAnotherEnginesDecisionIsNotCalledADifference(t *testing.T) {
	w := newWorld(t, 1)
	evil := w.start(w.index, func(d *Deps) {
		d.Store = &tampering{w.store, w, func(x *record) { x.decided.Versions.Engine = "probity-rules/0" }}
	})
	_, err := evil.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "old", Claim: visit(0, "2026-02-10")})
	require.NoError(t, err)
	_, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{})
	require.Equal(t, uint64(1), end.GetOtherEngine())
	require.Zero(t, end.GetDifferent())
}

// Who may read a claim may replay it; the log as a whole is the auditor's.
func TestWhoMayReplay(t *testing.T) {
	w := newWorld(t, 1)
	claim := w.submit(lakeside(), "a", visit(0, "2026-02-10")).GetClaim().GetClaimId()
	replay := func(ctx context.Context, req *claimsv1.ReplayDecisionsRequest) error {
		return w.replay(ctx, req, func(*claimsv1.ReplayDecisionsResponse) error { return nil })
	}
	one := &claimsv1.ReplayDecisionsRequest{ClaimId: claim}
	require.NoError(t, replay(lakeside(), one))
	require.NoError(t, replay(adjudicator(), one))
	require.NoError(t, replay(auditor(), one))
	require.True(t, problem.Is(replay(otherOrg(), one), problem.NotFound))
	require.True(t, problem.Is(replay(lakeside(), &claimsv1.ReplayDecisionsRequest{}), problem.Forbidden))
	require.True(t, problem.Is(replay(adjudicator(), &claimsv1.ReplayDecisionsRequest{}), problem.Forbidden))
	require.NoError(t, replay(auditor(), &claimsv1.ReplayDecisionsRequest{}))
}

// simulated tries a document on claims received in March 2026.
func simulated(t testing.TB, w *world, document *policiesv1.PlanDocument) *claimsv1.PlanSimulation {
	t.Helper()
	text, err := protojson.Marshal(document)
	require.NoError(t, err)
	var out *claimsv1.PlanSimulation
	require.NoError(t, w.simulate(planAdmin(), &claimsv1.SimulatePlanRequest{Document: string(text), FromDate: "2026-03-01", ToDate: "2026-03-31"},
		func(m *claimsv1.SimulatePlanResponse) error {
			out = m.GetResult()
			return nil
		}))
	return out
}

func planAdmin() context.Context {
	return as(identity.Principal{Subject: "plans-1", Org: "payer-acme", Roles: []identity.Role{identity.RolePlanAdmin}, Payers: []string{payer}})
}

// A deductible of $150 instead of $100 costs each person the difference once,
// less the coinsurance that it replaces; nothing is recorded.
func TestASimulationShowsWhatAPlanWouldHaveDone(t *testing.T) {
	w := newWorld(t, 2)
	for i, day := range []string{"2026-02-10", "2026-02-11", "2026-02-12"} {
		w.submit(lakeside(), "ada"+day, visit(0, day))
		w.submit(lakeside(), "other"+day, visit(1+i, day)) // the third is nobody's
	}
	events := len(w.events())
	trial := dearerPlan(15000)
	trial.Benefits = trial.Benefits[:2]
	got := simulated(t, w, trial)

	require.Empty(t, got.GetProblems())
	require.Equal(t, []string{"plan_acme@1"}, got.GetPlans())
	require.Equal(t, uint64(4), got.GetClaims(), "three of one person, one of another; who isn't a member has no plan")
	require.Equal(t, uint64(1), got.GetPaidLess(), "the second visit meets the higher deductible, the third doesn't")
	require.Equal(t, uint64(3), got.GetUnchanged())
	require.Len(t, got.GetBenefits(), 1)
	care := got.GetBenefits()[0]
	require.Equal(t, "care", care.GetBenefit())
	require.Equal(t, uint64(4), care.GetLinesAfter())
	require.Equal(t, int64(40000), care.GetAllowedBeforeCents())
	require.Equal(t, int64(16000), care.GetPaidBeforeCents(), "of $400 two deductibles of $100 and twice 20 %")
	require.Equal(t, int64(12000), care.GetPaidAfterCents(), "$50 more, of which 20 % were the patient's already")
	require.Equal(t, care.GetPatientAfterCents()-care.GetPatientBeforeCents(), int64(4000))
	require.Len(t, w.events(), events, "a simulation records nothing")

	same := simulated(t, w, dearerPlan(10000))
	require.Equal(t, uint64(4), same.GetUnchanged())
	require.Equal(t, same.GetTotal().GetPaidBeforeCents(), same.GetTotal().GetPaidAfterCents())
}

// What tiers would have done to last month is seen before they go live: at who
// is of a tier the tier's share applies, with a deductible of its own, or the
// benefit's copay there; at who is of none the plan's own share does, and what
// the tier's deductible took isn't credited to it. The money is told by benefit.
func TestASimulationShowsWhatTiersWouldHaveDone(t *testing.T) {
	w := newWorld(t, 2)
	always := &typev1.Period{StartDate: "2026-01-01"}
	before := dearerPlan(10000)
	before.Benefits[0].PriorAuthorization = false
	w.append("plan", &eventsv1.PlanPublished{Version: 2, Plan: before})
	w.append("contract", &eventsv1.ContractPublished{Version: 1, Contract: &policiesv1.ProviderContract{
		ContractId: "ctr_other", PayerId: payer, Npis: []string{otherBiller}, Effective: always, FeeScheduleId: "fs_acme",
	}})
	w.append("network", &eventsv1.NetworkPublished{Version: 1, Network: &policiesv1.ProviderNetwork{
		NetworkId: "net_acme", PayerId: payer, Effective: always,
		Participants: []*policiesv1.NetworkParticipant{{Npi: biller, Tier: "centre", Participates: always}, {Npi: otherBiller, Participates: always}},
	}})
	w.caughtUp(w.Service)
	scan := func(c *claimsv1.Claim) {
		charged(60000)(c)
		c.Lines[0].Procedure = "73721"
	}
	w.submit(lakeside(), "centre", visit(0, "2026-02-10"))
	w.submit(lakeside(), "centre again", visit(0, "2026-02-11"))
	w.submit(lakeside(), "elsewhere", visit(0, "2026-02-12", billedBy(otherBiller)))
	w.submit(lakeside(), "only elsewhere", visit(1, "2026-02-10", billedBy(otherBiller)))
	w.submit(lakeside(), "scan at the centre", visit(1, "2026-02-11", scan))
	events := len(w.events())

	trial := proto.CloneOf(before)
	trial.Networks = []*policiesv1.PlanNetwork{{NetworkId: "net_acme"}}
	trial.Tiers = []*policiesv1.CostShareTier{{
		Name: "centre", Participants: []*policiesv1.PlanNetwork{{NetworkId: "net_acme", Tiers: []string{"centre"}}},
		CostShare: &policiesv1.CostShare{
			DeductibleIndividualCents: 2500, DeductibleFamilyCents: 5000, DeductibleKind: "embedded", CoinsuranceBps: 1000,
			OutOfPocketIndividualCents: 50000, OutOfPocketFamilyCents: 80000,
		},
	}}
	trial.Benefits[0].Tiers = []*policiesv1.BenefitTier{{Tier: "centre", CopayCents: 5000}}
	got := simulated(t, w, trial)

	require.Empty(t, got.GetProblems())
	require.Equal(t, []string{"plan_acme@2"}, got.GetPlans())
	require.Equal(t, uint64(5), got.GetClaims())
	require.Equal(t, uint64(3), got.GetPaidMore(), "both visits and the scan at the centre")
	require.Equal(t, uint64(1), got.GetPaidLess(), "elsewhere the deductible that the visits at the centre had met is open again")
	require.Equal(t, uint64(1), got.GetUnchanged(), "who went elsewhere first had met nothing before either")
	require.Len(t, got.GetBenefits(), 2)
	care, imaging := got.GetBenefits()[0], got.GetBenefits()[1]
	require.Equal(t, "care", care.GetBenefit())
	require.Equal(t, int64(0+8000+8000+0), care.GetPaidBeforeCents(), "each person's first visit is the deductible, of others 20 %")
	require.Equal(t, int64(6750+9000+0+0), care.GetPaidAfterCents(), "$25 and 10 % of the rest, then 10 %; elsewhere the deductible")
	require.Equal(t, "imaging", imaging.GetBenefit())
	require.Equal(t, int64(32000), imaging.GetPaidBeforeCents(), "the deductible was met by the visit: 20 % of $400")
	require.Equal(t, int64(35000), imaging.GetPaidAfterCents(), "a copay of $50")
	for _, b := range []*claimsv1.BenefitDifference{care, imaging, got.GetTotal()} {
		require.Equal(t, b.GetAllowedBeforeCents(), b.GetAllowedAfterCents(), "a tier changes no price")
		require.Equal(t, b.GetPaidAfterCents()-b.GetPaidBeforeCents(), b.GetPatientBeforeCents()-b.GetPatientAfterCents(), "what the plan pays more the patient owes less")
	}
	require.Equal(t, int64(2750), got.GetTotal().GetPaidAfterCents()-got.GetTotal().GetPaidBeforeCents())
	require.Len(t, w.events(), events, "a simulation records nothing")
}

// A network may be published after the claims were decided, to try a plan on it.
func TestASimulationKnowsTheNetworksPublishedSince(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "a", visit(0, "2026-02-10"))
	w.append("network", &eventsv1.NetworkPublished{Version: 1, Network: &policiesv1.ProviderNetwork{
		NetworkId: "net_narrow", PayerId: payer, Effective: &typev1.Period{StartDate: "2026-01-01"},
		Participants: []*policiesv1.NetworkParticipant{{Npi: biller, Participates: &typev1.Period{StartDate: "2026-02-11"}}},
	}})
	w.caughtUp(w.Service)
	trial := dearerPlan(10000)
	trial.Networks = []*policiesv1.PlanNetwork{{NetworkId: "net_narrow"}}

	got := simulated(t, w, trial)

	require.Zero(t, got.GetNewlyPended())
	require.Equal(t, uint64(1), got.GetNewlyDenied(), "the provider joined a day later, and the plan has no tier out of network")
}

func TestASimulationOfWhatCantBeAPlanSaysWhy(t *testing.T) {
	w := newWorld(t, 1)
	trial := dearerPlan(15000)
	trial.Benefits = nil
	require.NotEmpty(t, simulated(t, w, trial).GetProblems())

	err := w.simulate(planAdmin(), &claimsv1.SimulatePlanRequest{Document: "{}", FromDate: "2026-03-31", ToDate: "2026-03-01"}, nil)
	require.True(t, problem.Is(err, problem.Invalid))
	foreign := dearerPlan(15000)
	foreign.PayerId = "RIVAL"
	text, err := protojson.Marshal(foreign)
	require.NoError(t, err)
	err = w.simulate(planAdmin(), &claimsv1.SimulatePlanRequest{Document: string(text), FromDate: "2026-03-01", ToDate: "2026-03-31"}, nil)
	require.True(t, problem.Is(err, problem.Forbidden))
}

func TestADecisionMadeBeforeTheBookIsThereWaits(t *testing.T) {
	w := newWorld(t, 1)
	s, err := New(Deps{Store: w.store, Sealer: w.sealer, Index: w.index, Book: book.New(), Authorizer: w.auth, Lists: redisstore.New(redis.NewClient(&redis.Options{Addr: w.redis.Addr()}))})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(lakeside())
	cancel()
	_, err = s.SubmitClaim(ctx, &claimsv1.SubmitClaimRequest{RequestId: "r", Claim: visit(0, "2026-02-10")})
	require.ErrorContains(t, err, "caught up")
	require.Empty(t, w.events())
}

// Voids, replacements and the claims that they moved replay too, each on the
// family as it stood for it.
func TestAdjustedDecisionsAreReproduced(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "a", visit(0, "2026-02-10"))
	w.submit(lakeside(), "b", visit(0, "2026-02-11"))
	w.submit(lakeside(), "c", visit(0, "2026-02-12", spouse))
	second := w.submit(lakeside(), "d", visit(0, "2026-02-10", charged(9000), replaces(first.GetClaim().GetClaimId())))
	w.submit(lakeside(), "e", visit(0, "2026-02-10", charged(9000), voids(second.GetClaim().GetClaimId())))

	told, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{KeepGoing: true})
	require.Empty(t, told)
	require.Greater(t, end.GetDecisions(), uint64(5), "later claims of the family were decided again")
	require.Equal(t, end.GetDecisions(), end.GetIdentical())
	for _, e := range w.events() {
		if r, ok := e.Event.(*eventsv1.ClaimReceived); ok {
			told, _ := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{ClaimId: r.GetClaimId()})
			for _, d := range told {
				require.Equal(t, identical, d.GetVerdict(), "%v", d.GetDifferences())
			}
		}
	}

	// A family of which something was taken back is left out of a simulation.
	w.submit(lakeside(), "f", visit(0, "2026-02-20"))
	got := simulated(t, w, dearerPlan(10000))
	require.Zero(t, got.GetClaims())
	require.Equal(t, uint64(5), got.GetLeftOut(), "all but the void, which decided nothing")
}
