package localstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"github.com/probity-health/probity/services/views"
)

// Store implements views.Store in a directory.
type Store struct {
	dir string

	readOnly bool

	mu     sync.RWMutex // guards shards and closed; a shard's own lock may be taken under it
	shards map[place]*shard
	closed bool
}

// place is a shard of a view.
type place struct {
	view  string
	shard uint32
}

// shard is what is kept of one.
type shard struct {
	mu     sync.RWMutex // guards what follows
	named  bool         // by AddShards
	head   views.Head
	builds map[version]*build
}

type version struct {
	version    uint32
	generation uint64
}

var _ views.Store = (*Store)(nil)

const headsFile = "heads.json"

// kept is heads.json: by view and shard.
type kept map[string]map[uint32]views.Head

// Open opens a directory, which is made where it is missing and belongs to
// this Store until Close. What can't be read there is deleted and, by whoever
// writes the views, made anew; log is told, nil is silence.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("localstore: %w", err)
	}
	s := &Store{dir: dir, shards: map[place]*shard{}}
	if err := s.openHeads(); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("the lists' heads can't be read; the lists are built anew", "error", err)
		clear(s.shards)
	}
	return s, s.openBuilds(log)
}

// Read opens a directory that no Store has open, to look at it only: nothing
// in it is changed, what would change it is refused, and what can't be read is
// an error.
func Read(dir string) (*Store, error) {
	s := &Store{dir: dir, readOnly: true, shards: map[place]*shard{}}
	if err := s.openHeads(); err != nil {
		return nil, fmt.Errorf("localstore: %w", err)
	}
	if err := s.openBuilds(nil); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) openHeads() error {
	heads := kept{}
	raw, err := os.ReadFile(filepath.Join(s.dir, headsFile))
	if err == nil {
		err = json.Unmarshal(raw, &heads)
	}
	for view, shards := range heads {
		for n, head := range shards {
			s.shards[place{view, n}] = &shard{named: true, head: head, builds: map[version]*build{}}
		}
	}
	return err
}

var buildFile = regexp.MustCompile(`^([a-z]{1,32})\.([0-9]{1,10})\.v([0-9]{1,10})\.([0-9]{1,20})\.rows$`)

func fileOf(b views.Build) string {
	return fmt.Sprintf("%s.%d.v%d.%d.rows", b.View, b.Shard, b.Version, b.Generation)
}

// openBuilds reads the builds that the heads know of, and deletes the others.
func (s *Store) openBuilds(log *slog.Logger) error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("localstore: %w", err)
	}
	for _, file := range files {
		m := buildFile.FindStringSubmatch(file.Name())
		if m == nil {
			continue
		}
		n, err1 := strconv.ParseUint(m[2], 10, 32)
		v, err2 := strconv.ParseUint(m[3], 10, 32)
		g, err3 := strconv.ParseUint(m[4], 10, 64)
		path := filepath.Join(s.dir, file.Name())
		shard := s.shards[place{m[1], uint32(n)}]
		if errors.Join(err1, err2, err3) != nil || shard == nil || shard.head.Generation != g {
			if s.readOnly {
				continue
			}
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("localstore: %w", err)
			}
			continue
		}
		b := newBuild(nil)
		b.journal, err = openJournal(path, s.readOnly, b.follow)
		if errors.Is(err, errSteps) && !s.readOnly {
			log.Warn("a list's file can't be read; it is built anew", "file", file.Name())
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("localstore: %w", err)
			}
			if shard.head.Live == uint32(v) {
				shard.head.Live = 0 // nobody reads half of it
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("localstore: %s: %w", file.Name(), err)
		}
		shard.builds[version{uint32(v), g}] = b
	}
	return nil
}

// Close writes what is left and closes the files. Calls that come later are Unavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, shard := range s.shards {
		shard.mu.Lock()
		for _, b := range shard.builds {
			errs = append(errs, b.journal.flush(), b.journal.close())
		}
		shard.builds = nil
		shard.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Clear deletes everything.
func (s *Store) Clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return views.Away(errClosed)
	case s.readOnly:
		return views.Away(errReadOnly)
	}
	var errs []error
	for at, shard := range s.shards {
		shard.mu.Lock()
		for v, b := range shard.builds {
			errs = append(errs, s.delete(views.Build{View: at.view, Shard: at.shard, Version: v.version, Generation: v.generation}, b))
		}
		shard.named, shard.head = false, views.Head{}
		clear(shard.builds)
		shard.mu.Unlock()
	}
	return errors.Join(append(errs, s.keepHeads())...)
}

// delete deletes a build that nobody finds any more.
func (s *Store) delete(at views.Build, b *build) error {
	return errors.Join(b.journal.close(), os.Remove(filepath.Join(s.dir, fileOf(at))))
}

var errClosed = errors.New("localstore: it is closed")

var errReadOnly = errors.New("localstore: it is open for reading")

