// Package viewstest says what views must do on a store, whichever it is.
package viewstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
)

// patience bounds how long a test waits for what must come.
const patience = 30 * time.Second

// Subject is a store to test.
type Subject struct {
	// Open returns the store as one more process would have it.
	Open func() views.Store
	// Flush makes the store lose everything.
	Flush func() error
}

// Run runs the suite. open gives an empty store for one test.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"events become answers", answers},
		{"a reader waits for its token, but not for ever", tokens},
		{"what comes together is written together, and no reader waits for that", gathered},
		{"a crash between applying and acknowledging applies once", crash},
		{"two runners at once apply once", twoRunners},
		{"a dropped view is built again and answers the same", dropAll},
		{"an audit names what no commit says", audited},
		{"a flushed store is built again and answers the same", flushed},
		{"a new version is built beside the live one", newVersion},
		{"a superseded runner does no harm", superseded},
		{"what can't be applied is parked, and alarmed", poison},
		{"what can't be read is parked, and the rest goes on", unreadable},
		{"a store that is away is waited for", away},
		{"pages over all shards equal a naive sort", pages},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			t.Cleanup(cancel)
			subject := open(t)
			c.test(t, &world{ctx: ctx, open: subject.Open, flush: subject.Flush, store: eventstore.NewMemory(eventstore.MemoryOptions{}), tokens: map[uint32]string{}, options: quick})
		})
	}
}

// world is a ledger and a store of views.
type world struct {
	ctx      context.Context
	open     func() views.Store
	flush    func() error
	store    *eventstore.Memory
	appended int
	// tokens are the newest commit's of each shard: together they name everything.
	tokens map[uint32]string
	// options of the runners that start from now on.
	options views.Options
}

// append records n events of 97 subjects in turn.
func (w *world) append(t *testing.T, n int) {
	t.Helper()
	for range n {
		subject := fmt.Sprintf("sub_%d", w.appended%97)
		reason := []string{"erasure", "retention", "file-processed"}[w.appended%3]
		w.record(t, subject, &eventsv1.SubjectKeyDestroyed{Subject: subject, Reason: reason, DestroyedTime: &timestamppb.Timestamp{Seconds: int64(w.appended)}})
	}
}

func (w *world) record(t *testing.T, key string, events ...proto.Message) string {
	t.Helper()
	w.appended++
	a, err := w.store.Append(w.ctx, eventstore.Commit{Log: "consent", RoutingKey: key, RequestID: fmt.Sprintf("req-%d", w.appended),
		Writes: []eventstore.Write{{Stream: "subject-" + key, Expected: eventstore.Any, Events: events}}})
	require.NoError(t, err)
	w.tokens[a.Position.Shard] = a.Token
	return a.Token
}

// projection counts erasures by reason, lists subjects by time and keeps the last of each.
func projection(version uint32) views.Projection {
	return views.Projection{Name: "erasures", Version: version, Log: "consent", Apply: func(ops []views.Op, r eventstore.Recorded) ([]views.Op, error) {
		e, ok := r.Event.(*eventsv1.SubjectKeyDestroyed)
		if !ok {
			return ops, nil
		}
		seconds := e.GetDestroyedTime().GetSeconds()
		return append(ops,
			views.HSet("subject:"+e.GetSubject(), "reason", e.GetReason(), "seconds", fmt.Sprint(seconds), "version", fmt.Sprint(version)),
			views.HIncr("totals", e.GetReason(), 1),
			views.HIncr("totals", "seconds", seconds),
			views.ZAdd("by-time", seconds, e.GetSubject()),
			views.SAdd("subjects", e.GetSubject()),
			views.SRem("subjects", "nobody"), views.ZRem("by-time", "nobody"), views.HDel("totals", "nothing"),
			views.Set("last", e.GetSubject()), views.Incr("count", 1), views.Del("scratch"),
		), nil
	}}
}

// runner is one that is running.
type runner struct {
	*views.Runner
	view *views.View
	log  *journal
	stop func() error
}

// journal keeps what was logged.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

