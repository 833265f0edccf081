package distributed

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	serve "github.com/probity-health/probity/services/assembly"
	worker "github.com/probity-health/probity/workflows/assembly"
)

func TestTheDocumentedExamplesAreConfigurations(t *testing.T) {
	read := map[string]func(string) (serve.IdentityConfig, error){
		"ledger.yaml":   strictly(func(c *serve.LedgerConfig) serve.IdentityConfig { return c.Identity }),
		"consent.yaml":  strictly(func(c *serve.ConsentConfig) serve.IdentityConfig { return c.Identity }),
		"policies.yaml": strictly(func(c *serve.PoliciesConfig) serve.IdentityConfig { return c.Identity }),
		"claims.yaml":   strictly(func(c *serve.ClaimsConfig) serve.IdentityConfig { return c.Identity }),
		"gateway.yaml":  strictly(func(c *serve.GatewayConfig) serve.IdentityConfig { return c.Identity }),
		"worker.yaml": func(path string) (serve.IdentityConfig, error) {
			c, err := worker.ReadConfig(path)
			return serve.IdentityConfig{ClientID: c.Identity.ClientID}, err
		},
	}
	files, err := os.ReadDir(examples)
	require.NoError(t, err)
	accounts := map[string]string{}
	for _, f := range files {
		t.Run(f.Name(), func(t *testing.T) {
			require.Contains(t, read, f.Name(), "an example that nothing reads")
			id, err := read[f.Name()](filepath.Join(examples, f.Name()))
			require.NoError(t, err)
			require.NotContains(t, accounts, id.ClientID, "two services share an account")
			accounts[id.ClientID] = f.Name()
		})
	}
	require.Len(t, files, len(read))
}

func strictly[C any](identity func(*C) serve.IdentityConfig) func(string) (serve.IdentityConfig, error) {
	return func(path string) (serve.IdentityConfig, error) {
		var c C
		err := serve.ReadConfig(path, &c)
		return identity(&c), err
	}
}
