package adjudication

import (
	"errors"
	"strings"

	"github.com/probity-health/probity/services/money"
)

// Scope says whose an accumulator is.
type Scope uint8

// The scopes.
const (
	Individual Scope = iota + 1
	Family
)

// String returns the posting's scope, "individual" or "family".
func (s Scope) String() string {
	switch s {
	case Individual:
		return "individual"
	case Family:
		return "family"
	}
	return ""
}

// Kind says what an accumulator counts.
type Kind uint8

// The kinds. Deductible and OutOfPocket are per network tier and plan year;
// Visits and Dollars per benefit and plan year; Lifetime per benefit.
const (
	Deductible  Kind = iota + 1
	OutOfPocket      // deductible, copay and coinsurance the patient owes
	Visits           // benefit's visits, a count
	Dollars          // benefit's plan payments
	Lifetime         // benefit's plan payments, never restarting
)

// Network is the tier an accumulator belongs to.
type Network uint8

// The networks.
const (
	InNetwork Network = iota + 1
	OutOfNetwork
	AllNetworks
)

// String returns "in", "out" or "all".
func (n Network) String() string {
	switch n {
	case InNetwork:
		return "in"
	case OutOfNetwork:
		return "out"
	case AllNetworks:
		return "all"
	}
	return ""
}

// Key names one accumulator of a family.
type Key struct {
	Scope    Scope
	Kind     Kind
	Network  Network
	PlanYear Date   // first day of the plan year; zero for Lifetime
	Subject  string // empty for Family
	Benefit  string // for Visits, Dollars and Lifetime
	Tier     string // one that the plan names, InNetwork; empty for the rest of it
}

// NetworkName returns the posting's network: "in", "out", "all", or "in:<tier>"
// for a tier that the plan names.
func (k Key) NetworkName() string {
	if k.Tier != "" {
		return tierName(k.Tier)
	}
	return k.Network.String()
}

// tierName is a named tier as decisions and postings record it.
func tierName(tier string) string { return inTier + tier }

const inTier = "in:"

// KindName returns the posting's kind: "deductible", "visits:<benefit>" …
func (k Key) KindName() string {
	switch k.Kind {
	case Deductible:
		return "deductible"
	case OutOfPocket:
		return "out_of_pocket"
	case Visits:
		return "visits:" + k.Benefit
	case Dollars:
		return "dollars:" + k.Benefit
	case Lifetime:
		return "lifetime:" + k.Benefit
	}
	return ""
}

// ParseKey reads a key from a posting's recorded fields; ok is false for
// what no engine has written.
func ParseKey(scope, subject, kind, network, planYear string) (k Key, ok bool) {
	switch scope {
	case "individual":
		k.Scope, k.Subject = Individual, subject
	case "family":
		k.Scope = Family
	default:
		return Key{}, false
	}
	switch network {
	case "in":
		k.Network = InNetwork
	case "out":
		k.Network = OutOfNetwork
	case "all":
		k.Network = AllNetworks
	default:
		var named bool
		if k.Tier, named = strings.CutPrefix(network, inTier); !named || k.Tier == "" {
			return Key{}, false
		}
		k.Network = InNetwork
	}
	name, benefit, of := strings.Cut(kind, ":")
	k.Benefit = benefit
	switch name {
	case "deductible":
		k.Kind = Deductible
	case "out_of_pocket":
		k.Kind = OutOfPocket
	case "visits":
		k.Kind = Visits
	case "dollars":
		k.Kind = Dollars
	case "lifetime":
		k.Kind = Lifetime
	default:
		return Key{}, false
	}
	if perBenefit := k.Kind >= Visits; perBenefit != (of && benefit != "") || perBenefit && k.Tier != "" {
		return Key{}, false
	}
	var err error
	if k.PlanYear, err = ParseDate(planYear); err != nil || (k.PlanYear == 0) != (k.Kind == Lifetime) {
		return Key{}, false
	}
	return k, true
}

// Posting is an addition to one accumulator: cents, or a count for Visits.
type Posting struct {
	Key    Key
	Amount int64
}

// Accumulators is a family's sums. A missing key is zero; a nil map may be read.
type Accumulators map[Key]int64

// ErrNegative says that postings would leave an accumulator below zero, so something
// would be given back that was never taken.
var ErrNegative = errors.New("adjudication: an accumulator would go below zero")

// Post adds postings, all or none. It returns money.ErrOverflow where a sum
// would leave the range and ErrNegative where one that these postings lower
// would end below zero; on the way it may, because a reversal and the new
// decision post together.
func (a Accumulators) Post(postings ...Posting) error {
	after := make(Accumulators, len(postings))
	for _, p := range postings {
		was, moved := after[p.Key]
		if !moved {
			was = a[p.Key]
		}
		sum, err := money.Add(money.Cents(was), money.Cents(p.Amount))
		if err != nil {
			return err
		}
		after[p.Key] = int64(sum)
	}
	for k, sum := range after {
		if sum < 0 && sum < a[k] {
			return ErrNegative
		}
	}
	for k, sum := range after {
		a[k] = sum
	}
	return nil
}

// tally is the family's accumulators as one run sees them: the snapshot it
// was given plus what this claim's earlier lines added. It never writes the
// snapshot, so a pended or abandoned run leaves no trace.
type tally struct {
	base  Accumulators
	added []Posting
}

func (t *tally) sum(k Key) money.Cents {
	n := t.base[k]
	for i := range t.added {
		if t.added[i].Key == k {
			n += t.added[i].Amount
			break
		}
	}
	return money.Cents(n)
}

func (t *tally) post(k Key, amount money.Cents) {
	if amount == 0 {
		return
	}
	for i := range t.added {
		if t.added[i].Key == k {
			t.added[i].Amount += int64(amount)
			return
		}
	}
	t.added = append(t.added, Posting{Key: k, Amount: int64(amount)})
}