// toWrite is at for those who change something.
func (s *Store) toWrite(ctx context.Context, view string, n uint32) (*shard, error) {
	if s.readOnly {
		return nil, views.Away(errReadOnly)
	}
	return s.at(ctx, view, n)
}

// at returns a shard, which is made where it is missing.
func (s *Store) at(ctx context.Context, view string, n uint32) (*shard, error) {
	if err := ctx.Err(); err != nil {
		return nil, views.Away(err)
	}
	at := place{view, n}
	s.mu.RLock()
	found, closed := s.shards[at], s.closed
	s.mu.RUnlock()
	if closed {
		return nil, views.Away(errClosed)
	}
	if found != nil {
		return found, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shards[at] == nil {
		s.shards[at] = &shard{builds: map[version]*build{}}
	}
	return s.shards[at], nil
}

// Shards implements views.Store.
func (s *Store) Shards(ctx context.Context, view string) (out []uint32, err error) {
	if err := ctx.Err(); err != nil {
		return nil, views.Away(err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, views.Away(errClosed)
	}
	for at, shard := range s.shards {
		shard.mu.RLock()
		if at.view == view && shard.named {
			out = append(out, at.shard)
		}
		shard.mu.RUnlock()
	}
	slices.Sort(out)
	return out, nil
}

// AddShards implements views.Store.
func (s *Store) AddShards(ctx context.Context, view string, shards []uint32) error {
	fresh := false
	for _, n := range shards {
		shard, err := s.toWrite(ctx, view, n)
		if err != nil {
			return err
		}
		shard.mu.Lock()
		fresh = fresh || !shard.named
		shard.named = true
		shard.mu.Unlock()
	}
	if !fresh {
		return nil
	}
	return s.changed()
}

// changed writes the heads after one has changed.
func (s *Store) changed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return views.Away(errClosed)
	}
	return s.keepHeads()
}

// keepHeads writes heads.json; s.mu is held, and no shard's lock.
func (s *Store) keepHeads() error {
	heads := kept{}
	for at, shard := range s.shards {
		shard.mu.RLock()
		if shard.named {
			if heads[at.view] == nil {
				heads[at.view] = map[uint32]views.Head{}
			}
			heads[at.view][at.shard] = shard.head
		}
		shard.mu.RUnlock()
	}
	raw, err := json.MarshalIndent(heads, "", "  ")
	if err != nil {
		return views.Away(err)
	}
	path := filepath.Join(s.dir, headsFile)
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return views.Away(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return views.Away(err)
	}
	return nil
}

// Heads implements views.Store.
func (s *Store) Heads(ctx context.Context, view string, shards []uint32) ([]views.Head, error) {
	out := make([]views.Head, len(shards))
	for i, n := range shards {
		shard, err := s.at(ctx, view, n)
		if err != nil {
			return nil, err
		}
		shard.mu.RLock()
		out[i] = shard.head
		shard.mu.RUnlock()
	}
	return out, nil
}

// GoLive implements views.Store.
func (s *Store) GoLive(ctx context.Context, b views.Build) (live uint32, same bool, err error) {
	shard, err := s.toWrite(ctx, b.View, b.Shard)
	if err != nil {
		return 0, false, err
	}
	shard.mu.Lock()
	same = shard.head.Generation == b.Generation
	switched := same && shard.head.Live < b.Version
	if switched {
		shard.head.Live = b.Version
	}
	live = shard.head.Live
	shard.mu.Unlock()
	if !switched {
		return live, same, nil
	}
	return live, same, s.changed()
}

// Renew implements views.Store.
func (s *Store) Renew(ctx context.Context, view string, n uint32) (uint64, error) {
	shard, err := s.toWrite(ctx, view, n)
	if err != nil {
		return 0, err
	}
	shard.mu.Lock()
	shard.head = views.Head{Generation: shard.head.Generation + 1}
	generation := shard.head.Generation
	shard.mu.Unlock()
	return generation, s.changed()
}

