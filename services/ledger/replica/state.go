package replica

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/probity-health/probity/services/ledger/receipt"
)

var ranges = compact.RangeFactory{Hash: hashChildren}

// hashChildren is RFC 6962's node hash, without the garbage of a hasher's.
func hashChildren(left, right []byte) []byte {
	var buf [1 + 2*receipt.HashSize]byte
	buf[0] = rfc6962.RFC6962NodeHashPrefix
	copy(buf[1:], left)
	copy(buf[1+receipt.HashSize:], right)
	sum := sha256.Sum256(buf[:])
	return sum[:]
}

// stateTree is the right edge of the tree over a shard's index rows, whose
// root a block seals as the head's State. It keeps the leaves since the last
// block, for a block may seal any size since, and below that only the compact
// range. Not safe for concurrent use.
type stateTree struct {
	base   uint64
	nodes  [][]byte // compact range of [0, base)
	leaves leafHashes
	// at and edge are where the last root was computed, to go on from there.
	at   uint64
	edge *compact.Range
	root receipt.Hash
}

func (t *stateTree) size() uint64 { return t.base + uint64(t.leaves.len()) }

func (t *stateTree) append(leaf receipt.Hash) { t.leaves.append(leaf) }

// rootAt returns the root at a size from the last block's on.
func (t *stateTree) rootAt(size uint64) (receipt.Hash, error) {
	if size < t.base || size > t.size() {
		return receipt.Hash{}, fmt.Errorf("replica: no state root of size %d between %d and %d", size, t.base, t.size())
	}
	if size == 0 {
		return receipt.EmptyRoot(), nil
	}
	if t.edge != nil && t.at == size {
		return t.root, nil
	}
	if err := t.advance(size); err != nil {
		return receipt.Hash{}, err
	}
	root, err := t.edge.GetRootHash(nil)
	if err != nil {
		return receipt.Hash{}, err
	}
	t.root = receipt.Hash(root)
	return t.root, nil
}

// advance brings edge to a size.
func (t *stateTree) advance(size uint64) (err error) {
	if t.edge == nil || t.at > size {
		if t.edge, err = ranges.NewRange(0, t.base, slices.Clone(t.nodes)); err != nil {
			return err
		}
		t.at = t.base
	}
	for ; t.at < size; t.at++ {
		leaf := t.leaves.at(int(t.at - t.base))
		if err := t.edge.Append(leaf[:], nil); err != nil {
			return err
		}
	}
	return nil
}

// rangeAt returns the compact range at a size: what is kept of it for good.
func (t *stateTree) rangeAt(size uint64) ([][]byte, error) {
	if _, err := t.rootAt(size); err != nil || size == 0 {
		return nil, err
	}
	if err := t.advance(size); err != nil {
		return nil, err
	}
	return append([][]byte(nil), t.edge.Hashes()...), nil
}

// trim forgets the leaves below a size that a block sealed.
func (t *stateTree) trim(size uint64, nodes [][]byte) {
	if size <= t.base || size > t.size() {
		return
	}
	t.leaves.drop(int(size - t.base))
	t.base, t.nodes = size, nodes
}

// leafHashes is a row of hashes that grows at one end and is cut at the other.
// They stand in pieces, so that nothing is copied where a long history comes
// without a block.
type leafHashes struct {
	pieces  [][]receipt.Hash // all full but the last
	dropped int              // of the first piece
}

const pieceOfLeaves = 1 << 10

func (l *leafHashes) len() int {
	n := len(l.pieces)
	if n == 0 {
		return 0
	}
	return (n-1)*pieceOfLeaves + len(l.pieces[n-1]) - l.dropped
}

func (l *leafHashes) append(leaf receipt.Hash) {
	last := len(l.pieces) - 1
	if last < 0 || len(l.pieces[last]) == pieceOfLeaves {
		room := pieceOfLeaves
		if last < 0 {
			room = 16 // a shard at rest has few
		}
		l.pieces, last = append(l.pieces, make([]receipt.Hash, 0, room)), last+1
	}
	l.pieces[last] = append(l.pieces[last], leaf)
}

func (l *leafHashes) at(i int) receipt.Hash {
	i += l.dropped
	return l.pieces[i/pieceOfLeaves][i%pieceOfLeaves]
}

// drop forgets the first n.
func (l *leafHashes) drop(n int) {
	if n == l.len() {
		*l = leafHashes{}
		return
	}
	l.dropped += n
	whole := l.dropped / pieceOfLeaves
	l.pieces, l.dropped = append([][]receipt.Hash(nil), l.pieces[whole:]...), l.dropped%pieceOfLeaves
}
