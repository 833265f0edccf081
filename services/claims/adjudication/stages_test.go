package adjudication

import (
	"testing"
)

// Each story changes one thing about Anna's visit and says what becomes of it.
type story struct {
	name  string
	given func(*Input)
	then  string
}

func tell(t *testing.T, stories []story) {
	t.Helper()
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			in := visit99213()
			s.given(in)
			d := Adjudicate(in)
			sound(t, in, &d)
			if got := tale(&d); got != s.then {
				t.Errorf("got\n%s\nwant\n%s", got, s.then)
			}
		})
	}
}

const cleanVisit = "paid\n1 pays 70.00, CO-45 80.00 price.above_allowed, PR-3 30.00 share.copay"

func TestTheClaimItself(t *testing.T) {
	tell(t, []story{
		{"a clean visit is paid above the copay", func(*Input) {}, cleanVisit},
		{"no lines: a person must ask", func(in *Input) { in.Claim.Lines = nil },
			"pended\n0 claim.empty 16 M51"},
		{"no day of receipt: nothing can be judged", func(in *Input) { in.Claim.ReceivedDate = 0 },
			"pended\n0 claim.receipt 16 MA130"},
		{"the total isn't the lines' sum", func(in *Input) { in.Claim.Charge = 179_99 },
			"denied\n1 denied, CO-16 M54 180.00 claim.total"},
		{"an absurd quantity", func(in *Input) { in.Claim.Lines[0].QuantityMilli = -1 },
			"denied\n1 denied, CO-16 M79 180.00 claim.amount"},
		{"a replacement waits for its original's reversal", func(in *Input) { in.Claim.FrequencyCode = "7" },
			"pended\n0 adjustment.replacement 16 N152"},
		{"approval alone doesn't make a replacement safe", func(in *Input) {
			in.Claim.FrequencyCode, in.Review.Resolution = "8", Approved
		}, "pended\n0 adjustment.replacement 16 N152"},
	})
}

func TestTheMember(t *testing.T) {
	tell(t, []story{
		{"sent to the wrong payer", func(in *Input) { in.Member.Match = MatchNotOurs },
			"denied\n1 denied, CO-109 N418 180.00 member.not_ours"},
		{"not one of ours", func(in *Input) { in.Member = Member{} },
			"denied\n1 denied, PR-31 N382 180.00 member.not_found"},
		{"two people fit: a person chooses", func(in *Input) { in.Member = Member{Match: MatchAmbiguous} },
			"pended\n0 member.ambiguous 31 N382"},
	})
}

func TestEligibilityOnTheDate(t *testing.T) {
	cover := func(in *Input, spans ...string) {
		plan := in.Member.Coverage[0].Plan
		in.Member.Coverage = nil
		for i := 0; i < len(spans); i += 2 {
			in.Member.Coverage = append(in.Member.Coverage, Coverage{Period: Period{on(spans[i]), on(spans[i+1])}, Plan: plan})
		}
	}
	stay := func(in *Input) { in.Claim.Lines[0].ServiceEndDate = on("2026-03-12") }
	tell(t, []story{
		{"before coverage", func(in *Input) { cover(in, "2026-03-11", "") },
			"denied\n1 denied, PR-26 N30 180.00 eligibility.not_yet"},
		{"on the first covered day", func(in *Input) { cover(in, "2026-03-10", "") }, cleanVisit},
		{"on the last covered day", func(in *Input) { cover(in, "2025-01-01", "2026-03-10") }, cleanVisit},
		{"the day after", func(in *Input) { cover(in, "2025-01-01", "2026-03-09") },
			"denied\n1 denied, PR-27 N30 180.00 eligibility.terminated"},
		{"between two coverages", func(in *Input) { cover(in, "2025-01-01", "2025-12-31", "2026-04-01", "") },
			"denied\n1 denied, PR-27 N30 180.00 eligibility.gap"},
		{"matched, never covered", func(in *Input) { cover(in) },
			"denied\n1 denied, PR-26 N30 180.00 eligibility.not_yet"},
		{"coverage ends during the service", func(in *Input) { stay(in); cover(in, "2025-01-01", "2026-03-11") },
			"denied\n1 denied, PR-27 N30 180.00 eligibility.terminated"},
		{"coverage goes on under a new version", func(in *Input) {
			stay(in)
			cover(in, "2026-03-11", "", "2025-01-01", "2026-03-10")
		}, cleanVisit},
		{"covered, but no plan version governs", func(in *Input) { in.Member.Coverage[0].Plan = nil },
			"pended\n1 eligibility.no_plan 204 N130"},
	})
}

