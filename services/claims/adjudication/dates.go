package adjudication

// dated makes sure that the line has dates to be judged by. Those come before
// everything that asks what was in force.
func dated(r *run, l *line) {
	switch {
	case l.ServiceDate == 0:
		r.deny(l, completeServiceDate, "")
	case l.ServiceEndDate != 0 && l.ServiceEndDate < l.ServiceDate:
		r.deny(l, completeEndDate, "")
	case l.last() > r.in.Claim.ReceivedDate:
		r.deny(l, completeFuture, "", Fact{"received_date", int64(r.in.Claim.ReceivedDate)})
	}
}

// last is the line's last date of service.
func (l *line) last() Date {
	if l.ServiceEndDate != 0 {
		return l.ServiceEndDate
	}
	return l.ServiceDate
}

// days counts the line's days of service.
func (l *line) days() int64 { return daysBetween(l.ServiceDate, l.last()) }

func daysBetween(first, last Date) int64 {
	if last <= first {
		return 1
	}
	return int64(last-first) + 1
}
