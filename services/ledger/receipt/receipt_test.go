package receipt_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/probity-health/probity/services/ledger/receipt"
)

const origin = "ledger.example.org/health"

// tree is an RFC 6962 tree made with x/mod's tlog, while the package under
// test verifies with transparency-dev's library.
type tree struct{ hashes []tlog.Hash }

func (tr *tree) add(leaf []byte) {
	n := tr.size()
	hs, err := tlog.StoredHashes(n, leaf, tr)
	if err != nil {
		panic(err)
	}
	tr.hashes = append(tr.hashes, hs...)
}

func (tr *tree) size() int64 {
	n := int64(0)
	for tlog.StoredHashCount(n) < int64(len(tr.hashes)) {
		n++
	}
	return n
}

func (tr *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = tr.hashes[x]
	}
	return out, nil
}

func (tr *tree) root() receipt.Hash {
	h, err := tlog.TreeHash(tr.size(), tr)
	if err != nil {
		panic(err)
	}
	return receipt.Hash(h)
}

func (tr *tree) proof(i int64) (out []receipt.Hash) {
	p, err := tlog.ProveRecord(tr.size(), i, tr)
	if err != nil {
		panic(err)
	}
	for _, h := range p {
		out = append(out, receipt.Hash(h))
	}
	return out
}

type world struct {
	signers []note.Signer
	policy  receipt.Policy
	commits [][]byte
	receipt *receipt.Receipt
}

// newWorld seals commits in the last of several blocks; index is proved.
func newWorld(t testing.TB, commits, blocks, index int, parties int) *world {
	w := &world{policy: receipt.Policy{Origin: origin, Quorum: parties}}
	for i := range parties {
		name := origin
		if i > 0 {
			name = fmt.Sprintf("party-%d.example.org", i)
		}
		skey, vkey, err := note.GenerateKey(rand.Reader, name)
		require.NoError(t, err)
		s, err := note.NewSigner(skey)
		require.NoError(t, err)
		v, err := note.NewVerifier(vkey)
		require.NoError(t, err)
		w.signers = append(w.signers, s)
		w.policy.Verifiers = append(w.policy.Verifiers, v)
	}
	shard := &tree{}
	for i := range commits {
		w.commits = append(w.commits, fmt.Appendf(nil, "commit %d", i))
		shard.add(receipt.Entry(w.commits[i]))
	}
	var blockTree tree
	var last *receipt.Block
	for h := range blocks {
		b := &receipt.Block{
			Origin: origin, Height: uint64(h + 1), Time: time.Date(2026, 1, 2, 3, 4, 5+h, 600, time.UTC),
			Heads: []receipt.Head{
				{Log: "claims", Shard: 0, Size: uint64(commits), Root: shard.root()},
				{Log: "claims", Shard: 1, Size: 0, Root: receipt.EmptyRoot()},
				{Log: "policies", Shard: 0, Size: uint64(h), Root: receipt.Hash{byte(h)}},
			},
		}
		if last != nil {
			b.Prev = last.Hash()
		}
		blockTree.add(b.Marshal())
		last = b
	}
	cp := receipt.Checkpoint{Origin: origin, Size: uint64(blocks), Root: blockTree.root()}
	signed, err := note.Sign(&note.Note{Text: string(cp.Marshal())}, w.signers...)
	require.NoError(t, err)
	w.receipt = &receipt.Receipt{
		Log: "claims", Index: uint64(index), Entry: receipt.Entry(w.commits[index]), ShardProof: shard.proof(int64(index)),
		Block: *last, BlockProof: blockTree.proof(int64(blocks - 1)), Checkpoint: signed,
	}
	return w
}

func TestAReceiptProvesItsCommitAndNoOther(t *testing.T) {
	for _, size := range []int{1, 2, 3, 7, 8, 255, 256, 257, 1000} {
		for _, index := range []int{0, size / 2, size - 1} {
			w := newWorld(t, size, 1+size%5, index, 1)
			v, err := receipt.Verify(w.receipt.Marshal(), w.policy)
			require.NoError(t, err, "%d of %d", index, size)
			require.Equal(t, uint64(index), v.Index)
			require.Equal(t, "claims", v.Log)
			require.Equal(t, w.receipt.Block.Time, v.Time)
			require.NoError(t, receipt.VerifyCommit(v, w.commits[index]))
			require.Error(t, receipt.VerifyCommit(v, []byte("commit x")))
			require.Error(t, receipt.VerifyCommit(receipt.Verified{}, nil))
		}
	}
}

func TestAReceiptOfAMillionCommitsIsUnderFourKilobytes(t *testing.T) {
	w := newWorld(t, 3, 2, 0, 4)
	for len(w.receipt.ShardProof) < 30 {
		w.receipt.ShardProof = append(w.receipt.ShardProof, receipt.Hash{1})
	}
	for len(w.receipt.BlockProof) < 30 {
		w.receipt.BlockProof = append(w.receipt.BlockProof, receipt.Hash{1})
	}
	require.Less(t, len(w.receipt.Marshal()), 4096)
}

