package adjudication

import (
	"strings"
	"testing"

	"github.com/probity-health/probity/services/money"
)

func TestThePrice(t *testing.T) {
	free := func(in *Input) { // nothing left to share: only the price shows
		replan(in, func(p *PlanSpec) {
			p.InNetwork = CostShare{}
			p.Benefits[3].UseCoinsurance, p.Benefits[3].VisitsPerYear = false, 0
		})
	}
	pays := func(change func(*Input)) func(*Input) { return func(in *Input) { free(in); change(in) } }
	tell(t, []story{
		{"a charge below the fee is allowed as it is", pays(func(in *Input) { serve(in, given("80053", 15_00, 1)) }),
			"paid\n1 pays 15.00"},
		{"fee times units", pays(func(in *Input) { serve(in, given("97110", 200_00, 3)) }),
			"paid\n1 pays 120.00, CO-45 80.00 price.above_allowed"},
		{"a part of a unit", pays(func(in *Input) {
			serve(in, given("97110", 200_00, 1))
			in.Claim.Lines[0].QuantityMilli = 1255
		}), "paid\n1 pays 50.20, CO-45 149.80 price.above_allowed"},
		{"a modifier with its own fee", pays(func(in *Input) { serve(in, given("80053", 30_00, 1, "59", "90")) }),
			"paid\n1 pays 12.00, CO-45 18.00 price.above_allowed"},
		{"a contract above the schedule", pays(func(in *Input) {
			in.Contracts[0].FeeBps = 12500
			serve(in, given("80053", 30_00, 1))
		}), "paid\n1 pays 25.00, CO-45 5.00 price.above_allowed"},
		{"a procedure without fee: a share of the charge", pays(func(in *Input) { serve(in, given("85025", 33_33, 1)) }),
			"paid\n1 pays 20.00, CO-45 13.33 price.above_allowed"},
		{"neither fee nor share", pays(func(in *Input) {
			spec := feesSpec()
			spec.DefaultBpsOfCharge = 0
			in.FeeSchedules = []*FeeSchedule{mustFees(spec)}
			serve(in, given("85025", 33_33, 1))
		}), "denied\n1 denied, CO-147 33.33 price.no_rate"},
		{"no schedule in force: no reviewer can price it", pays(func(in *Input) {
			in.FeeSchedules, in.Review.Resolution = nil, Approved
		}), "pended\n1 price.no_fee_schedule 147"},
		{"the schedule version of the date", pays(func(in *Input) {
			old, now := feesSpec(), feesSpec()
			old.Period.End, now.Period.Start = on("2026-03-09"), on("2026-03-10")
			old.Fees, now.Fees = []Fee{{Procedure: "80053", Amount: 1}}, []Fee{{Procedure: "80053", Amount: 22_00}}
			in.FeeSchedules = []*FeeSchedule{mustFees(old), mustFees(now)}
			serve(in, given("80053", 30_00, 1))
		}), "paid\n1 pays 22.00, CO-45 8.00 price.above_allowed"},
		{"anaesthesia counts units of fifteen minutes", pays(func(in *Input) {
			replan(in, func(p *PlanSpec) {
				p.InNetwork, p.Benefits = CostShare{}, append(p.Benefits, Benefit{Name: "anaesthesia", Procedures: []string{"00100-01999"}, Covered: true})
			})
			serve(in, given("00810", 400_00, 45))
			in.Claim.Lines[0].UnitCode = "MJ"
		}), "paid\n1 pays 75.00, CO-45 325.00 price.above_allowed"},
		{"capitated", pays(func(in *Input) { in.Contracts[0].Capitated = true }),
			"denied\n1 denied, CO-24 180.00 price.capitated"},
		{"units above the contract's", pays(func(in *Input) { serve(in, given("97110", 300_00, 6)) }),
			"paid\n1 pays 160.00, CO-222 N362 100.00 price.contract_units, CO-45 40.00 price.above_allowed"},
		{"out of network: a share of the plan's schedule", pays(func(in *Input) {
			in.Contracts = nil
			replan(in, func(p *PlanSpec) { p.OutOfNetwork = &CostShare{} })
			serve(in, given("80053", 30_00, 1))
		}), "paid\n1 pays 16.00, PR-45 14.00 price.above_allowed_out_of_network"},
	})
}

