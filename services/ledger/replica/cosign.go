package replica

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
)

const (
	// clockSkew is how far ahead of this replica's clock a block's time may
	// be and still be signed. A wrong clock withholds a signature; it never
	// decides whether a block is valid.
	clockSkew = 5 * time.Minute
	// heardNotes bounds what is taken from one peer's message.
	heardNotes = 64
	// heldRoots bounds the roots kept of sizes that cosigners signed.
	heldRoots = 256
	// heldEvidence bounds the evidence kept; the first is what convicts.
	heldEvidence = 1024
)

// Withheld returns why the newest valid block is not cosigned by this replica
// yet, "" when it is or when there is none.
func (b *Blocks) Withheld() string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.withheld
}

// notCosigner is the reason of a replica that only follows. It is no fault.
const notCosigner = "this node is no cosigner of the policy in force"

// withhold returns why the block must not be signed now, "" when it may.
func (b *Blocks) withhold(terms *receipt.Terms, last *receipt.Block) string {
	if !slices.Contains(terms.Cosigners(), b.self) {
		return notCosigner
	}
	b.tallyMu.Lock()
	defer b.tallyMu.Unlock()
	heard := 0
	for _, k := range terms.Cosigners() {
		if k != b.self && b.heard[k.Name] {
			heard++
		}
	}
	switch {
	case heard < terms.Quorum-1:
		// Restored from a backup with its memory of signing, this replica
		// would learn from its peers what it signed since. Without so many of
		// them no signature makes anything final, so waiting costs nothing.
		return fmt.Sprintf("since its start it heard from %d of the %d others a quorum needs", heard, terms.Quorum-1)
	case last.Time.After(b.cfg.Now().Add(clockSkew)):
		return "the block's time is ahead of this node's clock"
	}
	return ""
}

// Final returns the newest final checkpoint's note and the block it ends
// with; nil before the first.
func (b *Blocks) Final() ([]byte, *receipt.Block) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.final, b.finalBlock
}

// Notes returns what peers should hear: checkpoints with the cosignatures
// known here, and the newest final one.
func (b *Blocks) Notes() [][]byte {
	final, block := b.Final()
	b.tallyMu.Lock()
	defer b.tallyMu.Unlock()
	notes := b.tally.Notes()
	if block != nil && !slices.ContainsFunc(notes, func(n []byte) bool {
		c, err := receipt.UnverifiedCheckpoint(n)
		return err == nil && c.Size == block.Height
	}) {
		notes = append(notes, final)
	}
	return notes
}

// Hear takes in what a peer said. From names the member when it answered a
// question of this replica, and is empty when it spoke first: only an answer
// shows where it came from. Hear waits for nothing; an error has halted
// signing.
func (b *Blocks) Hear(from string, notes [][]byte) error {
	b.tallyMu.Lock()
	news := false
	var evidence []receipt.Evidence
	for _, n := range notes[:min(len(notes), heardNotes)] {
		added, found, err := b.tally.Add(n)
		if err != nil {
			// An honest peer may know a newer policy. It says so again.
			b.cfg.Logger.Debug("a peer's checkpoint does not count", "peer", from, "error", err)
			continue
		}
		news = news || added
		evidence = append(evidence, found...)
	}
	if from != "" && !b.heard[from] {
		b.heard[from], news = true, true
	}
	mine, _, signedBefore := b.tally.Newest(b.self)
	b.signed.see(b.tally.Floor(b.self))
	b.tallyMu.Unlock()
	for _, e := range evidence {
		b.keep(e)
	}
	if !news {
		return nil
	}
	if signedBefore {
		forgot, err := b.signed.remember(mine)
		if err != nil {
			return b.halt(err)
		}
		if forgot {
			b.cfg.Logger.Error("peers hold a newer cosignature of this node than it remembers: its memory of signing was restored from a backup", "size", mine.Size)
		}
	}
	err := b.settle()
	b.wake.Broadcast()
	return err
}

// ownRoot implements core.RootAt for the heads this replica verified.
func (b *Blocks) ownRoot(size uint64) (receipt.Hash, bool) {
	b.mu.RLock()
	last := b.last
	b.mu.RUnlock()
	if last == nil || size > last.Height {
		return receipt.Hash{}, false
	}
	b.derivedMu.Lock()
	root, ok := b.roots[size]
	b.derivedMu.Unlock()
	if ok {
		return root, true
	}
	root, err := b.tree.Root(size)
	if err != nil {
		return root, false
	}
	b.derivedMu.Lock()
	defer b.derivedMu.Unlock()
	if b.roots == nil || len(b.roots) >= heldRoots {
		b.roots = map[uint64]receipt.Hash{}
	}
	b.roots[size] = root
	return root, true
}

