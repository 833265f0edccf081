package shard

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

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
	late := hand(40)
	second := o.Step(now)
	require.Len(t, second.Records, 125, "what was decided leaves with a few of what came since")
	require.False(t, settled(all[99]), "the broker comes before the callers")
	o.Answer()
	require.True(t, settled(all[99]))
	require.False(t, settled(all[100]))
	require.Nil(t, o.Step(now))
	done(o, now, Result{Offset: j.take(t, second.Records)})
	require.True(t, settled(all[199]))
	require.True(t, settled(late[24]))
	require.False(t, settled(late[25]))
	require.Equal(t, uint64(225), j.head.Next)
	done(o, now, Result{Offset: j.take(t, o.Step(now).Records)})
	require.True(t, settled(late[39]))
	require.Nil(t, o.Step(now))

	hand(minSplit)
	few := o.Step(now)
	require.Len(t, few.Records, minSplit)
}

// An owner tells its replica where its commits landed once the broker says so:
// not of a batch that was refused or of which nothing is known, nor of a
// barrier; and it tells when its session ends.
func TestOnlyWhatWasAcknowledgedIsHandedOver(t *testing.T) {
	o, j := owning(t)
	submit(t, o, "r1", -1)
	op := o.Step(now)
	require.Empty(t, j.landed, "it is on its way")
	offset := j.take(t, op.Records)
	done(o, now, Result{Offset: offset})
	require.Equal(t, [][3]int64{{offset, 0, 1}}, j.landed)
	submit(t, o, "r2", 7) // a conflict, which a heartbeat makes sure of
	op = o.Step(now)
	done(o, now, Result{Offset: j.take(t, op.Records)})
	require.Len(t, j.landed, 1)
	require.Zero(t, j.left)
	for n, err := range []error{errors.New("the connection broke"), ErrFenced} {
		o, j := owning(t)
		submit(t, o, "r1", -1)
		op := o.Step(now)
		require.NotNil(t, op)
		done(o, now, Result{Offset: j.offset, Err: err})
		require.Empty(t, j.landed, "%d", n)
		require.Equal(t, 1, j.left)
	}
}

// Given a batch on its way, then appends rouse the owner once some of them
// wait, and one alone when nothing is on its way: no caller waits for others.
func TestAnOwnerIsRousedForSomeAtOnce(t *testing.T) {
	o, j := owning(t)
	n := 0
	hand := func(count int) (rung bool) {
		for range count {
			n++
			_, err := o.Submit(&ledgerv1.AppendRequest{Log: "claims", RoutingKey: "k", RequestId: fmt.Sprint(n), Writes: []*ledgerv1.StreamWrite{{
				Stream: "claim-1", ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: "test.Event"}},
			}}}, core.Provenance{})
			require.NoError(t, err)
		}
		select {
		case <-o.desk.rung:
			return true
		default:
			return false
		}
	}
	require.Nil(t, o.Step(now))
	hand(0) // of being assigned
	require.True(t, hand(1), "nothing is on its way")
	for _, batch := range []int{1, 40, 400} {
		hand(batch - o.desk.waiting())
		op := o.Step(now)
		require.NotNil(t, op)
		require.Nil(t, o.Step(now))
		few := rouse(len(op.Records))
		if few > 1 {
			require.False(t, hand(few-1), "%d beside %d on their way", few-1, batch)
		}
		require.True(t, hand(1))
		for op != nil {
			done(o, now, Result{Offset: j.take(t, op.Records)})
			op = o.Step(now)
		}
	}
	require.True(t, hand(1), "nothing is on its way")
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
	done(o, now, Result{Offset: j.take(t, op.Records)})
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
		done(o, now, Result{Err: ErrFenced})
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
		done(o, now, Result{Offset: 0})
		op = o.Step(now.Add(fencedPause))
		require.Equal(t, Begin, op.Kind)
		require.Nil(t, op.Last, "it takes the shard from whoever has it")
	}
}

// Given an append whose acknowledgement was lost and an owner that then finds
// the shard taken by another session, then it doesn't say that nothing was
// appended, which would send the append on as if it had never been sent; what
// never left its queue may be sent on.
func TestAnUnknownOutcomeIsNotRefusedAsAnothers(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		o, j := owning(t)
		sent, repeated := submit(t, o, "r1", -1), submit(t, o, "r1", -1)
		lost := o.Step(now)
		require.Len(t, lost.Records, 1)
		queued := submit(t, o, "r2", core.Any)
		require.Nil(t, o.Step(now))
		j.take(t, lost.Records)
		done(o, now, Result{Err: errors.New("the connection broke")})
		if stopped {
			o.Stop()
		} else {
			barrier, err := core.Barrier("claims", 0, j.head.Term+1, j.head.Next, "s2", now)
			require.NoError(t, err)
			j.take(t, []Record{{Value: barrier}})
		}
		at := now
		for !settled(sent) {
			if op := o.Step(at); op != nil {
				require.Equal(t, AskEnd, op.Kind)
				done(o, at, Result{Offset: j.offset})
				continue
			}
			if !settled(sent) {
				at = o.Wake()
			}
		}
		for p, rule := range map[*Pending]string{sent: "ledger.append.outcome-unknown", repeated: RuleNotOwner, queued: RuleNotOwner} {
			require.True(t, settled(p))
			var refused *problem.Error
			require.ErrorAs(t, p.err, &refused)
			require.Equal(t, rule, refused.Problems[0].RuleID)
			require.True(t, refused.Retryable())
		}
	}
}

