package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/probity-health/probity/services/ledger/core"
)

// Values returns the record values of at most most commits from an index on,
// at least one where there is one and no more than about size bytes.
func (s *Shard) Values(from uint64, most, size int) (out [][]byte, err error) {
	to := min(s.Head().Next, from+uint64(most))
	if from >= to {
		return nil, nil
	}
	err = s.eachCommit(from, to, func(_ uint64, value []byte) (bool, error) {
		if len(out) > 0 && size < len(value) {
			return false, nil
		}
		size -= len(value)
		out = append(out, append([]byte(nil), value...))
		return true, nil
	})
	return out, err
}

// rowBytes is about the most that Rows returns: what a commit says of who and
// why is part of its row, and only the record's size bounds it.
const rowBytes = 1 << 20

// Rows returns the index rows of at most most commits from an index on, at least
// one where there is one.
func (s *Shard) Rows(from uint64, most int) (out [][]byte, err error) {
	to := min(s.Head().Next, from+uint64(most))
	if from >= to {
		return nil, nil
	}
	size := 0
	err = s.eachRow(from, to, func(_ uint64, row core.Row) (bool, error) {
		raw := row.Append(nil)
		if size += len(raw); len(out) > 0 && size > rowBytes {
			return false, nil
		}
		out = append(out, raw)
		return true, nil
	})
	return out, err
}

// Offset returns the Kafka offset of the next record this replica reads.
func (s *Shard) Offset() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.st.Offset
}

// Bounds of one produce; see core.MaxRecord.
const (
	republishRecords = 500
	republishBytes   = 900_000
)

// republishedTerms is how far the last barrier of a republished topic is ahead
// of the newest term that this replica knows: owners may have raised others
// that it never read.
const republishedTerms = 1000

// Republish hands out, in order, the records that make an empty topic hold
// what this replica holds: every commit's own bytes, and before the first of
// each term a barrier that raises it. A last barrier ends all terms there
// were, so that nothing an owner of before still sends counts, should the
// broker have forgotten to refuse it. Barriers are no leaves, so the new topic
// has the same indexes and roots and other offsets.
func (s *Shard) Republish(ctx context.Context, produce func(context.Context, [][]byte) error) (commits, records uint64, err error) {
	var batch [][]byte
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := produce(ctx, batch); err != nil {
			return fmt.Errorf("replica: republish %s/%d at index %d: %w", s.cfg.Log, s.cfg.Shard, commits, err)
		}
		records += uint64(len(batch))
		batch, size = nil, 0
		return nil
	}
	add := func(value []byte) error {
		if len(batch) >= republishRecords || (size > 0 && size+len(value) > republishBytes) {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, size = append(batch, value), size+len(value)
		return nil
	}
	var (
		term uint64
		last time.Time
		head = s.Head()
	)
	raise := func(to, index uint64, at time.Time) error {
		term = to
		barrier, err := core.Barrier(s.cfg.Log, s.cfg.Shard, to, index, "republished", at)
		if err != nil {
			return err
		}
		return add(barrier)
	}
	err = s.eachCommit(0, head.Next, func(index uint64, value []byte) (bool, error) {
		c, err := decode(value)
		if err != nil {
			return false, err
		}
		last = c.RecordedTime.AsTime()
		if c.Term > term {
			if err := raise(c.Term, index, last); err != nil {
				return false, err
			}
		}
		if err := add(append([]byte(nil), value...)); err != nil {
			return false, err
		}
		commits = index + 1
		return true, ctx.Err()
	})
	if err == nil {
		err = raise(max(term, head.Term)+republishedTerms, head.Next, last)
	}
	if err == nil {
		err = flush()
	}
	return commits, records, err
}
