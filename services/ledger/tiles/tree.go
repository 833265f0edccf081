// Package tiles keeps an RFC 6962 tree on disk in the C2SP tlog-tiles layout:
// hash tiles of height 8, entry bundles, partial tiles at the right edge. Many
// of them may be in one file, a pack.
//
// A Tree grows in memory and is published in steps. Publish makes every tile
// of a size durable before the size itself: temporary file, fsync, rename,
// fsync of the directory, and last the state file naming size and root. What
// the state file names is therefore whole on disk after any crash; what was
// appended since is gone and comes again from the replica's commit store.
//
// Full tiles never change once written, so what ReadFile gives may be cached
// for ever.
package tiles

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// ErrDamaged means that the published tiles do not hash to the published
// root. The tree must be rebuilt from the commits.
var ErrDamaged = errors.New("tiles: published tiles do not hash to the published root")

// cachedTiles bounds the full tiles kept in memory: 16 KiB each.
const cachedTiles = 128

type rowID struct {
	level int
	n     uint64
}

// Tree is one tree. All methods are safe for concurrent use; Append must have
// one caller at a time.
type Tree struct {
	disk Disk
	dir  string

	mu   sync.RWMutex // guards what follows
	size uint64
	// edge holds, a level, the tile that isn't full yet.
	edge []*nodes
	// fresh holds full tiles that are not on disk yet.
	fresh map[rowID]*nodes
	// bundles holds the leaf entries, bundle by bundle, from firstBundle, the
	// first that isn't on disk as a full one.
	bundles     [][]byte
	firstBundle uint64
	published   uint64
	root        receipt.Hash

	hashed []receipt.Hash // Append's room

	publishing sync.Mutex     // held while files are written; guards what follows
	partial    map[rowID]bool // tiles of which files narrower than full may be on disk

	cacheMu sync.Mutex // guards what follows
	cache   map[rowID]*nodes
}

// Size returns the number of leaves.
func (t *Tree) Size() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.size
}

// Published returns the size and root that are durable on disk.
func (t *Tree) Published() (uint64, receipt.Hash) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.published, t.root
}

// Append adds leaf entries, each of which must be at most 65,535 bytes.
func (t *Tree) Append(entries ...[]byte) {
	// Hashed before the lock, under which readers wait.
	t.hashed = t.hashed[:0]
	for _, e := range entries {
		t.hashed = append(t.hashed, receipt.LeafHash(e))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, e := range entries {
		if t.size%width == 0 {
			t.bundles = append(t.bundles, make([]byte, 0, width*(2+len(e))))
		}
		last := &t.bundles[len(t.bundles)-1]
		*last = append(binary.BigEndian.AppendUint16(*last, uint16(len(e))), e...)
		t.push(t.hashed[i])
	}
}

// push adds a leaf's hash. The caller holds mu.
func (t *Tree) push(hash receipt.Hash) {
	index := t.size
	t.size++
	for level := 0; ; level++ {
		if level == len(t.edge) {
			t.edge = append(t.edge, &nodes{})
		}
		above, full := t.edge[level].push(hash)
		if !full {
			return
		}
		index >>= height
		t.fresh[rowID{level, index}] = t.edge[level]
		t.edge[level] = newNodes()
		hash = above
	}
}

// tile returns what is known of one tile, as of now: of a tile that is not
// full it is a copy, whose rows are only ever appended to behind their ends.
func (t *Tree) tile(id rowID) (*nodes, error) {
	t.mu.RLock()
	var tile *nodes
	if full := t.size >> (uint(id.level+1) * height); id.n >= full {
		if id.n == full && id.level < len(t.edge) {
			now := *t.edge[id.level]
			tile = &now
		}
	} else {
		tile = t.fresh[id]
	}
	t.mu.RUnlock()
	if tile != nil {
		return tile, nil
	}
	t.cacheMu.Lock()
	tile = t.cache[id]
	t.cacheMu.Unlock()
	if tile != nil {
		return tile, nil
	}
	row, err := t.readTile(id.level, id.n, width)
	if err != nil {
		return nil, err
	}
	tile, _ = tileOf(row)
	t.cacheMu.Lock()
	defer t.cacheMu.Unlock()
	if len(t.cache) >= cachedTiles {
		for k := range t.cache {
			delete(t.cache, k)
			break
		}
	}
	t.cache[id] = tile
	return tile, nil
}

// row returns the hashes known of one tile.
func (t *Tree) row(id rowID) ([]receipt.Hash, error) {
	tile, err := t.tile(id)
	if err != nil {
		return nil, err
	}
	return tile[0], nil
}

// hashes reads tree nodes in tlog's storage numbering.
func (t *Tree) hashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		sub := uint(level % height)
		id := rowID{level / height, uint64(n) << sub >> height}
		tile, err := t.tile(id)
		if err != nil {
			return nil, err
		}
		at := uint64(n) % (width >> sub)
		if at >= uint64(len(tile[sub])) {
			return nil, fmt.Errorf("tiles: node %d of level %d is beyond the tree", n, level)
		}
		out[i] = tlog.Hash(tile[sub][at])
	}
	return out, nil
}

