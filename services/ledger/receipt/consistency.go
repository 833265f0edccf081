package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/transparency-dev/merkle/proof"
)

const consistencyMagic = "probity consistency v1"

// Consistency is a document that proves one checkpoint to be a prefix of
// another: nothing that was final has been changed or dropped since.
//
//	probity consistency v1
//	proof <n>
//	<n hashes, base64: RFC 6962 section 2.1.2>
//	older <bytes>
//	<the older checkpoint's note>
//	newer
//	<the newer checkpoint's note, to the end>
type Consistency struct {
	Proof        []Hash
	Older, Newer []byte
}

// Marshal returns the document.
func (c *Consistency) Marshal() []byte {
	var w writer
	w.line(consistencyMagic)
	w.proof(c.Proof)
	w.line("older " + strconv.Itoa(len(c.Older)))
	w.buf = append(w.buf, c.Older...)
	w.line("newer")
	w.buf = append(w.buf, c.Newer...)
	return w.buf
}

// ParseConsistency reads a document without verifying it.
func ParseConsistency(document []byte) (*Consistency, error) {
	if len(document) > MaxSize {
		return nil, fmt.Errorf("receipt: consistency proof is longer than %d bytes", MaxSize)
	}
	r := reader{rest: document}
	c := &Consistency{}
	r.expect(consistencyMagic)
	c.Proof = r.longProof()
	c.Older = r.bytes(r.parse(r.labelled("older")))
	r.expect("newer")
	c.Newer = bytes.Clone(r.rest)
	if r.err == nil && !bytes.Equal(c.Marshal(), document) {
		r.fail("not in canonical form")
	}
	if r.err != nil {
		return nil, fmt.Errorf("receipt: consistency proof: %w", r.err)
	}
	return c, nil
}

// VerifyConsistency checks that both checkpoints of a document are final and
// that the newer one extends the older. It returns both.
func VerifyConsistency(document []byte, policy Policy) (older, newer Checkpoint, err error) {
	c, err := ParseConsistency(document)
	if err != nil {
		return older, newer, err
	}
	if older, _, err = policy.OpenCheckpoint(c.Older); err != nil {
		return older, newer, fmt.Errorf("older: %w", err)
	}
	if newer, _, err = policy.OpenCheckpoint(c.Newer); err != nil {
		return older, newer, fmt.Errorf("newer: %w", err)
	}
	return older, newer, CheckConsistency(older, newer, c.Proof)
}

// CheckConsistency checks an RFC 6962 consistency proof between two
// checkpoints of one ledger. It looks at no signature.
func CheckConsistency(older, newer Checkpoint, path []Hash) error {
	switch {
	case older.Origin != newer.Origin:
		return errors.New("receipt: the checkpoints are of two ledgers")
	case older.Size == 0 || older.Size > newer.Size:
		return fmt.Errorf("receipt: no consistency from size %d to size %d", older.Size, newer.Size)
	case older.Size == newer.Size:
		if older.Root != newer.Root || len(path) > 0 {
			return fmt.Errorf("receipt: two different heads of size %d", older.Size)
		}
		return nil
	}
	raw := make([][]byte, len(path))
	for i := range path {
		raw[i] = path[i][:]
	}
	if err := proof.VerifyConsistency(hasher, older.Size, newer.Size, raw, older.Root[:], newer.Root[:]); err != nil {
		return fmt.Errorf("receipt: size %d is not a prefix of size %d: %w", older.Size, newer.Size, err)
	}
	return nil
}
