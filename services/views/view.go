package views

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// Projection turns events into commands. Apply appends those of an event to
// ops, which are not its own to look at. It is pure: the same event always
// gives the same commands, whatever the store holds; what needs a running total
// uses HIncr or Incr. An error, or a panic, parks the commit.
type Projection struct {
	// Name of the view, 1 to 32 of a-z.
	Name string
	// Version rises with every change of what Apply yields; from 1.
	Version uint32
	// Log that it follows, and the event types that it wants (empty is all).
	Log   string
	Types []string
	Apply func(ops []Op, r eventstore.Recorded) ([]Op, error)
}

var nameForm = regexp.MustCompile(`^[a-z]{1,32}$`)

// Options configure a View; the zero value is usable.
type Options struct {
	// MaxWait bounds how long a read waits for its token; 0 is 5 s.
	MaxWait time.Duration
	// Grace is how long a superseded version is kept for readers that still
	// look at it; 0 is 30 s.
	Grace time.Duration
	// Watch is how often a runner looks whether the store still holds what it
	// wrote, which it doesn't after a flush or a failover; 0 is 2 s.
	Watch time.Duration
	// Gather is how long a runner waits for more to write at once, when no
	// reader waits for it; 0 is 50 ms.
	Gather time.Duration
	// Now is the clock of the lag; nil is time.Now.
	Now func() time.Time
	// Logger is told of parked commits and rebuilds; nil is silence.
	Logger *slog.Logger
	// Tracer records that a view took a commit up, in the trace of the
	// request that wrote it; nil records nothing.
	Tracer trace.TracerProvider
}

// View is a projection's tables: read by anyone, written by its Runner.
type View struct {
	store      Store
	projection Projection
	o          Options
	hurry      chan struct{} // holds a token while a reader waits for what a runner may be gathering

	mu sync.Mutex // guards everything below
	// shards of the log, once known: they never change.
	shards []uint32
	// seen is the highest offset of a build known here; it spares reads of
	// one's own writes the way to the store.
	seen map[Build]uint64
	// moved is closed and replaced whenever seen grows.
	moved chan struct{}
}

// Open makes a View; it doesn't talk to the store yet.
func Open(store Store, p Projection, o Options) (*View, error) {
	if !nameForm.MatchString(p.Name) || !nameForm.MatchString(p.Log) || p.Version == 0 || p.Apply == nil {
		return nil, fmt.Errorf("views: projection %q needs a name and a log of a-z, a version from 1 and an Apply", p.Name)
	}
	o.MaxWait = orDefault(o.MaxWait, 5*time.Second)
	o.Grace = orDefault(o.Grace, 30*time.Second)
	o.Watch = orDefault(o.Watch, 2*time.Second)
	o.Gather = orDefault(o.Gather, 50*time.Millisecond)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &View{
		store: store, projection: p, o: o, hurry: make(chan struct{}, 1), seen: map[Build]uint64{}, moved: make(chan struct{}),
	}, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// knownShards are the log's shards, in order; none until a runner has met them.
func (v *View) knownShards(ctx context.Context) ([]uint32, error) {
	v.mu.Lock()
	known := v.shards
	v.mu.Unlock()
	if known != nil {
		return known, nil
	}
	return v.store.Shards(ctx, v.projection.Name)
}

// builds returns the live build of each shard, whose version is 0 where none
// is, in the current generation.
func (v *View) builds(ctx context.Context, shards []uint32) ([]Build, error) {
	heads, err := v.store.Heads(ctx, v.projection.Name, shards)
	if err != nil {
		return nil, err
	}
	out := make([]Build, len(shards))
	for i, shard := range shards {
		out[i] = Build{View: v.projection.Name, Shard: shard, Version: heads[i].Live, Generation: heads[i].Generation}
	}
	return out, nil
}

// note remembers a build's offset and wakes those who wait for it.
func (v *View) note(b Build, offset uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if offset > v.seen[b] {
		v.seen[b] = offset
		close(v.moved)
		v.moved = make(chan struct{})
	}
}

// forget drops what note remembered: the store has lost it.
func (v *View) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen = map[Build]uint64{}
}

// At returns a reading of the view that includes the token's commit, waiting
// for it at most Options.MaxWait. An empty token waits for nothing. A view
// that has not been built yet, and a token that doesn't come in time, are
// Unavailable.
func (v *View) At(ctx context.Context, token string) (*Reading, error) {
	ctx, cancel := context.WithTimeout(ctx, v.o.MaxWait)
	defer cancel()
	r, err := v.reading(ctx)
	if err != nil {
		return nil, err
	}
	if err := v.wait(ctx, r, token); err != nil {
		return nil, err
	}
	return r, nil
}

