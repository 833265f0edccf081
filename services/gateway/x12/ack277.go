package x12

import (
	"io"
	"iter"
	"strings"
	"time"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/money"
	"github.com/probity-health/probity/services/problem"
)

// Acknowledged is what became of a claim of a file, for the 277CA.
type Acknowledged struct {
	// ClaimID is the payer's claim control number; empty when rejected.
	ClaimID string
	// Statuses are "category:status[:entity]"; empty is accepted, A2:20.
	Statuses []string
}

// ackClaim is what a 277CA tells of one claim.
type ackClaim struct {
	control, last, first, middle, member, trace, bill string
	from, to                                          string
	charge                                            int64
	Acknowledged
}

type ackTotals struct {
	accepted, rejected           int
	acceptedCents, rejectedCents int64
}

func (t *ackTotals) add(c *ackClaim) {
	if len(c.Statuses) == 0 {
		t.accepted++
		t.acceptedCents += c.charge
	} else {
		t.rejected++
		t.rejectedCents += c.charge
	}
}

type ackProvider struct {
	provider *claimsv1.Provider
	totals   ackTotals
	claims   []ackClaim
}

// ackSet is one 277: what one payer answers to one transaction set.
type ackSet struct {
	set       *Set
	payer     *claimsv1.Payer
	totals    ackTotals
	providers []*ackProvider
}

// Write277CA writes the claim acknowledgement (005010X214) of a file's
// claims: a 277 for each transaction set and payer, each claim accepted (A2)
// or rejected with its reasons (A3, A6, A7, A8). received is the file's
// receipt, processed the day the claims were taken into adjudication. About
// 300 bytes a claim are held while it is written.
func Write277CA(w io.Writer, env Envelope, received, processed time.Time, claims iter.Seq2[*Claim, error], outcome func(*Claim) Acknowledged) error {
	sets, err := collect(claims, outcome)
	if err != nil {
		return err
	}
	if len(sets) == 0 {
		return problem.New(problem.Invalid, problem.Problem{RuleID: "x12.277ca.no-claims", Message: "no claim of the file came as far as a claim acknowledgement",
			Fix: "fetch the file's 999, which says why its transaction sets were rejected"})
	}
	e := newEncoder(w, env)
	e.interchange()
	e.group("HN", "005010X214")
	for _, s := range sets {
		e.acknowledgeClaims(s, received, processed)
	}
	e.endGroup()
	e.endInterchange()
	return e.err
}

func collect(claims iter.Seq2[*Claim, error], outcome func(*Claim) Acknowledged) ([]*ackSet, error) {
	type setKey struct {
		set   *Set
		payer string
	}
	type providerKey struct {
		setKey
		npi, tax, name string
	}
	var order []*ackSet
	sets := map[setKey]*ackSet{}
	providers := map[providerKey]*ackProvider{}
	for c, err := range claims {
		if err != nil {
			return nil, err
		}
		sk := setKey{c.Set, c.Claim.GetPayer().GetId()}
		s := sets[sk]
		if s == nil {
			s = &ackSet{set: c.Set, payer: c.Claim.GetPayer()}
			sets[sk] = s
			order = append(order, s)
		}
		b := c.Claim.GetBillingProvider()
		pk := providerKey{sk, b.GetNpi(), b.GetTaxId(), b.GetName()}
		p := providers[pk]
		if p == nil {
			p = &ackProvider{provider: b}
			providers[pk] = p
			s.providers = append(s.providers, p)
		}
		a := summarise(c.Claim)
		a.Acknowledged = outcome(c)
		s.totals.add(&a)
		p.totals.add(&a)
		p.claims = append(p.claims, a)
	}
	return order, nil
}

func summarise(c *claimsv1.Claim) ackClaim {
	who := c.GetPatient()
	if who == nil {
		who = c.GetSubscriber()
	}
	a := ackClaim{control: c.PatientControlNumber, last: who.GetLastName(), first: who.GetFirstName(), middle: who.GetMiddleName(),
		member: c.GetSubscriber().GetMemberId(), trace: c.ClearinghouseTrace, charge: c.ChargeCents}
	if c.Form == claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL {
		a.bill = c.FacilityType + c.FrequencyCode
		for _, d := range c.Dates {
			if d.Qualifier == "434" {
				a.from, a.to = d.StartDate, d.EndDate
			}
		}
	}
	for _, l := range c.Lines {
		end := l.ServiceEndDate
		if end == "" {
			end = l.ServiceDate
		}
		if l.ServiceDate != "" && (a.from == "" || l.ServiceDate < a.from) {
			a.from = l.ServiceDate
		}
		a.to = max(a.to, end)
	}
	return a
}

