package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/probity-health/probity/services/ledger/tiles"
)

// A running replica looks for damage in three ways. Whoever reads hears from
// the database when a block doesn't match its checksum. Scrub reads in turn
// what is published and compares it, meaning with meaning. Patrol reads the
// database's files themselves, whatever of them is held in memory or was
// superseded, and those of the commits to their last byte. Any of them ends in Store.Damaged, and a replica whose store is
// damaged cosigns nothing.

// damage is the first thing found wrong with a store's files.
type damage struct {
	// found is broadcast when there is some.
	found Signal

	mu    sync.Mutex // guards what follows
	first error
	// reused are the write-ahead logs that took an older one's file over: past
	// their end stands what the older one held.
	reused map[string]bool
}

// Damaged returns what was found wrong with the store's files, nil while
// nothing was.
func (s *Store) Damaged() error {
	s.damage.mu.Lock()
	defer s.damage.mu.Unlock()
	return s.damage.first
}

// hurt records damage.
func (s *Store) hurt(file string, offset int64, what string) {
	place := file
	if offset >= 0 {
		place = fmt.Sprintf("%s@%d", file, offset)
	}
	err := fmt.Errorf("%w: %s: %s", errDamaged, place, what)
	s.damage.mu.Lock()
	known := s.damage.first != nil
	if !known {
		s.damage.first = err
	}
	s.damage.mu.Unlock()
	if known {
		return
	}
	s.log.Error("STORE DAMAGED: this replica signs no more checkpoints", "file", file, "offset", offset, "what", what)
	s.damage.found.Broadcast()
}

// listener is told by the database what it meets.
func (s *Store) listener() *pebble.EventListener {
	return &pebble.EventListener{
		// Without this the database ends the process.
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.hurt("store/"+filepath.Base(i.Path), -1, "a block does not match its checksum")
		},
		WALCreated: func(i pebble.WALCreateInfo) {
			if i.RecycledFileNum == 0 {
				return
			}
			s.damage.mu.Lock()
			defer s.damage.mu.Unlock()
			s.damage.reused[filepath.Base(i.Path)] = true
		},
	}
}

// isDamage tells an error that reading again would only repeat.
func isDamage(err error) bool {
	return errors.Is(err, errDamaged) || pebble.IsCorruptionError(err)
}

// patrolRest is how many times as long as it read Patrol rests, which bounds
// its share of a core and of the disk.
const patrolRest = 20

// Patrol reads the store's files one after the other, forever, until ctx ends
// or one is damaged: see Damaged. It rests for at least pause between two.
func (s *Store) Patrol(ctx context.Context, pause time.Duration) {
	for {
		names, err := s.fs().List(s.files)
		if err != nil {
			names = nil
		}
		slices.Sort(names)
		// An empty name rests once more, so that an empty folder isn't listed
		// without end.
		for _, name := range append(names, "") {
			start := time.Now()
			if name != "" && s.patrolFile(ctx, name, pause) {
				return
			}
			if !rest(ctx, max(pause, patrolRest*time.Since(start))) {
				return
			}
		}
		if !s.patrolCommits(ctx, pause) {
			return
		}
	}
}

func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// patrolFile checks one file and tells whether it is damaged.
func (s *Store) patrolFile(ctx context.Context, name string, pause time.Duration) bool {
	at, what := s.checkFile(name)
	if what == "" {
		return false
	}
	// What is being written may read back in part, and what is superseded may
	// go while it is read. Damage stays.
	if !rest(ctx, max(pause, 10*time.Millisecond)) {
		return true
	}
	again, what := s.checkFile(name)
	if what == "" || again != at {
		return false
	}
	s.hurt("store/"+name, at, what)
	return true
}

// patrolCommits checks the files of the shards' commits.
func (s *Store) patrolCommits(ctx context.Context, pause time.Duration) (more bool) {
	s.mu.Lock()
	logs := slices.Clone(s.logs)
	s.mu.Unlock()
	for _, l := range logs {
		for n := range l.Files() {
			start := time.Now()
			if fault, ok := l.CheckFile(n); !ok {
				s.hurt(CommitsDir+"/"+fault.File, fault.Offset, fault.What)
				return false
			}
			if !rest(ctx, max(pause, patrolRest*time.Since(start))) {
				return false
			}
		}
	}
	return true
}