func TestTimelyFiling(t *testing.T) {
	tell(t, []story{
		{"on the last day", func(in *Input) { in.Claim.ReceivedDate = on("2026-06-08") }, cleanVisit},
		{"a day late", func(in *Input) { in.Claim.ReceivedDate = on("2026-06-09") },
			"denied\n1 denied, CO-29 180.00 timely.late"},
		{"a stay is timed from its last day", func(in *Input) {
			in.Claim.Lines[0].ServiceEndDate, in.Claim.ReceivedDate = on("2026-03-11"), on("2026-06-09")
		}, cleanVisit},
		{"a replacement in time", func(in *Input) {
			in.Claim.FrequencyCode, in.OriginalReversed, in.Claim.ReceivedDate = "7", true, on("2026-06-08")
		}, cleanVisit},
		{"a replacement of which one line is late is late", func(in *Input) {
			in.Claim.FrequencyCode, in.OriginalReversed, in.Claim.ReceivedDate = "7", true, on("2026-06-09")
			second := in.Claim.Lines[0]
			second.Number, second.ServiceDate = 2, on("2026-04-10")
			in.Claim.Lines, in.Claim.Charge = append(in.Claim.Lines, second), 2*in.Claim.Charge
		}, "denied\n1 denied, CO-29 180.00 timely.late_correction\n2 denied, CO-29 180.00 timely.late_correction"},
	})
}

func earlier(change func(*HistoryLine)) HistoryLine {
	h := HistoryLine{
		ClaimID: "clm_earlier", Number: 1, Subject: anna, BillingNPI: lakeside, ServiceDate: on("2026-03-10"),
		Procedure: "99213", QuantityMilli: 1000, Charge: 180_00, Allowed: true, AllowedQuantityMilli: 1000,
	}
	change(&h)
	return h
}

