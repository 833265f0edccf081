package distributed

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/probity-health/probity/e2e/process"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	serve "github.com/probity-health/probity/services/assembly"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/identity/issuer"
	"github.com/probity-health/probity/services/server"
	worker "github.com/probity-health/probity/workflows/assembly"
)

const (
	examples = "../../docs/how-to/examples"
	origin   = "ledger.example/distributed"
	// patience bounds every wait; nothing here takes that long on a machine that works.
	patience = 2 * time.Minute
	// drainTimeout is so long that a process which only stops when it is over fails the test.
	drainTimeout = server.Duration(10 * time.Minute)
)

// services in the order of the floors; each is a process, signs in as
// "svc-<name>" and is configured by the example of its name.
var services = []string{"ledger", "consent", "policies", "claims", "gateway", "worker"}

// stack is one installation.
type stack struct {
	t         *testing.T
	dir       string
	authority *authority
	http      *http.Client
	address   map[string]string // host:port by role
	config    map[string]string // file by role
	running   map[string]*process.Process
	all       []*process.Process // also those that were killed
	ledgers   *balancer          // in front of the ledger's nodes
}

// newStack writes an installation's files and starts its processes. Each
// configuration is the documented example with this machine's names in it.
func newStack(t *testing.T) *stack {
	t.Helper()
	redis := redisServer(t)
	dir := t.TempDir()
	s := &stack{
		t: t, dir: dir, authority: newAuthority(t, filepath.Join(dir, "tls")),
		address: map[string]string{}, config: map[string]string{}, running: map[string]*process.Process{},
	}
	s.http = s.authority.client()
	for _, role := range append([]string{"kafka", "temporal", "issuer", "redis", "ledger-2"}, services...) {
		s.address[role] = process.Address(t)
	}
	s.dependencies()
	s.ledgers = newBalancer(t, s.http, s.address["ledger"], s.address["ledger-2"])

	s.running["redis"] = process.StartProgram(t, redis, s.config["redis"])
	for _, role := range []string{"kafka", "temporal", "issuer"} {
		s.start(role)
	}
	for _, role := range []string{"kafka", "temporal", "issuer", "redis"} {
		s.listens(role)
	}
	// The issuer has made the clients' secrets by now.
	s.services()
	for _, role := range services {
		s.start(role)
	}
	for _, role := range services {
		s.ready(role)
	}
	return s
}

func redisServer(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil && os.Getenv("PROBITY_REQUIRE_REDIS") != "" {
		t.Fatal("redis-server is required and not installed")
	} else if err != nil {
		t.Skip("SKIPPED, NOTHING TESTED: redis-server is not installed (apt-get install redis-server)")
	}
	return path
}

func (s *stack) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *stack) url(role string) string { return "https://" + s.address[role] }

// secret makes a password file.
func (s *stack) secret(name string) (file, password string) {
	password = rand.Text()
	return write(s.t, s.path("secrets", name), []byte(password+"\n")), password
}

// keygen makes keys as an operator does.
func (s *stack) keygen(args ...string) {
	s.t.Helper()
	p := process.Start(s.t, "probity", nil, append([]string{"keygen"}, args...)...)
	<-p.Done()
	require.NoError(s.t, p.Err(), p.Output())
}

func (s *stack) key(name string) string {
	file := s.path("secrets", name)
	s.keygen("secret", file)
	return file
}

// dependencies configures what an installation brings along.
func (s *stack) dependencies() {
	put := func(role string, d dependency) {
		d.Address = s.address[role]
		d.CertFile, d.KeyFile = s.authority.issue(s.t, role)
		raw, err := json.Marshal(d)
		require.NoError(s.t, err)
		s.config[role] = write(s.t, s.path("config", role+".json"), raw)
	}
	_, password := s.secret("kafka-password")
	put("kafka", dependency{Dir: s.path("kafka"), Username: "probity-ledger", Password: password})
	put("temporal", dependency{Dir: s.path("temporal")})
	principals := issuer.Development("lakeside-billing")
	delete(principals, "service") // each service has an account of its own
	for _, role := range services {
		principals["svc-"+role] = identity.Principal{Subject: "svc-" + role, Org: "probity", Roles: []identity.Role{identity.RoleService}}
	}
	put("issuer", dependency{Dir: s.path("issuer"), URL: s.url("issuer"), Principals: principals})

	_, port, err := net.SplitHostPort(s.address["redis"])
	require.NoError(s.t, err)
	cert, key := s.authority.issue(s.t, "redis")
	_, user := s.secret("redis-password")
	_, admin := s.secret("redis-admin")
	s.config["redis"] = write(s.t, s.path("config", "redis.conf"), fmt.Appendf(nil, `bind 127.0.0.1
port 0
tls-port %s
tls-cert-file %s
tls-key-file %s
tls-ca-cert-file %s
tls-auth-clients no
dir %s
save ""
rdbcompression no
user default off
user probity on >%s ~* resetchannels -@all +@read +@write +@scripting +@connection +@transaction -@dangerous
user admin on >%s ~* +@all
`, port, cert, key, s.authority.file, s.dir, user, admin))
}

