package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/probity-health/probity/services/views"
)

// Store implements views.Store on a Redis, alone or a cluster.
type Store struct {
	client redis.UniversalClient

	mu    sync.Mutex // guards known
	known kinds
}

var _ views.Store = (*Store)(nil)

// New makes a Store; it doesn't talk to Redis yet. The client stays the caller's to close.
func New(client redis.UniversalClient) *Store { return &Store{client: client, known: kinds{}} }

func prefix(b views.Build) string {
	return fmt.Sprintf("pv:{%s:%d}:v%d.%d:", b.View, b.Shard, b.Version, b.Generation)
}

func offsetKey(b views.Build) string           { return prefix(b) + "offset" }
func parkedKey(b views.Build) string           { return prefix(b) + "parked" }
func dataKey(b views.Build, key string) string { return prefix(b) + "d:" + key }
func metaKey(view string, shard uint32) string { return fmt.Sprintf("pv:{%s:%d}:meta", view, shard) }
func shardsKey(view string) string             { return fmt.Sprintf("pv:{%s}:shards", view) }

// Shards implements views.Store.
func (s *Store) Shards(ctx context.Context, view string) ([]uint32, error) {
	members, err := s.client.SMembers(ctx, shardsKey(view)).Result()
	if err != nil {
		return nil, views.Away(err)
	}
	var out []uint32
	for _, m := range members {
		n, err := strconv.ParseUint(m, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("views: %s holds a member that is no shard", shardsKey(view))
		}
		out = append(out, uint32(n))
	}
	slices.Sort(out)
	return out, nil
}

// AddShards implements views.Store.
func (s *Store) AddShards(ctx context.Context, view string, shards []uint32) error {
	members := make([]any, len(shards))
	for i, shard := range shards {
		members[i] = shard
	}
	if err := s.client.SAdd(ctx, shardsKey(view), members...).Err(); err != nil {
		return views.Away(err)
	}
	return nil
}

// Heads implements views.Store.
func (s *Store) Heads(ctx context.Context, view string, shards []uint32) ([]views.Head, error) {
	answers := make([]*redis.SliceCmd, len(shards))
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, shard := range shards {
			answers[i] = p.HMGet(ctx, metaKey(view, shard), "live", "gen")
		}
		return nil
	})
	if err != nil && len(shards) > 0 {
		return nil, views.Away(err)
	}
	out := make([]views.Head, len(shards))
	for i, shard := range shards {
		var m struct {
			Live uint32 `redis:"live"`
			Gen  uint64 `redis:"gen"`
		}
		if err := answers[i].Scan(&m); err != nil {
			return nil, fmt.Errorf("views: %s is malformed: %w", metaKey(view, shard), err)
		}
		out[i] = views.Head{Live: m.Live, Generation: m.Gen}
	}
	return out, nil
}

// GoLive implements views.Store.
func (s *Store) GoLive(ctx context.Context, b views.Build) (live uint32, same bool, err error) {
	n, err := liveScript.Run(ctx, s.client, []string{metaKey(b.View, b.Shard)}, b.Version, b.Generation).Int64()
	if err != nil {
		return 0, false, views.Away(err)
	}
	return uint32(max(n, 0)), n >= 0, nil
}

// Renew implements views.Store.
func (s *Store) Renew(ctx context.Context, view string, shard uint32) (uint64, error) {
	var generation *redis.IntCmd
	if _, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		generation = p.HIncrBy(ctx, metaKey(view, shard), "gen", 1)
		p.HDel(ctx, metaKey(view, shard), "live")
		return nil
	}); err != nil {
		return 0, views.Away(err)
	}
	return uint64(generation.Val()), nil
}

// Drop implements views.Store. It looks at every key, on every master of a cluster.
func (s *Store) Drop(ctx context.Context, view string, shard uint32, unwanted func(views.Build) bool) error {
	start := fmt.Sprintf("pv:{%s:%d}:v", view, shard)
	return s.each(ctx, start, func(ctx context.Context, c redis.Cmdable, keys []string) error {
		keys = slices.DeleteFunc(keys, func(key string) bool {
			b := views.Build{View: view, Shard: shard}
			name, _, _ := strings.Cut(strings.TrimPrefix(key, start), ":")
			_, err := fmt.Sscanf(name, "%d.%d", &b.Version, &b.Generation)
			return err != nil || !unwanted(b)
		})
		if len(keys) == 0 {
			return nil
		}
		if err := c.Unlink(ctx, keys...).Err(); err != nil {
			return views.Away(err)
		}
		return nil
	})
}

// each visits the keys that begin with a prefix, some at a time and some
// perhaps twice, on every master of a cluster one after the other.
func (s *Store) each(ctx context.Context, prefix string, visit func(ctx context.Context, c redis.Cmdable, keys []string) error) error {
	scan := func(ctx context.Context, c redis.Cmdable) error {
		for cursor := uint64(0); ; {
			keys, next, err := c.Scan(ctx, cursor, prefix+"*", 1000).Result()
			if err != nil {
				return views.Away(err)
			}
			if err := visit(ctx, c, keys); err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	var one sync.Mutex // a cluster's masters are asked at once
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
			one.Lock()
			defer one.Unlock()
			return scan(ctx, c)
		})
	}
	return scan(ctx, s.client)
}

// Offsets implements views.Store.
func (s *Store) Offsets(ctx context.Context, builds ...views.Build) ([]uint64, error) {
	answers := make([]*redis.StringCmd, len(builds))
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, b := range builds {
			answers[i] = p.Get(ctx, offsetKey(b))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) && len(builds) > 0 {
		return nil, views.Away(err)
	}
	out := make([]uint64, len(builds))
	for i := range builds {
		if out[i], err = answers[i].Uint64(); err != nil && !errors.Is(err, redis.Nil) {
			return nil, views.Away(err)
		}
	}
	return out, nil
}

// Parked implements views.Store.
func (s *Store) Parked(ctx context.Context, b views.Build) (map[uint64]string, error) {
	all, err := s.client.HGetAll(ctx, parkedKey(b)).Result()
	if err != nil {
		return nil, views.Away(err)
	}
	out := map[uint64]string{}
	for index, reason := range all {
		n, err := strconv.ParseUint(index, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("views: %s holds a field that is no index", parkedKey(b))
		}
		out[n] = reason
	}
	return out, nil
}
