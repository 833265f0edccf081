package claims

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/problem"
)

// maxClaimBytes bounds an encoded claim, so that claim, decision and history
// fit one commit. A claim of 999 lines is about half of it.
const maxClaimBytes = 256 << 10

// 277CA claim status categories of a refusal.
const (
	missing       = "A6" // needed information isn't there
	invalid       = "A7" // information breaks its own rules
	contradictory = "A8" // two pieces of information can't both be true
)

// checkClaim finds what keeps a claim from being adjudicated at all. Whatever
// a payer answers with an adjustment code is left to the engine; what stops
// here would make its answer meaningless. No message carries a value.
func checkClaim(c *claimsv1.Claim) []problem.Problem {
	f := &findings{}
	if c == nil {
		f.add("claims.missing", "claim", missing, "the request holds no claim", "send the claim")
		return f.found
	}
	if c.GetForm() != claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL && c.GetForm() != claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL {
		f.add("claims.form", "claim.form", invalid, "the claim is neither professional nor institutional", "say which implementation guide it follows")
	}
	if c.GetPayer().GetId() == "" {
		f.add("claims.payer.missing", "claim.payer.id", missing, "the claim names no payer", "send the payer's identifier (2010BB NM109)")
	}
	if c.GetSubscriber().GetMemberId() == "" {
		f.add("claims.subscriber.member-id", "claim.subscriber.member_id", missing, "the subscriber has no member identifier", "send it as printed on the card (2010BA NM109)")
	}
	if c.GetPatientControlNumber() == "" {
		f.add("claims.patient-control-number", "claim.patient_control_number", missing, "the claim has no patient control number", "send the provider's account number (CLM01)")
	}
	checkFrequency(f, c)
	checkProviders(f, c)
	f.date("claim.subscriber.birth_date", c.GetSubscriber().GetBirthDate())
	f.date("claim.patient.birth_date", c.GetPatient().GetBirthDate())
	for i, d := range c.GetDates() {
		if !isPeriod(d.GetStartDate(), d.GetEndDate()) {
			f.period(fmt.Sprintf("claim.dates[%d]", i), d.GetStartDate(), d.GetEndDate())
		}
	}
	if len(c.GetDiagnoses()) > 25 {
		f.add("claims.diagnoses.many", "claim.diagnoses", invalid, "the claim has more than 25 diagnoses", "send at most 25")
	}
	checkLines(f, c)
	if proto.Size(c) > maxClaimBytes {
		f.add("claims.size", "claim", invalid, fmt.Sprintf("the claim is larger than %d KiB", maxClaimBytes>>10), "split it into several claims")
	}
	return f.found
}

func checkFrequency(f *findings, c *claimsv1.Claim) {
	switch c.GetFrequencyCode() {
	case "1":
	case "7", "8":
		if c.GetOriginalClaimNumber() == "" {
			f.add("claims.original.missing", "claim.original_claim_number", missing,
				"a replacement or void names no original claim", "send the payer's claim number (REF*F8)")
		}
	default:
		f.add("claims.frequency", "claim.frequency_code", invalid, "the frequency code is not 1, 7 or 8", "send 1 for an original claim, 7 to replace, 8 to void (CLM05-3)")
	}
}

// checkProviders applies the NPI's check digit. The biller's is needed, the
// others' only where they are given: who is missing is the engine's question.
func checkProviders(f *findings, c *claimsv1.Claim) {
	if npi := c.GetBillingProvider().GetNpi(); npi == "" {
		f.add("claims.npi.missing", "claim.billing_provider.npi", missing, "the billing provider has no NPI", "send the ten digits (2010AA NM109)")
	} else if !codes.ValidNPI(npi) {
		f.npi("claim.billing_provider.npi")
	}
	for _, p := range []struct {
		path string
		who  *claimsv1.Provider
	}{
		{"claim.rendering_provider.npi", c.GetRenderingProvider()},
		{"claim.referring_provider.npi", c.GetReferringProvider()},
		{"claim.service_facility.npi", c.GetServiceFacility()},
	} {
		if npi := p.who.GetNpi(); npi != "" && !codes.ValidNPI(npi) {
			f.npi(p.path)
		}
	}
	for i, l := range c.GetLines() {
		if npi := l.GetRenderingProvider().GetNpi(); npi != "" && !codes.ValidNPI(npi) {
			f.npi(fmt.Sprintf("claim.lines[%d].rendering_provider.npi", i))
		}
	}
}

