package adjudication

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/money"
)

// editsWorld is a small set of edits in the shape of CMS's tables; the pairs
// are this project's own.
func editsWorld(rows ...any) *Edits {
	b := NewEdits("edits_2026q1@1", Period{on("2026-01-01"), on("2026-12-31")})
	for _, row := range rows {
		var err error
		switch row := row.(type) {
		case Pair:
			err = b.Pair(row)
		case UnitLimit:
			err = b.Limit(row)
		}
		if err != nil {
			panic(err)
		}
	}
	e, err := b.Compile()
	if err != nil {
		panic(err)
	}
	return e
}

func pairOf(first, second string, indicator PairIndicator, reason PairReason) Pair {
	return Pair{Setting: Practitioner, Column1: first, Column2: second, Period: Period{Start: on("2020-01-01")}, Indicator: indicator, Reason: reason}
}

func TestPairs(t *testing.T) {
	// A colonoscopy (45378, 800.00 allowed) and the removal of a lesion (11402,
	// 300.00): the deductible is met, so each pays 80 %.
	both := func(indicator PairIndicator, reason PairReason, change func(*Input)) func(*Input) {
		return func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			replan(in, func(p *PlanSpec) { p.MultipleProcedureBps = 0 })
			serve(in, given("45378", 800_00, 1), given("11402", 300_00, 1))
			in.Edits = []*Edits{editsWorld(pairOf("45378", "11402", indicator, reason))}
			change(in)
		}
	}
	unchanged := func(*Input) {}
	second := func(modifiers ...string) func(*Input) {
		return func(in *Input) { in.Claim.Lines[1].Modifiers = modifiers }
	}
	const paidBoth = "paid\n1 pays 640.00, PR-2 160.00 share.coinsurance\n2 pays 240.00, PR-2 60.00 share.coinsurance"
	denied := func(codes, rule string) string {
		return "paid\n1 pays 640.00, PR-2 160.00 share.coinsurance\n2 denied, CO-" + codes + " 300.00 pair." + rule
	}
	tell(t, []story{
		{"never together", both(PairNever, PairIncompatible, unchanged), denied("236", "incompatible")},
		{"a part of the other", both(PairNever, PairComponent, unchanged), denied("97 M15", "component")},
		{"the two exclude each other", both(PairNever, PairExclusive, unchanged), denied("231", "exclusive")},
		{"never means never: a modifier doesn't open it", both(PairNever, PairIncompatible, second("59")), denied("236", "incompatible")},
		{"indicator 1 without a modifier", both(PairModifier, PairIncompatible, unchanged), denied("236", "incompatible")},
		{"indicator 1, distinct service", both(PairModifier, PairIncompatible, second("59")), paidBoth},
		{"indicator 1, separate encounter", both(PairModifier, PairIncompatible, second("XE")), paidBoth},
		{"indicator 1, separate structure", both(PairModifier, PairIncompatible, second("XS")), paidBoth},
		{"indicator 1, separate practitioner", both(PairModifier, PairIncompatible, second("XP")), paidBoth},
		{"indicator 1, unusual non-overlapping", both(PairModifier, PairIncompatible, second("XU")), paidBoth},
		{"indicator 1, the modifier on the first procedure", both(PairModifier, PairIncompatible, func(in *Input) { in.Claim.Lines[0].Modifiers = []string{"59"} }), paidBoth},
		{"indicator 1, another modifier", both(PairModifier, PairIncompatible, second("GA")), denied("236", "incompatible")},
		{"indicator 1, one side each", both(PairModifier, PairIncompatible, func(in *Input) {
			in.Claim.Lines[0].Modifiers, in.Claim.Lines[1].Modifiers = []string{"LT"}, []string{"RT"}
		}), paidBoth},
		{"indicator 1, the same side isn't apart", both(PairModifier, PairIncompatible, func(in *Input) {
			in.Claim.Lines[0].Modifiers, in.Claim.Lines[1].Modifiers = []string{"LT"}, []string{"LT"}
		}), denied("236", "incompatible")},
		{"indicator 9 is no edit", both(PairDeleted, PairIncompatible, unchanged), paidBoth},
		{"the order of the lines doesn't matter", both(PairNever, PairIncompatible, func(in *Input) {
			serve(in, given("11402", 300_00, 1), given("45378", 800_00, 1))
		}), "paid\n1 denied, CO-236 300.00 pair.incompatible\n2 pays 640.00, PR-2 160.00 share.coinsurance"},
		{"another day", both(PairNever, PairIncompatible, func(in *Input) { in.Claim.Lines[1].ServiceDate = on("2026-03-11") }), paidBoth},
		{"another clinician", both(PairNever, PairIncompatible, func(in *Input) { in.Claim.Lines[1].RenderingNPI = stranger }), paidBoth},
		{"a first procedure that is denied itself takes nothing with it", both(PairNever, PairIncompatible, func(in *Input) {
			in.Edits = []*Edits{editsWorld(pairOf("45378", "11402", PairNever, PairIncompatible),
				UnitLimit{Setting: Practitioner, Procedure: "45378", Units: 1, Indicator: LimitLine})}
			in.Claim.Lines[0].QuantityMilli = 2000
		}), "paid\n1 denied, CO-151 N362 800.00 units.line\n2 pays 240.00, PR-2 60.00 share.coinsurance"},
		{"edits of another year don't govern", both(PairNever, PairIncompatible, func(in *Input) {
			b := NewEdits("edits_2025q1@1", Period{on("2025-01-01"), on("2025-12-31")})
			if err := b.Pair(pairOf("45378", "11402", PairNever, PairIncompatible)); err != nil {
				panic(err)
			}
			old, err := b.Compile()
			if err != nil {
				panic(err)
			}
			in.Edits = []*Edits{nil, old}
		}), paidBoth},
		{"a hospital's tables are its own", both(PairNever, PairIncompatible, func(in *Input) {
			hospital := pairOf("45378", "11402", PairNever, PairIncompatible)
			hospital.Setting = OutpatientHospital
			in.Edits = []*Edits{editsWorld(hospital)}
		}), paidBoth},
	})
}

