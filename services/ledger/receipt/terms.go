package receipt

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const policyMagic = "probity policy v1"

// MaxPolicySize bounds one policy with its signatures.
const MaxPolicySize = 64 << 10

// Role is what a member of the ledger does.
type Role string

// The roles.
const (
	// Cosigner replicates, re-checks and cosigns; it counts for the quorum.
	Cosigner Role = "cosigner"
	// Owner writes shards and signs promises; it never counts.
	Owner Role = "owner"
)

// Member is one party of the ledger.
type Member struct {
	Role Role
	Key  PublicKey
}

// LogShards is one log and its fixed number of shards.
type LogShards struct {
	Log    string
	Shards uint32
}

// Terms are one version of the ledger's policy: who runs it, how many of the
// cosigners make a checkpoint final, and which logs it has. They hold for
// checkpoints of size Activation and more, until the next version's.
//
//	probity policy v1
//	<origin>
//	sequence <n, from 1>
//	activates <the first block height it governs>
//	prev <hash of the version before, base64; zero for the first>
//	quorum <cosigners needed>
//	member <cosigner|owner> <verifier key, cosignature/v1>
//	…
//	log <name> <shards>
//	…
//
// The first version is the root of trust, given to every party out of band;
// it activates at 1. Every later one is a signed note that carries a quorum
// of the version before and a quorum of its own.
type Terms struct {
	Origin     string
	Sequence   uint64
	Activation uint64
	Prev       Hash
	Quorum     int
	Members    []Member
	Logs       []LogShards
}

// Marshal returns the text.
func (t *Terms) Marshal() []byte {
	var w writer
	w.line(policyMagic)
	w.line(t.Origin)
	w.line(fmt.Sprintf("sequence %d", t.Sequence))
	w.line(fmt.Sprintf("activates %d", t.Activation))
	w.line("prev " + encode(t.Prev[:]))
	w.line(fmt.Sprintf("quorum %d", t.Quorum))
	for _, m := range t.Members {
		w.line("member " + string(m.Role) + " " + m.Key.String())
	}
	for _, l := range t.Logs {
		w.line(fmt.Sprintf("log %s %d", l.Log, l.Shards))
	}
	return w.buf
}

// Hash identifies the version: SHA-256 of its text.
func (t *Terms) Hash() Hash { return sha256.Sum256(t.Marshal()) }

// Ref names the version, as blocks do.
func (t *Terms) Ref() PolicyRef { return PolicyRef{Sequence: t.Sequence, Hash: t.Hash()} }

// PolicyRef names one version of the policy.
type PolicyRef struct {
	Sequence uint64
	Hash     Hash
}

// Cosigners returns the members that count for the quorum.
func (t *Terms) Cosigners() []PublicKey {
	var out []PublicKey
	for _, m := range t.Members {
		if m.Role == Cosigner {
			out = append(out, m.Key)
		}
	}
	return out
}

// Faults returns f, how many cosigners may lie without harm: the largest f
// with n >= 3f+1.
func (t *Terms) Faults() int { return max(0, (len(t.Cosigners())-1)/3) }

// QuorumBounds returns the least and greatest quorum of n cosigners of whom
// f = (n-1)/3 may lie. Two quorums must share an honest cosigner, 2q-n > f,
// or a ledger could have two final histories; and the honest ones must be
// enough by themselves, q <= n-f, or liars could stop it.
func QuorumBounds(n int) (least, most int) {
	f := (n - 1) / 3
	return (n+f)/2 + 1, n - f
}

