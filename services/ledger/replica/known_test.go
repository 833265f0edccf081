package replica

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
)

// Whatever is announced is never denied, however much of it there is, and
// few of the keys that were not are passed on to the store.
func TestAFilterNeverDeniesWhatIsThere(t *testing.T) {
	k := newKnown(newHashes())
	k.whole = true
	const n = 3 * firstBlocks * keysABlock // the third layer is begun
	k.expect(10)                           // there is room for so few
	require.Len(t, k.layers, 1)
	for i := range n {
		k.announce([]stored{k.hashes.stored(0, core.Row{RequestID: fmt.Sprint("r", i), Writes: []core.RowWrite{{Stream: fmt.Sprint("s", i)}}})})
	}
	require.Greater(t, len(k.layers), 2)
	passed := 0
	for i := range n {
		if k.noRequest(fmt.Sprint("r", i)) {
			t.Fatalf("request %d is denied", i)
		}
		if k.noStream(fmt.Sprint("s", i)) {
			t.Fatalf("stream %d is denied", i)
		}
		if !k.noRequest(fmt.Sprint("x", i)) {
			passed++
		}
	}
	require.Less(t, passed, n/100, "unknown keys that the store would be asked for")
	k.expect(4 * n)
	k.expect(4 * n)
	layers := len(k.layers)
	for i := range 4 * n {
		k.announce([]stored{k.hashes.stored(0, core.Row{RequestID: fmt.Sprint("later", i)})})
	}
	require.Len(t, k.layers, layers, "room was made for these, once")
	require.False(t, k.noRequest("later7"))
	require.False(t, k.noRequest("r1"))
	k.whole = false
	require.False(t, k.noRequest("x1"), "a filter that has not read every key denies none")
}

// alone is one shard whose records the test applies itself.
type alone struct {
	t     *testing.T
	dir   string
	store *Store
	shard *Shard
}

func newAlone(t *testing.T) *alone {
	a := &alone{t: t, dir: t.TempDir()}
	a.open()
	return a
}

func (a *alone) open() {
	logger := slog.New(slog.DiscardHandler)
	var err error
	a.store, err = OpenStore(filepath.Join(a.dir, "store"), logger)
	require.NoError(a.t, err)
	a.shard, err = OpenShard(ShardConfig{Log: "claims", Store: a.store, Dir: filepath.Join(a.dir, "tiles"), Source: silent{}, Logger: logger, FlushAt: 4})
	require.NoError(a.t, err)
}

// decide decides a commit on top of what the shard holds, under term 1.
func (a *alone) decide(id, stream string) core.Decided {
	head := a.shard.Head()
	head.Term = 1
	d, err := core.Decide(head, a.shard, &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "k", RequestId: id,
		Writes: []*ledgerv1.StreamWrite{{Stream: stream, ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: "t", Payload: []byte(id)}}}},
	}, core.Provenance{Recorded: time.Unix(1, 0)})
	require.NoError(a.t, err)
	return d
}

// apply applies values as if they came from the topic, after a barrier where
// there is none yet.
func (a *alone) apply(values ...[]byte) error {
	a.shard.mu.RLock()
	next := a.shard.st.Offset
	a.shard.mu.RUnlock()
	if next == 0 {
		barrier, err := core.Barrier("claims", 0, 1, 0, "o", time.Unix(1, 0))
		require.NoError(a.t, err)
		values = append([][]byte{barrier}, values...)
	}
	got := Fetched{End: next + int64(len(values))}
	for i, v := range values {
		got.Records = append(got.Records, Record{Offset: next + int64(i), Value: v})
	}
	return a.shard.apply(got)
}

