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

	"github.com/probity-health/probity/services/money"
)

// Rates are annual rates of simple interest in basis points, by two-letter
// state. A state that isn't there owes none.
type Rates map[string]int64

// Published are the rates that published overviews of the statutes agree on,
// where the statute names one rate. States with steps (Kentucky, Maryland),
// with penalties instead of interest or with a rate that is set every year
// are left out. It is a starting point as the days of codes.PromptPayDays
// are: a payer's counsel confirms its own states.
func Published() Rates {
	return Rates{
		"CA": 1500, // Health and Safety Code 1371
		"CO": 1000, // C.R.S. 10-16-106.5
		"CT": 1500, // Conn. Gen. Stat. 38a-816(15)
		"FL": 1200, // Fla. Stat. 627.6131
		"GA": 1200, // O.C.G.A. 33-24-59.5
		"IL": 900,  // 215 ILCS 5/368a
		"MA": 1800, // M.G.L. c. 176G s. 6: 1.5 % a month
		"MI": 1200, // MCL 500.2006
		"MN": 1800, // Minn. Stat. 62Q.75: 1.5 % a month
		"MO": 1200, // RSMo 376.383: 1 % a month
		"NC": 1800, // N.C.G.S. 58-3-225
		"NJ": 1200, // N.J.S.A. 17B:26-9.1
		"NY": 1200, // Insurance Law 3224-a
		"OH": 1800, // R.C. 3901.389
		"PA": 1000, // 40 P.S. 991.2166
		"TN": 1200, // T.C.A. 56-7-109: 1 % a month
		"TX": 1800, // Insurance Code 1301.137
	}
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
