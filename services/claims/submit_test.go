package claims

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

func TestACleanClaimIsDecidedAndRecordedInOneCommit(t *testing.T) {
	w := newWorld(t, 1)

	// when a member's visit is submitted
	res := w.submit(lakeside(), "r1", visit(0, "2026-02-10"))

	// then it is paid as the plan says: $150 charged, $100 allowed, all of it deductible
	require.Equal(t, "paid", statusOf(res))
	require.EqualValues(t, []int64{15000, 10000, 0, 10000}, []int64{res.Claim.ChargeCents, res.Claim.AllowedCents, res.Claim.PaidCents, res.Claim.PatientCents})
	require.Equal(t, []string{"CO-45", "PR-1"}, res.Claim.Codes)
	require.Equal(t, "plan_acme@1", res.Decision.Versions.Plan)
	require.EqualValues(t, -1, res.Decision.Versions.AccumulatorsRevision)
	require.NotEmpty(t, res.Token)
	require.True(t, isID("clm", res.Claim.ClaimId))

	// and receipt, decision and postings share a position
	positions := map[eventstore.Position][]string{}
	for _, r := range w.events() {
		positions[r.Position] = append(positions[r.Position], string(r.Event.ProtoReflect().Descriptor().Name()))
	}
	require.Contains(t, positions, positionOf(res.Claim), "the answer names the commit")
	require.Equal(t, []string{"ClaimReceived", "ClaimDecided", "AccumulatorsPosted"}, positions[positionOf(res.Claim)])

	// and the next visit of the same person sees the deductible met: 20 % of $100
	second := w.submit(lakeside(), "r2", visit(0, "2026-02-11"))
	require.EqualValues(t, 8000, second.Claim.PaidCents)
	require.EqualValues(t, 0, second.Decision.Versions.AccumulatorsRevision)
}

func TestTheSameRequestTwiceIsAnsweredTwiceAndDecidedOnce(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10"))
	before := len(w.events())

	again := w.submit(lakeside(), "r1", visit(0, "2026-02-10"))

	require.True(t, again.Replayed)
	require.False(t, first.Replayed)
	require.True(t, proto.Equal(first.Claim, again.Claim), "first %v, again %v", first.Claim, again.Claim)
	require.True(t, proto.Equal(first.Decision, again.Decision))
	require.Equal(t, first.Token, again.Token)
	require.Len(t, w.events(), before, "nothing more is recorded")
}

func TestAChangedClaimUnderAUsedKeyIsRefused(t *testing.T) {
	for name, changed := range map[string]*claimsv1.Claim{
		"another charge":  visit(0, "2026-02-10", charged(16000)),
		"another family":  visit(1, "2026-02-10"),
		"another patient": visit(0, "2026-02-10", spouse),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			w.submit(lakeside(), "r1", visit(0, "2026-02-10"))
			before := len(w.events())

			_, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "r1", Claim: changed})

			require.True(t, problem.Is(err, problem.Conflict), "%v", err)
			require.Equal(t, "claims.request.reused", problem.As(err).Problems[0].RuleID)
			require.Len(t, w.events(), before)
		})
	}
}

func TestAKeyIsOneOrganisations(t *testing.T) {
	w := newWorld(t, 2)
	mine := w.submit(lakeside(), "r1", visit(0, "2026-02-10"))
	theirs := w.submit(otherOrg(), "r1", visit(1, "2026-02-10"))
	require.NotEqual(t, mine.Claim.ClaimId, theirs.Claim.ClaimId)
	require.Equal(t, "prov-other", theirs.Claim.SubmitterOrg)
}

func TestARepeatedServiceUnderANewKeyIsADuplicateAndTouchesNoAccumulator(t *testing.T) {
	w := newWorld(t, 1)
	first := w.submit(lakeside(), "r1", visit(0, "2026-02-10"))
	before, _ := w.sums(0)

	again := w.submit(lakeside(), "r2", visit(0, "2026-02-10"))

	require.Equal(t, "denied", statusOf(again))
	require.Equal(t, []string{"OA-18"}, again.Claim.Codes)
	require.Equal(t, first.Claim.ClaimId, again.Claim.DuplicateOf)
	after, posted := w.sums(0)
	require.Equal(t, before, after)
	require.Equal(t, 2, posted, "a denial has its place in the family's order, and adds nothing")
}

