package assembly

import (
	"context"

	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/services/consent"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
)

// PoliciesConfig of `probity serve policies`.
type PoliciesConfig struct {
	ProcessConfig
	// Ledger and Consent are base URLs.
	Ledger  string `json:"ledger"`
	Consent string `json:"consent"`
	// IndexKeyFile holds the key of blind indexes, the same in every service.
	IndexKeyFile string `json:"indexKeyFile"`
}

// Policies adds the policies service to p.
func Policies(p *Process, cfg PoliciesConfig) error {
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
	directory := book.New()
	p.Add(Part{Name: "policies book", Run: func(ctx context.Context) error { return directory.Run(ctx, store) }})
	p.addSealer("policies keys", sealer, store)
	p.Server.AddCheck("policies", directory.WaitCaughtUp)
	handler := policies.NewHandler(policies.Deps{Store: store, Directory: directory, Sealer: sealer, Index: index, Authorizer: p.Authorizer})
	p.Server.Mount(policiesv1connect.NewPoliciesServiceHandler(handler, p.Server.Options()...))
	p.Server.Mount(policiesv1connect.NewEditsServiceHandler(handler, p.Server.Options()...))
	return nil
}

// addSealer closes a service's sealer with the process and makes it forget
// the keys of the erased, rather than when its cache's time is up.
func (p *Process) addSealer(name string, sealer *keys.CachingSealer, store eventstore.Store) {
	p.Add(Part{
		Name: name,
		Run: func(ctx context.Context) error {
			return consent.FollowErasures(ctx, store, func(_ context.Context, subject string) error {
				sealer.Forget(subject)
				return nil
			})
		},
		Close: func(context.Context) error { return sealer.Close() },
	})
}

// sealing returns what a service needs to protect and to find health data.
func (p *Process) sealing(consentURL, indexKeyFile string) (*keys.CachingSealer, *keys.Index, error) {
	key, err := keys.ReadKeyFile(indexKeyFile)
	if err != nil {
		return nil, nil, err
	}
	client, err := p.Own()
	if err != nil {
		return nil, nil, err
	}
	authority := keys.NewRemoteAuthority(newKeyClient(client, consentURL))
	return keys.NewSealer(authority, keys.SealerOptions{}), keys.NewIndex(key), nil
}