func (e *encoder) acknowledgeClaims(s *ackSet, received, processed time.Time) {
	reference := s.set.Control + "-" + itoa(e.sets+1)
	day, time4 := e.env.Time.Format("20060102"), e.env.Time.Format("1504")
	e.set("277", "005010X214")
	e.seg("BHT", "0085", "08", reference, day, time4, "TH")
	e.seg("HL", "1", "", "20", "1")
	qualifier := s.payer.GetIdQualifier()
	if qualifier != "XV" {
		qualifier = "PI"
	}
	e.seg("NM1", "PR", "2", named(s.payer.GetName(), "UNKNOWN"), "", "", "", "", qualifier, named(s.payer.GetId(), "UNKNOWN"))
	e.seg("TRN", "1", reference)
	e.seg("DTP", "050", "D8", received.Format("20060102"))
	e.seg("DTP", "009", "D8", processed.Format("20060102"))

	e.seg("HL", "2", "1", "21", "1")
	sub := s.set.Submitter
	kind, first := "2", ""
	if sub.IsPerson {
		kind, first = "1", sub.FirstName
	}
	e.seg("NM1", "41", kind, named(sub.Name, "UNKNOWN"), first, "", "", "", "46", named(sub.ID, "UNKNOWN"))
	e.seg("TRN", "2", named(s.set.Reference, s.set.Control))
	e.seg("STC", composite{"A1", "19", "PR"}, day, "WQ", cash(s.totals.acceptedCents+s.totals.rejectedCents))
	e.totals(s.totals, "90", "AA")

	hl := 2
	for _, p := range s.providers {
		hl++
		parent := hl
		e.seg("HL", itoa(hl), "2", "19", "1")
		b := p.provider
		kind, first = "2", ""
		if b.GetIsPerson() {
			kind, first = "1", b.GetFirstName()
		}
		idq, id := "XX", b.GetNpi()
		if id == "" {
			idq, id = "FI", b.GetTaxId()
		}
		e.seg("NM1", "85", kind, named(b.GetName(), "UNKNOWN"), first, "", "", "", idq, named(id, "UNKNOWN"))
		e.seg("TRN", "1", "0")
		e.seg("STC", composite{"A1", "19", "PR"}, "", "WQ", cash(p.totals.acceptedCents+p.totals.rejectedCents))
		e.totals(p.totals, "QA", "QC")
		for i := range p.claims {
			hl++
			e.acknowledgeClaim(&p.claims[i], hl, parent, processed.Format("20060102"))
		}
	}
	e.endSet()
}

// totals writes counts and amounts; a total of none isn't sent.
func (e *encoder) totals(t ackTotals, accepted, rejected string) {
	if t.accepted > 0 {
		e.seg("QTY", accepted, itoa(t.accepted))
	}
	if t.rejected > 0 {
		e.seg("QTY", rejected, itoa(t.rejected))
	}
	if t.accepted > 0 {
		e.seg("AMT", "YU", cash(t.acceptedCents))
	}
	if t.rejected > 0 {
		e.seg("AMT", "YY", cash(t.rejectedCents))
	}
}

func (e *encoder) acknowledgeClaim(c *ackClaim, hl, parent int, day string) {
	e.seg("HL", itoa(hl), itoa(parent), "PT")
	e.seg("NM1", "QC", "1", named(c.last, "UNKNOWN"), c.first, c.middle, "", "", "MI", named(c.member, "UNKNOWN"))
	e.seg("TRN", "2", named(c.control, "0"))
	action, statuses := "U", c.Statuses
	if len(statuses) == 0 {
		action, statuses = "WQ", []string{"A2:20"}
	}
	for len(statuses) > 0 {
		n := min(3, len(statuses))
		stc := []any{status(statuses[0]), day, action, cash(c.charge), "", "", "", "", ""}
		for _, s := range statuses[1:n] {
			stc = append(stc, status(s))
		}
		e.seg("STC", stc...)
		statuses = statuses[n:]
	}
	if c.ClaimID != "" {
		e.seg("REF", "1K", c.ClaimID)
	}
	if c.trace != "" {
		e.seg("REF", "D9", c.trace)
	}
	if c.bill != "" {
		e.seg("REF", "BLT", c.bill)
	}
	switch {
	case c.from == "":
	case c.to == "" || c.to == c.from:
		e.seg("DTP", "472", "D8", x12Date(c.from))
	default:
		e.seg("DTP", "472", "RD8", x12Date(c.from)+"-"+x12Date(c.to))
	}
}

func status(s string) composite { return composite(strings.Split(s, ":")) }

func cash(c int64) string { return money.Cents(c).X12() }

// named is s, or what the guide wants where nothing is known.
func named(s, otherwise string) string {
	if clean(s) == "" {
		return otherwise
	}
	return s
}
