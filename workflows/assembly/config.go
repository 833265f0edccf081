package assembly

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
	"github.com/probity-health/probity/workflows/codec"
	"github.com/probity-health/probity/workflows/payment"
	"github.com/probity-health/probity/workflows/worker"
)

// Config is the worker's configuration file, YAML with these names; a name
// that isn't here is refused. Secrets are in files of their own.
type Config struct {
	// Server: where WorkflowService, health and metrics listen.
	Server server.Config `json:"server,omitzero"`
	// Telemetry: logs, traces, metrics.
	Telemetry telemetry.Config `json:"telemetry,omitzero"`
	// Identity: whose tokens to believe, and this process's own.
	Identity IdentityConfig `json:"identity"`
	// Client: how to call the services.
	Client server.ClientConfig `json:"client,omitzero"`
	// Services: where they are.
	Services ServicesConfig `json:"services"`
	// Temporal: which server, and how.
	Temporal TemporalConfig `json:"temporal"`
	// CursorFile keeps how far the claims log has been followed, so that a
	// restart needn't read it from the beginning; empty keeps nothing, which
	// is correct and slower.
	CursorFile string `json:"cursorFile,omitempty"`
	// Payments: how providers are paid; without a directory this worker pays nobody.
	Payments PaymentsConfig `json:"payments,omitzero"`
	// Codec is the endpoint by which Temporal's web UI shows payloads to who
	// may see them; absent serves none.
	Codec *codec.Config `json:"codec,omitempty"`
}

// PaymentsConfig of the payment cycles and the file drop that they pay through.
type PaymentsConfig struct {
	// Dir is where a file a payment is left, in outbox/. All workers share it,
	// and it must know hard links. See docs/how-to/pay-providers.md.
	Dir string `json:"dir,omitempty"`
	// AwaitConfirmation leaves payments "sent" until somebody confirms them;
	// otherwise the drop counts as payment.
	AwaitConfirmation bool `json:"awaitConfirmation,omitempty"`
	// Advices leaves each payment's 835 beside it, in advice/. They name patients.
	Advices bool `json:"advices,omitempty"`
	// Cycles are the payers whose cycle runs by itself.
	Cycles []CycleConfig `json:"cycles,omitempty"`
}

// CycleConfig is one payer's schedule.
type CycleConfig struct {
	// Payer id.
	Payer string `json:"payer"`
	// Every is the time between runs, "24h", "168h"; "0s" takes a schedule away.
	Every server.Duration `json:"every"`
	// Offset is the time after the multiple of Every since the Unix epoch, UTC:
	// every 24h at 2h is two in the morning; weeks begin on Thursdays.
	Offset server.Duration `json:"offset,omitempty"`
}

// scheduled turns the configuration into what payment.KeepSchedules wants.
func (c PaymentsConfig) scheduled() []payment.Scheduled {
	var out []payment.Scheduled
	for _, cycle := range c.Cycles {
		out = append(out, payment.Scheduled{PayerID: cycle.Payer, Schedule: payment.Schedule{
			Every: time.Duration(cycle.Every), Offset: time.Duration(cycle.Offset),
		}})
	}
	return out
}

func (c PaymentsConfig) check() error {
	if c.Dir == "" && (len(c.Cycles) > 0 || c.Advices || c.AwaitConfirmation) {
		return errors.New("payments has settings and no dir")
	}
	seen := map[string]bool{}
	for _, cycle := range c.Cycles {
		switch {
		case cycle.Payer == "" || len(cycle.Payer) > 80:
			return errors.New("payments.cycles: a payer's id has 1 to 80 characters")
		case seen[cycle.Payer]:
			return fmt.Errorf("payments.cycles: payer %s is there twice", cycle.Payer)
		case cycle.Every < 0 || (cycle.Every > 0 && time.Duration(cycle.Every) < time.Minute):
			return fmt.Errorf("payments.cycles: payer %s: every is at least a minute, or 0s", cycle.Payer)
		case cycle.Offset < 0 || (cycle.Every > 0 && cycle.Offset >= cycle.Every):
			return fmt.Errorf("payments.cycles: payer %s: offset is less than every", cycle.Payer)
		}
		seen[cycle.Payer] = true
	}
	return nil
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
	// TokenURL, ClientID and ClientSecretFile give this process its own tokens by client credentials.
	TokenURL         string `json:"tokenURL"`
	ClientID         string `json:"clientID"`
	ClientSecretFile string `json:"clientSecretFile"`
}