// ParseTerms reads the text of a policy, without signatures.
func ParseTerms(text []byte) (*Terms, error) {
	if len(text) > MaxPolicySize {
		return nil, fmt.Errorf("receipt: policy is longer than %d bytes", MaxPolicySize)
	}
	r := reader{rest: text}
	t := &Terms{}
	r.expect(policyMagic)
	t.Origin = r.origin()
	t.Sequence = r.parse(r.labelled("sequence"))
	t.Activation = r.parse(r.labelled("activates"))
	t.Prev = r.parseHash(r.labelled("prev"))
	t.Quorum = int(r.parse32(r.labelled("quorum")))
	for r.err == nil && len(r.rest) > 0 {
		f := strings.Split(r.line(), " ")
		switch {
		case len(f) == 3 && f[0] == "member" && len(t.Logs) == 0:
			key, err := ParsePublicKey(f[2])
			if err != nil {
				return nil, err
			}
			t.Members = append(t.Members, Member{Role: Role(f[1]), Key: key})
		case len(f) == 3 && f[0] == "log":
			t.Logs = append(t.Logs, LogShards{Log: f[1], Shards: r.parse32(f[2])})
		default:
			r.fail("expected a member or a log, members first")
		}
	}
	if r.err == nil && !bytes.Equal(t.Marshal(), text) {
		r.fail("not in canonical form")
	}
	if r.err != nil {
		return nil, fmt.Errorf("receipt: policy: %w", r.err)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, t.safe()
}

// safe applies the rule for quorums. A verifier with bare keys may ask for
// more signatures than the ledger does; a ledger's own policy may not be less
// than safe, or more than live.
func (t *Terms) safe() error {
	n := len(t.Cosigners())
	if least, most := QuorumBounds(n); t.Quorum < least || t.Quorum > most {
		return fmt.Errorf("receipt: policy %d: the quorum of %d cosigners must be %d to %d, not %d", t.Sequence, n, least, most, t.Quorum)
	}
	return nil
}

// check applies the rules a version keeps by itself.
func (t *Terms) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("receipt: policy %d: "+format, append([]any{t.Sequence}, args...)...)
	}
	switch {
	case !ValidOrigin(t.Origin):
		return bad("names no valid origin")
	case t.Sequence == 0:
		return bad("sequences start at 1")
	case t.Sequence == 1 && (t.Activation != 1 || t.Prev != Hash{}):
		return bad("the first version activates at 1 and has a zero prev")
	}
	names, keys := map[string]bool{}, map[[32]byte]bool{}
	for _, m := range t.Members {
		switch {
		case m.Role != Cosigner && m.Role != Owner:
			return bad("%s is neither cosigner nor owner", m.Key.Name)
		case names[m.Key.Name]:
			return bad("two members are named %s", m.Key.Name)
		case keys[m.Key.Key]:
			// cosignature/v1 doesn't sign the name: one key must be one party.
			return bad("%s has another member's key", m.Key.Name)
		}
		names[m.Key.Name], keys[m.Key.Key] = true, true
	}
	n := len(t.Cosigners())
	if n == 0 {
		return bad("has no cosigner")
	}
	if t.Quorum < 1 || t.Quorum > n {
		return bad("a quorum of %d cosigners is not %d", n, t.Quorum)
	}
	heads := 0
	for i, l := range t.Logs {
		switch {
		case !validLog(l.Log):
			return bad("log name is not 1 to 32 lower-case letters")
		case i > 0 && t.Logs[i-1].Log >= l.Log:
			return bad("logs are out of order")
		case l.Shards == 0 || l.Shards > MaxBlockHeads:
			return bad("log %s has %d shards", l.Log, l.Shards)
		}
		heads += int(l.Shards)
	}
	if heads == 0 || heads > MaxBlockHeads {
		return bad("has %d shards, not 1 to %d", heads, MaxBlockHeads)
	}
	return nil
}

// follows applies the rules by which t replaces prev.
func (t *Terms) follows(prev *Terms) error {
	switch {
	case t.Origin != prev.Origin:
		return errors.New("receipt: policy is of another ledger")
	case t.Sequence != prev.Sequence+1:
		return fmt.Errorf("receipt: policy %d does not follow policy %d", t.Sequence, prev.Sequence)
	case t.Prev != prev.Hash():
		return fmt.Errorf("receipt: policy %d does not name the one before it", t.Sequence)
	case t.Activation <= prev.Activation:
		return fmt.Errorf("receipt: policy %d activates at %d, not after the one before it", t.Sequence, t.Activation)
	}
	for _, l := range prev.Logs {
		if !slices.Contains(t.Logs, l) {
			return fmt.Errorf("receipt: policy %d drops log %s or changes its shards", t.Sequence, l.Log)
		}
	}
	return nil
}

// Policy says whom a verifier trusts over a ledger's life: the versions of
// its policy, each with the height from which it holds.
type Policy struct {
	versions []version
}

type version struct {
	terms *Terms
	note  []byte // as recorded; the first version may be unsigned
	hash  Hash
	// known is false for a policy made of bare keys, which names no version.
	known bool
}

