package receipt

import (
	"math/bits"

	"github.com/transparency-dev/merkle/rfc6962"
)

// rootOf is RFC 6962 section 2.1's tree hash over leaf hashes.
func rootOf(leaves []Hash) Hash {
	switch len(leaves) {
	case 0:
		return EmptyRoot()
	case 1:
		return leaves[0]
	}
	k := split(len(leaves))
	left, right := rootOf(leaves[:k]), rootOf(leaves[k:])
	return Hash(rfc6962.DefaultHasher.HashChildren(left[:], right[:]))
}

// pathOf is RFC 6962 section 2.1.1's audit path of leaf i.
func pathOf(leaves []Hash, i int) []Hash {
	if len(leaves) <= 1 {
		return nil
	}
	k := split(len(leaves))
	if i < k {
		return append(pathOf(leaves[:k], i), rootOf(leaves[k:]))
	}
	return append(pathOf(leaves[k:], i-k), rootOf(leaves[:k]))
}

// split is the largest power of two below n, which is at least 2.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }
