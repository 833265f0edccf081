package money

import (
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAmountsAreReadToTheCentOrRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		want Cents
		err  error
	}{
		{"12", 1200, nil},
		{"12.5", 1250, nil},
		{"-12.50", -1250, nil},
		{".75", 75, nil},
		{"12.", 1200, nil},
		{"0", 0, nil},
		{"-0", 0, nil},
		{"1.2300", 123, nil},
		{"00012.30", 1230, nil},
		{"92233720368547758.07", math.MaxInt64, nil},
		{"92233720368547758.08", 0, ErrOverflow},
		{"1.234", 0, ErrSyntax},
		{"", 0, ErrSyntax},
		{"-", 0, ErrSyntax},
		{".", 0, ErrSyntax},
		{"+1", 0, ErrSyntax},
		{"--1", 0, ErrSyntax},
		{"1,000", 0, ErrSyntax},
		{"1e3", 0, ErrSyntax},
		{" 1", 0, ErrSyntax},
		{"1.-5", 0, ErrSyntax},
	} {
		got, err := Parse(c.text)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("Parse(%q) = %d, %v; want %d, %v", c.text, got, err, c.want, c.err)
		}
	}
}

func TestAmountsAreWrittenAsPeopleAndX12WriteThem(t *testing.T) {
	for _, c := range []struct {
		amount      Cents
		person, x12 string
	}{
		{0, "0.00", "0"},
		{5, "0.05", "0.05"},
		{-5, "-0.05", "-0.05"},
		{1250, "12.50", "12.5"},
		{10000, "100.00", "100"},
		{math.MaxInt64, "92233720368547758.07", "92233720368547758.07"},
		{math.MinInt64, "-92233720368547758.08", "-92233720368547758.08"},
	} {
		if got := c.amount.String(); got != c.person {
			t.Errorf("String of %d cents = %q, want %q", int64(c.amount), got, c.person)
		}
		if got := c.amount.X12(); got != c.x12 {
			t.Errorf("X12 of %d cents = %q, want %q", int64(c.amount), got, c.x12)
		}
	}
}

func TestWhatIsWrittenReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Cents(rapid.Int64Min(-math.MaxInt64).Draw(t, "cents"))
		for _, text := range []string{c.String(), c.X12()} {
			if back, err := Parse(text); err != nil || back != c {
				t.Fatalf("%q reads back as %d, %v; want %d", text, back, err, c)
			}
		}
	})
}

// The oracle is math/big: exact or an overflow, never something else.
func TestArithmeticAgreesWithBigIntegers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64().Draw(t, "a"), rapid.Int64().Draw(t, "b")
		sum, err := Add(Cents(a), Cents(b))
		agree(t, "sum", sum, err, new(big.Int).Add(big.NewInt(a), big.NewInt(b)), math.MinInt64)
		product, err := Cents(a).Times(b)
		agree(t, "product", product, err, new(big.Int).Mul(big.NewInt(a), big.NewInt(b)), -math.MaxInt64)
	})
}

func TestSharesRoundHalfAwayFromZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.Int64().Draw(t, "cents")
		num := rapid.Int64Min(0).Draw(t, "num")
		den := rapid.Int64Min(1).Draw(t, "den")
		got, err := Cents(c).Share(num, den)

		// |c|·num/den + 1/2, cut down: (2·|c|·num + den) / (2·den).
		n := new(big.Int).Mul(new(big.Int).Abs(big.NewInt(c)), big.NewInt(num))
		n.Add(n.Lsh(n, 1), big.NewInt(den))
		n.Div(n, new(big.Int).Lsh(big.NewInt(den), 1))
		if c < 0 {
			n.Neg(n)
		}
		agree(t, "share", got, err, n, -math.MaxInt64)
	})
	for _, bad := range [][2]int64{{1, 0}, {1, -1}, {-1, 1}} {
		if _, err := Cents(1).Share(bad[0], bad[1]); !errors.Is(err, ErrOverflow) {
			t.Errorf("Share(%d, %d) = %v, want a refusal", bad[0], bad[1], err)
		}
	}
}

// agree: got equals want, or want lies outside the range from low on and err says so.
func agree(t *rapid.T, what string, got Cents, err error, want *big.Int, low int64) {
	t.Helper()
	inside := want.IsInt64() && want.Int64() >= low
	switch {
	case inside && err != nil:
		t.Fatalf("%s: refused with %v though %s fits", what, err, want)
	case inside && int64(got) != want.Int64():
		t.Fatalf("%s: %d, want %s", what, got, want)
	case !inside && !errors.Is(err, ErrOverflow):
		t.Fatalf("%s: %d, %v; want an overflow, for it is %s", what, got, err, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"12.50", "-.5", "92233720368547758.07", "1.", "", "0000.0000", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if err != nil {
			if c != 0 {
				t.Fatalf("Parse(%q) refused but gave %d", s, c)
			}
			return
		}
		if strings.Trim(s, "-.0123456789") != "" {
			t.Fatalf("Parse(%q) accepted a strange character", s)
		}
		if back, err := Parse(c.String()); err != nil || back != c {
			t.Fatalf("Parse(%q) = %d, which reads back as %d, %v", s, c, back, err)
		}
	})
}

// Parse reads what its digits say, up to the last cent that an int64 holds.
func TestParseReadsEveryDigit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := rapid.StringMatching(`[0-9]{0,20}`).Draw(t, "whole")
		frac := rapid.StringMatching(`[0-9]{2}0{0,2}`).Draw(t, "frac")
		want, err := strconv.ParseInt(whole+frac[:2], 10, 64)
		got, refused := Parse(whole + "." + frac)
		if (err == nil) != (refused == nil) {
			t.Fatalf("%s.%s: %v, %v", whole, frac, got, refused)
		}
		if err == nil && int64(got) != want {
			t.Fatalf("%s.%s is read as %d", whole, frac, got)
		}
	})
	if _, err := Parse("92233720368547758.08"); !errors.Is(err, ErrOverflow) {
		t.Fatal(err)
	}
	if c, err := Parse("-92233720368547758.07"); err != nil || c != -math.MaxInt64 {
		t.Fatal(c, err)
	}
}
