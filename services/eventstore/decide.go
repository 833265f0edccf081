package eventstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/probity-health/probity/services/problem"
)

// DefaultAttempts is enough for a handful of writers on one stream; more
// contention than that should be routed, not retried.
const DefaultAttempts = 8

// Decide is the optimistic loop: decide loads what it needs, and returns the
// commit that follows from it; on a conflict it is asked again, at most
// attempts times in all (0 is DefaultAttempts). It must read afresh each time
// and give the same RequestID each time, so that a commit whose answer was
// lost is found and not repeated. A commit without writes means that there is
// nothing to record: the answer is then the zero Appended.
//
// When the stream is still moving after the last attempt the error is
// Unavailable (safe to retry) and wraps the *ConflictError.
func Decide(ctx context.Context, s Store, attempts int, decide func(context.Context) (Commit, error)) (Appended, error) {
	if attempts <= 0 {
		attempts = DefaultAttempts
	}
	var last error
	for n := range attempts {
		if n > 0 {
			// The reading replica may be behind the writer that won; give it a moment.
			if err := pause(ctx, time.Millisecond<<min(n, 6)); err != nil {
				return Appended{}, err
			}
		}
		c, err := decide(ctx)
		if err != nil {
			return Appended{}, err
		}
		if len(c.Writes) == 0 {
			return Appended{}, nil
		}
		a, err := s.Append(ctx, c)
		if err == nil || !IsConflict(err) {
			return a, err
		}
		last = err
	}
	return Appended{}, problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "eventstore.contended",
		Message: "others kept changing the same record",
		Fix:     "send the same request again in a moment",
	}).Because(last)
}

// pause waits between half of d and d, or until ctx ends. The jitter keeps
// writers that collided from colliding again.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return contextProblem(ctx.Err())
	case <-t.C:
		return nil
	}
}

// contextProblem says that the caller's time ran out or that it went away.
func contextProblem(err error) error {
	message := "the request was cancelled"
	if errors.Is(err, context.DeadlineExceeded) {
		message = "the request's time ran out"
	}
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "eventstore.deadline",
		Message: message,
		Fix:     "send the same request again; what was recorded is not recorded twice",
	}).Because(err)
}
