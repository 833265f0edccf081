package assembly

import (
	"context"

	"github.com/probity-health/probity/proto/probity/consent/v1/consentv1connect"
	"github.com/probity-health/probity/services/consent"
	"github.com/probity-health/probity/services/keys"
)

// ConsentConfig of `probity serve consent`.
type ConsentConfig struct {
	ProcessConfig
	// Ledger is its base URL.
	Ledger string `json:"ledger"`
	// KeyDir holds the subjects' wrapped keys. Losing it loses all sealed
	// data; it is backed up apart from everything else.
	KeyDir string `json:"keyDir"`
	// MasterKeyFile holds the key that wraps them.
	MasterKeyFile string `json:"masterKeyFile"`
}

// Consent adds the key authority to p.
func Consent(p *Process, cfg ConsentConfig) error {
	if err := required("ledger", cfg.Ledger, "keyDir", cfg.KeyDir, "masterKeyFile", cfg.MasterKeyFile); err != nil {
		return err
	}
	master, err := keys.ReadKeyFile(cfg.MasterKeyFile)
	if err != nil {
		return err
	}
	store, err := p.store(cfg.Ledger)
	if err != nil {
		return err
	}
	keyStore, err := consent.OpenKeyStore(cfg.KeyDir, master)
	if err != nil {
		return err
	}
	p.Add(Part{Name: "key store", Close: func(context.Context) error { return keyStore.Close() }})
	// A destruction that a crash left after its tombstone is completed here.
	p.Add(Part{Name: "erasures", Run: func(ctx context.Context) error {
		return consent.FollowErasures(ctx, store, keyStore.Destroy)
	}})
	p.Server.Mount(consentv1connect.NewKeyServiceHandler(consent.NewKeyHandler(keyStore, store, p.Authorizer, nil), p.Server.Options()...))
	return nil
}