// NewPolicy makes a policy of one version from cosigners' verifier keys
// alone. It cannot tell whether a receipt was made under a later version;
// a policy file can.
func NewPolicy(origin string, quorum int, vkeys ...string) (Policy, error) {
	t := &Terms{Origin: origin, Sequence: 1, Activation: 1, Quorum: quorum, Logs: []LogShards{{"any", 1}}}
	for _, k := range vkeys {
		key, err := ParsePublicKey(k)
		if err != nil {
			return Policy{}, err
		}
		t.Members = append(t.Members, Member{Role: Cosigner, Key: key})
	}
	if err := t.check(); err != nil {
		return Policy{}, err
	}
	return Policy{versions: []version{{terms: t}}}, nil
}

// FirstPolicy returns the policy that has only its first version.
func FirstPolicy(t *Terms) (Policy, error) {
	if err := errors.Join(t.check(), t.safe()); err != nil {
		return Policy{}, err
	}
	if t.Sequence != 1 {
		return Policy{}, errors.New("receipt: a policy begins with version 1")
	}
	return Policy{versions: []version{{terms: t, note: t.Marshal(), hash: t.Hash(), known: true}}}, nil
}

// Extend returns the policy with one more version: a signed note under a
// quorum of the last version's cosigners and a quorum of its own.
func (p Policy) Extend(signed []byte) (Policy, error) {
	if len(p.versions) == 0 {
		return Policy{}, errors.New("receipt: no policy to extend")
	}
	if len(signed) > MaxPolicySize {
		return Policy{}, fmt.Errorf("receipt: policy is longer than %d bytes", MaxPolicySize)
	}
	text, ok := noteText(signed)
	if !ok {
		return Policy{}, errors.New("receipt: policy change is not signed")
	}
	t, err := ParseTerms(text)
	if err != nil {
		return Policy{}, err
	}
	last := p.Last()
	if err := t.follows(last); err != nil {
		return Policy{}, err
	}
	for _, under := range []*Terms{last, t} {
		if _, _, err := open(signed, under.Cosigners(), PublicKey.Notes, under.Quorum); err != nil {
			return Policy{}, fmt.Errorf("receipt: policy %d under policy %d: %w", t.Sequence, under.Sequence, err)
		}
	}
	next := version{terms: t, note: bytes.Clone(signed), hash: t.Hash(), known: true}
	return Policy{versions: append(slices.Clip(p.versions), next)}, nil
}

// ParsePolicy reads a policy file: the first version, then every signed
// change in order. Lines before the first version are comments when they
// begin with '#'. The first version is believed as it stands: where the file
// comes from is the reader's trust.
func ParsePolicy(file []byte) (Policy, error) {
	if len(file) > 64*MaxPolicySize {
		return Policy{}, errors.New("receipt: policy file is too long")
	}
	for bytes.HasPrefix(file, []byte("#")) {
		_, rest, _ := bytes.Cut(file, []byte("\n"))
		file = rest
	}
	var parts [][]byte
	begin := []byte(policyMagic + "\n")
	for len(file) > 0 {
		if !bytes.HasPrefix(file, begin) {
			return Policy{}, errors.New("receipt: policy file: expected the line \"" + policyMagic + "\"")
		}
		end := len(file)
		if i := bytes.Index(file[1:], append([]byte("\n"), begin...)); i >= 0 {
			end = i + 2
		}
		parts = append(parts, file[:end])
		file = file[end:]
	}
	if len(parts) == 0 {
		return Policy{}, errors.New("receipt: policy file is empty")
	}
	text := parts[0]
	if t, ok := noteText(text); ok {
		text = t
	}
	first, err := ParseTerms(text)
	if err != nil {
		return Policy{}, err
	}
	p, err := FirstPolicy(first)
	if err != nil {
		return Policy{}, err
	}
	p.versions[0].note = bytes.Clone(parts[0])
	for _, part := range parts[1:] {
		if p, err = p.Extend(part); err != nil {
			return Policy{}, err
		}
	}
	return p, nil
}

// Marshal returns the policy file.
func (p Policy) Marshal() []byte {
	var out []byte
	for _, v := range p.versions {
		out = append(out, v.note...)
	}
	return out
}

// Upto returns the policy file up to and including one version.
func (p Policy) Upto(sequence uint64) []byte {
	return Policy{versions: p.versions[:min(sequence, uint64(len(p.versions)))]}.Marshal()
}

