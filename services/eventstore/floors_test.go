package eventstore

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A floor never falls while it is remembered, the keys used last are, and no
// more are than there is room for.
func TestFloorsNeverFall(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var f floors
		highest := map[routed]uint64{}
		var order []routed
		// So many others between that a key is old, forgotten, or young.
		others := 0
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			if rapid.IntRange(0, 19).Draw(rt, "many") == 0 {
				for range rapid.SampledFrom([]int{100, 100, 100, maxFloors / 2, maxFloors}).Draw(rt, "others") {
					f.raise(routed{"other", fmt.Sprint(others)}, Position{Log: "other", Index: uint64(others)})
					others++
				}
			}
			key := routed{rapid.SampledFrom([]string{"claims", "policies"}).Draw(rt, "log"), fmt.Sprint(rapid.IntRange(0, 4).Draw(rt, "key"))}
			at := Position{Log: key.log, Shard: 3, Index: rapid.Uint64Range(0, 100).Draw(rt, "index")}
			before, known := f.of(key)
			f.raise(key, at)
			got, ok := f.of(key)
			require.True(rt, ok, "what was used last is remembered")
			require.Equal(rt, key.log, got.Log)
			require.Equal(rt, uint32(3), got.Shard)
			want := at.Index
			if known {
				want = max(want, before.Index)
				require.Equal(rt, highest[key], before.Index)
			}
			require.Equal(rt, want, got.Index)
			highest[key], order = want, append(order, key)
			require.LessOrEqual(rt, len(f.young)+len(f.old), maxFloors)
			for _, k := range order[max(0, len(order)-maxFloors/2):] {
				if at, ok := f.of(k); ok {
					require.Equal(rt, highest[k], at.Index)
				}
			}
		}
	})
}

// The keys of the last half of what is remembered are never forgotten.
func TestFloorsKeepWhatWasUsedLast(t *testing.T) {
	var f floors
	for i := range 3 * maxFloors {
		f.raise(routed{"claims", fmt.Sprint(i)}, Position{Log: "claims", Index: uint64(i)})
		if i >= maxFloors/2 && i%997 == 0 {
			_, ok := f.of(routed{"claims", fmt.Sprint(i - maxFloors/2 + 1)})
			require.True(t, ok)
		}
	}
}