func TestFurtherProceduresOfTheDay(t *testing.T) {
	both := func(in *Input) {
		replan(in, func(p *PlanSpec) { p.InNetwork = CostShare{} })
		serve(in, given("11402", 400_00, 1), given("45378", 900_00, 1), given("80053", 20_00, 1))
	}
	tell(t, []story{
		{"the dearest in full, the others at half, laboratory untouched", both,
			"paid\n1 pays 150.00, CO-45 100.00 price.above_allowed, CO-59 150.00 price.multiple_procedure\n" +
				"2 pays 800.00, CO-45 100.00 price.above_allowed\n3 pays 20.00"},
		{"on another day: in full", func(in *Input) {
			both(in)
			in.Claim.Lines[0].ServiceDate = on("2026-03-09")
		}, "paid\n1 pays 300.00, CO-45 100.00 price.above_allowed\n2 pays 800.00, CO-45 100.00 price.above_allowed\n3 pays 20.00"},
		{"of equals, the first in full", func(in *Input) {
			both(in)
			serve(in, given("11402", 300_00, 1, "LT"), given("11402", 300_00, 1, "RT"))
		}, "paid\n1 pays 300.00\n2 pays 150.00, CO-59 150.00 price.multiple_procedure"},
		{"one allowed earlier that day was the full one", func(in *Input) {
			both(in)
			serve(in, given("11402", 300_00, 1))
			in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Procedure = "45378" })}
		}, "paid\n1 pays 150.00, CO-59 150.00 price.multiple_procedure"},
		{"another provider's doesn't count", func(in *Input) {
			both(in)
			serve(in, given("11402", 300_00, 1))
			in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Procedure, h.BillingNPI = "45378", stranger })}
		}, "paid\n1 pays 300.00"},
		{"a plan without reduction", func(in *Input) {
			both(in)
			replan(in, func(p *PlanSpec) { p.InNetwork, p.MultipleProcedureBps = CostShare{}, 0 })
		}, "paid\n1 pays 300.00, CO-45 100.00 price.above_allowed\n2 pays 800.00, CO-45 100.00 price.above_allowed\n3 pays 20.00"},
	})
}

