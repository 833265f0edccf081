package sim

import (
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/tiles"
)

func BenchmarkOpenStore(b *testing.B) {
	d := newDisk("/store", rand.New(rand.NewPCG(1, 1)))
	for b.Loop() {
		s, err := replica.OpenStoreOn(tiles.Disk{FS: d, Serial: true}, "/store", slog.New(slog.DiscardHandler))
		require.NoError(b, err)
		require.NoError(b, s.Sync())
		require.NoError(b, s.Close())
	}
}
