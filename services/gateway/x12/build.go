package x12

import (
	"strings"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/codes"
)

// Party is who sent or receives a transaction set (1000A, 1000B) or a payer.
type Party struct {
	Name, FirstName, ID string
	IsPerson            bool
}

// context is what the claims below a level share. Faults found there reject them all.
type context struct {
	billing       *claimsv1.Provider
	payToDiffers  bool
	billingFaults []Fault

	subscriber       *claimsv1.Person
	payer            *claimsv1.Payer
	relationship     string // SBR02 or PAT01
	sequence         string
	group            string
	filing           string
	subscriberFaults []Fault
	subscriberBorn   bool // a DMG was sent

	patient       *claimsv1.Person // nil where the subscriber is the patient
	patientFaults []Fault
}

// openClaim is the claim being read.
type openClaim struct {
	claim  *claimsv1.Claim
	faults []Fault

	line  *claimsv1.ServiceLine
	other *claimsv1.OtherPayer
	prior *claimsv1.PriorAdjudication
}

// builder turns segments, as the grammar places them, into claims.
type builder struct {
	form            claimsv1.ClaimForm
	place           *claimsv1.X12Place // control numbers; shared, read only
	reference       string             // BHT03
	transactionType string             // BHT06
	submitter       Party
	receiver        Party
	ctx             context
	open            *openClaim
	// done takes each finished claim.
	done func(*openClaim, *builder)
}

// clone copies what reading on would change. There is no open claim at the places that are remembered.
func (b *builder) clone() reading {
	c := *b
	c.ctx.billing = proto.CloneOf(b.ctx.billing)
	c.ctx.subscriber = proto.CloneOf(b.ctx.subscriber)
	c.ctx.payer = proto.CloneOf(b.ctx.payer)
	c.ctx.patient = proto.CloneOf(b.ctx.patient)
	c.ctx.billingFaults = append([]Fault(nil), b.ctx.billingFaults...)
	c.ctx.subscriberFaults = append([]Fault(nil), b.ctx.subscriberFaults...)
	c.ctx.patientFaults = append([]Fault(nil), b.ctx.patientFaults...)
	return &c
}

// scopeFaults bounds how many faults one claim, subscriber … keeps; one is enough to reject.
const scopeFaults = 50

// keep attaches a fault to what it rejects.
func (b *builder) keep(f Fault) {
	var list *[]Fault
	switch f.scope {
	case inClaim:
		if b.open == nil {
			return
		}
		list = &b.open.faults
	case inPatient:
		list = &b.ctx.patientFaults
	case inSubscriber:
		list = &b.ctx.subscriberFaults
	case inBilling:
		list = &b.ctx.billingFaults
	default:
		return
	}
	if len(*list) < scopeFaults {
		*list = append(*list, f)
	}
}

// enter prepares for a loop.
func (b *builder) enter(loop string) {
	switch loop {
	case "2000A":
		b.ctx = context{billing: &claimsv1.Provider{}}
	case "2010AB":
		b.ctx.payToDiffers = true
	case "2000B":
		b.ctx = context{billing: b.ctx.billing, payToDiffers: b.ctx.payToDiffers, billingFaults: b.ctx.billingFaults,
			subscriber: &claimsv1.Person{}, payer: &claimsv1.Payer{}}
	case "2000C":
		b.ctx.patient, b.ctx.patientFaults, b.ctx.relationship = &claimsv1.Person{}, nil, ""
	case "2300":
		b.open = &openClaim{claim: &claimsv1.Claim{Form: b.form, TransactionType: b.transactionType}}
		if b.form == claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL {
			b.open.claim.Institutional = &claimsv1.Institutional{}
		}
	case "2320":
		b.open.other = &claimsv1.OtherPayer{}
		b.open.claim.OtherPayers = append(b.open.claim.OtherPayers, b.open.other)
	case "2400":
		b.open.line = &claimsv1.ServiceLine{}
		b.open.claim.Lines = append(b.open.claim.Lines, b.open.line)
	}
}

// leave ends a loop.
func (b *builder) leave(p *setParser, loop string) {
	switch loop {
	case "2300":
		b.complete(p)
		o := b.open
		b.open = nil
		b.done(o, b)
	case "2000C":
		b.ctx.patient, b.ctx.patientFaults = nil, nil
	case "2320":
		b.open.other = nil
	case "2430":
		b.open.prior = nil
	}
}

// take reads a segment that stands in its place.
func (b *builder) take(p *setParser, loop string, s *Segment) {
	switch loop {
	case "ST":
		if s.ID == "BHT" {
			b.reference, b.transactionType = s.El(3), s.El(6)
		}
	case "1000A", "1000B":
		if s.ID == "NM1" {
			party := Party{Name: s.El(3), FirstName: s.El(4), ID: s.El(9), IsPerson: s.El(2) == "1"}
			if loop == "1000A" {
				b.submitter = party
			} else {
				b.receiver = party
			}
		}
	case "2000A":
		if s.ID == "PRV" {
			b.ctx.billing.Taxonomy = s.El(3)
		}
	case "2010AA":
		b.provider(p, loop, b.ctx.billing, s)
	case "2000B":
		if s.ID == "SBR" {
			b.ctx.sequence, b.ctx.relationship, b.ctx.group, b.ctx.filing = s.El(1), s.El(2), s.El(3), s.El(9)
		}
	case "2010BA":
		person(b.ctx.subscriber, s)
		b.ctx.subscriberBorn = b.ctx.subscriberBorn || s.ID == "DMG"
	case "2010BB":
		if s.ID == "NM1" {
			b.ctx.payer = payer(s)
		}
	case "2000C":
		if s.ID == "PAT" {
			b.ctx.relationship = s.El(1)
		}
	case "2010CA":
		person(b.ctx.patient, s)
	default:
		if b.open != nil {
			b.takeClaim(p, loop, s)
		}
	}
}

