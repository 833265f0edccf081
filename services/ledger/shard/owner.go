package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// What a broker's answer may mean to an Owner. Any other error of a Produce
// leaves it unknown whether the records were appended.
var (
	// ErrFenced: another session took the shard; nothing was appended.
	ErrFenced = errors.New("shard: another session took the shard")
	// ErrForgotten: the broker no longer knows the producer a Begin goes on from.
	ErrForgotten = errors.New("shard: the broker forgot the producer")
)

// Follower is the local replica of the shard: the state an Owner decides on.
type Follower interface {
	core.View
	Head() core.Head
	// Reached tells whether the record at a Kafka offset was judged.
	Reached(offset int64) bool
	// Expect tells what is about to be written, so that it need not be judged twice.
	Expect(commits []core.Written)
	// Landed tells that the broker acknowledged what was expected: count commits
	// from index first on are the records from a Kafka offset on.
	Landed(offset int64, first uint64, count int)
	// Left tells that the session ended: what was expected and did not land may
	// be in the topic or not.
	Left()
	// Halted returns why the replica stopped following, nil while it follows.
	Halted() error
}

// OpKind says what an Op asks of the broker.
type OpKind int

// The kinds.
const (
	AskEnd  OpKind = iota + 1 // the offset after the partition's last record
	Begin                     // a new producer epoch
	Produce                   // one batch, acknowledged by all in-sync replicas
)

// Op is what an Owner wants done at the broker. There is never more than one.
type Op struct {
	Kind OpKind
	// Last is the producer a Begin goes on from, only if nobody took the
	// shard since (KIP-360); nil takes the shard from whoever has it.
	Last *Producer
	// Producer, At and Records are a Produce's. Whoever keeps a record beyond
	// Done copies it: its room is used again.
	Producer Producer
	At       time.Time
	Records  []Record

	group *group // what a Produce commits; nil for a barrier
}

// Prepare does what can be done while the Op is on its way: the group's
// promise. It may run beside the Op or not at all.
func (op *Op) Prepare() {
	if op.group != nil && len(op.group.leaves) > 0 {
		_, _ = op.group.promise.sign()
	}
}

// Bytes is the size of a group commit's requests; 0 for anything else.
func (op *Op) Bytes() int {
	if op.group == nil {
		return 0
	}
	return op.group.bytes
}

// appends is how many the Op commits.
func (op *Op) appends() int {
	if op == nil || op.group == nil {
		return 0
	}
	return len(op.group.pendings)
}

// Result is the broker's answer to an Op.
type Result struct {
	// Offset is the partition's end (AskEnd), or that of the first record (Produce).
	Offset int64
	// Producer is the new session (Begin).
	Producer Producer
	// Err is ErrFenced, ErrForgotten, or anything else that went wrong.
	Err error
}

// OwnerConfig is what an Owner is made of; all fields are needed.
type OwnerConfig struct {
	Log      string
	Shard    uint32
	Origin   string
	Signer   note.Signer // of promises
	Follower Follower
	Session  string // a name no other Owner ever had
	// Alone: no group assigns the shard. Being fenced is then final, since
	// nobody would say whose turn it is.
	Alone  bool
	Renew  time.Duration // how long a session lasts
	Logger *slog.Logger
}

// Owner is one shard's owner without the broker, the clock and the network:
// it decides what is done next and takes in what came of it. It starts no
// goroutine and never waits, so that a simulator runs what a Writer runs.
//
// Step and Done have one caller. Submit, Assign, Release, Stop and State are
// safe for concurrent use.
type Owner struct {
	cfg  OwnerConfig
	desk desk

	phase phase
	doing *Op       // not answered yet
	until time.Time // of resting
	delay time.Duration

	// A taking of the shard.
	last     *Producer // our session before, if nobody is known to have taken the shard since
	again    bool      // the epoch is ours, and what came before it is being read
	reach    int64     // the follower must have judged this offset to go on
	deadline time.Time // of a taking, once it has caught up
	barriers int

	// A session.
	producer  Producer
	term      uint64
	head      core.Head // with the commits in flight and being gathered
	view      *core.Overlay
	decider   core.Decider
	gathering *group
	landed    []*group // acknowledged by the broker and not answered yet
	answered  []*group // and not followed yet
	spare     []*group // empty, with room
	renewAt   time.Time
	failure   error // ends the session once nothing is in flight

	wake    time.Time
	follows bool
}

type phase int