// Origin returns the ledger's name, "" for the zero Policy.
func (p Policy) Origin() string {
	if len(p.versions) == 0 {
		return ""
	}
	return p.versions[0].terms.Origin
}

// First returns the first version, the root of trust.
func (p Policy) First() *Terms {
	if len(p.versions) == 0 {
		return nil
	}
	return p.versions[0].terms
}

// Last returns the newest version, which may not be in force yet.
func (p Policy) Last() *Terms {
	if len(p.versions) == 0 {
		return nil
	}
	return p.versions[len(p.versions)-1].terms
}

// At returns the version that governs a checkpoint of a size.
func (p Policy) At(size uint64) *Terms {
	i, _ := slices.BinarySearchFunc(p.versions, size, func(v version, size uint64) int {
		if v.terms.Activation <= size {
			return -1
		}
		return 1
	})
	if i == 0 {
		return nil
	}
	return p.versions[i-1].terms
}

// Note returns a version as it is recorded, nil where there is none.
func (p Policy) Note(sequence uint64) []byte {
	if sequence == 0 || sequence > uint64(len(p.versions)) {
		return nil
	}
	return p.versions[sequence-1].note
}

// knows checks that a block's version is one of this policy's.
func (p Policy) knows(ref PolicyRef) error {
	if last := p.versions[len(p.versions)-1]; !last.known {
		return nil
	}
	if ref.Sequence > uint64(len(p.versions)) {
		return fmt.Errorf("receipt: made under policy %d and the newest known here is %d: get the ledger's newer policy file", ref.Sequence, len(p.versions))
	}
	if ref.Sequence == 0 || p.versions[ref.Sequence-1].hash != ref.Hash {
		return fmt.Errorf("receipt: made under a policy %d that is not this one", ref.Sequence)
	}
	return nil
}

// members returns every key that was ever a member's, each once, by name.
func (p Policy) members() []PublicKey {
	var out []PublicKey
	for _, v := range p.versions {
		for _, m := range v.terms.Members {
			if !slices.Contains(out, m.Key) {
				out = append(out, m.Key)
			}
		}
	}
	slices.SortFunc(out, func(a, b PublicKey) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), bytes.Compare(a.Key[:], b.Key[:]))
	})
	return out
}

// noteText splits a signed note's text off, without verifying anything.
func noteText(signed []byte) ([]byte, bool) {
	i := bytes.LastIndex(signed, []byte("\n\n"))
	if i < 0 {
		return nil, false
	}
	return signed[:i+1], true
}

// open verifies a signed note under at least quorum of the keys, with the
// kind of verifier each gives, and returns its text and the signers' names.
func open(signed []byte, keys []PublicKey, kind func(PublicKey) note.Verifier, quorum int) (text string, signers []string, err error) {
	n, err := openNote(signed, keys, kind, quorum)
	if err != nil {
		return "", nil, err
	}
	return n.Text, names(n), nil
}

func names(n *note.Note) []string {
	out := make([]string, len(n.Sigs))
	for i, s := range n.Sigs {
		out[i] = s.Name
	}
	return out
}

func openNote(signed []byte, keys []PublicKey, kind func(PublicKey) note.Verifier, quorum int) (*note.Note, error) {
	n, err := note.Open(signed, note.VerifierList(verifiers(keys, kind)...))
	var unsigned *note.UnverifiedNoteError
	if errors.As(err, &unsigned) {
		return nil, fmt.Errorf("receipt: signed by none of the parties (%d needed)", quorum)
	}
	if err != nil {
		return nil, fmt.Errorf("receipt: signature: %w", err)
	}
	// note.Open drops repeated signatures of one key, so each counts once. It
	// takes more than one spelling of a signature, though; here a document has one.
	for _, s := range n.Sigs {
		if !canonical(s.Base64) {
			return nil, errors.New("receipt: signature: not in canonical form")
		}
	}
	if len(n.Sigs) < quorum {
		return nil, fmt.Errorf("receipt: signed by %d of the %d parties needed (%s)",
			len(n.Sigs), quorum, strings.Join(names(n), ", "))
	}
	return n, nil
}

func verifiers(keys []PublicKey, kind func(PublicKey) note.Verifier) []note.Verifier {
	out := make([]note.Verifier, len(keys))
	for i, k := range keys {
		out[i] = kind(k)
	}
	return out
}
