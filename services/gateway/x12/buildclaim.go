package x12

import (
	"strings"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/codes"
)

// amount reads an amount of money; a fault and 0 where it is none.
func (b *builder) amount(p *setParser, loop string, s *Segment, n int) int64 {
	v := s.El(n)
	if v == "" || !decimal(v) || len(v) > 19 {
		return 0 // the grammar has said so already
	}
	c, ok := cents(v)
	if !ok || c < 0 && s.ID != "CAS" && s.ID != "SVD" {
		p.fault(Fault{Rule: "x12.amount.range", Segment: s.ID, Loop: loop, Element: n, SegmentCode: "8", ElementCode: "7", scope: p.scopeOf(loop),
			Message: "the amount is negative, has parts of a cent or is beyond 99,999,999.99", Fix: "send 0 to 99999999.99, dollars with at most two decimals"})
		return 0
	}
	return c
}

// takeHeader reads the claim loop's own segments.
func (b *builder) takeHeader(p *setParser, s *Segment) {
	c := b.open.claim
	switch s.ID {
	case "CLM":
		c.X12 = proto.CloneOf(b.place)
		c.X12.ClmSegment = uint32(p.ordinal)
		c.PatientControlNumber = s.El(1)
		c.ChargeCents = b.amount(p, "2300", s, 2)
		if b.form == claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL {
			c.PlaceOfService = s.Comp(5, 1)
		} else {
			c.FacilityType = s.Comp(5, 1)
		}
		c.FrequencyCode = s.Comp(5, 3)
		c.AssignmentCode, c.BenefitsAssigned = s.El(7), s.El(8)
		for i := 1; i <= 3; i++ {
			if v := s.Comp(11, i); v != "" {
				c.RelatedCauses = append(c.RelatedCauses, v)
			}
		}
	case "DTP":
		d := &claimsv1.ClaimDate{Qualifier: s.El(1)}
		switch v := s.El(3); s.El(2) {
		case "D8":
			d.StartDate, _ = isoDate(v)
		case "RD8":
			d.StartDate, d.EndDate, _ = isoRange(v)
		case "DT":
			d.StartDate, _ = isoDate(v[:min(8, len(v))])
		}
		if d.StartDate != "" && len(c.Dates) < 20 {
			c.Dates = append(c.Dates, d)
		}
		if c.Institutional != nil {
			takeStay(c.Institutional, d, s)
		}
	case "CL1":
		if in := c.Institutional; in != nil {
			in.AdmissionType, in.AdmissionSource, in.PatientStatus = s.El(1), s.El(2), s.El(3)
		}
	case "AMT":
		if s.El(1) == "F5" {
			c.PatientPaidCents = b.amount(p, "2300", s, 2)
		}
	case "REF":
		switch v := s.El(2); s.El(1) {
		case "F8":
			c.OriginalClaimNumber = v
		case "G1":
			c.PriorAuthorizationNumber = v
		case "9F":
			c.ReferralNumber = v
		case "D9":
			c.ClearinghouseTrace = v
		}
	case "HI":
		for n := range s.elems {
			b.takeCode(p, s, n+1)
		}
	}
}

// takeStay reads the dates that only an institutional claim has.
func takeStay(in *claimsv1.Institutional, d *claimsv1.ClaimDate, s *Segment) {
	v := s.El(3)
	switch d.GetQualifier() {
	case "434":
		if in.StatementFrom, in.StatementThrough = d.GetStartDate(), d.GetEndDate(); in.StatementThrough == "" {
			in.StatementThrough = in.StatementFrom
		}
	case "435":
		in.AdmissionDate = d.GetStartDate()
		if s.El(2) == "DT" && len(v) == 12 && clock(v[8:]) {
			in.AdmissionTime = v[8:]
		}
	case "096":
		if len(v) >= 4 && clock(v) {
			in.DischargeTime = v[:4]
		}
	}
}

// listed bounds the lists of codes, as the messages do.
const listed = 24

