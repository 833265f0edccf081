package replica

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/probity-health/probity/services/ledger/core"
)

// index finds a shard's commits by request id and by stream. What was added
// last is in memory only. When roll has set enough of it apart, write writes
// that to the store in the order of its keys, as one batch or as one sorted
// table, while the next comes in. A start reads the commits since the last
// such write again.
//
// A write must come after the commits it is of are durable, so that no row in
// the store leads to a commit that a crash took. Only one goroutine, the
// follower's, may add and roll, and it alone may look without the lock; all
// else is safe for concurrent use.
type index struct {
	rows   rows
	store  *Store
	hashes hashes
	// tableAt is from how many commits on their rows become a table.
	tableAt int

	mu sync.RWMutex // guards what follows
	// fresh takes what comes. older is being written or was; it spares look-ups.
	fresh, older *generation
}

const (
	// flushAt is how many commits stay in memory only.
	flushAt = 1 << 13
	// tableAt is from how many commits on their rows are handed to the store
	// as one sorted table. Fewer would leave it many small ones to merge.
	tableAt = 4 * flushAt
	// keptAt is the largest generation whose room is kept for another: one of a
	// long history, with what one portion may add.
	keptAt = behindMost*flushAt + portionRecords
)

// generation is the index of some commits that follow each other.
type generation struct {
	commits  int
	requests names
	at       []uint64 // index of each request's commit
	streams  names
	newest   []int32 // of each stream's extents
	extents  []chained
}

// chained is an extent and the one before it of its stream in the same
// generation, -1 when there is none.
type chained struct {
	extent
	stream int32
	before int32
}

// stored is a commit that was accepted.
type stored struct {
	index uint64
	row   core.Row
	keys  []key // of the request id, then of each write's stream
}

// stored returns a commit with its keys.
func (h hashes) stored(index uint64, row core.Row) stored {
	return stored{index, row, h.keysOf(make([]key, 0, 2), row.RequestID, row.Writes)}
}

// reset empties a generation and keeps its room, but what a busy disk let grow.
func (g *generation) reset() *generation {
	if g.commits > keptAt {
		return &generation{}
	}
	g.commits = 0
	g.requests.reset()
	g.streams.reset()
	g.at, g.newest, g.extents = g.at[:0], g.newest[:0], g.extents[:0]
	return g
}

func newIndex(r rows, s *Store, tableAt int) *index {
	return &index{rows: r, store: s, hashes: newHashes(), tableAt: tableAt, fresh: &generation{}, older: &generation{}}
}

// add takes in commits that were stored.
func (x *index) add(entries []stored) {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.fresh
	g.commits += len(entries)
	for i := range entries {
		e := &entries[i]
		if n, fresh := g.requests.add(e.keys[0].hash, e.row.RequestID); fresh {
			g.at = append(g.at, e.index)
		} else {
			g.at[n] = e.index
		}
		for k := range e.row.Writes {
			w := &e.row.Writes[k]
			c := chained{extent: extent{first: w.First, index: e.index, write: k, count: int(w.Count)}, before: -1}
			n, fresh := g.streams.add(e.keys[1+k].hash, w.Stream)
			if fresh {
				g.newest = append(g.newest, 0)
			} else {
				c.before = g.newest[n]
			}
			c.stream, g.newest[n] = int32(n), int32(len(g.extents))
			g.extents = append(g.extents, c)
		}
	}
}

// roll sets what is in memory only apart, to be written. What was set apart
// before must have been.
func (x *index) roll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	// Nobody holds a generation without the lock, but write, which is done.
	x.older, x.fresh = x.fresh, x.older.reset()
}

// write writes what was set apart, and that the index has every commit below
// next: all of it or nothing.
func (x *index) write(next uint64) error {
	x.mu.RLock()
	g := x.older // nobody changes it any more
	x.mu.RUnlock()
	if g.commits >= x.tableAt {
		return x.store.takeTable(func(set setter) error { return x.rows.spell(g, next, set) })
	}
	batch := x.rows.db.NewBatchWithSize(64 * (g.requests.len() + len(g.extents)))
	defer batch.Close()
	err := x.rows.spell(g, next, func(key, value []byte) error { return batch.Set(key, value, nil) })
	if err != nil {
		return err
	}
	return batch.Commit(pebble.NoSync)
}

// setter takes a row, and keeps neither key nor value.
type setter func(key, value []byte) error

