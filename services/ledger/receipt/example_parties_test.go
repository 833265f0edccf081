package receipt_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// party is a key that is the same in every run, for examples only: a real one
// comes from crypto/rand.
func party(name string) *receipt.SigningKey {
	seed := sha256.Sum256([]byte(name))
	public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	id := sha256.Sum256(append([]byte(name+"\n\x01"), public...))
	return must(receipt.ParseSigningKey(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, id[:4],
		base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...)))))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The four parties of the examples' ledger.
var insurer, network, regulator, auditor = party("insurer.example"), party("network.example"), party("regulator.example"), party("auditor.example")

func fourParties() *receipt.Terms {
	t := &receipt.Terms{Origin: origin, Sequence: 1, Activation: 1, Quorum: 3, Logs: []receipt.LogShards{{Log: "claims", Shards: 1}}}
	for _, k := range []*receipt.SigningKey{insurer, network, regulator, auditor} {
		t.Members = append(t.Members, receipt.Member{Role: receipt.Cosigner, Key: k.Public()})
	}
	return t
}

func cosigned(c receipt.Checkpoint, by ...*receipt.SigningKey) []byte {
	var signers []note.Signer
	for _, k := range by {
		signers = append(signers, k.Cosigner(time.Unix(1767355200, 0)))
	}
	return must(c.Sign(signers...))
}

// The least quorum keeps two quorums from meeting in liars alone, the most
// lets the honest finalise without them.
func ExampleQuorumBounds() {
	least, most := receipt.QuorumBounds(4)
	fmt.Println(least, most)
	// Output: 3 3
}

// Whoever trusts a ledger begins with its parties, given out of band.
func ExampleFirstPolicy() {
	p := must(receipt.FirstPolicy(fourParties()))
	fmt.Println(p.Last().Quorum, "of", len(p.Last().Cosigners()), "finalise; may lie:", p.Last().Faults())

	unsafe := fourParties()
	unsafe.Quorum = 2
	_, err := receipt.FirstPolicy(unsafe)
	fmt.Println("two of four:", err != nil)
	// Output:
	// 3 of 4 finalise; may lie: 1
	// two of four: true
}

// A change of the parties is signed by a quorum of the old and of the new
// ones, and counts from its activation height on. A policy file holds all
// versions; only the first is taken on trust.
func ExamplePolicy_Extend() {
	p := must(receipt.FirstPolicy(fourParties()))
	change := *p.Last()
	change.Sequence, change.Activation, change.Prev = 2, 1000, p.Last().Hash()
	change.Members = append(change.Members, receipt.Member{Role: receipt.Cosigner, Key: party("employer.example").Public()})
	change.Quorum = 4
	signed := must(note.Sign(&note.Note{Text: string(change.Marshal())}, insurer.Notes(), network.Notes(), regulator.Notes(), auditor.Notes()))
	p = must(p.Extend(signed))

	p = must(receipt.ParsePolicy(p.Marshal()))
	fmt.Println("at 999:", p.At(999).Quorum, "of", len(p.At(999).Cosigners()))
	fmt.Println("at 1000:", p.At(1000).Quorum, "of", len(p.At(1000).Cosigners()))
	// Output:
	// at 999: 3 of 4
	// at 1000: 4 of 5
}

// A checkpoint is final when a quorum cosigned it.
func ExamplePolicy_OpenCheckpoint() {
	p := must(receipt.FirstPolicy(fourParties()))
	head := receipt.Checkpoint{Origin: origin, Size: 7, Root: receipt.EmptyRoot()}
	_, _, err := p.OpenCheckpoint(cosigned(head, insurer, auditor))
	fmt.Println("two:", err != nil)
	cp, signers, err := p.OpenCheckpoint(cosigned(head, insurer, auditor, regulator))
	fmt.Println(cp.Size, len(signers), err)
	// Output:
	// two: true
	// 7 3 <nil>
}

// What a checkpoint claims, before anybody's word for it was checked.
func ExampleUnverifiedCheckpoint() {
	cp := must(receipt.UnverifiedCheckpoint(cosigned(receipt.Checkpoint{Origin: origin, Size: 7, Root: receipt.EmptyRoot()}, insurer)))
	fmt.Println(cp.Origin, cp.Size)
	// Output: ledger.example.org/health 7
}

// A published key in the form of signed notes.
func ExampleParsePublicKey() {
	k := must(receipt.ParsePublicKey(insurer.Public().String()))
	fmt.Println(k.Name)
	// Output: insurer.example
}

// A receipt before it is final: one party of several vouches for it.
func ExampleVerifySealed() {
	document := must(os.ReadFile("testdata/receipt.txt"))
	key := must(os.ReadFile("testdata/key.pub"))
	policy := must(receipt.NewPolicy(origin, 1, string(key)))
	v := must(receipt.VerifySealed(document, policy))
	fmt.Println(v.Log, v.Shard, v.Index)
	// Output: claims 0 5
}

// What a receipt says of itself, unverified.
func ExampleParse() {
	r := must(receipt.Parse(must(os.ReadFile("testdata/receipt.txt"))))
	fmt.Println(r.Log, r.Shard, r.Index, r.Header.Height)
	// Output: claims 0 5 3
}

