package scenario

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/identity/issuer"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
)

// badFiles: given files that no system should take, when each is submitted,
// then it is refused with the rule it breaks and the place, without a word of
// its content, and nothing is decided. What reached the parser is recorded
// as refused; what holds nothing isn't recorded.
func badFiles(t *testing.T, s *stack, _ *ledgerOfTheSender) {
	good := func() []byte {
		return bytes.ReplaceAll(sample.ClaimsFile(), []byte("000000101"), []byte("000000199"))
	}
	replace := func(old, with string) []byte {
		file := good()
		require.Equal(t, 1, bytes.Count(file, []byte(old)), old)
		return bytes.Replace(file, []byte(old), []byte(with), 1)
	}
	trailer := func(id string) string {
		for _, segment := range segments(good()) {
			if segment[0] == id {
				return strings.Join(segment, "*") + "~"
			}
		}
		t.Fatal("no " + id)
		return ""
	}
	random := make([]byte, 64<<10)
	for i, rng := 0, rand.New(rand.NewPCG(1, 2)); i < len(random); i++ {
		random[i] = byte(rng.UintN(256))
	}
	for _, bad := range []struct {
		name     string
		content  []byte
		place    string // in the X12 path or message of a reason
		recorded bool
	}{
		{"cut-short", good()[:len(good())*2/3], "", true},
		{"not-x12", []byte("Dear payer,\nplease pay KVORTHSHIRE his 99213.\n"), "ISA", true},
		{"wrong-segment-count", replace(trailer("SE"), "SE*7*0001~"), "SE", true},
		{"wrong-set-count", replace(trailer("GE"), "GE*9*101~"), "GE", true},
		{"wrong-group-count", replace(trailer("IEA"), "IEA*9*000000199~"), "IEA", true},
		{"wrong-interchange-number", replace(trailer("IEA"), "IEA*1*000000198~"), "IEA", true},
		{"long-line", append(good()[:2000], bytes.Repeat([]byte("KVORTHSHIRE"), 5<<20)...), "", true},
		{"binary", random, "ISA", true},
		{"empty", nil, "empty", false},
	} {
		t.Run(bad.name, func(t *testing.T) {
			before := s.tally(t)
			filesBefore := len(s.files(t))
			path := s.write(t, bad.name+".edi", bad.content)
			answer := s.probity(t, "submit", path, "-o", "json")
			require.NotContains(t, answer.out+answer.err, "KVORTHSHIRE")
			require.Equal(t, before, s.tally(t))
			if bad.recorded {
				require.Equal(t, cli.ExitRejected, answer.code, answer.err)
				got := readSubmitted(t, answer.out)
				refused := reasons(t, got)
				require.NotEmpty(t, refused)
				found := false
				for _, p := range refused {
					requireReason(t, p, bad.name)
					found = found || strings.Contains(p.GetX12Path()+" "+p.GetMessage(), bad.place)
				}
				require.True(t, found, "%s is named by none of %s", bad.place, rules(refused))
				require.Equal(t, claimsv1.FileState_FILE_STATE_REFUSED, got.File.GetState())
				await(t, "the refusal is on record", func() bool { return len(s.files(t)) == filesBefore+1 })
				t.Logf("%s: %s", rules(refused), refused[0].GetMessage())
			} else {
				require.Equal(t, cli.ExitFailed, answer.code, answer.err)
				kind, problems := stated(t, answer.err)
				require.Equal(t, string(problem.Invalid), kind)
				require.Contains(t, problems[0].GetMessage(), bad.place)
				require.Equal(t, filesBefore, len(s.files(t)))
			}
		})
	}
}

