package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// Where a node keeps its data.
const (
	storeDir   = "/store"
	commitsDir = "/" + replica.CommitsDir
	tilesDir   = "/tiles"
	// segmentBytes is small, so that files of commits are often full.
	segmentBytes = 4 << 10
	// flushAt is small, so that indexes are often written to the store.
	flushAt = 16
)

// node is one machine: its disk, and the replica, the owners and the proposer
// that run on it while it is up.
type node struct {
	w    *world
	id   int
	key  *receipt.SigningKey
	disk *disk
	dice *rand.Rand

	up    bool
	life  int // counts starts: what an earlier one set going is dropped
	store *replica.Store
	// follow are the shards and, last, the block log.
	follow [parts]*replica.Shard
	audits [parts]*source
	blocks *replica.Blocks
	owners [parts]*owner
	// proposed is the block log's end that the last proposal built on.
	proposed int64

	skew        time.Duration
	pausedUntil time.Duration
	cutUntil    time.Duration
	slow        [parts]time.Duration
	deceive     *deception
	spoil       int
	feeds       bool  // it catches up from a peer when it opens
	rows        bool  // and takes index rows
	left        *disk // a data directory that was moved away, to be salvaged
	lies        int   // it lies to who catches up from it; which bit
	// wronged: the broker or its disk lied to this node, so it may be unable
	// to go on. It must still sign nothing wrong.
	wronged bool
	wrongs  int // how often
	// deceived: the broker served it another record than a predecessor wrote.
	// About what it writes itself an owner isn't deceived.
	deceived bool

	checked [parts]uint64
	// rehash is over the stored commits that were signed for. It outlives a
	// crash, as the signatures do: what must be hashed again is what is new.
	rehash [blockLog]frontier
	sealed uint64 // the highest size it let out in this life
	final  uint64 // the highest size it held final in this life
	// stopped: it signs no more in this life, and that was looked into.
	stopped bool
	// bare: its disk was emptied, and it hasn't read what it signed for again.
	bare bool
	// gated is until when the proposer waits for its last block to be final.
	gated time.Duration
	gate  uint64
}

func newNode(w *world, id int, seed uint64) *node {
	dice := rand.New(rand.NewPCG(seed, 0x6e6f6465+uint64(id)))
	n := &node{w: w, id: id, key: keys[id], dice: dice, disk: newDisk(storeDir, dice)}
	n.disk.lies = w.bug.lies()
	return n
}

func (n *node) String() string { return fmt.Sprintf("node %d", n.id) }

func (n *node) clock() time.Time { return began.Add(n.w.wall() + n.skew) }

// in does something on this node after a time, unless this life of it is over;
// while the node is paused it waits.
func (n *node) in(life int, d time.Duration, do func()) {
	n.w.after(d, func() {
		if n.life != life || !n.up {
			return
		}
		if n.w.now < n.pausedUntil {
			n.in(life, n.pausedUntil-n.w.now+n.w.leg(), do)
			return
		}
		do()
		if n.up && n.disk.crashed() {
			n.die()
		}
	})
}

// every does something about every d for as long as this life lasts.
func (n *node) every(d time.Duration, do func()) {
	life := n.life
	n.in(life, n.w.about(d), func() {
		do()
		if n.life == life {
			n.every(d, do)
		}
	})
}

// open starts the node on its disk.
func (n *node) open() {
	n.life++
	n.up = true
	err := n.start()
	if n.disk.crashed() {
		n.w.cover("branch: crash while opening")
		n.die()
		return
	}
	if err != nil && n.wronged {
		// What an operator is told to do.
		n.w.cover("branch: damaged replica rebuilt")
		n.w.tracef("%s is damaged and rebuilds: %v", n, err)
		n.drop()
		if n.life%2 == 0 && !n.w.tampered() {
			n.moveAway()
		} else {
			n.wipe()
		}
		n.up = true
		err = n.start()
	}
	if err != nil {
		n.w.failf("%s does not open after a crash: %v", n, err)
		return
	}
	if n.remembers(); n.w.failure != "" {
		return
	}
	for p := range parts {
		n.every(30*time.Millisecond, func() { n.step(p) })
		n.every(200*time.Millisecond, func() { n.audit(p) })
		n.every(250*time.Millisecond, func() { n.drive(p) })
	}
	n.every(40*time.Millisecond, n.seals)
	n.every(300*time.Millisecond, n.propose)
	n.every(280*time.Millisecond, n.exchange)
	n.every(500*time.Millisecond, n.hear)
	n.w.tracef("%s opens, life %d", n, n.life)
}

