package core

import ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"

// Overlay is a View with commits on top that the view beneath does not hold
// yet: an owner's in-flight ones, or those of a batch being followed. It is
// not safe for concurrent use.
type Overlay struct {
	base     View
	streams  map[string]pending
	requests map[string]Seen
	order    []layer
}

type pending struct {
	last  int64
	index uint64
}

type layer struct {
	index   uint64
	request string
	writes  []*ledgerv1.CommittedWrite
}

// NewOverlay returns an empty overlay of base.
func NewOverlay(base View) *Overlay {
	return &Overlay{base: base, streams: map[string]pending{}, requests: map[string]Seen{}}
}

// Reset empties the overlay and keeps its room.
func (o *Overlay) Reset() {
	clear(o.streams)
	clear(o.requests)
	clear(o.order)
	o.order = o.order[:0]
}

// LastRevision implements View.
func (o *Overlay) LastRevision(stream string) (int64, error) {
	if p, ok := o.streams[stream]; ok {
		return p.last, nil
	}
	return o.base.LastRevision(stream)
}

// Request implements View.
func (o *Overlay) Request(id string) (Seen, bool, error) {
	if s, ok := o.requests[id]; ok {
		return s, true, nil
	}
	return o.base.Request(id)
}

// Add puts an accepted commit on top. Indexes must rise.
func (o *Overlay) Add(c *ledgerv1.Commit, s Seen) {
	for i, w := range c.Writes {
		o.streams[w.Stream] = pending{last: int64(s.Revisions[i]), index: s.Index}
	}
	o.requests[c.RequestId] = s
	o.order = append(o.order, layer{index: s.Index, request: c.RequestId, writes: c.Writes})
}

// Len returns the number of commits on top.
func (o *Overlay) Len() int { return len(o.order) }

// Settle drops the commits below next, which the view beneath now holds.
func (o *Overlay) Settle(next uint64) {
	n := 0
	for n < len(o.order) && o.order[n].index < next {
		l := o.order[n]
		delete(o.requests, l.request)
		for _, w := range l.writes {
			// A later commit of the stream keeps its own entry.
			if o.streams[w.Stream].index <= l.index {
				delete(o.streams, w.Stream)
			}
		}
		n++
	}
	o.order = o.order[n:]
	if len(o.order) == 0 {
		o.order = nil
	}
}
