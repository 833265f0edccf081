package replica

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"

	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// Salvage is a Feed of what is still sound in the data directory of a replica
// that was, and of a peer for the rest. What it reads there is no more believed
// than what a peer says: CatchUp judges it and holds it against the same
// checkpoint. It changes nothing in the directory. Not safe for concurrent use.
type Salvage struct {
	peer Feed
	disk tiles.Disk
	dir  string
	logs map[string]*segments.Log // nil where nothing can be read
	// Taken and Asked count the commits that came from the directory and from
	// the peer.
	Taken, Asked int
}

// NewSalvage returns a Feed of what a data directory on a disk and a peer hold.
func NewSalvage(disk tiles.Disk, dir string, peer Feed) *Salvage {
	return &Salvage{peer: peer, disk: disk, dir: dir, logs: map[string]*segments.Log{}}
}

// Bounds of one answer.
const (
	salvagedCommits = 1024
	salvagedBytes   = 4 << 20
)

// Notes implements Feed: only a peer knows what became final.
func (s *Salvage) Notes(ctx context.Context) ([][]byte, error) { return s.peer.Notes(ctx) }

// Rows implements Feed.
func (s *Salvage) Rows(ctx context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	return s.peer.Rows(ctx, log, shard, from)
}

// Commits implements Feed. Where a stored commit doesn't match its checksum,
// the peer is asked from there on, and the directory again after its answer.
func (s *Salvage) Commits(ctx context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	values, hint := s.stored(log, shard, from)
	if len(values) > 0 {
		s.Taken += len(values)
		return values, hint, nil
	}
	values, hint, err := s.peer.Commits(ctx, log, shard, from)
	s.Asked += len(values)
	return values, hint, err
}

// stored returns the commits from an index on that the directory still has,
// and where their follower was in the topic.
func (s *Salvage) stored(log string, shard uint32, from uint64) (values [][]byte, hint int64) {
	dir := filepath.Join(s.dir, CommitsDir, log, strconv.Itoa(int(shard)))
	l, known := s.logs[dir]
	if !known {
		// What can't be opened is left to the peer, whatever the reason.
		l, _ = segments.Open(s.disk, dir)
		s.logs[dir] = l
	}
	if l == nil || from >= l.Count() {
		return nil, 0
	}
	size := 0
	// What came before a damaged one is good; that one is the next call's.
	_ = l.Each(from, min(from+salvagedCommits, l.Count()), func(_ uint64, value []byte) (bool, error) {
		values, size = append(values, append([]byte(nil), value...)), size+len(value)
		return size < salvagedBytes, nil
	})
	if st, ok := parseState(l.Mark()); ok {
		hint = max(st.Offset, st.Hint)
	}
	return values, hint
}

// Close closes the directory's files.
func (s *Salvage) Close() error {
	var err error
	for _, l := range s.logs {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}
