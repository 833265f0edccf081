package sim

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is one machine's disk: a vfs.FS in memory that knows what a crash
// leaves of it.
//
// A file keeps what was synced and, of what was only written, a prefix; a
// folder keeps what was synced and, of the changes since, a prefix. Nothing
// fails: a crash takes the image that it leaves, and the process goes on
// writing to a disk that is no more, until its step ends and it is dropped.
// So a crash may fall between any two operations without an error path that
// no real crash takes.
//
// Below quiet, the folder of the replica's database, other goroutines write
// when they please. There an operation counts only where the caller waits for
// it, which is the sync of a write-ahead log, and only such a log keeps more
// than was synced. That keeps a run the same each time.
type disk struct {
	quiet string
	dice  *rand.Rand
	// lies is a planted bug: syncs of files whose path it accepts do nothing.
	lies func(path string) bool

	mu   sync.Mutex // guards what follows
	root *inode
	// fuse counts operations down to a crash; negative is no crash.
	fuse  int
	image *inode // what the crash left, once it happened
	ops   int
}

// inode is a file or a folder.
type inode struct {
	dir    bool
	data   []byte
	synced int // bytes
	// under is what was synced of a file that was written over since.
	under   []byte
	entries map[string]*inode
	durable map[string]*inode
	journal []change // of a folder, since it was synced
}

// sector is what a disk writes whole or not at all.
const sector = 512

// change is one step of a folder: name goes, name comes, or both at once.
type change struct {
	gone string
	name string
	node *inode
}

func newFolder() *inode {
	return &inode{dir: true, entries: map[string]*inode{}, durable: map[string]*inode{}}
}

func newDisk(quiet string, dice *rand.Rand) *disk {
	return &disk{quiet: quiet, dice: dice, root: newFolder(), fuse: -1}
}

func (d *disk) isQuiet(p string) bool { return strings.HasPrefix(p, d.quiet+"/") || p == d.quiet }

// op counts one operation and crashes when it is the one; d.mu is held. It is
// called before the operation takes effect.
func (d *disk) op(p string, logSync bool) {
	if d.image != nil || (d.isQuiet(p) && !logSync) {
		return
	}
	d.ops++
	if d.fuse < 0 {
		return
	}
	if d.fuse == 0 {
		log := ""
		if logSync {
			log = p
		}
		d.image = d.root.survive("/", d, log)
	}
	d.fuse--
}

// arm crashes the disk before the nth operation from now.
func (d *disk) arm(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fuse = n
}

// crashed tells whether the armed crash has happened.
func (d *disk) crashed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.image != nil
}

// settle makes durable what the top folder holds.
func (d *disk) settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.sync()
}

// crash crashes now, unless it has already, and returns the disk as it is
// found afterwards.
func (d *disk) crash() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.image == nil {
		d.image = d.root.survive("/", d, "")
	}
	return &disk{quiet: d.quiet, dice: d.dice, lies: d.lies, root: d.image, fuse: -1, ops: d.ops}
}

// survive returns what a crash leaves of a file or folder; syncing is the log
// that is being synced right now.
func (n *inode) survive(p string, d *disk, syncing string) *inode {
	if !n.dir && n.under != nil {
		// A sector at a time, in any order.
		left := slices.Clone(n.under)
		for at := 0; at < len(left); at += sector {
			if end := min(at+sector, len(left), len(n.data)); at < end && d.dice.IntN(2) == 0 {
				copy(left[at:end], n.data[at:end])
			}
		}
		return &inode{data: left, synced: len(left)}
	}
	if !n.dir {
		keep := n.synced
		if more := len(n.data) - keep; more > 0 && (!d.isQuiet(p) || p == syncing) {
			keep += d.dice.IntN(more + 1)
		}
		return &inode{data: slices.Clone(n.data[:keep]), synced: keep}
	}
	left := maps.Clone(n.durable)
	if !d.isQuiet(p) && len(n.journal) > 0 {
		for _, c := range n.journal[:d.dice.IntN(len(n.journal)+1)] {
			c.apply(left)
		}
	}
	out := newFolder()
	for _, name := range slices.Sorted(maps.Keys(left)) {
		out.entries[name] = left[name].survive(path.Join(p, name), d, syncing)
	}
	out.durable = maps.Clone(out.entries)
	return out
}

