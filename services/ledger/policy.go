package ledger

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// policy returns the policy this node is configured with: that of the file,
// or of a ledger of one party. Logs that the file names are followed even
// where the configuration names none.
func (c *Config) policy(self receipt.PublicKey) (receipt.Policy, error) {
	if c.PolicyFile == "" {
		if self.Name != c.Origin {
			return receipt.Policy{}, fmt.Errorf("ledger: signing key is named %q and the origin is %q; a ledger of several parties needs PolicyFile", self.Name, c.Origin)
		}
		return receipt.FirstPolicy(&receipt.Terms{
			Origin: c.Origin, Sequence: 1, Activation: 1, Quorum: 1,
			Members: []receipt.Member{{Role: receipt.Cosigner, Key: self}}, Logs: c.logShards(),
		})
	}
	raw, err := os.ReadFile(c.PolicyFile)
	if err != nil {
		return receipt.Policy{}, fmt.Errorf("ledger: policy: %w", err)
	}
	p, err := receipt.ParsePolicy(raw)
	if err != nil {
		return receipt.Policy{}, fmt.Errorf("ledger: policy file %s: %w", c.PolicyFile, err)
	}
	if p.Origin() != c.Origin {
		return receipt.Policy{}, fmt.Errorf("ledger: policy file %s is of %q and the origin is %q", c.PolicyFile, p.Origin(), c.Origin)
	}
	for _, l := range p.Last().Logs {
		if n, ok := c.Logs[l.Log]; ok && n != int(l.Shards) {
			return receipt.Policy{}, fmt.Errorf("ledger: policy %d has %d shards of log %s and the configuration says %d", p.Last().Sequence, l.Shards, l.Log, n)
		}
		c.Logs[l.Log] = int(l.Shards)
	}
	for name := range c.Peers {
		if !slices.ContainsFunc(p.Last().Members, func(m receipt.Member) bool { return m.Key.Name == name }) {
			return receipt.Policy{}, fmt.Errorf("ledger: peer %q is no member of policy %d", name, p.Last().Sequence)
		}
	}
	return p, nil
}

func (c *Config) logShards() []receipt.LogShards {
	var out []receipt.LogShards
	for _, name := range c.logNames() {
		out = append(out, receipt.LogShards{Log: name, Shards: uint32(c.Logs[name])})
	}
	return out
}

// proposePolicy records the versions of the policy that this node was given
// and the ledger doesn't hold. On a ledger of one party it also records logs
// that its configuration added.
func (n *Node) proposePolicy(ctx context.Context) error {
	recorded, last := n.blocks.Policy(), uint64(0)
	if block, _ := n.blocks.Last(); block != nil {
		last = block.Height
	}
	var have uint64
	if t := recorded.Last(); t != nil {
		have = t.Sequence
	}
	for seq := have + 1; seq <= n.policy.Last().Sequence; seq++ {
		// Recorded too late it would be ignored: a new change must be signed.
		if t, err := receipt.ParsePolicy(n.policy.Upto(seq)); err != nil || t.Last().Activation <= last {
			break
		}
		if err := n.recordPolicy(ctx, seq, n.policy.Note(seq)); err != nil {
			return err
		}
	}
	return n.addLogs(ctx, last)
}

func (n *Node) recordPolicy(ctx context.Context, seq uint64, change []byte) error {
	id := fmt.Sprintf("policy-%d-%d", seq, n.block.replica.Head().Next)
	return n.record(ctx, id, replica.PolicyType, change)
}

// addLogs changes the policy of a ledger of one party when its configuration
// has logs that the policy lacks. Where others have a say they must sign.
func (n *Node) addLogs(ctx context.Context, height uint64) error {
	policy := n.blocks.Policy()
	t := policy.Last()
	if t == nil || n.cfg.PolicyFile != "" || len(t.Members) != 1 || t.Members[0].Key != n.key.Public() || len(n.cfg.Logs) == len(t.Logs) {
		return nil
	}
	next := *t
	next.Sequence, next.Prev, next.Activation = t.Sequence+1, t.Hash(), max(t.Activation, height)+1
	next.Logs = n.cfg.logShards()
	change, err := note.Sign(&note.Note{Text: string(next.Marshal())}, n.key.Notes())
	if err != nil {
		return err
	}
	return n.recordPolicy(ctx, next.Sequence, change)
}
