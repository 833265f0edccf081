package replica_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/replica"
)

// Given a topic that is lost and republished from a replica, then every
// replica finds in it what it held, goes on with the same indexes and roots,
// and a new replica reads the same from it alone.
func TestALostTopicIsRepublished(t *testing.T) {
	o := newOwner(t)
	for i := range 700 {
		o.topic.write(o.commit(fmt.Sprint("r", i)))
	}
	// Another owner, and a late record of the one before.
	next := o.succeed("p")
	o.topic.write(o.commit("late"))
	o = next
	for i := 700; i < 1200; i++ {
		o.topic.write(o.commit(fmt.Sprint("r", i)))
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	first, second := run(t, dirs[0], o.topic), run(t, dirs[1], o.topic)
	reached(t, first.shard, 1200)
	reached(t, second.shard, 1200)
	root, err := first.shard.Tree().Root(1200)
	require.NoError(t, err)
	state, err := first.shard.StateRoot(1200)
	require.NoError(t, err)

	anew := &topic{}
	commits, records, err := first.shard.Republish(t.Context(), func(_ context.Context, values [][]byte) error {
		for _, v := range values {
			anew.write(v)
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, [2]uint64{1200, 1203}, [2]uint64{commits, records}, "a barrier where a term begins, one that ends them all, and nothing void")
	require.NoError(t, first.stop())
	require.NoError(t, second.stop())

	o.topic = anew
	o = o.succeed("q")
	anew.write(o.commit("after"))
	for _, dir := range append(dirs, t.TempDir()) {
		r := run(t, dir, anew)
		reached(t, r.shard, 1201)
		got, err := r.shard.Tree().Root(1200)
		require.NoError(t, err)
		require.Equal(t, root, got)
		require.NoError(t, r.stop())
	}
	r := run(t, t.TempDir(), &topic{records: anew.records[:1202]})
	reached(t, r.shard, 1200)
	got, err := r.shard.StateRoot(1200)
	require.NoError(t, err)
	require.Equal(t, state, got)
}

// Given a topic made anew that lacks a commit, or holds another in its place,
// then the replica halts and says where.
func TestATopicRepublishedWronglyHalts(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(p *topic)
		rule  string
	}{
		"the end is missing":     {func(p *topic) { p.records = p.records[:5] }, "ends after 4"},
		"a commit is another":    {func(p *topic) { p.records[3].Value = append([]byte(nil), p.records[4].Value...) }, "ledger.topic.rewritten"},
		"a byte differs":         {func(p *topic) { p.records[3].Value[len(p.records[3].Value)-1] ^= 1 }, "index 2"},
		"a record is no commit":  {func(p *topic) { p.records[3].Value = []byte("x") }, "no commit"},
		"no barrier is there":    {func(p *topic) { p.records = p.records[1:]; renumber(p) }, "ledger.topic.rewritten"},
		"a commit is left out":   {func(p *topic) { p.records = append(p.records[:3], p.records[4:]...); renumber(p) }, "ledger.topic.rewritten"},
		"an offset is left free": {func(p *topic) { p.records[3].Offset++ }, "ledger.topic.gap"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwner(t)
			for i := range 6 {
				o.topic.write(o.commit(fmt.Sprint("r", i)))
			}
			for range 3 {
				heartbeat, err := core.Barrier("claims", 0, 1, 6, "o", time.Unix(1, 0))
				require.NoError(t, err)
				o.topic.write(heartbeat)
			}
			dir := t.TempDir()
			r := run(t, dir, o.topic)
			require.NoError(t, r.shard.WaitOffset(t.Context(), 9))
			anew := &topic{}
			_, _, err := r.shard.Republish(t.Context(), func(_ context.Context, values [][]byte) error {
				for _, v := range values {
					anew.write(append([]byte(nil), v...))
				}
				return nil
			})
			require.NoError(t, err)
			require.NoError(t, r.stop())
			c.spoil(anew)
			r = run(t, dir, anew)
			require.Contains(t, halted(t, r.shard), c.rule)
			require.Equal(t, uint64(6), r.shard.Head().Next)
		})
	}
}

func renumber(p *topic) {
	for i := range p.records {
		p.records[i].Offset = int64(i)
	}
}

// Given a clock that was minutes ahead when the topic was found shorter, when
// it is set right, then the comparison begins a grace later and not minutes.
func TestAClockSetBackDoesNotDelayTheComparison(t *testing.T) {
	o := newOwner(t)
	for i := range 3 {
		o.topic.write(o.commit(fmt.Sprint("r", i)))
	}
	_ = o.succeed("p")
	for i := range 4 {
		o.topic.write(o.commit(fmt.Sprint("late", i))) // void, and not republished
	}
	const grace = 50 * time.Millisecond
	dir, logger := t.TempDir(), slog.New(slog.DiscardHandler)
	store, err := replica.OpenStore(filepath.Join(dir, "store"), logger)
	require.NoError(t, err)
	s, err := replica.OpenShard(replica.ShardConfig{Log: "claims", Store: store, Dir: dir, Source: o.topic, Logger: logger, Grace: grace})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	right := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	require.NoError(t, s.Step(t.Context(), right))
	require.EqualValues(t, 3, s.Head().Next)
	anew := &topic{}
	_, _, err = s.Republish(t.Context(), func(_ context.Context, values [][]byte) error {
		for _, v := range values {
			anew.write(v)
		}
		return nil
	})
	require.NoError(t, err)
	require.Less(t, len(anew.records), len(o.topic.records)-1)
	o.topic.records = anew.records

	require.ErrorIs(t, s.Step(t.Context(), right.Add(5*time.Minute)), replica.ErrOutOfRange)
	require.ErrorIs(t, s.Step(t.Context(), right.Add(time.Second)), replica.ErrOutOfRange)
	require.ErrorIs(t, s.Step(t.Context(), right.Add(time.Second+grace)), replica.ErrOutOfRange, "from now on it compares")
	require.NoError(t, s.Step(t.Context(), right.Add(time.Second+grace)), "everything held is found")
	require.NoError(t, s.Step(t.Context(), right.Add(time.Second+grace)), "and following goes on")
	require.Greater(t, s.Head().Term, uint64(2), "to the barrier that ends every term before")
}
