package adjudication

import "testing"

func TestSignals(t *testing.T) {
	known := func(record ProviderRecord) func(*Input) {
		return func(in *Input) { record.NPI = lakeside; in.Providers = []ProviderRecord{record} }
	}
	operated := func(change func(*HistoryLine), modifiers ...string) func(*Input) {
		return func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			serve(in, given("45378", 800_00, 1, modifiers...))
			in.History = []HistoryLine{earlier(func(h *HistoryLine) {
				h.Procedure, h.BillingNPI, h.Charge, h.QuantityMilli = "45378", stranger, 750_00, 1000
				change(h)
			})}
		}
	}
	unchanged := func(*HistoryLine) {}
	const operation = "paid\n1 pays 640.00, PR-2 160.00 share.coinsurance"
	// A clinician bills 45 minutes of therapy, three units, on a busy day.
	busy := func(others int64, change func(*Input)) func(*Input) {
		return func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			fees := feesSpec()
			fees.Fees = []Fee{{Procedure: "97110", Amount: 40_00, TypicalMinutes: 15}}
			in.FeeSchedules = []*FeeSchedule{mustFees(fees)}
			serve(in, given("97110", 120_00, 3))
			in.ProviderDays = []ProviderDay{{NPI: lakeside, Date: on("2026-03-10"), Minutes: others}}
			change(in)
		}
	}
	same := func(*Input) {}
	const therapy = "paid\n1 pays 108.00, PR-2 12.00 share.coinsurance"
	tell(t, []story{
		{"given after the provider's death", known(ProviderRecord{Died: on("2026-03-09")}), "pended\n1 signal.deceased_provider B7"},
		{"given on the provider's last day", known(ProviderRecord{Died: on("2026-03-10")}), cleanVisit},
		{"the number wasn't active", known(ProviderRecord{Inactive: []Period{{on("2026-03-01"), on("2026-03-31")}}}), "pended\n1 signal.inactive_provider B7"},
		{"the number was active again", known(ProviderRecord{Inactive: []Period{{on("2026-01-01"), on("2026-03-09")}}}), cleanVisit},
		{"another was paid for the same operation", operated(unchanged), "pended\n1 signal.other_provider B20"},
		{"another day", operated(func(h *HistoryLine) { h.ServiceDate-- }), operation},
		{"another person", operated(func(h *HistoryLine) { h.Subject = ben }), operation},
		{"the other was denied", operated(func(h *HistoryLine) { h.Allowed = false }), operation},
		{"the other assisted", operated(func(h *HistoryLine) { h.Modifiers = []string{"80"} }), operation},
		{"two surgeons", operated(unchanged, "62"), operation},
		{"the other side", operated(func(h *HistoryLine) { h.Modifiers = []string{"LT"} }, "RT"), operation},
		{"visits may be several", func(in *Input) {
			in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.BillingNPI, h.Charge = stranger, 10_00 })}
		}, cleanVisit},
		{"a day of exactly 24 hours", busy(1395, same), therapy},
		{"a minute more", busy(1396, same), "pended\n1 signal.impossible_day 151 N362"},
		{"another's minutes", busy(1396, func(in *Input) { in.ProviderDays[0].NPI = stranger }), therapy},
		{"another day's minutes", busy(1396, func(in *Input) { in.ProviderDays[0].Date++ }), therapy},
		{"minutes of procedures without a usual time", busy(1440, func(in *Input) {
			in.FeeSchedules = []*FeeSchedule{mustFees(feesSpec())}
		}), therapy},
		{"a signal never denies: approved it is paid", func(in *Input) {
			busy(1396, same)(in)
			in.Review = Review{Resolution: Approved, Reasons: []PendReason{{RuleID: "signal.impossible_day", Line: 1}}}
		}, therapy},
		{"refused by a person", func(in *Input) {
			operated(unchanged)(in)
			in.Review = Review{Resolution: Refused, Reasons: []PendReason{{RuleID: "signal.other_provider", Line: 1}}}
		}, "denied\n1 denied, CO-B20 800.00 signal.other_provider"},
	})
}

func TestASignalNamesItsFacts(t *testing.T) {
	in := visit99213()
	serve(in, given("45378", 800_00, 1))
	in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Procedure, h.BillingNPI, h.Number = "45378", stranger, 4 })}
	d := Adjudicate(in)
	var got *PendReason
	for i := range d.PendReasons {
		if d.PendReasons[i].RuleID == "signal.other_provider" {
			got = &d.PendReasons[i]
		}
	}
	if got == nil || len(got.Related) != 1 || got.Related[0] != "clm_earlier" || len(got.Facts) != 1 || got.Facts[0] != (Fact{"earlier_line", 4}) {
		t.Errorf("%+v", d.PendReasons)
	}
}
