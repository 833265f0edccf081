package core

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// repeatedBy tells whether a request has the content that the commit of its id
// was decided from: the same events for the same streams, in order. Expected
// revisions, actor, trace and cause may differ between two sendings. The error
// says that the view told nothing to compare with. head is of the shard.
func (s Seen) repeatedBy(head Head, r *ledgerv1.AppendRequest) (bool, error) {
	switch {
	case s.Commit != nil:
		return slices.EqualFunc(s.Commit.Writes, r.Writes, func(was *ledgerv1.CommittedWrite, w *ledgerv1.StreamWrite) bool {
			return was.Stream == w.Stream && slices.EqualFunc(was.Events, w.Events, func(a, b *ledgerv1.Event) bool { return proto.Equal(a, b) })
		}), nil
	case s.Row != nil:
		return s.Row.madeFrom(head, s.Index, r), nil
	}
	return false, errors.New("core: a view found a request id and neither its commit nor its row")
}

// madeFrom tells whether the row at an index is of the commit that was decided
// from a request of this content.
func (r *Row) madeFrom(head Head, index uint64, request *ledgerv1.AppendRequest) bool {
	if len(request.Writes) != len(r.Writes) {
		return false
	}
	writes := make([]*ledgerv1.CommittedWrite, len(r.Writes))
	for i, w := range request.Writes {
		was := r.Writes[i]
		if w.Stream != was.Stream || uint64(len(w.Events)) != was.Count {
			return false
		}
		writes[i] = &ledgerv1.CommittedWrite{Stream: w.Stream, FirstRevision: was.First, Events: w.Events}
	}
	if r.Format == digestFormat {
		sum := Digest(writes)
		return bytes.Equal(sum[:], r.Digest)
	}
	c := r.provenance()
	c.Format, c.Log, c.Shard, c.Term, c.Index = r.Format, head.Log, head.Shard, r.Term, index
	c.RequestId, c.Writes = r.RequestID, writes
	value, err := new(Decider).encode(c)
	return err == nil && bytes.Equal(receipt.Entry(value), r.Entry)
}

// provenance returns a commit that has what the row says of the provenance.
func (r *Row) provenance() *ledgerv1.Commit {
	c := &ledgerv1.Commit{}
	// A row that a block seals was made from a commit, so this is read. If a
	// peer made it up nothing is made from it, and its root is no head's.
	_ = proto.Unmarshal(r.Provenance, c)
	return c
}

// Recorded is when the owner accepted the commit; zero where the row is of the
// first format, which doesn't say it.
func (r *Row) Recorded() time.Time {
	if t := r.provenance().RecordedTime; t != nil {
		return t.AsTime()
	}
	return time.Time{}
}