const (
	standby  phase = iota // not ours
	resting               // until the next attempt
	asking                // where the topic ends
	reading               // up to there
	barring               // the barrier is being written
	awaiting              // the follower must judge it
	serving
	ended
)

// NewOwner returns an Owner in standby: Assign gives it its shard.
func NewOwner(cfg OwnerConfig) *Owner {
	o := &Owner{cfg: cfg, delay: retryFirst}
	o.desk.init(fmt.Sprintf("%s/%d", cfg.Log, cfg.Shard))
	return o
}

// Assign tells that the shard is this node's to write.
func (o *Owner) Assign() { o.desk.want(true) }

// Release tells that it no longer is. What was submitted is still answered,
// unless the successor's epoch comes first.
func (o *Owner) Release() { o.desk.want(false) }

// Stop ends the Owner for good after what is in flight.
func (o *Owner) Stop() { o.desk.stop() }

// State returns the Owner's relation to its shard.
func (o *Owner) State() State { return o.desk.now() }

// Submit queues a request that core.CheckRequest accepted. It fails at once
// when the queue is full or the shard is not this node's to write.
func (o *Owner) Submit(r *ledgerv1.AppendRequest, p core.Provenance) (*Pending, error) {
	return o.desk.submit(r, p)
}

// Ended tells whether the Owner ended for good: stopped, or lost.
func (o *Owner) Ended() bool { return o.phase == ended }

// Wake returns when Step should be called though nothing happened; zero is never.
func (o *Owner) Wake() time.Time { return o.wake }

// Follows tells whether Step waits for the follower to move.
func (o *Owner) Follows() bool { return o.follows }

// Step goes as far as it can and returns the next Op, if there is one to
// start. Call it after every Submit, Assign, Release, Stop and Done, when
// Wake's time has come, and, while Follows, when the follower moved; and call
// Answer after it.
func (o *Owner) Step(now time.Time) *Op {
	o.wake, o.follows = time.Time{}, false
	for {
		if o.phase == ended || o.doing != nil && o.phase != serving {
			return nil
		}
		wanted, stopping := o.desk.orders(o.doing.appends())
		if o.phase == serving {
			op, more := o.serve(now, wanted, stopping)
			if more {
				continue
			}
			return op
		}
		if stopping {
			o.end(Closed)
			return nil
		}
		if err := o.cfg.Follower.Halted(); err != nil {
			o.cfg.Logger.Error("stopped writing the shard", "error", err)
			o.end(Lost)
			return nil
		}
		if !wanted {
			o.phase, o.last = standby, nil
			o.desk.become(Standby)
			return nil
		}
		switch o.phase {
		case standby:
			o.phase, o.until, o.delay = resting, now, retryFirst
		case resting:
			if now.Before(o.until) {
				o.wake = o.until
				return nil
			}
			o.desk.become(Taking)
			o.phase, o.again, o.barriers = asking, false, 0
		case asking:
			return o.do(&Op{Kind: AskEnd})
		case reading:
			if !o.cfg.Follower.Reached(o.reach) {
				// A replica that is far behind reads as long as it needs;
				// meanwhile the owner before goes on.
				if o.again && o.late(now) {
					continue
				}
				o.follows = true
				return nil
			}
			if o.again {
				o.phase = barring
				continue
			}
			o.deadline = now.Add(takeTimeout)
			if h := o.cfg.Follower.Head(); o.last != nil && h.Owner != o.cfg.Session {
				// Another Owner's barrier tells already; asking the broker
				// for a new epoch would only disturb the new owner.
				o.retreat(now, fmt.Errorf("%w: term %d is of another session", ErrFenced, h.Term))
				continue
			}
			return o.do(&Op{Kind: Begin, Last: o.last})
		case barring:
			// Another session's last barrier may land between reading and
			// writing; ours is then void for its term and we write a higher one.
			h := o.cfg.Follower.Head()
			o.barriers++
			o.term = h.Term + 1
			value, err := core.Barrier(o.cfg.Log, o.cfg.Shard, o.term, h.Next, o.cfg.Session, now)
			if err != nil {
				o.retreat(now, err)
				continue
			}
			return o.do(&Op{Kind: Produce, Producer: o.producer, At: now, Records: []Record{{Value: value}}})
		case awaiting:
			if !o.cfg.Follower.Reached(o.reach) {
				if o.late(now) {
					continue
				}
				o.follows = true
				return nil
			}
			switch h := o.cfg.Follower.Head(); {
			case h.Owner == o.cfg.Session && h.Term == o.term:
				o.open(now, h)
			case o.barriers < maxBarriers:
				o.phase = barring
			default:
				o.retreat(now, fmt.Errorf("%w: its barriers keep coming first", ErrFenced))
			}
		}
	}
}

