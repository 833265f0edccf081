package tiles_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
)

func entry(i int) []byte { return receipt.Entry(fmt.Appendf(nil, "commit %d", i)) }

// reference is the same tree, kept by x/mod's tlog in one flat slice.
type reference struct {
	hashes []tlog.Hash
	n      int64
}

func (r *reference) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = r.hashes[x]
	}
	return out, nil
}

func (r *reference) add(e []byte) {
	hs, err := tlog.StoredHashes(r.n, e, r)
	if err != nil {
		panic(err)
	}
	r.hashes = append(r.hashes, hs...)
	r.n++
}

func raw(hs []receipt.Hash) [][]byte {
	out := make([][]byte, len(hs))
	for i := range hs {
		out[i] = hs[i][:]
	}
	return out
}

// A tree that is published and reopened at random places always has the
// reference's roots, and its proofs verify in another library.
func TestATreeIsTheReferenceTreeThroughRestarts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(rt, err)
		tree, err := tiles.Open(dir)
		require.NoError(rt, err)
		var ref reference
		for range rapid.IntRange(1, 6).Draw(rt, "rounds") {
			for range rapid.IntRange(0, 700).Draw(rt, "appends") {
				e := entry(int(ref.n))
				tree.Append(e)
				ref.add(e)
			}
			if ref.n == 0 {
				continue
			}
			size := uint64(rapid.Int64Range(1, ref.n).Draw(rt, "publish"))
			require.NoError(rt, tree.Publish(size))
			if rapid.Bool().Draw(rt, "restart") {
				published, root := tree.Published()
				tree, err = tiles.Open(dir)
				require.NoError(rt, err)
				again, same := tree.Published()
				require.Equal(rt, published, again)
				require.Equal(rt, root, same)
				for i := int(tree.Size()); i < int(ref.n); i++ {
					tree.Append(entry(i))
				}
			}
			at := rapid.Int64Range(1, ref.n).Draw(rt, "size")
			want, err := tlog.TreeHash(at, &ref)
			require.NoError(rt, err)
			root, err := tree.Root(uint64(at))
			require.NoError(rt, err)
			require.Equal(rt, receipt.Hash(want), root)

			index := uint64(rapid.Int64Range(0, at-1).Draw(rt, "index"))
			path, err := tree.Inclusion(index, uint64(at))
			require.NoError(rt, err)
			leaf := receipt.LeafHash(entry(int(index)))
			require.NoError(rt, proof.VerifyInclusion(rfc6962.DefaultHasher, index, uint64(at), leaf[:], raw(path), root[:]))

			older := uint64(rapid.Int64Range(1, at).Draw(rt, "older"))
			before, err := tree.Root(older)
			require.NoError(rt, err)
			path, err = tree.Consistency(older, uint64(at))
			require.NoError(rt, err)
			require.NoError(rt, proof.VerifyConsistency(rfc6962.DefaultHasher, older, uint64(at), raw(path), before[:], root[:]))
		}
	})
}

func grown(t *testing.T, n int) (*tiles.Tree, string) {
	dir := t.TempDir()
	tree, err := tiles.Open(dir)
	require.NoError(t, err)
	for i := range n {
		tree.Append(entry(i))
	}
	return tree, dir
}

