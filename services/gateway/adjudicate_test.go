package gateway

import (
	"context"
	"fmt"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/problem"
)

// strict is a claims service that checks a call by its schema, as a server does.
type strict struct {
	claimsv1connect.ClaimsServiceClient
	calls int
}

func (s *strict) SubmitClaims(_ context.Context, req *claimsv1.SubmitClaimsRequest) (*claimsv1.SubmitClaimsResponse, error) {
	s.calls++
	if err := protovalidate.Validate(req); err != nil {
		return nil, problem.Invalidf("request.schema", "claims", "the call breaks its schema")
	}
	res := &claimsv1.SubmitClaimsResponse{}
	for _, r := range req.GetClaims() {
		res.Results = append(res.Results, &claimsv1.SubmitClaimResponse{Claim: &claimsv1.ClaimSummary{
			ClaimId: fmt.Sprintf("clm_%026d", r.GetFileOrdinal()), Status: claimsv1.ClaimStatus_CLAIM_STATUS_PAID,
		}})
	}
	return res, nil
}

func TestAClaimThatSlippedThroughTheGrammarIsRejectedAloneAndItsNeighboursDecided(t *testing.T) {
	// Given a chunk of which the middle claim breaks a rule of the schema.
	service := &strict{}
	s := &Service{deps: Deps{Claims: service}}
	submit := make([]*claimsv1.SubmitClaimRequest, 3)
	for i := range submit {
		submit[i] = &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprint("r", i), Claim: sound(), FileOrdinal: uint32(i)}
	}
	submit[1].Claim.Payer = nil

	got, err := s.decide(t.Context(), submit)
	require.NoError(t, err)

	// Then it alone is rejected, and why is told.
	require.Equal(t, 2, service.calls)
	byOrdinal := map[uint32]*claimsv1.ClaimOutcome{}
	for _, o := range got {
		byOrdinal[o.GetOrdinal()] = o
	}
	require.Len(t, byOrdinal, 3)
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, byOrdinal[0].GetStatus())
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, byOrdinal[2].GetStatus())
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED, byOrdinal[1].GetStatus())
	require.Equal(t, "gateway.claim.schema", byOrdinal[1].GetProblems()[0].GetRuleId())
	require.Equal(t, "claim.payer", byOrdinal[1].GetProblems()[0].GetFieldPath())

	// And a chunk that is refused for anything else is no claim's fault.
	submit[1].Claim, submit[2].RequestId = sound(), ""
	_, err = s.decide(t.Context(), submit)
	require.True(t, problem.Is(err, problem.Invalid), "%v", err)
}

func sound() *claimsv1.Claim {
	return &claimsv1.Claim{
		Form: claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL, PatientControlNumber: "A", ChargeCents: 100, FrequencyCode: "1",
		Payer: &claimsv1.Payer{Id: "ACME"}, BillingProvider: &claimsv1.Provider{Npi: "1234567893"},
		Subscriber:    &claimsv1.Person{MemberId: "W1", LastName: "A", FirstName: "B", BirthDate: "1980-01-01"},
		PayerSequence: "P", Diagnoses: []*claimsv1.Diagnosis{{Code: "J069", Qualifier: "ABK"}},
		Lines: []*claimsv1.ServiceLine{{Number: 1, ProcedureQualifier: "HC", Procedure: "99213", ChargeCents: 100, UnitCode: "UN", QuantityMilli: 1000, ServiceDate: "2026-01-01"}},
	}
}
