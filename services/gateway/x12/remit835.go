package x12

import (
	"io"
	"strings"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/problem"
)

// PayerProfile is what an 835 says of a payer beyond a claim: configuration
// of the installation.
type PayerProfile struct {
	Name string `json:"name"`
	// Address: 835 1000A N3 and N4, required by the guide.
	Line1      string `json:"line1"`
	City       string `json:"city"`
	State      string `json:"state"`
	PostalCode string `json:"postal_code"`
	// Contact and Phone of the payer's technical contact (PER*BL).
	Contact string `json:"contact"`
	Phone   string `json:"phone"`
	// OriginatingID is TRN03: 1 and the payer's tax id, ten digits.
	OriginatingID string `json:"originating_id"`
}

// NewAdvice makes the 835 of a remittance. Adjustments stand at line level
// only; a reversal has the groups and reasons of what it takes back, negated.
// What is no claim's (interest, a balance carried or recovered) stands in PLB
// as the remittance has it. It fails with x12.835.… problems when the
// remittance doesn't balance: nothing unbalanced leaves.
func NewAdvice(rem *claimsv1.Remittance, claims []*claimsv1.RemittedClaim, profile PayerProfile) (*Advice, error) {
	a := &Advice{Date: rem.GetPaymentDate(), Trace: rem.GetTraceNumber(), PaidCents: rem.GetPaidCents()}
	for _, c := range claims {
		a.Claims = append(a.Claims, adviceClaim(c))
	}
	if len(claims) > 0 {
		first := claims[0].GetSubmitted()
		a.Payer = AdviceParty{Name: first.GetPayer().GetName(), PayerID: rem.GetPayerId()}
		b := first.GetBillingProvider()
		a.Payee = AdviceParty{Name: b.GetName(), IDQualifier: "XX", ID: rem.GetPayeeNpi(), TaxID: b.GetTaxId(),
			Line1: b.GetAddress().GetLine1(), Line2: b.GetAddress().GetLine2(), City: b.GetAddress().GetCity(), State: b.GetAddress().GetState(), Code: b.GetAddress().GetPostalCode()}
		if b.GetIsPerson() && b.GetFirstName() != "" {
			a.Payee.Name = b.GetName() + ", " + b.GetFirstName()
		}
		if a.Payee.ID == "" {
			a.Payee.IDQualifier, a.Payee.ID = "FI", b.GetTaxId()
		}
	}
	if profile.Name != "" {
		a.Payer.Name = profile.Name
	}
	a.Payer.Line1, a.Payer.City, a.Payer.State, a.Payer.Code = profile.Line1, profile.City, profile.State, profile.PostalCode
	a.Payer.Contact, a.Payer.Phone, a.Payer.TaxID = profile.Contact, profile.Phone, profile.OriginatingID
	for _, adj := range rem.GetAdjustments() {
		a.Provider = append(a.Provider, ProviderAdjustment{Reason: adj.GetReasonCode(), Reference: adj.GetReference(), Cents: adj.GetAmountCents()})
	}
	if bad := CheckBalance835(a); len(bad) > 0 {
		return nil, &problem.Error{Kind: problem.Internal, Problems: bad}
	}
	return a, nil
}

func adviceClaim(rc *claimsv1.RemittedClaim) AdviceClaim {
	s, d := rc.GetSubmitted(), rc.GetDecision()
	// A reversal takes back what was paid: every amount of the decision negated.
	sign, reversal := int64(1), rc.GetReversal()
	if reversal {
		sign = -1
	}
	c := AdviceClaim{
		PatientControl: s.GetPatientControlNumber(), Status: claimStatus(s, d, reversal),
		ChargeCents: sign * d.GetChargeCents(), PaidCents: sign * d.GetPaidCents(), PatientCents: sign * d.GetPatientCents(),
		Filing: filing(s, d), PayerClaim: rc.GetClaimId(), Facility: s.GetPlaceOfService(), Frequency: s.GetFrequencyCode(),
		AllowedCents: sign * d.GetAllowedCents(), InterestCents: rc.GetInterestCents(), Received: rc.GetReceivedTime().AsTime().Format("2006-01-02"),
	}
	if rc.GetReceivedTime() == nil {
		c.Received = d.GetVersions().GetReceivedDate()
	}
	if c.Facility == "" {
		c.Facility = s.GetFacilityType()
	}
	sub := s.GetSubscriber()
	insured := AdvicePerson{Last: sub.GetLastName(), First: sub.GetFirstName(), Middle: sub.GetMiddleName(), ID: sub.GetMemberId(), IsPerson: true}
	c.Patient = insured
	if p := s.GetPatient(); p != nil {
		c.Patient = AdvicePerson{Last: p.GetLastName(), First: p.GetFirstName(), Middle: p.GetMiddleName(), ID: p.GetMemberId(), IsPerson: true}
		if c.Patient.ID == "" {
			c.Patient.ID = insured.ID
		}
		c.Insured = &insured
	}
	if r := s.GetRenderingProvider(); r.GetNpi() != "" {
		c.Rendering = &AdvicePerson{Last: r.GetName(), First: r.GetFirstName(), ID: r.GetNpi(), IsPerson: r.GetIsPerson()}
	}
	byNumber := map[uint32]*claimsv1.ServiceLine{}
	for _, l := range s.GetLines() {
		byNumber[l.GetNumber()] = l
	}
	for _, ld := range d.GetLines() {
		c.Lines = append(c.Lines, adviceLine(byNumber[ld.GetNumber()], ld, sign))
	}
	return c
}

