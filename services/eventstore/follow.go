package eventstore

import (
	"context"
	"errors"
	"maps"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/problem"
)

// cursor is how far one follower has come. Only the goroutine inside Follow
// touches it.
type cursor struct {
	codec  Codec
	log    string
	next   map[uint32]uint64
	handle func(context.Context, Batch) error
}

// handlerError marks an error as the caller's own, so that Follow returns it
// as it is and doesn't take it for a broken connection.
type handlerError struct{ error }

func newCursor(codec Codec, log string, from map[uint32]uint64, handle func(context.Context, Batch) error) *cursor {
	next := maps.Clone(from)
	if next == nil {
		next = map[uint32]uint64{}
	}
	return &cursor{codec: codec, log: log, next: next, handle: handle}
}

// deliver hands one batch on and advances, in that order: what handle has not
// accepted is asked for again. It refuses a batch that goes backwards or
// reaches past its own heads, since following it would skip or repeat facts.
func (c *cursor) deliver(ctx context.Context, events []*ledgerv1.RecordedEvent, heads map[uint32]uint64, caughtUp bool) error {
	for shard, head := range heads {
		if head < c.next[shard] {
			return outOfOrder("a head went backwards")
		}
	}
	batch := Batch{Next: maps.Clone(c.next), CaughtUp: caughtUp}
	reached := map[uint32]uint64{}
	for _, e := range events {
		p := position(e.GetPosition())
		head, known := heads[p.Shard]
		switch {
		case p.Log != c.log:
			return outOfOrder("an event of another log")
		case !known || p.Index >= head:
			return outOfOrder("an event past the batch's head")
		case p.Index < c.next[p.Shard] || p.Index < reached[p.Shard]:
			return outOfOrder("an event out of order")
		}
		reached[p.Shard] = p.Index
		r, err := c.codec.recorded(e)
		if err != nil {
			return errors.Join(c.deliverBefore(ctx, batch, p), err)
		}
		batch.Events = append(batch.Events, r)
	}
	maps.Copy(batch.Next, heads)
	return c.hand(ctx, batch)
}

// deliverBefore hands on what precedes the commit at p, which can't be read.
func (c *cursor) deliverBefore(ctx context.Context, batch Batch, p Position) error {
	batch.CaughtUp = false
	whole := batch.Events[:0]
	for _, r := range batch.Events {
		if r.Position != p {
			whole = append(whole, r)
			batch.Next[r.Position.Shard] = r.Position.Index + 1
		}
	}
	if batch.Events = whole; len(whole) == 0 {
		return nil
	}
	return c.hand(ctx, batch)
}

func (c *cursor) hand(ctx context.Context, batch Batch) error {
	// handle may keep or change its map; the cursor's own stays private.
	next := maps.Clone(batch.Next)
	if err := c.handle(ctx, batch); err != nil {
		return handlerError{err}
	}
	c.next = next
	return nil
}

func outOfOrder(what string) error {
	return problem.New(problem.Internal, problem.Problem{
		RuleID:  "eventstore.follow.order",
		Message: "the ledger delivered " + what + "; following stopped rather than skip a fact",
		Fix:     "check the ledger node's replica (its log says where it differs), then restart this follower",
	})
}
