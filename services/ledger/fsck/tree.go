package fsck

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
)

const width = 256 // of a tile

// roots grows an RFC 6962 tree of which only roots are asked.
type roots struct {
	size uint64
	// peaks are the perfect subtrees that make up the tree, largest first.
	peaks []peak
	// wanted are sizes whose roots are asked for later; they must be known
	// before the tree has grown past them.
	wanted map[uint64]receipt.Hash
	// kept are the peaks at one size, as compact ranges are stored.
	keep uint64
	kept []peak
}

type peak struct {
	level int
	hash  receipt.Hash
}

func newRoots() roots { return roots{wanted: map[uint64]receipt.Hash{0: receipt.EmptyRoot()}} }

// want asks for the root of a size that the tree hasn't passed yet.
func (t *roots) want(size uint64) {
	if _, ok := t.wanted[size]; !ok {
		t.wanted[size] = receipt.Hash{}
	}
}

// rootAt returns the root of a wanted size; zero where it was never reached.
func (t *roots) rootAt(size uint64) receipt.Hash { return t.wanted[size] }

func (t *roots) add(leaf receipt.Hash) {
	t.size++
	hash, level := leaf, 0
	for len(t.peaks) > 0 && t.peaks[len(t.peaks)-1].level == level {
		hash = join(t.peaks[len(t.peaks)-1].hash, hash)
		t.peaks = t.peaks[:len(t.peaks)-1]
		level++
	}
	t.peaks = append(t.peaks, peak{level, hash})
	if _, ok := t.wanted[t.size]; ok {
		t.wanted[t.size] = t.now()
	}
	if t.size == t.keep {
		t.kept = slices.Clone(t.peaks)
	}
}

// now is the root of the tree as it is.
func (t *roots) now() receipt.Hash {
	root := t.peaks[len(t.peaks)-1].hash
	for i := len(t.peaks) - 2; i >= 0; i-- {
		root = join(t.peaks[i].hash, root)
	}
	return root
}

// tree grows an RFC 6962 tree anew from its leaves and compares the files of
// the published one with it as it goes.
type tree struct {
	roots
	c   *checker
	dir string // below the data directory, with slashes
	// rows are, a level, the hashes of the tile that isn't full yet.
	rows    [][]receipt.Hash
	entries [][]byte // of the bundle that isn't full yet

	published uint64 // what the state file says
	root      receipt.Hash
	stated    bool
	seen      map[string]bool // files that were compared
	pack      []byte          // the pack read last, nil where there is none
	packName  string
}

func (c *checker) openTree(dir string) *tree {
	t := &tree{roots: newRoots(), c: c, dir: dir, seen: map[string]bool{}}
	raw := c.read("tiles", path.Join(dir, "state"))
	if raw == nil {
		return t
	}
	t.seen["state"] = true
	text, rest, _ := strings.Cut(string(raw), "\n")
	size, err := strconv.ParseUint(text, 10, 62)
	root, err2 := base64.StdEncoding.DecodeString(strings.TrimSuffix(rest, "\n"))
	if err != nil || err2 != nil || len(root) != receipt.HashSize ||
		string(raw) != fmt.Sprintf("%d\n%s\n", size, base64.StdEncoding.EncodeToString(root)) {
		c.fault("tiles", path.Join(dir, "state"), "it is malformed")
		return t
	}
	t.published, t.root, t.stated = size, receipt.Hash(root), true
	t.want(size)
	return t
}

func (t *tree) append(entry []byte) {
	hash := receipt.LeafHash(entry)
	t.add(hash)
	t.entries = append(t.entries, bytes.Clone(entry))
	for l := 0; ; l++ {
		if l == len(t.rows) {
			t.rows = append(t.rows, nil)
		}
		t.rows[l] = append(t.rows[l], hash)
		if len(t.rows[l]) < width {
			return
		}
		n := t.size>>(uint(l+1)*8) - 1
		t.compare(l, n)
		hash = fold(t.rows[l])
		t.rows[l] = t.rows[l][:0]
		if l == 0 {
			t.entries = t.entries[:0]
		}
	}
}

func join(a, b receipt.Hash) receipt.Hash {
	return receipt.Hash(tlog.NodeHash(tlog.Hash(a), tlog.Hash(b)))
}

func fold(row []receipt.Hash) receipt.Hash {
	if len(row) == 1 {
		return row[0]
	}
	return join(fold(row[:len(row)/2]), fold(row[len(row)/2:]))
}

