package replica

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// four are the replicas of four parties, three of whom are a quorum. They
// read the same topics: what is put is put to all of them.
type four struct {
	t       *testing.T
	keys    []*receipt.SigningKey
	policy  receipt.Policy
	members []*bench
	n       int
}

func newFour(t *testing.T) *four {
	f := &four{t: t}
	for i := range 5 {
		f.keys = append(f.keys, newTestKey(t, fmt.Sprint("party-", i)))
	}
	f.policy = policyOf(t, 3, f.keys[:4]...)
	for i := range 4 {
		f.members = append(f.members, newMember(t, f.keys[i], f.policy))
	}
	return f
}

// claims appends one commit to the claims log of those named, or all.
func (f *four) claim(members ...int) {
	f.n++
	for _, b := range f.some(members) {
		b.claim(fmt.Sprint("r", f.n))
	}
}

func (f *four) some(members []int) (out []*bench) {
	if len(members) == 0 {
		return f.members
	}
	for _, m := range members {
		out = append(out, f.members[m])
	}
	return out
}

// block proposes the honest next block to those named, or all, and lets them
// take it in. It returns the first error of each.
func (f *four) block(members ...int) []error {
	f.n++
	errs := make([]error, len(f.members))
	for i, b := range f.members {
		if len(members) > 0 && !contains(members, i) {
			continue
		}
		b.propose(fmt.Sprint("b", f.n), b.next())
		errs[i] = b.step()
	}
	return errs
}

func contains(list []int, x int) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

// step drives a replica until it has nothing more to do.
func (b *bench) step() error {
	for {
		moved, err := b.blocks.Step(b.t.Context())
		if done := b.blocks.tiling.done; done != nil {
			done <- <-done // the next step shall know how the tiles fared
		}
		if err != nil || !moved {
			return err
		}
	}
}

// talk lets those named, or all, ask each other twice round, as their shells
// do: what one learns from a second may be news to a third.
func (f *four) talk(members ...int) {
	group := f.some(members)
	for range 2 {
		for _, from := range group {
			for _, to := range group {
				if from == to {
					continue
				}
				_ = to.blocks.Hear("", from.blocks.Notes())
				_ = from.blocks.Hear(to.key.Public().Name, to.blocks.Notes())
			}
		}
		for _, b := range group {
			_ = b.step()
		}
	}
}

func (b *bench) final() uint64 {
	if _, block := b.blocks.Final(); block != nil {
		return block.Height
	}
	return 0
}

func TestFourReplicasFinaliseWithThreeAndNotWithTwo(t *testing.T) {
	f := newFour(t)
	f.claim()
	f.block()
	for _, b := range f.members {
		require.Zero(t, b.height(), "it has not heard from a quorum's worth of others since it started")
		require.Contains(t, b.blocks.Withheld(), "heard from 0 of the 2")
	}
	f.talk(0, 1)
	require.Zero(t, f.members[0].height(), "two are too few to be safe")
	f.talk(0, 1, 2)
	for i := range 3 {
		require.Equal(t, uint64(1), f.members[i].final())
	}
	require.Zero(t, f.members[3].final(), "it heard nothing yet")
	f.talk()
	require.Equal(t, uint64(1), f.members[3].final())

	// Two of four go away: what was final stays, and nothing becomes final.
	f.claim(0, 1)
	f.block(0, 1)
	f.talk(0, 1)
	require.Equal(t, uint64(2), f.members[0].height(), "it still signs")
	require.Equal(t, uint64(1), f.members[0].final())
	doc, err := f.members[0].blocks.Receipt("claims", 0, 1, false)
	require.NoError(t, err)
	require.Nil(t, doc, "not final")
	doc, err = f.members[0].blocks.Receipt("claims", 0, 1, true)
	require.NoError(t, err)
	_, err = receipt.VerifySealed(doc.Marshal(), f.policy)
	require.NoError(t, err)
	_, err = receipt.Verify(doc.Marshal(), f.policy)
	require.ErrorContains(t, err, "signed by 1 of the 3")

	// A third comes back.
	f.n -= 2
	f.claim(2)
	f.block(2)
	f.talk(0, 1, 2)
	require.Equal(t, uint64(2), f.members[0].final())
	doc, err = f.members[0].blocks.Receipt("claims", 0, 1, false)
	require.NoError(t, err)
	v, err := receipt.Verify(doc.Marshal(), f.policy)
	require.NoError(t, err)
	require.Len(t, v.Signers, 3)
}

