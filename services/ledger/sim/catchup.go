package sim

import (
	"context"
	"errors"
	"maps"

	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/tiles"
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
	if f.N%4 == 1 {
		n.moveAway()
		if f.N%8 == 5 && n.left.flip(commitsDir, f.N) {
			n.w.cover("branch: bit flipped in what is salvaged")
		}
	} else {
		n.empty()
	}
	n.feeds = f.N%4 > 0 // else nobody answers, and it reads the topics
	n.rows = f.N%4 > 1
	n.w.cover("branch: data directory lost")
	n.w.tracef("%s loses its data directory", n)
}

// moveAway puts an empty data directory in place of the node's, which is to be
// salvaged. The memory of what was signed stays.
func (n *node) moveAway() {
	n.left = n.disk
	n.left.arm(-1)
	fresh := newDisk(storeDir, n.dice)
	fresh.lies = n.left.lies
	for _, name := range []string{"last-signed", "highest-seen"} {
		if kept := n.left.root.entries[name]; kept != nil {
			fresh.root.entries[name] = kept
		}
	}
	fresh.root.durable = maps.Clone(fresh.root.entries)
	n.disk, n.feeds, n.rows = fresh, true, false
	n.bare = true
	n.w.emptied++
	n.w.cover("branch: data directory moved away")
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
		height, err := n.salvage(from)
		if height == 0 && err == nil {
			height, err = n.catchUpFrom(from, from)
		}
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

// salvage catches up with what is sound of a directory that was moved away, and
// from a peer for the rest. It returns 0 where there is none, and where what is
// there does not lead to what is final.
func (n *node) salvage(f *feed) (height uint64, err error) {
	if n.left == nil || n.rows {
		return 0, nil
	}
	all := replica.NewSalvage(tiles.Disk{FS: n.left, Serial: true, SegmentBytes: segmentBytes}, "/", f)
	height, err = n.catchUpFrom(f, all)
	err = errors.Join(err, all.Close())
	switch {
	case n.disk.crashed():
	case errors.Is(err, replica.ErrFeed) && !f.lied && !errors.Is(err, replica.ErrFeedShort):
		if !n.wronged && !f.peer.wronged && !n.w.tampered() {
			n.w.failf("%s: what it left sound behind is not what a quorum cosigned: %v", n, err)
		}
		n.w.cover("branch: nothing to salvage")
		n.left = nil
		n.wipe()
		return 0, nil
	case err == nil && height > 0:
		n.left = nil
		if all.Taken > 0 {
			n.w.cover("branch: salvaged")
		}
		if all.Taken > 0 && all.Asked > 0 {
			n.w.cover("branch: salvaged in part")
		}
	}
	return height, err
}

func (n *node) catchUpFrom(f *feed, all replica.Feed) (height uint64, err error) {
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
	height, err = n.blocks.CatchUp(context.Background(), all, n.rows)
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
