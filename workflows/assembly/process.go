package assembly

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
	"github.com/probity-health/probity/workflows/codec"
	"github.com/probity-health/probity/workflows/follower"
	"github.com/probity-health/probity/workflows/hook"
	"github.com/probity-health/probity/workflows/payment"
	"github.com/probity-health/probity/workflows/service"
	"github.com/probity-health/probity/workflows/worker"
)

// process is the assembled worker.
type process struct {
	telemetry *telemetry.Telemetry
	server    *server.Server
	temporal  client.Client
	worker    *worker.Worker
	followers []*follower.Follower
	schedules func(context.Context) // tells payment cycles theirs; nil without payments
	failed    chan error            // the SDK's worker gave up
}

// assemble makes the parts and connects nothing yet: whatever is away when
// the process starts is waited for.
func assemble(ctx context.Context, cfg Config) (*process, error) {
	connection, err := cfg.Temporal.Connection()
	if err != nil {
		return nil, err
	}
	issuer, err := identity.IssuerClient(cfg.Identity.CAFile)
	if err != nil {
		return nil, err
	}
	verifier, err := identity.NewVerifier(identity.VerifierConfig{
		Issuer: cfg.Identity.Issuer, JWKSURL: cfg.Identity.JWKSURL, Audience: cfg.Identity.Audience, Client: issuer,
	})
	if err != nil {
		return nil, err
	}
	authorizer, err := identity.NewAuthorizer()
	if err != nil {
		return nil, err
	}
	tel, err := telemetry.Setup(ctx, cfg.Telemetry)
	if err != nil {
		return nil, err
	}
	srv, err := server.New(cfg.Server, server.Deps{Telemetry: tel, Verifier: verifier})
	if err != nil {
		return nil, err
	}
	tokens := identity.ClientCredentialsVia(issuer, cfg.Identity.TokenURL, cfg.Identity.ClientID, cfg.Identity.ClientSecretFile)
	own, err := server.NewClient(cfg.Client, server.ClientDeps{Tokens: tokens, Telemetry: tel})
	if err != nil {
		return nil, err
	}
	// Reads on behalf of a caller carry the caller's token and nothing else.
	asCaller, err := server.NewClient(cfg.Client, server.ClientDeps{Tokens: identity.CallerOr(nil), Telemetry: tel})
	if err != nil {
		return nil, err
	}
	connection.Logger, connection.Tracer, connection.Meter = tel.Log, tel.Tracer, tel.Meter
	temporal, err := worker.Dial(connection)
	if err != nil {
		return nil, err
	}

	at, queue := cfg.Services, cfg.Temporal.TaskQueue
	p := &process{telemetry: tel, server: srv, temporal: temporal, failed: make(chan error, 1)}
	var payments *payment.Activities
	if cfg.Payments.Dir != "" {
		drop, err := payment.NewFileDrop(cfg.Payments.Dir, payment.FileDropOptions{
			AwaitConfirmation: cfg.Payments.AwaitConfirmation, Advices: cfg.Payments.Advices,
		})
		if err != nil {
			return nil, err
		}
		payments = &payment.Activities{
			Remittances: claimsv1connect.NewRemittanceServiceClient(own, at.Claims, own.Options()...),
			Payments:    claimsv1connect.NewPaymentServiceClient(own, at.Claims, own.Options()...),
			Documents:   gatewayv1connect.NewGatewayServiceClient(own, at.Gateway, own.Options()...),
			Port:        drop,
		}
		p.schedules = func(ctx context.Context) {
			payment.KeepSchedules(ctx, temporal, queue, cfg.Payments.scheduled(), tel.Log)
		}
	}
	p.worker = worker.New(worker.Deps{
		Temporal:     temporal,
		Gateway:      gatewayv1connect.NewGatewayServiceClient(own, at.Gateway, own.Options()...),
		Files:        claimsv1connect.NewFileServiceClient(own, at.Claims, own.Options()...),
		Remittances:  claimsv1connect.NewRemittanceServiceClient(own, at.Claims, own.Options()...),
		Claims:       claimsv1connect.NewClaimsServiceClient(own, at.Claims, own.Options()...),
		Cases:        claimsv1connect.NewCaseServiceClient(own, at.Claims, own.Options()...),
		PaymentTasks: claimsv1connect.NewPaymentTaskServiceClient(own, at.Claims, own.Options()...),
		Payments:     payments,
		TaskQueue:    queue, MaxActivities: cfg.Temporal.MaxActivities, Deployment: cfg.Temporal.DeploymentName, BuildID: cfg.Temporal.BuildID,
		Failed: func(err error) {
			select {
			case p.failed <- err:
			default:
			}
		},
	})
	ledger := ledgerv1connect.NewLedgerServiceClient(own, at.Ledger, own.Options()...)
	for _, log := range hook.Logs(worker.Catalog(worker.Deps{})) {
		f := follower.New(follower.Deps{
			Log: log, Ledger: ledger, Starter: follower.Temporal{Client: temporal, TaskQueue: queue},
			Cursor: cfg.cursor(log, follower.NamespaceID(temporal, cfg.Temporal.Namespace)), Logger: tel.Log, Meter: tel.Meter,
		})
		p.followers = append(p.followers, f)
		srv.AddCheck(followerCheck(log), func(context.Context) error { return f.Ready() })
	}
	answers := service.New(service.Deps{
		Temporal: temporal, TaskQueue: queue, Authorizer: authorizer, Logger: tel.Log, Payments: payments != nil,
		Files:  claimsv1connect.NewFileServiceClient(asCaller, at.Claims, asCaller.Options()...),
		Claims: claimsv1connect.NewClaimsServiceClient(asCaller, at.Claims, asCaller.Options()...),
		Cases:  claimsv1connect.NewCaseServiceClient(asCaller, at.Claims, asCaller.Options()...),
	})
	srv.Mount(workflowsv1connect.NewWorkflowServiceHandler(answers, srv.Options()...))
	srv.Mount(workflowsv1connect.NewPaymentCycleServiceHandler(answers, srv.Options()...))
	if cfg.Codec != nil {
		srv.MountPublic(codec.Path, codec.New(codec.Deps{
			Config: *cfg.Codec, Keys: connection.Keys, Namespace: cfg.Temporal.Namespace,
			Claims: claimsv1connect.NewClaimsServiceClient(asCaller, at.Claims, asCaller.Options()...),
			Ledger: ledger, Authorizer: authorizer, PayerOf: hook.PayerOf(temporal),
		}, srv))
	}
	srv.AddCheck("temporal", func(ctx context.Context) error {
		if !p.worker.Polling() {
			return errors.New("the worker has not reached Temporal yet")
		}
		_, err := temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	})
	return p, nil
}

