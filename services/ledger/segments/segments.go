// Package segments keeps a shard's commits on disk as they came: records one
// after the other in files that only ever grow, each found by its index.
//
// A batch of commits is one write, and ends with a mark, a few bytes of the
// caller's that say where it stood. What a crash leaves of a batch that was
// not whole is cut off when the log is opened: commits and mark are there
// together or not at all. Sync makes durable what was appended before it.
//
// A file, <first index>.seg, is
//
//	header   magic (8), first index (8), CRC (4)
//	records  length (4), kind (1), CRC (4), payload
//	trailer  offset of the table (4), CRC (4): of a file that is full
//
// all numbers big-endian, CRCs Castagnoli's over everything else of the
// header, record or trailer. Kinds are commit, mark and table: the last record
// of a full file holds the offset of its last mark and of every commit. Every
// byte of a file is thus covered by a checksum, and the commit at an index is
// found with two reads.
package segments

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/probity-health/probity/services/ledger/tiles"
)

// ErrDamaged means that stored bytes are not those that were written.
var ErrDamaged = errors.New("segments: the stored commits are damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

const (
	magic       = "probseg\x01"
	headerSize  = 20
	recordHead  = 9
	trailerSize = 8
	suffix      = ".seg"
	temporary   = ".new-"

	// fileBytes is what a file may have before the next begins, where the
	// disk doesn't say otherwise.
	fileBytes = 64 << 20
	// readBytes is about what Each reads at once.
	readBytes = 256 << 10
	// heldTables bounds the tables of full files kept in memory.
	heldTables = 16
	// heldReaders bounds the files that are kept open to be read.
	heldReaders = 4
)

// Log is one shard's commits. Append must have one caller at a time; all else
// is safe for concurrent use.
type Log struct {
	disk  tiles.Disk
	dir   string
	limit int64

	// syncing is held while files are synced or changed, and taken before mu.
	syncing sync.Mutex

	mu   sync.RWMutex // guards what follows
	full []file       // by first index
	// tail is the file that grows, nil while there is none.
	tail  *tail
	count uint64
	last  []byte // the last mark
	cut   int64  // bytes of a torn tail that Open left out

	tableMu sync.Mutex           // guards what follows
	tables  map[uint64]fullTable // by first index

	readMu  sync.Mutex // guards what follows
	readers []*reader  // open, the oldest first
	closed  bool
}

// file is a full file.
type file struct {
	first, count uint64
}

// tail is the file that grows.
type tail struct {
	first    uint64
	offsets  []uint32 // of its commits
	lastMark uint32
	size     int64 // of what is whole
	synced   int64
	left     int64 // what the system was told to forget
	listed   bool  // the folder that names it is synced
	// file is nil until the first append. Until then reads open it.
	file vfs.File
	torn bool // bytes follow size that don't belong
}

func name(first uint64) string { return fmt.Sprintf("%020d%s", first, suffix) }

func (l *Log) path(first uint64) string { return filepath.Join(l.dir, name(first)) }

// Open opens the log in dir, an empty one where there is none. It writes
// nothing: what a crash tore is only cut off when something is appended.
func Open(disk tiles.Disk, dir string) (*Log, error) { return OpenAt(disk, dir, 0) }

// OpenAt opens a log whose first commit has another index than 0; see Begin.
func OpenAt(disk tiles.Disk, dir string, outset uint64) (*Log, error) {
	l := &Log{disk: disk, dir: dir, limit: fileBytes, tables: map[uint64]fullTable{}, count: outset}
	if disk.SegmentBytes > 0 {
		l.limit = disk.SegmentBytes
	}
	firsts, err := list(disk, dir)
	if err != nil {
		return nil, err
	}
	for i, first := range firsts {
		if first != l.count {
			return nil, damaged("%s follows %d commits", name(first), l.count)
		}
		if i < len(firsts)-1 {
			// Full before the next began; its table is read when it is needed.
			if firsts[i+1] <= first {
				return nil, damaged("%s is followed by %s", name(first), name(firsts[i+1]))
			}
			l.full = append(l.full, file{first, firsts[i+1] - first})
			l.count = firsts[i+1]
			continue
		}
		if err := l.openLast(first); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// list returns the first indexes of the files in dir.
func list(disk tiles.Disk, dir string) ([]uint64, error) {
	names, err := disk.Files().List(dir)
	if tiles.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, n := range names {
		number, ok := strings.CutSuffix(n, suffix)
		if !ok || strings.HasPrefix(n, temporary) {
			continue
		}
		first, err := strconv.ParseUint(number, 10, 64)
		if err != nil || name(first) != n {
			return nil, damaged("%s is no name of a segment", n)
		}
		firsts = append(firsts, first)
	}
	slices.Sort(firsts)
	return firsts, nil
}

// openLast takes up the last file: full, or as far as whole batches go.
func (l *Log) openLast(first uint64) error {
	raw, err := l.disk.ReadFile(l.path(first))
	if err != nil {
		return err
	}
	s := scan(raw, first)
	l.last = slices.Clone(s.mark)
	l.count = first + uint64(len(s.offsets))
	switch {
	case s.full:
		l.full = append(l.full, file{first, uint64(len(s.offsets))})
		l.tables[first] = fullTable{s.offsets, s.tableAt}
	case s.whole == 0:
		// Not even its header, or no batch, was written whole: it begins anew.
		l.cut = int64(len(raw))
		if len(l.full) > 0 {
			return l.markBefore()
		}
	default:
		l.cut = int64(len(raw)) - s.whole
		l.tail = &tail{
			first: first, offsets: s.offsets, lastMark: s.lastMark, size: s.whole, synced: s.whole, listed: true,
			torn: l.cut > 0,
		}
	}
	return nil
}

// markBefore reads the last mark of the last full file.
func (l *Log) markBefore() error {
	f := l.full[len(l.full)-1]
	raw, err := l.disk.ReadFile(l.path(f.first))
	if err != nil {
		return err
	}
	s := scan(raw, f.first)
	if !s.full || uint64(len(s.offsets)) != f.count {
		return damaged("%s does not read as the full file it was", name(f.first))
	}
	l.last = slices.Clone(s.mark)
	return nil
}

// Begin makes outset the index of an empty log's first commit. From then on
// OpenAt must be told.
func (l *Log) Begin(outset uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count > 0 || l.tail != nil || l.last != nil {
		return errors.New("segments: a log that holds something begins nowhere else")
	}
	l.count = outset
	return nil
}

// Count returns the index after the last commit's: how many there are of a log
// that begins with 0.
func (l *Log) Count() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.count
}

// Mark returns the last mark, nil before the first.
func (l *Log) Mark() []byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last
}

// Cut returns how many bytes of a torn tail Open left out.
func (l *Log) Cut() int64 { return l.cut }

// Append adds commits and a mark as one batch. With an error none of it is
// there.
func (l *Log) Append(commits [][]byte, latest []byte) error {
	l.mu.RLock()
	t, count := l.tail, l.count
	l.mu.RUnlock()
	if t != nil && t.size >= l.limit {
		if err := l.fill(t); err != nil {
			return err
		}
		t = nil
	}
	if t == nil || t.file == nil || t.torn {
		var err error
		if t, err = l.grow(t, count); err != nil {
			return err
		}
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	size := (len(commits)+1)*recordHead + len(latest)
	for _, c := range commits {
		size += len(c)
	}
	b, at := slices.Grow((*buf)[:0], size), make([]uint32, len(commits))
	for i, c := range commits {
		at[i] = uint32(t.size) + uint32(len(b))
		b = appendRecord(b, commit, c)
	}
	marked := uint32(t.size) + uint32(len(b))
	b = appendRecord(b, mark, latest)
	*buf = b
	if err := writeAt(t.file, b, t.size); err != nil {
		l.mu.Lock()
		t.torn = true
		l.mu.Unlock()
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.offsets, t.lastMark, t.size = append(t.offsets, at...), marked, t.size+int64(len(b))
	l.count += uint64(len(commits))
	l.last = slices.Clone(latest)
	return nil
}

func writeAt(f vfs.File, b []byte, at int64) error {
	n, err := f.WriteAt(b, at)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// grow makes the file that is to grow ready to be written: a new one, or the
// last one opened, or, where bytes follow that don't belong, a copy of what
// is whole of it.
func (l *Log) grow(t *tail, count uint64) (*tail, error) {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	disk := l.disk.Files()
	switch {
	case t == nil:
		if err := l.disk.MakeFolder(l.dir); err != nil {
			return nil, err
		}
		path := l.path(count)
		// A crash may have left one of which no batch was written whole.
		if err := disk.Remove(path); err != nil && !tiles.IsNotExist(err) {
			return nil, err
		}
		f, err := disk.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return nil, err
		}
		if err := writeAt(f, header(count), 0); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		t = &tail{first: count, size: headerSize, file: f}
	case t.torn:
		raw, err := l.disk.ReadFile(l.path(t.first))
		if err != nil {
			return nil, err
		}
		if int64(len(raw)) < t.size {
			return nil, damaged("%s has %d bytes of %d", name(t.first), len(raw), t.size)
		}
		if err := l.disk.WriteFile(l.dir, name(t.first), raw[:t.size]); err != nil {
			return nil, err
		}
		f, err := disk.OpenReadWrite(l.path(t.first), vfs.WriteCategoryUnspecified)
		if err != nil {
			return nil, err
		}
		if t.file != nil {
			_ = t.file.Close()
		}
		if err := l.dropReaders(func(first uint64) bool { return first == t.first }); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		t = &tail{first: t.first, offsets: t.offsets, lastMark: t.lastMark, size: t.size, synced: t.size, listed: true, file: f}
	default:
		f, err := disk.OpenReadWrite(l.path(t.first), vfs.WriteCategoryUnspecified)
		if err != nil {
			return nil, err
		}
		t = &tail{first: t.first, offsets: t.offsets, lastMark: t.lastMark, size: t.size, synced: t.size, listed: true, file: f}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = t
	return t, nil
}

// fill ends a file with its table and makes it durable: the next one never
// exists without it.
func (l *Log) fill(t *tail) error {
	if t.file == nil || t.torn {
		var err error
		if t, err = l.grow(t, t.first); err != nil {
			return err
		}
	}
	payload := binary.BigEndian.AppendUint32(nil, t.lastMark)
	for _, at := range t.offsets {
		payload = binary.BigEndian.AppendUint32(payload, at)
	}
	b := append(appendRecord(nil, table, payload), trailer(uint32(t.size))...)
	l.syncing.Lock()
	defer l.syncing.Unlock()
	err := writeAt(t.file, b, t.size)
	if err == nil {
		err = t.file.SyncData()
	}
	if err == nil && !t.listed {
		err = l.disk.SyncFolder(l.dir)
	}
	if err != nil {
		l.mu.Lock()
		t.torn = true
		l.mu.Unlock()
		return err
	}
	l.hold(t.first, fullTable{t.offsets, t.size})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = append(l.full, file{t.first, uint64(len(t.offsets))})
	l.tail = nil
	return t.file.Close()
}

// Sync makes durable what was appended before.
func (l *Log) Sync() error { return l.sync(false) }

// SyncAndLeave is Sync for what nobody will read soon, as while a long history
// is read anew: its pages go back to the system.
func (l *Log) SyncAndLeave() error { return l.sync(true) }

func (l *Log) sync(leave bool) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.RLock()
	t := l.tail
	var size int64
	if t != nil {
		size = t.size
	}
	l.mu.RUnlock()
	if t == nil || t.file == nil || size == t.synced && !leave {
		return nil
	}
	if err := t.file.SyncData(); err != nil {
		return err
	}
	if !t.listed {
		if err := l.disk.SyncFolder(l.dir); err != nil {
			return err
		}
	}
	// Only holders of syncing look at these.
	t.synced, t.listed = size, true
	if leave {
		tiles.Leave(t.file, t.left, size)
		t.left = size
	}
	return nil
}

// Close makes everything durable and closes the files.
func (l *Log) Close() error {
	err := l.Sync()
	l.readMu.Lock()
	l.closed = true
	l.readMu.Unlock()
	err = errors.Join(err, l.dropReaders(func(uint64) bool { return true }))
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tail != nil && l.tail.file != nil {
		err = errors.Join(err, l.tail.file.Close())
		l.tail.file = nil
	}
	return err
}
