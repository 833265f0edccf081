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
	"hash/crc32"
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
)

type kind byte

const (
	commit kind = iota + 1
	mark
	table
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Log is one shard's commits. Append must have one caller at a time; all else
// is safe for concurrent use.
type Log struct {
	disk  tiles.Disk
	dir   string
	limit int64
	buf   []byte // of Append

	// syncing is held while files are synced or changed, and taken before mu.
	syncing sync.Mutex

	mu   sync.RWMutex // guards what follows
	full []file       // by first index
	// tail is the file that grows, nil while there is none.
	tail  *tail
	count uint64
	last  []byte // the last mark
	cut   int64  // bytes of a torn tail that Open left out

	tableMu sync.Mutex          // guards what follows
	tables  map[uint64][]uint32 // offsets of full files' commits, by first index
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
	listed   bool // the folder that names it is synced
	// file is nil until the first append. Until then reads open it.
	file vfs.File
	torn bool // bytes follow size that don't belong
}

func name(first uint64) string { return fmt.Sprintf("%020d%s", first, suffix) }

func (l *Log) path(first uint64) string { return filepath.Join(l.dir, name(first)) }

// Open opens the log in dir, an empty one where there is none. It writes
// nothing: what a crash tore is only cut off when something is appended.
func Open(disk tiles.Disk, dir string) (*Log, error) {
	l := &Log{disk: disk, dir: dir, limit: fileBytes, tables: map[uint64][]uint32{}}
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
		l.tables[first] = s.offsets
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

// scanned is what a file holds.
type scanned struct {
	offsets  []uint32 // of the commits of whole batches
	mark     []byte
	lastMark uint32
	whole    int64 // where the last whole batch ends
	full     bool
	// fault is why the scan ended before the file did.
	fault string
	at    int64
}

// scan reads a file from its first byte as far as it is sound.
func scan(raw []byte, first uint64) (s scanned) {
	stop := func(at int64, format string, args ...any) scanned {
		s.at, s.fault = at, fmt.Sprintf(format, args...)
		s.offsets = s.offsets[:len(s.offsets):len(s.offsets)]
		return s
	}
	if len(raw) < headerSize || string(raw[:8]) != magic || binary.BigEndian.Uint64(raw[8:]) != first ||
		binary.BigEndian.Uint32(raw[16:]) != crc32.Checksum(raw[:16], castagnoli) {
		return stop(0, "its header is not that of a segment that begins with %d", first)
	}
	at, batch := int64(headerSize), []uint32(nil)
	for at < int64(len(raw)) {
		k, payload, err := parse(raw[at:])
		if err != nil {
			return stop(at, "%v", err)
		}
		switch k {
		case commit:
			batch = append(batch, uint32(at))
		case mark:
			s.offsets, batch = append(s.offsets, batch...), batch[:0]
			s.mark, s.lastMark = payload, uint32(at)
		case table:
			rest := raw[at+recordHead+int64(len(payload)):]
			lastMark, offsets, err := parseTable(payload)
			if err != nil || len(batch) > 0 || lastMark != s.lastMark || !slices.Equal(offsets, s.offsets) {
				return stop(at, "its table is not that of its records")
			}
			if len(rest) != trailerSize || !bytesEqual(rest, trailer(uint32(at))) {
				return stop(at, "it does not end with a trailer")
			}
			s.whole, s.full = int64(len(raw)), true
			return s
		}
		at += recordHead + int64(len(payload))
		if k == mark {
			s.whole = at
		}
	}
	if len(batch) > 0 {
		return stop(s.whole, "it ends within a batch")
	}
	s.at = at
	return s
}

func bytesEqual(a, b []byte) bool { return string(a) == string(b) }

// parse reads the record that raw begins with.
func parse(raw []byte) (kind, []byte, error) {
	if len(raw) < recordHead {
		return 0, nil, errors.New("a record is cut short")
	}
	size, k := int64(binary.BigEndian.Uint32(raw)), kind(raw[4])
	switch {
	case k < commit || k > table:
		return 0, nil, errors.New("a record is of no known kind")
	case size > int64(len(raw)-recordHead):
		return 0, nil, errors.New("a record is cut short")
	}
	payload := raw[recordHead : recordHead+size : recordHead+size]
	if sum(raw[:5], payload) != binary.BigEndian.Uint32(raw[5:]) {
		return 0, nil, errors.New("a record does not match its checksum")
	}
	return k, payload, nil
}

func sum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

func appendRecord(b []byte, k kind, payload []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, byte(k))
	b = binary.BigEndian.AppendUint32(b, sum(b[at:at+5], payload))
	return append(b, payload...)
}

func header(first uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte(magic), first)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func trailer(at uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, at)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseTable(payload []byte) (lastMark uint32, offsets []uint32, err error) {
	if len(payload) < 4 || len(payload)%4 != 0 {
		return 0, nil, errors.New("a table is malformed")
	}
	offsets = make([]uint32, len(payload)/4-1)
	for i := range offsets {
		offsets[i] = binary.BigEndian.Uint32(payload[4*i+4:])
	}
	return binary.BigEndian.Uint32(payload), offsets, nil
}

// Count returns how many commits there are.
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
	b, at := l.buf[:0], make([]uint32, len(commits))
	for i, c := range commits {
		at[i] = uint32(t.size) + uint32(len(b))
		b = appendRecord(b, commit, c)
	}
	marked := uint32(t.size) + uint32(len(b))
	b = appendRecord(b, mark, latest)
	if cap(b) <= 8<<20 {
		l.buf = b
	}
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
	l.hold(t.first, t.offsets)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = append(l.full, file{t.first, uint64(len(t.offsets))})
	l.tail = nil
	return t.file.Close()
}

