package ledgerbench_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/ledger/ledgerbench"
)

func TestTheBenchMeasuresEveryFigure(t *testing.T) {
	figures, err := ledgerbench.Run(t.Context(), ledgerbench.Options{Rounds: 1, Round: 100 * time.Millisecond, Callers: []int{1, 16}})
	require.NoError(t, err)
	require.Len(t, figures, 9)
	for _, f := range figures {
		require.Positive(t, f.Rate, f.Name)
		t.Log(f)
	}
}

// BenchmarkLedger prints the figures: go test -run '^$' -bench Ledger -benchtime 1x.
func BenchmarkLedger(b *testing.B) {
	for range b.N {
		figures, err := ledgerbench.Run(b.Context(), ledgerbench.Options{})
		require.NoError(b, err)
		for _, f := range figures {
			b.Log(f)
		}
	}
}
