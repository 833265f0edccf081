package localstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/probity-health/probity/services/views"
)

// build is the tables of one build. The lock of its shard guards it.
//
// Whatever changes it is first written to the journal, as the effect that it
// has: a sum as the value that came of it. What numbers stand for is written
// when they are given, in order, so a start that takes the same steps gives
// the same numbers.
type build struct {
	arena    arena
	keys     names // of tables, by number
	names    names // members, ids of fields, and the keys of strings
	suffixes names
	tables   []table // by number of the key
	cells    cells
	parked   map[uint64]string
	offset   uint64 // next index to apply
	journal  *journal

	ops   []uint32 // scratch: the tables of a batch's commands
	batch uint32   // counts the batches looked at
	last  struct { // the name that came last
		text   string
		number uint32
		ok     bool
	}
}

// table is what a key holds. It holds something while its order does.
type table struct {
	order order
	kind  views.Kind
	// becomes is the kind after the commands of a batch that were looked at so
	// far; it counts while looked says that batch.
	becomes views.Kind
	looked  uint32
}

const (
	// A field's end from its last dot on is a suffix when it is that short, and
	// while there are not too many of them.
	longestSuffix = 4
	maxSuffixes   = 256
)

func newBuild(j *journal) *build {
	b := &build{journal: j, parked: map[uint64]string{}}
	b.keys, b.names, b.suffixes = newNames(&b.arena), newNames(&b.arena), newNames(&b.arena)
	b.cells.arena = &b.arena
	b.suffixes.add("")
	return b
}

// kind is what a table holds.
func (b *build) kind(t uint32) views.Kind {
	if b.tables[t].order.n == 0 {
		return views.Nothing
	}
	return b.tables[t].kind
}

// apply applies a batch of which everything before b.offset is done, and
// leaves it in the journal, to be written.
func (b *build) apply(in views.Batch) views.Applied {
	changes := in.Changes
	for len(changes) > 0 && changes[0].Index < b.offset {
		changes = changes[1:]
	}
	// What can be refused is looked at first: then nothing has changed.
	b.ops = b.ops[:0]
	b.batch++
	for _, c := range changes {
		for i := range c.Ops {
			o := &c.Ops[i]
			t := b.table(o.Key)
			b.ops = append(b.ops, t)
			table := &b.tables[t]
			have := table.becomes
			if table.looked != b.batch {
				have = b.kind(t)
			}
			want := o.Command.Kind()
			if want != views.Nothing && have != views.Nothing && have != want {
				return views.Applied{Verdict: views.Clash, Index: c.Index}
			}
			table.becomes, table.looked = want, b.batch
		}
	}
	n := 0
	for _, c := range changes {
		reason := c.Reason
		for i := range c.Ops {
			if err := b.do(b.ops[n], &c.Ops[i]); err != nil {
				reason = views.PartlyApplied + c.Ops[i].Command.String()
			}
			n++
		}
		if reason != "" {
			b.park(c.Index, reason)
		}
	}
	b.reach(in.Next)
	return views.Applied{Verdict: views.Done, Commits: len(changes)}
}

// do applies one command.
func (b *build) do(t uint32, o *views.Op) (err error) {
	switch o.Command {
	case views.HSET:
		o.Each(func(field, text string) {
			name, suffix := b.field(field)
			b.setValue(t, views.Hash, name, suffix, text)
		})
	case views.HINCRBY:
		name, suffix := b.field(o.Name)
		return b.add(t, views.Hash, name, suffix, o.N)
	case views.HDEL:
		o.Each(func(field, _ string) {
			if name, suffix, ok := b.findField(field); ok {
				b.remove(t, name, suffix, false)
			}
		})
	case views.ZADD:
		b.setScore(t, views.SortedSet, b.name(o.Name), o.N)
	case views.SADD:
		o.Each(func(member, _ string) { b.setScore(t, views.MemberSet, b.name(member), 0) })
	case views.ZREM, views.SREM:
		o.Each(func(member, _ string) {
			if name, ok := b.names.lookup(member); ok {
				b.remove(t, name, 0, false)
			}
		})
	case views.SET:
		b.setValue(t, views.String, b.name(o.Key), 0, o.Value)
	case views.INCRBY:
		return b.add(t, views.String, b.name(o.Key), 0, o.N)
	case views.DEL:
		b.drop(t)
	default:
		return fmt.Errorf("views: command %d is none", o.Command)
	}
	return nil
}

// What follows gives numbers.

func (b *build) table(key string) uint32 {
	number, fresh := b.keys.add(key)
	if fresh {
		b.tables = append(b.tables, table{})
		b.journal.text(stepKey, key)
	}
	return number
}

