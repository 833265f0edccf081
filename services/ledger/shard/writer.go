// Package shard owns the right to write one partition of a log.
//
// A Writer is the only one that appends to its partition, and Kafka enforces
// it: taking a shard opens a new producer epoch, so the broker refuses every
// batch of the session before. The taking session then writes a barrier with
// a higher term and waits until its own replica has judged it; from there it
// knows everything its predecessors wrote and answers from that.
//
// Appends are group-committed: what arrives while one produce is in flight
// becomes the next. There is no linger and there are never two in flight.
//
// A produce whose outcome is unknown is not repeated and not guessed at. The
// Writer steps down, takes the shard again under a new epoch (which settles
// what of the old one landed), reads up to its barrier, and decides every
// unanswered append anew: one that did land is found by its request id.
package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/problem"
)

// Bounds of a group commit and of what may wait for one.
const (
	maxBatchRecords = 900
	maxBatchBytes   = 900 << 10
	maxQueue        = 8192
	maxQueueBytes   = 64 << 20

	// renewEvery bounds how long a session lasts. Renewal writes a barrier
	// and touches the transactional id, so that neither the partition (a
	// day) nor the coordinator (a week) forgets the epoch that fences.
	renewEvery = 6 * time.Hour

	retryFirst = 20 * time.Millisecond
	retryMost  = 2 * time.Second
	// takeTimeout bounds one attempt to take a shard that was read before.
	takeTimeout = time.Minute
	// maxAhead bounds the acknowledged commits that the replica hasn't
	// followed yet, which are kept in memory.
	maxAhead = 32 << 10
)

// Follower is the local replica of the shard: the state a Writer decides on.
type Follower interface {
	core.View
	Head() core.Head
	// WaitOffset waits until the record at a Kafka offset was judged.
	WaitOffset(ctx context.Context, offset int64) error
}

// Observer hears what a Writer does, for metrics. Any field may be nil.
type Observer struct {
	// Committed is called after each group commit with its records, bytes
	// and the time the produce took.
	Committed func(records, bytes int, took time.Duration)
	// Owning is called when the shard is taken and when it's given up.
	Owning func(owning bool)
	// Ambiguous is called when a produce's outcome was unknown.
	Ambiguous func()
}

// Config is what a Writer is made of; all fields but Observer and Renew are needed.
type Config struct {
	Client          *kafka.Client
	Topic           string
	Log             string
	Shard           uint32
	TransactionalID string // one a shard, the same for every node
	Origin          string
	Signer          note.Signer // of promises
	Follower        Follower
	Session         string           // a name no other Writer ever had
	Now             func() time.Time // stamps commits and records
	Logger          *slog.Logger
	Observer        Observer
	Renew           time.Duration // 0 is six hours
}

// State is a Writer's relation to its shard.
type State int

// The states.
const (
	Taking State = iota // not served yet, or stepped down for a moment
	Owning              // appends are served
	Lost                // another session took the shard; final
	Closed              // shut down; final
)

// String names the state.
func (s State) String() string { return [...]string{"taking", "owning", "lost", "closed"}[s] }

// Writer is one shard's writer. Run must be called once; all else is safe
// for concurrent use.
type Writer struct {
	cfg    Config
	broker broker
	wake   chan struct{} // has room for one; sent to after the queue grew

	mu         sync.Mutex // guards what follows
	state      State
	draining   bool
	queue      []*Pending
	queueBytes int
	unanswered int           // submitted and not answered yet
	idle       chan struct{} // closed when draining and unanswered is 0
}

// NewWriter returns a Writer that serves once Run has taken the shard.
func NewWriter(cfg Config) *Writer {
	if cfg.Renew == 0 {
		cfg.Renew = renewEvery
	}
	cfg.Logger = cfg.Logger.With("log", cfg.Log, "shard", cfg.Shard)
	return &Writer{
		cfg:    cfg,
		broker: broker{client: cfg.Client, topic: cfg.Topic, partition: int(cfg.Shard), transactional: cfg.TransactionalID},
		wake:   make(chan struct{}, 1),
		idle:   make(chan struct{}),
	}
}

