package scenario

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/probity-health/probity/e2e/claimgen"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
)

// sizes of the crash test; PROBITY_E2E_CLAIMS and PROBITY_E2E_KILLS raise them.
const (
	crashClaims   = 10_000
	crashFamilies = 2_500
	crashKills    = 3
)

func size(t *testing.T, variable string, least int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return least
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, variable)
	return max(n, least)
}

// seed is PROBITY_E2E_SEED, or today's; it is printed either way.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("PROBITY_E2E_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("PROBITY_E2E_SEED=%d", n)
	return n
}

// TestAFileSurvivesKills: given a file of ten thousand claims under way, when
// the stack is killed again and again at random points of its progress, then
// the file completes all the same, and every claim of it was received, decided,
// posted and paid exactly once.
func TestAFileSurvivesKills(t *testing.T) {
	claims, kills := size(t, "PROBITY_E2E_CLAIMS", crashClaims), size(t, "PROBITY_E2E_KILLS", crashKills)
	chosen := seed(t)
	rng := rand.New(rand.NewPCG(chosen, 7))
	s := startStack(t)
	s.loadSample(t)
	world := claimgen.New(chosen, crashFamilies,
		claimgen.Payer{ID: sample.PayerID, Name: "KEYSTONE HEALTH", PolicyID: "pol_tidewater_gold"},
		[]claimgen.Provider{
			{NPI: "1600100014", Name: "LAKESIDE FAMILY MEDICINE", TaxID: "990000101"},
			{NPI: "1600100048", Name: "RIVERSIDE IMAGING", TaxID: "990000102"},
		})
	s.enrol(t, world.Enrollments())
	asOf := time.Now().UTC()
	file := world.File(chosen, claims, 900000001, asOf)

	began := time.Now()
	answer, err := standalone.Submit(t.Context(), s.developer(t).Gateway, file)
	require.NoError(t, err)
	id := answer.GetFile().GetFileId()
	require.EqualValues(t, claims, answer.GetFile().GetClaimCount())
	t.Logf("%d claims, %.1f MiB, durable after %s", claims, float64(len(file))/(1<<20), time.Since(began).Round(time.Millisecond))

	points := make([]int, kills)
	for i := range points {
		points[i] = claims/50 + rng.IntN(claims*9/10)
	}
	slices.Sort(points)
	for _, point := range points {
		at := s.awaitProgress(t, id, func(p *workflowsv1.GetFileProgressResponse) bool { return int(p.GetDone()) >= point })
		require.False(t, at.GetComplete(), "the file completed before it could be killed at %d", point)
		s.process.Kill()
		restarted := time.Now()
		s.start(t)
		t.Logf("killed after %d claims (%s); up again in %s", at.GetDone(), at.GetStage(), time.Since(restarted).Round(time.Millisecond))
	}
	// One more while it pays, if it can be caught at that.
	at := s.awaitProgress(t, id, func(p *workflowsv1.GetFileProgressResponse) bool {
		return p.GetComplete() || p.GetStage() == "remitting"
	})
	if !at.GetComplete() {
		s.process.Kill()
		s.start(t)
		t.Logf("killed while remitting")
	}
	s.awaitProgress(t, id, func(p *workflowsv1.GetFileProgressResponse) bool { return p.GetComplete() })
	t.Logf("complete %s after it was sent, the kills among it", time.Since(began).Round(time.Millisecond))
	if rss, err := s.process.RSSMiB(); err == nil {
		t.Logf("resident after the file: %.0f MiB", rss)
	}

	file2 := s.requireEachOnce(t, id, claims)
	s.requireLedgerAgrees(t, id, file2)
	s.requirePaidOnce(t, id, file2)
}