// A shard answers look-ups as its store would, whatever was written, whether
// the filter has read the older keys yet or not.
func TestLookUpsAreTheStores(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := newAlone(t)
		defer func() { require.NoError(rt, a.store.Close()) }()
		revisions := map[string]int64{}
		written := 0
		write := func(n int) {
			for range n {
				stream := fmt.Sprintf("s-%d", rapid.IntRange(0, 8).Draw(rt, "stream"))
				require.NoError(rt, a.apply(a.decide(fmt.Sprintf("r%d", written), stream).Value))
				written++
				if last, ok := revisions[stream]; ok {
					revisions[stream] = last + 1
				} else {
					revisions[stream] = 0
				}
			}
		}
		check := func() {
			for i := range 9 {
				stream := fmt.Sprintf("s-%d", i)
				want, ok := revisions[stream]
				if !ok {
					want = core.NoStream
				}
				got, err := a.shard.LastRevision(stream)
				if err != nil || got != want {
					rt.Fatalf("%s is at %d, the shard says %d (%v)", stream, want, got, err)
				}
			}
			for i := range written {
				seen, ok, err := a.shard.Request(fmt.Sprintf("r%d", i))
				if err != nil || !ok || seen.Index != uint64(i) {
					rt.Fatalf("request %d: %+v %v %v", i, seen, ok, err)
				}
			}
			if _, ok, err := a.shard.Request("never"); err != nil || ok {
				rt.Fatalf("an unknown request is known: %v", err)
			}
		}
		write(rapid.IntRange(0, 12).Draw(rt, "first"))
		check()
		require.NoError(rt, a.store.Close())
		a.open()
		check() // the filter has read nothing yet
		write(rapid.IntRange(1, 12).Draw(rt, "second"))
		require.True(rt, a.shard.known.whole)
		check()
	})
}

// Given what the node's own owner said it writes, when it reads back as
// written, then it's taken without being judged again; when any byte of it
// differs, or the term does, it's judged as anybody's.
func TestOnlyWhatReadsBackAsWrittenIsExpected(t *testing.T) {
	a := newAlone(t)
	defer func() { require.NoError(t, a.store.Close()) }()
	require.NoError(t, a.apply())
	d := a.decide("r0", "s-0")
	a.shard.Expect([]core.Written{{Commit: d.Commit, Value: d.Value, Seen: d.Seen}})
	for i := range d.Value {
		flipped := bytes.Clone(d.Value)
		flipped[i] ^= 1
		_, own := a.shard.own(a.shard.Head(), flipped)
		require.False(t, own, "byte %d", i)
	}
	later := a.shard.Head()
	later.Term++
	_, own := a.shard.own(later, d.Value)
	require.False(t, own, "another term")
	j, own := a.shard.own(a.shard.Head(), d.Value)
	require.True(t, own)
	judged, err := core.Judge(a.shard.Head(), a.shard, d.Value)
	require.NoError(t, err)
	require.Equal(t, judged.Seen.Entry, j.Seen.Entry)
	require.True(t, proto.Equal(judged.Seen.Commit, j.Seen.Commit))
	require.Equal(t, core.RowOf(judged.Commit, judged.Seen.Entry), j.Row)
	require.Equal(t, judged.Seen.Revisions, j.Seen.Revisions)
	require.Equal(t, judged.Head, j.Head)

	// A record that differs, and breaks a rule, is found out.
	wrong := proto.CloneOf(d.Commit)
	wrong.Writes[0].FirstRevision = 3
	value, err := proto.Marshal(wrong)
	require.NoError(t, err)
	var v *core.Violation
	require.ErrorAs(t, a.apply(value), &v)
	require.NoError(t, a.apply(d.Value))
	require.Equal(t, uint64(1), a.shard.Head().Next)
	// A record that differs and is valid is not what was written: nobody else
	// writes in the owner's term, and what it answers must not rest on it.
	again := a.decide("r1", "s-0")
	other := a.decide("r2", "s-1")
	a.shard.Expect([]core.Written{{Commit: again.Commit, Value: again.Value, Seen: again.Seen}})
	require.ErrorAs(t, a.apply(other.Value), &v)
	require.Equal(t, "ledger.topic.altered", v.Rule)
	require.Equal(t, uint64(1), a.shard.Head().Next)
	// What is expected under a term that passed is forgotten.
	barrier, err := core.Barrier("claims", 0, 2, 1, "other", time.Unix(1, 0))
	require.NoError(t, err)
	late := proto.CloneOf(other.Commit)
	late.Term = 2
	value, err = proto.Marshal(late)
	require.NoError(t, err)
	require.NoError(t, a.apply(barrier, value))
	require.Equal(t, uint64(2), a.shard.Head().Next)
}
