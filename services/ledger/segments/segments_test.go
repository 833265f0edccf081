package segments_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// small fills a file after a few commits.
var small = tiles.Disk{SegmentBytes: 600}

func all(t require.TestingT, l *segments.Log, from, to uint64) (out []string) {
	err := l.Each(from, to, func(index uint64, value []byte) (bool, error) {
		require.Equal(t, from+uint64(len(out)), index)
		out = append(out, string(value))
		return true, nil
	})
	require.NoError(t, err)
	return out
}

func values(batch []string) (out [][]byte) {
	for _, v := range batch {
		out = append(out, []byte(v))
	}
	return out
}

// Given any batches, closed and opened again anywhere between them, then the
// commits and the newest mark are there as they were given, over the ends of
// files too.
func TestWhatWasAppendedIsThere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		l, err := segments.Open(small, dir)
		require.NoError(rt, err)
		defer func() { require.NoError(rt, l.Close()) }()
		var want []string
		mark := ""
		for range rapid.IntRange(0, 12).Draw(rt, "batches") {
			batch := rapid.SliceOfN(rapid.StringN(0, 200, 200), 0, 8).Draw(rt, "batch")
			mark = rapid.StringN(1, 20, 40).Draw(rt, "mark")
			require.NoError(rt, l.Append(values(batch), []byte(mark)))
			want = append(want, batch...)
			if rapid.Bool().Draw(rt, "sync") {
				require.NoError(rt, l.Sync())
			}
			if rapid.IntRange(0, 3).Draw(rt, "reopen") == 0 {
				require.NoError(rt, l.Close())
				l, err = segments.Open(small, dir)
				require.NoError(rt, err)
				require.Zero(rt, l.Cut())
			}
			require.Equal(rt, uint64(len(want)), l.Count())
			require.Equal(rt, mark, string(l.Mark()))
			from := rapid.IntRange(0, len(want)).Draw(rt, "from")
			to := rapid.IntRange(from, len(want)).Draw(rt, "to")
			require.True(rt, slices.Equal(want[from:to], all(rt, l, uint64(from), uint64(to))))
		}
		require.NoError(rt, l.Close())
		faults, err := segments.Check(small, dir)
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(rt, err)
		}
		require.Empty(rt, faults)
	})
}

// Given a last file cut anywhere, then whole batches are left, each with its
// mark, and what is appended next follows them.
func TestATornEndIsCutOff(t *testing.T) {
	dir := t.TempDir()
	l, err := segments.Open(tiles.Disk{}, dir)
	require.NoError(t, err)
	var ends []int64
	path := filepath.Join(dir, fmt.Sprintf("%020d.seg", 0))
	for i := range 4 {
		require.NoError(t, l.Append([][]byte{fmt.Appendf(nil, "a%d", i), fmt.Appendf(nil, "b%d", i)}, fmt.Appendf(nil, "m%d", i)))
		info, err := os.Stat(path)
		require.NoError(t, err)
		ends = append(ends, info.Size())
	}
	require.NoError(t, l.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for size := range len(whole) {
		require.NoError(t, os.WriteFile(path, whole[:size], 0o644))
		l, err := segments.Open(tiles.Disk{}, dir)
		require.NoError(t, err, size)
		batches := 0
		for batches < len(ends) && ends[batches] <= int64(size) {
			batches++
		}
		require.Equal(t, uint64(2*batches), l.Count(), size)
		if batches > 0 {
			require.Equal(t, fmt.Sprint("m", batches-1), string(l.Mark()))
		}
		require.NoError(t, l.Append([][]byte{[]byte("next")}, []byte("after")))
		require.Equal(t, []string{"next"}, all(t, l, uint64(2*batches), uint64(2*batches+1)))
		require.NoError(t, l.Close())
		faults, err := segments.Check(tiles.Disk{}, dir)
		require.NoError(t, err)
		require.Empty(t, faults, "cut at %d", size)
		l, err = segments.Open(tiles.Disk{}, dir)
		require.NoError(t, err)
		require.Equal(t, uint64(2*batches+1), l.Count())
		require.Equal(t, "after", string(l.Mark()))
		require.NoError(t, l.Close())
	}
}

// Given any bit of any file flipped, then a check names the file; and a reader
// gets an error or what was written, never anything else.
func TestEveryBitCounts(t *testing.T) {
	dir := t.TempDir()
	l, err := segments.Open(small, dir)
	require.NoError(t, err)
	var want []string
	for i := range 9 {
		batch := []string{fmt.Sprintf("commit %d %0*d", i, 40*(i%3), i), fmt.Sprint("commit ", i)}
		require.NoError(t, l.Append(values(batch), fmt.Appendf(nil, "mark %d", i)))
		want = append(want, batch...)
	}
	require.NoError(t, l.Close())
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	require.Greater(t, len(names), 1, "more than one file")
	for _, path := range names {
		sound, err := os.ReadFile(path)
		require.NoError(t, err)
		for at := range sound {
			damaged := slices.Clone(sound)
			damaged[at] ^= 1 << (at % 8)
			require.NoError(t, os.WriteFile(path, damaged, 0o644))
			faults, err := segments.Check(small, dir)
			require.NoError(t, err)
			require.NotEmpty(t, faults, "%s@%d", path, at)
			require.Equal(t, filepath.Base(path), faults[0].File)
			l, err := segments.Open(small, dir)
			if err != nil {
				require.ErrorIs(t, err, segments.ErrDamaged)
				continue
			}
			for i := range l.Count() {
				got, err := l.Commit(i)
				if err != nil {
					require.ErrorIs(t, err, segments.ErrDamaged)
					continue
				}
				require.Equal(t, want[i], string(got))
			}
			require.NoError(t, l.Close())
		}
		require.NoError(t, os.WriteFile(path, sound, 0o644))
	}
	require.NoError(t, os.Remove(names[0]))
	faults, err := segments.Check(small, dir)
	require.NoError(t, err)
	require.NotEmpty(t, faults, "a missing file")
	_, err = segments.Open(small, dir)
	require.ErrorIs(t, err, segments.ErrDamaged)
}

// full is a disk on which no write succeeds while it is set; of one that
// fails, half is written.
type full struct {
	vfs.FS
	is *bool
}

func (f full) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, opts...)
	return fullFile{file, f.is}, err
}

