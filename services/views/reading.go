package views

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Reading is one look at a view: the live build of each shard, found once.
// Use it for one request and drop it.
type Reading struct {
	view   *View
	builds []build // by shard
}

// Ref is a key within the shard that holds it.
type Ref struct {
	Shard uint32
	Key   string
}

// key is where a reference is in Redis. A shard that doesn't exist has no
// build, so its keys are absent.
func (r *Reading) key(ref Ref) string {
	for _, b := range r.builds {
		if b.shard == ref.Shard {
			return r.view.data(b, ref.Key)
		}
	}
	return r.view.data(build{shard: ref.Shard}, ref.Key)
}

// Hashes loads hashes in one round trip; an absent one is nil.
func (r *Reading) Hashes(ctx context.Context, refs ...Ref) ([]map[string]string, error) {
	answers := make([]*redis.MapStringStringCmd, len(refs))
	_, err := r.view.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, ref := range refs {
			answers[i] = p.HGetAll(ctx, r.key(ref))
		}
		return nil
	})
	if err != nil && len(refs) > 0 {
		return nil, away(err)
	}
	out := make([]map[string]string, len(refs))
	for i, a := range answers {
		if len(a.Val()) > 0 {
			out[i] = a.Val()
		}
	}
	return out, nil
}

// Look asks for fields of the hash at a key.
type Look struct {
	Ref
	Fields []string
}

// Fields loads single fields of hashes in one round trip: for each look its
// fields' values in order, nil where absent.
func (r *Reading) Fields(ctx context.Context, looks ...Look) ([][]*string, error) {
	answers := make([]*redis.SliceCmd, len(looks))
	_, err := r.view.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, l := range looks {
			answers[i] = p.HMGet(ctx, r.key(l.Ref), l.Fields...)
		}
		return nil
	})
	if err != nil && len(looks) > 0 {
		return nil, away(err)
	}
	out := make([][]*string, len(looks))
	for i, a := range answers {
		out[i] = make([]*string, len(looks[i].Fields))
		for n, v := range a.Val() {
			if text, ok := v.(string); ok {
				out[i][n] = &text
			}
		}
	}
	return out, nil
}

// Find loads the hash at key from whichever shard has it, and says which;
// nil when none has. For keys that one shard only writes, as a claim's.
func (r *Reading) Find(ctx context.Context, key string) (Ref, map[string]string, error) {
	refs := r.everywhere(key)
	all, err := r.Hashes(ctx, refs...)
	if err != nil {
		return Ref{}, nil, err
	}
	for i, h := range all {
		if h != nil {
			return refs[i], h, nil
		}
	}
	return Ref{}, nil, nil
}

// Sum adds up a hash of integers over all shards, field by field.
func (r *Reading) Sum(ctx context.Context, key string) (map[string]int64, error) {
	all, err := r.Hashes(ctx, r.everywhere(key)...)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, h := range all {
		for field, value := range h {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, errors.New("views: Sum of a hash whose field " + field + " is no integer")
			}
			out[field] += n
		}
	}
	return out, nil
}

// Members returns a set's members over all shards, sorted.
func (r *Reading) Members(ctx context.Context, key string) ([]string, error) {
	var answers []*redis.StringSliceCmd
	_, err := r.view.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, ref := range r.everywhere(key) {
			answers = append(answers, p.SMembers(ctx, r.key(ref)))
		}
		return nil
	})
	if err != nil {
		return nil, away(err)
	}
	var out []string
	for _, a := range answers {
		out = append(out, a.Val()...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Count returns the size of a sorted set over all shards.
func (r *Reading) Count(ctx context.Context, key string) (int64, error) {
	var answers []*redis.IntCmd
	_, err := r.view.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, ref := range r.everywhere(key) {
			answers = append(answers, p.ZCard(ctx, r.key(ref)))
		}
		return nil
	})
	if err != nil {
		return 0, away(err)
	}
	total := int64(0)
	for _, a := range answers {
		total += a.Val()
	}
	return total, nil
}

func (r *Reading) everywhere(key string) []Ref {
	refs := make([]Ref, len(r.builds))
	for i, b := range r.builds {
		refs[i] = Ref{b.shard, key}
	}
	return refs
}

// Member is an element of a sorted set and the shard that holds it.
type Member struct {
	Name  string
	Score int64
	Shard uint32
}

// Page asks for a part of a sorted set that spans the shards.
type Page struct {
	// Min and Max bound the score, both included; nil is unbounded.
	Min, Max *int64
	// Descending is highest score first.
	Descending bool
	// After is the last member of the page before; nil begins.
	After *Member
	// Limit is how many at most; 0 is 100, more than 1,000 is 1,000.
	Limit int
}

// Range returns a page, ordered by score, then name, over all shards.
func (r *Reading) Range(ctx context.Context, key string, page Page) ([]Member, error) {
	if page.Limit <= 0 {
		page.Limit = 100
	}
	page.Limit = min(page.Limit, 1000)
	var out []Member
	for _, ref := range r.everywhere(key) {
		part, err := r.rangeShard(ctx, ref, page)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	slices.SortFunc(out, page.compare)
	return out[:min(len(out), page.Limit)], nil
}

// compare is the order of a page's members: Redis's own, total over shards.
func (p Page) compare(a, b Member) int {
	c := cmp.Or(cmp.Compare(a.Score, b.Score), strings.Compare(a.Name, b.Name))
	if p.Descending {
		return -c
	}
	return c
}

// rangeShard takes a shard's share of the page: what comes after page.After.
// Members that share its score come again from Redis and are dropped here.
func (r *Reading) rangeShard(ctx context.Context, ref Ref, page Page) ([]Member, error) {
	args := redis.ZRangeArgs{Key: r.key(ref), ByScore: true, Rev: page.Descending, Start: "-inf", Stop: "+inf", Count: max(int64(page.Limit)+1, 64)}
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
	var out []Member
	for {
		part, err := r.view.client.ZRangeArgsWithScores(ctx, args).Result()
		if err != nil {
			return nil, away(err)
		}
		for _, z := range part {
			name, _ := z.Member.(string)
			m := Member{Name: name, Score: int64(z.Score), Shard: ref.Shard}
			if page.After == nil || page.compare(m, *page.After) > 0 {
				out = append(out, m)
			}
		}
		if len(out) >= page.Limit || int64(len(part)) < args.Count {
			return out[:min(len(out), page.Limit)], nil
		}
		args.Offset += args.Count
	}
}
