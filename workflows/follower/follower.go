// Package follower starts what the ledger says is waiting.
//
// It follows one log and does what the catalog's workflows make of its facts:
// a file received gets its workflow, a claim that pends gets its own, and a
// claim that becomes final by another way tells its workflow so; see package
// hook. Invariants: a workflow's id is made from the fact that asks for
// it, so starting twice is starting once; the cursor is stored only after
// everything before it has been started; and when Temporal or the ledger is
// away the follower waits and tries again, for ever. So nothing is lost and
// nothing is done twice, whichever process stops when.
//
// A start is some ten milliseconds of Temporal's and its database's time. One
// whose workflow would only wait, as a claim's does that people are to look
// at, gives way while many facts pass, at most for patience: see patient.go.
package follower

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/telemetry"
	"github.com/probity-health/probity/workflows/hook"
	"github.com/probity-health/probity/workflows/worker"
)

// Log is the log that is followed unless Deps name another.
const Log = "claims"

const (
	// maxDeferred bounds what catching up may hold back; beyond it workflows
	// are started at once, which costs a start that may prove needless.
	maxDeferred = 50_000
	// saveEvery bounds how far back a restart begins; it is not what makes it correct.
	saveEvery = 5 * time.Second

	// parallel is how many workflows are started at once; order matters only
	// between a claim's start and what it is told, and that is kept.
	parallel = 16

	firstPause = 200 * time.Millisecond
	longPause  = 30 * time.Second
)

// Ledger is followed; it is the ledger service's Connect client.
type Ledger interface {
	Subscribe(context.Context, *ledgerv1.SubscribeRequest) (*connect.ServerStreamForClient[ledgerv1.SubscribeResponse], error)
}

// Starter starts and tells workflows; what exists already is success.
type Starter interface {
	Start(ctx context.Context, s hook.Start) error
	Tell(ctx context.Context, t hook.Tell) error
}

// Cursor keeps where to continue, a shard's index each.
type Cursor interface {
	// Load returns nil when nothing usable is stored: then the log is read from its beginning.
	Load(ctx context.Context) (map[uint32]uint64, error)
	Save(ctx context.Context, next map[uint32]uint64) error
}

// Deps are what a follower works with.
type Deps struct {
	Ledger  Ledger
	Starter Starter
	Cursor  Cursor
	// Log to follow; empty is Log.
	Log string
	// Workflows whose facts count; nil is the worker's catalog.
	Workflows []hook.Workflow
	// Logger; nil discards.
	Logger *slog.Logger
	// Meter, nil for none, carries the gauge probity.follower.lag: for how many
	// seconds the oldest fact has waited that is not acted on yet, 0 when none
	// is known; see Lag.
	Meter metric.MeterProvider
	// Now tells the time; nil is time.Now. It paces saving and measures the lag.
	Now func() time.Time
	// Pause waits before an attempt is repeated, or until ctx ends; nil really waits.
	Pause func(ctx context.Context, d time.Duration)
}

// Follower follows while Run runs.
type Follower struct {
	deps  Deps
	facts map[string]hook.Fact // by event type; never changed after New
	types []string             // facts' keys, sorted

	// Owned by Run's goroutine.
	next  map[uint32]uint64
	saved time.Time
	// What catching up has seen asked for and not yet answered, by workflow id:
	// most of an old log's files are complete and most of its pended claims are
	// decided, and those cost a map entry instead of a workflow. nil once caught up.
	deferred map[string]hook.Start
	// What the batch in hand asks to start; emptied by flush.
	starts  []func(context.Context)
	patient patient

	mu       sync.Mutex
	caughtUp bool      // guarded by mu
	trouble  string    // guarded by mu; what is being waited for, empty when nothing
	behind   time.Time // guarded by mu; age of the oldest fact not acted on, zero when there is none
}

// New makes a follower.
func New(d Deps) *Follower {
	if d.Log == "" {
		d.Log = Log
	}
	if d.Workflows == nil {
		d.Workflows = worker.Catalog(worker.Deps{})
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Pause == nil {
		d.Pause = pause
	}
	f := &Follower{deps: d, facts: map[string]hook.Fact{}}
	for _, fact := range hook.Of(d.Workflows, d.Log) {
		f.facts[fact.Event] = merged(f.facts[fact.Event], fact)
	}
	f.types = slices.Sorted(maps.Keys(f.facts))
	f.measure()
	return f
}

// merged: an event type may concern several workflows; they are asked in the catalog's order.
func merged(earlier, later hook.Fact) hook.Fact {
	if earlier.Asks == nil {
		return later
	}
	return hook.Fact{Event: later.Event, Asks: func(payload []byte, at hook.Place) ([]hook.Ask, error) {
		asks, err := earlier.Asks(payload, at)
		if err != nil {
			return nil, err
		}
		more, err := later.Asks(payload, at)
		return append(asks, more...), err
	}}
}

func (f *Follower) measure() {
	if f.deps.Meter == nil {
		return
	}
	// A gauge that can't be made is missing from the metrics, which is seen there.
	_, _ = f.deps.Meter.Meter("probity/workflows").Float64ObservableGauge("probity.follower.lag",
		metric.WithUnit("s"), metric.WithDescription("How long the oldest fact has waited that no workflow was started or told for yet."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(f.Lag().Seconds(), metric.WithAttributes(attribute.String("log", f.deps.Log)))
			return nil
		}))
}

