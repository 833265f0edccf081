package sample

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/fixtures"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/keys/keystest"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
)

type allowAll struct{}

func (allowAll) Authorize(context.Context, string, identity.Resource) error { return nil }

// service starts a policies service over an empty ledger.
func service(t *testing.T) (policiesv1connect.PoliciesServiceClient, *book.Book, *keys.Index) {
	t.Helper()
	store, b, index := eventstore.NewMemory(eventstore.MemoryOptions{}), book.New(), keys.NewIndex([32]byte{7})
	sealer := keys.NewSealer(keystest.New(), keys.SealerOptions{})
	t.Cleanup(func() { require.NoError(t, sealer.Close()) })
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx, store) }()
	t.Cleanup(func() { stop(); require.ErrorIs(t, <-ran, context.Canceled) })
	return policies.NewHandler(policies.Deps{Store: store, Directory: b, Sealer: sealer, Index: index, Authorizer: allowAll{}}), b, index
}

func TestLoadTwiceIsLoadOnce(t *testing.T) {
	ctx := context.Background()
	client, b, index := service(t)

	first, err := Load(ctx, client)
	require.NoError(t, err)
	require.Equal(t, Summary{FeeSchedules: 9, Plans: 10, Contracts: 3, Policies: 3, Members: 12, Authorizations: 2, Token: first.Token}, first)

	again, err := Load(ctx, client)
	require.NoError(t, err)
	require.Equal(t, 12, again.AlreadyThere)
	require.ElementsMatch(t, strings.Split(first.Token, ","), strings.Split(again.Token, ","), "the same commits, found again")

	plans, err := client.ListPlans(ctx, &policiesv1.ListPlansRequest{})
	require.NoError(t, err)
	require.Len(t, plans.GetPlans(), 10)
	for _, p := range plans.GetPlans() {
		require.Equal(t, uint32(1), p.GetVersion(), p.GetPlan().GetPlanId())
	}

	require.NoError(t, b.WaitFor(ctx, first.Token))
	c := b.For(book.Query{
		PayerID: PayerID, Subscriber: index.Subscriber(PayerID, "KS100200301"),
		BirthIndex:  index.BirthIndex(PayerID, "KS100200301", "1982-11-05"),
		PersonIndex: index.PersonIndex(PayerID, "KS100200301", "1982-11-05", "TOBIAS"),
		NPIs:        []string{"1600100048"}, ServiceDates: []string{"2026-01-22"},
		Authorizations: [][]byte{index.Authorization(PayerID, "PA20260001")},
	})
	require.Equal(t, book.MatchPerson, c.Match)
	require.Equal(t, 4, c.Persons)
	require.Equal(t, "plan_gold@1", c.Coverage[0].Plan.Ref)
	require.Equal(t, "ctr_riverside@1", c.Contracts[0].Ref)
	require.Equal(t, "fs_standard@1", c.FeeSchedules[0].Ref)
	require.Equal(t, c.Member.Subject, c.Authorizations[0].Subject)
}

func TestEverySampleDocumentPassesLint(t *testing.T) {
	s, err := read()
	require.NoError(t, err)
	for _, d := range s.plans {
		require.Empty(t, policies.LintPlan(d), d.GetPlanId())
	}
	for _, d := range s.feeSchedules {
		require.Empty(t, policies.LintFeeSchedule(d), d.GetFeeScheduleId())
	}
	for _, d := range s.contracts {
		require.Empty(t, policies.LintContract(d), d.GetContractId())
	}
}

func TestLoadSaysWhichPartFailed(t *testing.T) {
	client, _, _ := service(t)
	_, err := Load(context.Background(), refusing{client})
	require.ErrorContains(t, err, "sample: create policy pol_individual_bronze")
	require.True(t, problem.Is(err, problem.Forbidden))
}

type refusing struct {
	policiesv1connect.PoliciesServiceClient
}

func (refusing) CreatePolicy(context.Context, *policiesv1.CreatePolicyRequest) (*policiesv1.CreatePolicyResponse, error) {
	return nil, problem.New(problem.Forbidden, problem.Problem{RuleID: "test"})
}

// segments splits an X12 file by its own delimiters.
func segments(t *testing.T, file []byte) [][]string {
	t.Helper()
	var out [][]string
	for s := range strings.SplitSeq(string(file), "~") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, strings.Split(s, "*"))
		}
	}
	return out
}

