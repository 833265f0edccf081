package assembly

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/workflows/payment"
)

func example(t testing.TB) string {
	raw, err := os.ReadFile("../../docs/how-to/examples/worker.yaml")
	require.NoError(t, err)
	return string(raw)
}

func TestTheExampleIsAConfigurationAndItsDefaultsAreSet(t *testing.T) {
	cfg, err := parseConfig([]byte(example(t)))
	require.NoError(t, err)
	require.Equal(t, "probity", cfg.Temporal.Namespace)
	require.Equal(t, "probity", cfg.Temporal.TaskQueue)
	require.Equal(t, "worker", cfg.Telemetry.Service)
	require.Equal(t, []payment.Scheduled{{PayerID: "KEYSTONE", Schedule: payment.Schedule{Every: 24 * time.Hour, Offset: 2 * time.Hour}}}, cfg.Payments.scheduled())
}

func TestAWrongConfigurationIsRefusedByName(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"a name misspelt":        {"payloadKeyFile", "payloadKeyfil", "payloadKeyfil"},
		"a name twice":           {"cursorFile:", "services: {}\ncursorFile:", "services"},
		"a required one absent":  {"  claims: https://claims.example:8443\n", "", "services.claims"},
		"a URL without a scheme": {"https://ledger.example:8443", "ledger.example:8443", "services.ledger"},
		"TLS settings without":   {"  tls: true\n", "", "temporal.tls"},
		"a cycle too often":      {"every: 24h", "every: 1s", "at least a minute"},
		"a cycle past its end":   {"offset: 2h", "offset: 25h", "offset"},
		"payments nowhere":       {"  dir: /var/lib/probity/payments # shared by all workers\n", "", "payments"},
		"no origin":              {"https://temporal-ui.example]", "https://temporal-ui.example/]", "codec.origins"},
		"two API keys":           {"  tls: true\n", "  tls: true\n  apiKeyFile: x\n  apiKeyEnv: X\n", "one key"},
		"a build of nothing":     {"  tls: true\n", "  tls: true\n  buildID: x\n", "temporal.deploymentName"},
		"an unheard-of time":     {"  tls: true\n", "  tls: true\n  retentionDays: -1\n", "temporal.retentionDays"},
		"an API key in clear":    {"  tls: true\n  caFile: /run/probity/ca.pem\n", "  apiKeyFile: x\n", "temporal.apiKeyFile"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(example(t), c.old, c.new, 1)
			require.NotEqual(t, example(t), text)
			_, err := parseConfig([]byte(text))
			require.ErrorContains(t, err, c.says)
		})
	}
}

func FuzzParsingAConfiguration(f *testing.F) {
	f.Add([]byte(example(f)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if cfg, err := parseConfig(raw); err == nil {
			require.NotEmpty(t, cfg.Temporal.PayloadKeyFile)
			require.NotEmpty(t, cfg.Services.Ledger)
		}
	})
}

func TestAProcessStartsWaitsAndStopsWithEverythingAway(t *testing.T) {
	// Given a worker whose Temporal, services and issuer are all away.
	dir := t.TempDir()
	key, secret := filepath.Join(dir, "key"), filepath.Join(dir, "secret")
	_, err := keys.GenerateKeyFile(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(secret, []byte("s"), 0o600))
	cfg, err := parseConfig([]byte(example(t)))
	require.NoError(t, err)
	const nowhere = "http://127.0.0.1:1"
	cfg.Server, cfg.Client = server.Config{Address: "127.0.0.1:0"}, server.ClientConfig{}
	cfg.Identity.CAFile, cfg.Temporal.TLS, cfg.Temporal.CAFile = "", false, ""
	cfg.Identity.Issuer, cfg.Identity.TokenURL, cfg.Identity.ClientSecretFile = nowhere, nowhere, secret
	cfg.Services = ServicesConfig{Gateway: nowhere, Claims: nowhere, Ledger: nowhere}
	cfg.Temporal.Address, cfg.Temporal.PayloadKeyFile = "127.0.0.1:1", key
	cfg.CursorFile = filepath.Join(dir, "cursor.json")
	cfg.Payments.Dir = filepath.Join(dir, "payments")
	cfg.Telemetry.LogLevel = "error"
	p, err := assemble(t.Context(), cfg)
	require.NoError(t, err)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.run(ctx) }()
	address, err := p.server.Address(ctx)
	require.NoError(t, err)

	// Then it is alive, not ready, and names what it waits for.
	status := func(path string) (int, string) {
		r, err := http.Get("http://" + address.String() + path)
		require.NoError(t, err)
		defer r.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		return r.StatusCode, b.String()
	}
	code, _ := status("/healthz")
	require.Equal(t, http.StatusOK, code)
	code, body := status("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "temporal")
	require.Contains(t, body, "follower")

	// And it stops when told to.
	stop()
	require.NoError(t, <-ended)
}

func TestACommandLineThatMakesNoSenseIsSaidSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "worker.yaml")
	require.NoError(t, os.WriteFile(path, []byte(example(t)), 0o600))
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a sound configuration":  {[]string{"--config", path, "--check"}, 0, ""},
		"of setup too":           {[]string{"setup", "--config", path, "--check"}, 0, ""},
		"an unknown command":     {[]string{"--config", path, "stop"}, 2, `"stop" is no command`},
		"an unknown flag":        {[]string{"setup", "--force"}, 2, "-force"},
		"no configuration":       {[]string{"setup", "--config", path + ".absent"}, 1, "worker.yaml.absent"},
		"a key that isn't there": {[]string{"setup", "--config", path}, 1, "payload-key"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			require.Equal(t, c.code, Command(t.Context(), c.args, &out, &errs), errs.String())
			require.Contains(t, errs.String(), c.says)
			require.Empty(t, out.String())
		})
	}
}