// Lag is how long the oldest fact has waited that the follower knows of and
// has not acted on; while it is cut off from the log, how long that has lasted.
func (f *Follower) Lag() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.behind.IsZero() {
		return 0
	}
	return max(0, f.deps.Now().Sub(f.behind))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Ready returns nil when everything the log held at the start has been
// started and nothing is being waited for, else what it waits for.
func (f *Follower) Ready() error {
	lag := f.Lag().Round(time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.trouble != "":
		return fmt.Errorf("follower: %s; behind for %v", f.trouble, lag)
	case !f.caughtUp:
		return fmt.Errorf("follower: catching up with the log %s; behind for %v", f.deps.Log, lag)
	}
	return nil
}

// Run follows until ctx ends and returns ctx's error.
func (f *Follower) Run(ctx context.Context) error {
	f.fallBehind(f.deps.Now())
	f.insist(ctx, "the cursor can't be read", func() error {
		next, err := f.deps.Cursor.Load(ctx)
		f.next = maps.Clone(next)
		return err
	})
	if f.next == nil {
		f.next = map[uint32]uint64{}
	}
	f.deferred = map[string]hook.Start{}
	for wait := firstPause; ctx.Err() == nil; {
		progressed, err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if progressed {
			wait = firstPause
		}
		// Nothing presses while nothing comes.
		for len(f.patient.held) > 0 && f.startHeld(ctx, min(len(f.patient.held), parallel)) == nil {
		}
		f.note("the log " + f.deps.Log + " can't be followed now")
		f.fallBehind(f.deps.Now())
		f.deps.Logger.WarnContext(ctx, "following a log was interrupted; trying again", "log", f.deps.Log, "error", err, "pause", wait)
		f.deps.Pause(ctx, wait)
		wait = min(2*wait, longPause)
	}
	return ctx.Err()
}

// follow holds one subscription until it breaks.
func (f *Follower) follow(ctx context.Context) (progressed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &ledgerv1.SubscribeRequest{Log: f.deps.Log, Types: f.types}
	for _, shard := range slices.Sorted(maps.Keys(f.next)) {
		request.From = append(request.From, &ledgerv1.ShardIndex{Shard: shard, Index: f.next[shard]})
	}
	stream, err := f.deps.Ledger.Subscribe(ctx, request)
	if err != nil {
		return false, err
	}
	batches, ended := make(chan *ledgerv1.SubscribeResponse), make(chan error, 1)
	go func() {
		defer func() { _ = stream.Close() }()
		for stream.Receive() {
			select {
			case batches <- stream.Msg():
			case <-ctx.Done():
				return
			}
		}
		ended <- cmp.Or(stream.Err(), io.EOF)
	}()
	for {
		select {
		case batch := <-batches:
			if err := f.take(ctx, batch); err != nil {
				return progressed, err
			}
			progressed = true
		case <-f.patient.turn(f.deps.Now()):
		case err := <-ended:
			return progressed, err
		case <-ctx.Done():
			return progressed, ctx.Err()
		}
		if err := f.startPatient(ctx); err != nil {
			return progressed, err
		}
	}
}