func (o *Owner) do(op *Op) *Op {
	o.doing = op
	return op
}

// late gives an attempt up that takes too long, or says when that will be.
func (o *Owner) late(now time.Time) bool {
	if now.Before(o.deadline) {
		o.wake = o.deadline
		return false
	}
	o.retreat(now, errors.New("shard: taking the shard took too long"))
	return true
}

// open begins to serve.
func (o *Owner) open(now time.Time, h core.Head) {
	o.cfg.Logger.Info("took the shard", "term", o.term, "next", h.Next)
	o.phase, o.head, o.view = serving, h, core.NewOverlay(o.cfg.Follower)
	o.gathering, o.failure = o.group(), nil
	o.renewAt, o.delay = now.Add(o.cfg.Renew), retryFirst
	p := o.producer
	o.last = &p
	o.desk.become(Owning)
}

// Answer answers the appends that the broker acknowledged. It comes after the
// Op that Step returned was started: callers that are answered take the
// processor, and the broker would wait for them.
func (o *Owner) Answer() {
	for _, g := range o.landed {
		o.finish(g)
	}
	o.answered = append(o.answered, o.landed...)
	clear(o.landed)
	o.landed = o.landed[:0]
}

// Done takes in the answer to the Op that Step returned last.
func (o *Owner) Done(now time.Time, res Result) {
	op := o.doing
	o.doing = nil
	switch {
	case op.group != nil:
		if res.Err == nil {
			if n := len(op.group.commits); n > 0 {
				o.cfg.Follower.Landed(res.Offset, op.group.promise.first, n)
			}
			o.landed = append(o.landed, op.group)
			return
		}
		for _, p := range op.group.pendings {
			p.unknown = !errors.Is(res.Err, ErrFenced)
		}
		o.leave(now, op.group, res.Err)
	case op.Kind == Begin && op.Last != nil && errors.Is(res.Err, ErrForgotten):
		// The coordinator expired the id, so there is no epoch to go on from.
		o.last = nil
		o.phase = asking
	case res.Err != nil:
		o.retreat(now, res.Err)
	case op.Kind == AskEnd:
		o.reach, o.phase = res.Offset-1, reading
	case op.Kind == Begin:
		o.producer, o.again, o.phase = res.Producer, true, asking
		if o.last != nil {
			// Should this attempt fail beyond here, the next one must still
			// prove continuity, and its proof is now this epoch.
			p := res.Producer
			o.last = &p
		}
	default:
		o.producer = o.producer.after(1)
		o.reach, o.phase = res.Offset, awaiting
	}
}

// retreat gives a taking or a session up and says when the next begins.
func (o *Owner) retreat(now time.Time, err error) {
	o.phase, o.until = resting, now.Add(o.delay)
	if errors.Is(err, ErrFenced) {
		o.cfg.Logger.Warn("lost the shard to another session", "error", err)
		if o.cfg.Alone {
			o.end(Lost)
			return
		}
		// Whoever took it may be the group's choice, and this node the one
		// that has not heard yet: its next generation tells. If instead the
		// other was late and the shard is still assigned here, it is taken
		// back after the pause.
		o.last, o.until = nil, now.Add(fencedPause)
		o.desk.become(Standby)
		return
	}
	o.desk.become(Taking)
	if errors.Is(err, errRenew) {
		o.until = now
		return
	}
	o.cfg.Logger.Warn("stepped down, taking the shard again", "error", err)
	o.delay = min(2*o.delay, retryMost)
}

func (o *Owner) end(s State) {
	o.phase = ended
	o.desk.become(s)
}

// errRenew ends a session that is due for renewal, with nothing in flight.
var errRenew = errors.New("shard: session is due for renewal")

// leave ends the session: what is unanswered goes back to the queue.
func (o *Owner) leave(now time.Time, inflight *group, err error) {
	o.desk.putBack(append(inflight.all(), o.gathering.all()...))
	o.gathering, o.view, o.answered = nil, nil, nil
	o.cfg.Follower.Left()
	o.retreat(now, err)
}

