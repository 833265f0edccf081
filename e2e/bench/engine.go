package bench

import (
	"fmt"
	"runtime"
	"time"

	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/money"
)

// engineRate is how many claims of four lines the engine decides in a second
// on one core, each against a family that has used some of its benefits.
func engineRate(length time.Duration) (float64, error) {
	in, err := fourLines()
	if err != nil {
		return 0, err
	}
	if d := adjudication.Adjudicate(in); d.Status != adjudication.Paid || len(d.Lines) != 4 || d.Paid == 0 {
		return 0, fmt.Errorf("bench: the engine's claim is %s, not paid", d.Status)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.GC()
	decided, start := 0, time.Now()
	for time.Since(start) < length {
		for range 64 {
			adjudication.Adjudicate(in)
		}
		decided += 64
	}
	return float64(decided) / time.Since(start).Seconds(), nil
}

// fourLines is a visit with laboratory work, imaging and a cardiogram.
func fourLines() (*adjudication.Input, error) {
	from := adjudication.Period{Start: adjudication.DateOf(2026, 1, 1)}
	plan, err := adjudication.CompilePlan(adjudication.PlanSpec{
		ID: "plan_bench", Version: "plan_bench@1", TimelyFilingDays: 365, FeeScheduleID: "fs_bench",
		InNetwork: adjudication.CostShare{
			DeductibleIndividual: 250_00, DeductibleFamily: 500_00, CoinsuranceBps: 2000,
			OutOfPocketIndividual: 3000_00, OutOfPocketFamily: 6000_00,
		},
		ReviewAbove: 20_000_00,
		Benefits: []adjudication.Benefit{
			{Name: "preventive", Procedures: []string{"99381-99397", "G0438-G0439"}, Covered: true, DeductibleWaived: true, UseCoinsurance: true},
			{Name: "office_visit", Procedures: []string{"99202-99215"}, Covered: true, CopayIn: 25_00},
			{Name: "cosmetic", Procedures: []string{"15780-15783", "17380"}},
			{Name: "therapy", Procedures: []string{"97010-97799"}, Covered: true, VisitsPerYear: 20},
			{Name: "imaging", Procedures: []string{"70010-79999"}, Covered: true},
			{Name: "laboratory", Procedures: []string{"80047-89398"}, Covered: true},
			{Name: "other", Covered: true},
		},
	})
	if err != nil {
		return nil, err
	}
	prices := []struct {
		code         string
		charge, fees money.Cents
	}{{"99213", 145_00, 98_00}, {"80053", 41_00, 12_50}, {"71046", 98_00, 33_33}, {"93000", 76_00, 19_75}}
	schedule := adjudication.FeeScheduleSpec{ID: "fs_bench", Version: "fs_bench@1", Period: from}
	claim := adjudication.Claim{
		Form: adjudication.Professional, FrequencyCode: "1", PayerSequence: "P", PlaceOfService: "11", BillingNPI: "1234567893",
		Diagnoses:    []adjudication.Diagnosis{{Code: "E119", Qualifier: "ABK"}, {Code: "I10", Qualifier: "ABF"}},
		ReceivedDate: adjudication.DateOf(2026, 3, 12),
	}
	for i, p := range prices {
		schedule.Fees = append(schedule.Fees, adjudication.Fee{Procedure: p.code, Amount: p.fees})
		claim.Charge += p.charge
		claim.Lines = append(claim.Lines, adjudication.Line{
			Number: uint32(i + 1), ProcedureQualifier: "HC", Procedure: p.code, Charge: p.charge,
			UnitCode: "UN", QuantityMilli: 1000, DiagnosisPointers: []uint32{1}, ServiceDate: adjudication.DateOf(2026, 3, 10),
		})
	}
	fees, err := adjudication.CompileFeeSchedule(schedule)
	if err != nil {
		return nil, err
	}
	year := adjudication.DateOf(2026, 1, 1)
	used := adjudication.Accumulators{
		{Scope: adjudication.Individual, Kind: adjudication.Deductible, Network: adjudication.InNetwork, PlanYear: year, Subject: "sub_a"}: 200_00,
		{Scope: adjudication.Family, Kind: adjudication.Deductible, Network: adjudication.InNetwork, PlanYear: year}:                       300_00,
	}
	return &adjudication.Input{
		Claim: claim,
		Member: adjudication.Member{
			Match: adjudication.MatchOne, Subject: "sub_a", Subscriber: "sub_a", Relationship: "18", Family: true,
			Coverage: []adjudication.Coverage{{Period: from, Plan: plan}},
		},
		Contracts:    []*adjudication.Contract{{Version: "ctr_bench@1", Period: from, FeeScheduleID: "fs_bench"}},
		FeeSchedules: []*adjudication.FeeSchedule{fees},
		Accumulators: used,
	}, nil
}
