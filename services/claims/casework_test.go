package claims

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/claims/interest"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/problem"
)

// patient is a plan that waits rather than denies: for documents of imaging,
// another payer's decision, and prior authorisations.
func patient(w *world) {
	p := &policiesv1.PlanDocument{
		PlanId: "plan_acme", Name: "Acme", PayerId: payer, Effective: &typev1.Period{StartDate: "2026-01-01"}, PlanYear: "calendar", TimelyFilingDays: 90,
		InNetwork:     &policiesv1.CostShare{DeductibleIndividualCents: 10000, DeductibleKind: "embedded", CoinsuranceBps: 2000, OutOfPocketIndividualCents: 50000},
		FeeScheduleId: "fs_acme", ReviewAboveCents: 500000, AwaitOtherPayer: true, AwaitPriorAuthorization: true,
		Benefits: []*policiesv1.Benefit{
			{Name: "imaging", Covered: true, DocumentRequired: true, Match: &policiesv1.ServiceMatch{Procedures: []string{"73721"}}},
			{Name: "authorised", Covered: true, PriorAuthorization: true, Match: &policiesv1.ServiceMatch{Procedures: []string{"99213"}, PlacesOfService: []string{"22"}}},
			{Name: "therapy", Covered: true, DiagnosisPrefixes: []string{"M54"}, Match: &policiesv1.ServiceMatch{Procedures: []string{"99213"}, PlacesOfService: []string{"12"}}},
			{Name: "care", Covered: true, Match: &policiesv1.ServiceMatch{Procedures: []string{"90000-99999"}}},
		},
	}
	_, err := w.store.Append(context.Background(), eventstore.Commit{
		Log: policies.Log, RoutingKey: w.plan, RequestID: "patient", Writes: []eventstore.Write{{Stream: w.plan, Expected: 0, Events: []proto.Message{&eventsv1.PlanPublished{Version: 2, Plan: p}}}},
	})
	require.NoError(w.t, err)
	w.waitForPlan(2)
}

// waitForPlan waits until the services' book has a version of the plan.
func (w *world) waitForPlan(version int) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		res, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "look", ValidateOnly: true, Claim: visit(0, "2026-02-01")})
		return err == nil && res.GetDecision().GetVersions().GetPlan() == fmt.Sprintf("plan_acme@%d", version)
	}, 10*time.Second, time.Millisecond)
}

func procedure(code string) func(*claimsv1.Claim) {
	return func(c *claimsv1.Claim) { c.Lines[0].Procedure = code }
}

func place(code string) func(*claimsv1.Claim) {
	return func(c *claimsv1.Claim) { c.PlaceOfService = code }
}

func reviewer(name string) context.Context {
	return as(identity.Principal{Subject: name, Org: "payer-acme", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{payer}})
}

func supervisor(name string) context.Context {
	return as(identity.Principal{Subject: name, Org: "payer-acme", Roles: []identity.Role{identity.RoleSupervisor}, Payers: []string{payer}})
}

func (w *world) advance(claim string) *claimsv1.Case {
	w.t.Helper()
	res, err := w.AdvanceCase(service(), &claimsv1.AdvanceCaseRequest{ClaimId: claim})
	require.NoError(w.t, err)
	return res.GetCase()
}

func (w *world) summary(id string) *claimsv1.ClaimSummary {
	w.t.Helper()
	res, err := w.GetClaim(adjudicator(), &claimsv1.GetClaimRequest{ClaimId: id})
	require.NoError(w.t, err)
	return res.GetClaim()
}

func (w *world) identical(claim string) {
	w.t.Helper()
	_, events, err := w.readClaim(context.Background(), claim, eventstore.NoStream)
	require.NoError(w.t, err)
	r := &replayer{service: w.Service, past: newPast(w.Service), families: map[string]*Ledgered{}}
	require.NoError(w.t, r.claim(context.Background(), events, func(d *claimsv1.ReplayedDecision) error {
		require.Equal(w.t, claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL, d.GetVerdict(), "%v", d.GetDifferences())
		return nil
	}))
}

