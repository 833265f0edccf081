package reconcile_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/e2e/process"
	"github.com/probity-health/probity/e2e/reconcile"
	"github.com/probity-health/probity/services/generate"
	"github.com/probity-health/probity/standalone"
)

func TestMain(m *testing.M) {
	process.Main(m, map[string]process.Program{"standalone": standalone.Main})
}

// Two thousand generated claims through a whole stack: at least 95 % are
// decided without a person, every remittance balances at three levels, and
// the naive model finds no cent and no reason otherwise.
func TestTwoThousandClaimsComeOutAsTheNaiveModelSays(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	world, err := generate.New(generate.Options{Seed: 11, Claims: 2000, AsOf: time.Now().UTC()})
	require.NoError(t, err)
	run := &reconcile.Run{World: world, Clients: stack(ctx, t)}
	require.NoError(t, run.Prepare(ctx))
	got, err := run.Files(ctx)
	require.NoError(t, err)
	require.Empty(t, got.Told)
	require.Zero(t, got.Cents)
	require.Zero(t, got.Reasons)
	require.Equal(t, 2000, got.Claims)
	require.GreaterOrEqual(t, got.AutoDecided(), 0.95)
	require.Greater(t, got.Lines, 2000)
	require.Positive(t, got.Remittances)

	// The auditor has every decision made anew from the ledger.
	replayed, err := run.Replay(ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(got.Paid+got.Denied+got.Pended), replayed)
}

// stack starts a stack in a process of its own.
func stack(ctx context.Context, t *testing.T) standalone.Clients {
	t.Helper()
	home := t.TempDir()
	address := process.Address(t)
	p := process.Start(t, "standalone", []string{"XDG_CONFIG_HOME=" + filepath.Join(home, "config"), "TMPDIR=" + home}, "--data-dir", filepath.Join(home, "data"), "--listen", address)
	require.NoError(t, p.AwaitReady(ctx, "http://"+address+"/readyz"))
	clients, err := standalone.Dial("http://"+address, filepath.Join(home, "data"), "developer")
	require.NoError(t, err)
	t.Cleanup(func() {
		stopping, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, p.Stop(stopping))
	})
	return clients
}
