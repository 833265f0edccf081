package tiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// CheckStored reads what is published of the leaves from up to but not
// including to back from disk and checks it: entries against leaf hashes,
// full tiles against the hash above them, and every hash against the tree in
// memory. It returns the leaf hashes as they stand on disk. The error names
// the file and the position.
func (t *Tree) CheckStored(from, to uint64) ([]receipt.Hash, error) {
	size, _ := t.Published()
	leaves, err := t.checkStored(size, from, to)
	if err != nil {
		// Publish changes the edge and drops partial tiles that full ones
		// replaced, so a failure counts while nothing is published.
		t.publishing.Lock()
		defer t.publishing.Unlock()
		size, _ = t.Published()
		leaves, err = t.checkStored(size, from, to)
	}
	return leaves, err
}

// CheckEdge reads back what CheckStored doesn't: the state file, and the
// narrower partial tiles and bundles that earlier sizes left at the right edge
// and clients may still read.
func (t *Tree) CheckEdge() error {
	if t.checkEdge() == nil {
		return nil
	}
	t.publishing.Lock()
	defer t.publishing.Unlock()
	return t.checkEdge()
}

func (t *Tree) checkEdge() error {
	size, root := t.Published()
	if err := t.checkState(size, root); err != nil {
		return err
	}
	for level := 0; size>>(uint(level)*height) > 0; level++ {
		if err := t.checkPartials(level, size>>(uint(level)*height)); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) checkState(size uint64, root receipt.Hash) error {
	raw, err := t.disk.ReadFile(filepath.Join(t.dir, stateFile))
	switch {
	case size == 0 && errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !bytes.Equal(raw, formatState(size, root)):
		return fmt.Errorf("tiles: %s is not what was written", filepath.Join(t.dir, stateFile))
	}
	return nil
}

// checkPartials compares the partial tiles at the edge of a level of so many
// nodes with the tree in memory.
func (t *Tree) checkPartials(level int, nodes uint64) error {
	n, w := nodes>>height, int(nodes%width)
	held, err := t.row(rowID{level, n})
	if w == 0 || err != nil {
		return err
	}
	var hashes []byte
	for _, h := range held[:min(w, len(held))] {
		hashes = append(hashes, h[:]...)
	}
	err = t.eachPartial(Path(level, n, width), func(k int, path string, raw []byte) error {
		if k <= w && !bytes.Equal(raw, hashes[:min(len(hashes), k*receipt.HashSize)]) {
			return fmt.Errorf("tiles: %s is not what was written", path)
		}
		return nil
	})
	if err != nil || level > 0 {
		return err
	}
	return t.eachPartial(EntriesPath(n, width), func(k int, path string, raw []byte) error {
		entries, err := ParseBundle(raw)
		if k > w {
			return nil
		}
		if err != nil || len(entries) != k {
			return fmt.Errorf("tiles: %s is not what was written", path)
		}
		for i, e := range entries {
			if receipt.LeafHash(e) != held[i] {
				return fmt.Errorf("tiles: leaf %d in %s does not hash to its node", n<<height+uint64(i), path)
			}
		}
		return nil
	})
}

// eachPartial visits the partial files of a tile or bundle by their width.
func (t *Tree) eachPartial(full string, visit func(k int, path string, raw []byte) error) error {
	folder := full + ".p"
	names, err := t.disk.fs().List(filepath.Join(t.dir, filepath.FromSlash(folder)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		k, err := strconv.Atoi(name)
		if err != nil {
			continue // what a crash left of a file that was being written
		}
		path := folder + "/" + name
		raw, err := t.disk.ReadFile(filepath.Join(t.dir, filepath.FromSlash(path)))
		if err == nil {
			err = visit(k, path, raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) checkStored(size, from, to uint64) ([]receipt.Hash, error) {
	if from >= to || to > size {
		return nil, fmt.Errorf("tiles: can't check leaves %d to %d of the %d published", from, to, size)
	}
	var leaves []receipt.Hash
	for level := 0; size>>(uint(level)*height) > 0; level++ {
		nodes := size >> (uint(level) * height)
		first, last := from>>(uint(level)*height), (to-1)>>(uint(level)*height)
		if first >= nodes {
			break // the tiles below are not full yet, so they have no hash here
		}
		last = min(last, nodes-1)
		for n := first >> height; n <= last>>height; n++ {
			w := int(min(width, nodes-n<<height))
			row, err := t.checkTile(level, n, w)
			if err != nil {
				return nil, err
			}
			begin, end := max(first, n<<height), min(last+1, n<<height+uint64(w))
			if level == 0 {
				leaves = append(leaves, row[begin-n<<height:end-n<<height]...)
				continue
			}
			for child := begin; child < end; child++ {
				below, err := t.readTile(level-1, child, width)
				if err != nil {
					return nil, err
				}
				if _, above := tileOf(below); above != row[child-n<<height] {
					return nil, fmt.Errorf("tiles: %s does not hash to node %d of %s", Path(level-1, child, width), child-n<<height, Path(level, n, w))
				}
			}
		}
	}
	return leaves, nil
}

// checkTile reads one tile back and compares it with the tree in memory and,
// at the bottom, with its entries.
func (t *Tree) checkTile(level int, n uint64, w int) ([]receipt.Hash, error) {
	row, err := t.readTile(level, n, w)
	if err != nil {
		return nil, err
	}
	held, err := t.row(rowID{level, n})
	if err != nil {
		return nil, err
	}
	if len(held) < w || !slices.Equal(held[:w], row) {
		return nil, fmt.Errorf("tiles: %s differs from the tree in memory, from node %d on", Path(level, n, w), firstDifference(held, row))
	}
	if level > 0 {
		return row, nil
	}
	raw, where, err := t.readStored(-1, n, w)
	if err != nil {
		return nil, err
	}
	entries, err := ParseBundle(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if len(entries) != w {
		return nil, fmt.Errorf("tiles: %s has %d entries", where, len(entries))
	}
	for i, e := range entries {
		if receipt.LeafHash(e) != row[i] {
			return nil, fmt.Errorf("tiles: leaf %d in %s does not hash to its node in %s", n<<height+uint64(i), where, Path(level, n, w))
		}
	}
	return row, nil
}

func firstDifference(a, b []receipt.Hash) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