// A chain of pairs takes all but its first, in whatever order the lines come:
// the edits are about what was reported. A table that names a pair both ways
// round costs one line.
func TestAChainOfPairsLeavesItsFirst(t *testing.T) {
	chain := func(rows []any, codes ...string) func(*Input) {
		return func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			replan(in, func(p *PlanSpec) { p.MultipleProcedureBps = 0 })
			var lines []Line
			for _, c := range codes {
				lines = append(lines, given(c, map[string]money.Cents{"45378": 800_00, "11402": 300_00, "99213": 150_00}[c], 1))
			}
			serve(in, lines...)
			in.Edits = []*Edits{editsWorld(rows...)}
		}
	}
	links := []any{pairOf("45378", "11402", PairNever, PairComponent), pairOf("11402", "99213", PairNever, PairComponent)}
	circle := []any{pairOf("45378", "11402", PairNever, PairComponent), pairOf("11402", "45378", PairNever, PairComponent)}
	tell(t, []story{
		{"from the first", chain(links, "45378", "11402", "99213"), "paid\n1 pays 640.00, PR-2 160.00 share.coinsurance\n2 denied, CO-97 M15 300.00 pair.component\n3 denied, CO-97 M15 150.00 pair.component"},
		{"from the last", chain(links, "99213", "11402", "45378"), "paid\n1 denied, CO-97 M15 150.00 pair.component\n2 denied, CO-97 M15 300.00 pair.component\n3 pays 640.00, PR-2 160.00 share.coinsurance"},
		{"the first in the midst", chain(links, "11402", "45378", "99213"), "paid\n1 denied, CO-97 M15 300.00 pair.component\n2 pays 640.00, PR-2 160.00 share.coinsurance\n3 denied, CO-97 M15 150.00 pair.component"},
		{"each the second of the other", chain(circle, "45378", "11402"), "paid\n1 pays 640.00, PR-2 160.00 share.coinsurance\n2 denied, CO-97 M15 300.00 pair.component"},
	})
}