// Sync makes durable what was appended before.
func (l *Log) Sync() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.RLock()
	t := l.tail
	var size int64
	if t != nil {
		size = t.size
	}
	l.mu.RUnlock()
	if t == nil || t.file == nil || size == t.synced {
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
	return nil
}

// Close makes everything durable and closes the files.
func (l *Log) Close() error {
	err := l.Sync()
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

// Commit returns the commit at an index.
func (l *Log) Commit(index uint64) (out []byte, err error) {
	err = l.Each(index, index+1, func(_ uint64, value []byte) (bool, error) {
		out = slices.Clone(value)
		return true, nil
	})
	return out, err
}

// Each calls visit with the commits from an index up to but not including
// another, in order; value is only valid during the call. It fails with
// ErrDamaged where one does not match its checksum or there are too few.
func (l *Log) Each(from, to uint64, visit func(index uint64, value []byte) (more bool, err error)) error {
	var buf []byte
	for from < to {
		p, err := l.part(from)
		if err != nil {
			return err
		}
		end := min(to, p.first+uint64(len(p.offsets)))
		more := true
		for more && err == nil && from < end {
			from, more, err = p.visit(&buf, from, end, visit)
		}
		if err = errors.Join(err, p.file.Close()); err != nil || !more {
			return err
		}
	}
	return nil
}

// part is a file being read.
type part struct {
	first   uint64
	offsets []uint32
	end     int64 // of the records
	file    vfs.File
}

// part returns the file that holds an index.
func (l *Log) part(index uint64) (part, error) {
	l.mu.RLock()
	if index >= l.count {
		defer l.mu.RUnlock()
		return part{}, damaged("there is no commit %d", index)
	}
	if t := l.tail; t != nil && index >= t.first {
		p := part{first: t.first, offsets: t.offsets, end: t.size}
		l.mu.RUnlock()
		// Readers open it for themselves: it may become full meanwhile.
		f, err := l.disk.Files().Open(l.path(p.first))
		p.file = f
		return p, err
	}
	n, ok := slices.BinarySearchFunc(l.full, index, func(f file, i uint64) int {
		switch {
		case i < f.first:
			return 1
		case i >= f.first+f.count:
			return -1
		}
		return 0
	})
	var of file
	if ok {
		of = l.full[n]
	}
	l.mu.RUnlock()
	if !ok {
		return part{}, damaged("there is no commit %d", index)
	}
	f, err := l.disk.Files().Open(l.path(of.first))
	if err != nil {
		return part{}, err
	}
	offsets, end, err := l.table(f, of)
	if err != nil {
		return part{}, errors.Join(err, f.Close())
	}
	return part{first: of.first, offsets: offsets, end: end, file: f}, nil
}

// table returns the offsets of a full file's commits and where they end.
func (l *Log) table(f vfs.File, of file) ([]uint32, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	tail := make([]byte, trailerSize)
	if _, err := f.ReadAt(tail, info.Size()-trailerSize); err != nil {
		return nil, 0, damaged("%s has no trailer: %v", name(of.first), err)
	}
	at := binary.BigEndian.Uint32(tail)
	if !bytesEqual(tail, trailer(at)) || int64(at) > info.Size()-trailerSize {
		return nil, 0, damaged("the trailer of %s does not match its checksum", name(of.first))
	}
	l.tableMu.Lock()
	held := l.tables[of.first]
	l.tableMu.Unlock()
	if held != nil {
		return held, int64(at), nil
	}
	raw := make([]byte, info.Size()-trailerSize-int64(at))
	if _, err := f.ReadAt(raw, int64(at)); err != nil {
		return nil, 0, damaged("the table of %s cannot be read: %v", name(of.first), err)
	}
	k, payload, err := parse(raw)
	if err != nil || k != table {
		return nil, 0, damaged("the table of %s cannot be read: %v", name(of.first), err)
	}
	_, offsets, err := parseTable(payload)
	if err != nil || uint64(len(offsets)) != of.count {
		return nil, 0, damaged("the table of %s is not of %d commits", name(of.first), of.count)
	}
	l.hold(of.first, offsets)
	return offsets, int64(at), nil
}

func (l *Log) hold(first uint64, offsets []uint32) {
	l.tableMu.Lock()
	defer l.tableMu.Unlock()
	for k := range l.tables {
		if len(l.tables) < heldTables {
			break
		}
		delete(l.tables, k)
	}
	l.tables[first] = offsets
}

// visit reads some commits from an index on and hands them out; it returns
// the index to go on from.
func (p part) visit(buf *[]byte, from, end uint64, visit func(uint64, []byte) (bool, error)) (uint64, bool, error) {
	at := func(index uint64) int64 {
		if i := index - p.first; i < uint64(len(p.offsets)) {
			return int64(p.offsets[i])
		}
		return p.end
	}
	start, to := at(from), from+1
	for to < end && at(to+1)-start <= readBytes {
		to++
	}
	size := at(to) - start
	if size <= 0 {
		return from, false, damaged("the offsets of %s do not rise", name(p.first))
	}
	if int64(cap(*buf)) < size {
		*buf = make([]byte, max(size, min(readBytes, p.end-start)))
	}
	raw := (*buf)[:size]
	if n, err := p.file.ReadAt(raw, start); n < len(raw) {
		return from, false, damaged("%s cannot be read at %d: %v", name(p.first), start, err)
	}
	for ; from < to; from++ {
		k, payload, err := parse(raw[at(from)-start:])
		if err != nil || k != commit {
			return from, false, damaged("index %d at %s@%d: %v", from, name(p.first), at(from), err)
		}
		if more, err := visit(from, payload); err != nil || !more {
			return from, false, err
		}
	}
	return from, true, nil
}

// Fault is damage of a file.
type Fault struct {
	File   string
	Offset int64 // -1 where it isn't known
	What   string
}

// Files returns how many files the log has.
func (l *Log) Files() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.tail != nil {
		return len(l.full) + 1
	}
	return len(l.full)
}

