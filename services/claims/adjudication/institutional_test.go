package adjudication

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/money"
)

func TestWhatAnInstitutionalClaimMustSay(t *testing.T) {
	room := func(change func(*Claim)) func(*Input) {
		return func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			hospitalise(in, billed("0120", 1000_00, 3))
			change(&in.Claim)
		}
	}
	const paid = "paid\n1 pays 480.00, CO-45 400.00 price.above_allowed, PR-2 120.00 share.coinsurance"
	deny := func(codes, rule string) string { return "denied\n1 denied, CO-" + codes + " 1000.00 " + rule }
	tell(t, []story{
		{"a sound stay", room(func(*Claim) {}), paid},
		{"no type of bill", room(func(c *Claim) { c.TypeOfBill = "" }), deny("16 MA30", "institutional.type_of_bill")},
		{"no such facility", room(func(c *Claim) { c.TypeOfBill = "911" }), deny("16 MA30", "institutional.type_of_bill")},
		{"no statement period", room(func(c *Claim) { c.StatementFrom = 0 }), deny("16 MA31", "institutional.statement_period")},
		{"a period that runs backwards", room(func(c *Claim) { c.StatementThrough = on("2026-03-09") }), deny("16 MA31", "institutional.statement_period")},
		{"no admission date", room(func(c *Claim) { c.AdmissionDate = 0 }), deny("16 MA40", "institutional.admission_date")},
		{"admitted after the period", room(func(c *Claim) { c.AdmissionDate = on("2026-03-14") }), deny("16 MA40", "institutional.admission_date")},
		{"admitted before an interim bill's period", room(func(c *Claim) { c.AdmissionDate = on("2026-02-01") }), paid},
		{"no admission type", room(func(c *Claim) { c.AdmissionType = "" }), deny("16 MA41", "institutional.admission_type")},
		{"no admission source", room(func(c *Claim) { c.AdmissionSource = "" }), deny("16 MA42", "institutional.admission_source")},
		{"a newborn comes from nowhere", room(func(c *Claim) { c.AdmissionType, c.AdmissionSource = "4", "" }), paid},
		{"no patient status", room(func(c *Claim) { c.PatientStatus = "" }), deny("16 MA43", "institutional.patient_status")},
		{"nobody attends", room(func(c *Claim) { c.AttendingNPI = "" }), deny("16 N253", "institutional.attending")},
		{"an impossible number attends", room(func(c *Claim) { c.AttendingNPI = "1234567890" }), deny("207 N253", "institutional.attending_npi_invalid")},
		{"an ambulance alone needs nobody who attends", room(func(c *Claim) {
			c.AttendingNPI, c.TypeOfBill, c.Lines[0].RevenueCode = "", "131", "540"
			c.Lines[0].Procedure = "80053"
		}), "paid\n1 pays 48.00, CO-45 940.00 price.above_allowed, PR-2 12.00 share.coinsurance"},
		{"an outpatient needs no admission", room(func(c *Claim) {
			c.TypeOfBill, c.AdmissionDate, c.AdmissionType, c.AdmissionSource = "131", 0, "", ""
		}), paid},
		{"a line before the period", room(func(c *Claim) { c.Lines[0].ServiceDate = on("2026-03-09") }), deny("16 MA31", "institutional.outside_statement")},
		{"a line after the period", room(func(c *Claim) { c.Lines[0].ServiceEndDate = on("2026-03-14") }), deny("16 MA31", "institutional.outside_statement")},
		{"more nights than the period has", room(func(c *Claim) { c.Lines[0].QuantityMilli = 4000 }), deny("16 MA32", "institutional.covered_days")},
		{"the last day counts while the patient stays", room(func(c *Claim) { c.Lines[0].QuantityMilli, c.PatientStatus = 4000, "30" }), paid},
		{"a night of a stay that began and ended on one day", room(func(c *Claim) {
			c.StatementThrough, c.Lines[0].ServiceEndDate, c.Lines[0].QuantityMilli = c.StatementFrom, c.StatementFrom, 1000
		}), paid},
		{"more nights than value code 80 says", room(func(c *Claim) { c.CoveredDays = 2 }), deny("16 MA32", "institutional.covered_days")},
		{"billed as not covered", room(func(c *Claim) { c.Lines[0].Noncovered = 1000_00 }), "denied\n1 denied, PR-96 N130 1000.00 institutional.noncovered"},
		{"billed as not covered in part", room(func(c *Claim) { c.Lines[0].Noncovered = 100_00 }),
			"paid\n1 pays 432.00, PR-96 N130 100.00 institutional.noncovered, CO-45 360.00 price.above_allowed, PR-2 108.00 share.coinsurance"},
		{"more not covered than charged", room(func(c *Claim) { c.Lines[0].Noncovered = 1000_01 }), deny("16 M79", "claim.amount")},
	})
}

