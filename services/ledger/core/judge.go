package core

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// Verdict is what a record of a shard's topic amounts to.
type Verdict int

// The verdicts.
const (
	Accepted  Verdict = iota // the shard's next leaf
	Raised                   // a barrier that raised the term
	Heartbeat                // a barrier of the reigning owner
	Void                     // written by an owner whose term had passed: no leaf, no effect
)

// Violation says that a record breaks a rule of the ledger, so that the shard
// cannot be followed beyond it. It names the rule and nothing of the content.
type Violation struct {
	Rule string
	What string
}

// Error gives the rule and what broke it.
func (v *Violation) Error() string { return "ledger: rule " + v.Rule + " is broken: " + v.What }

func violated(rule, format string, args ...any) error {
	return &Violation{Rule: rule, What: fmt.Sprintf(format, args...)}
}

// Judged is a judged record.
type Judged struct {
	Verdict Verdict
	// Term is the one the record was written in.
	Term   uint64
	Commit *ledgerv1.Commit
	// Seen describes an accepted commit, and so does Row where a Reader read it.
	Seen Seen
	Row  Row
	// Head is the shard's head after the record.
	Head Head
}

// Written is a commit that an owner decided and wrote.
type Written struct {
	Commit *ledgerv1.Commit
	Value  []byte // the record's
	Seen   Seen
}

// Is tells whether a record at head is the commit as its owner decided it:
// the same bytes at the same place in the same term. The owner decided it on
// the state that stands before it, so that Judge would accept it, too; and the
// entry it computed is the record's.
func (w Written) Is(head Head, value []byte) bool {
	return w.Seen.Index == head.Next && w.Commit.Term == head.Term && bytes.Equal(w.Value, value)
}

// Denies tells whether a record that was accepted at head cannot be, since w
// is what was written there: nobody else writes in an owner's term, so the
// broker has given back something else.
func (w Written) Denies(head Head, entry []byte) bool {
	return w.Seen.Index == head.Next && w.Commit.Term == head.Term && !bytes.Equal(w.Seen.Entry, entry)
}

// Judge re-checks one record as every replica must. The error is a
// *Violation, or the view's.
func Judge(head Head, view View, value []byte) (Judged, error) {
	c := &ledgerv1.Commit{}
	if err := proto.Unmarshal(value, c); err != nil {
		return Judged{}, violated("ledger.record.encoding", "a record is not a commit")
	}
	rec := recordOf(c)
	out := Judged{Term: rec.term, Commit: c}
	var err error
	if out.Verdict, out.Head, err = judge(head, view, &rec, value); err != nil {
		return Judged{}, err
	}
	if out.Verdict != Accepted {
		return out, nil
	}
	revisions := make([]uint64, len(rec.Writes))
	for i, w := range rec.Writes {
		revisions[i] = w.Last()
	}
	out.Seen = Seen{
		Index: c.Index, Entry: receipt.Entry(value), Recorded: c.RecordedTime.AsTime(), Revisions: revisions, Commit: c,
	}
	return out, nil
}

// judge applies the rules to a record; it returns the head after it.
func judge(head Head, view View, c *Record, value []byte) (Verdict, Head, error) {
	switch {
	case c.format != Format && c.format != digestFormat:
		return 0, head, violated("ledger.record.format", "a record has the unknown layout %d", c.format)
	case c.log != head.Log || c.shard != head.Shard:
		return 0, head, violated("ledger.record.shard", "a record belongs to another shard")
	case c.RequestID == "":
		return 0, head, violated("ledger.record.request-id", "a record has no request id")
	}
	if c.barrier && len(c.Writes) > 0 {
		return 0, head, violated("ledger.barrier.writes", "a barrier writes streams")
	}
	// Whatever else of it was changed, either the flag or the digest is left.
	if (c.barrier || c.digested) && !barrierHolds(value) {
		return 0, head, violated("ledger.barrier.digest", "a barrier is not the one that was written")
	}
	if c.barrier {
		switch {
		case c.term > head.Term:
			head.Term, head.Owner = c.term, c.RequestID
			return Raised, head, nil
		case c.term == head.Term && c.RequestID == head.Owner:
			return Heartbeat, head, nil
		}
		return Void, head, nil
	}
	switch {
	case c.term < head.Term:
		return Void, head, nil
	case c.term > head.Term:
		return 0, head, violated("ledger.commit.term", "index %d has term %d, which no barrier raised", c.index, c.term)
	case c.index != head.Next:
		return 0, head, violated("ledger.commit.index", "expected index %d, found %d", head.Next, c.index)
	case len(c.Writes) == 0 || len(c.Writes) > MaxWrites:
		return 0, head, violated("ledger.commit.writes", "index %d writes %d streams", c.index, len(c.Writes))
	}
	if _, ok, err := view.Request(c.RequestID); err != nil {
		return 0, head, err
	} else if ok {
		return 0, head, violated("ledger.commit.request-id", "index %d repeats the request id of an earlier commit", c.index)
	}
	for i, w := range c.Writes {
		twice := slices.ContainsFunc(c.Writes[:i], func(before RowWrite) bool { return before.Stream == w.Stream })
		if !ValidStream(w.Stream) || twice || w.Count == 0 || w.Count > MaxEvents {
			return 0, head, violated("ledger.commit.stream", "index %d has a malformed write %d", c.index, i)
		}
		last, err := view.LastRevision(w.Stream)
		if err != nil {
			return 0, head, err
		}
		if int64(w.First) != last+1 {
			return 0, head, violated("ledger.commit.revision", "index %d starts stream %s at %d after %d", c.index, w.Stream, w.First, last)
		}
	}
	head.Next++
	return Accepted, head, nil
}
