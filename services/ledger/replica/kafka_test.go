package replica

import (
	"bytes"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Given fetches of any values one after the other, then each value of a fetch
// is whole until the next, and room that is no longer needed goes.
func TestValuesShareRoomUntilTheNextFetch(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var room valueRoom
		fetch := func(sizes []int) {
			var want, got [][]byte
			for i, size := range sizes {
				want = append(want, bytes.Repeat([]byte{byte(i)}, size))
				value, err := room.take(protocol.NewBytes(want[i]))
				require.NoError(rt, err)
				got = append(got, value)
			}
			for i := range want {
				require.True(rt, bytes.Equal(want[i], got[i]), "value %d of %d", i, len(want))
			}
			room.release()
		}
		for range rapid.IntRange(1, 6).Draw(rt, "fetches") {
			fetch(rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 1000, leastPiece, leastPiece + 1, mostPiece - 1, mostPiece, 3 * mostPiece}), 0, 40).Draw(rt, "sizes"))
		}
		for range 60 {
			fetch([]int{1})
		}
		require.LessOrEqual(rt, len(room.pieces), 1)
	})
	var room valueRoom
	value, err := room.take(nil)
	require.NoError(t, err)
	require.Nil(t, value)
}

// Given fetches of one size, then the second needs no room of its own.
func TestValuesAreReadWithoutNewRoom(t *testing.T) {
	var room valueRoom
	value := make([]byte, 1100)
	fetch := func() {
		for range 3000 {
			_, err := room.take(protocol.NewBytes(value))
			require.NoError(t, err)
		}
		room.release()
	}
	fetch()
	pieces := len(room.pieces)
	fetch()
	require.Len(t, room.pieces, pieces)
}
