package sim

import (
	"flag"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var seeds = flag.Uint64("sim.seeds", 100, "seeds of TestRulesHold")

// Given any seed, then every rule holds from the first step to the last.
func TestRulesHold(t *testing.T) {
	covered := map[string]int{}
	for seed := range *seeds {
		plan := NewPlan(seed)
		res := Run(seed, plan, NoBug, false)
		for what, n := range res.Covered {
			covered[what] += n
		}
		if res.Failure != "" {
			small, again := Shrink(seed, plan, NoBug, 200)
			t.Fatalf("seed %d: %s\nshrunk to %d appends and %v\n%s", seed, res.Failure, small.Appends, small.Faults, strings.Join(again.Lines, "\n"))
		}
	}
	// A run that meets no fault shows nothing.
	for k := range kinds {
		require.NotZero(t, covered["fault: "+k.String()], k)
	}
	for _, branch := range []string{
		"crash between two disk operations", "crash while opening", "zombie's produce arrives", "zombie's produce lands",
		"produce fenced", "produce ambiguous", "acknowledgement lost", "request lost",
		"replica halted", "signature withheld", "sealing halted", "block ignored", "block waits for its commits", "block final", "conflict", "refusal confirmed",
		"answered from an earlier commit", "reused id refused", "log truncated", "replica deceived", "owner deceived about its own record", "tile bit flipped",
		"stored commit's bit flipped", "policy changed", "policy refused", "member removed", "member replaced", "key rotated", "node rekeyed", "newcomer",
		"data directory lost", "data directory moved away", "salvaged", "salvaged in part", "bit flipped in what is salvaged", "nothing to salvage", "caught up from a peer", "caught up by rows", "peer's lie noticed", "topic lost", "topic republished",
		"records handed over", "records audited", "altered record audited", "append forwarded", "forwarded to an owner of before", "restored from a backup", "replay compared", "shard reassigned",
	} {
		require.NotZero(t, covered["branch: "+branch], branch)
	}
}

// Given a seed, then it is one run, whenever it is made and with or without a
// trace being kept.
func TestASeedIsARun(t *testing.T) {
	for seed := range uint64(8) {
		one, other := Run(seed, NewPlan(seed), NoBug, true), Run(seed, NewPlan(seed), NoBug, false)
		require.Equal(t, one.Trace, other.Trace, "seed %d", seed)
		require.Equal(t, one.Covered, other.Covered, "seed %d", seed)
	}
	require.NotEqual(t, Run(1, NewPlan(1), NoBug, false).Trace, Run(2, NewPlan(2), NoBug, false).Trace)
}

// Given a bug of each kind, then one of the first thousand seeds finds it.
func TestPlantedBugsAreCaught(t *testing.T) {
	for bug := NoBug + 1; bug < Bugs; bug++ {
		t.Run(bug.String(), func(t *testing.T) {
			for seed := range uint64(1000) {
				if res := Run(seed, NewPlan(seed), bug, false); res.Failure != "" {
					t.Logf("seed %d: %s", seed, res.Failure)
					return
				}
			}
			t.Fatal("no seed finds it")
		})
	}
}

// Given a failing seed, then its plan shrinks to less that still fails.
func TestAFailureShrinks(t *testing.T) {
	for seed := uint64(0); ; seed++ {
		plan := NewPlan(seed)
		if len(plan.Faults) < 6 || Run(seed, plan, SkipLogSync, false).Failure == "" {
			continue
		}
		small, res := Shrink(seed, plan, SkipLogSync, 200)
		require.NotEmpty(t, res.Failure)
		require.Less(t, len(small.Faults), len(plan.Faults))
		require.Contains(t, res.Lines[len(res.Lines)-1], "BROKEN")
		return
	}
}
