// Package assembly builds a service from its configuration: opens clients,
// mounts handlers, starts followers, and takes all of it down in order. It
// holds no rule of any domain. `probity serve` assembles one service a
// process; standalone assembles all of them into one.
package assembly

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/yaml"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

// ProcessConfig is what every service's configuration begins with.
type ProcessConfig struct {
	// Server: where to listen, TLS, limits.
	Server server.Config `json:"server,omitzero"`
	// Telemetry: logs, traces, metrics.
	Telemetry telemetry.Config `json:"telemetry,omitzero"`
	// Identity: whose tokens to believe, and this process's own.
	Identity IdentityConfig `json:"identity"`
	// Client: how to call other services.
	Client server.ClientConfig `json:"client,omitzero"`
}

// IdentityConfig names the OIDC issuer and this process's client credentials.
type IdentityConfig struct {
	// Issuer is the exact "iss" of tokens to accept.
	Issuer string `json:"issuer"`
	// JWKSURL replaces discovery when the issuer has another name inside a cluster.
	JWKSURL string `json:"jwksURL,omitempty"`
	// Audience of tokens to accept; default "probity".
	Audience string `json:"audience,omitempty"`
	// CAFile (PEM) replaces the system's authorities for calls to the issuer.
	CAFile string `json:"caFile,omitempty"`
	// TokenURL gives this process its own tokens by client credentials.
	TokenURL string `json:"tokenURL"`
	// ClientID and ClientSecretFile are the credentials.
	ClientID         string `json:"clientID"`
	ClientSecretFile string `json:"clientSecretFile"`
}

// RedisConfig of the views' store.
type RedisConfig struct {
	// Address, host:port.
	Address string `json:"address"`
	// Username and PasswordFile; empty for none.
	Username     string `json:"username,omitempty"`
	PasswordFile string `json:"passwordFile,omitempty"`
	// TLS on; CAFile replaces the system's authorities.
	TLS    bool   `json:"tls,omitempty"`
	CAFile string `json:"caFile,omitempty"`
	// DB number; default 0.
	DB int `json:"db,omitempty"`
}

