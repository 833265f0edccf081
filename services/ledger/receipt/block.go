package receipt

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds of a block. Its header is one leaf of the block log, and a tlog-tiles
// entry bundle gives an entry two bytes of length.
const (
	MaxBlockSize  = 256 << 10
	MaxBlockHeads = 1024
	maxHeader     = 1024
)

const blockMagic = "probity block v2"

// Head is one shard tree's state. State is the RFC 6962 root over the index
// rows of the shard's commits, one leaf a commit: what a replica that starts
// from a snapshot proves its stream index and request ids with.
type Head struct {
	Log   string
	Shard uint32
	Size  uint64
	Root  Hash
	State Hash
}

// Compare orders heads by log, then shard.
func (h Head) Compare(o Head) int {
	return cmp.Or(cmp.Compare(h.Log, o.Log), cmp.Compare(h.Shard, o.Shard))
}

// text is the head's line in a block, and its leaf in the tree of heads.
func (h Head) text() string {
	return fmt.Sprintf("%s %d %d %s %s", h.Log, h.Shard, h.Size, encode(h.Root[:]), encode(h.State[:]))
}

// Block is a vector of all shard heads at one moment. Heights start at 1 and
// Prev is the hash of the block below, zero under the first. Heads are
// ordered by log and shard, each named once. Policy is the newest version of
// the ledger's policy that was recorded before the block.
//
// Its text is its header's, and then a line a head:
//
//	<log> <shard> <size> <root, base64> <state, base64>
type Block struct {
	Origin string
	Height uint64
	Prev   Hash
	Time   time.Time
	Policy PolicyRef
	Heads  []Head
}

// Header is what the block log holds of a block: its leaf entry. The heads
// are committed to by the root of an RFC 6962 tree of their lines, so that a
// receipt doesn't grow with the number of shards.
//
//	probity block v2
//	<origin>
//	<height>
//	<prev, base64>
//	<proposer's time, RFC 3339 UTC with up to nanoseconds>
//	policy <sequence> <hash, base64>
//	heads <count> <root, base64>
type Header struct {
	Origin string
	Height uint64
	Prev   Hash
	Time   time.Time
	Policy PolicyRef
	// Heads and HeadsRoot are the number of heads and the root over them.
	Heads     uint32
	HeadsRoot Hash
}

// Head finds a shard's head.
func (b *Block) Head(log string, shard uint32) (Head, bool) {
	if i, ok := b.find(log, shard); ok {
		return b.Heads[i], true
	}
	return Head{}, false
}

func (b *Block) find(log string, shard uint32) (int, bool) {
	return slices.BinarySearchFunc(b.Heads, Head{Log: log, Shard: shard}, Head.Compare)
}

// Header returns the block's header.
func (b *Block) Header() Header {
	return Header{
		Origin: b.Origin, Height: b.Height, Prev: b.Prev, Time: b.Time, Policy: b.Policy,
		Heads: uint32(len(b.Heads)), HeadsRoot: rootOf(b.leaves()),
	}
}

func (b *Block) leaves() []Hash {
	out := make([]Hash, len(b.Heads))
	for i, h := range b.Heads {
		out[i] = LeafHash([]byte(h.text()))
	}
	return out
}

// ProveHead returns a shard's head, its place among the heads and the proof
// that it stands there.
func (b *Block) ProveHead(log string, shard uint32) (h Head, at uint32, proof []Hash, ok bool) {
	i, ok := b.find(log, shard)
	if !ok {
		return Head{}, 0, nil, false
	}
	return b.Heads[i], uint32(i), pathOf(b.leaves(), i), true
}

// Hash is the block's leaf hash in the block log.
func (b *Block) Hash() Hash {
	h := b.Header()
	return h.Hash()
}

// Marshal returns the block's text.
func (b *Block) Marshal() []byte {
	h := b.Header()
	w := writer{buf: h.Marshal()}
	for _, h := range b.Heads {
		w.line(h.text())
	}
	return w.buf
}

// Marshal returns the header's text: the block log's leaf entry.
func (h *Header) Marshal() []byte {
	var w writer
	w.line(blockMagic)
	w.line(h.Origin)
	w.number(h.Height)
	w.hash(h.Prev)
	w.line(h.Time.UTC().Format(time.RFC3339Nano))
	w.line(fmt.Sprintf("policy %d %s", h.Policy.Sequence, encode(h.Policy.Hash[:])))
	w.line(fmt.Sprintf("heads %d %s", h.Heads, encode(h.HeadsRoot[:])))
	return w.buf
}

// Hash is the header's leaf hash in the block log.
func (h *Header) Hash() Hash { return LeafHash(h.Marshal()) }

// ParseBlock reads a block's text. It accepts exactly what Marshal writes.
func ParseBlock(text []byte) (*Block, error) {
	if len(text) > MaxBlockSize {
		return nil, fmt.Errorf("receipt: block is longer than %d bytes", MaxBlockSize)
	}
	r := reader{rest: text}
	h := readHeader(&r)
	b := &Block{Origin: h.Origin, Height: h.Height, Prev: h.Prev, Time: h.Time, Policy: h.Policy}
	for r.err == nil && len(r.rest) > 0 {
		f := r.fields(5)
		h := Head{Log: f[0], Shard: r.parse32(f[1]), Size: r.parse(f[2]), Root: r.parseHash(f[3]), State: r.parseHash(f[4])}
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
	if r.err != nil {
		return nil, fmt.Errorf("receipt: block: %w", r.err)
	}
	if string(b.Marshal()) != string(text) {
		return nil, fmt.Errorf("receipt: block: not in canonical form")
	}
	return b, nil
}

// ParseHeader reads a header's text. It accepts exactly what Marshal writes.
func ParseHeader(text []byte) (*Header, error) {
	if len(text) > maxHeader {
		return nil, fmt.Errorf("receipt: block header is longer than %d bytes", maxHeader)
	}
	r := reader{rest: text}
	h := readHeader(&r)
	if r.err == nil && len(r.rest) > 0 {
		r.fail("trailing bytes")
	}
	if r.err == nil && string(h.Marshal()) != string(text) {
		r.fail("not in canonical form")
	}
	if r.err != nil {
		return nil, fmt.Errorf("receipt: block header: %w", r.err)
	}
	return h, nil
}

// headerLines is the number of lines of a header.
const headerLines = 7

func readHeader(r *reader) *Header {
	h := &Header{}
	r.expect(blockMagic)
	h.Origin = r.origin()
	h.Height = r.number()
	h.Prev = r.hash()
	t, err := time.Parse(time.RFC3339Nano, r.line())
	if err != nil {
		r.fail("time is not RFC 3339")
	}
	h.Time = t.UTC()
	if h.Height == 0 {
		r.fail("height is zero")
	}
	f := r.fields(3)
	if f[0] != "policy" {
		r.fail("expected the policy")
	}
	h.Policy = PolicyRef{Sequence: r.parse(f[1]), Hash: r.parseHash(f[2])}
	f = r.fields(3)
	if f[0] != "heads" {
		r.fail("expected the heads")
	}
	h.Heads, h.HeadsRoot = r.parse32(f[1]), r.parseHash(f[2])
	return h
}
