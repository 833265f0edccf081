package receipt

import (
	"crypto/sha256"
	"math/bits"

	"github.com/transparency-dev/merkle/rfc6962"
)

// treeHasher is RFC 6962's hasher. A proof is a node's hash for each level,
// which the library's own makes of four objects each.
type treeHasher struct{ *rfc6962.Hasher }

var hasher = treeHasher{rfc6962.DefaultHasher}

// HashChildren returns a node's hash.
func (treeHasher) HashChildren(left, right []byte) []byte {
	var buf [1 + 2*HashSize]byte
	buf[0] = rfc6962.RFC6962NodeHashPrefix
	copy(buf[1:], left)
	copy(buf[1+HashSize:], right)
	sum := sha256.Sum256(buf[:])
	return sum[:]
}

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
	return Hash(hasher.HashChildren(left[:], right[:]))
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
