package core

import (
	"encoding/binary"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// Decider decides requests that follow each other, as Decide does each. What
// it makes of them it keeps in room that many share, for an owner decides
// every append of its shard. The zero value is ready to use; it is not safe
// for concurrent use.
type Decider struct {
	// Room takes the values of commits, behind what it holds. Whoever sets it
	// may use it again once nobody looks at those values any more.
	Room []byte
	// More returns empty room for at least so many bytes when Room has too
	// little; nil makes it.
	More func(size int) []byte

	atOnce  int // for how many commits room is made next
	entries []byte
	parts   []parts
}

// partsAtOnce is for how many commits a Decider makes room at once at most: a
// commit that is kept keeps those made with it.
const partsAtOnce = 16

// parts are what a commit of one write is made of. They live and die together.
type parts struct {
	commit    ledgerv1.Commit
	recorded  timestamppb.Timestamp
	write     ledgerv1.CommittedWrite
	writes    [1]*ledgerv1.CommittedWrite
	revisions [1]uint64
}

// Decide turns a checked request into the shard's next commit. It refuses
// with a *ConflictError where a stream is not at its expected revision, and
// with a *problem.Error where the request id was used for other content or
// the record would be too large. Any other error is the view's.
func (d *Decider) Decide(head Head, view View, r *ledgerv1.AppendRequest, p Provenance) (Decided, error) {
	if len(d.parts) == 0 {
		d.atOnce = min(max(1, 2*d.atOnce), partsAtOnce)
		d.parts = make([]parts, d.atOnce)
	}
	// Taken for good only where it becomes part of a commit.
	made := &d.parts[0]
	writes, revisions := made.writes[:], made.revisions[:]
	if n := len(r.Writes); n == 1 {
		writes[0] = &made.write
	} else {
		writes, revisions = make([]*ledgerv1.CommittedWrite, n), make([]uint64, n)
		for i := range writes {
			writes[i] = &ledgerv1.CommittedWrite{}
		}
	}
	for i, w := range r.Writes {
		writes[i].Stream, writes[i].Events = w.Stream, w.Events
	}
	seen, ok, err := view.Request(r.RequestId)
	if err != nil {
		return Decided{}, err
	}
	if ok {
		same, err := seen.repeatedBy(head, r)
		if err != nil {
			return Decided{}, err
		}
		if !same {
			return Decided{}, problem.New(problem.Conflict, problem.Problem{
				RuleID: "ledger.append.request-id-reused", FieldPath: "request_id",
				Message: "this request id was used for an append of other content",
				Fix:     "use a fresh request id for each intended append, and the same one only to send it again unchanged",
			})
		}
		return Decided{Seen: seen, Replayed: true}, nil
	}
	for i, w := range r.Writes {
		last, err := view.LastRevision(w.Stream)
		if err != nil {
			return Decided{}, err
		}
		if w.ExpectedRevision != Any && w.ExpectedRevision != last {
			return Decided{}, &ConflictError{Stream: w.Stream, Actual: last}
		}
		writes[i].FirstRevision = uint64(last + 1)
		revisions[i] = uint64(last) + uint64(len(w.Events))
	}
	commit := &made.commit
	commit.Format, commit.Log, commit.Shard, commit.Term, commit.Index = Format, head.Log, head.Shard, head.Term, head.Next
	commit.RequestId, commit.Actor, commit.Traceparent, commit.Causation = r.RequestId, p.Actor, p.Traceparent, r.Causation
	made.recorded.Seconds, made.recorded.Nanos = p.Recorded.Unix(), int32(p.Recorded.Nanosecond())
	commit.RecordedTime, commit.Writes = &made.recorded, writes
	value, err := d.encode(commit)
	if err != nil {
		return Decided{}, problem.Invalidf("ledger.append.encoding", "writes", "the append cannot be encoded: a text field is not UTF-8").Because(err)
	}
	if len(value) > MaxRecord {
		return Decided{}, problem.Invalidf("ledger.append.too-large", "writes",
			"the commit takes %d bytes, the limit is %d: split it", len(value), MaxRecord)
	}
	d.parts = d.parts[1:]
	if cap(d.entries)-len(d.entries) < receipt.EntrySize {
		d.entries = make([]byte, 0, d.atOnce*receipt.EntrySize)
	}
	at := len(d.entries)
	d.entries = receipt.AppendEntry(d.entries, value)
	return Decided{Commit: commit, Value: value, Seen: Seen{
		Index: head.Next, Entry: d.entries[at:len(d.entries):len(d.entries)], Recorded: p.Recorded, Revisions: revisions, Commit: commit,
	}}, nil
}

// appendContent appends what a digest is over.
func appendContent(b []byte, writes []*ledgerv1.CommittedWrite) []byte {
	for _, w := range writes {
		b = binary.BigEndian.AppendUint64(b, uint64(len(w.Stream)))
		b = append(b, w.Stream...)
		b = binary.BigEndian.AppendUint64(b, uint64(len(w.Events)))
		for _, e := range w.Events {
			b = binary.BigEndian.AppendUint64(b, uint64(len(e.Type)))
			b = append(b, e.Type...)
			b = binary.BigEndian.AppendUint64(b, uint64(len(e.Payload)))
			b = append(b, e.Payload...)
		}
	}
	return b
}

// encode returns a commit's record, in the one spelling of it that the
// protobuf library and a Reader share.
func (d *Decider) encode(c *ledgerv1.Commit) ([]byte, error) {
	size, plain := spelled(c)
	if !plain {
		return proto.Marshal(c)
	}
	if cap(d.Room)-len(d.Room) < size {
		if d.More != nil {
			d.Room = d.More(size)
		} else {
			d.Room = make([]byte, 0, size)
		}
	}
	at := len(d.Room)
	d.Room = spell(d.Room, c)
	return d.Room[at:len(d.Room):len(d.Room)], nil
}

// spelled returns the size of a commit's record, and whether spell writes it:
// texts that are not UTF-8 and what a newer version of the event may have are
// the library's to refuse or to write.
func spelled(c *ledgerv1.Commit) (size int, plain bool) {
	if c.Barrier || c.BarrierDigest != nil || c.RecordedTime == nil || len(c.ProtoReflect().GetUnknown()) > 0 {
		return 0, false
	}
	for _, s := range [...]string{c.Log, c.RequestId, c.Actor, c.Traceparent, c.Causation} {
		if !utf8.ValidString(s) {
			return 0, false
		}
		size += textSize(len(s))
	}
	size += numberSize(uint64(c.Format)) + numberSize(uint64(c.Shard)) + numberSize(c.Term) + numberSize(c.Index)
	size += nestedSize(timeSize(c.RecordedTime))
	for _, w := range c.Writes {
		if w == nil || !utf8.ValidString(w.Stream) {
			return 0, false
		}
		for _, e := range w.Events {
			if e == nil || !utf8.ValidString(e.Type) || len(e.ProtoReflect().GetUnknown()) > 0 {
				return 0, false
			}
		}
		size += nestedSize(writeSize(w))
	}
	return size, true
}

// spell appends a commit's record: its fields in the order of their numbers,
// those that are zero left out.
func spell(b []byte, c *ledgerv1.Commit) []byte {
	b = numberField(b, fieldFormat, uint64(c.Format))
	b = textField(b, fieldLog, c.Log)
	b = numberField(b, fieldShard, uint64(c.Shard))
	b = numberField(b, fieldTerm, c.Term)
	b = numberField(b, fieldIndex, c.Index)
	b = textField(b, fieldRequestID, c.RequestId)
	b = spellProvenance(b, c)
	for _, w := range c.Writes {
		b = nestedField(b, fieldWrites, writeSize(w))
		b = textField(b, fieldStream, w.Stream)
		b = numberField(b, fieldFirstRevision, w.FirstRevision)
		for _, e := range w.Events {
			b = nestedField(b, fieldEvents, eventSize(e))
			b = textField(b, fieldType, e.Type)
			b = textField(b, fieldPayload, e.Payload)
		}
	}
	return b
}

// spellProvenance appends the part of a commit's record that its request
// doesn't say, but for where it stands: actor, trace, cause and time.
func spellProvenance(b []byte, c *ledgerv1.Commit) []byte {
	b = textField(b, fieldActor, c.Actor)
	b = textField(b, fieldTraceparent, c.Traceparent)
	b = textField(b, fieldCausation, c.Causation)
	if t := c.RecordedTime; t != nil {
		b = nestedField(b, fieldRecordedTime, timeSize(t))
		b = numberField(b, fieldSeconds, uint64(t.Seconds))
		b = numberField(b, fieldNanos, uint64(int64(t.Nanos)))
	}
	return b
}

// provenanceSize is the size of what spellProvenance appends.
func provenanceSize(c *ledgerv1.Commit) int {
	size := textSize(len(c.Actor)) + textSize(len(c.Traceparent)) + textSize(len(c.Causation))
	if c.RecordedTime != nil {
		size += nestedSize(timeSize(c.RecordedTime))
	}
	return size
}

func timeSize(t *timestamppb.Timestamp) int {
	return numberSize(uint64(t.Seconds)) + numberSize(uint64(int64(t.Nanos)))
}

func writeSize(w *ledgerv1.CommittedWrite) int {
	size := textSize(len(w.Stream)) + numberSize(w.FirstRevision)
	for _, e := range w.Events {
		size += nestedSize(eventSize(e))
	}
	return size
}

func eventSize(e *ledgerv1.Event) int { return textSize(len(e.Type)) + textSize(len(e.Payload)) }

// The sizes of fields with their tags, which take a byte each.

func numberSize(n uint64) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(n)
}

func textSize(n int) int {
	if n == 0 {
		return 0
	}
	return nestedSize(n)
}

func nestedSize(n int) int { return 1 + protowire.SizeBytes(n) }

func numberField(b []byte, field byte, n uint64) []byte {
	if n == 0 {
		return b
	}
	return binary.AppendUvarint(append(b, field<<3|byte(protowire.VarintType)), n)
}

func textField[T string | []byte](b []byte, field byte, text T) []byte {
	if len(text) == 0 {
		return b
	}
	return append(nestedField(b, field, len(text)), text...)
}

func nestedField(b []byte, field byte, size int) []byte {
	return binary.AppendUvarint(append(b, field<<3|byte(protowire.BytesType)), uint64(size))
}
