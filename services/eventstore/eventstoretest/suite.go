// Package eventstoretest says what an eventstore.Store must do. The same
// suite runs on the memory store, on the remote store over a fake ledger, and
// on real ledger nodes; it brings names of its own, so it may run against a
// ledger that already holds something.
package eventstoretest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// log is one that every ledger has, with several shards by default.
const log = "claims"

// patience bounds how long a test waits for what must come; it is no
// statement about speed.
const patience = 30 * time.Second

// Run runs the suite; open is called once for each test.
func Run(t *testing.T, open func(t *testing.T) eventstore.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"what is appended is read back", appendedIsReadBack},
		{"a commit to several streams is all or nothing", allOrNothing},
		{"expected revisions are an optimistic lock", optimisticLock},
		{"a repeated request gets the first answer", repeatedRequest},
		{"a request id can't be used for something else", reusedRequestID},
		{"a batch's commits succeed or fail each by itself", batch},
		{"two commits of one batch can't both create a stream", batchRace},
		{"what the ledger forbids is refused and not recorded", refusals},
		{"a long stream is read whole", longStream},
		{"concurrent deciders take turns", concurrentDeciders},
		{"a random history equals its naive model", randomHistory},
		{"following catches up, then is live", follow},
		{"following delivers whole commits in order and once", followOrder},
		{"following resumes where it was told", followResumes},
		{"following filters by type and still advances", followTypes},
		{"following ends with the handler's error", followHandlerError},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c.test(t, &world{Store: open(t), ctx: ctx, id: rand.Text()[:12]})
		})
	}
}

// world is a test's own corner of the ledger.
type world struct {
	eventstore.Store
	ctx context.Context
	id  string
}

func (w *world) key(n int) string    { return fmt.Sprintf("key-%s-%d", w.id, n) }
func (w *world) stream(n int) string { return fmt.Sprintf("test-%s-%d", w.id, n) }
func (w *world) req(name string) string {
	return "req-" + w.id + "-" + name
}

// fact is a small event; two facts of one n are equal.
func fact(n int) proto.Message {
	return &eventsv1.SubjectKeyDestroyed{Subject: fmt.Sprintf("sub_%d", n), Reason: "erasure", DestroyedTime: &timestamppb.Timestamp{Seconds: int64(n)}}
}

func (w *world) commit(name string, stream int, expected int64, facts ...int) eventstore.Commit {
	c := eventstore.Commit{Log: log, RoutingKey: w.key(stream), RequestID: w.req(name), Actor: "suite"}
	return with(c, w.stream(stream), expected, facts...)
}

func with(c eventstore.Commit, stream string, expected int64, facts ...int) eventstore.Commit {
	write := eventstore.Write{Stream: stream, Expected: expected}
	for _, n := range facts {
		write.Events = append(write.Events, fact(n))
	}
	c.Writes = append(slices.Clone(c.Writes), write)
	return c
}

func (w *world) facts(t *testing.T, stream int, from uint64) []proto.Message {
	t.Helper()
	events, err := w.Read(w.ctx, log, w.key(stream), w.stream(stream), from)
	require.NoError(t, err)
	var out []proto.Message
	for i, e := range events {
		require.Equal(t, from+uint64(i), e.Revision)
		require.Equal(t, w.stream(stream), e.Stream)
		out = append(out, e.Event)
	}
	return out
}

func same(t *testing.T, want, got []proto.Message) {
	t.Helper()
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
}