func TestTheMembersShare(t *testing.T) {
	scope := func(in *Input) { serve(in, given("45378", 800_00, 1)) }
	tell(t, []story{
		{"deductible, then coinsurance of the rest", scope,
			"paid\n1 pays 240.00, PR-1 500.00 share.deductible, PR-2 60.00 share.coinsurance"},
		{"the second line meets what the first left of the deductible", func(in *Input) {
			serve(in, given("70551", 300_00, 1), given("45378", 800_00, 1))
			in.Claim.Lines[0].Procedure = "80055"
			in.Claim.Lines[0].Charge, in.Claim.Charge = 500_00, 1300_00
		}, "paid\n1 pays 0.00, CO-45 200.00 price.above_allowed, PR-1 300.00 share.deductible\n" +
			"2 pays 480.00, PR-1 200.00 share.deductible, PR-2 120.00 share.coinsurance"},
		{"deductible met", func(in *Input) { scope(in); met(in, Deductible, InNetwork, 500_00, 500_00) },
			"paid\n1 pays 640.00, PR-2 160.00 share.coinsurance"},
		{"the other tier's deductible doesn't count", func(in *Input) { scope(in); met(in, Deductible, OutOfNetwork, 500_00, 1000_00) },
			"paid\n1 pays 240.00, PR-1 500.00 share.deductible, PR-2 60.00 share.coinsurance"},
		{"embedded: the family met it for her", func(in *Input) { scope(in); met(in, Deductible, InNetwork, 100_00, 950_00) },
			"paid\n1 pays 600.00, PR-1 50.00 share.deductible, PR-2 150.00 share.coinsurance"},
		{"aggregate: her own part isn't enough", func(in *Input) {
			scope(in)
			replan(in, func(p *PlanSpec) { p.InNetwork.AggregateDeductible = true })
			met(in, Deductible, InNetwork, 500_00, 500_00)
		}, "paid\n1 pays 240.00, PR-1 500.00 share.deductible, PR-2 60.00 share.coinsurance"},
		{"aggregate, but she is alone", func(in *Input) {
			scope(in)
			replan(in, func(p *PlanSpec) { p.InNetwork.AggregateDeductible = true })
			met(in, Deductible, InNetwork, 500_00, 500_00)
			in.Member.Family = false
		}, "paid\n1 pays 640.00, PR-2 160.00 share.coinsurance"},
		{"a copay replaces both", func(*Input) {}, cleanVisit},
		{"a copay is never more than the allowed amount", func(in *Input) { serve(in, given("99213", 20_00, 1)) },
			"paid\n1 pays 0.00, PR-3 20.00 share.copay"},
		{"preventive care is free", func(in *Input) { serve(in, given("99396", 250_00, 1)) },
			"paid\n1 pays 180.00, CO-45 70.00 price.above_allowed"},
		{"the benefit's own coinsurance", func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			serve(in, given("97110", 40_00, 1))
		}, "paid\n1 pays 36.00, PR-2 4.00 share.coinsurance"},
		{"the cap cuts coinsurance", func(in *Input) {
			scope(in)
			met(in, Deductible, InNetwork, 500_00, 500_00)
			met(in, OutOfPocket, InNetwork, 2950_00, 2950_00)
		}, "paid\n1 pays 750.00, PR-2 50.00 share.coinsurance"},
		{"the cap cuts the deductible", func(in *Input) { scope(in); met(in, OutOfPocket, InNetwork, 2600_00, 2600_00) },
			"paid\n1 pays 400.00, PR-1 400.00 share.deductible"},
		{"the cap cuts a copay", func(in *Input) { met(in, OutOfPocket, InNetwork, 2990_00, 2990_00) },
			"paid\n1 pays 90.00, CO-45 80.00 price.above_allowed, PR-3 10.00 share.copay"},
		{"the family's cap stops hers", func(in *Input) {
			scope(in)
			met(in, Deductible, InNetwork, 500_00, 1000_00)
			met(in, OutOfPocket, InNetwork, 1000_00, 5990_00)
		}, "paid\n1 pays 790.00, PR-2 10.00 share.coinsurance"},
		{"no caps", func(in *Input) {
			scope(in)
			replan(in, func(p *PlanSpec) { p.InNetwork.OutOfPocketIndividual, p.InNetwork.OutOfPocketFamily = 0, 0 })
			met(in, OutOfPocket, InNetwork, 99_999_00, 99_999_00)
		}, "paid\n1 pays 240.00, PR-1 500.00 share.deductible, PR-2 60.00 share.coinsurance"},
		{"sums below zero, from a reversal too many, don't raise a limit", func(in *Input) { scope(in); met(in, Deductible, InNetwork, -100_00, -100_00) },
			"paid\n1 pays 240.00, PR-1 500.00 share.deductible, PR-2 60.00 share.coinsurance"},
		{"half a cent is rounded away from zero", func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			replan(in, func(p *PlanSpec) { p.InNetwork.CoinsuranceBps = 2500 })
			serve(in, given("80053", 10_02, 1))
		}, "paid\n1 pays 7.51, PR-2 2.51 share.coinsurance"},
	})
}

