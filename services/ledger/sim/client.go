package sim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/shard"
	"github.com/probity-health/probity/services/problem"
)

const streams = 4 // of a shard

// client makes one append after the other and sends each again, with the same
// request id, until it is answered.
type client struct {
	w    *world
	id   int
	dice *rand.Rand
	made int

	asked *asked
	past  []*asked
}

// asked is one append from its first sending to its answer.
type asked struct {
	part    int
	request *ledgerv1.AppendRequest
	digest  [sha256.Size]byte
	begun   time.Duration
	tries   int
	// after is the highest index acknowledged before it was first sent; what
	// is new comes later. floor is the same for each of its streams'
	// revisions.
	after int
	floor map[string]int64
	again bool // it was acknowledged before, as was
	was   core.Seen
	other bool // its id was used for other content
	by    *node
}

func newClient(w *world, id int, seed uint64) *client {
	c := &client{w: w, id: id, dice: rand.New(rand.NewPCG(seed, 0x636c69+uint64(id)))}
	w.after(w.about(100*time.Millisecond), c.next)
	return c
}

func streamName(p, i int) string { return fmt.Sprintf("claim-%d-%d", p, i) }

// next begins the next append, unless enough were made.
func (c *client) next() {
	w := c.w
	if w.issued >= w.plan.Appends {
		return
	}
	w.issued++
	c.made++
	a := &asked{part: c.dice.IntN(blockLog), begun: w.now, floor: map[string]int64{}}
	a.after = w.acked[a.part]
	a.request = &ledgerv1.AppendRequest{
		Log: names[a.part].log, RoutingKey: fmt.Sprint("key-", a.part), RequestId: fmt.Sprintf("c%d-%d", c.id, c.made),
	}
	some := []int{0, 1, 2, 3}
	c.dice.Shuffle(streams, func(i, j int) { some[i], some[j] = some[j], some[i] })
	for _, i := range some[:1+c.dice.IntN(8)/7] {
		write := &ledgerv1.StreamWrite{Stream: streamName(a.part, i), ExpectedRevision: core.Any}
		switch c.dice.IntN(10) {
		case 0, 1, 2, 3:
			write.ExpectedRevision = c.revision(write.Stream)
		case 4:
			write.ExpectedRevision = core.NoStream
		}
		for range 1 + c.dice.IntN(3) {
			payload := make([]byte, c.dice.IntN(60))
			for i := range payload {
				payload[i] = byte(c.dice.Uint32())
			}
			write.Events = append(write.Events, &ledgerv1.Event{Type: "sim", Payload: payload})
		}
		a.request.Writes = append(a.request.Writes, write)
		a.floor[write.Stream] = c.revision(write.Stream)
	}
	if n := len(c.past); n > 0 {
		switch c.dice.IntN(16) {
		case 0: // the same again, long after
			old := c.past[c.dice.IntN(n)]
			a.part, a.request, a.again, a.was = old.part, old.request, true, old.was
			w.cover("branch: request repeated")
		case 1: // the same id for something else
			old := c.past[c.dice.IntN(n)]
			if old.part == a.part {
				a.request.RequestId, a.other = old.request.RequestId, true
				w.cover("branch: request id reused")
			}
		}
	}
	writes := make([]*ledgerv1.CommittedWrite, len(a.request.Writes))
	for i, x := range a.request.Writes {
		writes[i] = &ledgerv1.CommittedWrite{Stream: x.Stream, Events: x.Events}
	}
	a.digest = core.Digest(writes)
	c.asked = a
	w.tracef("client %d appends %s to %s/%d", c.id, a.request.RequestId, names[a.part].log, names[a.part].shard)
	c.send()
}

// revision is the last acknowledged one of a stream.
func (c *client) revision(stream string) int64 {
	if r, ok := c.w.known[stream]; ok {
		return r
	}
	return core.NoStream
}

// send hands the append to a node: the one the group names, or any.
func (c *client) send() {
	w, a := c.w, c.asked
	a.tries++
	to := w.assign[a.part]
	if c.dice.IntN(5) == 0 {
		to = c.dice.IntN(replicas)
	}
	n := w.nodes[to]
	try := a.tries
	answered := func(by *node, ans shard.Answer, err error) {
		if lossy := w.now < w.storm && !w.healed && w.net.IntN(100) < w.loss; lossy {
			w.cover("branch: answer to a caller lost")
			return
		}
		w.after(w.leg(), func() {
			if c.asked == a && a.tries == try {
				a.by = by
				c.answered(a, ans, err)
			}
		})
	}
	w.after(w.leg(), func() {
		if !n.up || n.w.now < n.pausedUntil {
			return
		}
		n.accept(a, 1, answered)
	})
	w.after(w.about(4*time.Second), func() {
		if c.asked == a && a.tries == try {
			w.cover("branch: append sent again")
			c.send()
		}
	})
}

