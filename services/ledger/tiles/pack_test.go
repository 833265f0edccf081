package tiles_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/ledger/tiles"
)

const pack = 4096 // leaves

// dying is a disk that ends before the state file is written.
type dying struct {
	vfs.FS
	dies bool
}

func (d *dying) Rename(from, to string) error {
	if d.dies && filepath.Base(to) == "state" {
		return errors.New("the power is gone")
	}
	return d.FS.Rename(from, to)
}

// Given a tree that is published in any steps, with restarts and with crashes
// between the tiles and the state file, then every tile and bundle is served
// and checked as from memory, and no file is left that is not looked at.
func TestPacksAndFilesOfTheirOwnServeTheSame(t *testing.T) {
	const most = 3 * pack
	memory, _ := grown(t, most)
	rapid.Check(t, func(rt *rapid.T) {
		fs := &dying{FS: vfs.NewMem()}
		disk := tiles.Disk{FS: fs}
		open := func() *tiles.Tree {
			tree, err := disk.OpenTree("/tree")
			require.NoError(rt, err)
			return tree
		}
		tree, size := open(), uint64(0)
		// To both sides of a pack's edges and far from them.
		step := rapid.OneOf(rapid.Uint64Range(1, 300), rapid.SampledFrom([]uint64{pack - 1, pack, pack + 1, 2 * pack}))
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			to := min(most, size+step.Draw(rt, "step"))
			if rapid.Bool().Draw(rt, "whole") && tiles.Whole(to) > size {
				to = tiles.Whole(to)
			}
			for tree.Size() < to {
				tree.Append(entry(int(tree.Size())))
			}
			fs.dies = to > size && rapid.Bool().Draw(rt, "dies")
			err := tree.Publish(to)
			require.Equal(rt, fs.dies, err != nil)
			if fs.dies || rapid.Bool().Draw(rt, "restart") {
				fs.dies = false
				tree = open()
			}
			if err == nil {
				size = to
			}
			published, _ := tree.Published()
			require.Equal(rt, size, published)
		}
		if size == 0 {
			return
		}
		// What a crash left beyond goes as the tree grows there.
		if size < most {
			for tree.Size() < most {
				tree.Append(entry(int(tree.Size())))
			}
			require.NoError(rt, tree.Publish(most))
			size = most
		}
		tree = open()
		_, err := tree.CheckStored(0, size)
		require.NoError(rt, err)
		for n := range size / 256 {
			for _, path := range []string{tiles.Path(0, n, 256), tiles.EntriesPath(n, 256), tiles.EntriesPath(n, 9)} {
				want, err := memory.ReadFile(path)
				require.NoError(rt, err)
				got, err := tree.ReadFile(path)
				require.NoError(rt, err, path)
				require.Equal(rt, want, got, path)
			}
			path, _, _ := tiles.InPack(0, n)
			_, err := fs.Stat("/tree/" + path)
			for _, own := range []string{tiles.Path(0, n, 256), tiles.EntriesPath(n, 256)} {
				_, err2 := fs.Stat("/tree/" + own)
				require.NotEqual(rt, err == nil, err2 == nil, "%s and %s", path, own)
			}
		}
	})
}

// Given any byte of a pack flipped, or a pack cut, then the check of the
// leaves it holds says so, and names the place.
func TestADamagedPackIsNoticed(t *testing.T) {
	tree, dir := grown(t, pack+10)
	require.NoError(t, tree.Publish(pack+10))
	path := filepath.Join(dir, "pack/000")
	sound, err := os.ReadFile(path)
	require.NoError(t, err)
	for at := 0; at < len(sound); at += 977 {
		damaged := append([]byte(nil), sound...)
		damaged[at] ^= 1 << (at % 8)
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		n := uint64(at / 8192) // the tile the byte is of, or the bundle
		if n >= 16 {
			n = uint64(at-16*8192) / 8960
		}
		tree, err := tiles.Open(dir)
		if err != nil {
			require.ErrorIs(t, err, tiles.ErrDamaged)
			continue
		}
		_, err = tree.CheckStored(n*256, n*256+256)
		require.Error(t, err, "byte %d", at)
		require.Contains(t, err.Error(), strings.TrimPrefix(tiles.Path(0, n, 256), "tile/0"), "byte %d", at)
	}
	require.NoError(t, os.WriteFile(path, sound[:len(sound)-1], 0o600))
	tree, err = tiles.Open(dir)
	require.NoError(t, err)
	_, err = tree.CheckStored(0, 256)
	require.ErrorContains(t, err, "pack/000 has 274431 bytes")
}