// ServicesConfig holds base URLs, "http://claims:8080".
type ServicesConfig struct {
	Gateway string `json:"gateway"` // GatewayService
	Claims  string `json:"claims"`  // ClaimsService, FileService, RemittanceService
	Ledger  string `json:"ledger"`  // LedgerService
}

// TemporalConfig of the workflow engine.
type TemporalConfig struct {
	// Address of the frontend; default 127.0.0.1:7233.
	Address string `json:"address,omitempty"`
	// Namespace; default "probity". probity-worker setup makes it.
	Namespace string `json:"namespace,omitempty"`
	// RetentionDays for setup: how long ended workflows are kept; default 90.
	RetentionDays int `json:"retentionDays,omitempty"`
	// TaskQueue; default "probity".
	TaskQueue string `json:"taskQueue,omitempty"`
	// TLS on; CAFile replaces the system's authorities, CertFile and KeyFile
	// show a client certificate, ServerName checks another name than the address.
	TLS        bool   `json:"tls,omitempty"`
	CAFile     string `json:"caFile,omitempty"`
	CertFile   string `json:"certFile,omitempty"`
	KeyFile    string `json:"keyFile,omitempty"`
	ServerName string `json:"serverName,omitempty"`
	// APIKeyFile holds an API key; it is read at every call, so it may be
	// rotated. APIKeyEnv names an environment variable that holds it instead.
	APIKeyFile string `json:"apiKeyFile,omitempty"`
	APIKeyEnv  string `json:"apiKeyEnv,omitempty"`
	// PayloadKeyFile holds the key that seals what Temporal stores: 32 bytes in base64.
	PayloadKeyFile string `json:"payloadKeyFile"`
	// PreviousPayloadKeyFiles hold keys that still open what they sealed.
	PreviousPayloadKeyFiles []string `json:"previousPayloadKeyFiles,omitempty"`
	// MaxActivities at once; default 32. Each is one call to a service.
	MaxActivities int `json:"maxActivities,omitempty"`
	// DeploymentName turns on worker deployments, by which Temporal keeps
	// builds apart; empty is unversioned. BuildID of this build; default the
	// revision of the sources that the binary was built from.
	DeploymentName string `json:"deploymentName,omitempty"`
	BuildID        string `json:"buildID,omitempty"`
}

// maxConfigBytes bounds the file; a configuration is a page, not a book.
const maxConfigBytes = 1 << 20

