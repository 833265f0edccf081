package adjudication

// documented pends what the plan wants papers for, or always wants seen.
func documented(r *run, l *line) {
	if l.benefit.DocumentRequired {
		r.pend(l, authorizationDocument)
	}
	if l.benefit.Review {
		r.pend(l, reviewBenefit)
	}
}
