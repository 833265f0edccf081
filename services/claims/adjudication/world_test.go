package adjudication

import (
	"fmt"
	"slices"
	"strings"

	"github.com/probity-health/probity/services/money"
)

// The stories' world: one payer with a gold PPO and a silver HMO, one fee
// schedule, one clinic under contract, and a family of two.

const (
	lakeside = "1234567893" // the clinic under contract
	stranger = "1245319599" // a valid NPI without a contract
	anna     = "sub_anna"
	ben      = "sub_ben"
)

func on(s string) Date {
	d, err := ParseDate(s)
	if err != nil {
		panic(err)
	}
	return d
}

// goldSpec: embedded deductible 500/1000, coinsurance 20 %, cap 3000/6000;
// out of network 1000/2000, 40 %, cap 8000/16000.
func goldSpec() PlanSpec {
	return PlanSpec{
		ID: "plan_gold", Version: "plan_gold@3", TimelyFilingDays: 90, FeeScheduleID: "fs_standard",
		InNetwork:              CostShare{DeductibleIndividual: 500_00, DeductibleFamily: 1000_00, CoinsuranceBps: 2000, OutOfPocketIndividual: 3000_00, OutOfPocketFamily: 6000_00},
		OutOfNetwork:           &CostShare{DeductibleIndividual: 1000_00, DeductibleFamily: 2000_00, CoinsuranceBps: 4000, OutOfPocketIndividual: 8000_00, OutOfPocketFamily: 16000_00},
		OutOfNetworkAllowedBps: 8000,
		MultipleProcedureBps:   5000,
		ReviewAbove:            20_000_00,
		Benefits: []Benefit{
			{Name: "preventive", Procedures: []string{"99381-99397"}, Covered: true, DeductibleWaived: true, UseCoinsurance: true, CoinsuranceOutBps: 4000},
			{Name: "office_visit", Procedures: []string{"99202-99215"}, Covered: true, CopayIn: 30_00, CopayOut: 60_00},
			{Name: "cosmetic", Procedures: []string{"15780-15783", "17380"}},
			{Name: "therapy", Procedures: []string{"97010-97799"}, Covered: true, VisitsPerYear: 2, UseCoinsurance: true, CoinsuranceInBps: 1000, CoinsuranceOutBps: 5000},
			{Name: "hearing", Procedures: []string{"V5000-V5299"}, Covered: true, DeductibleWaived: true, UseCoinsurance: true, DollarsPerYear: 1000_00, LifetimeDollars: 2500_00},
			{Name: "imaging", Procedures: []string{"70010-79999"}, Covered: true, PriorAuthorization: true},
			{Name: "sleep_study", Procedures: []string{"95810"}, Covered: true, DocumentRequired: true},
			{Name: "transplant", Procedures: []string{"50360"}, Covered: true, Review: true},
			{Name: "diabetes_education", Procedures: []string{"G0108"}, Covered: true, DiagnosisPrefixes: []string{"E10", "E11."}},
			{Name: "specialist", Procedures: []string{"92002-92014"}, Covered: true, Specialist: true},
			{Name: "surgery", Procedures: []string{"10004-69990"}, Covered: true},
			{Name: "laboratory", Procedures: []string{"80047-89398"}, Covered: true},
			{Name: "emergency_room", Procedures: []string{"99281-99285"}, PlacesOfService: []string{"23"}, Covered: true},
			{Name: "room_and_board", RevenueCodes: []string{"0100-0219"}, Covered: true},
		},
	}
}

func feesSpec() FeeScheduleSpec {
	return FeeScheduleSpec{
		ID: "fs_standard", Version: "fs_standard@1", Period: Period{Start: on("2010-01-01")}, DefaultBpsOfCharge: 6000,
		Fees: []Fee{
			{Procedure: "99213", Amount: 100_00},
			{Procedure: "99214", Amount: 150_00},
			{Procedure: "99396", Amount: 180_00},
			{Procedure: "99284", Amount: 400_00},
			{Procedure: "80053", Amount: 20_00},
			{Procedure: "80053", Modifier: "90", Amount: 12_00},
			{Procedure: "45378", Amount: 800_00, Surgical: true},
			{Procedure: "11402", Amount: 300_00, Surgical: true},
			{Procedure: "97110", Amount: 40_00, MaxUnits: 4},
			{Procedure: "70551", Amount: 500_00},
			{Procedure: "V5261", Amount: 1500_00},
			{Procedure: "00810", Amount: 25_00},
		},
	}
}

