package replica

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// Given a tree trimmed at a block, when roots are asked for sizes ahead and
// then back at the block, then each is the root of all leaves there.
func TestStateRootsDoNotDependOnWhatWasAskedBefore(t *testing.T) {
	leaf := func(i int) receipt.Hash { return receipt.LeafHash(fmt.Append(nil, i)) }
	whole := func(size int) receipt.Hash {
		var fresh stateTree
		for i := range size {
			fresh.append(leaf(i))
		}
		root, err := fresh.rootAt(uint64(size))
		require.NoError(t, err)
		return root
	}
	const base, size = 7, 20
	var tree stateTree
	for i := range size {
		tree.append(leaf(i))
	}
	nodes, err := tree.rangeAt(base)
	require.NoError(t, err)
	tree.trim(base, nodes)
	for _, at := range []int{size, base, base + 1, size, base, 12, base} {
		root, err := tree.rootAt(uint64(at))
		require.NoError(t, err)
		require.Equal(t, whole(at), root, "at %d", at)
	}
}

// Leaves in pieces are those of one row, whatever was cut off before.
func TestLeavesStandInARow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var leaves leafHashes
		var want []receipt.Hash
		n := uint64(0)
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			for range rapid.SampledFrom([]int{0, 1, 15, pieceOfLeaves - 1, pieceOfLeaves, 2*pieceOfLeaves + 1}).Draw(rt, "more") {
				h := receipt.Hash{}
				binary.BigEndian.PutUint64(h[:], n)
				n++
				leaves.append(h)
				want = append(want, h)
			}
			cut := rapid.IntRange(0, len(want)).Draw(rt, "cut")
			leaves.drop(cut)
			want = want[cut:]
			require.Equal(rt, len(want), leaves.len())
			for i := range want {
				if leaves.at(i) != want[i] {
					rt.Fatalf("leaf %d of %d", i, len(want))
				}
			}
		}
	})
}