// compare compares the files of one tile, full or not yet, and of its bundle.
func (t *tree) compare(level int, n uint64) {
	row := t.rows[level]
	var hashes []byte
	for _, h := range row {
		hashes = append(hashes, h[:]...)
	}
	t.files(level, tiles.Path(level, n, width), len(row), t.published>>(uint(level)*8), n, func(w int) []byte { return hashes[:w*receipt.HashSize] })
	if level > 0 {
		return
	}
	var bundle []byte
	var ends []int
	for _, e := range t.entries {
		bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(e)))
		bundle = append(bundle, e...)
		ends = append(ends, len(bundle))
	}
	t.files(-1, tiles.EntriesPath(n, width), len(row), t.published, n, func(w int) []byte { return bundle[:ends[w-1]] })
}

// files compares a tile's full file and its partial ones, have of whose items
// are known. of is how many items its level has published in all; n is the
// tile's place there. A bundle has level -1.
func (t *tree) files(level int, full string, have int, of, n uint64, want func(w int) []byte) {
	one := func(name string, w int, needed bool) {
		raw, err := os.ReadFile(filepath.Join(t.c.opts.DataDir, filepath.FromSlash(path.Join(t.dir, name))))
		t.seen[name] = true
		switch {
		case err != nil && needed:
			t.c.fault("tiles", path.Join(t.dir, name), "it is missing")
		case err == nil && w > have:
			t.c.fault("tiles", path.Join(t.dir, name), "it is of %d and the store has %d", w, have)
		case err == nil:
			if at := differs(raw, want(w)); at >= 0 {
				t.c.fault("tiles", path.Join(t.dir, name), "byte %d is not what the commits hash to", at)
			}
		}
	}
	if have == width {
		packed := level <= 0 && t.packed(level, n, want(width))
		one(full, width, of >= (n+1)*width && !packed)
	}
	needed := 0
	if of > n*width && of < (n+1)*width {
		needed = int(of - n*width)
	}
	partials, _ := os.ReadDir(filepath.Join(t.c.opts.DataDir, filepath.FromSlash(path.Join(t.dir, full+".p"))))
	for _, e := range partials {
		w, err := strconv.Atoi(e.Name())
		if err != nil || w < 1 || w >= width || strconv.Itoa(w) != e.Name() {
			continue // named by finish, as nothing compares it
		}
		one(path.Join(full+".p", e.Name()), w, w == needed)
		if w == needed {
			needed = 0
		}
	}
	if needed > 0 {
		t.c.fault("tiles", path.Join(t.dir, full+".p", strconv.Itoa(needed)), "it is missing")
	}
}

// packed compares a full tile or bundle with its part of a pack and tells
// whether there is one.
func (t *tree) packed(level int, n uint64, want []byte) bool {
	name, offset, size := tiles.InPack(level, n)
	if name != t.packName {
		t.pack, t.packName = t.c.read("tiles", path.Join(t.dir, name)), name
		if t.pack != nil {
			t.seen[name] = true
			if len(t.pack) != tiles.PackSize {
				t.c.fault("tiles", path.Join(t.dir, name), "it has %d bytes of %d", len(t.pack), tiles.PackSize)
			}
		}
	}
	if t.pack == nil {
		return false
	}
	begin, end := min(offset, int64(len(t.pack))), min(offset+size, int64(len(t.pack)))
	if at := differs(t.pack[begin:end], want); at >= 0 {
		t.c.fault("tiles", path.Join(t.dir, name), "byte %d is not what the commits hash to", offset+int64(at))
	}
	return true
}

func differs(a, b []byte) int {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return -1
}

// finish compares what is left after the last leaf, and names files that
// belong to no tile. below are folders that are another tree's.
func (t *tree) finish(below ...string) {
	for l := range t.rows {
		if len(t.rows[l]) > 0 {
			t.compare(l, t.size>>(uint(l+1)*8))
		}
	}
	switch {
	case t.published > t.size:
		t.c.fault("tiles", path.Join(t.dir, "state"), "it says %d leaves and the store holds %d", t.published, t.size)
	case t.stated && t.rootAt(t.published) != t.root:
		t.c.fault("tiles", path.Join(t.dir, "state"), "its root is not that of the first %d leaves", t.published)
	}
	root := filepath.Join(t.c.opts.DataDir, filepath.FromSlash(t.dir))
	_ = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what can't be listed was missed by compare
		}
		name := strings.TrimPrefix(strings.TrimPrefix(filepath.ToSlash(p), filepath.ToSlash(root)), "/")
		if e.IsDir() {
			for _, b := range below {
				if name == b {
					return fs.SkipDir
				}
			}
			return nil
		}
		if !t.seen[name] {
			t.c.fault("tiles", path.Join(t.dir, name), "no tile of this tree")
		}
		return nil
	})
}