func (b *build) name(text string) uint32 {
	if b.last.ok && b.last.text == text {
		return b.last.number
	}
	number, fresh := b.names.add(text)
	if fresh {
		b.cells.records = append(b.cells.records, record{})
		b.journal.text(stepName, text)
	}
	b.last.text, b.last.number, b.last.ok = text, number, true
	return number
}

// part finds where a field's suffix begins.
func part(field string) (id, suffix string) {
	if dot := strings.LastIndexByte(field, '.'); dot >= 0 && len(field)-dot <= longestSuffix {
		return field[:dot], field[dot:]
	}
	return field, ""
}

// field numbers a field. A suffix that comes when there are too many stays
// with its id, for good: none is known later that wasn't when a field with it
// was first set.
func (b *build) field(field string) (name, suffix uint32) {
	id, end := part(field)
	suffix, known := b.suffixes.lookup(end)
	switch {
	case known:
	case b.suffixes.len() < maxSuffixes:
		suffix, _ = b.suffixes.add(end)
		b.journal.text(stepSuffix, end)
	default:
		id, suffix = field, 0
	}
	return b.name(id), suffix
}

// findField is field where it has come before.
func (b *build) findField(field string) (name, suffix uint32, ok bool) {
	id, end := part(field)
	suffix, known := b.suffixes.lookup(end)
	if !known {
		id, suffix = field, 0
	}
	name, ok = b.names.lookup(id)
	return name, suffix, ok
}

// What follows changes tables, and says so in the journal.

func (b *build) ranking(k views.Kind) ranking {
	if k == views.SortedSet {
		return func(x, y uint32) int { return bytes.Compare(b.names.bytes(x), b.names.bytes(y)) }
	}
	return byNumber
}

func (b *build) setScore(t uint32, k views.Kind, name uint32, score int64) {
	if !b.placeScore(t, k, name, score) {
		return
	}
	if k == views.SortedSet {
		b.journal.step(stepScore, uint64(t), uint64(name))
		b.journal.signed(score)
	} else {
		b.journal.step(stepMember, uint64(t), uint64(name))
	}
}

// placeScore puts a member in and tells whether it was not there with that score.
func (b *build) placeScore(t uint32, k views.Kind, name uint32, score int64) bool {
	old, replaced, _ := b.cells.set(name, cell{table: t, kind: k, score: score})
	if replaced && old.score == score {
		return false
	}
	table := &b.tables[t]
	table.kind = k
	if replaced {
		table.order.remove(&b.arena, b.ranking(k), entry{old.score, name})
	}
	table.order.put(&b.arena, b.ranking(k), entry{score, name})
	return true
}

func (b *build) setValue(t uint32, k views.Kind, name, suffix uint32, text string) {
	b.journal.step(stepValue, uint64(t), uint64(k), uint64(name), uint64(suffix))
	b.placeValue(t, k, name, suffix, b.journal.value(text))
}

func (b *build) placeValue(t uint32, k views.Kind, name, suffix uint32, v value) {
	_, _, had := b.cells.set(name, cell{table: t, kind: k, suffix: suffix, value: v})
	table := &b.tables[t]
	table.kind = k
	if !had {
		table.order.put(&b.arena, byNumber, entry{name: name})
	}
}

// add adds to an integer.
func (b *build) add(t uint32, k views.Kind, name, suffix uint32, n int64) error {
	have, err := b.text(t, name, suffix)
	if err != nil {
		return err
	}
	sum, err := views.Add(have, n)
	if err != nil {
		return err
	}
	b.setValue(t, k, name, suffix, sum)
	return nil
}

// text is a value; empty where there is none.
func (b *build) text(t, name, suffix uint32) (string, error) {
	c, ok, _ := b.cells.get(t, name, suffix)
	if !ok {
		return "", nil
	}
	return b.read(c.value)
}

func (b *build) read(v value) (string, error) {
	if v.inline != nil {
		return string(v.inline), nil
	}
	return b.journal.read(v.at, v.n)
}

// remove takes a name's cell out of a table, or, all being true, every cell
// that it has there.
func (b *build) remove(t, name, suffix uint32, all bool) {
	old, removed, left := b.cells.remove(t, name, suffix, all)
	if !removed {
		return
	}
	n := uint64(0)
	if all {
		n = 1
	}
	b.journal.step(stepRemove, uint64(t), uint64(name), uint64(suffix), n)
	if !left {
		k := b.tables[t].kind
		b.tables[t].order.remove(&b.arena, b.ranking(k), entry{old.score, name})
	}
}

