package segments

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

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
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for from < to {
		p, err := l.part(from)
		if err != nil {
			return err
		}
		end := min(to, p.first+uint64(len(p.offsets)))
		more := true
		for more && err == nil && from < end {
			from, more, err = p.visit(buf, from, end, visit)
		}
		if err = errors.Join(err, l.release(p.file)); err != nil || !more {
			return err
		}
	}
	return nil
}

// buffers are what Append gathers in and Each reads into: a shard that rests
// holds none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// part is a file being read.
type part struct {
	first   uint64
	offsets []uint32
	end     int64 // of the records
	file    *reader
}

// reader is a file that is read, by any number at a time.
type reader struct {
	vfs.File
	first uint64
	uses  int  // under way
	held  bool // among readers, for the next
}

// acquire opens a file to be read, or takes it from those that are open.
func (l *Log) acquire(first uint64) (*reader, error) {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	for _, r := range l.readers {
		if r.first == first {
			r.uses++
			return r, nil
		}
	}
	f, err := l.disk.Files().Open(l.path(first))
	if err != nil {
		return nil, err
	}
	r := &reader{File: f, first: first, uses: 1}
	if l.closed {
		return r, nil
	}
	if len(l.readers) == heldReaders {
		oldest := l.readers[0]
		l.readers = l.readers[1:]
		if err := oldest.drop(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	r.held = true
	l.readers = append(l.readers, r)
	return r, nil
}

// drop lets go of a reader that the next one shall not get. The caller holds
// readMu.
func (r *reader) drop() error {
	r.held = false
	if r.uses > 0 {
		return nil // the last one under way closes it
	}
	return r.Close()
}

func (l *Log) release(r *reader) error {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	if r.uses--; r.uses > 0 || r.held {
		return nil
	}
	return r.Close()
}

// dropReaders closes what is open of the files that which names.
func (l *Log) dropReaders(which func(first uint64) bool) (err error) {
	l.readMu.Lock()
	defer l.readMu.Unlock()
	l.readers = slices.DeleteFunc(l.readers, func(r *reader) bool {
		if !which(r.first) {
			return false
		}
		err = errors.Join(err, r.drop())
		return true
	})
	return err
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
		// Not the file that is appended to, which is closed once it is full.
		f, err := l.acquire(p.first)
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
	f, err := l.acquire(of.first)
	if err != nil {
		return part{}, err
	}
	held, err := l.table(f, of)
	if err != nil {
		return part{}, errors.Join(err, l.release(f))
	}
	return part{first: of.first, offsets: held.offsets, end: held.end, file: f}, nil
}

// fullTable says where a full file's commits are.
type fullTable struct {
	offsets []uint32
	end     int64 // of the last
}

// table returns where a full file's commits are.
func (l *Log) table(f vfs.File, of file) (fullTable, error) {
	l.tableMu.Lock()
	held, ok := l.tables[of.first]
	l.tableMu.Unlock()
	if ok {
		return held, nil
	}
	info, err := f.Stat()
	if err != nil {
		return fullTable{}, err
	}
	tail := make([]byte, trailerSize)
	if _, err := f.ReadAt(tail, info.Size()-trailerSize); err != nil {
		return fullTable{}, damaged("%s has no trailer: %v", name(of.first), err)
	}
	at := binary.BigEndian.Uint32(tail)
	if !bytesEqual(tail, trailer(at)) || int64(at) > info.Size()-trailerSize {
		return fullTable{}, damaged("the trailer of %s does not match its checksum", name(of.first))
	}
	raw := make([]byte, info.Size()-trailerSize-int64(at))
	if _, err := f.ReadAt(raw, int64(at)); err != nil {
		return fullTable{}, damaged("the table of %s cannot be read: %v", name(of.first), err)
	}
	k, payload, err := parse(raw)
	if err != nil || k != table {
		return fullTable{}, damaged("the table of %s cannot be read: %v", name(of.first), err)
	}
	_, offsets, err := parseTable(payload)
	if err != nil || uint64(len(offsets)) != of.count {
		return fullTable{}, damaged("the table of %s is not of %d commits", name(of.first), of.count)
	}
	held = fullTable{offsets, int64(at)}
	l.hold(of.first, held)
	return held, nil
}

func (l *Log) hold(first uint64, t fullTable) {
	l.tableMu.Lock()
	defer l.tableMu.Unlock()
	for k := range l.tables {
		if len(l.tables) < heldTables {
			break
		}
		delete(l.tables, k)
	}
	l.tables[first] = t
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
		*buf = make([]byte, max(size, readBytes))
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