func TestEveryForgeryIsRefused(t *testing.T) {
	resign := func(w *world, c receipt.Checkpoint) {
		signed, err := note.Sign(&note.Note{Text: string(c.Marshal())}, w.signers...)
		if err != nil {
			panic(err)
		}
		w.receipt.Checkpoint = signed
	}
	for name, forge := range map[string]func(w *world){
		"another index":          func(w *world) { w.receipt.Index++ },
		"an index past the end":  func(w *world) { w.receipt.Index = 1 << 40 },
		"another shard":          func(w *world) { w.receipt.Shard = 1 },
		"a shard not sealed":     func(w *world) { w.receipt.Shard = 9 },
		"another log":            func(w *world) { w.receipt.Log = "policies" },
		"another entry":          func(w *world) { w.receipt.Entry = receipt.Entry([]byte("forged")) },
		"another entry version":  func(w *world) { w.receipt.Entry[0] = 2 },
		"a shorter proof":        func(w *world) { w.receipt.ShardProof = w.receipt.ShardProof[1:] },
		"a longer proof":         func(w *world) { w.receipt.ShardProof = append(w.receipt.ShardProof, receipt.Hash{}) },
		"a larger head":          func(w *world) { w.receipt.Block.Heads[0].Size++ },
		"another root":           func(w *world) { w.receipt.Block.Heads[0].Root[0] ^= 1 },
		"another height":         func(w *world) { w.receipt.Block.Height-- },
		"another ledger's block": func(w *world) { w.receipt.Block.Origin = "evil.example.org" },
		"an unsigned checkpoint": func(w *world) {
			text, _, _ := strings.Cut(string(w.receipt.Checkpoint), "\n\n")
			w.receipt.Checkpoint = []byte(text + "\n\n")
		},
		"another ledger's checkpoint": func(w *world) {
			resign(w, receipt.Checkpoint{Origin: "evil.example.org", Size: 5, Root: receipt.Hash{1}})
		},
		"a checkpoint that forked": func(w *world) { resign(w, receipt.Checkpoint{Origin: origin, Size: 5, Root: receipt.Hash{1}}) },
		"an older checkpoint":      func(w *world) { resign(w, receipt.Checkpoint{Origin: origin, Size: 1, Root: receipt.Hash{1}}) },
		"a promise for a checkpoint": func(w *world) {
			signed, err := receipt.Group{Origin: origin, Log: "claims", Count: 1}.Sign(w.signers[0])
			if err != nil {
				panic(err)
			}
			w.receipt.Checkpoint = signed
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 13, 5, 4, 1)
			_, err := receipt.Verify(w.receipt.Marshal(), w.policy)
			require.NoError(t, err)
			forge(w)
			_, err = receipt.Verify(w.receipt.Marshal(), w.policy)
			require.Error(t, err)
		})
	}
}

func TestNoByteOfAReceiptMayDiffer(t *testing.T) {
	w := newWorld(t, 13, 5, 4, 1)
	sound := w.receipt.Marshal()
	_, err := receipt.Verify(sound, w.policy)
	require.NoError(t, err)
	for i := range sound {
		for bit := range 8 {
			forged := bytes.Clone(sound)
			forged[i] ^= 1 << bit
			_, err := receipt.Verify(forged, w.policy)
			require.Error(t, err, "byte %d of %d, bit %d", i, len(sound), bit)
		}
	}
}

func TestTheQuorumCountsEachPartyOnce(t *testing.T) {
	w := newWorld(t, 5, 3, 2, 4)
	w.policy.Quorum = 3
	doc := w.receipt.Marshal()
	v, err := receipt.Verify(doc, w.policy)
	require.NoError(t, err)
	require.Len(t, v.Signers, 4)

	text, sigs, _ := strings.Cut(string(w.receipt.Checkpoint), "\n\n")
	lines := strings.SplitAfter(sigs, "\n")
	only := func(keep ...string) []byte {
		w.receipt.Checkpoint = []byte(text + "\n\n" + strings.Join(keep, ""))
		return w.receipt.Marshal()
	}
	_, err = receipt.Verify(only(lines[0], lines[1], lines[3]), w.policy)
	require.NoError(t, err)
	_, err = receipt.Verify(only(lines[0], lines[1]), w.policy)
	require.ErrorContains(t, err, "2 of the 3")
	_, err = receipt.Verify(only(lines[0], lines[1], lines[1], lines[1]), w.policy)
	require.Error(t, err, "one party's signature thrice")

	for name, broken := range map[string]receipt.Policy{
		"no quorum":         {Origin: origin, Verifiers: w.policy.Verifiers},
		"no keys":           {Origin: origin, Quorum: 1},
		"no origin":         {Verifiers: w.policy.Verifiers, Quorum: 1},
		"too high a quorum": {Origin: origin, Verifiers: w.policy.Verifiers, Quorum: 5},
	} {
		_, err = receipt.Verify(doc, broken)
		require.Error(t, err, name)
	}
}

