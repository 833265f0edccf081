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

	once   sync.Once // guards what follows
	levels [][]receipt.Hash
	note   []byte
	err    error
}

func (g *groupPromise) sign() ([]byte, error) {
	g.once.Do(func() {
		g.levels = levels(g.leaves)
		root := receipt.EmptyRoot()
		if len(g.leaves) > 0 {
			root = g.levels[len(g.levels)-1][0]
		}
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
	var room [16]receipt.Hash
	p := receipt.Promise{Log: g.log, Shard: g.shard, Index: index, Entry: entry, Proof: path(room[:0], g.levels, place), Note: signed}
	return p.Marshal(), nil
}

// levels returns the RFC 6962 tree over leaves, from the leaves up to the
// root: a node without a neighbour stands on the next level unchanged.
func levels(leaves []receipt.Hash) [][]receipt.Hash {
	out := make([][]receipt.Hash, 1, 1+bits.Len(uint(len(leaves))))
	out[0] = leaves
	for at := leaves; len(at) > 1; {
		up := make([]receipt.Hash, 0, (len(at)+1)/2)
		for i := 0; i+1 < len(at); i += 2 {
			up = append(up, receipt.Hash(tlog.NodeHash(tlog.Hash(at[i]), tlog.Hash(at[i+1]))))
		}
		if len(at)%2 == 1 {
			up = append(up, at[len(at)-1])
		}
		out, at = append(out, up), up
	}
	return out
}

// path appends a leaf's audit path to b, from the leaf up.
func path(b []receipt.Hash, levels [][]receipt.Hash, leaf int) []receipt.Hash {
	for _, l := range levels {
		if beside := leaf ^ 1; beside < len(l) {
			b = append(b, l[beside])
		}
		leaf /= 2
	}
	return b
}
