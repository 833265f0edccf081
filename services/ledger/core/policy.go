package core

import (
	"github.com/probity-health/probity/services/ledger/receipt"
)

// TakePolicy applies one policy record of the block log to the policy as it
// was recorded so far: the first version when there is none yet, else a
// change. root is the first version this replica was given out of band; only
// a first version of the same parties begins a ledger, whoever wrote it to
// the topic. height is the last valid block's. The error is a *Violation.
//
// A version governs from its activation height on, and the activation must
// be ahead of every block there is: which signatures a checkpoint needed may
// not change after it was signed.
func TakePolicy(policy receipt.Policy, root *receipt.Terms, height uint64, record []byte) (receipt.Policy, error) {
	if policy.Last() == nil {
		first, err := receipt.ParsePolicy(record)
		switch {
		case err != nil:
			return policy, violated("ledger.policy.form", "%s", err)
		case first.Last().Sequence != 1:
			return policy, violated("ledger.policy.form", "the first policy record holds more than the first version")
		case !SameParties(first.Last(), root):
			return policy, violated("ledger.policy.root", "the first policy on the ledger is not of the parties this replica was configured with")
		}
		return first, nil
	}
	next, err := policy.Extend(record)
	if err != nil {
		return policy, violated("ledger.policy.change", "%s", err)
	}
	if t := next.Last(); t.Activation <= height {
		return policy, violated("ledger.policy.activation", "policy %d activates at %d and block %d exists", t.Sequence, t.Activation, height)
	}
	return next, nil
}

// SameParties tells whether two versions of a policy have the same ledger,
// quorum and members. Logs may differ: they say what a ledger holds, not
// whom to believe.
func SameParties(a, b *receipt.Terms) bool {
	if a == nil || b == nil || a.Origin != b.Origin || a.Quorum != b.Quorum || len(a.Members) != len(b.Members) {
		return false
	}
	for i := range a.Members {
		if a.Members[i] != b.Members[i] {
			return false
		}
	}
	return true
}