var quick = views.Options{MaxWait: 10 * time.Second, Watch: 20 * time.Millisecond, Grace: 10 * time.Millisecond}

func (w *world) start(t *testing.T, p views.Projection, tables views.Store, store eventstore.Store) *runner {
	t.Helper()
	log := &journal{}
	o := w.options
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	v, err := views.Open(tables, p, o)
	require.NoError(t, err)
	r, err := views.NewRunner(v, store, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { require.ErrorIs(t, stop(), context.Canceled, "a runner ends only because it was told") })
	return &runner{Runner: r, view: v, log: log, stop: stop}
}

// dump is everything that a reading of the view answers.
type dump struct {
	Totals   map[string]int64
	Subjects []string
	ByTime   []views.Member
	Count    int64
	Hashes   map[string]string
}

// dumped waits until the view has everything recorded, and reads it.
func (w *world) dumped(t *testing.T, v *views.View) dump {
	t.Helper()
	r := w.at(t, v)
	var d dump
	var err error
	d.Totals, err = r.Sum(w.ctx, "totals")
	require.NoError(t, err)
	d.Subjects, err = r.Members(w.ctx, "subjects")
	require.NoError(t, err)
	d.ByTime, err = r.Range(w.ctx, "by-time", views.Page{Limit: 1000})
	require.NoError(t, err)
	d.Count, err = r.Count(w.ctx, "by-time")
	require.NoError(t, err)
	d.Hashes = map[string]string{}
	for _, s := range d.Subjects {
		_, h, err := r.Find(w.ctx, "subject:"+s)
		require.NoError(t, err)
		d.Hashes[s] = h["reason"] + h["seconds"]
	}
	return d
}

// at reads once the view has everything recorded, however often it is rebuilt meanwhile.
func (w *world) at(t *testing.T, v *views.View) *views.Reading {
	t.Helper()
	for {
		var errs []error
		for _, token := range w.tokens {
			errs = append(errs, v.WaitFor(w.ctx, token))
		}
		r, err := v.At(w.ctx, "")
		if err = errors.Join(append(errs, err)...); err == nil {
			return r
		}
		require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
		w.breathe(t)
	}
}

func (w *world) breathe(t *testing.T) {
	t.Helper()
	select {
	case <-w.ctx.Done():
		t.Fatal("waited in vain")
	case <-time.After(5 * time.Millisecond):
	}
}

// expected is what the events appended by append imply.
func (w *world) expected() dump {
	d := dump{Totals: map[string]int64{}, Hashes: map[string]string{}}
	last := map[string]int64{}
	for n := range w.appended {
		subject, reason := fmt.Sprintf("sub_%d", n%97), []string{"erasure", "retention", "file-processed"}[n%3]
		d.Totals[reason]++
		d.Totals["seconds"] += int64(n)
		last[subject] = int64(n)
		d.Hashes[subject] = reason + fmt.Sprint(n)
	}
	for s, n := range last {
		d.Subjects = append(d.Subjects, s)
		d.ByTime = append(d.ByTime, views.Member{Name: s, Score: n})
	}
	d.Count = int64(len(last))
	slices.Sort(d.Subjects)
	slices.SortFunc(d.ByTime, func(a, b views.Member) int { return int(a.Score - b.Score) })
	return d
}

// same compares but for the shards, which the ledger chooses.
func same(t *testing.T, want, got dump) {
	t.Helper()
	got.ByTime = slices.Clone(got.ByTime)
	want.ByTime = slices.Clone(want.ByTime)
	for i := range got.ByTime {
		got.ByTime[i].Shard = 0
	}
	for i := range want.ByTime {
		want.ByTime[i].Shard = 0
	}
	require.Equal(t, want, got)
}

