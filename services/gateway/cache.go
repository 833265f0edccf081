package gateway

import (
	"container/list"
	"context"
	"sync"

	"github.com/probity-health/probity/services/gateway/x12"
)

// openFile is a registered file at hand: its bytes and where its claims are.
type openFile struct {
	spool  *spool
	parsed *x12.File
}

// shelf keeps the files that were worked on last. Chunks of one file come in
// quick succession from several workers; a file is fetched once for all.
//
// mu guards everything below it. An entry with users > 0 stays open; one that
// is dropped meanwhile is closed by its last user.
type shelf struct {
	maxFiles int
	maxBytes int64

	mu      sync.Mutex
	entries map[string]*entry
	order   *list.List // of *entry, most recently used first
	bytes   int64
}

type entry struct {
	id      string
	users   int
	dropped bool
	place   *list.Element
	ready   chan struct{} // closed once file or err is set
	file    *openFile
	err     error
}

func newShelf(maxFiles int, maxBytes int64) *shelf {
	return &shelf{maxFiles: maxFiles, maxBytes: maxBytes, entries: map[string]*entry{}, order: list.New()}
}

// take returns the file, fetching it when it is not at hand; done must be
// called when it is no longer used. A fetch that failed is not remembered.
func (s *shelf) take(ctx context.Context, id string, fetch func(context.Context) (*openFile, error)) (file *openFile, done func(), err error) {
	s.mu.Lock()
	e := s.entries[id]
	mine := e == nil
	if mine {
		e = &entry{id: id, ready: make(chan struct{})}
		e.place = s.order.PushFront(e)
		s.entries[id] = e
	} else {
		s.order.MoveToFront(e.place)
	}
	e.users++
	s.mu.Unlock()

	if mine {
		// The others wait for this fetch: it must not end with this caller's context.
		f, err := fetch(context.WithoutCancel(ctx))
		s.mu.Lock()
		e.file, e.err = f, err
		if err != nil {
			s.drop(e)
		} else {
			s.bytes += f.spool.size
			s.shrink()
		}
		close(e.ready)
		s.mu.Unlock()
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		s.release(e)
		return nil, nil, ctx.Err()
	}
	if e.err != nil {
		s.release(e)
		return nil, nil, e.err
	}
	return e.file, sync.OnceFunc(func() { s.release(e) }), nil
}

// put lays a file that is at hand on the shelf, which closes it from then on.
func (s *shelf) put(id string, f *openFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[id] != nil {
		f.spool.close() // sent again: the same bytes are there, or on their way
		return
	}
	e := &entry{id: id, ready: make(chan struct{}), file: f}
	close(e.ready)
	e.place = s.order.PushFront(e)
	s.entries[id] = e
	s.bytes += f.spool.size
	s.shrink()
}

func (s *shelf) release(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.users--
	s.closeUnused(e)
	s.shrink()
}

// shrink drops the least recently used entries beyond the bounds; those in use are left. mu is held.
func (s *shelf) shrink() {
	for el := s.order.Back(); el != nil && (s.order.Len() > s.maxFiles || s.bytes > s.maxBytes); {
		e := el.Value.(*entry)
		el = el.Prev()
		if e.users == 0 {
			s.drop(e)
			s.closeUnused(e)
		}
	}
}

// drop forgets an entry. mu is held.
func (s *shelf) drop(e *entry) {
	if e.dropped {
		return
	}
	e.dropped = true
	s.order.Remove(e.place)
	delete(s.entries, e.id)
	if e.file != nil {
		s.bytes -= e.file.spool.size
	}
}

// closeUnused closes a dropped entry that nobody uses. mu is held.
func (s *shelf) closeUnused(e *entry) {
	if e.dropped && e.users == 0 && e.file != nil {
		e.file.spool.close()
		e.file = nil
	}
}

// close drops everything; files in use are closed by their last user.
func (s *shelf) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		s.drop(e)
		s.closeUnused(e)
	}
}