func TestPairsAreInForceBetweenTheirDates(t *testing.T) {
	for _, s := range []struct{ from, to, note string }{
		{"2026-03-10", "", "from its first day"},
		{"2020-01-01", "2026-03-10", "on its last day"},
		{"2026-03-11", "", "not before"},
		{"2020-01-01", "2026-03-09", "not after"},
	} {
		in := visit99213()
		serve(in, given("45378", 800_00, 1), given("11402", 300_00, 1))
		pair := pairOf("45378", "11402", PairNever, PairIncompatible)
		pair.Period = Period{on(s.from), on(s.to)}
		in.Edits = []*Edits{editsWorld(pair)}
		d := Adjudicate(in)
		sound(t, in, &d)
		if want := !strings.HasPrefix(s.note, "not"); d.Lines[1].Denied != want {
			t.Errorf("%s: denied is %v:\n%s", s.note, d.Lines[1].Denied, d.Explain())
		}
	}
}

func TestPairsReachIntoHistory(t *testing.T) {
	before := func(procedure string, change func(*HistoryLine)) func(*Input) {
		return func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			in.Edits = []*Edits{editsWorld(pairOf("45378", "11402", PairModifier, PairComponent))}
			in.History = []HistoryLine{earlier(func(h *HistoryLine) { h.Procedure, h.Charge = procedure, 800_00; change(h) })}
		}
	}
	late := func(procedure string, was string, change func(*HistoryLine), modifiers ...string) func(*Input) {
		return func(in *Input) {
			before(was, change)(in)
			serve(in, given(procedure, 300_00, 1, modifiers...))
		}
	}
	unchanged := func(*HistoryLine) {}
	const paid = "paid\n1 pays 120.00, CO-59 150.00 price.multiple_procedure, PR-2 30.00 share.coinsurance"
	tell(t, []story{
		{"the part comes after the whole", late("11402", "45378", unchanged), "denied\n1 denied, CO-97 M15 300.00 pair.component"},
		{"marked as distinct", late("11402", "45378", unchanged, "59"), paid},
		{"the whole was denied", late("11402", "45378", func(h *HistoryLine) { h.Allowed = false }), "paid\n1 pays 240.00, PR-2 60.00 share.coinsurance"},
		{"the whole was another person's", late("11402", "45378", func(h *HistoryLine) { h.Subject = ben }), "paid\n1 pays 240.00, PR-2 60.00 share.coinsurance"},
		{"the whole was another provider's", late("11402", "45378", func(h *HistoryLine) { h.BillingNPI = stranger }), "paid\n1 pays 240.00, PR-2 60.00 share.coinsurance"},
		{"the whole comes after its part was paid: a person decides", late("45378", "11402", unchanged), "pended\n1 signal.unbundled 97 M15"},
	})
	in := visit99213()
	late("45378", "11402", unchanged)(in)
	if d := Adjudicate(in); len(d.PendReasons) != 1 || len(d.PendReasons[0].Related) != 1 || d.PendReasons[0].Related[0] != "clm_earlier" {
		t.Errorf("the doubt doesn't name the earlier claim: %+v", d.PendReasons)
	}
}

