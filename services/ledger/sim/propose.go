package sim

import (
	"fmt"
	"slices"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/shard"
)

// hear learns from the group which shards are this node's.
func (n *node) hear() {
	if n.w.lost(n) {
		return
	}
	for p := range parts {
		if mine := n.w.assign[p] == n.id; mine != n.owners[p].assigned {
			n.owners[p].assigned = mine
			if mine {
				n.owners[p].Assign()
			} else {
				n.owners[p].Release()
			}
			n.drive(p)
		}
	}
}

// fit tells whether the group should leave a shard with this node.
func (n *node) fit(p int) bool {
	return !n.owners[p].Ended() && n.follow[p].Halted() == nil && (p != blockLog || n.blocks.Halted() == nil)
}

// propose appends the next block if there is one: what ledger's proposer does.
func (n *node) propose() {
	o := n.owners[blockLog]
	if o.State() != shard.Owning || n.blocks.Halted() != nil || len(o.waiting) > 0 {
		return
	}
	// The proposal must build on everything the block log holds.
	last, done := n.blocks.Last()
	next := n.follow[blockLog].Head().Next
	if done < next || n.proposed >= int64(next) {
		return
	}
	if _, final := n.blocks.Final(); n.w.now < n.gated && (final == nil || final.Height < n.gate) {
		return
	}
	if n.blocks.Policy().Last() == nil {
		n.record(fmt.Sprintf("policy-%d", next), replica.PolicyType, terms.Marshal())
		return
	}
	if n.submit(next) {
		return
	}
	var heads []receipt.Head
	for p := range blockLog {
		size := n.follow[p].Head().Next
		root, err := n.follow[p].Tree().Root(size)
		if err != nil {
			n.w.failf("%s has no root: %v", n, err)
			return
		}
		state, err := n.follow[p].StateRoot(size)
		if err != nil {
			n.w.failf("%s has no state: %v", n, err)
			return
		}
		heads = append(heads, receipt.Head{Log: names[p].log, Shard: names[p].shard, Size: size, Root: root, State: state})
	}
	block := core.NextBlock(n.blocks.Policy(), last, heads, n.clock())
	if block == nil {
		return
	}
	kind := "block"
	if n.spoil > 0 {
		spoil(block, n.spoil)
		kind = "bad"
		n.spoil = 0
		n.w.cover("branch: bad block proposed")
	}
	n.gated, n.gate = n.w.now+time.Second, block.Height
	n.record(fmt.Sprintf("%s-%d-%d", kind, block.Height, next), replica.BlockType, block.Marshal())
}

// record appends an event to the block log.
func (n *node) record(id, kind string, payload []byte) {
	o := n.owners[blockLog]
	pend, err := o.Submit(&ledgerv1.AppendRequest{
		Log: replica.BlockLog, RoutingKey: replica.BlockStream, RequestId: id,
		Writes: []*ledgerv1.StreamWrite{{
			Stream: replica.BlockStream, ExpectedRevision: core.Any,
			Events: []*ledgerv1.Event{{Type: kind, Payload: payload}},
		}},
	}, core.Provenance{Actor: n.String()})
	if err != nil {
		return
	}
	o.waiting = append(o.waiting, &waiting{pend: pend, since: n.w.wall(), reply: func(a shard.Answer, err error) {
		if err == nil {
			// The one after builds on this one, once it was read.
			n.proposed = max(n.proposed, int64(a.Index))
		}
	}})
	n.drive(blockLog)
}

// spoil makes a block one that does not verify.
func spoil(b *receipt.Block, how int) {
	b.Heads = slices.Clone(b.Heads)
	switch how {
	case 1:
		b.Heads[0].Root[3] ^= 8
	case 2:
		b.Prev[0] ^= 1
	case 3:
		b.Height++
	case 4:
		b.Origin = "ledger.sim/other"
	case 5:
		b.Policy.Hash[0] ^= 1
	case 6:
		b.Heads = b.Heads[:1]
	case 7:
		b.Heads[1].State[5] ^= 1
	default:
		b.Heads[1].Size, b.Heads[1].Root = 0, receipt.EmptyRoot()
	}
}
