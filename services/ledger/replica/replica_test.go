package replica_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/replica"
)

// topic is a Source with named faults.
type topic struct {
	mu      sync.Mutex
	records []replica.Record
	first   int64 // offsets below are gone
	failing error
	grown   replica.Signal
}

func (p *topic) Fetch(ctx context.Context, offset int64) (replica.Fetched, error) {
	grown := p.grown.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	end := p.first + int64(len(p.records))
	switch {
	case p.failing != nil:
		return replica.Fetched{}, p.failing
	case offset < p.first || offset > end:
		return replica.Fetched{}, replica.ErrOutOfRange
	case offset == end:
		p.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
		}
		p.mu.Lock()
		return replica.Fetched{End: end}, ctx.Err()
	}
	return replica.Fetched{Records: append([]replica.Record(nil), p.records[offset-p.first:]...), End: end}, nil
}

func (p *topic) write(value []byte) {
	p.mu.Lock()
	p.records = append(p.records, replica.Record{Offset: p.first + int64(len(p.records)), Value: value})
	p.mu.Unlock()
	p.grown.Broadcast()
}

// owner writes a topic as a shard's owner does.
type owner struct {
	t     *testing.T
	topic *topic
	head  core.Head
	view  *core.Overlay
}

type nothing struct{}

func (nothing) LastRevision(string) (int64, error)      { return core.NoStream, nil }
func (nothing) Request(string) (core.Seen, bool, error) { return core.Seen{}, false, nil }

func newOwner(t *testing.T) *owner {
	o := &owner{t: t, topic: &topic{}, head: core.Head{Log: "claims", Term: 1, Owner: "o"}, view: core.NewOverlay(nothing{})}
	value, err := core.Barrier("claims", 0, 1, 0, "o", time.Unix(1, 0))
	require.NoError(t, err)
	o.topic.write(value)
	return o
}

func (o *owner) commit(id string) []byte {
	d, err := core.Decide(o.head, o.view, &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "k", RequestId: id,
		Writes: []*ledgerv1.StreamWrite{{Stream: "claim-1", ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: "t", Payload: []byte(id)}}}},
	}, core.Provenance{Recorded: time.Unix(1, 0)})
	require.NoError(o.t, err)
	o.view.Add(d.Commit, d.Seen)
	o.head.Next++
	return d.Value
}

type running struct {
	shard *replica.Shard
	store *replica.Store
	stop  func() error
}

func run(t *testing.T, dir string, source replica.Source) *running {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	store, err := replica.OpenStore(filepath.Join(dir, "store"), logger)
	require.NoError(t, err)
	shard, err := replica.OpenShard(replica.ShardConfig{Log: "claims", Store: store, Dir: dir, Source: source, Logger: logger, Grace: 50 * time.Millisecond})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- shard.Run(ctx) }()
	var once sync.Once
	r := &running{shard: shard, store: store}
	r.stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = errors.Join(<-ended, store.Close())
		})
		return err
	}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func reached(t *testing.T, s *replica.Shard, next uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, s.WaitIndex(ctx, next-1))
}

// halted waits for the halt and returns the rule.
func halted(t *testing.T, s *replica.Shard) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := s.WaitIndex(ctx, 1<<40)
	require.NoError(t, ctx.Err())
	require.Equal(t, err, s.Halted())
	return err.Error()
}

func TestAReplicaResumesWhereItStopped(t *testing.T) {
	dir := t.TempDir()
	o := newOwner(t)
	for i := range 5 {
		o.topic.write(o.commit(fmt.Sprint("r", i)))
	}
	r := run(t, dir, o.topic)
	reached(t, r.shard, 5)
	root, err := r.shard.Tree().Root(5)
	require.NoError(t, err)
	require.NoError(t, r.stop())

	o.topic.write(o.commit("r5"))
	r = run(t, dir, o.topic)
	reached(t, r.shard, 6)
	same, err := r.shard.Tree().Root(5)
	require.NoError(t, err)
	require.Equal(t, root, same)
	seen, ok, err := r.shard.Request("r3")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, uint64(3), seen.Index)
	require.Equal(t, []uint64{3}, seen.Revisions)
	last, err := r.shard.LastRevision("claim-1")
	require.NoError(t, err)
	require.Equal(t, int64(5), last)
}

