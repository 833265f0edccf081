package receipt

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// MaxSize bounds a receipt document.
const MaxSize = 128 << 10

const receiptMagic = "probity receipt v1"

// Receipt is the parsed document; nothing in it is verified yet.
//
//	probity receipt v1
//	position <log> <shard> <index>
//	entry <leaf entry, base64>
//	proof <n>
//	<n hashes, base64: the leaf in its shard's tree>
//	block <lines>
//	<the block's text, see Block>
//	proof <n>
//	<n hashes, base64: the block in the block log>
//	checkpoint
//	<C2SP signed note over the block log, to the end>
//
// The shard head the first proof leads to is the block's own line for that
// shard, so the two cannot disagree.
type Receipt struct {
	Log        string
	Shard      uint32
	Index      uint64
	Entry      []byte
	ShardProof []Hash
	Block      Block
	BlockProof []Hash
	Checkpoint []byte
}

// Marshal returns the document.
func (r *Receipt) Marshal() []byte {
	var w writer
	w.line(receiptMagic)
	w.line(fmt.Sprintf("position %s %d %d", r.Log, r.Shard, r.Index))
	w.line("entry " + encode(r.Entry))
	w.proof(r.ShardProof)
	block := r.Block.Marshal()
	w.line("block " + strconv.Itoa(bytes.Count(block, []byte{'\n'})))
	w.buf = append(w.buf, block...)
	w.proof(r.BlockProof)
	w.line("checkpoint")
	w.buf = append(w.buf, r.Checkpoint...)
	return w.buf
}

// Parse reads a document. It accepts exactly what Marshal writes and verifies
// no proof and no signature: use Verify for that.
func Parse(document []byte) (*Receipt, error) {
	if len(document) > MaxSize {
		return nil, fmt.Errorf("receipt: longer than %d bytes", MaxSize)
	}
	r := reader{rest: document}
	out := &Receipt{}
	r.expect(receiptMagic)
	out.Log, out.Shard, out.Index = r.position()
	out.Entry = r.decode(r.labelled("entry"))
	out.ShardProof = r.proof()
	lines := r.parse(r.labelled("block"))
	block := r.take(lines)
	out.BlockProof = r.proof()
	r.expect("checkpoint")
	if r.err == nil && len(r.rest) == 0 {
		r.fail("no checkpoint")
	}
	if r.err != nil {
		return nil, fmt.Errorf("receipt: %w", r.err)
	}
	b, err := ParseBlock(block)
	if err != nil {
		return nil, err
	}
	out.Block = *b
	out.Checkpoint = bytes.Clone(r.rest)
	if !bytes.Equal(out.Marshal(), document) {
		return nil, errors.New("receipt: not in canonical form")
	}
	return out, nil
}

func (r *reader) position() (log string, shard uint32, index uint64) {
	f := strings.Split(r.labelled("position"), " ")
	if len(f) != 3 {
		r.fail("position is not a log, a shard and an index")
		return "", 0, 0
	}
	if !validLog(f[0]) {
		r.fail("log name is not 1 to 32 lower-case letters")
	}
	return f[0], r.parse32(f[1]), r.parse(f[2])
}

// take returns the next n whole lines.
func (r *reader) take(n uint64) []byte {
	if n > MaxBlockHeads+5 {
		r.fail("block has too many lines")
	}
	start := r.rest
	for range n {
		if r.line(); r.err != nil {
			return nil
		}
	}
	return start[:len(start)-len(r.rest)]
}

// Verified is what a receipt proved.
type Verified struct {
	Origin string
	Log    string
	Shard  uint32
	Index  uint64
	// Entry is the leaf entry; VerifyCommit compares a commit with it.
	Entry []byte
	// Height and Time are of the block that sealed it; Time is the proposer's claim.
	Height uint64
	Time   time.Time
	// Signers are the parties of the policy that signed the checkpoint.
	Signers []string
}

// Verify checks every link of a receipt against the policy. On error the
// receipt proves nothing.
func Verify(document []byte, policy Policy) (Verified, error) {
	r, err := Parse(document)
	if err != nil {
		return Verified{}, err
	}
	checkpoint, signers, err := policy.OpenCheckpoint(r.Checkpoint)
	if err != nil {
		return Verified{}, err
	}
	if r.Block.Origin != policy.Origin {
		return Verified{}, errors.New("receipt: block is of another ledger")
	}
	// A block's height is its place in the block log, so it's its leaf index plus one.
	if err := included(r.Block.Height-1, checkpoint.Size, r.Block.Hash(), r.BlockProof, checkpoint.Root); err != nil {
		return Verified{}, fmt.Errorf("receipt: block is not in the checkpoint: %w", err)
	}
	head, ok := r.Block.Head(r.Log, r.Shard)
	if !ok {
		return Verified{}, errors.New("receipt: block has no head of the commit's shard")
	}
	if len(r.Entry) != EntrySize || r.Entry[0] != EntryVersion {
		return Verified{}, errors.New("receipt: leaf entry is of an unknown version")
	}
	if err := included(r.Index, head.Size, LeafHash(r.Entry), r.ShardProof, head.Root); err != nil {
		return Verified{}, fmt.Errorf("receipt: commit is not in its shard's tree: %w", err)
	}
	return Verified{
		Origin: policy.Origin, Log: r.Log, Shard: r.Shard, Index: r.Index, Entry: r.Entry,
		Height: r.Block.Height, Time: r.Block.Time, Signers: signers,
	}, nil
}

// VerifyCommit checks that a commit record's bytes are those the receipt proved.
func VerifyCommit(v Verified, commit []byte) error {
	if len(v.Entry) != EntrySize || subtle.ConstantTimeCompare(Entry(commit), v.Entry) != 1 {
		return errors.New("receipt: these bytes are not the commit that was proved")
	}
	return nil
}

// included checks an RFC 6962 inclusion proof. An index at or above the size
// is a failed proof, not a caller's mistake: both come from the document.
func included(index, size uint64, leaf Hash, path []Hash, root Hash) error {
	if index >= size {
		return fmt.Errorf("index %d is not below the size %d", index, size)
	}
	raw := make([][]byte, len(path))
	for i := range path {
		raw[i] = path[i][:]
	}
	return proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf[:], raw, root[:])
}

// CheckShardProof checks the first link alone, as a replica does before it
// hands a receipt out: the leaf is in the tree of the block's head.
func (r *Receipt) CheckShardProof() error {
	head, ok := r.Block.Head(r.Log, r.Shard)
	if !ok {
		return errors.New("receipt: block has no head of the commit's shard")
	}
	return included(r.Index, head.Size, LeafHash(r.Entry), r.ShardProof, head.Root)
}
