package replica

import "hash/maphash"

// hashes of names, of one shard in one process.
type hashes struct{ requests, streams maphash.Seed }

func newHashes() hashes { return hashes{maphash.MakeSeed(), maphash.MakeSeed()} }

func (h hashes) request(id string) uint64    { return maphash.String(h.requests, id) }
func (h hashes) stream(stream string) uint64 { return maphash.String(h.streams, stream) }

// names numbers names from 0 in the order they come. It is a hash table whose
// hashes the caller computes, once for all the tables it looks in. The zero
// value is empty.
type names struct {
	names  []string
	hashes []uint64
	// slots hold the upper half of a hash and, below it, one more than a
	// name's number; 0 is empty. Their number is a power of two, and at most
	// half are taken.
	slots []uint64
}

func (t *names) len() int { return len(t.names) }

// find returns a name's number.
func (t *names) find(h uint64, name string) (int, bool) {
	if len(t.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(t.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s == 0 {
			return 0, false
		}
		if n := int(uint32(s)) - 1; uint32(s>>32) == uint32(h>>32) && t.names[n] == name {
			return n, true
		}
	}
}

// touch reads a little of where a name of this hash is or would be.
func (t *names) touch(h uint64) uint64 {
	if len(t.slots) == 0 {
		return 0
	}
	return t.slots[h&uint64(len(t.slots)-1)]
}

// add returns a name's number, which is new where the name is.
func (t *names) add(h uint64, name string) (n int, fresh bool) {
	if 2*len(t.names) >= len(t.slots) {
		t.grow()
	}
	mask := uint64(len(t.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		s := t.slots[i]
		if s == 0 {
			t.names, t.hashes = append(t.names, name), append(t.hashes, h)
			t.slots[i] = h>>32<<32 | uint64(len(t.names))
			return len(t.names) - 1, true
		}
		if n := int(uint32(s)) - 1; uint32(s>>32) == uint32(h>>32) && t.names[n] == name {
			return n, false
		}
	}
}

func (t *names) grow() {
	t.slots = make([]uint64, max(64, 2*len(t.slots)))
	mask := uint64(len(t.slots) - 1)
	for n, h := range t.hashes {
		i := h & mask
		for t.slots[i] != 0 {
			i = (i + 1) & mask
		}
		t.slots[i] = h>>32<<32 | uint64(n+1)
	}
}

// reset empties the table and keeps its room.
func (t *names) reset() {
	clear(t.names)
	clear(t.slots)
	t.names, t.hashes = t.names[:0], t.hashes[:0]
}