func appendedIsReadBack(t *testing.T, w *world) {
	a, err := w.Append(w.ctx, w.commit("a", 1, eventstore.NoStream, 1, 2))
	require.NoError(t, err)
	require.Equal(t, []uint64{1}, a.Revisions)
	require.Equal(t, log, a.Position.Log)
	require.False(t, a.Replayed)
	require.False(t, a.RecordedTime.IsZero())
	p, ok, err := eventstore.ParseToken(a.Token)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, a.Position, p, "a token names its commit")

	b, err := w.Append(w.ctx, w.commit("b", 1, 1, 3))
	require.NoError(t, err)
	require.Equal(t, []uint64{2}, b.Revisions)
	require.Equal(t, a.Position.Shard, b.Position.Shard, "one routing key, one shard")
	require.Greater(t, b.Position.Index, a.Position.Index)

	events, err := w.Read(w.ctx, log, w.key(1), w.stream(1), 0)
	require.NoError(t, err)
	require.Len(t, events, 3)
	for i, e := range events {
		require.Equal(t, uint64(i), e.Revision)
		require.Equal(t, "suite", e.Actor)
		require.Empty(t, cmp.Diff(fact(i+1), e.Event, protocmp.Transform()))
	}
	require.Equal(t, a.Position, events[1].Position)
	require.Equal(t, w.req("b"), events[2].RequestID)
	require.True(t, a.RecordedTime.Equal(events[0].RecordedTime))

	same(t, []proto.Message{fact(3)}, w.facts(t, 1, 2))
	require.Empty(t, w.facts(t, 1, 3), "past the end is no events")
	require.Empty(t, w.facts(t, 99, 0), "no stream is no events and no error")
}

func allOrNothing(t *testing.T, w *world) {
	c := with(w.commit("both", 1, eventstore.NoStream, 1), w.stream(1)+".b", eventstore.NoStream, 2, 3)
	a, err := w.Append(w.ctx, c)
	require.NoError(t, err)
	require.Equal(t, []uint64{0, 1}, a.Revisions, "in the order of the writes")

	// When one of two streams has moved on, neither is written.
	c = with(w.commit("half", 1, 0, 4), w.stream(1)+".b", 0, 5)
	_, err = w.Append(w.ctx, c)
	var conflict *eventstore.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, eventstore.ConflictError{Stream: w.stream(1) + ".b", Actual: 1}, *conflict)
	same(t, []proto.Message{fact(1)}, w.facts(t, 1, 0))

	// Both writes of a commit share its position.
	first := w.must(w.Read(w.ctx, log, w.key(1), w.stream(1), 0))(t)
	second := w.must(w.Read(w.ctx, log, w.key(1), w.stream(1)+".b", 0))(t)
	require.Equal(t, first[0].Position, second[1].Position)
}

func (w *world) must(events []eventstore.Recorded, err error) func(*testing.T) []eventstore.Recorded {
	return func(t *testing.T) []eventstore.Recorded {
		t.Helper()
		require.NoError(t, err)
		require.NotEmpty(t, events)
		return events
	}
}

func optimisticLock(t *testing.T, w *world) {
	for i, step := range []struct {
		expected int64
		actual   int64 // of the conflict; -9 is success
	}{
		{0, -1}, {7, -1}, {eventstore.NoStream, -9}, {eventstore.NoStream, 0}, {1, 0}, {0, -9}, {0, 1}, {eventstore.Any, -9}, {2, -9},
	} {
		_, err := w.Append(w.ctx, w.commit(fmt.Sprint(i), 1, step.expected, i))
		if step.actual == -9 {
			require.NoError(t, err, "step %d", i)
			continue
		}
		var conflict *eventstore.ConflictError
		require.ErrorAs(t, err, &conflict, "step %d", i)
		require.Equal(t, step.actual, conflict.Actual, "step %d", i)
		require.True(t, eventstore.IsConflict(err))
	}
	same(t, []proto.Message{fact(2), fact(5), fact(7), fact(8)}, w.facts(t, 1, 0))

	_, err := w.Append(w.ctx, w.commit("any", 2, eventstore.Any, 1))
	require.NoError(t, err, "any also makes a stream")
}

func repeatedRequest(t *testing.T, w *world) {
	c := w.commit("once", 1, eventstore.NoStream, 1)
	first, err := w.Append(w.ctx, c)
	require.NoError(t, err)
	_, err = w.Append(w.ctx, w.commit("between", 1, 0, 2))
	require.NoError(t, err)

	second, err := w.Append(w.ctx, c)
	require.NoError(t, err, "its expected revision is long gone, but the request is known")
	require.True(t, second.Replayed)
	require.Equal(t, first.Position, second.Position)
	require.Equal(t, first.Revisions, second.Revisions)
	require.True(t, first.RecordedTime.Equal(second.RecordedTime))
	same(t, []proto.Message{fact(1), fact(2)}, w.facts(t, 1, 0))

	// A refused request leaves nothing behind: corrected, the same id succeeds.
	_, err = w.Append(w.ctx, w.commit("retry", 1, 0, 3))
	require.True(t, eventstore.IsConflict(err))
	a, err := w.Append(w.ctx, w.commit("retry", 1, 1, 3))
	require.NoError(t, err)
	require.False(t, a.Replayed)
}

