package replica

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// maxBlocks bounds what follow takes in at once, and so what one checkpoint adds.
const maxBlocks = 1024

// progress is how far the block log was taken in.
type progress struct {
	last   *receipt.Block
	policy receipt.Policy
	texts  [][]byte // of the valid blocks on the way, from the one after the first last on
}

// follow takes the block log's new commits in, at most maxBlocks blocks. It may
// move and still return that it waits for a shard.
func (b *Blocks) follow() (moved bool, err error) {
	b.mu.RLock()
	at, next := progress{last: b.last, policy: b.policy}, b.cursor
	b.mu.RUnlock()
	start, before := next, at
	var failed, wait error
	_, err = b.cfg.Log.Commits(next, func(c *ledgerv1.Commit) bool {
		took, err := b.take(at, c)
		switch {
		case NotYet(err):
			wait = err
			return false
		case err != nil:
			failed = err
			return false
		}
		at, next = took, c.Index+1
		return len(at.texts) < maxBlocks
	})
	if err = errors.Join(err, failed); err != nil {
		return false, err
	}
	if next == start {
		return false, wait
	}
	headers, err := b.store(before, at, next)
	if err != nil {
		return false, err
	}
	for _, h := range headers {
		b.tree.Append(h)
	}
	b.mu.Lock()
	b.last, b.policy, b.cursor = at.last, at.policy, next
	b.mu.Unlock()
	if was, is := before.policy.Last(), at.policy.Last(); was != is {
		b.cfg.Logger.Warn("the ledger has a new policy", "sequence", is.Sequence, "activates", is.Activation, "quorum", is.Quorum, "cosigners", len(is.Cosigners()))
		b.tallyMu.Lock()
		b.tally.SetPolicy(at.policy)
		b.tallyMu.Unlock()
	}
	return true, wait
}

// store makes durable what the block log says and its blocks seal, stores
// what was taken in of it, and returns the new blocks' leaf entries. The rows
// themselves are not synced: OpenBlocks takes them from the commits again.
func (b *Blocks) store(before, at progress, next uint64) (headers [][]byte, err error) {
	batch := b.cfg.Store.db.NewBatch()
	defer batch.Close()
	cur := cursor{Next: next}
	if at.last != nil {
		cur.Height = at.last.Height
	}
	first := cur.Height + 1 - uint64(len(at.texts))
	for i, text := range at.texts {
		block, err := receipt.ParseBlock(text)
		if err != nil {
			return nil, err
		}
		header := block.Header()
		headers = append(headers, header.Marshal())
		if err := batch.Set(blockKey(first+uint64(i)), text, nil); err != nil {
			return nil, err
		}
	}
	if t := at.policy.Last(); t != nil {
		cur.Policies = t.Sequence
		from := uint64(1)
		if was := before.policy.Last(); was != nil {
			from = was.Sequence + 1
		}
		for seq := from; seq <= cur.Policies; seq++ {
			if err := batch.Set(policyKey(seq), at.policy.Note(seq), nil); err != nil {
				return nil, err
			}
		}
	}
	if len(at.texts) > 0 {
		if err := b.putStates(batch, at.last); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(cur)
	if err != nil {
		return nil, err
	}
	if err := batch.Set(blockCursor, raw, nil); err != nil {
		return nil, err
	}
	// No row may outlive the commits it derives from.
	if err := b.cfg.Store.syncCommits(); err != nil {
		return nil, err
	}
	return headers, batch.Commit(pebble.NoSync)
}

// putStates stores the compact ranges over the index rows at the sizes a
// block seals and lets the shards forget what lies below.
func (b *Blocks) putStates(batch *pebble.Batch, block *receipt.Block) error {
	var states []sealedState
	for _, h := range block.Heads {
		s := b.shard(h.Log, h.Shard)
		if s == nil {
			continue
		}
		s.mu.Lock()
		nodes, err := s.states.rangeAt(h.Size)
		if err == nil {
			s.states.trim(h.Size, nodes)
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		states = append(states, sealedState{Log: h.Log, Shard: h.Shard, Size: h.Size, Nodes: nodes})
	}
	raw, err := json.Marshal(states)
	if err != nil {
		return err
	}
	return batch.Set(blockStates, raw, nil)
}

// take applies one commit of the block log: its valid blocks and policies
// count, the others are named and ignored.
func (b *Blocks) take(at progress, c *ledgerv1.Commit) (progress, error) {
	ignored := func(what string, v *core.Violation) {
		b.cfg.Logger.Error("ignored a "+what+" that does not verify", "proposer", c.Actor, "rule", v.Rule, "what", v.What, "index", c.Index)
	}
	for _, w := range c.Writes {
		for _, e := range w.Events {
			var v *core.Violation
			switch e.Type {
			case PolicyType:
				var height uint64
				if at.last != nil {
					height = at.last.Height
				}
				if at.policy.Last() != nil && string(at.policy.Note(1)) == string(e.Payload) {
					continue // two proposers began the ledger alike
				}
				policy, err := core.TakePolicy(at.policy, b.cfg.Root, height, e.Payload)
				if errors.As(err, &v) {
					ignored("policy", v)
					continue
				}
				if err != nil {
					return at, err
				}
				at.policy = policy
			case BlockType:
				block, err := b.verify(at, e.Payload)
				if errors.As(err, &v) {
					ignored("block", v)
					continue
				}
				if err != nil {
					return at, err
				}
				at.texts, at.last = append(at.texts, e.Payload), block
			}
		}
	}
	return at, nil
}

// verify returns a valid block; the error is a *core.Violation for one that
// isn't, NotYet while its commits are not read, and anything else where this
// replica cannot tell.
func (b *Blocks) verify(at progress, text []byte) (*receipt.Block, error) {
	block, err := receipt.ParseBlock(text)
	if err != nil {
		return nil, &core.Violation{Rule: "ledger.block.form", What: err.Error()}
	}
	if err := core.CheckBlock(at.policy, at.last, block); err != nil {
		return nil, err
	}
	for _, h := range block.Heads {
		if at.last != nil {
			if before, ok := at.last.Head(h.Log, h.Shard); ok && before == h {
				continue
			}
		}
		if h.Size > 0 {
			s := b.shard(h.Log, h.Shard)
			if s == nil {
				return nil, fmt.Errorf("replica: block %d seals log %s, which this node is not configured to follow", block.Height, h.Log)
			}
			if s.Head().Next < h.Size {
				return nil, &waitingFor{height: block.Height, log: h.Log, shard: h.Shard, size: h.Size}
			}
		}
		if err := b.matches(h); err != nil {
			return nil, err
		}
	}
	return block, nil
}

// matches compares a head with this replica's own tree.
func (b *Blocks) matches(h receipt.Head) error {
	s := b.shard(h.Log, h.Shard)
	if s == nil {
		return fmt.Errorf("no shard %s/%d here", h.Log, h.Shard)
	}
	root, err := s.tree.Root(h.Size)
	if err != nil {
		return err
	}
	if root != h.Root {
		return &core.Violation{Rule: "ledger.block.root", What: fmt.Sprintf("the root of %s/%d at %d is not the one this replica computed", h.Log, h.Shard, h.Size)}
	}
	state, err := s.StateRoot(h.Size)
	if err != nil {
		return err
	}
	if state != h.State {
		return &core.Violation{Rule: "ledger.block.state", What: fmt.Sprintf("the state of %s/%d at %d is not the one this replica computed", h.Log, h.Shard, h.Size)}
	}
	return nil
}
