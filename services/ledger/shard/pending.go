package shard

import (
	"context"
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// Pending is a submitted append.
type Pending struct {
	request    *ledgerv1.AppendRequest
	provenance core.Provenance
	size       int
	abandoned  atomic.Bool // the caller left; not worth deciding
	// unknown: its record was sent and nobody knows yet whether it landed.
	// The Owner's alone, until it settles the append.
	unknown bool

	done   chan struct{} // closed after answer and err are set
	answer Answer
	err    error
}

// Answer is an acknowledged append.
type Answer struct {
	core.Seen
	// Replayed: the request id had been seen before this append was sent.
	Replayed bool

	promise *groupPromise
	place   int
}

// Wait waits for the answer: an acknowledged commit, a *core.ConflictError,
// or a *problem.Error. When ctx ends first the outcome is unknown and the
// error says how to learn it.
func (p *Pending) Wait(ctx context.Context) (Answer, error) { return p.WaitUntil(ctx, nil) }

// WaitUntil is Wait, which ends as well when past is closed: as if a deadline
// of ctx had passed. Many calls can share one past.
func (p *Pending) WaitUntil(ctx context.Context, past <-chan struct{}) (Answer, error) {
	cause := context.DeadlineExceeded
	select {
	case <-p.done:
		return p.answer, p.err
	case <-ctx.Done():
		cause = ctx.Err()
	case <-past:
	}
	p.abandoned.Store(true)
	return Answer{}, outcomeUnknown("the call ended before the append was acknowledged").Because(cause)
}

// outcomeUnknown is the answer to an append that may have been made or not.
func outcomeUnknown(why string) *problem.Error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "ledger.append.outcome-unknown",
		Message: why + "; it may have been made or not",
		Fix:     "send the same append again with the same request id: it's made at most once",
	})
}

// Poll returns what Wait would, and false while it would wait.
func (p *Pending) Poll() (Answer, bool, error) {
	select {
	case <-p.done:
		return p.answer, true, p.err
	default:
		return Answer{}, false, nil
	}
}

// Promise returns the signed promise document of the answer.
func (a Answer) Promise() ([]byte, error) {
	if a.promise == nil {
		return nil, errors.New("shard: no promise of an append that was not made")
	}
	return a.promise.document(a.place, a.Index, a.Entry)
}

// groupPromise is what the promises of a group share. It is signed once, by
// whoever comes first: the shell while the group is on its way, or a caller.
type groupPromise struct {
	signer note.Signer
	origin string
	log    string
	shard  uint32
	first  uint64
	leaves []receipt.Hash

	once  sync.Once // guards what follows
	paths [][]receipt.Hash
	note  []byte
	err   error
}

func (g *groupPromise) sign() ([]byte, error) {
	g.once.Do(func() {
		var root receipt.Hash
		root, g.paths = paths(g.leaves)
		g.note, g.err = receipt.Group{
			Origin: g.origin, Log: g.log, Shard: g.shard, First: g.first, Count: uint64(len(g.leaves)), Root: root,
		}.Sign(g.signer)
	})
	return g.note, g.err
}

func (g *groupPromise) document(place int, index uint64, entry []byte) ([]byte, error) {
	signed, err := g.sign()
	if err != nil {
		return nil, err
	}
	p := receipt.Promise{Log: g.log, Shard: g.shard, Index: index, Entry: entry, Proof: g.paths[place], Note: signed}
	return p.Marshal(), nil
}

// paths returns the root of the RFC 6962 tree over leaves and every leaf's
// audit path in it, from the leaf up.
func paths(leaves []receipt.Hash) (receipt.Hash, [][]receipt.Hash) {
	out := make([][]receipt.Hash, len(leaves))
	if len(leaves) == 0 {
		return receipt.EmptyRoot(), out
	}
	depth := bits.Len(uint(len(leaves) - 1))
	room := make([]receipt.Hash, depth*len(leaves))
	for i := range out {
		out[i] = room[i*depth : i*depth : (i+1)*depth]
	}
	var root func(from, to int) receipt.Hash
	root = func(from, to int) receipt.Hash {
		if to-from == 1 {
			return leaves[from]
		}
		// The left part is the largest power of two below the whole.
		middle := from + 1<<(bits.Len(uint(to-from-1))-1)
		left, right := root(from, middle), root(middle, to)
		for i := from; i < middle; i++ {
			out[i] = append(out[i], right)
		}
		for i := middle; i < to; i++ {
			out[i] = append(out[i], left)
		}
		return receipt.Hash(tlog.NodeHash(tlog.Hash(left), tlog.Hash(right)))
	}
	return root(0, len(leaves)), out
}