// ReadConfig reads a YAML file into cfg, refusing fields it doesn't know.
func ReadConfig(path string, cfg any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(raw, cfg); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

// Process is the chassis of one operating-system process.
type Process struct {
	Telemetry  *telemetry.Telemetry
	Server     *server.Server
	Authorizer *identity.Authorizer
	// Tokens are this process's own.
	Tokens identity.TokenSource
	// URL at which this process answers, when its services call each other
	// there: such calls then stay inside it. Nil otherwise; set before clients are made.
	URL    *url.URL
	client server.ClientConfig
	parts  []Part
}

// Part is something that runs beside the server until it is closed.
type Part struct {
	Name string
	// Run blocks until ctx ends or it fails, and either ends the process; nil for a part that only closes.
	Run func(ctx context.Context) error
	// Drain tells the part, when the drain begins, to end the streams it
	// feeds: they have no end of their own and would hold the drain up. It
	// must not block; nil for none.
	Drain func()
	// Close releases what the part holds, after the server has drained; nil for none.
	Close func(ctx context.Context) error
}

// NewProcess sets up telemetry, identity and the server of a service.
func NewProcess(ctx context.Context, name string, cfg ProcessConfig) (*Process, error) {
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
	if cfg.Identity.TokenURL == "" || cfg.Identity.ClientID == "" || cfg.Identity.ClientSecretFile == "" {
		return nil, errors.New("configuration: identity.tokenURL, clientID and clientSecretFile are required")
	}
	tokens := identity.ClientCredentialsVia(issuer, cfg.Identity.TokenURL, cfg.Identity.ClientID, cfg.Identity.ClientSecretFile)
	return NewProcessWith(ctx, name, cfg, verifier, tokens)
}

// NewProcessWith is NewProcess with an issuer that runs in this process.
func NewProcessWith(ctx context.Context, name string, cfg ProcessConfig, verifier server.Verifier, tokens identity.TokenSource) (*Process, error) {
	cfg.Telemetry.Service = name
	tel, err := telemetry.Setup(ctx, cfg.Telemetry)
	if err != nil {
		return nil, err
	}
	srv, err := server.New(cfg.Server, server.Deps{Telemetry: tel, Verifier: verifier})
	if err != nil {
		return nil, err
	}
	authorizer, err := identity.NewAuthorizer()
	if err != nil {
		return nil, err
	}
	return &Process{Telemetry: tel, Server: srv, Authorizer: authorizer, Tokens: tokens, client: cfg.Client}, nil
}

// Own returns a client whose calls carry this process's token.
func (p *Process) Own() (*server.Client, error) { return p.clientWith(p.Tokens) }

// OnBehalf returns a client whose calls carry the caller's token where the
// context has one, and this process's otherwise.
func (p *Process) OnBehalf() (*server.Client, error) {
	return p.clientWith(identity.CallerOr(p.Tokens))
}

func (p *Process) clientWith(tokens identity.TokenSource) (*server.Client, error) {
	deps := server.ClientDeps{Tokens: tokens, Telemetry: p.Telemetry}
	if p.URL != nil {
		deps.Inside, deps.InsideURL = p.Server, p.URL
	}
	return server.NewClient(p.client, deps)
}

// Add registers a part; parts start in order and close in reverse.
func (p *Process) Add(part Part) { p.parts = append(p.parts, part) }

// Run serves on the configured address until ctx ends or a part fails. Then
// followers stop following while the server lets running requests end, and
// last the parts close in reverse, so that no request finds its part gone.
func (p *Process) Run(ctx context.Context) error { return p.run(ctx, p.Server.Run) }

// Serve is Run on a listener of the caller's.
func (p *Process) Serve(ctx context.Context, listener net.Listener) error {
	return p.run(ctx, func(ctx context.Context) error { return p.Server.Serve(ctx, listener) })
}

func (p *Process) run(ctx context.Context, serve func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running errgroup.Group
	parts := p.parts
	for _, part := range parts {
		if part.Run == nil {
			continue
		}
		running.Go(func() error {
			err := part.Run(ctx)
			if ctx.Err() != nil {
				return nil // it was told to end; how it did is in the log
			}
			stop()
			if err == nil {
				err = errors.New("it ended by itself")
			}
			return fmt.Errorf("%s: %w", part.Name, err)
		})
	}
	defer context.AfterFunc(ctx, func() {
		for _, part := range parts {
			if part.Drain != nil {
				part.Drain()
			}
		}
	})()
	err := serve(ctx)
	stop()
	return errors.Join(err, running.Wait(), p.Close())
}

// closeTimeout bounds how long all parts together may take to close.
const closeTimeout = 15 * time.Second

// Close closes the parts in reverse order; Run does it by itself.
func (p *Process) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for i := len(p.parts) - 1; i >= 0; i-- {
		if stop := p.parts[i].Close; stop != nil {
			if err := stop(ctx); err != nil {
				errs = append(errs, fmt.Errorf("close %s: %w", p.parts[i].Name, err))
			}
		}
	}
	p.parts = nil
	return errors.Join(append(errs, p.Telemetry.Shutdown(ctx))...)
}

// openRedis makes a client of the views' store; it connects lazily.
func openRedis(cfg RedisConfig) (*redis.Client, error) {
	if cfg.Address == "" {
		return nil, errors.New("configuration: redis.address is required")
	}
	o := &redis.Options{Addr: cfg.Address, Username: cfg.Username, DB: cfg.DB}
	if cfg.PasswordFile != "" {
		raw, err := os.ReadFile(cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("configuration: redis.passwordFile: %w", err)
		}
		o.Password = strings.TrimSpace(string(raw))
	}
	if cfg.TLS {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if cfg.CAFile != "" {
			pool, err := authorities(cfg.CAFile)
			if err != nil {
				return nil, err
			}
			o.TLSConfig.RootCAs = pool
		}
	}
	return redis.NewClient(o), nil
}

func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("configuration: %s holds no certificate", file)
	}
	return pool, nil
}
