package ledger

import (
	"context"
	"time"

	"connectrpc.com/connect"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/problem"
)

// Bounds of one message of a subscription. A commit is never split over
// two, so a message may exceed them by one commit.
const (
	followEvents  = 512
	followBytes   = 1 << 20
	followCommits = 4096 // skipped by the filter, before the heads are told
	maxTypes      = 256

	// followRest is how long what comes after a message waits for company: a
	// message costs its reader far more than a commit does. What comes to a
	// subscription that rested goes at once.
	followRest = 20 * time.Millisecond
)

// Subscribe implements the RPC: what the local store has from the given
// indexes on, then what arrives, as it arrives.
func (h handler) Subscribe(ctx context.Context, r *ledgerv1.SubscribeRequest, out *connect.ServerStream[ledgerv1.SubscribeResponse]) error {
	return h.follow(ctx, r, out.Send)
}

// follow sends messages through send until ctx or the node ends. Flow control
// is send's: while it blocks nothing is read, so nothing piles up.
func (h handler) follow(ctx context.Context, r *ledgerv1.SubscribeRequest, send func(*ledgerv1.SubscribeResponse) error) error {
	if _, err := h.n.find(r.Log, 0); err != nil {
		return err
	}
	if len(r.Types) > maxTypes {
		return problem.Invalidf("ledger.subscribe.types", "types", "at most %d types are listed", maxTypes)
	}
	l := h.n.logs[r.Log]
	next := make([]uint64, len(l.shards))
	for _, from := range r.From {
		if int(from.GetShard()) >= len(next) {
			return problem.Invalidf("ledger.subscribe.shard", "from", "the log has %d shards", len(next))
		}
		next[from.Shard] = from.Index
	}
	types := map[string]bool{}
	for _, t := range r.Types {
		types[t] = true
	}
	told := false // the client knows that it is caught up, at these heads
	turn := 0     // the shard that comes first, so that a busy one starves no other
	var resting time.Time
	for {
		changed := l.changed.Wait()
		var msg *ledgerv1.SubscribeResponse
		var more bool
		err := h.n.read(func() (err error) {
			msg, more, err = gather(l.shards, next, types, &turn)
			return err
		})
		if err != nil {
			return err
		}
		msg.CaughtUp = !more
		if more || !told || msg.Next != nil {
			if msg.Next == nil {
				msg.Next = heads(next)
			}
			if err := send(msg); err != nil {
				return err
			}
			told, resting = !more, time.Now().Add(followRest)
		}
		if more {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if err := until(ctx, changed, h.n.closing); err != nil {
			return err
		}
		if rest := time.Until(resting); rest > 0 {
			if err := until(ctx, time.After(rest), h.n.closing); err != nil {
				return err
			}
		}
	}
}

// until waits for a channel, unless the call or the node ends first.
func until[T any](ctx context.Context, awaited <-chan T, closing <-chan struct{}) error {
	select {
	case <-awaited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closing:
		return closed()
	}
}

// gather takes one message's worth of commits from all shards, starting with
// the one whose turn it is, and advances next. more tells that the bounds cut
// it short; the turn is then the shard's after the one that was cut.
func gather(shards []*member, next []uint64, types map[string]bool, turn *int) (msg *ledgerv1.SubscribeResponse, more bool, err error) {
	msg = &ledgerv1.SubscribeResponse{}
	size, commits := 0, 0
	moved := false
	for k := range shards {
		i := (*turn + k) % len(shards)
		before := next[i]
		next[i], err = shards[i].replica.Commits(next[i], func(c *ledgerv1.Commit) bool {
			commits++
			for w, write := range c.Writes {
				for e, event := range write.Events {
					if len(types) > 0 && !types[event.Type] {
						continue
					}
					msg.Events = append(msg.Events, replica.Recorded(c, w, e))
					size += len(event.Payload) + 256
				}
			}
			more = len(msg.Events) >= followEvents || size >= followBytes || commits >= followCommits
			return !more
		})
		if err != nil {
			return nil, false, err
		}
		moved = moved || next[i] != before
		if more {
			*turn = (i + 1) % len(shards)
			break
		}
	}
	if moved {
		msg.Next = heads(next)
	}
	return msg, more, nil
}

func heads(next []uint64) []*ledgerv1.ShardIndex {
	out := make([]*ledgerv1.ShardIndex, len(next))
	for i, n := range next {
		out[i] = &ledgerv1.ShardIndex{Shard: uint32(i), Index: n}
	}
	return out
}
