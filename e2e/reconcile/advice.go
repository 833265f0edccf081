package reconcile

import (
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/probity-health/probity/e2e/naive"
)

// adviceClaim is one CLP of an 835 with its lines.
type adviceClaim struct {
	id                    string
	status                string
	charge, paid, patient int64
	lines                 []adviceLine
}

type adviceLine struct {
	charge, paid, allowed int64
	adjustments           map[string]int64 // "group-CARC" to cents
}

// patient is what the line's PR adjustments add up to.
func (l *adviceLine) patient() (sum int64) {
	for code, cents := range l.adjustments {
		if strings.HasPrefix(code, "PR-") {
			sum += cents
		}
	}
	return sum
}

func (l *adviceLine) sameReasons(want []naive.Adjustment) bool {
	all := map[string]int64{}
	for _, a := range want {
		all[a.Group+"-"+a.CARC] += a.Amount
	}
	if len(all) != len(l.adjustments) {
		return false
	}
	for code, cents := range all {
		if l.adjustments[code] != cents {
			return false
		}
	}
	return true
}

// readAdvice reads an 835 with nothing but the guide in hand (005010X221A1),
// and refuses one that is out of balance at any of the three levels of its
// section 1.10.2: service, claim, transaction.
func readAdvice(document []byte) ([]adviceClaim, error) {
	var out []adviceClaim
	var claim *adviceClaim
	var line *adviceLine
	var total, provider int64
	claimLevel := int64(0) // CAS of the claim at hand, above its lines
	finish := func() error {
		if claim == nil {
			return nil
		}
		adjusted := claimLevel
		for _, l := range claim.lines {
			sum := int64(0)
			for _, cents := range l.adjustments {
				sum += cents
			}
			if l.charge-sum != l.paid {
				return fmt.Errorf("a service of %s is out of balance: %d less %d is not %d", claim.id, l.charge, sum, l.paid)
			}
			adjusted += sum
		}
		if claim.charge-adjusted != claim.paid {
			return fmt.Errorf("claim %s is out of balance: %d less %d is not %d", claim.id, claim.charge, adjusted, claim.paid)
		}
		total += claim.paid
		out = append(out, *claim)
		claim, line, claimLevel = nil, nil, 0
		return nil
	}
	payment, seen := int64(0), false
	for text := range strings.SplitSeq(string(document), "~") {
		el := strings.Split(strings.TrimSpace(text), "*")
		at := func(i int) string {
			if i < len(el) {
				return el[i]
			}
			return ""
		}
		switch el[0] {
		case "BPR":
			payment, seen = cents(at(2)), true
		case "CLP":
			if err := finish(); err != nil {
				return nil, err
			}
			claim = &adviceClaim{id: at(1), status: at(2), charge: cents(at(3)), paid: cents(at(4)), patient: cents(at(5))}
		case "SVC":
			claim.lines = append(claim.lines, adviceLine{charge: cents(at(2)), paid: cents(at(3)), adjustments: map[string]int64{}})
			line = &claim.lines[len(claim.lines)-1]
		case "CAS":
			for i := 2; i < len(el); i += 3 {
				if line == nil {
					claimLevel += cents(at(i + 1))
					continue
				}
				line.adjustments[at(1)+"-"+at(i)] += cents(at(i + 1))
			}
		case "AMT":
			if at(1) == "B6" && line != nil {
				line.allowed = cents(at(2))
			}
		case "PLB":
			if err := finish(); err != nil {
				return nil, err
			}
			for i := 4; i < len(el); i += 2 {
				provider += cents(at(i))
			}
		case "SE":
			if err := finish(); err != nil {
				return nil, err
			}
		}
	}
	if !seen || claim != nil {
		return nil, errors.New("the document is no whole 835")
	}
	if total-provider != payment {
		return nil, fmt.Errorf("the payment is out of balance: claims %d less provider adjustments %d is not %d", total, provider, payment)
	}
	return out, nil
}

// cents reads an amount in dollars exactly.
func cents(s string) int64 {
	if s == "" {
		return 0
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return -1 << 40 // no amount: nothing will balance
	}
	r.Mul(r, big.NewRat(100, 1))
	if !r.IsInt() {
		return -1 << 40
	}
	return r.Num().Int64()
}
