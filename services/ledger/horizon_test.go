package ledger

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Given calls that begin one after the other, then each is ended once it has
// waited for the bound and before a tenth more, and those of the same moments
// by the same timer.
func TestCallsOfTheSameMomentsShareAHorizon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &horizon{after: 30 * time.Second}
		began := map[<-chan struct{}][]time.Time{}
		for range 100 {
			now := time.Now()
			past := h.from(now)
			began[past] = append(began[past], now)
			time.Sleep(200 * time.Millisecond)
		}
		require.Len(t, began, 7, "20 s of calls, 3 s a timer")
		for past, calls := range began {
			<-past
			for _, start := range calls {
				waited := time.Since(start)
				require.GreaterOrEqual(t, waited, 30*time.Second)
			}
		}
		start := time.Now()
		<-h.from(start)
		require.InDelta(t, 33, time.Since(start).Seconds(), .001)
	})
}
