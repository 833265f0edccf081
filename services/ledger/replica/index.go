package replica

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/probity-health/probity/services/ledger/core"
)

// index finds a shard's commits by request id and by stream. What was added
// last is in memory only; flush writes it to the store in one batch, in the
// order of its keys. A start reads the commits since the last flush again.
//
// A flush must come after the commits it is of are durable, so that no row in
// the store leads to a commit that a crash took. add and flush must have one
// caller; all else is safe for concurrent use.
type index struct {
	rows rows

	mu sync.RWMutex // guards what follows
	// fresh is not in the store yet. older is; it spares look-ups.
	fresh, older *generation
}

// flushAt is how many commits stay in memory only.
const flushAt = 1 << 13

// generation is the index of some commits that follow each other.
type generation struct {
	commits  int
	requests map[string]uint64
	streams  map[string]int32 // the newest of extents
	extents  []chained
}

// chained is an extent and the one before it of its stream in the same
// generation, -1 when there is none.
type chained struct {
	extent
	stream string
	before int32
}

func newGeneration(size int) *generation {
	return &generation{requests: make(map[string]uint64, size), streams: make(map[string]int32, size)}
}

func newIndex(r rows) *index {
	return &index{rows: r, fresh: newGeneration(0), older: newGeneration(0)}
}

// add takes in commits that were stored.
func (x *index) add(entries []stored) {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.fresh
	g.commits += len(entries)
	for _, e := range entries {
		g.requests[e.commit.RequestId] = e.seen.Index
		for i, w := range e.commit.Writes {
			before, ok := g.streams[w.Stream]
			if !ok {
				before = -1
			}
			g.streams[w.Stream] = int32(len(g.extents))
			g.extents = append(g.extents, chained{
				extent: extent{first: w.FirstRevision, index: e.seen.Index, write: i, count: len(w.Events)}, stream: w.Stream, before: before,
			})
		}
	}
}

// flush writes what is in memory only, and that the index has every commit
// below next.
func (x *index) flush(next uint64) error {
	g := x.fresh // add has the same caller
	type row struct{ key, value []byte }
	out := make([]row, 0, len(g.requests)+len(g.extents))
	for id, at := range g.requests {
		out = append(out, row{x.rows.key(kindRequest, []byte(id)), binary.AppendUvarint(nil, at)})
	}
	for _, e := range g.extents {
		out = append(out, row{x.rows.extentKey(e.stream, e.first), e.append(nil)})
	}
	slices.SortFunc(out, func(a, b row) int { return bytes.Compare(a.key, b.key) })
	batch := x.rows.db.NewBatch()
	defer batch.Close()
	for _, r := range out {
		if err := batch.Set(r.key, r.value, nil); err != nil {
			return err
		}
	}
	if err := batch.Set(x.rows.key(kindIndexed), be64(next), nil); err != nil {
		return err
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fresh, x.older = newGeneration(g.commits), g
	return nil
}

// last returns a stream's last revision where it is in memory.
func (x *index) last(stream string) (int64, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, g := range []*generation{x.fresh, x.older} {
		if at, ok := g.streams[stream]; ok {
			return g.extents[at].last(), true
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
	at, ok = x.fresh.requests[id]
	if !ok {
		at, ok = x.older.requests[id]
	}
	x.mu.RUnlock()
	if ok {
		return at, true, nil
	}
	return x.rows.request(id)
}

// eachExtent calls visit with a stream's extents from the one that holds
// revision from on, in order.
func (x *index) eachExtent(stream string, from uint64, visit func(extent) (more bool, err error)) error {
	// What is in memory first: a flush meanwhile would hide it from both.
	var fresh []extent
	x.mu.RLock()
	if at, ok := x.fresh.streams[stream]; ok {
		for ; at >= 0; at = x.fresh.extents[at].before {
			fresh = append(fresh, x.fresh.extents[at].extent)
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
	k := make([]byte, 0, len(r.prefix)+len(stream)+10)
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