func TestDuplicates(t *testing.T) {
	const exact = "denied\n1 denied, OA-18 N522 180.00 duplicate.exact"
	const suspected = "pended\n1 duplicate.suspected 18 N522"
	after := func(change func(*HistoryLine)) func(*Input) {
		return func(in *Input) { in.History = []HistoryLine{earlier(change)} }
	}
	tell(t, []story{
		{"the very service was allowed before", after(func(*HistoryLine) {}), exact},
		{"shuffled modifiers don't hide it", func(in *Input) {
			in.Claim.Lines[0].Modifiers = []string{"25", "95"}
			in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Modifiers = []string{"95", "25"} })}
		}, exact},
		{"denied before: judged anew", after(func(h *HistoryLine) { h.Allowed = false }), cleanVisit},
		{"another person of the family", after(func(h *HistoryLine) { h.Subject = ben }), cleanVisit},
		{"another day", after(func(h *HistoryLine) { h.ServiceDate = on("2026-03-09") }), cleanVisit},
		{"another procedure", after(func(h *HistoryLine) { h.Procedure = "99214" }), cleanVisit},
		{"another charge", after(func(h *HistoryLine) { h.Charge = 181_00 }), suspected},
		{"another provider", after(func(h *HistoryLine) { h.BillingNPI, h.RenderingNPI = stranger, stranger }), suspected},
		{"other units", after(func(h *HistoryLine) { h.QuantityMilli = 2000 }), suspected},
		{"a modifier more", after(func(h *HistoryLine) { h.Modifiers = []string{"95"} }), suspected},
		{"the other side of the body", after(func(h *HistoryLine) { h.Modifiers = []string{"LT"} }), cleanVisit},
		{"two points off is another service", after(func(h *HistoryLine) { h.Charge, h.QuantityMilli = 1, 2000 }), cleanVisit},
		{"marked as a repeat", func(in *Input) {
			in.Claim.Lines[0].Modifiers = []string{"76"}
			in.History = []HistoryLine{earlier(func(*HistoryLine) {})}
		}, cleanVisit},
		{"approved by a reviewer", func(in *Input) {
			in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Charge = 1 })}
			in.Review = Review{Resolution: Approved, Reasons: []PendReason{{RuleID: "duplicate.suspected", Line: 1}}}
		}, cleanVisit},
		{"refused by a reviewer", func(in *Input) {
			in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Charge = 1 })}
			in.Review = Review{Resolution: Refused, Reasons: []PendReason{{RuleID: "duplicate.suspected", Line: 1}}}
		}, "denied\n1 denied, OA-18 N522 180.00 duplicate.suspected"},
		{"twice in one claim", func(in *Input) { serve(in, given("80053", 30_00, 1), given("80053", 30_00, 1)) },
			"paid\n1 pays 0.00, CO-45 10.00 price.above_allowed, PR-1 20.00 share.deductible\n2 denied, OA-18 N522 30.00 duplicate.in_claim"},
		{"twice in one claim, marked as a repeat", func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			serve(in, given("80053", 20_00, 1), given("80053", 20_00, 1, "91"))
		}, "paid\n1 pays 16.00, PR-2 4.00 share.coinsurance\n2 pays 16.00, PR-2 4.00 share.coinsurance"},
		{"the same code for another drug", func(in *Input) {
			serve(in, given("80053", 20_00, 1), given("80053", 20_00, 1))
			in.Claim.Lines[0].NDC, in.Claim.Lines[1].NDC = "00002143380", "00002143480"
		}, "paid\n1 pays 0.00, PR-1 20.00 share.deductible\n2 pays 0.00, PR-1 20.00 share.deductible"},
		{"equal repeats of one claim", func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			serve(in, given("80053", 20_00, 1, "91"), given("80053", 20_00, 1, "91"))
		}, "paid\n1 pays 16.00, PR-2 4.00 share.coinsurance\n2 pays 16.00, PR-2 4.00 share.coinsurance"},
	})
}

func TestADuplicateNamesTheEarlierClaimAndMovesNothing(t *testing.T) {
	in := visit99213()
	in.History = []HistoryLine{earlier(func(*HistoryLine) {})}
	d := Adjudicate(in)
	if !d.Duplicate || d.DuplicateOf != "clm_earlier" || len(d.Postings) != 0 {
		t.Errorf("duplicate %t of %q with postings %v", d.Duplicate, d.DuplicateOf, d.Postings)
	}
}

func TestRememberedClaimsAreRecognised(t *testing.T) {
	stay := visit99213()
	hospitalise(stay, billed("0120", 200_00, 3))
	for name, in := range map[string]*Input{"a visit": visit99213(), "a stay without procedure": stay} {
		t.Run(name, func(t *testing.T) {
			first := Adjudicate(in)
			if first.Status != Paid {
				t.Fatal(first.Explain())
			}
			in.History = Remember("clm_first", in, &first)
			if again := Adjudicate(in); again.Status != Denied || again.DuplicateOf != "clm_first" {
				t.Fatal(again.Explain())
			}
		})
	}
	in := visit99213()
	in.Claim.FrequencyCode = "7"
	if d := Adjudicate(in); Remember("clm_pended", in, &d) != nil {
		t.Error("a pended claim is remembered")
	}
}

