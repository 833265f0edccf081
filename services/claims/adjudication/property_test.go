package adjudication

import (
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/money"
)

// seldom is true once in n draws: what a generator does to a field that is
// sound otherwise.
func seldom(t *rapid.T, n int, what string) bool { return rapid.IntRange(1, n).Draw(t, what) == n }

func cents(t *rapid.T, most int64, what string) money.Cents {
	return money.Cents(rapid.Int64Range(0, most).Draw(t, what))
}

func bps(t *rapid.T, what string) int64 { return rapid.Int64Range(0, whole).Draw(t, what) }

func drawShare(t *rapid.T, what string) CostShare {
	return CostShare{
		DeductibleIndividual: cents(t, 800_00, what+" deductible"), DeductibleFamily: cents(t, 1200_00, what+" family deductible"),
		AggregateDeductible: rapid.Bool().Draw(t, what+" aggregate"), CoinsuranceBps: bps(t, what+" coinsurance"),
		OutOfPocketIndividual: cents(t, 2000_00, what+" cap"), OutOfPocketFamily: cents(t, 3000_00, what+" family cap"),
	}
}

var procedures = []string{"99213", "99396", "80053", "85025", "45378", "11402", "97110", "97140", "V5261", "70551", "15781", "95810", "50360", "G0108", "A0425", "", "??"}

func drawPlan(t *rapid.T) PlanSpec {
	spec := goldSpec()
	spec.InNetwork = drawShare(t, "in")
	if out := drawShare(t, "out"); !seldom(t, 4, "no out of network") {
		spec.OutOfNetwork = &out
	}
	spec.CoverageYear = rapid.Bool().Draw(t, "coverage year")
	spec.MultipleProcedureBps = bps(t, "multiple procedures")
	spec.OutOfNetworkAllowedBps = rapid.Int64Range(0, 20000).Draw(t, "out of network bps")
	spec.SequestrationBps = rapid.SampledFrom([]int64{0, 0, 200, 10000}).Draw(t, "sequestration")
	spec.Coordination = rapid.SampledFrom([]Coordination{"", StandardCoordination, CarveOut}).Draw(t, "coordination")
	spec.PriorAuthorizationProcedures = rapid.SliceOfN(rapid.SampledFrom([]string{"99213", "45378-45378", "97000-97799", "97110-97140", "V5261"}), 0, 2).Draw(t, "list of authorisations")
	spec.ReviewAbove = rapid.SampledFrom([]money.Cents{0, 0, 900_00}).Draw(t, "review above")
	for i := range spec.Benefits {
		b := &spec.Benefits[i]
		b.CopayIn, b.CopayOut = rapid.SampledFrom([]money.Cents{0, 0, 25_00}).Draw(t, "copay"), cents(t, 90_00, "copay out")
		b.DeductibleWaived, b.UseCoinsurance = rapid.Bool().Draw(t, "waived"), rapid.Bool().Draw(t, "own coinsurance")
		b.CoinsuranceInBps, b.CoinsuranceOutBps = bps(t, "coinsurance"), bps(t, "coinsurance out")
		b.VisitsPerYear = rapid.Int64Range(0, 3).Draw(t, "visits")
		b.DollarsPerYear, b.LifetimeDollars = cents(t, 900_00, "dollars"), cents(t, 1500_00, "lifetime")
	}
	for i, when := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		`line.procedure == "85025" && line.charge_cents > 60000`,
		`claim.line_count > 4`,
		`1 / (claim.line_count - 3) > 5`,
		`line.modifiers.exists(m, m in ["LT", "RT"])`,
		`line.service_date < "2026-03-09" && !line.emergency`,
	}), 0, 3, rapid.ID[string]).Draw(t, "rules") {
		spec.Rules = append(spec.Rules, PlanRuleSpec{
			ID: "r" + itoa(i), Clause: "As the plan says.", When: when, Pend: rapid.Bool().Draw(t, "rule pends"),
			Group: rapid.SampledFrom([]string{"CO", "PR"}).Draw(t, "rule group"), CARC: "96", RARC: "N130",
		})
	}
	return spec
}