func TestAnUnknownMemberIsDeniedWithoutTouchingAnybody(t *testing.T) {
	w := newWorld(t, 1)
	res := w.submit(lakeside(), "r1", visit(40, "2026-02-10"))
	require.Equal(t, "denied", statusOf(res))
	require.Equal(t, []string{"PR-31"}, res.Claim.Codes)
	for _, r := range w.events() {
		_, posted := r.Event.(*eventsv1.AccumulatorsPosted)
		require.False(t, posted)
	}
}

func TestAClaimThatCantBeAdjudicatedIsRefusedWithItsReasonsAndLeavesATrace(t *testing.T) {
	cases := map[string]struct {
		change func(*claimsv1.Claim)
		rule   string
	}{
		"NPI check digit":       {func(c *claimsv1.Claim) { c.BillingProvider.Npi = "1234567890" }, "claims.npi.check-digit"},
		"line's NPI":            {func(c *claimsv1.Claim) { c.Lines[0].RenderingProvider = &claimsv1.Provider{Npi: "1"} }, "claims.npi.check-digit"},
		"total":                 {func(c *claimsv1.Claim) { c.ChargeCents++ }, "claims.charge.total"},
		"no lines":              {func(c *claimsv1.Claim) { c.Lines = nil }, "claims.lines.none"},
		"line numbers":          {func(c *claimsv1.Claim) { c.Lines[0].Number = 2 }, "claims.lines.number"},
		"30 February":           {func(c *claimsv1.Claim) { c.Lines[0].ServiceDate = "2026-02-30" }, "claims.date"},
		"period reversed":       {func(c *claimsv1.Claim) { c.Lines[0].ServiceEndDate = "2026-02-09" }, "claims.date.order"},
		"diagnosis pointer":     {func(c *claimsv1.Claim) { c.Lines[0].DiagnosisPointers = []uint32{2} }, "claims.lines.diagnosis-pointer"},
		"no member id":          {func(c *claimsv1.Claim) { c.Subscriber.MemberId = "" }, "claims.subscriber.member-id"},
		"void without number":   {func(c *claimsv1.Claim) { c.FrequencyCode = "8" }, "claims.original.missing"},
		"negative charge":       {func(c *claimsv1.Claim) { c.Lines[0].ChargeCents = -1 }, "claims.lines.charge"},
		"no payer":              {func(c *claimsv1.Claim) { c.Payer = nil }, "claims.payer.missing"},
		"no provider":           {func(c *claimsv1.Claim) { c.BillingProvider = nil }, "claims.npi.missing"},
		"no form":               {func(c *claimsv1.Claim) { c.Form = 0 }, "claims.form"},
		"too large":             {func(c *claimsv1.Claim) { c.ReferralNumber = strings.Repeat("x", maxClaimBytes) }, "claims.size"},
		"birth date":            {func(c *claimsv1.Claim) { c.Subscriber.BirthDate = "1980-13-05" }, "claims.date"},
		"frequency code":        {func(c *claimsv1.Claim) { c.FrequencyCode = "5" }, "claims.frequency"},
		"no patient control":    {func(c *claimsv1.Claim) { c.PatientControlNumber = "" }, "claims.patient-control-number"},
		"quantity out of range": {func(c *claimsv1.Claim) { c.Lines[0].QuantityMilli = -5 }, "claims.lines.quantity"},
	}
	w := newWorld(t, 1)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			res := w.submit(lakeside(), name, visit(0, "2026-02-10", c.change))
			require.Equal(t, "rejected", statusOf(res))
			require.Empty(t, res.Claim.ClaimId)
			rules := map[string]bool{}
			for _, p := range res.Problems {
				rules[p.RuleId] = true
				require.NotEmpty(t, p.Fix)
				require.NotEmpty(t, p.FieldPath)
				require.Regexp(t, "^A[678]$", p.Code)
			}
			require.True(t, rules[c.rule], "%v", rules)
		})
	}
	refusals := 0
	for _, r := range w.events() {
		e, ok := r.Event.(*eventsv1.SubmissionRefused)
		require.True(t, ok, "a refusal changes nothing else: %T", r.Event)
		require.Equal(t, "refusal-prov-lakeside", r.Stream)
		require.Equal(t, "prov-lakeside", e.GetSubmitterOrg())
		refusals++
	}
	require.Equal(t, len(cases), refusals)

	t.Run("and the corrected claim may come under the same key", func(t *testing.T) {
		require.Equal(t, "paid", statusOf(w.submit(lakeside(), "NPI check digit", visit(0, "2026-02-10"))))
	})
	t.Run("and the same refusal again leaves one trace", func(t *testing.T) {
		before := len(w.events())
		w.submit(lakeside(), "total", visit(0, "2026-02-10", func(c *claimsv1.Claim) { c.ChargeCents++ }))
		require.Len(t, w.events(), before)
	})
}