// provider reads the segments of a loop that names a provider.
func (b *builder) provider(p *setParser, loop string, to *claimsv1.Provider, s *Segment) {
	switch s.ID {
	case "NM1":
		to.IsPerson, to.Name = s.El(2) == "1", s.El(3)
		if to.IsPerson {
			to.FirstName = s.El(4)
		}
		if s.El(8) == "XX" {
			to.Npi = s.El(9)
		}
		if (s.El(8) == "") != (s.El(9) == "") {
			p.fault(Fault{Rule: "x12.element.paired", Segment: s.ID, Loop: loop, Element: 9, SegmentCode: "8", ElementCode: "2", scope: p.scopeOf(loop),
				Message: "NM108 and NM109 must both be sent or neither", Fix: "send XX and the NPI"})
		} else if to.Npi != "" && !codes.ValidNPI(to.Npi) {
			// The check digit is a matter of data, not of syntax: the 999 passes it.
			p.fault(Fault{Rule: "x12.npi.check-digit", Segment: s.ID, Loop: loop, Element: 9, Status: p.status("A7", loop, s.ID, 9), scope: p.scopeOf(loop),
				Message: "the National Provider Identifier is not ten digits with a valid check digit", Fix: "correct the NPI"})
		}
	case "REF":
		if q := s.El(1); q == "EI" || q == "SY" {
			to.TaxId = s.El(2)
		}
	case "PRV":
		to.Taxonomy = s.El(3)
	case "N3", "N4":
		to.Address = address(to.Address, s)
	}
}

func person(to *claimsv1.Person, s *Segment) {
	switch s.ID {
	case "NM1":
		to.LastName, to.FirstName, to.MiddleName, to.MemberId = s.El(3), s.El(4), s.El(5), s.El(9)
	case "N3", "N4":
		to.Address = address(to.Address, s)
	case "DMG":
		to.BirthDate, _ = isoDate(s.El(2))
		to.Sex = s.El(3)
	}
}

func payer(s *Segment) *claimsv1.Payer {
	return &claimsv1.Payer{Name: s.El(3), IdQualifier: s.El(8), Id: s.El(9)}
}

func address(a *claimsv1.Address, s *Segment) *claimsv1.Address {
	if a == nil {
		a = &claimsv1.Address{}
	}
	if s.ID == "N3" {
		a.Line1, a.Line2 = s.El(1), s.El(2)
	} else {
		a.City, a.State, a.PostalCode = s.El(1), s.El(2), s.El(3)
	}
	return a
}

// named is where the claim keeps a provider of a role (NM101 of loop 2310);
// nil for a role that isn't kept.
func (b *builder) named(role string) **claimsv1.Provider {
	c := b.open.claim
	switch role {
	case "DN":
		return &c.ReferringProvider
	case "82":
		return &c.RenderingProvider
	case "77":
		return &c.ServiceFacility
	}
	if in := c.Institutional; in != nil {
		switch role {
		case "71":
			return &in.AttendingProvider
		case "72":
			return &in.OperatingProvider
		case "ZZ":
			return &in.OtherOperatingProvider
		}
	}
	return nil
}

// takeClaim reads a segment of the claim loop or below.
func (b *builder) takeClaim(p *setParser, loop string, s *Segment) {
	o := b.open
	switch {
	case loop == "2300":
		b.takeHeader(p, s)
	case strings.HasPrefix(loop, "2310"):
		named := b.named(p.g.roleOf(loop))
		if named == nil || s.ID == "NM1" && s.El(1) == "P3" { // P3: primary care provider
			return
		}
		if s.ID == "NM1" {
			*named = &claimsv1.Provider{}
		}
		if *named != nil {
			b.provider(p, loop, *named, s)
		}
	case loop == "2320":
		switch s.ID {
		case "SBR":
			o.other.PayerSequence = s.El(1)
		case "CAS":
			o.other.Adjustments = b.adjustments(p, loop, o.other.Adjustments, s)
			o.other.Adjudicated = true
		case "AMT":
			if s.El(1) == "D" {
				o.other.PaidCents, o.other.Adjudicated = b.amount(p, loop, s, 2), true
			}
		}
	case loop == "2330B":
		switch s.ID {
		case "NM1":
			o.other.Payer = payer(s)
		case "DTP":
			o.other.AdjudicationDate, _ = isoDate(s.El(3))
		}
	case o.line == nil:
	default:
		b.takeLine(p, loop, s)
	}
}
