package views

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/eventstore"
)

// Audit computes a view's tables anew, shard by shard, from a log's commits,
// and compares what Redis holds. It writes nothing, and trusts nothing in
// Redis but how far the view has come and which commits it parked.
//
//	Next, then for each shard: Begin, Take its commits in order, Compare.
type Audit struct {
	view  *View
	codec eventstore.Codec
	wants []string // event types; empty is all

	build  build
	next   uint64
	parked map[uint64]bool
	tables map[string]*table
}

// table is what a key holds.
type table struct {
	kind   string
	hash   map[string]string
	scores map[string]int64 // a sorted set's, or a set's with scores of 0
	text   string
}

// NewAudit returns an audit of a view whose events codec reads.
func NewAudit(v *View, codec eventstore.Codec) *Audit {
	return &Audit{view: v, codec: codec, wants: codec.Sources(v.projection.Types)}
}

// Name returns the view's name.
func (a *Audit) Name() string { return a.view.projection.Name }

// Log returns the log that the view follows.
func (a *Audit) Log() string { return a.view.projection.Log }

// Next returns, for each shard, the index after the last commit that the view
// has taken in.
func (a *Audit) Next(ctx context.Context) (map[uint32]uint64, error) {
	shards, err := a.view.knownShards(ctx)
	if err != nil {
		return nil, err
	}
	out := map[uint32]uint64{}
	for _, shard := range shards {
		if err := a.Begin(ctx, shard); err != nil {
			return nil, err
		}
		out[shard] = a.next
	}
	return out, nil
}

// Begin turns to a shard.
func (a *Audit) Begin(ctx context.Context, shard uint32) error {
	builds, err := a.view.builds(ctx, []uint32{shard})
	if err != nil {
		return err
	}
	a.build, a.tables, a.parked = builds[0], map[string]*table{}, map[uint64]bool{}
	switch a.build.version {
	case a.view.projection.Version:
	case 0:
		return building()
	default:
		return fmt.Errorf("views: Redis serves version %d of %s and this program computes version %d", a.build.version, a.Name(), a.view.projection.Version)
	}
	offsets, err := a.view.offsets(ctx, a.build)
	if err != nil {
		return err
	}
	a.next = offsets[0]
	marks, err := a.view.client.HGetAll(ctx, a.view.parked(a.build)).Result()
	if err != nil {
		return away(err)
	}
	for index, reason := range marks {
		n, err := strconv.ParseUint(index, 10, 64)
		if err != nil || strings.HasPrefix(reason, "partly applied") {
			return fmt.Errorf("views: %s/%d has a commit that was applied in part: only building it anew tells what it should hold", a.Name(), shard)
		}
		a.parked[n] = true
	}
	return nil
}