func (b *build) drop(t uint32) {
	if b.kind(t) == views.Nothing {
		return
	}
	b.journal.step(stepDrop, uint64(t))
	b.tables[t].order.each(&b.arena, false, nil, func(e entry) bool {
		b.cells.remove(t, e.name, 0, true)
		return true
	})
	b.tables[t].order.clear(&b.arena)
}

func (b *build) park(index uint64, reason string) {
	b.journal.step(stepPark, index)
	b.journal.string(reason)
	b.parked[index] = reason
}

func (b *build) reach(next uint64) {
	b.journal.step(stepReach, next)
	b.offset = next
}

// Steps of the journal. Each is a byte, then numbers (uvarint; a score is a
// varint) and texts (a uvarint length, then bytes).
const (
	stepKey    = iota + 1 // text: the next table's key
	stepName              // text: the next name
	stepSuffix            // text: the next suffix
	stepScore             // table, name, score
	stepMember            // table, name: a set has it
	stepValue             // table, kind, name, suffix, text
	stepRemove            // table, name, suffix, 1 for every suffix
	stepDrop              // table
	stepPark              // index, text
	stepReach             // next index: everything before it is in
)

var errSteps = errors.New("localstore: a journal's steps can't be followed")

// follow takes the steps of a frame, whose payload begins at a place of the file.
func (b *build) follow(payload []byte, at int64) error {
	in := steps{in: payload, at: at}
	for len(in.in) > 0 {
		switch step := in.byte(); step {
		case stepKey:
			text := in.text(maxName)
			if number, fresh := b.keys.add(text); !fresh || int(number) != len(b.tables) {
				return errSteps
			}
			b.tables = append(b.tables, table{})
		case stepName:
			if _, fresh := b.names.add(in.text(maxName)); !fresh {
				return errSteps
			}
			b.cells.records = append(b.cells.records, record{})
		case stepSuffix:
			if _, fresh := b.suffixes.add(in.text(longestSuffix)); !fresh || b.suffixes.len() > maxSuffixes {
				return errSteps
			}
		case stepScore:
			t, name := in.below(len(b.tables)), in.below(b.names.len())
			if score := in.signed(); in.ok(b.holds(t, views.SortedSet, &in)) {
				b.placeScore(t, views.SortedSet, name, score)
			}
		case stepMember:
			t, name := in.below(len(b.tables)), in.below(b.names.len())
			if in.ok(b.holds(t, views.MemberSet, &in)) {
				b.placeScore(t, views.MemberSet, name, 0)
			}
		case stepValue:
			t, k := in.below(len(b.tables)), views.Kind(in.below(int(views.String)+1))
			name, suffix := in.below(b.names.len()), in.below(b.suffixes.len())
			v := in.value()
			if in.ok(k == views.Hash || k == views.String) && in.ok(b.holds(t, k, &in)) {
				b.placeValue(t, k, name, suffix, v)
			}
		case stepRemove:
			t, name, suffix, all := in.below(len(b.tables)), in.below(b.names.len()), in.below(b.suffixes.len()), in.below(2)
			if !in.bad {
				old, removed, left := b.cells.remove(t, name, suffix, all == 1)
				if in.ok(removed) && !left {
					b.tables[t].order.remove(&b.arena, b.ranking(b.tables[t].kind), entry{old.score, name})
				}
			}
		case stepDrop:
			if t := in.below(len(b.tables)); !in.bad {
				b.tables[t].order.each(&b.arena, false, nil, func(e entry) bool {
					b.cells.remove(t, e.name, 0, true)
					return true
				})
				b.tables[t].order.clear(&b.arena)
			}
		case stepPark:
			index := in.uvarint()
			b.parked[index] = in.text(maxName)
		case stepReach:
			b.offset = in.uvarint()
		default:
			return errSteps
		}
		if in.bad {
			return errSteps
		}
	}
	return nil
}

// holds tells whether a table may take a cell of a kind.
func (b *build) holds(t uint32, k views.Kind, in *steps) bool {
	return !in.bad && (b.kind(t) == views.Nothing || b.tables[t].kind == k)
}

// steps reads a frame. Once it has met what can't be there it is bad.
type steps struct {
	in  []byte
	at  int64
	bad bool
}

func (s *steps) ok(fits bool) bool {
	s.bad = s.bad || !fits
	return !s.bad
}

func (s *steps) skip(n int) []byte {
	if !s.ok(n >= 0 && n <= len(s.in)) {
		return nil
	}
	out := s.in[:n:n]
	s.in, s.at = s.in[n:], s.at+int64(n)
	return out
}

