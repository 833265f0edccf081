package shard

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/problem"
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

// Given as many appends waiting as the queue holds, then the next is refused
// at once as one to send again, and once some left there is room.
func TestAFullQueueRefuses(t *testing.T) {
	o, j := owning(t)
	hand := func(i int) error {
		_, err := o.Submit(&ledgerv1.AppendRequest{Log: "claims", RoutingKey: "k", RequestId: fmt.Sprint(i), Writes: []*ledgerv1.StreamWrite{{
			Stream: "claim-1", ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: "test.Event"}},
		}}}, core.Provenance{})
		return err
	}
	for i := range maxQueue {
		require.NoError(t, hand(i))
	}
	err := hand(maxQueue)
	require.True(t, problem.Is(err, problem.Exhausted), "got %v", err)
	var p *problem.Error
	require.ErrorAs(t, err, &p)
	require.True(t, p.Retryable())
	op := o.Step(now)
	require.Len(t, op.Records, maxBatchRecords)
	o.Done(now, Result{Offset: j.take(t, op.Records)})
	require.NoError(t, hand(maxQueue))
}

// Given an owner that is fenced while the shard is still assigned to it, then
// it answers what waits as not its own, leaves the shard alone for a moment,
// and takes it back; released, it does not.
func TestAFencedOwnerTakesBackWhatIsStillItsOwn(t *testing.T) {
	for _, assigned := range []bool{true, false} {
		o, _ := owning(t)
		p := submit(t, o, "r1", -1)
		op := o.Step(now)
		require.Equal(t, Produce, op.Kind)
		if !assigned {
			o.Release()
		}
		o.Done(now, Result{Err: ErrFenced})
		require.Nil(t, o.Step(now))
		require.Equal(t, Standby, o.State())
		require.True(t, settled(p))
		_, err := p.Wait(t.Context())
		var refused *problem.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, RuleNotOwner, refused.Problems[0].RuleID)
		_, err = o.Submit(p.request, p.provenance)
		require.ErrorAs(t, err, &refused)
		require.Equal(t, RuleNotOwner, refused.Problems[0].RuleID, "another node may have it")

		op = o.Step(now.Add(fencedPause))
		if !assigned {
			require.Nil(t, op)
			require.Equal(t, Standby, o.State())
			continue
		}
		require.NotNil(t, op)
		require.Equal(t, AskEnd, op.Kind)
		require.Equal(t, Taking, o.State())
		o.Done(now, Result{Offset: 0})
		op = o.Step(now.Add(fencedPause))
		require.Equal(t, Begin, op.Kind)
		require.Nil(t, op.Last, "it takes the shard from whoever has it")
	}
}
