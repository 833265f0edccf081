package core

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// heldHeads bounds the heads a tally keeps of one cosigner, so that a liar
// who signs many crowds out nobody's but its own.
const heldHeads = 32

// RootAt returns the root this replica computed for a size of the block log;
// false for a size it has not reached.
type RootAt func(size uint64) (receipt.Hash, bool)

// Tally counts cosignatures. It keeps what every cosigner signed last, finds
// the greatest head with a quorum, and pairs signatures that contradict each
// other. It believes no sender: each signature counts by its own key. Not
// safe for concurrent use.
type Tally struct {
	policy receipt.Policy
	// lines holds the signature lines of each head, by cosigner.
	lines map[receipt.Checkpoint]map[receipt.PublicKey]string
	// signed holds the heads each cosigner signed, in order of size.
	signed map[receipt.PublicKey][]receipt.Checkpoint
	// known holds digests of notes that had nothing new when last added.
	known map[[sha256.Size]byte]bool

	// What follows from lines and signed, kept until they change; nil is not
	// known. Each block is asked for it by every peer and for every signature.
	sorted []receipt.Checkpoint
	notes  [][]byte
}

// changed forgets what followed from lines and signed.
func (t *Tally) changed() { t.sorted, t.notes = nil, nil }

// NewTally returns an empty tally under a policy.
func NewTally(policy receipt.Policy) *Tally {
	return &Tally{
		policy: policy, lines: map[receipt.Checkpoint]map[receipt.PublicKey]string{},
		signed: map[receipt.PublicKey][]receipt.Checkpoint{}, known: map[[sha256.Size]byte]bool{},
	}
}

// SetPolicy replaces the policy by one that extends it. Heads that the new
// version governs were counted by rules that don't hold for them: they go,
// and come again from the peers that sent them.
func (t *Tally) SetPolicy(policy receipt.Policy) {
	t.policy = policy
	clear(t.known)
	t.changed()
	from := policy.Last().Activation
	for key, held := range t.signed {
		held = slices.DeleteFunc(held, func(c receipt.Checkpoint) bool { return c.Size >= from })
		if t.signed[key] = held; len(held) == 0 {
			delete(t.signed, key)
		}
	}
	maps.DeleteFunc(t.lines, func(c receipt.Checkpoint, _ map[receipt.PublicKey]string) bool { return c.Size >= from })
}

// Add counts the cosignatures of a checkpoint's note. It returns evidence
// against every cosigner that signed another root of the same size before.
// The error says that the note is no cosigned checkpoint of this ledger under
// the policy known here; an honest peer may be ahead of it.
func (t *Tally) Add(note []byte) (news bool, evidence []receipt.Evidence, err error) {
	id := sha256.Sum256(note)
	if t.known[id] {
		return false, nil, nil
	}
	fresh := t.unheard(note)
	if fresh == nil {
		return false, nil, nil
	}
	c, cosignatures, err := t.policy.Cosignatures(fresh)
	if err != nil {
		return false, nil, err
	}
	for _, s := range cosignatures {
		if _, ok := t.lines[c][s.Key]; ok {
			continue
		}
		news = true
		for _, other := range t.signed[s.Key] {
			if other.Size == c.Size && other.Root != c.Root {
				evidence = append(evidence, receipt.Evidence{
					Wrong: receipt.TwoHeads, First: other.Note(t.lines[other][s.Key]), Second: c.Note(s.Line),
				})
			}
		}
		t.hold(c, s)
	}
	if len(t.known) > 256 {
		clear(t.known)
	}
	t.known[id] = true
	return news, evidence, nil
}

// unheard returns a note without the signature lines that were verified
// before, nil when there is no other. To verify one costs more than all else
// of counting it, and every peer passes on what it heard.
func (t *Tally) unheard(note []byte) []byte {
	c, err := receipt.UnverifiedCheckpoint(note)
	if err != nil || len(t.lines[c]) == 0 {
		return note
	}
	// A checkpoint has one text, so the lines are of this one.
	lines, ok := bytes.CutPrefix(note, c.Note())
	if !ok || len(lines) == 0 {
		return note
	}
	var fresh []string
	for line := range strings.Lines(string(lines)) {
		known := false
		for _, l := range t.lines[c] {
			known = known || l == line
		}
		if !known {
			fresh = append(fresh, line)
		}
	}
	if fresh == nil {
		return nil
	}
	return c.Note(fresh...)
}