// TestClaimsFileBalances checks what a receiver counts first: trailers,
// hierarchy, and each claim's charge against its lines and its outcome.
func TestClaimsFileBalances(t *testing.T) {
	segs := segments(t, ClaimsFile())
	require.Len(t, ClaimsFile()[:strings.IndexByte(string(ClaimsFile()), '~')], 105, "ISA has a fixed width")
	var st, hl, claims int
	charge, lines := 0, 0
	outcomes := Outcomes()
	closeClaim := func() {
		if claims > 0 {
			require.Equal(t, charge, lines, "CLM02 of claim %d", claims)
		}
	}
	children := map[string]string{} // HL id to "has children"
	parents := map[string]bool{}
	for i, s := range segs {
		switch s[0] {
		case "ST":
			st = i
		case "HL":
			hl++
			require.Equal(t, strconv.Itoa(hl), s[1])
			children[s[1]] = s[4]
			parents[s[2]] = true
		case "CLM":
			closeClaim()
			require.Equal(t, outcomes[claims].ControlNumber, s[1])
			charge, lines = cents(t, s[2]), 0
			require.EqualValues(t, outcomes[claims].ChargeCents, charge, s[1])
			claims++
		case "SV1":
			lines += cents(t, s[2])
		case "SE":
			closeClaim()
			require.Equal(t, []string{"SE", strconv.Itoa(i - st + 1), segs[st][2]}, s)
		case "GE":
			require.Equal(t, []string{"GE", "1", segs[1][6]}, s)
		case "IEA":
			require.Equal(t, []string{"IEA", "1", segs[0][13]}, s)
		}
	}
	require.Equal(t, len(outcomes), claims)
	for id, has := range children {
		require.Equal(t, has == "1", parents[id], "HL %s", id)
	}
}

func cents(t *testing.T, amount string) int {
	t.Helper()
	n, err := strconv.Atoi(amount)
	require.NoError(t, err, "the sample's charges are whole dollars")
	return n * 100
}

func TestOutcomesBalance(t *testing.T) {
	for _, o := range Outcomes() {
		require.LessOrEqual(t, o.PaidCents, o.AllowedCents, o.ControlNumber)
		require.LessOrEqual(t, o.AllowedCents, o.ChargeCents, o.ControlNumber)
		require.LessOrEqual(t, o.PaidCents+o.PatientCents, o.ChargeCents, o.ControlNumber)
		if o.Status == "paid" && !slices.Contains(o.Codes, "PR-45") {
			require.Equal(t, o.AllowedCents, o.PaidCents+o.PatientCents, o.ControlNumber)
		}
		require.NotEmpty(t, o.Why, o.ControlNumber)
	}
}

// TestAnIndependentReaderAcceptsTheClaimsFile asks pyx12, which knows the
// 005010X222A1 guide and nothing of this project.
func TestAnIndependentReaderAcceptsTheClaimsFile(t *testing.T) {
	x12valid, err := exec.LookPath("x12valid")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: x12valid is not on PATH; pip install pyx12")
	}
	name := filepath.Join(t.TempDir(), "claims.edi")
	require.NoError(t, os.WriteFile(name, ClaimsFile(), 0o600))
	// Its exit code says nothing (it is 1 for either verdict); its words do.
	out, _ := exec.Command(x12valid, name).CombinedOutput()
	require.Equal(t, name+": OK", strings.TrimSpace(string(out)))
}

// TestLegacyPayersAreThoseOfThePublishedExamples holds the list against the
// example files, so that none of them is sent to a payer nobody knows.
func TestLegacyPayersAreThoseOfThePublishedExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(fixtures.Dir(t, "x12/837p"), "*.edi"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		file, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, s := range segments(t, file) {
			if s[0] == "NM1" && s[1] == "PR" {
				require.True(t, slices.Contains(LegacyPayers(), s[9]), fmt.Sprintf("%s: payer of NM1*PR", filepath.Base(name)))
			}
		}
	}
}

func TestRequestIDsFollowTheContent(t *testing.T) {
	a := &policiesv1.Policy{PolicyId: "pol_a"}
	b := proto.CloneOf(a)
	require.Equal(t, requestID(a), requestID(b))
	b.GroupNumber = "2"
	require.NotEqual(t, requestID(a), requestID(b))
}
