// Package shard owns the right to write one partition of a log.
//
// Owner is the rules: a state machine without goroutines that says what to
// ask of the broker next. Writer runs one Owner against Kafka. Balance and
// Group share the shards of a ledger among its nodes.
//
// An Owner is the only one that appends to its partition, and Kafka enforces
// it: taking a shard opens a new producer epoch, so the broker refuses every
// batch of the session before. The taking session then writes a barrier with
// a higher term and waits until its own replica has judged it; from there it
// knows everything its predecessors wrote and answers from that.
//
// Appends are group-committed: what arrives while one produce is in flight
// becomes the next. There is no linger and there are never two in flight.
//
// A produce whose outcome is unknown is not repeated and not guessed at. The
// Owner steps down, takes the shard again under a new epoch (which settles
// what of the old one landed), reads up to its barrier, and decides every
// unanswered append anew: one that did land is found by its request id.
//
// Safety rests on the epoch and the term alone. The group says whose turn it
// is; two nodes that both believe it's theirs only take turns at fencing each
// other until the newer generation reaches both.
package shard

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
)

// Bounds of a group commit and of what may wait for one.
const (
	maxBatchRecords = 900
	maxBatchBytes   = 900 << 10
	// minSplit is the least that is worth a batch of its own.
	minSplit = 32
	// rouseMost is the most that waits to be decided at once while a batch is
	// on its way.
	rouseMost     = 32
	maxQueue      = 8192
	maxQueueBytes = 64 << 20

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
	// maxBarriers of one attempt.
	maxBarriers = 8
	// fencedPause is how long a fenced node leaves a shard alone that is
	// still assigned to it: long enough for one of the two to hear from the
	// group that it isn't.
	fencedPause = time.Second
)

// Observer hears what a Writer does, for metrics. Any field may be nil.
type Observer struct {
	// Committed is called after each group commit with its records, bytes
	// and the time the produce took.
	Committed func(records, bytes int, took time.Duration)
	// Changed is called with every new state.
	Changed func(State)
	// Ambiguous is called when a produce's outcome was unknown.
	Ambiguous func()
}

// Config is what a Writer is made of; all fields but Alone, Observer and
// Renew are needed.
type Config struct {
	Client          *kafka.Client
	Topic           string
	Log             string
	Shard           uint32
	TransactionalID string // one a shard, the same for every node
	Origin          string
	Signer          note.Signer // of promises
	Follower        Follower
	// Moved returns a channel that is closed when the follower next moves.
	Moved    func() <-chan struct{}
	Session  string           // a name no other Writer ever had
	Alone    bool             // see OwnerConfig
	Now      func() time.Time // stamps commits and records
	Logger   *slog.Logger
	Observer Observer
	Renew    time.Duration // 0 is six hours
}

// Writer runs an Owner against Kafka. Run must be called once; all else is
// safe for concurrent use.
type Writer struct {
	cfg    Config
	broker broker
	owner  *Owner
}

// NewWriter returns a Writer that takes its shard once it runs and is assigned it.
func NewWriter(cfg Config) *Writer {
	if cfg.Renew == 0 {
		cfg.Renew = renewEvery
	}
	cfg.Logger = cfg.Logger.With("log", cfg.Log, "shard", cfg.Shard)
	w := &Writer{
		cfg:    cfg,
		broker: broker{client: cfg.Client, topic: cfg.Topic, partition: int(cfg.Shard), transactional: cfg.TransactionalID},
		owner: NewOwner(OwnerConfig{
			Log: cfg.Log, Shard: cfg.Shard, Origin: cfg.Origin, Signer: cfg.Signer, Follower: cfg.Follower,
			Session: cfg.Session, Alone: cfg.Alone, Renew: cfg.Renew, Logger: cfg.Logger,
		}),
	}
	w.owner.desk.changed = cfg.Observer.Changed
	return w
}

// State returns the Writer's relation to its shard now.
func (w *Writer) State() State { return w.owner.State() }

// Assign tells that the shard is this node's to write: Run takes it.
func (w *Writer) Assign() { w.owner.Assign() }

// Release tells that the shard no longer is this node's to write. What was
// submitted is still answered, then Run steps down.
func (w *Writer) Release() { w.owner.Release() }

// Submit queues a request that core.CheckRequest accepted. It fails at once
// when the queue is full or the shard is not this node's to write.
func (w *Writer) Submit(r *ledgerv1.AppendRequest, p core.Provenance) (*Pending, error) {
	return w.owner.Submit(r, p)
}

// Drain stops taking appends and waits until those taken are answered.
func (w *Writer) Drain(ctx context.Context) error {
	select {
	case <-w.owner.desk.drain():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run owns the shard while it is assigned, until ctx ends or the Owner does:
// another session took a shard that nobody assigns, or the replica halted.
func (w *Writer) Run(ctx context.Context) {
	done := make(chan Result, 1)
	stop := context.AfterFunc(ctx, w.owner.Stop)
	defer stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var armed time.Time
	for {
		// Taken before looking, so that no move is missed.
		moved := w.cfg.Moved()
		op := w.owner.Step(w.cfg.Now())
		if op != nil {
			go func() { done <- w.perform(ctx, op) }()
			// It gets as far as the connection first: what follows here may
			// take milliseconds, and wakes those who would run before it.
			runtime.Gosched()
			op.Prepare()
			w.owner.Answer()
			// What was submitted meanwhile is gathered while op is on its way.
			continue
		}
		w.owner.Answer()
		if w.owner.Ended() {
			return
		}
		if !w.owner.Follows() {
			moved = nil
		}
		if wake := w.owner.Wake(); !wake.Equal(armed) {
			armed = wake
			timer.Stop()
			if !wake.IsZero() {
				timer.Reset(wake.Sub(w.cfg.Now()))
			}
		}
		select {
		case res := <-done:
			// Before whatever rings: the broker waits for the next group.
			w.owner.Done(w.cfg.Now(), res)
			continue
		default:
		}
		select {
		case <-w.owner.desk.rung:
		case <-moved:
		case <-timer.C:
			armed = time.Time{}
		case res := <-done:
			w.owner.Done(w.cfg.Now(), res)
		}
	}
}

// perform carries an Op out.
func (w *Writer) perform(ctx context.Context, op *Op) Result {
	var res Result
	switch op.Kind {
	case AskEnd:
		res.Offset, res.Err = w.broker.end(ctx)
	case Begin:
		res.Producer, res.Err = w.broker.begin(ctx, op.Last)
	case Produce:
		start := time.Now()
		// The produce outlives a shutdown that begins now: cutting it would
		// make its outcome unknown for nothing.
		res.Offset, res.Err = w.broker.produce(context.WithoutCancel(ctx), op.Producer, op.At, op.Records)
		switch {
		case op.group == nil:
		case res.Err == nil && w.cfg.Observer.Committed != nil:
			w.cfg.Observer.Committed(len(op.group.records), op.Bytes(), time.Since(start))
		case res.Err != nil && !errors.Is(res.Err, ErrFenced) && w.cfg.Observer.Ambiguous != nil:
			w.cfg.Observer.Ambiguous()
		}
	}
	return res
}
