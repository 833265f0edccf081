package receipt_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/probity-health/probity/services/ledger/receipt"
)

func decode(t testing.TB, s string) []byte {
	raw, err := base64.StdEncoding.DecodeString(s)
	require.NoError(t, err)
	return raw
}

func verifyRaw(k receipt.PublicKey, msg, sig []byte) bool { return ed25519.Verify(k.Key[:], msg, sig) }

// grow returns a block log of n entries and its checkpoints by size.
func grow(n int, salt string) (*tree, map[uint64]receipt.Checkpoint) {
	tr, at := &tree{}, map[uint64]receipt.Checkpoint{}
	for i := range n {
		tr.add([]byte{byte(i), salt[0]})
		at[uint64(i+1)] = receipt.Checkpoint{Origin: origin, Size: uint64(i + 1), Root: tr.root()}
	}
	return tr, at
}

func (tr *tree) consistency(older uint64) (out []receipt.Hash) {
	p, err := tlog.ProveTree(tr.size(), int64(older), tr)
	if err != nil {
		panic(err)
	}
	for _, h := range p {
		out = append(out, receipt.Hash(h))
	}
	return out
}

func TestConsistencyJoinsCheckpointsOfOneHistoryOnly(t *testing.T) {
	keys := parties(t, 4)
	p, err := receipt.FirstPolicy(firstTerms(keys, 3))
	require.NoError(t, err)
	tr, at := grow(21, "a")
	_, rival := grow(21, "b")
	for older := uint64(1); older <= 21; older++ {
		doc := receipt.Consistency{Proof: tr.consistency(older), Older: cosign(t, at[older], keys[:3]...), Newer: cosign(t, at[21], keys[1:]...)}
		if older == 21 {
			doc.Proof = nil
		}
		a, b, err := receipt.VerifyConsistency(doc.Marshal(), p)
		require.NoError(t, err, older)
		require.Equal(t, [2]uint64{older, 21}, [2]uint64{a.Size, b.Size})

		forged := doc
		forged.Older = cosign(t, rival[older], keys[:3]...)
		_, _, err = receipt.VerifyConsistency(forged.Marshal(), p)
		require.Error(t, err, "another history's prefix")
		forged = doc
		forged.Newer = cosign(t, at[21], keys[1:3]...)
		_, _, err = receipt.VerifyConsistency(forged.Marshal(), p)
		require.ErrorContains(t, err, "newer", "not final")
		forged = doc
		forged.Proof = append(append([]receipt.Hash(nil), doc.Proof...), receipt.Hash{})
		_, _, err = receipt.VerifyConsistency(forged.Marshal(), p)
		require.Error(t, err, "a longer proof")
	}
}

// Given a cosigner that signs two heads of one size, then both notes convict
// it and nobody else.
func TestTwoHeadsConvictWhoSignedBoth(t *testing.T) {
	keys := parties(t, 4)
	p, err := receipt.FirstPolicy(firstTerms(keys, 3))
	require.NoError(t, err)
	_, at := grow(5, "a")
	_, rival := grow(5, "b")
	e := receipt.Evidence{Wrong: receipt.TwoHeads, First: cosign(t, at[5], keys[0], keys[1]), Second: cosign(t, rival[5], keys[1], keys[2])}
	found, err := receipt.VerifyEvidence(e.Marshal(), p)
	require.NoError(t, err)
	require.Equal(t, receipt.Finding{Wrong: receipt.TwoHeads, Signers: []string{"party-1.example.org"}, Place: "size 5"}, found)

	for name, innocent := range map[string]receipt.Evidence{
		"two signers":     {Wrong: receipt.TwoHeads, First: cosign(t, at[5], keys[0]), Second: cosign(t, rival[5], keys[1])},
		"two sizes":       {Wrong: receipt.TwoHeads, First: cosign(t, at[4], keys[0]), Second: cosign(t, rival[5], keys[0])},
		"one head twice":  {Wrong: receipt.TwoHeads, First: cosign(t, at[5], keys[0]), Second: cosign(t, at[5], keys[0])},
		"a stranger":      {Wrong: receipt.TwoHeads, First: cosign(t, at[5], newKey(t, "x")), Second: cosign(t, rival[5], newKey(t, "x"))},
		"an unknown kind": {Wrong: "heresy", First: cosign(t, at[5], keys[0]), Second: cosign(t, rival[5], keys[0])},
	} {
		_, err := receipt.VerifyEvidence(innocent.Marshal(), p)
		require.Error(t, err, name)
	}
}

