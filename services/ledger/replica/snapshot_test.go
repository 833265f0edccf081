package replica

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// Given the rows of a replica up to a final block's head, then they prove
// themselves by it, and judging the commits after it on top of them comes to
// the same as having read everything.
func TestASnapshotAndItsTailAreTheReplay(t *testing.T) {
	f := newFour(t)
	f.live()
	b := f.members[0]
	_, block := b.blocks.Final()
	head, ok := block.Head("claims", 0)
	require.True(t, ok)
	for range 3 {
		f.claim() // the tail
	}
	rows, err := b.claims.Rows(0, int(head.Size))
	require.NoError(t, err)
	build := func(rows [][]byte) (*core.Snapshot, error) {
		s := core.NewSnapshot("claims", 0)
		for _, r := range rows {
			if err := s.Add(r); err != nil {
				return nil, err
			}
		}
		return s, s.Proves(head)
	}
	snapshot, err := build(rows)
	require.NoError(t, err)
	view, at := core.NewOverlay(snapshot), snapshot.Head()
	tail, err := b.claims.Values(head.Size, 100, 1<<20)
	require.NoError(t, err)
	require.Len(t, tail, 3)
	for _, value := range tail {
		j, err := core.Judge(at, view, value)
		require.NoError(t, err)
		view.Add(j.Commit, j.Seen)
		at = j.Head
	}
	require.Equal(t, b.claims.Head().Next, at.Next)
	require.Equal(t, b.claims.Head().Term, at.Term)
	whole, err := b.claims.LastRevision("claim-1")
	require.NoError(t, err)
	last, err := view.LastRevision("claim-1")
	require.NoError(t, err)
	require.Equal(t, whole, last)
	for _, id := range []string{"r1", "r3"} {
		want, found, err := b.claims.Request(id)
		require.NoError(t, err)
		got, ok, err := view.Request(id)
		require.NoError(t, err)
		require.Equal(t, found, ok)
		require.Equal(t, [2]any{want.Index, want.Entry}, [2]any{got.Index, got.Entry})
	}

	for name, spoil := range map[string]func(rows [][]byte) [][]byte{
		"one too few":        func(rows [][]byte) [][]byte { return rows[:len(rows)-1] },
		"two exchanged":      func(rows [][]byte) [][]byte { rows[2], rows[3] = rows[3], rows[2]; return rows },
		"a provenance's bit": func(rows [][]byte) [][]byte { rows[5][40] ^= 1; return rows },
		"an entry's bit":     func(rows [][]byte) [][]byte { rows[5][20] ^= 1; return rows },
		"one repeated":       func(rows [][]byte) [][]byte { return append(rows[:7:7], rows[6]) },
	} {
		rows, err := b.claims.Rows(0, int(head.Size))
		require.NoError(t, err)
		_, err = build(spoil(rows))
		require.Error(t, err, name)
	}
}

// Given a history that an older program began and this one goes on with, then
// a replica that followed it, the same after a restart, and a snapshot of its
// rows seal the same, and each knows a repeat of any part of it.
func TestAHistoryOfBothFormatsIsOne(t *testing.T) {
	a := newAlone(t)
	defer func() { require.NoError(t, a.store.Close()) }()
	for i := range 6 {
		d := a.decide(fmt.Sprint("r", i), fmt.Sprint("s-", i%2))
		if i < 3 {
			d.Commit.Format = 1
			var err error
			d.Value, err = proto.Marshal(d.Commit)
			require.NoError(t, err)
		}
		require.NoError(t, a.apply(d.Value))
	}
	rows, err := a.shard.Rows(0, 6)
	require.NoError(t, err)
	snapshot := core.NewSnapshot("claims", 0)
	for i, r := range rows {
		require.Equal(t, byte(1+i/3), r[0])
		require.NoError(t, snapshot.Add(r))
	}
	for range 2 {
		head := a.shard.Head()
		root, err := a.shard.Tree().Root(head.Next)
		require.NoError(t, err)
		state, err := a.shard.StateRoot(head.Next)
		require.NoError(t, err)
		require.NoError(t, snapshot.Proves(receipt.Head{Log: "claims", Size: head.Next, Root: root, State: state}))
		for i := range 6 {
			for _, view := range []core.View{a.shard, snapshot} {
				again := &ledgerv1.AppendRequest{Log: "claims", RequestId: fmt.Sprint("r", i), Writes: []*ledgerv1.StreamWrite{{
					Stream: fmt.Sprint("s-", i%2), ExpectedRevision: core.NoStream, Events: []*ledgerv1.Event{{Type: "t", Payload: fmt.Append(nil, "r", i)}},
				}}}
				d, err := core.Decide(head, view, again, core.Provenance{Actor: "another"})
				require.NoError(t, err)
				require.True(t, d.Replayed)
				require.Equal(t, uint64(i), d.Seen.Index)
				again.Writes[0].Events[0].Type = "u"
				_, err = core.Decide(head, view, again, core.Provenance{})
				require.True(t, problem.Is(err, problem.Conflict))
			}
		}
		require.NoError(t, a.store.Close())
		a.open()
		require.NoError(t, a.shard.loadState(0, nil))
	}
}

// Given commits that say much of who wrote them, then their rows are handed out
// in answers of a bounded size, one after the other and each at least one.
func TestLargeRowsComeInParts(t *testing.T) {
	a := newAlone(t)
	defer func() { require.NoError(t, a.store.Close()) }()
	for i := range 3 {
		d := a.decide(fmt.Sprint("r", i), "s-0")
		d.Commit.Actor = strings.Repeat("a", rowBytes*2/3)
		value, err := proto.Marshal(d.Commit)
		require.NoError(t, err)
		require.NoError(t, a.apply(value))
	}
	for i := range uint64(3) {
		rows, err := a.shard.Rows(i, 100)
		require.NoError(t, err)
		require.Len(t, rows, 1, "from %d", i)
	}
	rows, err := a.shard.Rows(3, 100)
	require.NoError(t, err)
	require.Empty(t, rows)
}
