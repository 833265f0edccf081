package adjudication

import "github.com/probity-health/probity/services/codes"

// complete denies a line that lacks what every later stage reads.
func complete(r *run, l *line) {
	institutional := r.in.Claim.Form == Institutional
	switch {
	case l.QuantityMilli == 0:
		r.deny(l, completeUnits, "")
	case l.Charge == 0:
		r.deny(l, completeCharge, "")
	case l.Procedure == "" && !institutional:
		r.deny(l, completeProcedure, "")
	case institutional && !codes.ValidRevenueCode(l.RevenueCode):
		r.deny(l, completeRevenueCode, "")
	case !institutional && !knownPlace(r.place(l)):
		r.deny(l, completePlace, "")
	}
}

// place is where the service was given.
func (r *run) place(l *line) string {
	if l.PlaceOfService != "" {
		return l.PlaceOfService
	}
	return r.in.Claim.PlaceOfService
}

func knownPlace(code string) bool {
	_, ok := codes.PlaceOfService(code)
	return ok
}
