package sim

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/shard"
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

// keys are the parties' signing keys, the same in every run.
var keys = func() (out [replicas]*receipt.SigningKey) {
	for i := range out {
		seed := sha256.Sum256(fmt.Append(nil, "party ", i))
		name := fmt.Sprintf("party%d.sim", i)
		raw := append([]byte{1}, ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)...)
		id := sha256.Sum256(append([]byte(name+"\n"), raw...))
		key, err := receipt.ParseSigningKey(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, id[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...))))
		if err != nil {
			panic(err)
		}
		out[i] = key
	}
	return out
}()

// terms is the ledger's policy: four parties, three to finalise.
var terms = func() *receipt.Terms {
	t := &receipt.Terms{
		Origin: origin, Sequence: 1, Activation: 1, Quorum: quorum,
		Logs: []receipt.LogShards{{Log: names[0].log, Shards: blockLog}},
	}
	for _, k := range keys {
		t.Members = append(t.Members, receipt.Member{Role: receipt.Cosigner, Key: k.Public()})
	}
	return t
}()

var policy = func() receipt.Policy {
	p, err := receipt.FirstPolicy(terms)
	if err != nil {
		panic(err)
	}
	return p
}()

// deception is one bit the broker flips for one replica.
type deception struct {
	part int
	bit  int
	at   int64 // the offset, once it was met
	met  bool
}

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
	// wronged: the broker or its disk lied to this node, so it may be unable
	// to go on. It must still sign nothing wrong.
	wronged bool
	// deceived: the broker served it a record that nobody wrote.
	deceived bool

	checked [parts]uint64
	// rehash is over the stored commits that were signed for. It outlives a
	// crash, as the signatures do: what must be hashed again is what is new.
	rehash [blockLog]frontier
	sealed uint64 // the highest size it let out in this life
	final  uint64 // the highest size it held final in this life
	// stopped: it signs no more in this life, and that was looked into.
	stopped bool
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
		n.wipe()
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
	n.store, err = replica.OpenStoreOn(n.files(), storeDir, silent)
	if err != nil {
		return err
	}
	for p := range parts {
		n.follow[p], err = replica.OpenShard(replica.ShardConfig{
			Log: names[p].log, Shard: names[p].shard, Store: n.store, Dir: tilesDir,
			Source: &source{n: n, p: p}, Logger: silent, FlushAt: flushAt,
		})
		if err != nil {
			return err
		}
		n.owners[p] = newOwner(n, p)
	}
	n.blocks, err = replica.OpenBlocks(replica.BlocksConfig{
		Root: terms, Store: n.store, Dir: "/", Log: n.follow[blockLog],
		Shards: n.follow[:blockLog], Key: n.key, Now: n.clock, Logger: silent,
	})
	if err != nil {
		return err
	}
	n.look()
	return nil
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

// source is the node's view of a partition.
type source struct {
	n *node
	p int
	// memory is what a planted bug answers a second reading from.
	memory map[int64][]byte
}

