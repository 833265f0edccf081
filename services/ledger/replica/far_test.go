package replica

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
)

// near is a topic that says of itself only what it hands out: whoever reads it
// is never far behind.
type near struct{ memory }

func (n near) Fetch(ctx context.Context, offset int64) (Fetched, error) {
	got, err := n.memory.Fetch(ctx, offset)
	got.End = offset + int64(len(got.Records))
	return got, err
}

// Given a history that is followed from far behind, with its index handed over
// as tables and its pages given back, and the same followed from near, then
// both replicas have the same roots, find the same, and do so after a restart.
func TestALongHistoryIsFollowedLikeAShortOne(t *testing.T) {
	const commits, streams = farBehind + 9000, 4000
	var empty core.View = core.NewSnapshot("claims", 0)
	barrier, err := core.Barrier("claims", 0, 1, 0, "o", time.Unix(1, 0))
	require.NoError(t, err)
	topic := memory{barrier}
	for i := range commits {
		d, err := core.Decide(core.Head{Log: "claims", Next: uint64(i), Term: 1}, at{empty, int64(i/streams) - 1}, &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: "k", RequestId: fmt.Sprint("r", i),
			Writes: []*ledgerv1.StreamWrite{{Stream: fmt.Sprint("claim-", i%streams), ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: "test.Event"}}}},
		}, core.Provenance{Recorded: time.Unix(1, 0)})
		require.NoError(t, err)
		topic = append(topic, d.Value)
	}
	follow := func(dir string, source Source, tableAt int) (*Store, *Shard) {
		logger := slog.New(slog.DiscardHandler)
		store, err := OpenStore(filepath.Join(dir, "store"), logger)
		require.NoError(t, err)
		s, err := OpenShard(ShardConfig{Log: "claims", Store: store, Dir: filepath.Join(dir, "tiles"), Source: source, Logger: logger, FlushAt: 300, TableAt: tableAt})
		require.NoError(t, err)
		for s.Head().Next < commits {
			require.NoError(t, s.Step(t.Context(), time.Now()))
		}
		return store, s
	}
	dir := t.TempDir()
	short, one := follow(t.TempDir(), near{topic}, 2*commits)
	defer func() { require.NoError(t, short.Close()) }()
	long, other := follow(dir, topic, 1200)
	require.NotZero(t, long.db.Metrics().Ingest.Count)
	require.Zero(t, short.db.Metrics().Ingest.Count)
	for range 2 {
		want, err := one.Tree().Root(commits)
		require.NoError(t, err)
		root, err := other.Tree().Root(commits)
		require.NoError(t, err)
		require.Equal(t, want, root)
		require.NoError(t, other.known.load(other.index.rows))
		for i := 0; i < commits; i += 97 {
			_, ok, err := other.Request(fmt.Sprint("r", i))
			require.NoError(t, err)
			require.True(t, ok, "r%d", i)
			value, err := other.Commit(uint64(i))
			require.NoError(t, err)
			require.Equal(t, topic[i+1], value)
		}
		for i := range streams {
			want, err := one.LastRevision(fmt.Sprint("claim-", i))
			require.NoError(t, err)
			last, err := other.LastRevision(fmt.Sprint("claim-", i))
			require.NoError(t, err)
			require.Equal(t, want, last)
		}
		require.NoError(t, long.Close())
		long, other = follow(dir, topic, 1200)
	}
	require.NoError(t, long.Close())
}

// at is a view in which every stream is at a revision.
type at struct {
	core.View
	revision int64
}

func (a at) LastRevision(string) (int64, error) { return a.revision, nil }
