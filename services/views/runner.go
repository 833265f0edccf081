package views

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/telemetry"
)

const (
	// applyOps bounds what is applied at once: Redis serves nobody else meanwhile.
	applyOps      = 2000
	firstBackoff  = 50 * time.Millisecond
	longestWait   = 5 * time.Second
	parkedUnknown = "event can't be read by this build"
)

// Runner keeps a View up with its log. Several runners of one view may run at
// once, in one process or many: the store lets each commit in once.
type Runner struct {
	view   *View
	store  eventstore.Store
	tagged metric.MeasurementOption

	commits metric.Int64Counter
	parked  metric.Int64Counter

	mu     sync.Mutex // guards status
	status Status

	// What changes makes, used again by each batch; the writing goroutine's alone.
	ops  []Op
	made []Change
	from []int
}

// Status is how a runner is doing.
type Status struct {
	// CaughtUp: at the last look everything recorded had been applied.
	CaughtUp bool
	// LastApplied is when the newest applied event was recorded; zero before the first.
	LastApplied time.Time
	// Parked commits met by this runner.
	Parked int
	// Restarts of following, after the store or the ledger was away or had lost something.
	Restarts int
}

// NewRunner makes the runner of a view; meter nil measures nothing.
//
// Metrics: probity_view_commits (applied), probity_view_parked (commits parked:
// alarm on any) and probity_view_lag_seconds (age of the newest applied event
// while behind; 0 when caught up).
func NewRunner(v *View, store eventstore.Store, meter metric.Meter) (*Runner, error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	r := &Runner{view: v, store: store, tagged: metric.WithAttributes(attribute.String("view", v.projection.Name))}
	var errs [3]error
	r.commits, errs[0] = meter.Int64Counter("probity_view_commits", metric.WithDescription("Commits applied to a view."))
	r.parked, errs[1] = meter.Int64Counter("probity_view_parked", metric.WithDescription("Commits that a view could not apply and parked."))
	_, errs[2] = meter.Float64ObservableGauge("probity_view_lag_seconds",
		metric.WithDescription("Age of the newest event applied while the view is behind; 0 when it has caught up."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(r.Lag().Seconds(), r.tagged)
			return nil
		}))
	return r, errors.Join(errs[:]...)
}

// Status returns how it is doing.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Lag is how old the newest applied event is while the view is behind, and 0
// when it has caught up.
func (r *Runner) Lag() time.Duration {
	s := r.Status()
	if s.CaughtUp || s.LastApplied.IsZero() {
		return 0
	}
	return max(0, r.view.o.Now().Sub(s.LastApplied))
}

