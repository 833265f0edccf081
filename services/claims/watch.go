package claims

import "sync"

// watch wakes those who wait for a claim to change. It carries no state: who
// is woken reads the claim again, so a wake too many costs a read and a wake
// too few is made up for by the waiter's own slow rhythm.
type watch struct {
	max int

	mu      sync.Mutex // guards the two below
	waiters map[string][]chan struct{}
	count   int
}

func newWatch(limit int) *watch {
	return &watch{max: limit, waiters: map[string][]chan struct{}{}}
}

// join returns a channel that is sent to after the claim changes, and how to
// leave; ok is false when too many are waiting.
func (w *watch) join(claim string) (changed <-chan struct{}, leave func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count >= w.max {
		return nil, nil, false
	}
	c := make(chan struct{}, 1)
	w.waiters[claim] = append(w.waiters[claim], c)
	w.count++
	return c, func() { w.leave(claim, c) }, true
}

func (w *watch) leave(claim string, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := w.waiters[claim][:0]
	for _, other := range w.waiters[claim] {
		if other != c {
			rest = append(rest, other)
		}
	}
	w.count--
	if w.waiters[claim] = rest; len(rest) == 0 {
		delete(w.waiters, claim)
	}
}

// tell wakes the claim's waiters; one that is awake already is left alone.
func (w *watch) tell(claim string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.waiters[claim] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
