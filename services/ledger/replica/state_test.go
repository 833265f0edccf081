package replica

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

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
