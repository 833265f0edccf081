package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// views reads every key and value of the stack's view store: the one address
// on which its process listens that answers as Redis does.
func (s *stack) views(t *testing.T) (out []byte, keys int) {
	t.Helper()
	for _, port := range listening(t, s.pid()) {
		client := redis.NewClient(&redis.Options{
			Addr: "127.0.0.1:" + strconv.Itoa(port), DialTimeout: time.Second, ReadTimeout: time.Second, MaxRetries: -1, DisableIdentity: true,
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		pong, err := client.Ping(ctx).Result()
		cancel()
		if err == nil && pong == "PONG" {
			out, keys = everything(t, client)
		}
		require.NoError(t, client.Close())
		if keys > 0 {
			return out, keys
		}
	}
	t.Fatal("the stack's view store was not found")
	return nil, 0
}

func everything(t *testing.T, client *redis.Client) (out []byte, keys int) {
	t.Helper()
	ctx := t.Context()
	all := client.Scan(ctx, 0, "*", 1000).Iterator()
	for all.Next(ctx) {
		keys++
		key := all.Val()
		kind, err := client.Type(ctx, key).Result()
		require.NoError(t, err)
		var value any
		switch kind {
		case "hash":
			value, err = client.HGetAll(ctx, key).Result()
		case "zset":
			value, err = client.ZRange(ctx, key, 0, -1).Result()
		case "set":
			value, err = client.SMembers(ctx, key).Result()
		case "string":
			value, err = client.Get(ctx, key).Result()
		default:
			t.Fatalf("a key of the unknown kind %s", kind)
		}
		require.NoError(t, err)
		out = fmt.Appendf(out, "%s %v\n", key, value)
	}
	require.NoError(t, all.Err())
	return out, keys
}

// listening are the TCP ports on which a process listens (proc(5), net/tcp).
func listening(t *testing.T, pid int) []int {
	t.Helper()
	own := map[string]bool{}
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	require.NoError(t, err)
	for _, fd := range fds {
		link, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "fd", fd.Name()))
		if inode, ok := strings.CutPrefix(link, "socket:["); err == nil && ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var ports []int
	for _, table := range []string{"tcp", "tcp6"} {
		raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "net", table))
		require.NoError(t, err)
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line)
			const listens = "0A"
			if len(f) < 10 || f[3] != listens || !own[f[9]] {
				continue
			}
			_, port, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(port, 16, 16)
			require.NoError(t, err)
			ports = append(ports, int(n))
		}
	}
	return ports
}