type fullFile struct {
	vfs.File
	is *bool
}

var errFull = errors.New("no space left on device")

func (f fullFile) WriteAt(p []byte, off int64) (int, error) {
	if *f.is {
		n, err := f.File.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(err, errFull)
	}
	return f.File.WriteAt(p, off)
}

// Given a write that failed halfway, then nothing of its batch is there, and
// the next batch takes its place.
func TestAFailedWriteLeavesNothing(t *testing.T) {
	is := false
	disk, dir := tiles.Disk{FS: full{vfs.Default, &is}}, t.TempDir()
	l, err := segments.Open(disk, dir)
	require.NoError(t, err)
	require.NoError(t, l.Append([][]byte{[]byte("one")}, []byte("m1")))
	is = true
	require.ErrorIs(t, l.Append([][]byte{make([]byte, 500)}, []byte("m2")), errFull)
	require.Equal(t, uint64(1), l.Count())
	require.Equal(t, "m1", string(l.Mark()))
	is = false
	require.NoError(t, l.Append([][]byte{[]byte("two")}, []byte("m3")))
	require.NoError(t, l.Close())
	l, err = segments.Open(disk, dir)
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, all(t, l, 0, 2))
	require.Zero(t, l.Cut())
	faults, err := segments.Check(disk, dir)
	require.NoError(t, err)
	require.Empty(t, faults)
}

// Whatever a file holds, it is read without a panic, and what is taken of it
// survives being appended to.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	l, err := segments.Open(small, dir)
	require.NoError(f, err)
	require.NoError(f, l.Append([][]byte{[]byte("one"), []byte("two")}, []byte("mark")))
	require.NoError(f, l.Close())
	raw, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%020d.seg", 0)))
	require.NoError(f, err)
	f.Add(raw)
	f.Add(raw[:30])
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.seg", 0)), raw, 0o644))
		_, err := segments.Check(small, dir)
		require.NoError(t, err)
		l, err := segments.Open(small, dir)
		if err != nil {
			require.ErrorIs(t, err, segments.ErrDamaged)
			return
		}
		before := all(t, l, 0, l.Count())
		require.NoError(t, l.Append([][]byte{[]byte("more")}, []byte("mark")))
		require.Equal(t, append(before, "more"), all(t, l, 0, l.Count()))
		require.NoError(t, l.Close())
	})
}