// Drop implements views.Store.
func (s *Store) Drop(ctx context.Context, view string, n uint32, unwanted func(views.Build) bool) error {
	shard, err := s.toWrite(ctx, view, n)
	if err != nil {
		return err
	}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	var errs []error
	for v, b := range shard.builds {
		at := views.Build{View: view, Shard: n, Version: v.version, Generation: v.generation}
		if unwanted(at) {
			delete(shard.builds, v)
			errs = append(errs, s.delete(at, b))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return views.Away(err)
	}
	return nil
}

// Apply implements views.Store.
func (s *Store) Apply(ctx context.Context, in views.Batch) (views.Applied, error) {
	shard, err := s.toWrite(ctx, in.View, in.Shard)
	if err != nil {
		return views.Applied{}, err
	}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.builds == nil {
		return views.Applied{}, views.Away(errClosed)
	}
	at := version{in.Version, in.Generation}
	b, stored := shard.builds[at], uint64(0)
	if b != nil {
		stored = b.offset
	}
	switch {
	case shard.head.Generation != in.Generation:
		return views.Applied{Verdict: views.Gap}, nil
	case stored == 0 && shard.head.Live > in.Version:
		return views.Applied{Verdict: views.Superseded}, nil
	case stored < in.From:
		return views.Applied{Verdict: views.Gap}, nil
	case stored >= in.Next:
		return views.Applied{Verdict: views.Done}, nil
	}
	if b == nil {
		j, err := newJournal(filepath.Join(s.dir, fileOf(in.Build)))
		if err != nil {
			return views.Applied{}, views.Away(err)
		}
		b = newBuild(j)
		shard.builds[at] = b
	}
	// What a full disk has kept back goes first; a step is never taken twice.
	if b.journal.behind {
		if err := b.journal.flush(); err != nil {
			return views.Applied{}, views.Away(err)
		}
	}
	out := b.apply(in)
	if out.Verdict == views.Done {
		_ = b.journal.flush() // when it fails the next batch tries again, and says so
	}
	return out, nil
}

// reading calls f with a shard's build, nil where nothing is, under its lock.
func (s *Store) reading(ctx context.Context, at views.Build, f func(*build) error) error {
	shard, err := s.at(ctx, at.View, at.Shard)
	if err != nil {
		return err
	}
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	if shard.builds == nil {
		return views.Away(errClosed)
	}
	if err := f(shard.builds[version{at.Version, at.Generation}]); err != nil {
		return views.Away(err)
	}
	return nil
}

// Offsets implements views.Store.
func (s *Store) Offsets(ctx context.Context, builds ...views.Build) ([]uint64, error) {
	out := make([]uint64, len(builds))
	for i, at := range builds {
		if err := s.reading(ctx, at, func(b *build) error {
			if b != nil {
				out[i] = b.offset
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Parked implements views.Store.
func (s *Store) Parked(ctx context.Context, at views.Build) (out map[uint64]string, err error) {
	out = map[uint64]string{}
	err = s.reading(ctx, at, func(b *build) error {
		if b != nil {
			out = b.parkedCommits()
		}
		return nil
	})
	return out, err
}

// Hashes implements views.Store.
func (s *Store) Hashes(ctx context.Context, looks ...views.Fields) ([]map[string]string, error) {
	out := make([]map[string]string, len(looks))
	for i, l := range looks {
		if err := s.holding(ctx, l.At, views.Hash, func(b *build, t uint32) (err error) {
			if l.Fields == nil {
				var whole views.Table
				whole, err = b.contents(t)
				out[i] = whole.Hash
				return err
			}
			out[i], err = b.fields(t, l.Fields)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// holding calls f with a key's table where it holds something of the kind.
func (s *Store) holding(ctx context.Context, at views.At, k views.Kind, f func(b *build, t uint32) error) error {
	return s.reading(ctx, at.Build, func(b *build) error {
		if b == nil {
			return nil
		}
		t, ok := b.keys.lookup(at.Key)
		if !ok || b.kind(t) == views.Nothing {
			return nil
		}
		if b.kind(t) != k {
			return fmt.Errorf("localstore: %s holds a %s, not a %s", at.Key, b.kind(t), k)
		}
		return f(b, t)
	})
}

// Members implements views.Store.
func (s *Store) Members(ctx context.Context, sets ...views.At) ([][]string, error) {
	out := make([][]string, len(sets))
	for i, at := range sets {
		if err := s.holding(ctx, at, views.MemberSet, func(b *build, t uint32) error {
			b.tables[t].order.each(&b.arena, false, nil, func(e entry) bool {
				out[i] = append(out[i], b.names.name(e.name))
				return true
			})
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Count implements views.Store.
func (s *Store) Count(ctx context.Context, sets ...views.At) (total int64, err error) {
	for _, at := range sets {
		if err := s.holding(ctx, at, views.SortedSet, func(b *build, t uint32) error {
			total += int64(b.tables[t].order.n)
			return nil
		}); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// Range implements views.Store.
func (s *Store) Range(ctx context.Context, set views.At, page views.Page) (out []views.Member, err error) {
	err = s.holding(ctx, set, views.SortedSet, func(b *build, t uint32) error {
		out = b.pageOf(t, set.Shard, page)
		return nil
	})
	return out, err
}

// Tables implements views.Store. Nothing is written to the build meanwhile.
func (s *Store) Tables(ctx context.Context, at views.Build, visit func(key string, t views.Table) error) error {
	var failed error
	err := s.reading(ctx, at, func(b *build) error {
		if b == nil {
			return nil
		}
		return b.all(func(key string, t views.Table) error {
			failed = visit(key, t)
			return failed
		})
	})
	if failed != nil {
		return failed
	}
	return err
}