// common sets what every service's configuration begins with.
func (s *stack) common(role string, srv *server.Config, client *server.ClientConfig) {
	srv.Address, srv.MetricsAddress, srv.DrainTimeout = s.address[role], "", drainTimeout
	srv.TLS.CertFile, srv.TLS.KeyFile = s.authority.issue(s.t, role)
	client.CAFile = s.authority.file
}

func (s *stack) processConfig(role string, cfg *serve.ProcessConfig) {
	s.common(role, &cfg.Server, &cfg.Client)
	cfg.Identity.Issuer, cfg.Identity.TokenURL, cfg.Identity.CAFile = s.url("issuer"), s.url("issuer")+"/token", s.authority.file
	cfg.Identity.ClientSecretFile = s.path("issuer", cfg.Identity.ClientID+".secret")
}

// configure reads a role's example, lets change put this machine's names in
// and writes the file that the process reads.
func configure[C any](s *stack, role, example string, change func(*C)) {
	s.t.Helper()
	var cfg C
	require.NoError(s.t, serve.ReadConfig(filepath.Join(examples, example+".yaml"), &cfg))
	change(&cfg)
	raw, err := yaml.Marshal(cfg)
	require.NoError(s.t, err)
	s.config[role] = write(s.t, s.path("config", role+".yaml"), raw)
}

func (s *stack) services() {
	ledgerURL, spool := "https://"+s.ledgers.address, s.path("spool")
	require.NoError(s.t, os.MkdirAll(spool, 0o700))
	for _, node := range []string{"ledger", "ledger-2"} {
		configure(s, node, "ledger", func(c *serve.LedgerConfig) {
			s.processConfig(node, &c.ProcessConfig)
			c.Origin, c.NodeName, c.DataDir, c.SignedDir, c.Replication = origin, node, s.path(node), s.path(node+"-signed"), 0
			c.Kafka.Brokers, c.Kafka.CAFile = []string{s.address["kafka"]}, s.authority.file
			c.Kafka.PasswordFile = s.path("secrets", "kafka-password")
			// Two nodes of one party: one key, and each its own data.
			c.SigningKeyFile = s.path("secrets", "ledger-signing-key")
			s.keygen("ledger", c.SigningKeyFile, "--origin", origin)
		})
	}
	configure(s, "consent", "consent", func(c *serve.ConsentConfig) {
		s.processConfig("consent", &c.ProcessConfig)
		c.Ledger, c.KeyDir, c.MasterKeyFile = ledgerURL, s.path("keys"), s.key("master-key")
	})
	configure(s, "policies", "policies", func(c *serve.PoliciesConfig) {
		s.processConfig("policies", &c.ProcessConfig)
		c.Ledger, c.Consent, c.IndexKeyFile = ledgerURL, s.url("consent"), s.key("index-key")
	})
	configure(s, "claims", "claims", func(c *serve.ClaimsConfig) {
		s.processConfig("claims", &c.ProcessConfig)
		c.Ledger, c.Consent, c.IndexKeyFile = ledgerURL, s.url("consent"), s.key("index-key")
		c.Redis.Address, c.Redis.PasswordFile, c.Redis.CAFile = s.address["redis"], s.path("secrets", "redis-password"), s.authority.file
		c.Claims.SpoolDir = spool
	})
	configure(s, "gateway", "gateway", func(c *serve.GatewayConfig) {
		s.processConfig("gateway", &c.ProcessConfig)
		c.Claims, c.Policies, c.Ledger, c.Workflows = s.url("claims"), s.url("policies"), ledgerURL, s.url("worker")
		c.Gateway.SpoolDir = spool
	})
	configure(s, "worker", "worker", func(c *worker.Config) {
		s.common("worker", &c.Server, &c.Client)
		c.Identity.Issuer, c.Identity.TokenURL, c.Identity.CAFile = s.url("issuer"), s.url("issuer")+"/token", s.authority.file
		c.Identity.ClientSecretFile = s.path("issuer", "svc-worker.secret")
		c.Services = worker.ServicesConfig{Gateway: s.url("gateway"), Claims: s.url("claims"), Ledger: ledgerURL}
		// The embedded Temporal speaks without TLS.
		c.Temporal.Address, c.Temporal.TLS, c.Temporal.CAFile = s.address["temporal"], false, ""
		c.Temporal.PayloadKeyFile, c.CursorFile = s.key("payload-key"), s.path("cursor.json")
		// Cycles run when they are asked for; 835s would be health data in clear.
		c.Payments.Dir, c.Payments.Advices, c.Payments.Cycles = s.path("payments"), false, nil
	})
}

