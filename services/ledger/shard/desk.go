package shard

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/problem"
)

// State is an Owner's relation to its shard.
type State int

// The states.
const (
	Standby State = iota // the shard is another node's to write
	Taking               // being taken, or stepped down for a moment
	Owning               // appends are served
	Lost                 // another session took the shard, or the replica halted; final
	Closed               // shut down; final
)

// String names the state.
func (s State) String() string {
	return [...]string{"standby", "taking", "owning", "lost", "closed"}[s]
}

// desk is where callers hand appends in and an Owner takes them: the one
// place where many goroutines meet it.
type desk struct {
	name     string        // of the shard, for messages
	rung     chan struct{} // has room for one; sent to when the Owner should step
	changed  func(State)   // hears of every new state, without the lock; may be nil
	mu       sync.Mutex    // guards what follows
	state    State
	wanted   bool
	stopping bool
	draining bool
	queue    []*Pending
	bytes    int
	// rouse is how many appends must wait for one more of them to ring.
	rouse int
	// unanswered are submitted and not settled; idle is closed when draining
	// and there is none.
	unanswered int
	idle       chan struct{}
}

func (d *desk) init(name string) {
	d.name, d.rung, d.idle = name, make(chan struct{}, 1), make(chan struct{})
}

// ring makes the Owner's shell step.
func (d *desk) ring() {
	select {
	case d.rung <- struct{}{}:
	default:
	}
}

// submit refuses for a desk that is closed: the shard isn't this node's, or
// soon isn't. While the shard is being taken appends wait for it.
func (d *desk) submit(r *ledgerv1.AppendRequest, p core.Provenance) (*Pending, error) {
	// No commit of r takes more: what it has beyond the request is bounded.
	size := proto.Size(r) + len(p.Actor) + 2*len(p.Traceparent) + 160 + 12*len(r.Writes)
	if size > core.MaxRecord {
		return nil, problem.Invalidf("ledger.append.too-large", "writes", "the commit takes %d bytes, the limit is %d: split it", size, core.MaxRecord)
	}
	pend := &Pending{request: r, provenance: p, size: size, done: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.wanted || d.stopping || d.draining || d.state != Taking && d.state != Owning:
		return nil, d.notOwner()
	case len(d.queue) >= maxQueue || d.bytes+size > maxQueueBytes:
		return nil, problem.New(problem.Exhausted, problem.Problem{
			RuleID:  "ledger.append.queue-full",
			Message: fmt.Sprintf("shard %s has %d appends waiting", d.name, len(d.queue)),
			Fix:     "send the same append again after a pause",
		})
	}
	d.queue = append(d.queue, pend)
	d.bytes += size
	d.unanswered++
	if len(d.queue) >= d.rouse {
		d.ring()
	}
	return pend, nil
}

// RuleNotOwner is the rule of a refusal by a node that doesn't write the
// shard. Nothing was appended and nothing will be on account of this attempt,
// so it may be sent on to the node that does, as if it had never been here.
const RuleNotOwner = "ledger.shard.not-owner"

func (d *desk) notOwner() error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  RuleNotOwner,
		Message: "this node does not write shard " + d.name,
		Fix:     "send the same append again with the same request id, here or to another node",
	})
}

// want sets whether the shard is this node's to write.
func (d *desk) want(wanted bool) {
	d.mu.Lock()
	d.wanted = wanted
	was := d.state
	if wanted && d.state == Standby {
		d.state = Taking
	}
	now := d.state
	d.mu.Unlock()
	d.told(was, now)
	d.ring()
}

func (d *desk) stop() {
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	d.ring()
}

// orders returns what the Owner was told. While a batch of its is on its way
// nothing that is submitted can leave, so it is only roused to decide some at
// once: to wake it for each costs more than to decide.
func (d *desk) orders(onWay int) (wanted, stopping bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rouse = rouse(onWay)
	return d.wanted, d.stopping
}

// rouse is how many are decided at once beside a batch of so many.
func rouse(records int) int { return min(records/4, rouseMost) }

func (d *desk) now() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

func (d *desk) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue)
}

// take removes what fits into a batch of at most most records that already
// has some records and bytes.
func (d *desk) take(records, bytes, most int) []*Pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(d.queue) && records+n < most {
		p := d.queue[n]
		if records+n > 0 && bytes+p.size > maxBatchBytes {
			break
		}
		bytes += p.size
		d.bytes -= p.size
		n++
	}
	out := d.queue[:n:n]
	d.queue = d.queue[n:]
	if len(d.queue) == 0 {
		d.queue = nil
	}
	return out
}

// putBack returns unanswered appends to the front of the queue, in order.
func (d *desk) putBack(ps []*Pending) {
	if len(ps) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range ps {
		d.bytes += p.size
	}
	d.queue = append(ps[:len(ps):len(ps)], d.queue...)
}

// settle answers one append. Each is settled exactly once.
func (d *desk) settle(p *Pending, a Answer, err error) {
	p.answer, p.err = a, err
	d.settleAll([]*Pending{p})
}

// settleAll answers appends whose answers are set.
func (d *desk) settleAll(ps []*Pending) {
	for _, p := range ps {
		close(p.done)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unanswered -= len(ps)
	if d.draining && d.unanswered == 0 && len(ps) > 0 {
		close(d.idle)
	}
}

// drain stops taking appends and returns what is closed once those taken are answered.
func (d *desk) drain() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.draining {
		d.draining = true
		if d.unanswered == 0 {
			close(d.idle)
		}
	}
	return d.idle
}

// become changes the state. One that serves nobody fails everything queued:
// what was sent to the broker and not heard of since as of unknown outcome,
// for it may have landed before the next owner's barrier.
func (d *desk) become(s State) {
	d.mu.Lock()
	was := d.state
	d.state = s
	var failed []*Pending
	if s != Taking && s != Owning {
		failed, d.queue, d.bytes = d.queue, nil, 0
	}
	d.mu.Unlock()
	d.told(was, s)
	for _, p := range failed {
		if p.unknown {
			d.settle(p, Answer{}, outcomeUnknown("this node lost shard "+d.name+" before it learned whether the append was made"))
			continue
		}
		d.settle(p, Answer{}, d.notOwner())
	}
}

func (d *desk) told(was, now State) {
	if was != now && d.changed != nil {
		d.changed(now)
	}
}
