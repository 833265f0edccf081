package replica

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
)

func head(size uint64) receipt.Checkpoint {
	return receipt.Checkpoint{Origin: testOrigin, Size: size, Root: receipt.LeafHash([]byte{byte(size)})}
}

// Given signatures one after the other, then a start knows the last, a memory
// of the older form is taken up, and any flipped bit or lost sector of the
// file keeps the node from starting rather than from remembering.
func TestTheMemoryOfSigning(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, lastSignedFile)
	older := head(1)
	require.NoError(t, os.WriteFile(file, older.Marshal(), 0o644))
	for size := uint64(1); size < 6; size++ {
		l, err := openLastSigned(tiles.Disk{}, dir)
		require.NoError(t, err)
		require.Equal(t, head(size), l.last)
		ok, err := l.advance(head(size+1), func(s uint64) (receipt.Hash, error) { return head(s).Root, nil })
		require.NoError(t, err)
		require.True(t, ok)
	}
	sound, err := os.ReadFile(file)
	require.NoError(t, err)
	for at := range sound {
		sound[at] ^= 1 << (at % 8)
		require.NoError(t, os.WriteFile(file, sound, 0o644))
		_, err := openLastSigned(tiles.Disk{}, dir)
		require.ErrorContains(t, err, "damaged", "byte %d", at)
		sound[at] ^= 1 << (at % 8)
	}
	for slot := range signedSlots {
		lost := append([]byte(nil), sound...)
		clear(lost[slot*signedSlot : (slot+1)*signedSlot])
		require.NoError(t, os.WriteFile(file, lost, 0o644))
		_, err := openLastSigned(tiles.Disk{}, dir)
		require.ErrorContains(t, err, "damaged", "slot %d", slot)
	}
	for _, raw := range [][]byte{nil, sound[:signedSlot], sound[:len(sound)-1]} {
		require.NoError(t, os.WriteFile(file, raw, 0o644))
		_, err := openLastSigned(tiles.Disk{}, dir)
		require.Error(t, err)
	}
}

func FuzzParseLastSigned(f *testing.F) {
	text, err := signedText(head(3))
	require.NoError(f, err)
	f.Add(append(text, text...))
	one := head(1)
	f.Add(one.Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, slot, err := ParseLastSigned(raw)
		if err != nil {
			require.Zero(t, c)
			return
		}
		if slot < 0 {
			require.Equal(t, c.Marshal(), raw)
			return
		}
		again, err := signedText(c)
		require.NoError(t, err)
		require.Equal(t, again, raw[slot*signedSlot:(slot+1)*signedSlot])
	})
}
