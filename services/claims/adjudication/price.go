package adjudication

import "github.com/probity-health/probity/services/money"

// price sets the allowed amount: the lesser of the charge and the contracted
// fee for the payable units.
func price(r *run, l *line) {
	schedule, bps := l.plan.spec.FeeScheduleID, int64(whole)
	switch {
	case l.contract != nil && l.contract.Capitated:
		r.deny(l, priceCapitated, "contract.capitated")
		return
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
	if !listed && l.fees.defaultBps == 0 {
		r.deny(l, priceNoRate, "feeSchedule.defaultBpsOfCharge")
		return
	}

	unit := int64(1000) // thousandths of a billed quantity that make one payable unit
	if l.UnitCode == "MJ" {
		unit *= anesthesiaMinutes
	}
	quantity, charge := l.QuantityMilli, l.Charge
	if listed && fee.MaxUnits > 0 && fee.MaxUnits <= maxUnits && quantity > fee.MaxUnits*unit {
		quantity = fee.MaxUnits * unit
		over := portion(l.Charge, l.QuantityMilli-quantity, l.QuantityMilli)
		charge -= over
		r.adjust(l, priceContractUnits, over, "feeSchedule.fees.maxUnits",
			Fact{"units_milli", l.QuantityMilli}, Fact{"payable_milli", quantity})
	}

	above := priceAboveAllowed
	if l.tier == OutOfNetwork {
		above = priceAboveAllowedOut // no contract binds the provider: the patient's
	}
	var allowed money.Cents
	if listed {
		allowed = min(charge, portion(fee.Amount, quantity*bps, unit*whole))
		r.adjust(l, above, charge-allowed, "feeSchedule.fees",
			Fact{"fee_cents", int64(fee.Amount)}, Fact{"payable_milli", quantity}, Fact{"fee_bps", bps}, Fact{"allowed_cents", int64(allowed)})
	} else {
		allowed = min(charge, portion(charge, l.fees.defaultBps*bps, whole*whole))
		r.adjust(l, above, charge-allowed, "feeSchedule.defaultBpsOfCharge",
			Fact{"charge_bps", l.fees.defaultBps}, Fact{"fee_bps", bps}, Fact{"allowed_cents", int64(allowed)})
	}
	l.out.Allowed, l.priced = allowed, allowed
	l.out.AllowedQuantityMilli = quantity
	l.surgical = listed && fee.Surgical
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