// clone copies what is durable, as a backup does.
func (n *inode) clone() *inode {
	if !n.dir && n.under != nil {
		return &inode{data: slices.Clone(n.under), synced: len(n.under)}
	}
	if !n.dir {
		return &inode{data: slices.Clone(n.data[:n.synced]), synced: n.synced}
	}
	out := newFolder()
	for name, child := range n.durable {
		out.entries[name] = child.clone()
	}
	out.durable = maps.Clone(out.entries)
	return out
}

func (c change) apply(entries map[string]*inode) {
	if c.gone != "" {
		delete(entries, c.gone)
	}
	if c.node != nil {
		entries[c.name] = c.node
	}
}

func (n *inode) change(c change) {
	c.apply(n.entries)
	n.journal = append(n.journal, c)
}

func (n *inode) sync() {
	if n.dir {
		n.durable, n.journal = maps.Clone(n.entries), nil
	} else {
		n.synced, n.under = len(n.data), nil
	}
}

func missing(op, p string) error { return &os.PathError{Op: op, Path: p, Err: fs.ErrNotExist} }

// find returns what is at a path; d.mu is held.
func (d *disk) find(p string) *inode {
	n := d.root
	for name := range strings.SplitSeq(strings.Trim(path.Clean("/"+p), "/"), "/") {
		if name == "" {
			continue
		}
		if n = n.entries[name]; n == nil {
			return nil
		}
	}
	return n
}

// parent returns the folder a path is in and its name there; d.mu is held.
func (d *disk) parent(p string) (*inode, string, error) {
	p = path.Clean("/" + p)
	n := d.find(path.Dir(p))
	if n == nil || !n.dir {
		return nil, "", missing("open", p)
	}
	return n, path.Base(p), nil
}

// Create implements vfs.FS.
func (d *disk) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.op(name, false)
	parent, base, err := d.parent(name)
	if err != nil {
		return nil, err
	}
	n := &inode{}
	parent.change(change{name: base, node: n})
	return &handle{d: d, n: n, path: name}, nil
}

// Link implements vfs.FS.
func (d *disk) Link(string, string) error { return errors.ErrUnsupported }

// Open implements vfs.FS.
func (d *disk) Open(name string, _ ...vfs.OpenOption) (vfs.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(name)
	if n == nil {
		return nil, missing("open", name)
	}
	return &handle{d: d, n: n, path: name}, nil
}

// OpenReadWrite implements vfs.FS.
func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, _ ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.Create(name, category)
	}
	return f, err
}

// OpenDir implements vfs.FS.
func (d *disk) OpenDir(name string) (vfs.File, error) { return d.Open(name) }

// Remove implements vfs.FS.
func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(name)
	if n == nil {
		return missing("remove", name)
	}
	if len(n.entries) > 0 {
		return &os.PathError{Op: "remove", Path: name, Err: errors.New("folder is not empty")}
	}
	d.op(name, false)
	parent, base, err := d.parent(name)
	if err == nil {
		parent.change(change{gone: base})
	}
	return err
}

// RemoveAll implements vfs.FS.
func (d *disk) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.find(name) == nil {
		return nil
	}
	d.op(name, false)
	parent, base, err := d.parent(name)
	if err == nil {
		parent.change(change{gone: base})
	}
	return err
}

// Rename implements vfs.FS. Within a folder it is one change; between folders,
// which nothing here does, it would be two.
func (d *disk) Rename(oldname, newname string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(oldname)
	if n == nil {
		return missing("rename", oldname)
	}
	d.op(newname, false)
	from, base, err := d.parent(oldname)
	if err != nil {
		return err
	}
	to, name, err := d.parent(newname)
	if err != nil {
		return err
	}
	if from != to {
		return errors.ErrUnsupported
	}
	from.change(change{gone: base, name: name, node: n})
	return nil
}

