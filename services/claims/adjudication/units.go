package adjudication

// units denies more of a procedure than anybody is likely to need: by line,
// or by the day's total of one provider for one person, earlier claims
// included. The whole line is denied, not only the units beyond, because a
// figure that can't be right says nothing about what was given (CMS, NCCI
// Policy Manual, chapter 1, section V).
func units(r *run) {
	s := r.setting()
	if s == 0 || len(r.in.Edits) == 0 {
		return
	}
	if r.in.Claim.supplier() {
		s = Supplier
	}
	for i := range r.lines {
		l := &r.lines[i]
		key, ok := keyOf(l.Procedure)
		if !l.open() || !ok || l.UnitCode == "MJ" { // minutes are no units of service
			continue
		}
		edits := r.limitTable(s, l.ServiceDate)
		if edits == nil {
			continue
		}
		l.limitTable = edits // read, even where it has no row for the procedure
		if limit, ok := edits.limitOn(s, key, l.ServiceDate); ok {
			r.withinUnits(l, limit)
		}
	}
}

func (r *run) withinUnits(l *line, limit limitRow) {
	most := limit.units * 1000
	if limit.indicator == LimitLine {
		if given := perDay(l.QuantityMilli, l.days()); given > most {
			r.deny(l, unitsLine, "", Fact{"limit_units", limit.units}, Fact{"units_milli", l.QuantityMilli}, Fact{"service_days", l.days()})
		}
		return
	}
	// The day's total holds every line of the claim, denied ones too: what was
	// billed is judged, so that the order of lines doesn't choose the outcome.
	day := int64(0)
	for i := range r.lines {
		o := &r.lines[i]
		if o.Procedure == l.Procedure && o.ServiceDate == l.ServiceDate && o.UnitCode != "MJ" && r.giver(o) == r.giver(l) && !o.repeated {
			day += perDay(o.QuantityMilli, o.days())
		}
	}
	for i := range r.in.History {
		h := &r.in.History[i]
		if h.Allowed && h.Subject == r.in.Member.Subject && h.Procedure == l.Procedure && h.ServiceDate == l.ServiceDate && r.gave(h) == r.giver(l) {
			day += perDay(min(max(h.AllowedQuantityMilli, 0), maxQuantityMilli), daysBetween(h.ServiceDate, h.ServiceEndDate))
		}
	}
	if day <= most {
		return
	}
	why := unitsDayAbsolute
	if limit.indicator == LimitDayAppealable {
		why = unitsDayAppealable
	}
	r.deny(l, why, "", Fact{"limit_units", limit.units}, Fact{"units_milli", l.QuantityMilli}, Fact{"day_units_milli", day})
}

// perDay spreads a line's units over its days, to the nearest whole unit
// where there are several (the same manual).
func perDay(milli, days int64) int64 {
	if days <= 1 {
		return milli
	}
	return (milli + days*500) / (days * 1000) * 1000
}
