package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/convoy"
	"github.com/probity-health/probity/services/ledger/shard"
	"github.com/probity-health/probity/services/problem"
)

// Bounds of what a node passes on to the shards' owners.
const (
	forwardTimeout = 10 * time.Second
	forwardLanes   = 4
	forwardMost    = 500
	forwardBytes   = 4 << 20
	forwardQueue   = 8192
	// handOver is how long an append waits for a shard's next owner when the
	// one that was known says it's no more.
	handOver = 2 * time.Second
	// askAgain is how long an owner that is no member may take to become one.
	askAgain = 100 * time.Millisecond
	// maxRounds bounds how often one append is offered to an owner.
	maxRounds = 3
)

// forwarder passes appends on to the nodes that own their shards. What
// concurrent callers send to one node travels together.
type forwarder struct {
	n     *Node
	group *shard.Group

	mu    sync.Mutex // guards peers
	peers map[string]*peer
}

type peer = convoy.Convoy[*ledgerv1.AppendRequest, *ledgerv1.AppendResult]

// to returns the node at url.
func (f *forwarder) to(url string) *peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.peers[url]; p != nil {
		return p
	}
	if len(f.peers) >= 256 {
		// Nodes that are long gone; the others' are made again.
		clear(f.peers)
	}
	client := f.n.cfg.Cluster.Dial(url)
	p := convoy.New(convoy.Options[*ledgerv1.AppendRequest, *ledgerv1.AppendResult]{
		Call: func(ctx context.Context, requests []*ledgerv1.AppendRequest) ([]*ledgerv1.AppendResult, error) {
			res, err := client.AppendBatch(ctx, &ledgerv1.AppendBatchRequest{Appends: requests, ForwardedBy: f.n.cfg.NodeName})
			if err == nil && len(res.Results) != len(requests) {
				err = errors.New("ledger: another number of results than appends")
			}
			f.n.metrics.forwarded(ctx, len(requests), err)
			return res.GetResults(), err
		},
		Size:  func(r *ledgerv1.AppendRequest) int { return proto.Size(r) },
		Lanes: forwardLanes, Most: forwardMost, Bytes: forwardBytes, Queue: forwardQueue, Timeout: forwardTimeout,
	})
	f.peers[url] = p
	return p
}

// owner finds the node that writes a shard; see find. No peer and no error is
// this node, by now.
func (f *forwarder) owner(ctx context.Context, m *member, session string) (*peer, string, error) {
	url, owner, err := f.find(ctx, m, session)
	if err != nil || url == "" {
		return nil, "", err
	}
	return f.to(url), owner, nil
}

// find returns the URL and the session of the node that writes a shard: the one
// whose barrier the replica judged last. It waits a bounded time for another one
// than session, which has just said that it doesn't. No URL and no error is
// this node, by now.
func (f *forwarder) find(ctx context.Context, m *member, session string) (url, owner string, err error) {
	ctx, cancel := context.WithTimeout(ctx, handOver)
	defer cancel()
	var unknown error
	for {
		changed := m.replica.Changed.Wait()
		if st := m.writer.State(); m.assigned.Load() && (st == shard.Owning || st == shard.Taking) {
			return "", "", nil
		}
		var again <-chan time.Time
		if owner := m.replica.Head().Owner; owner != "" && owner != session && owner != f.n.session {
			url, err := f.group.Peer(ctx, owner)
			trusted := f.n.cfg.Cluster.Peers
			switch {
			case err == nil && url != "" && (len(trusted) == 0 || slices.Contains(trusted, url)):
				return url, owner, nil
			case err == nil && url != "":
				return "", "", fmt.Errorf("ledger: %s, where the shard's owner says it is, is none of Cluster.Peers", url)
			}
			// It joined a moment ago, and the group doesn't tell in the midst
			// of a rebalance, or it died, and another will take over.
			unknown = errors.Join(fmt.Errorf("ledger: session %s of the shard's owner is no member of the group", owner), err)
			again = time.After(askAgain)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return "", "", errors.Join(ctx.Err(), unknown)
		}
	}
}

func noOwner(name string, index uint32, cause error) error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "ledger.shard.no-owner",
		Message: fmt.Sprintf("no node is known to write shard %s/%d just now", name, index),
		Fix:     "send the same append again with the same request id in a second: another node is taking the shard over",
	}).Because(cause)
}

// unreached says that the owner did not answer: the append may have been made.
func unreached(cause error) error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "ledger.append.outcome-unknown",
		Message: "the node that writes the shard did not answer; the append may have been made or not",
		Fix:     "send the same append again with the same request id: it's made at most once",
	}).Because(cause)
}

// isNotOwner tells a refusal that another node may not give.
func isNotOwner(err error) bool {
	var p *problem.Error
	return errors.As(err, &p) && len(p.Problems) == 1 && p.Problems[0].RuleID == shard.RuleNotOwner
}

// fromResult turns a peer's result into what this node answers itself.
func fromResult(r *ledgerv1.AppendResult) (*ledgerv1.AppendResponse, error) {
	switch {
	case r.GetResponse() != nil:
		return r.GetResponse(), nil
	case r.GetConflict() != nil:
		return nil, conflictError(r.GetConflict())
	case r.GetFailure() != nil:
		f := r.GetFailure()
		kind := problem.Internal
		var code connect.Code
		if code.UnmarshalText([]byte(f.Code)) == nil {
			for k, c := range codes {
				if c == code {
					kind = k
				}
			}
		}
		return nil, problem.New(kind, problem.Problem{RuleID: f.RuleId, FieldPath: f.FieldPath, Message: f.Message, Fix: f.Fix})
	default:
		return nil, unreached(errors.New("ledger: an empty result"))
	}
}
