package core_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// consortium is four parties, three of whom are a quorum, and what they agreed on.
type consortium struct {
	keys   []*receipt.SigningKey
	policy receipt.Policy
}

func newConsortium(t testing.TB, logs ...receipt.LogShards) *consortium {
	c := &consortium{}
	terms := &receipt.Terms{Origin: "o", Sequence: 1, Activation: 1, Quorum: 3, Logs: logs}
	for i := range 5 {
		skey, _, err := note.GenerateKey(rand.Reader, fmt.Sprint("party-", i))
		require.NoError(t, err)
		k, err := receipt.ParseSigningKey(skey)
		require.NoError(t, err)
		c.keys = append(c.keys, k)
		if i < 4 {
			terms.Members = append(terms.Members, receipt.Member{Role: receipt.Cosigner, Key: k.Public()})
		}
	}
	var err error
	c.policy, err = receipt.FirstPolicy(terms)
	require.NoError(t, err)
	return c
}

// change returns a change by which the fifth party takes the first one's place.
func (c *consortium) change(t testing.TB, activation uint64, logs ...receipt.LogShards) []byte {
	last := c.policy.Last()
	terms := &receipt.Terms{
		Origin: "o", Sequence: last.Sequence + 1, Activation: activation, Prev: last.Hash(), Quorum: 3,
		Members: append([]receipt.Member{{Role: receipt.Cosigner, Key: c.keys[4].Public()}}, last.Members[1:]...), Logs: logs,
	}
	signed, err := note.Sign(&note.Note{Text: string(terms.Marshal())}, c.keys[1].Notes(), c.keys[2].Notes(), c.keys[3].Notes())
	require.NoError(t, err)
	return signed
}

func (c *consortium) cosign(t testing.TB, cp receipt.Checkpoint, parties ...int) []byte {
	var signers []note.Signer
	for _, p := range parties {
		signers = append(signers, c.keys[p].Cosigner(noon))
	}
	signed, err := cp.Sign(signers...)
	require.NoError(t, err)
	return signed
}

var twoShards = []receipt.LogShards{{Log: "claims", Shards: 2}}

func heads(sizes ...uint64) (out []receipt.Head) {
	for i, n := range sizes {
		h := receipt.Head{Log: "claims", Shard: uint32(i), Size: n, Root: receipt.Hash{byte(n), byte(i)}, State: receipt.Hash{byte(n)}}
		if n == 0 {
			h.Root, h.State = receipt.EmptyRoot(), receipt.EmptyRoot()
		}
		out = append(out, h)
	}
	return out
}

