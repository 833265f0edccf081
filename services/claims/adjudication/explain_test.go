package adjudication

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/probity-health/probity/services/money"
)

var update = flag.Bool("update", false, "write the golden explanations anew; read them before committing")

// The golden files are explanations of whole claims, checked by hand: what a
// provider's office, an appeal or an auditor reads.
func TestExplanations(t *testing.T) {
	for name, given := range map[string]func(*Input){
		"clean-visit": func(*Input) {},
		"day-surgery": func(in *Input) {
			met(in, Deductible, InNetwork, 380_00, 860_00)
			met(in, OutOfPocket, InNetwork, 2750_00, 4100_00)
			serve(in, given("45378", 1200_00, 1), given("11402", 450_00, 1), given("80053", 35_00, 1), given("85025", 40_00, 1))
		},
		"mixed-outcomes": func(in *Input) {
			serve(in, given("99396", 250_00, 1), given("15781", 900_00, 1), given("97110", 300_00, 6), given("80053", 20_00, 1), given("80053", 20_00, 1), given("70551", 700_00, 1))
		},
		"out-of-network": func(in *Input) {
			in.Contracts = nil
			serve(in, given("99214", 260_00, 1), given("80053", 40_00, 1))
		},
		"secondary": func(in *Input) {
			in.Member.OtherPayerPrimary, in.Claim.PayerSequence = true, "S"
			serve(in, given("45378", 1000_00, 1), given("80053", 30_00, 1))
			in.Claim.Lines[0].PriorAdjudications = []PriorAdjudication{{PayerID: "OTHER", Paid: 560_00, Adjustments: []PriorAdjustment{{"CO", "45", 300_00}, {"PR", "2", 140_00}}}}
			in.Claim.Lines[1].PriorAdjudications = []PriorAdjudication{{PayerID: "OTHER", Adjustments: []PriorAdjustment{{"PR", "96", 30_00}}}}
		},
		"limits": func(in *Input) {
			in.Accumulators[Key{Scope: Individual, Kind: Visits, Network: AllNetworks, PlanYear: on("2026-01-01"), Subject: anna, Benefit: "therapy"}] = 2
			serve(in, given("97110", 40_00, 1), given("V5261", 1500_00, 1))
		},
		"terminated":    func(in *Input) { in.Member.Coverage[0].Period.End = on("2026-02-28") },
		"late":          func(in *Input) { in.Claim.ReceivedDate = on("2026-09-30") },
		"duplicate":     func(in *Input) { in.History = []HistoryLine{earlier(func(*HistoryLine) {})} },
		"authorisation": func(in *Input) { serve(in, given("70551", 900_00, 1)) },
		"pended": func(in *Input) {
			serve(in, given("50360", 30_000_00, 1), given("95810", 900_00, 1))
		},
		"sequestered": func(in *Input) {
			replan(in, func(p *PlanSpec) { p.SequestrationBps = 200 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := visit99213()
			given(in)
			d := Adjudicate(in)
			sound(t, in, &d)
			got := d.Explain()
			path := filepath.Join("testdata", "explanations", name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestAnExplanationHoldsNoHealthData(t *testing.T) {
	in := visit99213()
	serve(in, given("45378", 1200_00, 1, "59"), given("70551", 450_00, 1), given("G0108", 50_00, 1))
	in.Claim.Diagnoses[0].Code = "J069"
	in.Versions.Coverage = "member-sub_opaque@1"
	d := Adjudicate(in)
	text := d.Explain()
	for _, secret := range []string{"45378", "70551", "G0108", "J069", anna, lakeside, "2026-03-10"} {
		if strings.Contains(text, secret) {
			t.Errorf("the explanation names %s:\n%s", secret, text)
		}
	}
}

func TestEveryFactNamesItsUnit(t *testing.T) {
	for _, f := range []struct {
		fact Fact
		want string
	}{
		{Fact{"coverage_end_date", int64(on("2026-02-28"))}, "2026-02-28"},
		{Fact{"fee_cents", 12000}, "12000"},
		{Fact{"used_visits", 2}, "2"},
	} {
		if got := f.fact.Text(); got != f.want {
			t.Errorf("%s reads %q, want %q", f.fact.Key, got, f.want)
		}
	}
}

// fourLines is the benchmark's claim: an ordinary clinic visit with three
// tests, halfway through a family's year, under a plan with rules of its own
// and reference edits of a size like CMS's.
func fourLines() *Input {
	in := visit99213()
	met(in, Deductible, InNetwork, 480_00, 700_00)
	met(in, OutOfPocket, InNetwork, 900_00, 1500_00)
	serve(in, given("99213", 180_00, 1, "25"), given("80053", 35_00, 1), given("85025", 30_00, 1), given("11402", 450_00, 1))
	for i := range 40 {
		in.History = append(in.History, earlier(func(h *HistoryLine) { h.ServiceDate -= Date(i + 1) }))
	}
	replan(in, func(p *PlanSpec) {
		p.Rules = []PlanRuleSpec{
			ruleOf(`line.units_milli > 20000`, func(s *PlanRuleSpec) { s.ID, s.Pend = "many_units", true }),
			ruleOf(`line.procedure == "80053" && line.units_milli > 1000`, func(s *PlanRuleSpec) { s.ID = "one_panel" }),
			ruleOf(`claim.form == "professional" && claim.diagnoses.exists(d, d.startsWith("Z41"))`, func(s *PlanRuleSpec) { s.ID = "no_ritual"; s.Benefits = []string{"surgery"} }),
			ruleOf(`coverage.days < 90 && line.network == "in"`, func(s *PlanRuleSpec) { s.ID = "waiting"; s.Benefits = []string{"surgery", "hearing"} }),
		}
	})
	in.Edits = []*Edits{manyEdits()}
	return in
}

// manyEdits are half a million pairs and ten thousand unit limits, those of
// the benchmark's procedures among them.
var manyEdits = sync.OnceValue(func() *Edits {
	b := NewEdits("edits_2026q1@1", Period{Start: on("2026-01-01")})
	add := func(p Pair) {
		if err := b.Pair(p); err != nil {
			panic(err)
		}
	}
	for first := range 5000 {
		for second := range 100 {
			add(pairOf(fmt.Sprintf("%05d", 10000+first*15), fmt.Sprintf("%05d", 10007+(first*7+second*13)%5900*15), PairModifier, PairIncompatible))
		}
	}
	add(pairOf("11402", "85027", PairNever, PairComponent))
	add(pairOf("99213", "36415", PairModifier, PairComponent))
	for i := range 10_000 {
		if err := b.Limit(UnitLimit{Setting: Practitioner, Procedure: fmt.Sprintf("%05d", 10000+i*9), Units: 2, Indicator: LimitDayAppealable}); err != nil {
			panic(err)
		}
	}
	for _, procedure := range []string{"80053", "11402"} {
		if err := b.Limit(UnitLimit{Setting: Practitioner, Procedure: procedure, Units: 1, Indicator: LimitDayAppealable}); err != nil {
			panic(err)
		}
	}
	e, err := b.Compile()
	if err != nil {
		panic(err)
	}
	return e
})

func BenchmarkAdjudicateFourLines(b *testing.B) {
	in := fourLines()
	b.ReportAllocs()
	for b.Loop() {
		if d := Adjudicate(in); d.Status != Paid {
			b.Fatal(d.Explain())
		}
	}
}

func BenchmarkAdjudicateDenied(b *testing.B) {
	in := fourLines()
	in.Member.Match = MatchNone
	b.ReportAllocs()
	for b.Loop() {
		if d := Adjudicate(in); d.Status != Denied {
			b.Fatal(d.Explain())
		}
	}
}

// The largest claim of a family with a long history: work grows with the
// square of the lines, so it has a bound here.
func BenchmarkAdjudicateLargestClaim(b *testing.B) {
	in := fourLines()
	lines := make([]Line, maxLines)
	for i := range lines {
		lines[i] = given([]string{"80053", "85025", "11402", "45378"}[i%4], 100_00+money.Cents(i), 1)
		lines[i].ServiceDate -= Date(i % 30)
	}
	serve(in, lines...)
	for i := range 2000 {
		in.History = append(in.History, earlier(func(h *HistoryLine) { h.ServiceDate -= Date(i % 60); h.Procedure = "85027" }))
	}
	in.Review.Resolution = Approved
	b.ReportAllocs()
	for b.Loop() {
		Adjudicate(in)
	}
}

func TestAFourLineClaimAllocatesLittle(t *testing.T) {
	in := fourLines()
	if n := testing.AllocsPerRun(100, func() { Adjudicate(in) }); n > 20 {
		t.Errorf("%v allocations a claim", n)
	}
}
