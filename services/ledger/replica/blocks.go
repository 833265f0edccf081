package replica

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
	"github.com/probity-health/probity/services/problem"
)

// The block log is a log like any other: one shard, one fenced writer. A
// block is an event of type BlockType in its stream, whose payload is the
// block's text; a version of the ledger's policy is one of type PolicyType,
// whose payload is its note. The stream's revisions are not heights: a block
// that doesn't verify takes a revision and no height.
const (
	BlockLog    = "blocks"
	BlockStream = "block-log"
	BlockType   = "probity.ledger.v1.Block"
	PolicyType  = "probity.ledger.v1.Policy"
)

// BlocksConfig is what Blocks is made of.
type BlocksConfig struct {
	// Root is the first version of the policy as this replica was given it
	// out of band. Only a ledger that begins with its parties is followed.
	Root  *receipt.Terms
	Store *Store
	Dir   string // the node's data directory
	// SignedDir holds the memory of what was signed, which must not be
	// restored from a backup; empty is Dir.
	SignedDir string
	Log       *Shard // the block log's follower
	Shards    []*Shard
	Key       *receipt.SigningKey
	// Now stamps cosignatures; nil is time.Now.
	Now func() time.Time
	// ScrubInterval is the time between two steps of Run's sweep over what is
	// stored; 0 is no sweep.
	ScrubInterval time.Duration
	Logger        *slog.Logger
}

// Blocks follows the block log, verifies every block against the trees this
// replica built itself, cosigns the checkpoint over those that hold, and
// counts the others' cosignatures. A block that does not verify is ignored
// and named; the first valid one for a height wins.
type Blocks struct {
	cfg    BlocksConfig
	self   receipt.PublicKey
	tree   *tiles.Tree
	signed *lastSigned
	// Changed is broadcast when the block log was followed further, at every
	// new checkpoint, when one became final, and on a halt.
	Changed Signal
	// Finalised is broadcast when a checkpoint became final, and on a halt:
	// those who wait for that are many, and the rest is no news to them.
	Finalised Signal
	// wake makes Run step again: what withheld a signature may have passed.
	wake Signal

	mu         sync.RWMutex // guards what follows
	cursor     uint64       // next commit of the block log
	last       *receipt.Block
	policy     receipt.Policy
	checkpoint []byte         // cosigned by this replica; over a tree that ends with sealed
	sealed     *receipt.Block // nil before the first checkpoint
	withheld   string         // why last is not signed; "" when it is
	final      []byte         // note of the newest final checkpoint; nil before the first
	finalBlock *receipt.Block
	halted     error

	tallyMu sync.Mutex // guards what follows; never taken while mu is held
	tally   *core.Tally
	heard   map[string]bool // members that answered since this replica started

	// Only Step touches these.
	checked   map[*Shard]uint64 // commits whose stored bytes were read back
	scrub     scrubber
	published time.Time // when the tiles on disk were last brought level with a block
	tiling    behind    // that
}

const blockRows = "\x00blocks"

func blockKey(height uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(blockRows+"/"), height)
}

func policyKey(sequence uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(blockRows+".policy/"), sequence)
}

var (
	blockCursor = []byte(blockRows + ".cursor")
	blockStates = []byte(blockRows + ".states")
	finalNote   = []byte(blockRows + ".final")
)

type cursor struct {
	Next     uint64 `json:"next"`
	Height   uint64 `json:"height"`
	Policies uint64 `json:"policies"`
}

// sealedState is the compact range over a shard's index rows at the size the
// newest block sealed.
type sealedState struct {
	Log   string   `json:"log"`
	Shard uint32   `json:"shard"`
	Size  uint64   `json:"size"`
	Nodes [][]byte `json:"nodes"`
}

