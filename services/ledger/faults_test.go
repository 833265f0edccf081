package ledger_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

const patience = 20 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func claim(i int, expected int64) *ledgerv1.AppendRequest {
	return &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "k", RequestId: fmt.Sprintf("r%d-%d", i, expected),
		Writes: []*ledgerv1.StreamWrite{{
			Stream: fmt.Sprintf("claim-%d", i), ExpectedRevision: expected,
			Events: []*ledgerv1.Event{{Type: "test.Event", Payload: fmt.Appendf(nil, "%d/%d", i, expected)}},
		}},
	}
}

// history reads a stream that must be one event a revision.
func history(t *testing.T, n *ledger.Node, i int, token string) []string {
	t.Helper()
	res, err := n.Handler().ReadStream(within(t), &ledgerv1.ReadStreamRequest{
		Log: "claims", RoutingKey: "k", Stream: fmt.Sprintf("claim-%d", i), MinToken: token,
	})
	require.NoError(t, err)
	var out []string
	for _, e := range res.Events {
		out = append(out, string(e.Event.Payload))
	}
	return out
}

// Given a broker that answers a produce with an error after or before it
// appended, when a claim's events are appended one by one, then each is there
// exactly once and its answer is not marked as a repetition.
func TestAnUnknownOutcomeIsResolvedByReading(t *testing.T) {
	for name, fault := range map[string]*kerr.Error{
		"timed out, yet appended":               kerr.RequestTimedOut,
		"too few replicas, yet appended":        kerr.NotEnoughReplicasAfterAppend,
		"too few replicas, not appended":        kerr.NotEnoughReplicas,
		"the leader moved, not appended":        kerr.NotLeaderForPartition,
		"something unexpected, not appended":    kerr.UnknownServerError,
		"the disk failed, not appended":         kerr.KafkaStorageError,
		"the sequence is unknown, not appended": kerr.OutOfOrderSequenceNumber,
	} {
		t.Run(name, func(t *testing.T) {
			w := ledgertest.NewEmbedded(t)
			n := w.Open(t, w.Config)
			var token string
			for i := range int64(12) {
				var faults *kfake.FaultHandle
				if i%3 == 1 {
					faults = w.Broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "test.claims", Err: fault})
				}
				res, err := n.Handler().Append(within(t), claim(1, i-1))
				require.NoError(t, err)
				require.False(t, res.Replayed)
				require.Equal(t, []uint64{uint64(i)}, res.Revisions)
				token = res.Token
				if faults != nil {
					require.NoError(t, faults.Wait(within(t), 1))
					faults.Remove()
				}
			}
			require.Len(t, history(t, n, 1, token), 12)
			require.NoError(t, n.Ready(t.Context()))
		})
	}
}

// Given a broker whose connection breaks in the middle of a produce, when
// many callers append, then each commit is there once.
func TestABrokenConnectionLosesAndRepeatsNothing(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	n := w.Open(t, w.Config)
	broken := 0
	w.Broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.Broker.KeepControl()
		if broken++; broken%5 == 0 {
			return nil, fmt.Errorf("connection reset"), true
		}
		return nil, nil, false
	})
	const callers, each = 16, 20
	var wg sync.WaitGroup
	tokens := make([]string, callers)
	for c := range callers {
		wg.Go(func() {
			for i := range int64(each) {
				res, err := n.Handler().Append(within(t), claim(c, i-1))
				if err != nil || res.Replayed {
					t.Errorf("append %d of caller %d: replayed %v, %v", i, c, res.GetReplayed(), err)
					return
				}
				tokens[c] = res.Token
			}
		})
	}
	wg.Wait()
	for c := range callers {
		got := history(t, n, c, tokens[c])
		require.Len(t, got, each)
		for i := range got {
			require.Equal(t, fmt.Sprintf("%d/%d", c, i-1), got[i])
		}
	}
}

