package shard

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
)

// Given many appends that wait while nothing is in flight, then half of them
// leave, the others are decided meanwhile and leave as soon as the first are
// acknowledged; a few leave together.
func TestHalfOfManyLeavesFirst(t *testing.T) {
	o, j := owning(t)
	hand := func(n int) (out []*Pending) {
		for i := range n {
			p, err := o.Submit(&ledgerv1.AppendRequest{Log: "claims", RoutingKey: "k", RequestId: fmt.Sprint(len(o.desk.queue), "-", i, j.offset), Writes: []*ledgerv1.StreamWrite{{
				Stream: "claim-1", ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: "test.Event"}},
			}}}, core.Provenance{})
			require.NoError(t, err)
			out = append(out, p)
		}
		return out
	}
	all := hand(200)
	first := o.Step(now)
	require.Len(t, first.Records, 100)
	require.Nil(t, o.Step(now), "one is in flight")
	require.Zero(t, o.desk.waiting(), "the others are decided")
	o.Done(now, Result{Offset: j.take(t, first.Records)})
	second := o.Step(now)
	require.Len(t, second.Records, 100)
	require.True(t, settled(all[99]))
	require.False(t, settled(all[100]))
	o.Done(now, Result{Offset: j.take(t, second.Records)})
	require.Nil(t, o.Step(now))
	require.True(t, settled(all[199]))
	require.Equal(t, uint64(200), j.head.Next)

	hand(minSplit)
	few := o.Step(now)
	require.Len(t, few.Records, minSplit)
}