// serve group-commits: what arrives while one produce is in flight becomes
// the next. more tells that the session ended and Step goes on.
func (o *Owner) serve(now time.Time, wanted, stopping bool) (op *Op, more bool) {
	next := o.cfg.Follower.Head().Next
	o.view.Settle(next)
	o.reuse(next)
	renewing := !now.Before(o.renewAt)
	switch {
	case o.failure != nil || renewing || stopping:
	case o.cfg.Follower.Halted() != nil:
		o.failure = errHalted
	case o.view.Len() > maxAhead:
		// Appends queue up, and are refused when the queue is full.
		o.follows = true
	case o.doing == nil && len(o.gathering.records) > 0:
		// What is decided leaves at once, with the few that came too late to
		// rouse; what else came is decided while that is on its way.
		o.failure = o.gather(now, len(o.gathering.records)+rouse(len(o.gathering.records)))
	default:
		o.failure = o.gather(now, maxBatchRecords)
	}
	if o.doing != nil {
		return nil, false
	}
	switch {
	case o.failure != nil:
		o.leave(now, nil, o.failure)
		return nil, true
	case stopping, renewing:
		o.leave(now, nil, errRenew)
		return nil, true
	}
	g := o.gathering
	switch {
	case len(g.records) > 0 || len(g.refusals) > 0:
		records := g.records
		if len(records) == 0 {
			// Nothing to write, but refusals to be sure of.
			value, err := core.Barrier(o.cfg.Log, o.cfg.Shard, o.term, o.head.Next, o.cfg.Session, now)
			if err != nil {
				o.leave(now, nil, err)
				return nil, true
			}
			records = []Record{{Value: value}}
		}
		o.gathering = o.group()
		p := o.producer
		o.producer = p.after(len(records))
		g.promise.leaves = g.leaves
		if len(g.commits) > 0 {
			o.cfg.Follower.Expect(g.commits)
		}
		return o.do(&Op{Kind: Produce, Producer: p, At: now, Records: records, group: g}), false
	case len(g.repeats) > 0:
		o.gathering = o.group()
		o.landed = append(o.landed, g)
		return nil, true
	case !o.follows && o.desk.waiting() > 0:
		// All that was taken was answered already, and more is there.
		return nil, true
	case !wanted && o.desk.waiting() == 0:
		o.cfg.Logger.Info("handed the shard over", "term", o.term, "next", o.head.Next)
		o.phase, o.view, o.gathering, o.answered = standby, nil, nil, nil
		o.cfg.Follower.Left()
		return nil, true
	}
	o.wake = o.renewAt
	return nil, false
}

var errHalted = errors.New("shard: the replica halted")

// group is a group commit being gathered or in flight.
type group struct {
	pendings []*Pending
	records  []Record
	leaves   []receipt.Hash
	commits  []core.Written
	promise  *groupPromise
	// repeats are answered with the group: they name a commit in flight.
	repeats []repeat
	// refusals are answered with the group too. They were decided on commits
	// that may still come to nothing, by an owner that may have been deposed
	// without knowing; a batch of its own that the broker takes proves that
	// neither is so, as of a time after the refused were asked for.
	refusals []refusal
	bytes    int
	rooms    []*room // of the commits' values
}

// room holds the values of some commits.
type room [64 << 10]byte

var rooms = sync.Pool{New: func() any { return new(room) }}

// reuse gives back the room of what is answered and followed: nobody compares
// with it any more. What an ended session leaves is the collector's.
func (o *Owner) reuse(next uint64) {
	n := 0
	for n < len(o.answered) && o.answered[n].promise.first+uint64(len(o.answered[n].commits)) <= next {
		g := o.answered[n]
		for _, r := range g.rooms {
			rooms.Put(r)
		}
		clear(g.rooms)
		clear(g.pendings)
		clear(g.records)
		clear(g.commits)
		if len(o.spare) < spareGroups {
			o.spare = append(o.spare, &group{rooms: g.rooms[:0], pendings: g.pendings[:0], records: g.records[:0], commits: g.commits[:0]})
		}
		n++
	}
	o.answered = slices.Delete(o.answered, 0, n)
}

// spareGroups is how many an Owner keeps: one leaves, one is decided, and one
// is answered and followed.
const spareGroups = 3

type refusal struct {
	pending *Pending
	err     error
}

type repeat struct {
	pending *Pending
	seen    core.Seen
}

func (o *Owner) group() *group {
	g := &group{}
	if n := len(o.spare); n > 0 {
		g, o.spare = o.spare[n-1], o.spare[:n-1]
	}
	g.promise = &groupPromise{
		signer: o.cfg.Signer, origin: o.cfg.Origin, log: o.cfg.Log, shard: o.cfg.Shard, first: o.head.Next,
	}
	o.decider.Room, o.decider.More = nil, g.more
	return g
}