func answers(t *testing.T, w *world) {
	v, err := views.Open(w.open(), projection(1), quick)
	require.NoError(t, err)
	require.True(t, problem.Is(v.Ready(w.ctx), problem.Unavailable), "before a runner has built it")

	w.append(t, 300)
	r := w.start(t, projection(1), w.open(), w.store)
	same(t, w.expected(), w.dumped(t, r.view))
	for range 20 {
		w.append(t, 10)
		same(t, w.expected(), w.dumped(t, v))
	}
	require.NoError(t, v.Ready(w.ctx))
	require.Zero(t, r.Lag())
	require.Zero(t, r.Status().Parked)

	reading := w.at(t, v)
	_, h, err := reading.Find(w.ctx, "subject:nobody")
	require.NoError(t, err)
	require.Nil(t, h)
	hashes, err := reading.Hashes(w.ctx)
	require.NoError(t, err)
	require.Empty(t, hashes)

	// Single fields are what the whole hash says, and nil where it says nothing.
	ref, h, err := reading.Find(w.ctx, "subject:sub_0")
	require.NoError(t, err)
	require.NotEmpty(t, h)
	names := slices.Sorted(maps.Keys(h))
	values, err := reading.Fields(w.ctx, views.Look{Ref: ref, Fields: append(names, "no such field")}, views.Look{Ref: views.Ref{Shard: ref.Shard, Key: "subject:nobody"}, Fields: names[:1]})
	require.NoError(t, err)
	require.Len(t, values, 2)
	for i, name := range names {
		require.Equal(t, h[name], *values[0][i])
	}
	require.Nil(t, values[0][len(names)])
	require.Equal(t, []*string{nil}, values[1])
	values, err = reading.Fields(w.ctx)
	require.NoError(t, err)
	require.Empty(t, values)

	// A runner that starts again goes on where the last one stopped.
	require.ErrorIs(t, r.stop(), context.Canceled)
	w.append(t, 50)
	again := w.start(t, projection(1), w.open(), w.store)
	same(t, w.expected(), w.dumped(t, again.view))
}

func tokens(t *testing.T, w *world) {
	token := w.record(t, "sub_0", &eventsv1.SubjectKeyDestroyed{Subject: "sub_0"})
	r := w.start(t, projection(1), w.open(), w.store)
	w.at(t, r.view)
	short, err := views.Open(w.open(), projection(1), views.Options{MaxWait: 50 * time.Millisecond})
	require.NoError(t, err)
	p, _, err := eventstore.ParseToken(token)
	require.NoError(t, err)
	p.Index += 1000
	err = short.WaitFor(w.ctx, p.Token())
	require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
	require.NoError(t, short.WaitFor(w.ctx, ""))
	for _, bad := range []string{"v1:claims/0/0", "v1:consent/99/0", "nonsense"} {
		err := short.WaitFor(w.ctx, bad)
		require.True(t, problem.Is(err, problem.Invalid), "%s: %v", bad, err)
	}

	// A reader that waits is woken by what it waits for.
	p.Index -= 1000 - 1
	got := make(chan error, 1)
	go func() { got <- r.view.WaitFor(w.ctx, p.Token()) }()
	w.record(t, "sub_0", &eventsv1.SubjectKeyDestroyed{Subject: "sub_0"})
	require.NoError(t, <-got)
}

func gathered(t *testing.T, w *world) {
	// Given a runner that would wait for an hour for more to write at once.
	w.options.Gather = time.Hour
	counted := &lossy{Store: w.open(), n: 1 << 40}
	r := w.start(t, projection(1), counted, w.store)
	w.append(t, 1)
	w.at(t, r.view)
	before := counted.seen.Load()

	// When much is recorded, commit by commit, and then somebody reads.
	for range 300 {
		w.append(t, 1)
	}
	same(t, w.expected(), w.dumped(t, r.view))

	// Then the reader has it at once, and few batches have written it.
	require.Less(t, counted.seen.Load()-before, int64(100))

	// And again: what was written once is not what the next one waits for.
	w.append(t, 5)
	same(t, w.expected(), w.dumped(t, r.view))
}

func crash(t *testing.T, w *world) {
	fault := &lossy{Store: w.open(), n: 3}
	r := w.start(t, projection(1), fault, w.store)
	for range 30 {
		w.append(t, 5)
	}
	same(t, w.expected(), w.dumped(t, r.view))
	require.Positive(t, fault.lost.Load(), "the fault must have struck")
}