// drawEdits pairs and limits the generator's procedures at random.
func drawEdits(t *rapid.T) []*Edits {
	b := NewEdits("edits@1", Period{Start: 1})
	for range rapid.IntRange(0, 6).Draw(t, "pairs") {
		p := Pair{
			Setting: rapid.SampledFrom([]Setting{Practitioner, OutpatientHospital}).Draw(t, "setting"), Period: Period{Start: on("2026-03-08"), End: on("2026-03-12")},
			Column1: rapid.SampledFrom(procedures).Draw(t, "first"), Column2: rapid.SampledFrom(procedures).Draw(t, "second"),
			Indicator: rapid.SampledFrom([]PairIndicator{PairNever, PairModifier, PairDeleted}).Draw(t, "indicator"),
			Reason:    rapid.SampledFrom([]PairReason{PairIncompatible, PairComponent, PairExclusive}).Draw(t, "reason"),
		}
		_ = b.Pair(p) // of a procedure with itself, or of none: refused
	}
	for range rapid.IntRange(0, 4).Draw(t, "limits") {
		_ = b.Limit(UnitLimit{
			Setting: Practitioner, Procedure: rapid.SampledFrom(procedures).Draw(t, "limited"), Units: rapid.Int64Range(0, 4).Draw(t, "most"),
			Indicator: rapid.SampledFrom([]LimitIndicator{LimitLine, LimitDayAbsolute, LimitDayAppealable}).Draw(t, "how"),
		})
	}
	e, err := b.Compile()
	if err != nil {
		return nil // a pair twice
	}
	return []*Edits{e}
}

// drawStay turns the claim into an institutional one, sound but for what is
// drawn, priced by rates at times.
func drawStay(t *rapid.T, in *Input) {
	c := &in.Claim
	lines := slices.Clone(c.Lines)
	for i := range lines {
		lines[i].RevenueCode = rapid.SampledFrom([]string{"0120", "0250", "360", "0450", ""}).Draw(t, "revenue")
		lines[i].Noncovered = rapid.SampledFrom([]money.Cents{0, 0, 1, lines[i].Charge}).Draw(t, "not covered")
		if lines[i].RevenueCode == "0120" {
			lines[i].Procedure = ""
		}
	}
	hospitalise(in, lines...)
	c.StatementFrom, c.StatementThrough = on("2026-03-07"), on("2026-03-13")
	c.TypeOfBill = rapid.SampledFrom([]string{"111", "131", "111", "1"}).Draw(t, "bill")
	if len(in.Contracts) == 0 {
		return
	}
	contract := *in.Contracts[0]
	for _, spec := range []FacilityRateSpec{
		{Name: "case", CaseBase: cents(t, 3000_00, "base") + 1, CaseWeights: map[string]int64{"470": rapid.Int64Range(1, 30000).Draw(t, "weight")}},
		{Name: "day", RevenueCodes: []string{"0100-0219"}, PerDiem: cents(t, 2000_00, "per diem") + 1},
		{Name: "share", RevenueCodes: []string{"0360"}, PercentOfChargeBps: rapid.Int64Range(1, whole).Draw(t, "share")},
	} {
		if rapid.Bool().Draw(t, "has rate") {
			contract.FacilityRates = append(contract.FacilityRates, mustRate(spec))
		}
	}
	in.Contracts = []*Contract{&contract}
}

func drawPrior(t *rapid.T, charge money.Cents) []PriorAdjustment {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) PriorAdjustment {
		return PriorAdjustment{rapid.SampledFrom([]string{"CO", "PR", "OA"}).Draw(t, "group"), "45", money.Cents(rapid.Int64Range(-100, int64(charge)+1).Draw(t, "amount"))}
	}), 0, 3).Draw(t, "adjustments")
}

