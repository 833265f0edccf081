package receipt

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Checkpoint is the block log's tree head (C2SP tlog-checkpoint): three lines
// of origin, size and root, without extension lines.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   Hash
}

// Marshal returns the note's text, to be signed.
func (c Checkpoint) Marshal() []byte {
	var w writer
	w.line(c.Origin)
	w.number(c.Size)
	w.hash(c.Root)
	return w.buf
}

// ParseCheckpoint reads the text of a checkpoint note.
func ParseCheckpoint(text []byte) (Checkpoint, error) {
	r := reader{rest: text}
	c := Checkpoint{Origin: r.origin(), Size: r.number(), Root: r.hash()}
	if r.err == nil && len(r.rest) > 0 {
		r.fail("extension lines are not used here")
	}
	if r.err == nil && string(c.Marshal()) != string(text) {
		r.fail("not in canonical form")
	}
	if r.err != nil {
		return Checkpoint{}, fmt.Errorf("receipt: checkpoint: %w", r.err)
	}
	return c, nil
}

// Policy says whom a verifier trusts.
type Policy struct {
	// Origin names the ledger; a proof of any other ledger fails.
	Origin string
	// Verifiers are the parties' keys: Ed25519 or cosignature/v1.
	Verifiers []note.Verifier
	// Quorum is how many of them must have signed. With n parties of which
	// f may lie, n is at least 3f+1 and the quorum n-f.
	Quorum int
}

// NewPolicy makes a policy from verifier keys in note's vkey form.
func NewPolicy(origin string, quorum int, vkeys ...string) (Policy, error) {
	p := Policy{Origin: origin, Quorum: quorum}
	for _, k := range vkeys {
		v, err := note.NewVerifier(k)
		if err != nil {
			return Policy{}, fmt.Errorf("receipt: verifier key: %w", err)
		}
		p.Verifiers = append(p.Verifiers, v)
	}
	return p, p.check()
}

func (p Policy) check() error {
	switch {
	case !ValidOrigin(p.Origin):
		return errors.New("receipt: policy names no valid origin")
	case p.Quorum < 1:
		return errors.New("receipt: policy asks for no signature")
	case p.Quorum > len(p.Verifiers):
		return errors.New("receipt: policy has fewer keys than its quorum")
	}
	return nil
}

// open verifies a signed note against at least quorum of the policy's keys
// and returns its text and the names of the signers.
func (p Policy) open(signed []byte, quorum int) (text string, signers []string, err error) {
	n, err := note.Open(signed, note.VerifierList(p.Verifiers...))
	if err != nil {
		return "", nil, fmt.Errorf("receipt: signature: %w", err)
	}
	// note.Open drops repeated signatures of one key, so each counts once. It
	// takes more than one spelling of a signature, though; here a document has one.
	for _, s := range n.Sigs {
		if raw, err := base64.StdEncoding.DecodeString(s.Base64); err != nil || encode(raw) != s.Base64 {
			return "", nil, errors.New("receipt: signature: not in canonical form")
		}
		signers = append(signers, s.Name)
	}
	if len(signers) < quorum {
		return "", nil, fmt.Errorf("receipt: signed by %d of the %d parties needed (%s)",
			len(signers), quorum, strings.Join(signers, ", "))
	}
	return n.Text, signers, nil
}

// OpenCheckpoint verifies a signed checkpoint against the policy and returns
// it with the names of those who signed.
func (p Policy) OpenCheckpoint(signed []byte) (Checkpoint, []string, error) {
	if err := p.check(); err != nil {
		return Checkpoint{}, nil, err
	}
	text, signers, err := p.open(signed, p.Quorum)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	c, err := ParseCheckpoint([]byte(text))
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Origin != p.Origin {
		return Checkpoint{}, nil, errors.New("receipt: checkpoint is of another ledger")
	}
	return c, signers, nil
}