// The shard's owner promises a commit its place at once; the promise proves
// timely filing, and convicts the owner if the place goes to another commit.
func ExampleVerifyPromise() {
	policy := must(receipt.FirstPolicy(fourParties()))
	entry := receipt.Entry([]byte("the commit's bytes"))
	group := receipt.Group{Origin: origin, Log: "claims", First: 12, Count: 1, Root: receipt.LeafHash(entry)}
	promise := receipt.Promise{Log: "claims", Index: 12, Entry: entry, Note: must(group.Sign(insurer.Notes()))}

	v := must(receipt.VerifyPromise(promise.Marshal(), policy))
	fmt.Println(v.Log, v.Shard, v.Index, v.Signers)
	fmt.Println(receipt.VerifyCommit(v, []byte("another commit's bytes")) != nil)
	// Output:
	// claims 0 12 [insurer.example]
	// true
}

// Two heads of one log, of which the newer extends the older: nothing that
// was final has changed.
func ExampleVerifyConsistency() {
	policy := must(receipt.FirstPolicy(fourParties()))
	var log tree
	var heads [][]byte
	for i := range 5 {
		log.add(fmt.Appendf(nil, "block %d", i))
		cp := receipt.Checkpoint{Origin: origin, Size: uint64(i + 1), Root: log.root()}
		heads = append(heads, cosigned(cp, insurer, network, regulator))
	}
	c := receipt.Consistency{Older: heads[2], Newer: heads[4]}
	for _, h := range must(tlog.ProveTree(5, 3, &log)) {
		c.Proof = append(c.Proof, receipt.Hash(h))
	}
	older, newer, err := receipt.VerifyConsistency(c.Marshal(), policy)
	fmt.Println(older.Size, newer.Size, err)
	// Without signatures, the proof alone:
	fmt.Println(receipt.CheckConsistency(older, newer, c.Proof))
	// Output:
	// 3 5 <nil>
	// <nil>
}

// One key under two heads of one size: anybody with the policy file can tell.
func ExampleVerifyEvidence() {
	policy := must(receipt.FirstPolicy(fourParties()))
	e := receipt.Evidence{
		Wrong:  receipt.TwoHeads,
		First:  cosigned(receipt.Checkpoint{Origin: origin, Size: 9, Root: receipt.Hash{1}}, network),
		Second: cosigned(receipt.Checkpoint{Origin: origin, Size: 9, Root: receipt.Hash{2}}, network),
	}
	found := must(receipt.VerifyEvidence(e.Marshal(), policy))
	fmt.Println(found.Wrong, found.Signers, found.Place)
	// Output: two-heads [network.example] size 9
}

// A provider holds a promise for a place that a final block gives to another
// commit: promise and receipt together convict who promised.
func ExampleAccuseOfPromise() {
	policy := must(receipt.FirstPolicy(fourParties()))
	promised, other := receipt.Entry([]byte("what the provider sent")), receipt.Entry([]byte("what stands there"))
	group := receipt.Group{Origin: origin, Log: "claims", Count: 1, Root: receipt.LeafHash(promised)}
	promise := receipt.Promise{Log: "claims", Entry: promised, Note: must(group.Sign(network.Notes()))}

	block := receipt.Block{
		Origin: origin, Height: 1, Time: time.Unix(1767355200, 0).UTC(), Policy: policy.Last().Ref(),
		Heads: []receipt.Head{{Log: "claims", Size: 1, Root: receipt.LeafHash(other)}},
	}
	final := receipt.Receipt{
		Log: "claims", Entry: other, Head: block.Heads[0], Header: block.Header(),
		Checkpoint: cosigned(receipt.Checkpoint{Origin: origin, Size: 1, Root: block.Hash()}, insurer, regulator, auditor),
	}
	e, found, err := receipt.AccuseOfPromise(promise.Marshal(), final.Marshal(), policy)
	fmt.Println(found.Wrong, found.Place, found.Signers, err)

	// The document convicts by itself, to anyone with the policy file.
	again := must(receipt.VerifyEvidence(e.Marshal(), policy))
	fmt.Println(again.Signers)

	// A promise that was kept convicts nobody.
	group.Root = receipt.LeafHash(other)
	promise.Entry, promise.Note = other, must(group.Sign(network.Notes()))
	_, _, err = receipt.AccuseOfPromise(promise.Marshal(), final.Marshal(), policy)
	fmt.Println(errors.Is(err, receipt.ErrKept))
	// Output:
	// broken-promise claims/0/0 [network.example] <nil>
	// [network.example]
	// true
}

// A block names the head of every shard, and its header, the block log's
// leaf, their root.
func ExampleParseBlock() {
	b := &receipt.Block{
		Origin: origin, Height: 1, Time: time.Unix(1767355200, 0).UTC(), Policy: fourParties().Ref(),
		Heads: []receipt.Head{{Log: "claims", Size: 2, Root: receipt.Hash{7}}},
	}
	b = must(receipt.ParseBlock(b.Marshal()))
	head, _, _, _ := b.ProveHead("claims", 0)
	header := b.Header()
	again := must(receipt.ParseHeader(header.Marshal()))
	fmt.Println(head.Size, again.Hash() == b.Hash())
	// Output: 2 true
}

// A leaf is a hash of the commit, so that the tree shows nothing of it.
func ExampleEntry() {
	entry := receipt.Entry([]byte("a commit's bytes"))
	fmt.Println(len(entry), strings.Contains(string(entry), "commit"))
	// Output: 33 false
}