func TestAPromiseProvesItsCommitAndNoOther(t *testing.T) {
	w := newWorld(t, 1, 1, 0, 1)
	group := &tree{}
	entries := [][]byte{receipt.Entry([]byte("a")), receipt.Entry([]byte("b")), receipt.Entry([]byte("c"))}
	for _, e := range entries {
		group.add(e)
	}
	signed, err := receipt.Group{Origin: origin, Log: "claims", Shard: 2, First: 40, Count: 3, Root: group.root()}.Sign(w.signers[0])
	require.NoError(t, err)
	for i, e := range entries {
		p := receipt.Promise{Log: "claims", Shard: 2, Index: 40 + uint64(i), Entry: e, Proof: group.proof(int64(i)), Note: signed}
		v, err := receipt.VerifyPromise(p.Marshal(), w.policy)
		require.NoError(t, err)
		require.Equal(t, 40+uint64(i), v.Index)
		for name, forge := range map[string]func(*receipt.Promise){
			"index":      func(p *receipt.Promise) { p.Index = 40 + uint64(i+1)%3 },
			"below":      func(p *receipt.Promise) { p.Index = 3 },
			"shard":      func(p *receipt.Promise) { p.Shard = 1 },
			"log":        func(p *receipt.Promise) { p.Log = "policies" },
			"entry":      func(p *receipt.Promise) { p.Entry = receipt.Entry([]byte("x")) },
			"checkpoint": func(p *receipt.Promise) { p.Note = w.receipt.Checkpoint },
		} {
			forged := p
			forge(&forged)
			_, err := receipt.VerifyPromise(forged.Marshal(), w.policy)
			require.Error(t, err, name)
		}
	}
}

func TestBlocksHaveOneForm(t *testing.T) {
	text := string(newWorld(t, 3, 2, 0, 1).receipt.Block.Marshal())
	_, err := receipt.ParseBlock([]byte(text))
	require.NoError(t, err)
	for name, change := range map[string][2]string{
		"a leading zero":    {"\n2\n", "\n02\n"},
		"a plus":            {"\n2\n", "\n+2\n"},
		"height zero":       {"\n2\n", "\n0\n"},
		"another time zone": {"06.0000006Z", "06.0000006+00:00"},
		"trailing zeros":    {"06.0000006Z", "06.00000060Z"},
		"crlf":              {"\n2\n", "\r\n2\r\n"},
		"out of order":      {"claims 0", "claims 7"},
		"twice":             {"claims 1", "claims 0"},
		"upper case":        {"claims 1", "Claims 1"},
		"two spaces":        {"claims 1", "claims  1"},
		"a bad hash":        {"=\n2026", "\n2026"},
		"magic":             {"v1", "v2"},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		require.NotEqual(t, text, changed, name)
		_, err := receipt.ParseBlock([]byte(changed))
		require.Error(t, err, name)
	}
	_, err = receipt.ParseBlock([]byte(text + "x"))
	require.Error(t, err)
	_, err = receipt.ParseBlock([]byte(strings.Repeat("x", receipt.MaxBlockSize+1)))
	require.Error(t, err)
}

func FuzzVerify(f *testing.F) {
	w := newWorld(f, 9, 4, 3, 2)
	doc := w.receipt.Marshal()
	f.Add(doc)
	f.Add(doc[:len(doc)/2])
	f.Add([]byte("probity receipt v1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := receipt.Verify(data, w.policy)
		if err == nil && (v.Index != 3 || v.Log != "claims" || string(v.Entry) != string(w.receipt.Entry)) {
			t.Fatalf("a forgery verified: %+v", v)
		}
		if r, err := receipt.Parse(data); err == nil && string(r.Marshal()) != string(data) {
			t.Fatal("two forms of one receipt")
		}
		if p, err := receipt.ParsePromise(data); err == nil && string(p.Marshal()) != string(data) {
			t.Fatal("two forms of one promise")
		}
		if b, err := receipt.ParseBlock(data); err == nil && string(b.Marshal()) != string(data) {
			t.Fatal("two forms of one block")
		}
		if c, err := receipt.ParseCheckpoint(data); err == nil && string(c.Marshal()) != string(data) {
			t.Fatal("two forms of one checkpoint")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b, 1000, 100, 500, 1)
	doc := w.receipt.Marshal()
	b.ReportMetric(float64(len(doc)), "bytes")
	for b.Loop() {
		if _, err := receipt.Verify(doc, w.policy); err != nil {
			b.Fatal(err)
		}
	}
}