func document(reference string) *claimsv1.InformationAnswer {
	return &claimsv1.InformationAnswer{DocumentReference: reference}
}

const day = 24 * time.Hour

// A document is asked for, reminded of, comes, and a person decides; the
// prompt-pay clock stands still meanwhile and interest is reckoned by it.
func TestAClaimWaitsForItsDocument(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	claim := w.submit(lakeside(), "r1", visit(0, "2026-02-10", procedure("73721"), charged(40000))).Claim
	require.Equal(t, "provider", claim.NextActor)

	asked := w.advance(claim.ClaimId)
	require.Len(t, asked.GetRequests(), 1)
	require.NotNil(t, asked.GetClock().GetStoppedTime())
	require.True(t, proto.Equal(asked, w.advance(claim.ClaimId)), "asking again changes nothing")
	w.pass(15 * day)
	require.EqualValues(t, 1, w.advance(claim.ClaimId).GetRequests()[0].GetReminders())
	_, err := w.ClaimTask(reviewer("adj-1"), &claimsv1.ClaimTaskRequest{ClaimId: claim.ClaimId, RequestId: "t1"})
	require.True(t, problem.Is(err, problem.Conflict), "nothing to decide yet: %v", err)

	w.pass(5 * day)
	got, err := w.ReceiveInformation(lakeside(), &claimsv1.ReceiveInformationRequest{
		ClaimId: claim.ClaimId, RequestId: "d1", Kind: claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT, Answer: document("MRI report 7"),
	})
	require.NoError(t, err)
	require.Equal(t, "2026-04-21", got.GetCase().GetTask().GetDueDate(), "20 days of waiting, then Texas' 30")
	require.Equal(t, "payer", w.summary(claim.ClaimId).GetNextActor(), "the provider has done its part")
	w.seen(w.Service)
	listed, err := w.ListClaims(adjudicator(), &claimsv1.ListClaimsRequest{Status: pended})
	require.NoError(t, err)
	require.True(t, proto.Equal(w.summary(claim.ClaimId), listed.GetClaims()[0]), "%v", listed.GetClaims()[0])
	again, err := w.ReceiveInformation(lakeside(), &claimsv1.ReceiveInformationRequest{
		ClaimId: claim.ClaimId, RequestId: "d1", Kind: claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT, Answer: document("MRI report 7"),
	})
	require.NoError(t, err)
	require.True(t, proto.Equal(got.GetCase(), again.GetCase()), "sent twice is received once")

	_, err = w.ResolveClaim(service(), resolve(claim.ClaimId, "v1", "approve"))
	require.NoError(t, err)
	require.EqualValues(t, 24000, w.summary(claim.ClaimId).GetPaidCents())
	state, events, err := w.readClaim(context.Background(), claim.ClaimId, eventstore.NoStream)
	require.NoError(t, err)
	require.Equal(t, "2026-04-21", state.Decided.GetPromptPayDueDate())
	for on, owed := range map[string]int64{"2026-04-21": 0, "2026-05-01": 118} { // 10 days of $240.00 at 18 %: 1.1835…
		told, err := Decide(state, Remit{RemittanceID: "rem_x", PaymentDate: on, Rates: interest.Published()})
		require.NoError(t, err)
		require.Equal(t, owed, told[0].(*eventsv1.ClaimRemitted).GetInterestCents(), on)
	}
	w.identical(claim.ClaimId)
	require.NotContains(t, fmt.Sprint(events), "MRI report", "nothing of it is in clear")
	texts := []string{}
	for _, e := range Timeline(events) {
		texts = append(texts, e.GetEvent())
	}
	require.Equal(t, []string{"ClaimReceived", "ClaimDecided", "InformationRequested", "InformationReminded", "InformationReceived", "ClaimReviewed", "ClaimDecided"}, texts)
}

