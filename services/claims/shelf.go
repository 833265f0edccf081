package claims

import (
	"container/list"
	"context"
	"sync"
)

// shelf is a bounded store of things that were lately used, each held by one
// caller at a time. What lies on it is only ever a guess at what the ledger
// says: the ledger refuses a commit that was decided on a wrong guess.
//
// Callers that hold several entries take them in ascending order of key, so
// that nobody waits in a circle.
type shelf[T any] struct {
	max int // weight of all entries; those that are held may exceed it

	mu     sync.Mutex               // guards what is below and every entry's holders and weight
	byKey  map[string]*list.Element // of *entry[T]
	order  *list.List               // most lately used first
	weight int
}

// entry is one thing. Whoever has taken gate owns value.
type entry[T any] struct {
	key     string
	gate    chan struct{} // holds one token while the entry is free
	holders int           // callers that hold or await it; only with 0 may it go
	weight  int           // 1, unless weigh says otherwise

	value T
}

func newShelf[T any](limit int) *shelf[T] {
	return &shelf[T]{max: limit, byKey: map[string]*list.Element{}, order: list.New()}
}

// hold takes the entry for the caller until release, making it when missing.
func (s *shelf[T]) hold(ctx context.Context, key string) (*entry[T], error) {
	e := s.reach(key)
	select {
	case <-e.gate:
		return e, nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		e.holders--
		return nil, busy(ctx.Err())
	}
}

func (s *shelf[T]) reach(key string) *entry[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	el, ok := s.byKey[key]
	if !ok {
		e := &entry[T]{key: key, gate: make(chan struct{}, 1), weight: 1}
		e.gate <- struct{}{}
		el = s.order.PushFront(e)
		s.byKey[key] = el
		s.weight++
	}
	s.order.MoveToFront(el)
	e := el.Value.(*entry[T])
	e.holders++
	s.evict()
	return e
}

// release gives the entry back.
func (s *shelf[T]) release(e *entry[T]) {
	s.mu.Lock()
	e.holders--
	s.mu.Unlock()
	e.gate <- struct{}{}
}

// weigh says what a held entry now weighs.
func (s *shelf[T]) weigh(e *entry[T], weight int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.weight += weight - e.weight
	e.weight = weight
}

// evict drops the longest unused entries above the limit, those in use
// excepted; mu is held.
func (s *shelf[T]) evict() {
	for el := s.order.Back(); el != nil && s.weight > s.max; {
		before := el.Prev()
		if e := el.Value.(*entry[T]); e.holders == 0 {
			s.order.Remove(el)
			delete(s.byKey, e.key)
			s.weight -= e.weight
		}
		el = before
	}
}
