package views

import (
	"context"
	"maps"
	"time"

	"github.com/probity-health/probity/services/eventstore"
)

// gatherEvents are written without waiting for more: some batches' worth.
const gatherEvents = 2 * applyOps

// write applies batches, several at once: a batch costs a store far more than
// a command in it does, and what comes within Options.Gather mostly touches
// the same lists. What comes after a rest of that long is written at once; a
// reader who waits, and readers who have no view yet, don't wait for company. It ends when batches is closed, with everything written,
// or with the first error.
func (r *Runner) write(ctx context.Context, p *progress, batches <-chan eventstore.Batch) (progressed bool, err error) {
	var whole eventstore.Batch
	var due <-chan time.Time
	eager := false // a reader waits for what has not come yet
	var wrote time.Time
	for {
		select {
		case b, more := <-batches:
			if !more {
				if whole.Next == nil {
					return progressed, nil
				}
				return progressed, r.batch(ctx, p, whole)
			}
			whole = joined(whole, b)
			if len(whole.Events) < gatherEvents && !eager && p.isLive() && time.Since(wrote) < r.view.o.Gather {
				if due == nil {
					due = time.After(r.view.o.Gather)
				}
				continue
			}
		case <-r.view.hurry:
			if whole.Next == nil {
				eager = true
				continue
			}
		case <-due:
		}
		if err := r.batch(ctx, p, whole); err != nil {
			return progressed, err
		}
		progressed, eager, due, whole, wrote = true, false, nil, eventstore.Batch{}, time.Now()
	}
}

// joined is one batch and the one after it.
func joined(a, b eventstore.Batch) eventstore.Batch {
	if a.Next == nil {
		return b
	}
	a.Events, a.CaughtUp = append(a.Events, b.Events...), b.CaughtUp
	maps.Copy(a.Next, b.Next)
	return a
}
