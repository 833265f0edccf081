package claims

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// readAttempts bounds how often a reader asks again for what a conflict says
// is there: a reading replica may be some milliseconds behind the writer.
const readAttempts = 8

// readAtLeast reads a stream's events after a revision, at least up to the
// revision atLeast (eventstore.NoStream for whatever is there).
func readAtLeast(ctx context.Context, store eventstore.Store, key, stream string, after, atLeast int64) ([]eventstore.Recorded, error) {
	for n := range readAttempts {
		if n > 0 {
			if err := pause(ctx, time.Millisecond<<n); err != nil {
				return nil, err
			}
		}
		events, err := store.Read(ctx, logName, key, stream, uint64(after+1))
		if err != nil {
			return nil, err
		}
		if have := after + int64(len(events)); have >= atLeast {
			return events, nil
		}
	}
	return nil, busy(nil)
}

// readClaim loads a claim and its events.
func (s *Service) readClaim(ctx context.Context, id string, atLeast int64) (State, []eventstore.Recorded, error) {
	if !isID("clm", id) {
		return State{}, nil, notFound("claim")
	}
	events, err := readAtLeast(ctx, s.store, claimKey(id), claimStream(id), eventstore.NoStream, atLeast)
	if err != nil {
		return State{}, nil, err
	}
	state := Fold(events)
	if !state.Exists() {
		return State{}, nil, notFound("claim")
	}
	return state, events, nil
}

// pause waits about d, or until ctx ends; the jitter keeps callers that
// collided from colliding again.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return busy(ctx.Err())
	case <-t.C:
		return nil
	}
}

// busy says that nothing is wrong but the moment.
func busy(cause error) error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "claims.busy",
		Message: "the claim or its family is being changed by others just now",
		Fix:     "send the same request again in a moment; it is not decided twice",
	}).Because(cause)
}