// spell gives the rows of a generation in the order of their keys, and before
// them that the index has every commit below next.
func (r rows) spell(g *generation, next uint64, set setter) error {
	if err := set(r.key(kindIndexed), be64(next)); err != nil {
		return err
	}
	// What the order leads to lies anywhere in memory. Some rows are spelled
	// before any of them is written, so that the processor waits for many at once.
	var room spelledRows
	for some := range slices.Chunk(sortNames(g.requests.names), spelledAtOnce) {
		room.touch(g.requests.names, some)
		for _, p := range some {
			room.touched += int(g.at[p.at])
		}
		for _, p := range some {
			room.begin()
			room.b = append(append(append(room.b, r.prefix...), kindRequest), g.requests.names[p.at]...)
			room.keyed()
			room.b = binary.AppendUvarint(room.b, g.at[p.at])
		}
		if err := room.flush(set); err != nil {
			return err
		}
	}
	var chain []int32
	for some := range slices.Chunk(sortNames(g.streams.names), spelledAtOnce) {
		room.touch(g.streams.names, some)
		for _, p := range some {
			room.touched += g.extents[g.newest[p.at]].count
		}
		for _, p := range some {
			stream := g.streams.names[p.at]
			chain = chain[:0]
			for at := g.newest[p.at]; at >= 0; at = g.extents[at].before {
				chain = append(chain, at)
			}
			for _, at := range slices.Backward(chain) {
				e := &g.extents[at]
				room.begin()
				room.b = r.appendExtentKey(room.b, stream, e.first)
				room.keyed()
				room.b = e.append(room.b)
			}
		}
		if err := room.flush(set); err != nil {
			return err
		}
	}
	return nil
}

// spelledAtOnce is of how many names the rows are spelled before they are
// written: enough to wait for together, few enough to stay in the cache.
const spelledAtOnce = 128

// spelledRows holds some rows, one after the other.
type spelledRows struct {
	b       []byte
	ends    [][2]int // of each row's key and value
	touched int
}

// touch reads a little of each name.
func (s *spelledRows) touch(names []string, some []place) {
	touched := 0
	for _, p := range some {
		if name := names[p.at]; name != "" {
			touched += int(name[0])
		}
	}
	s.touched += touched
}

// begin begins a row: its key is appended to b, up to keyed, then its value.
func (s *spelledRows) begin() { s.end(); s.ends = append(s.ends, [2]int{}) }

func (s *spelledRows) keyed() { s.ends[len(s.ends)-1][0] = len(s.b) }

func (s *spelledRows) end() {
	if n := len(s.ends); n > 0 {
		s.ends[n-1][1] = len(s.b)
	}
}

// flush hands the rows on and forgets them.
func (s *spelledRows) flush(set setter) error {
	s.end()
	at := 0
	for _, e := range s.ends {
		if err := set(s.b[at:e[0]], s.b[e[0]:e[1]]); err != nil {
			return err
		}
		at = e[1]
	}
	s.b, s.ends = s.b[:0], s.ends[:0]
	return nil
}

// sortNames returns the places of names in the order of their bytes. Most names
// differ within eight bytes behind what they all begin with, and numbers that
// short are sorted byte by byte, without comparing.
func sortNames(names []string) []place {
	if len(names) == 0 {
		return nil
	}
	same := len(names[0])
	for _, name := range names {
		n := 0
		for n < min(same, len(name)) && name[n] == names[0][n] {
			n++
		}
		same = n
	}
	places := make([]place, len(names))
	for i, name := range names {
		var first [8]byte
		copy(first[:], name[same:])
		places[i] = place{binary.BigEndian.Uint64(first[:]), i}
	}
	places = sortPlaces(places)
	for i := 0; i < len(places); {
		end := i + 1
		for end < len(places) && places[end].order == places[i].order {
			end++
		}
		if end > i+1 {
			slices.SortFunc(places[i:end], func(a, b place) int { return strings.Compare(names[a.at], names[b.at]) })
		}
		i = end
	}
	return places
}

// place says which name has an order.
type place struct {
	order uint64 // of the eight bytes at which names begin to differ
	at    int
}

// sortPlaces sorts by order, from the last byte to the first, each time keeping
// the order of those that are alike in it.
func sortPlaces(from []place) []place {
	to := make([]place, len(from))
	for shift := 0; shift < 64; shift += 8 {
		var begin [257]int
		for _, p := range from {
			begin[p.order>>shift&0xff+1]++
		}
		if slices.Contains(begin[:], len(from)) {
			continue // they are all alike in it
		}
		for i := 1; i < len(begin); i++ {
			begin[i] += begin[i-1]
		}
		for _, p := range from {
			digit := p.order >> shift & 0xff
			to[begin[digit]] = p
			begin[digit]++
		}
		from, to = to, from
	}
	return from
}

// last returns a stream's last revision where it is in memory.
func (x *index) last(stream string) (int64, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.held(x.hashes.stream(stream), stream)
}

// held is last. The caller holds mu or is the follower.
func (x *index) held(h uint64, stream string) (int64, bool) {
	for _, g := range [...]*generation{x.fresh, x.older} {
		if n, ok := g.streams.find(h, stream); ok {
			return g.extents[g.newest[n]].last(), true
		}
	}
	return core.NoStream, false
}

// lastRevision is last, or what the store says.
func (x *index) lastRevision(stream string) (int64, error) {
	if last, ok := x.last(stream); ok {
		return last, nil
	}
	return x.rows.lastRevision(stream)
}

// request returns the index of the commit a request id named.
func (x *index) request(id string) (at uint64, ok bool, err error) {
	x.mu.RLock()
	at, ok = x.named(x.hashes.request(id), id)
	x.mu.RUnlock()
	if ok {
		return at, true, nil
	}
	return x.rows.request(id)
}

