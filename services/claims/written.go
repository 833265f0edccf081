package claims

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/probity-health/probity/services/eventstore"
)

// written is the ledger with a memory of how far this process has written the
// claims log: what its lists must show before they say all that it did.
type written struct {
	eventstore.Store

	mu   sync.Mutex        // guards next
	next map[uint32]uint64 // by shard
}

func newWritten(s eventstore.Store) *written { return &written{Store: s, next: map[uint32]uint64{}} }

// Append implements eventstore.Store.
func (w *written) Append(ctx context.Context, c eventstore.Commit) (eventstore.Appended, error) {
	done, err := w.Store.Append(ctx, c)
	if err == nil {
		w.note(done.Position)
	}
	return done, err
}

// AppendBatch implements eventstore.Store.
func (w *written) AppendBatch(ctx context.Context, cs []eventstore.Commit) ([]eventstore.Outcome, error) {
	out, err := w.Store.AppendBatch(ctx, cs)
	for _, o := range out {
		if err == nil && o.Err == nil {
			w.note(o.Appended.Position)
		}
	}
	return out, err
}

func (w *written) note(p eventstore.Position) {
	if p.Log != logName {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next[p.Shard] = max(w.next[p.Shard], p.Index+1)
}

func (w *written) upTo() map[uint32]uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.next)
}

// ownPatience bounds the wait for lists that are far behind.
const ownPatience = 2 * time.Second

// ownListed waits until the lists show what this process has written. Lists
// that are far behind are taken as they are: who reads them there knows that
// they may be.
func (s *Service) ownListed(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, ownPatience)
	defer cancel()
	_ = s.listed(ctx, s.written.upTo())
}
