package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

const evidenceMagic = "probity evidence v1"

// Wrong is what a piece of evidence convicts its signer of.
type Wrong string

// The wrongs.
const (
	// TwoHeads: one key cosigned two roots of one size.
	TwoHeads Wrong = "two-heads"
	// Fork: a key cosigned a head that is no prefix of a final checkpoint.
	Fork Wrong = "fork"
	// BrokenPromise: a key promised a position to one commit, and a final
	// block gives it to another.
	BrokenPromise Wrong = "broken-promise"
)

// Evidence holds two signed documents that no honest party signs both of.
//
//	probity evidence v1
//	wrong <two-heads|fork|broken-promise>
//	proof <n>
//	<n hashes, base64: fork only, from First's size to Second's>
//	root <base64: fork only, the root Second has at First's size; else zero>
//	first <bytes>
//	<the statement that convicts: a checkpoint's note, or a promise>
//	second
//	<what it contradicts, to the end: a note of the same key, a final
//	checkpoint, or a receipt>
type Evidence struct {
	Wrong  Wrong
	Proof  []Hash
	Root   Hash
	First  []byte
	Second []byte
}

// Marshal returns the document.
func (e *Evidence) Marshal() []byte {
	var w writer
	w.line(evidenceMagic)
	w.line("wrong " + string(e.Wrong))
	w.proof(e.Proof)
	w.line("root " + encode(e.Root[:]))
	w.line("first " + strconv.Itoa(len(e.First)))
	w.buf = append(w.buf, e.First...)
	w.line("second")
	w.buf = append(w.buf, e.Second...)
	return w.buf
}

// ParseEvidence reads a document without verifying it.
func ParseEvidence(document []byte) (*Evidence, error) {
	if len(document) > 2*MaxSize {
		return nil, fmt.Errorf("receipt: evidence is longer than %d bytes", 2*MaxSize)
	}
	r := reader{rest: document}
	e := &Evidence{}
	r.expect(evidenceMagic)
	e.Wrong = Wrong(r.labelled("wrong"))
	e.Proof = r.longProof()
	e.Root = r.parseHash(r.labelled("root"))
	e.First = r.bytes(r.parse(r.labelled("first")))
	r.expect("second")
	e.Second = bytes.Clone(r.rest)
	if r.err == nil && !bytes.Equal(e.Marshal(), document) {
		r.fail("not in canonical form")
	}
	if r.err != nil {
		return nil, fmt.Errorf("receipt: evidence: %w", r.err)
	}
	return e, nil
}

// ErrKept says that a promise was honoured: the commit that was promised a
// position has it.
var ErrKept = errors.New("receipt: the promise was kept")

// AccuseOfPromise holds a promise against the receipt of its position and, if
// the position went to another commit, returns the evidence that convicts the
// promise's signer. The receipt is final, so it shows a later head, what stands
// at the position under it, and so that the promised commit does not.
//
// The error is ErrKept where it does. A position that no final head has
// reached yet convicts nobody; indexes have no gaps, so the next commit of the
// shard, whosever it is, either honours the promise or breaks it.
func AccuseOfPromise(promise, final []byte, policy Policy) (*Evidence, Finding, error) {
	e := &Evidence{Wrong: BrokenPromise, First: promise, Second: final}
	found, err := e.brokenPromise(policy)
	if err != nil {
		return nil, Finding{}, err
	}
	return e, found, nil
}

// Finding is what a piece of evidence proved.
type Finding struct {
	Wrong Wrong
	// Signers are the convicted parties: who signed the first statement, and
	// of two heads also the second.
	Signers []string
	// Place is "size <n>" of the block log or "<log>/<shard>/<index>".
	Place string
}

// VerifyEvidence checks that a document convicts somebody. On error it
// proves nothing against anyone.
func VerifyEvidence(document []byte, policy Policy) (Finding, error) {
	e, err := ParseEvidence(document)
	if err != nil {
		return Finding{}, err
	}
	if e.Wrong != Fork && (len(e.Proof) > 0 || e.Root != Hash{}) {
		return Finding{}, fmt.Errorf("receipt: evidence of %s has no use for a proof", e.Wrong)
	}
	switch e.Wrong {
	case TwoHeads:
		return e.twoHeads(policy)
	case Fork:
		return e.fork(policy)
	case BrokenPromise:
		return e.brokenPromise(policy)
	}
	return Finding{}, errors.New("receipt: evidence of an unknown wrong")
}

