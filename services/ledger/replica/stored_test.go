package replica

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// chunked is a log as the database writes it: records in chunks, and the
// trailer of a clean stop.
func chunked(number uint32, records ...int) []byte {
	var out []byte
	put := func(kind byte, number uint32, payload []byte) {
		chunk := make([]byte, logHead+len(payload))
		binary.LittleEndian.PutUint16(chunk[4:], uint16(len(payload)))
		chunk[6] = kind
		binary.LittleEndian.PutUint32(chunk[legacyHead:], number)
		copy(chunk[logHead:], payload)
		binary.LittleEndian.PutUint32(chunk, maskedCRC(chunk[6:]))
		out = append(out, chunk...)
	}
	for _, size := range records {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		for first := true; first || len(payload) > 0; first = false {
			room := chunkBlock - len(out)%chunkBlock - logHead
			n := min(room, len(payload))
			kind := byte(firstLogged)
			if n < len(payload) || !first {
				kind = firstLogged + 2 // which of first, middle and last doesn't matter here
			}
			put(kind, number, payload[:n])
			payload = payload[n:]
			if left := chunkBlock - len(out)%chunkBlock; left < logHead {
				out = append(out, make([]byte, left)...)
			}
		}
	}
	trailer := make([]byte, logHead)
	trailer[6] = firstLogged
	binary.LittleEndian.PutUint32(trailer[legacyHead:], number+1)
	return append(out, trailer...)
}

// Every bit of a log counts up to its trailer, over the ends of blocks too;
// what comes after is of no one's concern.
func TestEveryBitOfALogCounts(t *testing.T) {
	for _, sizes := range [][]int{{}, {10}, {chunkBlock - 2*logHead, 5}, {chunkBlock - logHead - 4, 80_000, 3}} {
		sound := chunked(7, sizes...)
		_, what := checkChunks(append(sound, "left over from a recycled file"...), 7)
		require.Empty(t, what, sizes)
		step := max(1, len(sound)/500)
		for at := 0; at < len(sound); at += step {
			for bit := range 8 {
				sound[at] ^= 1 << bit
				_, what := checkChunks(sound, 7)
				require.NotEmpty(t, what, "%v: bit %d of byte %d", sizes, bit, at)
				sound[at] ^= 1 << bit
			}
		}
		for cut := range min(len(sound), 100) {
			_, what := checkChunks(sound[:len(sound)-1-cut], 7)
			require.NotEmpty(t, what, "%v: cut by %d", sizes, cut+1)
		}
	}
}

func FuzzCheckChunks(f *testing.F) {
	f.Add(chunked(7, 10, 40_000), uint32(7))
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, raw []byte, number uint32) {
		if at, what := checkChunks(raw, number); what != "" && (at < 0 || at > int64(len(raw))) {
			t.Fatalf("a fault at %d of %d", at, len(raw))
		}
	})
}

func FuzzParseRow(f *testing.F) {
	r := rows{prefix: shardPrefix("claims", 1)}
	f.Add(r.key(kindRequest, []byte("r1")), []byte{3})
	f.Add(r.extentKey("claim-1", 3), extent{first: 3, index: 9, count: 1}.append(nil))
	f.Add(r.key(kindIndexed), be64(3))
	f.Add(formatRow, []byte(format))
	f.Add(blockKey(4), []byte("text"))
	f.Add(blockCursor, []byte(`{"next":1,"height":1,"policies":1}`))
	f.Add(policyKey(1), []byte("note"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		got := parseRow(key, value)
		switch got.Kind {
		case RowRequest:
			require.Equal(t, rows{prefix: shardPrefix(got.Log, got.Shard)}.key(kindRequest, []byte(got.Request)), key)
			require.Equal(t, binary.AppendUvarint(nil, got.Index), value)
		case RowExtent:
			require.Equal(t, rows{prefix: shardPrefix(got.Log, got.Shard)}.extentKey(got.Stream, got.Revision), key)
		case RowBlock:
			require.Equal(t, blockKey(got.Height), key)
		case RowPolicy:
			require.Equal(t, policyKey(got.Policies), key)
		}
	})
}
