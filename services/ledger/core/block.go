package core

import (
	"slices"
	"time"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// NextBlock builds the block after prev (nil under the first) from heads in
// any order, or nil when nothing moved.
func NextBlock(origin string, prev *receipt.Block, heads []receipt.Head, at time.Time) *receipt.Block {
	b := &receipt.Block{Origin: origin, Height: 1, Time: at.UTC(), Heads: slices.Clone(heads)}
	slices.SortFunc(b.Heads, receipt.Head.Compare)
	if prev == nil {
		if !slices.ContainsFunc(b.Heads, func(h receipt.Head) bool { return h.Size > 0 }) {
			return nil
		}
		return b
	}
	if slices.Equal(prev.Heads, b.Heads) {
		return nil
	}
	b.Height, b.Prev = prev.Height+1, prev.Hash()
	if b.Time.Before(prev.Time) {
		// A proposer's slow clock must not make time run backwards.
		b.Time = prev.Time
	}
	return b
}

// CheckBlock applies the rules by which a block extends prev (nil under the
// first). It does not look at roots: a replica compares those with the trees
// it built itself. The error is a *Violation.
//
// A log's shard count is fixed by the first block that names it: later
// blocks name exactly those shards. New logs may appear.
func CheckBlock(origin string, prev, b *receipt.Block) error {
	if b.Origin != origin {
		return violated("ledger.block.origin", "block %d is of another ledger", b.Height)
	}
	if prev == nil {
		if b.Height != 1 || b.Prev != (receipt.Hash{}) {
			return violated("ledger.block.height", "the first block has height %d", b.Height)
		}
		return checkShards(nil, b)
	}
	switch {
	case b.Height != prev.Height+1:
		return violated("ledger.block.height", "block %d follows block %d", b.Height, prev.Height)
	case b.Prev != prev.Hash():
		return violated("ledger.block.prev", "block %d does not name the block below it", b.Height)
	case b.Time.Before(prev.Time):
		return violated("ledger.block.time", "block %d is older than the block below it", b.Height)
	}
	return checkShards(prev, b)
}

func checkShards(prev, b *receipt.Block) error {
	shards := func(b *receipt.Block) map[string]uint32 {
		n := map[string]uint32{}
		for _, h := range b.Heads {
			n[h.Log]++
		}
		return n
	}
	counts := shards(b)
	moved := prev == nil
	for _, h := range b.Heads {
		if h.Shard >= counts[h.Log] {
			return violated("ledger.block.shards", "block %d skips a shard of log %s", b.Height, h.Log)
		}
		if h.Size == 0 && h.Root != receipt.EmptyRoot() {
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
		case h.Size == before.Size && h.Root != before.Root:
			return violated("ledger.block.head", "block %d changes the root of %s/%d without a commit", b.Height, h.Log, h.Shard)
		case h.Size > before.Size:
			moved = true
		}
	}
	if prev != nil {
		for log, n := range shards(prev) {
			if counts[log] != n {
				return violated("ledger.block.shards", "block %d changes the shard count of log %s", b.Height, log)
			}
		}
	}
	if !moved {
		return violated("ledger.block.empty", "block %d seals nothing new", b.Height)
	}
	return nil
}
