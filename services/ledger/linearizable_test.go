package ledger_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
)

// load runs clients against a node, or whichever is the newest of several,
// while disturb does its worst.
func load(t *testing.T, newest func() *ledger.Node, disturb func(ctx context.Context)) {
	t.Helper()
	h := ledgertest.NewHistory("claims")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Load(ctx, t, 8, 4, func(int, int) ledgertest.Ledger { return newest().Handler() })
	}()
	defer func() { stop(); <-done }()
	disturb(ctx)
	stop()
	<-done
	h.Check(t, newest().Handler())
	t.Log(h.Counts())
	require.Greater(t, h.Counts()["appended"], 50)
}

// until waits for so many more of something to have happened.
func until(ctx context.Context, t *testing.T, reached func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !reached() {
		require.True(t, time.Now().Before(deadline), "it never happened")
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// Given a broker whose acknowledgements get lost, after or before the append
// or with the whole connection, then what clients were told has one order.
func TestAppendsAreLinearizableWhenAcknowledgementsGetLost(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	n := w.Open(t, w.Config)
	var produced atomic.Int64
	w.Broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.Broker.KeepControl()
		if produced.Add(1)%11 == 0 {
			return nil, errors.New("connection reset"), true
		}
		return nil, nil, false
	})
	load(t, func() *ledger.Node { return n }, func(ctx context.Context) {
		for i, fault := range []*kerr.Error{
			kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.OutOfOrderSequenceNumber, kerr.KafkaStorageError,
		} {
			faults := w.Broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "test.claims", Err: fault, Count: 3})
			require.NoError(t, faults.Wait(within(t), 3), "fault %d", i)
			faults.Remove()
			from := produced.Load()
			until(ctx, t, func() bool { return produced.Load() > from+40 })
		}
	})
}

// Given nodes that take the shards from each other, one of them shut down
// without being let to finish, then what clients were told has one order.
func TestAppendsAreLinearizableOverTakeovers(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	var newest atomic.Pointer[ledger.Node]
	newest.Store(w.Open(t, w.Config))
	var produced atomic.Int64
	w.Broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.Broker.KeepControl()
		produced.Add(1)
		return nil, nil, false
	})
	load(t, newest.Load, func(ctx context.Context) {
		for i := range 4 {
			from := produced.Load()
			until(ctx, t, func() bool { return produced.Load() > from+60 })
			cfg := w.Config
			cfg.DataDir = filepath.Join(t.TempDir(), "data")
			old := newest.Swap(w.Open(t, cfg))
			if i%2 == 1 {
				cut, cancel := context.WithCancel(ctx)
				cancel()
				_ = old.Close(cut) // what it leaves unanswered is the point
			}
		}
	})
}