// takeCode reads one composite of an HI segment: a diagnosis or, on an
// institutional claim, another of the claim's codes. Lists that no payment
// rests on are passed over.
func (b *builder) takeCode(p *setParser, s *Segment, n int) {
	c := b.open.claim
	qualifier, code := s.Comp(n, 1), s.Comp(n, 2)
	if code == "" {
		return
	}
	diagnosis := func() *claimsv1.Diagnosis {
		return &claimsv1.Diagnosis{Qualifier: qualifier, Code: undotted(code), PresentOnAdmission: s.Comp(n, 9)}
	}
	switch qualifier {
	case "ABK", "BK", "ABF", "BF":
		if len(c.Diagnoses) < 25 {
			c.Diagnoses = append(c.Diagnoses, diagnosis())
		}
		return
	}
	in := c.Institutional
	if in == nil {
		return
	}
	switch qualifier {
	case "BG", "BH", "BI", "BE":
		if len(code) > 2 {
			p.fault(Fault{Rule: "x12.institutional.code", Segment: "HI", Loop: "2300", Element: n, Component: 2, SegmentCode: "8", ElementCode: "5", Status: "A7:21", scope: inClaim,
				Message: "a condition, occurrence or value code has more than two characters", Fix: "send the code as the NUBC's manual lists it"})
			return
		}
	}
	switch qualifier {
	case "ABJ", "BJ":
		in.AdmittingDiagnosis = diagnosis()
	case "APR", "PR":
		if len(in.VisitReasons) < 3 {
			in.VisitReasons = append(in.VisitReasons, diagnosis())
		}
	case "ABN", "BN":
		if len(in.ExternalCauses) < 12 {
			in.ExternalCauses = append(in.ExternalCauses, diagnosis())
		}
	case "DR":
		if in.Drg = strings.TrimLeft(code, "0"); len(in.Drg) > 4 {
			in.Drg = ""
		}
	case "BBR", "BR", "CAH", "BBQ", "BQ":
		if len(in.Procedures) < 25 {
			day, _ := isoDate(s.Comp(n, 4))
			in.Procedures = append(in.Procedures, &claimsv1.InstitutionalProcedure{Qualifier: qualifier, Code: undotted(code), Date: day})
		}
	case "BG":
		if len(in.ConditionCodes) < listed {
			in.ConditionCodes = append(in.ConditionCodes, code)
		}
	case "BH":
		if len(in.Occurrences) < listed {
			day, _ := isoDate(s.Comp(n, 4))
			in.Occurrences = append(in.Occurrences, &claimsv1.Occurrence{Code: code, StartDate: day})
		}
	case "BI":
		if len(in.OccurrenceSpans) < listed {
			from, to, _ := isoRange(s.Comp(n, 4))
			in.OccurrenceSpans = append(in.OccurrenceSpans, &claimsv1.Occurrence{Code: code, StartDate: from, EndDate: to})
		}
	case "BE":
		hundredths, ok := cents(s.Comp(n, 5))
		if !ok || hundredths < 0 {
			p.fault(Fault{Rule: "x12.amount.range", Segment: "HI", Loop: "2300", Element: n, SegmentCode: "8", ElementCode: "7", scope: inClaim,
				Message: "a value code's figure is negative, has more than two decimals or is too large", Fix: "send amounts and days with at most two decimals"})
			return
		}
		if len(in.Values) < listed {
			in.Values = append(in.Values, &claimsv1.ValueCode{Code: code, Hundredths: hundredths})
		}
	}
}

func undotted(code string) string { return strings.ToUpper(strings.ReplaceAll(code, ".", "")) }

// takeLine reads a segment of a service line.
func (b *builder) takeLine(p *setParser, loop string, s *Segment) {
	o, line := b.open, b.open.line
	switch {
	case loop == "2400":
		switch s.ID {
		case "LX":
			b.number(p, s)
		case "SV1":
			b.procedure(line, s, 1)
			line.ChargeCents = b.amount(p, loop, s, 2)
			line.UnitCode = s.El(3)
			b.quantity(p, loop, s, 4)
			line.PlaceOfService = s.El(5)
			for i := 1; i <= 4; i++ {
				if v := s.Comp(7, i); v != "" && digits(v) && len(v) <= 2 {
					line.DiagnosisPointers = append(line.DiagnosisPointers, uint32(atoi(v)))
				}
			}
			line.Emergency = s.El(9) == "Y"
		case "SV2":
			line.RevenueCode = s.El(1)
			b.procedure(line, s, 2)
			line.ChargeCents = b.amount(p, loop, s, 3)
			line.UnitCode = s.El(4)
			b.quantity(p, loop, s, 5)
			line.NoncoveredCents = b.amount(p, loop, s, 7)
		case "DTP":
			if s.El(1) != "472" {
				break
			}
			if s.El(2) == "RD8" {
				line.ServiceDate, line.ServiceEndDate, _ = isoRange(s.El(3))
			} else {
				line.ServiceDate, _ = isoDate(s.El(3))
			}
		case "REF":
			switch s.El(1) {
			case "6R":
				line.LineControlNumber = s.El(2)
			case "G1":
				if s.El(4) == "" { // with REF04 it is another payer's
					line.PriorAuthorizationNumber = s.El(2)
				}
			}
		case "AMT":
			if q := s.El(1); q == "T" || q == "GT" {
				line.SalesTaxCents = b.amount(p, loop, s, 2)
			}
		}
	case loop == "2410":
		if s.ID == "LIN" && s.El(2) == "N4" {
			line.Ndc = s.El(3)
		}
	case strings.HasPrefix(loop, "2420"):
		if p.g.entityOf(loop) != "82" {
			return
		}
		if line.RenderingProvider == nil {
			line.RenderingProvider = &claimsv1.Provider{}
		}
		b.provider(p, loop, line.RenderingProvider, s)
	case loop == "2430":
		switch s.ID {
		case "SVD":
			o.prior = &claimsv1.PriorAdjudication{PayerId: s.El(1), PaidCents: b.amount(p, loop, s, 2)}
			line.PriorAdjudications = append(line.PriorAdjudications, o.prior)
		case "CAS":
			if o.prior != nil {
				o.prior.Adjustments = b.adjustments(p, loop, o.prior.Adjustments, s)
			}
		case "DTP":
			if o.prior != nil {
				o.prior.AdjudicationDate, _ = isoDate(s.El(3))
			}
		}
	}
}