// OpenBlocks opens the local block data and compares the last block with the
// shards' trees, so that damage is found before anything is signed.
func OpenBlocks(cfg BlocksConfig) (*Blocks, error) {
	if cfg.SignedDir == "" {
		cfg.SignedDir = cfg.Dir
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b := &Blocks{cfg: cfg, self: cfg.Key.Public(), heard: map[string]bool{}, checked: map[*Shard]uint64{}}
	var err error
	if b.signed, err = openLastSigned(cfg.Store.disk, cfg.SignedDir); err != nil {
		return nil, err
	}
	rows := rows{db: cfg.Store.db}
	var cur cursor
	if raw, err := rows.get(blockCursor); err != nil {
		return nil, err
	} else if raw != nil {
		if err := json.Unmarshal(raw, &cur); err != nil {
			return nil, errDamaged
		}
	}
	b.cursor = cur.Next
	for seq := uint64(1); seq <= cur.Policies; seq++ {
		record, err := rows.get(policyKey(seq))
		if err != nil {
			return nil, err
		}
		if b.policy, err = core.TakePolicy(b.policy, cfg.Root, 0, record); err != nil {
			return nil, fmt.Errorf("replica: the stored policy: %w", err)
		}
	}
	b.tally = core.NewTally(b.policy)
	if err := b.openTree(rows, cur.Height); err != nil {
		return nil, err
	}
	if err := b.loadStates(rows); err != nil {
		return nil, err
	}
	if err := b.loadLast(cur.Height); err != nil {
		return nil, err
	}
	// What a crash took of the rows, the block log's commits still say.
	for moved := true; moved; {
		if moved, err = b.follow(); err != nil {
			break // Step meets it again, and knows what to do
		}
	}
	cfg.Store.mu.Lock()
	cfg.Store.flushes = append(cfg.Store.flushes, func() error { return b.tiling.wait() })
	cfg.Store.mu.Unlock()
	if b.last == nil {
		return b, nil
	}
	if err := b.loadChecked(); err != nil {
		return nil, err
	}
	b.checked[b.cfg.Log] = b.cfg.Log.Head().Next
	if err := b.loadFinal(rows); err != nil {
		return nil, err
	}
	if err := b.seal(); err != nil {
		return b, err
	}
	return b, b.publishSome()
}

// loadLast takes up the newest stored block and compares its heads with the
// shards' trees.
func (b *Blocks) loadLast(height uint64) (err error) {
	if height == 0 {
		return nil
	}
	if b.last, err = b.block(height); err != nil {
		return err
	}
	for _, h := range b.last.Heads {
		if b.shard(h.Log, h.Shard) == nil {
			return fmt.Errorf("replica: the ledger has log %s with shard %d, which this node is not configured to follow", h.Log, h.Shard)
		}
		if err := b.matches(h); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return nil
}

// loadChecked takes what the last signature covers as read back: Scrub reads it
// again in turn. The last block may seal more, for it is stored before what it
// seals is read back, and a store that is behind the signatures was made anew.
func (b *Blocks) loadChecked() error {
	signed := b.signed.height()
	if signed == 0 || signed > b.last.Height {
		return nil
	}
	block, err := b.block(signed)
	if err != nil {
		return err
	}
	for _, h := range block.Heads {
		b.checked[b.shard(h.Log, h.Shard)] = h.Size
	}
	return nil
}

// openTree opens the block log's tree and brings it level with the stored
// blocks.
func (b *Blocks) openTree(rows rows, height uint64) (err error) {
	disk, dir := b.cfg.Store.disk, filepath.Join(b.cfg.Dir, "tiles", BlockLog)
	b.tree, err = disk.OpenTree(dir)
	if errors.Is(err, tiles.ErrDamaged) || (err == nil && b.tree.Size() > height) {
		b.cfg.Logger.Warn("rebuilding the block log's tiles from the stored blocks", "cause", err)
		if err := disk.ResetTree(dir); err != nil {
			return err
		}
		b.tree, err = disk.OpenTree(dir)
	}
	if err != nil {
		return err
	}
	for h := b.tree.Size() + 1; h <= height; h++ {
		block, err := b.block(h)
		if err != nil {
			return err
		}
		header := block.Header()
		b.tree.Append(header.Marshal())
	}
	return nil
}

func (b *Blocks) loadStates(rows rows) error {
	raw, err := rows.get(blockStates)
	if err != nil {
		return err
	}
	var states []sealedState
	if raw != nil && json.Unmarshal(raw, &states) != nil {
		return errDamaged
	}
	for _, s := range b.cfg.Shards {
		var sealed sealedState
		for _, st := range states {
			if st.Log == s.cfg.Log && st.Shard == s.cfg.Shard {
				sealed = st
			}
		}
		if err := s.loadState(sealed.Size, sealed.Nodes); err != nil {
			return err
		}
	}
	return nil
}

// block reads a stored valid block.
func (b *Blocks) block(height uint64) (*receipt.Block, error) {
	text, err := rows{db: b.cfg.Store.db}.get(blockKey(height))
	if err != nil {
		return nil, err
	}
	block, err := receipt.ParseBlock(text)
	if err != nil || block.Height != height {
		return nil, fmt.Errorf("%w: block %d does not read back", errDamaged, height)
	}
	return block, nil
}

func (b *Blocks) shard(log string, shard uint32) *Shard {
	for _, s := range b.cfg.Shards {
		if s.cfg.Log == log && s.cfg.Shard == shard {
			return s
		}
	}
	return nil
}

// matches compares a head with this replica's own tree.
func (b *Blocks) matches(h receipt.Head) error {
	s := b.shard(h.Log, h.Shard)
	if s == nil {
		return fmt.Errorf("no shard %s/%d here", h.Log, h.Shard)
	}
	root, err := s.tree.Root(h.Size)
	if err != nil {
		return err
	}
	if root != h.Root {
		return &core.Violation{Rule: "ledger.block.root", What: fmt.Sprintf("the root of %s/%d at %d is not the one this replica computed", h.Log, h.Shard, h.Size)}
	}
	state, err := s.StateRoot(h.Size)
	if err != nil {
		return err
	}
	if state != h.State {
		return &core.Violation{Rule: "ledger.block.state", What: fmt.Sprintf("the state of %s/%d at %d is not the one this replica computed", h.Log, h.Shard, h.Size)}
	}
	return nil
}

// Last returns the last valid block, nil before the first, and how many
// commits of the block log it took into account.
func (b *Blocks) Last() (*receipt.Block, uint64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.last, b.cursor
}

// Policy returns the ledger's policy as recorded so far.
func (b *Blocks) Policy() receipt.Policy {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.policy
}

// Sealed returns the newest checkpoint this replica cosigned and the block it
// ends with; nil before the first, and on a replica that is no cosigner.
func (b *Blocks) Sealed() ([]byte, *receipt.Block) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.checkpoint, b.sealed
}

// Halted returns why this replica stopped sealing, nil while it does.
func (b *Blocks) Halted() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.halted
}

