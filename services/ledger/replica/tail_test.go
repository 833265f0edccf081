package replica

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
)

// Whatever readers do, a tail gives the commits of the index asked for, in
// order and without a gap, and holds no more than it may.
func TestATailGivesWhatStandsAtTheIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var held tail
		at := map[uint64]*ledgerv1.Commit{}
		commit := func(index uint64) *ledgerv1.Commit {
			if at[index] == nil {
				at[index] = &ledgerv1.Commit{Index: index}
			}
			return at[index]
		}
		given := map[uint64][]*ledgerv1.Commit{} // what readers still hold
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			from := rapid.Uint64Range(0, 2000).Draw(t, "from")
			if rapid.Bool().Draw(t, "follows") && len(held.commits) > 0 {
				from = held.first + uint64(len(held.commits))
			}
			size := rapid.SampledFrom([]int{1, 4 << 10, 900 << 10}).Draw(t, "size")
			for i := range rapid.Uint64Range(0, 600).Draw(t, "adds") {
				held.add(from+i, commit(from+i), size)
			}
			require.LessOrEqual(t, len(held.commits), tailCommits)
			require.LessOrEqual(t, held.bytes, tailBytes)
			require.Len(t, held.sizes, len(held.commits))
			ask := rapid.Uint64Range(0, 2600).Draw(t, "ask")
			given[ask] = held.from(ask)
			for index, commits := range given {
				for i, c := range commits {
					require.Same(t, at[index+uint64(i)], c)
				}
			}
		}
	})
}

// A reader that begins within the tail and one that begins before it are told
// the same.
func TestReadersOfTheTailAreToldTheSame(t *testing.T) {
	var held tail
	for i := range uint64(10) {
		held.add(100+i, &ledgerv1.Commit{Index: 100 + i}, 1)
	}
	require.Nil(t, held.from(99))
	require.Nil(t, held.from(110))
	require.Equal(t, uint64(104), held.from(104)[0].Index)
	held.add(50, &ledgerv1.Commit{Index: 50}, 1) // somebody who is behind
	require.Len(t, held.from(100), 10)
	held.add(200, &ledgerv1.Commit{Index: 200}, 1) // what came between was read by nobody
	require.Nil(t, held.from(100))
	require.Len(t, held.from(200), 1)
}