func TestCompletenessAndCodes(t *testing.T) {
	line := func(change func(*Line)) func(*Input) {
		return func(in *Input) {
			change(&in.Claim.Lines[0])
			in.Claim.Charge = in.Claim.Lines[0].Charge
		}
	}
	claim := func(change func(*Claim)) func(*Input) { return func(in *Input) { change(&in.Claim) } }
	deny := func(codes, rule string) string { return "denied\n1 denied, CO-" + codes + " 180.00 complete." + rule }
	tell(t, []story{
		{"no date", line(func(l *Line) { l.ServiceDate = 0 }), deny("16 M52", "service_date")},
		{"ends before it begins", line(func(l *Line) { l.ServiceEndDate = on("2026-03-09") }), deny("16 M59", "end_date")},
		{"after the day of receipt", claim(func(c *Claim) { c.ReceivedDate = on("2026-03-09") }), deny("110", "future")},
		{"no units", line(func(l *Line) { l.QuantityMilli = 0 }), deny("16 M53", "units")},
		{"no charge", line(func(l *Line) { l.Charge = 0 }), "denied\n1 denied, CO-16 M79 0.00 complete.charge"},
		{"no procedure", line(func(l *Line) { l.Procedure = "" }), deny("16 M51", "procedure")},
		{"no such procedure code", line(func(l *Line) { l.Procedure = "9921X" }), deny("181 N56", "procedure_code")},
		{"no place of service", claim(func(c *Claim) { c.PlaceOfService = "" }), deny("16 M77", "place_of_service")},
		{"a place CMS hasn't assigned", line(func(l *Line) { l.PlaceOfService = "98" }), deny("16 M77", "place_of_service")},
		{"a malformed modifier", line(func(l *Line) { l.Modifiers = []string{"2 "} }), deny("182 N519", "modifier_code")},
		{"a modifier twice", line(func(l *Line) { l.Modifiers = []string{"25", "25"} }), deny("4 N519", "modifier_pair")},
		{"both halves on one line", line(func(l *Line) { l.Modifiers = []string{"26", "TC"} }), deny("4 N519", "modifier_pair")},
		{"a visit's modifier on a laboratory test", line(func(l *Line) { l.Procedure, l.Modifiers = "80053", []string{"25"} }), deny("4 N519", "modifier_pair")},
		{"no diagnosis pointed to", line(func(l *Line) { l.DiagnosisPointers = nil }), deny("16 M76", "diagnosis")},
		{"a pointer beyond the diagnoses", line(func(l *Line) { l.DiagnosisPointers = []uint32{1, 3} }), deny("16 M76", "diagnosis")},
		{"a pointer to none", line(func(l *Line) { l.DiagnosisPointers = []uint32{0} }), deny("16 M76", "diagnosis")},
		{"ICD-9-CM in 2026", claim(func(c *Claim) { c.Diagnoses[0] = Diagnosis{"25000", "BK"} }), deny("146 M76", "diagnosis_code")},
		{"ICD-9-CM in 2026 under ICD-10-CM's qualifier", claim(func(c *Claim) { c.Diagnoses[0] = Diagnosis{"25000", "ABK"} }), deny("146 M76", "diagnosis_code")},
		{"a bad diagnosis the line doesn't point to", claim(func(c *Claim) { c.Diagnoses[1] = Diagnosis{"??", "ABF"} }), cleanVisit},
		{"ICD-9-CM before October 2015", func(in *Input) {
			in.Claim.Diagnoses[0] = Diagnosis{"25000", "BK"}
			in.Claim.Lines[0].ServiceDate, in.Claim.ReceivedDate = on("2015-09-30"), on("2015-10-10")
			in.Member.Coverage[0].Period.Start = on("2015-01-01")
		}, cleanVisit},
		{"ICD-9-CM on the first day of October 2015", func(in *Input) {
			in.Claim.Diagnoses[0] = Diagnosis{"25000", "BK"}
			in.Claim.Lines[0].ServiceDate, in.Claim.ReceivedDate = on("2015-10-01"), on("2015-10-10")
			in.Member.Coverage[0].Period.Start = on("2015-01-01")
		}, deny("146 M76", "diagnosis_code")},
		{"institutional without revenue code", func(in *Input) { hospitalise(in, billed("", 180_00, 1)) }, deny("16 M50", "revenue_code")},
		{"institutional, by revenue code alone", func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			hospitalise(in, billed("0120", 1000_00, 1))
		}, "paid\n1 pays 480.00, CO-45 400.00 price.above_allowed, PR-2 120.00 share.coinsurance"},
		{"a stay is coded by the day of discharge", func(in *Input) {
			hospitalise(in, billed("0120", 180_00, 1))
			c := &in.Claim
			c.StatementFrom, c.StatementThrough, c.AdmissionDate = on("2015-09-28"), on("2015-10-02"), on("2015-09-28")
			c.Lines[0].ServiceDate, c.Lines[0].ServiceEndDate = c.StatementFrom, c.StatementThrough
			in.Member.Coverage[0].Period.Start, c.ReceivedDate = on("2015-01-01"), on("2015-10-10")
		}, "paid\n1 pays 0.00, CO-45 72.00 price.above_allowed, PR-1 108.00 share.deductible"},
		{"institutional without diagnoses", func(in *Input) {
			hospitalise(in, billed("0120", 180_00, 1))
			in.Claim.Diagnoses = nil
		}, deny("16 M76", "diagnosis")},
	})
}