func twoRunners(t *testing.T, w *world) {
	first := w.start(t, projection(1), w.open(), w.store)
	second := w.start(t, projection(1), w.open(), w.store)
	for range 40 {
		w.append(t, 7)
	}
	same(t, w.expected(), w.dumped(t, first.view))
	same(t, w.expected(), w.dumped(t, second.view))
	// A third that begins later, and one that stops, change nothing.
	require.ErrorIs(t, first.stop(), context.Canceled)
	third := w.start(t, projection(1), w.open(), w.store)
	w.append(t, 20)
	same(t, w.expected(), w.dumped(t, third.view))
}

func audited(t *testing.T, w *world) {
	w.append(t, 300)
	r := w.start(t, projection(1), w.open(), w.store)
	w.dumped(t, r.view)
	require.ErrorIs(t, r.stop(), context.Canceled)
	tables := w.open()
	audit := func() (found []string) {
		t.Helper()
		a := views.NewAudit(r.view, eventstore.Codec{})
		next, err := a.Next(w.ctx)
		require.NoError(t, err)
		for shard, n := range next {
			require.NoError(t, a.Begin(w.ctx, shard))
			byIndex := map[uint64][]*ledgerv1.RecordedEvent{}
			for _, e := range w.recorded(t, shard) {
				byIndex[e.Position.Index] = append(byIndex[e.Position.Index], e)
			}
			for index := range n {
				require.NoError(t, a.Take(index, byIndex[index]))
			}
			require.NoError(t, a.Compare(w.ctx, func(key, what string) { found = append(found, key+": "+what) }))
		}
		return found
	}
	require.Empty(t, audit())
	// What no commit says is written to one shard, as the next commit of it.
	build := w.builds(t, tables, 1)[0]
	held := map[string]views.Table{}
	require.NoError(t, tables.Tables(w.ctx, build, func(key string, table views.Table) error { held[key] = table; return nil }))
	spoil := func(ops ...views.Op) {
		t.Helper()
		at, err := tables.Offsets(w.ctx, build)
		require.NoError(t, err)
		done, err := tables.Apply(w.ctx, views.Batch{Build: build, From: at[0], Next: at[0] + 1, Changes: []views.Change{{Index: at[0], Ops: ops}}})
		require.NoError(t, err)
		require.Equal(t, views.Applied{Verdict: views.Done, Commits: 1}, done)
	}
	var subject string
	for key := range held {
		if strings.HasPrefix(key, "subject:") {
			subject = key
		}
	}
	first, score := "", int64(0)
	for first, score = range held["by-time"].Scores {
		break
	}
	var fields []string
	for field, value := range held[subject].Hash {
		fields = append(fields, field, value)
	}
	for want, harm := range map[string]struct{ do, undo []views.Op }{
		"totals: field seconds":                {[]views.Op{views.HIncr("totals", "seconds", 1)}, []views.Op{views.HIncr("totals", "seconds", -1)}},
		"totals: it has fields that no commit": {[]views.Op{views.HSet("totals", "more", "1")}, []views.Op{views.HDel("totals", "more")}},
		"by-time: a member is not where":       {[]views.Op{views.ZAdd("by-time", score+1, first)}, []views.Op{views.ZAdd("by-time", score, first)}},
		"by-time: members are missing":         {[]views.Op{views.ZRem("by-time", first)}, []views.Op{views.ZAdd("by-time", score, first)}},
		"subjects: a member is there":          {[]views.Op{views.SAdd("subjects", "nobody")}, []views.Op{views.SRem("subjects", "nobody")}},
		"count: it is not what":                {[]views.Op{views.Incr("count", 1)}, []views.Op{views.Incr("count", -1)}},
		subject + ": it is missing":            {[]views.Op{views.Del(subject)}, []views.Op{views.HSet(subject, fields...)}},
		"last: it is of another type":          {[]views.Op{views.Del("last"), views.SAdd("last", "x")}, []views.Op{views.Del("last"), views.Set("last", held["last"].Text)}},
		"strange: no commit says so":           {[]views.Op{views.Set("strange", "x")}, []views.Op{views.Del("strange")}},
	} {
		spoil(harm.do...)
		found := audit()
		require.Len(t, found, 1, want)
		require.Contains(t, found[0], want)
		spoil(harm.undo...)
		require.Empty(t, audit(), want)
	}
}

