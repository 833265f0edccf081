package scenario

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/sample"
)

// theCorrection: given claims that were paid and remitted, when a file brings
// a replacement of one and a void of another, then the remittance tells each
// reversal with its amounts negated, the correction beside it, and pays the
// difference or carries what the payee owes.
func theCorrection(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	first := map[string]*claimsv1.ClaimSummary{}
	for _, c := range s.claims(t, &claimsv1.ListClaimsRequest{FileId: sent.sampleFile}) {
		first[sample.Outcomes()[c.GetFileOrdinal()].ControlNumber] = c
	}
	wrong, gone := first["SMPL-0007"], first["SMPL-0002"]
	await(t, "both are remitted", func() bool {
		return s.claim(t, wrong.GetClaimId()).GetClaim().GetRemittanceId() != "" && s.claim(t, gone.GetClaimId()).GetClaim().GetRemittanceId() != ""
	})

	answer := s.probity(t, "submit", s.write(t, "correction.edi", corrected(t, map[string]string{
		"SMPL-0007": "7" + wrong.GetClaimId(), "SMPL-0002": "8" + gone.GetClaimId(),
	})), "-o", "json")
	got := readSubmitted(t, answer.out)
	by := map[string]*claimsv1.ClaimSummary{}
	for _, c := range got.Claims {
		by[sample.Outcomes()[c.GetFileOrdinal()].ControlNumber] = c
	}
	replacement, void := by["SMPL-0007"], by["SMPL-0002"]
	require.Equal(t, "paid", status(replacement))
	require.EqualValues(t, 6500, replacement.GetPaidCents(), "$80 billed, below the fee, less the $15 copay")
	require.Equal(t, "reversed", status(void))
	for _, was := range []*claimsv1.ClaimSummary{wrong, gone} {
		require.Equal(t, "reversed", status(s.claim(t, was.GetClaimId()).GetClaim()))
	}

	var told []x12.AdviceClaim
	var advices []*x12.Advice
	for _, r := range s.remittances(t, got.File.GetFileId()) {
		advice := parseAdvice(t, s.document(t, "835", r.GetRemittanceId()))
		require.Equal(t, r.GetPaidCents(), advice.PaidCents)
		advices, told = append(advices, advice), append(told, advice.Claims...)
	}
	of := func(id, status string) x12.AdviceClaim {
		t.Helper()
		i := slices.IndexFunc(told, func(c x12.AdviceClaim) bool { return c.PayerClaim == id && c.Status == status })
		require.GreaterOrEqual(t, i, 0, "no CLP of %s with status %s", id, status)
		return told[i]
	}
	reversal := of(wrong.GetClaimId(), "22")
	require.Equal(t, []int64{-13000, -7500}, []int64{reversal.ChargeCents, reversal.PaidCents})
	require.EqualValues(t, 6500, of(replacement.GetClaimId(), "1").PaidCents)
	taken := of(gone.GetClaimId(), "22")
	require.Equal(t, []int64{-21000, -17500}, []int64{taken.ChargeCents, taken.PaidCents})
	require.False(t, slices.ContainsFunc(told, func(c x12.AdviceClaim) bool { return c.PayerClaim == void.GetClaimId() }), "a void is in no remittance of its own")
	var net int64
	for _, a := range advices {
		net += a.PaidCents
		for _, p := range a.Provider {
			net += p.Cents // PLB takes from the payment where it is positive
		}
	}
	require.EqualValues(t, 6500-7500-17500, net, "what isn't paid is carried (PLB FB), to the cent")
}