func TestADocumentThatNeverComesDenies(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	claim := w.submit(lakeside(), "r1", visit(0, "2026-02-10", procedure("73721"), charged(40000))).Claim
	w.advance(claim.ClaimId)
	w.pass(45*day - time.Second)
	require.Equal(t, pended, w.advance(claim.ClaimId).GetStatus())
	w.pass(time.Second)
	require.Equal(t, denied, w.advance(claim.ClaimId).GetStatus())
	require.Equal(t, []string{"CO-252"}, w.summary(claim.ClaimId).GetCodes())
	require.Equal(t, denied, w.advance(claim.ClaimId).GetStatus(), "once")
	w.identical(claim.ClaimId)
}

// Another payer decides first: its answer is put to the engine at once, also
// when it comes after the claim was denied for want of it.
func TestAnotherPayersDecisionIsAwaited(t *testing.T) {
	answer := &claimsv1.InformationAnswer{OtherPayers: []*claimsv1.OtherPayer{{
		Payer: &claimsv1.Payer{Id: "OTHER"}, PayerSequence: "P", PaidCents: 9000, Adjudicated: true,
		Adjustments: []*claimsv1.PriorAdjustment{{GroupCode: "CO", Carc: "45", AmountCents: 4000}, {GroupCode: "PR", Carc: "2", AmountCents: 2000}},
	}}}
	for _, late := range []bool{false, true} {
		t.Run(map[bool]string{false: "in time", true: "after the denial"}[late], func(t *testing.T) {
			w := newWorld(t, 1)
			patient(w)
			w.submit(lakeside(), "r0", visit(0, "2026-02-09")) // meets the deductible
			claim := w.submit(lakeside(), "r1", visit(0, "2026-02-10", func(c *claimsv1.Claim) {
				c.PayerSequence = "S"
				c.OtherPayers = []*claimsv1.OtherPayer{{Payer: &claimsv1.Payer{Id: "OTHER"}, PayerSequence: "P"}}
			})).Claim
			require.Equal(t, "pended", statusWord(claim.GetStatus()))
			require.Equal(t, "cob.awaited", claim.GetPendReasons()[0].GetRuleId())
			w.advance(claim.ClaimId)
			_, err := w.ResolveClaim(service(), resolve(claim.ClaimId, "v0", "approve"))
			require.NoError(t, err, "an approval is recorded, but what is missing must come")
			require.Equal(t, pended, w.summary(claim.ClaimId).GetStatus())
			if late {
				w.pass(46 * day)
				require.Equal(t, denied, w.advance(claim.ClaimId).GetStatus())
				require.Equal(t, []string{"CO-22"}, w.summary(claim.ClaimId).GetCodes())
			}

			req := &claimsv1.ReceiveInformationRequest{ClaimId: claim.ClaimId, RequestId: "o1", Kind: claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER, Answer: answer}
			for range 2 {
				_, err = w.ReceiveInformation(lakeside(), req)
				require.NoError(t, err)
			}
			got := w.summary(claim.ClaimId)
			require.Equal(t, paid, got.GetStatus())
			require.EqualValues(t, 2000, got.GetPaidCents(), "what the patient still owed")
			require.Contains(t, got.GetCodes(), "OA-23")
			w.identical(claim.ClaimId)
		})
	}
}

// The payer answers its own question, and by a number that it has recorded.
func TestAPriorAuthorisationIsAwaited(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	claim := w.submit(lakeside(), "r1", visit(0, "2026-02-10", place("22"))).Claim
	require.Equal(t, "authorization.awaited", claim.GetPendReasons()[0].GetRuleId())
	opened := w.advance(claim.ClaimId)
	require.Nil(t, opened.GetClock().GetStoppedTime(), "the payer's own delay stops nothing")
	require.Equal(t, noon.Add(7*day), opened.GetRequests()[0].GetDueTime().AsTime())

	answer := &claimsv1.ReceiveInformationRequest{ClaimId: claim.ClaimId, RequestId: "a1", Kind: claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION,
		Answer: &claimsv1.InformationAnswer{PriorAuthorizationNumber: "PA-1"}}
	_, err := w.ReceiveInformation(lakeside(), answer)
	require.True(t, problem.Is(err, problem.Forbidden), "a provider can't authorise itself: %v", err)
	w.authorize(t, "PA-1", "99213")
	require.Eventually(t, func() bool {
		res, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "look", ValidateOnly: true, Claim: visit(0, "2026-02-11", place("22"), func(c *claimsv1.Claim) { c.PriorAuthorizationNumber = "PA-1" })})
		return err == nil && res.GetDecision().GetStatus() == paid
	}, 10*time.Second, time.Millisecond)
	_, err = w.ReceiveInformation(adjudicator(), answer)
	require.NoError(t, err)
	require.Equal(t, paid, w.summary(claim.ClaimId).GetStatus())
	w.identical(claim.ClaimId)

	refused := w.submit(lakeside(), "r2", visit(0, "2026-02-12", place("22"))).Claim
	w.advance(refused.ClaimId)
	_, err = w.ReceiveInformation(adjudicator(), &claimsv1.ReceiveInformationRequest{ClaimId: refused.ClaimId, RequestId: "a2", Kind: claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION, Refused: true})
	require.NoError(t, err)
	require.Equal(t, []string{"CO-197"}, w.summary(refused.ClaimId).GetCodes())
}

