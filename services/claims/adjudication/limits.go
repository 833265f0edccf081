package adjudication

import "github.com/probity-health/probity/services/money"

// exhausted denies a line whose benefit has nothing left.
func (r *run) exhausted(l *line, k *keys) bool {
	b := l.benefit
	if b.LifetimeDollars > 0 {
		if used := r.tally.sum(k.lifetime); used >= b.LifetimeDollars {
			r.deny(l, limitLifetime, b.clauseLifetime, Fact{"limit_cents", int64(b.LifetimeDollars)}, Fact{"used_cents", int64(used)})
			return true
		}
	}
	if b.DollarsPerYear > 0 {
		if used := r.tally.sum(k.dollars); used >= b.DollarsPerYear {
			r.deny(l, limitDollars, b.clauseDollars, Fact{"limit_cents", int64(b.DollarsPerYear)}, Fact{"used_cents", int64(used)})
			return true
		}
	}
	if b.VisitsPerYear > 0 && !r.counted(l) {
		if used := int64(r.tally.sum(k.visits)); used >= b.VisitsPerYear {
			r.deny(l, limitVisits, b.clauseVisits, Fact{"limit_visits", b.VisitsPerYear}, Fact{"used_visits", used})
			return true
		}
	}
	return false
}

// limits names the benefit limit that a line ran into.
type limits struct {
	rule        rule
	clause      string
	limit, left money.Cents
}

// ceiling keeps the plan's payment within what the benefit's limits have
// left; the patient owes the rest.
func (r *run) ceiling(l *line, k *keys, s *split) limits {
	b := l.benefit
	var hit limits
	room := s.paid
	if left := r.left(b.DollarsPerYear, &k.dollars); left < room {
		room = left
		hit = limits{limitDollars, b.clauseDollars, b.DollarsPerYear, left}
	}
	if left := r.left(b.LifetimeDollars, &k.lifetime); left < room {
		room = left
		hit = limits{limitLifetime, b.clauseLifetime, b.LifetimeDollars, left}
	}
	s.overLimit, s.paid = s.paid-room, room
	return hit
}

// counted tells whether this claim's visit of the benefit's day was counted:
// the lines of one day are one visit.
func (r *run) counted(l *line) bool {
	for _, v := range r.visited {
		if v.benefit == l.benefit && v.on == l.ServiceDate {
			return true
		}
	}
	return false
}

// visit is a day on which this claim has counted a visit of a benefit.
type visit struct {
	benefit *benefit
	on      Date
}
