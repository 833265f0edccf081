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
)

func drawCommit(t *rapid.T) *ledgerv1.Commit {
	text := rapid.StringN(0, 12, 40)
	c := &ledgerv1.Commit{
		Format: rapid.Uint32Range(0, 2).Draw(t, "format"), Log: rapid.SampledFrom([]string{"", "claims", "other"}).Draw(t, "log"),
		Shard: rapid.Uint32().Draw(t, "shard"), Term: rapid.Uint64().Draw(t, "term"), Index: rapid.Uint64().Draw(t, "index"),
		RequestId: text.Draw(t, "request"), Actor: text.Draw(t, "actor"), Traceparent: text.Draw(t, "trace"), Causation: text.Draw(t, "cause"),
	}
	if rapid.Bool().Draw(t, "timed") {
		c.RecordedTime = timestamppb.New(time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "nanos")))
	}
	for range rapid.IntRange(0, 4).Draw(t, "writes") {
		w := &ledgerv1.CommittedWrite{Stream: text.Draw(t, "stream"), FirstRevision: rapid.Uint64().Draw(t, "first")}
		for range rapid.IntRange(0, 4).Draw(t, "events") {
			w.Events = append(w.Events, &ledgerv1.Event{Type: text.Draw(t, "type"), Payload: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")})
		}
		c.Writes = append(c.Writes, w)
	}
	return c
}

// readOf is what a Reader should make of a commit.
func readOf(c *ledgerv1.Commit) Record {
	rec := recordOf(c)
	if c.Format == digestFormat {
		sum := Digest(c.Writes)
		rec.digest = sum[:]
	} else {
		rec.provenance = spellProvenance([]byte{}, c)
	}
	return rec
}

// agrees compares what a Reader reads with what the protobuf library does; a
// Reader may leave a record to the library.
func agrees(t require.TestingT, r *Reader, value []byte) (read bool) {
	var got Record
	if !r.Read(&got, value, "claims") {
		return false
	}
	c := &ledgerv1.Commit{}
	require.NoError(t, proto.Unmarshal(value, c), "the library doesn't take what was read")
	require.Equal(t, readOf(c), got)
	if c.RecordedTime != nil {
		require.Equal(t, value, spell([]byte{}, c), "what is read is in the one spelling")
	}
	return true
}

// Every commit that is spelled in order is read without the library, and
// alike, in one Reader after any other.
func TestAReaderReadsWhatTheLibraryReads(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &Reader{}
		var all []Record
		var values [][]byte
		for range rapid.IntRange(1, 30).Draw(rt, "records") {
			c := drawCommit(rt)
			value, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
			require.NoError(rt, err)
			require.Equal(rt, c.Log == "claims" || c.Log == "", agrees(rt, r, value))
			var rec Record
			if r.Read(&rec, value, "claims") {
				all, values = append(all, rec), append(values, value)
			}
			if len(value) > 0 {
				spoilt := append([]byte(nil), value...)
				spoilt[rapid.IntRange(0, len(value)-1).Draw(rt, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
				agrees(rt, r, spoilt)
				agrees(rt, r, value[:rapid.IntRange(0, len(value)).Draw(rt, "cut")])
			}
		}
		for i, value := range values {
			c := &ledgerv1.Commit{}
			require.NoError(rt, proto.Unmarshal(value, c))
			require.Equal(rt, readOf(c), all[i], "what was read before is changed by what was read since")
		}
	})
}

// Spellings that Decide doesn't use are the library's to read.
func TestAReaderLeavesOtherSpellingsToTheLibrary(t *testing.T) {
	value, err := proto.Marshal(&ledgerv1.Commit{
		Format: 1, Log: "claims", Term: 3, RequestId: "r", RecordedTime: timestamppb.New(time.Unix(1, 0)),
		Writes: []*ledgerv1.CommittedWrite{{Stream: "s-1", Events: []*ledgerv1.Event{{Type: "t", Payload: []byte("p")}}}},
	})
	require.NoError(t, err)
	r := &Reader{}
	require.True(t, agrees(t, r, value))
	for name, tail := range map[string][]byte{
		"a field twice": {0x08, 1}, "a barrier": {0x60, 1}, "a digest": {0x6a, 0}, "an unknown field": {0x7a, 0}, "a group": {0x0b, 0x0c},
		"field 0": {0x02, 0}, "half a field": {0x5a}, "a longer tag": {0x88, 0},
		"a longer length": {0x5a, 0x80, 0},
	} {
		require.False(t, r.Read(&Record{}, append(append([]byte(nil), value...), tail...), "claims"), name)
	}
}

// What is zero is left out and a number takes no more bytes than it needs: any
// other spelling would give a row of its own.
func TestAReaderReadsOneSpelling(t *testing.T) {
	for name, value := range map[string][]byte{
		"a format of 0": {0x08, 0}, "a longer format": {0x08, 0x81, 0}, "an empty log": {0x12, 0}, "an empty id": {0x32, 0},
		"an empty actor": {0x3a, 0}, "an empty trace": {0x42, 0}, "an empty cause": {0x4a, 0},
		"seconds of 0": {0x52, 2, 0x08, 0}, "nanos of 0": {0x52, 2, 0x10, 0}, "longer nanos": {0x52, 3, 0x10, 0x81, 0},
		"nanos beyond 32 bits": {0x52, 6, 0x10, 0x80, 0x80, 0x80, 0x80, 0x10},
		"an empty stream":      {0x5a, 2, 0x0a, 0}, "an empty type": {0x5a, 4, 0x1a, 2, 0x0a, 0}, "an empty payload": {0x5a, 4, 0x1a, 2, 0x12, 0},
	} {
		require.NoError(t, proto.Unmarshal(value, &ledgerv1.Commit{}), name)
		require.False(t, (&Reader{}).Read(&Record{}, value, "claims"), name)
	}
	for name, value := range map[string][]byte{"a time of 0": {0x52, 0}, "an actor and a trace": []byte("\x3a\x02é\x42\x010"), "an empty write": {0x5a, 0}, "an empty event": {0x5a, 2, 0x1a, 0}} {
		require.True(t, agrees(t, &Reader{}, value), name)
	}
}

// A replica judges through a Reader what everybody judges by Judge.
func TestAReaderJudgesAlike(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r, view := &Reader{}, NewOverlay(nobody{})
		head := Head{Log: "claims", Term: 1, Owner: "o"}
		for i := range rapid.IntRange(1, 20).Draw(rt, "records") {
			c := &ledgerv1.Commit{
				Format: rapid.SampledFrom([]uint32{Format, digestFormat}).Draw(rt, "format"), Log: "claims", Term: rapid.Uint64Range(0, 2).Draw(rt, "term"), Index: head.Next + rapid.Uint64Range(0, 1).Draw(rt, "off"),
				RequestId: fmt.Sprint("r", rapid.IntRange(0, 3*i+1).Draw(rt, "request")),
			}
			for range rapid.IntRange(0, 3).Draw(rt, "writes") {
				stream := fmt.Sprintf("s-%d", rapid.IntRange(0, 4).Draw(rt, "stream"))
				last, _ := view.LastRevision(stream)
				c.Writes = append(c.Writes, &ledgerv1.CommittedWrite{
					Stream: stream, FirstRevision: uint64(last + 1 + rapid.Int64Range(0, 1).Draw(rt, "skip")), Events: make([]*ledgerv1.Event, rapid.IntRange(0, 2).Draw(rt, "events")),
				})
				for j := range c.Writes[len(c.Writes)-1].Events {
					c.Writes[len(c.Writes)-1].Events[j] = &ledgerv1.Event{Type: "t"}
				}
			}
			value, err := proto.Marshal(c)
			require.NoError(rt, err)
			want, wantErr := Judge(head, view, value)
			got, gotErr := r.Judge(head, view, value)
			require.Equal(rt, wantErr, gotErr)
			if wantErr != nil {
				continue
			}
			require.Equal(rt, want.Verdict, got.Verdict)
			require.Equal(rt, want.Head, got.Head)
			require.Equal(rt, want.Term, got.Term)
			head = got.Head
			if want.Verdict == Accepted {
				require.Equal(rt, RowOf(want.Commit, want.Seen.Entry), got.Row)
				require.Equal(rt, want.Seen.Index, got.Seen.Index)
				view.Add(want.Commit, want.Seen)
			}
		}
	})
}

