package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/tiles"
)

const testOrigin = "ledger.test/blocks"

// silent is a Source of nothing: these tests apply records themselves.
type silent struct{}

func (silent) Fetch(ctx context.Context, _ int64) (Fetched, error) {
	<-ctx.Done()
	return Fetched{}, ctx.Err()
}

// bench is a replica with one claims shard and the block log, of a ledger
// of one party.
type bench struct {
	t      *testing.T
	dir    string
	key    *receipt.SigningKey
	policy receipt.Policy
	store  *Store
	claims *Shard
	log    *Shard
	blocks *Blocks
}

func newTestKey(t *testing.T, name string) *receipt.SigningKey {
	skey, _, err := note.GenerateKey(rand.Reader, name)
	require.NoError(t, err)
	key, err := receipt.ParseSigningKey(skey)
	require.NoError(t, err)
	return key
}

// falsify flips a bit of a stored claim's bytes as no checksum finds it.
func (b *bench) falsify(index uint64) {
	b.t.Helper()
	dir := filepath.Join(b.data(), CommitsDir, "claims", "0")
	require.NoError(b.t, segments.Falsify(tiles.Disk{}, dir, index, func(value []byte) { value[len(value)-1] ^= 1 }))
}

func newBench(t *testing.T) *bench {
	key := newTestKey(t, testOrigin)
	return newMember(t, key, policyOf(t, 1, key))
}

// policyOf returns the first policy of a ledger of the keys' owners.
func policyOf(t *testing.T, quorum int, keys ...*receipt.SigningKey) receipt.Policy {
	terms := &receipt.Terms{Origin: testOrigin, Sequence: 1, Activation: 1, Quorum: quorum, Logs: []receipt.LogShards{{Log: "claims", Shards: 1}}}
	for _, k := range keys {
		terms.Members = append(terms.Members, receipt.Member{Role: receipt.Cosigner, Key: k.Public()})
	}
	p, err := receipt.FirstPolicy(terms)
	require.NoError(t, err)
	return p
}

// newMember returns one party's replica of a ledger; the policy is recorded.
func newMember(t *testing.T, key *receipt.SigningKey, policy receipt.Policy) *bench {
	b := &bench{t: t, dir: t.TempDir(), key: key, policy: policy}
	require.NoError(t, b.open())
	t.Cleanup(func() { _ = b.store.Close() })
	b.begin()
	return b
}

// begin records the policy, as the first proposer does.
func (b *bench) begin() { b.put(b.log, "policy", BlockStream, PolicyType, b.policy.Marshal()) }

func (b *bench) data() string   { return filepath.Join(b.dir, "data") }
func (b *bench) signed() string { return filepath.Join(b.dir, "signed") }

// forget deletes all but the memory of what was signed.
func (b *bench) forget() {
	require.NoError(b.t, b.store.Close())
	require.NoError(b.t, os.RemoveAll(b.data()))
	require.NoError(b.t, b.open())
	b.begin()
}

func (b *bench) open() (err error) {
	logger := slog.New(slog.DiscardHandler)
	for _, dir := range []string{b.data(), b.signed()} {
		require.NoError(b.t, os.MkdirAll(dir, 0o755))
	}
	b.store, err = OpenStore(filepath.Join(b.data(), "store"), logger)
	require.NoError(b.t, err)
	shard := func(name string) *Shard {
		s, err := OpenShard(ShardConfig{Log: name, Store: b.store, Dir: filepath.Join(b.data(), "tiles"), Source: silent{}, Logger: logger})
		require.NoError(b.t, err)
		return s
	}
	b.claims, b.log = shard("claims"), shard(BlockLog)
	b.blocks, err = OpenBlocks(BlocksConfig{
		Root: b.policy.First(), Store: b.store, Dir: b.data(), SignedDir: b.signed(), Log: b.log, Shards: []*Shard{b.claims}, Key: b.key,
		Now: func() time.Time { return time.Unix(10, 0) }, Logger: logger,
	})
	return err
}

