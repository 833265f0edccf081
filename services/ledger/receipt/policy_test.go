package receipt_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/receipt"
)

func parties(t testing.TB, n int) (out []*receipt.SigningKey) {
	for i := range n {
		out = append(out, newKey(t, fmt.Sprintf("party-%d.example.org", i)))
	}
	return out
}

func firstTerms(keys []*receipt.SigningKey, quorum int) *receipt.Terms {
	t := &receipt.Terms{Origin: origin, Sequence: 1, Activation: 1, Quorum: quorum, Logs: []receipt.LogShards{{Log: "claims", Shards: 4}, {Log: "policies", Shards: 1}}}
	for _, k := range keys {
		t.Members = append(t.Members, receipt.Member{Role: receipt.Cosigner, Key: k.Public()})
	}
	return t
}

// next returns the version after last with one cosigner replaced.
func next(last *receipt.Terms, activation uint64, out int, in *receipt.SigningKey) *receipt.Terms {
	t := *last
	t.Sequence, t.Activation, t.Prev = last.Sequence+1, activation, last.Hash()
	t.Members = append([]receipt.Member(nil), last.Members...)
	t.Members[out].Key = in.Public()
	return &t
}

func sign(t testing.TB, terms *receipt.Terms, keys ...*receipt.SigningKey) []byte {
	var signers []note.Signer
	for _, k := range keys {
		signers = append(signers, k.Notes())
	}
	signed, err := note.Sign(&note.Note{Text: string(terms.Marshal())}, signers...)
	require.NoError(t, err)
	return signed
}

// Given a ledger whose members change at height 10, then checkpoints below it
// are final under the old quorum and from it on under the new one.
func TestAPolicyChangeTakesEffectAtItsHeight(t *testing.T) {
	keys := parties(t, 5)
	old, joined := keys[:4], keys[4]
	p, err := receipt.FirstPolicy(firstTerms(old, 3))
	require.NoError(t, err)
	change := next(p.Last(), 10, 0, joined)
	p, err = p.Extend(sign(t, change, keys[1], keys[2], keys[3]))
	require.NoError(t, err, "three of the old, who are three of the new")
	p, err = receipt.ParsePolicy(append([]byte("# the ledger of example.org\n"), p.Marshal()...))
	require.NoError(t, err)
	require.Equal(t, uint64(1), p.At(9).Sequence)
	require.Equal(t, uint64(2), p.At(10).Sequence)
	require.Nil(t, p.At(0))

	at := func(size uint64, signers ...*receipt.SigningKey) error {
		_, _, err := p.OpenCheckpoint(cosign(t, receipt.Checkpoint{Origin: origin, Size: size, Root: receipt.Hash{1}}, signers...))
		return err
	}
	require.NoError(t, at(9, keys[0], keys[1], keys[2]))
	require.Error(t, at(10, keys[0], keys[1], keys[2]), "keys[0] left at 10")
	require.NoError(t, at(10, joined, keys[1], keys[2]))
	require.Error(t, at(9, joined, keys[1], keys[2]), "it joins at 10")
}

func TestAPolicyChangeNeedsBothQuorums(t *testing.T) {
	keys := parties(t, 8)
	p, err := receipt.FirstPolicy(firstTerms(keys[:4], 3))
	require.NoError(t, err)
	// All four are replaced, so no old member is a new one.
	change := next(p.Last(), 10, 0, keys[4])
	for i := 1; i < 4; i++ {
		change.Members[i].Key = keys[4+i].Public()
	}
	_, err = p.Extend(sign(t, change, keys[:4]...))
	require.ErrorContains(t, err, "under policy 2", "those who leave can't appoint")
	_, err = p.Extend(sign(t, change, keys[4:]...))
	require.ErrorContains(t, err, "under policy 1", "those who come can't seize")
	_, err = p.Extend(sign(t, change, keys[1], keys[2], keys[5], keys[6], keys[7]))
	require.ErrorContains(t, err, "signed by 2 of the 3")
	_, err = p.Extend(sign(t, change, keys[1], keys[2], keys[3], keys[5], keys[6], keys[7]))
	require.NoError(t, err)
	_, err = p.Extend(change.Marshal())
	require.Error(t, err, "unsigned")
}

func TestUnsafePoliciesAreRefused(t *testing.T) {
	keys := parties(t, 7)
	for n, quorums := range map[int][2]int{1: {1, 1}, 2: {2, 2}, 3: {2, 3}, 4: {3, 3}, 5: {4, 4}, 6: {4, 5}, 7: {5, 5}} {
		least, most := receipt.QuorumBounds(n)
		require.Equal(t, quorums, [2]int{least, most}, "of %d", n)
		f := (n - 1) / 3
		for q := range n + 2 {
			_, err := receipt.FirstPolicy(firstTerms(keys[:n], q))
			// Safety: two quorums share an honest cosigner. Liveness: the honest are enough.
			require.Equal(t, 2*q-n > f && q <= n-f, err == nil, "%d of %d: %v", q, n, err)
		}
	}
	good := firstTerms(keys[:4], 3)
	p, err := receipt.FirstPolicy(good)
	require.NoError(t, err)
	for name, spoil := range map[string]func(t *receipt.Terms){
		"another origin":  func(t *receipt.Terms) { t.Origin = "evil.example.org" },
		"a gap":           func(t *receipt.Terms) { t.Sequence = 3 },
		"another past":    func(t *receipt.Terms) { t.Prev[0] ^= 1 },
		"no later height": func(t *receipt.Terms) { t.Activation = 1 },
		"a log less":      func(t *receipt.Terms) { t.Logs = t.Logs[:1] },
		"a shard more": func(t *receipt.Terms) {
			t.Logs = []receipt.LogShards{{Log: "claims", Shards: 5}, {Log: "policies", Shards: 1}}
		},
		"a key twice":       func(t *receipt.Terms) { t.Members[0].Key.Key = t.Members[1].Key.Key },
		"a name twice":      func(t *receipt.Terms) { t.Members[0].Key.Name = t.Members[1].Key.Name },
		"a role of its own": func(t *receipt.Terms) { t.Members[0].Role = "king" },
		"an unsafe quorum":  func(t *receipt.Terms) { t.Quorum = 2 },
		"a cosigner less":   func(t *receipt.Terms) { t.Members[3].Role = receipt.Owner; t.Quorum = 1 },
	} {
		change := next(good, 10, 0, keys[0])
		spoil(change)
		_, err := p.Extend(sign(t, change, keys...))
		require.Error(t, err, name)
	}
}