// soundClaim would be paid: what a case changes is what it is refused for.
func soundClaim(control string) *claimsv1.Claim {
	return &claimsv1.Claim{
		Form: claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL, PatientControlNumber: control, ChargeCents: 15000,
		PlaceOfService: "11", FrequencyCode: "1", Payer: &claimsv1.Payer{Id: sample.PayerID, IdQualifier: "PI", Name: "KEYSTONE HEALTH"},
		BillingProvider:  &claimsv1.Provider{Npi: "1600100014", Name: "LAKESIDE FAMILY MEDICINE", TaxId: "990000101"},
		Subscriber:       &claimsv1.Person{MemberId: "KS100200302", LastName: "RAMANATHAN", FirstName: "PRIYA", BirthDate: "1979-07-02", Sex: "F"},
		RelationshipCode: "18", PayerSequence: "P", FilingIndicator: "CI", GroupNumber: "KG-1001",
		Diagnoses:      []*claimsv1.Diagnosis{{Code: "J029", Qualifier: "ABK"}},
		AssignmentCode: "A", BenefitsAssigned: "Y", TransactionType: "CH",
		Lines: []*claimsv1.ServiceLine{{
			Number: 1, ProcedureQualifier: "HC", Procedure: "99213", ChargeCents: 15000, UnitCode: "UN", QuantityMilli: 1000,
			DiagnosisPointers: []uint32{1}, ServiceDate: "2026-03-03", LineControlNumber: control + "-1",
		}},
	}
}

// badClaims: given claims over RPC, each wrong in one way, when they are sent,
// then each is refused or denied with its reason, and nobody pays.
func badClaims(t *testing.T, s *stack, _ *ledgerOfTheSender) {
	c := s.developer(t)
	for _, bad := range []struct {
		name   string
		change func(*claimsv1.Claim)
		code   string // the denial's group and CARC, when it is the engine that answers
		rule   string // the refusal's rule, else
		field  string
	}{
		{"unknown-member", func(c *claimsv1.Claim) { c.Subscriber.MemberId = "KS000000000" }, "PR-31", "", ""},
		{"future-date", func(c *claimsv1.Claim) { c.Lines[0].ServiceDate = time.Now().AddDate(1, 0, 0).Format(time.DateOnly) }, "CO-110", "", ""},
		{"zero-charge", func(c *claimsv1.Claim) { c.ChargeCents, c.Lines[0].ChargeCents = 0, 0 }, "CO-16", "", ""},
		{"negative-charge", func(c *claimsv1.Claim) { c.ChargeCents, c.Lines[0].ChargeCents = -15000, -15000 }, "", "schema.int64.gte_lte", "charge_cents"},
		{"no-such-day", func(c *claimsv1.Claim) { c.Lines[0].ServiceDate = "2026-02-30" }, "", "claims.date", "service_date"},
		{"charges-differ", func(c *claimsv1.Claim) { c.ChargeCents++ }, "", "claims.charge.total", "charge_cents"},
		{"npi-check-digit", func(c *claimsv1.Claim) { c.BillingProvider.Npi = "1600100015" }, "", "claims.npi.check-digit", "npi"},
		{"no-lines", func(c *claimsv1.Claim) { c.Lines = nil }, "", "schema.repeated.min_items", "lines"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			before := s.tally(t)
			claim := soundClaim("BAD-" + bad.name)
			bad.change(claim)
			got, err := c.Claims.SubmitClaim(t.Context(), &claimsv1.SubmitClaimRequest{RequestId: "bad/" + bad.name, Claim: claim})
			after := s.tally(t)
			require.Equal(t, before.paid, after.paid)
			if bad.rule != "" {
				var rule, field string
				if err != nil {
					require.True(t, problem.Is(err, problem.Invalid), err)
					rule, field = problem.As(err).Problems[0].RuleID, problem.As(err).Problems[0].FieldPath
				} else {
					require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED, got.GetClaim().GetStatus(), got)
					rule, field = got.GetProblems()[0].GetRuleId(), got.GetProblems()[0].GetFieldPath()
				}
				require.Equal(t, bad.rule, rule)
				require.Contains(t, field, bad.field)
				require.Equal(t, before, after, "a refused claim is no claim")
				return
			}
			require.NoError(t, err)
			require.Zero(t, got.GetClaim().GetPaidCents())
			t.Logf("%s: %s %v", bad.name, status(got.GetClaim()), got.GetClaim().GetCodes())
			if bad.code != "" {
				require.Equal(t, "denied", status(got.GetClaim()))
				require.Contains(t, got.GetClaim().GetCodes(), bad.code)
			}
		})
	}
	t.Run("a changed claim under a used key", func(t *testing.T) {
		request := &claimsv1.SubmitClaimRequest{RequestId: "used-key", Claim: soundClaim("BAD-KEY")}
		first, err := c.Claims.SubmitClaim(t.Context(), request)
		require.NoError(t, err)
		before := s.tally(t)
		again, err := c.Claims.SubmitClaim(t.Context(), request)
		require.NoError(t, err)
		require.True(t, again.GetReplayed())
		require.Equal(t, first.GetClaim().GetClaimId(), again.GetClaim().GetClaimId())
		changed := proto.CloneOf(request)
		changed.Claim.PatientControlNumber = "BAD-KEY-CHANGED"
		_, err = c.Claims.SubmitClaim(t.Context(), changed)
		require.True(t, problem.Is(err, problem.Conflict) || problem.Is(err, problem.Invalid), "%v", err)
		require.Equal(t, before, s.tally(t))
	})
}

