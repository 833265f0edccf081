package x12

import (
	"errors"
	"io"

	"github.com/probity-health/probity/services/problem"
)

// maxAdviceClaims bounds what ParseAdvice holds.
const maxAdviceClaims = 100_000

// ParseAdvice reads the 835 transaction sets of an interchange as far as
// balancing needs it. It is for checking, not a validating reader: segments
// it doesn't know are passed over, envelope counts aren't judged.
func ParseAdvice(r io.Reader, limits Limits) ([]*Advice, error) {
	t := newTokenizer(r, 0, delimiters{}, limits)
	s, err := t.interchange()
	var out []*Advice
	p := &adviceParser{}
	for ; err == nil; s, err = t.next() {
		switch s.ID {
		case "ST":
			p.a, p.claim, p.line = nil, nil, nil
			if s.El(1) == "835" {
				p.a = &Advice{}
				out = append(out, p.a)
			}
		case "SE":
			p.a = nil
		case "IEA":
			if p.bad > 0 {
				return out, problem.Invalidf("x12.835.amount", "", "%d amounts of the advice are not amounts of money", p.bad)
			}
			return out, nil
		default:
			if p.a != nil {
				p.take(s)
			}
		}
		if p.claims > maxAdviceClaims {
			return nil, problem.Invalidf("x12.835.too-long", "", "the advice has more than %d claims", maxAdviceClaims)
		}
	}
	var bad *tokenError
	if errors.As(err, &bad) {
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: bad.rule, Message: bad.msg, Fix: bad.fix})
	}
	if errors.Is(err, io.EOF) {
		return nil, problem.Invalidf("x12.interchange.no-iea", "", "the interchange has no IEA segment")
	}
	return nil, err
}

type adviceParser struct {
	a      *Advice
	claim  *AdviceClaim
	line   *AdviceLine
	claims int
	bad    int
}

func (p *adviceParser) money(s string) int64 {
	if s == "" {
		return 0
	}
	c, ok := cents(s)
	if !ok {
		p.bad++
	}
	return c
}

func (p *adviceParser) take(s *Segment) {
	a := p.a
	switch s.ID {
	case "BPR":
		a.PaidCents = p.money(s.El(2))
		if s.El(3) == "D" {
			a.PaidCents = -a.PaidCents
		}
		a.Date, _ = isoDate(s.El(16))
	case "TRN":
		a.Trace = s.El(2)
	case "N1":
		party := AdviceParty{Name: s.El(2), IDQualifier: s.El(3), ID: s.El(4)}
		if s.El(1) == "PR" {
			a.Payer = party
		} else {
			a.Payee = party
		}
	case "CLP":
		p.claims++
		a.Claims = append(a.Claims, AdviceClaim{PatientControl: s.El(1), Status: s.El(2), ChargeCents: p.money(s.El(3)), PaidCents: p.money(s.El(4)),
			PatientCents: p.money(s.El(5)), Filing: s.El(6), PayerClaim: s.El(7), Facility: s.El(8), Frequency: s.El(9)})
		p.claim, p.line = &a.Claims[len(a.Claims)-1], nil
	case "PLB":
		for n := 3; n <= 13; n += 2 {
			if s.El(n+1) != "" {
				a.Provider = append(a.Provider, ProviderAdjustment{Reason: s.Comp(n, 1), Reference: s.Comp(n, 2), Cents: p.money(s.El(n + 1))})
			}
		}
		p.claim, p.line = nil, nil
	default:
		if p.claim != nil {
			p.takeClaim(s)
		}
	}
}

func (p *adviceParser) takeClaim(s *Segment) {
	c, l := p.claim, p.line
	switch s.ID {
	case "SVC":
		line := AdviceLine{Qualifier: s.Comp(1, 1), Procedure: s.Comp(1, 2), ChargeCents: p.money(s.El(2)), PaidCents: p.money(s.El(3)), Revenue: s.El(4)}
		for i := 3; i <= 6; i++ {
			if m := s.Comp(1, i); m != "" {
				line.Modifiers = append(line.Modifiers, m)
			}
		}
		if line.Qualifier == "NU" && line.Revenue == "" {
			line.Qualifier, line.Procedure, line.Revenue = "", "", line.Procedure
		}
		line.QuantityMilli = 1000
		if q, ok := milli(s.El(5)); ok {
			line.QuantityMilli = q
		}
		c.Lines = append(c.Lines, line)
		p.line = &c.Lines[len(c.Lines)-1]
	case "CAS":
		for n := 2; n <= 17; n += 3 {
			if s.El(n) == "" && s.El(n+1) == "" {
				continue
			}
			adj := AdviceAdjustment{Group: s.El(1), CARC: s.El(n), Cents: p.money(s.El(n + 1))}
			if l != nil {
				l.Adjustments = append(l.Adjustments, adj)
			} else {
				c.Adjustments = append(c.Adjustments, adj)
			}
		}
	case "NM1":
		who := AdvicePerson{Last: s.El(3), First: s.El(4), Middle: s.El(5), ID: s.El(9), IsPerson: s.El(2) == "1"}
		switch s.El(1) {
		case "QC":
			c.Patient = who
		case "IL":
			c.Insured = &who
		case "82":
			c.Rendering = &who
		}
	case "DTM":
		day, _ := isoDate(s.El(2))
		switch s.El(1) {
		case "050":
			c.Received = day
		case "472", "150":
			if l != nil {
				l.From = day
			}
		case "151":
			if l != nil {
				l.To = day
			}
		}
	case "AMT":
		if s.El(1) == "AU" && l == nil {
			c.AllowedCents = p.money(s.El(2))
		}
		if s.El(1) == "I" && l == nil {
			c.InterestCents = p.money(s.El(2))
		}
		if s.El(1) == "B6" && l != nil {
			l.AllowedCents = p.money(s.El(2))
		}
	case "REF":
		if s.El(1) == "6R" && l != nil {
			l.Control = s.El(2)
		}
	case "LQ":
		if s.El(1) == "HE" && l != nil {
			l.Remarks = append(l.Remarks, s.El(2))
		}
	}
}
