package sim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// frontier is the right edge of an RFC 6962 tree: the roots of its perfect
// subtrees, largest first. It is written apart from ledger/tiles, to be
// compared with it.
type frontier struct {
	size   uint64
	hashes []receipt.Hash
}

func join(left, right receipt.Hash) receipt.Hash {
	return receipt.Hash(tlog.NodeHash(tlog.Hash(left), tlog.Hash(right)))
}

func (f *frontier) add(leaf receipt.Hash) {
	for n := f.size; n&1 == 1; n >>= 1 {
		last := len(f.hashes) - 1
		leaf = join(f.hashes[last], leaf)
		f.hashes = f.hashes[:last]
	}
	f.hashes = append(f.hashes, leaf)
	f.size++
}

func (f *frontier) root() receipt.Hash {
	if f.size == 0 {
		return receipt.EmptyRoot()
	}
	h := f.hashes[len(f.hashes)-1]
	for i := len(f.hashes) - 2; i >= 0; i-- {
		h = join(f.hashes[i], h)
	}
	return h
}

// nothing is the View of a shard without commits.
type nothing struct{}

func (nothing) LastRevision(string) (int64, error)      { return core.NoStream, nil }
func (nothing) Request(string) (core.Seen, bool, error) { return core.Seen{}, false, nil }

// written is one leaf of the truth.
type written struct {
	request string
	digest  [sha256.Size]byte
	entry   []byte
	writes  []*ledgerv1.CommittedWrite
	at      time.Duration
}

// truth is what a partition's log says, computed from the log itself in one
// pass and kept in maps: what every replica must come to.
type truth struct {
	head core.Head
	view *core.Overlay

	leaves   []written
	requests map[string]int // request id → leaf
	last     map[string]int64
	tree     frontier
	rows     frontier       // over the index rows
	roots    []receipt.Hash // by size
	// history has every pair of roots, of commits and of index rows, that a
	// size ever had: more than one only after the log lost its end.
	history []map[[2]receipt.Hash]bool
	// tampered: the log lost what it had acknowledged.
	tampered bool
	// quiet: so that a follower need not have noticed.
	quiet bool
	// broken: what followed does not verify, and nobody can go on from it.
	broken bool
}

func newTruth(log string, shard uint32) *truth {
	t := &truth{head: core.Head{Log: log, Shard: shard}, history: []map[[2]receipt.Hash]bool{{{receipt.EmptyRoot(), receipt.EmptyRoot()}: true}}}
	t.reset()
	return t
}

// reset begins again with an empty log, keeping the history.
func (t *truth) reset() {
	t.head = core.Head{Log: t.head.Log, Shard: t.head.Shard}
	t.view = core.NewOverlay(nothing{})
	t.leaves, t.requests, t.last = nil, map[string]int{}, map[string]int64{}
	t.tree, t.rows, t.roots = frontier{}, frontier{}, []receipt.Hash{receipt.EmptyRoot()}
}

// append takes one record of the log in. An error is a broken rule: nobody
// who writes here is allowed to.
func (t *truth) append(value []byte, at time.Duration) (core.Verdict, error) {
	j, err := core.Judge(t.head, t.view, value)
	if err != nil {
		return 0, err
	}
	t.head = j.Head
	if j.Verdict != core.Accepted {
		return j.Verdict, nil
	}
	t.view.Add(j.Commit, j.Seen)
	// The rules once more, in the plainest words there are.
	index := len(t.leaves)
	if j.Commit.Index != uint64(index) {
		return 0, fmt.Errorf("commit %d was accepted at %d", j.Commit.Index, index)
	}
	if before, ok := t.requests[j.Commit.RequestId]; ok {
		return 0, fmt.Errorf("request %s was accepted at %d and %d", j.Commit.RequestId, before, index)
	}
	t.requests[j.Commit.RequestId] = index
	for _, w := range j.Commit.Writes {
		last, ok := t.last[w.Stream]
		if !ok {
			last = -1
		}
		if int64(w.FirstRevision) != last+1 {
			return 0, fmt.Errorf("stream %s goes on at %d after %d", w.Stream, w.FirstRevision, last)
		}
		t.last[w.Stream] = last + int64(len(w.Events))
	}
	t.leaves = append(t.leaves, written{
		request: j.Commit.RequestId, digest: core.Digest(j.Commit.Writes), entry: receipt.Entry(value), writes: j.Commit.Writes, at: at,
	})
	t.tree.add(receipt.LeafHash(receipt.Entry(value)))
	root := t.tree.root()
	t.roots = append(t.roots, root)
	for len(t.history) < len(t.roots) {
		t.history = append(t.history, map[[2]receipt.Hash]bool{})
	}
	row := core.RowOf(j.Commit, j.Seen.Entry)
	t.rows.add(row.Leaf())
	state := t.rows.root()
	if t.head.Log == replica.BlockLog {
		state = receipt.Hash{} // nobody keeps one of the block log
	}
	t.history[len(t.roots)-1][[2]receipt.Hash{root, state}] = true
	return j.Verdict, nil
}

