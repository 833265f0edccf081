package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// rested tells whether nothing is left to do.
func (w *world) rested() bool {
	if w.issued < w.plan.Appends {
		return false
	}
	for _, c := range w.clients {
		if c.asked != nil {
			return false
		}
	}
	return w.unsettled() == ""
}

// unsettled says what is not level with the log, empty when all is.
func (w *world) unsettled() string {
	for _, n := range w.nodes {
		if !n.up {
			return n.String() + " is down"
		}
		if n.wronged {
			continue
		}
		for p := range parts {
			if behind := n.follow[p].Unaudited(); behind > 0 {
				return fmt.Sprintf("%s has not audited %d records of %s/%d", n, behind, names[p].log, names[p].shard)
			}
			if got, want := n.follow[p].Head(), w.truth[p].head; got != want {
				return fmt.Sprintf("%s has %d of %d commits of %s/%d, in term %d of %d", n, got.Next, want.Next, want.Log, want.Shard, got.Term, want.Term)
			}
		}
		if _, b := n.blocks.Sealed(); n.due() && (b == nil || b.Height < uint64(len(w.chain))) {
			return fmt.Sprintf("%s has not signed all of %d blocks", n, len(w.chain))
		}
	}
	for p := range blockLog {
		size := uint64(0)
		if w.notary.tip != nil {
			h, _ := w.notary.tip.Head(names[p].log, names[p].shard)
			size = h.Size
		}
		if want := w.truth[p].head.Next; size != want {
			return fmt.Sprintf("%d of %d commits of %s/%d are final", size, want, names[p].log, names[p].shard)
		}
	}
	return ""
}

// due tells whether the node's party is to sign the newest block.
func (n *node) due() bool {
	height := uint64(len(n.w.chain))
	return height > 0 && slices.Contains(n.w.longest.At(height).Cosigners(), n.key.Public())
}

// final holds the end of a run against all that was promised in it.
func (w *world) final() {
	w.finalsKept()
	if w.tampered() {
		// What the broker lost it lost, and the replicas that had it have
		// stopped: nothing more is due but that no final event is gone.
		return
	}
	w.convicted()
	for _, c := range w.clients {
		if c.asked != nil {
			w.failf("%s was never answered", c.asked.request.RequestId)
			return
		}
	}
	if why := w.unsettled(); why != "" {
		w.failf("the faults stopped and the ledger does not come to rest: %s", why)
		return
	}
	for _, r := range w.refused {
		t := w.truth[r.part]
		if last, ok := t.last[r.stream]; r.actual != core.NoStream && (!ok || last < r.actual) {
			w.failf("%s was refused at revision %d of %s, which never came to be", r.request, r.actual, r.stream)
		}
		if at, ok := t.requests[r.request]; ok {
			w.failf("%s was refused and stands at %d", r.request, at)
		}
	}
	if w.pace.IntN(8) == 0 {
		w.replayed()
	}
}

// convicted: what the replicas keep as evidence convicts nobody who is honest.
func (w *world) convicted() {
	for _, n := range w.nodes {
		if !n.up || n.wronged {
			continue
		}
		documents, err := n.blocks.Evidence()
		if err != nil {
			w.failf("%s cannot read its evidence: %v", n, err)
			return
		}
		for _, d := range documents {
			found, err := receipt.VerifyEvidence(d, w.longest)
			if err != nil {
				w.failf("%s keeps evidence that does not verify: %v", n, err)
				return
			}
			w.cover("branch: evidence of " + string(found.Wrong))
			for _, who := range found.Signers {
				for _, m := range w.nodes {
					if m.key.Public().Name == who && !m.wronged {
						w.failf("%s keeps evidence of %s at %s against %s, which did nothing wrong", n, found.Wrong, found.Place, m)
					}
				}
			}
		}
	}
}

// finalsKept: what a quorum signed, the honest of that quorum still hold.
func (w *world) finalsKept() {
	tip := w.notary.tip
	if tip == nil {
		return
	}
	for p := range blockLog {
		h, ok := tip.Head(names[p].log, names[p].shard)
		if !ok {
			continue
		}
		holders := 0
		for _, n := range w.nodes {
			if !n.up || n.follow[p].Head().Next < h.Size {
				continue
			}
			if root, err := n.follow[p].Tree().Root(h.Size); err == nil && root == h.Root {
				holders++
			}
		}
		if _, quorum := w.cosigners(tip.Height); holders < quorum-1-w.emptied {
			w.failf("%d commits of %s/%d were final and %d replicas still have them", h.Size, h.Log, h.Shard, holders)
		}
	}
}

// replayed: a replica that was stopped and started, over whatever lies on its
// disk, and one that reads the topic anew come to the same.
func (w *world) replayed() {
	w.cover("branch: replay compared")
	store, err := replica.OpenStoreOn(tiles.Disk{FS: newDisk(storeDir, rand.New(rand.NewPCG(1, 1))), Serial: true}, storeDir, silent)
	if err != nil {
		w.failf("sim: %v", err)
		return
	}
	defer func() { _ = store.Close() }()
	for p := range parts {
		s, err := replica.OpenShard(replica.ShardConfig{
			Log: names[p].log, Shard: names[p].shard, Store: store, Dir: tilesDir, Source: whole{w, p}, Logger: silent,
		})
		if err == nil {
			err = s.Step(context.Background(), began)
		}
		if err != nil {
			w.failf("the topic of %s/%d cannot be replayed: %v", names[p].log, names[p].shard, err)
			return
		}
		root, err := s.Tree().Root(s.Head().Next)
		if t := w.truth[p]; err != nil || s.Head() != t.head || root != t.tree.root() {
			w.failf("a replay of %s/%d comes to another head", names[p].log, names[p].shard)
			return
		}
		for _, n := range w.nodes {
			if n.wronged {
				continue
			}
			if n.follow[p].Outset() > 0 {
				w.cover("branch: replica without the first bodies at the end")
				continue // its rows gave the same roots, and it has no event to compare
			}
			if n.follow[p].Head() != s.Head() {
				w.failf("%s and a replay of %s/%d have different heads", n, names[p].log, names[p].shard)
				return
			}
			w.sameStreams(p, n.follow[p], s)
		}
	}
}

// sameStreams compares all events two replicas hold.
func (w *world) sameStreams(p int, a, b *replica.Shard) {
	read := func(s *replica.Shard, name string) (out []string) {
		err := s.Stream(name, 0, func(e *ledgerv1.RecordedEvent) bool {
			out = append(out, fmt.Sprintf("%d %d %x %s", e.Position.Index, e.Revision, e.Event.Payload, e.RequestId))
			return true
		})
		if err != nil {
			w.failf("a stream does not read: %v", err)
		}
		return out
	}
	for i := range streams {
		name := streamName(p, i)
		one, other := read(a, name), read(b, name)
		if fmt.Sprint(one) != fmt.Sprint(other) {
			w.failf("stream %s reads differently after a replay", name)
		}
		if want := w.truth[p].last[name]; len(one) > 0 && int64(len(one)) != want+1 {
			w.failf("stream %s has %d events and its last revision is %d", name, len(one), want)
		}
	}
}

// whole is a Source that holds a partition and never fails.
type whole struct {
	w *world
	p int
}

// Fetch implements replica.Source.
func (s whole) Fetch(_ context.Context, offset int64) (replica.Fetched, error) {
	out := replica.Fetched{End: s.w.broker.end(s.p)}
	for at := offset; at < out.End; at++ {
		out.Records = append(out.Records, replica.Record{Offset: at, Value: s.w.broker.parts[s.p].values[at]})
	}
	return out, nil
}
