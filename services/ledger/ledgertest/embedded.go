package ledgertest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/probity-health/probity/services/ledger"
)

// Origin is the name of every test world's ledger.
const Origin = "ledger.test/health"

// Installation is a World on brokers that somebody else runs.
type Installation struct {
	Config ledger.Config
}

// NewInstallation returns a world of its own on brokers: prefix, which begins
// its topics' names, must be no other's.
func NewInstallation(t *testing.T, prefix string, brokers ...string) *Installation {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	_, err := ledger.EnsureKey(key, Origin)
	require.NoError(t, err)
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	return &Installation{Config: ledger.Config{
		Origin: Origin, Brokers: brokers, TopicPrefix: prefix,
		Logs:    map[string]int{"policies": 1, "claims": 4, "consent": 1},
		DataDir: filepath.Join(dir, "data"), SigningKeyFile: key,
		BlockInterval: 20 * time.Millisecond, Logger: logger,
	}}
}

// Embedded is a World on the embedded broker, which persists and syncs.
type Embedded struct {
	*Installation
	Broker *kfake.Cluster
}

// NewEmbedded returns a world of its own; options are the broker's, besides
// those that make it persist and sync.
func NewEmbedded(t *testing.T, options ...kfake.Opt) *Embedded {
	t.Helper()
	broker, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.SyncWrites()}, options...)...)
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	return &Embedded{Installation: NewInstallation(t, "test", broker.ListenAddrs()...), Broker: broker}
}

// Origin implements World.
func (w *Installation) Origin() string { return Origin }

// Forget implements World.
func (w *Installation) Forget(t *testing.T) { require.NoError(t, os.RemoveAll(w.Config.DataDir)) }

// Start implements World.
func (w *Installation) Start(t *testing.T) Node { return w.Open(t, w.Config) }

// Open opens a node with a configuration and waits until it's ready.
func (w *Installation) Open(t *testing.T, cfg ledger.Config) *ledger.Node {
	t.Helper()
	n, err := ledger.Open(ctxOf(t), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		// The test's own context has ended by now.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = n.Close(ctx)
	})
	require.Eventually(t, func() bool { return n.Ready(t.Context()) == nil }, patience, 5*time.Millisecond)
	return n
}
