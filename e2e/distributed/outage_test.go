package distributed

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/sample"
)

// visit is a clean claim of the sample's payer, another one for each day.
func visit(day int) *claimsv1.Claim {
	control := fmt.Sprintf("OUTAGE-%d", day)
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
			DiagnosisPointers: []uint32{1}, ServiceDate: time.Date(2026, 4, 1+day, 0, 0, 0, 0, time.UTC).Format(time.DateOnly), LineControlNumber: control + "-1",
		}},
	}
}

// read gets a page of the worker's that needs no token.
func (s *story) read(t *testing.T, path string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("worker")+path, nil)
	require.NoError(t, err)
	resp, err := s.http.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(raw)
}

// withoutTemporal: given Temporal killed, clean claims are decided in their
// own request all the same and files are taken; what needs a workflow waits in
// sight, a cancel is recorded, and all of it moves on when Temporal is back.
func (s *story) withoutTemporal(t *testing.T) {
	s.enrols(t)
	s.running["temporal"].Kill()
	<-s.running["temporal"].Done()

	const visits, waiting, unwanted = 25, 40, 300
	for day := range visits {
		answer := patiently(t, func(ctx context.Context) (*claimsv1.SubmitClaimResponse, error) {
			return s.biller.Claims.SubmitClaim(ctx, &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprintf("outage-%d", day), Claim: visit(day)})
		})
		require.Contains(t, []claimsv1.ClaimStatus{claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED},
			answer.GetClaim().GetStatus(), "a clean claim waits for nobody")
	}
	s.direct += visits
	first := s.submit(t, s.generated(waiting))
	second := s.submit(t, s.generated(unwanted))
	canceled := patiently(t, func(ctx context.Context) (*claimsv1.CancelFileResponse, error) {
		return s.biller.Files.CancelFile(ctx, &claimsv1.CancelFileRequest{FileId: second})
	})
	require.Equal(t, claimsv1.FileState_FILE_STATE_CANCELING, canceled.GetFile().GetState())
	// None of its claims is ever looked at, so the tallies of what was decided leave it out.
	s.files, s.claims = s.files[:len(s.files)-1], s.claims-unwanted

	require.Eventually(t, func() bool {
		code, body := s.read(t, "/readyz")
		return code == http.StatusServiceUnavailable && body != ""
	}, patience, 50*time.Millisecond, "the worker says that it waits")
	require.Eventually(t, func() bool {
		_, metrics := s.read(t, "/metrics")
		var lag float64
		for line := range strings.Lines(metrics) {
			if _, err := fmt.Sscanf(line, `probity_follower_lag_seconds{log="claims",otel_scope_name="probity/workflows",otel_scope_version=""} %g`, &lag); err == nil {
				break
			}
		}
		return lag > 0
	}, patience, 50*time.Millisecond, "and since when")

	s.start("temporal")
	s.listens("temporal")
	s.ready("worker")
	p := s.completes(t, first)
	require.EqualValues(t, waiting, p.GetPaid()+p.GetDenied()+p.GetPended())
	end := s.completes(t, second)
	require.Equal(t, "canceled", end.GetStage())
	require.EqualValues(t, unwanted, end.GetNotProcessed())
	require.EqualValues(t, unwanted, end.GetDone())
	require.Contains(t, s.document(t, "277CA", second), "STC*A3:0*")
}
