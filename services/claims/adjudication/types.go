package adjudication

import (
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/money"
)

// Input is everything a decision may depend on, and nothing else: no clock,
// no store. Adjudicate only reads it; the same Input always gives the same
// Decision, so a replica can repeat any decision on the ledger.
type Input struct {
	Claim  Claim
	Member Member
	// Contracts between the payer and the claim's providers, best first. The
	// engine takes, per line, the first in force on the date of service and
	// open to the plan; none means out of network.
	Contracts []*Contract
	// FeeSchedules holds every version that a plan or contract here may name;
	// chosen by id and date of service.
	FeeSchedules []*FeeSchedule
	// Networks holds every version that a plan here may name; chosen by id and
	// date of service.
	Networks []*ProviderNetwork
	// Accumulators of the subscriber's family, as of Versions.AccumulatorsRevision.
	Accumulators Accumulators
	// History holds the family's earlier finalised lines, reversed claims left out.
	History []HistoryLine
	// Authorizations approved for the numbers that the claim quotes.
	Authorizations []Authorization
	// Edits holds the versions of the reference edits that govern the dates of
	// service, all tables in one or each in its own; of two that hold the same
	// table for a day the first is read. Empty is none, and then nothing is
	// denied for them.
	Edits []*Edits
	// Providers is what is known of the claim's providers; empty is no data,
	// and then nothing is denied for it.
	Providers []ProviderRecord
	// ProviderDays hold what the claim's providers gave to others on its dates.
	// They raise a doubt, never decide: a run without them differs only in
	// that it doesn't pend for signal.impossible_day.
	ProviderDays []ProviderDay
	// Review is a person's answer to an earlier pend; zero when there is none.
	Review Review
	// OriginalReversed: the claim replaces or voids another (FrequencyCode 7,
	// 8), and that one is reversed together with this decision. Accumulators and
	// History then no longer hold it.
	OriginalReversed bool
	// Versions.Coverage, .Reference and .AccumulatorsRevision pass through; the
	// engine fills the rest with what it read.
	Versions Versions
}

// Form is the implementation guide the claim follows.
type Form uint8

// The forms; the zero Form is refused.
const (
	Professional  Form = iota + 1 // 837P
	Institutional                 // 837I
)

// Claim is a claim as submitted, without names, addresses and other text that
// no rule may depend on.
type Claim struct {
	Form          Form
	FrequencyCode string // CLM05-3: 1 original, 7 replacement, 8 void
	PayerSequence string // SBR01: P, S, T …; empty is P
	// PlaceOfService is the claim's CMS place of service code, for lines that name none.
	PlaceOfService string
	Charge         money.Cents // CLM02: must equal the sum of the lines
	// TypeOfBill of an institutional claim: facility, care and frequency,
	// "131" (CLM05-1 and -3 without the leading zero).
	TypeOfBill               string
	StatementFrom            Date // of an institutional claim (DTP*434)
	StatementThrough         Date
	AdmissionDate            Date   // DTP*435
	AdmissionType            string // CL101
	AdmissionSource          string // CL102
	PatientStatus            string // CL103
	AttendingNPI             string // 2310A
	DRG                      string // as billed, without leading zeros
	CoveredDays              int64  // value code 80; negative: not said
	BillingNPI               string
	BillingTIN               string // REF*EI, digits; empty: not said, or a person's number
	BillingTaxonomy          string
	RenderingNPI             string // empty: the billing provider rendered
	RenderingTaxonomy        string
	ReferringNPI             string
	ReferralNumber           string // REF*9F
	PriorAuthorizationNumber string // REF*G1
	Diagnoses                []Diagnosis
	Lines                    []Line
	OtherPayers              []OtherPayer
	// ReceivedDate is the payer's calendar day of receipt; timely filing is judged by it.
	ReceivedDate Date
}

// Diagnosis is a code without its dot.
type Diagnosis struct {
	Code      string
	Qualifier string // HI01-1: ABK, ABF … ICD-10-CM; BK, BF … ICD-9-CM; empty: judged by date
}