// checkFile verifies one of the database's files as far as a file of a
// database that runs can be: a log that grows ends where it ends.
func (s *Store) checkFile(name string) (at int64, what string) {
	path := filepath.Join(s.files, name)
	switch {
	case strings.HasSuffix(name, ".sst"):
		opts := storeOptions(s.disk, slog.New(slog.DiscardHandler))
		defer opts.Cache.Unref()
		opts.EnsureDefaults()
		if err := checkTable(s.fs(), path, opts); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return -1, err.Error()
		}
	case strings.HasSuffix(name, ".log"):
		number, err := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 32)
		if err != nil {
			return 0, ""
		}
		s.damage.mu.Lock()
		reused := s.damage.reused[name]
		s.damage.mu.Unlock()
		raw, err := readAll(s.fs(), path)
		if err != nil {
			return 0, ""
		}
		at, what = checkChunks(raw, uint32(number))
		if what != "" && (at == int64(len(raw)) || reused && !goesOn(raw[at:], uint32(number))) {
			return 0, ""
		}
	case strings.HasPrefix(name, "MANIFEST-"):
		raw, err := readAll(s.fs(), path)
		if err != nil {
			return 0, ""
		}
		return checkChunks(raw, 0)
	case strings.HasPrefix(name, "OPTIONS-"):
		raw, err := readAll(s.fs(), path)
		if err != nil {
			return 0, ""
		}
		opts := storeOptions(s.disk, slog.New(slog.DiscardHandler))
		defer opts.Cache.Unref()
		opts.EnsureDefaults()
		if at := differs(raw, []byte(opts.String())); at >= 0 {
			return at, "the options are not those that this version of the node writes"
		}
	}
	return at, what
}

// goesOn tells whether a log has a whole chunk of its own, or the trailer of a
// clean stop, after the place where one is broken: then it isn't its end.
func goesOn(raw []byte, number uint32) bool {
	for i := 1; i+logHead <= len(raw); i++ {
		kind := raw[i+6]
		if kind < firstLogged || kind > lastType {
			continue
		}
		sum, size := binary.LittleEndian.Uint32(raw[i:]), int(binary.LittleEndian.Uint16(raw[i+4:]))
		owner := binary.LittleEndian.Uint32(raw[i+legacyHead:])
		if owner == number+1 && sum == 0 && size == 0 && kind == firstLogged {
			return true
		}
		head := logHead
		if kind >= firstSynced {
			head = syncHead
		}
		if end := i + head + size; owner == number && end <= len(raw) && maskedCRC(raw[i+6:end]) == sum {
			return true
		}
	}
	return false
}

// checkLogs looks at the write-ahead logs before the database does, which
// takes a broken record for the end of a crash where it isn't followed by one
// that was synced later.
func checkLogs(disk tiles.Disk, dir string) error {
	files := fileSystem(disk)
	names, err := files.List(dir)
	if err != nil {
		return nil // there is no store yet, or the database says so better
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".log") {
			continue
		}
		number, err := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 32)
		if err != nil {
			continue
		}
		raw, err := readAll(files, filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if at, what := checkChunks(raw, uint32(number)); what != "" && at < int64(len(raw)) && goesOn(raw[at:], uint32(number)) {
			return fmt.Errorf("%w: store/%s@%d: a record does not match its checksum, and others follow it", errDamaged, name, at)
		}
	}
	return nil
}

func fileSystem(disk tiles.Disk) vfs.FS {
	if disk.FS == nil {
		return vfs.Default
	}
	return disk.FS
}

func (s *Store) fs() vfs.FS { return fileSystem(s.disk) }

func readAll(files vfs.FS, path string) ([]byte, error) {
	f, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(f)
	return raw, errors.Join(err, f.Close())
}