// Fetch implements replica.Source without waiting.
func (s *source) Fetch(_ context.Context, offset int64) (replica.Fetched, error) {
	n, w := s.n, s.n.w
	if w.lost(n) {
		return replica.Fetched{}, errNoBroker
	}
	got, err := w.broker.fetch(n.id, s.p, offset, 1+w.net.IntN(12))
	if err != nil {
		return got, err
	}
	if d := n.deceive; d != nil && d.part == s.p && !d.met && len(got.Records) > 0 {
		d.met, d.at = true, got.Records[len(got.Records)-1].Offset
		w.cover("branch: replica deceived")
	}
	for _, r := range got.Records {
		if d := n.deceive; d != nil && d.met && d.part == s.p && d.at == r.Offset && len(r.Value) > 0 {
			r.Value[d.bit/8%len(r.Value)] ^= 1 << (d.bit % 8)
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
	before := s.Head()
	_ = s.Step(context.Background(), n.clock())
	if n.disk.crashed() {
		return
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
	if !n.wronged && !n.w.truth[p].quiet && !n.w.truth[p].ever(size, root, state) {
		n.w.failf("%s has another root of %s/%d at %d than the log", n, names[p].log, names[p].shard, size)
	}
}

// seals takes blocks in and lets out what is signed.
func (n *node) seals() {
	_, err := n.blocks.Step(context.Background())
	if n.disk.crashed() {
		return
	}
	if replica.NotYet(err) {
		n.w.cover("branch: block waits for its commits")
	}
	if n.blocks.Withheld() != "" {
		n.w.cover("branch: signature withheld")
	}
	if n.dice.IntN(16) == 0 {
		_, _ = n.blocks.Scrub()
	}
	n.halts()
	n.look()
	n.finals()
}

// look hands a new signature to the notary, after the checks that a stranger
// with the replica's files could make.
func (n *node) look() {
	text, block := n.blocks.Sealed()
	if n.w.bug == SignUnread {
		if text, block = n.blind(); block != nil && block.Height <= n.w.notary.highest[n.id] {
			return
		}
	}
	if block == nil || block.Height == n.sealed {
		return
	}
	n.sealed = block.Height
	cp, signatures, err := policy.Cosignatures(text)
	if err == nil && (len(signatures) != 1 || signatures[0].Key != n.key.Public()) {
		err = errors.New("not by its own key")
	}
	if err != nil {
		n.w.failf("%s let out a checkpoint that does not verify: %v", n, err)
		return
	}
	for p := range blockLog {
		h, ok := block.Head(names[p].log, names[p].shard)
		if !ok {
			n.w.failf("%s signed a block without %s/%d", n, names[p].log, names[p].shard)
			return
		}
		root, err := rehash(n.follow[p], &n.rehash[p], h.Size)
		if err == nil && root != h.Root {
			err = errors.New("another root")
		}
		if err != nil {
			n.w.failf("%s signed %s/%d at %d, which its stored commits do not hash to: %v", n, h.Log, h.Shard, h.Size, err)
			return
		}
	}
	if !n.wronged && !n.w.tampered() {
		if h := int(cp.Size); h >= len(n.w.sealed) || n.w.sealed[h] != cp.Root {
			n.w.failf("%s signed a head of size %d that the block log does not have", n, cp.Size)
			return
		}
	}
	final, err := n.w.notary.sign(n.id, signature{cp.Size, cp.Root}, block)
	n.w.tracef("%s signs size %d root %x final %t", n, cp.Size, cp.Root[:4], final)
	if err != nil {
		n.w.failf("%v", err)
	}
	if final {
		n.w.cover("branch: block final")
	}
}

// finals compares what the node itself holds final with the notary's count.
func (n *node) finals() {
	note, block := n.blocks.Final()
	if block == nil || block.Height == n.final {
		return
	}
	n.final = block.Height
	cp, err := receipt.UnverifiedCheckpoint(note)
	if err != nil {
		n.w.failf("%s holds a checkpoint final that is none: %v", n, err)
		return
	}
	if root, ok := n.w.notary.final[cp.Size]; !ok || root != cp.Root {
		n.w.failf("%s holds size %d final, which no quorum signed", n, cp.Size)
	}
	n.w.tracef("%s knows size %d final", n, cp.Size)
}

// exchange tells a peer what is known here and asks for what it knows.
func (n *node) exchange() {
	peer := n.w.nodes[(n.id+1+n.dice.IntN(replicas-1))%replicas]
	notes, life := n.blocks.Notes(), n.life
	if n.w.lost(n) || n.w.lost(peer) {
		return
	}
	n.w.after(n.w.leg(), func() {
		if !peer.up || n.w.now < peer.pausedUntil {
			return
		}
		peer.hears("", notes)
		if !peer.up || n.w.lost(n) || n.w.lost(peer) {
			return
		}
		answer := peer.blocks.Notes()
		n.in(life, n.w.leg(), func() { n.hears(peer.key.Public().Name, answer) })
	})
}

// hears takes in what a peer said.
func (n *node) hears(from string, notes [][]byte) {
	if n.blocks.Halted() == nil {
		_ = n.blocks.Hear(from, notes)
	}
	if n.disk.crashed() {
		n.die()
		return
	}
	n.halts()
	n.finals()
}

// halts notices that signing stopped.
func (n *node) halts() {
	err := n.blocks.Halted()
	if err == nil || n.stopped {
		return
	}
	n.stopped = true
	n.w.tracef("%s stops signing: %v", n, errors.Unwrap(err))
	n.w.cover("branch: sealing halted")
	if !n.wronged && !n.w.tampered() {
		n.w.failf("%s stopped signing and nobody gave it a reason: %v", n, errors.Unwrap(err))
	}
}

// hear learns from the group which shards are this node's.
func (n *node) hear() {
	if n.w.lost(n) {
		return
	}
	for p := range parts {
		if mine := n.w.assign[p] == n.id; mine != n.owners[p].assigned {
			n.owners[p].assigned = mine
			if mine {
				n.owners[p].Assign()
			} else {
				n.owners[p].Release()
			}
			n.drive(p)
		}
	}
}

// fit tells whether the group should leave a shard with this node.
func (n *node) fit(p int) bool {
	return !n.owners[p].Ended() && n.follow[p].Halted() == nil && (p != blockLog || n.blocks.Halted() == nil)
}

// propose appends the next block if there is one: what ledger's proposer does.
func (n *node) propose() {
	o := n.owners[blockLog]
	if o.State() != shard.Owning || n.blocks.Halted() != nil || len(o.waiting) > 0 {
		return
	}
	// The proposal must build on everything the block log holds.
	last, done := n.blocks.Last()
	next := n.follow[blockLog].Head().Next
	if done < next || n.proposed >= int64(next) {
		return
	}
	if _, final := n.blocks.Final(); n.w.now < n.gated && (final == nil || final.Height < n.gate) {
		return
	}
	if n.blocks.Policy().Last() == nil {
		n.record(fmt.Sprintf("policy-%d", next), replica.PolicyType, terms.Marshal())
		return
	}
	var heads []receipt.Head
	for p := range blockLog {
		size := n.follow[p].Head().Next
		root, err := n.follow[p].Tree().Root(size)
		if err != nil {
			n.w.failf("%s has no root: %v", n, err)
			return
		}
		state, err := n.follow[p].StateRoot(size)
		if err != nil {
			n.w.failf("%s has no state: %v", n, err)
			return
		}
		heads = append(heads, receipt.Head{Log: names[p].log, Shard: names[p].shard, Size: size, Root: root, State: state})
	}
	block := core.NextBlock(n.blocks.Policy(), last, heads, n.clock())
	if block == nil {
		return
	}
	kind := "block"
	if n.spoil > 0 {
		spoil(block, n.spoil)
		kind = "bad"
		n.spoil = 0
		n.w.cover("branch: bad block proposed")
	}
	n.gated, n.gate = n.w.now+time.Second, block.Height
	n.record(fmt.Sprintf("%s-%d-%d", kind, block.Height, next), replica.BlockType, block.Marshal())
}

// record appends an event to the block log.
func (n *node) record(id, kind string, payload []byte) {
	o := n.owners[blockLog]
	pend, err := o.Submit(&ledgerv1.AppendRequest{
		Log: replica.BlockLog, RoutingKey: replica.BlockStream, RequestId: id,
		Writes: []*ledgerv1.StreamWrite{{
			Stream: replica.BlockStream, ExpectedRevision: core.Any,
			Events: []*ledgerv1.Event{{Type: kind, Payload: payload}},
		}},
	}, core.Provenance{Actor: n.String()})
	if err != nil {
		return
	}
	o.waiting = append(o.waiting, &waiting{pend: pend, since: n.w.wall(), reply: func(a shard.Answer, err error) {
		if err == nil {
			// The one after builds on this one, once it was read.
			n.proposed = max(n.proposed, int64(a.Index))
		}
	}})
	n.drive(blockLog)
}

// spoil makes a block one that does not verify.
func spoil(b *receipt.Block, how int) {
	b.Heads = slices.Clone(b.Heads)
	switch how {
	case 1:
		b.Heads[0].Root[3] ^= 8
	case 2:
		b.Prev[0] ^= 1
	case 3:
		b.Height++
	case 4:
		b.Origin = "ledger.sim/other"
	case 5:
		b.Policy.Hash[0] ^= 1
	case 6:
		b.Heads = b.Heads[:1]
	case 7:
		b.Heads[1].State[5] ^= 1
	default:
		b.Heads[1].Size, b.Heads[1].Root = 0, receipt.EmptyRoot()
	}
}

// flipTile flips a bit of one of the files below the tiles.
func (n *node) flipTile(bit int) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	var files []*inode
	var walk func(*inode)
	walk = func(i *inode) {
		for _, name := range slices.Sorted(maps.Keys(i.entries)) {
			if child := i.entries[name]; child.dir {
				walk(child)
			} else if len(child.data) > 0 && !strings.HasPrefix(name, ".new-") {
				files = append(files, child)
			}
		}
	}
	if dir := n.disk.find(tilesDir); dir != nil {
		walk(dir)
	}
	if len(files) == 0 {
		return
	}
	n.wronged = true
	f := files[bit%len(files)]
	f.data[bit/7%len(f.data)] ^= 1 << (bit % 8)
	n.w.cover("branch: tile bit flipped")
}

// flipBody crashes the node, flips a bit of a stored commit and starts again.
func (n *node) flipBody(p, bit int) {
	if !n.up {
		return
	}
	if next := n.follow[p].Head().Next; next > 0 {
		index := uint64(bit) % next
		n.die()
		n.wronged = true
		dir := path.Join(commitsDir, names[p].log, fmt.Sprint(names[p].shard))
		err := segments.Falsify(n.files(), dir, index, func(value []byte) {
			value[bit/8%len(value)] ^= 1 << (bit % 8)
			n.w.cover("branch: stored commit's bit flipped")
		})
		// The commit may have been lost in the crash.
		if err != nil && !errors.Is(err, segments.ErrDamaged) {
			n.w.failf("%s: the store does not take a flip: %v", n, err)
		}
	}
}

// restore puts a backup in place of everything, or of everything but the
// memory of signing, as it should be.
func (n *node) restore(backup *inode, all bool) {
	if n.up {
		n.die()
	}
	n.wronged = true
	n.w.cover("branch: restored from a backup")
	n.w.tracef("%s is restored from a backup", n)
	fresh := newDisk(storeDir, n.dice)
	fresh.lies = n.disk.lies
	fresh.root = backup
	for _, name := range []string{"last-signed", "highest-seen"} {
		if all {
			n.w.cover("branch: memory of signing restored too")
			break
		}
		delete(backup.entries, name)
		if kept := n.disk.root.entries[name]; kept != nil {
			backup.entries[name] = kept
		}
	}
	backup.durable = maps.Clone(backup.entries)
	n.disk = fresh
}

// blind is what a planted bug signs: the block log's last block that follows
// the one before, whatever it says about the shards.
func (n *node) blind() ([]byte, *receipt.Block) {
	var f frontier
	var last *receipt.Block
	_, err := n.follow[blockLog].Commits(0, func(c *ledgerv1.Commit) bool {
		for _, w := range c.Writes {
			for _, e := range w.Events {
				b, err := receipt.ParseBlock(e.Payload)
				if err == nil && core.CheckBlock(policy, last, b) == nil {
					f.add(b.Hash())
					last = b
				}
			}
		}
		return true
	})
	if err != nil || last == nil {
		return nil, nil
	}
	text, err := receipt.Checkpoint{Origin: origin, Size: last.Height, Root: f.root()}.Sign(n.key.Cosigner(n.clock()))
	if err != nil {
		return nil, nil
	}
	return text, last
}

// equivocate signs a head that is not the block log's and tells some of the
// others.
func (n *node) equivocate(bits int) {
	size := uint64(1 + bits>>3%3)
	if n.w.notary.tip != nil {
		size += n.w.notary.tip.Height
	}
	cp := receipt.Checkpoint{Origin: origin, Size: size, Root: sha256.Sum256(fmt.Append(nil, "forged ", bits))}
	note, err := cp.Sign(n.key.Cosigner(n.clock()))
	if err != nil {
		n.w.failf("sim: %v", err)
		return
	}
	n.wronged = true
	if _, err := n.w.notary.count(n.id, signature{cp.Size, cp.Root}); err != nil {
		n.w.failf("%v", err)
	}
	for _, peer := range n.w.nodes {
		if peer != n && bits>>peer.id&1 == 1 {
			peer.in(peer.life, n.w.leg(), func() { peer.hears("", [][]byte{note}) })
		}
	}
}
