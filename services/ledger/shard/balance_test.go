package shard

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func somePlaces(n int) []Place {
	var out []Place
	for i := range n {
		out = append(out, Place{fmt.Sprintf("t%d", i%3), i / 3})
	}
	return out
}

// Whatever members claim to hold, each place goes to exactly one member,
// shares differ by one at most, and a balanced sharing is left as it is.
func TestSharesAreEvenAndStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		places := somePlaces(rapid.IntRange(0, 20).Draw(t, "places"))
		var members []Member
		for i := range rapid.IntRange(1, 6).Draw(t, "members") {
			m := Member{ID: fmt.Sprintf("m%d", i)}
			for _, p := range append(somePlaces(22), places...) {
				if rapid.Bool().Draw(t, "holds") {
					m.Holds = append(m.Holds, p)
				}
			}
			members = append(members, m)
		}
		out := Balance(members, places)
		seen := map[Place]string{}
		least, most := len(places), 0
		for _, m := range members {
			for _, p := range out[m.ID] {
				if was, twice := seen[p]; twice {
					t.Fatalf("%v is %s's and %s's", p, was, m.ID)
				}
				seen[p] = m.ID
			}
			least, most = min(least, len(out[m.ID])), max(most, len(out[m.ID]))
		}
		if len(seen) != len(places) || most-least > 1 {
			t.Fatalf("%d of %d places, shares from %d to %d", len(seen), len(places), least, most)
		}
		// The order members are named in is no matter, and who has a fair
		// share keeps it.
		for i := range members {
			members[i].Holds = out[members[i].ID]
		}
		slices.Reverse(members)
		require.Equal(t, out, Balance(members, places))
	})
}

// Given a balanced group, when a member joins or leaves, then no more places
// move than must.
func TestNoMorePlacesMoveThanMust(t *testing.T) {
	for n := 1; n <= 5; n++ {
		for size := 0; size <= 20; size++ {
			places := somePlaces(size)
			var members []Member
			for i := range n {
				members = append(members, Member{ID: fmt.Sprintf("m%d", i)})
			}
			before := Balance(members, places)
			for i := range members {
				members[i].Holds = before[members[i].ID]
			}
			joined := Balance(append(slices.Clone(members), Member{ID: "new"}), places)
			require.Equal(t, size/(n+1), len(joined["new"]))
			stayed := 0
			for _, m := range members {
				for _, p := range joined[m.ID] {
					if slices.Contains(m.Holds, p) {
						stayed++
					}
				}
			}
			require.Equal(t, size-len(joined["new"]), stayed, "%d members, %d places", n, size)

			left := Balance(members[1:], places)
			for _, m := range members[1:] {
				for _, p := range m.Holds {
					require.Contains(t, left[m.ID], p, "%d members, %d places", n, size)
				}
			}
		}
	}
}

// Given members that can't write some shards, then those go to who can, and
// what nobody can write goes to nobody.
func TestOnlyTheFitAreGivenAShard(t *testing.T) {
	a, b, c := Place{"t", 0}, Place{"t", 1}, Place{"t", 2}
	not := func(unfit ...Place) func(Place) bool {
		return func(p Place) bool { return !slices.Contains(unfit, p) }
	}
	out := Balance([]Member{
		{ID: "x", Holds: []Place{a, b, c}, Fit: not(a, b)},
		{ID: "y", Fit: not(b)},
	}, []Place{a, b, c})
	require.Equal(t, map[string][]Place{"x": {c}, "y": {a}}, out)
	require.Empty(t, Balance(nil, []Place{a}))
}
