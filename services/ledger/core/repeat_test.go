package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// found is the View of a shard in which every request id is the one commit's.
type found struct {
	nobody
	seen Seen
}

func (f found) Request(string) (Seen, bool, error) { return f.seen, true, nil }

// Given a commit of either format, when a request of its id comes again, then
// whoever holds the body and whoever holds the row alone tell alike whether it
// is the one that was decided: it is when streams, types and payloads are the
// same, whatever else differs.
func TestARepeatIsToldFromAnotherWithAndWithoutTheBody(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringN(0, 12, 40)
		head := Head{Log: "claims", Shard: rapid.Uint32().Draw(rt, "shard"), Term: rapid.Uint64().Draw(rt, "term"), Next: rapid.Uint64().Draw(rt, "index")}
		r := &ledgerv1.AppendRequest{Log: "claims", RoutingKey: "k", RequestId: "r", Causation: text.Draw(rt, "cause")}
		for i := range rapid.IntRange(1, 3).Draw(rt, "writes") {
			w := &ledgerv1.StreamWrite{Stream: fmt.Sprint("s-", i), ExpectedRevision: rapid.SampledFrom([]int64{Any, NoStream}).Draw(rt, "expected")}
			for range rapid.IntRange(1, 3).Draw(rt, "events") {
				e := &ledgerv1.Event{Type: text.Draw(rt, "type"), Payload: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(rt, "payload")}
				if rapid.IntRange(0, 9).Draw(rt, "newer") == 0 {
					e.ProtoReflect().SetUnknown([]byte{0x78, 0x07})
				}
				w.Events = append(w.Events, e)
			}
			r.Writes = append(r.Writes, w)
		}
		at := time.Unix(rapid.Int64Range(-1<<33, 1<<33).Draw(rt, "seconds"), rapid.Int64Range(0, 999999999).Draw(rt, "nanos")).UTC()
		d, err := Decide(head, nobody{}, r, Provenance{Actor: text.Draw(rt, "actor"), Traceparent: text.Draw(rt, "trace"), Recorded: at})
		require.NoError(rt, err)
		c, value := d.Commit, d.Value
		old := rapid.Bool().Draw(rt, "first format")
		if old {
			c = proto.CloneOf(c)
			c.Format = digestFormat
			value, err = proto.MarshalOptions{Deterministic: true}.Marshal(c)
			require.NoError(rt, err)
		}
		made := RowOf(c, receipt.Entry(value))
		row, err := ParseRow(made.Append(nil))
		require.NoError(rt, err)
		require.Equal(rt, made, row)
		require.Equal(rt, !old, row.Recorded().Equal(at) && !at.IsZero())

		again := proto.CloneOf(r)
		again.Causation = text.Draw(rt, "cause now")
		again.Writes[0].ExpectedRevision = rapid.Int64Range(Any, 5).Draw(rt, "expected now")
		same := rapid.Bool().Draw(rt, "same")
		if !same {
			w := again.Writes[rapid.IntRange(0, len(again.Writes)-1).Draw(rt, "at")]
			switch rapid.IntRange(0, 5).Draw(rt, "difference") {
			case 0:
				w.Stream += "x"
			case 1:
				w.Events[0].Type += "x"
			case 2:
				w.Events[0].Payload = append(w.Events[0].Payload, 0)
			case 3:
				w.Events = append(w.Events, &ledgerv1.Event{})
			case 4:
				again.Writes = append(again.Writes, &ledgerv1.StreamWrite{Stream: "other-1"})
			case 5:
				w.Events = w.Events[:len(w.Events)-1]
			}
		}
		for name, seen := range map[string]Seen{"body": {Index: head.Next, Commit: c}, "row": {Index: head.Next, Row: &row}} {
			later := Head{Log: head.Log, Shard: head.Shard, Term: head.Term + 1, Next: head.Next + 9}
			got, err := Decide(later, found{seen: seen}, again, Provenance{Actor: text.Draw(rt, "actor now"), Recorded: at.Add(time.Hour)})
			if !same {
				require.True(rt, problem.Is(err, problem.Conflict), "%s: %v", name, err)
				continue
			}
			require.NoError(rt, err, name)
			require.True(rt, got.Replayed, name)
			require.Equal(rt, seen, got.Seen)
		}
	})
}