func TestBlocksOnlyGrow(t *testing.T) {
	c := newConsortium(t, twoShards...)
	block := func(prev *receipt.Block, sizes ...uint64) *receipt.Block {
		return core.NextBlock(c.policy, prev, heads(sizes...), noon)
	}
	require.Nil(t, block(nil, 0, 0), "nothing to seal")
	first := block(nil, 0, 2)
	require.NoError(t, core.CheckBlock(c.policy, nil, first))
	require.Nil(t, block(first, 0, 2), "nothing moved")
	second := block(first, 1, 2)
	require.NoError(t, core.CheckBlock(c.policy, first, second))
	early := core.NextBlock(c.policy, first, second.Heads, noon.Add(-time.Hour))
	require.NoError(t, core.CheckBlock(c.policy, first, early), "one proposer's clock binds no other")
	corrected := core.NextBlock(c.policy, first, first.Heads, noon.Add(-time.Hour))
	require.NotNil(t, corrected, "a time ahead is corrected, though nothing moved")
	require.NoError(t, core.CheckBlock(c.policy, first, corrected))

	for name, spoil := range map[string]struct {
		rule  string
		spoil func(b *receipt.Block)
	}{
		"another ledger":      {"ledger.block.origin", func(b *receipt.Block) { b.Origin = "other" }},
		"a height skipped":    {"ledger.block.height", func(b *receipt.Block) { b.Height++ }},
		"another past":        {"ledger.block.prev", func(b *receipt.Block) { b.Prev[0] ^= 1 }},
		"a shard shrinks":     {"ledger.block.head", func(b *receipt.Block) { b.Heads[1].Size = 1 }},
		"a root changes":      {"ledger.block.head", func(b *receipt.Block) { b.Heads[1].Root[5] ^= 1 }},
		"a state changes":     {"ledger.block.head", func(b *receipt.Block) { b.Heads[1].State[5] ^= 1 }},
		"a shard is left out": {"ledger.block.shards", func(b *receipt.Block) { b.Heads = b.Heads[:1] }},
		"a shard is made up":  {"ledger.block.shards", func(b *receipt.Block) { b.Heads = append(b.Heads, receipt.Head{Log: "claims", Shard: 2, Size: 1}) }},
		"a log is made up":    {"ledger.block.shards", func(b *receipt.Block) { b.Heads = append([]receipt.Head{{Log: "audits", Size: 1}}, b.Heads...) }},
		"nothing new":         {"ledger.block.empty", func(b *receipt.Block) { b.Heads = first.Heads }},
		"another policy":      {"ledger.block.policy", func(b *receipt.Block) { b.Policy.Hash[0] ^= 1 }},
	} {
		b := *second
		b.Heads = append([]receipt.Head(nil), second.Heads...)
		spoil.spoil(&b)
		var v *core.Violation
		require.ErrorAs(t, core.CheckBlock(c.policy, first, &b), &v, name)
		require.Equal(t, spoil.rule, v.Rule, name)
	}
	require.Nil(t, core.NextBlock(receipt.Policy{}, nil, heads(1, 1), noon), "no policy, no block")
	require.Error(t, core.CheckBlock(receipt.Policy{}, nil, first))
}

// Given a change recorded after block 1 that adds a log at height 3, then
// block 2 names it and still seals the old logs, and block 3 must seal both.
func TestALogIsAddedAtTheChangesHeight(t *testing.T) {
	c := newConsortium(t, twoShards...)
	first := core.NextBlock(c.policy, nil, heads(1, 1), noon)
	policy, err := core.TakePolicy(c.policy, nil, 1, c.change(t, 3, receipt.LogShards{Log: "audits", Shards: 1}, twoShards[0]))
	require.NoError(t, err)
	all := append(heads(1, 1), receipt.Head{Log: "audits", Root: receipt.EmptyRoot(), State: receipt.EmptyRoot()})
	second := core.NextBlock(policy, first, all, noon)
	require.Len(t, second.Heads, 2)
	require.Equal(t, uint64(2), second.Policy.Sequence)
	require.NoError(t, core.CheckBlock(policy, first, second), "a change is news by itself")
	third := core.NextBlock(policy, second, all, noon)
	require.Len(t, third.Heads, 3)
	require.NoError(t, core.CheckBlock(policy, second, third))
	third.Heads = third.Heads[1:]
	require.Error(t, core.CheckBlock(policy, second, third))
}

func TestAPolicyIsTakenFromItsPartiesOnly(t *testing.T) {
	c, stranger := newConsortium(t, twoShards...), newConsortium(t, twoShards...)
	root := c.policy.Last()
	rule := func(policy receipt.Policy, height uint64, record []byte) string {
		_, err := core.TakePolicy(policy, root, height, record)
		var v *core.Violation
		require.ErrorAs(t, err, &v)
		return v.Rule
	}
	require.Equal(t, "ledger.policy.root", rule(receipt.Policy{}, 0, stranger.policy.Marshal()))
	require.Equal(t, "ledger.policy.form", rule(receipt.Policy{}, 0, []byte("x")))
	p, err := core.TakePolicy(receipt.Policy{}, root, 0, c.policy.Marshal())
	require.NoError(t, err)
	require.Equal(t, "ledger.policy.change", rule(p, 0, stranger.change(t, 9, twoShards...)))
	require.Equal(t, "ledger.policy.change", rule(p, 0, c.policy.Marshal()), "once")
	require.Equal(t, "ledger.policy.activation", rule(p, 9, c.change(t, 9, twoShards...)), "block 9 exists")
	p, err = core.TakePolicy(p, root, 8, c.change(t, 9, twoShards...))
	require.NoError(t, err)
	require.Equal(t, uint64(2), p.Last().Sequence)
}

