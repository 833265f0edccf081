package sim

import (
	"context"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// deception is one bit the broker flips for one replica.
type deception struct {
	part int
	bit  int
	at   int64 // the offset, once it was met
	met  bool
	own  bool // the node wrote that record itself
}

// source is the node's view of a partition.
type source struct {
	n *node
	p int
	// memory is what a planted bug answers a second reading from.
	memory map[int64][]byte

	audit bool
	asked int64 // the offset of the last Fetch
	wrong int64 // that of the first record of it that was altered, -1 for none
}

// Fetch implements replica.Source without waiting.
func (s *source) Fetch(_ context.Context, offset int64) (replica.Fetched, error) {
	n, w := s.n, s.n.w
	s.asked, s.wrong = offset, -1
	if w.lost(n) {
		return replica.Fetched{}, errNoBroker
	}
	got, err := w.broker.fetch(n.id, s.p, offset, 1+w.net.IntN(12))
	if err != nil {
		return got, err
	}
	if d := n.deceive; d != nil && d.part == s.p && !d.met && len(got.Records) > 0 {
		at := got.Records[len(got.Records)-1].Offset
		switch own := w.authors[s.p][at] == (author{n, n.life}); {
		case own:
			w.cover("branch: owner deceived about its own record")
			d.met, d.at, d.own = true, at, true
		case d.bit%2 == 0: // the others wait for a record of the node's own
			w.cover("branch: replica deceived")
			d.met, d.at, n.deceived = true, at, true
		}
	}
	for _, r := range got.Records {
		if d := n.deceive; d != nil && d.met && d.part == s.p && d.at == r.Offset && len(r.Value) > 0 {
			at := d.bit / 8 % len(r.Value)
			if d.own {
				// Where payloads are, which no other rule covers.
				at = len(r.Value) - 1 - d.bit/8%min(16, len(r.Value))
			}
			r.Value[at] ^= 1 << (d.bit % 8)
			s.wrong = r.Offset
			if w.bug == SkipAudit && s.audit {
				r.Value[at] ^= 1 << (d.bit % 8)
			}
		}
	}
	if w.bug == TrustOffset {
		if s.memory == nil {
			s.memory = map[int64][]byte{}
		}
		for i, r := range got.Records {
			if before, ok := s.memory[r.Offset]; ok {
				got.Records[i].Value = before
			}
			s.memory[r.Offset] = r.Value
		}
	}
	return got, nil
}

// step follows one partition once.
func (n *node) step(p int) {
	if n.w.now < n.slow[p] && n.dice.IntN(12) > 0 {
		return
	}
	s := n.follow[p]
	halted := s.Halted() != nil
	before, unread := s.Head(), s.Unaudited()
	_ = s.Step(context.Background(), n.clock())
	if n.disk.crashed() {
		return
	}
	if s.Unaudited() > unread {
		n.w.cover("branch: records handed over")
	}
	if !halted && s.Halted() != nil {
		n.w.tracef("%s halts %s/%d: %v", n, names[p].log, names[p].shard, s.Halted())
		n.w.cover("branch: replica halted")
		if !n.wronged && !n.w.truth[p].tampered {
			n.w.failf("%s halted %s/%d and nobody gave it a reason: %v", n, names[p].log, names[p].shard, s.Halted())
		}
	}
	if s.Head() != before {
		n.check(p)
		n.drive(p)
	}
}

// audit compares what was handed over with the topic once.
func (n *node) audit(p int) {
	s, from := n.follow[p], n.audits[p]
	before := s.Unaudited()
	_, _ = s.AuditStep(context.Background(), n.clock())
	if n.disk.crashed() || before == 0 {
		return
	}
	passed := before - s.Unaudited()
	if passed > 0 {
		n.w.cover("branch: records audited")
	}
	if from.wrong < 0 || from.wrong-from.asked >= before {
		return
	}
	n.w.cover("branch: altered record audited")
	if passed > from.wrong-from.asked {
		n.w.failf("%s's audit of %s/%d passed offset %d, which reads otherwise than it was written", n, names[p].log, names[p].shard, from.wrong)
	}
}

// check compares a shard's root with the truth.
func (n *node) check(p int) {
	size := n.follow[p].Head().Next
	if size == n.checked[p] {
		return
	}
	n.checked[p] = size
	root, err := n.follow[p].Tree().Root(size)
	if err != nil {
		n.w.failf("%s has no root of %s/%d at %d: %v", n, names[p].log, names[p].shard, size, err)
		return
	}
	var state receipt.Hash
	if p != blockLog {
		state, err = n.follow[p].StateRoot(size)
	}
	if err != nil {
		n.w.failf("%s has no state of %s/%d at %d: %v", n, names[p].log, names[p].shard, size, err)
		return
	}
	n.w.tracef("%s %s/%d next %d root %x", n, names[p].log, names[p].shard, size, root[:4])
	if n.toldOtherwise(p) && !n.w.truth[p].tampered && !n.w.truth[p].ever(size, root, state) {
		n.w.failf("%s took another record of %s/%d for one it wrote itself", n, names[p].log, names[p].shard)
	}
	if !n.wronged && !n.w.truth[p].quiet && !n.w.truth[p].ever(size, root, state) {
		n.w.failf("%s has another root of %s/%d at %d than the log", n, names[p].log, names[p].shard, size)
	}
}

// toldOtherwise: all that was done to this node is that the broker gave it back
// one of its own records with a bit flipped, in this life of it.
func (n *node) toldOtherwise(p int) bool {
	d := n.deceive
	return d != nil && d.own && d.part == p && n.wrongs == 1 && n.w.authors[p][d.at] == (author{n, n.life})
}