func mustRate(spec FacilityRateSpec) *FacilityRate {
	f, err := CompileFacilityRate(spec)
	if err != nil {
		panic(err)
	}
	return f
}

func TestFacilityRates(t *testing.T) {
	stay := func(rates ...FacilityRateSpec) func(*Input) {
		return func(in *Input) {
			replan(in, func(p *PlanSpec) {
				p.InNetwork, p.ReviewAbove = CostShare{}, 0
				p.Benefits = append(p.Benefits, Benefit{Name: "hospital", RevenueCodes: []string{"0001-0999"}, Covered: true})
			})
			hospitalise(in, billed("0120", 6000_00, 3), billed("0250", 1000_00, 10), billed("0360", 3000_00, 1))
			for _, spec := range rates {
				in.Contracts[0].FacilityRates = append(in.Contracts[0].FacilityRates, mustRate(spec))
			}
		}
	}
	medical := FacilityRateSpec{Name: "medical", TypesOfBill: []string{"11"}, RevenueCodes: []string{"0110-0219"}, PerDiem: 1500_00}
	joint := FacilityRateSpec{Name: "joints", TypesOfBill: []string{"11"}, CaseBase: 4000_00, CaseWeights: map[string]int64{"470": 18938, "871": 17826}}
	share := FacilityRateSpec{Name: "share", PercentOfChargeBps: 5500}
	change := func(given, then func(*Input)) func(*Input) {
		return func(in *Input) { given(in); then(in) }
	}
	tell(t, []story{
		{"a per diem is shared over the stay's lines by charge", stay(medical),
			"paid\n1 pays 2700.00, CO-45 3300.00 price.above_allowed\n2 pays 450.00, CO-45 550.00 price.above_allowed\n3 pays 1350.00, CO-45 1650.00 price.above_allowed"},
		{"lines with another rate are apart from the day", stay(medical, FacilityRateSpec{Name: "theatre", RevenueCodes: []string{"0360"}, PercentOfChargeBps: 4000}),
			"paid\n1 pays 3857.14, CO-45 2142.86 price.above_allowed\n2 pays 642.86, CO-45 357.14 price.above_allowed\n3 pays 1200.00, CO-45 1800.00 price.above_allowed"},
		{"a case rate is base by weight", stay(joint, medical), // 4000.00 x 1.8938 = 7575.20
			"paid\n1 pays 4545.12, CO-45 1454.88 price.above_allowed\n2 pays 757.52, CO-45 242.48 price.above_allowed\n3 pays 2272.56, CO-45 727.44 price.above_allowed"},
		{"a group without weight falls to the next rate", change(stay(joint, medical), func(in *Input) { in.Claim.DRG = "001" }),
			"paid\n1 pays 2700.00, CO-45 3300.00 price.above_allowed\n2 pays 450.00, CO-45 550.00 price.above_allowed\n3 pays 1350.00, CO-45 1650.00 price.above_allowed"},
		{"a share of the charge", stay(share),
			"paid\n1 pays 3300.00, CO-45 2700.00 price.above_allowed\n2 pays 550.00, CO-45 450.00 price.above_allowed\n3 pays 1650.00, CO-45 1350.00 price.above_allowed"},
		{"never more than the charge", stay(FacilityRateSpec{Name: "rich", CaseBase: 90_000_00, CaseWeights: map[string]int64{"470": 10000}}),
			"paid\n1 pays 6000.00\n2 pays 1000.00\n3 pays 3000.00"},
		{"another type of bill is priced by the schedule", change(stay(medical), func(in *Input) { in.Claim.TypeOfBill = "131" }),
			"paid\n1 pays 3600.00, CO-45 2400.00 price.above_allowed\n2 pays 600.00, CO-45 400.00 price.above_allowed\n3 pays 1800.00, CO-45 1200.00 price.above_allowed"},
		{"a denied line takes no share", change(stay(joint), func(in *Input) { in.Claim.Lines[2].Noncovered = 3000_00 }),
			"paid\n1 pays 6000.00\n2 pays 1000.00\n3 denied, PR-96 N130 3000.00 institutional.noncovered"},
		{"what isn't covered is no part of the charge", change(stay(share), func(in *Input) { in.Claim.Lines[0].Noncovered = 1000_00 }),
			"paid\n1 pays 2750.00, PR-96 N130 1000.00 institutional.noncovered, CO-45 2250.00 price.above_allowed\n2 pays 550.00, CO-45 450.00 price.above_allowed\n3 pays 1650.00, CO-45 1350.00 price.above_allowed"},
		{"a revenue code without its leading zero", change(stay(medical), func(in *Input) { in.Claim.Lines[0].RevenueCode = "120" }),
			"paid\n1 pays 2700.00, CO-45 3300.00 price.above_allowed\n2 pays 450.00, CO-45 550.00 price.above_allowed\n3 pays 1350.00, CO-45 1650.00 price.above_allowed"},
	})
	for name, spec := range map[string]FacilityRateSpec{
		"no name":      {PerDiem: 1},
		"no method":    {Name: "x"},
		"two methods":  {Name: "x", PerDiem: 1, PercentOfChargeBps: 1},
		"negative":     {Name: "x", PerDiem: 1, CaseBase: -1},
		"over 100 %":   {Name: "x", PercentOfChargeBps: 10001},
		"no weight":    {Name: "x", CaseBase: 1, CaseWeights: map[string]int64{"470": 0}},
		"not a code":   {Name: "x", PerDiem: 1, RevenueCodes: []string{"-"}},
		"no such rate": {Name: "x", PerDiem: maxAmount + 1},
	} {
		if _, err := CompileFacilityRate(spec); err == nil || !strings.Contains(err.Error(), "facility rate") {
			t.Errorf("%s compiles: %v", name, err)
		}
	}
}