func TestThreeOfFourAreFinalAndTwoAreNot(t *testing.T) {
	c := newConsortium(t, twoShards...)
	tally := core.NewTally(c.policy)
	cp := receipt.Checkpoint{Origin: "o", Size: 7, Root: receipt.Hash{7}}
	own := func(size uint64) (receipt.Hash, bool) { return receipt.Hash{byte(size)}, size <= 7 }
	add := func(cp receipt.Checkpoint, parties ...int) bool {
		news, evidence, err := tally.Add(c.cosign(t, cp, parties...))
		require.NoError(t, err)
		require.Empty(t, evidence)
		return news
	}
	require.True(t, add(cp, 0))
	require.False(t, add(cp, 0), "heard before")
	require.True(t, add(cp, 0, 1))
	_, note, err := tally.Final(0, own)
	require.NoError(t, err)
	require.Nil(t, note)
	require.True(t, add(cp, 3))
	got, note, err := tally.Final(0, own)
	require.NoError(t, err)
	require.Equal(t, cp, got)
	_, signers, err := c.policy.OpenCheckpoint(note)
	require.NoError(t, err)
	require.Len(t, signers, 3)
	_, note, err = tally.Final(7, own)
	require.NoError(t, err)
	require.Nil(t, note, "nothing above it")

	_, _, err = tally.Add(c.cosign(t, cp, 4))
	require.Error(t, err, "a stranger's")
	ahead := receipt.Checkpoint{Origin: "o", Size: 9, Root: receipt.Hash{9}}
	add(ahead, 0, 1, 2)
	got, _, err = tally.Final(0, own)
	require.NoError(t, err)
	require.Equal(t, cp, got, "this replica hasn't computed size 9 yet")
	require.Len(t, tally.Notes(), 2, "9, and 7 for the fourth's sake")
}

// Given lines that were heard before, then others in the same note still
// count, and a forged one beside them is still an error.
func TestWhatWasHeardIsNotVerifiedAgain(t *testing.T) {
	c := newConsortium(t, twoShards...)
	tally := core.NewTally(c.policy)
	cp := receipt.Checkpoint{Origin: "o", Size: 7, Root: receipt.Hash{7}}
	first := c.cosign(t, cp, 0)
	_, _, err := tally.Add(first)
	require.NoError(t, err)
	second := c.cosign(t, cp, 1)
	line := func(note []byte) []byte { return bytes.TrimPrefix(note, cp.Note()) }
	both := slices.Concat(first, line(second))
	forged := bytes.Clone(second)
	forged[len(forged)-20] ^= 1
	_, _, err = tally.Add(slices.Concat(first, line(forged)))
	require.Error(t, err)
	_, note, err := tally.Final(0, func(uint64) (receipt.Hash, bool) { return cp.Root, true })
	require.NoError(t, err)
	require.Nil(t, note)
	news, _, err := tally.Add(both)
	require.NoError(t, err)
	require.True(t, news)
	news, _, err = tally.Add(slices.Concat(second, line(first)))
	require.NoError(t, err)
	require.False(t, news, "both were heard, in another order")
	news, _, err = tally.Add(c.cosign(t, cp, 2))
	require.NoError(t, err)
	require.True(t, news)
	got, _, err := tally.Final(0, func(uint64) (receipt.Hash, bool) { return cp.Root, true })
	require.NoError(t, err)
	require.Equal(t, cp, got)
	// A line of another head is nothing that was heard of this one.
	other := receipt.Checkpoint{Origin: "o", Size: 8, Root: receipt.Hash{8}}
	_, _, err = tally.Add(slices.Concat(other.Note(), line(first)))
	require.Error(t, err)
}

