package cli

import (
	"context"
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/server"
)

// connection is every service a command may call, all behind the gateway's
// address but replicas, which a ledger node alone answers.
type connection struct {
	gateway     gatewayv1connect.GatewayServiceClient
	claims      claimsv1connect.ClaimsServiceClient
	files       claimsv1connect.FileServiceClient
	remittances claimsv1connect.RemittanceServiceClient
	payments    claimsv1connect.PaymentServiceClient
	payTasks    claimsv1connect.PaymentTaskServiceClient
	cycles      workflowsv1connect.PaymentCycleServiceClient
	replays     claimsv1connect.ReplayServiceClient
	adjustments claimsv1connect.AdjustmentServiceClient
	cases       claimsv1connect.CaseServiceClient
	policies    policiesv1connect.PoliciesServiceClient
	edits       policiesv1connect.EditsServiceClient
	enrollments gatewayv1connect.EnrollmentFileServiceClient
	workflows   workflowsv1connect.WorkflowServiceClient
	ledger      ledgerv1connect.LedgerServiceClient
	proofs      ledgerv1connect.ProofServiceClient
	replicas    ledgerv1connect.ReplicaServiceClient
}

func newConnection(c *server.Client, url string) *connection {
	return &connection{
		gateway:     gatewayv1connect.NewGatewayServiceClient(c, url, c.Options()...),
		claims:      claimsv1connect.NewClaimsServiceClient(c, url, c.Options()...),
		files:       claimsv1connect.NewFileServiceClient(c, url, c.Options()...),
		remittances: claimsv1connect.NewRemittanceServiceClient(c, url, c.Options()...),
		payments:    claimsv1connect.NewPaymentServiceClient(c, url, c.Options()...),
		payTasks:    claimsv1connect.NewPaymentTaskServiceClient(c, url, c.Options()...),
		cycles:      workflowsv1connect.NewPaymentCycleServiceClient(c, url, c.Options()...),
		replays:     claimsv1connect.NewReplayServiceClient(c, url, c.Options()...),
		adjustments: claimsv1connect.NewAdjustmentServiceClient(c, url, c.Options()...),
		cases:       claimsv1connect.NewCaseServiceClient(c, url, c.Options()...),
		policies:    policiesv1connect.NewPoliciesServiceClient(c, url, c.Options()...),
		edits:       policiesv1connect.NewEditsServiceClient(c, url, c.Options()...),
		enrollments: gatewayv1connect.NewEnrollmentFileServiceClient(c, url, c.Options()...),
		workflows:   workflowsv1connect.NewWorkflowServiceClient(c, url, c.Options()...),
		ledger:      ledgerv1connect.NewLedgerServiceClient(c, url, c.Options()...),
		proofs:      ledgerv1connect.NewProofServiceClient(c, url, c.Options()...),
		replicas:    ledgerv1connect.NewReplicaServiceClient(c, url, c.Options()...),
	}
}

// pageSize of lists; the services' own bound is 1,000.
const pageSize = 500

// listClaims walks the pages until limit claims were seen; 0 is all.
func (c *connection) listClaims(ctx context.Context, filter *claimsv1.ListClaimsRequest, limit int, each func(*claimsv1.ClaimSummary) error) error {
	filter = proto.CloneOf(filter)
	for seen := 0; ; {
		filter.PageSize = pageSize
		if limit > 0 {
			filter.PageSize = uint32(min(pageSize, limit-seen))
		}
		page, err := c.claims.ListClaims(ctx, filter)
		if err != nil {
			return err
		}
		for _, claim := range page.GetClaims() {
			if err := each(claim); err != nil {
				return err
			}
			seen++
		}
		if page.GetNextPageToken() == "" || (limit > 0 && seen >= limit) {
			return nil
		}
		filter.PageToken = page.GetNextPageToken()
	}
}

// document copies an X12 document to w.
func (c *connection) document(ctx context.Context, kind, id string, w io.Writer) error {
	stream, err := c.gateway.GetDocument(ctx, &gatewayv1.GetDocumentRequest{Kind: kind, Id: id})
	if err != nil {
		return err
	}
	for stream.Receive() {
		if _, err := w.Write(stream.Msg().GetData()); err != nil {
			return errors.Join(err, stream.Close())
		}
	}
	return errors.Join(stream.Err(), stream.Close())
}