// Take adds a commit's events, in order; what the view has not come to yet is
// left out.
func (a *Audit) Take(index uint64, events []*ledgerv1.RecordedEvent) error {
	if index >= a.next || a.parked[index] {
		return nil
	}
	for _, e := range events {
		if len(a.view.projection.Types) > 0 && !slices.Contains(a.wants, e.GetEvent().GetType()) {
			continue
		}
		recorded, err := a.codec.Recorded(e)
		if err != nil {
			return err
		}
		ops, err := a.view.projection.Apply(recorded)
		if err != nil {
			return fmt.Errorf("views: the projection %s refuses commit %d, and has not parked it", a.Name(), index)
		}
		for _, o := range ops {
			if err := a.apply(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply does what Redis does.
func (a *Audit) apply(o Op) error {
	if o.cmd == "DEL" {
		delete(a.tables, o.key)
		return nil
	}
	t := a.tables[o.key]
	if t == nil {
		t = &table{kind: o.kind, hash: map[string]string{}, scores: map[string]int64{}}
		a.tables[o.key] = t
	}
	if t.kind != o.kind {
		return fmt.Errorf("views: %s is a %s and %s needs a %s", o.key, t.kind, o.cmd, o.kind)
	}
	switch o.cmd {
	case "HSET":
		for i := 0; i+1 < len(o.args); i += 2 {
			t.hash[o.args[i]] = o.args[i+1]
		}
	case "HDEL":
		for _, f := range o.args {
			delete(t.hash, f)
		}
	case "HINCRBY":
		sum, err := add(t.hash[o.args[0]], o.args[1])
		if err != nil {
			return err
		}
		t.hash[o.args[0]] = sum
	case "ZADD":
		score, err := strconv.ParseInt(o.args[0], 10, 64)
		if err != nil {
			return err
		}
		t.scores[o.args[1]] = score
	case "SADD":
		for _, m := range o.args {
			t.scores[m] = 0
		}
	case "ZREM", "SREM":
		for _, m := range o.args {
			delete(t.scores, m)
		}
	case "SET":
		t.text = o.args[0]
	case "INCRBY":
		sum, err := add(t.text, o.args[0])
		if err != nil {
			return err
		}
		t.text = sum
	default:
		return fmt.Errorf("views: %s is no command of a projection", o.cmd)
	}
	if t.kind != "string" && len(t.hash)+len(t.scores) == 0 {
		delete(a.tables, o.key) // Redis keeps nothing empty
	}
	return nil
}

func add(have, by string) (string, error) {
	if have == "" {
		have = "0"
	}
	n, err := strconv.ParseInt(have, 10, 64)
	if err != nil {
		return "", err
	}
	m, err := strconv.ParseInt(by, 10, 64)
	return strconv.FormatInt(n+m, 10), err
}

// Compare calls differs with each key of the shard that holds something other
// than its commits say. It names no values.
func (a *Audit) Compare(ctx context.Context, differs func(key, what string)) error {
	prefix := a.view.data(a.build, "")
	found := map[string]bool{}
	err := a.view.each(ctx, prefix, func(ctx context.Context, c redis.Cmdable, keys []string) error {
		for _, full := range keys {
			key := strings.TrimPrefix(full, prefix)
			if found[key] {
				continue // a scan may come by twice
			}
			found[key] = true
			want := a.tables[key]
			if want == nil {
				differs(key, "no commit says so")
				continue
			}
			what, err := want.compare(ctx, c, full)
			if err != nil {
				return err
			}
			if what != "" {
				differs(key, what)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(a.tables)) {
		if !found[key] {
			differs(key, "it is missing")
		}
	}
	offsets, err := a.view.offsets(ctx, a.build)
	if err != nil {
		return err
	}
	if offsets[0] != a.next {
		return fmt.Errorf("views: %s moved on while it was compared: stop the service that writes it", a.Name())
	}
	return nil
}

// compare reads a key and says what is wrong with it.
func (t *table) compare(ctx context.Context, c redis.Cmdable, key string) (string, error) {
	kind, err := c.Type(ctx, key).Result()
	if err != nil {
		return "", away(err)
	}
	if kind != t.kind {
		return "it is of another type", nil
	}
	switch kind {
	case "hash":
		have, err := c.HGetAll(ctx, key).Result()
		if err != nil {
			return "", away(err)
		}
		for _, f := range slices.Sorted(maps.Keys(t.hash)) {
			if v, ok := have[f]; !ok || v != t.hash[f] {
				return "field " + f + " is not what the commits say", nil
			}
		}
		if len(have) != len(t.hash) {
			return "it has fields that no commit gave it", nil
		}
	case "zset":
		have, err := c.ZRangeWithScores(ctx, key, 0, -1).Result()
		if err != nil {
			return "", away(err)
		}
		for _, z := range have {
			member, _ := z.Member.(string)
			if score, ok := t.scores[member]; !ok || float64(score) != z.Score {
				return "a member is not where the commits say", nil
			}
		}
		if len(have) != len(t.scores) {
			return "members are missing", nil
		}
	case "set":
		have, err := c.SMembers(ctx, key).Result()
		if err != nil {
			return "", away(err)
		}
		for _, m := range have {
			if _, ok := t.scores[m]; !ok {
				return "a member is there that no commit put", nil
			}
		}
		if len(have) != len(t.scores) {
			return "members are missing", nil
		}
	case "string":
		have, err := c.Get(ctx, key).Result()
		if err != nil {
			return "", away(err)
		}
		if have != t.text {
			return "it is not what the commits say", nil
		}
	}
	return "", nil
}