// accused returns a checkpoint and the keys that cosigned it, of all that were
// ever a cosigner's. What a key signed convicts it whether or not it was in
// force at that size: a head far ahead is signed before anyone knows whose
// signatures will count there, and evidence must not lapse with a policy.
func (p Policy) accused(signed []byte) (Checkpoint, []PublicKey, error) {
	if len(p.versions) == 0 || len(signed) > MaxSize {
		return Checkpoint{}, nil, errors.New("receipt: no policy, or a checkpoint that is too long")
	}
	c, err := UnverifiedCheckpoint(signed)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Origin != p.Origin() || c.Size == 0 {
		return Checkpoint{}, nil, errors.New("receipt: checkpoint is of another ledger, or empty")
	}
	var ever, by []PublicKey
	for _, v := range p.versions {
		for _, k := range v.terms.Cosigners() {
			if !slices.Contains(ever, k) {
				ever = append(ever, k)
			}
		}
	}
	text, _, err := open(signed, ever, PublicKey.Cosignatures, 1)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if text != string(c.Marshal()) {
		return Checkpoint{}, nil, errors.New("receipt: checkpoint: not in canonical form")
	}
	// By key, not by name: a key that was rotated out is not its successor.
	for _, k := range ever {
		if _, _, err := open(signed, []PublicKey{k}, PublicKey.Cosignatures, 1); err == nil {
			by = append(by, k)
		}
	}
	return c, by, nil
}

func partyNames(keys []PublicKey) []string {
	var out []string
	for _, k := range keys {
		if !slices.Contains(out, k.Name) {
			out = append(out, k.Name)
		}
	}
	return out
}

func (e *Evidence) twoHeads(policy Policy) (Finding, error) {
	a, first, err := policy.accused(e.First)
	if err != nil {
		return Finding{}, err
	}
	b, second, err := policy.accused(e.Second)
	if err != nil {
		return Finding{}, err
	}
	if a.Size != b.Size || a.Root == b.Root {
		return Finding{}, errors.New("receipt: the two heads don't contradict each other")
	}
	both := slices.DeleteFunc(first, func(k PublicKey) bool { return !slices.Contains(second, k) })
	if len(both) == 0 {
		return Finding{}, errors.New("receipt: no party signed both heads")
	}
	return Finding{Wrong: TwoHeads, Signers: partyNames(both), Place: fmt.Sprintf("size %d", a.Size)}, nil
}

func (e *Evidence) fork(policy Policy) (Finding, error) {
	a, signers, err := policy.accused(e.First)
	if err != nil {
		return Finding{}, err
	}
	final, _, err := policy.OpenCheckpoint(e.Second)
	if err != nil {
		return Finding{}, err
	}
	if a.Root == e.Root {
		return Finding{}, errors.New("receipt: the head is a prefix of the final checkpoint")
	}
	if err := CheckConsistency(Checkpoint{Origin: a.Origin, Size: a.Size, Root: e.Root}, final, e.Proof); err != nil {
		return Finding{}, err
	}
	return Finding{Wrong: Fork, Signers: partyNames(signers), Place: fmt.Sprintf("size %d", a.Size)}, nil
}

func (e *Evidence) brokenPromise(policy Policy) (Finding, error) {
	promised, err := VerifyPromise(e.First, policy)
	if err != nil {
		return Finding{}, err
	}
	proved, err := Verify(e.Second, policy)
	if err != nil {
		return Finding{}, err
	}
	if promised.Log != proved.Log || promised.Shard != proved.Shard || promised.Index != proved.Index {
		return Finding{}, errors.New("receipt: promise and receipt are of two positions")
	}
	if bytes.Equal(promised.Entry, proved.Entry) {
		return Finding{}, ErrKept
	}
	return Finding{
		Wrong: BrokenPromise, Signers: promised.Signers,
		Place: fmt.Sprintf("%s/%d/%d", promised.Log, promised.Shard, promised.Index),
	}, nil
}