func mustPlan(spec PlanSpec) *Plan {
	p, err := CompilePlan(spec)
	if err != nil {
		panic(err)
	}
	return p
}

func mustFees(spec FeeScheduleSpec) *FeeSchedule {
	s, err := CompileFeeSchedule(spec)
	if err != nil {
		panic(err)
	}
	return s
}

// visit99213 is the claim every story starts from: Anna's office visit at the
// clinic on 10 March 2026, received two days later.
func visit99213() *Input {
	return &Input{
		Claim: Claim{
			Form: Professional, FrequencyCode: "1", PayerSequence: "P", PlaceOfService: "11",
			Charge: 180_00, BillingNPI: lakeside,
			Diagnoses:    []Diagnosis{{Code: "E119", Qualifier: "ABK"}, {Code: "I10", Qualifier: "ABF"}},
			Lines:        []Line{service99213()},
			ReceivedDate: on("2026-03-12"),
		},
		Member: Member{
			Match: MatchOne, Subject: anna, Subscriber: anna, Relationship: "18", Family: true,
			Coverage: []Coverage{{Period: Period{Start: on("2025-07-01")}, Plan: mustPlan(goldSpec())}},
		},
		Contracts:    []*Contract{{Version: "ctr_lakeside@1", Period: Period{Start: on("2010-01-01")}, FeeScheduleID: "fs_standard"}},
		FeeSchedules: []*FeeSchedule{mustFees(feesSpec())},
		Accumulators: Accumulators{},
		Versions:     Versions{Coverage: "member-" + anna + "@1", AccumulatorsRevision: 7},
	}
}

func service99213() Line {
	return Line{
		Number: 1, ProcedureQualifier: "HC", Procedure: "99213", Charge: 180_00, UnitCode: "UN", QuantityMilli: 1000,
		DiagnosisPointers: []uint32{1}, ServiceDate: on("2026-03-10"),
	}
}

// serve replaces the claim's lines: procedure, charge, units; the total follows.
func serve(in *Input, lines ...Line) {
	in.Claim.Lines, in.Claim.Charge = lines, 0
	for i := range in.Claim.Lines {
		in.Claim.Lines[i].Number = uint32(i + 1)
		in.Claim.Charge += in.Claim.Lines[i].Charge
	}
}

func given(procedure string, charge money.Cents, units int64, modifiers ...string) Line {
	l := service99213()
	l.Procedure, l.Charge, l.QuantityMilli, l.Modifiers = procedure, charge, units*1000, modifiers
	return l
}

// hospitalise makes the claim a stay of three nights from 10 March, billed
// with these lines; the clinic owns the hospital too.
func hospitalise(in *Input, lines ...Line) {
	c := &in.Claim
	c.Form, c.PlaceOfService, c.TypeOfBill = Institutional, "", "111"
	c.StatementFrom, c.StatementThrough, c.AdmissionDate = on("2026-03-10"), on("2026-03-13"), on("2026-03-10")
	c.AdmissionType, c.AdmissionSource, c.PatientStatus, c.AttendingNPI = "3", "1", "01", stranger
	c.DRG, c.CoveredDays, c.ReceivedDate = "470", -1, on("2026-03-20")
	serve(in, lines...)
}

// billed is a line of a stay.
func billed(revenue string, charge money.Cents, units int64) Line {
	return Line{Number: 1, RevenueCode: revenue, Charge: charge, UnitCode: "UN", QuantityMilli: units * 1000, ServiceDate: on("2026-03-10"), ServiceEndDate: on("2026-03-13")}
}

// replan changes the plan that covers the member.
func replan(in *Input, change func(*PlanSpec)) {
	spec := goldSpec()
	change(&spec)
	in.Member.Coverage[0].Plan = mustPlan(spec)
}

func met(in *Input, kind Kind, tier Network, own, family money.Cents) {
	year := on("2026-01-01")
	in.Accumulators[Key{Scope: Individual, Kind: kind, Network: tier, PlanYear: year, Subject: anna}] = int64(own)
	in.Accumulators[Key{Scope: Family, Kind: kind, Network: tier, PlanYear: year}] = int64(family)
}

