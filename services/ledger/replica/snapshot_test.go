package replica

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/ledger/core"
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
		require.Equal(t, [2]any{want.Index, want.Digest}, [2]any{got.Index, got.Digest})
	}

	for name, spoil := range map[string]func(rows [][]byte) [][]byte{
		"one too few":    func(rows [][]byte) [][]byte { return rows[:len(rows)-1] },
		"two exchanged":  func(rows [][]byte) [][]byte { rows[2], rows[3] = rows[3], rows[2]; return rows },
		"a digest's bit": func(rows [][]byte) [][]byte { rows[5][40] ^= 1; return rows },
		"an entry's bit": func(rows [][]byte) [][]byte { rows[5][20] ^= 1; return rows },
		"one repeated":   func(rows [][]byte) [][]byte { return append(rows[:7:7], rows[6]) },
	} {
		rows, err := b.claims.Rows(0, int(head.Size))
		require.NoError(t, err)
		_, err = build(spoil(rows))
		require.Error(t, err, name)
	}
}
