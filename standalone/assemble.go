package standalone

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/assembly"
	"github.com/probity-health/probity/services/claims"
	"github.com/probity-health/probity/services/gateway"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/standalone/embedded"
	"github.com/probity-health/probity/workflows/codec"
	"github.com/probity-health/probity/workflows/follower"
	"github.com/probity-health/probity/workflows/hook"
	"github.com/probity-health/probity/workflows/payment"
	"github.com/probity-health/probity/workflows/service"
	"github.com/probity-health/probity/workflows/worker"
)

// assemble adds every service and the worker to the process. They call each
// other by RPC at the process's own address, as they would across machines;
// the calls run through the same chain but need no connection.
func assemble(ctx context.Context, p *assembly.Process, url, dir string, keys secrets, s stores, bounds claims.Config) error {
	err := assembly.Ledger(ctx, p, assembly.LedgerConfig{
		Origin: Origin, Kafka: assembly.KafkaConfig{Brokers: []string{s.kafka.Address()}},
		DataDir: filepath.Join(dir, "ledger"), SigningKeyFile: keys.ledgerKey, NodeName: "standalone",
	})
	if err != nil {
		return fmt.Errorf("standalone: ledger: %w", err)
	}
	err = assembly.Consent(p, assembly.ConsentConfig{
		Ledger: url, KeyDir: filepath.Join(dir, "keys"), MasterKeyFile: keys.masterKey,
	})
	if err != nil {
		return fmt.Errorf("standalone: consent: %w", err)
	}
	err = assembly.Policies(p, assembly.PoliciesConfig{Ledger: url, Consent: url, IndexKeyFile: keys.indexKey})
	if err != nil {
		return fmt.Errorf("standalone: policies: %w", err)
	}
	err = assembly.Claims(p, assembly.ClaimsConfig{
		Ledger: url, Consent: url, IndexKeyFile: keys.indexKey,
		Lists: s.lists, Claims: bounds,
	})
	if err != nil {
		return fmt.Errorf("standalone: claims: %w", err)
	}
	if err := assembly.GatewayOnly(p, assembly.GatewayConfig{Claims: url, Policies: url, Gateway: gateway.Config{DefaultPayer: samplePayer}}); err != nil {
		return fmt.Errorf("standalone: gateway: %w", err)
	}
	if err := addWorker(p, url, dir, keys, s); err != nil {
		return fmt.Errorf("standalone: worker: %w", err)
	}
	return nil
}

// samplePayer is what the stack's 835s say of a payer: invented, like all its data.
var samplePayer = x12.PayerProfile{
	Line1: "1 SAMPLE PLAZA", City: "COLUMBUS", State: "OH", PostalCode: "432150001",
	Contact: "PROVIDER SERVICES", Phone: "5550100000", OriginatingID: "1999999999",
}

func addWorker(p *assembly.Process, url, dir string, keys secrets, s stores) error {
	payloads, err := worker.ReadKeys(keys.payloads)
	if err != nil {
		return err
	}
	temporal, err := worker.Dial(worker.Connection{
		HostPort: s.temporal.HostPort(), Keys: payloads,
		Logger: p.Telemetry.Log, Tracer: p.Telemetry.Tracer, Meter: p.Telemetry.Meter,
	})
	if err != nil {
		return err
	}
	p.Add(assembly.Part{Name: "temporal client", Close: func(context.Context) error { temporal.Close(); return nil }})

	own, err := p.Own()
	if err != nil {
		return err
	}
	onBehalf, err := p.OnBehalf()
	if err != nil {
		return err
	}
	drop, err := payment.NewFileDrop(filepath.Join(dir, "payments"), payment.FileDropOptions{Advices: true})
	if err != nil {
		return err
	}
	w := worker.New(worker.Deps{
		Temporal:     temporal,
		Gateway:      gatewayv1connect.NewGatewayServiceClient(own, url, own.Options()...),
		Files:        claimsv1connect.NewFileServiceClient(own, url, own.Options()...),
		Remittances:  claimsv1connect.NewRemittanceServiceClient(own, url, own.Options()...),
		Claims:       claimsv1connect.NewClaimsServiceClient(own, url, own.Options()...),
		Cases:        claimsv1connect.NewCaseServiceClient(own, url, own.Options()...),
		PaymentTasks: claimsv1connect.NewPaymentTaskServiceClient(own, url, own.Options()...),
		Payments: &payment.Activities{
			Remittances: claimsv1connect.NewRemittanceServiceClient(own, url, own.Options()...),
			Payments:    claimsv1connect.NewPaymentServiceClient(own, url, own.Options()...),
			Documents:   gatewayv1connect.NewGatewayServiceClient(own, url, own.Options()...),
			Port:        drop,
		},
	})
	p.Add(assembly.Part{Name: "worker", Run: func(ctx context.Context) error { return w.Run(ctx, p.Telemetry.Log) }})
	f := follower.New(follower.Deps{
		Ledger:  ledgerv1connect.NewLedgerServiceClient(own, url, own.Options()...),
		Starter: follower.Temporal{Client: temporal, TaskQueue: worker.TaskQueue},
		Cursor:  follower.File{Path: filepath.Join(dir, "follower.json"), Namespace: follower.NamespaceID(temporal, "probity")},
		Logger:  p.Telemetry.Log, Meter: p.Telemetry.Meter,
	})
	p.Add(assembly.Part{Name: "follower", Run: f.Run})
	p.Server.MountPublic(codec.Path, codec.New(codec.Deps{
		Keys: payloads, Namespace: embedded.Namespace,
		Claims: claimsv1connect.NewClaimsServiceClient(onBehalf, url, onBehalf.Options()...),
		Ledger: ledgerv1connect.NewLedgerServiceClient(own, url, own.Options()...), Authorizer: p.Authorizer,
		PayerOf: hook.PayerOf(temporal),
	}, p.Server))
	answers := service.New(service.Deps{
		Temporal: temporal, TaskQueue: worker.TaskQueue, Payments: true,
		Files:      claimsv1connect.NewFileServiceClient(onBehalf, url, onBehalf.Options()...),
		Claims:     claimsv1connect.NewClaimsServiceClient(onBehalf, url, onBehalf.Options()...),
		Cases:      claimsv1connect.NewCaseServiceClient(onBehalf, url, onBehalf.Options()...),
		Authorizer: p.Authorizer, Logger: p.Telemetry.Log,
	})
	p.Server.Mount(workflowsv1connect.NewWorkflowServiceHandler(answers, p.Server.Options()...))
	p.Server.Mount(workflowsv1connect.NewPaymentCycleServiceHandler(answers, p.Server.Options()...))
	return nil
}
