package adjudication

// filedInTime compares the day of receipt with the line's last day.
func filedInTime(r *run, l *line) {
	limit := l.plan.spec.TimelyFilingDays
	taken := int64(r.in.Claim.ReceivedDate) - int64(l.last())
	if taken > limit {
		r.deny(l, timelyLate, "timelyFilingDays", Fact{"filing_limit_days", limit}, Fact{"filed_after_days", taken})
	}
}