type nobody struct{}

func (nobody) LastRevision(string) (int64, error) { return NoStream, nil }
func (nobody) Request(string) (Seen, bool, error) { return Seen{}, false, nil }

// Whatever a Reader reads, the library reads alike.
func FuzzReader(f *testing.F) {
	for _, c := range []*ledgerv1.Commit{
		{},
		{Format: 1, Log: "claims", RequestId: "r", Writes: []*ledgerv1.CommittedWrite{{Stream: "s-1", FirstRevision: 300, Events: []*ledgerv1.Event{{Type: "t", Payload: []byte("p")}, {}}}, {}}},
		{Log: "claims", Shard: 9, Term: 1 << 60, Actor: "é", Traceparent: "t", Causation: "c", RecordedTime: timestamppb.New(time.Unix(-5, 7))},
		{Format: 1, Barrier: true, BarrierDigest: []byte("d")},
	} {
		value, err := proto.Marshal(c)
		require.NoError(f, err)
		f.Add(value)
	}
	f.Add([]byte{0x52, 0x02, 0x00, 0x00, 0x5a, 0x04, 0x1a, 0x02, 0x00, 0x00})
	f.Add([]byte{0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02})
	f.Fuzz(func(t *testing.T, value []byte) { agrees(t, &Reader{}, value) })
}