// authorize records a prior authorisation for Ada of family 0.
func (w *world) authorize(t *testing.T, number, procedure string) {
	t.Helper()
	subject, stream := w.index.Person(payer, memberID(0), birthOf("ADA"), "ADA"), "authorization-test-"+procedure
	plain, err := proto.Marshal(&policiesv1.PriorAuthorization{Procedures: []string{procedure}})
	require.NoError(t, err)
	box, err := w.sealer.Seal(context.Background(), subject, keys.Place{Tenant: payer, Stream: stream, Revision: 0, Field: policies.AuthorizationField}, plain)
	require.NoError(t, err)
	_, err = w.store.Append(context.Background(), eventstore.Commit{Log: policies.Log, RoutingKey: stream, RequestID: stream, Writes: []eventstore.Write{{
		Stream: stream, Expected: eventstore.NoStream, Events: []proto.Message{&eventsv1.PriorAuthorizationRecorded{
			NumberIndex: w.index.Authorization(payer, number), PayerId: payer, Subject: subject, Effective: &typev1.Period{StartDate: "2026-01-01"}, Authorization: box,
		}},
	}}})
	require.NoError(t, err)
}

func TestTwoReviewersDecideWhatCostsMuch(t *testing.T) {
	w := newWorld(t, 1)
	claim := w.submit(lakeside(), "r1", visit(0, "2026-02-10", charged(1_000_000))).Claim
	by := func(who, request, resolution string) (*claimsv1.ResolveClaimResponse, error) {
		q := resolve(claim.ClaimId, request, resolution)
		q.Reviewer = who
		return w.ResolveClaim(service(), q)
	}
	first, err := by("adj-1", "v1", "approve")
	require.NoError(t, err)
	require.Equal(t, pended, first.GetClaim().GetStatus(), "one opinion isn't enough")
	before := len(w.events())
	_, err = by("adj-1", "v1", "approve")
	require.NoError(t, err, "sent again it is the same opinion")
	_, err = by("adj-1", "v2", "approve")
	require.True(t, problem.Is(err, problem.Conflict), "and nobody has two: %v", err)
	require.Len(t, w.events(), before)
	second, err := by("adj-2", "v3", "approve")
	require.NoError(t, err)
	require.Equal(t, paid, second.GetClaim().GetStatus())
	w.identical(claim.ClaimId)

	small := w.submit(lakeside(), "r2", visit(0, "2026-02-11", charged(999_999))).Claim
	res, err := w.ResolveClaim(service(), resolve(small.ClaimId, "v1", "approve"))
	require.NoError(t, err)
	require.Equal(t, paid, res.GetClaim().GetStatus(), "a cent less needs one")
}

