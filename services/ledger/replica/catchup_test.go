package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// fed is a Feed from another replica, which may lie.
type fed struct {
	from *bench
	lie  func(log string, index uint64, value []byte) []byte // nil value: it ends there
}

func (f fed) Notes(context.Context) ([][]byte, error) { return f.from.blocks.Notes(), nil }

func (f fed) Commits(_ context.Context, log string, _ uint32, from uint64) ([][]byte, int64, error) {
	s := f.from.claims
	if log == BlockLog {
		s = f.from.log
	}
	values, err := s.Values(from, 3, 1<<20) // few at a time, so that ends fall anywhere
	for i := range values {
		if f.lie == nil {
			break
		}
		if values[i] = f.lie(log, from+uint64(i), values[i]); values[i] == nil {
			return values[:i], 0, err
		}
	}
	return values, s.Offset(), err
}

func (f fed) Rows(_ context.Context, log string, _ uint32, from uint64) ([][]byte, int64, error) {
	rows, err := f.from.claims.Rows(from, 3)
	for i := range rows {
		if f.lie == nil {
			break
		}
		if rows[i] = f.lie(log, from+uint64(i), rows[i]); rows[i] == nil {
			return rows[:i], 0, err
		}
	}
	return rows, f.from.claims.Offset(), err
}

// newcomer is a fifth replica that holds nothing.
func (f *four) newcomer() *bench {
	b := &bench{t: f.t, dir: f.t.TempDir(), key: f.keys[4], policy: f.policy}
	require.NoError(f.t, b.open())
	f.t.Cleanup(func() { _ = b.store.Close() })
	return b
}

func (f *four) live() {
	for i := range 5 {
		for range 2*i + 1 {
			f.claim()
		}
		f.block()
		f.talk()
	}
	require.Equal(f.t, uint64(5), f.members[0].final())
}

// Given an empty replica and no Kafka, then it takes everything final from a
// peer, with the same roots and proofs.
func TestANewReplicaCatchesUpFromAPeer(t *testing.T) {
	f := newFour(t)
	f.live()
	// What is not final yet is not taken.
	f.claim(0)
	f.block(0)
	b := f.newcomer()
	height, err := b.blocks.CatchUp(t.Context(), fed{from: f.members[0]}, false)
	require.NoError(t, err)
	require.Equal(t, uint64(5), height)
	require.Equal(t, uint64(25), b.claims.Head().Next)
	require.Equal(t, uint64(5), b.final())
	for index := range uint64(25) {
		doc, err := b.blocks.Receipt("claims", 0, index, false)
		require.NoError(t, err)
		same, err := f.members[1].blocks.Receipt("claims", 0, index, false)
		require.NoError(t, err)
		require.Equal(t, same.Header, doc.Header)
		require.Equal(t, same.ShardProof, doc.ShardProof)
	}
	seen, ok, err := b.claims.Request("r1")
	require.NoError(t, err)
	require.True(t, ok)
	require.Zero(t, seen.Index)
	// It survives a restart, and its shards know that they must find
	// themselves in their topics first.
	require.NoError(t, b.store.Close())
	require.NoError(t, b.open())
	require.Equal(t, uint64(5), b.final())
	require.NotNil(t, b.claims.anchor)
	for n := 0; n < 4; n++ {
		_, err = b.blocks.Scrub()
		require.NoError(t, err)
	}
}