func TestProviderAndNetwork(t *testing.T) {
	noContract := func(in *Input) { in.Contracts = nil }
	deny := func(codes, rule string) string { return "denied\n1 denied, CO-" + codes + " 180.00 " + rule }
	const outVisit = "paid\n1 pays 20.00, PR-45 100.00 price.above_allowed_out_of_network, PR-3 60.00 share.copay"
	tell(t, []story{
		{"no NPI", func(in *Input) { in.Claim.BillingNPI = "" }, deny("206 N257", "provider.npi_missing")},
		{"a wrong check digit", func(in *Input) { in.Claim.BillingNPI = "1234567890" }, deny("207 N257", "provider.npi_invalid")},
		{"a wrong rendering NPI", func(in *Input) { in.Claim.Lines[0].RenderingNPI = "1234567890" }, deny("207 N290", "provider.rendering_npi_invalid")},
		{"not in the registry", func(in *Input) { in.Providers = []ProviderRecord{{NPI: lakeside, Unknown: true}} }, deny("208 N257", "provider.npi_unknown")},
		{"certified only later", func(in *Input) {
			in.Providers = []ProviderRecord{{NPI: lakeside, Certified: []Period{{Start: on("2026-04-01")}}}}
		}, deny("B7", "provider.not_certified")},
		{"rendering provider's certificate has ended", func(in *Input) {
			in.Claim.RenderingNPI = stranger
			in.Providers = []ProviderRecord{{NPI: stranger, Certified: []Period{{Start: on("2020-01-01"), End: on("2025-12-31")}}}}
		}, deny("185", "provider.rendering_not_eligible")},
		{"certified: paid", func(in *Input) {
			in.Providers = []ProviderRecord{{NPI: lakeside, Certified: []Period{{Start: on("2020-01-01")}}}}
		}, cleanVisit},
		{"out of network: other copay, and the excess is the patient's", noContract, outVisit},
		{"a contract that isn't in force", func(in *Input) { in.Contracts[0].Period.End = on("2026-03-09") }, outVisit},
		{"a contract for other plans", func(in *Input) { in.Contracts[0].PlanIDs = []string{"plan_silver"} }, outVisit},
		{"a contract for this plan", func(in *Input) { in.Contracts[0].PlanIDs = []string{"plan_silver", "plan_gold"} }, cleanVisit},
		{"a plan without out-of-network benefits", func(in *Input) {
			noContract(in)
			replan(in, func(p *PlanSpec) { p.OutOfNetwork = nil })
		}, deny("242", "network.out_of_network")},
		{"an emergency is in network whoever treats it", func(in *Input) {
			noContract(in)
			replan(in, func(p *PlanSpec) { p.OutOfNetwork = nil })
			l := given("99284", 900_00, 1)
			l.Emergency, l.PlaceOfService = true, "23"
			serve(in, l)
		}, "paid\n1 pays 0.00, CO-45 500.00 price.above_allowed, PR-1 400.00 share.deductible"},
		{"an emergency before the No Surprises Act", func(in *Input) {
			noContract(in)
			l := given("99284", 900_00, 1)
			l.Emergency, l.PlaceOfService, l.ServiceDate = true, "23", on("2021-12-31")
			serve(in, l)
			in.Claim.ReceivedDate, in.Member.Coverage[0].Period.Start = on("2022-01-03"), on("2021-01-01")
		}, "paid\n1 pays 0.00, PR-45 580.00 price.above_allowed_out_of_network, PR-1 320.00 share.deductible"},
		{"an emergency on its first day", func(in *Input) {
			noContract(in)
			l := given("99284", 900_00, 1)
			l.Emergency, l.PlaceOfService, l.ServiceDate = true, "23", on("2022-01-01")
			serve(in, l)
			in.Claim.ReceivedDate, in.Member.Coverage[0].Period.Start = on("2022-01-03"), on("2021-01-01")
		}, "paid\n1 pays 0.00, CO-45 500.00 price.above_allowed, PR-1 400.00 share.deductible"},
		{"a specialist without referral", func(in *Input) {
			replan(in, func(p *PlanSpec) { p.ReferralRequired = true })
			serve(in, given("92004", 180_00, 1))
		}, deny("288", "network.no_referral")},
		{"a specialist with referral", func(in *Input) {
			replan(in, func(p *PlanSpec) { p.ReferralRequired = true })
			in.Claim.ReferralNumber = "R1"
			serve(in, given("92004", 100_00, 1))
		}, "paid\n1 pays 0.00, CO-45 40.00 price.above_allowed, PR-1 60.00 share.deductible"},
	})
}