// builds are what a version has of each shard.
func (w *world) builds(t *testing.T, tables views.Store, version uint32) (out []views.Build) {
	t.Helper()
	shards, err := tables.Shards(w.ctx, "erasures")
	require.NoError(t, err)
	heads, err := tables.Heads(w.ctx, "erasures", shards)
	require.NoError(t, err)
	for i, shard := range shards {
		out = append(out, views.Build{View: "erasures", Shard: shard, Version: version, Generation: heads[i].Generation})
	}
	return out
}

// keys counts what is kept of a version, an offset for a key.
func (w *world) keys(t *testing.T, tables views.Store, version uint32) (n int) {
	t.Helper()
	for _, b := range w.builds(t, tables, version) {
		at, err := tables.Offsets(w.ctx, b)
		require.NoError(t, err)
		if at[0] > 0 {
			n++
		}
		require.NoError(t, tables.Tables(w.ctx, b, func(string, views.Table) error { n++; return nil }))
	}
	return n
}

// recorded returns a shard's events as a replica's files hold them.
func (w *world) recorded(t *testing.T, shard uint32) (out []*ledgerv1.RecordedEvent) {
	t.Helper()
	done := errors.New("read")
	err := w.store.Follow(w.ctx, "consent", nil, nil, func(_ context.Context, b eventstore.Batch) error {
		for _, e := range b.Events {
			if e.Position.Shard != shard {
				continue
			}
			encoded, err := eventstore.Codec{}.Encode(e.Event)
			require.NoError(t, err)
			out = append(out, &ledgerv1.RecordedEvent{
				Position: &ledgerv1.Position{Log: e.Position.Log, Shard: e.Position.Shard, Index: e.Position.Index},
				Stream:   e.Stream, Revision: e.Revision, Event: encoded, RecordedTime: timestamppb.New(e.RecordedTime),
			})
		}
		if b.CaughtUp {
			return done
		}
		return nil
	})
	require.ErrorIs(t, err, done)
	return out
}

func dropAll(t *testing.T, w *world) {
	w.append(t, 400)
	r := w.start(t, projection(1), w.open(), w.store)
	before := w.dumped(t, r.view)
	same(t, w.expected(), before)
	for range 3 {
		require.NoError(t, r.view.DropAll(w.ctx))
		require.Equal(t, before, w.dumped(t, r.view))
	}
	// Dropped in the middle of a stream of events, by someone else.
	other, err := views.Open(w.open(), projection(1), quick)
	require.NoError(t, err)
	for range 5 {
		w.append(t, 40)
		require.NoError(t, other.DropAll(w.ctx))
	}
	same(t, w.expected(), w.dumped(t, other))

	// Dropped while nobody projects, then projected.
	require.ErrorIs(t, r.stop(), context.Canceled)
	require.NoError(t, other.DropAll(w.ctx))
	require.True(t, problem.Is(other.Ready(w.ctx), problem.Unavailable))
	again := w.start(t, projection(1), w.open(), w.store)
	same(t, w.expected(), w.dumped(t, again.view))
}

func flushed(t *testing.T, w *world) {
	w.append(t, 200)
	r := w.start(t, projection(1), w.open(), w.store)
	before := w.dumped(t, r.view)
	require.NoError(t, w.flush())
	// No event comes: the runner notices all the same.
	require.Equal(t, before, w.dumped(t, r.view))
	fresh, err := views.Open(w.open(), projection(1), quick)
	require.NoError(t, err)
	require.Equal(t, before, w.dumped(t, fresh))
	require.Contains(t, r.log.String(), "building it again")

	// A runner that doesn't look finds out with the next event of each shard.
	require.ErrorIs(t, r.stop(), context.Canceled)
	w.options.Watch = time.Hour
	blind := w.start(t, projection(1), w.open(), w.store)
	w.dumped(t, blind.view)
	require.NoError(t, w.flush())
	w.append(t, 97)
	same(t, w.expected(), w.dumped(t, blind.view))
}