// Given one byte flipped in what one replica stored, then that one stops
// cosigning and names the position, and the other three go on.
func TestAFlippedByteStopsOneOfFour(t *testing.T) {
	flip := func(t *testing.T, path string) {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		raw[len(raw)/2] ^= 1
		require.NoError(t, os.WriteFile(path, raw, 0o644))
	}
	tile := func(name string) func(t *testing.T, b *bench) {
		return func(t *testing.T, b *bench) { flip(t, filepath.Join(b.data(), "tiles", filepath.FromSlash(name))) }
	}
	body := func(index uint64) func(t *testing.T, b *bench) {
		return func(t *testing.T, b *bench) {
			b.falsify(index)
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, b *bench)
		names  string
		fresh  bool // what is damaged is not sealed yet
	}{
		"a commit that is not sealed yet": {body(2), "claims/0 index 2", true},
		"a sealed commit":                 {body(0), "claims/0 index 0", false},
		"a leaf hash":                     {tile("claims/0/tile/0/000.p/2"), "tile/0/000.p/2", false},
		"an entry":                        {tile("claims/0/tile/entries/000.p/2"), "tile/entries/000.p/2", false},
		"a block's entry":                 {tile("blocks/tile/entries/000.p/1"), "tile/entries/000.p/1", false},
		"a request id": {func(t *testing.T, b *bench) {
			require.NoError(t, b.claims.flush())
			b.claims.index.older = &generation{}
			require.NoError(t, b.store.db.Set(b.claims.index.rows.key(kindRequest, []byte("r2")), []byte{0}, pebble.Sync))
		}, "claims/0 index 1: its request id", false},
		"a stored block": {func(t *testing.T, b *bench) {
			require.NoError(t, b.store.db.Set(blockKey(1), []byte("x"), pebble.Sync))
		}, "blocks/0 index 0", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFour(t)
			f.claim()
			f.claim()
			f.block()
			f.talk()
			require.Equal(t, uint64(1), f.members[3].final())
			f.claim()
			victim := f.members[3]
			c.damage(t, victim)
			if !c.fresh {
				var err error
				for n := 0; err == nil && n < 10; n++ {
					_, err = victim.blocks.Scrub()
				}
				require.Error(t, err)
			}
			f.block()
			f.talk()
			require.Error(t, victim.blocks.Halted())
			require.ErrorContains(t, whole(victim.blocks.Halted()), c.names)
			require.Equal(t, uint64(1), victim.height(), "it signs no more")
			require.NotZero(t, victim.final(), "and keeps serving what was final")
			for i := range 3 {
				require.Equal(t, uint64(2), f.members[i].final())
			}
		})
	}
}

// whole joins an error with what it wraps: a problem's text leaves its cause
// to the log.
func whole(err error) error {
	var all []string
	for err != nil {
		all = append(all, err.Error())
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			break
		}
		err = u.Unwrap()
	}
	return fmt.Errorf("%s", strings.Join(all, ": "))
}

func copyDir(t *testing.T, from, to string) {
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), raw, 0o644)
	}))
}

// backup copies what a replica has now; restore puts it back in its place.
func (b *bench) backup(what ...string) (restore func()) {
	b.t.Helper()
	require.NoError(b.t, b.store.Close())
	saved := b.t.TempDir()
	for _, dir := range what {
		copyDir(b.t, filepath.Join(b.dir, dir), filepath.Join(saved, dir))
	}
	require.NoError(b.t, b.open())
	return func() {
		require.NoError(b.t, b.store.Close())
		for _, dir := range what {
			require.NoError(b.t, os.RemoveAll(filepath.Join(b.dir, dir)))
			copyDir(b.t, filepath.Join(saved, dir), filepath.Join(b.dir, dir))
		}
		require.NoError(b.t, b.open())
	}
}