// Given an empty replica that takes index rows alone, then its state and its
// roots are everybody's, it proves every commit, and judges and keeps what
// comes after; only the bodies from before it does not have.
func TestAReplicaStartsFromRowsAlone(t *testing.T) {
	f := newFour(t)
	f.live()
	b := f.newcomer()
	height, err := b.blocks.CatchUp(t.Context(), fed{from: f.members[0]}, true)
	require.NoError(t, err)
	require.Equal(t, uint64(5), height)
	whole := f.members[1]
	alike := func(commits uint64) {
		t.Helper()
		require.Equal(t, uint64(25), b.claims.Outset())
		require.Equal(t, commits, b.claims.Head().Next)
		for index := range uint64(25) {
			doc, err := b.blocks.Receipt("claims", 0, index, false)
			require.NoError(t, err)
			same, err := whole.blocks.Receipt("claims", 0, index, false)
			require.NoError(t, err)
			require.Equal(t, same.ShardProof, doc.ShardProof)
			_, err = receipt.Verify(doc.Marshal(), f.policy)
			require.NoError(t, err)
			_, err = b.claims.Commit(index)
			require.ErrorIs(t, err, ErrNoBody)
		}
		mine, err := b.claims.Rows(0, 1000)
		require.NoError(t, err)
		theirs, err := whole.claims.Rows(0, 1000)
		require.NoError(t, err)
		require.Equal(t, theirs, mine, "and a third could start from it")
		for _, id := range []string{"r1", "r3", "nobody's"} {
			want, known, err := whole.claims.Request(id)
			require.NoError(t, err)
			got, ok, err := b.claims.Request(id)
			require.NoError(t, err)
			require.Equal(t, known, ok)
			require.Equal(t, want.Recorded, got.Recorded)
			require.Equal(t, known, got.Row != nil, "of these the row is all there is")
			require.Equal(t, want.Revisions, got.Revisions)
		}
		last, err := whole.claims.LastRevision("claim-1")
		require.NoError(t, err)
		here, err := b.claims.LastRevision("claim-1")
		require.NoError(t, err)
		require.Equal(t, last, here)
	}
	alike(25)
	for range 2 {
		require.NoError(t, b.store.Close())
		require.NoError(t, b.open())
		alike(25)
	}
	// It takes in what comes after, by the same rules and to the same roots.
	require.ErrorContains(t, b.claims.TakeRows([][]byte{nil}, 0), "takes no rows")
	for range 3 {
		f.claim()
		b.claim(fmt.Sprint("r", f.n))
	}
	b.propose(fmt.Sprint("b", f.n+1), b.next())
	f.block()
	f.talk()
	require.NoError(t, b.step())
	require.NoError(t, b.blocks.Hear("", f.members[0].blocks.Notes()))
	require.Equal(t, uint64(6), b.final())
	require.Equal(t, whole.heads(), b.heads())
	value, err := b.claims.Commit(26)
	require.NoError(t, err)
	same, err := whole.claims.Commit(26)
	require.NoError(t, err)
	require.Equal(t, same, value)

	// Its tiles are lost: the rows have what they are made of.
	require.NoError(t, b.blocks.Publish())
	require.NoError(t, b.store.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(b.data(), "tiles")))
	require.NoError(t, b.open())
	alike(28)
	require.NoError(t, b.blocks.Publish())
	for range 8 {
		_, err = b.blocks.Scrub()
		require.NoError(t, err)
	}
	// A row that no longer is what was sealed is found like a body.
	row, err := b.claims.index.rows.row(7)
	require.NoError(t, err)
	row.Entry[5] ^= 1
	require.NoError(t, b.store.db.Set(b.claims.index.rows.key(kindRow, be64(7)), row.Append(nil), pebble.Sync))
	for range 4 {
		if _, err = b.blocks.Scrub(); err != nil {
			break
		}
	}
	require.ErrorContains(t, errors.Unwrap(b.blocks.Halted()), "claims/0 index 7")
}