// State returns the Writer's relation to its shard now.
func (w *Writer) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Submit queues a request that CheckRequest accepted. It fails at once when
// the queue is full or the shard is not this node's to write.
func (w *Writer) Submit(r *ledgerv1.AppendRequest, p core.Provenance) (*Pending, error) {
	// No commit of r takes more: what it has beyond the request is bounded.
	size := proto.Size(r) + len(p.Actor) + 2*len(p.Traceparent) + 160 + 12*len(r.Writes)
	if size > core.MaxRecord {
		return nil, problem.Invalidf("ledger.append.too-large", "writes", "the commit takes %d bytes, the limit is %d: split it", size, core.MaxRecord)
	}
	pend := &Pending{request: r, provenance: p, size: size, writer: w, done: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.state == Lost || w.state == Closed || w.draining:
		return nil, w.unavailable()
	case len(w.queue) >= maxQueue || w.queueBytes+size > maxQueueBytes:
		return nil, problem.New(problem.Exhausted, problem.Problem{
			RuleID:  "ledger.append.queue-full",
			Message: fmt.Sprintf("shard %s/%d has %d appends waiting", w.cfg.Log, w.cfg.Shard, len(w.queue)),
			Fix:     "send the same append again after a pause",
		})
	}
	w.queue = append(w.queue, pend)
	w.queueBytes += size
	w.unanswered++
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return pend, nil
}

func (w *Writer) unavailable() error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "ledger.shard.not-owner",
		Message: fmt.Sprintf("this node does not write shard %s/%d", w.cfg.Log, w.cfg.Shard),
		Fix:     "send the same append again with the same request id, to the node that does",
	})
}

// take removes what fits into a batch that already has records and bytes.
func (w *Writer) take(records, bytes int) []*Pending {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(w.queue) && records+n < maxBatchRecords {
		p := w.queue[n]
		if records+n > 0 && bytes+p.size > maxBatchBytes {
			break
		}
		bytes += p.size
		w.queueBytes -= p.size
		n++
	}
	out := w.queue[:n:n]
	w.queue = w.queue[n:]
	if len(w.queue) == 0 {
		w.queue = nil
	}
	return out
}

// putBack returns unanswered appends to the front of the queue, in order.
func (w *Writer) putBack(ps []*Pending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range ps {
		w.queueBytes += p.size
	}
	w.queue = append(ps[:len(ps):len(ps)], w.queue...)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// answered settles one append. Each is settled exactly once.
func (w *Writer) answered(p *Pending, a Answer, err error) {
	p.answer, p.err = a, err
	close(p.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unanswered--
	if w.draining && w.unanswered == 0 {
		close(w.idle)
	}
}

// Drain stops taking appends and waits until those taken are answered.
func (w *Writer) Drain(ctx context.Context) error {
	w.mu.Lock()
	if !w.draining {
		w.draining = true
		if w.unanswered == 0 {
			close(w.idle)
		}
	}
	w.mu.Unlock()
	select {
	case <-w.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// become changes the state. Reaching a final one fails everything queued.
func (w *Writer) become(s State) {
	w.mu.Lock()
	was := w.state
	w.state = s
	var failed []*Pending
	if s == Lost || s == Closed {
		failed, w.queue, w.queueBytes = w.queue, nil, 0
	}
	w.mu.Unlock()
	if (was == Owning) != (s == Owning) && w.cfg.Observer.Owning != nil {
		w.cfg.Observer.Owning(s == Owning)
	}
	for _, p := range failed {
		w.answered(p, Answer{}, w.unavailable())
	}
}

// ErrLost is Run's error after another session took the shard.
var ErrLost = errors.New("shard: lost to another session")

// Run takes the shard and serves it until ctx ends (no error), another
// session takes it (ErrLost), or the replica halts.
func (w *Writer) Run(ctx context.Context) error {
	delay := retryFirst
	var last *session
	for {
		s, err := w.takeShard(ctx, last)
		if err == nil {
			w.cfg.Logger.Info("took the shard", "term", s.term, "next", s.head.Next)
			delay = retryFirst
			w.become(Owning)
			err = w.serve(ctx, s)
			last = s
		}
		var p *problem.Error
		switch {
		case ctx.Err() != nil:
			w.become(Closed)
			return nil
		case errors.Is(err, errFenced):
			w.cfg.Logger.Warn("lost the shard to another session", "error", err)
			w.become(Lost)
			return ErrLost
		case errors.As(err, &p):
			// The replica halted: no state to decide on.
			w.cfg.Logger.Error("stopped writing the shard", "error", err)
			w.become(Lost)
			return err
		}
		w.become(Taking)
		if !errors.Is(err, errRenew) {
			w.cfg.Logger.Warn("stepped down, taking the shard again", "error", err)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
			}
			delay = min(2*delay, retryMost)
		}
	}
}
