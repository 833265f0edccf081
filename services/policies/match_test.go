package policies

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
)

// codes draws from a small world in which ranges often meet.
func drawRange(t *rapid.T) string {
	letter := rapid.SampledFrom([]string{"", "J"}).Draw(t, "letter")
	lo := rapid.IntRange(0, 30).Draw(t, "lo")
	hi := lo + rapid.IntRange(0, 8).Draw(t, "width")
	code := func(n int) string { return fmt.Sprintf("%s%04d", letter, n) }
	if lo == hi {
		return code(lo)
	}
	return code(lo) + "-" + code(hi)
}

// world is every code that drawRange can name.
func world() []string {
	var out []string
	for n := range 40 {
		out = append(out, fmt.Sprintf("%04d", n), fmt.Sprintf("J%04d", n))
	}
	return out
}

func naiveHolds(ranges []string, code string) bool {
	return slices.ContainsFunc(ranges, func(s string) bool {
		r, _ := parseRange(s)
		shape, n := shapeOf(code)
		return r.shape == shape && r.lo <= n && n <= r.hi
	})
}

func TestCodeSetsAgreeWithLookingAtEveryCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ranges := rapid.SliceOfN(rapid.Custom(drawRange), 0, 8).Draw(t, "ranges")
		asked := drawRange(t)
		set := setOf(ranges)
		r, ok := parseRange(asked)
		if !ok {
			t.Fatal("drew a bad range")
		}
		all, any := true, false
		for _, code := range world() {
			if naiveHolds([]string{asked}, code) {
				in := naiveHolds(ranges, code)
				all, any = all && in, any || in
			}
		}
		if set.holds(r) != all {
			t.Fatalf("%v holds %s: %v, by looking %v", ranges, asked, set.holds(r), all)
		}
		if set.meets(r) != any {
			t.Fatalf("%v meets %s: %v, by looking %v", ranges, asked, set.meets(r), any)
		}
	})
}

// TestABenefitIsUnreachableExactlyWhenNoServiceReachesIt walks every service
// of a small world through the benefits in order, as the engine does.
func TestABenefitIsUnreachableExactlyWhenNoServiceReachesIt(t *testing.T) {
	places := []string{"11", "21"}
	rapid.Check(t, func(t *rapid.T) {
		var plan policiesv1.PlanDocument
		for i := range rapid.IntRange(1, 6).Draw(t, "benefits") {
			plan.Benefits = append(plan.Benefits, &policiesv1.Benefit{Name: fmt.Sprintf("b%d", i), Covered: true, Match: &policiesv1.ServiceMatch{
				Procedures:      rapid.SliceOfN(rapid.Custom(drawRange), 0, 4).Draw(t, "procedures"),
				PlacesOfService: rapid.SliceOfNDistinct(rapid.SampledFrom(places), 0, 1, rapid.ID).Draw(t, "places"),
			}})
		}
		reached := map[int]bool{}
		for _, code := range append(world(), "99999") {
			for _, place := range append(places, "99") {
				i := slices.IndexFunc(plan.Benefits, func(b *policiesv1.Benefit) bool {
					m := b.GetMatch()
					return (len(m.GetProcedures()) == 0 || naiveHolds(m.GetProcedures(), code)) &&
						(len(m.GetPlacesOfService()) == 0 || slices.Contains(m.GetPlacesOfService(), place))
				})
				reached[i] = true
			}
		}
		var f finding
		lintReach(&f, plan.Benefits)
		for _, p := range f.problems {
			var i int
			if _, err := fmt.Sscanf(p.FieldPath, "benefits[%d].match", &i); err != nil {
				t.Fatal(err)
			}
			if reached[i] {
				t.Fatalf("benefit %d is called unreachable and isn't", i)
			}
			reached[i] = true
		}
		// Complete where no place is named: there nothing but the codes decides.
		for i, b := range plan.Benefits {
			noPlaces := !slices.ContainsFunc(plan.Benefits[:i+1], func(x *policiesv1.Benefit) bool { return len(x.GetMatch().GetPlacesOfService()) > 0 })
			if noPlaces && !reached[i] {
				t.Fatalf("benefit %d (%v) is unreachable and isn't called so", i, b.GetMatch().GetProcedures())
			}
		}
	})
}
