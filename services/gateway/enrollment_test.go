package gateway_test

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/gateway"
	"github.com/probity-health/probity/services/gateway/x12/x12test"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/keys/keystest"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/sample"
)

type everybody struct{}

func (everybody) Authorize(context.Context, string, identity.Resource) error { return nil }

// importer is a gateway before a real policies service that holds the sample.
func importer(t *testing.T) (gatewayv1connect.EnrollmentFileServiceClient, *policies.Handler) {
	t.Helper()
	store, directory := eventstore.NewMemory(eventstore.MemoryOptions{}), book.New()
	sealer := keys.NewSealer(keystest.New(), keys.SealerOptions{})
	t.Cleanup(func() { require.NoError(t, sealer.Close()) })
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- directory.Run(ctx, store) }()
	t.Cleanup(func() { stop(); require.ErrorIs(t, <-ran, context.Canceled) })
	handler := policies.NewHandler(policies.Deps{Store: store, Directory: directory, Sealer: sealer, Index: keys.NewIndex([32]byte{7}), Authorizer: everybody{}})
	_, err := sample.Load(ctx, handler)
	require.NoError(t, err)
	for _, p := range []*policiesv1.Policy{{PolicyId: "pol_tide_100", PayerId: "KEYSTONE", GroupNumber: "TIDE-100", PlanId: "plan_gold"}} {
		p.Effective = &typev1.Period{StartDate: "2026-01-01"}
		_, err := handler.CreatePolicy(ctx, &policiesv1.CreatePolicyRequest{RequestId: p.GetPolicyId(), Policy: p})
		require.NoError(t, err)
	}
	gw := gateway.New(gateway.Config{SpoolDir: t.TempDir()}, gateway.Deps{Policies: handler})
	t.Cleanup(gw.Close)
	_, h := gatewayv1connect.NewEnrollmentFileServiceHandler(gw)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return gatewayv1connect.NewEnrollmentFileServiceClient(server.Client(), server.URL), handler
}

func importFile(t *testing.T, c gatewayv1connect.EnrollmentFileServiceClient, content []byte, options *gatewayv1.ImportEnrollmentFileOptions) (*gatewayv1.ImportEnrollmentFileResponse, error) {
	t.Helper()
	stream, err := c.ImportEnrollmentFile(context.Background())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&gatewayv1.ImportEnrollmentFileRequest{Part: &gatewayv1.ImportEnrollmentFileRequest_Options{Options: options}}))
	for len(content) > 0 {
		n := min(len(content), 700)
		if stream.Send(&gatewayv1.ImportEnrollmentFileRequest{Part: &gatewayv1.ImportEnrollmentFileRequest_Data{Data: content[:n]}}) != nil {
			break // the other side has answered
		}
		content = content[n:]
	}
	return stream.CloseAndReceive()
}

func outcomes(r *gatewayv1.ImportEnrollmentFileResponse) string {
	var out []string
	for i, o := range r.GetOutcomes() {
		s := strings.TrimPrefix(o.GetResult().String(), "RESULT_")
		if int(o.GetOrdinal()) != i {
			s += " out of place"
		}
		for _, p := range o.GetProblems() {
			s += " " + p.GetRuleId()
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func TestAnEnrollmentFileIsAppliedOnceAndAnsweredForEachMember(t *testing.T) {
	c, handler := importer(t)
	bad := x12test.Addition("T500", "19", "TESTER", "BAD", "20150230")
	dental := x12test.Addition("T500", "18", "TESTER", "ANN", "19800115")
	dental[len(dental)-2] = "HD*021**DEN"
	file := x12test.Enrollment(
		x12test.Addition("T500", "18", "TESTER", "ANN", "19800115"), bad, x12test.Addition("T500", "01", "TESTER", "BOB", "19790203"),
		x12test.Addition("T501", "19", "LONER", "CY", "20150304"), dental,
	)
	const want = "APPLIED, REFUSED x12.element.date, APPLIED, REFUSED member.dependent.no-subscriber, SKIPPED"

	dry, err := importFile(t, c, file, &gatewayv1.ImportEnrollmentFileOptions{DryRun: true})
	require.NoError(t, err)
	require.Empty(t, dry.GetOutcomes())
	require.EqualValues(t, 5, dry.GetMemberCount())
	require.Contains(t, string(dry.GetAcknowledgement()), "IK5*E*5~")

	first, err := importFile(t, c, file, &gatewayv1.ImportEnrollmentFileOptions{})
	require.NoError(t, err)
	require.Equal(t, want, outcomes(first))
	require.False(t, first.GetDuplicate())
	require.Equal(t, dry.GetAcknowledgement(), first.GetAcknowledgement(), "the same file is acknowledged in the same bytes")

	again, err := importFile(t, c, file, &gatewayv1.ImportEnrollmentFileOptions{})
	require.NoError(t, err)
	require.True(t, again.GetDuplicate())
	require.Equal(t, want, outcomes(again))
	m, err := handler.GetMemberHistory(context.Background(), &policiesv1.GetMemberHistoryRequest{Member: &policiesv1.GetMemberRequest{Subject: again.GetOutcomes()[2].GetSubject()}})
	require.NoError(t, err)
	require.Len(t, m.GetChanges(), 1)
}

func TestAnEnrollmentFileThatIsRefusedChangesNothing(t *testing.T) {
	c, handler := importer(t)
	good := x12test.Enrollment(x12test.Addition("T500", "18", "TESTER", "ANN", "19800115"))
	for name, b := range map[string][]byte{
		"cut off": good[:len(good)-40], "claims": x12test.Professional(1, nil), "a wrong count": bytes.Replace(good, []byte("SE*17"), []byte("SE*18"), 1),
		"letters": []byte("Dear payer, please enrol Ann."),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := importFile(t, c, b, &gatewayv1.ImportEnrollmentFileOptions{})
			require.NoError(t, err)
			require.Empty(t, r.GetOutcomes())
			require.NotEmpty(t, r.GetProblems())
		})
	}
	_, err := importFile(t, c, nil, &gatewayv1.ImportEnrollmentFileOptions{})
	require.ErrorContains(t, err, "gateway.submit.empty")
	_, err = handler.LookupMember(context.Background(), &policiesv1.LookupMemberRequest{PayerId: "KEYSTONE", MemberId: "T500", BirthDate: "1980-01-15"})
	require.ErrorContains(t, err, "member.unknown")
}

// More changes than fit one call go in several, a family in order all the same.
func TestALongEnrollmentFileGoesInBatches(t *testing.T) {
	c, _ := importer(t)
	var members [][]string
	for i := range 260 {
		card := "L" + string(rune('A'+i/26)) + string(rune('A'+i%26))
		members = append(members, x12test.Addition(card, "18", "TESTER", "ANN", "19800115"), x12test.Addition(card, "01", "TESTER", "BOB", "19790203"))
	}
	r, err := importFile(t, c, x12test.Enrollment(members...), &gatewayv1.ImportEnrollmentFileOptions{})
	require.NoError(t, err)
	require.Len(t, r.GetOutcomes(), 520)
	for i, o := range r.GetOutcomes() {
		require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_APPLIED, o.GetResult(), "%d %v", i, o)
		require.EqualValues(t, i, o.GetOrdinal())
	}
}