// Given a replica restored from an old backup, even with its memory of
// signing, when it is then shown another history, then it signs no fork: its
// peers tell it what it signed.
func TestARestoredReplicaSignsNoFork(t *testing.T) {
	for name, saved := range map[string][]string{"its data": {"data"}, "its data and its memory of signing": {"data", "signed"}} {
		t.Run(name, func(t *testing.T) {
			f := newFour(t)
			f.claim()
			f.block()
			f.talk()
			victim := f.members[0]
			restore := victim.backup(saved...)
			f.talk()
			for range 2 {
				f.claim()
				f.block()
				f.talk()
			}
			require.Equal(t, uint64(3), victim.final())
			restore()
			require.Equal(t, uint64(1), victim.final(), "it is back where the backup was")

			// The fork: two other commits, and a block each.
			for i := range 2 {
				victim.claim(fmt.Sprint("forged", i))
				victim.propose(fmt.Sprint("forged", i), victim.next())
				require.NoError(t, victim.step())
				require.Less(t, victim.height(), uint64(2+i), "nothing is signed before it heard its peers")
			}
			f.talk()
			require.Error(t, victim.blocks.Halted(), "a quorum, and it itself, signed another history")
			require.LessOrEqual(t, victim.height(), uint64(1))
			for _, b := range f.members[1:] {
				evidence, err := b.blocks.Evidence()
				require.NoError(t, err)
				require.Empty(t, evidence, "it never said two things")
			}
		})
	}
}

// Given a fork that passes over the sizes this replica signed, then its
// memory refuses the larger head as well.
func TestALargerHeadOfAnotherHistoryIsNotSigned(t *testing.T) {
	b := newBench(t)
	b.claim("r0")
	b.propose("b0", b.next())
	require.NoError(t, b.step())
	b.forget()
	for i := range 3 {
		b.claim(fmt.Sprint("x", i))
		last, _ := b.blocks.Last()
		if i > 0 && last == nil {
			t.Fatal("no block")
		}
		b.propose(fmt.Sprint("bx", i), b.next())
		if i < 2 {
			_, err := b.blocks.follow()
			require.NoError(t, err)
		}
	}
	require.Error(t, b.step())
	require.ErrorContains(t, whole(b.blocks.Halted()), "a different head of size 1 was signed before")
	require.Zero(t, b.height())
}

// Given a proposer that shows two parties one block and two another, each
// valid by itself, then neither becomes final, nobody signs both, and who
// signed can show that it did so in good faith.
func TestAnEquivocatingProposerFinalisesNothing(t *testing.T) {
	f := newFour(t)
	f.claim()
	f.block()
	f.talk()
	for i, b := range f.members {
		b.claim(fmt.Sprint("half", i/2)) // one commit for two of them, another for the others
		b.propose("fork", b.next())
		require.NoError(t, b.step())
		require.Equal(t, uint64(2), b.height())
	}
	f.talk()
	for _, b := range f.members {
		require.Equal(t, uint64(1), b.final(), "two of four are no quorum")
		evidence, err := b.blocks.Evidence()
		require.NoError(t, err)
		require.Empty(t, evidence, "no key signed both")
		require.NoError(t, b.blocks.Halted())
	}
}

// Given a topic that shows one of four another history, then the other three
// finalise theirs and the one notices and stops.
func TestOneMisledReplicaStopsAndThreeGoOn(t *testing.T) {
	f := newFour(t)
	f.claim()
	f.block()
	f.talk()
	for i, b := range f.members {
		b.claim(fmt.Sprint("half", i/3))
		b.propose("fork", b.next())
		require.NoError(t, b.step())
	}
	f.talk()
	for i := range 3 {
		require.Equal(t, uint64(2), f.members[i].final())
	}
	require.ErrorContains(t, whole(f.members[3].blocks.Halted()), "not the one this replica computed")
	require.Equal(t, uint64(1), f.members[3].final())
	// It signed what is no prefix of the final checkpoint: that shows.
	evidence, err := f.members[0].blocks.Evidence()
	require.NoError(t, err)
	require.Len(t, evidence, 1)
	found, err := receipt.VerifyEvidence(evidence[0], f.policy)
	require.NoError(t, err)
	require.Equal(t, receipt.Finding{Wrong: receipt.Fork, Signers: []string{"party-3"}, Place: "size 2"}, found)
}

