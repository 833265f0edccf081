package heap

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheHeapStaysAtItsFloorAndDoublesAboveIt(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, floor uint64
		percent     int
	}{
		{0, 1024 * mib, 1000},         // nothing was collected yet
		{20 * mib, 1024 * mib, 1000},  // in measure, though the floor is far
		{256 * mib, 1024 * mib, 300},  // to 1024
		{512 * mib, 1024 * mib, 100},  //
		{640 * mib, 1024 * mib, 60},   //
		{900 * mib, 1024 * mib, 50},   // to 1350: from two thirds on memory grows
		{2000 * mib, 1024 * mib, 100}, // Go's own rule
		{200 * mib, 64 * mib, 100},    // a small machine: as if nothing had been set
	} {
		require.Equal(t, c.percent, gcPercent(c.live, c.floor), "%d of %d", c.live, c.floor)
		if bound := memoryLimit(c.live, c.floor, c.floor*8/7); c.live >= c.floor*2/3 {
			require.EqualValues(t, math.MaxInt64, bound, "the collector must find room")
		} else {
			require.EqualValues(t, c.floor*8/7, bound)
			require.Greater(t, uint64(bound), c.live*3/2)
		}
	}
}

func TestMemoryIsReadAsLinuxTellsIt(t *testing.T) {
	require.EqualValues(t, 24105<<10, memTotal([]byte("MemTotal:          24105 kB\nMemFree:  1 kB\n")))
	require.EqualValues(t, 7<<10, memTotal([]byte("Other: 3 kB\nMemTotal: 7 kB\n")))
	for _, none := range []string{"", "MemTotal: many kB\n", "MemTotal: 7 MB\n", "MemTotal: 99999999999999999999 kB\n"} {
		require.Zero(t, memTotal([]byte(none)), none)
	}
}