// Given an append that was sent twice and whose group's acknowledgement was
// lost, when the owner finds it made, then one of the two is answered as the
// first and the other as its repetition.
func TestOfTwoAlikeOneIsTheRepetition(t *testing.T) {
	for _, landed := range []bool{false, true} {
		o, j := owning(t)
		first, second := submit(t, o, "r1", -1), submit(t, o, "r1", -1)
		lost := o.Step(now)
		require.Len(t, lost.Records, 1)
		if landed {
			j.take(t, lost.Records)
		}
		done(o, now, Result{Err: errors.New("the connection broke")})
		at := now
		for !settled(first) || !settled(second) {
			if op := o.Step(at); op != nil {
				res := Result{Offset: j.offset, Producer: Producer{ID: 1, Epoch: 1}}
				if op.Kind == Produce {
					res.Offset = j.take(t, op.Records)
				}
				done(o, at, res)
				continue
			}
			if wake := o.Wake(); wake.After(at) {
				at = wake
			}
		}
		require.NoError(t, first.err)
		require.NoError(t, second.err)
		require.False(t, first.answer.Replayed)
		require.True(t, second.answer.Replayed)
		require.Equal(t, uint64(1), j.head.Next)
	}
}

// Given more repetitions waiting than leave at once, which are answered
// without a batch, then what waits behind them isn't forgotten.
func TestNothingWaitsBehindWhatIsAnsweredAtOnce(t *testing.T) {
	o, j := owning(t)
	submit(t, o, "r1", -1)
	op := o.Step(now)
	done(o, now, Result{Offset: j.take(t, op.Records)})
	var repeats []*Pending
	for range 3 * minSplit {
		repeats = append(repeats, submit(t, o, "r1", -1))
	}
	fresh := submit(t, o, "r2", 0)
	op = o.Step(now)
	require.NotNil(t, op)
	require.Len(t, op.Records, 1)
	for _, p := range repeats {
		require.True(t, settled(p))
	}
	done(o, now, Result{Offset: j.take(t, op.Records)})
	require.True(t, settled(fresh))
}

// lagging is a replica that judges what was produced some time later, and
// knows what it was told to expect.
type lagging struct {
	*judge
	expected []core.Written
	copies   [][]byte
}

func (l *lagging) Expect(commits []core.Written) {
	l.expected = append(l.expected, commits...)
	for _, c := range commits {
		l.copies = append(l.copies, bytes.Clone(c.Value))
	}
}

// An owner uses the room of its commits again, and never of one that its
// replica may still compare with what it reads, however far that is behind.
func TestTheRoomOfACommitLastsUntilItIsFollowed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o, j := owning(t)
		l := &lagging{judge: j}
		o.cfg.Follower = l
		var written [][]Record // not judged yet
		n := 0
		for range rapid.IntRange(1, 12).Draw(rt, "rounds") {
			for range rapid.IntRange(1, 40).Draw(rt, "appends") {
				n++
				size := rapid.SampledFrom([]int{0, 100, 3000, 70_000}).Draw(rt, "size")
				_, err := o.Submit(&ledgerv1.AppendRequest{Log: "claims", RoutingKey: "k", RequestId: fmt.Sprint(n), Writes: []*ledgerv1.StreamWrite{{
					Stream: "claim-1", ExpectedRevision: core.Any, Events: []*ledgerv1.Event{{Type: "test.Event", Payload: bytes.Repeat([]byte{byte(n)}, size)}},
				}}}, core.Provenance{})
				require.NoError(rt, err)
			}
			if op := o.Step(now); op != nil {
				require.Nil(rt, o.Step(now))
				kept := make([]Record, len(op.Records))
				for i, r := range op.Records {
					kept[i] = Record{Value: bytes.Clone(r.Value)}
				}
				written = append(written, kept)
				done(o, now, Result{})
			}
			for len(written) > 0 && rapid.Bool().Draw(rt, "judged") {
				j.take(t, written[0])
				written = written[1:]
			}
			for i, w := range l.expected {
				if w.Seen.Index >= j.head.Next {
					require.Equal(rt, l.copies[i], w.Value, "index %d", w.Seen.Index)
				}
			}
		}
	})
}
