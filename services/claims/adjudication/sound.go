package adjudication

import "github.com/probity-health/probity/services/money"

// maxQuantityMilli bounds a line's quantity, as the protos do: ten digits.
const maxQuantityMilli = 9_999_999_999

// maxLines of a claim, as 837's loop 2400 and the protos have it.
const maxLines = 999

// soundClaim re-checks what the gateway has checked: a decision must not rest
// on the belief that every caller came through it.
func soundClaim(r *run) {
	c := &r.in.Claim
	switch {
	case len(c.Lines) == 0:
		r.stop(nil, claimEmpty)
		return
	case c.ReceivedDate == 0:
		r.stop(nil, claimNoReceipt)
		return
	case len(c.Lines) > maxLines:
		r.denyAll(claimLines, Fact{"lines", int64(len(c.Lines))})
		return
	}
	var total money.Cents
	for i := range c.Lines {
		l := &c.Lines[i]
		if l.Charge < 0 || l.Charge > maxAmount || l.QuantityMilli < 0 || l.QuantityMilli > maxQuantityMilli ||
			l.Noncovered < 0 || l.Noncovered > l.Charge {
			r.denyAll(claimAmount)
			return
		}
		total = plus(total, l.Charge)
	}
	if total != c.Charge {
		r.denyAll(claimTotal, Fact{"claim_charge_cents", int64(c.Charge)}, Fact{"lines_charge_cents", int64(total)})
		return
	}
	// A replacement or void without its original's reversal would pay twice:
	// approval alone doesn't make it safe.
	if (c.FrequencyCode == "7" || c.FrequencyCode == "8") && !r.in.OriginalReversed {
		r.stop(nil, adjustmentReplacement)
	}
}