func (t *Tree) within(size uint64) error {
	if have := t.Size(); size > have {
		return fmt.Errorf("tiles: asked for size %d of a tree of %d", size, have)
	}
	return nil
}

// Leaf returns a leaf's hash.
func (t *Tree) Leaf(index uint64) (receipt.Hash, error) {
	if err := t.within(index + 1); err != nil {
		return receipt.Hash{}, err
	}
	h, err := t.hashes([]int64{tlog.StoredHashIndex(0, int64(index))})
	if err != nil {
		return receipt.Hash{}, err
	}
	return receipt.Hash(h[0]), nil
}

// Leaves returns the hashes of the leaves from up to but not including to.
func (t *Tree) Leaves(from, to uint64) ([]receipt.Hash, error) {
	if err := t.within(to); err != nil {
		return nil, err
	}
	out := make([]receipt.Hash, 0, to-from)
	for from < to {
		row, err := t.row(rowID{0, from >> height})
		if err != nil {
			return nil, err
		}
		first := from &^ (width - 1)
		end := min(to, first+uint64(len(row)))
		if end <= from {
			return nil, fmt.Errorf("tiles: leaf %d is beyond the tree", from)
		}
		out = append(out, row[from-first:end-first]...)
		from = end
	}
	return out, nil
}

// ReadFile returns the tile or bundle of entries that a tlog-tiles path names,
// published or not, full or as partial as asked. The error is fs.ErrNotExist
// when the tree has none such.
func (t *Tree) ReadFile(path string) ([]byte, error) {
	level, n, w, ok := parsePath(path)
	if !ok || level >= 8 {
		return nil, fs.ErrNotExist
	}
	if nodes := t.Size() >> (uint(max(level, 0)) * height); n > nodes>>height || n<<height+uint64(w) > nodes {
		return nil, fs.ErrNotExist
	}
	if level < 0 {
		return t.bundle(n, w)
	}
	row, err := t.row(rowID{level, n})
	if err != nil {
		return nil, err
	}
	raw := make([]byte, w*receipt.HashSize)
	fillTile(raw, row[:w])
	return raw, nil
}

// fillTile spells a tile as its file has it.
func fillTile(raw []byte, row []receipt.Hash) {
	for i := range row {
		copy(raw[i*receipt.HashSize:], row[i][:])
	}
}

// bundle returns the first w entries of a bundle that the tree has reached.
func (t *Tree) bundle(n uint64, w int) ([]byte, error) {
	t.mu.RLock()
	if n >= t.firstBundle {
		defer t.mu.RUnlock()
		return firstEntries(t.bundles[n-t.firstBundle], w)
	}
	t.mu.RUnlock()
	raw, _, err := t.readStored(-1, n, width)
	if err != nil {
		return nil, err
	}
	if entries, err := ParseBundle(raw); err != nil || len(entries) != width {
		return nil, errors.Join(ErrDamaged, err)
	}
	return firstEntries(raw, w)
}

// Root returns the root the tree had at a size it has reached.
func (t *Tree) Root(size uint64) (receipt.Hash, error) {
	if err := t.within(size); err != nil {
		return receipt.Hash{}, err
	}
	if size == 0 {
		return receipt.EmptyRoot(), nil
	}
	h, err := tlog.TreeHash(int64(size), tlog.HashReaderFunc(t.hashes))
	return receipt.Hash(h), err
}

// Inclusion returns the RFC 6962 audit path of a leaf in the tree of a size.
func (t *Tree) Inclusion(index, size uint64) ([]receipt.Hash, error) {
	if err := t.within(size); err != nil {
		return nil, err
	}
	if index >= size {
		return nil, fmt.Errorf("tiles: no leaf %d in a tree of %d", index, size)
	}
	p, err := tlog.ProveRecord(int64(size), int64(index), tlog.HashReaderFunc(t.hashes))
	return convert(p), err
}

// Consistency returns the RFC 6962 proof that the tree of size newer extends
// that of size older, which must not be empty.
func (t *Tree) Consistency(older, newer uint64) ([]receipt.Hash, error) {
	if err := t.within(newer); err != nil {
		return nil, err
	}
	if older == 0 || older > newer {
		return nil, fmt.Errorf("tiles: no consistency proof from %d to %d", older, newer)
	}
	p, err := tlog.ProveTree(int64(newer), int64(older), tlog.HashReaderFunc(t.hashes))
	return convert(p), err
}

func convert(p []tlog.Hash) []receipt.Hash {
	out := make([]receipt.Hash, len(p))
	for i, h := range p {
		out[i] = receipt.Hash(h)
	}
	return out
}
