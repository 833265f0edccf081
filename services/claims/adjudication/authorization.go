package adjudication

import "slices"

// clauseAuthorizationList is the plan's list of procedures that need an
// authorisation under any benefit.
const clauseAuthorizationList = "priorAuthorizationProcedures"

// authorized looks for the prior authorisation that the benefit or the plan's
// list wants, and for units left in it. An emergency under the No Surprises
// Act needs none.
func authorized(r *run, l *line) {
	clause := l.benefit.clauseAuthorization
	switch {
	case l.Emergency && l.ServiceDate >= noSurprises:
		return
	case l.benefit.PriorAuthorization:
	case l.plan.listsForAuthorization(l.Procedure):
		clause = clauseAuthorizationList
	default:
		return
	}
	number := l.PriorAuthorizationNumber
	if number == "" {
		number = r.in.Claim.PriorAuthorizationNumber
	}
	// Of the authorisations under the number, the one that comes nearest says why.
	why := authorizationAbsent
	for i := range r.in.Authorizations {
		a := &r.in.Authorizations[i]
		if number == "" || a.Number != number || a.Subject != r.in.Member.Subject || !a.covers(l.Procedure) {
			continue
		}
		switch {
		case a.Cancelled:
			why = max(why, authorizationCancelled)
		case !a.Period.Contains(l.ServiceDate):
			why = max(why, authorizationNotInForce)
		case !r.givenTo(a, l):
			why = max(why, authorizationOtherProvider)
		default:
			r.useAuthorization(l, i, clause)
			return
		}
	}
	if why == authorizationAbsent && l.plan.spec.AwaitAuthorization {
		r.pend(l, authorizationAwaited)
		return
	}
	r.deny(l, why, clause)
}

// givenTo tells whether the authorisation is one for who bills or renders the line.
func (r *run) givenTo(a *Authorization, l *line) bool {
	return len(a.NPIs) == 0 || slices.Contains(a.NPIs, r.in.Claim.BillingNPI) || slices.Contains(a.NPIs, r.rendering(l))
}

func (a *Authorization) covers(procedure string) bool {
	if len(a.Procedures) == 0 {
		return true
	}
	key, ok := rangeKeyOf(procedure)
	if !ok {
		return false
	}
	for _, s := range a.Procedures {
		if c, err := parseRange(s); err == nil && c.contains(key) {
			return true
		}
	}
	return false
}

// maxUnits is far above any quantity; an authorisation of more has no limit
// that a claim could reach.
const maxUnits = 1 << 40

// useAuthorization takes the line's units from the authorisation. What was
// used is counted from the history of the same person: allowed lines of its
// procedures within its dates.
func (r *run) useAuthorization(l *line, i int, clause string) {
	a := &r.in.Authorizations[i]
	if a.Units <= 0 || a.Units > maxUnits {
		return
	}
	if r.authorized == nil {
		r.authorized = make([]int64, len(r.in.Authorizations))
	}
	used := min(max(a.UsedMilli, 0), maxUnits) + r.authorized[i]
	for j := range r.in.History {
		h := &r.in.History[j]
		if h.Allowed && h.Subject == a.Subject && a.Period.Contains(h.ServiceDate) && a.covers(h.Procedure) {
			used += min(max(h.AllowedQuantityMilli, 0), maxQuantityMilli)
		}
	}
	if approved := a.Units * 1000; used+l.QuantityMilli > approved {
		r.deny(l, authorizationExceeded, clause,
			Fact{"approved_milli", approved}, Fact{"used_milli", used}, Fact{"units_milli", l.QuantityMilli})
		return
	}
	r.authorized[i] += l.QuantityMilli
}
