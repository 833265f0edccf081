package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// chunk is how many commits are read back at once: a tile's width.
const chunk = 256

// readBack reads from the store and the tiles what a block seals that was
// not read back before, and hashes it anew. What is signed is thus what a
// reader gets, not what once was in memory.
func (b *Blocks) readBack(last *receipt.Block) error {
	for _, h := range last.Heads {
		s := b.shard(h.Log, h.Shard)
		for from := b.checked[s]; from < h.Size; from = b.checked[s] {
			to := min(h.Size, (from/chunk+1)*chunk)
			if err := s.recheck(from, to, false); err != nil {
				return err
			}
			b.checked[s] = to
		}
	}
	return nil
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
	next := from
	err = s.rows.eachBody(from, to, func(i uint64, value []byte) (bool, error) {
		next = i
		if receipt.LeafHash(receipt.Entry(value)) != leaves[i-from] {
			return false, damaged(s.cfg.Log, s.cfg.Shard, i, "the stored commit does not hash to its leaf")
		}
		if index {
			return true, s.recheckIndex(i, value)
		}
		return true, nil
	})
	if err != nil {
		if v, ok := err.(*core.Violation); ok { //nolint:errorlint // made by the function above, unwrapped
			return v
		}
		return damaged(s.cfg.Log, s.cfg.Shard, next, "the stored commits don't read back: "+err.Error())
	}
	return nil
}

// recheckIndex compares the rows that lead to a commit with the commit.
func (s *Shard) recheckIndex(index uint64, value []byte) error {
	c := &ledgerv1.Commit{}
	if proto.Unmarshal(value, c) != nil {
		return damaged(s.cfg.Log, s.cfg.Shard, index, "the stored commit cannot be read")
	}
	digest := core.Digest(c.Writes)
	request, err := s.rows.get(s.rows.key(kindRequest, []byte(c.RequestId)))
	if err != nil || !bytes.Equal(request, append(be64(index), digest[:]...)) {
		return damaged(s.cfg.Log, s.cfg.Shard, index, "its request id does not lead to it")
	}
	for i, w := range c.Writes {
		at := binary.BigEndian.AppendUint32(be64(index), uint32(i))
		at = binary.BigEndian.AppendUint32(at, uint32(len(w.Events)))
		row, err := s.rows.get(s.rows.key(kindStream, []byte(w.Stream), []byte{0}, be64(w.FirstRevision)))
		if err != nil || !bytes.Equal(row, at) {
			return damaged(s.cfg.Log, s.cfg.Shard, index, fmt.Sprintf("revision %d of its write %d does not lead to it", w.FirstRevision, i))
		}
		last, err := s.rows.LastRevision(w.Stream)
		if err != nil || last < int64(w.FirstRevision)+int64(len(w.Events))-1 {
			return damaged(s.cfg.Log, s.cfg.Shard, index, fmt.Sprintf("the last revision of its write %d is below it", i))
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
	n, err := b.scrubSome()
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
