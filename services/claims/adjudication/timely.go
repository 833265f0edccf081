package adjudication

// correctedInTime judges a replacement (CLM05-3 = 7) as a whole: it takes the
// place of its original or it doesn't. Were only its late lines denied, coming
// late would take back what was paid for them in time.
func correctedInTime(r *run) {
	if r.in.Claim.FrequencyCode != "7" {
		return
	}
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() {
			continue
		}
		limit := l.plan.spec.TimelyFilingDays
		if taken := int64(r.in.Claim.ReceivedDate) - int64(l.last()); taken > limit {
			r.out.OriginalStands = true
			r.denyAll(timelyLateCorrection, Fact{"filing_limit_days", limit}, Fact{"filed_after_days", taken})
			return
		}
	}
}

// filedInTime compares the day of receipt with the line's last day.
func filedInTime(r *run, l *line) {
	limit := l.plan.spec.TimelyFilingDays
	taken := int64(r.in.Claim.ReceivedDate) - int64(l.last())
	if taken > limit {
		r.deny(l, timelyLate, "timelyFilingDays", Fact{"filing_limit_days", limit}, Fact{"filed_after_days", taken})
	}
}
