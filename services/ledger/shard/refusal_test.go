package shard

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
)

// judge follows what an Owner's batches say, as a replica would.
type judge struct {
	*core.Overlay
	head   core.Head
	offset int64
	landed [][3]int64 // offset, index and count of what it was told landed
	left   int
}

type empty struct{}

func (empty) LastRevision(string) (int64, error)      { return core.NoStream, nil }
func (empty) Request(string) (core.Seen, bool, error) { return core.Seen{}, false, nil }

func (j *judge) Head() core.Head           { return j.head }
func (j *judge) Reached(offset int64) bool { return j.offset > offset }
func (j *judge) Halted() error             { return nil }
func (j *judge) Expect([]core.Written)     {}
func (j *judge) Left()                     { j.left++ }
func (j *judge) Landed(offset int64, first uint64, count int) {
	j.landed = append(j.landed, [3]int64{offset, int64(first), int64(count)})
}

func (j *judge) take(t *testing.T, records []Record) int64 {
	t.Helper()
	first := j.offset
	for _, r := range records {
		got, err := core.Judge(j.head, j, r.Value)
		require.NoError(t, err)
		if got.Verdict == core.Accepted {
			j.Add(got.Commit, got.Seen)
		}
		j.head = got.Head
		j.offset++
	}
	return first
}

func owning(t *testing.T) (*Owner, *judge) {
	t.Helper()
	key, _, err := note.GenerateKey(rand.Reader, "ledger.test/health")
	require.NoError(t, err)
	signer, err := note.NewSigner(key)
	require.NoError(t, err)
	j := &judge{Overlay: core.NewOverlay(empty{}), head: core.Head{Log: "claims"}}
	o := NewOwner(OwnerConfig{
		Log: "claims", Origin: "ledger.test/health", Signer: signer, Follower: j, Session: "s1",
		Renew: time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	o.Assign()
	for o.State() != Owning {
		op := o.Step(now)
		require.NotNil(t, op)
		res := Result{Offset: j.offset, Producer: Producer{ID: 1}}
		if op.Kind == Produce {
			res.Offset = j.take(t, op.Records)
		}
		done(o, now, res)
		if op.Kind == Produce {
			require.Nil(t, o.Step(now))
		}
	}
	return o, j
}

var now = time.UnixMilli(1_700_000_000_000)

func submit(t *testing.T, o *Owner, id string, expected int64) *Pending {
	t.Helper()
	p, err := o.Submit(&ledgerv1.AppendRequest{Log: "claims", RoutingKey: "k", RequestId: id, Writes: []*ledgerv1.StreamWrite{{
		Stream: "claim-1", ExpectedRevision: expected, Events: []*ledgerv1.Event{{Type: "test.Event"}},
	}}}, core.Provenance{})
	require.NoError(t, err)
	return p
}

// done is the broker's answer, and the callers' that follow from it.
func done(o *Owner, at time.Time, res Result) {
	o.Done(at, res)
	o.Answer()
}

func settled(p *Pending) bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Given an append in flight that comes to nothing and whose caller has left,
// when another was in conflict with it alone, then the other is made: nobody
// is refused for what never was.
func TestARefusalDoesNotRestOnWhatNeverWas(t *testing.T) {
	o, j := owning(t)
	first := submit(t, o, "r1", -1)
	lost := o.Step(now)
	require.Len(t, lost.Records, 1)
	second := submit(t, o, "r2", -1)
	require.Nil(t, o.Step(now))
	require.False(t, settled(second), "it was refused for an append that is still in flight")

	ctx, leave := context.WithCancel(t.Context())
	leave()
	_, err := first.Wait(ctx)
	require.Error(t, err)
	done(o, now, Result{Err: errors.New("the connection broke")})
	at := now
	for !settled(second) {
		if op := o.Step(at); op != nil {
			res := Result{Offset: j.offset, Producer: Producer{ID: 1, Epoch: 1}}
			if op.Kind == Produce {
				res.Offset = j.take(t, op.Records)
			}
			done(o, at, res)
			continue
		}
		require.False(t, o.Wake().IsZero())
		at = o.Wake()
	}
	answer, err := second.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, []uint64{0}, answer.Revisions)
	require.False(t, answer.Replayed)
}

// Given an owner that was deposed and doesn't know, when an append conflicts
// with all it knows, then it asks the broker first, and is fenced.
func TestADeposedOwnerRefusesNothing(t *testing.T) {
	o, j := owning(t)
	p := submit(t, o, "r1", 7)
	op := o.Step(now)
	require.NotNil(t, op, "nothing to write, and still it must make sure")
	require.False(t, settled(p))
	got, err := core.Judge(j.head, j, op.Records[0].Value)
	require.NoError(t, err)
	require.Equal(t, core.Heartbeat, got.Verdict, "which takes no index")
	done(o, now, Result{Err: ErrFenced})
	var conflict *core.ConflictError
	require.False(t, settled(p) && errors.As(p.err, &conflict), "a deposed owner gave a verdict")
}

// Given an owner that still is one, the same append is refused.
func TestAnOwnerRefusesAfterItsHeartbeat(t *testing.T) {
	o, j := owning(t)
	p := submit(t, o, "r1", 7)
	op := o.Step(now)
	done(o, now, Result{Offset: j.take(t, op.Records)})
	_, err := p.Wait(t.Context())
	var conflict *core.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, core.NoStream, conflict.Actual)
	require.Zero(t, j.head.Next)
}
