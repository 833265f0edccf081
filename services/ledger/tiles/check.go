package tiles

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// CheckStored reads what is published of the leaves from up to but not
// including to back from disk and checks it: entries against leaf hashes,
// full tiles against the hash above them, and every hash against the tree in
// memory. It returns the leaf hashes as they stand on disk. The error names
// the file and the position.
func (t *Tree) CheckStored(from, to uint64) ([]receipt.Hash, error) {
	for {
		size, _ := t.Published()
		leaves, err := t.checkStored(size, from, to)
		if err == nil {
			return leaves, nil
		}
		// Publish drops partial tiles that full ones replaced, so a failure
		// counts when nothing was published meanwhile.
		if now, _ := t.Published(); now == size {
			return nil, err
		}
	}
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
				below, err := t.readTile(Path(level-1, child, width), width)
				if err != nil {
					return nil, err
				}
				if fold(below) != row[child-n<<height] {
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
	path := Path(level, n, w)
	row, err := t.readTile(path, w)
	if err != nil {
		return nil, err
	}
	held, err := t.row(rowID{level, n})
	if err != nil {
		return nil, err
	}
	if len(held) < w || !slices.Equal(held[:w], row) {
		return nil, fmt.Errorf("tiles: %s differs from the tree in memory, from node %d on", path, firstDifference(held, row))
	}
	if level > 0 {
		return row, nil
	}
	bundlePath := EntriesPath(n, w)
	raw, err := t.disk.ReadFile(filepath.Join(t.dir, filepath.FromSlash(bundlePath)))
	if err != nil {
		return nil, err
	}
	entries, err := ParseBundle(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", bundlePath, err)
	}
	if len(entries) != w {
		return nil, fmt.Errorf("tiles: %s has %d entries", bundlePath, len(entries))
	}
	for i, e := range entries {
		if receipt.LeafHash(e) != row[i] {
			return nil, fmt.Errorf("tiles: leaf %d in %s does not hash to its node in %s", n<<height+uint64(i), bundlePath, path)
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