func TestTheLayoutIsTlogTiles(t *testing.T) {
	tree, dir := grown(t, 70_000)
	require.NoError(t, tree.Publish(100))
	require.NoError(t, tree.Publish(69_900))
	require.NoError(t, tree.Publish(70_000))
	for path, size := range map[string]int{
		"tile/0/000":             256 * 32,
		"tile/0/272":             256 * 32,
		"tile/0/273.p/112":       112 * 32,
		"tile/1/000":             256 * 32,
		"tile/1/001.p/17":        17 * 32,
		"tile/2/000.p/1":         32,
		"tile/entries/000":       256 * 35,
		"tile/entries/273.p/112": 112 * 35,
		// Published at once, in one file.
		"pack/001": 4096 * (32 + 35),
		"pack/016": 4096 * (32 + 35),
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		require.NoError(t, err)
		require.Equal(t, int64(size), info.Size(), path)
	}
	require.Equal(t, "tile/0/x001/x234/067.p/8", tiles.Path(0, 1234067, 8))
	_, err := os.Stat(filepath.Join(dir, "tile/0/272.p"))
	require.ErrorIs(t, err, os.ErrNotExist, "partial tiles go when the full one is there")
	bundle, err := os.ReadFile(filepath.Join(dir, "tile/entries/000"))
	require.NoError(t, err)
	entries, err := tiles.ParseBundle(bundle)
	require.NoError(t, err)
	require.Equal(t, entry(255), entries[255])
	require.NoFileExists(t, filepath.Join(dir, "tile/0/016"))
	require.NoFileExists(t, filepath.Join(dir, "tile/entries/016"))
	left, err := filepath.Glob(filepath.Join(dir, "tile/0/.new-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// A crash leaves any of: temporary files, tiles of a size the state file
// doesn't name yet. Neither is noticed.
func TestACrashBeforeTheStateFileIsHarmless(t *testing.T) {
	tree, dir := grown(t, 300)
	require.NoError(t, tree.Publish(300))
	state, err := os.ReadFile(filepath.Join(dir, "state"))
	require.NoError(t, err)
	for i := 300; i < 700; i++ {
		tree.Append(entry(i))
	}
	want, err := tree.Root(300)
	require.NoError(t, err)
	partial, err := os.ReadFile(filepath.Join(dir, "tile/0/001.p/44"))
	require.NoError(t, err)
	bundle, err := os.ReadFile(filepath.Join(dir, "tile/entries/001.p/44"))
	require.NoError(t, err)
	top, err := os.ReadFile(filepath.Join(dir, "tile/1/000.p/1"))
	require.NoError(t, err)
	require.NoError(t, tree.Publish(700))

	// As if the process had died before the rename of the state file, which
	// comes before partial tiles are removed.
	require.NoError(t, tiles.WriteFile(dir, "state", state))
	require.NoError(t, tiles.WriteFile(dir, "tile/0/001.p/44", partial))
	require.NoError(t, tiles.WriteFile(dir, "tile/entries/001.p/44", bundle))
	require.NoError(t, tiles.WriteFile(dir, "tile/1/000.p/1", top))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tile/0/.new-1"), []byte("half"), 0o600))
	tree, err = tiles.Open(dir)
	require.NoError(t, err)
	require.Equal(t, uint64(300), tree.Size())
	got, err := tree.Root(300)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestDamageIsNoticed(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"a flipped bit in a tile": func(dir string) error { return flip(filepath.Join(dir, "tile/0/001.p/44")) },
		"a flipped bit above":     func(dir string) error { return flip(filepath.Join(dir, "tile/1/000.p/1")) },
		"a flipped bundle":        func(dir string) error { return flip(filepath.Join(dir, "tile/entries/001.p/44")) },
		"a missing tile":          func(dir string) error { return os.Remove(filepath.Join(dir, "tile/0/001.p/44")) },
		"a cut tile":              func(dir string) error { return os.Truncate(filepath.Join(dir, "tile/0/001.p/44"), 33) },
		"a garbled state":         func(dir string) error { return os.WriteFile(filepath.Join(dir, "state"), []byte("x\ny\n"), 0o600) },
		"another size":            func(dir string) error { return edit(filepath.Join(dir, "state"), "300", "301") },
	} {
		t.Run(name, func(t *testing.T) {
			tree, dir := grown(t, 300)
			require.NoError(t, tree.Publish(300))
			require.NoError(t, damage(dir))
			_, err := tiles.Open(dir)
			require.ErrorIs(t, err, tiles.ErrDamaged)
			require.NoError(t, tiles.Reset(dir))
			tree, err = tiles.Open(dir)
			require.NoError(t, err)
			require.Zero(t, tree.Size())
		})
	}
}

func flip(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[len(raw)/2] ^= 1
	return os.WriteFile(path, raw, 0o600)
}

func edit(path, old, new string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Replace(string(raw), old, new, 1)), 0o600)
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0, 0})
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := tiles.ParseBundle(raw)
		size := 0
		for _, e := range entries {
			size += 2 + len(e)
		}
		if err == nil && size != len(raw) {
			t.Fatal("bytes lost")
		}
	})
}

// Given a tree part of which is published, then every tile and bundle of any
// size it had is served, the same from memory as from disk.
func TestWhatIsNotPublishedIsServed(t *testing.T) {
	build := func(publish ...uint64) *tiles.Tree {
		tree, err := tiles.Open(t.TempDir())
		require.NoError(t, err)
		for i := range uint64(700) {
			tree.Append(fmt.Appendf(nil, "entry %d", i))
			if slices.Contains(publish, i+1) {
				require.NoError(t, tree.Publish(i+1))
			}
		}
		return tree
	}
	memory, disk := build(), build(300, 700)
	for _, path := range []string{
		tiles.Path(0, 0, 256), tiles.Path(0, 0, 3), tiles.Path(0, 2, 188), tiles.Path(0, 2, 1), tiles.Path(1, 0, 2),
		tiles.EntriesPath(0, 256), tiles.EntriesPath(0, 9), tiles.EntriesPath(2, 188), tiles.EntriesPath(1, 256),
	} {
		one, err := memory.ReadFile(path)
		require.NoError(t, err, path)
		require.NotEmpty(t, one)
		other, err := disk.ReadFile(path)
		require.NoError(t, err, path)
		require.Equal(t, one, other, path)
	}
	for _, path := range []string{tiles.Path(0, 2, 189), tiles.Path(0, 2, 256), tiles.Path(2, 0, 1), tiles.EntriesPath(2, 200), "tile/0/1", "state", "tile/9/000"} {
		_, err := memory.ReadFile(path)
		require.True(t, tiles.IsNotExist(err), path)
	}
	leaves, err := disk.Leaves(250, 600)
	require.NoError(t, err)
	for i, leaf := range leaves {
		require.Equal(t, receipt.LeafHash(fmt.Appendf(nil, "entry %d", 250+i)), leaf)
	}
}

// Given a tree that is published while it is looked through, then nothing is
// found wrong.
func TestASweepBesidePublishingFindsNoFault(t *testing.T) {
	tree, err := tiles.Open(t.TempDir())
	require.NoError(t, err)
	var group errgroup.Group
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		for size := uint64(1); size < 300; size += 1 + size%31 {
			for tree.Size() < size {
				tree.Append(fmt.Appendf(nil, "entry %d", tree.Size()))
			}
			if err := tree.Publish(size); err != nil {
				return err
			}
		}
		return nil
	})
	for sweeping := true; sweeping; {
		select {
		case <-done:
			sweeping = false
		default:
		}
		require.NoError(t, tree.CheckEdge())
		if size, _ := tree.Published(); size > 0 {
			_, err := tree.CheckStored(0, size)
			require.NoError(t, err)
		}
	}
	require.NoError(t, group.Wait())
}
