// Package tiles keeps an RFC 6962 tree on disk in the C2SP tlog-tiles layout:
// hash tiles of height 8, entry bundles, partial tiles at the right edge.
//
// A Tree grows in memory and is published in steps. Publish makes every tile
// of a size durable before the size itself: temporary file, fsync, rename,
// fsync of the directory, and last the state file naming size and root. What
// the state file names is therefore whole on disk after any crash; what was
// appended since is gone and comes again from the replica's commit store.
//
// Full tiles never change once written, so a Tree may be served as static
// files while it grows.
package tiles

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// ErrDamaged means that the published tiles do not hash to the published
// root. The tree must be rebuilt from the commits.
var ErrDamaged = errors.New("tiles: published tiles do not hash to the published root")

// cachedTiles bounds the full tiles kept in memory: 8 KiB each.
const cachedTiles = 256

type rowID struct {
	level int
	n     uint64
}

// Tree is one tree. All methods are safe for concurrent use; Append and
// Publish must each have one caller at a time.
type Tree struct {
	disk Disk
	dir  string

	mu   sync.RWMutex // guards what follows
	size uint64
	// edge holds, a level, the hashes of the tile that isn't full yet.
	edge [][]receipt.Hash
	// fresh holds full tiles that are not on disk yet.
	fresh map[rowID][]receipt.Hash
	// entries holds the leaf entries from firstEntry, the start of the first
	// bundle that isn't on disk as a full one, to size.
	entries    [][]byte
	firstEntry uint64
	published  uint64
	root       receipt.Hash

	cacheMu sync.Mutex
	cache   map[rowID][]receipt.Hash
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

// Append adds a leaf entry, which must be at most 65,535 bytes.
func (t *Tree) Append(entry []byte) {
	hash := receipt.LeafHash(entry)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, entry)
	t.size++
	index := t.size - 1
	for level := 0; ; level++ {
		if level == len(t.edge) {
			t.edge = append(t.edge, nil)
		}
		t.edge[level] = append(t.edge[level], hash)
		if len(t.edge[level]) < width {
			return
		}
		full := t.edge[level]
		t.fresh[rowID{level, index >> height}] = full
		t.edge[level] = nil
		hash = fold(full)
		index >>= height
	}
}

// fold returns the root of a perfect subtree over a power of two of hashes.
func fold(row []receipt.Hash) receipt.Hash {
	var buf [width / 2]receipt.Hash
	for len(row) > 1 {
		for i := 0; i < len(row); i += 2 {
			buf[i/2] = receipt.Hash(tlog.NodeHash(tlog.Hash(row[i]), tlog.Hash(row[i+1])))
		}
		row = buf[:len(row)/2]
	}
	return row[0]
}

// row returns the hashes known of one tile.
func (t *Tree) row(id rowID) ([]receipt.Hash, error) {
	t.mu.RLock()
	var row []receipt.Hash
	if full := t.size >> (uint(id.level+1) * height); id.n >= full {
		if id.n == full && id.level < len(t.edge) {
			row = t.edge[id.level]
		}
	} else {
		row = t.fresh[id]
	}
	t.mu.RUnlock()
	// A row is only ever appended to, within its capacity or to a new array,
	// so the slice seen here stays as it was.
	if row != nil {
		return row, nil
	}
	t.cacheMu.Lock()
	row = t.cache[id]
	t.cacheMu.Unlock()
	if row != nil {
		return row, nil
	}
	row, err := t.readTile(Path(id.level, id.n, width), width)
	if err != nil {
		return nil, err
	}
	t.cacheMu.Lock()
	defer t.cacheMu.Unlock()
	if len(t.cache) >= cachedTiles {
		for k := range t.cache {
			delete(t.cache, k)
			break
		}
	}
	t.cache[id] = row
	return row, nil
}

// hashes reads tree nodes in tlog's storage numbering.
func (t *Tree) hashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		sub := uint(level % height)
		first := uint64(n) << sub
		row, err := t.row(rowID{level / height, first >> height})
		if err != nil {
			return nil, err
		}
		from, to := first%width, first%width+1<<sub
		if to > uint64(len(row)) {
			return nil, fmt.Errorf("tiles: node %d of level %d is beyond the tree", n, level)
		}
		out[i] = tlog.Hash(fold(row[from:to]))
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
		entries, err := t.bundle(n, w)
		return bundle(entries), err
	}
	row, err := t.row(rowID{level, n})
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, w*receipt.HashSize)
	for _, h := range row[:w] {
		out = append(out, h[:]...)
	}
	return out, nil
}

// bundle returns the first w entries of a bundle that the tree has reached.
func (t *Tree) bundle(n uint64, w int) ([][]byte, error) {
	first := n << height
	t.mu.RLock()
	if first >= t.firstEntry {
		defer t.mu.RUnlock()
		return t.entries[first-t.firstEntry:][:w:w], nil
	}
	t.mu.RUnlock()
	raw, err := t.disk.ReadFile(filepath.Join(t.dir, filepath.FromSlash(EntriesPath(n, width))))
	if err != nil {
		return nil, err
	}
	entries, err := ParseBundle(raw)
	if err == nil && len(entries) != width {
		err = ErrDamaged
	}
	if err != nil {
		return nil, err
	}
	return entries[:w], nil
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
