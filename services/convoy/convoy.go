// Package convoy lets what many callers send at the same time travel together
// in one call. Nobody waits for company: a request leaves at once while few
// calls are under way, and what comes meanwhile leaves with the next.
package convoy

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

// ErrFull says that more requests wait than a Convoy holds.
var ErrFull = errors.New("convoy: too many requests are waiting")

// Options say how requests travel.
type Options[Q, A any] struct {
	// Call sends requests together and returns an answer for each, in their
	// order, or an error for all. Its context is no caller's: one who gives
	// up doesn't take the others along.
	Call func(ctx context.Context, requests []Q) ([]A, error)
	// Size is a request's share of Bytes; nil counts nothing.
	Size func(Q) int
	// Lanes is how many calls are under way at once.
	Lanes int
	// Most and Bytes bound one call; a request larger than Bytes goes alone.
	Most, Bytes int
	// Queue bounds the requests that wait; 0 is no bound.
	Queue int
	// Timeout bounds one call.
	Timeout time.Duration
}

// Convoy is safe for concurrent use.
type Convoy[Q, A any] struct {
	o Options[Q, A]

	mu      sync.Mutex // guards what follows
	flying  int
	waiting []*Ticket[Q, A]
}

// Ticket is a request on its way.
type Ticket[Q, A any] struct {
	ctx     context.Context // of who waits for it
	request Q
	size    int
	done    chan struct{} // closed when the two below are set
	answer  A
	err     error
}

// New returns a Convoy that calls as o says.
func New[Q, A any](o Options[Q, A]) *Convoy[Q, A] { return &Convoy[Q, A]{o: o} }

// Do sends a request and waits for its answer. When ctx ends first the
// request may have been sent or not.
func (c *Convoy[Q, A]) Do(ctx context.Context, request Q) (A, error) {
	return c.Send(ctx, request).Wait(ctx)
}

// Send puts a request on its way. It stays at home if ctx ends before it leaves.
func (c *Convoy[Q, A]) Send(ctx context.Context, request Q) *Ticket[Q, A] {
	t := &Ticket[Q, A]{ctx: ctx, request: request, done: make(chan struct{})}
	if c.o.Size != nil {
		t.size = c.o.Size(request)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.Queue > 0 && len(c.waiting) >= c.o.Queue {
		t.err = ErrFull
		close(t.done)
		return t
	}
	c.waiting = append(c.waiting, t)
	if c.flying < c.o.Lanes {
		c.flying++
		go c.lane()
	}
	return t
}

// Wait waits for the answer, or for ctx to end.
func (t *Ticket[Q, A]) Wait(ctx context.Context) (A, error) {
	select {
	case <-t.done:
		return t.answer, t.err
	case <-ctx.Done():
		var none A
		return none, ctx.Err()
	}
}

// lane calls until nothing waits.
func (c *Convoy[Q, A]) lane() {
	for {
		// Those who can run now go first: callers that the last call answered
		// are about to send again. Without it the first of them would travel
		// alone, and the others wait for a lane.
		runtime.Gosched()
		some := c.next()
		if len(some) == 0 {
			return
		}
		c.call(some)
	}
}

// next takes what travels together off the queue; with none it gives the lane up.
func (c *Convoy[Q, A]) next() []*Ticket[Q, A] {
	c.mu.Lock()
	defer c.mu.Unlock()
	var some []*Ticket[Q, A]
	n, size := 0, 0
	for ; n < len(c.waiting) && len(some) < c.o.Most; n++ {
		t := c.waiting[n]
		if err := t.ctx.Err(); err != nil {
			t.err = err
			close(t.done)
			continue
		}
		if size += t.size; len(some) > 0 && size > c.o.Bytes {
			break
		}
		some = append(some, t)
	}
	if c.waiting = c.waiting[n:]; len(c.waiting) == 0 {
		c.waiting = nil
	}
	if len(some) == 0 {
		c.flying--
	}
	return some
}

func (c *Convoy[Q, A]) call(some []*Ticket[Q, A]) {
	ctx, cancel := context.WithTimeout(context.Background(), c.o.Timeout)
	defer cancel()
	requests := make([]Q, len(some))
	for i, t := range some {
		requests[i] = t.request
	}
	answers, err := c.o.Call(ctx, requests)
	if err == nil && len(answers) != len(some) {
		err = errors.New("convoy: another number of answers than requests")
	}
	for i, t := range some {
		if t.err = err; err == nil {
			t.answer = answers[i]
		}
		close(t.done)
	}
}
