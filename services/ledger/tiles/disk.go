package tiles

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"

	"github.com/probity-health/probity/services/ledger/receipt"
)

const stateFile = "state"

// Open opens the tree in dir at its published size, creating an empty one
// where there is none. It fails with ErrDamaged when the right edge does not
// hash to the published root or files are missing; then Reset and append
// everything again.
func Open(dir string) (*Tree, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	t := &Tree{dir: dir, fresh: map[rowID][]receipt.Hash{}, cache: map[rowID][]receipt.Hash{}, root: receipt.EmptyRoot()}
	raw, err := os.ReadFile(filepath.Join(dir, stateFile))
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

// Reset removes the tree in dir, for a rebuild.
func Reset(dir string) error {
	for _, name := range []string{stateFile, "tile"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
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
		nodes := size >> (uint(level) * height)
		var row []receipt.Hash
		if w := int(nodes % width); w > 0 {
			var err error
			if row, err = t.readTile(Path(level, nodes>>height, w), w); err != nil {
				return err
			}
		}
		t.edge = append(t.edge, row)
	}
	t.firstEntry = size &^ (width - 1)
	if w := int(size % width); w > 0 {
		raw, err := os.ReadFile(filepath.Join(t.dir, EntriesPath(size>>height, w)))
		if err != nil {
			return err
		}
		if t.entries, err = ParseBundle(raw); err != nil {
			return err
		}
		if len(t.entries) != w {
			return errors.New("entry bundle has the wrong width")
		}
		for i, e := range t.entries {
			if receipt.LeafHash(e) != t.edge[0][i] {
				return errors.New("entry bundle does not match its tile")
			}
		}
	}
	return nil
}

func (t *Tree) readTile(path string, w int) ([]receipt.Hash, error) {
	raw, err := os.ReadFile(filepath.Join(t.dir, filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	if len(raw) != w*receipt.HashSize {
		return nil, fmt.Errorf("tiles: %s has %d bytes", path, len(raw))
	}
	// Room for a full row, so that appending to an edge doesn't copy it.
	row := make([]receipt.Hash, w, width)
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

func bundle(entries [][]byte) []byte {
	var out []byte
	for _, e := range entries {
		out = binary.BigEndian.AppendUint16(out, uint16(len(e)))
		out = append(out, e...)
	}
	return out
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
	published, _ := t.Published()
	if size <= published {
		return nil
	}
	files, done, err := t.render(published, size)
	if err != nil {
		return err
	}
	root, err := t.Root(size)
	if err != nil {
		return err
	}
	if err := writeAll(t.dir, files); err != nil {
		return err
	}
	if err := writeAll(t.dir, []file{{stateFile, formatState(size, root)}}); err != nil {
		return err
	}
	t.mu.Lock()
	for _, id := range done {
		delete(t.fresh, id)
	}
	if first := size &^ (width - 1); first > t.firstEntry {
		t.entries = append([][]byte(nil), t.entries[first-t.firstEntry:]...)
		t.firstEntry = first
	}
	t.published, t.root = size, root
	t.mu.Unlock()
	// tlog-tiles lets a log drop partial tiles once the full one exists. A
	// failure leaves files that harm nobody.
	for _, id := range done {
		os.RemoveAll(filepath.Join(t.dir, Path(id.level, id.n, width)+".p"))
		if id.level == 0 {
			os.RemoveAll(filepath.Join(t.dir, EntriesPath(id.n, width)+".p"))
		}
	}
	return nil
}

// render lists the files that take the tree from one size to another and the
// full tiles among them.
func (t *Tree) render(from, to uint64) (files []file, done []rowID, err error) {
	for _, tile := range tlog.NewTiles(height, int64(from), int64(to)) {
		data, err := tlog.ReadTileData(tile, tlog.HashReaderFunc(t.hashes))
		if err != nil {
			return nil, nil, err
		}
		files = append(files, file{Path(tile.L, uint64(tile.N), tile.W), data})
		if tile.W == width {
			done = append(done, rowID{tile.L, uint64(tile.N)})
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for first := t.firstEntry; first < to; first += width {
		last := min(first+width, to)
		part := t.entries[first-t.firstEntry : last-t.firstEntry]
		files = append(files, file{EntriesPath(first>>height, int(last-first)), bundle(part)})
	}
	return files, done, nil
}

// WriteFile replaces dir/name crash-safely: after it returns the file has
// the data, and at no time does it have anything but the old or the new.
func WriteFile(dir, name string, data []byte) error { return writeAll(dir, []file{{name, data}}) }

// writeAll writes files under dir so that after it returns all are durable.
// Files, and then folders, are synced beside each other: a file system commits
// what waits together at once, in about the time of one.
func writeAll(dir string, files []file) error {
	dirs := map[string]bool{}
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = filepath.Join(dir, filepath.FromSlash(f.path))
		parent := filepath.Dir(paths[i])
		if err := mkdirs(dir, parent, dirs); err != nil {
			return err
		}
		dirs[parent] = true
	}
	err := together(len(files), func(i int) error { return writeSynced(paths[i], files[i].data) })
	if err != nil {
		return err
	}
	folders := slices.Collect(maps.Keys(dirs))
	return together(len(folders), func(i int) error { return syncDir(folders[i]) })
}

// syncers bounds how many files one write has open.
const syncers = 8

// together does 0 … n-1, several at a time, and returns when all are done.
func together(n int, do func(int) error) error {
	var group errgroup.Group
	group.SetLimit(syncers)
	for i := range n {
		group.Go(func() error { return do(i) })
	}
	return group.Wait()
}

// mkdirs makes dir's missing parents below base and marks what must be synced.
func mkdirs(base, dir string, dirs map[string]bool) error {
	if dirs[dir] {
		return nil
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if dir != base {
		if err := mkdirs(base, filepath.Dir(dir), dirs); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dirs[filepath.Dir(dir)] = true
	return nil
}

func writeSynced(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err = f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
