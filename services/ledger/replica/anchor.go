package replica

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
)

// errOtherTopic says that the topic is not the one followed before.
var errOtherTopic = errors.New("replica: the topic reads differently from before")

// anchor is a comparison under way of a topic, from its start, with what this
// replica holds. A topic that was lost and republished has other offsets and
// the same commits: when every commit held here is found in it, byte for byte
// and in order, following goes on where that ends. Nothing is skipped: one
// that is missing or differs halts the shard.
type anchor struct {
	next  int64  // offset
	index uint64 // commits found
	term  uint64
	owner string
	last  []byte    // SHA-256 of the record before next
	since time.Time // of the last progress
	// hint is an offset from which on the topic may be read instead of from
	// its start; 0 is none.
	hint int64
}

// hinted is how many records before a hint are looked at for one that is held.
const hinted = 256

// skip starts the comparison at the first record near the hint that is a
// commit held here. In a topic whose indexes are dense everything before it
// is held too; were it not, the gap would show at the next commit.
func (s *Shard) skip(ctx context.Context) error {
	a := s.anchor
	got, err := s.cfg.Source.Fetch(ctx, max(0, a.hint-hinted))
	if errors.Is(err, ErrOutOfRange) {
		a.hint = 0 // a wrong one: from the start
		return nil
	}
	if err != nil {
		return err
	}
	for _, rec := range got.Records {
		c := &ledgerv1.Commit{}
		if proto.Unmarshal(rec.Value, c) != nil || c.Barrier {
			continue
		}
		if held, err := s.holds(c.Index, rec.Value); err != nil {
			return err
		} else if !held {
			continue
		}
		owner, err := s.reigning(ctx, rec.Offset, c.Term)
		if err != nil {
			return err
		}
		a.next, a.index, a.term, a.owner = rec.Offset, c.Index, c.Term, owner
		break
	}
	a.hint = 0
	return nil
}

// windows bounds how far reigning looks back.
const windows = 64

// reigning finds who took a term, from the records before an offset: the first
// barrier of the term, which comes after every commit of a lower one. It is
// "" when that is too far back. Nothing rests on it but where a node that
// doesn't own the shard sends appends, until the next barrier.
func (s *Shard) reigning(ctx context.Context, before int64, term uint64) (owner string, err error) {
	for range windows {
		from := max(0, before-hinted)
		found, below := "", false
		for at := from; at < before; {
			got, err := s.cfg.Source.Fetch(ctx, at)
			if err != nil {
				return "", err
			}
			if len(got.Records) == 0 {
				return "", nil
			}
			for _, rec := range got.Records {
				if at = rec.Offset + 1; rec.Offset >= before {
					break
				}
				c := &ledgerv1.Commit{}
				if proto.Unmarshal(rec.Value, c) != nil {
					continue
				}
				switch {
				case c.Barrier && c.Term == term && found == "":
					found = c.RequestId
				case !c.Barrier && c.Term < term:
					if held, err := s.holds(c.Index, rec.Value); err != nil {
						return "", err
					} else if held {
						found, below = "", true
					}
				}
			}
		}
		if found != "" {
			owner = found
		}
		if below || from == 0 {
			return owner, nil
		}
		before = from
	}
	return "", nil
}

// compare takes the comparison one fetch further.
func (s *Shard) compare(ctx context.Context, now time.Time) error {
	a := s.anchor
	if a.since.IsZero() {
		a.since = now
	}
	if a.hint > 0 {
		if err := s.skip(ctx); err != nil {
			return err
		}
	}
	// The record before is read again, so that a topic still being written
	// answers at once with where it ends.
	got, err := s.cfg.Source.Fetch(ctx, max(0, a.next-1))
	if err == nil && len(got.Records) > 0 && got.Records[len(got.Records)-1].Offset < a.next && got.End > a.next {
		// It alone filled the answer.
		got, err = s.cfg.Source.Fetch(ctx, a.next)
	}
	if err != nil {
		return err
	}
	held := s.Head().Next
	progress := false
	for _, rec := range got.Records {
		if rec.Offset < a.next {
			continue
		}
		if rec.Offset != a.next {
			return &core.Violation{Rule: "ledger.topic.gap", What: fmt.Sprintf("expected offset %d, found %d", a.next, rec.Offset)}
		}
		if a.index == held {
			break // what follows is judged as ever
		}
		if err := s.match(a, rec.Value); err != nil {
			return err
		}
		sum := sha256.Sum256(rec.Value)
		a.next, a.last, progress = rec.Offset+1, sum[:], true
	}
	if a.index == held {
		return s.reanchor(a)
	}
	if !progress {
		return ErrOutOfRange
	}
	a.since = now
	return nil
}

// match compares one record of the topic with what is held at its index.
func (s *Shard) match(a *anchor, value []byte) error {
	other := func(format string, args ...any) error {
		return &core.Violation{Rule: "ledger.topic.rewritten", What: fmt.Sprintf(format, args...)}
	}
	c := &ledgerv1.Commit{}
	if proto.Unmarshal(value, c) != nil {
		return other("the record at offset %d is no commit", a.next)
	}
	switch {
	case c.Barrier && c.Term > a.term:
		a.term, a.owner = c.Term, c.RequestId
		return nil
	case c.Barrier || c.Term < a.term:
		return nil // a heartbeat, or void
	case c.Term > a.term || c.Index != a.index:
		return other("the record at offset %d is not the one followed before", a.next)
	}
	held, err := s.holds(c.Index, value)
	if err != nil {
		return err
	}
	if !held {
		return other("index %d at offset %d is not the commit followed before", c.Index, a.next)
	}
	a.index++
	return nil
}

// reanchor takes up following where the comparison ended.
func (s *Shard) reanchor(a *anchor) error {
	s.mu.RLock()
	st := s.st
	s.mu.RUnlock()
	// The term too is what this topic says: every replica reads it alike.
	st.Offset, st.Last, st.Term, st.Owner, st.Hint, st.Unread = a.next, a.last, a.term, a.owner, 0, nil
	if err := s.commits.Append(nil, st.marshal()); err != nil {
		return sound(err)
	}
	if err := s.commits.Sync(); err != nil {
		return err
	}
	s.mu.Lock()
	s.st = st
	s.mu.Unlock()
	s.anchor = nil
	s.handing.clear()
	s.cfg.Logger.Warn("the topic was made anew and holds everything followed before: going on", "commits", a.index, "offset", a.next)
	s.knows(true)
	return nil
}
