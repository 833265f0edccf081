package redisstore_test

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

	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
	"github.com/probity-health/probity/services/views/redisstore"
	"github.com/probity-health/probity/services/views/viewstest"
)

func TestOnMiniredis(t *testing.T) {
	viewstest.Run(t, func(t *testing.T) viewstest.Subject {
		server := miniredis.RunT(t)
		return subject(t, func() redis.UniversalClient {
			return redis.NewClient(&redis.Options{Addr: server.Addr()})
		})
	})
}

func TestOnRedis(t *testing.T) {
	binary := redisServer(t)
	viewstest.Run(t, func(t *testing.T) viewstest.Subject {
		return subject(t, start(t, binary))
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
	viewstest.Run(t, func(t *testing.T) viewstest.Subject {
		require.NoError(t, one.FlushAll(ctx).Err())
		return subject(t, func() redis.UniversalClient {
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

// subject is a Redis of which every process has a client of its own.
func subject(t *testing.T, open func() redis.UniversalClient) viewstest.Subject {
	client := clients(t, open)
	return viewstest.Subject{
		Open:  func() views.Store { return redisstore.New(client()) },
		Flush: func() error { return client().FlushAll(context.Background()).Err() },
	}
}

// Given a Redis that nobody answers for, then every call says Unavailable.
func TestAwayIsUnavailable(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	server.Close()
	ctx, s := context.Background(), redisstore.New(client)
	b := views.Build{View: "erasures", Version: 1}
	for name, call := range map[string]func() error{
		"Shards":    func() error { _, err := s.Shards(ctx, b.View); return err },
		"AddShards": func() error { return s.AddShards(ctx, b.View, []uint32{0}) },
		"Heads":     func() error { _, err := s.Heads(ctx, b.View, []uint32{0}); return err },
		"GoLive":    func() error { _, _, err := s.GoLive(ctx, b); return err },
		"Renew":     func() error { _, err := s.Renew(ctx, b.View, 0); return err },
		"Drop":      func() error { return s.Drop(ctx, b.View, 0, func(views.Build) bool { return true }) },
		"Apply":     func() error { _, err := s.Apply(ctx, views.Batch{Build: b, Next: 1}); return err },
		"Offsets":   func() error { _, err := s.Offsets(ctx, b); return err },
		"Parked":    func() error { _, err := s.Parked(ctx, b); return err },
		"Hashes":    func() error { _, err := s.Hashes(ctx, views.Fields{At: views.At{Build: b, Key: "k"}}); return err },
		"Members":   func() error { _, err := s.Members(ctx, views.At{Build: b, Key: "k"}); return err },
		"Count":     func() error { _, err := s.Count(ctx, views.At{Build: b, Key: "k"}); return err },
		"Range":     func() error { _, err := s.Range(ctx, views.At{Build: b, Key: "k"}, views.Page{Limit: 1}); return err },
		"Tables":    func() error { return s.Tables(ctx, b, func(string, views.Table) error { return nil }) },
	} {
		require.True(t, problem.Is(call(), problem.Unavailable), name)
	}
}