// WaitFor waits until the token's commit can be read, at most Options.MaxWait.
func (v *View) WaitFor(ctx context.Context, token string) error {
	_, err := v.At(ctx, token)
	return err
}

// reading finds the live build of each shard.
func (v *View) reading(ctx context.Context) (*Reading, error) {
	shards, err := v.knownShards(ctx)
	if err != nil {
		return nil, err
	}
	builds, err := v.builds(ctx, shards)
	if err != nil {
		return nil, err
	}
	if len(builds) == 0 || slices.ContainsFunc(builds, func(b Build) bool { return b.Version == 0 }) {
		return nil, building()
	}
	// A runner switches readers after it has met every shard, so these are all.
	v.mu.Lock()
	v.shards = shards
	v.mu.Unlock()
	return &Reading{view: v, builds: builds}, nil
}

func (v *View) wait(ctx context.Context, r *Reading, token string) error {
	want, ok, err := eventstore.ParseToken(token)
	if err != nil || !ok {
		return err
	}
	i := slices.IndexFunc(r.builds, func(b Build) bool { return b.Shard == want.Shard })
	if want.Log != v.projection.Log || i < 0 {
		return problem.Invalidf("views.token", "token", "the consistency token is of another log than these lists; pass the one that the write returned, or none")
	}
	b := r.builds[i]
	// Another process may be the one that projects, so waiting also looks.
	const first, longest = 2 * time.Millisecond, 50 * time.Millisecond
	for pause := first; ; pause = min(2*pause, longest) {
		v.mu.Lock()
		reached, moved := v.seen[b] > want.Index, v.moved
		v.mu.Unlock()
		if reached {
			return nil
		}
		stored, err := v.store.Offsets(ctx, b)
		if err != nil {
			return notYet(ctx, err)
		}
		if stored[0] > want.Index {
			v.note(b, stored[0])
			return nil
		}
		select {
		case v.hurry <- struct{}{}:
		default:
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return notYet(ctx, ctx.Err())
		case <-moved:
			timer.Stop()
		case <-timer.C:
		}
	}
}

const ruleBuilding = "views.building"

func building() error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  ruleBuilding,
		Message: "the lists are being built from the ledger",
		Fix:     "ask again in a moment; claims are still accepted and decided",
	})
}

// isBuilding tells an unbuilt view from a store that is away.
func isBuilding(err error) bool {
	return err != nil && problem.As(err).Problems[0].RuleID == ruleBuilding
}

func notYet(ctx context.Context, cause error) error {
	if ctx.Err() == nil {
		return cause
	}
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:    "views.behind",
		FieldPath: "token",
		Message:   "what the token names is recorded, but the lists don't show it yet",
		Fix:       "ask again in a moment, or without the token for what is there",
	}).Because(cause)
}

// Ready tells whether the view can be read: nil once every shard has a live version.
func (v *View) Ready(ctx context.Context) error {
	_, err := v.reading(ctx)
	return err
}

// ParkedCommit is one that the projection could not apply.
type ParkedCommit struct {
	Position eventstore.Position
	Reason   string // a class, not a text: an error's text might quote
}

// Parked lists the commits parked in this version, in order. They are applied
// by the next version, once Apply can.
func (v *View) Parked(ctx context.Context) ([]ParkedCommit, error) {
	shards, err := v.knownShards(ctx)
	if err != nil {
		return nil, err
	}
	builds, err := v.builds(ctx, shards)
	if err != nil {
		return nil, err
	}
	var out []ParkedCommit
	for _, b := range builds {
		b.Version = v.projection.Version
		all, err := v.store.Parked(ctx, b)
		if err != nil {
			return nil, err
		}
		for _, index := range slices.Sorted(maps.Keys(all)) {
			out = append(out, ParkedCommit{Position: eventstore.Position{Log: v.projection.Log, Shard: b.Shard, Index: index}, Reason: all[index]})
		}
	}
	return out, nil
}

// DropAll deletes everything that the view's tables hold, every version of
// them. A runner that is running notices and builds its own again; until then
// reads are Unavailable.
func (v *View) DropAll(ctx context.Context) error {
	shards, err := v.knownShards(ctx)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		// First nobody reads it or writes to it, then it goes.
		generation, err := v.store.Renew(ctx, v.projection.Name, shard)
		if err != nil {
			return err
		}
		if err := v.store.Drop(ctx, v.projection.Name, shard, func(b Build) bool { return b.Generation < generation }); err != nil {
			return err
		}
	}
	v.forget()
	return nil
}
