package kafka

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/e2e/process"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/eventstore/eventstoretest"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/shard"
)

// patience bounds every wait; nothing here takes that long on a machine that works.
const patience = 90 * time.Second

func TestMain(m *testing.M) { process.Main(m, map[string]process.Program{nodeRole: nodeMain}) }

// libs is where Kafka is; the test is skipped where it isn't.
func libs(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("PROBITY_KAFKA_LIBS")
	if dir == "" {
		t.Skip("needs Apache Kafka: run make test-kafka, as .ci/run does")
	}
	return dir
}

// start starts a cluster for one test.
func start(t *testing.T, opts Options) *Cluster {
	t.Helper()
	opts.Libs = libs(t)
	opts.Dir = t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := Start(ctx, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for i := range c.brokers {
				t.Logf("last output of broker %d:\n%s", i+1, c.Tail(i, 20))
			}
		}
		c.Stop()
	})
	return c
}

var prefixes atomic.Int64

// install makes a ledger of its own on a cluster, as production has it: three
// replicas, of which two must have an append.
func install(t *testing.T, c *Cluster) *ledgertest.Installation {
	w := ledgertest.NewInstallation(t, fmt.Sprintf("t%d", prefixes.Add(1)), c.Addrs()...)
	w.Config.Replication = 3
	return w
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestConformance(t *testing.T) {
	c := start(t, Options{})
	ledgertest.Run(t, func(t *testing.T) ledgertest.World { return install(t, c) })
}

func TestEventStoreConformance(t *testing.T) {
	c := start(t, Options{})
	w := install(t, c)
	client := serve(t, w.Open(t, w.Config))
	eventstoretest.Run(t, func(*testing.T) eventstore.Store {
		return eventstore.NewRemote(client, eventstore.RemoteOptions{})
	})
}

// long skips a test that the short form leaves out.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("left out by SHORT=1")
	}
}

// requireNetworks skips a test that needs network namespaces where there are
// none, unless PROBITY_REQUIRE_NETNS says that there must be.
func requireNetworks(t *testing.T) {
	t.Helper()
	libs(t)
	err := CanMakeNetworks()
	if err == nil {
		var out []byte
		if out, err = exec.Command("ip", "netns", "list").CombinedOutput(); err != nil {
			err = fmt.Errorf("ip netns: %w: %s", err, strings.TrimSpace(string(out)))
		}
	}
	if err == nil {
		return
	}
	if os.Getenv("PROBITY_REQUIRE_NETNS") != "" {
		t.Fatalf("PROBITY_REQUIRE_NETNS is set: %v", err)
	}
	t.Skipf("NOT TESTED: no broker was cut off the network: %v", err)
}

// topic makes a topic of one partition as the ledger makes its own.
func topic(t *testing.T, c *Cluster, name string) {
	t.Helper()
	client, hangUp := c.Client()
	defer hangUp()
	require.NoError(t, shard.EnsureTopics(within(t, patience), client, []shard.Topic{{Name: name, Partitions: 1, Replication: 3, MinInSync: 2}}))
	require.NoError(t, c.AwaitInSync(within(t, patience), name, 3))
}

// The same facts as of the embedded broker.
func TestBrokerFacts(t *testing.T) {
	c := start(t, Options{})
	topic(t, c, "facts")
	ledgertest.RunBroker(t, ledgertest.Apache, "facts", c.Addrs()...)
}