func TestUnitLimits(t *testing.T) {
	limit := func(indicator LimitIndicator, units int64, lines ...Line) func(*Input) {
		return func(in *Input) {
			met(in, Deductible, InNetwork, 500_00, 500_00)
			serve(in, lines...)
			in.Edits = []*Edits{editsWorld(UnitLimit{Setting: Practitioner, Procedure: "97110", Units: units, Indicator: indicator})}
		}
	}
	earlierUnits := func(milli int64) HistoryLine {
		return earlier(func(h *HistoryLine) {
			h.Procedure, h.QuantityMilli, h.AllowedQuantityMilli, h.Charge = "97110", milli, milli, 1
			h.Modifiers = []string{"76"}
		})
	}
	const fits = "paid\n1 pays 72.00, PR-2 8.00 share.coinsurance"
	tell(t, []story{
		{"a line within", limit(LimitLine, 2, given("97110", 80_00, 2)), fits},
		{"a line beyond is denied whole", limit(LimitLine, 2, given("97110", 120_00, 3)),
			"denied\n1 denied, CO-151 N362 120.00 units.line"},
		{"by line, two lines each have the limit", limit(LimitLine, 2, given("97110", 80_00, 2), given("97110", 80_00, 2, "59")),
			fits + "\n2 pays 72.00, PR-2 8.00 share.coinsurance"},
		{"by day, they share it", limit(LimitDayAbsolute, 2, given("97110", 80_00, 2), given("97110", 80_00, 2, "59")),
			"denied\n1 denied, CO-151 N362 80.00 units.day_absolute\n2 denied, CO-151 N362 80.00 units.day_absolute"},
		{"by day, appealable", limit(LimitDayAppealable, 2, given("97110", 80_00, 2), given("97110", 80_00, 2, "59")),
			"denied\n1 denied, CO-151 N362 80.00 units.day_appealable\n2 denied, CO-151 N362 80.00 units.day_appealable"},
		{"by day, another day has its own", func(in *Input) {
			limit(LimitDayAbsolute, 2, given("97110", 80_00, 2), given("97110", 80_00, 2))(in)
			in.Claim.Lines[1].ServiceDate = on("2026-03-11")
		}, fits + "\n2 pays 72.00, PR-2 8.00 share.coinsurance"},
		{"by day, what was allowed before counts", func(in *Input) {
			limit(LimitDayAbsolute, 2, given("97110", 80_00, 2))(in)
			in.History = []HistoryLine{earlierUnits(1000)}
			in.Claim.Lines[0].Modifiers = []string{"76"}
		}, "denied\n1 denied, CO-151 N362 80.00 units.day_absolute"},
		{"by day, a line billed twice counts once", limit(LimitDayAbsolute, 2, given("97110", 80_00, 2), given("97110", 80_00, 2)),
			fits + "\n2 denied, OA-18 N522 80.00 duplicate.in_claim"},
		{"a limit of none", limit(LimitDayAbsolute, 0, given("97110", 40_00, 1)),
			"denied\n1 denied, CO-151 N362 40.00 units.day_absolute"},
		{"a span's units are judged by the day", func(in *Input) {
			limit(LimitLine, 2, given("97110", 160_00, 4))(in)
			in.Claim.Lines[0].ServiceEndDate = on("2026-03-11")
		}, "paid\n1 pays 144.00, PR-2 16.00 share.coinsurance"},
		{"to the nearest unit a day", func(in *Input) {
			limit(LimitLine, 1, given("97110", 160_00, 3))(in)
			in.Claim.Lines[0].ServiceEndDate = on("2026-03-11")
		}, "denied\n1 denied, CO-151 N362 160.00 units.line"},
		{"minutes are no units", func(in *Input) {
			limit(LimitLine, 2, given("97110", 80_00, 30))(in)
			in.Claim.Lines[0].UnitCode = "MJ"
		}, fits},
		{"a supplier has its own table", func(in *Input) {
			limit(LimitLine, 2, given("97110", 120_00, 3))(in)
			in.Claim.BillingTaxonomy = "332B00000X"
		}, "paid\n1 pays 108.00, PR-2 12.00 share.coinsurance"},
	})
}

// CMS publishes pairs and unit limits apart: each may be a version of its own,
// and a decision names both.
func TestTablesMayComeApart(t *testing.T) {
	in := visit99213()
	serve(in, given("45378", 800_00, 1), given("11402", 300_00, 1), given("97110", 80_00, 2))
	limits := editsWorld(UnitLimit{Setting: Practitioner, Procedure: "97110", Units: 1, Indicator: LimitLine})
	limits.version = "mue_2026q1@2"
	in.Edits = []*Edits{editsWorld(pairOf("45378", "11402", PairNever, PairComponent)), limits}
	d := Adjudicate(in)
	sound(t, in, &d)
	if d.Lines[0].Denied || !d.Lines[1].Denied || !d.Lines[2].Denied || d.Versions.Edits != "mue_2026q1@2,edits_2026q1@1" {
		t.Error(d.Explain())
	}
}

