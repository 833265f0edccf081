package tiles

import (
	"golang.org/x/mod/sumdb/tlog"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// nodes is a tile with what stands between its hashes and the hash of the
// whole: row k holds the roots over 2^k of its hashes each. A proof reads from
// every tile on its way as many nodes as the tile has levels; to compute them
// from the hashes each time would be most of what a proof costs. Rows are only
// ever appended to.
type nodes [height][]receipt.Hash

// push adds a hash and returns the one above the tile once it is full.
func (t *nodes) push(hash receipt.Hash) (above receipt.Hash, full bool) {
	for k := range t {
		t[k] = append(t[k], hash)
		n := len(t[k])
		if n%2 == 1 {
			return receipt.Hash{}, false
		}
		hash = receipt.Hash(tlog.NodeHash(tlog.Hash(t[k][n-2]), tlog.Hash(t[k][n-1])))
	}
	return hash, true
}

// newNodes returns an empty tile with room for all of it.
func newNodes() *nodes {
	tile, room := &nodes{}, make([]receipt.Hash, 2*width)
	for k := range tile {
		n := width >> k
		tile[k], room = room[:0:n], room[n:]
	}
	return tile
}

// tileOf builds a tile from its hashes and returns the one above it, where it
// is full.
func tileOf(row []receipt.Hash) (tile *nodes, above receipt.Hash) {
	// Room for all of it, for the edge of a tree grows on.
	tile = newNodes()
	for _, h := range row {
		above, _ = tile.push(h)
	}
	return tile, above
}