// ReuseForWrite implements vfs.FS without reusing, as it may.
func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.Remove(oldname); err != nil {
		return nil, err
	}
	return d.Create(newname, category)
}

// MkdirAll implements vfs.FS.
func (d *disk) MkdirAll(dir string, _ os.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.root
	for name := range strings.SplitSeq(strings.Trim(path.Clean("/"+dir), "/"), "/") {
		if name == "" {
			continue
		}
		child := n.entries[name]
		if child == nil {
			d.op(dir, false)
			child = newFolder()
			n.change(change{name: name, node: child})
		}
		if !child.dir {
			return &os.PathError{Op: "mkdir", Path: dir, Err: errors.New("not a folder")}
		}
		n = child
	}
	return nil
}

type unlocker struct{}

func (unlocker) Close() error { return nil }

// Lock implements vfs.FS: one process at a time is the simulator's to see to.
func (d *disk) Lock(name string) (io.Closer, error) {
	_, err := d.Create(name, vfs.WriteCategoryUnspecified)
	return unlocker{}, err
}

// List implements vfs.FS.
func (d *disk) List(dir string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(dir)
	if n == nil {
		return nil, missing("open", dir)
	}
	return slices.Sorted(maps.Keys(n.entries)), nil
}

// Stat implements vfs.FS.
func (d *disk) Stat(name string) (vfs.FileInfo, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	return f.Stat()
}

// PathBase implements vfs.FS.
func (*disk) PathBase(p string) string { return path.Base(p) }

// PathJoin implements vfs.FS.
func (*disk) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir implements vfs.FS.
func (*disk) PathDir(p string) string { return path.Dir(p) }

// GetDiskUsage implements vfs.FS.
func (*disk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{}, vfs.ErrUnsupported
}

// Unwrap implements vfs.FS.
func (*disk) Unwrap() vfs.FS { return nil }

// handle is an open file or folder.
type handle struct {
	d    *disk
	n    *inode
	path string
	at   int
}

func (h *handle) Close() error { return nil }

func (h *handle) Read(p []byte) (int, error) {
	n, err := h.ReadAt(p, int64(h.at))
	h.at += n
	if n > 0 {
		err = nil
	}
	return n, err
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if off >= int64(len(h.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Write appends, as every writer of whole files does.
func (h *handle) Write(p []byte) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.d.op(h.path, false)
	h.n.data = append(h.n.data, p...)
	return len(p), nil
}

// WriteAt leaves no hole: nothing here writes beyond a file's end.
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if off > int64(len(h.n.data)) {
		return 0, errors.ErrUnsupported
	}
	h.d.op(h.path, false)
	if off < int64(h.n.synced) && h.n.under == nil {
		h.n.under = slices.Clone(h.n.data[:h.n.synced])
	}
	h.n.data = append(h.n.data[:off], append(slices.Clone(p), h.n.data[min(off+int64(len(p)), int64(len(h.n.data))):]...)...)
	return len(p), nil
}

func (h *handle) Sync() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.d.op(h.path, strings.HasSuffix(h.path, ".log"))
	if h.d.lies == nil || !h.d.lies(h.path) {
		h.n.sync()
	}
	return nil
}

func (h *handle) SyncData() error                         { return h.Sync() }
func (h *handle) SyncTo(int64) (fullSync bool, err error) { return false, nil }
func (h *handle) Preallocate(_, _ int64) error            { return nil }
func (h *handle) Prefetch(int64, int64) error             { return nil }
func (h *handle) Fd() uintptr                             { return vfs.InvalidFd }

func (h *handle) Stat() (vfs.FileInfo, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return info{name: path.Base(h.path), size: int64(len(h.n.data)), dir: h.n.dir}, nil
}

type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string { return i.name }
func (i info) Size() int64  { return i.size }
func (i info) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}
func (i info) ModTime() time.Time     { return time.Time{} }
func (i info) IsDir() bool            { return i.dir }
func (i info) Sys() any               { return nil }
func (i info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