// start starts a role's process.
func (s *stack) start(role string) {
	s.t.Helper()
	defer func() { s.all = append(s.all, s.running[role]) }()
	switch role {
	case "kafka", "temporal", "issuer":
		s.running[role] = process.Start(s.t, role, nil, s.config[role])
	case "worker":
		s.running[role] = process.Start(s.t, role, nil, "--config", s.config[role])
	case "ledger-2":
		s.running[role] = process.Start(s.t, "probity", nil, "serve", "ledger", "--config", s.config[role])
	default:
		s.running[role] = process.Start(s.t, "probity", nil, "serve", role, "--config", s.config[role])
	}
}

// listens waits until a role accepts connections.
func (s *stack) listens(role string) {
	s.t.Helper()
	s.await(role, func(ctx context.Context) bool {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address[role])
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// ready waits until a service says that it is.
func (s *stack) ready(role string) {
	s.t.Helper()
	s.await(role, func(ctx context.Context) bool { return isReady(ctx, s.http, s.address[role]) })
}

func isReady(ctx context.Context, client *http.Client, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (s *stack) await(role string, is func(context.Context) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for p := s.running[role]; !is(ctx); {
		select {
		case <-p.Done():
			s.t.Fatalf("%s ended: %v\n%s", role, p.Err(), p.Tail(5))
		case <-ctx.Done():
			s.t.Fatalf("%s is not ready\n%s", role, p.Tail(20))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// clients are a user's, of the gateway's one address.
type clients struct {
	Policies    policiesv1connect.PoliciesServiceClient
	Claims      claimsv1connect.ClaimsServiceClient
	Files       claimsv1connect.FileServiceClient
	Remittances claimsv1connect.RemittanceServiceClient
	Payments    claimsv1connect.PaymentServiceClient
	PayTasks    claimsv1connect.PaymentTaskServiceClient
	Cycles      workflowsv1connect.PaymentCycleServiceClient
	Gateway     gatewayv1connect.GatewayServiceClient
	Adjustments claimsv1connect.AdjustmentServiceClient
	Ledger      ledgerv1connect.LedgerServiceClient
	Workflows   workflowsv1connect.WorkflowServiceClient
}

func (s *stack) as(id string) clients { return s.at(s.url("gateway"), id) }

// at is as at another address than the gateway's.
func (s *stack) at(url, id string) clients {
	s.t.Helper()
	issuing, err := identity.IssuerClient(s.authority.file)
	require.NoError(s.t, err)
	tokens := identity.ClientCredentialsVia(issuing, s.url("issuer")+"/token", id, s.path("issuer", id+".secret"))
	c, err := server.NewClient(server.ClientConfig{CAFile: s.authority.file}, server.ClientDeps{Tokens: tokens})
	require.NoError(s.t, err)
	s.t.Cleanup(c.CloseIdle)
	options := c.Options()
	return clients{
		Policies:    policiesv1connect.NewPoliciesServiceClient(c, url, options...),
		Claims:      claimsv1connect.NewClaimsServiceClient(c, url, options...),
		Files:       claimsv1connect.NewFileServiceClient(c, url, options...),
		Remittances: claimsv1connect.NewRemittanceServiceClient(c, url, options...),
		Payments:    claimsv1connect.NewPaymentServiceClient(c, url, options...),
		PayTasks:    claimsv1connect.NewPaymentTaskServiceClient(c, url, options...),
		Cycles:      workflowsv1connect.NewPaymentCycleServiceClient(c, url, options...),
		Gateway:     gatewayv1connect.NewGatewayServiceClient(c, url, options...),
		Adjustments: claimsv1connect.NewAdjustmentServiceClient(c, url, options...),
		Ledger:      ledgerv1connect.NewLedgerServiceClient(c, url, options...),
		Workflows:   workflowsv1connect.NewWorkflowServiceClient(c, url, options...),
	}
}

// stop sends SIGTERM and wants an orderly end.
func (s *stack) stop(role string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.running[role].Stop(ctx); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", role, err), errors.New(s.running[role].Tail(5)))
	}
	return nil
}

// heads are of the claims log's shards that hold anything.
func (s *stack) heads(t *testing.T) []*ledgerv1.ShardHead {
	t.Helper()
	got := patiently(t, func(ctx context.Context) (*ledgerv1.GetLedgerResponse, error) {
		return s.at(s.url("ledger"), "auditor").Ledger.GetLedger(ctx, &ledgerv1.GetLedgerRequest{})
	})
	return slices.DeleteFunc(got.GetHeads(), func(h *ledgerv1.ShardHead) bool { return h.GetLog() != "claims" || h.GetSize() == 0 })
}

// shows waits until the lists show what the heads hold.
func (s *stack) shows(t *testing.T, as clients, heads []*ledgerv1.ShardHead) {
	t.Helper()
	for _, h := range heads {
		at := eventstore.Position{Log: h.GetLog(), Shard: h.GetShard(), Index: h.GetSize() - 1}
		patiently(t, func(ctx context.Context) (*claimsv1.ListClaimsResponse, error) {
			return as.Claims.ListClaims(ctx, &claimsv1.ListClaimsRequest{PageSize: 1, MinToken: at.Token()})
		})
	}
}