func adviceLine(l *claimsv1.ServiceLine, d *claimsv1.LineDecision, sign int64) AdviceLine {
	out := AdviceLine{
		Qualifier: l.GetProcedureQualifier(), Procedure: l.GetProcedure(), Modifiers: l.GetModifiers(), Revenue: l.GetRevenueCode(),
		ChargeCents: sign * d.GetChargeCents(), PaidCents: sign * d.GetPaidCents(), AllowedCents: sign * d.GetAllowedCents(),
		QuantityMilli: l.GetQuantityMilli(), From: l.GetServiceDate(), To: l.GetServiceEndDate(), Control: l.GetLineControlNumber(),
	}
	if out.Control == "" {
		out.Control = itoa(int(d.GetNumber())) // the guide: without one, the LX01 of the claim
	}
	for _, adj := range d.GetAdjustments() {
		for _, r := range adj.GetRarcs() {
			if !contains(out.Remarks, r) {
				out.Remarks = append(out.Remarks, r)
			}
		}
		out.adjust(AdviceAdjustment{Group: adj.GetGroupCode(), CARC: adj.GetCarc(), Cents: sign * adj.GetAmountCents()})
	}
	return out
}

// adjust adds an adjustment; one reason stands once in a group.
func (l *AdviceLine) adjust(a AdviceAdjustment) {
	if a.Cents == 0 {
		return
	}
	for i := range l.Adjustments {
		if have := &l.Adjustments[i]; have.Group == a.Group && have.CARC == a.CARC {
			have.Cents += a.Cents
			return
		}
	}
	l.Adjustments = append(l.Adjustments, a)
}

// claimStatus is CLP02. The guide keeps 4, denied, for a patient who isn't
// known; a claim denied for anything else was processed as primary (1),
// secondary (2) or tertiary (3) and paid nothing.
func claimStatus(s *claimsv1.Claim, d *claimsv1.Decision, reversal bool) string {
	if reversal {
		return "22"
	}
	if d.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_DENIED {
		for _, l := range d.GetLines() {
			for _, a := range l.GetAdjustments() {
				if a.GetCarc() == "31" {
					return "4"
				}
			}
		}
	}
	switch s.GetPayerSequence() {
	case "", "P":
		return "1"
	case "S":
		return "2"
	}
	return "3"
}

// filing is CLP06. The 835 has no code for commercial insurance as such: the
// guide files it under PPO (12) or indemnity (15), here by network.
func filing(s *claimsv1.Claim, d *claimsv1.Decision) string {
	const allowed = " 12 13 14 15 16 17 AM CH DS HM LM MA MB MC OF TV VA WC ZZ "
	f := s.GetFilingIndicator()
	switch {
	case f != "" && strings.Contains(allowed, " "+f+" "):
		return f
	case d.GetNetwork() == "out":
		return "15"
	}
	return "12"
}

// Write835 writes an advice (005010X221A1) as an interchange of its own. It
// refuses one that doesn't balance.
func Write835(w io.Writer, env Envelope, a *Advice) error {
	if bad := CheckBalance835(a); len(bad) > 0 {
		return &problem.Error{Kind: problem.Internal, Problems: bad}
	}
	e := newEncoder(w, env)
	e.interchange()
	e.group("HP", "005010X221A1")
	e.set("835", "")
	date := x12Date(a.Date)
	// No bank details are known here: money goes by check, or there is none.
	if a.PaidCents == 0 {
		e.seg("BPR", "H", "0", "C", "NON", "", "", "", "", "", "", "", "", "", "", "", date)
	} else {
		e.seg("BPR", "I", cash(a.PaidCents), "C", "CHK", "", "", "", "", "", "", "", "", "", "", "", date)
	}
	e.seg("TRN", "1", short(a.Trace, 50), named(a.Payer.TaxID, "1000000000"))
	e.seg("DTM", "405", e.env.Time.Format("20060102"))
	e.adviceParties(a)
	if len(a.Claims) > 0 {
		e.seg("LX", "1")
	}
	for i := range a.Claims {
		e.adviceClaim(&a.Claims[i])
	}
	for rest := a.Provider; len(rest) > 0; {
		n := min(6, len(rest))
		plb := []any{a.Payee.ID, date[:min(4, len(date))] + "1231"}
		for _, p := range rest[:n] {
			plb = append(plb, composite{p.Reason, short(p.Reference, 50)}, cash(p.Cents))
		}
		e.seg("PLB", plb...)
		rest = rest[n:]
	}
	e.endSet()
	e.endGroup()
	e.endInterchange()
	return e.err
}

