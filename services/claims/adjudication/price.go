package adjudication

import "github.com/probity-health/probity/services/money"

// capitated denies what the provider is paid for by the head.
func capitated(r *run, l *line) {
	if l.contract != nil && l.contract.Capitated {
		r.deny(l, priceCapitated, "contract.capitated")
	}
}

// price sets the allowed amount: the lesser of the charge and the contracted
// fee for the payable units. A line that a facility's rate took in is priced.
func price(r *run, l *line) {
	if l.rated {
		return
	}
	schedule, bps := l.plan.spec.FeeScheduleID, int64(whole)
	switch {
	case l.contract != nil:
		bps = orWhole(l.contract.FeeBps)
		if l.contract.FeeScheduleID != "" {
			schedule = l.contract.FeeScheduleID
		}
	case l.tier == OutOfNetwork:
		bps = l.plan.spec.OutOfNetworkAllowedBps
	}
	l.fees = r.scheduleFor(schedule, l.ServiceDate)
	if l.fees == nil || bps < 0 || bps > maxBps {
		r.stop(l, priceNoSchedule)
		return
	}
	fee, listed := l.fees.fee(l.Procedure, l.Modifiers)
	switch {
	case listed:
		r.priceByFee(l, &fee, bps)
	case l.fees.defaultBps > 0:
		l.out.AllowedQuantityMilli = l.QuantityMilli
		allowed := min(l.billable, portion(l.billable, l.fees.defaultBps*bps, whole*whole))
		r.allow(l, l.billable, allowed, "feeSchedule.defaultBpsOfCharge",
			Fact{"charge_bps", l.fees.defaultBps}, Fact{"fee_bps", bps}, Fact{"allowed_cents", int64(allowed)})
	default:
		r.deny(l, priceNoRate, "feeSchedule.defaultBpsOfCharge")
	}
}

func (r *run) priceByFee(l *line, fee *Fee, bps int64) {
	minutes := l.UnitCode == "MJ"
	unit := int64(1000) // thousandths of a billed quantity that make one payable unit
	if minutes {
		unit *= 15
	}
	quantity, charge := l.QuantityMilli, l.billable
	if fee.MaxUnits > 0 && fee.MaxUnits <= maxUnits && quantity > fee.MaxUnits*unit {
		quantity = fee.MaxUnits * unit
		over := portion(l.billable, l.QuantityMilli-quantity, l.QuantityMilli)
		charge -= over
		r.adjust(l, priceContractUnits, over, "feeSchedule.fees.maxUnits",
			Fact{"units_milli", l.QuantityMilli}, Fact{"payable_milli", quantity})
	}
	l.out.AllowedQuantityMilli = quantity
	payable := quantity
	if minutes {
		payable = timeUnits(quantity)
	}
	full, concurrent := portion(fee.Amount, payable*bps, 1000*whole), money.Cents(0)
	if fee.BaseUnits > 0 {
		full, concurrent = anesthesia(fee, l.Modifiers, payable, bps)
		payable += fee.BaseUnits * 1000
	} else {
		concurrent = full
	}
	full, concurrent = min(charge, full), min(charge, concurrent)
	if !r.allow(l, charge, full, "feeSchedule.fees",
		Fact{"fee_cents", int64(fee.Amount)}, Fact{"payable_milli", payable}, Fact{"fee_bps", bps}, Fact{"allowed_cents", int64(full)}) {
		return
	}
	if concurrent < full {
		r.adjust(l, priceConcurrentAnesthesia, full-concurrent, "feeSchedule.fees.baseUnits", Fact{"before_cents", int64(full)})
		l.out.Allowed, l.priced = concurrent, concurrent
	}
	l.surgical = fee.Surgical
	l.minutes = fee.TypicalMinutes * l.QuantityMilli
	if minutes {
		l.minutes = l.QuantityMilli
	}
}

// allow sets a line's allowed amount and gives the rest of the charge up to
// its reason. Where nothing is allowed the line is denied as included in
// others: the excess over an allowed amount may not be the whole charge (X12's
// note to CARC 45).
func (r *run) allow(l *line, charge, allowed money.Cents, clause string, facts ...Fact) bool {
	if allowed <= 0 {
		r.deny(l, priceIncluded, clause, facts...)
		return false
	}
	above := priceAboveAllowed
	if l.tier == OutOfNetwork {
		above = priceAboveAllowedOut // no contract binds the provider: the patient's
	}
	r.adjust(l, above, charge-allowed, clause, facts...)
	l.out.Allowed, l.priced = allowed, allowed
	return true
}

// portion is a share that can't leave the range of amounts: a product beyond
// it is larger than any charge, and every use takes the lesser of the two.
func portion(of money.Cents, num, den int64) money.Cents {
	n, err := of.Share(num, den)
	if err != nil {
		return maxAmount
	}
	return n
}

func (r *run) scheduleFor(id string, on Date) *FeeSchedule {
	for _, s := range r.in.FeeSchedules {
		if s != nil && s.id == id && s.period.Contains(on) {
			return s
		}
	}
	return nil
}