func reusedRequestID(t *testing.T, w *world) {
	_, err := w.Append(w.ctx, w.commit("one", 1, eventstore.NoStream, 1))
	require.NoError(t, err)
	_, err = w.Append(w.ctx, w.commit("one", 1, 0, 2))
	require.True(t, problem.Is(err, problem.Conflict), "got %v", err)
	require.False(t, eventstore.IsConflict(err), "loading again would not help")
	same(t, []proto.Message{fact(1)}, w.facts(t, 1, 0))
}

func batch(t *testing.T, w *world) {
	_, err := w.Append(w.ctx, w.commit("before", 2, eventstore.NoStream, 0))
	require.NoError(t, err)
	bad := w.commit("bad", 4, eventstore.NoStream, 1)
	bad.Writes[0].Stream = "Not a stream"
	out, err := w.AppendBatch(w.ctx, []eventstore.Commit{
		w.commit("one", 1, eventstore.NoStream, 1),
		w.commit("two", 2, eventstore.NoStream, 1),
		w.commit("three", 3, eventstore.Any, 1, 2),
		bad,
	})
	require.NoError(t, err)
	require.Len(t, out, 4)
	require.NoError(t, out[0].Err)
	require.Equal(t, []uint64{0}, out[0].Appended.Revisions)
	var conflict *eventstore.ConflictError
	require.ErrorAs(t, out[1].Err, &conflict)
	require.Equal(t, eventstore.ConflictError{Stream: w.stream(2), Actual: 0}, *conflict)
	require.NoError(t, out[2].Err)
	require.Equal(t, []uint64{1}, out[2].Appended.Revisions)
	require.True(t, problem.Is(out[3].Err, problem.Invalid), "got %v", out[3].Err)

	// More than one call's worth, sent twice, is recorded once.
	var many []eventstore.Commit
	for i := range 1200 {
		many = append(many, w.commit(fmt.Sprintf("many-%d", i), 100+i, eventstore.NoStream, i))
	}
	for _, replayed := range []bool{false, true} {
		out, err = w.AppendBatch(w.ctx, many)
		require.NoError(t, err)
		require.Len(t, out, len(many))
		for i, o := range out {
			require.NoError(t, o.Err, "commit %d", i)
			require.Equal(t, replayed, o.Appended.Replayed)
		}
	}
	same(t, []proto.Message{fact(1199)}, w.facts(t, 1299, 0))
}

func batchRace(t *testing.T, w *world) {
	out, err := w.AppendBatch(w.ctx, []eventstore.Commit{
		w.commit("left", 1, eventstore.NoStream, 1),
		w.commit("right", 1, eventstore.NoStream, 2),
	})
	require.NoError(t, err)
	won := 0
	for _, o := range out {
		if o.Err == nil {
			won++
		} else {
			require.True(t, eventstore.IsConflict(o.Err), "got %v", o.Err)
		}
	}
	require.Equal(t, 1, won)
	require.Len(t, w.facts(t, 1, 0), 1)
}