// number checks that lines count up by one from 1 (LX01).
func (b *builder) number(p *setParser, s *Segment) {
	n := len(b.open.claim.Lines)
	b.open.line.Number = uint32(n)
	if v := s.El(1); !digits(v) || strings.TrimLeft(v, "0") != itoa(n) {
		p.fault(Fault{Rule: "x12.line.sequence", Segment: "LX", Loop: "2400", Element: 1, SegmentCode: "8", ElementCode: "7", scope: inClaim,
			Message: "service lines must count up by one from 1 in each claim", Fix: "number the LX segments of the claim 1, 2, 3 …"})
	}
}

func (b *builder) procedure(line *claimsv1.ServiceLine, s *Segment, n int) {
	line.ProcedureQualifier, line.Procedure = s.Comp(n, 1), s.Comp(n, 2)
	for i := 3; i <= 6; i++ {
		if v := s.Comp(n, i); v != "" {
			line.Modifiers = append(line.Modifiers, v)
		}
	}
}

func (b *builder) quantity(p *setParser, loop string, s *Segment, n int) {
	v := s.El(n)
	if v == "" {
		return
	}
	q, ok := milli(v)
	if !ok {
		p.fault(Fault{Rule: "x12.quantity.range", Segment: s.ID, Loop: loop, Element: n, SegmentCode: "8", ElementCode: "7", scope: inClaim,
			Message: "the quantity is negative, too large or has more than three decimals", Fix: "send 0 or more, with at most three decimals"})
	}
	b.open.line.QuantityMilli = q
}

// adjustments reads a CAS segment: up to six triples of reason, amount and quantity.
func (b *builder) adjustments(p *setParser, loop string, to []*claimsv1.PriorAdjustment, s *Segment) []*claimsv1.PriorAdjustment {
	for n := 2; n <= 17; n += 3 {
		if s.El(n) == "" && s.El(n+1) == "" {
			continue
		}
		if s.El(n) == "" || s.El(n+1) == "" {
			p.fault(Fault{Rule: "x12.element.paired", Segment: "CAS", Loop: loop, Element: n, SegmentCode: "8", ElementCode: "2", scope: inClaim,
				Message: "an adjustment needs both a reason and an amount", Fix: "send reason and amount in pairs"})
			continue
		}
		if len(to) == 30 {
			break // the message holds thirty; the grammar refuses more segments than carry them
		}
		to = append(to, &claimsv1.PriorAdjustment{GroupCode: s.El(1), Carc: s.El(n), AmountCents: b.amount(p, loop, s, n+1)})
	}
	return to
}

// complete joins the claim with what stands above it and checks what no single segment shows.
func (b *builder) complete(p *setParser) {
	o, c, ctx := b.open, b.open.claim, &b.ctx
	c.BillingProvider = proto.CloneOf(ctx.billing)
	c.PayToDiffers = ctx.payToDiffers
	c.Subscriber, c.Payer = proto.CloneOf(ctx.subscriber), proto.CloneOf(ctx.payer)
	c.Patient = proto.CloneOf(ctx.patient)
	c.RelationshipCode, c.PayerSequence, c.GroupNumber, c.FilingIndicator = ctx.relationship, ctx.sequence, ctx.group, ctx.filing
	b.mergePriors(p)
	for _, other := range c.OtherPayers {
		other.Adjudicated = other.Adjudicated || decidedLines(c, other.GetPayer().GetId())
	}
	b.relate(p)
	o.faults = append(append(append(append([]Fault(nil), ctx.billingFaults...), ctx.subscriberFaults...), ctx.patientFaults...), o.faults...)
}

