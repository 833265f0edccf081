package adjudication_test

import (
	"fmt"

	"github.com/probity-health/probity/services/claims/adjudication"
)

// A claim is decided from compiled documents and a snapshot; its postings go
// into the family's accumulators in the same commit.
func ExampleAdjudicate() {
	plan, err := adjudication.CompilePlan(adjudication.PlanSpec{
		ID: "plan_small", Version: "plan_small@1", TimelyFilingDays: 365, FeeScheduleID: "fs_small",
		InNetwork: adjudication.CostShare{DeductibleIndividual: 100_00, CoinsuranceBps: 2000},
		Benefits:  []adjudication.Benefit{{Name: "office_visit", Procedures: []string{"99202-99215"}, Covered: true}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	from := adjudication.Period{Start: adjudication.DateOf(2026, 1, 1)}
	fees, err := adjudication.CompileFeeSchedule(adjudication.FeeScheduleSpec{
		ID: "fs_small", Version: "fs_small@1", Period: from,
		Fees: []adjudication.Fee{{Procedure: "99213", Amount: 120_00}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	sums := adjudication.Accumulators{}
	d := adjudication.Adjudicate(&adjudication.Input{
		Claim: adjudication.Claim{
			Form: adjudication.Professional, Charge: 200_00, BillingNPI: "1234567893", PlaceOfService: "11",
			ReceivedDate: adjudication.DateOf(2026, 3, 12),
			Diagnoses:    []adjudication.Diagnosis{{Code: "I10", Qualifier: "ABK"}},
			Lines: []adjudication.Line{{
				Number: 1, Procedure: "99213", Charge: 200_00, QuantityMilli: 1000,
				DiagnosisPointers: []uint32{1}, ServiceDate: adjudication.DateOf(2026, 3, 10),
			}},
		},
		Member:       adjudication.Member{Match: adjudication.MatchOne, Subject: "sub_a", Coverage: []adjudication.Coverage{{Period: from, Plan: plan}}},
		Contracts:    []*adjudication.Contract{{Version: "ctr_a@1", Period: from, FeeScheduleID: "fs_small"}},
		FeeSchedules: []*adjudication.FeeSchedule{fees},
		Accumulators: sums,
	})
	if err := sums.Post(d.Postings...); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(d.Explain())
	// Output:
	// paid: charge 200.00, allowed 120.00, paid 16.00, patient owes 104.00, in network
	//   line 1: charge 200.00, allowed 120.00, paid 16.00, patient owes 104.00, benefit office_visit
	//     CO-45 80.00: above the allowed amount [price.above_allowed; the fee schedule's fee for the procedure]
	//       fee 120.00
	//       units priced 1
	//       allowed at 100 % of the fee
	//       allowed 120.00
	//     PR-1 100.00: deductible [share.deductible; the plan's deductible in network]
	//       deductible still to meet 100.00
	//     PR-2 4.00: coinsurance [share.coinsurance; the plan's coinsurance in network]
	//       coinsurance 20 %
	//   posts 100.00 to the individual deductible in network, plan year from 2026-01-01
	//   posts 100.00 to the family deductible in network, plan year from 2026-01-01
	//   posts 104.00 to the individual out-of-pocket maximum in network, plan year from 2026-01-01
	//   posts 104.00 to the family out-of-pocket maximum in network, plan year from 2026-01-01
	//   by rules probity-rules/4, plan plan_small@1, contract ctr_a@1, fee schedule fs_small@1, accumulators at revision 0, received 2026-03-12
}
