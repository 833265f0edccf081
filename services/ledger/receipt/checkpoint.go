package receipt

import (
	"encoding/base64"
	"errors"
	"fmt"

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

// Sign returns the checkpoint as a note under the signers.
func (c Checkpoint) Sign(signers ...note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: string(c.Marshal())}, signers...)
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

// UnverifiedCheckpoint reads the checkpoint of a signed note and verifies no
// signature.
func UnverifiedCheckpoint(signed []byte) (Checkpoint, error) {
	text, ok := noteText(signed)
	if !ok {
		return Checkpoint{}, errors.New("receipt: checkpoint is not a signed note")
	}
	return ParseCheckpoint(text)
}

// OpenCheckpoint verifies that a checkpoint is final, which is that a quorum
// of the cosigners of the policy that governs its size cosigned it, and
// returns it with their names.
func (p Policy) OpenCheckpoint(signed []byte) (Checkpoint, []string, error) {
	return p.signers(signed, func(t *Terms) int { return t.Quorum })
}

// OpenSealed verifies that at least one cosigner signed a checkpoint. That is
// its word alone: the checkpoint may never become final.
func (p Policy) OpenSealed(signed []byte) (Checkpoint, []string, error) {
	return p.signers(signed, anyOne)
}

func anyOne(*Terms) int { return 1 }

func (p Policy) signers(signed []byte, quorum func(*Terms) int) (Checkpoint, []string, error) {
	c, n, err := p.openCheckpoint(signed, quorum)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, names(n), nil
}

func (p Policy) openCheckpoint(signed []byte, quorum func(*Terms) int) (Checkpoint, *note.Note, error) {
	if len(p.versions) == 0 {
		return Checkpoint{}, nil, errors.New("receipt: the policy is empty")
	}
	if len(signed) > MaxSize {
		return Checkpoint{}, nil, fmt.Errorf("receipt: checkpoint is longer than %d bytes", MaxSize)
	}
	c, err := UnverifiedCheckpoint(signed)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Origin != p.Origin() {
		return Checkpoint{}, nil, errors.New("receipt: checkpoint is of another ledger")
	}
	terms := p.At(c.Size)
	if terms == nil {
		return Checkpoint{}, nil, errors.New("receipt: checkpoint is empty")
	}
	n, err := openNote(signed, terms.Cosigners(), PublicKey.Cosignatures, quorum(terms))
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if n.Text != string(c.Marshal()) {
		return Checkpoint{}, nil, errors.New("receipt: checkpoint: not in canonical form")
	}
	return c, n, nil
}

// canonical tells whether s is the only base64 spelling of its bytes.
func canonical(s string) bool {
	raw, err := base64.StdEncoding.DecodeString(s)
	return err == nil && encode(raw) == s
}

// Cosignature is one cosigner's verified signature line of a checkpoint.
type Cosignature struct {
	Key PublicKey
	// Line is the note's signature line with its newline.
	Line string
}

// Cosignatures returns a checkpoint and those of its cosignatures that are
// valid under the version of the policy that governs its size, at least one.
// A signature by a cosigner's key that is not valid is an error.
func (p Policy) Cosignatures(signed []byte) (Checkpoint, []Cosignature, error) {
	c, n, err := p.openCheckpoint(signed, anyOne)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	var out []Cosignature
	for _, s := range n.Sigs {
		for _, k := range p.At(c.Size).Cosigners() {
			if k.Name == s.Name && k.id(algCosignature) == s.Hash {
				out = append(out, Cosignature{Key: k, Line: "— " + s.Name + " " + s.Base64 + "\n"})
			}
		}
	}
	return c, out, nil
}

// Note returns the checkpoint's note under given signature lines.
func (c Checkpoint) Note(lines ...string) []byte {
	out := append(c.Marshal(), '\n')
	for _, l := range lines {
		out = append(out, l...)
	}
	return out
}
