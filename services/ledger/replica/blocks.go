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
	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
	"github.com/probity-health/probity/services/problem"
)

// The block log is a log like any other: one shard, one fenced writer. A
// block is an event of this type in this stream; its payload is the block's
// text. The stream's revisions are not heights: a block that doesn't verify
// takes a revision and no height.
const (
	BlockLog    = "blocks"
	BlockStream = "block-log"
	BlockType   = "probity.ledger.v1.Block"
)

// BlocksConfig is what Blocks is made of.
type BlocksConfig struct {
	Origin string
	Store  *Store
	Dir    string // the node's data directory
	Log    *Shard // the block log's follower
	Shards []*Shard
	Signer note.Signer
	Logger *slog.Logger
}

// Blocks follows the block log, verifies every block against the trees this
// replica built itself, and signs the checkpoint over those that hold. A
// block that does not verify is ignored and named; the first valid one for a
// height wins.
type Blocks struct {
	cfg    BlocksConfig
	tree   *tiles.Tree
	signed *lastSigned
	// Changed is broadcast when the block log was followed further, at every
	// new checkpoint, and on a halt.
	Changed Signal

	mu         sync.RWMutex // guards what follows
	cursor     uint64       // next commit of the block log
	last       *receipt.Block
	checkpoint []byte         // signed; over a tree that ends with sealed
	sealed     *receipt.Block // nil before the first checkpoint
	halted     error
}

const blockRows = "\x00blocks"

func blockKey(height uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(blockRows+"/"), height)
}

var blockCursor = []byte(blockRows + ".cursor")

type cursor struct {
	Next   uint64 `json:"next"`
	Height uint64 `json:"height"`
}

