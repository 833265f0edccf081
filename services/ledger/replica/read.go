package replica

import (
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
)

// Commit returns a commit's record value.
func (s *Shard) Commit(index uint64) ([]byte, error) {
	if index < s.outset {
		return nil, s.noBody(index)
	}
	value, err := s.commits.Commit(index)
	return value, sound(err)
}

// Commits calls visit with the decoded commits from an index on, in order,
// up to where the shard stands; it returns the index to go on from. The
// commits are shared with other callers: visit must not change them.
func (s *Shard) Commits(from uint64, visit func(c *ledgerv1.Commit) (more bool)) (uint64, error) {
	to := s.Head().Next
	for _, c := range s.tail.from(from) {
		if from++; !visit(c) {
			return from, nil
		}
	}
	if from >= to {
		return from, nil
	}
	err := s.eachCommit(from, to, func(index uint64, value []byte) (bool, error) {
		c, err := decode(value)
		if err != nil {
			return false, err
		}
		from = index + 1
		s.tail.add(index, c, len(value))
		return visit(c), nil
	})
	return from, err
}

// Stream calls visit with a stream's events from a revision on, oldest first.
func (s *Shard) Stream(stream string, from uint64, visit func(*ledgerv1.RecordedEvent) (more bool)) error {
	return s.index.eachExtent(stream, from, func(e extent) (bool, error) {
		if e.last() < int64(from) {
			return true, nil
		}
		value, err := s.Commit(e.index)
		if err != nil {
			return false, err
		}
		c, err := decode(value)
		if err != nil {
			return false, err
		}
		if e.write >= len(c.Writes) || len(c.Writes[e.write].Events) != e.count {
			return false, errDamaged
		}
		for i := range c.Writes[e.write].Events {
			if e.first+uint64(i) < from {
				continue
			}
			if !visit(Recorded(c, e.write, i)) {
				return false, nil
			}
		}
		return true, nil
	})
}

// Recorded returns one event of a commit as readers see it.
func Recorded(c *ledgerv1.Commit, write, event int) *ledgerv1.RecordedEvent {
	w := c.Writes[write]
	return &ledgerv1.RecordedEvent{
		Position: &ledgerv1.Position{Log: c.Log, Shard: c.Shard, Index: c.Index},
		Stream:   w.Stream, Revision: w.FirstRevision + uint64(event), Event: w.Events[event],
		RecordedTime: c.RecordedTime, Actor: c.Actor, RequestId: c.RequestId,
		Traceparent: c.Traceparent, Causation: c.Causation,
	}
}