func drawLine(t *rapid.T, number int) Line {
	l := service99213()
	l.Number = uint32(number)
	l.Procedure = rapid.SampledFrom(procedures).Draw(t, "procedure")
	l.Charge = cents(t, 1200_00, "charge")
	l.QuantityMilli = rapid.SampledFrom([]int64{1000, 1000, 2000, 6000, 1, 1500, 0}).Draw(t, "quantity")
	l.Modifiers = rapid.SliceOfN(rapid.SampledFrom([]string{"59", "25", "LT", "RT", "76", "90", "26", "TC", "x"}), 0, 2).Draw(t, "modifiers")
	l.ServiceDate = on("2026-03-10") + Date(rapid.IntRange(-3, 3).Draw(t, "day"))
	l.Emergency = seldom(t, 8, "emergency")
	if seldom(t, 3, "answered") {
		l.PriorAdjudications = []PriorAdjudication{{Paid: cents(t, int64(l.Charge)+1, "prior paid"), Adjustments: drawPrior(t, l.Charge)}}
	}
	return l
}

// drawClaim makes one claim of the family under the plan: mostly sound, with
// every fault now and then.
func drawClaim(t *rapid.T, plan *Plan) *Input {
	in := visit99213()
	in.Member.Coverage[0].Plan = plan
	if rapid.Bool().Draw(t, "it is Ben") {
		in.Member.Subject = ben
	}
	n := rapid.IntRange(1, 5).Draw(t, "lines")
	lines := make([]Line, n)
	for i := range lines {
		lines[i] = drawLine(t, i+1)
	}
	serve(in, lines...)
	in.Claim.PayerSequence = rapid.SampledFrom([]string{"P", "P", "P", "S"}).Draw(t, "sequence")
	in.Member.OtherPayerPrimary = seldom(t, 6, "other payer primary")
	if seldom(t, 5, "claim-level answer") {
		in.Claim.OtherPayers = []OtherPayer{{Adjudicated: true, Paid: cents(t, int64(in.Claim.Charge), "claim paid"), Adjustments: drawPrior(t, in.Claim.Charge)}}
	}
	if seldom(t, 4, "no contract") {
		in.Contracts = nil
	} else {
		in.Contracts[0].FeeBps = rapid.SampledFrom([]int64{0, 5000, 13333}).Draw(t, "fee bps")
	}
	in.Claim.PriorAuthorizationNumber = "PA-1"
	in.Authorizations = []Authorization{{Number: "PA-1", Subject: in.Member.Subject, Units: rapid.Int64Range(0, 8).Draw(t, "authorised")}}
	in.Review.Resolution = rapid.SampledFrom([]Resolution{Unreviewed, Approved, Approved, Refused}).Draw(t, "review")
	in.Edits = drawEdits(t)
	if seldom(t, 4, "a stay") {
		drawStay(t, in)
	}
	if seldom(t, 8, "provider died") {
		in.Providers = []ProviderRecord{{NPI: lakeside, Died: on("2026-03-11")}}
	}
	if seldom(t, 20, "wrong total") {
		in.Claim.Charge++
	}
	return in
}

// A family's year under one plan, claim after claim: every decision holds
// together, and no limit of the plan is ever passed.
func TestAFamilysYearStaysWithinEveryLimit(t *testing.T) {
	rapid.Check(t, familyYear)
}

func FuzzAFamilysYear(f *testing.F) { f.Fuzz(rapid.MakeFuzz(familyYear)) }

