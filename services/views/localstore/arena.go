package localstore

import (
	"encoding/binary"
	"math/bits"
)

// arena hands out pieces of large byte slices. The pieces hold no pointers and
// are found by number, so the collector sees a few slices, however much is in
// them. A piece that is given back is handed out again.
type arena struct {
	chunks [][]byte
	used   int          // units of the last chunk
	free   [classes]ref // of each class, chained by their first bytes
}

// ref is where a piece begins, in units; 0 is none.
type ref uint32

const (
	unit       = 16
	chunkUnits = 1 << 12
	// classes of sizes: 16 to 64 in steps of 16, then two a doubling: 96, 128, 192, 256 …
	classes = 4 + 2*9
)

// classOf is the smallest class of pieces that hold n bytes, and its units.
func classOf(n int) (class, units int) {
	if n <= 4*unit {
		units = max(1, (n+unit-1)/unit)
		return units - 1, units
	}
	over := bits.Len(uint(n-1)) - 7 // 64 < n ≤ 128 is 0
	if whole := 8 << over; n > unit*whole*3/4 {
		return 4 + 2*over + 1, whole
	}
	return 4 + 2*over, 6 << over
}

// take returns a piece of at least n bytes; n is less than half a chunk.
func (a *arena) take(n int) ref {
	class, units := classOf(n)
	if r := a.free[class]; r != 0 {
		a.free[class] = ref(binary.LittleEndian.Uint32(a.bytes(r, 4)))
		return r
	}
	if len(a.chunks) == 0 || a.used+units > chunkUnits {
		a.used = 0
		if len(a.chunks) == 0 {
			a.used = 1 // so that no piece is number 0
		}
		a.chunks = append(a.chunks, make([]byte, unit*chunkUnits))
	}
	r := ref((len(a.chunks)-1)*chunkUnits + a.used)
	a.used += units
	return r
}

// give takes back a piece of n bytes.
func (a *arena) give(r ref, n int) {
	if r == 0 {
		return
	}
	class, _ := classOf(n)
	binary.LittleEndian.PutUint32(a.bytes(r, 4), uint32(a.free[class]))
	a.free[class] = r
}

// bytes are a piece's first n.
func (a *arena) bytes(r ref, n int) []byte {
	if n == 0 {
		return nil
	}
	at := int(r) % chunkUnits * unit
	return a.chunks[int(r)/chunkUnits][at : at+n : at+n]
}

// room is how many bytes a piece of n bytes has.
func room(n int) int {
	_, units := classOf(n)
	return units * unit
}
