package ledger

import (
	"bytes"
	"context"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/shard"
	"github.com/probity-health/probity/services/problem"
)

// proofs implements the service that holds the ledger to its word.
type proofs struct{ n *Node }

// GetConsistency implements the RPC.
func (p proofs) GetConsistency(_ context.Context, r *ledgerv1.GetConsistencyRequest) (*ledgerv1.GetConsistencyResponse, error) {
	final, block := p.n.blocks.Final()
	if block == nil {
		return nil, nothingFinal()
	}
	newer := r.GetNewerSize()
	if newer == 0 {
		newer = block.Height
	}
	if r.GetOlderSize() == 0 || r.GetOlderSize() > newer || newer > block.Height {
		return nil, problem.Invalidf("ledger.consistency.size", "older_size",
			"sizes must be 1 <= older <= newer <= %d, the newest final checkpoint's", block.Height)
	}
	out := &ledgerv1.GetConsistencyResponse{Checkpoint: final}
	err := p.n.read(func() error {
		path, err := p.n.blocks.Consistency(r.OlderSize, newer)
		for _, h := range path {
			out.Proof = append(out.Proof, append([]byte(nil), h[:]...))
		}
		return err
	})
	return out, err
}

// ListEvidence implements the RPC.
func (p proofs) ListEvidence(context.Context, *ledgerv1.ListEvidenceRequest) (*ledgerv1.ListEvidenceResponse, error) {
	out := &ledgerv1.ListEvidenceResponse{}
	err := p.n.read(func() (err error) {
		out.Evidence, err = p.n.blocks.Evidence()
		return err
	})
	return out, err
}

// SubmitEvidence implements the RPC.
func (p proofs) SubmitEvidence(_ context.Context, r *ledgerv1.SubmitEvidenceRequest) (*ledgerv1.SubmitEvidenceResponse, error) {
	if _, err := receipt.VerifyEvidence(r.GetEvidence(), p.n.blocks.Policy()); err != nil {
		return nil, problem.Invalidf("ledger.evidence.unproven", "evidence", "the document convicts nobody: %v", err)
	}
	out := &ledgerv1.SubmitEvidenceResponse{}
	err := p.n.read(func() error {
		found, err := p.n.blocks.Accuse(r.GetEvidence())
		out.Wrong, out.Signers = string(found.Wrong), found.Signers
		return err
	})
	return out, err
}

// GetLedgerPolicy implements the RPC. On a ledger that is new it waits a
// bounded time until its first policy is recorded.
func (p proofs) GetLedgerPolicy(ctx context.Context, _ *ledgerv1.GetLedgerPolicyRequest) (*ledgerv1.GetLedgerPolicyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptTimeout)
	defer cancel()
	changed := p.n.blocks.Changed.Wait()
	policy := p.n.blocks.Policy()
	for policy.Last() == nil {
		if err := p.n.blocks.Halted(); err != nil {
			return nil, err
		}
		select {
		case <-changed:
		case <-p.n.closing:
			return nil, closed()
		case <-ctx.Done():
			return nil, problem.New(problem.Unavailable, problem.Problem{
				RuleID: "ledger.policy.none", Message: "the ledger has no policy yet",
				Fix: "ask again once a node writes the block log: it records the first",
			})
		}
		changed = p.n.blocks.Changed.Wait()
		policy = p.n.blocks.Policy()
	}
	next := uint64(1)
	if last, _ := p.n.blocks.Last(); last != nil {
		next = last.Height + 1
	}
	out := &ledgerv1.GetLedgerPolicyResponse{Policy: policy.Marshal()}
	if t := policy.At(next); t != nil {
		out.Sequence = t.Sequence
	}
	return out, nil
}

// SubmitLedgerPolicy implements the RPC. A change that is recorded already is
// answered as when it was. Only the owner of the block log records one: any
// other node of its cluster passes it on.
func (p proofs) SubmitLedgerPolicy(ctx context.Context, r *ledgerv1.SubmitLedgerPolicyRequest) (*ledgerv1.SubmitLedgerPolicyResponse, error) {
	policy := p.n.blocks.Policy()
	if last := policy.Last(); last != nil && bytes.Equal(policy.Note(last.Sequence), r.GetChange()) {
		return &ledgerv1.SubmitLedgerPolicyResponse{Sequence: last.Sequence}, nil
	}
	if p.n.block.writer.State() == shard.Owning {
		return p.recordChange(ctx, policy, r.GetChange())
	}
	if r.GetForwardedBy() != "" {
		return &ledgerv1.SubmitLedgerPolicyResponse{}, nil
	}
	return p.passOn(ctx, r.GetChange())
}

// passOn hands a change to the node that owns the block log.
func (p proofs) passOn(ctx context.Context, change []byte) (*ledgerv1.SubmitLedgerPolicyResponse, error) {
	f := p.n.forward
	if f == nil || p.n.cfg.Cluster.DialProofs == nil {
		return nil, problem.New(problem.Unavailable, problem.Problem{
			RuleID: "ledger.policy.not-owner", Message: "this node does not own the block log",
			Fix: "send the change to the node that does; any of the others' logs names it as the blocks' proposer",
		})
	}
	session := ""
	for range maxRounds {
		url, owner, err := f.find(ctx, p.n.block, session)
		switch {
		case err != nil:
			return nil, noOwner(replica.BlockLog, 0, err)
		case url == "" && p.n.block.writer.State() == shard.Owning:
			return p.recordChange(ctx, p.n.blocks.Policy(), change)
		case url == "":
			return nil, noOwner(replica.BlockLog, 0, nil)
		}
		call, cancel := context.WithTimeout(ctx, passOnTimeout)
		res, err := p.n.cfg.Cluster.DialProofs(url).SubmitLedgerPolicy(call, &ledgerv1.SubmitLedgerPolicyRequest{
			Change: change, ForwardedBy: p.n.cfg.NodeName,
		})
		cancel()
		if err != nil || res.GetSequence() > 0 {
			return res, err
		}
		session = owner
	}
	return nil, noOwner(replica.BlockLog, 0, nil)
}

// passOnTimeout bounds recording a change at another node, block included.
const passOnTimeout = 40 * time.Second

func (p proofs) recordChange(ctx context.Context, policy receipt.Policy, change []byte) (*ledgerv1.SubmitLedgerPolicyResponse, error) {
	next, err := policy.Extend(change)
	if err != nil {
		return nil, problem.Invalidf("ledger.policy.change", "change", "the change does not hold: %v", err)
	}
	t := next.Last()
	if last, _ := p.n.blocks.Last(); last != nil && t.Activation <= last.Height {
		return nil, problem.Invalidf("ledger.policy.activation", "change",
			"it activates at %d and block %d exists: sign one that activates later", t.Activation, last.Height)
	}
	if err := p.n.recordPolicy(ctx, t.Sequence, change); err != nil {
		return nil, err
	}
	if got := p.n.blocks.Policy().Last(); got.Hash() != t.Hash() {
		return nil, problem.New(problem.Conflict, problem.Problem{
			RuleID: "ledger.policy.overtaken", Message: "a block or another change came first",
			Fix: "sign a change that activates later and send it again",
		})
	}
	p.n.moved.Broadcast() // the next block names the change
	return &ledgerv1.SubmitLedgerPolicyResponse{Sequence: t.Sequence}, nil
}
