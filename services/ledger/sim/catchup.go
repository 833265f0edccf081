package sim

import (
	"context"
	"errors"

	"github.com/probity-health/probity/services/ledger/replica"
)

// rebuild takes all the node has from its disk but the memory of what was
// signed, as somebody does whose data directory is damaged or lost. It comes
// back empty and asks its peers first.
func (n *node) rebuild(f Fault) {
	if n.w.tampered() {
		return // what the broker lost is on the disks alone
	}
	if n.up {
		n.die()
	}
	n.empty()
	n.feeds = f.N%4 > 0 // else nobody answers, and it reads the topics
	n.w.cover("branch: data directory lost")
	n.w.tracef("%s loses its data directory", n)
}

// catchUp is what a ledger node does before it runs, where its data directory
// is empty: it takes what is final from the first peer that can prove it. What
// a peer fed wrongly goes.
func (n *node) catchUp() error {
	if !n.feeds {
		return nil
	}
	n.feeds = false
	for i := 1; i < replicas; i++ {
		peer := n.w.nodes[(n.id+i)%replicas]
		if peer == nil || !peer.up || n.w.lost(n) || n.w.lost(peer) || n.w.now < peer.pausedUntil {
			continue
		}
		from := &feed{n: n, peer: peer}
		height, err := n.catchUpFrom(from)
		switch {
		case n.disk.crashed():
			n.w.cover("branch: crash while catching up")
			return err
		case err == nil && height > 0:
			n.w.cover("branch: caught up from a peer")
			n.w.tracef("%s caught up from %s as far as block %d", n, peer, height)
			return nil
		case errors.Is(err, replica.ErrFeed) && from.lied:
			n.w.cover("branch: peer's lie noticed")
		case errors.Is(err, replica.ErrFeedShort):
			n.w.cover("branch: peer was behind")
		case errors.Is(err, replica.ErrFeed):
			if !peer.wronged {
				n.w.failf("%s was fed by %s what no quorum cosigned: %v", n, peer, err)
			}
		}
		n.w.tracef("%s did not catch up from %s: %v", n, peer, err)
		n.wipe()
	}
	return nil
}

func (n *node) catchUpFrom(f replica.Feed) (height uint64, err error) {
	if err := n.load(func(int) replica.Source { return nil }); err != nil {
		return 0, errors.Join(err, n.unload())
	}
	height, err = n.blocks.CatchUp(context.Background(), f)
	return height, errors.Join(err, n.unload())
}

// unload closes the store in good order.
func (n *node) unload() error {
	if n.store == nil {
		return nil
	}
	err := n.store.Close()
	n.store = nil
	return err
}

// feed is a peer as a node catches up from it. A victim may lie.
type feed struct {
	n, peer *node
	told    int
	lied    bool
}

// Notes implements replica.Feed.
func (f *feed) Notes(context.Context) ([][]byte, error) { return f.peer.blocks.Notes(), nil }

// Commits implements replica.Feed.
func (f *feed) Commits(_ context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	s := f.peer.follow[partOf(log, shard)]
	offset := s.Offset()
	values, err := s.Values(from, 1+f.n.dice.IntN(6), 1<<20)
	return f.lie(values), offset, err
}

// lie flips one bit in one of the answers of a peer that lies.
func (f *feed) lie(values [][]byte) [][]byte {
	bit := f.peer.lies
	if bit == 0 || len(values) == 0 {
		return values
	}
	if f.told++; f.told == 1+bit%4 {
		v := values[bit/4%len(values)]
		v[bit/8%len(v)] ^= 1 << (bit % 8)
		f.lied = true
		f.n.w.cover("branch: peer lied")
	}
	return values
}

func partOf(log string, shard uint32) int {
	for p, name := range names {
		if name.log == log && name.shard == shard {
			return p
		}
	}
	return blockLog
}
