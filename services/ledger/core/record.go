package core

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// Record is what the rules look at of a record of a shard's topic.
type Record struct {
	RequestID string
	Writes    []RowWrite

	format     uint32
	log        string
	shard      uint32
	term       uint64
	index      uint64
	provenance []byte // as the record spells it; a Reader's only
	digest     []byte // of the content; a Reader's only, of the first format
	barrier    bool
	digested   bool // it has a barrier's digest
}

func recordOf(c *ledgerv1.Commit) Record {
	r := Record{
		format: c.Format, log: c.Log, shard: c.Shard, term: c.Term, index: c.Index, RequestID: c.RequestId,
		Writes: make([]RowWrite, len(c.Writes)), barrier: c.Barrier, digested: len(c.BarrierDigest) > 0,
	}
	for i, w := range c.Writes {
		r.Writes[i] = RowWrite{Stream: w.Stream, First: w.FirstRevision, Count: uint64(len(w.Events))}
	}
	return r
}

// Reader judges records that follow each other, as Judge does each. What it
// reads of a record it keeps in room that many share, for a replica judges
// every record of its ledger. The zero value is ready to use; it is not safe
// for concurrent use.
//
// A commit as Decide spells it, every field at most once, in order and as short
// as it can be, is read without the protobuf library. Anything else is the
// library's to read, so that the two never differ in what they accept.
type Reader struct {
	names   strings.Builder
	writes  []RowWrite
	entries []byte
	content []byte // what the digest of the record being read is over; of the first format
}

// Room that is taken at once.
const (
	roomOfNames   = 16 << 10
	roomOfWrites  = 256
	roomOfEntries = 128 * receipt.EntrySize
	// timesRoom is how many times that is taken where so much was needed.
	timesRoom = 8
)

// Judge is the function Judge; of an accepted commit it gives the Row instead
// of the Commit, and of Seen what a Row has. The Row is good for as long as
// value is, its texts for longer.
func (r *Reader) Judge(head Head, view View, value []byte) (out Judged, err error) {
	var rec Record
	if r.Read(&rec, value, head.Log) {
		err = r.JudgeRead(&out, head, view, &rec, value)
		return out, err
	}
	out, err = Judge(head, view, value)
	if err == nil && out.Verdict == Accepted {
		out.Row = RowOf(out.Commit, out.Seen.Entry)
	}
	return out, err
}

// JudgeRead is Judge of a record that Read has read.
func (r *Reader) JudgeRead(out *Judged, head Head, view View, rec *Record, value []byte) (err error) {
	*out = Judged{Term: rec.term}
	if out.Verdict, out.Head, err = judge(head, view, rec, value); err != nil || out.Verdict != Accepted {
		return err
	}
	out.Seen.Index, out.Seen.Entry = rec.index, r.Entry(value)
	out.Row = Row{
		Format: rec.format, Entry: out.Seen.Entry, RequestID: rec.RequestID, Digest: rec.digest, Provenance: rec.provenance,
		Term: rec.term, Writes: rec.Writes,
	}
	return nil
}

// Release takes the room of what was read before for what comes, but that of
// texts: rows, records and entries are good until then.
func (r *Reader) Release() {
	clear(r.writes)
	r.writes, r.entries = r.writes[:0], r.entries[:0]
}

// Entry is receipt.Entry.
func (r *Reader) Entry(value []byte) []byte {
	if cap(r.entries)-len(r.entries) < receipt.EntrySize {
		r.entries = make([]byte, 0, min(max(roomOfEntries, 2*cap(r.entries)), timesRoom*roomOfEntries))
	}
	at := len(r.entries)
	r.entries = receipt.AppendEntry(r.entries, value)
	return r.entries[at:len(r.entries):len(r.entries)]
}

// text keeps bytes as a string.
func (r *Reader) text(b []byte) string {
	if r.names.Cap()-r.names.Len() < len(b) {
		// What was written to a builder never changes, so the old one's
		// strings stay.
		r.names = strings.Builder{}
		r.names.Grow(max(roomOfNames, len(b)))
	}
	at := r.names.Len()
	r.names.Write(b)
	return r.names.String()[at:]
}

// Numbers of the fields, of Commit, CommittedWrite and Event.
const (
	fieldFormat = iota + 1
	fieldLog
	fieldShard
	fieldTerm
	fieldIndex
	fieldRequestID
	fieldActor
	fieldTraceparent
	fieldCausation
	fieldRecordedTime
	fieldWrites
)

const (
	fieldStream = iota + 1
	fieldFirstRevision
	fieldEvents
)

const (
	fieldType = iota + 1
	fieldPayload
)

// Of Timestamp.
const (
	fieldSeconds = iota + 1
	fieldNanos
)

// fields takes the fields of a message one by one; none has a number beyond 15.
type fields struct {
	rest []byte
	last byte // number of the field before
	bad  bool // it is not in the form that is read here
}