// answered takes an answer in.
func (c *client) answered(a *asked, ans shard.Answer, err error) {
	w := c.w
	var conflict *core.ConflictError
	var p *problem.Error
	switch {
	case err == nil:
		c.acknowledged(a, ans)
		if a.other && w.failure == "" {
			// The first use of the id was never acknowledged to anybody.
			w.cover("branch: reused id was free")
		}
	case errors.As(err, &conflict):
		w.cover("branch: conflict")
		c.conflicted(a, conflict)
	case errors.As(err, &p) && a.other && p.Kind == problem.Conflict:
		w.cover("branch: reused id refused")
	default:
		// Not answered: again, with the same request id.
		w.after(w.about(150*time.Millisecond), func() {
			if c.asked == a {
				c.send()
			}
		})
		a.tries++ // what comes late of this try is not heard
		return
	}
	c.asked = nil
	w.after(w.about(250*time.Millisecond), c.next)
}

// acknowledged holds an acknowledgement against the log.
func (c *client) acknowledged(a *asked, ans shard.Answer) {
	w := c.w
	t := w.truth[a.part]
	w.tracef("client %d: %s is at %d", c.id, a.request.RequestId, ans.Index)
	// An owner that was served another record than its predecessor wrote
	// repeats what it read, until a block shows it what the others read. Its
	// promise convicts it, which is the broker's doing.
	if !t.tampered && !a.by.deceived {
		if ans.Index >= uint64(len(t.leaves)) || !t.leaves[ans.Index].same(a.request.RequestId, a.digest, ans.Entry) {
			w.failf("%s was acknowledged at %d, where the log has something else or nothing", a.request.RequestId, ans.Index)
			return
		}
		leaf := t.leaves[ans.Index]
		for i, write := range leaf.writes {
			if got, want := ans.Revisions[i], write.FirstRevision+uint64(len(write.Events))-1; got != want {
				w.failf("%s was acknowledged with revision %d of %s and has %d", a.request.RequestId, got, write.Stream, want)
			}
			if x := a.request.Writes[i].ExpectedRevision; x != core.Any && int64(write.FirstRevision) != x+1 {
				w.failf("%s expected revision %d of %s and was put at %d", a.request.RequestId, x, write.Stream, write.FirstRevision)
			}
		}
		switch {
		case a.again && (a.was.Index != ans.Index || !slices.Equal(a.was.Revisions, ans.Revisions)):
			w.failf("%s was acknowledged at %d and then at %d", a.request.RequestId, a.was.Index, ans.Index)
		case !a.again && !a.other && int(ans.Index) <= a.after:
			w.failf("%s was put at %d, before %d, which was acknowledged before it was sent", a.request.RequestId, ans.Index, a.after)
		}
	}
	if ans.Replayed {
		w.cover("branch: answered from an earlier commit")
	}
	document, err := ans.Promise()
	if err == nil {
		var v receipt.Verified
		v, err = receipt.VerifyPromise(document, w.longest)
		if err == nil && (v.Index != ans.Index || v.Log != names[a.part].log || v.Shard != names[a.part].shard) {
			err = errors.New("it is for another position")
		}
	}
	if err != nil {
		w.failf("the promise of %s does not verify: %v", a.request.RequestId, err)
	}
	w.acked[a.part] = max(w.acked[a.part], int(ans.Index))
	for i, write := range a.request.Writes {
		w.known[write.Stream] = max(c.revision(write.Stream), int64(ans.Revisions[i]))
	}
	a.was = ans.Seen
	if !a.again {
		c.past = append(c.past, a)
	}
}

// conflicted holds a refusal against what was acknowledged before; the end of
// the run holds it against the log.
func (c *client) conflicted(a *asked, conflict *core.ConflictError) {
	w := c.w
	w.tracef("client %d: %s conflicts at revision %d of %s", c.id, a.request.RequestId, conflict.Actual, conflict.Stream)
	if w.truth[a.part].tampered || a.by.wronged {
		// Who was lied to may refuse what is right: it loses the shard when
		// the others' blocks are not its own.
		return
	}
	for _, write := range a.request.Writes {
		if write.Stream == conflict.Stream && write.ExpectedRevision == conflict.Actual {
			w.failf("%s was refused at the revision it expected", a.request.RequestId)
		}
	}
	if floor := a.floor[conflict.Stream]; !a.again && conflict.Actual < floor {
		w.failf("%s was refused at revision %d of %s, after %d was acknowledged", a.request.RequestId, conflict.Actual, conflict.Stream, floor)
	}
	if a.again {
		w.failf("%s was acknowledged and then refused", a.request.RequestId)
	}
	r := refusal{part: a.part, request: a.request.RequestId, stream: conflict.Stream, actual: conflict.Actual}
	if a.other {
		r.request = ""
	}
	w.refused = append(w.refused, r)
}
