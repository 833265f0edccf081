// Package money holds exact amounts of US dollars.
//
// An amount is an int64 of cents. Shares are basis points (1/100 of a
// percent). Share is the only place in Probity where cents are rounded.
package money

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Cents is an amount of US cents.
type Cents int64

// Errors of this package.
var (
	ErrOverflow = errors.New("money: amount out of range")
	ErrSyntax   = errors.New("money: not a decimal amount with at most two decimals")
)

// Parse reads an X12 R-type decimal amount ("12", "12.5", "-12.50", ".75").
// More than two decimals are refused unless the rest are zeros.
func Parse(s string) (Cents, error) {
	neg := false
	if strings.HasPrefix(s, "-") {
		neg, s = true, s[1:]
	}
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" && frac == "" {
		return 0, ErrSyntax
	}
	for len(frac) > 2 && frac[len(frac)-1] == '0' {
		frac = frac[:len(frac)-1]
	}
	if len(frac) > 2 {
		return 0, ErrSyntax
	}
	if !digits(whole) || !digits(frac) {
		return 0, ErrSyntax
	}
	n := int64(0)
	for _, part := range [3]string{whole, frac, "00"[:2-len(frac)]} {
		for i := range len(part) {
			d := int64(part[i] - '0')
			if n > (math.MaxInt64-d)/10 {
				return 0, ErrOverflow
			}
			n = 10*n + d
		}
	}
	if neg {
		n = -n
	}
	return Cents(n), nil
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// String formats with two decimals: "12.50", "-0.05".
func (c Cents) String() string {
	sign, n := "", uint64(c)
	if c < 0 {
		sign, n = "-", uint64(-c)
	}
	return fmt.Sprintf("%s%d.%02d", sign, n/100, n%100)
}

// X12 formats as an X12 R-type amount: no trailing zeros, no bare point ("12.5", "12", "-.05" as "-0.05").
func (c Cents) X12() string {
	s := c.String()
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// Add returns a+b, or ErrOverflow.
func Add(a, b Cents) (Cents, error) {
	s := a + b
	if (b > 0 && s < a) || (b < 0 && s > a) {
		return 0, ErrOverflow
	}
	return s, nil
}

// Times returns c×n, or ErrOverflow.
func (c Cents) Times(n int64) (Cents, error) {
	neg := (c < 0) != (n < 0)
	hi, lo := bits.Mul64(abs(int64(c)), abs(n))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, ErrOverflow
	}
	if neg {
		return -Cents(lo), nil
	}
	return Cents(lo), nil
}

// Share returns c×num/den rounded half away from zero: the one rounding rule.
// den must be positive and num not negative; basis points are Share(bps, 10000).
func (c Cents) Share(num, den int64) (Cents, error) {
	if den <= 0 || num < 0 {
		return 0, fmt.Errorf("money: share %d/%d: %w", num, den, ErrOverflow)
	}
	hi, lo := bits.Mul64(abs(int64(c)), uint64(num))
	lo, carry := bits.Add64(lo, uint64(den)/2, 0)
	hi += carry
	if hi >= uint64(den) {
		return 0, ErrOverflow
	}
	q, _ := bits.Div64(hi, lo, uint64(den))
	if q > math.MaxInt64 {
		return 0, ErrOverflow
	}
	if c < 0 {
		return -Cents(q), nil
	}
	return Cents(q), nil
}

func abs(n int64) uint64 {
	if n < 0 {
		return uint64(-n)
	}
	return uint64(n)
}