// Given the data directory of a replica that was, with some bytes of it
// flipped, then what is sound of it is kept, the rest comes from a peer, and
// the outcome is everybody's. A commit that was changed so that its checksum
// fits is noticed like a peer's lie.
func TestWhatIsSoundOfADamagedReplicaIsKept(t *testing.T) {
	f := newFour(t)
	f.live()
	left := func(member int) string {
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(f.members[member].data())))
		return dir
	}
	old := left(3)
	file := filepath.Join(old, CommitsDir, "claims", "0", "00000000000000000000.seg")
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	raw[len(raw)/2] ^= 4
	require.NoError(t, os.WriteFile(file, raw, 0o600))
	before := tree(t, old)

	b := f.newcomer()
	feed := NewSalvage(tiles.Disk{}, old, fed{from: f.members[0]})
	height, err := b.blocks.CatchUp(t.Context(), feed, false)
	require.NoError(t, err)
	require.NoError(t, feed.Close())
	require.Equal(t, uint64(5), height)
	require.Equal(t, f.members[1].heads(), b.heads())
	require.Greater(t, feed.Taken, 10, "half the commits, and the blocks")
	require.Greater(t, feed.Asked, 5)
	require.LessOrEqual(t, feed.Asked, 16)
	require.Equal(t, before, tree(t, old), "nothing there is changed")
	for range 4 {
		_, err = b.blocks.Scrub()
		require.NoError(t, err)
	}

	other := left(2)
	require.NoError(t, segments.Falsify(tiles.Disk{}, filepath.Join(other, CommitsDir, "claims", "0"), 7, func(value []byte) { value[len(value)-1] ^= 1 }))
	b = f.newcomer()
	feed = NewSalvage(tiles.Disk{}, other, fed{from: f.members[0]})
	_, err = b.blocks.CatchUp(t.Context(), feed, false)
	require.ErrorIs(t, err, ErrFeed)
	require.NoError(t, feed.Close())

	// Nothing there is nothing to keep.
	b = f.newcomer()
	feed = NewSalvage(tiles.Disk{}, t.TempDir(), fed{from: f.members[0]})
	_, err = b.blocks.CatchUp(t.Context(), feed, false)
	require.NoError(t, err)
	require.Zero(t, feed.Taken)
}

// tree returns the files below a folder with their content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		out[path] = string(raw)
		return err
	}))
	return out
}

// Given a peer that lies about one commit, or ends early, then the newcomer
// says so, and nothing of it was served as final.
func TestALyingPeerIsNotBelieved(t *testing.T) {
	f := newFour(t)
	f.live()
	spoiled := func(value []byte) []byte {
		value[len(value)-1] ^= 1
		return value
	}
	for name, lie := range map[string]func(log string, index uint64, value []byte) []byte{
		"a commit's byte": func(log string, index uint64, value []byte) []byte {
			if log == "claims" && index == 7 {
				return spoiled(value)
			}
			return value
		},
		"a block's byte": func(log string, index uint64, value []byte) []byte {
			if log == BlockLog && index == 3 {
				return spoiled(value)
			}
			return value
		},
		"the claims end early": func(log string, index uint64, value []byte) []byte {
			if log == "claims" && index >= 20 {
				return nil
			}
			return value
		},
		"the blocks end early": func(log string, index uint64, value []byte) []byte {
			if log == BlockLog && index >= 3 {
				return nil
			}
			return value
		},
		"no policy": func(log string, index uint64, value []byte) []byte {
			if log == BlockLog && index == 0 {
				return spoiled(value)
			}
			return value
		},
	} {
		for _, rows := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rows %t", name, rows), func(t *testing.T) {
				b := f.newcomer()
				_, err := b.blocks.CatchUp(t.Context(), fed{from: f.members[0], lie: lie}, rows)
				require.ErrorIs(t, err, ErrFeed)
				require.Zero(t, b.final())
				require.NoError(t, b.store.Close())
				require.NoError(t, os.RemoveAll(b.data()))
				require.NoError(t, b.open())
				_, err = b.blocks.CatchUp(t.Context(), fed{from: f.members[1]}, rows)
				require.NoError(t, err, "an honest one is")
			})
		}
	}
	b := f.newcomer()
	height, err := b.blocks.CatchUp(t.Context(), fed{from: f.newcomer()}, false)
	require.NoError(t, err)
	require.Zero(t, height, "a peer that has nothing")
}
