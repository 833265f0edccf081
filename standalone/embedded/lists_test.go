package embedded_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/views"
	"github.com/probity-health/probity/standalone/embedded"
)

// Given lists that are open, then nobody else opens them; and who opens them
// once they are closed goes on where they stopped.
func TestListsBelongToOneAtATime(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	lists, err := embedded.OpenLists(dir, nil)
	require.NoError(t, err)
	b := views.Build{View: "claims", Version: 1}
	require.NoError(t, lists.AddShards(ctx, b.View, []uint32{b.Shard}))
	_, err = lists.Apply(ctx, views.Batch{Build: b, Next: 8, Changes: []views.Change{{Index: 7, Ops: []views.Op{views.SAdd("a", "b")}}}})
	require.NoError(t, err)

	_, err = embedded.OpenLists(dir, nil)
	require.ErrorContains(t, err, "in use by another process")

	require.NoError(t, lists.Close())
	again, err := embedded.OpenLists(dir, nil)
	require.NoError(t, err)
	offsets, err := again.Offsets(ctx, b)
	require.NoError(t, err)
	require.Equal(t, []uint64{8}, offsets)
	require.NoError(t, again.Close())
}
