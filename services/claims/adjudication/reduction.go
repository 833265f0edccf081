package adjudication

// reduceFurtherProcedures pays the day's dearest surgical procedure in full
// and the others at the plan's share. One allowed on an earlier claim of the
// same provider and day was paid in full already; so were equals listed first.
func reduceFurtherProcedures(r *run) {
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() || !l.surgical || l.plan.spec.MultipleProcedureBps == whole || r.isFirstProcedure(i) {
			continue
		}
		bps := l.plan.spec.MultipleProcedureBps
		reduced := portion(l.priced, bps, whole)
		r.adjust(l, priceMultipleProcedure, l.priced-reduced, "multipleProcedureBps",
			Fact{"before_cents", int64(l.priced)}, Fact{"share_bps", bps})
		l.out.Allowed = reduced
	}
}

func (r *run) isFirstProcedure(i int) bool {
	l := &r.lines[i]
	for j := range r.lines {
		o := &r.lines[j]
		if j == i || !o.open() || !o.surgical || o.ServiceDate != l.ServiceDate {
			continue
		}
		if o.priced > l.priced || (o.priced == l.priced && j < i) {
			return false
		}
	}
	for j := range r.in.History {
		h := &r.in.History[j]
		if !h.Allowed || h.Subject != r.in.Member.Subject || h.ServiceDate != l.ServiceDate || h.BillingNPI != r.in.Claim.BillingNPI {
			continue
		}
		if fee, ok := l.fees.fee(h.Procedure, h.Modifiers); ok && fee.Surgical {
			return false
		}
	}
	return true
}
