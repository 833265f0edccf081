package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// A replica may begin with the index rows of the commits up to a final block
// and without their bodies. The rows are the state that the block seals: they
// say every stream's last revision and every request id, and hold the leaf
// entries, so such a replica judges, hashes, proves and cosigns as any other.
// What it cannot do is give out a body, or an event, below its outset.

// Keys of what stands in place of bodies; see the index's.
const (
	kindOutset = 'b' // → index of the first commit whose body is held
	kindRow    = 'r' // index → row of a commit below it
)

// ErrNoBody says that a commit's body was never on this replica.
var ErrNoBody = errors.New("replica: it began with the index rows, without this commit's body")

func (s *Shard) noBody(index uint64) error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "ledger.commit.no-body",
		Message: fmt.Sprintf("this replica began with the index rows of %s/%d and holds commits from %d on, not %d", s.cfg.Log, s.cfg.Shard, s.outset, index),
		Fix:     "ask a replica that holds every commit; receipts are given here for all of them",
	}).Because(ErrNoBody)
}

// outset returns where a shard's bodies begin.
func (r rows) outset() (uint64, error) {
	v, err := r.get(r.key(kindOutset))
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, errDamaged
	}
	return binary.BigEndian.Uint64(v), nil
}

// row returns the stored row of a commit below the outset.
func (r rows) row(index uint64) (core.Row, error) {
	raw, err := r.get(r.key(kindRow, be64(index)))
	if err != nil {
		return core.Row{}, err
	}
	row, err := core.ParseRow(raw)
	if err != nil {
		return core.Row{}, fmt.Errorf("%w: the index row of %d does not read back", errDamaged, index)
	}
	return row, nil
}

// Outset returns the index of the first commit whose body is held here: 0 but
// on a replica that began with rows.
func (s *Shard) Outset() uint64 { return s.outset }

// Entry returns a commit's leaf entry, from its body or its row.
func (s *Shard) Entry(index uint64) ([]byte, error) {
	if index < s.outset {
		row, err := s.index.rows.row(index)
		return row.Entry, s.sound(err)
	}
	var entry []byte
	err := s.eachCommit(index, index+1, func(_ uint64, value []byte) (bool, error) {
		entry = receipt.Entry(value)
		return true, nil
	})
	return entry, err
}

// holds tells whether a record is the commit held at an index.
func (s *Shard) holds(index uint64, value []byte) (bool, error) {
	if index >= s.Head().Next {
		return false, nil
	}
	entry, err := s.Entry(index)
	return bytes.Equal(entry, receipt.Entry(value)), err
}

// eachRow calls visit with the index rows from an index up to but not
// including another.
func (s *Shard) eachRow(from, to uint64, visit func(index uint64, row core.Row) (more bool, err error)) error {
	for ; from < min(to, s.outset); from++ {
		row, err := s.index.rows.row(from)
		if err != nil {
			return err
		}
		if more, err := visit(from, row); err != nil || !more {
			return err
		}
	}
	if from >= to {
		return nil
	}
	return s.eachCommit(from, to, func(index uint64, value []byte) (bool, error) {
		row, err := rowOf(value)
		if err != nil {
			return false, err
		}
		return visit(index, row)
	})
}

// TakeRows takes the next index rows in, in place of commits. It applies the
// rules that commits are judged by and proves nothing: the caller holds the
// roots that come of it against a block before anything rests on them. It is
// for a shard without commits, and Begin must follow the last of them.
func (s *Shard) TakeRows(raw [][]byte, hint int64) error {
	s.mu.RLock()
	st := s.st
	s.mu.RUnlock()
	if s.commits.Mark() != nil {
		return errors.New("replica: a shard that holds commits takes no rows")
	}
	batch := s.index.rows.db.NewBatch()
	defer batch.Close()
	for i, r := range raw {
		if err := batch.Set(s.index.rows.key(kindRow, be64(st.Next+uint64(i))), r, nil); err != nil {
			return err
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	if err := s.known.load(s.index.rows); err != nil {
		return err
	}
	s.outset = st.Next + uint64(len(raw))
	head := core.Head{Log: s.cfg.Log, Shard: s.cfg.Shard, Next: st.Next, Term: st.Term}
	leaves := make([]receipt.Hash, 0, len(raw))
	for _, r := range raw {
		row, err := core.ParseRow(r)
		if err != nil {
			return errors.Join(ErrFeed, err)
		}
		next, seen, err := core.CheckRow(head, s, row)
		if err != nil {
			return errors.Join(ErrFeed, err)
		}
		one := []stored{s.index.hashes.stored(seen.Index, row)}
		s.known.announce(one)
		s.index.add(one)
		s.tree.Append(row.Entry)
		leaves, head = append(leaves, row.Leaf()), next
	}
	st.Next, st.Term, st.Owner, st.Hint = head.Next, head.Term, "", hint
	s.mu.Lock()
	s.st = st
	for _, l := range leaves {
		s.states.append(l)
	}
	s.mu.Unlock()
	s.broadcast()
	if s.index.fresh.commits >= s.cfg.FlushAt {
		s.index.roll()
		if err := s.index.write(st.Next); err != nil {
			return err
		}
	}
	return s.publishSome()
}

// Begin makes the rows that were taken the shard's outset: bodies are kept
// from there on. Nothing is durable before Store.Sync.
func (s *Shard) Begin() error {
	s.mu.RLock()
	st := s.st
	s.mu.RUnlock()
	if s.outset == 0 {
		return nil
	}
	s.index.roll()
	if err := s.index.write(s.outset); err != nil {
		return err
	}
	if err := s.index.rows.db.Set(s.index.rows.key(kindOutset), be64(s.outset), pebble.NoSync); err != nil {
		return err
	}
	if err := s.commits.Begin(s.outset); err != nil {
		return err
	}
	if err := s.commits.Append(nil, st.marshal()); err != nil {
		return sound(err)
	}
	s.anchor = &anchor{hint: st.Hint}
	return nil
}
