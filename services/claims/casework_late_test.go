package claims

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/problem"
)

// What comes late, twice, or to a claim that has moved on meanwhile.

func refusedBy(t *testing.T, err error) string {
	t.Helper()
	p := problem.As(err)
	require.NotEmpty(t, p.Problems, "%v", err)
	return p.Problems[0].RuleID
}

func TestADocumentAfterTheClaimWasDeniedForWantOfItIsForAnAppeal(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	claim := w.submit(lakeside(), "r1", visit(0, "2026-02-10", procedure("73721"), charged(40000))).Claim
	w.advance(claim.ClaimId)
	w.pass(45 * day)
	require.Equal(t, denied, w.advance(claim.ClaimId).GetStatus())
	before := len(w.events())
	_, err := w.ReceiveInformation(lakeside(), &claimsv1.ReceiveInformationRequest{
		ClaimId: claim.ClaimId, RequestId: "d1", Kind: claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT, Answer: document("MRI report 7"),
	})
	require.Equal(t, "casework.information.late", refusedBy(t, err))
	require.Len(t, w.events(), before)
	filed, err := w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: claim.ClaimId, RequestId: "p1", Grounds: "the report is MRI report 7"})
	require.NoError(t, err)
	done, err := w.DecideAppeal(reviewer("adj-1"), &claimsv1.DecideAppealRequest{
		ClaimId: claim.ClaimId, AppealId: filed.GetAppeal().GetAppealId(), RequestId: "q1", Outcome: "overturned", Reason: "seen",
	})
	require.NoError(t, err)
	require.Equal(t, paid, done.GetClaim().GetStatus())
	w.identical(claim.ClaimId)
}

// While the claim still waits for something else, what comes after its deadline
// is taken.
func TestADocumentAfterItsDeadlineCountsWhileTheClaimWaits(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	claim := w.submit(lakeside(), "r1", visit(0, "2026-02-10", procedure("73721"), charged(600000))).Claim // above what is paid unseen, too
	w.advance(claim.ClaimId)
	w.pass(45 * day)
	after := w.advance(claim.ClaimId)
	require.Equal(t, pended, after.GetStatus())
	require.Equal(t, claimsv1.InformationState_INFORMATION_STATE_EXPIRED, after.GetRequests()[0].GetState())
	require.Nil(t, after.GetClock().GetStoppedTime())
	got, err := w.ReceiveInformation(lakeside(), &claimsv1.ReceiveInformationRequest{
		ClaimId: claim.ClaimId, RequestId: "d1", Kind: claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT, Answer: document("MRI report 7"),
	})
	require.NoError(t, err)
	require.Equal(t, after.GetClock().GetDueDate(), got.GetCase().GetClock().GetDueDate(), "the clock had begun to run again, and runs on")
	require.Equal(t, claimsv1.InformationState_INFORMATION_STATE_RECEIVED, got.GetCase().GetRequests()[0].GetState())
}

// Another payer answers twice, and differently: while the claim waits the later
// answer counts; once it is decided by the first it takes more than that.
func TestTheOtherPayersLaterAnswerCountsUntilTheClaimIsDecided(t *testing.T) {
	says := func(paid, patient int64) *claimsv1.InformationAnswer {
		return &claimsv1.InformationAnswer{OtherPayers: []*claimsv1.OtherPayer{{
			Payer: &claimsv1.Payer{Id: "OTHER"}, PayerSequence: "P", PaidCents: paid, Adjudicated: true,
			Adjustments: []*claimsv1.PriorAdjustment{{GroupCode: "CO", Carc: "45", AmountCents: 600000 - paid - patient}, {GroupCode: "PR", Carc: "2", AmountCents: patient}},
		}}}
	}
	w := newWorld(t, 1)
	patient(w)
	w.submit(lakeside(), "r0", visit(0, "2026-02-09")) // meets the deductible
	claim := w.submit(lakeside(), "r1", visit(0, "2026-02-10", charged(600000), func(c *claimsv1.Claim) {
		c.PayerSequence = "S"
		c.OtherPayers = []*claimsv1.OtherPayer{{Payer: &claimsv1.Payer{Id: "OTHER"}, PayerSequence: "P"}}
	})).Claim
	w.advance(claim.ClaimId)
	send := func(request string, a *claimsv1.InformationAnswer) error {
		_, err := w.ReceiveInformation(lakeside(), &claimsv1.ReceiveInformationRequest{
			ClaimId: claim.ClaimId, RequestId: request, Kind: claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER, Answer: a,
		})
		return err
	}
	require.NoError(t, send("o1", says(9000, 2000)))
	require.Equal(t, pended, w.summary(claim.ClaimId).GetStatus(), "a person must look at the charge")
	_, err := w.ResolveClaim(service(), resolve(claim.ClaimId, "v1", "approve"))
	require.NoError(t, err)
	require.Equal(t, paid, w.summary(claim.ClaimId).GetStatus())
	require.EqualValues(t, 2000, w.summary(claim.ClaimId).GetPaidCents())
	before := len(w.events())
	require.Equal(t, "casework.information.decided", refusedBy(t, send("o2", says(11000, 0))))
	require.Len(t, w.events(), before)
	w.identical(claim.ClaimId)
}

