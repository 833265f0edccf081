// Command ledgersim runs the ledger's simulator over many seeds.
//
//	ledgersim -seeds 10000          run seeds 0 … 9999
//	ledgersim -seed 42 -trace       run one and print what happened
//
// It stops at the first seed that breaks a rule, shrinks its plan and prints
// the trace of what is left. It exits 1 then.
package main

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/probity-health/probity/services/ledger/sim"
)

func main() {
	seeds := flag.Uint64("seeds", 500, "how many seeds to run")
	from := flag.Uint64("from", 0, "the first seed")
	one := flag.Int64("seed", -1, "run this seed alone")
	trace := flag.Bool("trace", false, "print the trace of the seed run alone")
	shrink := flag.Int("shrink", 400, "runs to spend on shrinking a failing seed")
	bug := flag.Int("bug", 0, "plant a bug: its number, see sim.Bug")
	flag.Parse()
	debug.SetGCPercent(400)
	if *one >= 0 {
		os.Exit(single(os.Stdout, uint64(*one), sim.Bug(*bug), *trace, *shrink))
	}
	os.Exit(many(os.Stdout, *from, *seeds, sim.Bug(*bug), *shrink))
}

func single(out io.Writer, seed uint64, bug sim.Bug, trace bool, budget int) int {
	plan := sim.NewPlan(seed)
	res := sim.Run(seed, plan, bug, trace)
	for _, line := range res.Lines {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "seed %d: trace %s\n", seed, res.Trace)
	if res.Failure == "" {
		return 0
	}
	fmt.Fprintf(out, "seed %d: %s\n", seed, res.Failure)
	if !trace {
		explain(out, seed, plan, bug, budget)
	}
	return 1
}

func many(out io.Writer, from, seeds uint64, bug sim.Bug, budget int) int {
	began, told := time.Now(), time.Now()
	covered := map[string]int{}
	for i := range seeds {
		seed := from + i
		plan := sim.NewPlan(seed)
		res := sim.Run(seed, plan, bug, false)
		for what, n := range res.Covered {
			covered[what] += n
		}
		if res.Failure != "" {
			fmt.Fprintf(out, "seed %d: %s\n", seed, res.Failure)
			explain(out, seed, plan, bug, budget)
			return 1
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			fmt.Fprintf(out, "%d of %d seeds, %.0f a second\n", i+1, seeds, float64(i+1)/time.Since(began).Seconds())
		}
	}
	fmt.Fprintf(out, "%d seeds clean in %.1f s, %.1f a second\n", seeds, time.Since(began).Seconds(), float64(seeds)/time.Since(began).Seconds())
	for _, what := range slices.Sorted(maps.Keys(covered)) {
		fmt.Fprintf(out, "  %8d  %s\n", covered[what], what)
	}
	return 0
}

// explain prints the smallest plan that still fails, and its trace.
func explain(out io.Writer, seed uint64, plan sim.Plan, bug sim.Bug, budget int) {
	small, res := sim.Shrink(seed, plan, bug, budget)
	fmt.Fprintf(out, "shrunk from %d appends and %d faults to %d and %d:\n", plan.Appends, len(plan.Faults), small.Appends, len(small.Faults))
	for _, f := range small.Faults {
		fmt.Fprintf(out, "  %s\n", f)
	}
	for _, line := range res.Lines {
		fmt.Fprintln(out, line)
	}
}