// Line is one service line.
type Line struct {
	Number                   uint32 // LX01
	ProcedureQualifier       string // SV101-1
	Procedure                string
	Modifiers                []string
	Charge                   money.Cents
	UnitCode                 string // SV103: UN units, MJ minutes, DA days
	QuantityMilli            int64  // SV104 in thousandths
	PlaceOfService           string // empty: the claim's
	DiagnosisPointers        []uint32
	Emergency                bool // SV109
	ServiceDate              Date
	ServiceEndDate           Date // zero: one day
	RevenueCode              string
	NDC                      string
	PriorAuthorizationNumber string      // empty: the claim's
	RenderingNPI             string      // empty: the claim's
	Noncovered               money.Cents // part of the charge billed as not covered (SV207)
	PriorAdjudications       []PriorAdjudication
}

// OtherPayer is another payer of the patient and its claim-level answer.
type OtherPayer struct {
	PayerID       string
	PayerSequence string
	Adjudicated   bool
	Paid          money.Cents
	Adjustments   []PriorAdjustment
}

// PriorAdjudication is another payer's answer on a line.
type PriorAdjudication struct {
	PayerID     string
	Paid        money.Cents
	Adjustments []PriorAdjustment
}

// PriorAdjustment is an adjustment another payer made.
type PriorAdjustment struct {
	Group  string
	CARC   string
	Amount money.Cents
}

// Match says how the claim's person was found among the payer's members.
type Match uint8

// The matches; the zero Match denies.
const (
	MatchNone      Match = iota // no such member: PR-31
	MatchOne                    // exactly one person
	MatchAmbiguous              // several persons fit: pends
	MatchNotOurs                // not this payer's claim: CO-109
)

// Member is the person the claim was matched to.
type Member struct {
	Match Match
	// Subject is the person's opaque id; Subscriber the family's.
	Subject    string
	Subscriber string
	// Relationship to the subscriber: 18, 01, 19, G8.
	Relationship string
	// Family: more than one person is enrolled under the subscriber, so that
	// an aggregate deductible is the family's.
	Family bool
	// OtherPayerPrimary: another payer decides first (CO-22 without its answer).
	OtherPayerPrimary bool
	// Coverage spans, each with the plan version in force.
	Coverage []Coverage
}

// Coverage is a span of days on which one plan version governs the person.
type Coverage struct {
	Period Period
	// Plan is the version in force; nil pends the claim.
	Plan *Plan
	// YearStart is the first day of the person's coverage: a "coverage" plan
	// year restarts on its anniversary. Zero is Period.Start.
	YearStart Date
}

// Contract is one version of a payer's contract with a provider.
type Contract struct {
	Version       string // "ctr_lakeside@2"
	Period        Period
	FeeScheduleID string
	FeeBps        int64    // basis points of the fee schedule; 0 is 10000
	PlanIDs       []string // empty: all of the payer's plans
	Capitated     bool
	// FacilityRates price institutional lines, the first that fits; a line
	// that none fits is priced by the fee schedule.
	FacilityRates []*FacilityRate
}

// HistoryLine is an earlier finalised line of the family.
type HistoryLine struct {
	ClaimID        string
	Number         uint32
	Subject        string
	BillingNPI     string
	RenderingNPI   string
	ServiceDate    Date
	ServiceEndDate Date
	Procedure      string
	Modifiers      []string
	QuantityMilli  int64
	Charge         money.Cents
	// Allowed: the line was not denied. Only such lines make a later one a duplicate.
	Allowed              bool
	AllowedQuantityMilli int64
}

// Authorization is a prior authorisation the claim may rely on.
type Authorization struct {
	Number     string
	Subject    string
	Procedures []string // codes and inclusive ranges; empty is any
	Units      int64    // whole units approved; 0 is no limit
	Period     Period
	NPIs       []string // billing or rendering providers it was given to; empty is any
	Cancelled  bool     // it covers nothing
	// UsedMilli is use that History doesn't show, in thousandths; normally 0,
	// because the engine counts the use in History itself.
	UsedMilli int64
}

// ProviderRecord is what the payer knows of a provider.
type ProviderRecord struct {
	NPI string
	// Unknown: the registry has no such number (CO-208).
	Unknown bool
	// Certified periods; empty is no data, else a date outside all is CO-B7
	// (billing) or CO-185 (rendering).
	Certified []Period
	// Died is the last day of the provider's life; zero: alive, as far as known.
	Died Date
	// Inactive periods of its number.
	Inactive []Period
}

// Resolution is a reviewer's answer.
type Resolution uint8

// The resolutions.
const (
	Unreviewed Resolution = iota
	Approved              // the reasons are cleared
	Refused               // deny with the reasons' codes
)

