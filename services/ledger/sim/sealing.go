package sim

import (
	"context"
	"errors"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// seals takes blocks in and lets out what is signed.
func (n *node) seals() {
	_, err := n.blocks.Step(context.Background())
	if n.disk.crashed() {
		return
	}
	if replica.NotYet(err) {
		n.w.cover("branch: block waits for its commits")
	}
	if n.blocks.Withheld() != "" {
		n.w.cover("branch: signature withheld")
	}
	if n.dice.IntN(16) == 0 {
		_, _ = n.blocks.Scrub()
	}
	n.halts()
	n.look()
	n.finals()
}

// look hands a new signature to the notary, after the checks that a stranger
// with the replica's files could make.
func (n *node) look() {
	text, block := n.blocks.Sealed()
	if n.w.bug == SignUnread {
		if text, block = n.blind(); block != nil && block.Height <= n.w.notary.highest[n.id] {
			return
		}
	}
	if block == nil || block.Height == n.sealed {
		return
	}
	n.sealed = block.Height
	policy := n.w.longest
	if n.wronged {
		policy = n.blocks.Policy() // it may have been told another
	}
	cp, signatures, err := policy.Cosignatures(text)
	if err == nil && (len(signatures) != 1 || signatures[0].Key != n.key.Public()) {
		err = errors.New("not by its own key")
	}
	if err != nil {
		n.w.failf("%s let out a checkpoint that does not verify: %v", n, err)
		return
	}
	for p := range blockLog {
		h, ok := block.Head(names[p].log, names[p].shard)
		if !ok {
			n.w.failf("%s signed a block without %s/%d", n, names[p].log, names[p].shard)
			return
		}
		root, err := rehash(n.follow[p], &n.rehash[p], h.Size)
		if err == nil && root != h.Root {
			err = errors.New("another root")
		}
		if err != nil {
			n.w.failf("%s signed %s/%d at %d, which its stored commits do not hash to: %v", n, h.Log, h.Shard, h.Size, err)
			return
		}
	}
	if !n.wronged && !n.w.tampered() {
		if h := int(cp.Size); h >= len(n.w.sealed) || n.w.sealed[h] != cp.Root {
			n.w.failf("%s signed a head of size %d that the block log does not have", n, cp.Size)
			return
		}
	}
	final, err := n.w.notary.sign(n.id, signature{cp.Size, cp.Root}, block)
	n.w.tracef("%s signs size %d root %x final %t", n, cp.Size, cp.Root[:4], final)
	if err != nil {
		n.w.failf("%v", err)
	}
	if final {
		n.w.cover("branch: block final")
	}
}

// finals compares what the node itself holds final with the notary's count.
func (n *node) finals() {
	if n.w.bug == EarlyPolicy {
		if cp, ok := n.early(); ok && n.w.notary.final[cp.Size] != cp.Root {
			n.w.failf("%s holds size %d final, which no quorum of the policy in force signed", n, cp.Size)
			return
		}
	}
	note, block := n.blocks.Final()
	if block == nil || block.Height == n.final {
		return
	}
	n.final = block.Height
	cp, err := receipt.UnverifiedCheckpoint(note)
	if err != nil {
		n.w.failf("%s holds a checkpoint final that is none: %v", n, err)
		return
	}
	if root, ok := n.w.notary.final[cp.Size]; (!ok || root != cp.Root) && !n.w.tampered() {
		n.w.failf("%s holds size %d final, which no quorum signed", n, cp.Size)
	}
	n.w.tracef("%s knows size %d final", n, cp.Size)
}

// exchange tells a peer what is known here and asks for what it knows.
func (n *node) exchange() {
	peer := n.w.nodes[(n.id+1+n.dice.IntN(replicas-1))%replicas]
	notes, life := n.blocks.Notes(), n.life
	if n.w.lost(n) || n.w.lost(peer) {
		return
	}
	n.w.after(n.w.leg(), func() {
		if !peer.up || n.w.now < peer.pausedUntil {
			return
		}
		peer.hears("", notes)
		if !peer.up || n.w.lost(n) || n.w.lost(peer) {
			return
		}
		answer := peer.blocks.Notes()
		n.in(life, n.w.leg(), func() { n.hears(peer.key.Public().Name, answer) })
	})
}

// hears takes in what a peer said.
func (n *node) hears(from string, notes [][]byte) {
	if n.blocks.Halted() == nil {
		_ = n.blocks.Hear(from, notes)
	}
	if n.disk.crashed() {
		n.die()
		return
	}
	n.halts()
	n.finals()
}

// halts notices that signing stopped.
func (n *node) halts() {
	err := n.blocks.Halted()
	if err == nil || n.stopped {
		return
	}
	n.stopped = true
	n.w.tracef("%s stops signing: %v", n, errors.Unwrap(err))
	n.w.cover("branch: sealing halted")
	if !n.wronged && !n.w.tampered() {
		n.w.failf("%s stopped signing and nobody gave it a reason: %v", n, errors.Unwrap(err))
	}
}

// blind is what a planted bug signs: the block log's last block that follows
// the one before, whatever it says about the shards.
func (n *node) blind() ([]byte, *receipt.Block) {
	var f frontier
	var last *receipt.Block
	_, err := n.follow[blockLog].Commits(0, func(c *ledgerv1.Commit) bool {
		for _, w := range c.Writes {
			for _, e := range w.Events {
				b, err := receipt.ParseBlock(e.Payload)
				if err == nil && core.CheckBlock(n.w.policy, last, b) == nil {
					f.add(b.Hash())
					last = b
				}
			}
		}
		return true
	})
	if err != nil || last == nil {
		return nil, nil
	}
	text, err := receipt.Checkpoint{Origin: origin, Size: last.Height, Root: f.root()}.Sign(n.key.Cosigner(n.clock()))
	if err != nil {
		return nil, nil
	}
	return text, last
}