// awaited bounds how long Run waits for commits that a block seals. What a
// proposer saw acknowledged is in the topic, so the follower gets there,
// unless it halts.
const awaited = 2 * time.Minute

// scrubRest is how many times as long as a step of the sweep took Run rests
// after it: what is read is cold, and neither the blocks, which wait for it,
// nor the caches shall feel it.
const scrubRest = 50

// Run follows the block log until ctx ends (no error) or sealing halts, and
// sweeps what is stored on the way.
func (b *Blocks) Run(ctx context.Context) error {
	var (
		waiting  waitingFor
		patience <-chan time.Time
		sweep    <-chan time.Time
	)
	if b.cfg.ScrubInterval > 0 {
		sweep = time.After(b.cfg.ScrubInterval)
	}
	for ctx.Err() == nil {
		changed, wake, damaged := b.cfg.Log.Changed.Wait(), b.wake.Wait(), b.cfg.Store.damage.found.Wait()
		moved, err := b.Step(ctx)
		var wait *waitingFor
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &wait):
			if patience == nil || *wait != waiting {
				waiting, patience = *wait, time.After(awaited)
			}
			s := b.shard(wait.log, wait.shard)
			changed = s.Changed.Wait()
			if s.Head().Next >= wait.size || s.Halted() != nil {
				continue // since Step looked
			}
		case err != nil:
			return err
		case moved:
			continue // there may be more, and nobody else to say so
		default:
			patience = nil
		}
		select {
		case <-changed:
		case <-wake:
		case <-damaged:
		case <-sweep:
			began := time.Now()
			if _, err := b.Scrub(); err != nil {
				return err
			}
			sweep = time.After(max(b.cfg.ScrubInterval, scrubRest*time.Since(began)))
		case <-patience:
			return b.halt(&waiting)
		case <-ctx.Done():
		}
	}
	return nil
}