func (s *steps) byte() byte {
	if b := s.skip(1); b != nil {
		return b[0]
	}
	return 0
}

func (s *steps) uvarint() uint64 {
	v, n := binary.Uvarint(s.in)
	if !s.ok(n > 0) {
		return 0
	}
	s.skip(n)
	return v
}

func (s *steps) signed() int64 {
	v, n := binary.Varint(s.in)
	if !s.ok(n > 0) {
		return 0
	}
	s.skip(n)
	return v
}

// below is a number less than n.
func (s *steps) below(n int) uint32 {
	v := s.uvarint()
	if !s.ok(v < uint64(n)) {
		return 0
	}
	return uint32(v)
}

func (s *steps) text(most int) string {
	n := s.uvarint()
	if !s.ok(n <= uint64(most)) {
		return ""
	}
	return string(s.skip(int(n)))
}

func (s *steps) value() value {
	n := s.uvarint()
	if !s.ok(n <= maxName) {
		return value{}
	}
	at := s.at
	text := s.skip(int(n))
	if n <= inlineMost && !s.bad {
		return value{inline: text, n: int(n)}
	}
	return value{at: at, n: int(n)}
}

// contents is what a table holds.
func (b *build) contents(t uint32) (views.Table, error) {
	out := views.Table{Kind: b.kind(t)}
	var failed error
	switch out.Kind {
	case views.Hash:
		out.Hash = map[string]string{}
		b.tables[t].order.each(&b.arena, false, nil, func(e entry) bool {
			failed = b.fieldsOf(t, e.name, out.Hash)
			return failed == nil
		})
	case views.SortedSet, views.MemberSet:
		out.Scores = make(map[string]int64, b.tables[t].order.n)
		b.tables[t].order.each(&b.arena, false, nil, func(e entry) bool {
			out.Scores[b.names.name(e.name)] = e.score
			return true
		})
	case views.String:
		b.tables[t].order.each(&b.arena, false, nil, func(e entry) bool {
			out.Text, failed = b.text(t, e.name, 0)
			return false
		})
	}
	return out, failed
}

// fieldsOf puts a name's fields of a hash into out.
func (b *build) fieldsOf(t, name uint32, out map[string]string) error {
	r, _ := b.cells.held(t, name)
	in, c := reader{in: b.arena.bytes(r.at, int(r.n))}, cell{}
	for in.next(&c) {
		if c.table != t {
			continue
		}
		text, err := b.read(c.value)
		if err != nil {
			return err
		}
		out[b.names.name(name)+b.suffixes.name(c.suffix)] = text
	}
	return nil
}

// fields are some fields of a hash; nil where it has none of them.
func (b *build) fields(t uint32, fields []string) (out map[string]string, err error) {
	for _, field := range fields {
		name, suffix, ok := b.findField(field)
		if !ok {
			continue
		}
		c, ok, _ := b.cells.get(t, name, suffix)
		if !ok {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(fields))
		}
		if out[field], err = b.read(c.value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// pageOf is a page of a sorted set of a shard.
func (b *build) pageOf(t uint32, shard uint32, page views.Page) []views.Member {
	var out []views.Member
	from := func(first, last entry) bool { return page.Min == nil || last.score >= *page.Min }
	if page.Descending {
		from = func(first, _ entry) bool { return page.Max == nil || first.score <= *page.Max }
	}
	if page.After != nil {
		bounded, after := from, page.After.Score
		from = func(first, last entry) bool {
			if page.Descending {
				return bounded(first, last) && first.score <= after
			}
			return bounded(first, last) && last.score >= after
		}
	}
	b.tables[t].order.each(&b.arena, page.Descending, from, func(e entry) bool {
		low := page.Min != nil && e.score < *page.Min
		high := page.Max != nil && e.score > *page.Max
		if low || high {
			return low != page.Descending // what comes first is skipped, what comes last ends it
		}
		m := views.Member{Name: b.names.name(e.name), Score: e.score, Shard: shard}
		if page.After == nil || page.Compare(m, *page.After) > 0 {
			out = append(out, m)
		}
		return len(out) < page.Limit
	})
	return out
}

// all visits every key that holds something.
func (b *build) all(visit func(key string, t views.Table) error) error {
	for t := range b.tables {
		if b.kind(uint32(t)) == views.Nothing {
			continue
		}
		held, err := b.contents(uint32(t))
		if err != nil {
			return err
		}
		if err := visit(b.keys.name(uint32(t)), held); err != nil {
			return err
		}
	}
	return nil
}

func (b *build) parkedCommits() map[uint64]string { return maps.Clone(b.parked) }