// The payer takes longer than it may to answer a request for authorisation: it
// is escalated, nothing is denied, and the answer counts whenever it comes, also
// after a refusal.
func TestAPriorAuthorisationDecidedLateCounts(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	w.authorize(t, "PA-1", "99213")
	require.Eventually(t, func() bool {
		res, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "look", ValidateOnly: true, Claim: visit(0, "2026-02-11", place("22"), func(c *claimsv1.Claim) { c.PriorAuthorizationNumber = "PA-1" })})
		return err == nil && res.GetDecision().GetStatus() == paid
	}, 10*time.Second, time.Millisecond)
	answer := func(claim, request string, refused bool) error {
		q := &claimsv1.ReceiveInformationRequest{ClaimId: claim, RequestId: request, Kind: claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION, Refused: refused}
		if !refused {
			q.Answer = &claimsv1.InformationAnswer{PriorAuthorizationNumber: "PA-1"}
		}
		_, err := w.ReceiveInformation(adjudicator(), q)
		return err
	}
	slow := w.submit(lakeside(), "r1", visit(0, "2026-02-10", place("22"))).Claim.ClaimId
	w.advance(slow)
	w.pass(8 * day)
	late := w.advance(slow)
	require.Equal(t, pended, late.GetStatus())
	require.EqualValues(t, 1, late.GetTask().GetEscalation())
	require.NoError(t, answer(slow, "a1", false))
	require.Equal(t, paid, w.summary(slow).GetStatus())

	again := w.submit(lakeside(), "r2", visit(0, "2026-02-12", place("22"))).Claim.ClaimId
	w.advance(again)
	require.NoError(t, answer(again, "a2", true))
	require.Equal(t, []string{"CO-197"}, w.summary(again).GetCodes())
	require.NoError(t, answer(again, "a3", false))
	require.Equal(t, paid, w.summary(again).GetStatus())
	w.identical(slow)
	w.identical(again)
}

// An appeal is against one decision. Where the claim is replaced meanwhile that
// decision is gone, and the appeal with it; the new claim's may be appealed.
func TestAnAppealEndsWithTheDecisionItIsAgainst(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10", place("12"))).Claim.ClaimId
	require.Equal(t, denied, w.summary(first).GetStatus())
	filed, err := w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: first, RequestId: "p1", Grounds: "the chart shows back pain"})
	require.NoError(t, err)
	second := w.submit(lakeside(), "r2", visit(0, "2026-02-10", place("12"), replaces(first))).Claim.ClaimId

	got, err := w.GetCase(reviewer("adj-1"), &claimsv1.GetCaseRequest{ClaimId: first})
	require.NoError(t, err)
	require.Equal(t, claimsv1.AppealState_APPEAL_STATE_MOOT, got.GetCase().GetAppeals()[0].GetState())
	before := len(w.events())
	_, err = w.DecideAppeal(reviewer("adj-1"), &claimsv1.DecideAppealRequest{ClaimId: first, AppealId: filed.GetAppeal().GetAppealId(), RequestId: "q1", Outcome: "overturned", Reason: "seen"})
	require.Equal(t, "casework.appeal.decided", refusedBy(t, err))
	_, err = w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: first, RequestId: "p2", Grounds: "still"})
	require.Equal(t, "casework.appeal.replaced", refusedBy(t, err))
	require.Len(t, w.events(), before)
	_, err = w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: second, RequestId: "p3", Grounds: "the chart shows back pain"})
	require.NoError(t, err)
	w.seen(w.Service)
	list, err := w.ListAppeals(reviewer("adj-1"), &claimsv1.ListAppealsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetAppeals(), 1)
	require.Equal(t, second, list.GetAppeals()[0].GetClaimId())
}

