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
	keys    []*receipt.SigningKey
	policy  receipt.Policy
	commits [][]byte
	block   *receipt.Block // the one that seals them
	receipt *receipt.Receipt
}

var noon = time.Unix(1767355200, 0)

func newKey(t testing.TB, name string) *receipt.SigningKey {
	skey, _, err := note.GenerateKey(rand.Reader, name)
	require.NoError(t, err)
	k, err := receipt.ParseSigningKey(skey)
	require.NoError(t, err)
	return k
}

func vkeys(keys []*receipt.SigningKey) (out []string) {
	for _, k := range keys {
		out = append(out, k.Public().String())
	}
	return out
}

func cosign(t testing.TB, c receipt.Checkpoint, keys ...*receipt.SigningKey) []byte {
	var signers []note.Signer
	for _, k := range keys {
		signers = append(signers, k.Cosigner(noon))
	}
	signed, err := c.Sign(signers...)
	require.NoError(t, err)
	return signed
}

// newWorld seals commits in the last of several blocks; index is proved.
func newWorld(t testing.TB, commits, blocks, index int, parties int) *world {
	w := &world{}
	for i := range parties {
		name := origin
		if i > 0 {
			name = fmt.Sprintf("party-%d.example.org", i)
		}
		w.keys = append(w.keys, newKey(t, name))
	}
	var err error
	w.policy, err = receipt.NewPolicy(origin, parties-(parties-1)/3, vkeys(w.keys)...)
	require.NoError(t, err)
	shard := &tree{}
	for i := range commits {
		w.commits = append(w.commits, fmt.Appendf(nil, "commit %d", i))
		shard.add(receipt.Entry(w.commits[i]))
	}
	var blockTree tree
	for h := range blocks {
		b := &receipt.Block{
			Origin: origin, Height: uint64(h + 1), Time: time.Date(2026, 1, 2, 3, 4, 5+h, 600, time.UTC),
			Policy: receipt.PolicyRef{Sequence: 1},
			Heads: []receipt.Head{
				{Log: "claims", Shard: 0, Size: uint64(commits), Root: shard.root()},
				{Log: "claims", Shard: 1, Size: 0, Root: receipt.EmptyRoot()},
				{Log: "policies", Shard: 0, Size: uint64(h), Root: receipt.Hash{byte(h)}},
			},
		}
		if w.block != nil {
			b.Prev = w.block.Hash()
		}
		header := b.Header()
		blockTree.add(header.Marshal())
		w.block = b
	}
	head, place, headProof, ok := w.block.ProveHead("claims", 0)
	require.True(t, ok)
	w.receipt = &receipt.Receipt{
		Log: "claims", Index: uint64(index), Entry: receipt.Entry(w.commits[index]), ShardProof: shard.proof(int64(index)),
		Head: head, Place: place, HeadProof: headProof, Header: w.block.Header(), BlockProof: blockTree.proof(int64(blocks - 1)),
		Checkpoint: cosign(t, receipt.Checkpoint{Origin: origin, Size: uint64(blocks), Root: blockTree.root()}, w.keys...),
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
			require.Equal(t, w.receipt.Header.Time, v.Time)
			require.NoError(t, receipt.VerifyCommit(v, w.commits[index]))
			require.Error(t, receipt.VerifyCommit(v, []byte("commit x")))
			require.Error(t, receipt.VerifyCommit(receipt.Verified{}, nil))
		}
	}
}

// Given a shard of a billion commits, 1,024 shards, blocks for a year at four
// a second, and four cosigners, then a receipt is under 4 KiB.
func TestTheLargestReceiptIsUnderFourKilobytes(t *testing.T) {
	w := newWorld(t, 3, 2, 0, 4)
	fill := func(p *[]receipt.Hash, n int) {
		for len(*p) < n {
			*p = append(*p, receipt.Hash{1})
		}
	}
	fill(&w.receipt.ShardProof, 30)
	fill(&w.receipt.HeadProof, 10)
	fill(&w.receipt.BlockProof, 27)
	require.Less(t, len(w.receipt.Marshal()), 4096)
}

func TestEveryForgeryIsRefused(t *testing.T) {
	resign := func(w *world, c receipt.Checkpoint) { w.receipt.Checkpoint = cosign(t, c, w.keys...) }
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
		"a larger head":          func(w *world) { w.receipt.Head.Size++ },
		"another root":           func(w *world) { w.receipt.Head.Root[0] ^= 1 },
		"another state":          func(w *world) { w.receipt.Head.State[0] ^= 1 },
		"another place":          func(w *world) { w.receipt.Place++ },
		"a place past the end":   func(w *world) { w.receipt.Place = 3 },
		"a shorter head proof":   func(w *world) { w.receipt.HeadProof = w.receipt.HeadProof[1:] },
		"more heads":             func(w *world) { w.receipt.Header.Heads++ },
		"another height":         func(w *world) { w.receipt.Header.Height-- },
		"another policy":         func(w *world) { w.receipt.Header.Policy.Sequence++ },
		"another ledger's block": func(w *world) { w.receipt.Header.Origin = "evil.example.org" },
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
			signed, err := receipt.Group{Origin: origin, Log: "claims", Count: 1}.Sign(w.keys[0].Notes())
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

	_, err = receipt.VerifySealed(only(lines[2]), w.policy)
	require.NoError(t, err, "one party's word")
	_, err = receipt.Verify(doc, receipt.Policy{})
	require.Error(t, err, "nobody is trusted")
	for name, bad := range map[string]struct {
		origin string
		quorum int
		keys   []string
	}{
		"no quorum":         {origin, 0, vkeys(w.keys)},
		"no keys":           {origin, 1, nil},
		"no origin":         {"", 1, vkeys(w.keys)},
		"too high a quorum": {origin, 5, vkeys(w.keys)},
		"a key twice":       {origin, 1, []string{vkeys(w.keys)[0], vkeys(w.keys)[0]}},
		"a plain key":       {origin, 1, []string{w.keys[0].Public().LogKey(origin)}},
	} {
		_, err = receipt.NewPolicy(bad.origin, bad.quorum, bad.keys...)
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
	signed, err := receipt.Group{Origin: origin, Log: "claims", Shard: 2, First: 40, Count: 3, Root: group.root()}.Sign(w.keys[0].Notes())
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
	text := string(newWorld(t, 3, 2, 0, 1).block.Marshal())
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
		"magic":             {"v2", "v1"},
		"fewer heads":       {"heads 3", "heads 2"},
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
	f.Add([]byte("probity receipt v2\n"))
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
		if h, err := receipt.ParseHeader(data); err == nil && string(h.Marshal()) != string(data) {
			t.Fatal("two forms of one header")
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
	w := newWorld(b, 1000, 100, 500, 4)
	doc := w.receipt.Marshal()
	b.ReportMetric(float64(len(doc)), "bytes")
	for b.Loop() {
		if _, err := receipt.Verify(doc, w.policy); err != nil {
			b.Fatal(err)
		}
	}
}