func familyYear(t *rapid.T) {
	spec := drawPlan(t)
	plan := mustPlan(spec)
	sums, history := Accumulators{}, []HistoryLine(nil)
	owed := map[string]money.Cents{} // copay, deductible and coinsurance by person and tier
	for range rapid.IntRange(1, 12).Draw(t, "claims") {
		in := drawClaim(t, plan)
		in.Accumulators, in.History = sums, history
		before := maps.Clone(sums)
		d := Adjudicate(in)
		sound(t, in, &d)
		if !maps.Equal(before, sums) {
			t.Fatal("the engine wrote into its input's accumulators")
		}
		if err := sums.Post(d.Postings...); err != nil {
			t.Fatal(err)
		}
		for _, l := range d.Lines {
			for _, a := range l.Adjustments {
				if c := a.CARC; a.Group == "PR" && (c == "1" || c == "2" || c == "3") {
					owed[in.Member.Subject+l.Network] += a.Amount
				}
			}
		}
		history = append(history, Remember("clm", in, &d)...)
	}
	within := func(what string, sum int64, limit money.Cents, k Key) {
		if sum < 0 || (limit > 0 && sum > int64(limit)) {
			t.Fatalf("%s: %+v holds %d, the limit is %s", what, k, sum, limit)
		}
	}
	counted := map[string]money.Cents{}
	for k, sum := range sums {
		share := &spec.InNetwork
		if k.Network == OutOfNetwork {
			share = spec.OutOfNetwork
		}
		switch {
		case k.Kind == OutOfPocket && k.Scope == Individual:
			within("cap", sum, share.OutOfPocketIndividual, k)
			counted[k.Subject+k.Network.String()] += money.Cents(sum)
		case k.Kind == OutOfPocket:
			within("family cap", sum, share.OutOfPocketFamily, k)
		case k.Kind == Deductible && k.Scope == Family:
			within("family deductible", sum, share.DeductibleFamily, k)
		case k.Kind == Deductible && !(share.AggregateDeductible && share.DeductibleFamily > 0):
			within("deductible", sum, share.DeductibleIndividual, k)
		case k.Kind >= Visits:
			b := spec.Benefits[slices.IndexFunc(spec.Benefits, func(b Benefit) bool { return b.Name == k.Benefit })]
			limit := map[Kind]money.Cents{Visits: money.Cents(b.VisitsPerYear), Dollars: b.DollarsPerYear, Lifetime: b.LifetimeDollars}[k.Kind]
			within("benefit limit", sum, limit, k)
		}
	}
	for who, sum := range owed {
		if counted[who] != sum {
			t.Fatalf("%s: out of pocket counts %s, but %s was owed", who, counted[who], sum)
		}
	}
}

func TestTheSameInputGivesTheSameDecision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawClaim(t, mustPlan(drawPlan(t)))
		in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Procedure = rapid.SampledFrom(procedures).Draw(t, "earlier") })}
		read := func() string {
			b, err := json.Marshal([]any{in.Claim, in.History, in.Authorizations, in.Review, in.Versions})
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		before, first := read(), Adjudicate(in)
		for range 3 {
			if again := Adjudicate(in); !reflect.DeepEqual(first, again) {
				t.Fatalf("first\n%s\nthen\n%s", first.Explain(), again.Explain())
			}
		}
		if read() != before {
			t.Fatal("the engine wrote into its input")
		}
	})
}

// After other payers this plan pays no more than the patient owed, no more
// than it would have paid alone, and leaves the patient no more than was owed.
func TestASecondaryPayerPaysNoMoreThanThePatientOwed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := drawPlan(t)
		in := drawClaim(t, mustPlan(spec))
		in.Review = Review{Resolution: Approved}
		in.Claim.PayerSequence, in.Member.OtherPayerPrimary = "P", false
		alone := Adjudicate(in)
		in.Claim.PayerSequence = rapid.SampledFrom([]string{"S", "T"}).Draw(t, "sequence")
		owed := make([]money.Cents, len(in.Claim.Lines))
		var prior money.Cents
		for i := range in.Claim.Lines {
			l := &in.Claim.Lines[i]
			left := cents(t, int64(l.Charge), "left")
			paid := cents(t, int64(l.Charge-left), "paid")
			l.PriorAdjudications = []PriorAdjudication{{Paid: paid, Adjustments: []PriorAdjustment{{"CO", "45", l.Charge - left - paid}, {"PR", "2", left}}}}
			owed[i], prior = left, prior+paid
		}
		second := Adjudicate(in)
		sound(t, in, &second)
		if alone.Status == Pended || second.Status == Pended {
			return
		}
		for i, l := range second.Lines {
			if l.Denied {
				continue
			}
			if l.Paid > owed[i] || l.Patient > owed[i] || l.Paid+l.Patient > owed[i] {
				t.Fatalf("line %d: the patient owed %s, the plan pays %s and leaves %s:\n%s", l.Number, owed[i], l.Paid, l.Patient, second.Explain())
			}
		}
		// Line by line they may differ, because what the patient is spared
		// reaches the out-of-pocket cap later; a single line may not.
		if len(second.Lines) == 1 && second.Paid > alone.Paid {
			t.Fatalf("pays %s, alone %s:\n%s", second.Paid, alone.Paid, second.Explain())
		}
		// Carved out, the plan pays what those before it left of what it would
		// have paid alone, as far as the patient owes it.
		if len(second.Lines) == 1 && spec.Coordination == CarveOut && spec.SequestrationBps == 0 && second.Paid != min(max(alone.Paid-prior, 0), owed[0]) {
			t.Fatalf("pays %s after %s, alone %s:\n%s", second.Paid, prior, alone.Paid, second.Explain())
		}
	})
}

