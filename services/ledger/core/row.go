package core

import (
	"bytes"
	"encoding/binary"
	"errors"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// Row is what a shard's index keeps of one commit: enough to judge every
// later one, without the commit's body. A block seals the RFC 6962 root over
// the rows of each shard, one leaf a commit, as the head's State. Whoever
// holds the rows up to a head can therefore prove stream index and request
// ids complete, and rebuild the shard's own tree: Entry is the leaf there.
type Row struct {
	Entry     []byte // leaf entry
	RequestID string
	Digest    [32]byte // of the request's content
	Term      uint64
	Writes    []RowWrite
}

// RowWrite is one stream's part of a commit.
type RowWrite struct {
	Stream string
	First  uint64 // revision of the first event
	Count  uint64 // events
}

// Last is the revision of the last event.
func (w RowWrite) Last() uint64 { return w.First + w.Count - 1 }

const rowVersion = 1

// RowOf returns a judged commit's row.
func RowOf(c *ledgerv1.Commit, seen Seen) Row {
	r := Row{Entry: seen.Entry, RequestID: c.RequestId, Digest: seen.Digest, Term: c.Term, Writes: make([]RowWrite, len(c.Writes))}
	for i, w := range c.Writes {
		r.Writes[i] = RowWrite{Stream: w.Stream, First: w.FirstRevision, Count: uint64(len(w.Events))}
	}
	return r
}

// Append adds the row's one encoding to b: version, entry, digest, then
// counts and lengths as unsigned varints before what they count.
func (r *Row) Append(b []byte) []byte {
	b = append(b, rowVersion)
	b = append(b, r.Entry...)
	b = append(b, r.Digest[:]...)
	b = appendText(b, r.RequestID)
	b = binary.AppendUvarint(b, r.Term)
	b = binary.AppendUvarint(b, uint64(len(r.Writes)))
	for _, w := range r.Writes {
		b = appendText(b, w.Stream)
		b = binary.AppendUvarint(b, w.First)
		b = binary.AppendUvarint(b, w.Count)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Leaf is the row's leaf hash in the tree whose root is the head's State.
func (r *Row) Leaf() receipt.Hash {
	var room [512]byte
	return receipt.LeafHash(r.Append(room[:0]))
}

var errRow = errors.New("core: not an index row")

// ParseRow reads exactly what Append writes.
func ParseRow(raw []byte) (Row, error) {
	var r Row
	rest := raw
	bad := len(rest) < 1+receipt.EntrySize+32 || rest[0] != rowVersion || rest[1] != receipt.EntryVersion
	if bad {
		return r, errRow
	}
	r.Entry = bytes.Clone(rest[1 : 1+receipt.EntrySize])
	rest = rest[1+receipt.EntrySize:]
	copy(r.Digest[:], rest)
	rest = rest[32:]
	number := func() uint64 {
		n, size := binary.Uvarint(rest)
		if size <= 0 {
			bad, rest = true, nil
			return 0
		}
		rest = rest[size:]
		return n
	}
	text := func() string {
		n := number()
		if n > uint64(len(rest)) || n > MaxIdentifier {
			bad, rest = true, nil
			return ""
		}
		s := string(rest[:n])
		rest = rest[n:]
		return s
	}
	r.RequestID, r.Term = text(), number()
	n := number()
	if n == 0 || n > MaxWrites {
		return r, errRow
	}
	for range n {
		r.Writes = append(r.Writes, RowWrite{Stream: text(), First: number(), Count: number()})
	}
	// A varint may be spelled longer than it needs; a row has one spelling.
	if bad || len(rest) > 0 || !bytes.Equal(r.Append(nil), raw) {
		return Row{}, errRow
	}
	return r, nil
}

// CheckRow applies Judge's rules to the row a commit left, against what is
// known of the commits before it. The error is a *Violation, or the view's.
func CheckRow(head Head, view View, r Row) (Head, Seen, error) {
	if r.RequestID == "" || r.Term < head.Term {
		return head, Seen{}, violated("ledger.row.term", "index %d has a term below the one before it", head.Next)
	}
	if _, ok, err := view.Request(r.RequestID); err != nil {
		return head, Seen{}, err
	} else if ok {
		return head, Seen{}, violated("ledger.commit.request-id", "index %d repeats the request id of an earlier commit", head.Next)
	}
	seen := Seen{Index: head.Next, Digest: r.Digest, Entry: r.Entry}
	written := map[string]bool{}
	for i, w := range r.Writes {
		if !ValidStream(w.Stream) || written[w.Stream] || w.Count == 0 || w.Count > MaxEvents {
			return head, Seen{}, violated("ledger.commit.stream", "index %d has a malformed write %d", head.Next, i)
		}
		written[w.Stream] = true
		last, err := view.LastRevision(w.Stream)
		if err != nil {
			return head, Seen{}, err
		}
		if int64(w.First) != last+1 {
			return head, Seen{}, violated("ledger.commit.revision", "index %d starts stream %s at %d after %d", head.Next, w.Stream, w.First, last)
		}
		seen.Revisions = append(seen.Revisions, w.First+w.Count-1)
	}
	head.Next++
	head.Term = r.Term
	return head, seen, nil
}
