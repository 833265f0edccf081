package ledger

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/segmentio/kafka-go"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/shard"
	"github.com/probity-health/probity/services/problem"
)

// Bounds of talking to a peer.
const (
	exchangeTimeout = 2 * time.Second
	// exchangePause is the least time after an exchange that failed.
	exchangePause = 250 * time.Millisecond
)

// exchange tells one peer what is news here, at once, and asks it for its own
// at least once an interval, until ctx ends. The answer may be what wakes a
// signature that was withheld.
func (n *Node) exchange(ctx context.Context, name string, peer Peer) {
	var told [sha256.Size]byte
	silent := false
	for ctx.Err() == nil {
		changed := n.blocks.Changed.Wait()
		notes := n.blocks.Notes()
		if sum := digest(notes); sum != told || silent {
			call, cancel := context.WithTimeout(ctx, exchangeTimeout)
			answer, err := peer.ExchangeCosignatures(call, &ledgerv1.ExchangeCosignaturesRequest{Notes: notes})
			cancel()
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				n.logger.Debug("a peer does not answer", "peer", name, "error", err)
				pause(ctx, exchangePause)
				silent = true
				continue
			}
			told, silent = sum, false
			if err := n.heard(name, answer.GetNotes()); err != nil {
				n.logger.Warn("what a peer said was not taken in", "peer", name, "error", err)
			}
			// What the answer brought is no news to who gave it.
			if now := digest(n.blocks.Notes()); now == digest(answer.GetNotes()) {
				told = now
			}
		}
		poll := time.NewTimer(n.cfg.PeerInterval)
		select {
		case <-changed:
		case <-poll.C:
			silent = true // ask, though there is nothing to tell
		case <-ctx.Done():
		}
		poll.Stop()
	}
}

func digest(notes [][]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, note := range notes {
		sum := sha256.Sum256(note)
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// heard passes on what a peer said while the store is open.
func (n *Node) heard(from string, notes [][]byte) error {
	return n.read(func() error { return n.blocks.Hear(from, notes) })
}

// replicas implements the service that replicas offer each other.
type replicas struct{ n *Node }

// ExchangeCosignatures implements the RPC.
func (r replicas) ExchangeCosignatures(_ context.Context, req *ledgerv1.ExchangeCosignaturesRequest) (*ledgerv1.ExchangeCosignaturesResponse, error) {
	if err := r.n.heard("", req.GetNotes()); err != nil {
		return nil, err
	}
	return &ledgerv1.ExchangeCosignaturesResponse{Notes: r.n.blocks.Notes()}, nil
}

// maxAnswer bounds the commits of one answer to a peer, in bytes.
const maxAnswer = 4 << 20

// GetCommits implements the RPC.
func (r replicas) GetCommits(_ context.Context, req *ledgerv1.GetCommitsRequest) (*ledgerv1.GetCommitsResponse, error) {
	m, err := r.shard(req.GetLog(), req.GetShard())
	if err != nil {
		return nil, err
	}
	most := int(req.GetMaxCount())
	if most == 0 {
		most = 256
	}
	out := &ledgerv1.GetCommitsResponse{}
	err = r.n.read(func() error {
		// The offset first: what it points past is then among the commits.
		out.NextOffset, out.Size = m.replica.Offset(), m.replica.Head().Next
		var err error
		out.Commits, err = m.replica.Values(req.GetFromIndex(), min(most, 1024), maxAnswer)
		return err
	})
	return out, err
}

// GetRows implements the RPC.
func (r replicas) GetRows(_ context.Context, req *ledgerv1.GetRowsRequest) (*ledgerv1.GetRowsResponse, error) {
	m, err := r.shard(req.GetLog(), req.GetShard())
	if err != nil {
		return nil, err
	}
	most := int(req.GetMaxCount())
	if most == 0 {
		most = 1024
	}
	out := &ledgerv1.GetRowsResponse{}
	err = r.n.read(func() error {
		// The offset first, as in GetCommits.
		out.NextOffset, out.Size = m.replica.Offset(), m.replica.Head().Next
		var err error
		out.Rows, err = m.replica.Rows(req.GetFromIndex(), min(most, 4096))
		return err
	})
	return out, err
}

// shard finds a shard of any log, the block log included.
func (r replicas) shard(name string, index uint32) (*member, error) {
	if name == replica.BlockLog && index == 0 {
		return r.n.block, nil
	}
	return r.n.find(name, index)
}

// RepublishShard implements the RPC.
func (r replicas) RepublishShard(ctx context.Context, req *ledgerv1.RepublishShardRequest) (*ledgerv1.RepublishShardResponse, error) {
	m, err := r.shard(req.GetLog(), req.GetShard())
	if err != nil {
		return nil, err
	}
	topic, partition := r.n.cfg.topic(req.GetLog()), int(req.GetShard())
	client, hangUp := r.n.cfg.client(nil)
	defer hangUp()
	if err := shard.EnsureTopics(ctx, client, r.n.cfg.topics()); err != nil {
		return nil, err
	}
	if err := emptyPartition(ctx, client, topic, partition); err != nil {
		return nil, err
	}
	r.n.logger.Warn("republishing a lost shard", "log", req.GetLog(), "shard", partition, "commits", m.replica.Head().Next)
	rewriter, err := shard.NewRewriter(ctx, client, topic, partition, r.n.cfg.transactionalID(req.GetLog(), partition), r.n.cfg.Now)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.RepublishShardResponse{}
	err = r.n.read(func() error {
		var err error
		out.Commits, out.Records, err = m.replica.Republish(ctx, rewriter.Write)
		return err
	})
	return out, err
}

// emptyPartition refuses to write beside records that are there.
func emptyPartition(ctx context.Context, client *kafka.Client, topic string, partition int) error {
	res, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.LastOffsetOf(partition)},
	}})
	if err != nil {
		return err
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return p.Error
		}
		if p.LastOffset > 0 {
			return problem.New(problem.Conflict, problem.Problem{
				RuleID: "ledger.republish.not-empty", Message: "the partition holds records",
				Fix: "republish only into a topic that was lost and made anew; stop the nodes that would write to it first",
			})
		}
	}
	return nil
}
