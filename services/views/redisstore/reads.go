package redisstore

import (
	"context"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/probity-health/probity/services/views"
)

// Hashes implements views.Store, in one round trip.
func (s *Store) Hashes(ctx context.Context, looks ...views.Fields) ([]map[string]string, error) {
	whole, parts := make([]*redis.MapStringStringCmd, len(looks)), make([]*redis.SliceCmd, len(looks))
	asked := false
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, l := range looks {
			switch key := dataKey(l.Build, l.Key); {
			case l.Fields == nil:
				whole[i], asked = p.HGetAll(ctx, key), true
			case len(l.Fields) > 0:
				parts[i], asked = p.HMGet(ctx, key, l.Fields...), true
			}
		}
		return nil
	})
	if err != nil && asked {
		return nil, views.Away(err)
	}
	out := make([]map[string]string, len(looks))
	for i, l := range looks {
		if whole[i] != nil && len(whole[i].Val()) > 0 {
			out[i] = whole[i].Val()
		}
		if parts[i] == nil {
			continue
		}
		for n, v := range parts[i].Val() {
			text, ok := v.(string)
			if !ok {
				continue
			}
			if out[i] == nil {
				out[i] = make(map[string]string, len(l.Fields))
			}
			out[i][l.Fields[n]] = text
		}
	}
	return out, nil
}

// Members implements views.Store.
func (s *Store) Members(ctx context.Context, sets ...views.At) ([][]string, error) {
	answers := make([]*redis.StringSliceCmd, len(sets))
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, at := range sets {
			answers[i] = p.SMembers(ctx, dataKey(at.Build, at.Key))
		}
		return nil
	})
	if err != nil && len(sets) > 0 {
		return nil, views.Away(err)
	}
	out := make([][]string, len(sets))
	for i, a := range answers {
		out[i] = a.Val()
	}
	return out, nil
}

// Count implements views.Store.
func (s *Store) Count(ctx context.Context, sets ...views.At) (int64, error) {
	answers := make([]*redis.IntCmd, len(sets))
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, at := range sets {
			answers[i] = p.ZCard(ctx, dataKey(at.Build, at.Key))
		}
		return nil
	})
	if err != nil && len(sets) > 0 {
		return 0, views.Away(err)
	}
	total := int64(0)
	for _, a := range answers {
		total += a.Val()
	}
	return total, nil
}

// Range implements views.Store. Members that share the score of page.After
// come again from Redis and are dropped here.
func (s *Store) Range(ctx context.Context, set views.At, page views.Page) ([]views.Member, error) {
	args := redis.ZRangeArgs{
		Key: dataKey(set.Build, set.Key), ByScore: true, Rev: page.Descending,
		Start: "-inf", Stop: "+inf", Count: max(int64(page.Limit)+1, 64),
	}
	if page.Min != nil {
		args.Start = *page.Min
	}
	if page.Max != nil {
		args.Stop = *page.Max
	}
	if page.After != nil && page.Descending && (page.Max == nil || page.After.Score < *page.Max) {
		args.Stop = page.After.Score
	}
	if page.After != nil && !page.Descending && (page.Min == nil || page.After.Score > *page.Min) {
		args.Start = page.After.Score
	}
	if page.Descending {
		// ZRANGE … REV wants the higher end first.
		args.Start, args.Stop = args.Stop, args.Start
	}
	var out []views.Member
	for {
		part, err := s.client.ZRangeArgsWithScores(ctx, args).Result()
		if err != nil {
			return nil, views.Away(err)
		}
		for _, z := range part {
			name, _ := z.Member.(string)
			m := views.Member{Name: name, Score: int64(z.Score), Shard: set.Shard}
			if page.After == nil || page.Compare(m, *page.After) > 0 {
				out = append(out, m)
			}
		}
		if len(out) >= page.Limit || int64(len(part)) < args.Count {
			return out[:min(len(out), page.Limit)], nil
		}
		args.Offset += args.Count
	}
}

// Tables implements views.Store.
func (s *Store) Tables(ctx context.Context, b views.Build, visit func(key string, t views.Table) error) error {
	start := dataKey(b, "")
	return s.each(ctx, start, func(ctx context.Context, c redis.Cmdable, keys []string) error {
		for _, full := range keys {
			t, err := table(ctx, c, full)
			if err != nil {
				return views.Away(err)
			}
			if t.Kind == views.Nothing {
				continue // deleted since
			}
			if err := visit(strings.TrimPrefix(full, start), t); err != nil {
				return err
			}
		}
		return nil
	})
}

// table reads what a key holds.
func table(ctx context.Context, c redis.Cmdable, key string) (t views.Table, err error) {
	kind, err := c.Type(ctx, key).Result()
	if err != nil {
		return t, err
	}
	switch kind {
	case views.Hash.String():
		t.Kind = views.Hash
		t.Hash, err = c.HGetAll(ctx, key).Result()
	case views.SortedSet.String():
		t.Kind, t.Scores = views.SortedSet, map[string]int64{}
		var all []redis.Z
		all, err = c.ZRangeWithScores(ctx, key, 0, -1).Result()
		for _, z := range all {
			member, _ := z.Member.(string)
			t.Scores[member] = int64(z.Score)
		}
	case views.MemberSet.String():
		t.Kind, t.Scores = views.MemberSet, map[string]int64{}
		var all []string
		all, err = c.SMembers(ctx, key).Result()
		for _, m := range all {
			t.Scores[m] = 0
		}
	case views.String.String():
		t.Kind = views.String
		t.Text, err = c.Get(ctx, key).Result()
	}
	return t, err
}
