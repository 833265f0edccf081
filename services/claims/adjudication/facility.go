package adjudication

import (
	"fmt"
	"slices"
	"strings"

	"github.com/probity-health/probity/services/money"
)

// FacilityRateSpec is how a contract prices institutional claims, in the terms
// of probity.policies.v1.FacilityRate. Exactly one of the methods is set.
type FacilityRateSpec struct {
	Name         string
	TypesOfBill  []string // first digits, "11"; empty is any
	RevenueCodes []string // codes and inclusive ranges; empty is any

	PerDiem            money.Cents // a day; shared over the claim's lines
	PercentOfChargeBps int64
	CaseBase           money.Cents      // for a weight of one; with CaseWeights
	CaseWeights        map[string]int64 // by diagnosis related group, in ten-thousandths
}

// FacilityRate is a compiled rate: immutable, safe to share.
type FacilityRate struct {
	spec    FacilityRateSpec
	revenue []codeRange
	clause  string
}

// maxWeight is a thousand, far above any published weight.
const maxWeight = 10_000_000

// CompileFacilityRate checks a rate.
func CompileFacilityRate(spec FacilityRateSpec) (*FacilityRate, error) {
	methods := 0
	for _, set := range []bool{spec.PerDiem > 0, spec.PercentOfChargeBps > 0, len(spec.CaseWeights) > 0} {
		if set {
			methods++
		}
	}
	f := &FacilityRate{spec: spec, clause: "facilityRates." + spec.Name}
	switch {
	case spec.Name == "":
		return nil, fmt.Errorf("adjudication: facility rate without a name")
	case methods != 1:
		return nil, fmt.Errorf("adjudication: facility rate %s: exactly one of per diem, percent of charge and case rate", spec.Name)
	case spec.PerDiem < 0 || spec.PerDiem > maxAmount || spec.CaseBase < 0 || spec.CaseBase > maxAmount:
		return nil, fmt.Errorf("adjudication: facility rate %s: amount out of range", spec.Name)
	case spec.PercentOfChargeBps < 0 || spec.PercentOfChargeBps > whole:
		return nil, fmt.Errorf("adjudication: facility rate %s: percent of charge outside 0 to 10000 basis points", spec.Name)
	}
	for drg, w := range spec.CaseWeights {
		if drg == "" || w <= 0 || w > maxWeight {
			return nil, fmt.Errorf("adjudication: facility rate %s: weight of group %q out of range", spec.Name, drg)
		}
	}
	for _, s := range spec.RevenueCodes {
		r, err := parseRange(s)
		if err != nil {
			return nil, fmt.Errorf("adjudication: facility rate %s: revenueCodes: %w", spec.Name, err)
		}
		f.revenue = append(f.revenue, r)
	}
	return f, nil
}

// fits tells whether the rate is for the line of the claim.
func (f *FacilityRate) fits(c *Claim, l *line) bool {
	if len(f.spec.TypesOfBill) > 0 && !slices.ContainsFunc(f.spec.TypesOfBill, func(s string) bool { return strings.HasPrefix(c.TypeOfBill, s) }) {
		return false
	}
	if len(f.spec.CaseWeights) > 0 {
		return f.spec.CaseWeights[c.DRG] > 0 // takes in the whole claim
	}
	if len(f.revenue) == 0 {
		return true
	}
	key, ok := rangeKeyOf(fullRevenueCode(l.RevenueCode))
	return ok && slices.ContainsFunc(f.revenue, func(r codeRange) bool { return r.contains(key) })
}

// fullRevenueCode puts back the leading zero that some leave out.
func fullRevenueCode(code string) string {
	if len(code) == 3 {
		return "0" + code
	}
	return code
}

// facility prices an institutional claim by its contract's rates. A case rate
// and a per diem are amounts of the stay: each is shared over the lines it
// takes in by their charges, so that every line of the remittance balances.
// Neither allows more than those lines charge together.
func facility(r *run) {
	c := &r.in.Claim
	if c.Form != Institutional {
		return
	}
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() || l.contract == nil {
			continue
		}
		for _, f := range l.contract.FacilityRates {
			if f != nil && f.fits(c, l) {
				l.rate = f
				break
			}
		}
	}
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() || l.rate == nil || l.rated {
			continue
		}
		switch f := l.rate; {
		case f.spec.PercentOfChargeBps > 0:
			allowed := portion(l.billable, f.spec.PercentOfChargeBps, whole)
			r.allowRated(l, allowed, Fact{"charge_bps", f.spec.PercentOfChargeBps}, Fact{"allowed_cents", int64(allowed)})
		case f.spec.PerDiem > 0:
			r.poolPerDiem(l.contract)
		default:
			weight := f.spec.CaseWeights[c.DRG]
			r.pool(l.contract, f, portion(f.spec.CaseBase, weight, 10_000), Fact{"base_cents", int64(f.spec.CaseBase)}, Fact{"weight_ten_thousandths", weight})
		}
	}
}

// poolPerDiem adds up the days of a contract's per diem lines. Lines of the
// claim that no rate fits are part of the day.
func (r *run) poolPerDiem(under *Contract) {
	var total money.Cents
	var days int64
	var first *FacilityRate
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() || l.contract != under || l.rate == nil || l.rate.spec.PerDiem == 0 {
			continue
		}
		if first == nil {
			first = l.rate
		}
		total = plus(total, portion(l.rate.spec.PerDiem, l.QuantityMilli, 1000))
		days += l.QuantityMilli
	}
	for i := range r.lines {
		if l := &r.lines[i]; l.open() && l.contract == under && l.rate == nil {
			l.rate = first
		}
	}
	r.pool(under, first, total, Fact{"days_milli", days})
}

// pool shares an amount over the contract's open lines of a rate's kind.
func (r *run) pool(under *Contract, rate *FacilityRate, amount money.Cents, facts ...Fact) {
	in := func(l *line) bool {
		return l.open() && l.contract == under && l.rate != nil && !l.rated &&
			(l.rate == rate || rate.spec.PerDiem > 0 && l.rate.spec.PerDiem > 0)
	}
	var charges money.Cents
	for i := range r.lines {
		if in(&r.lines[i]) {
			charges = plus(charges, r.lines[i].billable)
		}
	}
	amount = min(amount, charges)
	var before money.Cents
	for i := range r.lines {
		l := &r.lines[i]
		if !in(l) {
			continue
		}
		// Differences of rounded running sums add up to the amount to the cent.
		share := portion(amount, int64(before+l.billable), int64(charges)) - portion(amount, int64(before), int64(charges))
		before += l.billable
		share = min(max(share, 0), l.billable)
		r.allowRated(l, share, append(slices.Clone(facts), Fact{"shared_cents", int64(amount)}, Fact{"allowed_cents", int64(share)})...)
	}
}

func (r *run) allowRated(l *line, allowed money.Cents, facts ...Fact) {
	l.rated = true
	l.out.AllowedQuantityMilli = l.QuantityMilli
	r.allow(l, l.billable, allowed, l.rate.clause, facts...)
}