// CheckFile verifies the n-th file of an open log, the first being 0, to its
// last byte, or the last that was appended. It may run beside everything else.
func (l *Log) CheckFile(n int) (Fault, bool) {
	l.mu.RLock()
	var first uint64
	size, full := int64(-1), n < len(l.full)
	switch {
	case full:
		first = l.full[n].first
	case n == len(l.full) && l.tail != nil:
		first, size = l.tail.first, l.tail.size
	default:
		l.mu.RUnlock()
		return Fault{}, true
	}
	l.mu.RUnlock()
	file := filepath.Join(filepath.Base(filepath.Dir(l.dir)), filepath.Base(l.dir), name(first))
	raw, err := l.disk.ReadFile(l.path(first))
	switch {
	case err != nil:
		return Fault{file, -1, err.Error()}, false
	case int64(len(raw)) < size:
		return Fault{file, int64(len(raw)), "it is shorter than what was appended"}, false
	case !full:
		raw = raw[:size]
	}
	s := scan(raw, first)
	switch {
	case s.fault != "":
		return Fault{file, s.at, s.fault}, false
	case full && !s.full:
		return Fault{file, int64(len(raw)), "it has lost its table"}, false
	}
	return Fault{}, true
}

// Check verifies the files in dir to their last byte, and what else is there.
// It is for a log that no node has open and that was closed cleanly: what a
// crash tore counts as a fault.
func Check(disk tiles.Disk, dir string) ([]Fault, error) {
	names, err := disk.Files().List(dir)
	if err != nil {
		return nil, err
	}
	var out []Fault
	fault := func(file string, at int64, format string, args ...any) {
		out = append(out, Fault{file, at, fmt.Sprintf(format, args...)})
	}
	slices.Sort(names)
	var next uint64
	var segments []string
	for _, n := range names {
		number, ok := strings.CutSuffix(n, suffix)
		first, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || name(first) != n {
			fault(n, -1, "a file that the commits don't have")
			continue
		}
		segments = append(segments, n)
	}
	for i, n := range segments {
		first, _ := strconv.ParseUint(strings.TrimSuffix(n, suffix), 10, 64)
		if first != next {
			fault(n, 0, "it follows %d commits", next)
		}
		raw, err := disk.ReadFile(filepath.Join(dir, n))
		if err != nil {
			fault(n, -1, "%v", err)
			continue
		}
		s := scan(raw, first)
		switch {
		case s.fault != "":
			fault(n, s.at, "%s; or the node did not stop cleanly: then start and stop it before checking", s.fault)
		case !s.full && i < len(segments)-1:
			fault(n, int64(len(raw)), "it has no table and another file follows it")
		}
		next = first + uint64(len(s.offsets))
	}
	return out, nil
}