func TestValidateOnlyDecidesAndRecordsNothing(t *testing.T) {
	w := newWorld(t, 1)
	res, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "r1", Claim: visit(0, "2026-02-10"), ValidateOnly: true})
	require.NoError(t, err)
	require.Equal(t, "paid", statusOf(res))
	require.NotNil(t, res.Decision)
	refused, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{
		RequestId: "r2", Claim: visit(0, "2026-02-10", func(c *claimsv1.Claim) { c.ChargeCents = 1 }), ValidateOnly: true,
	})
	require.NoError(t, err)
	require.NotEmpty(t, refused.Problems)
	require.Empty(t, w.events())

	// and the key is still free for another claim
	require.Equal(t, "paid", statusOf(w.submit(lakeside(), "r1", visit(0, "2026-02-11"))))
}

func TestNobodySaysForThePayerWhenItReceivedAClaim(t *testing.T) {
	w := newWorld(t, 1)
	past := timestamppb.New(noon.AddDate(0, 0, -40))
	old := visit(0, "2025-12-01") // 91 days before noon: too late unless backdated

	_, err := w.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "r1", Claim: old, ReceivedTime: past})
	require.Equal(t, "claims.received-time.given", problem.As(err).Problems[0].RuleID)

	res, err := w.SubmitClaim(service(), &claimsv1.SubmitClaimRequest{RequestId: "r1", Claim: old, ReceivedTime: past})
	require.NoError(t, err)
	require.Equal(t, past.AsTime(), res.Claim.ReceivedTime.AsTime())
	_, err = w.SubmitClaim(service(), &claimsv1.SubmitClaimRequest{RequestId: "r2", Claim: old, ReceivedTime: timestamppb.New(noon.AddDate(0, 0, 1))})
	require.Equal(t, "claims.received-time.future", problem.As(err).Problems[0].RuleID)
}

func TestABatchDecidesAFamilyInOrderAndEachClaimByItself(t *testing.T) {
	w := newWorld(t, 3)
	req := &claimsv1.SubmitClaimsRequest{}
	add := func(id string, c *claimsv1.Claim) {
		req.Claims = append(req.Claims, &claimsv1.SubmitClaimRequest{RequestId: id, Claim: c})
	}
	add("a", visit(0, "2026-02-10"))
	add("b", visit(1, "2026-02-10"))
	add("c", visit(0, "2026-02-11"))                                                          // second of the family: deductible met
	add("d", visit(2, "2026-02-10", func(c *claimsv1.Claim) { c.BillingProvider.Npi = "1" })) // refused
	add("a", visit(0, "2026-02-10"))                                                          // repeats the first
	add("a", visit(1, "2026-02-12"))                                                          // another claim under the first's key
	add("e", visit(0, "2026-02-10"))                                                          // duplicate of the first
	add("f", visit(0, "2026-02-12", spouse))                                                  // embedded family deductible: $50 left

	res, err := w.SubmitClaims(lakeside(), req)
	require.NoError(t, err)
	require.Len(t, res.Results, 8)
	got := make([]string, 0, 8)
	for _, r := range res.Results {
		switch {
		case r.Replayed:
			got = append(got, "replayed")
		case r.Claim == nil:
			got = append(got, r.Problems[0].Kind)
		default:
			got = append(got, statusOf(r))
		}
	}
	require.Equal(t, []string{"paid", "paid", "paid", "rejected", "replayed", "conflict", "denied", "paid"}, got)
	require.EqualValues(t, 8000, res.Results[2].Claim.PaidCents)
	require.Equal(t, res.Results[0].Claim.ClaimId, res.Results[6].Claim.DuplicateOf)
	require.EqualValues(t, 4000, res.Results[7].Claim.PaidCents, "$100 less $50 of the family's deductible less 20 %")
}

