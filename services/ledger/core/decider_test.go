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
)

// A commit is spelled byte for byte as the protobuf library spells it, in room
// of the size that was said, and a Reader reads it.
func TestADeciderSpellsAsTheLibrary(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := drawCommit(rt)
		size, plain := spelled(c)
		if c.RecordedTime == nil {
			require.False(rt, plain)
			return
		}
		require.True(rt, plain)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
		require.NoError(rt, err)
		got := spell(nil, c)
		require.Equal(rt, want, append([]byte{}, got...))
		require.Len(rt, got, size)
		require.Equal(rt, c.Log == "claims" || c.Log == "", agrees(rt, &Reader{}, got))
	})
}

// What spell does not write is the library's: an event as a newer version has
// it keeps what this one doesn't know, and a text that is not UTF-8 is refused.
func TestADeciderLeavesOtherCommitsToTheLibrary(t *testing.T) {
	newer := &ledgerv1.Event{Type: "t", Payload: []byte("p")}
	newer.ProtoReflect().SetUnknown([]byte{0x78, 0x07})
	bad := "\xff"
	for name, c := range map[string]*ledgerv1.Commit{
		"a newer event": {Writes: []*ledgerv1.CommittedWrite{{Stream: "s-1", Events: []*ledgerv1.Event{newer}}}},
		"no event":      {Writes: []*ledgerv1.CommittedWrite{{Stream: "s-1", Events: []*ledgerv1.Event{nil}}}},
		"no write":      {Writes: []*ledgerv1.CommittedWrite{nil}},
		"request id":    {RequestId: bad}, "actor": {Actor: bad}, "traceparent": {Traceparent: bad}, "causation": {Causation: bad},
		"log": {Log: bad}, "stream": {Writes: []*ledgerv1.CommittedWrite{{Stream: bad}}},
		"type":    {Writes: []*ledgerv1.CommittedWrite{{Events: []*ledgerv1.Event{{Type: bad}}}}},
		"barrier": {Barrier: true}, "digest": {BarrierDigest: []byte("d")},
	} {
		c.RecordedTime = timestamppb.New(time.Unix(1, 0))
		_, plain := spelled(c)
		require.False(t, plain, name)
	}

	d := &Decider{}
	decided, err := d.Decide(Head{Log: "claims"}, nobody{}, &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "k", RequestId: "r", Writes: []*ledgerv1.StreamWrite{{Stream: "s-1", ExpectedRevision: Any, Events: []*ledgerv1.Event{newer}}},
	}, Provenance{})
	require.NoError(t, err)
	got := &ledgerv1.Commit{}
	require.NoError(t, proto.Unmarshal(decided.Value, got))
	require.Equal(t, []byte{0x78, 0x07}, []byte(got.Writes[0].Events[0].ProtoReflect().GetUnknown()))
}

// Many requests decided one after the other in shared room give what each
// gives alone, whatever of them is refused or repeated, and what was decided
// before stays as it was.
func TestADeciderSharesRoom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		shared, taken := &Decider{}, 0
		if rapid.Bool().Draw(rt, "more") {
			shared.More = func(size int) []byte { taken++; return make([]byte, 0, max(size, 256)) }
		}
		view, head := NewOverlay(nobody{}), Head{Log: "claims", Shard: 3, Term: 9}
		var all, alone []Decided
		for range rapid.IntRange(1, 60).Draw(rt, "requests") {
			r := &ledgerv1.AppendRequest{Log: "claims", RoutingKey: "k", RequestId: fmt.Sprint("r", rapid.IntRange(0, 50).Draw(rt, "id"))}
			for i := range rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(rt, "writes") {
				w := &ledgerv1.StreamWrite{Stream: fmt.Sprintf("s-%d-%d", i, rapid.IntRange(0, 3).Draw(rt, "stream")), ExpectedRevision: rapid.SampledFrom([]int64{Any, Any, NoStream, 0, 1}).Draw(rt, "expected")}
				for range rapid.IntRange(1, 3).Draw(rt, "events") {
					w.Events = append(w.Events, &ledgerv1.Event{Type: "t", Payload: rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "payload")})
				}
				r.Writes = append(r.Writes, w)
			}
			p := Provenance{Actor: "a", Recorded: time.Unix(rapid.Int64Range(0, 1<<33).Draw(rt, "at"), 5).UTC()}
			one, oneErr := Decide(head, view, r, p)
			got, err := shared.Decide(head, view, r, p)
			require.Equal(rt, oneErr, err)
			require.Equal(rt, one.Replayed, got.Replayed)
			if err != nil || got.Replayed {
				continue
			}
			all, alone = append(all, got), append(alone, one)
			view.Add(got.Commit, got.Seen)
			head.Next++
		}
		for i := range all {
			require.Equal(rt, alone[i].Value, all[i].Value)
			require.Equal(rt, alone[i].Seen.Index, all[i].Seen.Index)
			require.Equal(rt, alone[i].Seen.Recorded, all[i].Seen.Recorded)
			require.Equal(rt, alone[i].Seen.Revisions, all[i].Seen.Revisions)
			require.True(rt, proto.Equal(alone[i].Commit, all[i].Commit))
			require.Equal(rt, receipt.Entry(all[i].Value), all[i].Seen.Entry)
			require.Same(rt, all[i].Commit, all[i].Seen.Commit)
		}
	})
}