// put applies one commit to a shard as if it had come from its topic.
func (b *bench) put(s *Shard, id, stream, kind string, payload []byte) {
	b.t.Helper()
	var records []Record
	s.mu.RLock()
	next := s.st.Offset
	s.mu.RUnlock()
	head := s.Head()
	if head.Term == 0 {
		barrier, err := core.Barrier(head.Log, 0, 1, 0, "o", time.Unix(1, 0))
		require.NoError(b.t, err)
		records = append(records, Record{Offset: next, Value: barrier})
		head.Term, head.Owner = 1, "o"
		next++
	}
	d, err := core.Decide(head, s, &ledgerv1.AppendRequest{
		Log: head.Log, RoutingKey: "k", RequestId: id,
		Writes: []*ledgerv1.StreamWrite{{Stream: stream, ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: kind, Payload: payload}}}},
	}, core.Provenance{Actor: "proposer-1", Recorded: time.Unix(1, 0)})
	require.NoError(b.t, err)
	records = append(records, Record{Offset: next, Value: d.Value})
	require.NoError(b.t, s.apply(Fetched{Records: records, End: next + 1}))
}

func (b *bench) claim(id string) { b.put(b.claims, id, "claim-1", "t", []byte(id)) }

func (b *bench) propose(id string, block *receipt.Block) {
	b.put(b.log, id, BlockStream, BlockType, block.Marshal())
}

func (b *bench) heads() []receipt.Head {
	size := b.claims.Head().Next
	root, err := b.claims.tree.Root(size)
	require.NoError(b.t, err)
	state, err := b.claims.StateRoot(size)
	require.NoError(b.t, err)
	return []receipt.Head{{Log: "claims", Size: size, Root: root, State: state}}
}

// next returns the honest next block.
func (b *bench) next() *receipt.Block {
	last, _ := b.blocks.Last()
	policy := b.blocks.Policy()
	if policy.Last() == nil {
		policy = b.policy
	}
	return core.NextBlock(policy, last, b.heads(), time.Unix(9, 0))
}

// seal takes in what the block log has and signs.
func (b *bench) seal() error {
	moved, err := b.blocks.follow()
	if err != nil || !moved {
		return err
	}
	if err := b.blocks.seal(); err != nil {
		return err
	}
	if err := b.blocks.publishSome(); err != nil {
		return err
	}
	return b.blocks.tiling.wait()
}

func (b *bench) height() uint64 {
	if _, block := b.blocks.Sealed(); block != nil {
		return block.Height
	}
	return 0
}

// Given a replica far behind a block log that nobody writes to any more, then
// it gets to the end by itself: the proposer waits for that before it adds one.
func TestAReplicaFarBehindGetsToTheEndOfAQuietBlockLog(t *testing.T) {
	b := newBench(t)
	var last *receipt.Block
	for i := range 2 * maxBlocks {
		b.claim(fmt.Sprint("r", i))
		last = core.NextBlock(b.policy, last, b.heads(), time.Unix(9, 0))
		b.propose(fmt.Sprint("p", i), last)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.blocks.Run(ctx) }()
	require.Eventually(t, func() bool { return b.height() == last.Height }, 20*time.Second, time.Millisecond)
	stop()
	require.NoError(t, <-ended)
}

// Given proposals that don't verify among one that does, then the valid one
// takes the height, whatever came before it.
func TestTheFirstValidBlockWins(t *testing.T) {
	b := newBench(t)
	b.claim("r0")
	honest := b.next()
	for id, spoil := range map[string]func(x *receipt.Block){
		"a wrong root":   func(x *receipt.Block) { x.Heads[0].Root[0] ^= 1 },
		"another ledger": func(x *receipt.Block) { x.Origin = "evil.test" },
		"a height ahead": func(x *receipt.Block) { x.Height = 2 },
	} {
		x := *honest
		x.Heads = append([]receipt.Head(nil), honest.Heads...)
		spoil(&x)
		b.propose(id, &x)
	}
	b.put(b.log, "garbage", BlockStream, BlockType, []byte("not a block"))
	require.NoError(t, b.seal())
	require.Zero(t, b.height(), "nothing valid, nothing signed")

	b.propose("honest", honest)
	rival := *honest
	rival.Time = rival.Time.Add(time.Second)
	b.propose("rival", &rival)
	require.NoError(t, b.seal())
	require.Equal(t, uint64(1), b.height())
	last, _ := b.blocks.Last()
	require.Equal(t, honest.Hash(), last.Hash())
}

// Given a block that was taken in and not signed, when what it seals changes on
// disk while the replica is down, then it is read back before a signature.
func TestWhatWasNotSignedIsReadBackAfterARestart(t *testing.T) {
	for _, published := range []bool{true, false} {
		whatWasNotSigned(t, published)
	}
}