func TestBenefitLimits(t *testing.T) {
	year := on("2026-01-01")
	used := func(in *Input, kind Kind, benefit string, amount int64) {
		k := Key{Scope: Individual, Kind: kind, Network: AllNetworks, PlanYear: year, Subject: anna, Benefit: benefit}
		if kind == Lifetime {
			k.PlanYear = 0
		}
		in.Accumulators[k] = amount
	}
	therapy := func(in *Input) {
		met(in, Deductible, InNetwork, 500_00, 500_00)
		serve(in, given("97110", 40_00, 1), given("97140", 50_00, 1))
	}
	aid := func(in *Input) { serve(in, given("V5261", 1500_00, 1)) }
	tell(t, []story{
		{"two lines of a day are one visit, the last one", func(in *Input) { therapy(in); used(in, Visits, "therapy", 1) },
			"paid\n1 pays 36.00, PR-2 4.00 share.coinsurance\n2 pays 27.00, CO-45 20.00 price.above_allowed, PR-2 3.00 share.coinsurance"},
		{"no visit left", func(in *Input) { therapy(in); used(in, Visits, "therapy", 2) },
			"denied\n1 denied, PR-119 40.00 limit.visits\n2 denied, PR-119 50.00 limit.visits"},
		{"a third day of the same claim", func(in *Input) {
			therapy(in)
			used(in, Visits, "therapy", 1)
			in.Claim.Lines[1].ServiceDate = on("2026-03-11")
		}, "paid\n1 pays 36.00, PR-2 4.00 share.coinsurance\n2 denied, PR-119 50.00 limit.visits"},
		{"dollars of the year: the rest is the patient's", aid,
			"paid\n1 pays 1000.00, PR-119 500.00 limit.dollars"},
		{"dollars of the year used up", func(in *Input) { aid(in); used(in, Dollars, "hearing", 1000_00) },
			"denied\n1 denied, PR-119 1500.00 limit.dollars"},
		{"the lifetime's end comes first", func(in *Input) { aid(in); used(in, Lifetime, "hearing", 2300_00) },
			"paid\n1 pays 200.00, PR-35 1300.00 limit.lifetime"},
		{"lifetime used up", func(in *Input) { aid(in); used(in, Lifetime, "hearing", 2500_00) },
			"denied\n1 denied, PR-35 1500.00 limit.lifetime"},
	})
}

func TestOtherPayers(t *testing.T) {
	scope := func(in *Input) {
		met(in, Deductible, InNetwork, 500_00, 500_00)
		serve(in, given("45378", 1000_00, 1)) // alone this plan would pay 640, the member 160
		in.Member.OtherPayerPrimary, in.Claim.PayerSequence = true, "S"
	}
	// The other payer paid this much of 1000 and left this much to the patient.
	answered := func(paid, patient money.Cents) func(*Input) {
		return func(in *Input) {
			scope(in)
			in.Claim.Lines[0].PriorAdjudications = []PriorAdjudication{{PayerID: "OTHER", Paid: paid, Adjustments: []PriorAdjustment{
				{"CO", "45", 1000_00 - paid - patient}, {"PR", "2", patient},
			}}}
		}
	}
	tell(t, []story{
		{"the primary hasn't decided", scope, "denied\n1 denied, CO-22 MA04 1000.00 cob.no_primary_decision"},
		{"sent as secondary, though we know of no other", func(in *Input) { scope(in); in.Member.OtherPayerPrimary = false },
			"denied\n1 denied, CO-22 MA04 1000.00 cob.no_primary_decision"},
		{"we are primary: others don't matter", func(in *Input) {
			answered(700_00, 100_00)(in)
			in.Member.OtherPayerPrimary, in.Claim.PayerSequence = false, "P"
		}, "paid\n1 pays 640.00, CO-45 200.00 price.above_allowed, PR-2 160.00 share.coinsurance"},
		{"the patient owed less than we would have paid", answered(700_00, 100_00),
			"paid\n1 pays 100.00, OA-23 900.00 cob.prior_payers"},
		{"the patient owed more: we pay as if alone", answered(100_00, 700_00),
			"paid\n1 pays 640.00, PR-2 60.00 share.coinsurance, OA-23 300.00 cob.prior_payers"},
		{"the primary covered nothing: ours in full", answered(0, 1000_00),
			"paid\n1 pays 640.00, CO-45 200.00 price.above_allowed, PR-2 160.00 share.coinsurance"},
		{"nothing left to pay", answered(800_00, 0),
			"paid\n1 pays 0.00, OA-23 1000.00 cob.prior_payers"},
		{"an answer that says less than it leaves", func(in *Input) {
			scope(in)
			in.Claim.Lines[0].PriorAdjudications = []PriorAdjudication{{Paid: 700_00, Adjustments: []PriorAdjustment{{"PR", "1", 50_00}}}}
		}, "paid\n1 pays 50.00, OA-23 950.00 cob.prior_payers"},
		{"an answer beyond the charge", func(in *Input) {
			scope(in)
			in.Claim.Lines[0].PriorAdjudications = []PriorAdjudication{{Paid: 5000_00}}
		}, "paid\n1 pays 0.00, OA-23 1000.00 cob.prior_payers"},
		{"tertiary: the least that any left", func(in *Input) {
			answered(500_00, 300_00)(in)
			l := &in.Claim.Lines[0]
			l.PriorAdjudications = append(l.PriorAdjudications, PriorAdjudication{Paid: 220_00, Adjustments: []PriorAdjustment{{"OA", "23", 700_00}, {"PR", "2", 80_00}}})
		}, "paid\n1 pays 80.00, OA-23 920.00 cob.prior_payers"},
		{"answered for the claim: shared by charge to the cent", func(in *Input) {
			scope(in)
			serve(in, given("45378", 100_00, 1), given("85025", 100_00, 1), given("85027", 100_00, 1))
			in.Claim.OtherPayers = []OtherPayer{{Adjudicated: true, Paid: 200_00, Adjustments: []PriorAdjustment{{"PR", "1", 100_00}}}}
		}, "paid\n1 pays 33.33, OA-23 66.67 cob.prior_payers\n" +
			"2 pays 33.34, OA-23 66.66 cob.prior_payers\n" +
			"3 pays 33.33, OA-23 66.67 cob.prior_payers"},
		{"a payer that hasn't decided isn't an answer", func(in *Input) {
			scope(in)
			in.Claim.OtherPayers = []OtherPayer{{PayerID: "OTHER"}}
		}, "denied\n1 denied, CO-22 MA04 1000.00 cob.no_primary_decision"},
		{"answered by line, but not this one", func(in *Input) {
			answered(700_00, 100_00)(in)
			first := in.Claim.Lines[0]
			serve(in, first, given("80053", 20_00, 1))
		}, "paid\n1 pays 100.00, OA-23 900.00 cob.prior_payers\n" +
			"2 denied, CO-22 MA04 20.00 cob.no_primary_decision"},
		{"out of network the excess is the patient's only as far as it was left", func(in *Input) {
			answered(300_00, 660_00)(in)
			in.Contracts = nil
			met(in, Deductible, OutOfNetwork, 1000_00, 1000_00)
		}, "paid\n1 pays 384.00, PR-45 20.00 price.above_allowed_out_of_network, PR-2 256.00 share.coinsurance, OA-23 340.00 cob.prior_payers"},
	})
}