func (e *encoder) adviceParties(a *Advice) {
	p := a.Payer
	e.seg("N1", "PR", short(named(p.Name, "PAYER"), 60))
	e.seg("N3", named(p.Line1, "UNKNOWN"), p.Line2)
	e.seg("N4", named(p.City, "UNKNOWN"), p.State, p.Code)
	if p.PayerID != "" {
		e.seg("REF", "2U", p.PayerID)
	}
	if p.Phone != "" {
		e.seg("PER", "BL", p.Contact, "TE", p.Phone)
	} else {
		e.seg("PER", "BL", named(p.Contact, "PROVIDER SERVICES"))
	}
	q := a.Payee
	e.seg("N1", "PE", short(named(q.Name, "UNKNOWN"), 60), q.IDQualifier, q.ID)
	if q.Line1 != "" && q.City != "" {
		e.seg("N3", q.Line1, q.Line2)
		e.seg("N4", q.City, q.State, q.Code)
	}
	if q.TaxID != "" && q.IDQualifier != "FI" {
		e.seg("REF", "TJ", q.TaxID)
	}
}

func (e *encoder) adviceClaim(c *AdviceClaim) {
	patient := ""
	if c.Status != "22" && c.PatientCents != 0 {
		patient = cash(c.PatientCents)
	}
	e.seg("CLP", c.PatientControl, c.Status, cash(c.ChargeCents), cash(c.PaidCents), patient, c.Filing, c.PayerClaim, c.Facility, c.Frequency)
	e.cas(c.Adjustments)
	e.seg("NM1", "QC", "1", c.Patient.Last, c.Patient.First, c.Patient.Middle, "", "", idQualifier(c.Patient.ID), c.Patient.ID)
	if c.Insured != nil {
		e.seg("NM1", "IL", "1", c.Insured.Last, c.Insured.First, c.Insured.Middle, "", "", "MI", named(c.Insured.ID, "UNKNOWN"))
	}
	if r := c.Rendering; r != nil {
		kind := "2"
		if r.IsPerson {
			kind = "1"
		}
		e.seg("NM1", "82", kind, r.Last, r.First, "", "", "", "XX", r.ID)
	}
	if c.Received != "" {
		e.seg("DTM", "050", x12Date(c.Received))
	}
	if c.AllowedCents > 0 {
		e.seg("AMT", "AU", cash(c.AllowedCents))
	}
	if c.InterestCents != 0 {
		e.seg("AMT", "I", cash(c.InterestCents))
	}
	for i := range c.Lines {
		e.adviceLine(&c.Lines[i])
	}
}

func idQualifier(id string) string {
	if id == "" {
		return ""
	}
	return "MI"
}

func (e *encoder) adviceLine(l *AdviceLine) {
	procedure, revenue := composite{named(l.Qualifier, "HC"), l.Procedure}, l.Revenue
	procedure = append(procedure, l.Modifiers...)
	if l.Procedure == "" {
		procedure, revenue = composite{"NU", l.Revenue}, ""
	}
	quantity := ""
	if l.QuantityMilli > 0 && l.QuantityMilli != 1000 {
		quantity = thousandths(l.QuantityMilli)
	}
	e.seg("SVC", procedure, cash(l.ChargeCents), cash(l.PaidCents), revenue, quantity)
	switch {
	case l.From == "":
	case l.To == "" || l.To == l.From:
		e.seg("DTM", "472", x12Date(l.From))
	default:
		e.seg("DTM", "150", x12Date(l.From))
		e.seg("DTM", "151", x12Date(l.To))
	}
	e.cas(l.Adjustments)
	if l.Control != "" {
		e.seg("REF", "6R", l.Control)
	}
	if l.AllowedCents > 0 {
		e.seg("AMT", "B6", cash(l.AllowedCents))
	}
	for _, r := range l.Remarks {
		e.seg("LQ", "HE", r)
	}
}

// cas writes adjustments group by group in order of first appearance, six to a segment.
func (e *encoder) cas(list []AdviceAdjustment) {
	var groups []string
	byGroup := map[string][]AdviceAdjustment{}
	for _, a := range list {
		if byGroup[a.Group] == nil {
			groups = append(groups, a.Group)
		}
		byGroup[a.Group] = append(byGroup[a.Group], a)
	}
	for _, g := range groups {
		for rest := byGroup[g]; len(rest) > 0; {
			n := min(6, len(rest))
			seg := []any{g}
			for i, a := range rest[:n] {
				seg = append(seg, a.CARC, cash(a.Cents))
				if i < n-1 {
					seg = append(seg, "")
				}
			}
			e.seg("CAS", seg...)
			rest = rest[n:]
		}
	}
}

// thousandths formats a quantity held in thousandths: 1500 is 1.5.
func thousandths(q int64) string {
	whole, frac := itoa(int(q/1000)), itoa(int(1000 + q%1000))[1:]
	return strings.TrimSuffix(whole+"."+strings.TrimRight(frac, "0"), ".")
}