func TestAReplicaOutlivesAnAbsentBroker(t *testing.T) {
	o := newOwner(t)
	o.topic.failing = errors.New("connection refused")
	r := run(t, t.TempDir(), o.topic)
	o.topic.mu.Lock()
	o.topic.failing = nil
	o.topic.mu.Unlock()
	o.topic.write(o.commit("r0"))
	reached(t, r.shard, 1)
	require.NoError(t, r.shard.Halted())
}

// succeed returns the owner that took the shard over by reading the topic.
func (o *owner) succeed(name string) *owner {
	next := &owner{t: o.t, topic: o.topic, head: core.Head{Log: "claims"}, view: core.NewOverlay(nothing{})}
	barrier, err := core.Barrier("claims", 0, o.head.Term+1, o.head.Next, name, time.Unix(2, 0))
	require.NoError(o.t, err)
	o.topic.write(barrier)
	for _, r := range o.topic.records {
		j, err := core.Judge(next.head, next.view, r.Value)
		require.NoError(o.t, err)
		if j.Verdict == core.Accepted {
			next.view.Add(j.Commit, j.Seen)
		}
		next.head = j.Head
	}
	return next
}

func TestADeposedOwnersRecordsAreSkipped(t *testing.T) {
	older := newOwner(t)
	older.topic.write(older.commit("r0"))
	newer := older.succeed("newer")
	older.topic.write(older.commit("late"))
	newer.topic.write(newer.commit("r1"))
	r := run(t, t.TempDir(), newer.topic)
	reached(t, r.shard, 2)
	require.NoError(t, r.shard.Halted())
	_, ok, err := r.shard.Request("late")
	require.NoError(t, err)
	require.False(t, ok)
	seen, ok, err := r.shard.Request("r1")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, uint64(1), seen.Index)
}

// Whatever is wrong with a topic, the replica stops at it, says which rule,
// and keeps what it had.
func TestABrokenTopicHalts(t *testing.T) {
	for rule, spoil := range map[string]func(o *owner){
		"ledger.record.encoding": func(o *owner) { o.topic.write([]byte{0xff}) },
		"ledger.record.format":   func(o *owner) { o.topic.write(nil) },
		"ledger.commit.index": func(o *owner) {
			o.commit("skipped")
			o.topic.write(o.commit("r9"))
		},
		"ledger.topic.gap": func(o *owner) {
			value := o.commit("r9")
			o.topic.mu.Lock()
			o.topic.records = append(o.topic.records, replica.Record{Offset: int64(len(o.topic.records)) + 1, Value: value})
			o.topic.mu.Unlock()
			o.topic.grown.Broadcast()
		},
		"ledger.topic.truncated": func(o *owner) {
			o.topic.mu.Lock()
			o.topic.records = o.topic.records[:2]
			o.topic.mu.Unlock()
			o.topic.grown.Broadcast()
		},
	} {
		t.Run(rule, func(t *testing.T) {
			o := newOwner(t)
			for i := range 3 {
				o.topic.write(o.commit(fmt.Sprint("r", i)))
			}
			r := run(t, t.TempDir(), o.topic)
			reached(t, r.shard, 3)
			spoil(o)
			require.Contains(t, halted(t, r.shard), rule)
			require.Equal(t, uint64(3), r.shard.Head().Next)
			value, err := r.shard.Commit(2)
			require.NoError(t, err)
			require.NotEmpty(t, value)
		})
	}
}

func TestATopicThatChangedWhileAwayHalts(t *testing.T) {
	for rule, change := range map[string]func(p *topic){
		"ledger.topic.rewritten": func(p *topic) { p.records[3].Value = append([]byte{}, p.records[2].Value...) },
		"ledger.topic.truncated": func(p *topic) { p.records = p.records[:1] },
		"truncated":              func(p *topic) { p.first, p.records = 9, nil },
	} {
		t.Run(rule, func(t *testing.T) {
			dir := t.TempDir()
			o := newOwner(t)
			for i := range 3 {
				o.topic.write(o.commit(fmt.Sprint("r", i)))
			}
			r := run(t, dir, o.topic)
			reached(t, r.shard, 3)
			require.NoError(t, r.stop())
			change(o.topic)
			r = run(t, dir, o.topic)
			require.Contains(t, halted(t, r.shard), rule)
			var got []string
			require.NoError(t, r.shard.Stream("claim-1", 1, func(e *ledgerv1.RecordedEvent) bool {
				got = append(got, string(e.Event.Payload))
				return true
			}))
			require.Equal(t, []string{"r1", "r2"}, got)
		})
	}
}
