package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/replica"
)

// forgetful brokers drop what they know of a producer after two seconds
// instead of a day, and of a transactional id instead of a week.
var forgetful = map[string]string{"producer.id.expiration.ms": "2000", "transactional.id.expiration.ms": "2000"}

func appendTo(t *testing.T, n *ledger.Node, id string, expected int64) *ledgerv1.AppendResponse {
	t.Helper()
	res, err := n.Handler().Append(within(t, patience), &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "k", RequestId: id, Writes: []*ledgerv1.StreamWrite{{
			Stream: "claim-1", ExpectedRevision: expected, Events: []*ledgerv1.Event{{Type: "test.Event", Payload: []byte(id)}},
		}},
	})
	require.NoError(t, err)
	return res
}

// payloads are the stream's events.
func payloads(t *testing.T, n *ledger.Node, token string) []string {
	t.Helper()
	res, err := n.Handler().ReadStream(within(t, patience), &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: "k", Stream: "claim-1", MinToken: token})
	require.NoError(t, err)
	var out []string
	for _, e := range res.Events {
		out = append(out, string(e.Event.Payload))
	}
	return out
}

// lastCommit reads the claims log's last commit from the topic itself.
func lastCommit(t *testing.T, c *Cluster, w *ledgertest.Installation) (*ledgerv1.Commit, int64) {
	t.Helper()
	client, hangUp := c.Client()
	defer hangUp()
	source := &replica.KafkaSource{Client: client, Topic: claimsTopic(w)}
	var last *ledgerv1.Commit
	var next int64
	for {
		got, err := source.Fetch(within(t, patience), next)
		require.NoError(t, err)
		for _, r := range got.Records {
			next = r.Offset + 1
			c := &ledgerv1.Commit{}
			require.NoError(t, proto.Unmarshal(r.Value, c))
			if !c.Barrier {
				last = c
			}
		}
		if next >= got.End {
			return last, next
		}
	}
}

// Given a shard that was idle for so long that its brokers forgot the
// producer, when the owner before, deposed meanwhile, writes a commit that is
// right in everything but its term, then the broker takes it, since nothing
// there is left to refuse it by; and every replica voids it, for the barrier
// raised the term. The owner loses its sequence to the zombie and takes the
// shard again.
func TestAForgottenFenceIsMadeGoodByTheTerm(t *testing.T) {
	c := start(t, Options{Settings: forgetful})
	w := install(t, c)
	oneShard(w)
	producers := ledgertest.NewProducers(t, claimsTopic(w), c.Addrs()...)

	older := w.Open(t, w.Config)
	appendTo(t, older, "r1", -1)
	remembered := producers.Producing()
	require.Len(t, remembered, 1)
	zombie := remembered[0]
	commit, _ := lastCommit(t, c, w)
	require.NoError(t, older.Close(within(t, patience)))

	n := w.Open(t, w.Config)
	second := appendTo(t, n, "r2", 0)
	require.Eventually(t, func() bool { return len(producers.Producing()) == 0 }, patience, 100*time.Millisecond, "the brokers forget nothing")

	head := core.Head{Log: "claims", Next: second.Position.Index + 1, Term: commit.Term}
	view := core.NewOverlay(nothingWritten{})
	late, err := core.Decide(head, view, &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "k", RequestId: "zombie", Writes: []*ledgerv1.StreamWrite{{
			Stream: "claim-zombie", ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "test.Event", Payload: []byte("zombie")}},
		}},
	}, core.Provenance{Actor: "zombie", Recorded: time.Now()})
	require.NoError(t, err)
	offset, err := producers.Produce(ledgertest.Batch{Session: zombie, Sequence: 40, Values: []string{string(late.Value)}})
	require.NoError(t, err, "Apache Kafka takes any sequence from a producer it doesn't know")

	third := appendTo(t, n, "r3", 1)
	require.Equal(t, second.Position.Index+1, third.Position.Index, "the zombie's record took no index")
	require.Equal(t, []string{"r1", "r2", "r3"}, payloads(t, n, third.Token))
	res, err := n.Handler().ReadStream(within(t, patience), &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: "k", Stream: "claim-zombie", MinToken: third.Token})
	require.NoError(t, err)
	require.Empty(t, res.Events)
	_, end := lastCommit(t, c, w)
	require.Greater(t, end, offset+1)
	require.NoError(t, n.Ready(t.Context()))
	everythingIsProved(t, n)

	// Whoever reads the topic anew comes to the same.
	require.NoError(t, n.Close(within(t, patience)))
	w.Forget(t)
	n = w.Open(t, w.Config)
	require.Equal(t, []string{"r1", "r2", "r3"}, payloads(t, n, third.Token))
	everythingIsProved(t, n)
}

type nothingWritten struct{}

func (nothingWritten) LastRevision(string) (int64, error)      { return core.NoStream, nil }
func (nothingWritten) Request(string) (core.Seen, bool, error) { return core.Seen{}, false, nil }

// Given a transactional id that was idle for so long that its coordinator
// forgot it, when its session goes on, then it gets a producer id of its own
// without a word, and what was handed out before is not fenced by it: going
// on proves nothing then, and the Owner relies on reading up to its barrier.
func TestAForgottenTransactionalID(t *testing.T) {
	long(t)
	c := start(t, Options{Settings: forgetful})
	topic(t, c, "facts")
	p := ledgertest.NewProducers(t, "facts", c.Addrs()...)
	before, err := p.Begin("idle", nil)
	require.NoError(t, err)
	_, err = p.Produce(ledgertest.Batch{Session: before, Values: []string{"a"}})
	require.NoError(t, err)
	now := before
	for deadline := time.Now().Add(patience); now.ID == before.ID; {
		require.True(t, time.Now().Before(deadline), "the coordinator forgets nothing")
		// Asking keeps the id alive, so each attempt waits for longer than it lives.
		pause(t.Context(), 5*time.Second)
		now, err = p.Begin("idle", &now)
		require.NoError(t, err)
	}
	_, err = p.Produce(ledgertest.Batch{Session: now, Values: []string{"barrier"}})
	require.NoError(t, err)
	_, err = p.Produce(ledgertest.Batch{Session: before, Sequence: 1, Values: []string{"zombie"}})
	require.NoError(t, err, "no fence is left")
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