// more makes room for the values of the group's commits.
func (g *group) more(size int) []byte {
	if size > len(room{}) {
		return make([]byte, 0, size)
	}
	r := rooms.Get().(*room)
	g.rooms = append(g.rooms, r)
	return r[:0]
}

// all returns everything in the group that still waits for an answer.
func (g *group) all() []*Pending {
	if g == nil {
		return nil
	}
	out := append([]*Pending(nil), g.pendings...)
	for _, r := range g.repeats {
		out = append(out, r.pending)
	}
	for _, r := range g.refusals {
		out = append(out, r.pending)
	}
	return out
}

// gather decides queued appends into the group. Refusals are answered with
// it; what repeats a commit that is not acknowledged waits with the group.
// An error is the view's, and no verdict. The group gets at most most records.
func (o *Owner) gather(now time.Time, most int) error {
	g := o.gathering
	n := len(g.records) + len(g.repeats) + len(g.refusals)
	most = min(most, maxBatchRecords)
	if o.doing == nil && n == 0 {
		// Only half of what waits leaves first. The other half is decided
		// meanwhile and leaves at once after it, and while that is on its
		// way the first half's callers come back: the broker never waits
		// for callers, nor callers for all of each other.
		most = min(most, max(minSplit, (o.desk.waiting()+1)/2))
	}
	ps := o.desk.take(n, g.bytes, most)
	g.pendings, g.records = slices.Grow(g.pendings, len(ps)), slices.Grow(g.records, len(ps))
	g.leaves, g.commits = slices.Grow(g.leaves, len(ps)), slices.Grow(g.commits, len(ps))
	for i, p := range ps {
		if p.abandoned.Load() {
			o.desk.settle(p, Answer{}, context.Canceled)
			continue
		}
		p.provenance.Recorded = now
		d, err := o.decider.Decide(o.head, o.view, p.request, p.provenance)
		if err != nil {
			if !isRefusal(err) {
				o.desk.putBack(ps[i:])
				return err
			}
			p.unknown = false
			g.refusals = append(g.refusals, refusal{p, err})
			continue
		}
		if d.Replayed {
			r := repeat{p, d.Seen}
			if d.Seen.Index >= o.cfg.Follower.Head().Next && (o.doing != nil || len(g.records) > 0) {
				g.repeats = append(g.repeats, r)
			} else {
				o.repeat(r)
			}
			continue
		}
		// What this session's barrier was read without never landed, and what
		// its epoch keeps out never will.
		p.unknown = false
		o.head.Next++
		o.view.Add(d.Commit, d.Seen)
		g.pendings = append(g.pendings, p)
		g.records = append(g.records, Record{
			Key: core.RecordKey(o.cfg.Origin, p.request.RoutingKey), Value: d.Value, Traceparent: d.Commit.Traceparent,
		})
		g.leaves = append(g.leaves, receipt.LeafHash(d.Seen.Entry))
		g.commits = append(g.commits, core.Written{Commit: d.Commit, Value: d.Value, Seen: d.Seen})
		g.bytes += p.size
	}
	return nil
}

// finish answers a group that the broker acknowledged.
func (o *Owner) finish(g *group) {
	for i, p := range g.pendings {
		p.answer = Answer{Seen: g.commits[i].Seen, promise: g.promise, place: i}
	}
	o.desk.settleAll(g.pendings)
	for _, r := range g.repeats {
		o.repeat(r)
	}
	for _, r := range g.refusals {
		o.desk.settle(r.pending, Answer{}, r.err)
	}
}

// repeat answers an append whose request id names an acknowledged commit.
func (o *Owner) repeat(r repeat) {
	promise := &groupPromise{
		signer: o.cfg.Signer, origin: o.cfg.Origin, log: o.cfg.Log, shard: o.cfg.Shard,
		first: r.seen.Index, leaves: []receipt.Hash{receipt.LeafHash(r.seen.Entry)},
	}
	// An append that was put back after an unknown outcome and then found is
	// its own first answer, not a repetition.
	o.desk.settle(r.pending, Answer{Seen: r.seen, Replayed: !r.pending.unknown, promise: promise}, nil)
}

// isRefusal tells a verdict on the request from a failure to reach one.
func isRefusal(err error) bool {
	var c *core.ConflictError
	var p *problem.Error
	return errors.As(err, &c) || errors.As(err, &p)
}
