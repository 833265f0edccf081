package interest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/money"
)

func TestInterestIsReckonedByHand(t *testing.T) {
	for _, c := range []struct {
		name  string
		state string
		paid  money.Cents
		days  int64
		want  money.Cents
	}{
		{"a year of Texas is 18 %", "TX", 10000, 365, 1800},
		{"30 days of $100 at 18 %: 1.4794…", "TX", 10000, 30, 148},
		{"one day of $100 at 12 %: 0.0328… is three cents", "NY", 10000, 1, 3},
		{"half a cent is rounded up: $1.00 × 18 % × 10.14 days is beyond it", "TX", 100, 11, 1},
		{"less than half a cent is nothing", "TX", 100, 10, 0},
		{"in time", "TX", 10000, 0, 0},
		{"early", "TX", 10000, -3, 0},
		{"nothing paid", "TX", 0, 100, 0},
		{"a state whose rate isn't known", "ZZ", 10000, 100, 0},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Published().Owed(c.state, c.paid, c.days)) })
	}
}

func TestDaysAreCountedFromTheLastDayAllowed(t *testing.T) {
	require.Zero(t, DaysLate("2026-04-01", "2026-04-01"))
	require.EqualValues(t, 1, DaysLate("2026-04-01", "2026-04-02"))
	require.EqualValues(t, 29, DaysLate("2028-02-01", "2028-03-01"), "a leap year's February")
	require.EqualValues(t, 1, DaysLate("2026-03-08", "2026-03-09"), "a day with 23 hours somewhere is a day")
	require.Zero(t, DaysLate("2026-04-01", "2026-03-01"))
	require.Zero(t, DaysLate("", "2026-03-01"))
}

// Interest grows with the amount and the days, and half a cent is the most
// that rounding moves.
func TestInterestGrowsWithAmountAndDays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		paid := rapid.Int64Range(0, 9_999_999_999).Draw(t, "paid")
		days := rapid.Int64Range(0, 36_500).Draw(t, "days")
		r := Published()
		owed := int64(r.Owed("TX", money.Cents(paid), days))
		require.LessOrEqual(t, owed, int64(r.Owed("TX", money.Cents(paid+1), days)))
		require.LessOrEqual(t, owed, int64(r.Owed("TX", money.Cents(paid), days+1)))
		exact := float64(paid) * 0.18 * float64(days) / 365
		require.InDelta(t, exact, float64(owed), 0.5+exact*1e-12)
	})
}