func TestTheBenefit(t *testing.T) {
	tell(t, []story{
		{"no benefit names it", func(in *Input) { serve(in, given("A0425", 180_00, 1)) },
			"denied\n1 denied, PR-204 N130 180.00 benefit.none"},
		{"a benefit for another place", func(in *Input) { serve(in, given("99284", 180_00, 1)) },
			"denied\n1 denied, PR-204 N130 180.00 benefit.none"},
		{"named as not covered", func(in *Input) { serve(in, given("15781", 180_00, 1)) },
			"denied\n1 denied, PR-96 N130 180.00 benefit.not_covered"},
		{"for this diagnosis", func(in *Input) { serve(in, given("G0108", 50_00, 1)) },
			"paid\n1 pays 0.00, CO-45 20.00 price.above_allowed, PR-1 30.00 share.deductible"},
		{"the line points to the wrong diagnosis", func(in *Input) {
			serve(in, given("G0108", 50_00, 1))
			in.Claim.Lines[0].DiagnosisPointers = []uint32{2}
		}, "denied\n1 denied, CO-11 50.00 benefit.diagnosis_pointer"},
		{"no diagnosis makes it necessary", func(in *Input) {
			serve(in, given("G0108", 50_00, 1))
			in.Claim.Diagnoses[0].Code = "J069"
		}, "denied\n1 denied, CO-50 50.00 benefit.not_necessary"},
		{"a document is wanted", func(in *Input) { serve(in, given("95810", 900_00, 1)) },
			"pended\n1 authorization.document 252 N706"},
		{"the benefit is always reviewed", func(in *Input) { serve(in, given("50360", 900_00, 1)) },
			"pended\n1 review.benefit 216"},
	})
}