// mergePriors joins the decisions of one payer on one line, which bundling may have split.
func (b *builder) mergePriors(p *setParser) {
	for _, line := range b.open.claim.Lines {
		var merged []*claimsv1.PriorAdjudication
		byPayer := map[string]*claimsv1.PriorAdjudication{}
		for _, d := range line.PriorAdjudications {
			first := byPayer[d.PayerId]
			if first == nil {
				byPayer[d.PayerId] = d
				merged = append(merged, d)
				continue
			}
			first.PaidCents += d.PaidCents
			first.Adjustments = append(first.Adjustments, d.Adjustments...)
			if d.AdjudicationDate > first.AdjudicationDate {
				first.AdjudicationDate = d.AdjudicationDate
			}
		}
		for _, d := range merged {
			if len(d.Adjustments) > 30 || len(merged) > 10 {
				p.fault(Fault{Rule: "x12.prior.too-many", Segment: "SVD", Loop: "2430", Status: "A7:286", scope: inClaim,
					Message: "a line carries more decisions of other payers than can be read", Fix: "send at most ten payers and thirty adjustments each"})
				break
			}
		}
		line.PriorAdjudications = merged
	}
}

func decidedLines(c *claimsv1.Claim, payer string) bool {
	for _, line := range c.Lines {
		for _, d := range line.PriorAdjudications {
			if d.PayerId == payer && payer != "" {
				return true
			}
		}
	}
	return false
}

// relate holds the claim against the guide's rules between segments. These
// are no matter of the 999: each fault has only a claim status, and names the
// claim by its CLM segment.
func (b *builder) relate(p *setParser) {
	c, ctx := b.open.claim, &b.ctx
	clm := int(c.GetX12().GetClmSegment())
	say := func(rule, status, msg, fix string) {
		p.fault(Fault{Rule: rule, Segment: "CLM", Ordinal: clm, Loop: "2300", Status: status, scope: inClaim, Message: msg, Fix: fix})
	}
	var sum int64
	for _, line := range c.Lines {
		sum += line.ChargeCents
		for _, d := range line.DiagnosisPointers {
			if int(d) > len(c.Diagnoses) || d == 0 {
				say("x12.diagnosis.pointer", "A8:477", "a line points to a diagnosis that the claim doesn't have", "let SV107 point to diagnoses of the HI segment")
			}
		}
	}
	if b.form == claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL && !places(c) {
		say("x12.place-of-service", "A7:249", "a place of service is not a code that CMS has assigned", "correct CLM05-1 or SV105")
	}
	if sum != c.ChargeCents {
		say("x12.claim.out-of-balance", "A8:400", "the claim's charge is not the sum of its lines' charges", "let CLM02 equal the sum of SV102 or SV203")
	}
	switch c.FrequencyCode {
	case "7", "8":
		if c.OriginalClaimNumber == "" {
			say("x12.claim.original-number", "A6:464", "a replacement or void must name the claim it refers to", "send REF with F8 and the payer's claim control number")
		}
	case "1":
	default:
		say("x12.claim.frequency", "A7:535", "the claim frequency code is not one this payer takes", "send 1 original, 7 replacement or 8 void")
	}
	if ctx.relationship == "" {
		say("x12.subscriber.relationship", "A6:156", "nothing says whether the subscriber is the patient", "send SBR02 18, or a patient level (HL 23) with PAT01")
	}
	if ctx.patient == nil && !ctx.subscriberBorn {
		say("x12.subscriber.birth-date", "A6:158:IL", "the subscriber is the patient and has no birth date", "send DMG in loop 2010BA")
	}
	if ctx.subscriber.GetMemberId() == "" {
		say("x12.subscriber.member-id", "A6:164:IL", "the subscriber has no member identifier", "send MI and the member identifier in NM108 and NM109")
	}
}

// places tells whether every place of service of a professional claim is one
// of the CMS list: an external code list, which is the 277CA's matter.
func places(c *claimsv1.Claim) bool {
	_, ok := codes.PlaceOfService(c.PlaceOfService)
	for _, line := range c.Lines {
		if line.PlaceOfService != "" && ok {
			_, ok = codes.PlaceOfService(line.PlaceOfService)
		}
	}
	return ok
}
