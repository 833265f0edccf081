package receipt

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/transparency-dev/merkle/proof"
)

// MaxSize bounds a receipt document.
const MaxSize = 128 << 10

const receiptMagic = "probity receipt v2"

// Receipt is the parsed document; nothing in it is verified yet.
//
//	probity receipt v2
//	position <log> <shard> <index>
//	entry <leaf entry, base64>
//	proof <n>
//	<n hashes, base64: the leaf in its shard's tree>
//	head <place> <size> <root, base64> <state, base64>
//	proof <n>
//	<n hashes, base64: the shard's head in the block's tree of heads>
//	block
//	<the block's header, see Header>
//	proof <n>
//	<n hashes, base64: the block in the block log>
//	checkpoint
//	<C2SP signed note over the block log, to the end>
//
// The head's log and shard are the position's, so the two cannot disagree.
type Receipt struct {
	Log        string
	Shard      uint32
	Index      uint64
	Entry      []byte
	ShardProof []Hash
	// Head is the shard's head and Place its ordinal among the block's heads.
	Head       Head
	Place      uint32
	HeadProof  []Hash
	Header     Header
	BlockProof []Hash
	Checkpoint []byte
}

// Marshal returns the document.
func (r *Receipt) Marshal() []byte {
	const hashLine, rest = 45, 1 << 10 // the rest is less unless names are long
	w := writer{buf: make([]byte, 0, rest+hashLine*(len(r.ShardProof)+len(r.HeadProof)+len(r.BlockProof))+len(r.Checkpoint))}
	w.line(receiptMagic)
	w.buf = append(append(w.buf, "position "...), r.Log...)
	w.buf = strconv.AppendUint(append(w.buf, ' '), uint64(r.Shard), 10)
	w.buf = append(w.buf, ' ')
	w.number(r.Index)
	w.buf = append(base64.StdEncoding.AppendEncode(append(w.buf, "entry "...), r.Entry), '\n')
	w.proof(r.ShardProof)
	w.buf = strconv.AppendUint(append(w.buf, "head "...), uint64(r.Place), 10)
	w.buf = strconv.AppendUint(append(w.buf, ' '), r.Head.Size, 10)
	w.buf = base64.StdEncoding.AppendEncode(append(w.buf, ' '), r.Head.Root[:])
	w.buf = append(w.buf, ' ')
	w.hash(r.Head.State)
	w.proof(r.HeadProof)
	w.line("block")
	w.buf = append(w.buf, r.Header.Marshal()...)
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
	f := r.fields(5)
	if f[0] != "head" {
		r.fail("expected the shard's head")
	}
	out.Place = r.parse32(f[1])
	out.Head = Head{Log: out.Log, Shard: out.Shard, Size: r.parse(f[2]), Root: r.parseHash(f[3]), State: r.parseHash(f[4])}
	out.HeadProof = r.proof()
	r.expect("block")
	header := r.take(headerLines)
	out.BlockProof = r.proof()
	r.expect("checkpoint")
	if r.err == nil && len(r.rest) == 0 {
		r.fail("no checkpoint")
	}
	if r.err != nil {
		return nil, fmt.Errorf("receipt: %w", r.err)
	}
	h, err := ParseHeader(header)
	if err != nil {
		return nil, err
	}
	out.Header = *h
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
func (r *reader) take(n int) []byte {
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
	// Size is of the checkpoint, and Policy the version that governs it.
	Size   uint64
	Policy uint64
	// Signers are the cosigners of that version that signed the checkpoint.
	Signers []string
}

// Verify checks that a receipt proves its commit final: every link of it, and
// the cosignatures of a quorum. On error the receipt proves nothing.
func Verify(document []byte, policy Policy) (Verified, error) {
	return verify(document, policy, policy.OpenCheckpoint)
}

// VerifySealed checks a receipt that may not be final yet: every link of it,
// and the cosignature of at least one party, whose word it is alone.
func VerifySealed(document []byte, policy Policy) (Verified, error) {
	return verify(document, policy, policy.OpenSealed)
}

func verify(document []byte, policy Policy, openCheckpoint func([]byte) (Checkpoint, []string, error)) (Verified, error) {
	r, err := Parse(document)
	if err != nil {
		return Verified{}, err
	}
	if len(policy.versions) == 0 {
		return Verified{}, errors.New("receipt: the policy is empty")
	}
	// First, for who has an old policy file should read that, and not that
	// signatures are missing.
	if err := policy.knows(r.Header.Policy); err != nil {
		return Verified{}, err
	}
	checkpoint, signers, err := openCheckpoint(r.Checkpoint)
	if err != nil {
		return Verified{}, err
	}
	if r.Header.Origin != policy.Origin() {
		return Verified{}, errors.New("receipt: block is of another ledger")
	}
	if err := r.checkLinks(checkpoint); err != nil {
		return Verified{}, err
	}
	return Verified{
		Origin: policy.Origin(), Log: r.Log, Shard: r.Shard, Index: r.Index, Entry: r.Entry,
		Height: r.Header.Height, Time: r.Header.Time,
		Size: checkpoint.Size, Policy: policy.At(checkpoint.Size).Sequence, Signers: signers,
	}, nil
}

// checkLinks checks the three inclusions, from the checkpoint down to the leaf.
func (r *Receipt) checkLinks(checkpoint Checkpoint) error {
	// A block's height is its place in the block log, so it's its leaf index plus one.
	if err := included(r.Header.Height-1, checkpoint.Size, r.Header.Hash(), r.BlockProof, checkpoint.Root); err != nil {
		return fmt.Errorf("receipt: block is not in the checkpoint: %w", err)
	}
	head := LeafHash([]byte(r.Head.text()))
	if err := included(uint64(r.Place), uint64(r.Header.Heads), head, r.HeadProof, r.Header.HeadsRoot); err != nil {
		return fmt.Errorf("receipt: the shard's head is not in the block: %w", err)
	}
	return r.CheckShardProof()
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
	return proof.VerifyInclusion(hasher, index, size, leaf[:], raw, root[:])
}

// CheckShardProof checks the first link alone, as a replica does before it
// hands a receipt out: the leaf is in the tree of the block's head.
func (r *Receipt) CheckShardProof() error {
	if len(r.Entry) != EntrySize || r.Entry[0] != EntryVersion {
		return errors.New("receipt: leaf entry is of an unknown version")
	}
	if err := included(r.Index, r.Head.Size, LeafHash(r.Entry), r.ShardProof, r.Head.Root); err != nil {
		return fmt.Errorf("receipt: commit is not in its shard's tree: %w", err)
	}
	return nil
}