func newVersion(t *testing.T, w *world) {
	tables := w.open()
	w.append(t, 200)
	old := w.start(t, projection(1), w.open(), w.store)
	w.dumped(t, old.view)

	// Given a new version that takes its time, then readers keep the old answers.
	gate := make(chan struct{})
	p := projection(2)
	apply := p.Apply
	p.Apply = func(ops []views.Op, r eventstore.Recorded) ([]views.Op, error) { <-gate; return apply(ops, r) }
	next := w.start(t, p, w.open(), w.store)
	version := func(v *views.View) string {
		_, h, err := w.at(t, v).Find(w.ctx, "subject:sub_1")
		require.NoError(t, err)
		return h["version"]
	}
	for range 10 {
		require.Equal(t, "1", version(next.view))
		same(t, w.expected(), w.dumped(t, next.view))
	}
	// When it has caught up, then readers are switched, also the old one's.
	close(gate)
	for version(next.view) != "2" {
		w.breathe(t)
	}
	require.Equal(t, "2", version(old.view))
	w.append(t, 30)
	same(t, w.expected(), w.dumped(t, next.view))
	same(t, w.expected(), w.dumped(t, old.view))
	// And the old one's keys go.
	for w.keys(t, tables, 1) > 0 {
		w.breathe(t)
	}
	require.Positive(t, w.keys(t, tables, 2))
}

func superseded(t *testing.T, w *world) {
	tables := w.open()
	w.append(t, 100)
	old := w.start(t, projection(1), w.open(), w.store)
	w.dumped(t, old.view)
	next := w.start(t, projection(2), w.open(), w.store)
	for !strings.Contains(old.log.String(), "a newer version") {
		// Events make the old runner write to what has been deleted.
		w.append(t, 1)
		w.breathe(t)
	}
	same(t, w.expected(), w.dumped(t, next.view))
	require.Zero(t, w.keys(t, tables, 1), "it doesn't bring deleted keys back")
}

func poison(t *testing.T, w *world) {
	p := projection(1)
	apply := p.Apply
	p.Apply = func(ops []views.Op, r eventstore.Recorded) ([]views.Op, error) {
		e := r.Event.(*eventsv1.SubjectKeyDestroyed)
		switch e.GetReason() {
		case "error":
			return nil, errors.New("quoting Jane Roe")
		case "panic":
			panic("quoting Jane Roe")
		case "clash":
			return append(ops, views.HIncr("totals", "erasure", 1000), views.SAdd("totals", "x")), nil
		case "empty":
			return append(ops, views.HSet("x")), nil
		case "blob":
			return append(ops, views.Set("x", strings.Repeat("x", 1<<20))), nil
		}
		return apply(ops, r)
	}
	good := &eventsv1.SubjectKeyDestroyed{Subject: "sub_a", Reason: "erasure"}
	var parked []string
	for _, reason := range []string{"error", "panic", "clash", "empty", "blob"} {
		w.record(t, "a", good)
		// The whole commit is parked, not half of it.
		parked = append(parked, w.record(t, "a", good, &eventsv1.SubjectKeyDestroyed{Reason: reason}, good))
		w.record(t, "a", good)
	}
	r := w.start(t, p, w.open(), w.store)
	totals, err := w.at(t, r.view).Sum(w.ctx, "totals")
	require.NoError(t, err)
	require.Equal(t, int64(10), totals["erasure"], "all but the parked")
	list, err := r.view.Parked(w.ctx)
	require.NoError(t, err)
	var got []string
	for _, c := range list {
		got = append(got, c.Position.Token())
		require.NotContains(t, c.Reason, "Jane")
	}
	require.Equal(t, parked, got)
	require.Equal(t, len(parked), r.Status().Parked)
	require.Contains(t, r.log.String(), "ALARM")
}

