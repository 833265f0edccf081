package assembly

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/claims"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/views"
	"github.com/probity-health/probity/services/views/localstore"
	"github.com/probity-health/probity/services/views/redisstore"
)

// ClaimsConfig of `probity serve claims`.
type ClaimsConfig struct {
	ProcessConfig
	// Ledger and Consent are base URLs.
	Ledger  string `json:"ledger"`
	Consent string `json:"consent"`
	// IndexKeyFile holds the key of blind indexes, the same in every service.
	IndexKeyFile string `json:"indexKeyFile"`
	// Redis of the lists.
	Redis RedisConfig `json:"redis"`
	// Lists replaces Redis by a store in this process. It stays the caller's to close.
	Lists views.Store `json:"-"`
	// Claims holds the service's bounds.
	Claims claims.Config `json:"claims,omitzero"`
	// FamilyTTL and WatchInterval are those of claims.Config, as text: "10m", "5s".
	FamilyTTL     server.Duration `json:"familyTTL,omitempty"`
	WatchInterval server.Duration `json:"watchInterval,omitempty"`
}

// Audit returns what compares the lists in Redis with the ledger's commits, and
// what closes its connection.
func (c ClaimsConfig) Audit() (*views.Audit, func(), error) {
	client, err := openRedis(c.Redis)
	if err != nil {
		return nil, nil, err
	}
	view, err := views.Open(redisstore.New(client), claims.Projection(nil), views.Options{})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return views.NewAudit(view, eventstore.Codec{}), func() { _ = client.Close() }, nil
}

// AuditLists is Audit of lists that were kept in a process, by their directory.
// The process must have stopped.
func AuditLists(dir string) (*views.Audit, func(), error) {
	lists, err := localstore.Read(dir)
	if err != nil {
		return nil, nil, err
	}
	view, err := views.Open(lists, claims.Projection(nil), views.Options{})
	if err != nil {
		return nil, nil, errors.Join(err, lists.Close())
	}
	return views.NewAudit(view, eventstore.Codec{}), func() { _ = lists.Close() }, nil
}

// chunkBytes bounds a SubmitClaims of 500 claims with many lines each, and a
// GetRemittance's answer of a thousand.
const chunkBytes = 64 << 20

// Claims adds the claims service to p.
func Claims(p *Process, cfg ClaimsConfig) error {
	if err := required("ledger", cfg.Ledger, "consent", cfg.Consent, "indexKeyFile", cfg.IndexKeyFile); err != nil {
		return err
	}
	store, err := p.store(cfg.Ledger)
	if err != nil {
		return err
	}
	sealer, index, err := p.sealing(cfg.Consent, cfg.IndexKeyFile)
	if err != nil {
		return err
	}
	cfg.Claims.FamilyTTL, cfg.Claims.WatchInterval = time.Duration(cfg.FamilyTTL), time.Duration(cfg.WatchInterval)
	lists := cfg.Lists
	if lists == nil {
		client, err := openRedis(cfg.Redis)
		if err != nil {
			return err
		}
		p.Add(Part{Name: "claims lists' store", Close: func(context.Context) error { return client.Close() }})
		lists = redisstore.New(client)
	}
	service, err := claims.New(claims.Deps{
		Store: store, Sealer: sealer, Index: index, Book: book.New(), Authorizer: p.Authorizer,
		Lists: lists, Meter: p.Telemetry.Meter.Meter("probity/claims"), Tracer: p.Telemetry.Tracer, Log: p.Telemetry.Log, Config: cfg.Claims,
	})
	if err != nil {
		return err
	}
	p.addSealer("claims keys", sealer, store)
	p.Add(Part{Name: "claims", Run: service.Run, Drain: service.EndWatches, Close: service.Close})
	p.Server.AddCheck("claims", service.Ready)
	options := p.Server.Options(connect.WithReadMaxBytes(chunkBytes))
	p.Server.Mount(claimsv1connect.NewClaimsServiceHandler(service, options...))
	p.Server.HandOver(claimsv1connect.ClaimsServiceSubmitClaimsProcedure)
	server.Quick(p.Server, claims.FitsSchema)
	p.Server.Mount(claimsv1connect.NewFileServiceHandler(service, options...))
	p.Server.Mount(claimsv1connect.NewRemittanceServiceHandler(service, options...))
	p.Server.Mount(claimsv1connect.NewPaymentServiceHandler(service, options...))
	p.Server.Mount(claimsv1connect.NewPaymentTaskServiceHandler(service, options...))
	p.Server.Mount(claimsv1connect.NewAdjustmentServiceHandler(service, options...))
	p.Server.Mount(claimsv1connect.NewReplayServiceHandler(service, options...))
	p.Server.Mount(claimsv1connect.NewCaseServiceHandler(service, options...))
	return nil
}