// named is request of what is in memory. The caller holds mu or is the
// follower.
func (x *index) named(h uint64, id string) (at uint64, ok bool) {
	for _, g := range [...]*generation{x.fresh, x.older} {
		if n, ok := g.requests.find(h, id); ok {
			return g.at[n], true
		}
	}
	return 0, false
}

// eachExtent calls visit with a stream's extents from the one that holds
// revision from on, in order.
func (x *index) eachExtent(stream string, from uint64, visit func(extent) (more bool, err error)) error {
	// What is in memory first: a roll meanwhile would hide it from both.
	var fresh []extent
	h := x.hashes.stream(stream)
	x.mu.RLock()
	for _, g := range [...]*generation{x.fresh, x.older} {
		if n, ok := g.streams.find(h, stream); ok {
			for at := g.newest[n]; at >= 0; at = g.extents[at].before {
				fresh = append(fresh, g.extents[at].extent)
			}
		}
	}
	x.mu.RUnlock()
	slices.Reverse(fresh)
	below := ^uint64(0)
	if len(fresh) > 0 {
		below = fresh[0].first
	}
	more := true
	if from < below {
		err := x.rows.eachExtent(stream, from, below, func(e extent) (_ bool, err error) {
			more, err = visit(e)
			return more, err
		})
		if err != nil || !more {
			return err
		}
	}
	for _, e := range fresh {
		if e.last() < int64(from) {
			continue
		}
		if more, err := visit(e); err != nil || !more {
			return err
		}
	}
	return nil
}

// extent is where a commit's events of one stream are.
type extent struct {
	first uint64 // first revision
	index uint64 // commit
	write int    // which of its writes
	count int
}

func (e extent) last() int64 { return int64(e.first) + int64(e.count) - 1 }

// append adds what the row of an extent says beyond its key.
func (e extent) append(b []byte) []byte {
	b = binary.AppendUvarint(b, e.index)
	b = binary.AppendUvarint(b, uint64(e.write))
	return binary.AppendUvarint(b, uint64(e.count))
}

// parseExtent reads exactly what append writes.
func parseExtent(first uint64, v []byte) (extent, bool) {
	var n [3]uint64
	rest := v
	for i := range n {
		size := 0
		if n[i], size = binary.Uvarint(rest); size <= 0 {
			return extent{}, false
		}
		rest = rest[size:]
	}
	if n[1] >= core.MaxWrites || n[2] == 0 || n[2] > core.MaxEvents {
		return extent{}, false
	}
	e := extent{first: first, index: n[0], write: int(n[1]), count: int(n[2])}
	return e, bytes.Equal(e.append(nil), v)
}

// Keys of the index: a shard's prefix, a kind and the kind's own key.
const (
	kindIndexed = 'h' // → commits the index has
	kindRequest = 'q' // request id → index
	kindStream  = 's' // stream, NUL, first revision → extent
)

func (r rows) extentKey(stream string, first uint64) []byte {
	return r.appendExtentKey(make([]byte, 0, len(r.prefix)+len(stream)+10), stream, first)
}

func (r rows) appendExtentKey(k []byte, stream string, first uint64) []byte {
	k = append(append(k, r.prefix...), kindStream)
	k = append(append(k, stream...), 0)
	return binary.BigEndian.AppendUint64(k, first)
}

// indexed returns how many commits the index has.
func (r rows) indexed() (uint64, error) {
	v, err := r.get(r.key(kindIndexed))
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, errDamaged
	}
	return binary.BigEndian.Uint64(v), nil
}

func (r rows) request(id string) (uint64, bool, error) {
	v, err := r.get(r.key(kindRequest, []byte(id)))
	if err != nil || v == nil {
		return 0, false, err
	}
	at, size := binary.Uvarint(v)
	if size != len(v) {
		return 0, false, errDamaged
	}
	return at, true, nil
}

func (r rows) lastRevision(stream string) (int64, error) {
	last := core.NoStream
	err := r.eachExtent(stream, ^uint64(0), ^uint64(0), func(e extent) (bool, error) {
		last = e.last()
		return true, nil
	})
	return last, err
}

// eachExtent calls visit with the stored extents of a stream from the one
// that holds revision from on, in order, that begin below another revision.
func (r rows) eachExtent(stream string, from, below uint64, visit func(extent) (more bool, err error)) error {
	lower := r.key(kindStream, []byte(stream), []byte{0})
	upper := r.key(kindStream, []byte(stream), []byte{1})
	if below < ^uint64(0) {
		upper = r.extentKey(stream, below)
	}
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	ok := false
	if from < ^uint64(0) {
		ok = it.SeekLT(r.extentKey(stream, from+1))
	} else {
		ok = it.Last()
	}
	if !ok {
		ok = it.First()
	}
	for ; ok; ok = it.Next() {
		k := it.Key()
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		e, sound := parseExtent(binary.BigEndian.Uint64(k[len(k)-8:]), v)
		if !sound {
			return errDamaged
		}
		more, err := visit(e)
		if err != nil || !more {
			return err
		}
	}
	return it.Error()
}