// ever tells whether the log ever had these roots, of commits and of index
// rows, at this size.
func (t *truth) ever(size uint64, root, state receipt.Hash) bool {
	return size < uint64(len(t.history)) && t.history[size][[2]receipt.Hash{root, state}]
}

// signature is one checkpoint a replica let out.
type signature struct {
	size uint64
	root receipt.Hash
}

// notary keeps everything any replica signed.
type notary struct {
	chamber *chamber
	signed  []map[signature]bool      // by replica, forged ones too
	honest  []map[uint64]receipt.Hash // by replica: size → root, as its cosigner let them out
	highest []uint64                  // by replica, of those
	// final is by size the root that a quorum signed.
	final map[uint64]receipt.Hash
	tip   *receipt.Block // the highest final block
}

func newNotary(nodes int, c *chamber) *notary {
	n := &notary{chamber: c, final: map[uint64]receipt.Hash{}, highest: make([]uint64, nodes)}
	for range nodes {
		n.signed = append(n.signed, map[signature]bool{})
		n.honest = append(n.honest, map[uint64]receipt.Hash{})
	}
	return n
}

// sign records what a cosigner let out and says which rule it breaks.
func (n *notary) sign(who int, s signature, block *receipt.Block) (final bool, err error) {
	if before, ok := n.honest[who][s.size]; ok && before != s.root {
		return false, fmt.Errorf("replica %d signed two heads of size %d", who, s.size)
	}
	if s.size < n.highest[who] {
		return false, fmt.Errorf("replica %d signed size %d after %d", who, s.size, n.highest[who])
	}
	n.honest[who][s.size] = s.root
	n.highest[who] = max(n.highest[who], s.size)
	if final, err = n.count(who, s); final && (n.tip == nil || block.Height > n.tip.Height) {
		n.tip = block
	}
	return final, err
}

// count adds a signature, whoever forged it, and tells whether it makes its
// head final.
func (n *notary) count(who int, s signature) (final bool, err error) {
	n.signed[who][s] = true
	count := 0
	members, quorum := n.chamber.cosigners(s.size)
	for _, m := range members {
		if n.signed[m][s] {
			count++
		}
	}
	if count < quorum {
		return false, nil
	}
	if before, ok := n.final[s.size]; ok {
		if before != s.root {
			return false, fmt.Errorf("two heads of size %d have a quorum of signatures", s.size)
		}
		return false, nil
	}
	n.final[s.size] = s.root
	return true, nil
}

// rehash recomputes, from a replica's stored commits, the roots a signed block
// names. have is what was recomputed before, by shard.
func rehash(s *replica.Shard, have *frontier, size uint64) (receipt.Hash, error) {
	if have.size > size {
		*have = frontier{}
	}
	for have.size < size {
		entry, err := s.Entry(have.size)
		if err != nil {
			return receipt.Hash{}, err
		}
		have.add(receipt.LeafHash(entry))
	}
	return have.root(), nil
}

// same compares an answered append with the leaf it names.
func (l written) same(request string, digest [sha256.Size]byte, entry []byte) bool {
	return l.request == request && l.digest == digest && bytes.Equal(l.entry, entry)
}