// badPlans: given a plan whose figures contradict each other, when it is
// linted or published, then it is refused at the field, and no plan changes.
func badPlans(t *testing.T, s *stack, _ *ledgerOfTheSender) {
	c := s.developer(t)
	plans := func() int {
		listed, err := c.Policies.ListPlans(t.Context(), &policiesv1.ListPlansRequest{})
		require.NoError(t, err)
		return len(listed.GetPlans())
	}
	before := plans()
	plan := &policiesv1.PlanDocument{
		PlanId: "plan_contradiction", Name: "Contradiction", PayerId: sample.PayerID,
		Effective: &typev1.Period{StartDate: "2026-01-01"}, PlanYear: "calendar", TimelyFilingDays: 90,
		InNetwork: &policiesv1.CostShare{
			DeductibleIndividualCents: 500000, DeductibleFamilyCents: 100000, DeductibleKind: "embedded",
			CoinsuranceBps: 2000, OutOfPocketIndividualCents: 100000, OutOfPocketFamilyCents: 50000,
		},
		FeeScheduleId: "fs_standard", Benefits: []*policiesv1.Benefit{{Name: "other", Covered: true}},
	}
	_, err := c.Policies.PublishPlan(t.Context(), &policiesv1.PublishPlanRequest{RequestId: "contradiction", Plan: plan})
	require.True(t, problem.Is(err, problem.Invalid), "%v", err)
	var found []string
	for _, p := range problem.As(err).Problems {
		found = append(found, p.RuleID)
		require.NotEmpty(t, p.FieldPath, p.RuleID)
		require.NotEmpty(t, p.Fix, p.RuleID)
	}
	require.Subset(t, found, []string{"plan.deductible.individual-over-family", "plan.out-of-pocket.individual-over-family", "plan.out-of-pocket.below-deductible"})

	path := s.write(t, "plan.yaml", []byte("plan_id: plan_contradiction\nname: C\npayer_id: KEYSTONE\neffective: {start_date: 2026-01-01}\nplan_year: calendar\ntimely_filing_days: 90\n"+
		"in_network: {deductible_individual_cents: 500000, deductible_family_cents: 100000, deductible_kind: embedded, coinsurance_bps: 2000}\n"+
		"fee_schedule_id: fs_standard\nbenefits: [{name: other, covered: true}]\n"))
	lint := s.probity(t, "plans", "lint", path)
	require.Equal(t, cli.ExitFailed, lint.code, lint.err)
	require.Contains(t, lint.out, "plan.deductible.individual-over-family")
	require.Equal(t, before, plans())
}