// ReadConfig reads the file strictly and sets the defaults.
func ReadConfig(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	if info.Size() > maxConfigBytes {
		return Config{}, fmt.Errorf("configuration %s is larger than %d bytes", path, maxConfigBytes)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	cfg, err := parseConfig(raw)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return cfg, nil
}

func parseConfig(raw []byte) (Config, error) {
	var cfg Config
	if err := yaml.UnmarshalStrict(raw, &cfg); err != nil {
		return Config{}, err
	}
	cfg.Telemetry.Service = "worker"
	if cfg.Temporal.Namespace == "" {
		cfg.Temporal.Namespace = "probity"
	}
	if cfg.Temporal.TaskQueue == "" {
		cfg.Temporal.TaskQueue = worker.TaskQueue
	}
	var missing []string
	for _, need := range []struct{ name, value string }{
		{"identity.issuer", cfg.Identity.Issuer}, {"identity.tokenURL", cfg.Identity.TokenURL},
		{"identity.clientID", cfg.Identity.ClientID}, {"identity.clientSecretFile", cfg.Identity.ClientSecretFile},
		{"services.gateway", cfg.Services.Gateway}, {"services.claims", cfg.Services.Claims}, {"services.ledger", cfg.Services.Ledger},
		{"temporal.payloadKeyFile", cfg.Temporal.PayloadKeyFile},
	} {
		if need.value == "" {
			missing = append(missing, need.name)
		}
	}
	if len(missing) > 0 {
		return Config{}, fmt.Errorf("required and absent: %s", strings.Join(missing, ", "))
	}
	for name, base := range map[string]string{
		"gateway": cfg.Services.Gateway, "claims": cfg.Services.Claims, "ledger": cfg.Services.Ledger,
	} {
		if u, err := url.Parse(base); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return Config{}, fmt.Errorf("services.%s is not a base URL like http://%s:8080", name, name)
		}
	}
	if cfg.Codec != nil {
		if err := cfg.Codec.Check(); err != nil {
			return Config{}, err
		}
	}
	if t := cfg.Temporal; !t.TLS && (t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" || t.ServerName != "") {
		return Config{}, errors.New("temporal.tls is off and yet has settings")
	}
	if err := cfg.Payments.check(); err != nil {
		return Config{}, err
	}
	if t := cfg.Temporal; (t.APIKeyFile != "" || t.APIKeyEnv != "") && !t.TLS {
		return Config{}, errors.New("temporal.apiKeyFile or apiKeyEnv would be sent in clear: turn temporal.tls on")
	}
	if t := cfg.Temporal; t.APIKeyFile != "" && t.APIKeyEnv != "" {
		return Config{}, errors.New("temporal.apiKeyFile and temporal.apiKeyEnv are two places for one key: name one")
	}
	if t := cfg.Temporal; t.BuildID != "" && t.DeploymentName == "" {
		return Config{}, errors.New("temporal.buildID is nothing without temporal.deploymentName")
	}
	if d := cfg.Temporal.RetentionDays; d < 0 || d > 3650 {
		return Config{}, errors.New("temporal.retentionDays is outside 1 to 3650")
	}
	if cfg.Temporal.DeploymentName != "" && cfg.Temporal.BuildID == "" {
		id, err := worker.BuildID()
		if err != nil {
			return Config{}, err
		}
		cfg.Temporal.BuildID = id
	}
	return cfg, nil
}

// Connection turns the configuration into what worker.Dial wants. It reads the
// keys and certificates named, so that what is wrong with them shows at once.
func (t TemporalConfig) Connection() (worker.Connection, error) {
	keys, err := worker.ReadKeys(t.PayloadKeyFile, t.PreviousPayloadKeyFiles...)
	if err != nil {
		return worker.Connection{}, err
	}
	c := worker.Connection{HostPort: t.Address, Namespace: t.Namespace, Keys: keys}
	if t.APIKeyEnv != "" {
		if os.Getenv(t.APIKeyEnv) == "" {
			return worker.Connection{}, fmt.Errorf("temporal.apiKeyEnv: the environment has no %s", t.APIKeyEnv)
		}
		c.APIKey = func(context.Context) (string, error) { return os.Getenv(t.APIKeyEnv), nil }
	}
	if t.APIKeyFile != "" {
		c.APIKey = func(context.Context) (string, error) {
			raw, err := os.ReadFile(t.APIKeyFile)
			return strings.TrimSpace(string(raw)), err
		}
	}
	if !t.TLS {
		return c, nil
	}
	c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return worker.Connection{}, fmt.Errorf("temporal.caFile: %w", err)
		}
		c.TLS.RootCAs = x509.NewCertPool()
		if !c.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return worker.Connection{}, fmt.Errorf("temporal.caFile %s holds no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			return worker.Connection{}, fmt.Errorf("temporal.certFile and keyFile: %w", err)
		}
		// Read anew at each connection, so that a renewed certificate is used.
		c.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			return &pair, err
		}
	}
	return c, nil
}
