package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/shard"
)

// owner is the shell around a shard.Owner that a Writer is in production:
// it carries its requests to the broker and its answers to the callers.
type owner struct {
	*shard.Owner
	n        *node
	p        int
	assigned bool
	waiting  []*waiting
	bent     *bent // nil without a planted bug
}

// waiting is an append that its caller has not been answered.
type waiting struct {
	pend  *shard.Pending
	since time.Duration
	reply func(shard.Answer, error)
}

// patience is how long a caller waits for an answer before it gives up.
const patience = 6 * time.Second

func newOwner(n *node, p int) *owner {
	o := &owner{n: n, p: p}
	session := fmt.Sprintf("node-%d-%d", n.id, n.life)
	var follower shard.Follower = n.follow[p]
	if b := n.w.bug; b == DropBarrier || b == ServeUnread || b == ForgetWritten || b == HandEarly {
		o.bent = &bent{Follower: follower, bug: b, session: session, end: func() int64 { return n.w.broker.end(p) }}
		follower = o.bent
	}
	o.Owner = shard.NewOwner(shard.OwnerConfig{
		Log: names[p].log, Shard: names[p].shard, Origin: origin, Signer: n.key.Notes(),
		Follower: follower, Session: session, Renew: 6 * time.Hour, Logger: silent,
	})
	return o
}

// drive steps an owner as far as it goes and answers whom it can.
func (n *node) drive(p int) {
	o := n.owners[p]
	was := o.State()
	op := o.Step(n.clock())
	if is := o.State(); is != was {
		n.w.tracef("%s is %s of %s/%d", n, is, names[p].log, names[p].shard)
		if is == shard.Owning {
			n.w.cover("branch: shard taken")
		}
	}
	if op != nil {
		n.send(o, op)
	}
	o.Answer()
	if wake := o.Wake(); !wake.IsZero() {
		if d := wake.Sub(n.clock()); d < time.Minute {
			n.in(n.life, max(d, time.Millisecond), func() { n.drive(p) })
		}
	}
	o.answers()
}

func (n *node) send(o *owner, op *shard.Op) {
	kind := [...]string{"", "asks for the end", "begins a session", "produces"}[op.Kind]
	n.w.tracef("%s %s of %s/%d (%d records)", n, kind, names[o.p].log, names[o.p].shard, len(op.Records))
	op.Prepare()
	barrier := op.Kind == shard.Produce && op.Records[0].Key == nil
	if barrier && o.State() == shard.Owning {
		// A heartbeat: a refusal waits until the broker takes it.
		n.w.cover("branch: refusal confirmed")
		barrier = false
	}
	done := func(res shard.Result) {
		if res.Err != nil {
			n.w.tracef("%s: its request for %s/%d failed: %v", n, names[o.p].log, names[o.p].shard, res.Err)
			if op.Kind == shard.Produce && !errors.Is(res.Err, shard.ErrFenced) {
				n.w.cover("branch: produce ambiguous")
				if n.w.bug == GuessAmbiguous && !barrier {
					res.Err = nil
				}
			}
		}
		o.Done(n.clock(), res)
		if op.Kind == shard.Produce && n.dice.IntN(2) == 0 {
			n.in(n.life, 0, func() { n.step(o.p) }) // as Run does, which is rung for
		}
		n.drive(o.p)
	}
	if o.bent != nil && (barrier || op.Kind == shard.Begin) {
		o.bent.barred, o.bent.dropped = barrier, false
	}
	if barrier && n.w.bug == DropBarrier && n.follow[o.p].Head().Term > 0 {
		o.bent.dropped = true
		n.in(n.life, 0, func() { done(shard.Result{Offset: n.w.broker.end(o.p) - 1}) })
		return
	}
	if o.bent != nil && o.bent.dropped && op.Kind == shard.Produce {
		// Without the barrier the next batch is the session's first.
		first := *op
		first.Producer.Sequence--
		op = &first
	}
	n.w.ask(n, o.p, op, done)
}

// answers passes on what is settled and gives up what takes too long.
func (o *owner) answers() {
	var still []*waiting
	given := o.waiting
	o.waiting = nil
	for _, a := range given {
		answer, ok, err := a.pend.Poll()
		switch {
		case ok:
			a.reply(answer, err)
		case o.n.w.wall()-a.since > patience:
			gone, cancel := context.WithCancel(context.Background())
			cancel()
			_, err = a.pend.Wait(gone)
			o.n.w.cover("branch: caller gave up")
			a.reply(shard.Answer{}, err)
		default:
			still = append(still, a)
		}
	}
	o.waiting = append(still, o.waiting...)
}

// bent is what an Owner with a planted bug decides on.
type bent struct {
	shard.Follower
	bug     Bug
	session string
	barred  bool // this session's barrier was asked for
	dropped bool // and never sent
	end     func() int64
}

// Reached lies to an owner that serves unread.
func (b *bent) Reached(offset int64) bool {
	return b.bug == ServeUnread || b.Follower.Reached(offset)
}

// Expect leaves the replica without a word of what is written, or says at once
// that it landed where the topic ends.
func (b *bent) Expect(commits []core.Written) {
	if b.bug == ForgetWritten {
		return
	}
	b.Follower.Expect(commits)
	if b.bug == HandEarly {
		b.Landed(b.end(), commits[0].Seen.Index, len(commits))
	}
}

// Head makes an Owner believe in a barrier that was never written, under its
// predecessor's term, or not read yet, under the next.
func (b *bent) Head() core.Head {
	h := b.Follower.Head()
	switch {
	case b.bug == DropBarrier && h.Term > 0 && !b.barred:
		h.Term--
	case b.bug == DropBarrier && h.Term > 0:
		h.Owner = b.session
	case b.bug == ServeUnread && b.barred && h.Owner != b.session:
		h.Owner, h.Term = b.session, h.Term+1
	}
	return h
}
