package replica

import (
	"fmt"
	"time"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// chunk is how many commits are read back at once: a tile's width.
const chunk = 256

// readBack reads from disk the commits that a block seals and that were not
// read back before, hashes them anew, and compares them with the tree whose
// root is about to be signed. What is signed is thus what a reader gets, not
// what once was in memory.
func (b *Blocks) readBack(last *receipt.Block) error {
	for _, h := range last.Heads {
		s := b.shard(h.Log, h.Shard)
		for from := b.checked[s]; from < h.Size; from = b.checked[s] {
			to := min(h.Size, (from/chunk+1)*chunk)
			leaves, err := s.tree.Leaves(from, to)
			if err != nil {
				return err
			}
			if err := s.compareStored(from, to, leaves, false); err != nil {
				return err
			}
			b.checked[s] = to
		}
	}
	return nil
}

// publishEvery and publishAt bound what the tiles on disk lack of what was
// signed, in time and in leaves of a tree. They derive from the commits, which
// are durable before anything is signed, and are served from memory meanwhile.
const (
	publishEvery = time.Second
	publishAt    = 4096
)

// publishDue tells whether the tiles should be brought level with a block,
// because of the time or of the leaves.
func (b *Blocks) publishDue(last *receipt.Block, late bool) bool {
	if late {
		return true
	}
	for _, h := range last.Heads {
		if size, _ := b.shard(h.Log, h.Shard).tree.Published(); h.Size >= size+publishAt {
			return true
		}
	}
	size, _ := b.tree.Published()
	return last.Height >= size+publishAt
}

// publishSome brings the tiles on disk level with the last block where that is
// due, beside what follows. What went wrong shows in the next step.
func (b *Blocks) publishSome() error {
	last, _ := b.Last()
	now := b.cfg.Now()
	late := now.Sub(b.published) >= publishEvery || now.Before(b.published)
	if last == nil || b.tiling.busy() || !b.publishDue(last, late) {
		return nil
	}
	if err := b.tiling.result(); err != nil {
		return err
	}
	b.published = now
	return b.tiling.start(b.cfg.Store.disk, func() error { return b.publish(last, !late) })
}

// publish makes the tiles that a block needs durable and reads the new ones
// back. In a hurry, of a tree that is many leaves behind, it makes the whole
// packs alone.
func (b *Blocks) publish(last *receipt.Block, hurry bool) error {
	// Side by side, because each waits for the disk and what waits together
	// is committed together.
	return b.cfg.Store.disk.Together(len(last.Heads)+1, func(i int) error {
		if i == len(last.Heads) {
			return publishChecked(b.tree, last.Height, hurry)
		}
		h := last.Heads[i]
		if s := b.shard(h.Log, h.Shard); s != nil {
			return publishChecked(s.tree, h.Size, hurry)
		}
		return nil
	})
}

func publishChecked(t *tiles.Tree, size uint64, hurry bool) error {
	from, _ := t.Published()
	if hurry && size >= from+publishAt {
		size = tiles.Whole(size)
	}
	if size <= from {
		return nil
	}
	if err := t.Publish(size); err != nil {
		return err
	}
	for ; from < size; from = (from/chunk + 1) * chunk {
		if _, err := t.CheckStored(from, min(size, (from/chunk+1)*chunk)); err != nil {
			return &core.Violation{Rule: "ledger.store.damaged", What: err.Error()}
		}
	}
	return nil
}

// Publish brings the tiles on disk level with the last block. It must not run
// beside Step.
func (b *Blocks) Publish() error {
	err := b.tiling.wait()
	last, _ := b.Last()
	if err != nil || last == nil || b.Halted() != nil {
		return err
	}
	return b.publish(last, false)
}

func damaged(log string, shard uint32, index uint64, what string) error {
	return &core.Violation{Rule: "ledger.store.damaged", What: fmt.Sprintf("%s/%d index %d: %s", log, shard, index, what)}
}

// recheck reads the commits from up to but not including to from the store
// and their leaves from the tiles and compares them; with index also the rows
// that find a commit by request and by stream. The error is a
// *core.Violation that names the first position at fault.
func (s *Shard) recheck(from, to uint64, index bool) error {
	leaves, err := s.tree.CheckStored(from, to)
	if err != nil {
		return damaged(s.cfg.Log, s.cfg.Shard, from, err.Error())
	}
	return s.compareStored(from, to, leaves, index)
}

// compareStored is recheck against given leaf hashes.
func (s *Shard) compareStored(from, to uint64, leaves []receipt.Hash, index bool) error {
	next := from
	var err error
	if from < s.outset {
		// The rows are what is stored of these.
		err = s.eachRow(from, min(to, s.outset), func(i uint64, row core.Row) (bool, error) {
			next = i
			if receipt.LeafHash(row.Entry) != leaves[i-from] {
				return false, damaged(s.cfg.Log, s.cfg.Shard, i, "the stored index row does not hash to its leaf")
			}
			if index {
				return true, s.recheckIndex(i, row)
			}
			return true, nil
		})
	}
	if held := max(from, s.outset); err == nil && held < to {
		err = s.eachCommit(held, to, func(i uint64, value []byte) (bool, error) {
			next = i
			if receipt.LeafHash(receipt.Entry(value)) != leaves[i-from] {
				return false, damaged(s.cfg.Log, s.cfg.Shard, i, "the stored commit does not hash to its leaf")
			}
			if !index {
				return true, nil
			}
			row, err := rowOf(value)
			if err != nil {
				return false, damaged(s.cfg.Log, s.cfg.Shard, i, "the stored commit cannot be read")
			}
			return true, s.recheckIndex(i, row)
		})
	}
	if err != nil {
		if v, ok := err.(*core.Violation); ok { //nolint:errorlint // made by the function above, unwrapped
			return v
		}
		return damaged(s.cfg.Log, s.cfg.Shard, next, "the stored commits don't read back: "+err.Error())
	}
	return nil
}

// recheckIndex compares the rows that lead to a commit with the commit.
func (s *Shard) recheckIndex(index uint64, row core.Row) error {
	if at, ok, err := s.index.request(row.RequestID); err != nil || !ok || at != index {
		return damaged(s.cfg.Log, s.cfg.Shard, index, "its request id does not lead to it")
	}
	for i, w := range row.Writes {
		found := false
		err := s.index.eachExtent(w.Stream, w.First, func(e extent) (bool, error) {
			found = e == extent{first: w.First, index: index, write: i, count: int(w.Count)}
			return false, nil
		})
		if err != nil || !found {
			return damaged(s.cfg.Log, s.cfg.Shard, index, fmt.Sprintf("revision %d of its write %d does not lead to it", w.First, i))
		}
	}
	return nil
}

// scrubber is where the sweep over what is stored stands.
type scrubber struct {
	shard int // index into the shards; their number is the block log
	next  uint64
}

// Scrub reads the next few commits, or blocks, of a sweep over everything
// that is published and checks them as before a signature; at the end of the
// blocks also the memory of what was signed. It returns how
// many it read, zero when it came to the end of a shard; on a fault it halts
// signing. Scrub must have the same caller as Step.
func (b *Blocks) Scrub() (int, error) {
	if err := b.Halted(); err != nil {
		return 0, err
	}
	err := b.tiling.result()
	n := 0
	if err == nil {
		n, err = b.scrubSome()
	}
	if err != nil {
		return n, b.halt(err)
	}
	return n, nil
}

func (b *Blocks) scrubSome() (int, error) {
	at := &b.scrub
	if at.shard == len(b.cfg.Shards) {
		size, _ := b.tree.Published()
		n := min(chunk-at.next%chunk, size-at.next)
		if n == 0 {
			*at = scrubber{}
			if err := b.tree.CheckEdge(); err != nil {
				return 0, damaged(BlockLog, 0, size, err.Error())
			}
			return 0, b.signed.check()
		}
		if err := b.recheckBlocks(at.next, at.next+n); err != nil {
			return 0, err
		}
		at.next += n
		return int(n), nil
	}
	s := b.cfg.Shards[at.shard]
	size, _ := s.tree.Published()
	if at.next >= size {
		at.shard, at.next = at.shard+1, 0
		if err := s.tree.CheckEdge(); err != nil {
			return 0, damaged(s.cfg.Log, s.cfg.Shard, size, err.Error())
		}
		return 0, nil
	}
	n := min(chunk-at.next%chunk, size-at.next)
	if err := s.recheck(at.next, at.next+n, true); err != nil {
		return 0, err
	}
	at.next += n
	return int(n), nil
}

// recheckBlocks compares the stored blocks with the block log's tiles.
func (b *Blocks) recheckBlocks(from, to uint64) error {
	leaves, err := b.tree.CheckStored(from, to)
	if err != nil {
		return damaged(BlockLog, 0, from, err.Error())
	}
	for i := from; i < to; i++ {
		block, err := b.block(i + 1)
		if err != nil {
			return damaged(BlockLog, 0, i, fmt.Sprintf("block %d does not read back", i+1))
		}
		if block.Hash() != leaves[i-from] {
			return damaged(BlockLog, 0, i, fmt.Sprintf("block %d does not hash to its leaf", i+1))
		}
	}
	return nil
}
