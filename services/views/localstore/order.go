package localstore

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// entry is a name's place in a table: by score, then name.
type entry struct {
	score int64
	name  uint32
}

// order is the entries of one table, sorted. The newest are in tail as they
// are, since most of what comes belongs near the end; the others are in blocks
// of differences. Every entry of a block is before every one of the next, and
// of tail.
type order struct {
	blocks []block
	tail   []entry
	n      int
}

// block is some entries; those after the first are in the arena, as
// differences from the one before.
type block struct {
	first, last entry
	at          ref
	size        uint16 // bytes in the arena
	n           uint16 // entries
}

const (
	sealAt    = 128 // a tail of so many gives its first half to a block
	blockMost = 128 // entries of a block; one more and it is parted
)

// ranking compares names that share a score.
type ranking func(a, b uint32) int

func byNumber(a, b uint32) int { return cmp.Compare(a, b) }

func (r ranking) compare(a, b entry) int {
	if a.score != b.score {
		return cmp.Compare(a.score, b.score)
	}
	if a.name == b.name {
		return 0
	}
	return r(a.name, b.name)
}

// put adds an entry that is not there.
func (o *order) put(a *arena, r ranking, e entry) {
	o.n++
	if n := len(o.blocks); n > 0 && r.compare(e, o.blocks[n-1].last) < 0 {
		i, _ := slices.BinarySearchFunc(o.blocks, e, func(b block, e entry) int { return r.compare(b.last, e) })
		held := o.blocks[i].entries(a, make([]entry, 0, blockMost+1))
		at, _ := slices.BinarySearchFunc(held, e, r.compare)
		held = slices.Insert(held, at, e)
		if len(held) <= blockMost {
			o.blocks[i].set(a, held)
			return
		}
		o.blocks[i].set(a, held[:len(held)/2])
		o.blocks = slices.Insert(o.blocks, i+1, newBlock(a, held[len(held)/2:]))
		return
	}
	at := len(o.tail)
	for at > 0 && r.compare(e, o.tail[at-1]) < 0 {
		at--
	}
	o.tail = slices.Insert(o.tail, at, e)
	if len(o.tail) >= sealAt {
		o.blocks = append(o.blocks, newBlock(a, o.tail[:sealAt/2]))
		o.tail = o.tail[:copy(o.tail, o.tail[sealAt/2:])]
	}
}

// remove takes out an entry that is there.
func (o *order) remove(a *arena, r ranking, e entry) {
	o.n--
	if n := len(o.blocks); n > 0 && r.compare(e, o.blocks[n-1].last) <= 0 {
		i, _ := slices.BinarySearchFunc(o.blocks, e, func(b block, e entry) int { return r.compare(b.last, e) })
		held := o.blocks[i].entries(a, make([]entry, 0, blockMost))
		at, _ := slices.BinarySearchFunc(held, e, r.compare)
		held = slices.Delete(held, at, at+1)
		if len(held) > 0 {
			o.blocks[i].set(a, held)
			return
		}
		a.give(o.blocks[i].at, int(o.blocks[i].size))
		o.blocks = slices.Delete(o.blocks, i, i+1)
		return
	}
	at, _ := slices.BinarySearchFunc(o.tail, e, r.compare)
	if o.tail = slices.Delete(o.tail, at, at+1); len(o.tail) == 0 {
		o.tail = nil
	}
}

// clear takes everything out.
func (o *order) clear(a *arena) {
	for _, b := range o.blocks {
		a.give(b.at, int(b.size))
	}
	*o = order{}
}

// each calls f with the entries in order, or against it, until f says false.
// It may begin later than with the first: at the block for which from, asked
// with its first and last entry, is first true.
func (o *order) each(a *arena, descending bool, from func(first, last entry) bool, f func(entry) bool) {
	held := make([]entry, 0, blockMost)
	if !descending {
		i := 0
		if from != nil {
			for low, high := 0, len(o.blocks); low < high; i = low {
				if mid := (low + high) / 2; from(o.blocks[mid].first, o.blocks[mid].last) {
					high = mid
				} else {
					low = mid + 1
				}
			}
		}
		for ; i < len(o.blocks); i++ {
			for _, e := range o.blocks[i].entries(a, held[:0]) {
				if !f(e) {
					return
				}
			}
		}
		for _, e := range o.tail {
			if !f(e) {
				return
			}
		}
		return
	}
	for i := len(o.tail) - 1; i >= 0; i-- {
		if !f(o.tail[i]) {
			return
		}
	}
	last := len(o.blocks) - 1
	if from != nil {
		low, high := -1, last
		for low < high {
			if mid := (low + high + 1) / 2; from(o.blocks[mid].first, o.blocks[mid].last) {
				low = mid
			} else {
				high = mid - 1
			}
		}
		last = low
	}
	for i := last; i >= 0; i-- {
		held = o.blocks[i].entries(a, held[:0])
		for _, e := range slices.Backward(held) {
			if !f(e) {
				return
			}
		}
	}
}

func newBlock(a *arena, held []entry) block {
	var b block
	b.set(a, held)
	return b
}

// set makes the block hold these entries, at least one.
func (b *block) set(a *arena, held []entry) {
	var buf [(binary.MaxVarintLen64 + binary.MaxVarintLen32 + 1) * blockMost]byte
	out := buf[:0]
	for i := 1; i < len(held); i++ {
		out = binary.AppendUvarint(out, uint64(held[i].score)-uint64(held[i-1].score))
		out = binary.AppendVarint(out, int64(held[i].name)-int64(held[i-1].name))
	}
	b.first, b.last, b.n = held[0], held[len(held)-1], uint16(len(held))
	b.at, b.size = store(a, b.at, int(b.size), out), uint16(len(out))
}

// entries appends what the block holds.
func (b *block) entries(a *arena, held []entry) []entry {
	held = append(held, b.first)
	in, e := a.bytes(b.at, int(b.size)), b.first
	for range b.n - 1 {
		score, n := binary.Uvarint(in)
		name, m := binary.Varint(in[n:])
		in = in[n+m:]
		e.score = int64(uint64(e.score) + score)
		e.name = uint32(int64(e.name) + name)
		held = append(held, e)
	}
	return held
}

// store puts bytes into the piece of n bytes at r, or a larger one in its place.
func store(a *arena, r ref, n int, b []byte) ref {
	if r == 0 || room(n) != room(len(b)) {
		a.give(r, n)
		r = a.take(len(b))
	}
	copy(a.bytes(r, len(b)), b)
	return r
}