func checkLines(f *findings, c *claimsv1.Claim) {
	if len(c.GetLines()) == 0 {
		f.add("claims.lines.none", "claim.lines", missing, "the claim has no service line", "send at least one")
		return
	}
	if len(c.GetLines()) > 999 {
		f.add("claims.lines.many", "claim.lines", invalid, "the claim has more than 999 service lines", "split it")
		return
	}
	var sum int64
	for i, l := range c.GetLines() {
		at := func(field string) string { return fmt.Sprintf("claim.lines[%d]%s", i, field) }
		if l.GetNumber() != uint32(i+1) {
			f.add("claims.lines.number", at(".number"), invalid, "service lines are not numbered 1, 2, 3 … in order", "number them so (LX01)")
		}
		if l.GetChargeCents() < 0 || l.GetChargeCents() > 9999999999 || l.GetSalesTaxCents() < 0 {
			f.add("claims.lines.charge", at(".charge_cents"), invalid, "a line's charge is out of range", "send 0 to 99,999,999.99")
		} else {
			sum += l.GetChargeCents() // at most 999 × 10^10: far inside an int64
		}
		if l.GetQuantityMilli() < 0 || l.GetQuantityMilli() > 9999999999 {
			f.add("claims.lines.quantity", at(".quantity_milli"), invalid, "a line's quantity is out of range", "send a quantity of 0 or more")
		}
		if !isPeriod(l.GetServiceDate(), l.GetServiceEndDate()) {
			f.period(at(".service_date"), l.GetServiceDate(), l.GetServiceEndDate())
		}
		for _, p := range l.GetDiagnosisPointers() {
			if p < 1 || int(p) > len(c.GetDiagnoses()) {
				f.add("claims.lines.diagnosis-pointer", at(".diagnosis_pointers"), contradictory,
					"a line points to a diagnosis that the claim doesn't have", "pointers count the claim's diagnoses from 1 (SV107)")
				break
			}
		}
		for j, p := range l.GetPriorAdjudications() {
			f.date(at(fmt.Sprintf(".prior_adjudications[%d].adjudication_date", j)), p.GetAdjudicationDate())
		}
	}
	if sum != c.GetChargeCents() {
		f.add("claims.charge.total", "claim.charge_cents", contradictory,
			"the claim's charge is not the sum of its lines", "correct CLM02 or the lines' SV102")
	}
}

// findings collects problems in the order found, a bounded number.
type findings struct{ found []problem.Problem }

// maxFindings is how many problems of one claim are told: the first hundred
// are enough to see what is wrong with how it was made.
const maxFindings = 100

func (f *findings) add(rule, path, category, message, fix string) {
	if len(f.found) < maxFindings {
		f.found = append(f.found, problem.Problem{RuleID: rule, FieldPath: path, Code: category, Message: message, Fix: fix})
	}
}

func (f *findings) npi(path string) {
	f.add("claims.npi.check-digit", path, invalid, "a National Provider Identifier fails its check digit", "correct the ten digits; the last is the Luhn digit over 80840 and the first nine")
}

// date refuses what looks like a date and is none.
func (f *findings) date(path, s string) (adjudication.Date, bool) {
	d, err := adjudication.ParseDate(s)
	if err != nil {
		f.add("claims.date", path, invalid, "a date is not a day of the calendar", "send it as YYYY-MM-DD")
		return 0, false
	}
	return d, true
}

// isPeriod spares sound periods, which are nearly all, their paths.
func isPeriod(start, end string) bool {
	from, err1 := adjudication.ParseDate(start)
	to, err2 := adjudication.ParseDate(end)
	return err1 == nil && err2 == nil && (to == 0 || to >= from)
}

func (f *findings) period(path, start, end string) {
	from, ok1 := f.date(path, start)
	to, ok2 := f.date(path, end)
	if ok1 && ok2 && to != 0 && to < from {
		f.add("claims.date.order", path, contradictory, "a period ends before it begins", "exchange or correct the two dates")
	}
}

// submission is one claim on its way to a decision. Only the goroutine that
// decides its family touches it.
type submission struct {
	request  *claimsv1.SubmitClaimRequest
	org      string // submitting organisation
	actor    string
	received time.Time

	name       string // the idempotency key's hash
	claimID    string
	payer      string
	subscriber string
	subject    string // the patient's; matched, or as the claim describes the person
	matched    bool   // a member of the payer: accumulators apply
	encoded    []byte // the claim, as sealed
	input      adjudication.Input
	original   string                   // the claim that this one takes the place of, once that is reversed with it
	clock      *claimsv1.PromptPayClock // of a claim decided again; nil: it was clean when it came

	result *claimsv1.SubmitClaimResponse // set when done
	err    error                         // set when it failed as a whole
}

func (sub *submission) done() bool { return sub.result != nil || sub.err != nil }

func (sub *submission) claim() *claimsv1.Claim { return sub.request.GetClaim() }

// patientOf is the person treated: the subscriber where no other is named.
func patientOf(c *claimsv1.Claim) *claimsv1.Person {
	if c.GetPatient() != nil {
		return c.GetPatient()
	}
	return c.GetSubscriber()
}
