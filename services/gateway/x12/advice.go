package x12

import (
	"fmt"

	"github.com/probity-health/probity/services/money"
	"github.com/probity-health/probity/services/problem"
)

// Advice is one 835 transaction set: a payment and what it is for. Amounts
// are US cents, dates ISO 8601.
type Advice struct {
	PaidCents int64  // BPR02, never negative
	Date      string // BPR16
	Trace     string // TRN02
	Payer     AdviceParty
	Payee     AdviceParty
	Claims    []AdviceClaim
	// Provider-level adjustments: positive takes from the payment.
	Provider []ProviderAdjustment
}

// AdviceParty is the payer or the payee.
type AdviceParty struct {
	Name, IDQualifier, ID           string // N102 to N104
	Line1, Line2, City, State, Code string
	TaxID                           string // payee: REF*TJ
	// PayerID is the payer's REF*2U; Contact and Phone its PER*BL.
	PayerID, Contact, Phone string
}

// AdviceClaim is a CLP loop.
type AdviceClaim struct {
	PatientControl                          string // CLP01
	Status                                  string // CLP02: 1, 2, 3 processed as primary … ; 4 denied; 22 reversal
	ChargeCents, PaidCents, PatientCents    int64  // CLP03 to CLP05
	Filing, PayerClaim, Facility, Frequency string // CLP06 to CLP09
	Adjustments                             []AdviceAdjustment
	Patient                                 AdvicePerson
	Insured                                 *AdvicePerson // when not the patient
	Rendering                               *AdvicePerson
	Received                                string // DTM*050
	AllowedCents                            int64  // AMT*AU
	InterestCents                           int64  // AMT*I; the money is in PLB L6
	Remarks                                 []string
	Lines                                   []AdviceLine
}

// AdvicePerson is a patient, an insured or a rendering provider.
type AdvicePerson struct {
	Last, First, Middle, ID string
	IsPerson                bool
}

// AdviceLine is an SVC loop.
type AdviceLine struct {
	Qualifier, Procedure   string
	Modifiers              []string
	Revenue                string
	ChargeCents, PaidCents int64
	QuantityMilli          int64
	From, To               string // DTM*472, or 150 and 151
	Adjustments            []AdviceAdjustment
	Control                string // REF*6R
	AllowedCents           int64  // AMT*B6
	Remarks                []string
}

// AdviceAdjustment is one triple of a CAS segment.
type AdviceAdjustment struct {
	Group, CARC string
	Cents       int64
}

// ProviderAdjustment is one pair of a PLB segment.
type ProviderAdjustment struct {
	Reason, Reference string
	Cents             int64
}

// CheckBalance835 holds an advice against the guide's balancing rules
// (005010X221A1, section 1.10.2.1). Problems name claims and lines by their
// place, not by what they say.
//
//	line:     SVC02 - sum of its CAS = SVC03
//	claim:    CLP03 - sum of all CAS = CLP04; with lines CLP03 = sum of SVC02
//	patient:  CLP05 = sum of PR adjustments, but for a reversal
//	payment:  BPR02 = sum of CLP04 - sum of PLB
func CheckBalance835(a *Advice) []problem.Problem {
	var out []problem.Problem
	say := func(rule, path, format string, args ...any) {
		out = append(out, problem.Problem{RuleID: rule, FieldPath: path, Message: fmt.Sprintf(format, args...),
			Fix: "don't send the advice; report it to the payer, whose system made it"})
	}
	var total sum
	for i := range a.Claims {
		c := &a.Claims[i]
		path := fmt.Sprintf("claims[%d]", i)
		var adjusted, patient, lineCharge sum
		count := func(list []AdviceAdjustment, where string) (s sum) {
			for _, adj := range list {
				s.add(adj.Cents)
				adjusted.add(adj.Cents)
				if adj.Group == "PR" {
					patient.add(adj.Cents)
				}
				if !contains([]string{"CO", "OA", "PI", "PR"}, adj.Group) || adj.CARC == "" {
					say("x12.835.adjustment-code", where, "an adjustment has no group CO, OA, PI or PR or no reason code")
				}
			}
			return s
		}
		count(c.Adjustments, path)
		for j := range c.Lines {
			l := &c.Lines[j]
			at := fmt.Sprintf("%s.lines[%d]", path, j)
			lineCharge.add(l.ChargeCents)
			if s := count(l.Adjustments, at); !s.is(l.ChargeCents, l.PaidCents) {
				say("x12.835.line-balance", at, "the line's charge less its adjustments is not what it pays")
			}
		}
		if len(c.Lines) > 0 && (lineCharge.over || lineCharge.cents != c.ChargeCents) {
			say("x12.835.claim-charge", path, "the claim's charge is not the sum of its lines' charges")
		}
		if !adjusted.is(c.ChargeCents, c.PaidCents) {
			say("x12.835.claim-balance", path, "the claim's charge less all adjustments is not what it pays")
		}
		if c.Status != "22" && (patient.over || patient.cents != c.PatientCents) {
			say("x12.835.patient-responsibility", path, "the patient's amount is not the sum of the PR adjustments")
		}
		total.add(c.PaidCents)
	}
	for _, p := range a.Provider {
		total.add(-p.Cents)
	}
	if total.over || total.cents != a.PaidCents {
		say("x12.835.payment-balance", "payment", "the payment is not the sum of the claims less the provider adjustments")
	}
	if a.PaidCents < 0 {
		say("x12.835.payment-negative", "payment", "a payment can't be negative; the rest is carried forward in PLB")
	}
	return out
}

// sum adds cents and remembers an overflow: a sum that overflowed equals nothing.
type sum struct {
	cents int64
	over  bool
}

func (s *sum) add(c int64) {
	n, err := money.Add(money.Cents(s.cents), money.Cents(c))
	s.cents, s.over = int64(n), s.over || err != nil
}

// is tells whether charge less the sum is paid.
func (s sum) is(charge, paid int64) bool {
	rest := sum{cents: charge, over: s.over}
	rest.add(-s.cents)
	return !rest.over && rest.cents == paid
}