// next returns a field's number, 0 at the end, and its content: number of a
// varint, or text. Numbers must rise, but for one that may be repeated. What is
// zero is left out, and a varint has no more bytes than it needs.
func (f *fields) next(repeated byte) (field byte, number uint64, text []byte) {
	b := f.rest
	if len(b) == 0 {
		return 0, 0, nil
	}
	tag := b[0]
	field = tag >> 3
	if len(b) == 1 || tag >= 0x80 || field == 0 || field < f.last || field == f.last && field != repeated {
		f.bad = true
		return 0, 0, nil
	}
	f.last = field
	n, size := uint64(b[1]), 1
	if n >= 0x80 {
		if n, size = binary.Uvarint(b[1:]); size <= 0 || b[size] == 0 {
			f.bad = true
			return 0, 0, nil
		}
	}
	b = b[1+size:]
	switch kind := protowire.Type(tag & 7); {
	case kind == protowire.VarintType && n > 0:
		f.rest = b
		return field, n, nil
	case kind == protowire.BytesType && n <= uint64(len(b)):
		f.rest = b[n:]
		return field, 0, b[:n:n]
	}
	f.bad = true
	return 0, 0, nil
}

// Read reads a commit that is spelled as Decide spells it; it is false for
// anything else. log is the name that is expected. What it reads is good for as
// long as value is.
func (r *Reader) Read(rec *Record, value []byte, log string) bool {
	*rec = Record{}
	f := fields{rest: value}
	r.content = r.content[:0]
	first, from, to := len(r.writes), 0, 0 // of the writes, and of the provenance
	if cap(r.writes)-first < MaxWrites {
		r.writes, first = make([]RowWrite, 0, min(max(roomOfWrites, 2*cap(r.writes)), timesRoom*roomOfWrites)), 0
	}
	for {
		at := len(value) - len(f.rest)
		field, number, text := f.next(fieldWrites)
		// A number where a text belongs is as bad, and the other way round, and
		// so is an empty text: texts that are empty are left out.
		switch is, some := text != nil, len(text) > 0; {
		case field == 0:
			if f.bad {
				r.writes = r.writes[:first]
				return false
			}
			rec.Writes = r.writes[first:len(r.writes):len(r.writes)]
			if rec.format == digestFormat {
				sum := sha256.Sum256(r.content)
				rec.digest = sum[:]
			} else {
				rec.provenance = value[from:to:to]
			}
			return true
		case field == fieldFormat && !is && number <= math.MaxUint32:
			rec.format = uint32(number)
		case field == fieldLog && some && string(text) == log:
			rec.log = log
		case field == fieldShard && !is && number <= math.MaxUint32:
			rec.shard = uint32(number)
		case field == fieldTerm && !is:
			rec.term = number
		case field == fieldIndex && !is:
			rec.index = number
		case field == fieldRequestID && some && utf8.Valid(text):
			rec.RequestID = r.text(text)
		case (field == fieldActor || field == fieldTraceparent || field == fieldCausation) && some && utf8.Valid(text),
			field == fieldRecordedTime && is && isTime(text):
			if to == 0 {
				from = at
			}
			to = len(value) - len(f.rest)
		case field == fieldWrites && is && len(r.writes)-first < MaxWrites && r.readWrite(text, rec.format == digestFormat):
		default:
			f.bad, f.rest = true, nil
		}
	}
}

// isTime tells whether a Timestamp is spelled as the library spells it.
func isTime(raw []byte) bool {
	f := fields{rest: raw}
	for {
		switch field, number, text := f.next(0); {
		case field == 0:
			return !f.bad
		case field > fieldNanos || text != nil || field == fieldNanos && uint64(int64(int32(number))) != number:
			return false
		}
	}
}

// readWrite adds a write to those of the record and, where that has a digest,
// to what it is over.
func (r *Reader) readWrite(raw []byte, digested bool) bool {
	f := fields{rest: raw}
	var w RowWrite
	var stream []byte
	counted := -1 // where the events' number stands
	begin := func() {
		r.content = binary.BigEndian.AppendUint64(r.content, uint64(len(stream)))
		r.content = append(r.content, stream...)
		counted = len(r.content)
		r.content = binary.BigEndian.AppendUint64(r.content, 0)
	}
	for {
		field, number, text := f.next(fieldEvents)
		switch is := text != nil; {
		case field == 0:
			if f.bad {
				return false
			}
			if digested && counted < 0 {
				begin()
			}
			if digested {
				binary.BigEndian.PutUint64(r.content[counted:], w.Count)
			}
			w.Stream = r.text(stream)
			r.writes = append(r.writes, w)
			return true
		case field == fieldStream && len(text) > 0 && utf8.Valid(text):
			stream = text
		case field == fieldFirstRevision && !is:
			w.First = number
		case field == fieldEvents && is:
			if digested && counted < 0 {
				begin()
			}
			if !r.readEvent(text, digested) {
				return false
			}
			w.Count++
		default:
			return false
		}
	}
}

func (r *Reader) readEvent(raw []byte, digested bool) bool {
	f := fields{rest: raw}
	var kind, payload []byte
	for {
		field, _, text := f.next(0)
		switch {
		case field == 0:
			if f.bad || !digested {
				return !f.bad
			}
			r.content = binary.BigEndian.AppendUint64(r.content, uint64(len(kind)))
			r.content = append(r.content, kind...)
			r.content = binary.BigEndian.AppendUint64(r.content, uint64(len(payload)))
			r.content = append(r.content, payload...)
			return true
		case len(text) == 0:
			return false
		case field == fieldType && utf8.Valid(text):
			kind = text
		case field == fieldPayload:
			payload = text
		default:
			return false
		}
	}
}