// A view that knows the id and nothing of the commit is no ground to answer on.
func TestARepeatIsComparedWithSomething(t *testing.T) {
	_, err := Decide(Head{}, found{}, &ledgerv1.AppendRequest{RequestId: "r"}, Provenance{})
	require.ErrorContains(t, err, "neither its commit nor its row")
	require.False(t, problem.Is(err, problem.Conflict))
}

// A row says what its commit said, however long: no rule bounds the texts of a
// record but the record's own size.
func TestRowsOfLongTexts(t *testing.T) {
	long := string(make([]byte, 3*MaxIdentifier))
	c := &ledgerv1.Commit{
		Format: Format, RequestId: long, Actor: long, RecordedTime: timestamppb.New(time.Unix(1, 0)),
		Writes: []*ledgerv1.CommittedWrite{{Stream: "s-1", Events: []*ledgerv1.Event{{}}}},
	}
	row := RowOf(c, receipt.Entry([]byte("v")))
	got, err := ParseRow(row.Append(nil))
	require.NoError(t, err)
	require.Equal(t, row, got)
	require.Equal(t, receipt.LeafHash(row.Append(nil)), got.Leaf())
}

// Rows of the first format are sealed by blocks that stand: their bytes never
// change. The expectation was written out by hand.
func TestARowOfTheFirstFormatIsAsItWas(t *testing.T) {
	c := &ledgerv1.Commit{
		Format: digestFormat, Term: 300, RequestId: "r1", Actor: "somebody",
		Writes: []*ledgerv1.CommittedWrite{{Stream: "s-1", FirstRevision: 2, Events: []*ledgerv1.Event{{Type: "t", Payload: []byte("p")}}}},
	}
	entry, digest := receipt.Entry([]byte("v")), Digest(c.Writes)
	want := append([]byte{1}, entry...)
	want = append(want, digest[:]...)
	want = append(want, "\x02r1\xac\x02\x01\x03s-1\x02\x01"...)
	row := RowOf(c, entry)
	require.Equal(t, want, row.Append(nil))
}

// Whoever holds a row alone makes the record anew, so a layout has one spelling
// for ever: what changes it needs a layout of its own. The bytes were written
// out by hand.
func TestTheSpellingOfALayoutStands(t *testing.T) {
	d, err := Decide(Head{Log: "claims", Shard: 1, Term: 2, Next: 300}, nobody{}, &ledgerv1.AppendRequest{
		Log: "claims", RequestId: "r", Causation: "c",
		Writes: []*ledgerv1.StreamWrite{{Stream: "s-1", ExpectedRevision: Any, Events: []*ledgerv1.Event{{Type: "t", Payload: []byte("p")}, {Type: "u"}}}},
	}, Provenance{Actor: "a", Traceparent: "w", Recorded: time.Unix(5, 6)})
	require.NoError(t, err)
	require.Equal(t, 2, Format)
	want := "\x08\x02\x12\x06claims\x18\x01\x20\x02\x28\xac\x02\x32\x01r\x3a\x01a\x42\x01w\x4a\x01c\x52\x04\x08\x05\x10\x06" +
		"\x5a\x12\x0a\x03s-1\x1a\x06\x0a\x01t\x12\x01p\x1a\x03\x0a\x01u"
	require.Equal(t, want, string(d.Value))
	row := RowOf(d.Commit, d.Seen.Entry)
	require.Equal(t, "\x3a\x01a\x42\x01w\x4a\x01c\x52\x04\x08\x05\x10\x06", string(row.Provenance))
}
