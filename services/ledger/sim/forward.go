package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/shard"
	"github.com/probity-health/probity/services/problem"
)

// As ledger's forwarder has them.
const (
	handOver  = 2 * time.Second
	askAgain  = 100 * time.Millisecond
	maxRounds = 3
)

var (
	errNoOwner   = errors.New("sim: no node is known to write the shard")
	errUnreached = errors.New("sim: the owner did not answer")
)

// answering takes the answer to an append, and which node gave it.
type answering func(by *node, ans shard.Answer, err error)

// take hands an append to the node's own owner of the shard.
func (n *node) take(a *asked, reply answering) {
	o := n.owners[a.part]
	pend, err := o.Submit(a.request, core.Provenance{Actor: "sim"})
	if err != nil {
		reply(n, shard.Answer{}, err)
		return
	}
	o.waiting = append(o.waiting, &waiting{pend: pend, since: n.w.wall(), reply: func(ans shard.Answer, err error) { reply(n, ans, err) }})
	n.drive(a.part)
}

// accept is what a node does with a caller's append: it makes it, or passes it
// on to the node whose barrier its replica judged last, as often as that one
// turns out to write the shard no more.
func (n *node) accept(a *asked, round int, reply answering) {
	n.take(a, func(by *node, ans shard.Answer, err error) {
		if !notOwner(err) || round >= maxRounds || !n.up {
			reply(by, ans, err)
			return
		}
		n.forward(a, round, n.w.now+handOver, "", reply)
	})
}

// forward passes an append on to the shard's owner, another than session.
func (n *node) forward(a *asked, round int, until time.Duration, session string, reply answering) {
	w := n.w
	owner := n.follow[a.part].Head().Owner
	peer, known := w.session(owner)
	switch {
	case known && peer == n:
		n.accept(a, round+1, reply)
		return
	case !known || owner == session:
		if w.now >= until {
			reply(n, shard.Answer{}, errNoOwner)
			return
		}
		n.in(n.life, askAgain, func() { n.forward(a, round, until, session, reply) })
		return
	}
	w.cover("branch: append forwarded")
	life, settled := n.life, false
	answer := func(ans shard.Answer, err error) {
		n.in(life, 0, func() {
			if settled {
				return
			}
			settled = true
			if notOwner(err) && round < maxRounds {
				w.cover("branch: forwarded to an owner of before")
				n.forward(a, round+1, w.now+handOver, owner, reply)
				return
			}
			reply(peer, ans, err)
		})
	}
	n.in(life, patience+2*time.Second, func() { answer(shard.Answer{}, errUnreached) })
	if w.lost(n) || w.lost(peer) {
		return
	}
	there := peer.life
	w.after(w.leg(), func() {
		if !peer.up || peer.life != there || w.now < peer.pausedUntil {
			return
		}
		peer.take(a, func(_ *node, ans shard.Answer, err error) {
			if w.lost(n) || w.lost(peer) {
				w.cover("branch: owner's answer lost on its way back")
				return
			}
			w.after(w.leg(), func() { answer(ans, err) })
		})
	})
}

// session finds the node whose life has a session's name, as the group does.
func (w *world) session(name string) (*node, bool) {
	var id, life int
	if _, err := fmt.Sscanf(name, "node-%d-%d", &id, &life); err != nil || id >= replicas {
		return nil, false
	}
	n := w.nodes[id]
	return n, n.up && n.life == life
}

func notOwner(err error) bool {
	var p *problem.Error
	return errors.As(err, &p) && len(p.Problems) == 1 && p.Problems[0].RuleID == shard.RuleNotOwner
}