func TestAnErasedPersonsClaimIsRefusedAndTheFamilysGoesOn(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "r1", visit(0, "2026-02-10"))
	ada := w.index.Person(payer, memberID(0), birthOf("ADA"), "ADA")
	w.authority.Destroy(ada)
	// a process that starts afterwards holds no key of hers
	second := w.start(w.index)

	_, err := second.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "r2", Claim: visit(0, "2026-02-11")})
	require.ErrorContains(t, err, "destroyed")
	res, err := second.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "r3", Claim: visit(0, "2026-02-11", spouse)})
	require.NoError(t, err)
	require.Equal(t, "paid", statusOf(res))
	require.EqualValues(t, 0, res.Decision.Versions.AccumulatorsRevision, "her postings still count for the family")
}

func TestNothingInClearOnTheLedgerNamesAnybody(t *testing.T) {
	w := newWorld(t, 1)
	w.submit(lakeside(), "request-of-lovelace", visit(0, "2026-02-10"))
	w.submit(lakeside(), "r2", visit(0, "2026-02-10", func(c *claimsv1.Claim) { c.Subscriber.BirthDate = "1980-99-05" }))
	for _, r := range w.events() {
		text := strings.ToLower(r.Stream + r.RequestID + protojson.Format(withoutBoxes(r.Event)))
		for _, secret := range []string{"lovelace", "ada", "1980", "w1\"", "j069", "99213", "pcn-1"} {
			require.NotContains(t, text, secret, "%s", r.Stream)
		}
	}
}

// withoutBoxes drops ciphertexts, whose base64 may hold any short word by chance.
func withoutBoxes(m proto.Message) proto.Message {
	m = proto.CloneOf(m)
	switch e := m.(type) {
	case *eventsv1.ClaimReceived:
		e.Claim.Box = nil
	case *eventsv1.ClaimDecided:
		e.Decision.Box, e.DecisionSha256 = nil, nil
	case *eventsv1.AccumulatorsPosted:
		e.History.Box = nil
	}
	return m
}

func positionOf(c *claimsv1.ClaimSummary) eventstore.Position {
	return eventstore.Position{Log: c.Position.Log, Shard: c.Position.Shard, Index: c.Position.Index}
}

func TestABasicAnswerLeavesTheDecisionOutAndDecidesAlike(t *testing.T) {
	w := newWorld(t, 2)
	ask := func(request string, family int, view claimsv1.SubmissionView) *claimsv1.SubmitClaimResponse {
		res, err := w.SubmitClaims(lakeside(), &claimsv1.SubmitClaimsRequest{
			Claims: []*claimsv1.SubmitClaimRequest{{RequestId: request, Claim: visit(family, "2026-02-10")}}, View: view,
		})
		require.NoError(t, err)
		return res.Results[0]
	}
	full := ask("r1", 0, claimsv1.SubmissionView_SUBMISSION_VIEW_UNSPECIFIED)
	require.NotNil(t, full.Decision)

	basic := ask("r2", 1, claimsv1.SubmissionView_SUBMISSION_VIEW_BASIC)
	require.Nil(t, basic.Decision)
	require.Empty(t, basic.Promise)
	require.NotEmpty(t, basic.Token)
	require.Equal(t, full.Claim.PatientCents, basic.Claim.PatientCents)

	again := ask("r2", 1, claimsv1.SubmissionView_SUBMISSION_VIEW_BASIC)
	require.True(t, again.Replayed)
	require.Nil(t, again.Decision)
	require.NotNil(t, ask("r2", 1, claimsv1.SubmissionView_SUBMISSION_VIEW_FULL).Decision, "who asks for it has it")
}