// A claim twice: whatever was allowed the first time is a duplicate the
// second time or waits for a person; it is never allowed again.
func TestNothingIsAllowedTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawClaim(t, mustPlan(drawPlan(t)))
		in.Review = Review{}
		first := Adjudicate(in)
		in.History = Remember("clm_first", in, &first)
		in.Accumulators = Accumulators{}
		if err := in.Accumulators.Post(first.Postings...); err != nil {
			t.Fatal(err)
		}
		again := Adjudicate(in)
		for i, l := range first.Lines {
			if !l.Denied && again.Status != Pended && !again.Lines[i].Denied {
				t.Fatalf("line %d is allowed twice:\n%s\n%s", l.Number, first.Explain(), again.Explain())
			}
		}
	})
}

// Postings add up whatever the order, and their negation undoes them: what a
// reversal relies on.
func TestPostingsAreReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawClaim(t, mustPlan(drawPlan(t)))
		d := Adjudicate(in)
		forward, backward := Accumulators{}, Accumulators{}
		reversed := slices.Clone(d.Postings)
		slices.Reverse(reversed)
		if forward.Post(d.Postings...) != nil || backward.Post(reversed...) != nil || !maps.Equal(forward, backward) {
			t.Fatalf("%v and %v differ", forward, backward)
		}
		for i := range reversed {
			reversed[i].Amount = -reversed[i].Amount
		}
		if err := forward.Post(reversed...); err != nil {
			t.Fatal(err)
		}
		for k, sum := range forward {
			if sum != 0 {
				t.Fatalf("a reversal leaves %d in %+v", sum, k)
			}
		}
	})
}

// Whatever is put into an Input, the engine answers and doesn't panic.
func TestNoInputPanics(t *testing.T) { rapid.Check(t, anything) }

func FuzzAdjudicate(f *testing.F) { f.Fuzz(rapid.MakeFuzz(anything)) }