// corrected is the sample's file with some claims made replacements (7 and the
// original's number) or voids (8 and the number). A replacement bills $80.
func corrected(t *testing.T, changes map[string]string) []byte {
	t.Helper()
	var out []string
	current, added := "", 0
	for segment := range strings.SplitSeq(strings.ReplaceAll(string(sample.ClaimsFile()), "000000101", "000000103"), "~") {
		segment = strings.TrimSpace(segment)
		part := strings.Split(segment, "*")
		switch part[0] {
		case "CLM":
			if current = changes[part[1]]; current != "" {
				part[5] = strings.TrimSuffix(part[5], "1") + current[:1]
				if current[0] == '7' {
					part[2] = "80"
				}
			}
		case "HI":
			if current != "" {
				out = append(out, "REF*F8*"+strings.ToUpper(current[1:]))
				added++
			}
		case "SV1":
			if strings.HasPrefix(current, "7") {
				part[2] = "80"
			}
		case "HL":
			current = ""
		case "SE":
			var n int
			_, err := fmt.Sscan(part[1], &n)
			require.NoError(t, err)
			part[1] = fmt.Sprint(n + added)
		}
		out = append(out, strings.Join(part, "*"))
	}
	require.Equal(t, len(changes), added)
	return []byte(strings.Join(out, "~\n"))
}

// theLateTermination: given a member whose claim was paid, when the sponsor
// ends the coverage on its first day, then nobody names a claim and the payment
// is taken back all the same; reinstated, it is paid again.
func theLateTermination(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	at := slices.IndexFunc(sample.Outcomes(), func(o sample.Outcome) bool { return o.ControlNumber == "SMPL-0001" })
	listed := s.claims(t, &claimsv1.ListClaimsRequest{FileId: sent.sampleFile})
	at = slices.IndexFunc(listed, func(c *claimsv1.ClaimSummary) bool { return c.GetFileOrdinal() == uint32(at) })
	id := listed[at].GetClaimId()
	was := s.claim(t, id).GetClaim()
	require.Equal(t, "paid", status(was))
	explained := s.probity(t, "claims", "explain", id, "-o", "json", "--no-proof")
	require.Equal(t, cli.ExitOK, explained.code, explained.err)
	submitted, err := s.developer(t).Claims.ExplainClaim(t.Context(), &claimsv1.ExplainClaimRequest{ClaimId: id})
	require.NoError(t, err)
	who := submitted.GetSubmitted().GetSubscriber()
	policies := s.developer(t).Policies
	found, err := policies.LookupMember(t.Context(), &policiesv1.LookupMemberRequest{PayerId: was.GetPayerId(), MemberId: who.GetMemberId(), BirthDate: who.GetBirthDate()})
	require.NoError(t, err)

	_, err = policies.TerminateMember(t.Context(), &policiesv1.TerminateMemberRequest{RequestId: "late-termination", Subject: found.GetSubject(), EndDate: "2026-01-01"})
	require.NoError(t, err)
	await(t, "the payment is taken back", func() bool { return status(s.claim(t, id).GetClaim()) == "denied" })
	require.Contains(t, s.claim(t, id).GetClaim().GetCodes(), "PR-27")
	await(t, "the change is listed", func() bool {
		told := s.probity(t, "claims", "changes", "--payer", was.GetPayerId())
		return told.code == cli.ExitOK && strings.Contains(told.out, "termination") && strings.Contains(told.out, "reprocessed")
	})
	history := s.probity(t, "claims", "history", id)
	require.Contains(t, history.out, "decided again because of termination")
	replayed := s.probity(t, "claims", "explain", id)
	require.Equal(t, cli.ExitOK, replayed.code, replayed.err)
	require.Contains(t, replayed.out, "replay identical")

	again, err := policies.ApplyEnrollmentChanges(t.Context(), &policiesv1.ApplyEnrollmentChangesRequest{
		RequestId: "late-reinstatement", PayerId: was.GetPayerId(), Changes: []*policiesv1.EnrollmentChange{{
			MaintenanceType: policiesv1.MaintenanceType_MAINTENANCE_TYPE_REINSTATE, MemberId: who.GetMemberId(), RelationshipCode: "18",
			FirstName: who.GetFirstName(), LastName: who.GetLastName(), BirthDate: who.GetBirthDate(),
		}},
	})
	require.NoError(t, err)
	require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_APPLIED, again.GetOutcomes()[0].GetResult(), "%v", again)
	await(t, "it is paid again", func() bool { return s.claim(t, id).GetClaim().GetPaidCents() == was.GetPaidCents() })
}
