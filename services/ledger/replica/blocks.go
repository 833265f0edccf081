package replica

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
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

	derivedMu sync.Mutex // guards what follows; nothing else is taken with it
	proved    map[proven]receipt.Receipt
	roots     map[uint64]receipt.Hash // of the block log, by size

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
	common, err := b.common(block, log, shard)
	if err != nil {
		return nil, err
	}
	r := &common
	r.Index, r.Checkpoint = index, checkpoint
	if r.Entry, err = s.Entry(index); err != nil {
		return nil, err
	}
	if r.ShardProof, err = s.tree.Inclusion(index, r.Head.Size); err != nil {
		return nil, err
	}
	if err := r.CheckShardProof(); err != nil {
		// The stored bytes are no longer those that were sealed.
		return nil, b.halt(fmt.Errorf("replica: %s/%d index %d reads back differently from what was sealed: %w", log, shard, index, err))
	}
	return r, nil
}

// proven is a shard in a block.
type proven struct {
	block *receipt.Block
	log   string
	shard uint32
}

// heldProven bounds what is kept for the receipts of newest blocks.
const heldProven = 256

// common returns a receipt with all that doesn't depend on the commit. Many
// wait for the same block, and each link is hashed from all of its shards.
// Nobody may change its proofs.
func (b *Blocks) common(block *receipt.Block, log string, shard uint32) (receipt.Receipt, error) {
	at := proven{block, log, shard}
	b.derivedMu.Lock()
	r, ok := b.proved[at]
	b.derivedMu.Unlock()
	if ok {
		return r, nil
	}
	r = receipt.Receipt{Log: log, Shard: shard, Header: block.Header()}
	r.Head, r.Place, r.HeadProof, _ = block.ProveHead(log, shard)
	var err error
	if r.BlockProof, err = b.tree.Inclusion(block.Height-1, block.Height); err != nil {
		return r, err
	}
	b.derivedMu.Lock()
	defer b.derivedMu.Unlock()
	if b.proved == nil || len(b.proved) >= heldProven {
		b.proved = map[proven]receipt.Receipt{}
	}
	b.proved[at] = r
	return r, nil
}
