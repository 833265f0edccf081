package localstore

import (
	"encoding/binary"

	"github.com/probity-health/probity/services/views"
)

// cell is what one name has in one table: a score in a sorted set, a value in
// a hash, or just its place in a set. A field <id>.<part> of a hash is the
// cell of the name <id> with the suffix .<part>, since such a hash holds the
// parts of rows whose ids are members elsewhere. A string is the one field,
// named as its key, of its table.
type cell struct {
	table  uint32
	kind   views.Kind
	score  int64
	suffix uint32
	value  value
}

// value is text: short ones are kept in the cell, longer ones in the journal.
type value struct {
	inline []byte
	at     int64 // in the journal, where inline is nil
	n      int
}

// inlineMost is the longest text that is kept in a cell: a number, a code.
const inlineMost = 24

// record is the cells of one name, or of one name in one table, encoded.
type record struct {
	at      ref
	n       uint16
	spilled bool // the name has further records, by table
}

// cells keeps records by name. A name that is in many tables, as a field's
// name may be that every hash has, gets a record for each table that comes
// when its own is long.
type cells struct {
	arena   *arena
	records []record
	spilled map[uint64]record // by table and name
	was     []cell            // the last decoded
	buf     []byte
}

// longRecord is from how many bytes on a name's record takes no further table.
const longRecord = 512

func spillKey(table, name uint32) uint64 { return uint64(table)<<32 | uint64(name) }

func kindOf(head uint64) views.Kind { return views.Kind(head & 7) }

func appendCell(b []byte, c *cell, score *int64) []byte {
	b = binary.AppendUvarint(b, uint64(c.table)<<3|uint64(c.kind))
	switch c.kind {
	case views.SortedSet:
		// As a rule a name has one score in many sets.
		b = binary.AppendVarint(b, int64(uint64(c.score)-uint64(*score)))
		*score = c.score
	case views.Hash, views.String:
		b = binary.AppendUvarint(b, uint64(c.suffix))
		b = binary.AppendUvarint(b, uint64(c.value.n)<<1|inlined(c.value))
		if c.value.inline != nil {
			return append(b, c.value.inline...)
		}
		b = binary.AppendUvarint(b, uint64(c.value.at))
	}
	return b
}

func inlined(v value) uint64 {
	if v.inline != nil {
		return 1
	}
	return 0
}

// reader reads cells.
type reader struct {
	in    []byte
	score int64
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.in)
	r.in = r.in[n:]
	return v
}

// next reads a cell; its inline text is the record's own, and good until the
// record changes.
func (r *reader) next(c *cell) bool {
	if len(r.in) == 0 {
		return false
	}
	head := r.uvarint()
	*c = cell{table: uint32(head >> 3), kind: kindOf(head)}
	switch c.kind {
	case views.SortedSet:
		d, n := binary.Varint(r.in)
		r.in = r.in[n:]
		r.score = int64(uint64(r.score) + uint64(d))
		c.score = r.score
	case views.Hash, views.String:
		c.suffix = uint32(r.uvarint())
		n := r.uvarint()
		c.value.n = int(n >> 1)
		if n&1 == 1 {
			c.value.inline, r.in = r.in[:c.value.n:c.value.n], r.in[c.value.n:]
		} else {
			c.value.at = int64(r.uvarint())
		}
	}
	return true
}

// held is the record in which a name's cells of a table are, or belong.
func (x *cells) held(table, name uint32) (r record, spilled bool) {
	r = x.records[name]
	if r.spilled {
		if own, ok := x.spilled[spillKey(table, name)]; ok {
			return own, true
		}
	}
	return r, false
}

func (x *cells) keep(table, name uint32, r record, spilled bool) {
	if !spilled {
		x.records[name] = r
		return
	}
	if r.n == 0 {
		x.arena.give(r.at, 0)
		delete(x.spilled, spillKey(table, name))
		return
	}
	x.spilled[spillKey(table, name)] = r
}

// get returns a name's cell of a table. any tells whether it has one with
// this or another suffix there.
func (x *cells) get(table, name, suffix uint32) (c cell, ok, any bool) {
	r, _ := x.held(table, name)
	in := reader{in: x.arena.bytes(r.at, int(r.n))}
	for in.next(&c) {
		if c.table == table {
			if any = true; c.suffix == suffix {
				return c, true, true
			}
		}
	}
	return cell{}, false, any
}

// set puts a cell in, in place of the one with its table and suffix. any tells
// whether the name had a cell of the table, old is the one that was replaced,
// without its value.
func (x *cells) set(name uint32, c cell) (old cell, replaced, any bool) {
	r, spilled := x.held(c.table, name)
	in, last := reader{in: x.arena.bytes(r.at, int(r.n))}, cell{}
	for in.next(&last) {
		if last.table == c.table {
			if any = true; last.suffix == c.suffix {
				old, replaced = last, true
				old.value = value{} // the record is about to change
			}
		}
	}
	switch {
	case replaced && c.kind == views.SortedSet && old.score == c.score, replaced && c.kind == views.MemberSet:
		return old, replaced, any
	case replaced:
		x.decode(r)
		for i := range x.was {
			if x.was[i].table == c.table && x.was[i].suffix == c.suffix {
				x.was[i] = c
			}
		}
		x.keep(c.table, name, x.rewrite(r), spilled)
		return old, replaced, any
	case !any && r.n > longRecord && !spilled:
		x.records[name].spilled = true
		if x.spilled == nil {
			x.spilled = map[uint64]record{}
		}
		r, spilled, in.score = record{}, true, 0
	}
	x.buf = appendCell(x.buf[:0], &c, &in.score)
	x.keep(c.table, name, x.extend(r), spilled)
	return cell{}, false, any
}

// decode makes x.was of a record.
func (x *cells) decode(r record) {
	in, c := reader{in: x.arena.bytes(r.at, int(r.n))}, cell{}
	x.was = x.was[:0]
	for in.next(&c) {
		x.was = append(x.was, c)
	}
}

// remove takes a name's cells of a table out, of one suffix or, all being
// true, of every; any tells whether cells of the table are left.
func (x *cells) remove(table, name, suffix uint32, all bool) (old cell, removed, any bool) {
	r, spilled := x.held(table, name)
	in, c := reader{in: x.arena.bytes(r.at, int(r.n))}, cell{}
	x.was = x.was[:0]
	for in.next(&c) {
		if c.table == table {
			if all || c.suffix == suffix {
				old, removed = c, true
				continue
			}
			any = true
		}
		x.was = append(x.was, c)
	}
	if removed {
		old.value = value{}
		x.keep(table, name, x.rewrite(r), spilled)
	}
	return old, removed, any
}

// extend appends x.buf to a record.
func (x *cells) extend(r record) record {
	n := int(r.n) + len(x.buf)
	if r.at == 0 || room(int(r.n)) < n {
		at := x.arena.take(n)
		copy(x.arena.bytes(at, int(r.n)), x.arena.bytes(r.at, int(r.n)))
		x.arena.give(r.at, int(r.n))
		r.at = at
	}
	copy(x.arena.bytes(r.at, n)[r.n:], x.buf)
	r.n = uint16(n)
	return r
}

// rewrite makes a record of x.was, whose inline texts may be the record's own.
func (x *cells) rewrite(r record) record {
	x.buf = x.buf[:0]
	score := int64(0)
	for i := range x.was {
		x.buf = appendCell(x.buf, &x.was[i], &score)
	}
	r.at, r.n = store(x.arena, r.at, int(r.n), x.buf), uint16(len(x.buf))
	return r
}