func TestUnsoundEditsAreRefusedAndChangeNothing(t *testing.T) {
	good := pairOf("45378", "11402", PairNever, PairIncompatible)
	limit := UnitLimit{Setting: Practitioner, Procedure: "97110", Units: 2, Indicator: LimitLine}
	b := NewEdits("edits@1", Period{Start: on("2026-01-01")})
	if err := b.Pair(good); err != nil {
		t.Fatal(err)
	}
	if err := b.Limit(limit); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Pair, *UnitLimit){
		"setting":        func(p *Pair, u *UnitLimit) { p.Setting, u.Setting = 0, 0 },
		"supplier pairs": func(p *Pair, u *UnitLimit) { p.Setting, u.Setting = Supplier, 77 },
		"code":           func(p *Pair, u *UnitLimit) { p.Column1, u.Procedure = "4537", "" },
		"second code":    func(p *Pair, u *UnitLimit) { p.Column2, u.Units = "", -1 },
		"itself":         func(p *Pair, u *UnitLimit) { p.Column2, u.Units = p.Column1, MaxEditUnits+1 },
		"dates":          func(p *Pair, u *UnitLimit) { p.Period.Start, u.Indicator = 0, 0 },
		"backwards":      func(p *Pair, u *UnitLimit) { p.Period.End, u.Period = 5, Period{9, 5} },
		"indicator":      func(p *Pair, u *UnitLimit) { p.Indicator, u.Indicator = 2, 4 },
		"reason":         func(p *Pair, _ *UnitLimit) { p.Reason = 9 },
	} {
		p, u := good, limit
		u.Procedure = "97140"
		spoil(&p, &u)
		if err := b.Pair(p); err == nil {
			t.Errorf("%s: the pair is taken", name)
		}
		if u.Procedure == "97140" && u.Setting == Practitioner && u.Units == 2 && u.Indicator == LimitLine && u.Period.Start == 0 {
			continue // this case spoils only the pair
		}
		if err := b.Limit(u); err == nil {
			t.Errorf("%s: the limit is taken", name)
		}
	}
	if err := b.Limit(limit); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a limit twice on the same days: %v", err)
	}
	e, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if pairs, limits := e.Size(); pairs != 1 || limits != 1 {
		t.Errorf("%d pairs and %d limits are left", pairs, limits)
	}

	twice := NewEdits("edits@1", Period{Start: on("2026-01-01")})
	for range 2 {
		if err := twice.Pair(good); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := twice.Compile(); err == nil || !strings.Contains(err.Error(), "45378 and 11402") {
		t.Errorf("a pair twice: %v", err)
	}
	for _, b := range []*EditsBuilder{NewEdits("", Period{Start: 1}), NewEdits("e@1", Period{}), NewEdits("e@1", Period{9, 5})} {
		if _, err := b.Compile(); err == nil {
			t.Error("edits without version or days compile")
		}
	}
}

// The index finds what a search through the rows finds.
func TestTheIndexFindsEveryPair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := rapid.SampledFrom([]string{"11402", "45378", "45380", "97110", "97140", "G0108", "0001T"})
		var rows []Pair
		b := NewEdits("e@1", Period{Start: 1})
		for range rapid.IntRange(0, 30).Draw(t, "rows") {
			p := Pair{
				Setting: rapid.SampledFrom([]Setting{Practitioner, OutpatientHospital}).Draw(t, "setting"),
				Column1: code.Draw(t, "first"), Column2: code.Draw(t, "second"),
				Indicator: rapid.SampledFrom([]PairIndicator{PairNever, PairModifier, PairDeleted}).Draw(t, "indicator"),
			}
			p.Period.Start = Date(rapid.Int32Range(1, 20).Draw(t, "from"))
			p.Period.End = p.Period.Start + Date(rapid.Int32Range(0, 20).Draw(t, "days"))
			if b.Pair(p) == nil {
				rows = append(rows, p)
			}
		}
		e, err := b.Compile()
		if err != nil {
			return // overlapping rows, refused as they should
		}
		for range 20 {
			first, second, day := code.Draw(t, "first"), code.Draw(t, "second"), Date(rapid.Int32Range(1, 45).Draw(t, "day"))
			s := rapid.SampledFrom([]Setting{Practitioner, OutpatientHospital}).Draw(t, "setting")
			want := false
			for _, p := range rows {
				want = want || (p.Setting == s && p.Column1 == first && p.Column2 == second && p.Indicator != PairDeleted && p.Period.Contains(day))
			}
			one, _ := keyOf(first)
			two, _ := keyOf(second)
			if _, got := pairOn(e.column2(s, one), two, day); got != want {
				t.Fatalf("%s and %s on day %d: found %v", first, second, day, got)
			}
		}
	})
}