// Given a policy that changes, then evidence from before it does not lapse, and
// two heads convict one key only: not the one that was rotated in for another.
func TestEvidenceOutlivesAPolicyChange(t *testing.T) {
	keys := parties(t, 4)
	p, err := receipt.FirstPolicy(firstTerms(keys, 3))
	require.NoError(t, err)
	_, at := grow(5, "a")
	_, rival := grow(5, "b")
	rotated := newKey(t, keys[1].Public().Name)
	change := *p.Last()
	change.Sequence, change.Activation, change.Prev = 2, 4, p.Last().Hash()
	change.Members = append([]receipt.Member(nil), change.Members...)
	change.Members[1] = receipt.Member{Role: receipt.Cosigner, Key: rotated.Public()}
	after, err := p.Extend(sign(t, &change, keys[0], keys[2], keys[3]))
	require.NoError(t, err)

	both := receipt.Evidence{Wrong: receipt.TwoHeads, First: cosign(t, at[5], keys[1]), Second: cosign(t, rival[5], keys[1])}
	for _, policy := range []receipt.Policy{p, after} {
		found, err := receipt.VerifyEvidence(both.Marshal(), policy)
		require.NoError(t, err)
		require.Equal(t, []string{keys[1].Public().Name}, found.Signers)
	}
	framed := receipt.Evidence{Wrong: receipt.TwoHeads, First: cosign(t, at[5], rotated), Second: cosign(t, rival[5], keys[1])}
	_, err = receipt.VerifyEvidence(framed.Marshal(), after)
	require.ErrorContains(t, err, "no party signed both")
}

func TestAForkConvictsWhoSignedWhatIsNoPrefix(t *testing.T) {
	keys := parties(t, 4)
	p, err := receipt.FirstPolicy(firstTerms(keys, 3))
	require.NoError(t, err)
	tr, at := grow(9, "a")
	_, rival := grow(9, "b")
	e := receipt.Evidence{
		Wrong: receipt.Fork, First: cosign(t, rival[4], keys[2]), Second: cosign(t, at[9], keys[0], keys[1], keys[3]),
		Root: at[4].Root, Proof: tr.consistency(4),
	}
	found, err := receipt.VerifyEvidence(e.Marshal(), p)
	require.NoError(t, err)
	require.Equal(t, receipt.Finding{Wrong: receipt.Fork, Signers: []string{"party-2.example.org"}, Place: "size 4"}, found)
	for name, frame := range map[string]func(e *receipt.Evidence){
		"an honest prefix":   func(e *receipt.Evidence) { e.First = cosign(t, at[4], keys[2]) },
		"an invented root":   func(e *receipt.Evidence) { e.Root[0] ^= 1 },
		"no final to go by":  func(e *receipt.Evidence) { e.Second = cosign(t, at[9], keys[0], keys[1]) },
		"an unsigned accuse": func(e *receipt.Evidence) { e.First = cosign(t, rival[4], newKey(t, "x")) },
	} {
		framed := e
		frame(&framed)
		_, err := receipt.VerifyEvidence(framed.Marshal(), p)
		require.Error(t, err, name)
	}
}

func TestABrokenPromiseConvictsItsSigner(t *testing.T) {
	w := newWorld(t, 7, 2, 4, 4)
	promise := func(entry []byte) []byte {
		signed, err := receipt.Group{Origin: origin, Log: "claims", First: 4, Count: 1, Root: receipt.LeafHash(entry)}.Sign(w.keys[1].Notes())
		require.NoError(t, err)
		p := receipt.Promise{Log: "claims", Index: 4, Entry: entry, Note: signed}
		return p.Marshal()
	}
	e := receipt.Evidence{Wrong: receipt.BrokenPromise, First: promise(receipt.Entry([]byte("what the provider sent"))), Second: w.receipt.Marshal()}
	found, err := receipt.VerifyEvidence(e.Marshal(), w.policy)
	require.NoError(t, err)
	require.Equal(t, receipt.Finding{Wrong: receipt.BrokenPromise, Signers: []string{"party-1.example.org"}, Place: "claims/0/4"}, found)
	e.First = promise(w.receipt.Entry)
	_, err = receipt.VerifyEvidence(e.Marshal(), w.policy)
	require.ErrorContains(t, err, "kept")
}

func FuzzDocuments(f *testing.F) {
	keys := parties(f, 4)
	p, err := receipt.FirstPolicy(firstTerms(keys, 3))
	require.NoError(f, err)
	tr, at := grow(9, "a")
	c := receipt.Consistency{Proof: tr.consistency(4), Older: cosign(f, at[4], keys...), Newer: cosign(f, at[9], keys...)}
	f.Add(c.Marshal())
	e := receipt.Evidence{Wrong: receipt.Fork, First: cosign(f, at[4], keys[0]), Second: cosign(f, at[9], keys...), Root: at[3].Root, Proof: tr.consistency(4)}
	f.Add(e.Marshal())
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := receipt.ParseConsistency(data); err == nil && string(c.Marshal()) != string(data) {
			t.Fatal("two forms of one consistency proof")
		}
		if e, err := receipt.ParseEvidence(data); err == nil && string(e.Marshal()) != string(data) {
			t.Fatal("two forms of one piece of evidence")
		}
		if _, err := receipt.VerifyEvidence(data, p); err == nil {
			t.Fatal("an honest party was convicted")
		}
	})
}