// Given two nodes on the same topics, when the second starts, then the first
// is deposed: what waits there fails as unavailable, it says so, and it goes
// on serving reads and proofs of what the second writes.
func TestTheNewerOfTwoNodesDeposesTheOlder(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	older := w.Open(t, w.Config)
	for i := range int64(5) {
		_, err := older.Handler().Append(within(t), claim(1, i-1))
		require.NoError(t, err)
	}
	second := w.Config
	second.DataDir = filepath.Join(t.TempDir(), "second")
	newer := w.Open(t, second)

	// Many callers at once still ask the older node, which may not know yet.
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := older.Handler().Append(within(t), claim(100+i, -1))
			if !problem.Is(err, problem.Unavailable) {
				t.Errorf("a deposed node answered %v", err)
			}
		})
	}
	wg.Wait()
	require.Error(t, older.Ready(t.Context()))
	require.NoError(t, newer.Ready(t.Context()), "the newer one is not disturbed")

	for i := range 20 {
		require.Empty(t, history(t, newer, 100+i, ""), "what the deposed node refused was not written")
	}
	res, err := newer.Handler().Append(within(t), claim(1, 4))
	require.NoError(t, err)
	again, err := newer.Handler().Append(within(t), claim(1, 0))
	require.NoError(t, err)
	require.True(t, again.Replayed, "the newer node knows what the older one wrote")
	require.Len(t, history(t, older, 1, res.Token), 6)

	// Both hold the same blocks and sign the same checkpoints.
	policy, err := receipt.NewPolicy(ledgertest.Origin, 1, older.VerifierKey())
	require.NoError(t, err)
	for _, n := range []*ledger.Node{older, newer} {
		got, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
		require.NoError(t, err)
		_, err = receipt.Verify(got.Receipt, policy)
		require.NoError(t, err)
	}
}

// Given brokers whose leaders move, appends go on.
func TestLeadersMayMove(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	_, _, err := w.Broker.AddNode(-1, 0)
	require.NoError(t, err)
	w.Config.Brokers = w.Broker.ListenAddrs()
	n := w.Open(t, w.Config)
	for i := range int64(9) {
		if i%3 == 2 {
			w.Broker.ShufflePartitionLeaders()
		}
		_, err := n.Handler().Append(within(t), claim(1, i-1))
		require.NoError(t, err)
	}
}

// Given a topic whose records were deleted under a running replica, then it
// halts loudly rather than skip, refuses appends, and serves what it holds.
func TestDeletedRecordsHaltTheReplica(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	n := w.Open(t, w.Config)
	res, err := n.Handler().Append(within(t), claim(1, -1))
	require.NoError(t, err)
	sealed, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)
	require.NoError(t, n.Close(within(t)))

	require.NoError(t, w.Broker.DeleteTopic("test.claims"))
	require.NoError(t, w.Broker.CreateTopic("test.claims", 4, nil))
	n, err = ledger.Open(within(t), w.Config)
	require.NoError(t, err)
	defer n.Close(within(t))
	_, err = n.Handler().Append(within(t), claim(2, -1))
	require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
	require.Error(t, n.Ready(t.Context()))
	require.Len(t, history(t, n, 1, ""), 1)
	again, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)
	require.Equal(t, sealed.Receipt, again.Receipt)
}

// Given a shard count that differs from the topic's, Open refuses.
func TestAShardCountNeverChanges(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	require.NoError(t, w.Open(t, w.Config).Close(within(t)))
	w.Config.Logs = map[string]int{"policies": 1, "claims": 5, "consent": 1}
	_, err := ledger.Open(within(t), w.Config)
	require.ErrorContains(t, err, "never changes")
}

// Given commits that were acknowledged and not sealed when their node went,
// then its successor seals them without waiting for another commit.
func TestASuccessorSealsWhatWasLeft(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	w.Config.BlockInterval = time.Minute
	n := w.Open(t, w.Config)
	first, err := n.Handler().Append(within(t), claim(1, -1))
	require.NoError(t, err)
	_, err = n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: first.Position})
	require.NoError(t, err)
	// The next block is a minute away, so this one is left behind.
	left, err := n.Handler().Append(within(t), claim(1, 0))
	require.NoError(t, err)
	require.NoError(t, n.Close(within(t)))
	for range 5 {
		n = w.Open(t, w.Config)
		_, err = n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: left.Position})
		require.NoError(t, err)
		left, err = n.Handler().Append(within(t), claim(1, int64(left.Revisions[0])))
		require.NoError(t, err)
		require.NoError(t, n.Close(within(t)))
	}
}