// Carved out, what others paid comes off what this plan would pay alone.
func TestACarveOutPlanPaysNothingTwice(t *testing.T) {
	scope := func(in *Input) {
		replan(in, func(p *PlanSpec) { p.Coordination = CarveOut })
		met(in, Deductible, InNetwork, 500_00, 500_00)
		serve(in, given("45378", 1000_00, 1)) // alone this plan would pay 640, the member 160
		in.Member.OtherPayerPrimary, in.Claim.PayerSequence = true, "S"
	}
	answered := func(paid, patient money.Cents) func(*Input) {
		return func(in *Input) {
			scope(in)
			in.Claim.Lines[0].PriorAdjudications = []PriorAdjudication{{PayerID: "OTHER", Paid: paid, Adjustments: []PriorAdjustment{
				{"CO", "45", 1000_00 - paid - patient}, {"PR", "2", patient},
			}}}
		}
	}
	tell(t, []story{
		{"the primary hasn't decided", scope, "denied\n1 denied, CO-22 MA04 1000.00 cob.no_primary_decision"},
		{"the primary paid as much as we would: the patient's share stays", answered(700_00, 100_00),
			"paid\n1 pays 0.00, PR-2 100.00 share.coinsurance, OA-23 900.00 cob.prior_payers"},
		{"the primary paid less: the difference", answered(500_00, 300_00),
			"paid\n1 pays 140.00, PR-2 160.00 share.coinsurance, OA-23 700.00 cob.prior_payers"},
		{"never more than the patient owed", answered(500_00, 90_00),
			"paid\n1 pays 90.00, OA-23 910.00 cob.prior_payers"},
		{"our contract's excess stays the provider's", answered(300_00, 700_00),
			"paid\n1 pays 340.00, CO-45 200.00 price.above_allowed, PR-2 160.00 share.coinsurance, OA-23 300.00 cob.prior_payers"},
		{"the primary paid nothing: ours in full", answered(0, 1000_00),
			"paid\n1 pays 640.00, CO-45 200.00 price.above_allowed, PR-2 160.00 share.coinsurance"},
		{"we are primary: nothing to carve out", func(in *Input) {
			answered(700_00, 100_00)(in)
			in.Member.OtherPayerPrimary, in.Claim.PayerSequence = false, "P"
		}, "paid\n1 pays 640.00, CO-45 200.00 price.above_allowed, PR-2 160.00 share.coinsurance"},
		{"tertiary: what both paid", func(in *Input) {
			answered(300_00, 500_00)(in)
			l := &in.Claim.Lines[0]
			l.PriorAdjudications = append(l.PriorAdjudications, PriorAdjudication{Paid: 240_00, Adjustments: []PriorAdjustment{{"OA", "23", 500_00}, {"PR", "2", 260_00}}})
		}, "paid\n1 pays 100.00, PR-2 160.00 share.coinsurance, OA-23 740.00 cob.prior_payers"},
		{"answers that don't balance are read as paying less", func(in *Input) {
			scope(in)
			in.Claim.Lines[0].PriorAdjudications = []PriorAdjudication{{Paid: 500_00}, {Paid: 500_00}}
		}, "paid\n1 pays 0.00, CO-45 200.00 price.above_allowed, PR-2 160.00 share.coinsurance, OA-23 640.00 cob.prior_payers"},
		{"answered for the claim: shared by charge to the cent", func(in *Input) {
			scope(in)
			serve(in, given("45378", 100_00, 1), given("85025", 100_00, 1))
			in.Claim.OtherPayers = []OtherPayer{{Adjudicated: true, Paid: 60_01, Adjustments: []PriorAdjustment{{"PR", "1", 139_99}}}}
		}, "paid\n1 pays 49.99, PR-2 20.00 share.coinsurance, OA-23 30.01 cob.prior_payers\n" +
			"2 pays 18.00, CO-45 39.99 price.above_allowed, PR-2 12.00 share.coinsurance, OA-23 30.01 cob.prior_payers"},
		{"out of network the excess stays the patient's", func(in *Input) {
			answered(300_00, 700_00)(in)
			in.Contracts = nil
			met(in, Deductible, OutOfNetwork, 1000_00, 1000_00)
		}, "paid\n1 pays 84.00, PR-45 360.00 price.above_allowed_out_of_network, PR-2 256.00 share.coinsurance, OA-23 300.00 cob.prior_payers"},
	})
}