func refusals(t *testing.T, w *world) {
	good := w.commit("x", 1, eventstore.NoStream, 1)
	for name, spoil := range map[string]func(*eventstore.Commit){
		"no writes":        func(c *eventstore.Commit) { c.Writes = nil },
		"no events":        func(c *eventstore.Commit) { c.Writes[0].Events = nil },
		"nil event":        func(c *eventstore.Commit) { c.Writes[0].Events = []proto.Message{nil} },
		"not an event":     func(c *eventstore.Commit) { c.Writes[0].Events = []proto.Message{&typev1.Period{}} },
		"no request id":    func(c *eventstore.Commit) { c.RequestID = "" },
		"no routing key":   func(c *eventstore.Commit) { c.RoutingKey = "" },
		"bad log":          func(c *eventstore.Commit) { c.Log = "Claims!" },
		"bad stream":       func(c *eventstore.Commit) { c.Writes[0].Stream = "no spaces please" },
		"bad revision":     func(c *eventstore.Commit) { c.Writes[0].Expected = -3 },
		"one stream twice": func(c *eventstore.Commit) { c.Writes = append(c.Writes, c.Writes[0]) },
	} {
		c := good
		c.Writes = slices.Clone(good.Writes)
		spoil(&c)
		_, err := w.Append(w.ctx, c)
		require.True(t, problem.Is(err, problem.Invalid), "%s: got %v", name, err)
	}
	require.Empty(t, w.facts(t, 1, 0))
	_, err := w.Append(w.ctx, good)
	require.NoError(t, err, "none of the refusals used up the request id")
}

func longStream(t *testing.T, w *world) {
	var want []proto.Message
	for part := range 3 {
		var facts []int
		for i := range 900 {
			facts = append(facts, part*900+i)
			want = append(want, fact(part*900+i))
		}
		_, err := w.Append(w.ctx, w.commit(fmt.Sprint(part), 1, int64(part*900-1), facts...))
		require.NoError(t, err)
	}
	same(t, want, w.facts(t, 1, 0))
	same(t, want[1234:], w.facts(t, 1, 1234))
}

