package sim

import "slices"

// Shrink looks for a smaller plan with which a seed still fails, by leaving
// faults out, first many at a time, and appends. It makes at most budget runs
// and returns the smallest plan it found with its result, trace included.
func Shrink(seed uint64, plan Plan, bug Bug, budget int) (Plan, Result) {
	fails := func(p Plan) bool {
		budget--
		return budget >= 0 && Run(seed, p, bug, false).Failure != ""
	}
	for smaller := true; smaller && budget > 0; {
		smaller = false
		for size := max(1, len(plan.Faults)/2); size > 0 && budget > 0; size /= 2 {
			for from := 0; from < len(plan.Faults) && budget > 0; {
				to := min(from+size, len(plan.Faults))
				less := Plan{Appends: plan.Appends, Faults: slices.Delete(slices.Clone(plan.Faults), from, to)}
				if fails(less) {
					plan, smaller = less, true
				} else {
					from = to
				}
			}
		}
		for cut := plan.Appends / 2; cut > 0 && budget > 0; cut /= 2 {
			for plan.Appends > cut && fails(Plan{Appends: plan.Appends - cut, Faults: plan.Faults}) {
				plan.Appends -= cut
				smaller = true
			}
		}
	}
	return plan, Run(seed, plan, bug, true)
}