// Given a quorum for a root that this replica did not compute, then it must
// not go on as if nothing were.
func TestAQuorumAgainstThisReplicaIsAViolation(t *testing.T) {
	c := newConsortium(t, twoShards...)
	tally := core.NewTally(c.policy)
	_, _, err := tally.Add(c.cosign(t, receipt.Checkpoint{Origin: "o", Size: 7, Root: receipt.Hash{1}}, 0, 1, 2))
	require.NoError(t, err)
	_, _, err = tally.Final(0, func(uint64) (receipt.Hash, bool) { return receipt.Hash{2}, true })
	var v *core.Violation
	require.ErrorAs(t, err, &v)
	require.Equal(t, "ledger.quorum.root", v.Rule)
}

func TestTwoHeadsOfOneSizeBecomeEvidence(t *testing.T) {
	c := newConsortium(t, twoShards...)
	tally := core.NewTally(c.policy)
	a, b := receipt.Checkpoint{Origin: "o", Size: 7, Root: receipt.Hash{1}}, receipt.Checkpoint{Origin: "o", Size: 7, Root: receipt.Hash{2}}
	_, _, err := tally.Add(c.cosign(t, a, 0, 1))
	require.NoError(t, err)
	_, evidence, err := tally.Add(c.cosign(t, b, 1, 2))
	require.NoError(t, err)
	require.Len(t, evidence, 1)
	found, err := receipt.VerifyEvidence(evidence[0].Marshal(), c.policy)
	require.NoError(t, err)
	require.Equal(t, []string{"party-1"}, found.Signers)
	require.Len(t, tally.Strays(func(uint64) (receipt.Hash, bool) { return receipt.Hash{1}, true }), 1)
}

// Given one liar among four, then nothing it signs moves the floor below
// which honest replicas don't sign, nor crowds out what others signed.
func TestOneLiarNeitherRaisesTheFloorNorFillsTheTally(t *testing.T) {
	c := newConsortium(t, twoShards...)
	tally := core.NewTally(c.policy)
	add := func(size uint64, party int) {
		_, _, err := tally.Add(c.cosign(t, receipt.Checkpoint{Origin: "o", Size: size, Root: receipt.Hash{1}}, party))
		require.NoError(t, err)
	}
	add(5, 1)
	for i := range 200 {
		add(1<<40+uint64(i), 3)
	}
	require.Equal(t, uint64(5), tally.Floor(c.keys[0].Public()))
	add(8, 2)
	require.Equal(t, uint64(8), tally.Floor(c.keys[0].Public()))
	cp, _, ok := tally.Newest(c.keys[1].Public())
	require.True(t, ok)
	require.Equal(t, uint64(5), cp.Size)
	require.Len(t, tally.Notes(), 3)
}

// Given cosignatures counted before a change was known here, then those of
// sizes that the change governs are counted anew under it.
func TestAChangeCountsAnew(t *testing.T) {
	c := newConsortium(t, twoShards...)
	tally := core.NewTally(c.policy)
	own := func(uint64) (receipt.Hash, bool) { return receipt.Hash{1}, true }
	cp := receipt.Checkpoint{Origin: "o", Size: 9, Root: receipt.Hash{1}}
	_, _, err := tally.Add(c.cosign(t, cp, 0, 1, 2))
	require.NoError(t, err)
	policy, err := c.policy.Extend(c.change(t, 9, twoShards...))
	require.NoError(t, err)
	tally.SetPolicy(policy)
	_, note, err := tally.Final(0, own)
	require.NoError(t, err)
	require.Nil(t, note)
	_, _, err = tally.Add(c.cosign(t, cp, 0, 1, 2))
	require.NoError(t, err)
	_, note, err = tally.Final(0, own)
	require.NoError(t, err)
	require.Nil(t, note, "party 0 has left")
	_, _, err = tally.Add(c.cosign(t, cp, 4))
	require.NoError(t, err)
	_, note, err = tally.Final(0, own)
	require.NoError(t, err)
	require.NotNil(t, note)
}

func TestRowsRoundTripAndObeyTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := core.Row{Format: core.Format, Entry: receipt.Entry(rapid.SliceOf(rapid.Byte()).Draw(t, "commit")), RequestID: rapid.StringN(1, 50, 200).Draw(t, "id"), Term: rapid.Uint64().Draw(t, "term")}
		if rapid.Bool().Draw(t, "first format") {
			r.Format, r.Digest = 1, rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest")
		} else {
			r.Provenance = rapid.SliceOf(rapid.Byte()).Draw(t, "provenance")
		}
		for i := range rapid.IntRange(1, 5).Draw(t, "writes") {
			r.Writes = append(r.Writes, core.RowWrite{Stream: fmt.Sprint("claim-", i), First: rapid.Uint64().Draw(t, "first"), Count: rapid.Uint64().Draw(t, "count")})
		}
		raw := r.Append(nil)
		got, err := core.ParseRow(raw)
		if err != nil || got.Leaf() != r.Leaf() {
			t.Fatal(err)
		}
		if _, err := core.ParseRow(append(raw, 0)); err == nil {
			t.Fatal("trailing byte")
		}
	})
	head := core.Head{Log: "claims", Next: 4, Term: 2}
	row := core.Row{Format: core.Format, Entry: receipt.Entry(nil), RequestID: "r", Term: 3, Writes: []core.RowWrite{{Stream: "claim-new", First: 0, Count: 2}}}
	next, seen, err := core.CheckRow(head, ground{}, row)
	require.NoError(t, err)
	require.Equal(t, core.Head{Log: "claims", Next: 5, Term: 3}, next)
	require.Equal(t, []uint64{1}, seen.Revisions)
	for name, spoil := range map[string]func(r *core.Row){
		"a revision skipped": func(r *core.Row) { r.Writes[0].First = 1 },
		"no events":          func(r *core.Row) { r.Writes[0].Count = 0 },
		"a stream twice":     func(r *core.Row) { r.Writes = append(r.Writes, r.Writes[0]) },
		"a term below":       func(r *core.Row) { r.Term = 1 },
	} {
		bad := row
		bad.Writes = append([]core.RowWrite(nil), row.Writes...)
		spoil(&bad)
		_, _, err := core.CheckRow(head, ground{}, bad)
		require.Error(t, err, name)
	}
}

func FuzzParseRow(f *testing.F) {
	for format := range uint32(4) {
		c := &ledgerv1.Commit{Format: format, RequestId: "r", Term: 3, Actor: "a", RecordedTime: timestamppb.New(noon), Writes: []*ledgerv1.CommittedWrite{{Stream: "claim-a", Events: []*ledgerv1.Event{{Type: "u"}}}}}
		row := core.RowOf(c, receipt.Entry(nil))
		f.Add(row.Append(nil))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := core.ParseRow(raw)
		if err != nil {
			return
		}
		if string(r.Append(nil)) != string(raw) {
			t.Fatal("two spellings of one row")
		}
		// Nobody knows a record with that hash.
		if d, err := core.Decide(core.Head{Log: "claims"}, only{core.Seen{Row: &r, Recorded: r.Recorded()}}, request(r.RequestID, "claim-a", core.Any, ""), core.Provenance{}); err == nil {
			t.Fatalf("taken for a repeat of %+v", d.Seen)
		}
	})
}

// only is the View of a shard in which every request id is one commit's.
type only struct{ seen core.Seen }

func (only) LastRevision(string) (int64, error)        { return core.NoStream, nil }
func (v only) Request(string) (core.Seen, bool, error) { return v.seen, true, nil }