// take handles one batch whole: it returns only when every workflow the batch
// asks for is started or held back, so next may move.
func (f *Follower) take(ctx context.Context, batch *ledgerv1.SubscribeResponse) error {
	f.patient.pass(f.deps.Now(), len(batch.GetEvents()))
	for _, e := range batch.GetEvents() {
		f.fallBehind(e.GetRecordedTime().AsTime())
		if err := f.event(ctx, e); err != nil {
			f.starts = nil // the batch comes again
			return err
		}
	}
	f.flush(ctx)
	for _, n := range batch.GetNext() {
		f.next[n.GetShard()] = n.GetIndex()
	}
	if f.deferred != nil && (batch.GetCaughtUp() || len(f.deferred) > maxDeferred) {
		f.startDeferred()
		f.flush(ctx)
		if batch.GetCaughtUp() {
			f.deferred = nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	f.trouble = ""
	f.caughtUp = f.caughtUp || batch.GetCaughtUp()
	if batch.GetCaughtUp() {
		f.behind = f.patient.oldest()
	} else if n := len(batch.GetEvents()); n > 0 && f.deferred == nil {
		f.behind = batch.GetEvents()[n-1].GetRecordedTime().AsTime()
	}
	f.mu.Unlock()
	f.save(ctx)
	return nil
}

// save stores the cursor now and then. While something is held back the
// stored cursor must stay before it.
func (f *Follower) save(ctx context.Context) {
	now := f.deps.Now()
	if f.deferred != nil || now.Sub(f.saved) < saveEvery {
		return
	}
	if err := f.deps.Cursor.Save(ctx, f.patient.before(f.next)); err != nil {
		// A stale cursor costs time at the next start, nothing else.
		f.deps.Logger.WarnContext(ctx, "the follower's cursor could not be stored", "error", err)
	}
	f.saved = now
}

// fallBehind notes that a fact of that time is not acted on yet.
func (f *Follower) fallBehind(since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.behind.IsZero() || since.Before(f.behind) {
		f.behind = since
	}
}

// event stops the follower at one it can't read: to skip it would be to lose
// what it asks for. Ready says so until a build that can read it runs.
func (f *Follower) event(ctx context.Context, e *ledgerv1.RecordedEvent) error {
	fact, known := f.facts[e.GetEvent().GetType()]
	if !known {
		return nil
	}
	asks, err := fact.Asks(e.GetEvent().GetPayload(), hook.Place{Stream: e.GetStream(), Revision: e.GetRevision()})
	if err != nil {
		p := e.GetPosition()
		return fmt.Errorf("event at %s/%d/%d: %w", p.GetLog(), p.GetShard(), p.GetIndex(), err)
	}
	for _, ask := range asks {
		switch ask := ask.(type) {
		case hook.Start:
			if f.deferred != nil || !f.patient.hold(f.deps.Now(), ask, e) {
				f.start(ask, e.GetTraceparent())
			}
		case hook.Tell:
			f.tell(ctx, ask)
		}
	}
	return nil
}

// start queues a start, or holds it back while catching up. The workflow
// continues the trace of the request that wrote the fact; what was held back
// begins its own.
func (f *Follower) start(s hook.Start, traceparent string) {
	if f.deferred != nil {
		f.deferred[s.ID] = s
		return
	}
	f.starts = append(f.starts, func(ctx context.Context) {
		ctx = telemetry.Continue(ctx, traceparent)
		f.insist(ctx, "Temporal can't start a workflow of type "+s.Type, func() error { return f.deps.Starter.Start(ctx, s) })
	})
}

// tell signals a workflow that may be there. One whose start is held back has
// read nothing yet, and will read what it would be told.
func (f *Follower) tell(ctx context.Context, t hook.Tell) {
	if _, held := f.deferred[t.ID]; held {
		if t.Ends {
			delete(f.deferred, t.ID)
		}
		return
	}
	if t.Signal == "" {
		return
	}
	if held, ok := f.patient.take(t.ID); ok {
		f.start(held.start, held.traceparent)
	}
	f.flush(ctx) // its workflow may be among those about to start
	f.insist(ctx, "Temporal can't signal a workflow", func() error { return f.deps.Starter.Tell(ctx, t) })
}

func (f *Follower) startDeferred() {
	held := f.deferred
	f.deps.Logger.Info("starting what the log left open", "log", f.deps.Log, "workflows", len(held))
	f.deferred = nil
	for _, id := range slices.Sorted(maps.Keys(held)) {
		s := held[id]
		if s.Late != nil {
			s.Input, s.Idle = s.Late, time.Time{} // it must look how things stand
		}
		f.start(s, "")
	}
	clear(held)
	f.deferred = held
}

// flush starts what was asked for and returns when all of it is started.
func (f *Follower) flush(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, start := range f.starts {
		g.Go(func() error {
			start(ctx)
			return nil
		})
	}
	_ = g.Wait() // the functions insist instead of failing
	f.starts = nil
}

// insist repeats do until it succeeds or ctx ends. The callers check ctx
// before the cursor moves, so giving up for ctx's sake loses nothing.
func (f *Follower) insist(ctx context.Context, trouble string, do func() error) {
	for wait := firstPause; ctx.Err() == nil; wait = min(2*wait, longPause) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		f.note(trouble)
		f.deps.Logger.WarnContext(ctx, trouble+"; trying again", "error", err, "pause", wait)
		f.deps.Pause(ctx, wait)
	}
}

func (f *Follower) note(trouble string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble = trouble
}