func unreadable(t *testing.T, w *world) {
	refuse := eventstore.Codec{}.Upcast(&eventsv1.MemberEnrolled{}, &eventsv1.MemberEnrolled{}, func(proto.Message) (proto.Message, error) {
		return nil, eventstore.ErrMalformed
	})
	w.store = eventstore.NewMemory(eventstore.MemoryOptions{Codec: refuse})
	bad := []string{
		w.record(t, "a", &eventsv1.MemberEnrolled{}),
		w.record(t, "a", &eventsv1.MemberEnrolled{}),
	}
	good := &eventsv1.SubjectKeyDestroyed{Subject: "sub_a", Reason: "erasure"}
	w.record(t, "a", good)
	bad = append(bad, w.record(t, "a", good, &eventsv1.MemberEnrolled{}))
	w.record(t, "a", good)
	r := w.start(t, projection(1), w.open(), w.store)
	totals, err := w.at(t, r.view).Sum(w.ctx, "totals")
	require.NoError(t, err)
	require.Equal(t, int64(2), totals["erasure"])
	list, err := r.view.Parked(w.ctx)
	require.NoError(t, err)
	var got []string
	for _, c := range list {
		got = append(got, c.Position.Token())
	}
	require.Equal(t, bad, got)
}

func away(t *testing.T, w *world) {
	fault := &absent{Store: w.open()}
	w.append(t, 20)
	r := w.start(t, projection(1), fault, w.store)
	for r.Status().Restarts < 2 {
		w.breathe(t)
	}
	err := r.view.Ready(w.ctx)
	require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
	fault.back.Store(true)
	same(t, w.expected(), w.dumped(t, r.view))
	// It goes away in the middle, and events come meanwhile.
	fault.back.Store(false)
	w.append(t, 20)
	before := r.Status().Restarts
	for r.Status().Restarts == before {
		w.breathe(t)
	}
	fault.back.Store(true)
	same(t, w.expected(), w.dumped(t, r.view))
}

func pages(t *testing.T, w *world) {
	p := projection(1)
	// Few scores, many members: what a page must get right is ties.
	p.Apply = func(ops []views.Op, r eventstore.Recorded) ([]views.Op, error) {
		e := r.Event.(*eventsv1.SubjectKeyDestroyed)
		return append(ops, views.ZAdd("z", e.GetDestroyedTime().GetSeconds()%5-2, e.GetSubject())), nil
	}
	w.append(t, 97)
	r := w.start(t, p, w.open(), w.store)
	reading := w.at(t, r.view)
	all, err := reading.Range(w.ctx, "z", views.Page{Limit: 1000})
	require.NoError(t, err)
	require.Len(t, all, 97)
	var naive []views.Member
	for n := range 97 {
		naive = append(naive, views.Member{Name: fmt.Sprintf("sub_%d", n), Score: int64(n%5 - 2)})
	}
	rapid.Check(t, func(rt *rapid.T) {
		page := views.Page{Descending: rapid.Bool().Draw(rt, "descending"), Limit: rapid.IntRange(5, 60).Draw(rt, "limit")}
		if rapid.Bool().Draw(rt, "bounded below") {
			n := rapid.Int64Range(-3, 3).Draw(rt, "min")
			page.Min = &n
		}
		if rapid.Bool().Draw(rt, "bounded above") {
			n := rapid.Int64Range(-3, 3).Draw(rt, "max")
			page.Max = &n
		}
		var want []views.Member
		for _, m := range naive {
			if (page.Min == nil || m.Score >= *page.Min) && (page.Max == nil || m.Score <= *page.Max) {
				want = append(want, m)
			}
		}
		slices.SortFunc(want, func(a, b views.Member) int {
			c := int(a.Score - b.Score)
			if c == 0 {
				c = strings.Compare(a.Name, b.Name)
			}
			if page.Descending {
				return -c
			}
			return c
		})
		var got []views.Member
		for {
			part, err := reading.Range(w.ctx, "z", page)
			require.NoError(rt, err)
			require.LessOrEqual(rt, len(part), page.Limit)
			if len(part) == 0 {
				break
			}
			last := part[len(part)-1]
			page.After = &last
			for _, m := range part {
				m.Shard = 0
				got = append(got, m)
			}
		}
		require.Equal(rt, want, got)
	})
}
