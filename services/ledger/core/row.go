package core

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/transparency-dev/merkle/rfc6962"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// Row is what a shard's index keeps of one commit: enough to judge every
// later one, without the commit's body. A block seals the RFC 6962 root over
// the rows of each shard, one leaf a commit, as the head's State. Whoever
// holds the rows up to a head can therefore prove stream index and request
// ids complete, and rebuild the shard's own tree: Entry is the leaf there.
//
// A request that is sent again is told from another of the same id without
// the body, too. A row of the first format keeps the SHA-256 of the request's
// content for that. Since then it keeps what the owner added to the request,
// the commit's Provenance as its record spells it: with a repeated request
// that makes the record, and the entry says whether it is the same.
type Row struct {
	Format     uint32 // the commit's
	Entry      []byte // leaf entry
	RequestID  string
	Digest     []byte // 32 bytes; of the first format
	Provenance []byte // fields 7 to 10 of the record; of later formats
	Term       uint64
	Writes     []RowWrite
}

// RowWrite is one stream's part of a commit.
type RowWrite struct {
	Stream string
	First  uint64 // revision of the first event
	Count  uint64 // events
}

// Last is the revision of the last event.
func (w RowWrite) Last() uint64 { return w.First + w.Count - 1 }

// digestSize is that of a row's digest.
const digestSize = sha256.Size

// RowOf returns a judged commit's row.
func RowOf(c *ledgerv1.Commit, entry []byte) Row {
	r := Row{Format: c.Format, Entry: entry, RequestID: c.RequestId, Term: c.Term, Writes: make([]RowWrite, len(c.Writes))}
	if c.Format == digestFormat {
		sum := Digest(c.Writes)
		r.Digest = sum[:]
	} else {
		r.Provenance = spellProvenance(make([]byte, 0, provenanceSize(c)), c)
	}
	for i, w := range c.Writes {
		r.Writes[i] = RowWrite{Stream: w.Stream, First: w.FirstRevision, Count: uint64(len(w.Events))}
	}
	return r
}

// Append adds the row's one encoding to b: format, entry, digest or
// provenance, then counts and lengths as unsigned varints before what they
// count.
func (r *Row) Append(b []byte) []byte {
	b = append(b, byte(r.Format))
	b = append(b, r.Entry...)
	if r.Format == digestFormat {
		b = append(b, r.Digest...)
	} else {
		b = appendText(b, r.Provenance)
	}
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

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Leaf is the row's leaf hash in the tree whose root is the head's State.
func (r *Row) Leaf() receipt.Hash {
	var room [192]byte // most rows are shorter
	room[0] = rfc6962.RFC6962LeafHashPrefix
	return sha256.Sum256(r.Append(room[:1]))
}

var errRow = errors.New("core: not an index row")

// ParseRow reads exactly what Append writes.
func ParseRow(raw []byte) (Row, error) {
	var r Row
	if len(raw) < 1+receipt.EntrySize || raw[1] != receipt.EntryVersion {
		return r, errRow
	}
	r.Format = uint32(raw[0])
	r.Entry = bytes.Clone(raw[1 : 1+receipt.EntrySize])
	rest, bad := raw[1+receipt.EntrySize:], false
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
		if n > uint64(len(rest)) {
			bad, rest = true, nil
			return ""
		}
		s := string(rest[:n])
		rest = rest[n:]
		return s
	}
	switch {
	case r.Format == digestFormat && len(rest) >= digestSize:
		r.Digest, rest = bytes.Clone(rest[:digestSize]), rest[digestSize:]
	case r.Format == Format:
		r.Provenance = []byte(text())
	default:
		return Row{}, errRow
	}
	r.RequestID, r.Term = text(), number()
	n := number()
	if n == 0 || n > MaxWrites {
		return Row{}, errRow
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
	seen := Seen{Index: head.Next, Entry: r.Entry}
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
