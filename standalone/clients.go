package standalone

import (
	"path/filepath"

	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/server"
)

// Clients are the RPCs as one of the development users.
type Clients struct {
	Policies    policiesv1connect.PoliciesServiceClient
	Edits       policiesv1connect.EditsServiceClient
	Claims      claimsv1connect.ClaimsServiceClient
	Files       claimsv1connect.FileServiceClient
	Remittances claimsv1connect.RemittanceServiceClient
	Payments    claimsv1connect.PaymentServiceClient
	PayTasks    claimsv1connect.PaymentTaskServiceClient
	Cycles      workflowsv1connect.PaymentCycleServiceClient
	Replays     claimsv1connect.ReplayServiceClient
	Adjustments claimsv1connect.AdjustmentServiceClient
	Cases       claimsv1connect.CaseServiceClient
	Gateway     gatewayv1connect.GatewayServiceClient
	Ledger      ledgerv1connect.LedgerServiceClient
	Workflows   workflowsv1connect.WorkflowServiceClient
}

// As returns clients that sign in as a client id of the development issuer:
// "developer", "biller", "adjudicator", "supervisor", "plan-admin", "auditor", "service".
func (s *Stack) As(id string) (Clients, error) { return Dial(s.URL, s.DataDir, id) }

// Dial is As for a stack that another process runs on the same data directory.
func Dial(url, dataDir, id string) (Clients, error) {
	secret := filepath.Join(dataDir, "secrets", "issuer", id+".secret")
	return NewClients(url, identity.ClientCredentials(url+"/issuer/token", id, secret))
}

// NewClients returns clients of a server that answers everything at one
// address: a stack, or a gateway.
func NewClients(url string, tokens identity.TokenSource) (Clients, error) {
	client, err := server.NewClient(server.ClientConfig{}, server.ClientDeps{Tokens: tokens})
	if err != nil {
		return Clients{}, err
	}
	options := client.Options()
	return Clients{
		Policies:    policiesv1connect.NewPoliciesServiceClient(client, url, options...),
		Edits:       policiesv1connect.NewEditsServiceClient(client, url, options...),
		Claims:      claimsv1connect.NewClaimsServiceClient(client, url, options...),
		Files:       claimsv1connect.NewFileServiceClient(client, url, options...),
		Remittances: claimsv1connect.NewRemittanceServiceClient(client, url, options...),
		Payments:    claimsv1connect.NewPaymentServiceClient(client, url, options...),
		PayTasks:    claimsv1connect.NewPaymentTaskServiceClient(client, url, options...),
		Cycles:      workflowsv1connect.NewPaymentCycleServiceClient(client, url, options...),
		Replays:     claimsv1connect.NewReplayServiceClient(client, url, options...),
		Adjustments: claimsv1connect.NewAdjustmentServiceClient(client, url, options...),
		Cases:       claimsv1connect.NewCaseServiceClient(client, url, options...),
		Gateway:     gatewayv1connect.NewGatewayServiceClient(client, url, options...),
		Ledger:      ledgerv1connect.NewLedgerServiceClient(client, url, options...),
		Workflows:   workflowsv1connect.NewWorkflowServiceClient(client, url, options...),
	}, nil
}