// settle looks whether a greater checkpoint has become final, and whom the
// final one convicts.
func (b *Blocks) settle() error {
	_, block := b.Final()
	var above uint64
	if block != nil {
		above = block.Height
	}
	b.tallyMu.Lock()
	cp, note, err := b.tally.Final(above, b.ownRoot)
	strays := b.tally.Strays(b.ownRoot)
	b.tallyMu.Unlock()
	if err != nil {
		return b.halt(err)
	}
	if note != nil {
		if block, err = b.block(cp.Size); err != nil {
			return b.halt(err)
		}
		// Not synced: peers hold the signatures, and this is only to serve
		// them at once after a restart.
		if err := b.cfg.Store.db.Set(finalNote, note, pebble.NoSync); err != nil {
			return b.halt(err)
		}
		b.mu.Lock()
		if b.finalBlock == nil || b.finalBlock.Height < cp.Size {
			b.final, b.finalBlock = note, block
		}
		b.mu.Unlock()
		b.Changed.Broadcast()
		b.Finalised.Broadcast()
	}
	return b.accuse(strays)
}

// accuse keeps evidence against those who signed a head within the final
// checkpoint that is no prefix of it.
func (b *Blocks) accuse(strays [][]byte) error {
	final, block := b.Final()
	if block == nil {
		return nil
	}
	for _, stray := range strays {
		c, err := receipt.UnverifiedCheckpoint(stray)
		if err != nil || c.Size > block.Height {
			continue
		}
		root, err := b.tree.Root(c.Size)
		if err != nil {
			return err
		}
		e := receipt.Evidence{Wrong: receipt.Fork, First: stray, Second: final, Root: root}
		if c.Size < block.Height {
			if e.Proof, err = b.tree.Consistency(c.Size, block.Height); err != nil {
				return err
			}
		}
		b.keep(e)
	}
	return nil
}

const evidenceRows = "\x00evidence/"

// keep stores evidence that convicts, once for each wrong, place and signer,
// and names whom it convicts.
func (b *Blocks) keep(e receipt.Evidence) {
	if _, err := b.Accuse(e.Marshal()); err != nil {
		b.cfg.Logger.Error("evidence was not kept", "wrong", e.Wrong, "error", err)
	}
}

// Accuse verifies a piece of evidence and keeps it.
func (b *Blocks) Accuse(document []byte) (receipt.Finding, error) {
	found, err := receipt.VerifyEvidence(document, b.Policy())
	if err != nil {
		return receipt.Finding{}, err
	}
	id := sha256.Sum256([]byte(string(found.Wrong) + "\n" + found.Place + "\n" + strings.Join(found.Signers, "\n")))
	key := []byte(evidenceRows + hex.EncodeToString(id[:]))
	rows := rows{db: b.cfg.Store.db}
	if held, err := rows.get(key); err != nil || held != nil {
		return found, err
	}
	all, err := b.Evidence()
	if err != nil {
		return found, err
	}
	if len(all) >= heldEvidence {
		return found, errors.New("replica: no room for more evidence; export it and look into it")
	}
	b.cfg.Logger.Error("EVIDENCE of misbehaviour: see probity ledger evidence", "wrong", found.Wrong, "place", found.Place, "signers", found.Signers)
	return found, b.cfg.Store.db.Set(key, document, pebble.Sync)
}

// Evidence returns the evidence documents kept, in a fixed order.
func (b *Blocks) Evidence() ([][]byte, error) {
	it, err := b.cfg.Store.db.NewIter(&pebble.IterOptions{LowerBound: []byte(evidenceRows), UpperBound: []byte(evidenceRows[:len(evidenceRows)-1] + "0")})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var out [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		out = append(out, slices.Clone(v))
	}
	return out, it.Error()
}

// loadFinal takes up the final checkpoint known before, if it still holds.
func (b *Blocks) loadFinal(rows rows) error {
	note, err := rows.get(finalNote)
	if err != nil || note == nil {
		return err
	}
	cp, _, err := b.policy.OpenCheckpoint(note)
	if err != nil {
		return fmt.Errorf("%w: the final checkpoint: %w", errDamaged, err)
	}
	if root, ok := b.ownRoot(cp.Size); !ok || root != cp.Root {
		if !ok {
			return nil // this replica lost blocks that were not synced; it reads them again
		}
		return &core.Violation{Rule: "ledger.quorum.root", What: fmt.Sprintf("the final checkpoint of size %d is not of the blocks stored here", cp.Size)}
	}
	block, err := b.block(cp.Size)
	if err != nil {
		return err
	}
	b.final, b.finalBlock = note, block
	_, _, err = b.tally.Add(note)
	return err
}

// Consistency returns the RFC 6962 proof that the block log of size newer
// extends that of size older; both must be within what this replica verified.
func (b *Blocks) Consistency(older, newer uint64) ([]receipt.Hash, error) {
	if older == newer {
		return nil, nil
	}
	return b.tree.Consistency(older, newer)
}
