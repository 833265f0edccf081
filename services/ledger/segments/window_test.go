package segments

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A file that is read through a window is judged as one that is held whole:
// sound, cut anywhere, or with any bit changed.
func TestAWindowShowsTheFile(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		file := header(7)
		for range rapid.IntRange(0, 4).Draw(rt, "batches") {
			for range rapid.IntRange(0, 5).Draw(rt, "commits") {
				// Some are larger than a window.
				size := rapid.SampledFrom([]int{0, 10, 1000, 100_000, windowBytes + 5}).Draw(rt, "size")
				file = appendRecord(file, commit, bytes.Repeat([]byte{byte(size)}, size))
			}
			file = appendRecord(file, mark, rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "mark"))
		}
		if s := scan(file, 7); rapid.Bool().Draw(rt, "full") {
			at, payload := len(file), []byte{byte(s.lastMark >> 24), byte(s.lastMark >> 16), byte(s.lastMark >> 8), byte(s.lastMark)}
			for _, o := range s.offsets {
				payload = append(payload, byte(o>>24), byte(o>>16), byte(o>>8), byte(o))
			}
			file = append(appendRecord(file, table, payload), trailer(uint32(at))...)
			require.True(rt, scan(file, 7).full)
		}
		switch rapid.IntRange(0, 2).Draw(rt, "damage") {
		case 1:
			file = file[:rapid.IntRange(0, len(file)).Draw(rt, "cut")]
		case 2:
			file[rapid.IntRange(0, len(file)-1).Draw(rt, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		}
		want := scan(file, 7)
		got, err := scanWindow(&window{file: bytes.NewReader(file), size: int64(len(file))}, 7)
		require.NoError(rt, err)
		require.Equal(rt, want, got)
	})
}

// A file that cannot be read is not taken for one that is sound.
func TestAWindowTellsThatItCannotRead(t *testing.T) {
	file := appendRecord(appendRecord(header(0), commit, make([]byte, windowBytes)), mark, []byte("m"))
	broken := errors.New("broken")
	for _, at := range []int64{0, headerSize, headerSize + 100, int64(len(file)) - 1} {
		_, err := scanWindow(&window{file: unreadable{bytes.NewReader(file), at, broken}, size: int64(len(file))}, 0)
		require.ErrorIs(t, err, broken)
	}
	_, err := scanWindow(&window{file: bytes.NewReader(file[:len(file)-1]), size: int64(len(file))}, 0)
	require.ErrorIs(t, err, io.EOF, "the file is shorter than it was said to be")
}

type unreadable struct {
	file io.ReaderAt
	from int64
	err  error
}

func (u unreadable) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) <= u.from {
		return u.file.ReadAt(b, at)
	}
	n, _ := u.file.ReadAt(b[:max(0, u.from-at)], at)
	return n, u.err
}
