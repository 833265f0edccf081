package replica

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/ledger/tiles"
)

// A table of names is a map, whatever its hashes.
func TestNamesAreNumberedOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var table names
		want := map[string]int{}
		bits := rapid.SampledFrom([]uint64{0, 3, 1 << 40, ^uint64(0)}).Draw(rt, "bits of a hash that are used")
		h := newHashes()
		hash := func(name string) uint64 { return h.stream(name) & bits }
		for range rapid.IntRange(0, 300).Draw(rt, "steps") {
			name := rapid.StringMatching(`[a-c]{0,4}`).Draw(rt, "name")
			n, ok := table.find(hash(name), name)
			at, known := want[name]
			require.Equal(rt, known, ok)
			if known {
				require.Equal(rt, at, n)
			}
			if rapid.Bool().Draw(rt, "add") {
				n, fresh := table.add(hash(name), name)
				require.Equal(rt, !known, fresh)
				if !known {
					want[name] = len(want)
				}
				require.Equal(rt, want[name], n)
			}
			if rapid.IntRange(0, 40).Draw(rt, "reset") == 0 {
				table.reset()
				clear(want)
			}
		}
		require.Equal(rt, len(want), table.len())
	})
}

// What runs behind its caller is waited for, and how it ended is told once.
func TestWhatRunsBehindTellsHowItEnded(t *testing.T) {
	var b behind
	require.NoError(t, b.wait())
	goOn, failed := make(chan struct{}), errors.New("the disk is full")
	require.NoError(t, b.start(tiles.Disk{}, func() error { <-goOn; return failed }))
	require.True(t, b.busy())
	require.NoError(t, b.result(), "not yet")
	close(goOn)
	require.ErrorIs(t, b.wait(), failed)
	require.NoError(t, b.wait())
	require.False(t, b.busy())
	require.ErrorIs(t, b.start(tiles.Disk{Serial: true}, func() error { return failed }), failed, "one operation at a time")
	require.False(t, b.busy())
}
