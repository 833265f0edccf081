package eventstoretest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/eventstore"
)

// randomHistory drives the store and a map of slices with the same commits.
func randomHistory(t *testing.T, w *world) {
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		model, answered := map[int][]int{}, map[string]int{}
		// Streams of one round share a routing key, so that commits may span them.
		key := fmt.Sprintf("key-%s-r%d", w.id, round)
		stream := func(n int) string { return fmt.Sprintf("test-%s-r%d.%d", w.id, round, n) }
		for step := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			name := fmt.Sprintf("req-%s-r%d-%d", w.id, round, rapid.IntRange(0, step).Draw(rt, "request"))
			c := eventstore.Commit{Log: log, RoutingKey: key, RequestID: name}
			fits := true
			picked := rapid.SliceOfNDistinct(rapid.IntRange(0, 2), 1, 3, rapid.ID[int]).Draw(rt, "streams")
			added := map[int][]int{}
			for _, n := range picked {
				expected := rapid.Int64Range(-2, 4).Draw(rt, "expected")
				if rapid.Bool().Draw(rt, "right") {
					expected = int64(len(model[n])) - 1
				}
				fits = fits && (expected == eventstore.Any || expected == int64(len(model[n]))-1)
				for range rapid.IntRange(1, 3).Draw(rt, "events") {
					added[n] = append(added[n], step)
				}
				c = with(c, stream(n), expected, added[n]...)
			}
			a, err := w.Append(w.ctx, c)
			switch first, seen := answered[name]; {
			case seen && first != step:
				// The events hold the step, so the content differs from the first.
				require.Error(rt, err)
				require.False(rt, eventstore.IsConflict(err))
			case fits:
				require.NoError(rt, err)
				answered[name] = step
				for i, n := range picked {
					model[n] = append(model[n], added[n]...)
					require.Equal(rt, uint64(len(model[n])-1), a.Revisions[i])
				}
			default:
				require.True(rt, eventstore.IsConflict(err), "got %v", err)
			}
		}
		for n := range 3 {
			have, err := w.Read(w.ctx, log, key, stream(n), 0)
			require.NoError(rt, err)
			require.Len(rt, have, len(model[n]))
			for i, e := range have {
				require.True(rt, proto.Equal(fact(model[n][i]), e.Event))
			}
		}
	})
}
