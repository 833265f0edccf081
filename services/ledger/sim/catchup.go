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
	n.rows = f.N%4 > 1
	n.w.cover("branch: data directory lost")
	n.w.tracef("%s loses its data directory", n)
}

// catchUp is what a ledger node does before it runs, where its data directory
// is empty: it takes what is final from the first peer that can prove it. What
// a peer fed wrongly goes.
func (n *node) catchUp() error {
	if _, err := n.disk.Stat(unproven); err == nil {
		n.w.cover("branch: unproven directory deleted")
		n.wipe()
		n.feeds = true
	}
	if !n.feeds {
		return nil
	}
	n.feeds = false
	if err := n.files().WriteFile("/", unproven[1:], nil); err != nil {
		return err
	}
	if err := n.catchUpFromAny(); err != nil {
		return err
	}
	if err := n.disk.Remove(unproven); err != nil {
		return err
	}
	return n.files().SyncFolder("/")
}

// unproven is the file that says that nothing vouches for the rest yet.
const unproven = "/unproven"

func (n *node) catchUpFromAny() error {
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
			if n.rows {
				n.w.cover("branch: caught up by rows")
			}
			n.w.tracef("%s caught up from %s as far as block %d", n, peer, height)
			return nil
		case n.w.truth[blockLog].tampered:
		case errors.Is(err, replica.ErrFeed) && from.lied:
			n.w.cover("branch: peer's lie noticed")
		case errors.Is(err, replica.ErrFeedShort):
			n.w.cover("branch: peer was behind")
		case errors.Is(err, replica.ErrFeed):
			if !peer.wronged && !n.wronged && n.deceive == nil {
				n.w.failf("%s was fed by %s what no quorum cosigned: %v", n, peer, err)
			}
		}
		n.w.tracef("%s did not catch up from %s: %v", n, peer, err)
		n.wipe()
	}
	return nil
}

func (n *node) catchUpFrom(f *feed) (height uint64, err error) {
	err = n.load(func(p int) replica.Source {
		if p == blockLog {
			return &source{n: n, p: p}
		}
		return nil
	})
	if err != nil {
		return 0, errors.Join(err, n.unload())
	}
	if n.w.bug == UnprovenRows && n.rows {
		return 1, errors.Join(n.believe(f), n.unload())
	}
	height, err = n.blocks.CatchUp(context.Background(), f, n.rows)
	if err == nil && height > 0 {
		err = n.blocks.Compare(context.Background(), n.clock)
		if f.lied && err != nil && !errors.Is(err, replica.ErrFeed) {
			n.wrong() // it finds out when it can't do anything about it any more
		}
		if !errors.Is(err, replica.ErrFeed) {
			err = nil
		}
	}
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

// believe is what a planted bug does: it takes all rows that the peer has, and
// holds none of the roots that come of them against a block.
func (n *node) believe(f *feed) error {
	for p := range blockLog {
		for {
			next := n.follow[p].Head().Next
			rows, offset, err := f.Rows(context.Background(), names[p].log, names[p].shard, next)
			if err == nil && len(rows) > 0 {
				err = n.follow[p].TakeRows(rows, offset)
			}
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
		}
		if err := n.follow[p].Begin(); err != nil {
			return err
		}
	}
	return n.store.Sync()
}

// Rows implements replica.Feed.
func (f *feed) Rows(_ context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	s := f.peer.follow[partOf(log, shard)]
	offset := s.Offset()
	rows, err := s.Rows(from, 1+f.n.dice.IntN(6))
	return f.lie(rows), offset, err
}

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