// theWrongCaller: given callers without a token, with one that has expired,
// with one of another issuer, and with one of the wrong role, when they ask,
// then they are refused and told what they lack, and nothing changes.
func theWrongCaller(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	before := s.tally(t)
	mint := func(dir string, now func() time.Time) identity.TokenSource {
		issuing, err := issuer.New(issuer.Config{
			URL: s.url + "/issuer", Dir: dir, Principals: issuer.Development("lakeside-billing"), Now: now,
		})
		require.NoError(t, err)
		token, _, err := issuing.Mint("biller")
		require.NoError(t, err)
		return identity.TokenFunc(func(context.Context) (string, error) { return token, nil })
	}
	own := filepath.Join(s.dir, "secrets", "issuer")
	yesterday := func() time.Time { return time.Now().Add(-24 * time.Hour) }
	for name, tokens := range map[string]identity.TokenSource{
		"no token":               nil,
		"an expired token":       mint(own, yesterday),
		"another issuer's token": mint(t.TempDir(), time.Now),
		"a token that isn't one": identity.TokenFunc(func(context.Context) (string, error) { return "eyJhbGciOiJub25lIn0.e30.", nil }),
	} {
		c, err := standalone.NewClients(s.url, tokens)
		require.NoError(t, err)
		_, err = c.Claims.SubmitClaim(t.Context(), &claimsv1.SubmitClaimRequest{RequestId: "stranger", Claim: soundClaim("STRANGER")})
		require.True(t, problem.Is(err, problem.Unauthenticated), "%s: %v", name, err)
		_, err = c.Claims.ListClaims(t.Context(), &claimsv1.ListClaimsRequest{})
		require.True(t, problem.Is(err, problem.Unauthenticated), "%s: %v", name, err)
		_, err = standalone.Submit(t.Context(), c.Gateway, sample.ClaimsFile())
		require.True(t, problem.Is(err, problem.Unauthenticated), "%s: %v", name, err)
	}

	refused := func(what string, err error) {
		t.Helper()
		require.True(t, problem.Is(err, problem.Forbidden), "%s: %v", what, err)
		require.NotEmpty(t, problem.As(err).Problems[0].Fix, what)
	}
	_, err := s.client(t, "auditor").Claims.SubmitClaim(t.Context(), &claimsv1.SubmitClaimRequest{RequestId: "auditor", Claim: soundClaim("AUDITOR")})
	refused("an auditor submits", err)
	_, err = standalone.Submit(t.Context(), s.client(t, "auditor").Gateway, sample.ClaimsFile())
	refused("an auditor submits a file", err)
	_, err = s.client(t, "biller").Policies.PublishPlan(t.Context(), &policiesv1.PublishPlanRequest{RequestId: "biller", Plan: &policiesv1.PlanDocument{
		PlanId: "plan_mine", Name: "Mine", PayerId: sample.PayerID, Effective: &typev1.Period{StartDate: "2026-01-01"}, PlanYear: "calendar",
		InNetwork: &policiesv1.CostShare{DeductibleKind: "embedded"}, FeeScheduleId: "fs_standard", TimelyFilingDays: 90,
		Benefits: []*policiesv1.Benefit{{Name: "other", Covered: true}},
	}})
	refused("a biller publishes a plan", err)
	_, err = s.client(t, "biller").Workflows.ReviewClaim(t.Context(), &workflowsv1.ReviewClaimRequest{
		ClaimId: sent.pended, RequestId: "biller", Resolution: "approve", Reason: "please"})
	refused("a biller approves its own claim", err)
	_, err = s.developer(t).Claims.ResolveClaim(t.Context(), &claimsv1.ResolveClaimRequest{
		ClaimId: sent.pended, RequestId: "dev", Resolution: "approve", Reason: "please"})
	refused("a person calls what is for services", err)
	// Who may not explain isn't told that there is something to explain.
	_, err = s.client(t, "auditor").Claims.ExplainClaim(t.Context(), &claimsv1.ExplainClaimRequest{ClaimId: sent.pended})
	require.True(t, problem.Is(err, problem.Forbidden) || problem.Is(err, problem.NotFound), "%v", err)

	require.Equal(t, before, s.tally(t))
}

// tooLarge: given a request larger than a message may be, then it is refused
// before it is understood, and the stack is as well as before.
func tooLarge(t *testing.T, s *stack, _ *ledgerOfTheSender) {
	before := s.tally(t)
	tokens := identity.ClientCredentials(s.url+"/issuer/token", "developer", filepath.Join(s.dir, "secrets", "issuer", "developer.secret"))
	token, err := tokens.Token(t.Context())
	require.NoError(t, err)
	body := fmt.Sprintf(`{"requestId":"large","claim":{"patientControlNumber":%q}}`, strings.Repeat("KVORTHSHIRE", 2<<20))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		s.url+"/probity.claims.v1.ClaimsService/SubmitClaim", strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	var answer bytes.Buffer
	_, err = answer.ReadFrom(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.GreaterOrEqual(t, response.StatusCode, 400)
	require.Less(t, response.StatusCode, 500, answer.String())
	require.Contains(t, answer.String(), "request.too-large")
	require.NotContains(t, answer.String(), "KVORTHSHIRE")
	require.Equal(t, before, s.tally(t))
}
