// Package interest reckons what a payer owes on top of a claim that it paid
// later than the prompt-pay law of the provider's state allows.
//
// It is pure: dates and amounts are passed in. It doesn't judge whether a
// claim was clean, which is the caller's to know: the laws owe interest on a
// clean claim only.
package interest

import (
	"math/big"
	"time"

	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/money"
)

// Rates are annual rates of simple interest in basis points, by two-letter
// state. A state that isn't there owes none.
type Rates map[string]int64

// Published are the rates of codes.PromptPay, the one table of prompt-pay
// rules, where a statute names a single rate.
func Published() Rates {
	out := Rates{}
	for _, state := range codes.PromptPayStates() {
		if bps := codes.PromptPay(state).InterestBps; bps > 0 {
			out[state] = bps
		}
	}
	return out
}

// dayCount is the year of simple interest: 365 days, leap years too.
const dayCount = 365

// DaysLate is how many days after the last day allowed something was paid; 0
// when in time. Days are ISO 8601; one that isn't a day is in time, since no
// lateness can be proven by it.
func DaysLate(due, paidOn string) int64 {
	last, err1 := time.Parse(time.DateOnly, due)
	paid, err2 := time.Parse(time.DateOnly, paidOn)
	if err1 != nil || err2 != nil || !paid.After(last) {
		return 0
	}
	return int64(paid.Sub(last) / (24 * time.Hour))
}

// Owed is the simple interest on an amount paid late: amount, times the
// state's rate, times the days, over 365 and 10,000, rounded half up to the
// cent. That is the only rounding; nothing is owed on nothing, or in time.
func (r Rates) Owed(state string, paid money.Cents, daysLate int64) money.Cents {
	bps := r[state]
	if paid <= 0 || daysLate <= 0 || bps <= 0 {
		return 0
	}
	// Three factors may pass an int64 where the result doesn't.
	n := big.NewInt(int64(paid))
	n.Mul(n, big.NewInt(bps)).Mul(n, big.NewInt(daysLate))
	unit := big.NewInt(dayCount * 10_000)
	n.Add(n, new(big.Int).Rsh(unit, 1)).Quo(n, unit)
	if !n.IsInt64() {
		return 0
	}
	return money.Cents(n.Int64())
}
