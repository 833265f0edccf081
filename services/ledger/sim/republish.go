package sim

import (
	"context"
	"time"

	"github.com/probity-health/probity/services/ledger/shard"
)

// loseTopic loses a topic. After a while somebody makes it anew from the
// replica that holds the most of it, as an operator is told to.
func (w *world) loseTopic(f Fault) {
	p := f.Part
	if w.broker.parts[p].lost || w.truth[p].broken || w.tampered() {
		return
	}
	w.cover("branch: topic lost")
	w.broker.lose(p)
	w.after(f.For, func() { w.republish(p, f.N) })
}

// republish writes a topic anew under the shard's own transactional id, so
// that what its owners sent before is refused whenever it arrives.
func (w *world) republish(p, how int) {
	var from *node
	for _, n := range w.nodes {
		fit := n.up && !n.wronged && n.w.now >= n.pausedUntil && n.follow[p].Halted() == nil && n.follow[p].Outset() == 0
		if fit && (from == nil || n.follow[p].Head().Next > from.follow[p].Head().Next) {
			from = n
		}
	}
	if from == nil {
		w.after(w.about(500*time.Millisecond), func() { w.republish(p, how) })
		return
	}
	t := w.truth[p]
	held, was := from.follow[p].Head().Next, t.head.Next
	if held < was {
		// What nobody had read is lost with the topic, and with it what was
		// acknowledged of it.
		t.tampered = true
		w.cover("branch: commits lost with their topic")
	}
	w.tracef("%s/%d is republished from %s: %d of %d commits", names[p].log, names[p].shard, from, held, was)
	t.reset()
	w.authors[p] = nil
	if p == blockLog {
		w.retell()
	}
	w.broker.parts[p].lost = false
	w.author = from
	producer, err := w.broker.begin(p, nil)
	if err != nil {
		w.failf("sim: %v", err)
		return
	}
	_, _, err = from.follow[p].Republish(context.Background(), func(_ context.Context, values [][]byte) error {
		records := make([]shard.Record, len(values))
		for i, v := range values {
			records[i].Value = v
		}
		_, err := w.broker.produce(p, producer, records)
		producer.Sequence += int32(len(records))
		return err
	})
	switch {
	case err != nil:
		w.failf("%s cannot republish %s/%d: %v", from, names[p].log, names[p].shard, err)
	case t.head.Next != held:
		w.failf("%s/%d was republished from %d commits and holds %d", names[p].log, names[p].shard, held, t.head.Next)
	default:
		w.cover("branch: topic republished")
	}
}