// Review is a person's answer to a pended decision.
type Review struct {
	Resolution Resolution
	// Reasons that the reviewer saw: the pended decision's. Approved clears
	// exactly these (rule and line), so that a doubt which arose since pends
	// again; with no reasons it clears whatever this run finds.
	Reasons []PendReason
	// SetAside are findings that an appeal has overturned: lines aren't denied
	// by them any more. Only those that Judgement names can be.
	SetAside []Finding
}

// Finding is a rule held against a line.
type Finding struct {
	RuleID string
	Line   uint32 // 0: every line
}

// Status of a decision.
type Status uint8

// The statuses a run can end with.
const (
	Pended Status = iota + 1
	Paid
	Denied
)

// String returns "pended", "paid", "denied".
func (s Status) String() string {
	switch s {
	case Pended:
		return "pended"
	case Paid:
		return "paid"
	case Denied:
		return "denied"
	}
	return "unknown"
}

// Decision is the outcome of one run; it mirrors probity.claims.v1.Decision.
//
// For Paid and Denied: Charge = Paid + every adjustment, on every line and in
// total; nothing is negative. A Pended decision carries Charge, PendReasons
// and Versions, and no lines or postings: nothing has been decided.
type Decision struct {
	Status      Status
	Charge      money.Cents
	Allowed     money.Cents
	Paid        money.Cents
	Patient     money.Cents // sum of PR adjustments
	Lines       []LineDecision
	PendReasons []PendReason
	Versions    Versions
	Postings    []Posting
	Network     string // "in", "out", or "" when no line got as far
	// ProviderDays are the minutes of the lines that aren't denied, where they
	// are known, by who rendered them and when: what later claims of the
	// provider's day add up. A pended decision has them too.
	ProviderDays []ProviderDay
	Duplicate    bool
	DuplicateOf  string // earlier claim's id; empty when the claim repeats itself
	// OriginalStands: a replacement came too late to take its original's place.
	// It is denied, and what was decided of the original must be left as it is.
	OriginalStands bool
}

// LineDecision is one line's outcome.
//
// Where this plan pays first, Allowed = Paid + PR-1, PR-2, PR-3, PR-119, PR-35
// and CO-253. After other payers OA-23 holds all they paid or adjusted off the
// charge, and that sum is the lesser of Allowed and what they left. A denied
// line has Allowed 0 and one adjustment of its full charge. Patient is the sum
// of every PR adjustment, the excess of PR-45 included.
type LineDecision struct {
	Number      uint32
	Charge      money.Cents
	Allowed     money.Cents
	Paid        money.Cents
	Patient     money.Cents
	Adjustments []Adjustment
	Benefit     string
	Network     string // "in" or "out"; empty when not reached
	Denied      bool
	// AllowedQuantityMilli is what was priced, in thousandths of the billed unit.
	AllowedQuantityMilli int64
}

// Adjustment is cents not paid and why.
type Adjustment struct {
	Group  string // CO, OA, PI, PR
	CARC   string
	RARCs  []string
	Amount money.Cents
	RuleID string // "<stage>.<rule>"
	Clause string // plan clause relied on; empty when the rule isn't the plan's
	Facts  []Fact
}

// PendReason is why a claim waits.
type PendReason struct {
	RuleID  string
	Line    uint32 // 0: the whole claim
	CARC    string
	RARC    string
	Message string
	Facts   []Fact
	// Related are the opaque ids of earlier claims that raised the doubt.
	Related []string
}

// Fact is a figure of an explanation. Its key names the unit: "_cents",
// "_bps", "_days", "_milli", "_date" (a Date), else a count.
type Fact struct {
	Key   string
	Value int64
}

// Versions names exactly what a decision read.
type Versions struct {
	Engine               string
	Plan                 string // several, comma separated, when lines fall under different versions
	Contract             string
	FeeSchedule          string
	Network              string // of the plan's networks those that were asked
	Edits                string
	Coverage             string
	AccumulatorsRevision int64
	ReceivedDate         string
	Reference            string // state of the reference data, the caller's to name; passes through
}

// Text renders a fact's value: a "_date" as ISO 8601, anything else as a
// decimal number, the form of Adjustment.facts in the protos.
func (f Fact) Text() string {
	if strings.HasSuffix(f.Key, "_date") {
		return Date(f.Value).String()
	}
	return strconv.FormatInt(f.Value, 10)
}