// enrol enrols persons in batches and requires that each is taken.
func (s *stack) enrol(t *testing.T, persons []*policiesv1.Enrollment) {
	t.Helper()
	n := 0
	for batch := range slices.Chunk(persons, 500) {
		n++
		answer, err := s.developer(t).Policies.EnrollMembers(t.Context(), &policiesv1.EnrollMembersRequest{
			RequestId: "enrol-" + strconv.Itoa(n), Enrollments: batch,
		})
		require.NoError(t, err)
		for _, r := range answer.GetResults() {
			require.Empty(t, r.GetProblems())
		}
	}
}

// awaitProgress asks until the progress is as wanted; a stack that doesn't
// answer is asked again.
func (s *stack) awaitProgress(t *testing.T, id string, wanted func(*workflowsv1.GetFileProgressResponse) bool) *workflowsv1.GetFileProgressResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last *workflowsv1.GetFileProgressResponse
	for {
		p, err := s.developer(t).Workflows.GetFileProgress(ctx, &workflowsv1.GetFileProgressRequest{FileId: id})
		if err == nil {
			if last = p; wanted(p) {
				return p
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the file stands still: %v, %v", last, err)
		case <-s.process.Done():
			t.Fatalf("the stack ended by itself: %s", s.process.Tail(20))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// requireEachOnce: every claim of the file has one outcome and one entry in
// the list of claims, and both say the same.
func (s *stack) requireEachOnce(t *testing.T, id string, claims int) map[string]*claimsv1.ClaimSummary {
	t.Helper()
	got, err := s.developer(t).Files.GetFile(t.Context(), &claimsv1.GetFileRequest{FileId: id, IncludeOutcomes: true})
	require.NoError(t, err)
	require.Equal(t, claimsv1.FileState_FILE_STATE_COMPLETE, got.GetFile().GetState())
	require.Len(t, got.GetOutcomes(), claims)
	listed := map[string]*claimsv1.ClaimSummary{}
	await(t, "the list shows every claim, remitted", func() bool {
		all := s.claims(t, &claimsv1.ListClaimsRequest{FileId: id})
		clear(listed)
		for _, c := range all {
			listed[c.GetClaimId()] = c
		}
		return len(all) == claims && !slices.ContainsFunc(all, func(c *claimsv1.ClaimSummary) bool {
			return c.GetRemittanceId() == "" && c.GetStatus() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED
		})
	})
	require.Len(t, listed, claims)
	for i, o := range got.GetOutcomes() {
		require.EqualValues(t, i, o.GetOrdinal())
		c := listed[o.GetClaimId()]
		require.NotNil(t, c, "outcome %d", i)
		require.EqualValues(t, i, c.GetFileOrdinal())
		require.Equal(t, o.GetStatus(), c.GetStatus())
		// Each family is enrolled and each line differs: what is denied was decided on half of the truth.
		require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, c.GetStatus(), "claim %d: %v", i, c.GetCodes())
	}
	return listed
}

// requireLedgerAgrees: the ledger holds each claim's receipt, decision,
// posting and remittance once; the postings are those of the decisions; and no
// deductible or maximum was drawn on beyond its limit.
func (s *stack) requireLedgerAgrees(t *testing.T, id string, claims map[string]*claimsv1.ClaimSummary) {
	t.Helper()
	type once struct{ received, decided, posted, remitted int }
	seen := map[string]*once{}
	at := func(claim string) *once {
		if seen[claim] == nil {
			seen[claim] = &once{}
		}
		return seen[claim]
	}
	outcomes := map[uint32]int{}
	completed := 0
	postings := map[string][]*claimsv1.AccumulatorPosting{}
	type accumulator struct{ stream, scope, subject, kind, network, year string }
	sums := map[accumulator]int64{}
	var codec eventstore.Codec
	for _, recorded := range s.events(t, "claims") {
		event, err := codec.Decode(recorded.GetEvent())
		require.NoError(t, err)
		switch e := event.(type) {
		case *eventsv1.ClaimReceived:
			at(e.GetClaimId()).received++
		case *eventsv1.ClaimDecided:
			at(e.GetClaimId()).decided++
			require.Equal(t, claims[e.GetClaimId()].GetPaidCents(), e.GetPaidCents())
		case *eventsv1.ClaimRemitted:
			at(e.GetClaimId()).remitted++
		case *eventsv1.AccumulatorsPosted:
			at(e.GetClaimId()).posted++
			postings[e.GetClaimId()] = e.GetPostings()
			for _, p := range e.GetPostings() {
				sums[accumulator{recorded.GetStream(), p.GetScope(), p.GetSubject(), p.GetKind(), p.GetNetwork(), p.GetPlanYear()}] += p.GetAmount()
			}
		case *eventsv1.FileOutcomesRecorded:
			for _, o := range e.GetOutcomes() {
				outcomes[o.GetOrdinal()]++
			}
		case *eventsv1.FileCompleted:
			completed++
		}
	}
	require.Len(t, seen, len(claims))
	for claim, n := range seen {
		require.Equal(t, once{1, 1, 1, 1}, *n, claim)
	}
	require.Len(t, outcomes, len(claims))
	for ordinal, n := range outcomes {
		require.Equal(t, 1, n, "outcomes of ordinal %d", ordinal)
	}
	require.Equal(t, 1, completed)

	// The gold plan's in-network limits.
	limits := map[string]int64{
		"individual deductible": 25000, "family deductible": 50000,
		"individual out_of_pocket": 300000, "family out_of_pocket": 600000,
	}
	var individual, family = map[string]int64{}, map[string]int64{}
	met := 0
	for a, sum := range sums {
		limit, bounded := limits[a.scope+" "+a.kind]
		if bounded {
			require.LessOrEqual(t, sum, limit, "%v", a)
			if sum == limit {
				met++
			}
		}
		switch a.scope {
		case "individual":
			individual[a.stream+" "+a.kind] += sum
		case "family":
			family[a.stream+" "+a.kind] += sum
		}
	}
	require.Positive(t, met, "some limit was met, or this test shows nothing")
	for key, sum := range family {
		require.Equal(t, individual[key], sum, "a family's %s is the sum of its persons'", key)
	}

	for _, r := range s.remittances(t, id) {
		advice, err := s.client(t, "service").Remittances.GetRemittance(t.Context(), &claimsv1.GetRemittanceRequest{RemittanceId: r.GetRemittanceId()})
		require.NoError(t, err)
		for _, c := range advice.GetClaims() {
			want := c.GetDecision().GetPostings()
			require.Equal(t, len(want), len(postings[c.GetClaimId()]))
			for i := range want {
				require.True(t, proto.Equal(want[i], postings[c.GetClaimId()][i]), c.GetClaimId())
			}
			var patient int64
			for _, p := range want {
				if p.GetScope() == "individual" && p.GetKind() == "out_of_pocket" {
					patient += p.GetAmount()
				}
			}
			require.Equal(t, c.GetDecision().GetPatientCents(), patient, "what the patient owes counts towards the maximum")
		}
	}
}

// requirePaidOnce: the remittances pay each claim once, and their sum is what was decided.
func (s *stack) requirePaidOnce(t *testing.T, id string, claims map[string]*claimsv1.ClaimSummary) {
	t.Helper()
	var decided, ordered, paid int64
	for _, c := range claims {
		decided += c.GetPaidCents()
	}
	in := map[string]string{}
	for _, r := range s.remittances(t, id) {
		a := parseAdvice(t, s.document(t, "835", r.GetRemittanceId()))
		require.Equal(t, r.GetPaidCents(), a.PaidCents)
		ordered += a.PaidCents
		for _, c := range a.Claims {
			require.Empty(t, in[c.PayerClaim], "a claim in two remittances")
			in[c.PayerClaim] = r.GetRemittanceId()
			require.NotNil(t, claims[c.PayerClaim])
			require.Equal(t, claims[c.PayerClaim].GetPaidCents(), c.PaidCents)
			paid += c.PaidCents
		}
	}
	require.Len(t, in, len(claims))
	require.Equal(t, decided, paid)
	require.Equal(t, decided, ordered)
	require.Positive(t, decided)
}
