package ledger

import (
	"context"
	"fmt"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/shard"
)

// propose writes a block whenever heads moved, at most one an interval, while
// this node owns the block log. What it proposes is verified like anybody's.
func (n *Node) propose(ctx context.Context) {
	var proposed time.Time
	for ctx.Err() == nil {
		// Take the signal before looking, so that no move is missed.
		moved := n.moved.Wait()
		if err := n.proposeOnce(ctx, &proposed); err != nil && ctx.Err() == nil {
			n.logger.Warn("no block proposed", "error", err)
			// The block log's writer is taking its shard; try again soon.
			pause(ctx, n.cfg.BlockInterval)
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
		}
		pause(ctx, n.cfg.BlockInterval-time.Since(proposed))
	}
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// proposeOnce appends the policy's versions the ledger lacks and the next
// block if there is one, and waits until this replica has judged it, so that
// the one after builds on it.
func (n *Node) proposeOnce(ctx context.Context, proposed *time.Time) error {
	if n.block.writer.State() != shard.Owning || n.blocks.Halted() != nil {
		return nil
	}
	// The proposal must build on everything the block log holds.
	if err := n.awaitBlocks(ctx, n.block.replica.Head().Next); err != nil {
		return err
	}
	if err := n.proposePolicy(ctx); err != nil {
		return err
	}
	heads, err := n.heads()
	if err != nil {
		return err
	}
	last, _ := n.blocks.Last()
	block := core.NextBlock(n.blocks.Policy(), last, heads, n.cfg.Now())
	if block == nil {
		return nil
	}
	*proposed = time.Now()
	id := fmt.Sprintf("block-%d-%d", block.Height, n.block.replica.Head().Next)
	if err := n.record(ctx, id, replica.BlockType, block.Marshal()); err != nil {
		return err
	}
	return n.awaitFinal(ctx, block.Height)
}

// record appends one event to the block log and waits until this replica has
// judged it.
func (n *Node) record(ctx context.Context, id, kind string, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	pending, err := n.block.writer.Submit(&ledgerv1.AppendRequest{
		Log: replica.BlockLog, RoutingKey: replica.BlockStream, RequestId: id,
		Writes: []*ledgerv1.StreamWrite{{
			Stream: replica.BlockStream, ExpectedRevision: core.Any,
			Events: []*ledgerv1.Event{{Type: kind, Payload: payload}},
		}},
	}, core.Provenance{Actor: n.cfg.NodeName})
	if err != nil {
		return err
	}
	answer, err := pending.Wait(ctx)
	if err != nil {
		return err
	}
	return n.awaitBlocks(ctx, answer.Index+1)
}

// finalGate is how long the next block waits for the one before to become
// final. Replicas that always look at the same head sign the same head; with
// no quorum to be had, blocks go on at this pace.
const finalGate = time.Second

func (n *Node) awaitFinal(ctx context.Context, height uint64) error {
	if n.blocks.Policy().At(height).Quorum <= 1 {
		return nil
	}
	gate, cancel := context.WithTimeout(ctx, finalGate)
	defer cancel()
	for {
		changed := n.blocks.Changed.Wait()
		if _, final := n.blocks.Final(); final != nil && final.Height >= height {
			return nil
		}
		if err := n.blocks.Halted(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-gate.Done():
			return ctx.Err()
		}
	}
}

// awaitBlocks waits until Blocks took the block log's first commits in.
func (n *Node) awaitBlocks(ctx context.Context, commits uint64) error {
	for {
		changed := n.blocks.Changed.Wait()
		if _, done := n.blocks.Last(); done >= commits {
			return nil
		}
		if err := n.blocks.Halted(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// heads returns the shard heads as this replica computed them.
func (n *Node) heads() ([]receipt.Head, error) {
	var out []receipt.Head
	for _, name := range n.cfg.logNames() {
		for i, m := range n.logs[name].shards {
			size := m.replica.Head().Next
			root, err := m.replica.Tree().Root(size)
			if err != nil {
				return nil, err
			}
			state, err := m.replica.StateRoot(size)
			if err != nil {
				return nil, err
			}
			out = append(out, receipt.Head{Log: name, Shard: uint32(i), Size: size, Root: root, State: state})
		}
	}
	return out, nil
}
