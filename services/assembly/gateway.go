package assembly

import (
	"context"

	"connectrpc.com/connect"

	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/services/gateway"
	"github.com/probity-health/probity/services/gateway/edge"
)

// GatewayConfig of `probity serve gateway`.
type GatewayConfig struct {
	ProcessConfig
	// Claims is the base URL of the claims service.
	Claims string `json:"claims"`
	// Policies, Ledger and Workflows are base URLs of services whose public
	// RPCs are passed through; an empty one is not. Without Policies the
	// gateway takes no enrolment files.
	Policies  string `json:"policies,omitempty"`
	Ledger    string `json:"ledger,omitempty"`
	Workflows string `json:"workflows,omitempty"`
	// Gateway holds the edge's bounds.
	Gateway gateway.Config `json:"gateway,omitzero"`
}

// routes are the procedures that clients may reach through the gateway.
// Appending to the ledger, registering files and keys are not among them.
func (c GatewayConfig) routes() edge.Routes {
	routes := edge.Routes{
		"/probity.claims.v1.CaseService/":                 c.Claims,
		"/probity.claims.v1.ClaimsService/":               c.Claims,
		"/probity.claims.v1.RemittanceService/":           c.Claims,
		"/probity.claims.v1.PaymentService/":              c.Claims,
		"/probity.claims.v1.PaymentTaskService/":          c.Claims,
		"/probity.claims.v1.ReplayService/":               c.Claims,
		"/probity.claims.v1.AdjustmentService/":           c.Claims,
		"/probity.claims.v1.FileService/GetFile":          c.Claims,
		"/probity.claims.v1.FileService/ListFiles":        c.Claims,
		"/probity.claims.v1.FileService/CancelFile":       c.Claims,
		"/probity.claims.v1.FileService/ListFileOutcomes": c.Claims,
		"/probity.policies.v1.PoliciesService/":           c.Policies,
		"/probity.policies.v1.EditsService/":              c.Policies,
		"/probity.workflows.v1.PaymentCycleService/":      c.Workflows,
		"/probity.workflows.v1.WorkflowService/":          c.Workflows,
		"/probity.ledger.v1.LedgerService/GetReceipt":     c.Ledger,
		"/probity.ledger.v1.LedgerService/GetCheckpoint":  c.Ledger,
		"/probity.ledger.v1.LedgerService/GetLedger":      c.Ledger,
		"/probity.ledger.v1.ProofService/":                c.Ledger,
	}
	for pattern, target := range routes {
		if target == "" {
			delete(routes, pattern)
		}
	}
	return routes
}

// Gateway adds the gateway to p. In a process of its own it also passes
// public RPCs on to the services behind it.
func Gateway(p *Process, cfg GatewayConfig) error {
	if err := gatewayHandler(p, cfg); err != nil {
		return err
	}
	client, err := p.Own()
	if err != nil {
		return err
	}
	pass, err := edge.New(cfg.routes(), client.Transport(), p.Telemetry.Log)
	if err != nil {
		return err
	}
	for _, pattern := range pass.Patterns() {
		p.Server.Mount(pattern, pass)
	}
	return nil
}

// GatewayOnly adds the gateway without passing anything on: the services
// answer at the same address.
func GatewayOnly(p *Process, cfg GatewayConfig) error { return gatewayHandler(p, cfg) }

func gatewayHandler(p *Process, cfg GatewayConfig) error {
	if err := required("claims", cfg.Claims); err != nil {
		return err
	}
	client, err := p.OnBehalf()
	if err != nil {
		return err
	}
	options := client.Options(connect.WithReadMaxBytes(chunkBytes))
	handler := gateway.New(cfg.Gateway, gateway.Deps{
		Claims:      claimsv1connect.NewClaimsServiceClient(client, cfg.Claims, options...),
		Files:       claimsv1connect.NewFileServiceClient(client, cfg.Claims, options...),
		Remittances: claimsv1connect.NewRemittanceServiceClient(client, cfg.Claims, options...),
		Policies:    policiesv1connect.NewPoliciesServiceClient(client, cfg.Policies, options...),
	})
	p.Add(Part{Name: "gateway", Close: func(context.Context) error { handler.Close(); return nil }})
	p.Server.Mount(gatewayv1connect.NewGatewayServiceHandler(handler, p.Server.Options()...))
	if cfg.Policies != "" {
		p.Server.Mount(gatewayv1connect.NewEnrollmentFileServiceHandler(handler, p.Server.Options()...))
	}
	return nil
}
