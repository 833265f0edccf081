package tiles

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/probity-health/probity/services/ledger/receipt"
)

const stateFile = "state"

// Open opens the tree in dir at its published size, creating an empty one
// where there is none. It fails with ErrDamaged when the right edge does not
// hash to the published root or files are missing; then Reset and append
// everything again.
func Open(dir string) (*Tree, error) { return Disk{}.OpenTree(dir) }

// Reset removes the tree in dir, for a rebuild.
func Reset(dir string) error { return Disk{}.ResetTree(dir) }

// OpenTree is Open on this disk.
func (d Disk) OpenTree(dir string) (*Tree, error) {
	if err := d.makeFolder(dir); err != nil {
		return nil, err
	}
	t := &Tree{disk: d, dir: dir, fresh: map[rowID]*nodes{}, cache: map[rowID]*nodes{}, partial: map[rowID]bool{}, root: receipt.EmptyRoot()}
	raw, err := d.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	size, root, err := parseState(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := t.load(size); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if got, err := t.Root(size); err != nil || got != root {
		return nil, ErrDamaged
	}
	t.published, t.root = size, root
	return t, nil
}

// ResetTree is Reset on this disk.
func (d Disk) ResetTree(dir string) error {
	for _, name := range []string{stateFile, "tile", PackFolder} {
		if err := d.fs().RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func formatState(size uint64, root receipt.Hash) []byte {
	return fmt.Appendf(nil, "%d\n%s\n", size, base64.StdEncoding.EncodeToString(root[:]))
}

func parseState(raw []byte) (size uint64, root receipt.Hash, err error) {
	f := strings.Split(string(raw), "\n")
	if len(f) != 3 {
		return 0, root, errors.New("state file is malformed")
	}
	size, err = strconv.ParseUint(f[0], 10, 62)
	b, err2 := base64.StdEncoding.DecodeString(f[1])
	if err != nil || err2 != nil || len(b) != receipt.HashSize {
		return 0, root, errors.New("state file is malformed")
	}
	return size, receipt.Hash(b), nil
}

// load reads the right edge of a published size.
func (t *Tree) load(size uint64) error {
	t.size = size
	for level := 0; size>>(uint(level)*height) > 0; level++ {
		held := size >> (uint(level) * height)
		t.partial[rowID{level, held >> height}] = true
		edge := &nodes{}
		if w := int(held % width); w > 0 {
			row, err := t.readTile(level, held>>height, w)
			if err != nil {
				return err
			}
			edge, _ = tileOf(row)
		}
		t.edge = append(t.edge, edge)
	}
	t.firstBundle = size >> height
	if w := int(size % width); w > 0 {
		raw, _, err := t.readStored(-1, size>>height, w)
		if err != nil {
			return err
		}
		entries, err := ParseBundle(raw)
		if err != nil {
			return err
		}
		if len(entries) != w {
			return errors.New("entry bundle has the wrong width")
		}
		for i, e := range entries {
			if receipt.LeafHash(e) != t.edge[0][0][i] {
				return errors.New("entry bundle does not match its tile")
			}
		}
		t.bundles = [][]byte{raw}
	}
	return nil
}

func (t *Tree) readTile(level int, n uint64, w int) ([]receipt.Hash, error) {
	raw, where, err := t.readStored(level, n, w)
	if err != nil {
		return nil, err
	}
	if len(raw) != w*receipt.HashSize {
		return nil, fmt.Errorf("tiles: %s has %d bytes", where, len(raw))
	}
	row := make([]receipt.Hash, w)
	for i := range row {
		copy(row[i][:], raw[i*receipt.HashSize:])
	}
	return row, nil
}

// ParseBundle reads an entry bundle: entries each after its two-byte length.
func ParseBundle(raw []byte) ([][]byte, error) {
	var out [][]byte
	for len(raw) > 0 {
		if len(raw) < 2 {
			return nil, errors.New("tiles: entry bundle is cut short")
		}
		n := int(binary.BigEndian.Uint16(raw))
		if raw = raw[2:]; len(raw) < n {
			return nil, errors.New("tiles: entry bundle is cut short")
		}
		if len(out) == width {
			return nil, errors.New("tiles: entry bundle has too many entries")
		}
		out = append(out, bytes.Clone(raw[:n]))
		raw = raw[n:]
	}
	return out, nil
}

// firstEntries returns the first w entries of a bundle, as a bundle.
func firstEntries(raw []byte, w int) ([]byte, error) {
	end := 0
	for range w {
		if len(raw) < end+2 {
			return nil, errors.New("tiles: a bundle has too few entries")
		}
		end += 2 + int(binary.BigEndian.Uint16(raw[end:]))
	}
	if len(raw) < end {
		return nil, errors.New("tiles: a bundle is cut short")
	}
	return raw[:end:end], nil
}

type file struct {
	path string
	data []byte
}

// Publish makes the tree of a size it has reached durable. A size at or below
// the published one is already so.
func (t *Tree) Publish(size uint64) error {
	if err := t.within(size); err != nil {
		return err
	}
	t.publishing.Lock()
	defer t.publishing.Unlock()
	published, _ := t.Published()
	if size <= published {
		return nil
	}
	t.mu.RLock()
	packs := t.packed(published, size)
	t.mu.RUnlock()
	files, done, partial, err := t.render(published, size, packs)
	if err != nil {
		return err
	}
	for _, id := range partial {
		t.partial[id] = true
	}
	root, err := t.Root(size)
	if err != nil {
		return err
	}
	if err := t.disk.writeAll(t.dir, files); err != nil {
		return err
	}
	if err := t.disk.writeAll(t.dir, []file{{stateFile, formatState(size, root)}}); err != nil {
		return err
	}
	t.mu.Lock()
	for _, id := range done {
		delete(t.fresh, id)
	}
	if first := size >> height; first > t.firstBundle {
		t.bundles = append([][]byte(nil), t.bundles[first-t.firstBundle:]...)
		t.firstBundle = first
	}
	t.published, t.root = size, root
	t.mu.Unlock()
	// tlog-tiles lets a log drop partial tiles once the full one exists. A
	// failure leaves files that harm nobody.
	for _, id := range done {
		if id.level == 0 {
			t.dropOther(id.n, packs[id.n/packTiles] != nil)
		}
		if !t.partial[id] {
			continue
		}
		delete(t.partial, id)
		_ = t.disk.fs().RemoveAll(filepath.Join(t.dir, Path(id.level, id.n, width)+".p"))
		if id.level == 0 {
			_ = t.disk.fs().RemoveAll(filepath.Join(t.dir, EntriesPath(id.n, width)+".p"))
		}
	}
	return nil
}

// render lists the files that take the tree from one size to another, and the
// tiles among them that are full and those that are not. It fills the packs it
// is given.
func (t *Tree) render(from, to uint64, packs map[uint64][]byte) (files []file, done, partial []rowID, err error) {
	for _, tile := range tlog.NewTiles(height, int64(from), int64(to)) {
		id := rowID{tile.L, uint64(tile.N)}
		row, err := t.row(id)
		if err != nil {
			return nil, nil, nil, err
		}
		if tile.W == width {
			done = append(done, id)
		} else {
			partial = append(partial, id)
		}
		if pack := packs[id.n/packTiles]; id.level == 0 && pack != nil {
			_, offset, _ := InPack(0, id.n)
			fillTile(pack[offset:], row)
			continue
		}
		raw := make([]byte, tile.W*receipt.HashSize)
		fillTile(raw, row[:tile.W])
		files = append(files, file{Path(id.level, id.n, tile.W), raw})
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for n := t.firstBundle; n<<height < to; n++ {
		bundle := t.bundles[n-t.firstBundle]
		if pack := packs[n/packTiles]; pack != nil {
			_, offset, _ := InPack(-1, n)
			copy(pack[offset:], bundle)
			continue
		}
		w := int(min(width, to-n<<height))
		raw, err := firstEntries(bundle, w)
		if err != nil {
			return nil, nil, nil, err
		}
		files = append(files, file{EntriesPath(n, w), raw})
	}
	for _, p := range slices.Sorted(maps.Keys(packs)) {
		files = append(files, file{packPath(p), packs[p]})
	}
	return files, done, partial, nil
}
