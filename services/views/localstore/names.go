package localstore

import "hash/maphash"

// names numbers strings from 0, in the order in which they first come. A name
// is never forgotten while its build is there.
type names struct {
	arena *arena
	seed  maphash.Seed
	list  []named
	slots []uint32 // open addressing: a name's number + 1; at most two thirds are used
}

type named struct {
	at ref
	n  uint16
}

// maxName is the longest name, which is views' bound on an argument.
const maxName = 16 << 10

func newNames(a *arena) names {
	return names{arena: a, seed: maphash.MakeSeed(), slots: make([]uint32, 16)}
}

func (n *names) len() int { return len(n.list) }

// bytes is a name; it must not be changed.
func (n *names) bytes(number uint32) []byte {
	e := n.list[number]
	return n.arena.bytes(e.at, int(e.n))
}

func (n *names) name(number uint32) string { return string(n.bytes(number)) }

// find returns a name's number and the slot where it is, or belongs.
func (n *names) find(name string) (number uint32, slot int, ok bool) {
	mask := len(n.slots) - 1
	for slot = int(maphash.String(n.seed, name)) & mask; ; slot = (slot + 1) & mask {
		held := n.slots[slot]
		if held == 0 {
			return 0, slot, false
		}
		if string(n.bytes(held-1)) == name {
			return held - 1, slot, true
		}
	}
}

// lookup returns the number of a name that has come before.
func (n *names) lookup(name string) (uint32, bool) {
	number, _, ok := n.find(name)
	return number, ok
}

// add returns a name's number, a new one when it has not come before.
func (n *names) add(name string) (number uint32, fresh bool) {
	number, slot, ok := n.find(name)
	if ok {
		return number, false
	}
	number = uint32(len(n.list))
	e := named{at: n.arena.take(len(name)), n: uint16(len(name))}
	copy(n.arena.bytes(e.at, len(name)), name)
	n.list = append(n.list, e)
	n.slots[slot] = number + 1
	if 3*len(n.list) > 2*len(n.slots) {
		n.grow()
	}
	return number, true
}

func (n *names) grow() {
	n.slots = make([]uint32, 2*len(n.slots))
	mask := len(n.slots) - 1
	for i := range n.list {
		slot := int(maphash.Bytes(n.seed, n.bytes(uint32(i)))) & mask
		for n.slots[slot] != 0 {
			slot = (slot + 1) & mask
		}
		n.slots[slot] = uint32(i) + 1
	}
}