// Given a receipt made after a policy change, then a verifier whose file ends
// before it says so instead of judging by rules that no longer hold.
func TestAStalePolicyFileIsNoticed(t *testing.T) {
	keys := parties(t, 5)
	old, err := receipt.FirstPolicy(firstTerms(keys[:4], 3))
	require.NoError(t, err)
	now, err := old.Extend(sign(t, next(old.Last(), 2, 0, keys[4]), keys[1:]...))
	require.NoError(t, err)

	w := newWorld(t, 3, 1, 1, 4)
	w.block.Policy = now.Last().Ref()
	w.receipt.Header = w.block.Header()
	w.receipt.Checkpoint = cosign(t, receipt.Checkpoint{Origin: origin, Size: 1, Root: w.block.Hash()}, keys[:4]...)
	_, err = receipt.Verify(w.receipt.Marshal(), now)
	require.NoError(t, err)
	_, err = receipt.Verify(w.receipt.Marshal(), old)
	require.ErrorContains(t, err, "newer policy file")

	rival, err := old.Extend(sign(t, next(old.Last(), 3, 0, keys[4]), keys[1:]...))
	require.NoError(t, err)
	_, err = receipt.Verify(w.receipt.Marshal(), rival)
	require.ErrorContains(t, err, "not this one")
}

func TestPoliciesHaveOneForm(t *testing.T) {
	text := string(firstTerms(parties(t, 4), 3).Marshal())
	_, err := receipt.ParseTerms([]byte(text))
	require.NoError(t, err)
	for name, change := range map[string][2]string{
		"a leading zero": {"quorum 3", "quorum 03"},
		"two spaces":     {"quorum 3", "quorum  3"},
		"out of order":   {"log claims 4\nlog policies 1", "log policies 1\nlog claims 4"},
		"a log twice":    {"log policies 1", "log claims 1"},
		"no shards":      {"log claims 4", "log claims 0"},
		"a key id":       {"party-0.example.org+", "party-9.example.org+"},
		"a blank line":   {"log claims", "\nlog claims"},
		"crlf":           {"quorum 3\n", "quorum 3\r\n"},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		require.NotEqual(t, text, changed, name)
		_, err := receipt.ParseTerms([]byte(changed))
		require.Error(t, err, name)
	}
	for _, file := range []string{"", "# nothing\n", "x\n" + text, text + "\n", text + text} {
		_, err := receipt.ParsePolicy([]byte(file))
		if file == text+"\n" {
			require.NoError(t, err, "a note without signatures")
			continue
		}
		require.Error(t, err)
	}
}

func FuzzParsePolicy(f *testing.F) {
	keys := parties(f, 5)
	p, err := receipt.FirstPolicy(firstTerms(keys[:4], 3))
	require.NoError(f, err)
	f.Add(p.Marshal())
	p, err = p.Extend(sign(f, next(p.Last(), 10, 0, keys[4]), keys[1:]...))
	require.NoError(f, err)
	f.Add(p.Marshal())
	f.Fuzz(func(t *testing.T, data []byte) {
		if terms, err := receipt.ParseTerms(data); err == nil && !bytes.Equal(terms.Marshal(), data) {
			t.Fatal("two forms of one policy")
		}
		p, err := receipt.ParsePolicy(data)
		if err != nil {
			return
		}
		if _, err := receipt.ParsePolicy(p.Marshal()); err != nil {
			t.Fatalf("a policy doesn't read back: %v", err)
		}
	})
}

func TestCosignaturesAreThoseOfTheStandard(t *testing.T) {
	k := newKey(t, "witness.example.com/w1")
	signed := cosign(t, receipt.Checkpoint{Origin: origin, Size: 7, Root: receipt.Hash{1}}, k)
	text, line, _ := strings.Cut(string(signed), "\n\n")
	require.True(t, strings.HasPrefix(line, "— witness.example.com/w1 "))
	// The message of cosignature/v1, spelled out as C2SP tlog-cosignature has it.
	n, err := note.Open(signed, note.VerifierList(k.Public().Cosignatures()))
	require.NoError(t, err)
	require.Len(t, n.Sigs, 1)
	spelled := "cosignature/v1\ntime 1767355200\n" + text + "\n"
	sig := decode(t, n.Sigs[0].Base64)[4:]
	require.Equal(t, "00000000"+fmt.Sprintf("%08x", 1767355200), fmt.Sprintf("%x", sig[:8]))
	require.True(t, verifyRaw(k.Public(), []byte(spelled), sig[8:]))

	_, err = receipt.ParsePublicKey(k.Public().String())
	require.NoError(t, err)
	plain, err := note.NewVerifier(k.Public().LogKey(origin))
	require.NoError(t, err, "x/mod reads the log's key")
	own, err := receipt.Checkpoint{Origin: origin, Size: 7}.Sign(k.LogSigner(origin))
	require.NoError(t, err)
	_, err = note.Open(own, note.VerifierList(plain))
	require.NoError(t, err)
}