func concurrentDeciders(t *testing.T, w *world) {
	const writers, turns = 8, 5
	var wg sync.WaitGroup
	errs := make(chan error, writers*turns)
	for writer := range writers {
		wg.Go(func() {
			for turn := range turns {
				_, err := eventstore.Decide(w.ctx, w.Store, 1000, func(ctx context.Context) (eventstore.Commit, error) {
					have, err := w.Read(ctx, log, w.key(1), w.stream(1), 0)
					return w.commit(fmt.Sprintf("%d-%d", writer, turn), 1, int64(len(have))-1, len(have)), err
				})
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	// Each event holds the length its writer had seen: none decided on an old state.
	var want []proto.Message
	for i := range writers * turns {
		want = append(want, fact(i))
	}
	same(t, want, w.facts(t, 1, 0))
}

// collector gathers what a follower is handed, its own world's only.
type collector struct {
	w      *world
	events []eventstore.Recorded
	next   map[uint32]uint64
	seen   chan int // count after each batch; buffered enough for any test here
	idle   chan struct{}
	once   sync.Once
}

func (w *world) collect(ctx context.Context, from map[uint32]uint64, types []string) (*collector, chan error) {
	c := &collector{w: w, seen: make(chan int, 10_000), idle: make(chan struct{}), next: map[uint32]uint64{}}
	done := make(chan error, 1)
	go func() {
		done <- w.Follow(ctx, log, from, types, func(_ context.Context, b eventstore.Batch) error {
			for _, e := range b.Events {
				if e.Position.Index >= b.Next[e.Position.Shard] {
					return fmt.Errorf("an event at %v is past the batch's next %v", e.Position, b.Next)
				}
				if e.RequestID == "" || len(e.RequestID) < 16 || e.RequestID[4:16] != w.id {
					continue
				}
				c.events = append(c.events, e)
			}
			maps.Copy(c.next, b.Next)
			if b.CaughtUp {
				c.once.Do(func() { close(c.idle) })
			}
			c.seen <- len(c.events)
			return nil
		})
	}()
	return c, done
}

func (c *collector) wait(t *testing.T, n int) {
	t.Helper()
	for {
		select {
		case have := <-c.seen:
			if have >= n {
				return
			}
		case <-c.w.ctx.Done():
			t.Fatalf("waited in vain for %d events", n)
		}
	}
}

func follow(t *testing.T, w *world) {
	ctx, stop := context.WithCancel(w.ctx)
	defer stop()
	_, err := w.Append(w.ctx, w.commit("before", 1, eventstore.NoStream, 1))
	require.NoError(t, err)
	c, done := w.collect(ctx, nil, nil)
	select {
	case <-c.idle:
	case <-w.ctx.Done():
		t.Fatal("never caught up")
	}
	c.wait(t, 1)
	_, err = w.Append(w.ctx, w.commit("live", 1, 0, 2))
	require.NoError(t, err)
	c.wait(t, 2)
	stop()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Len(t, c.events, 2)
	require.Empty(t, cmp.Diff(fact(2), c.events[1].Event, protocmp.Transform()))
	require.Equal(t, w.req("live"), c.events[1].RequestID)
}

func followOrder(t *testing.T, w *world) {
	ctx, stop := context.WithCancel(w.ctx)
	defer stop()
	c, done := w.collect(ctx, nil, nil)
	const commits = 60
	for i := range commits {
		// Streams 0..5 in turn; each commit has two streams and three events.
		n, rev := i%6, int64(i/6)
		commit := with(w.commit(fmt.Sprint(i), n, rev-1, i), w.stream(n)+".b", 2*rev-1, i, i)
		_, err := w.Append(w.ctx, commit)
		require.NoError(t, err)
	}
	c.wait(t, commits*3)
	stop()
	if err := <-done; err != nil {
		t.Log("following ended:", err)
	}
	require.Len(t, c.events, commits*3, "each once")
	revisions, indexes := map[string]uint64{}, map[uint32]uint64{}
	for i, e := range c.events {
		require.Equal(t, revisions[e.Stream], e.Revision, "a stream in order")
		revisions[e.Stream]++
		require.GreaterOrEqual(t, e.Position.Index, indexes[e.Position.Shard], "a shard in order")
		indexes[e.Position.Shard] = e.Position.Index
		require.Equal(t, c.events[i-i%3].Position, e.Position, "a commit together")
	}
}

func followResumes(t *testing.T, w *world) {
	for i := range 10 {
		_, err := w.Append(w.ctx, w.commit(fmt.Sprint(i), i, eventstore.NoStream, i))
		require.NoError(t, err)
	}
	ctx, stop := context.WithCancel(w.ctx)
	first, done := w.collect(ctx, nil, nil)
	first.wait(t, 10)
	stop()
	if err := <-done; err != nil {
		t.Log("following ended:", err)
	}
	for i := range 10 {
		_, err := w.Append(w.ctx, w.commit("then-"+fmt.Sprint(i), i, 0, 100+i))
		require.NoError(t, err)
	}
	ctx, stop = context.WithCancel(w.ctx)
	second, done := w.collect(ctx, first.next, nil)
	second.wait(t, 10)
	stop()
	if err := <-done; err != nil {
		t.Log("following ended:", err)
	}
	require.Len(t, second.events, 10)
	for _, e := range second.events {
		require.Equal(t, uint64(1), e.Revision, "nothing from before")
	}
}

func followTypes(t *testing.T, w *world) {
	enrolled := &eventsv1.MemberEnrolled{Subject: "sub_1"}
	c := w.commit("mixed", 1, eventstore.NoStream, 1)
	c.Writes[0].Events = append(c.Writes[0].Events, enrolled)
	a, err := w.Append(w.ctx, c)
	require.NoError(t, err)
	last, err := w.Append(w.ctx, w.commit("other", 1, 1, 2))
	require.NoError(t, err)

	ctx, stop := context.WithCancel(w.ctx)
	defer stop()
	got, done := w.collect(ctx, nil, []string{eventstore.TypeOf(enrolled)})
	got.wait(t, 1)
	for got.next[last.Position.Shard] <= last.Position.Index {
		// Filtered commits have no events, but they advance the heads.
		got.wait(t, 1)
	}
	stop()
	if err := <-done; err != nil {
		t.Log("following ended:", err)
	}
	require.Len(t, got.events, 1)
	require.Equal(t, a.Position, got.events[0].Position)
	require.Equal(t, uint64(1), got.events[0].Revision)
}

func followHandlerError(t *testing.T, w *world) {
	_, err := w.Append(w.ctx, w.commit("a", 1, eventstore.NoStream, 1))
	require.NoError(t, err)
	mine := errors.New("mine")
	calls := 0
	err = w.Follow(w.ctx, log, nil, nil, func(context.Context, eventstore.Batch) error {
		calls++
		return mine
	})
	require.ErrorIs(t, err, mine)
	require.Equal(t, 1, calls, "a failed handler isn't asked again")
}