// files is the disk as a replica takes it.
func (n *node) files() tiles.Disk {
	return tiles.Disk{FS: n.disk, Serial: true, SegmentBytes: segmentBytes}
}

func (n *node) start() (err error) {
	n.checked, n.sealed, n.final, n.stopped, n.proposed = [parts]uint64{}, 0, 0, false, -1
	if err := n.catchUp(); err != nil {
		return err
	}
	if err := n.load(func(p int) replica.Source { return &source{n: n, p: p} }); err != nil {
		return err
	}
	for p := range parts {
		n.owners[p] = newOwner(n, p)
	}
	n.look()
	return nil
}

// load opens what is on the disk.
func (n *node) load(from func(p int) replica.Source) (err error) {
	n.store, err = replica.OpenStoreOn(n.files(), storeDir, silent)
	if err != nil {
		return err
	}
	for p := range parts {
		n.audits[p] = &source{n: n, p: p, audit: true}
		n.follow[p], err = replica.OpenShard(replica.ShardConfig{
			Log: names[p].log, Shard: names[p].shard, Store: n.store, Dir: tilesDir,
			Source: from(p), Audit: n.audits[p], Logger: silent, FlushAt: flushAt,
			TableAt: 1 + n.id%2*flushAt*flushAt, // every other node hands its store tables
		})
		if err != nil {
			return err
		}
	}
	n.blocks, err = replica.OpenBlocks(replica.BlocksConfig{
		Root: terms, Store: n.store, Dir: "/", Log: n.follow[blockLog],
		Shards: n.follow[:blockLog], Key: n.key, Now: n.clock, Logger: silent,
	})
	return err
}

// remembers checks what a replica must still know after whatever happened: all
// it signed for.
func (n *node) remembers() {
	signed := n.w.notary.highest[n.id]
	if signed == 0 || n.wronged || n.w.bug == SignUnread {
		return
	}
	raw, err := tiles.Disk{FS: n.disk}.ReadFile("/last-signed")
	cp, _, err2 := replica.ParseLastSigned(raw)
	if err = errors.Join(err, err2); err != nil || cp.Size < signed {
		n.w.failf("%s forgot that it signed size %d: it remembers %d (%v)", n, signed, cp.Size, err)
		return
	}
	last, _ := n.blocks.Last()
	if n.bare = n.bare && (last == nil || last.Height < signed); n.bare {
		return
	}
	if last == nil || last.Height < signed {
		n.w.failf("%s signed size %d and lost the blocks", n, signed)
		return
	}
	for p := range blockLog {
		if h, ok := last.Head(names[p].log, names[p].shard); ok && n.follow[p].Head().Next < h.Size {
			n.w.failf("%s signed %d commits of %s/%d and holds %d", n, h.Size, h.Log, h.Shard, n.follow[p].Head().Next)
			return
		}
	}
}

// wipe deletes everything but the memory of what was signed.
func (n *node) wipe() {
	for _, dir := range []string{storeDir, commitsDir, tilesDir, "/checkpoint"} {
		_ = n.disk.RemoveAll(dir)
	}
}

// drop lets go of what runs, without a word to the disk that counts.
func (n *node) drop() {
	n.up = false
	if n.store != nil {
		_ = n.store.Close()
		n.store = nil
	}
}

// crashSoon crashes the node within some operations of its disk, or after a
// while if it does none.
func (n *node) crashSoon(ops int) {
	if !n.up {
		// While it opens, then.
		n.disk.arm(ops / 4)
		return
	}
	n.disk.arm(ops)
	n.in(n.life, 2*time.Second, func() {
		if !n.disk.crashed() {
			n.w.cover("branch: crash between steps")
			n.die()
		}
	})
}

// die ends this life on what the crash left, and begins the next after a while.
func (n *node) die() {
	if n.disk.crashed() {
		n.w.cover("branch: crash between two disk operations")
	}
	n.w.tracef("%s crashes after %d disk operations", n, n.disk.ops)
	// The close writes to a disk that is no more.
	left := n.disk.crash()
	n.drop()
	n.disk = left
	if !n.w.healed && n.dice.IntN(6) == 0 {
		n.disk.arm(n.dice.IntN(12))
	}
	n.revive()
}

func (n *node) revive() {
	life := n.life
	n.w.after(n.w.about(800*time.Millisecond), func() {
		if n.life == life {
			n.open()
		}
	})
}