func TestPriorAuthorization(t *testing.T) {
	const absent = "denied\n1 denied, CO-197 M62 500.00 authorization.absent"
	const allowed = "paid\n1 pays 0.00, PR-1 500.00 share.deductible"
	scan := func(change func(*Input, *Authorization)) func(*Input) {
		return func(in *Input) {
			serve(in, given("70551", 500_00, 1))
			in.Claim.PriorAuthorizationNumber = "PA-1"
			in.Authorizations = []Authorization{{
				Number: "PA-1", Subject: anna, Procedures: []string{"70540-70559"}, Units: 2,
				Period: Period{on("2026-03-01"), on("2026-03-31")},
			}}
			change(in, &in.Authorizations[0])
		}
	}
	tell(t, []story{
		{"authorised", scan(func(*Input, *Authorization) {}), allowed},
		{"the line's own number goes first", scan(func(in *Input, a *Authorization) {
			a.Number, in.Claim.Lines[0].PriorAuthorizationNumber = "PA-2", "PA-2"
		}), allowed},
		{"no number", scan(func(in *Input, _ *Authorization) { in.Claim.PriorAuthorizationNumber = "" }), absent},
		{"another number", scan(func(_ *Input, a *Authorization) { a.Number = "PA-9" }), absent},
		{"another person's", scan(func(_ *Input, a *Authorization) { a.Subject = ben }), absent},
		{"for another procedure", scan(func(_ *Input, a *Authorization) { a.Procedures = []string{"70450"} }), absent},
		{"for any procedure", scan(func(_ *Input, a *Authorization) { a.Procedures = nil }), allowed},
		{"not in force", scan(func(_ *Input, a *Authorization) { a.Period.End = on("2026-03-09") }),
			"denied\n1 denied, CO-197 M62 500.00 authorization.not_in_force"},
		{"given to who bills", scan(func(_ *Input, a *Authorization) { a.NPIs = []string{stranger, lakeside} }), allowed},
		{"given to who renders", scan(func(in *Input, a *Authorization) {
			a.NPIs, in.Claim.Lines[0].RenderingNPI = []string{stranger}, stranger
		}), allowed},
		{"given to another provider", scan(func(_ *Input, a *Authorization) { a.NPIs = []string{stranger} }),
			"denied\n1 denied, CO-15 M62 500.00 authorization.other_provider"},
		{"cancelled", scan(func(_ *Input, a *Authorization) { a.Cancelled = true }),
			"denied\n1 denied, CO-15 M62 500.00 authorization.cancelled"},
		{"one cancelled, another in force", scan(func(in *Input, a *Authorization) {
			in.Authorizations = append([]Authorization{*a}, *a)
			in.Authorizations[0].Cancelled = true
		}), allowed},
		{"used up by earlier claims", scan(func(in *Input, _ *Authorization) {
			in.History = []HistoryLine{earlier(func(h *HistoryLine) {
				h.Procedure, h.ServiceDate, h.AllowedQuantityMilli = "70552", on("2026-03-02"), 2000
			})}
		}), "denied\n1 denied, CO-198 500.00 authorization.exceeded"},
		{"use outside its dates doesn't count", scan(func(in *Input, _ *Authorization) {
			in.History = []HistoryLine{earlier(func(h *HistoryLine) {
				h.Procedure, h.ServiceDate, h.AllowedQuantityMilli = "70552", on("2026-02-02"), 2000
			})}
		}), allowed},
		{"used up within the claim", scan(func(in *Input, _ *Authorization) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			serve(in, given("70551", 500_00, 1), given("70551", 490_00, 1), given("70551", 480_00, 1))
		}), "paid\n1 pays 400.00, PR-2 100.00 share.coinsurance\n2 pays 392.00, PR-2 98.00 share.coinsurance\n3 denied, CO-198 480.00 authorization.exceeded"},
		{"no limit", scan(func(in *Input, a *Authorization) { a.Units, a.UsedMilli = 0, 99_000 }), allowed},
		{"listed by the plan, whatever the benefit", scan(func(in *Input, _ *Authorization) {
			replan(in, func(p *PlanSpec) {
				p.PriorAuthorizationProcedures = []string{"95810", "V5200-V5260", "V5260-V5299", "70551"}
			})
			serve(in, given("V5261", 500_00, 1), given("99213", 100_00, 1), given("V5100", 100_00, 1))
		}), "paid\n1 denied, CO-197 M62 500.00 authorization.absent\n2 pays 70.00, PR-3 30.00 share.copay\n3 pays 60.00, CO-45 40.00 price.above_allowed"},
		{"listed and authorised", scan(func(in *Input, a *Authorization) {
			replan(in, func(p *PlanSpec) { p.PriorAuthorizationProcedures = []string{"V5261"} })
			a.Procedures = []string{"V5261"}
			serve(in, given("V5261", 500_00, 1))
		}), "paid\n1 pays 500.00"},
		{"listed, but an emergency", scan(func(in *Input, _ *Authorization) {
			replan(in, func(p *PlanSpec) { p.PriorAuthorizationProcedures = []string{"V5261"} })
			serve(in, given("V5261", 500_00, 1))
			in.Claim.Lines[0].Emergency = true
		}), "paid\n1 pays 500.00"},
		{"an emergency needs none", scan(func(in *Input, _ *Authorization) {
			in.Authorizations, in.Claim.Lines[0].Emergency = nil, true
		}), allowed},
	})
}