// Step takes the block log's new commits in, at most maxBlocks blocks, and
// signs the checkpoint over them, unless a reason to withhold the signature
// holds (see Withheld). It waits for nothing: where a block seals
// commits that this replica has not read, it takes in what comes before and
// returns an error that says NotYet. Any other error has halted sealing. Step
// must have one caller.
func (b *Blocks) Step(ctx context.Context) (moved bool, err error) {
	if err := b.Halted(); err != nil {
		return false, err
	}
	if err := errors.Join(b.cfg.Store.Damaged(), b.tiling.result()); err != nil {
		return false, b.halt(err)
	}
	moved, err = b.follow()
	if moved || b.Withheld() != "" {
		failed := b.seal()
		b.Changed.Broadcast()
		if failed == nil {
			failed = b.publishSome()
		}
		if failed != nil {
			err = failed
		}
	}
	var wait *waitingFor
	if err == nil {
		err = b.cfg.Log.Halted()
	} else if errors.As(err, &wait) {
		// A halted shard gets no further; its halt is looked at first.
		s := b.shard(wait.log, wait.shard)
		if halted := s.Halted(); halted != nil && s.Head().Next < wait.size {
			err = fmt.Errorf("%s: %w", wait.Error(), halted)
		}
	}
	if err != nil && !NotYet(err) && ctx.Err() == nil {
		err = b.halt(err)
	}
	return moved, err
}

// waitingFor is the error of a block that seals commits not read yet.
type waitingFor struct {
	height uint64
	log    string
	shard  uint32
	size   uint64
}

// Error names the block and the shard it waits for.
func (w *waitingFor) Error() string {
	return fmt.Sprintf("replica: block %d seals %d commits of %s/%d, which are not all read yet", w.height, w.size, w.log, w.shard)
}

// NotYet tells whether a Step ended where a block waits for its commits.
func NotYet(err error) bool {
	var w *waitingFor
	return errors.As(err, &w)
}

func (b *Blocks) halt(cause error) error {
	err := problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "ledger.seal.halted",
		Message: "this replica stopped signing checkpoints",
		Fix:     "see its log for the rule that broke; receipts up to the last checkpoint are still served",
	}).Because(cause)
	b.cfg.Logger.Error("SEALING HALTED: this replica signs no more checkpoints", "cause", cause)
	b.mu.Lock()
	b.halted = err
	b.mu.Unlock()
	b.Changed.Broadcast()
	b.Finalised.Broadcast()
	return err
}

// maxBlocks bounds what follow takes in at once, and so what one checkpoint adds.
const maxBlocks = 1024

// progress is how far the block log was taken in.
type progress struct {
	last   *receipt.Block
	policy receipt.Policy
	texts  [][]byte // of the valid blocks on the way, from the one after the first last on
}

// follow takes the block log's new commits in, at most maxBlocks blocks. It may
// move and still return that it waits for a shard.
func (b *Blocks) follow() (moved bool, err error) {
	b.mu.RLock()
	at, next := progress{last: b.last, policy: b.policy}, b.cursor
	b.mu.RUnlock()
	start, before := next, at
	var failed, wait error
	_, err = b.cfg.Log.Commits(next, func(c *ledgerv1.Commit) bool {
		took, err := b.take(at, c)
		switch {
		case NotYet(err):
			wait = err
			return false
		case err != nil:
			failed = err
			return false
		}
		at, next = took, c.Index+1
		return len(at.texts) < maxBlocks
	})
	if err = errors.Join(err, failed); err != nil {
		return false, err
	}
	if next == start {
		return false, wait
	}
	headers, err := b.store(before, at, next)
	if err != nil {
		return false, err
	}
	for _, h := range headers {
		b.tree.Append(h)
	}
	b.mu.Lock()
	b.last, b.policy, b.cursor = at.last, at.policy, next
	b.mu.Unlock()
	if was, is := before.policy.Last(), at.policy.Last(); was != is {
		b.cfg.Logger.Warn("the ledger has a new policy", "sequence", is.Sequence, "activates", is.Activation, "quorum", is.Quorum, "cosigners", len(is.Cosigners()))
		b.tallyMu.Lock()
		b.tally.SetPolicy(at.policy)
		b.tallyMu.Unlock()
	}
	return true, wait
}

