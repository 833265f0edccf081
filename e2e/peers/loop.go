package peers

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// system is one that appends events durably.
type system interface {
	// append appends one event to a stream of its own, as its first, and
	// returns when it is durable. It is called from many goroutines.
	append(ctx context.Context, payload []byte) error
	close() error
}

// later is a system that puts work off which its appends made. Its rounds end
// with that work: it must not fall on who is measured next.
type later interface {
	// settle returns when nothing is put off any more.
	settle(ctx context.Context) error
}

// measured is one round of one system at one concurrency.
type measured struct {
	rate     float64 // appends a second
	took     time.Duration
	p50, p99 time.Duration
}

// loop calls from several callers, each waiting for its answer, for a while.
// Calls that are under way at the end are waited for and count.
func loop(ctx context.Context, callers int, length time.Duration, call func(context.Context) error) (measured, error) {
	took, errs := make([][]time.Duration, callers), make([]error, callers)
	var wg sync.WaitGroup
	start := time.Now()
	end := start.Add(length)
	for c := range callers {
		wg.Go(func() {
			for now := time.Now(); now.Before(end); {
				if errs[c] = call(ctx); errs[c] != nil {
					return
				}
				done := time.Now()
				took[c] = append(took[c], done.Sub(now))
				now = done
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return measured{}, err
		}
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return measured{}, fmt.Errorf("nothing finished within %v", length)
	}
	slices.Sort(all)
	return measured{rate: float64(len(all)) / elapsed.Seconds(), took: elapsed, p50: all[len(all)/2], p99: all[len(all)*99/100]}, nil
}