func TestReview(t *testing.T) {
	big := func(in *Input) { serve(in, given("45378", 25_000_00, 1)) }
	const paid = "paid\n1 pays 240.00, CO-45 24200.00 price.above_allowed, PR-1 500.00 share.deductible, PR-2 60.00 share.coinsurance"
	seen := []PendReason{{RuleID: "review.threshold"}}
	tell(t, []story{
		{"a claim above the threshold waits", big, "pended\n0 review.threshold 216"},
		{"one denied anyway doesn't", func(in *Input) { serve(in, given("15781", 25_000_00, 1)) },
			"denied\n1 denied, PR-96 N130 25000.00 benefit.not_covered"},
		{"approved", func(in *Input) { big(in); in.Review = Review{Resolution: Approved, Reasons: seen} }, paid},
		{"approved without naming reasons", func(in *Input) { big(in); in.Review.Resolution = Approved }, paid},
		{"approved, but a doubt has come up since", func(in *Input) {
			big(in)
			in.Review = Review{Resolution: Approved, Reasons: seen}
			in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Procedure, h.Charge = "45378", 1 })}
		}, "pended\n1 duplicate.suspected 18 N522"},
		{"refused", func(in *Input) { big(in); in.Review = Review{Resolution: Refused, Reasons: seen} },
			"denied\n1 denied, CO-216 25000.00 review.threshold"},
		{"refused without naming reasons", func(in *Input) { big(in); in.Review.Resolution = Refused },
			"denied\n1 denied, CO-216 25000.00 review.threshold"},
		{"refused for a rule this engine no longer has", func(in *Input) {
			big(in)
			in.Review = Review{Resolution: Refused, Reasons: []PendReason{{RuleID: "review.of_old"}}}
		}, "denied\n1 denied, CO-216 25000.00 review.benefit"},
		{"a refused line neither posts nor ranks among the procedures", func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			serve(in, given("45378", 800_00, 1), given("11402", 300_00, 1))
			in.Review = Review{Resolution: Refused, Reasons: []PendReason{{RuleID: "review.benefit", Line: 1}}}
		}, "paid\n1 denied, CO-216 800.00 review.benefit\n2 pays 240.00, PR-2 60.00 share.coinsurance"},
		{"a replacement may be refused", func(in *Input) {
			in.Claim.FrequencyCode, in.Review.Resolution = "7", Refused
		}, "denied\n1 denied, CO-16 N152 180.00 adjustment.replacement"},
	})
}

func TestEveryDoubtIsSeenAtOnce(t *testing.T) {
	in := visit99213()
	serve(in, given("95810", 15_000_00, 1), given("50360", 15_000_00, 1), given("15781", 10_00, 1))
	d := Adjudicate(in)
	sound(t, in, &d)
	want := "pended\n1 authorization.document 252 N706\n2 review.benefit 216\n0 review.threshold 216"
	if got := tale(&d); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