func TestACarveOutIsExplained(t *testing.T) {
	in := visit99213()
	replan(in, func(p *PlanSpec) { p.Coordination = CarveOut })
	in.Claim.PayerSequence = "S"
	in.Claim.Lines[0].PriorAdjudications = []PriorAdjudication{{Paid: 50_00, Adjustments: []PriorAdjustment{{"CO", "45", 80_00}, {"PR", "2", 50_00}}}}
	d := Adjudicate(in)
	sound(t, in, &d)
	for _, want := range []string{"the plan subtracts what other payers paid (carve-out)]", "owed after prior payers 50.00\n", "paid by prior payers 50.00\n"} {
		if !strings.Contains(d.Explain(), want) {
			t.Errorf("%q isn't told:\n%s", want, d.Explain())
		}
	}
}

func TestSequestration(t *testing.T) {
	tell(t, []story{
		{"two per cent of the plan's payment", func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			replan(in, func(p *PlanSpec) { p.SequestrationBps = 200 })
			serve(in, given("45378", 800_00, 1))
		}, "paid\n1 pays 627.20, PR-2 160.00 share.coinsurance, CO-253 12.80 sequestration.reduction"},
	})
}

func TestPostings(t *testing.T) {
	own := func(k Kind, tier Network, year, benefit string) Key {
		return Key{Scope: Individual, Kind: k, Network: tier, PlanYear: on(year), Subject: anna, Benefit: benefit}
	}
	family := func(k Kind, tier Network, year string) Key {
		return Key{Scope: Family, Kind: k, Network: tier, PlanYear: on(year)}
	}
	const year = "2026-01-01"
	for _, s := range []struct {
		name  string
		given func(*Input)
		then  []Posting
	}{
		{"a copay counts out of pocket, not to the deductible", func(*Input) {}, []Posting{
			{own(OutOfPocket, InNetwork, year, ""), 30_00}, {family(OutOfPocket, InNetwork, year), 30_00},
		}},
		{"lines add up in one posting", func(in *Input) {
			serve(in, given("80053", 20_00, 1), given("85025", 10_00, 1))
		}, []Posting{
			{own(Deductible, InNetwork, year, ""), 26_00}, {family(Deductible, InNetwork, year), 26_00},
			{own(OutOfPocket, InNetwork, year, ""), 26_00}, {family(OutOfPocket, InNetwork, year), 26_00},
		}},
		{"a plan year of the coverage restarts on its anniversary", func(in *Input) {
			replan(in, func(p *PlanSpec) { p.CoverageYear = true })
		}, []Posting{
			{own(OutOfPocket, InNetwork, "2025-07-01", ""), 30_00}, {family(OutOfPocket, InNetwork, "2025-07-01"), 30_00},
		}},
		{"the anniversary is the first coverage's, not the version's", func(in *Input) {
			replan(in, func(p *PlanSpec) { p.CoverageYear = true })
			in.Member.Coverage[0].YearStart = on("2019-02-15")
		}, []Posting{
			{own(OutOfPocket, InNetwork, "2026-02-15", ""), 30_00}, {family(OutOfPocket, InNetwork, "2026-02-15"), 30_00},
		}},
		{"visits, dollars and lifetime where the benefit has limits", func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 1000_00)
			serve(in, given("97110", 40_00, 1), given("97140", 50_00, 1), given("V5261", 100_00, 1))
		}, []Posting{
			{own(OutOfPocket, InNetwork, year, ""), 7_00}, {family(OutOfPocket, InNetwork, year), 7_00},
			{own(Visits, AllNetworks, year, "therapy"), 1},
			{own(Dollars, AllNetworks, year, "hearing"), 100_00},
			{Key{Scope: Individual, Kind: Lifetime, Network: AllNetworks, Subject: anna, Benefit: "hearing"}, 100_00},
		}},
		{"secondary: the deductible as if alone, out of pocket what is still owed", func(in *Input) {
			serve(in, given("45378", 800_00, 1))
			in.Claim.PayerSequence = "S"
			in.Claim.Lines[0].PriorAdjudications = []PriorAdjudication{{Paid: 500_00, Adjustments: []PriorAdjustment{{"PR", "1", 300_00}}}}
		}, []Posting{
			{own(Deductible, InNetwork, year, ""), 500_00}, {family(Deductible, InNetwork, year), 500_00},
			{own(OutOfPocket, InNetwork, year, ""), 60_00}, {family(OutOfPocket, InNetwork, year), 60_00},
		}},
		{"a denied claim posts nothing", func(in *Input) { serve(in, given("15781", 10_00, 1)) }, nil},
	} {
		t.Run(s.name, func(t *testing.T) {
			in := visit99213()
			s.given(in)
			d := Adjudicate(in)
			sound(t, in, &d)
			same := len(d.Postings) == len(s.then)
			for i := 0; same && i < len(s.then); i++ {
				same = d.Postings[i] == s.then[i]
			}
			if !same {
				t.Errorf("got %+v\nwant %+v\n%s", d.Postings, s.then, d.Explain())
			}
		})
	}
}

func TestVersionsNameWhatWasRead(t *testing.T) {
	in := visit99213()
	next := goldSpec()
	next.Version = "plan_gold@4"
	in.Member.Coverage = append(in.Member.Coverage, Coverage{Period: Period{Start: on("2026-03-11")}, Plan: mustPlan(next)})
	in.Member.Coverage[0].Period.End = on("2026-03-10")
	serve(in, given("80053", 20_00, 1), given("80055", 20_00, 1))
	in.Claim.Lines[1].ServiceDate = on("2026-03-11")
	d := Adjudicate(in)
	want := Versions{
		Engine: EngineVersion, Plan: "plan_gold@3,plan_gold@4", Contract: "ctr_lakeside@1", FeeSchedule: "fs_standard@1",
		Coverage: "member-sub_anna@1", AccumulatorsRevision: 7, ReceivedDate: "2026-03-12",
	}
	if d.Versions != want {
		t.Errorf("got %+v, want %+v", d.Versions, want)
	}
}
