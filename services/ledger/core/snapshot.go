package core

import (
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// Snapshot is a shard's index built from rows alone, without a commit's body.
// It is a View, so the commits after it can be judged on top of it. Not safe
// for concurrent use.
type Snapshot struct {
	head     Head
	streams  map[string]int64
	requests map[string]Seen
	root     *compact.Range
	state    *compact.Range
}

// NewSnapshot returns the empty snapshot of a shard.
func NewSnapshot(log string, shard uint32) *Snapshot {
	ranges := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	return &Snapshot{
		head: Head{Log: log, Shard: shard}, streams: map[string]int64{}, requests: map[string]Seen{},
		root: ranges.NewEmptyRange(0), state: ranges.NewEmptyRange(0),
	}
}

// Add takes the next row in, by the rules the commit was judged by. The error
// is a *Violation, or says that the row cannot be read.
func (s *Snapshot) Add(raw []byte) error {
	row, err := ParseRow(raw)
	if err != nil {
		return err
	}
	head, seen, err := CheckRow(s.head, s, row)
	if err != nil {
		return err
	}
	seen.Row, seen.Recorded = &row, row.Recorded()
	entry, leaf := receipt.LeafHash(row.Entry), row.Leaf()
	if err := s.root.Append(entry[:], nil); err != nil {
		return err
	}
	if err := s.state.Append(leaf[:], nil); err != nil {
		return err
	}
	for i, w := range row.Writes {
		s.streams[w.Stream] = int64(seen.Revisions[i])
	}
	s.requests[row.RequestID] = seen
	s.head = head
	return nil
}

// Head returns where the shard stands after the rows. Its owner is not known.
func (s *Snapshot) Head() Head { return s.head }

// LastRevision implements View.
func (s *Snapshot) LastRevision(stream string) (int64, error) {
	if last, ok := s.streams[stream]; ok {
		return last, nil
	}
	return NoStream, nil
}

// Request implements View. What it finds lacks the time where the commit is of
// the first format: its row doesn't say it.
func (s *Snapshot) Request(id string) (Seen, bool, error) {
	seen, ok := s.requests[id]
	return seen, ok, nil
}

// Proves checks the rows against a head that a final block holds: they are
// the index of exactly the commits under it.
func (s *Snapshot) Proves(h receipt.Head) error {
	if h.Log != s.head.Log || h.Shard != s.head.Shard || h.Size != s.head.Next {
		return fmt.Errorf("core: the rows are of %s/%d at %d, the head of %s/%d at %d", s.head.Log, s.head.Shard, s.head.Next, h.Log, h.Shard, h.Size)
	}
	root, state := receipt.EmptyRoot(), receipt.EmptyRoot()
	if h.Size > 0 {
		for _, r := range []struct {
			of  *compact.Range
			out *receipt.Hash
		}{{s.root, &root}, {s.state, &state}} {
			sum, err := r.of.GetRootHash(nil)
			if err != nil {
				return err
			}
			*r.out = receipt.Hash(sum)
		}
	}
	if root != h.Root || state != h.State {
		return violated("ledger.snapshot.root", "the rows of %s/%d are not those that were sealed at %d", h.Log, h.Shard, h.Size)
	}
	return nil
}