// tale is a decision in one line a service line: what the tables compare.
func tale(d *Decision) string {
	var b strings.Builder
	b.WriteString(d.Status.String())
	for _, p := range d.PendReasons {
		fmt.Fprintf(&b, "\n%d %s %s", p.Line, p.RuleID, codeText(p.CARC, p.RARC))
	}
	for _, l := range d.Lines {
		fmt.Fprintf(&b, "\n%d", l.Number)
		if l.Denied {
			b.WriteString(" denied")
		} else {
			fmt.Fprintf(&b, " pays %s", l.Paid)
		}
		for _, a := range l.Adjustments {
			fmt.Fprintf(&b, ", %s-%s %s %s", a.Group, codeText(a.CARC, a.RARCs...), a.Amount, a.RuleID)
		}
	}
	return b.String()
}

// carvedOut tells whether the plan subtracted what others paid: then its own
// reductions may stand beside theirs.
func carvedOut(l LineDecision) bool {
	return slices.ContainsFunc(l.Adjustments, func(a Adjustment) bool { return a.Clause == clauseCarveOut })
}

// failer is a *testing.T or a *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// sound fails the test when a decision breaks one of the engine's promises.
func sound(t failer, in *Input, d *Decision) {
	t.Helper()
	if d.Status == Pended {
		if len(d.PendReasons) == 0 || len(d.Lines)+len(d.Postings) != 0 || d.Paid != 0 {
			t.Fatalf("a pended claim must have reasons and nothing decided:\n%s", d.Explain())
		}
		return
	}
	if len(d.PendReasons) != 0 || len(d.Lines) != len(in.Claim.Lines) {
		t.Fatalf("a decided claim has every line and no open doubt:\n%s", d.Explain())
	}
	var charge, allowed, paid, patient money.Cents
	denied := true
	for i, l := range d.Lines {
		if l.Charge != in.Claim.Lines[i].Charge || l.Number != in.Claim.Lines[i].Number {
			t.Fatalf("line %d isn't the claim's", l.Number)
		}
		var all, pr, split, prior money.Cents
		for _, a := range l.Adjustments {
			all += a.Amount
			if a.Group == "PR" {
				pr += a.Amount
			}
			switch a.CARC {
			case "1", "2", "3", "119", "35", "253":
				split += a.Amount
			case "23":
				prior += a.Amount
			}
			if a.Amount < 0 {
				t.Fatalf("line %d: negative adjustment:\n%s", l.Number, d.Explain())
			}
			if a.Amount == 0 && !l.Denied {
				t.Fatalf("line %d: an adjustment of nothing:\n%s", l.Number, d.Explain())
			}
		}
		if l.Charge != l.Paid+all {
			t.Fatalf("line %d: charge %s isn't paid %s + adjusted %s:\n%s", l.Number, l.Charge, l.Paid, all, d.Explain())
		}
		if l.Patient > l.Charge || l.Paid > l.Allowed {
			t.Fatalf("line %d: the patient owes more than the charge or the plan pays more than it allows:\n%s", l.Number, d.Explain())
		}
		if pr != l.Patient || l.Paid < 0 || l.Allowed < 0 || l.Allowed > l.Charge {
			t.Fatalf("line %d: amounts don't hold together:\n%s", l.Number, d.Explain())
		}
		switch {
		case l.Denied && (len(l.Adjustments) != 1 || l.Paid != 0 || l.Allowed != 0):
			t.Fatalf("line %d: a denial has one reason for its whole charge:\n%s", l.Number, d.Explain())
		case !l.Denied && carvedOut(l) && l.Paid+split > min(l.Allowed, l.Charge-prior):
			t.Fatalf("line %d: carved out, paid %s + split %s exceed what earlier payers left:\n%s", l.Number, l.Paid, split, d.Explain())
		case !l.Denied && !carvedOut(l) && min(l.Allowed, l.Charge-prior) != l.Paid+split:
			t.Fatalf("line %d: allowed %s, less where earlier payers left less, isn't paid %s + split %s:\n%s", l.Number, l.Allowed, l.Paid, split, d.Explain())
		}
		denied = denied && l.Denied
		charge, allowed, paid, patient = charge+l.Charge, allowed+l.Allowed, paid+l.Paid, patient+l.Patient
	}
	if charge != d.Charge || allowed != d.Allowed || paid != d.Paid || patient != d.Patient || denied != (d.Status == Denied) {
		t.Fatalf("totals or status aren't the lines':\n%s", d.Explain())
	}
	if denied && len(d.Postings) != 0 {
		t.Fatalf("a denied claim moved an accumulator:\n%s", d.Explain())
	}
}