func whatWasNotSigned(t *testing.T, published bool) {
	b := newBench(t)
	b.claim("r0")
	b.propose("b1", b.next())
	require.NoError(t, b.step())
	require.Equal(t, uint64(1), b.height())
	b.claim("r1")
	ahead := b.next()
	ahead.Time = ahead.Time.Add(time.Hour)
	b.propose("b2", ahead)
	require.NoError(t, b.step())
	require.Contains(t, b.blocks.Withheld(), "clock")

	b.falsify(1)
	if published {
		require.NoError(t, b.blocks.Publish())
	}
	require.NoError(t, b.store.Close())
	if !published {
		// The tree is made of what is stored, and its root shows it at once.
		require.ErrorContains(t, b.open(), "the root of claims/0 at 2")
		return
	}
	require.NoError(t, b.open())
	b.propose("b3", b.next())
	require.ErrorContains(t, b.step(), "ledger.seal.halted")
	require.ErrorContains(t, errors.Unwrap(b.blocks.Halted()), "claims/0 index 1")
}

// Given a commit whose stored bytes changed, when its request is sent again,
// then it is not answered from them, and the shard halts: an owner would sign a
// promise that no receipt honours.
func TestADamagedCommitAnswersNoRequest(t *testing.T) {
	b := newBench(t)
	b.claim("r0")
	b.claim("r1")
	b.falsify(1)
	seen, ok, err := b.claims.Request("r0")
	require.NoError(t, err)
	require.True(t, ok)
	require.Zero(t, seen.Index)
	_, _, err = b.claims.Request("r1")
	require.ErrorContains(t, err, "ledger.store.damaged")
	require.ErrorContains(t, b.claims.Halted(), "ledger.store.damaged")
}

// Given a sealed commit whose stored bytes changed, then no receipt is handed
// out and this replica signs no more.
func TestAFlippedBitStopsTheReplica(t *testing.T) {
	b := newBench(t)
	b.claim("r0")
	b.claim("r1")
	b.propose("b1", b.next())
	require.NoError(t, b.seal())
	doc, err := b.blocks.Receipt("claims", 0, 1, false)
	require.NoError(t, err)
	_, err = receipt.Verify(doc.Marshal(), b.policy)
	require.NoError(t, err)

	b.falsify(1)
	_, err = b.blocks.Receipt("claims", 0, 1, false)
	require.ErrorContains(t, err, "ledger.seal.halted")
	require.Error(t, b.blocks.Halted())
	doc, err = b.blocks.Receipt("claims", 0, 0, false)
	require.NoError(t, err, "what is intact is still proved")
	require.NotNil(t, doc)
}

// Given a replica that signed a height, when its data but not its memory of
// signing is replaced by another history, then it does not sign a fork.
func TestAReplicaNeverSignsAFork(t *testing.T) {
	b := newBench(t)
	for i, id := range []string{"r0", "r1", "r2"} {
		b.claim(id)
		b.propose("b"+id, b.next())
		require.NoError(t, b.seal())
		require.Equal(t, uint64(i+1), b.height())
	}
	b.forget()
	for i, id := range []string{"x0", "x1"} {
		b.claim(id)
		b.propose("b"+id, b.next())
		require.NoError(t, b.seal(), "height %d is below what was signed: nothing to sign yet", i+1)
		require.Zero(t, b.height())
	}
	b.claim("x2")
	b.propose("bx2", b.next())
	require.ErrorContains(t, b.seal(), "a different head of size 3 was signed")
	require.Zero(t, b.height())
}

// Given the same history again, a rebuilt replica signs on from where it was.
func TestARebuiltReplicaSignsOn(t *testing.T) {
	b := newBench(t)
	live := func() {
		for _, id := range []string{"r0", "r1", "r2"} {
			b.claim(id)
			b.propose("b"+id, b.next())
			require.NoError(t, b.seal())
		}
	}
	live()
	before, _ := b.blocks.Sealed()
	b.forget()
	live()
	after, _ := b.blocks.Sealed()
	require.Equal(t, string(before), string(after))
}

// Given damaged tiles of a sealed shard, reopening rebuilds them and finds
// them equal to what was sealed.
func TestDamagedTilesAreRebuiltToTheSealedRoot(t *testing.T) {
	b := newBench(t)
	b.claim("r0")
	b.propose("b0", b.next())
	require.NoError(t, b.seal())
	require.NoError(t, b.store.Close())
	require.NoError(t, os.Remove(filepath.Join(b.data(), "tiles/claims/0/tile/0/000.p/1")))
	require.NoError(t, b.open())
	require.Equal(t, uint64(1), b.height())

	// Were a stored body changed as well, the roots would differ: no start.
	b.falsify(0)
	require.NoError(t, b.store.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(b.data(), "tiles/claims")))
	require.ErrorIs(t, b.open(), errDamaged)
}