// followerCheck names a follower in readiness.
func followerCheck(log string) string {
	if log == follower.Log {
		return "follower"
	}
	return "follower." + log
}

// cursor keeps how far a log has been followed: in the configured file that of
// the claims log, beside it those of others.
func (c Config) cursor(log string, namespace func(context.Context) (string, error)) follower.Cursor {
	switch {
	case c.CursorFile == "":
		return follower.FromStart{}
	case log == follower.Log:
		return follower.File{Path: c.CursorFile, Namespace: namespace}
	}
	return follower.File{Path: c.CursorFile + "." + log, Namespace: namespace}
}

// flushTimeout bounds the last export of telemetry.
const flushTimeout = 5 * time.Second

// run serves until ctx ends or a part fails: requests drain first, then the
// worker lets what it has in hand come back, and telemetry is flushed last.
func (p *process) run(ctx context.Context) error {
	parts, stopParts := context.WithCancel(context.WithoutCancel(ctx))
	defer stopParts()
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	running, partsCtx := errgroup.WithContext(parts)
	part := func(run func(context.Context) error) {
		running.Go(func() error {
			defer stopServing()
			if err := run(partsCtx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		})
	}
	part(func(ctx context.Context) error { return p.worker.Run(ctx, p.telemetry.Log) })
	for _, f := range p.followers {
		part(f.Run)
	}
	if p.schedules != nil {
		running.Go(func() error {
			p.schedules(partsCtx)
			return nil
		})
	}
	part(func(ctx context.Context) error {
		select {
		case err := <-p.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	errs := []error{p.server.Run(serving)}
	stopParts()
	errs = append(errs, running.Wait())
	p.temporal.Close()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	return errors.Join(append(errs, p.telemetry.Shutdown(flush))...)
}
