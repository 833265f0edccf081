package kafka

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// claimsTopic is where the faults strike.
func claimsTopic(w *ledgertest.Installation) string { return w.Config.TopicPrefix + ".claims" }

// oneShard leaves a ledger one shard of claims, so that every fault meets the load.
func oneShard(w *ledgertest.Installation) {
	w.Config.Logs = map[string]int{"claims": 1}
}

// traffic is recorded load while a test makes trouble.
type traffic struct {
	t       *testing.T
	history *ledgertest.History
	stop    context.CancelFunc
	done    chan struct{}

	mu      sync.Mutex
	targets []ledgertest.Ledger // guarded by mu
}

func drive(t *testing.T, targets ...ledgertest.Ledger) *traffic {
	ctx, stop := context.WithCancel(t.Context())
	r := &traffic{t: t, history: ledgertest.NewHistory("claims"), stop: stop, done: make(chan struct{}), targets: targets}
	go func() {
		defer close(r.done)
		r.history.Load(ctx, t, 6, 3, func(client, attempt int) ledgertest.Ledger {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.targets[(client+attempt)%len(r.targets)]
		})
	}()
	t.Cleanup(func() { stop(); <-r.done })
	return r
}

func (r *traffic) retarget(targets ...ledgertest.Ledger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.targets = targets
}

// flows waits until so many more appends were acknowledged and returns how
// long that took.
func (r *traffic) flows(n int) time.Duration {
	r.t.Helper()
	count := func() int { c := r.history.Counts(); return c["appended"] + c["replayed"] }
	start, from := time.Now(), count()
	require.Eventually(r.t, func() bool { return count() >= from+n }, patience, 5*time.Millisecond, "appends don't go on")
	return time.Since(start)
}

// check ends the load and checks the history, the last answers from one node.
func (r *traffic) check(last ledgertest.Ledger) {
	r.t.Helper()
	r.stop()
	<-r.done
	r.t.Log(r.history.Counts())
	r.history.Check(r.t, last)
}

// Given a node that is killed, one that is stopped for a while and thinks it
// still owns its shards, and their successors, then what clients of all of
// them were told has one order.
func TestOwnersAreKilledAndPaused(t *testing.T) {
	long(t)
	c := start(t, Options{})
	w := install(t, c)
	oneShard(w)
	config := func(name string) nodeConfig {
		return nodeConfig{
			Prefix: w.Config.TopicPrefix, Brokers: w.Config.Brokers, Logs: w.Config.Logs, Name: name,
			DataDir: filepath.Join(t.TempDir(), name), KeyFile: w.Config.SigningKeyFile,
		}
	}
	ready := func(n *node) {
		require.NoError(t, n.AwaitReady(within(t, patience), n.url+"/ready"))
	}
	a := startNode(t, config("a"))
	ready(a)
	load := drive(t, a)
	load.flows(100)

	a.Kill()
	b := startNode(t, config("b"))
	ready(b)
	load.retarget(b)
	t.Logf("after a kill, once the successor was ready: %v for 100 appends", load.flows(100))

	require.NoError(t, b.Pause())
	d := startNode(t, config("d"))
	ready(d)
	load.retarget(d)
	load.flows(100)
	require.NoError(t, b.Resume())
	// Clients ask both: the one that was deposed in its sleep may refuse, be
	// of no help, or send them on; it must not be believed.
	load.retarget(b, d)
	load.flows(100)
	load.check(d)
}

// Given three nodes that share the shards through the brokers' consumer
// group, when one is killed, another is stopped for longer than its session
// and let go on, and both places are filled again, while clients ask whichever
// they like, then appends go on within seconds and what was told has one order.
func TestAClusterLosesItsOwners(t *testing.T) {
	c := start(t, Options{})
	w := install(t, c)
	w.Config.Logs = map[string]int{"claims": 3}
	nodes := map[string]*node{}
	begin := func(name string) {
		n := startNode(t, nodeConfig{
			Prefix: w.Config.TopicPrefix, Brokers: w.Config.Brokers, Logs: w.Config.Logs, Name: name, Shared: true,
			DataDir: filepath.Join(t.TempDir(), name), KeyFile: w.Config.SigningKeyFile,
		})
		require.NoError(t, n.AwaitReady(within(t, patience), n.url+"/ready"))
		nodes[name] = n
	}
	targets := func() (out []ledgertest.Ledger) {
		for _, name := range slices.Sorted(maps.Keys(nodes)) {
			out = append(out, nodes[name])
		}
		return out
	}
	for _, name := range []string{"a", "b", "c"} {
		begin(name)
	}
	load := drive(t, targets()...)
	load.flows(100)

	nodes["a"].Kill()
	delete(nodes, "a")
	load.retarget(targets()...)
	t.Logf("an owner killed: %v for 100 appends", load.flows(100))

	// Whoever asks a stopped node waits for his own deadline; the clients ask
	// the one that is left, which may have passed appends on to the other.
	require.NoError(t, nodes["b"].Pause())
	load.retarget(nodes["c"])
	t.Logf("another stopped: %v for 100 appends", load.flows(100))
	require.NoError(t, nodes["b"].Resume())
	load.retarget(targets()...)
	load.flows(50)

	begin("d")
	load.retarget(targets()...)
	load.flows(100)
	load.check(nodes["c"])
}

