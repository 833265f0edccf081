package adjudication

// eligible finds the plan version that governs the line: the one in force on
// its first day, provided that the member was covered through its last.
func eligible(r *run, l *line) {
	spans := r.in.Member.Coverage
	for i := range spans {
		c := &spans[i]
		if !c.Period.Contains(l.ServiceDate) {
			continue
		}
		if until := coveredUntil(spans, c.Period.End, l.last()); until != 0 && until < l.last() {
			r.deny(l, eligibilityTerminated, "", Fact{"coverage_end_date", int64(until)})
			return
		}
		if c.Plan == nil {
			r.stop(l, eligibilityNoPlan)
			return
		}
		l.coverage, l.plan = c, c.Plan
		l.yearly = c.planYear(l.ServiceDate)
		return
	}
	var first, next, ended Date
	for _, c := range spans {
		if c.Period.End != 0 && c.Period.End < c.Period.Start {
			continue
		}
		if first == 0 || c.Period.Start < first {
			first = c.Period.Start
		}
		if c.Period.Start > l.ServiceDate && (next == 0 || c.Period.Start < next) {
			next = c.Period.Start
		}
		if c.Period.End != 0 && c.Period.End < l.ServiceDate && c.Period.End > ended {
			ended = c.Period.End
		}
	}
	switch {
	case ended == 0 && first != 0:
		r.deny(l, eligibilityNotYet, "", Fact{"coverage_start_date", int64(first)})
	case ended == 0:
		r.deny(l, eligibilityNotYet, "")
	case next != 0:
		r.deny(l, eligibilityGap, "", Fact{"coverage_end_date", int64(ended)}, Fact{"coverage_start_date", int64(next)})
	default:
		r.deny(l, eligibilityTerminated, "", Fact{"coverage_end_date", int64(ended)})
	}
}

// coveredUntil extends a span's end over the spans that follow it without a
// gap, up to the day asked for; 0 is open-ended.
func coveredUntil(spans []Coverage, end, wanted Date) Date {
	for grown := true; grown && end != 0 && end < wanted; {
		grown = false
		for i := range spans {
			p := spans[i].Period
			if p.Start <= end+1 && (p.End == 0 || p.End > end) {
				end, grown = p.End, true
				break
			}
		}
	}
	return end
}

// planYear returns the first day of the plan year that holds the day.
func (c *Coverage) planYear(d Date) Date {
	year, _, _ := d.civil()
	if !c.Plan.spec.CoverageYear {
		return DateOf(year, 1, 1)
	}
	from := c.YearStart
	if from == 0 {
		from = c.Period.Start
	}
	_, month, day := from.civil()
	if start := DateOf(year, month, day); start <= d {
		return start
	}
	return DateOf(year-1, month, day)
}
