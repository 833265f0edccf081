package views_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/views"
	"github.com/probity-health/probity/services/views/viewstest"
)

func TestOnMiniredis(t *testing.T) {
	viewstest.Run(t, func(t *testing.T) func() redis.UniversalClient {
		server := miniredis.RunT(t)
		return clients(t, func() redis.UniversalClient {
			return redis.NewClient(&redis.Options{Addr: server.Addr()})
		})
	})
}

func TestOnRedis(t *testing.T) {
	binary := redisServer(t)
	viewstest.Run(t, func(t *testing.T) func() redis.UniversalClient {
		return clients(t, start(t, binary))
	})
}

// A cluster of one node holds every slot and still refuses what crosses them,
// or uses a key that a script has not declared.
func TestOnRedisCluster(t *testing.T) {
	binary := redisServer(t)
	// One for all tests: a node takes two seconds to call its cluster sound.
	plain := start(t, binary, "--cluster-enabled", "yes")
	one := clients(t, plain)()
	ctx := context.Background()
	require.NoError(t, one.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	until(t, func() bool {
		info, err := one.ClusterInfo(ctx).Result()
		return err == nil && strings.HasPrefix(info, "cluster_state:ok")
	})
	socket := one.(*redis.Client).Options().Addr
	viewstest.Run(t, func(t *testing.T) func() redis.UniversalClient {
		require.NoError(t, one.FlushAll(ctx).Err())
		return clients(t, func() redis.UniversalClient {
			return redis.NewClusterClient(&redis.ClusterOptions{
				ClusterSlots: func(context.Context) ([]redis.ClusterSlot, error) {
					return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: socket}}}}, nil
				},
				NewClient: func(*redis.Options) *redis.Client {
					return redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
				},
			})
		})
	})
}

func redisServer(t *testing.T) string {
	t.Helper()
	name := os.Getenv("PROBITY_REDIS_SERVER")
	if name == "" {
		name = "redis-server"
	}
	binary, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("PROBITY_REQUIRE_REDIS") != "" {
			t.Fatalf("PROBITY_REQUIRE_REDIS is set, but: %v", err)
		}
		t.Skipf("SKIPPED, NOT TESTED on a real Redis: %v; apt-get install redis-server, or set PROBITY_REDIS_SERVER to its path", err)
	}
	return binary
}

// start runs a Redis without persistence on a socket, for the test's time.
func start(t *testing.T, binary string, args ...string) func() redis.UniversalClient {
	t.Helper()
	// A socket's path is at most 107 bytes, which t.TempDir exceeds.
	dir, err := os.MkdirTemp("", "redis")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	// A cluster node wants a port for its bus, whether or not there are others.
	port := "0"
	if len(args) > 0 {
		port = freePort(t)
	}
	server := exec.Command(binary, append([]string{"--port", port, "--bind", "127.0.0.1", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir, "--maxmemory-policy", "noeviction"}, args...)...)
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	client := func() redis.UniversalClient { return redis.NewClient(&redis.Options{Network: "unix", Addr: socket}) }
	probe := client()
	defer probe.Close()
	until(t, func() bool { return probe.Ping(context.Background()).Err() == nil })
	return client
}

// freePort returns one whose bus port, 10,000 above it, exists too.
func freePort(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		port := l.Addr().(*net.TCPAddr).Port
		require.NoError(t, l.Close())
		if port < 55_000 {
			return strconv.Itoa(port)
		}
	}
}

func until(t *testing.T, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("Redis did not come up")
		}
	}
}

func clients(t *testing.T, open func() redis.UniversalClient) func() redis.UniversalClient {
	return func() redis.UniversalClient {
		c := open()
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

func TestOpenRefuses(t *testing.T) {
	apply := func(eventstore.Recorded) ([]views.Op, error) { return nil, nil }
	for name, p := range map[string]views.Projection{
		"no name":    {Log: "claims", Version: 1, Apply: apply},
		"odd name":   {Name: "a:b", Log: "claims", Version: 1, Apply: apply},
		"no log":     {Name: "a", Version: 1, Apply: apply},
		"no version": {Name: "a", Log: "claims", Apply: apply},
		"no apply":   {Name: "a", Log: "claims", Version: 1},
	} {
		_, err := views.Open(nil, p, views.Options{})
		require.Error(t, err, name)
	}
}
