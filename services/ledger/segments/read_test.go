package segments

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/ledger/tiles"
)

// Given many full files, read across each other, then each commit is read, a
// few files stay open, and none after the log is closed.
func TestAFewFilesStayOpen(t *testing.T) {
	l, err := Open(tiles.Disk{SegmentBytes: 200}, t.TempDir())
	require.NoError(t, err)
	const commits = 40
	for i := range commits {
		require.NoError(t, l.Append([][]byte{fmt.Appendf(nil, "%0100d", i)}, []byte("mark")))
	}
	require.Greater(t, len(l.full), 3*heldReaders)
	read := func(i uint64) {
		value, err := l.Commit(i)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%0100d", i), string(value))
	}
	var seen uint64
	require.NoError(t, l.Each(0, commits, func(index uint64, value []byte) (bool, error) {
		require.Equal(t, fmt.Sprintf("%0100d", index), string(value))
		// Others are read meanwhile, until this one's file is not held any more.
		for k := range uint64(3 * heldReaders) {
			read((index + 2*k) % commits)
		}
		require.LessOrEqual(t, len(l.readers), heldReaders)
		seen++
		return true, nil
	}))
	require.Equal(t, uint64(commits), seen)
	for _, r := range l.readers {
		require.True(t, r.held)
		require.Zero(t, r.uses)
	}
	require.NoError(t, l.Close())
	require.Empty(t, l.readers)
	read(3)
	require.Empty(t, l.readers)
}
