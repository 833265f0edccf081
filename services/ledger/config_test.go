package ledger_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/receipt"
)

func TestAConfigurationIsReadStrictly(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "keys", "ledger.key")
	_, err := ledger.EnsureKey(key, "ledger.test/a")
	require.NoError(t, err)
	good := ledger.Config{Origin: "ledger.test/a", Brokers: []string{"127.0.0.1:1"}, DataDir: dir, SigningKeyFile: key}
	for want, spoil := range map[string]func(c *ledger.Config){
		"Origin":        func(c *ledger.Config) { c.Origin = "has spaces" },
		"Brokers":       func(c *ledger.Config) { c.Brokers = nil },
		"host:port":     func(c *ledger.Config) { c.Brokers = []string{"nohost"} },
		"DataDir":       func(c *ledger.Config) { c.DataDir = "" },
		"SigningKey":    func(c *ledger.Config) { c.SigningKeyFile = "" },
		"BlockInterval": func(c *ledger.Config) { c.BlockInterval = time.Hour },
		"TopicPrefix":   func(c *ledger.Config) { c.TopicPrefix = "a/b" },
		"own":           func(c *ledger.Config) { c.Logs = map[string]int{"blocks": 1} },
		"no shards":     func(c *ledger.Config) { c.Logs = map[string]int{"claims": 0} },
		"1024":          func(c *ledger.Config) { c.Logs = map[string]int{"claims": 1025} },
		"Replication":   func(c *ledger.Config) { c.Replication = -1 },
		"is named":      func(c *ledger.Config) { c.Origin = "ledger.test/other" },
	} {
		c := good
		spoil(&c)
		_, err := ledger.Open(within(t), c)
		require.ErrorContains(t, err, want)
	}
}

func TestAKeyIsMadeOnceAndKeptPrivate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger.key")
	vkey, err := ledger.EnsureKey(file, "ledger.test/a")
	require.NoError(t, err)
	again, err := ledger.EnsureKey(file, "ledger.test/a")
	require.NoError(t, err)
	require.Equal(t, vkey, again)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	key, err := receipt.ParseSigningKey(string(raw[:len(raw)-1]))
	require.NoError(t, err)
	require.Equal(t, vkey, key.Public().String())

	require.NoError(t, os.Chmod(file, 0o644))
	_, err = ledger.EnsureKey(file, "ledger.test/a")
	require.ErrorContains(t, err, "chmod 600")
}