// Given brokers that die one after the other, the shard's leader first, and
// come back, then appends go on and what clients were told has one order.
func TestBrokersDieUnderLoad(t *testing.T) {
	long(t)
	c := start(t, Options{})
	w := install(t, c)
	oneShard(w)
	n := w.Open(t, w.Config)
	load := drive(t, n.Handler())
	load.flows(50)
	leader, err := c.Leader(within(t, patience), claimsTopic(w), 0)
	require.NoError(t, err)
	for i := range 3 {
		victim := (leader + i) % 3
		c.Kill(victim)
		t.Logf("broker %d killed: %v for 50 appends", victim+1, load.flows(50))
		require.NoError(t, c.Restart(victim))
		require.NoError(t, c.AwaitInSync(within(t, patience), w.Config.TopicPrefix, 3))
		load.flows(50)
	}
	load.check(n.Handler())
	everythingIsProved(t, n)
}

// everythingIsProved verifies the receipt of every commit of the claims log.
func everythingIsProved(t *testing.T, n *ledger.Node) {
	t.Helper()
	policy, err := receipt.NewPolicy(ledgertest.Origin, 1, n.VerifierKey())
	require.NoError(t, err)
	got, err := n.Handler().GetLedger(within(t, patience), &ledgerv1.GetLedgerRequest{})
	require.NoError(t, err)
	for _, head := range got.Heads {
		for i := range head.Size {
			pos := &ledgerv1.Position{Log: head.Log, Shard: head.Shard, Index: i}
			res, err := n.Handler().GetReceipt(within(t, patience), &ledgerv1.GetReceiptRequest{Position: pos})
			require.NoError(t, err)
			_, err = receipt.Verify(res.Receipt, policy)
			require.NoError(t, err)
		}
	}
}

// Given fewer replicas in sync than an append needs, then appends fail as
// something to try again, reads go on, and once the replicas are back the
// same append is made, once.
func TestTooFewReplicasInSync(t *testing.T) {
	c := start(t, Options{})
	w := install(t, c)
	oneShard(w)
	n := w.Open(t, w.Config)
	load := drive(t, n.Handler())
	load.flows(50)

	setTopic(t, c, claimsTopic(w), "min.insync.replicas", "3")
	leader, err := c.Leader(within(t, patience), claimsTopic(w), 0)
	require.NoError(t, err)
	victim := (leader + 1) % 3
	c.Kill(victim)
	require.NoError(t, c.AwaitInSync(within(t, patience), claimsTopic(w), 2))

	append := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err := n.Handler().Append(ctx, &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: "k", RequestId: "waits", Writes: []*ledgerv1.StreamWrite{{
				Stream: "claim-waits", ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "test.Event", Payload: []byte("1")}},
			}},
		})
		return err
	}
	err = append(5 * time.Second)
	require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
	require.True(t, problem.As(err).Retryable())
	_, err = n.Handler().ReadStream(within(t, patience), &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: "k0", Stream: "claim-k0"})
	require.NoError(t, err)

	require.NoError(t, c.Restart(victim))
	require.NoError(t, append(patience))
	load.flows(50)
	load.check(n.Handler())
	res, err := n.Handler().ReadStream(within(t, patience), &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: "k", Stream: "claim-waits"})
	require.NoError(t, err)
	require.Len(t, res.Events, 1)
}

func setTopic(t *testing.T, c *Cluster, topic, name, value string) {
	t.Helper()
	client, hangUp := c.Client()
	defer hangUp()
	res, err := client.IncrementalAlterConfigs(within(t, patience), &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	require.NoError(t, err)
	for _, r := range res.Resources {
		require.NoError(t, r.Error)
	}
}

// Given a leader that its followers can't reach while clients still can, and
// then one that nobody reaches, neither of which dies, when it is the broker
// that the node asks about the cluster, so that all it is told is what the
// leader last knew, then appends go on with a new leader and what the old one
// took and could not replicate is neither acknowledged nor left over.
func TestALeaderIsCutOff(t *testing.T) {
	long(t)
	requireNetworks(t)
	network, err := NewNetwork(3)
	require.NoError(t, err)
	t.Cleanup(network.Close)
	c := start(t, Options{Network: network})
	w := install(t, c)
	oneShard(w)
	n := w.Open(t, w.Config)
	load := drive(t, n.Handler())
	load.flows(50)
	for _, cut := range []struct {
		name      string
		off, mend func(int) error
	}{
		{"cut off from the other brokers", network.Isolate, network.Rejoin},
		{"cut off from everybody", network.Cut, network.Mend},
	} {
		leader, err := c.Leader(within(t, patience), claimsTopic(w), 0)
		require.NoError(t, err)
		require.NoError(t, n.Close(within(t, patience)))
		asking := w.Config
		asking.Brokers = c.Addrs()[leader : leader+1]
		n = w.Open(t, asking)
		load.retarget(n.Handler())
		load.flows(50)
		require.NoError(t, cut.off(leader))
		others := slices.DeleteFunc([]int{0, 1, 2}, func(i int) bool { return i == leader })
		require.NoError(t, c.awaitAt(within(t, patience), "another leader", others, func(m *kafka.MetadataResponse) bool {
			for _, topic := range m.Topics {
				for _, p := range topic.Partitions {
					if topic.Name == claimsTopic(w) && (p.Leader.Port == 0 || p.Leader.ID == leader+1) {
						return false
					}
				}
			}
			return true
		}))
		t.Logf("leader %d %s, another elected: %v for 50 appends", leader+1, cut.name, load.flows(50))
		require.NoError(t, cut.mend(leader))
		require.NoError(t, c.AwaitInSync(within(t, patience), w.Config.TopicPrefix, 3))
		load.flows(50)
	}
	load.check(n.Handler())
	everythingIsProved(t, n)

	// A replica that reads the topics anew, from whoever leads now, finds the same.
	fresh := w.Config
	fresh.DataDir = filepath.Join(t.TempDir(), "fresh")
	require.NoError(t, n.Close(within(t, patience)))
	everythingIsProved(t, w.Open(t, fresh))
}