func TestATaskHeldByOneIsDecidedByNoOther(t *testing.T) {
	w := newWorld(t, 1)
	claim := w.submit(lakeside(), "r1", large("2026-02-10")).Claim
	take := &claimsv1.ClaimTaskRequest{ClaimId: claim.ClaimId, RequestId: "t1"}
	for range 2 {
		c, err := w.ClaimTask(reviewer("adj-1"), take)
		require.NoError(t, err)
		require.Equal(t, "adj-1", c.GetCase().GetTask().GetAssignee())
	}
	_, err := w.ResolveClaim(service(), resolve(claim.ClaimId, "v1", "approve")) // adj-7
	require.True(t, problem.Is(err, problem.Conflict), "%v", err)
	_, err = w.ReassignTask(supervisor("lead"), &claimsv1.ReassignTaskRequest{ClaimId: claim.ClaimId, RequestId: "t2", Assignee: "adj-7"})
	require.NoError(t, err)
	w.pass(day)
	require.Empty(t, w.advance(claim.ClaimId).GetTask().GetAssignee(), "held too long")
	_, err = w.ResolveClaim(service(), resolve(claim.ClaimId, "v2", "approve"))
	require.NoError(t, err)
}

// A denial is appealed, overturned and paid; the next remittance tells the
// reversal and the correction, with interest from the day it had been due.
func TestAnOverturnedAppealIsPaidWithInterest(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	w.submit(lakeside(), "r0", visit(0, "2026-02-09")) // meets the deductible
	file, ids := w.adjudicate(visit(0, "2026-02-10", place("12")))
	id := ids[0]
	require.Equal(t, []string{"CO-50"}, w.summary(id).GetCodes(), "not for this diagnosis")
	remit := func(request string) *claimsv1.CreateRemittancesResponse {
		made, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: request})
		require.NoError(t, err)
		return made
	}
	require.Len(t, remit("m1").GetRemittances(), 1)

	filed, err := w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: id, RequestId: "p1", Grounds: "the chart shows back pain"})
	require.NoError(t, err)
	appeal := filed.GetAppeal().GetAppealId()
	again, err := w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: id, RequestId: "p1", Grounds: "the chart shows back pain"})
	require.NoError(t, err)
	require.Equal(t, appeal, again.GetAppeal().GetAppealId())
	decide := func(who, request, outcome string, findings ...*claimsv1.Finding) (*claimsv1.DecideAppealResponse, error) {
		return w.DecideAppeal(reviewer(who), &claimsv1.DecideAppealRequest{ClaimId: id, AppealId: appeal, RequestId: request, Outcome: outcome, Reason: "seen", Overturned: findings})
	}
	before := len(w.events())
	_, err = decide("adj-1", "q0", "overturned", &claimsv1.Finding{RuleId: "benefit.none"})
	require.True(t, problem.Is(err, problem.Conflict), "that is no judgement: %v", err)
	_, err = decide("adj-1", "q0", "upheld", &claimsv1.Finding{RuleId: "benefit.not_necessary"})
	require.True(t, problem.Is(err, problem.Invalid), "%v", err)
	_, err = w.DecideAppeal(lakeside(), &claimsv1.DecideAppealRequest{ClaimId: id, AppealId: appeal, RequestId: "q0", Outcome: "overturned", Reason: "ours"})
	require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	require.Len(t, w.events(), before, "nothing was recorded")

	w.pass(60 * day) // received 2 March, due 1 April, paid 1 May
	for range 2 {
		done, err := decide("adj-1", "q1", "overturned")
		require.NoError(t, err)
		require.Equal(t, claimsv1.AppealState_APPEAL_STATE_OVERTURNED, done.GetAppeal().GetState())
		require.EqualValues(t, 8000, done.GetClaim().GetPaidCents())
	}
	w.identical(id)
	made := remit("m2").GetRemittances()
	require.Len(t, made, 1)
	told, err := w.GetRemittance(service(), &claimsv1.GetRemittanceRequest{RemittanceId: made[0].GetRemittanceId()})
	require.NoError(t, err)
	require.Len(t, told.GetClaims(), 2)
	require.True(t, told.GetClaims()[0].GetReversal())
	require.EqualValues(t, 118, told.GetClaims()[1].GetInterestCents(), "30 days of $80.00 at 18 %: 1.1835…")
	require.Equal(t, "L6", made[0].GetAdjustments()[0].GetReasonCode())
	require.EqualValues(t, 8000+118, made[0].GetPaidCents())

	_, err = decide("adj-2", "q2", "upheld")
	require.True(t, problem.Is(err, problem.Conflict), "it is decided: %v", err)
	state, _, err := w.readClaim(context.Background(), id, eventstore.NoStream)
	require.NoError(t, err)
	_, err = Decide(state, Remit{RemittanceID: "rem_x", PaymentDate: "2026-06-01", Rates: interest.Published()})
	require.True(t, problem.Is(err, problem.Conflict), "and nothing is left to tell: %v", err)
}

