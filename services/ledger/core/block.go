package core

import (
	"slices"
	"time"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// NextBlock builds the block after prev (nil under the first) from heads in
// any order, or nil when nothing moved. Heads of logs that the policy in
// force at its height doesn't have are left out. A block whose time is ahead
// is followed by one that corrects it, though nothing moved: cosigners withhold
// their signatures from the former, and the latter's covers both.
func NextBlock(policy receipt.Policy, prev *receipt.Block, heads []receipt.Head, at time.Time) *receipt.Block {
	if policy.Last() == nil {
		return nil
	}
	b := &receipt.Block{Origin: policy.Origin(), Height: 1, Time: at.UTC(), Policy: policy.Last().Ref()}
	if prev != nil {
		b.Height = prev.Height + 1
	}
	logs := policy.At(b.Height).Logs
	for _, h := range heads {
		if slices.ContainsFunc(logs, func(l receipt.LogShards) bool { return l.Log == h.Log && h.Shard < l.Shards }) {
			b.Heads = append(b.Heads, h)
		}
	}
	slices.SortFunc(b.Heads, receipt.Head.Compare)
	if prev == nil {
		if !slices.ContainsFunc(b.Heads, func(h receipt.Head) bool { return h.Size > 0 }) {
			return nil
		}
		return b
	}
	if slices.Equal(prev.Heads, b.Heads) && prev.Policy == b.Policy && !b.Time.Before(prev.Time) {
		return nil
	}
	b.Prev = prev.Hash()
	return b
}

// CheckBlock applies the rules by which a block extends prev (nil under the
// first), given the policy as it was recorded so far. It does not look at
// roots: a replica compares those with the trees it built itself. Nor does a
// block's time have to rise: it is one proposer's claim, and if every later one
// had to be as late, a single clock far ahead would keep the ledger from ever
// being final. The error is a *Violation.
func CheckBlock(policy receipt.Policy, prev, b *receipt.Block) error {
	if policy.Last() == nil {
		return violated("ledger.block.policy", "block %d comes before any policy", b.Height)
	}
	if b.Origin != policy.Origin() {
		return violated("ledger.block.origin", "block %d is of another ledger", b.Height)
	}
	switch {
	case prev == nil && (b.Height != 1 || b.Prev != receipt.Hash{}):
		return violated("ledger.block.height", "the first block has height %d", b.Height)
	case prev == nil:
	case b.Height != prev.Height+1:
		return violated("ledger.block.height", "block %d follows block %d", b.Height, prev.Height)
	case b.Prev != prev.Hash():
		return violated("ledger.block.prev", "block %d does not name the block below it", b.Height)
	}
	if b.Policy != policy.Last().Ref() {
		return violated("ledger.block.policy", "block %d names policy %d and the newest recorded is %d", b.Height, b.Policy.Sequence, policy.Last().Sequence)
	}
	if err := checkShards(policy.At(b.Height), b); err != nil {
		return err
	}
	return checkHeads(prev, b)
}

// checkShards compares the heads with the logs the policy has: each shard of
// each log once, and no other.
func checkShards(terms *receipt.Terms, b *receipt.Block) error {
	n := 0
	for _, l := range terms.Logs {
		for shard := range l.Shards {
			if n >= len(b.Heads) || b.Heads[n].Log != l.Log || b.Heads[n].Shard != shard {
				return violated("ledger.block.shards", "block %d has no head of %s/%d where the policy has that shard", b.Height, l.Log, shard)
			}
			n++
		}
	}
	if n != len(b.Heads) {
		return violated("ledger.block.shards", "block %d has heads of shards the policy doesn't have", b.Height)
	}
	return nil
}

func checkHeads(prev, b *receipt.Block) error {
	moved := prev == nil || prev.Policy != b.Policy || b.Time.Before(prev.Time)
	for _, h := range b.Heads {
		if h.Size == 0 && (h.Root != receipt.EmptyRoot() || h.State != receipt.EmptyRoot()) {
			return violated("ledger.block.head", "block %d gives an empty shard a root", b.Height)
		}
		if prev == nil {
			continue
		}
		before, ok := prev.Head(h.Log, h.Shard)
		switch {
		case !ok:
			moved = true
		case h.Size < before.Size:
			return violated("ledger.block.head", "block %d shrinks %s/%d", b.Height, h.Log, h.Shard)
		case h.Size == before.Size && h != before:
			return violated("ledger.block.head", "block %d changes the root of %s/%d without a commit", b.Height, h.Log, h.Shard)
		case h.Size > before.Size:
			moved = true
		}
	}
	if !moved {
		return violated("ledger.block.empty", "block %d seals nothing new", b.Height)
	}
	return nil
}