func anything(t *rapid.T) {
	text := rapid.OneOf(rapid.SampledFrom(append([]string{lakeside, stranger, anna, "HC", "MJ", "PA-1", "S", "7", "23", "plan_gold", "fs_standard"}, procedures...)), rapid.String())
	number := rapid.OneOf(rapid.Int64Range(-2, 2), rapid.Int64(), rapid.SampledFrom([]int64{math.MaxInt64, math.MinInt64, int64(maxAmount), 1000}))
	date := rapid.OneOf(rapid.Int32Range(739000, 740000), rapid.Int32())
	day := func(what string) Date { return Date(date.Draw(t, what)) }
	str := func(what string) string { return text.Draw(t, what) }
	amount := func(what string) money.Cents { return money.Cents(number.Draw(t, what)) }
	few := func(what string) []string { return rapid.SliceOfN(text, 0, 3).Draw(t, what) }
	times := func(most int, what string, do func()) {
		for range rapid.IntRange(0, most).Draw(t, what) {
			do()
		}
	}

	in := visit99213()
	c := &in.Claim
	*c = Claim{
		Form: Form(rapid.Uint8().Draw(t, "form")), FrequencyCode: str("frequency"), PayerSequence: str("sequence"), PlaceOfService: str("place"),
		BillingNPI: str("billing"), RenderingNPI: str("rendering"), ReferralNumber: str("referral"), PriorAuthorizationNumber: str("authorisation"), ReceivedDate: day("received"),
	}
	times(3, "diagnoses", func() { c.Diagnoses = append(c.Diagnoses, Diagnosis{str("diagnosis"), str("qualifier")}) })
	adjustments := func() (out []PriorAdjustment) {
		times(2, "adjustments", func() { out = append(out, PriorAdjustment{str("group"), str("carc"), amount("amount")}) })
		return out
	}
	times(4, "lines", func() {
		l := Line{
			Number: rapid.Uint32().Draw(t, "number"), ProcedureQualifier: str("qualifier"), Procedure: str("procedure"), Modifiers: few("modifiers"), Charge: amount("charge"),
			UnitCode: str("unit"), QuantityMilli: number.Draw(t, "quantity"), PlaceOfService: str("place"), DiagnosisPointers: rapid.SliceOfN(rapid.Uint32(), 0, 3).Draw(t, "pointers"),
			Emergency: rapid.Bool().Draw(t, "emergency"), ServiceDate: day("date"), ServiceEndDate: day("end"), RevenueCode: str("revenue"),
		}
		times(2, "answers", func() {
			l.PriorAdjudications = append(l.PriorAdjudications, PriorAdjudication{Paid: amount("paid"), Adjustments: adjustments()})
		})
		c.Lines = append(c.Lines, l)
		c.Charge = plus(c.Charge, l.Charge)
	})
	times(2, "payers", func() {
		c.OtherPayers = append(c.OtherPayers, OtherPayer{Adjudicated: rapid.Bool().Draw(t, "adjudicated"), Paid: amount("paid"), Adjustments: adjustments()})
	})
	m := &in.Member
	m.Match, m.Subject = Match(rapid.Uint8Range(0, 5).Draw(t, "match")), str("subject")
	times(2, "coverage", func() {
		m.Coverage = append(m.Coverage, Coverage{Period: Period{day("start"), day("end")}, YearStart: day("year start"), Plan: rapid.SampledFrom([]*Plan{nil, m.Coverage[0].Plan}).Draw(t, "plan")})
	})
	times(2, "contracts", func() {
		in.Contracts = append(in.Contracts, nil, &Contract{Period: Period{day("start"), day("end")}, FeeScheduleID: str("schedule"), FeeBps: number.Draw(t, "bps")})
	})
	in.FeeSchedules = append(in.FeeSchedules, nil)
	times(3, "history", func() {
		in.History = append(in.History, HistoryLine{
			Subject: str("subject"), ServiceDate: day("date"), ServiceEndDate: day("end"), Procedure: str("procedure"), Modifiers: few("modifiers"),
			QuantityMilli: number.Draw(t, "quantity"), Charge: amount("charge"), Allowed: true, AllowedQuantityMilli: number.Draw(t, "allowed"),
		})
	})
	times(2, "authorisations", func() {
		in.Authorizations = append(in.Authorizations, Authorization{
			Number: str("number"), Subject: str("subject"), Procedures: few("procedures"), Units: number.Draw(t, "units"), Period: Period{day("start"), day("end")}, UsedMilli: number.Draw(t, "used"),
		})
	})
	times(2, "providers", func() {
		in.Providers = append(in.Providers, ProviderRecord{NPI: str("npi"), Unknown: rapid.Bool().Draw(t, "unknown"), Certified: []Period{{day("start"), day("end")}}})
	})
	in.Review.Resolution = Resolution(rapid.Uint8().Draw(t, "resolution"))
	times(2, "reasons", func() { in.Review.Reasons = append(in.Review.Reasons, PendReason{RuleID: str("rule")}) })
	for _, k := range []Kind{Deductible, OutOfPocket} {
		in.Accumulators[Key{Scope: Individual, Kind: k, Network: InNetwork, PlanYear: on("2026-01-01"), Subject: m.Subject}] = number.Draw(t, "sum")
	}

	d := Adjudicate(in)
	_ = d.Explain()
	Remember("clm", in, &d)
	for _, l := range c.Lines {
		if l.Charge < 0 || l.Charge > maxAmount {
			return // beyond the protos' bounds only the absence of a panic is promised
		}
	}
	sound(t, in, &d)
}