// A denial was told in a remittance that paid other claims; it was appealed and
// overturned, and the correction told. Then the first payment comes back: both
// claims of it are told again, the denial as it was because the correction
// builds on it, and in the end each has been told what stands.
func TestAVoidedTellingOfADenialThatWasOverturnedSince(t *testing.T) {
	w := newWorld(t, 1)
	patient(w)
	w.submit(lakeside(), "r0", visit(0, "2026-02-09")) // the deductible
	other := w.submit(lakeside(), "r1", visit(0, "2026-02-11")).Claim.ClaimId
	id := w.submit(lakeside(), "r2", visit(0, "2026-02-10", place("12"))).Claim.ClaimId
	lost := w.cycle("c1").Remittances[0]
	p := w.intend(w.Service)[0]
	_, err := w.send(p.PaymentId, true)
	require.NoError(t, err)
	filed, err := w.FileAppeal(lakeside(), &claimsv1.FileAppealRequest{ClaimId: id, RequestId: "p1", Grounds: "the chart shows back pain"})
	require.NoError(t, err)
	_, err = w.DecideAppeal(reviewer("adj-1"), &claimsv1.DecideAppealRequest{ClaimId: id, AppealId: filed.GetAppeal().GetAppealId(), RequestId: "q1", Outcome: "overturned", Reason: "seen"})
	require.NoError(t, err)
	righted := w.cycle("c2").Remittances[0]
	require.Equal(t, []string{id + " reverses 0", id + " pays 8000"}, w.told(righted.RemittanceId))

	_, err = w.FailPayment(planAdmin(), &claimsv1.FailPaymentRequest{PaymentId: p.PaymentId, Reason: "returned", Returned: true})
	require.NoError(t, err)
	_, err = w.payAfterAll(w.Service, p.PaymentId)
	require.NoError(t, err)

	again := w.cycle("c3").Remittances[0]
	require.Contains(t, w.told(again.RemittanceId), id+" pays 0")
	require.Contains(t, w.told(again.RemittanceId), other+" pays 8000")
	require.Equal(t, lost.PaidCents, again.PaidCents)
	require.EqualValues(t, 8000, w.claim(id).Told.GetPaidCents())
	require.Empty(t, w.cycle("c4").Remittances)
	w.identical(id)
}

// The plan's document says from which charge on two people must agree; the task says so.
func TestAPlanSaysWhenTwoReviewersAreNeeded(t *testing.T) {
	w := newWorld(t, 1)
	plan := dearerPlan(10000)
	plan.ReviewAboveCents, plan.SecondReviewer = 500000, &policiesv1.SecondReviewer{FromCents: 600000}
	w.publishVersion(2, plan)
	w.waitForPlan(2)
	one, two := w.submit(lakeside(), "r1", visit(0, "2026-02-10", charged(599999))).Claim, w.submit(lakeside(), "r2", visit(0, "2026-02-11", charged(600000))).Claim
	task := func(id string) *claimsv1.Task {
		got, err := w.GetCase(reviewer("adj-1"), &claimsv1.GetCaseRequest{ClaimId: id})
		require.NoError(t, err)
		return got.GetCase().GetTask()
	}
	require.EqualValues(t, 1, task(one.ClaimId).GetReviewersNeeded())
	require.EqualValues(t, 2, task(two.ClaimId).GetReviewersNeeded())
	require.EqualExportedValues(t, &claimsv1.ReviewersRule{FromCents: 600000, Plan: "plan_acme@2"}, task(two.ClaimId).GetReviewersRule())

	// And a supervisor says how urgent it is, up and down.
	set := func(request string, level uint32) uint32 {
		got, err := w.SetEscalation(supervisor("sup-1"), &claimsv1.SetEscalationRequest{ClaimId: two.ClaimId, RequestId: request, Level: level})
		require.NoError(t, err)
		return got.GetCase().GetTask().GetEscalation()
	}
	require.EqualValues(t, 3, set("e1", 3))
	require.EqualValues(t, 3, set("e1", 3))
	require.EqualValues(t, 0, set("e2", 0))
	_, err := w.SetEscalation(reviewer("adj-1"), &claimsv1.SetEscalationRequest{ClaimId: two.ClaimId, RequestId: "e3", Level: 9})
	require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
}
