package convoy_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/convoy"
)

// slow doubles numbers, one call at a time when the test says so.
type slow struct {
	mu    sync.Mutex
	calls [][]int
	begun chan struct{}
	goOn  chan error
}

func (s *slow) call(_ context.Context, in []int) ([]int, error) {
	s.mu.Lock()
	s.calls = append(s.calls, in)
	s.mu.Unlock()
	s.begun <- struct{}{}
	if err := <-s.goOn; err != nil {
		return nil, err
	}
	out := make([]int, len(in))
	for i, n := range in {
		out[i] = 2 * n
	}
	return out, nil
}

func newSlow(o convoy.Options[int, int]) (*slow, *convoy.Convoy[int, int]) {
	s := &slow{begun: make(chan struct{}, 100), goOn: make(chan error, 100)}
	o.Call, o.Timeout = s.call, time.Minute
	return s, convoy.New(o)
}

// Given one call under way, when more is sent, then it leaves together, in
// order, as far as the bounds allow, and each gets its own answer.
func TestWhatComesMeanwhileTravelsTogether(t *testing.T) {
	s, c := newSlow(convoy.Options[int, int]{Lanes: 1, Most: 3, Bytes: 100, Size: func(n int) int { return n }})
	var tickets []*convoy.Ticket[int, int]
	send := func(n int) { tickets = append(tickets, c.Send(t.Context(), n)) }
	send(1)
	<-s.begun
	for _, n := range []int{2, 3, 4, 60, 50, 500, 5} {
		send(n)
	}
	for range 6 {
		s.goOn <- nil
	}
	for i, n := range []int{1, 2, 3, 4, 60, 50, 500, 5} {
		got, err := tickets[i].Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2*n, got)
	}
	require.Equal(t, [][]int{{1}, {2, 3, 4}, {60}, {50}, {500}, {5}}, s.calls)
}

// Given callers that share a call, when it fails, then all hear it, and when
// one gives up, the others don't.
func TestOneCallersEndIsItsOwn(t *testing.T) {
	s, c := newSlow(convoy.Options[int, int]{Lanes: 1, Most: 10})
	first := c.Send(t.Context(), 1)
	<-s.begun
	gone, leave := context.WithCancel(t.Context())
	left := c.Send(gone, 2)
	stays := c.Send(t.Context(), 3)
	leave()
	failed := errors.New("no")
	s.goOn <- failed
	_, err := first.Wait(t.Context())
	require.ErrorIs(t, err, failed)
	s.goOn <- nil
	got, err := stays.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 6, got)
	_, err = left.Wait(t.Context())
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, [][]int{{1}, {3}}, s.calls, "nobody waited for the second")
}

// Given a full queue, then the next request fails at once.
func TestAFullQueueRefuses(t *testing.T) {
	s, c := newSlow(convoy.Options[int, int]{Lanes: 1, Most: 10, Queue: 2})
	c.Send(t.Context(), 1)
	<-s.begun
	c.Send(t.Context(), 2)
	last := c.Send(t.Context(), 3)
	_, err := c.Do(t.Context(), 4)
	require.ErrorIs(t, err, convoy.ErrFull)
	s.goOn <- nil
	s.goOn <- nil
	got, err := last.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 6, got)
}
