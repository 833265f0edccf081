package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/e2e/claimgen"
	"github.com/probity-health/probity/services/sample"
)

func TestAFigureIsTheMedianOfItsRoundsWithTheirSpread(t *testing.T) {
	r := &Report{}
	for _, v := range []float64{30, 10, 20} {
		r.Add("rate", v, "claims/s", Higher)
	}
	r.Add("delay", 4, "ms", Lower)
	r.Add("delay", 2, "ms", Lower)

	path := filepath.Join(t.TempDir(), "bench", "latest.json")
	require.NoError(t, r.Write(path))
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	var read []Figure
	require.NoError(t, json.Unmarshal(raw, &read))
	require.Equal(t, []Figure{
		{Name: "rate", Value: 20, Unit: "claims/s", Better: Higher, Also: Higher, Spread: 20, Rounds: []float64{30, 10, 20}},
		{Name: "delay", Value: 3, Unit: "ms", Better: Lower, Also: Lower, Spread: 2, Rounds: []float64{4, 2}},
	}, read)

	var table bytes.Buffer
	r.Print(&table)
	require.Contains(t, table.String(), "100 %", "the spread is a share of the median for people")
}

func TestAQuantileBetweenTwoIsTheSlower(t *testing.T) {
	var l latencies
	for i := range 100 {
		l = append(l, time.Duration(100-i)*time.Millisecond)
	}
	require.InDelta(t, 51, l.at(0.50), 1e-9)
	require.InDelta(t, 100, l.at(0.99), 1e-9)
	require.InDelta(t, 7, latencies{7 * time.Millisecond}.at(0.99), 1e-9)
}

func TestGeneratedClaimsAreFitToSubmitAndAllDifferent(t *testing.T) {
	world := claimgen.New(1, 20, claimgen.Payer{ID: sample.PayerID, Name: "KEYSTONE HEALTH PLAN", PolicyID: "pol_tidewater_gold"}, providers)
	claims, err := submissions(world.File(2, 200, 1, rpcMonths), "rpc")
	require.NoError(t, err)
	require.Len(t, claims, 200)
	seen := map[string]bool{}
	for _, c := range claims {
		require.False(t, seen[c.GetRequestId()], "request ids differ")
		seen[c.GetRequestId()] = true
	}
}

func TestTheEnginesClaimIsPaid(t *testing.T) {
	rate, err := engineRate(time.Millisecond)
	require.NoError(t, err)
	require.Positive(t, rate)
}
