package adjudication

import (
	"slices"

	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/money"
)

// service is what makes two lines the same: the fields that Medicare and most
// payers compare for an exact duplicate.
type service struct {
	billing, rendering string
	from, to           Date
	code               string
	modifiers          []string
	quantity           int64
	charge             money.Cents
}

func (r *run) service(l *line) service {
	c := &r.in.Claim
	s := service{
		billing: c.BillingNPI, rendering: r.rendering(l), from: l.ServiceDate, to: l.last(),
		code: l.serviceCode(), modifiers: l.Modifiers, quantity: l.QuantityMilli, charge: l.Charge,
	}
	return s
}

// rendering is who gave the service.
func (r *run) rendering(l *line) string {
	switch c := &r.in.Claim; {
	case l.RenderingNPI != "":
		return l.RenderingNPI
	case c.RenderingNPI != "":
		return c.RenderingNPI
	default:
		return c.BillingNPI
	}
}

// serviceCode names the service in histories: the procedure, or "REV" and the
// revenue code for an institutional line that has none.
func (l *Line) serviceCode() string {
	if l.Procedure == "" && l.RevenueCode != "" {
		return "REV" + l.RevenueCode
	}
	return l.Procedure
}

func (h *HistoryLine) service() service {
	s := service{
		billing: h.BillingNPI, rendering: h.RenderingNPI, from: h.ServiceDate, to: h.ServiceEndDate,
		code: h.Procedure, modifiers: h.Modifiers, quantity: h.QuantityMilli, charge: h.Charge,
	}
	if s.to == 0 {
		s.to = s.from
	}
	if s.rendering == "" {
		s.rendering = s.billing
	}
	return s
}

// differences counts the points in which two services of one person differ;
// -1 when they are different services altogether: other code or other days.
func (s *service) differences(o *service) (n int, onlyModifiers bool) {
	if s.code != o.code || s.to < o.from || s.from > o.to {
		return -1, false
	}
	if s.billing != o.billing || s.rendering != o.rendering {
		n++
	}
	if s.from != o.from || s.to != o.to {
		n++
	}
	if s.quantity != o.quantity {
		n++
	}
	if s.charge != o.charge {
		n++
	}
	if !sameModifiers(s.modifiers, o.modifiers) {
		n, onlyModifiers = n+1, n == 0
	}
	return n, onlyModifiers
}

// sameModifiers ignores order: to shuffle them doesn't make a new service.
func sameModifiers(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	var used uint64
next:
	for _, m := range a {
		for i, o := range b {
			if i < 64 && used&(1<<i) == 0 && m == o {
				used |= 1 << i
				continue next
			}
		}
		return false
	}
	return true
}

// repeats denies a line that was allowed before, in the family's history or
// further up in the same claim, and pends one that differs in a single point.
//
// Only allowed lines count: a line denied before may come again, corrected or
// with what was missing, and is judged anew. So a service is paid once, and a
// denial is no trap.
func repeats(r *run) {
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() {
			continue
		}
		s := r.service(l)
		again := slices.ContainsFunc(l.Modifiers, codes.RepeatService)
		if !again && r.inClaim(i, &s) {
			r.out.Duplicate, l.repeated = true, true
			r.deny(l, duplicateInClaim, "")
			continue
		}
		r.inHistory(l, &s, again)
	}
}

// inClaim looks for the same service among the earlier open lines. Different
// drugs under one procedure code, or different revenue codes, are different.
func (r *run) inClaim(i int, s *service) bool {
	for j := range r.lines[:i] {
		o := &r.lines[j]
		if !o.open() || o.ServiceDate != s.from || o.Charge != s.charge ||
			o.NDC != r.lines[i].NDC || o.RevenueCode != r.lines[i].RevenueCode {
			continue
		}
		other := r.service(o)
		if n, _ := s.differences(&other); n == 0 {
			return true
		}
	}
	return false
}

func (r *run) inHistory(l *line, s *service, again bool) {
	doubt := false
	for i := range r.in.History {
		h := &r.in.History[i]
		if !h.Allowed || h.ServiceDate > s.to || max(h.ServiceDate, h.ServiceEndDate) < s.from || h.Procedure != s.code ||
			h.Subject != r.in.Member.Subject {
			continue
		}
		o := h.service()
		n, onlyModifiers := s.differences(&o)
		switch {
		case n == 0:
			if r.out.DuplicateOf == "" {
				r.out.DuplicateOf = h.ClaimID
			}
			r.out.Duplicate, l.repeated = true, true
			r.deny(l, duplicateExact, "", Fact{"earlier_line", int64(h.Number)})
			return
		case n != 1 || again:
		case onlyModifiers && apart(s.modifiers, o.modifiers):
		default:
			doubt = true
		}
	}
	if doubt {
		r.pend(l, duplicateSuspected)
	}
}

// apart tells whether one of two lines is marked as a separate service.
func apart(a, b []string) bool {
	return slices.ContainsFunc(a, codes.SeparateService) || slices.ContainsFunc(b, codes.SeparateService)
}