// However a stay is cut into lines, a case rate gives exactly its amount.
func TestACaseRateIsSharedToTheCent(t *testing.T) {
	plan := goldSpec()
	plan.InNetwork, plan.ReviewAbove = CostShare{}, 0
	compiled := mustPlan(plan)
	rapid.Check(t, func(t *rapid.T) {
		in := visit99213()
		in.Member.Coverage[0].Plan = compiled
		var lines []Line
		var charges money.Cents
		for range rapid.IntRange(1, 30).Draw(t, "lines") {
			l := billed("0120", money.Cents(rapid.Int64Range(100, 5000_00).Draw(t, "charge")), 0)
			l.QuantityMilli = 1
			lines, charges = append(lines, l), charges+l.Charge
		}
		hospitalise(in, lines...)
		for i := range in.Claim.Lines { // no two lines alike, or they were duplicates
			in.Claim.Lines[i].NDC = itoa(i)
		}
		base := money.Cents(rapid.Int64Range(100_00, 100_000_00).Draw(t, "base"))
		in.Contracts[0].FacilityRates = []*FacilityRate{mustRate(FacilityRateSpec{Name: "case", CaseBase: base, CaseWeights: map[string]int64{"470": 10000}})}
		d := Adjudicate(in)
		sound(t, in, &d)
		if d.Paid != min(base, charges) {
			t.Fatalf("a case of %s on charges of %s pays %s:\n%s", base, charges, d.Paid, d.Explain())
		}
	})
}

func TestAnaesthesia(t *testing.T) {
	// Conversion factor 25.00, five base units; 45 minutes are three units.
	sedate := func(minutes int64, modifiers ...string) func(*Input) {
		return func(in *Input) {
			replan(in, func(p *PlanSpec) {
				p.InNetwork, p.Benefits = CostShare{}, append(p.Benefits, Benefit{Name: "anaesthesia", Procedures: []string{"00100-01999"}, Covered: true})
			})
			fees := feesSpec()
			fees.Fees = []Fee{{Procedure: "00810", Amount: 25_00, BaseUnits: 5}}
			in.FeeSchedules = []*FeeSchedule{mustFees(fees)}
			serve(in, given("00810", 400_00, minutes, modifiers...))
			in.Claim.Lines[0].UnitCode = "MJ"
		}
	}
	tell(t, []story{
		{"base and time", sedate(45, "AA"), "paid\n1 pays 200.00, CO-45 200.00 price.above_allowed"},
		{"time to the nearest tenth of a unit", sedate(50), "paid\n1 pays 207.50, CO-45 192.50 price.above_allowed"},
		{"half of a tenth is rounded up", sedate(47), "paid\n1 pays 202.50, CO-45 197.50 price.above_allowed"},
		{"directed: half each", sedate(45, "QK"), "paid\n1 pays 100.00, CO-45 200.00 price.above_allowed, CO-59 100.00 price.concurrent_anesthesia"},
		{"the one who was directed", sedate(45, "QX"), "paid\n1 pays 100.00, CO-45 200.00 price.above_allowed, CO-59 100.00 price.concurrent_anesthesia"},
		{"without direction in full", sedate(45, "QZ"), "paid\n1 pays 200.00, CO-45 200.00 price.above_allowed"},
		{"supervision of many: three units", sedate(45, "AD"), "paid\n1 pays 75.00, CO-45 200.00 price.above_allowed, CO-59 125.00 price.concurrent_anesthesia"},
		{"billed in units of time", func(in *Input) {
			sedate(3)(in)
			in.Claim.Lines[0].UnitCode = "UN"
		}, "paid\n1 pays 200.00, CO-45 200.00 price.above_allowed"},
	})
}

func TestAFeeOfNothingIsNoExcess(t *testing.T) {
	tell(t, []story{{"listed at 0.00", func(in *Input) {
		fees := feesSpec()
		fees.Fees = []Fee{{Procedure: "99213"}}
		in.FeeSchedules = []*FeeSchedule{mustFees(fees)}
	}, "denied\n1 denied, CO-97 M15 180.00 price.included"}})
}
