package adjudication

// Remember returns what later claims of the family must know of this one:
// its lines as HistoryLines, to be kept beside the accumulators in the
// decision's commit. A pended claim leaves nothing to remember.
func Remember(claimID string, in *Input, d *Decision) []HistoryLine {
	if d.Status == Pended || len(d.Lines) != len(in.Claim.Lines) {
		return nil
	}
	r := run{in: in}
	remembered := make([]HistoryLine, len(d.Lines))
	for i := range remembered {
		l := &in.Claim.Lines[i]
		s := r.service(&line{Line: l})
		remembered[i] = HistoryLine{
			ClaimID: claimID, Number: l.Number, Subject: in.Member.Subject,
			BillingNPI: s.billing, RenderingNPI: s.rendering,
			ServiceDate: s.from, ServiceEndDate: s.to,
			Procedure: s.code, Modifiers: l.Modifiers,
			QuantityMilli: s.quantity, Charge: s.charge,
			Allowed: !d.Lines[i].Denied, AllowedQuantityMilli: d.Lines[i].AllowedQuantityMilli,
		}
	}
	return remembered
}
