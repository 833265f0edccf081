package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// session is one taking of the shard, from the producer epoch to the step
// down. Only Run's goroutine touches it.
type session struct {
	producer producer
	term     uint64
	head     core.Head // with the commits in flight and being gathered
	view     *core.Overlay
}

// errRenew ends a session that is due for renewal, with nothing in flight.
var errRenew = errors.New("shard: session is due for renewal")

// takeShard opens a session: epoch, barrier, and the replica read up to it.
// With last it goes on only if nobody else took the shard in between.
func (w *Writer) takeShard(ctx context.Context, last *session) (*session, error) {
	// A replica that is far behind reads as long as it needs; meanwhile the
	// owner before goes on.
	if err := w.catchUp(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	s := &session{}
	var before *producer
	if last != nil {
		// Another Writer's barrier tells already; asking the broker for a
		// new epoch would only disturb the new owner.
		if h := w.cfg.Follower.Head(); h.Owner != w.cfg.Session {
			return nil, fmt.Errorf("%w: term %d is of another session", errFenced, h.Term)
		}
		before = &last.producer
	}
	p, err := w.broker.begin(ctx, before)
	if errors.Is(err, kafka.InvalidProducerIDMapping) {
		// The coordinator expired the id, so there is no epoch to go on from.
		p, err = w.broker.begin(ctx, nil)
	}
	if err != nil {
		return nil, err
	}
	s.producer = p
	if last != nil {
		// Should this attempt fail beyond here, the next one must still
		// prove continuity, and its proof is now this epoch.
		last.producer = p
	}
	if err := w.catchUp(ctx); err != nil {
		return nil, err
	}
	// Another session's last barrier may land between reading and writing;
	// ours is then void for its term and we write a higher one.
	for range 8 {
		h := w.cfg.Follower.Head()
		s.term = h.Term + 1
		now := w.cfg.Now()
		value, err := core.Barrier(w.cfg.Log, w.cfg.Shard, s.term, h.Next, w.cfg.Session, now)
		if err != nil {
			return nil, err
		}
		offset, err := w.broker.produce(ctx, s.producer, now, []record{{value: value}})
		if err != nil {
			return nil, err
		}
		s.producer = s.producer.after(1)
		if err := w.cfg.Follower.WaitOffset(ctx, offset); err != nil {
			return nil, err
		}
		if h = w.cfg.Follower.Head(); h.Owner == w.cfg.Session && h.Term == s.term {
			s.head = h
			s.view = core.NewOverlay(w.cfg.Follower)
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: its barriers keep coming first", errFenced)
}

// catchUp waits until the replica has judged everything the topic holds now.
func (w *Writer) catchUp(ctx context.Context) error {
	end, err := w.broker.end(ctx)
	if err != nil || end == 0 {
		return err
	}
	return w.cfg.Follower.WaitOffset(ctx, end-1)
}

// group is a group commit being gathered or in flight.
type group struct {
	pendings []*Pending
	records  []record
	leaves   []receipt.Hash
	seen     []core.Seen
	// repeats are answered with the group: they name a commit in flight.
	repeats []repeat
	bytes   int
	first   uint64
}

type repeat struct {
	pending *Pending
	seen    core.Seen
}

func (g *group) empty() bool { return len(g.records) == 0 && len(g.repeats) == 0 }

// all returns everything in the group that still waits for an answer.
func (g *group) all() []*Pending {
	if g == nil {
		return nil
	}
	out := append([]*Pending(nil), g.pendings...)
	for _, r := range g.repeats {
		out = append(out, r.pending)
	}
	return out
}

type produced struct {
	err    error
	took   time.Duration
	group  *group
	offset int64
	note   []byte
	paths  [][]receipt.Hash
}

// serve group-commits until the session ends; the error says why. What it
// leaves unanswered goes back to the queue.
func (w *Writer) serve(ctx context.Context, s *session) error {
	renew := time.NewTimer(w.cfg.Renew)
	defer renew.Stop()
	var (
		gathering = &group{first: s.head.Next}
		inflight  *group
		done      = make(chan produced, 1)
		renewing  bool
	)
	// leave returns what is unanswered to the queue and ends the session.
	leave := func(err error) error {
		for _, p := range inflight.all() {
			p.retried = true
		}
		w.putBack(append(inflight.all(), gathering.all()...))
		return err
	}
	// stop waits for the produce in flight first.
	stop := func(err error) error {
		if inflight != nil {
			if res := <-done; res.err == nil {
				w.finish(res)
				inflight = nil
			}
		}
		return leave(err)
	}
	for {
		if !renewing {
			if err := w.gather(s, gathering, inflight != nil); err != nil {
				return stop(err)
			}
		}
		if inflight == nil && !gathering.empty() {
			inflight, gathering = gathering, &group{first: s.head.Next}
			p := s.producer
			s.producer = p.after(len(inflight.records))
			go func(g *group) { done <- w.commit(ctx, p, g) }(inflight)
		}
		if renewing && inflight == nil {
			return stop(errRenew)
		}
		select {
		case <-w.wake:
		case res := <-done:
			if res.err != nil {
				return leave(res.err)
			}
			inflight = nil
			w.finish(res)
			if s.view.Len() > maxAhead {
				// Appends queue up, and are refused when the queue is full.
				if err := w.cfg.Follower.WaitOffset(ctx, res.offset); err != nil {
					return leave(err)
				}
			}
		case <-renew.C:
			renewing = true
		case <-ctx.Done():
			return stop(ctx.Err())
		}
	}
}

// gather decides queued appends into the group. Refusals are answered at
// once; what repeats a commit that is not acknowledged waits with the group.
func (w *Writer) gather(s *session, g *group, busy bool) error {
	s.view.Settle(w.cfg.Follower.Head().Next)
	for i, ps := 0, w.take(len(g.records)+len(g.repeats), g.bytes); i < len(ps); i++ {
		p := ps[i]
		if p.abandoned.Load() {
			w.answered(p, Answer{}, context.Canceled)
			continue
		}
		p.provenance.Recorded = w.cfg.Now()
		d, err := core.Decide(s.head, s.view, p.request, p.provenance)
		if err != nil {
			if !isRefusal(err) {
				w.putBack(ps[i:])
				return err
			}
			w.answered(p, Answer{}, err)
			continue
		}
		if d.Replayed {
			if d.Seen.Index >= w.cfg.Follower.Head().Next && (busy || len(g.records) > 0) {
				g.repeats = append(g.repeats, repeat{p, d.Seen})
			} else {
				w.repeat(repeat{p, d.Seen})
			}
			continue
		}
		s.head.Next++
		s.view.Add(d.Commit, d.Seen)
		g.pendings = append(g.pendings, p)
		g.records = append(g.records, record{
			key:   core.RecordKey(w.cfg.Origin, p.request.RoutingKey),
			value: d.Value, traceparent: d.Commit.Traceparent,
		})
		g.leaves = append(g.leaves, receipt.LeafHash(d.Seen.Entry))
		g.seen = append(g.seen, d.Seen)
		g.bytes += p.size
	}
	return nil
}

// commit produces a group and signs its promise. It runs beside serve.
func (w *Writer) commit(ctx context.Context, p producer, g *group) produced {
	res := produced{group: g}
	if len(g.records) == 0 {
		return res
	}
	start := time.Now()
	// The produce outlives a shutdown that begins now: cutting it would make
	// its outcome unknown for nothing.
	res.offset, res.err = w.broker.produce(context.WithoutCancel(ctx), p, w.cfg.Now(), g.records)
	res.took = time.Since(start)
	if res.err != nil {
		if !errors.Is(res.err, errFenced) && w.cfg.Observer.Ambiguous != nil {
			w.cfg.Observer.Ambiguous()
		}
		return res
	}
	var root receipt.Hash
	root, res.paths = paths(g.leaves)
	res.note, res.err = receipt.Group{
		Origin: w.cfg.Origin, Log: w.cfg.Log, Shard: w.cfg.Shard,
		First: g.first, Count: uint64(len(g.leaves)), Root: root,
	}.Sign(w.cfg.Signer)
	return res
}

// finish answers a group that Kafka acknowledged.
func (w *Writer) finish(res produced) {
	g := res.group
	if len(g.records) > 0 && w.cfg.Observer.Committed != nil {
		w.cfg.Observer.Committed(len(g.records), g.bytes, res.took)
	}
	promise := &groupPromise{log: w.cfg.Log, shard: w.cfg.Shard, paths: res.paths, note: res.note}
	for i, p := range g.pendings {
		w.answered(p, Answer{Seen: g.seen[i], promise: promise, place: i}, nil)
	}
	for _, r := range g.repeats {
		w.repeat(r)
	}
}

// repeat answers an append whose request id names an acknowledged commit.
func (w *Writer) repeat(r repeat) {
	signed, err := receipt.Group{
		Origin: w.cfg.Origin, Log: w.cfg.Log, Shard: w.cfg.Shard, First: r.seen.Index, Count: 1, Root: receipt.LeafHash(r.seen.Entry),
	}.Sign(w.cfg.Signer)
	if err != nil {
		w.answered(r.pending, Answer{}, err)
		return
	}
	promise := &groupPromise{log: w.cfg.Log, shard: w.cfg.Shard, paths: make([][]receipt.Hash, 1), note: signed}
	// An append that was put back after an unknown outcome and then found is
	// its own first answer, not a repetition.
	w.answered(r.pending, Answer{Seen: r.seen, Replayed: !r.pending.retried, promise: promise}, nil)
}
