package receipt

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds of a block. A block is one leaf of the block log, and a tlog-tiles
// entry bundle gives an entry two bytes of length.
const (
	MaxBlockSize  = 65535
	MaxBlockHeads = 1024
)

const blockMagic = "probity block v1"

// Head is one shard tree's state.
type Head struct {
	Log   string
	Shard uint32
	Size  uint64
	Root  Hash
}

// Compare orders heads by log, then shard.
func (h Head) Compare(o Head) int {
	return cmp.Or(cmp.Compare(h.Log, o.Log), cmp.Compare(h.Shard, o.Shard))
}

// Block is a vector of all shard heads at one moment. Heights start at 1 and
// Prev is the leaf hash of the block below, zero under the first. Heads are
// ordered by log and shard, each named once.
//
// Its text, which is its leaf entry in the block log:
//
//	probity block v1
//	<origin>
//	<height>
//	<prev, base64>
//	<proposer's time, RFC 3339 UTC with up to nanoseconds>
//	<log> <shard> <size> <root, base64>
//	…
type Block struct {
	Origin string
	Height uint64
	Prev   Hash
	Time   time.Time
	Heads  []Head
}

// Head finds a shard's head.
func (b *Block) Head(log string, shard uint32) (Head, bool) {
	i, ok := slices.BinarySearchFunc(b.Heads, Head{Log: log, Shard: shard}, Head.Compare)
	if !ok {
		return Head{}, false
	}
	return b.Heads[i], true
}

// Marshal returns the block's text.
func (b *Block) Marshal() []byte {
	var w writer
	w.line(blockMagic)
	w.line(b.Origin)
	w.number(b.Height)
	w.hash(b.Prev)
	w.line(b.Time.UTC().Format(time.RFC3339Nano))
	for _, h := range b.Heads {
		w.line(fmt.Sprintf("%s %d %d %s", h.Log, h.Shard, h.Size, encode(h.Root[:])))
	}
	return w.buf
}

// Hash is the block's leaf hash in the block log.
func (b *Block) Hash() Hash { return LeafHash(b.Marshal()) }

// ParseBlock reads a block's text. It accepts exactly what Marshal writes.
func ParseBlock(text []byte) (*Block, error) {
	if len(text) > MaxBlockSize {
		return nil, fmt.Errorf("receipt: block is longer than %d bytes", MaxBlockSize)
	}
	r := reader{rest: text}
	b := readBlock(&r)
	if r.err == nil && len(r.rest) > 0 {
		r.fail("trailing bytes")
	}
	if r.err != nil {
		return nil, fmt.Errorf("receipt: block: %w", r.err)
	}
	if string(b.Marshal()) != string(text) {
		return nil, fmt.Errorf("receipt: block: not in canonical form")
	}
	return b, nil
}

// readBlock reads lines to the end of r.
func readBlock(r *reader) *Block {
	b := &Block{}
	r.expect(blockMagic)
	b.Origin = r.origin()
	b.Height = r.number()
	b.Prev = r.hash()
	t, err := time.Parse(time.RFC3339Nano, r.line())
	if err != nil {
		r.fail("time is not RFC 3339")
	}
	b.Time = t.UTC()
	if b.Height == 0 {
		r.fail("height is zero")
	}
	for r.err == nil && len(r.rest) > 0 {
		f := r.fields(4)
		h := Head{Log: f[0], Shard: r.parse32(f[1]), Size: r.parse(f[2]), Root: r.parseHash(f[3])}
		if !validLog(h.Log) {
			r.fail("log name is not 1 to 32 lower-case letters")
		}
		if n := len(b.Heads); n > 0 && b.Heads[n-1].Compare(h) >= 0 {
			r.fail("heads are out of order")
		}
		if len(b.Heads) == MaxBlockHeads {
			r.fail("too many heads")
		}
		b.Heads = append(b.Heads, h)
	}
	if len(b.Heads) == 0 {
		r.fail("no heads")
	}
	return b
}