// Given a cosigner that signs two heads of one size and shows each to some,
// then whoever hears both keeps the two notes, once, and they convict.
func TestAnEquivocatingCosignerIsConvicted(t *testing.T) {
	f := newFour(t)
	f.claim()
	f.block()
	f.talk()
	liar := f.keys[3].Cosigner(time.Unix(20, 0))
	for i := range 3 {
		signed, err := receipt.Checkpoint{Origin: testOrigin, Size: 7, Root: receipt.Hash{byte(i)}}.Sign(liar)
		require.NoError(t, err)
		require.NoError(t, f.members[0].blocks.Hear("", [][]byte{signed}))
	}
	evidence, err := f.members[0].blocks.Evidence()
	require.NoError(t, err)
	require.Len(t, evidence, 1, "three heads, one wrong, one place")
	found, err := receipt.VerifyEvidence(evidence[0], f.policy)
	require.NoError(t, err)
	require.Equal(t, []string{"party-3"}, found.Signers)
	// The liar alone neither stops nor misleads the others.
	f.claim(0, 1, 2)
	f.block(0, 1, 2)
	f.talk(0, 1, 2)
	require.Equal(t, uint64(2), f.members[0].final())
}

// Given a change of members recorded while blocks go on, then blocks below
// its height are final under the old quorum and from it on under the new.
func TestAPolicyChangeInFlight(t *testing.T) {
	f := newFour(t)
	f.claim()
	f.block()
	f.talk()
	last := f.policy.Last()
	change := *last
	change.Sequence, change.Activation, change.Prev = 2, 3, last.Hash()
	change.Members = append([]receipt.Member{{Role: receipt.Cosigner, Key: f.keys[4].Public()}}, last.Members[1:]...)
	signed, err := note.Sign(&note.Note{Text: string(change.Marshal())}, f.keys[1].Notes(), f.keys[2].Notes(), f.keys[3].Notes())
	require.NoError(t, err)
	joined := newMember(t, f.keys[4], f.policy)
	history := func(b *bench, from int) {
		for i := from; i <= 3; i++ {
			b.claim(fmt.Sprint("c", i))
			if i == 2 {
				b.put(b.log, "change", BlockStream, PolicyType, signed)
				require.NoError(t, b.step())
			}
			b.propose(fmt.Sprint("p", i), b.next())
			require.NoError(t, b.step())
		}
	}
	for _, b := range f.members {
		history(b, 2)
	}
	// The newcomer reads the same topics from the start.
	joined.claim("r1")
	joined.propose("b2", joined.next())
	require.NoError(t, joined.step())
	history(joined, 2)
	require.Equal(t, uint64(2), joined.blocks.Policy().Last().Sequence)

	require.Contains(t, f.members[0].blocks.Withheld(), "no cosigner", "party 0 left at 3")
	f.talk(0, 1, 2)
	require.Equal(t, uint64(2), f.members[1].final(), "block 2 by three of the old four; of the new only two signed block 3")
	f.members = append(f.members, joined)
	f.talk(1, 2, 4)
	for _, i := range []int{1, 2, 4} {
		require.Equal(t, uint64(3), f.members[i].final(), i)
	}
	doc, err := f.members[4].blocks.Receipt("claims", 0, 2, false)
	require.NoError(t, err)
	v, err := receipt.Verify(doc.Marshal(), joined.blocks.Policy())
	require.NoError(t, err)
	require.Equal(t, uint64(2), v.Policy)
	_, err = receipt.Verify(doc.Marshal(), f.policy)
	require.ErrorContains(t, err, "newer policy file")
	var v2 *core.Violation
	_, err = core.TakePolicy(joined.blocks.Policy(), last, 3, signed)
	require.ErrorAs(t, err, &v2, "once")

	// A restart keeps all of it.
	require.NoError(t, joined.store.Close())
	require.NoError(t, joined.open())
	require.Equal(t, uint64(2), joined.blocks.Policy().Last().Sequence)
	require.Equal(t, uint64(3), joined.final())
}

// Given a block whose time is ahead of this node's clock, then it withholds
// its signature, and the block is valid nonetheless.
func TestASkewedClockWithholdsASignatureOnly(t *testing.T) {
	b := newBench(t)
	b.claim("r0")
	block := b.next()
	block.Time = time.Unix(10, 0).Add(clockSkew + time.Second)
	b.propose("b", block)
	require.NoError(t, b.step())
	last, _ := b.blocks.Last()
	require.Equal(t, uint64(1), last.Height)
	require.Zero(t, b.height())
	require.Contains(t, b.blocks.Withheld(), "clock")
}
