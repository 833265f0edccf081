package scenario

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/claims"
	"github.com/probity-health/probity/services/claims/casework"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
	"github.com/probity-health/probity/workflows/claim"
)

// office is a whole stack in this process whose deadlines are seconds, with
// the sample payer whose gold plan wants documents for laboratory tests and
// waits for other payers.
type office struct {
	*standalone.Stack
	t      *testing.T
	claims map[string]*claimsv1.Claim // of the sample's file, by control number
	home   string
	log    *lockedLog
}

// lockedLog keeps what is logged.
type lockedLog struct {
	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// canaries are texts that people and other payers give in the course of
// casework, one of each kind.
var canaries = []string{"MARKER-REFERENCE", "MARKER-GROUNDS", "MARKER-HEARING", "MARKER-REVIEW", "MARKER-OTHERPAYER", "MARKER-AUTHORIZATION"}

func openOffice(t *testing.T) *office {
	home, log := t.TempDir(), &lockedLog{}
	stack, err := standalone.Start(t.Context(), standalone.Config{
		DataDir: filepath.Join(home, "data"), Listen: "127.0.0.1:0", LogLevel: "debug", LogOutput: log,
		Claims: claims.Config{Casework: casework.Terms{
			Documents: casework.Days(1), OtherPayer: casework.Span(4 * time.Second), Remind: casework.Span(time.Second), SecondReviewerCents: 600000,
		}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stack.Stop()) })
	o := &office{Stack: stack, t: t, claims: map[string]*claimsv1.Claim{}, home: home, log: log}
	_, err = sample.Load(t.Context(), o.as("developer").Policies)
	require.NoError(t, err)
	admin := o.as("plan-admin").Policies
	gold, err := admin.GetPlan(t.Context(), &policiesv1.GetPlanRequest{PlanId: "plan_gold"})
	require.NoError(t, err)
	plan := gold.GetPlan()
	plan.AwaitOtherPayer = true
	for _, b := range plan.GetBenefits() {
		b.DocumentRequired = b.GetName() == "laboratory"
	}
	_, err = admin.PublishPlan(t.Context(), &policiesv1.PublishPlanRequest{RequestId: "patient", Plan: plan, Etag: gold.GetEtag()})
	require.NoError(t, err)

	raw := sample.ClaimsFile()
	file, err := x12.ParseFile(bytes.NewReader(raw), x12.Limits{})
	require.NoError(t, err)
	for c, err := range file.Claims(bytes.NewReader(raw), 0, file.ClaimCount) {
		require.NoError(t, err)
		o.claims[c.Claim.GetPatientControlNumber()] = c.Claim
	}
	return o
}

func (o *office) as(id string) standalone.Clients {
	o.t.Helper()
	c, err := o.As(id)
	require.NoError(o.t, err)
	return c
}

// submit sends a claim of the sample's file, changed, once the plan is known.
func (o *office) submit(t *testing.T, control string, change func(*claimsv1.Claim)) string {
	t.Helper()
	c := proto.CloneOf(o.claims[control])
	if change != nil {
		change(c)
	}
	biller := o.as("biller").Claims
	await(t, "the plan is known", func() bool {
		r, err := biller.SubmitClaim(t.Context(), &claimsv1.SubmitClaimRequest{RequestId: "look", ValidateOnly: true, Claim: c})
		return err == nil && slices.Contains([]string{"plan_gold@2", ""}, r.GetDecision().GetVersions().GetPlan()) && r.GetDecision() != nil
	})
	r, err := biller.SubmitClaim(t.Context(), &claimsv1.SubmitClaimRequest{RequestId: uuid.NewString(), Claim: c})
	require.NoError(t, err)
	require.Empty(t, r.GetProblems())
	return r.GetClaim().GetClaimId()
}

func (o *office) claim(t *testing.T, id string) *claimsv1.ClaimSummary {
	t.Helper()
	r, err := o.as("adjudicator").Claims.GetClaim(t.Context(), &claimsv1.GetClaimRequest{ClaimId: id})
	require.NoError(t, err)
	return r.GetClaim()
}

func (o *office) happened(t *testing.T, id string) (events []string) {
	t.Helper()
	r, err := o.as("adjudicator").Claims.GetClaim(t.Context(), &claimsv1.GetClaimRequest{ClaimId: id})
	require.NoError(t, err)
	for _, e := range r.GetTimeline() {
		events = append(events, e.GetEvent())
	}
	return events
}

func (o *office) review(t *testing.T, who, id, resolution string) (*claimsv1.ClaimSummary, error) {
	t.Helper()
	r, err := o.as(who).Workflows.ReviewClaim(t.Context(), &workflowsv1.ReviewClaimRequest{ClaimId: id, RequestId: uuid.NewString(), Resolution: resolution, Reason: "MARKER-REVIEW: records seen"})
	return r.GetClaim(), err
}

// remit runs a payment cycle over all of the sample payer's claims.
func (o *office) remit(t *testing.T, request string) []*claimsv1.Remittance {
	t.Helper()
	r, err := o.as("service").Remittances.CreateRemittances(t.Context(), &claimsv1.CreateRemittancesRequest{PayerId: sample.PayerID, RequestId: request})
	require.NoError(t, err)
	return r.GetRemittances()
}

const (
	statusPended = claimsv1.ClaimStatus_CLAIM_STATUS_PENDED
	statusPaid   = claimsv1.ClaimStatus_CLAIM_STATUS_PAID
	statusDenied = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED
)

func TestWhatCannotBeDecidedAtOnce(t *testing.T) {
	o := openOffice(t)

	t.Run("a document is asked for, reminded of, received, and the claim decided", func(t *testing.T) {
		id := o.submit(t, "SMPL-0001", nil)
		require.Equal(t, statusPended, o.claim(t, id).GetStatus())
		await(t, "a reminder", func() bool { return slices.Contains(o.happened(t, id), "InformationReminded") })
		shown, err := o.as("adjudicator").Workflows.GetReview(t.Context(), &workflowsv1.GetReviewRequest{ClaimId: id})
		require.NoError(t, err)
		require.Equal(t, claim.StateWaiting, shown.GetState())
		require.NotEmpty(t, shown.GetDeadlines(), "what is waited for shows")
		_, err = o.as("biller").Cases.ReceiveInformation(t.Context(), &claimsv1.ReceiveInformationRequest{
			ClaimId: id, RequestId: "doc", Kind: claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT, Answer: &claimsv1.InformationAnswer{DocumentReference: "MARKER-REFERENCE"},
		})
		require.NoError(t, err)
		await(t, "the workflow knows", func() bool {
			r, err := o.as("adjudicator").Workflows.GetReview(t.Context(), &workflowsv1.GetReviewRequest{ClaimId: id})
			return err == nil && r.GetState() == claim.StateOpen
		})
		got, err := o.review(t, "adjudicator", id, "approve")
		require.NoError(t, err)
		require.Equal(t, statusPaid, got.GetStatus())
		events := o.happened(t, id)
		require.Equal(t, []string{"ClaimReceived", "ClaimDecided", "InformationRequested", "InformationReminded"}, events[:4])
		require.Equal(t, []string{"InformationReceived", "ClaimReviewed", "ClaimDecided"}, events[len(events)-3:])
	})

	t.Run("another payer's decision doesn't come, the claim is denied, and comes late", func(t *testing.T) {
		id := o.submit(t, "SMPL-0002", func(c *claimsv1.Claim) {
			c.PayerSequence = "S"
			c.OtherPayers = []*claimsv1.OtherPayer{{Payer: &claimsv1.Payer{Id: "OTHER"}, PayerSequence: "P"}}
		})
		require.Equal(t, statusPended, o.claim(t, id).GetStatus())
		await(t, "the denial for want of it", func() bool { return o.claim(t, id).GetStatus() == statusDenied })
		require.Equal(t, []string{"CO-22"}, o.claim(t, id).GetCodes())
		_, err := o.as("biller").Cases.ReceiveInformation(t.Context(), &claimsv1.ReceiveInformationRequest{
			ClaimId: id, RequestId: "eob", Kind: claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER,
			Answer: &claimsv1.InformationAnswer{OtherPayers: []*claimsv1.OtherPayer{{
				Payer: &claimsv1.Payer{Id: "OTHER", Name: "MARKER-OTHERPAYER"}, PayerSequence: "P", Adjudicated: true, PaidCents: 10000,
				Adjustments: []*claimsv1.PriorAdjustment{{GroupCode: "CO", Carc: "45", AmountCents: 6000}, {GroupCode: "PR", Carc: "2", AmountCents: 5000}},
			}}},
		})
		require.NoError(t, err)
		require.Equal(t, statusPaid, o.claim(t, id).GetStatus())
		require.EqualValues(t, 5000, o.claim(t, id).GetPaidCents(), "what the patient still owed of $210.00")
	})

	t.Run("what costs much is paid when two reviewers agree", func(t *testing.T) {
		id := o.submit(t, "SMPL-0012", nil)
		first, err := o.review(t, "developer", id, "approve")
		require.NoError(t, err)
		require.Equal(t, statusPended, first.GetStatus())
		_, err = o.review(t, "developer", id, "approve")
		require.ErrorContains(t, err, "another person")
		second, err := o.review(t, "adjudicator", id, "approve")
		require.NoError(t, err)
		require.Equal(t, statusPaid, second.GetStatus())
	})

	t.Run("a denial is appealed, overturned, reprocessed and remitted as reversal and correction", func(t *testing.T) {
		id := o.submit(t, "SMPL-0010", nil)
		require.Equal(t, []string{"CO-197"}, o.claim(t, id).GetCodes())
		// A number that nobody has recorded changes nothing.
		_, err := o.as("adjudicator").Cases.ReceiveInformation(t.Context(), &claimsv1.ReceiveInformationRequest{
			ClaimId: id, RequestId: "pa", Kind: claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION,
			Answer: &claimsv1.InformationAnswer{PriorAuthorizationNumber: "MARKER-AUTHORIZATION"},
		})
		require.NoError(t, err)
		require.Equal(t, statusDenied, o.claim(t, id).GetStatus())
		var told []*claimsv1.Remittance
		await(t, "the denial is remitted", func() bool {
			told = append(told, o.remit(t, uuid.NewString())...)
			return o.claim(t, id).GetRemittanceId() != ""
		})
		require.NotEmpty(t, told)
		filed, err := o.as("biller").Cases.FileAppeal(t.Context(), &claimsv1.FileAppealRequest{ClaimId: id, RequestId: "appeal", Grounds: "MARKER-GROUNDS: it was an emergency"})
		require.NoError(t, err)
		await(t, "the appeal is on the list", func() bool {
			r, err := o.as("adjudicator").Cases.ListAppeals(t.Context(), &claimsv1.ListAppealsRequest{MinToken: filed.GetToken()})
			return err == nil && len(r.GetAppeals()) == 1
		})
		decided, err := o.as("adjudicator").Cases.DecideAppeal(t.Context(), &claimsv1.DecideAppealRequest{
			ClaimId: id, AppealId: filed.GetAppeal().GetAppealId(), RequestId: "heard", Outcome: casework.Overturned, Reason: "MARKER-HEARING: it was",
		})
		require.NoError(t, err)
		require.Equal(t, statusPaid, decided.GetClaim().GetStatus())
		require.Positive(t, decided.GetClaim().GetPaidCents())
		var corrected []*claimsv1.Remittance
		await(t, "the correction is remitted", func() bool {
			corrected = append(corrected, o.remit(t, uuid.NewString())...)
			return o.claim(t, id).GetRemittanceId() != ""
		})
		remittance := o.claim(t, id).GetRemittanceId()
		advice, err := o.as("biller").Remittances.GetRemittance(t.Context(), &claimsv1.GetRemittanceRequest{RemittanceId: remittance})
		require.NoError(t, err)
		var pair []*claimsv1.RemittedClaim
		for _, c := range advice.GetClaims() {
			if c.GetClaimId() == id {
				pair = append(pair, c)
			}
		}
		require.Len(t, pair, 2)
		require.True(t, pair[0].GetReversal())
		require.Equal(t, statusDenied, pair[0].GetDecision().GetStatus())
		require.False(t, pair[1].GetReversal())
		require.Equal(t, decided.GetClaim().GetPaidCents(), pair[1].GetDecision().GetPaidCents())
		require.Subset(t, o.happened(t, id), []string{"AppealFiled", "AppealDecided", "ClaimReversed", "ClaimRemitted"})
	})

	t.Run("none of what was said in it lies about in clear", func(t *testing.T) {
		s := &stack{home: o.home, dir: o.DataDir, url: o.URL, as: map[string]standalone.Clients{}, logged: o.log.String}
		// Part of an identifier of the sample's stands in every zero time that is logged.
		words := slices.DeleteFunc(sensitive(sample.ClaimsFile()), func(word string) bool { return strings.HasPrefix("0001-01-01 00:00:00", word) })
		s.lookThrough(t, append(words, canaries...))
	})
}