func (r *Runner) update(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// What ends one round of following, other than the ledger's own errors.
var (
	// errGap: the store holds less than this runner has written.
	errGap = errors.New("views: what is stored ends before this batch")
	// errSuperseded: a newer version is live and this one has been deleted.
	errSuperseded = errors.New("views: a newer version of the projection is live")
)

// Run follows the log until ctx ends, and then returns its error. While the
// store or the ledger is away it waits and goes on. Any other error is one that
// waiting doesn't mend: the ledger contradicts itself, or refuses this service.
func (r *Runner) Run(ctx context.Context) error {
	v, log := r.view, r.view.o.Logger.With("view", r.view.projection.Name, "version", r.view.projection.Version)
	for failures := 0; ; {
		progressed, err := r.round(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failures++; progressed {
			failures = 1
		}
		r.update(func(s *Status) { s.CaughtUp = false; s.Restarts++ })
		unreadable, isUnreadable := errors.AsType[*eventstore.DecodeError](err)
		switch {
		case isUnreadable:
			if err := r.parkUnreadable(ctx, unreadable); err != nil {
				log.WarnContext(ctx, "parking failed; trying again", "error", err)
			} else {
				continue
			}
		case errors.Is(err, errGap):
			v.forget()
			log.WarnContext(ctx, "the store lost part of the view; building it again from what is there")
		case errors.Is(err, errSuperseded):
			log.InfoContext(ctx, "a newer version of the view is live; this one is no longer kept up")
			<-ctx.Done()
			return ctx.Err()
		case problem.As(err).Retryable():
			log.WarnContext(ctx, "the view has to wait", "error", err, "failures", failures)
		default:
			return err
		}
		wait := min(firstBackoff<<min(failures-1, 10), longestWait)
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// round follows once from what the store holds, until something ends it.
func (r *Runner) round(ctx context.Context) (progressed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	p, err := r.resume(ctx)
	if err != nil {
		cancel(nil)
		return false, err
	}
	p.background.Go(func() { r.watch(ctx, p, cancel) })
	// Nothing of this round outlives it.
	defer p.background.Wait()
	defer cancel(nil)

	batches, written := make(chan eventstore.Batch), make(chan struct{})
	var failed error
	go func() {
		defer close(written)
		if progressed, failed = r.write(ctx, p, batches); failed != nil {
			cancel(failed)
		}
	}()
	err = r.store.Follow(ctx, r.view.projection.Log, maps.Clone(p.next), r.view.projection.Types, func(ctx context.Context, b eventstore.Batch) error {
		select {
		case batches <- b:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	// What was followed before following ended is written all the same.
	close(batches)
	<-written
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return progressed, cause
	}
	return progressed, err
}

// progress is how far one round has come.
type progress struct {
	background sync.WaitGroup
	generation map[uint32]uint64 // by shard; absent is 0; fixed for the round

	mu   sync.Mutex        // guards next and live
	next map[uint32]uint64 // by shard; the follower writes it, the watcher reads it
	live bool              // readers use what this round builds
}

// resume reads where the view stands.
func (r *Runner) resume(ctx context.Context) (*progress, error) {
	shards, err := r.view.knownShards(ctx)
	if err != nil {
		return nil, err
	}
	builds, err := r.view.builds(ctx, shards)
	if err != nil {
		return nil, err
	}
	newer := false
	for i := range builds {
		newer = newer || builds[i].Version > r.view.projection.Version
		builds[i].Version = r.view.projection.Version
	}
	stored, err := r.view.store.Offsets(ctx, builds...)
	if err != nil {
		return nil, err
	}
	// What a newer version has deleted, or would soon, isn't built again.
	if newer && slices.Max(stored) == 0 {
		return nil, errSuperseded
	}
	p := &progress{generation: map[uint32]uint64{}, next: map[uint32]uint64{}}
	for i, b := range builds {
		p.generation[b.Shard], p.next[b.Shard] = b.Generation, stored[i]
	}
	return p, nil
}

func (p *progress) at(shard uint32) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next[shard]
}

func (p *progress) reach(shard uint32, next uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[shard] = next
}

func (p *progress) isLive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}

func (p *progress) setLive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = true
}

// build is what the round writes for a shard.
func (r *Runner) build(p *progress, shard uint32) Build {
	return Build{View: r.view.projection.Name, Shard: shard, Version: r.view.projection.Version, Generation: p.generation[shard]}
}

// watch ends the round when the store holds less than was written to it: after a
// flush, a failover or DropAll nothing else would say so until the next event.
func (r *Runner) watch(ctx context.Context, p *progress, end context.CancelCauseFunc) {
	tick := time.NewTicker(r.view.o.Watch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		believed, live := maps.Clone(p.next), p.live
		p.mu.Unlock()
		for shard, next := range believed {
			stored, err := r.view.store.Offsets(ctx, r.build(p, shard))
			if err == nil && stored[0] < next {
				end(errGap)
				return
			}
		}
		// A shard without events has no offset to miss, but it has been switched to.
		if err := r.view.Ready(ctx); live && isBuilding(err) {
			end(errGap)
			return
		}
	}
}

// batch applies a batch, shard by shard.
func (r *Runner) batch(ctx context.Context, p *progress, b eventstore.Batch) error {
	if err := r.meet(ctx, b); err != nil {
		return err
	}
	byShard := map[uint32][]eventstore.Recorded{}
	newest := time.Time{}
	for _, e := range b.Events {
		byShard[e.Position.Shard] = append(byShard[e.Position.Shard], e)
		if e.RecordedTime.After(newest) {
			newest = e.RecordedTime
		}
	}
	for shard, next := range b.Next {
		taken := r.trace(ctx, byShard[shard])
		err := r.advance(ctx, p, shard, next, r.changes(ctx, byShard[shard]))
		taken()
		if err != nil {
			return err
		}
	}
	if b.CaughtUp && !p.isLive() {
		if err := r.goLive(ctx, p, b); err != nil {
			return err
		}
	}
	for shard := range b.Next {
		r.view.note(r.build(p, shard), p.at(shard))
	}
	r.update(func(s *Status) {
		s.CaughtUp = b.CaughtUp
		if newest.After(s.LastApplied) {
			s.LastApplied = newest
		}
	})
	return nil
}

// trace begins a span in each sampled trace that wrote one of the events; the
// function returned ends them.
func (r *Runner) trace(ctx context.Context, events []eventstore.Recorded) (end func()) {
	if r.view.o.Tracer == nil {
		return func() {}
	}
	tracer := r.view.o.Tracer.Tracer("probity/views")
	begun := map[string]trace.Span{}
	for _, e := range events {
		if !telemetry.Sampled(e.Traceparent) {
			continue
		}
		if _, twice := begun[e.Traceparent]; twice {
			continue
		}
		parent := telemetry.Continue(ctx, e.Traceparent)
		if !trace.SpanContextFromContext(parent).IsSampled() {
			continue
		}
		_, begun[e.Traceparent] = tracer.Start(parent, "view "+r.view.projection.Name, trace.WithSpanKind(trace.SpanKindConsumer))
	}
	return func() {
		for _, span := range begun {
			span.End()
		}
	}
}

// meet records the log's shards where readers find them. A batch names all of
// them, and their number never changes.
func (r *Runner) meet(ctx context.Context, b eventstore.Batch) error {
	v := r.view
	v.mu.Lock()
	met := len(v.shards) >= len(b.Next)
	v.mu.Unlock()
	if met || len(b.Next) == 0 {
		return nil
	}
	return r.recordShards(ctx, b)
}

func (r *Runner) recordShards(ctx context.Context, b eventstore.Batch) error {
	shards := slices.Sorted(maps.Keys(b.Next))
	if err := r.view.store.AddShards(ctx, r.view.projection.Name, shards); err != nil {
		return err
	}
	r.view.mu.Lock()
	r.view.shards = shards
	r.view.mu.Unlock()
	return nil
}

// changes asks the projection, commit by commit. What it returns is good until
// the next call.
func (r *Runner) changes(ctx context.Context, events []eventstore.Recorded) []Change {
	clear(r.ops) // let go of the events before
	ops, out, from := r.ops[:0], r.made[:0], r.from[:0]
	for _, e := range events {
		if len(out) == 0 || out[len(out)-1].Index != e.Position.Index {
			out, from = append(out, Change{Index: e.Position.Index}), append(from, len(ops))
		}
		c, begun := &out[len(out)-1], from[len(from)-1]
		if c.Reason != "" {
			continue
		}
		with, err := r.applyEvent(ops, e)
		if err == nil && len(with)-begun > maxCommitOps {
			err = problem.Invalidf("views.ops", "", "a commit makes more than %d commands", maxCommitOps)
		}
		if err != nil {
			ops = ops[:begun]
			r.park(ctx, e.Position, c, "the projection refused "+eventstore.TypeOf(e.Event), err)
			continue
		}
		ops = with
	}
	for i := range out {
		end := len(ops)
		if i+1 < len(out) {
			end = from[i+1]
		}
		out[i].Ops = ops[from[i]:end:end]
	}
	r.ops, r.made, r.from = ops, out, from
	return out
}

// applyEvent calls the projection; its panic is an error like any other, so
// that one odd event doesn't take the service down again and again.
func (r *Runner) applyEvent(ops []Op, e eventstore.Recorded) (_ []Op, err error) {
	before := len(ops)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("views: the projection panicked (%T)", p)
		}
	}()
	ops, err = r.view.projection.Apply(ops, e)
	if err == nil && len(ops) < before {
		err = errors.New("views: the projection took commands of other events away")
	}
	for i := before; i < len(ops) && err == nil; i++ {
		err = ops[i].check()
	}
	return ops, err
}

// park turns a change into a mark, and raises the alarm.
func (r *Runner) park(ctx context.Context, at eventstore.Position, c *Change, reason string, cause error) {
	c.Ops, c.Reason = nil, reason
	r.parked.Add(ctx, 1, r.tagged)
	r.update(func(s *Status) { s.Parked++ })
	r.view.o.Logger.ErrorContext(ctx, "ALARM: a commit was parked; the view lacks it until a version that can apply it",
		"view", r.view.projection.Name, "log", at.Log, "shard", at.Shard, "index", at.Index, "reason", reason, "error", cause)
}

// advance applies a shard's changes, a bounded number at once, never parting a commit.
func (r *Runner) advance(ctx context.Context, p *progress, shard uint32, next uint64, changes []Change) error {
	for {
		n, ops := 0, 0
		for n < len(changes) && (n == 0 || ops+len(changes[n].Ops) <= applyOps) {
			ops += len(changes[n].Ops)
			n++
		}
		to := next
		if n < len(changes) {
			to = changes[n-1].Index + 1
		}
		if err := r.send(ctx, p, shard, to, changes[:n]); err != nil {
			return err
		}
		if changes = changes[n:]; len(changes) == 0 {
			return nil
		}
	}
}

func (r *Runner) send(ctx context.Context, p *progress, shard uint32, to uint64, changes []Change) error {
	from := p.at(shard)
	if to <= from {
		return nil
	}
	// Each clash parks one more commit, so this ends.
	for {
		answer, err := r.view.store.Apply(ctx, Batch{Build: r.build(p, shard), From: from, Next: to, Changes: changes})
		if err != nil {
			return err
		}
		switch answer.Verdict {
		case Done:
			p.reach(shard, to)
			r.commits.Add(ctx, int64(answer.Commits), r.tagged)
			return nil
		case Gap:
			return errGap
		case Superseded:
			return errSuperseded
		case Clash:
			i := slices.IndexFunc(changes, func(c Change) bool { return c.Index == answer.Index && c.Reason == "" })
			if i < 0 {
				return fmt.Errorf("views: the store names a commit that was not sent")
			}
			r.park(ctx, eventstore.Position{Log: r.view.projection.Log, Shard: shard, Index: answer.Index}, &changes[i],
				"a key holds another type than the projection takes it for", nil)
		default:
			return fmt.Errorf("views: the store answered with verdict %d", answer.Verdict)
		}
	}
}

// parkUnreadable parks the commit at which following stopped. Everything
// before it has been applied.
func (r *Runner) parkUnreadable(ctx context.Context, e *eventstore.DecodeError) error {
	// The next round resumes the shards that the store knows, so it must know this one.
	v := r.view
	if err := v.store.AddShards(ctx, v.projection.Name, []uint32{e.Position.Shard}); err != nil {
		return err
	}
	v.mu.Lock()
	if !slices.Contains(v.shards, e.Position.Shard) {
		v.shards = nil
	}
	v.mu.Unlock()
	p, err := r.resume(ctx)
	if err != nil {
		return err
	}
	c := Change{Index: e.Position.Index}
	r.park(ctx, e.Position, &c, parkedUnknown, e)
	return r.send(ctx, p, e.Position.Shard, e.Position.Index+1, []Change{c})
}

// goLive switches readers to this version and lets the ones before go. Where
// a newer version is live already, this one is kept up for as long as it exists.
func (r *Runner) goLive(ctx context.Context, p *progress, b eventstore.Batch) error {
	v := r.view
	// After a flush the shards have to be recorded again as well.
	if err := r.recordShards(ctx, b); err != nil {
		return err
	}
	for shard := range b.Next {
		live, same, err := v.store.GoLive(ctx, r.build(p, shard))
		switch {
		case err != nil:
			return err
		case !same:
			return errGap
		case live > v.projection.Version:
			return nil
		}
	}
	p.setLive()
	v.o.Logger.InfoContext(ctx, "the view has caught up and is live", "view", v.projection.Name, "version", v.projection.Version)
	p.background.Go(func() { r.dropOld(ctx, p, slices.Collect(maps.Keys(b.Next))) })
	return nil
}

// dropOld deletes earlier versions, and what an interrupted DropAll left, after
// the grace; when the round ends first, the next one does.
func (r *Runner) dropOld(ctx context.Context, p *progress, shards []uint32) {
	v := r.view
	timer := time.NewTimer(v.o.Grace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	for _, shard := range shards {
		own := r.build(p, shard)
		err := v.store.Drop(ctx, own.View, shard, func(b Build) bool { return b.Version < own.Version || b.Generation < own.Generation })
		if err != nil && ctx.Err() == nil {
			v.o.Logger.WarnContext(ctx, "deleting old versions of the view failed; the next start tries again", "view", v.projection.Name, "error", err)
			return
		}
	}
}