func TestWhoDeniedDoesNotHearTheAppeal(t *testing.T) {
	w := newWorld(t, 1)
	claim := w.submit(lakeside(), "r1", large("2026-02-10")).Claim
	_, err := w.ResolveClaim(service(), resolve(claim.ClaimId, "v1", "deny")) // adj-7
	require.NoError(t, err)
	filed, err := w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: claim.ClaimId, RequestId: "p1", Grounds: "it was due"})
	require.NoError(t, err)
	decide := func(who string) error {
		_, err := w.DecideAppeal(reviewer(who), &claimsv1.DecideAppealRequest{ClaimId: claim.ClaimId, AppealId: filed.GetAppeal().GetAppealId(), RequestId: who, Outcome: "overturned", Reason: "seen"})
		return err
	}
	require.True(t, problem.Is(decide("adj-7"), problem.Forbidden))
	require.NoError(t, decide("adj-8"))
	require.Equal(t, paid, w.summary(claim.ClaimId).GetStatus())
	w.identical(claim.ClaimId)
}

func TestAnAppealNobodyDecidesIsOverdue(t *testing.T) {
	w := newWorld(t, 1)
	claim := w.submit(lakeside(), "r1", visit(77, "2026-02-10")).Claim // no member of ours
	filed, err := w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: claim.ClaimId, RequestId: "p1", Grounds: "she is insured"})
	require.NoError(t, err)
	w.pass(30*day - time.Second)
	require.Equal(t, claimsv1.AppealState_APPEAL_STATE_FILED, w.advance(claim.ClaimId).GetAppeals()[0].GetState())
	w.pass(time.Second)
	require.Equal(t, claimsv1.AppealState_APPEAL_STATE_OVERDUE, w.advance(claim.ClaimId).GetAppeals()[0].GetState())
	_, err = w.DecideAppeal(adjudicator(), &claimsv1.DecideAppealRequest{ClaimId: claim.ClaimId, AppealId: filed.GetAppeal().GetAppealId(), RequestId: "q1", Outcome: "overturned", Reason: "seen"})
	require.True(t, problem.Is(err, problem.Conflict), "who is insured is no judgement: %v", err)
	_, err = w.DecideAppeal(adjudicator(), &claimsv1.DecideAppealRequest{ClaimId: claim.ClaimId, AppealId: filed.GetAppeal().GetAppealId(), RequestId: "q2", Outcome: "upheld", Reason: "seen"})
	require.NoError(t, err, "late is better than never")
}

