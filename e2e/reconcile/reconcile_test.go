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
// the naive model finds no cent and no reason otherwise, also when some are
// corrected and coverages end late.
func TestTwoThousandClaimsComeOutAsTheNaiveModelSays(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	world, err := generate.New(generate.Options{Seed: 11, Claims: 2000, AsOf: time.Now().UTC()})
	require.NoError(t, err)
	as := stack(ctx, t)
	run := &reconcile.Run{World: world, Clients: as("developer"), Service: as("service")}
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

	// Files bring replacements and voids, the sponsor ends coverages back.
	adjusted, err := run.Adjust(ctx)
	require.NoError(t, err)
	require.Empty(t, adjusted.Told)
	require.Zero(t, adjusted.Cents)
	require.Zero(t, adjusted.Reasons)
	require.Greater(t, adjusted.Corrections, 20)
	require.Positive(t, adjusted.Terminations)

	// The auditor has every decision made anew from the ledger.
	replayed, err := run.Replay(ctx)
	require.NoError(t, err)
	require.Greater(t, replayed, uint64(got.Paid+got.Denied+got.Pended))
}

// stack starts a stack in a process of its own and signs in to it.
func stack(ctx context.Context, t *testing.T) (as func(id string) standalone.Clients) {
	t.Helper()
	home := t.TempDir()
	address := process.Address(t)
	p := process.Start(t, "standalone", []string{"XDG_CONFIG_HOME=" + filepath.Join(home, "config"), "TMPDIR=" + home}, "--data-dir", filepath.Join(home, "data"), "--listen", address)
	require.NoError(t, p.AwaitReady(ctx, "http://"+address+"/readyz"))
	t.Cleanup(func() {
		stopping, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, p.Stop(stopping))
	})
	return func(id string) standalone.Clients {
		clients, err := standalone.Dial("http://"+address, filepath.Join(home, "data"), id)
		require.NoError(t, err)
		return clients
	}
}