func (t *Tally) hold(c receipt.Checkpoint, s receipt.Cosignature) {
	t.changed()
	if t.lines[c] == nil {
		t.lines[c] = map[receipt.PublicKey]string{}
	}
	t.lines[c][s.Key] = s.Line
	held := append(t.signed[s.Key], c)
	slices.SortStableFunc(held, func(a, b receipt.Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	if len(held) > heldHeads {
		delete(t.lines[held[0]], s.Key)
		if len(t.lines[held[0]]) == 0 {
			delete(t.lines, held[0])
		}
		held = held[1:]
	}
	t.signed[s.Key] = held
}

// heads returns the heads, greatest first; of one size in order of root.
func (t *Tally) heads() []receipt.Checkpoint {
	if t.sorted == nil {
		t.sorted = slices.SortedFunc(maps.Keys(t.lines), func(a, b receipt.Checkpoint) int {
			return cmp.Or(cmp.Compare(b.Size, a.Size), bytes.Compare(a.Root[:], b.Root[:]))
		})
	}
	return t.sorted
}

// note returns a head's note under all lines that are known of it.
func (t *Tally) note(c receipt.Checkpoint) []byte {
	return c.Note(slices.Sorted(maps.Values(t.lines[c]))...)
}

// Final returns the greatest head above a size that has a quorum and that
// this replica computed too, with its note; nil while there is none. The
// error is a *Violation when a quorum signed a root other than the one this
// replica computed: one of the two histories is wrong, and this replica
// cannot tell which.
func (t *Tally) Final(above uint64, own RootAt) (receipt.Checkpoint, []byte, error) {
	for _, c := range t.heads() {
		if c.Size <= above {
			break
		}
		terms := t.policy.At(c.Size)
		if len(t.lines[c]) < terms.Quorum {
			continue
		}
		root, ok := own(c.Size)
		if !ok {
			continue // this replica gets there
		}
		if root != c.Root {
			return receipt.Checkpoint{}, nil, violated("ledger.quorum.root",
				"a quorum cosigned a root of size %d that is not the one this replica computed", c.Size)
		}
		return c, t.note(c), nil
	}
	return receipt.Checkpoint{}, nil, nil
}

// Floor is the greatest size that at least one honest cosigner other than
// the one with key self signed: f of them may lie, so the f+1st greatest
// counts. No replica signs below it.
func (t *Tally) Floor(self receipt.PublicKey) uint64 {
	terms := t.policy.Last()
	if terms == nil {
		return 0
	}
	var newest []uint64
	for _, k := range terms.Cosigners() {
		if held := t.signed[k]; k != self && len(held) > 0 {
			newest = append(newest, held[len(held)-1].Size)
		}
	}
	slices.Sort(newest)
	if i := len(newest) - 1 - terms.Faults(); i >= 0 {
		return newest[i]
	}
	return 0
}

// Newest returns the greatest head a key signed and the note under that
// signature, as far as is known here.
func (t *Tally) Newest(key receipt.PublicKey) (receipt.Checkpoint, []byte, bool) {
	held := t.signed[key]
	if len(held) == 0 {
		return receipt.Checkpoint{}, nil, false
	}
	c := held[len(held)-1]
	return c, c.Note(t.lines[c][key]), true
}

// Strays returns the heads within this replica's reach whose root is not the
// one it computed, each with its note, greatest first.
func (t *Tally) Strays(own RootAt) (out [][]byte) {
	for _, c := range t.heads() {
		if root, ok := own(c.Size); ok && root != c.Root {
			out = append(out, t.note(c))
		}
	}
	return out
}

// Notes returns what a peer should hear: the note of every head that is some
// cosigner's newest, with all lines known of it, greatest first. Nobody may
// change them.
func (t *Tally) Notes() (out [][]byte) {
	if t.notes != nil {
		return t.notes
	}
	newest := map[receipt.Checkpoint]bool{}
	for _, held := range t.signed {
		newest[held[len(held)-1]] = true
	}
	for _, c := range t.heads() {
		if newest[c] {
			out = append(out, t.note(c))
		}
	}
	t.notes = slices.Clip(out)
	return t.notes
}
