package segments

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/ledger/tiles"
)

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
	f, err := l.disk.Files().Open(l.path(first))
	if err != nil {
		return Fault{file, -1, err.Error()}, false
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return Fault{file, -1, err.Error()}, false
	case info.Size() < size:
		return Fault{file, info.Size(), "it is shorter than what was appended"}, false
	case full:
		size = info.Size()
	}
	// A file has many times what a node can spare for looking at it.
	s, err := scanWindow(&window{file: f, size: size}, first)
	if err != nil {
		return Fault{file, -1, err.Error()}, false
	}
	switch {
	case s.fault != "":
		return Fault{file, s.at, s.fault}, false
	case full && !s.full:
		return Fault{file, size, "it has lost its table"}, false
	}
	return Fault{}, true
}

// Check verifies the files in dir to their last byte, and what else is there.
// It is for a log that no node has open and that was closed cleanly: what a
// crash tore counts as a fault.
func Check(disk tiles.Disk, dir string) ([]Fault, error) { return CheckAt(disk, dir, 0) }

// CheckAt is Check for a log whose first commit has another index than 0.
func CheckAt(disk tiles.Disk, dir string, outset uint64) ([]Fault, error) {
	names, err := disk.Files().List(dir)
	if err != nil {
		return nil, err
	}
	var out []Fault
	fault := func(file string, at int64, format string, args ...any) {
		out = append(out, Fault{file, at, fmt.Sprintf(format, args...)})
	}
	slices.Sort(names)
	next := outset
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