// store makes durable what the block log says and its blocks seal, stores
// what was taken in of it, and returns the new blocks' leaf entries. The rows
// themselves are not synced: OpenBlocks takes them from the commits again.
func (b *Blocks) store(before, at progress, next uint64) (headers [][]byte, err error) {
	batch := b.cfg.Store.db.NewBatch()
	defer batch.Close()
	cur := cursor{Next: next}
	if at.last != nil {
		cur.Height = at.last.Height
	}
	first := cur.Height + 1 - uint64(len(at.texts))
	for i, text := range at.texts {
		block, err := receipt.ParseBlock(text)
		if err != nil {
			return nil, err
		}
		header := block.Header()
		headers = append(headers, header.Marshal())
		if err := batch.Set(blockKey(first+uint64(i)), text, nil); err != nil {
			return nil, err
		}
	}
	if t := at.policy.Last(); t != nil {
		cur.Policies = t.Sequence
		from := uint64(1)
		if was := before.policy.Last(); was != nil {
			from = was.Sequence + 1
		}
		for seq := from; seq <= cur.Policies; seq++ {
			if err := batch.Set(policyKey(seq), at.policy.Note(seq), nil); err != nil {
				return nil, err
			}
		}
	}
	if len(at.texts) > 0 {
		if err := b.putStates(batch, at.last); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(cur)
	if err != nil {
		return nil, err
	}
	if err := batch.Set(blockCursor, raw, nil); err != nil {
		return nil, err
	}
	// No row may outlive the commits it derives from.
	if err := b.cfg.Store.syncCommits(); err != nil {
		return nil, err
	}
	return headers, batch.Commit(pebble.NoSync)
}

// putStates stores the compact ranges over the index rows at the sizes a
// block seals and lets the shards forget what lies below.
func (b *Blocks) putStates(batch *pebble.Batch, block *receipt.Block) error {
	var states []sealedState
	for _, h := range block.Heads {
		s := b.shard(h.Log, h.Shard)
		if s == nil {
			continue
		}
		s.mu.Lock()
		nodes, err := s.states.rangeAt(h.Size)
		if err == nil {
			s.states.trim(h.Size, nodes)
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		states = append(states, sealedState{Log: h.Log, Shard: h.Shard, Size: h.Size, Nodes: nodes})
	}
	raw, err := json.Marshal(states)
	if err != nil {
		return err
	}
	return batch.Set(blockStates, raw, nil)
}

// take applies one commit of the block log: its valid blocks and policies
// count, the others are named and ignored.
func (b *Blocks) take(at progress, c *ledgerv1.Commit) (progress, error) {
	ignored := func(what string, v *core.Violation) {
		b.cfg.Logger.Error("ignored a "+what+" that does not verify", "proposer", c.Actor, "rule", v.Rule, "what", v.What, "index", c.Index)
	}
	for _, w := range c.Writes {
		for _, e := range w.Events {
			var v *core.Violation
			switch e.Type {
			case PolicyType:
				var height uint64
				if at.last != nil {
					height = at.last.Height
				}
				if at.policy.Last() != nil && string(at.policy.Note(1)) == string(e.Payload) {
					continue // two proposers began the ledger alike
				}
				policy, err := core.TakePolicy(at.policy, b.cfg.Root, height, e.Payload)
				if errors.As(err, &v) {
					ignored("policy", v)
					continue
				}
				if err != nil {
					return at, err
				}
				at.policy = policy
			case BlockType:
				block, err := b.verify(at, e.Payload)
				if errors.As(err, &v) {
					ignored("block", v)
					continue
				}
				if err != nil {
					return at, err
				}
				at.texts, at.last = append(at.texts, e.Payload), block
			}
		}
	}
	return at, nil
}

// verify returns a valid block; the error is a *core.Violation for one that
// isn't, NotYet while its commits are not read, and anything else where this
// replica cannot tell.
func (b *Blocks) verify(at progress, text []byte) (*receipt.Block, error) {
	block, err := receipt.ParseBlock(text)
	if err != nil {
		return nil, &core.Violation{Rule: "ledger.block.form", What: err.Error()}
	}
	if err := core.CheckBlock(at.policy, at.last, block); err != nil {
		return nil, err
	}
	for _, h := range block.Heads {
		if at.last != nil {
			if before, ok := at.last.Head(h.Log, h.Shard); ok && before == h {
				continue
			}
		}
		if h.Size > 0 {
			s := b.shard(h.Log, h.Shard)
			if s == nil {
				return nil, fmt.Errorf("replica: block %d seals log %s, which this node is not configured to follow", block.Height, h.Log)
			}
			if s.Head().Next < h.Size {
				return nil, &waitingFor{height: block.Height, log: h.Log, shard: h.Shard, size: h.Size}
			}
		}
		if err := b.matches(h); err != nil {
			return nil, err
		}
	}
	return block, nil
}

// seal reads back what is new in the last block and cosigns the checkpoint
// over it. The order is the crash safety: the commits and the block, from which
// all that a checkpoint commits to derives, are durable before the memory of
// signing it, and that before the signature.
func (b *Blocks) seal() error {
	b.mu.RLock()
	last, policy, sealed := b.last, b.policy, b.sealed
	b.mu.RUnlock()
	if last == nil || (sealed != nil && sealed.Height == last.Height) {
		return nil
	}
	root, err := b.tree.Root(last.Height)
	if err != nil {
		return err
	}
	cp := receipt.Checkpoint{Origin: policy.Origin(), Size: last.Height, Root: root}
	why := b.withhold(policy.At(last.Height), last)
	if why == "" {
		if err := b.readBack(last); err != nil {
			return err
		}
		ok, err := b.signed.advance(cp, b.tree.Root)
		if err != nil {
			return err
		}
		if !ok {
			why = "it is below what was signed or seen before"
		}
	}
	b.mu.Lock()
	changed := b.withheld != why
	b.withheld = why
	b.mu.Unlock()
	if why != "" {
		if changed {
			b.cfg.Logger.Info("not signing for now", "why", why, "height", last.Height)
		}
		return b.settle()
	}
	signed, err := cp.Sign(b.cfg.Key.Cosigner(b.cfg.Now()))
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.checkpoint, b.sealed = signed, last
	b.mu.Unlock()
	b.tallyMu.Lock()
	_, _, err = b.tally.Add(signed)
	b.tallyMu.Unlock()
	if err != nil {
		return err
	}
	return b.settle()
}

// Tree returns the block log's tree.
func (b *Blocks) Tree() *tiles.Tree { return b.tree }

// Receipt builds the receipt of a commit that is final or, with sealed, of
// one that at least this replica cosigned; nil while it is not. It verifies
// the proof of the commit before it hands it out.
func (b *Blocks) Receipt(log string, shard uint32, index uint64, sealed bool) (*receipt.Receipt, error) {
	s := b.shard(log, shard)
	if s == nil {
		return nil, nil
	}
	covers := func(block *receipt.Block) bool {
		if block == nil {
			return false
		}
		head, ok := block.Head(log, shard)
		return ok && head.Size > index
	}
	checkpoint, block := b.Final()
	if sealed && !covers(block) {
		checkpoint, block = b.Sealed()
	}
	if !covers(block) {
		return nil, nil
	}
	r := &receipt.Receipt{Log: log, Shard: shard, Index: index, Header: block.Header(), Checkpoint: checkpoint}
	var err error
	if r.Entry, err = s.Entry(index); err != nil {
		return nil, err
	}
	r.Head, r.Place, r.HeadProof, _ = block.ProveHead(log, shard)
	if r.ShardProof, err = s.tree.Inclusion(index, r.Head.Size); err != nil {
		return nil, err
	}
	if r.BlockProof, err = b.tree.Inclusion(block.Height-1, block.Height); err != nil {
		return nil, err
	}
	if err := r.CheckShardProof(); err != nil {
		// The stored bytes are no longer those that were sealed.
		return nil, b.halt(fmt.Errorf("replica: %s/%d index %d reads back differently from what was sealed: %w", log, shard, index, err))
	}
	return r, nil
}
