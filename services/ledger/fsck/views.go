package fsck

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/replica"
)

// View is a read model beside the ledger that can compute itself anew from a
// log's commits, a shard at a time, and compare. An error of any method is a
// reason why it can't, and is reported as something not checked.
type View interface {
	Name() string
	Log() string
	// Next returns, for each shard, the index after the last commit it has
	// taken in.
	Next(ctx context.Context) (map[uint32]uint64, error)
	// Begin turns to a shard, whose commits below Next then follow in order.
	Begin(ctx context.Context, shard uint32) error
	Take(index uint64, events []*ledgerv1.RecordedEvent) error
	// Compare names the keys that hold something other than the commits say.
	Compare(ctx context.Context, differs func(key, what string)) error
}

// view compares a read model with the commits that are stored here.
func (c *checker) view(ctx context.Context, v View) error {
	next, err := v.Next(ctx)
	if err != nil {
		c.notice("the view %s was not checked: %v", v.Name(), err)
		return ctx.Err()
	}
	for _, shard := range slices.Sorted(maps.Keys(next)) {
		if err := c.viewShard(ctx, v, shardID{v.Log(), shard}, next[shard]); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) viewShard(ctx context.Context, v View, id shardID, next uint64) error {
	skip := func(format string, args ...any) error {
		c.notice("the view %s of %s was not checked: %s", v.Name(), id, fmt.Sprintf(format, args...))
		return ctx.Err()
	}
	s := c.shards[id]
	if s == nil {
		if next > 0 {
			c.fault("view", fmt.Sprintf("%s %s", v.Name(), id), "it has taken in %d commits of a shard that has none here", next)
		}
		return nil
	}
	if next > s.tree.size {
		return skip("it has taken in %d commits and this replica holds %d: check a replica that is level with it", next, s.tree.size)
	}
	if s.outset > 0 {
		return skip("this replica began with index rows and holds commits from %d on: check one that holds every commit", s.outset)
	}
	if err := v.Begin(ctx, id.shard); err != nil {
		return skip("%v", err)
	}
	for index := range next {
		c.tell("view %s: commit %d of %d of %s", v.Name(), index, next, id)
		body, err := c.stored.Body(id.log, id.shard, index)
		if err != nil {
			return skip("commit %d cannot be read", index)
		}
		commit := &ledgerv1.Commit{}
		if body == nil || proto.Unmarshal(body, commit) != nil {
			return skip("commit %d is damaged", index)
		}
		var events []*ledgerv1.RecordedEvent
		for w := range commit.Writes {
			for e := range commit.Writes[w].Events {
				events = append(events, replica.Recorded(commit, w, e))
			}
		}
		if err := v.Take(index, events); err != nil {
			return skip("%v", err)
		}
	}
	if err := v.Compare(ctx, func(key, what string) {
		c.fault("view", fmt.Sprintf("%s %s %s", v.Name(), id, key), "%s", what)
	}); err != nil {
		return skip("%v", err)
	}
	return nil
}
