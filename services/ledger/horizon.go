package ledger

import (
	"sync"
	"time"
)

// horizon bounds how long calls wait: those of some seconds share a timer,
// since one for each would cost more than what most of them do. Safe for
// concurrent use.
type horizon struct {
	after time.Duration

	mu   sync.Mutex // guards what follows
	made time.Time
	past chan struct{}
}

// from returns a channel that is closed when a call that began at start has
// waited long enough: after the bound, and before a tenth more of it.
func (h *horizon) from(start time.Time) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	slack := h.after / 10
	if h.past == nil || start.Sub(h.made) >= slack {
		past := make(chan struct{})
		h.made, h.past = start, past
		time.AfterFunc(h.after+slack, func() { close(past) })
	}
	return h.past
}