// OpenBlocks opens the local block data and compares the last block with the
// shards' trees, so that damage is found before anything is signed.
func OpenBlocks(cfg BlocksConfig) (*Blocks, error) {
	b := &Blocks{cfg: cfg}
	var err error
	if b.signed, err = openLastSigned(cfg.Store.disk, cfg.Dir); err != nil {
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
	dir := filepath.Join(cfg.Dir, "tiles", BlockLog)
	b.tree, err = cfg.Store.disk.OpenTree(dir)
	if errors.Is(err, tiles.ErrDamaged) || (err == nil && b.tree.Size() > cur.Height) {
		cfg.Logger.Warn("rebuilding the block log's tiles from the stored blocks", "cause", err)
		if err := cfg.Store.disk.ResetTree(dir); err != nil {
			return nil, err
		}
		b.tree, err = cfg.Store.disk.OpenTree(dir)
	}
	if err != nil {
		return nil, err
	}
	for h := b.tree.Size() + 1; h <= cur.Height; h++ {
		text, err := rows.get(blockKey(h))
		if err != nil {
			return nil, err
		}
		if text == nil {
			return nil, errDamaged
		}
		b.tree.Append(text)
	}
	if cur.Height == 0 {
		return b, nil
	}
	text, err := rows.get(blockKey(cur.Height))
	if err != nil {
		return nil, err
	}
	if b.last, err = receipt.ParseBlock(text); err != nil {
		return nil, errDamaged
	}
	for _, h := range b.last.Heads {
		if err := b.matches(h); err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return b, b.seal()
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
	return nil
}

// Last returns the last valid block, nil before the first, and how many
// commits of the block log it took into account.
func (b *Blocks) Last() (*receipt.Block, uint64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.last, b.cursor
}

// Sealed returns the newest checkpoint, signed, and the block it ends with;
// nil before the first.
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

// Run follows the block log until ctx ends (no error) or sealing halts.
func (b *Blocks) Run(ctx context.Context) error {
	var (
		waiting  waitingFor
		patience <-chan time.Time
	)
	for ctx.Err() == nil {
		changed := b.cfg.Log.Changed.Wait()
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
		case <-patience:
			return b.halt(&waiting)
		case <-ctx.Done():
		}
	}
	return nil
}

// Step takes the block log's new commits in, at most maxBlocks blocks, and
// signs the checkpoint over them. It waits for nothing: where a block seals
// commits that this replica has not read, it takes in what comes before and
// returns an error that says NotYet. Any other error has halted sealing. Step
// must have one caller.
func (b *Blocks) Step(ctx context.Context) (moved bool, err error) {
	if err := b.Halted(); err != nil {
		return false, err
	}
	moved, err = b.follow()
	if moved {
		if failed := b.seal(); failed != nil {
			err = failed
		}
		b.Changed.Broadcast()
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
	return err
}

// maxBlocks bounds what follow takes in at once, and so what one checkpoint adds.
const maxBlocks = 1024

// follow takes the block log's new commits in, at most maxBlocks blocks. It may
// move and still return that it waits for a shard.
func (b *Blocks) follow() (moved bool, err error) {
	b.mu.RLock()
	last, next := b.last, b.cursor
	b.mu.RUnlock()
	start := next
	batch := b.cfg.Store.db.NewBatch()
	defer batch.Close()
	var texts [][]byte
	var failed, wait error
	_, err = b.cfg.Log.Commits(next, func(c *ledgerv1.Commit) bool {
		more, newest, err := b.take(last, c)
		switch {
		case NotYet(err):
			wait = err
			return false
		case err != nil:
			failed = err
			return false
		}
		for i, text := range more {
			height := newest.Height - uint64(len(more)-1-i)
			failed = errors.Join(failed, batch.Set(blockKey(height), text, nil))
		}
		last, texts, next = newest, append(texts, more...), c.Index+1
		return failed == nil && len(texts) < maxBlocks
	})
	if err = errors.Join(err, failed); err != nil {
		return false, err
	}
	if next == start {
		return false, wait
	}
	var height uint64
	if last != nil {
		height = last.Height
	}
	raw, err := json.Marshal(cursor{Next: next, Height: height})
	if err != nil {
		return false, err
	}
	if err := batch.Set(blockCursor, raw, nil); err != nil {
		return false, err
	}
	// This sync covers the shards' rows too: they share one write-ahead log.
	if err := batch.Commit(pebble.Sync); err != nil {
		return false, err
	}
	for _, text := range texts {
		b.tree.Append(text)
	}
	b.mu.Lock()
	b.last, b.cursor = last, next
	b.mu.Unlock()
	return true, wait
}

// take returns the texts of the valid blocks in a commit and the last of them,
// prev when there is none.
func (b *Blocks) take(prev *receipt.Block, c *ledgerv1.Commit) (texts [][]byte, last *receipt.Block, err error) {
	last = prev
	for _, w := range c.Writes {
		for _, e := range w.Events {
			if e.Type != BlockType {
				continue
			}
			block, err := b.verify(last, e.Payload)
			var v *core.Violation
			if errors.As(err, &v) {
				b.cfg.Logger.Error("ignored a block that does not verify", "proposer", c.Actor, "rule", v.Rule, "what", v.What, "index", c.Index)
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			texts, last = append(texts, e.Payload), block
		}
	}
	return texts, last, nil
}

// verify returns a valid block; the error is a *core.Violation for one that
// isn't, NotYet while its commits are not read, and anything else where this
// replica cannot tell.
func (b *Blocks) verify(prev *receipt.Block, text []byte) (*receipt.Block, error) {
	block, err := receipt.ParseBlock(text)
	if err != nil {
		return nil, &core.Violation{Rule: "ledger.block.form", What: err.Error()}
	}
	if err := core.CheckBlock(b.cfg.Origin, prev, block); err != nil {
		return nil, err
	}
	for _, h := range block.Heads {
		if prev != nil {
			if before, ok := prev.Head(h.Log, h.Shard); ok && before == h {
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

// seal publishes the tiles the last block needs and signs the checkpoint over
// it. The order is the crash safety: what a checkpoint commits to is durable
// before the checkpoint is.
func (b *Blocks) seal() error {
	b.mu.RLock()
	last := b.last
	b.mu.RUnlock()
	if last == nil {
		return nil
	}
	// Side by side, because each waits for the disk and what waits together
	// is committed together.
	err := b.cfg.Store.disk.Together(len(last.Heads)+1, func(i int) error {
		if i == len(last.Heads) {
			return b.tree.Publish(last.Height)
		}
		h := last.Heads[i]
		if s := b.shard(h.Log, h.Shard); s != nil {
			return s.tree.Publish(h.Size)
		}
		return nil
	})
	if err != nil {
		return err
	}
	root, err := b.tree.Root(last.Height)
	if err != nil {
		return err
	}
	cp := receipt.Checkpoint{Origin: b.cfg.Origin, Size: last.Height, Root: root}
	if ok, err := b.signed.advance(cp); err != nil || !ok {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: string(cp.Marshal())}, b.cfg.Signer)
	if err != nil {
		return err
	}
	if err := b.cfg.Store.disk.WriteFile(b.cfg.Dir, "checkpoint", signed); err != nil {
		return err
	}
	b.mu.Lock()
	b.checkpoint, b.sealed = signed, last
	b.mu.Unlock()
	return nil
}

// Tree returns the block log's tree.
func (b *Blocks) Tree() *tiles.Tree { return b.tree }

// Receipt builds the receipt of a commit that a checkpoint has sealed; nil
// while none has. It verifies both proofs before it hands them out.
func (b *Blocks) Receipt(log string, shard uint32, index uint64) (*receipt.Receipt, error) {
	checkpoint, block := b.Sealed()
	s := b.shard(log, shard)
	if s == nil || block == nil {
		return nil, nil
	}
	head, ok := block.Head(log, shard)
	if !ok || head.Size <= index {
		return nil, nil
	}
	value, err := s.Commit(index)
	if err != nil {
		return nil, err
	}
	r := &receipt.Receipt{Log: log, Shard: shard, Index: index, Entry: receipt.Entry(value), Block: *block, Checkpoint: checkpoint}
	if r.ShardProof, err = s.tree.Inclusion(index, head.Size); err != nil {
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