// The worklist is the earliest prompt-pay day first, without what waits for
// its provider; a second service that builds it from the ledger shows the same.
func TestTheWorklistIsRebuiltFromTheLedger(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	in := func(state string) func(*claimsv1.Claim) {
		return func(c *claimsv1.Claim) { c.BillingProvider.Address.State = state }
	}
	texas := w.submit(lakeside(), "tx", visit(0, "2026-02-10", charged(600000), in("TX"))).Claim.ClaimId
	georgia := w.submit(lakeside(), "ga", visit(0, "2026-02-11", charged(600000), in("GA"))).Claim.ClaimId
	waiting := w.submit(lakeside(), "doc", visit(0, "2026-02-12", procedure("73721"), charged(40000), in("GA"))).Claim.ClaimId
	paper, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "paper", Paper: true, Claim: visit(0, "2026-02-13", charged(600000), in("TX"))})
	require.NoError(t, err)
	w.advance(waiting)
	taken, err := w.ClaimTask(reviewer("adj-1"), &claimsv1.ClaimTaskRequest{ClaimId: texas, RequestId: "t1"})
	require.NoError(t, err)

	list := func(s *Service, ctx context.Context, req *claimsv1.ListTasksRequest) (ids []string) {
		t.Helper()
		req.PageSize, req.MinToken = 1, taken.GetToken()
		for {
			res, err := s.ListTasks(ctx, req)
			require.NoError(t, err)
			for _, task := range res.GetTasks() {
				ids = append(ids, task.GetClaimId()+" "+task.GetDueDate())
			}
			if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
				return ids
			}
		}
	}
	want := []string{georgia + " 2026-03-17", texas + " 2026-04-01", paper.GetClaim().GetClaimId() + " 2026-04-16"}
	require.Eventually(t, func() bool { return len(list(w.Service, adjudicator(), &claimsv1.ListTasksRequest{})) == 3 }, 10*time.Second, time.Millisecond)
	require.Equal(t, want, list(w.Service, adjudicator(), &claimsv1.ListTasksRequest{}))
	require.Equal(t, want[1:2], list(w.Service, adjudicator(), &claimsv1.ListTasksRequest{Assignee: "adj-1"}))
	require.Equal(t, []string{want[0], want[2]}, list(w.Service, adjudicator(), &claimsv1.ListTasksRequest{Assignee: "-"}))
	_, err = w.ListTasks(lakeside(), &claimsv1.ListTasksRequest{})
	require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	rival := as(identity.Principal{Subject: "x", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"RIVAL"}})
	require.Empty(t, list(w.Service, rival, &claimsv1.ListTasksRequest{}))

	w.redis.FlushAll()
	second := w.start(w.index)
	require.Equal(t, want, list(second, auditor(), &claimsv1.ListTasksRequest{}))

	_, err = w.ReceiveInformation(lakeside(), &claimsv1.ReceiveInformationRequest{
		ClaimId: waiting, RequestId: "d1", Kind: claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT, Answer: document("ref"),
	})
	require.NoError(t, err)
	_, err = w.ResolveClaim(service(), resolve(georgia, "v1", "approve"))
	require.NoError(t, err)
	filed, err := w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: georgia, RequestId: "p1", Grounds: "too little"})
	require.NoError(t, err)
	res, err := second.ListAppeals(lakeside(), &claimsv1.ListAppealsRequest{MinToken: filed.GetToken()})
	require.NoError(t, err)
	require.Len(t, res.GetAppeals(), 1)
	require.Equal(t, filed.GetAppeal().GetAppealId(), res.GetAppeals()[0].GetAppealId())
	require.Equal(t, []string{waiting + " 2026-03-17", texas + " 2026-04-01", want[2]}, list(second, adjudicator(), &claimsv1.ListTasksRequest{}))
	none, err := second.ListAppeals(otherOrg(), &claimsv1.ListAppealsRequest{})
	require.NoError(t, err)
	require.Empty(t, none.GetAppeals())
}

func TestOnlyServicesAdvanceACase(t *testing.T) {
	w := newWorld(t, 1)
	claim := w.submit(lakeside(), "r1", large("2026-02-10")).Claim
	for _, ctx := range []context.Context{lakeside(), adjudicator(), auditor()} {
		_, err := w.AdvanceCase(ctx, &claimsv1.AdvanceCaseRequest{ClaimId: claim.ClaimId})
		require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	}
	_, err := w.GetCase(otherOrg(), &claimsv1.GetCaseRequest{ClaimId: claim.ClaimId})
	require.True(t, problem.Is(err, problem.NotFound), "%v", err)
	_, err = w.FileAppeal(otherOrg(), &claimsv1.FileAppealRequest{ClaimId: claim.ClaimId, RequestId: "p", Grounds: "x"})
	require.True(t, problem.Is(err, problem.NotFound), "what isn't yours isn't there: %v", err)
}

func TestJudgementsAreRulesOfTheEngine(t *testing.T) {
	n := 0
	for _, r := range adjudication.Rules() {
		if adjudication.Judgement(r.ID) {
			n++
		}
	}
	require.Equal(t, 22, n)
}
