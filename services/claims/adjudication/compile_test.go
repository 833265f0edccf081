package adjudication

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/money"
)

func TestUnsoundPlansDontCompile(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*PlanSpec)
		says  string
	}{
		"no version":               {func(p *PlanSpec) { p.Version = "" }, "without id or version"},
		"no time to file":          {func(p *PlanSpec) { p.TimelyFilingDays = 0 }, "timely filing"},
		"coinsurance over 100 %":   {func(p *PlanSpec) { p.InNetwork.CoinsuranceBps = 10001 }, "coinsurance"},
		"negative deductible":      {func(p *PlanSpec) { p.OutOfNetwork.DeductibleFamily = -1 }, "amount out of range"},
		"sequestration over 100 %": {func(p *PlanSpec) { p.SequestrationBps = 10001 }, "basis points"},
		"huge out-of-network":      {func(p *PlanSpec) { p.OutOfNetworkAllowedBps = 100001 }, "outOfNetworkAllowedBps"},
		"negative threshold":       {func(p *PlanSpec) { p.ReviewAbove = -1 }, "reviewAboveCents"},
		"a name twice":             {func(p *PlanSpec) { p.Benefits[1].Name = "preventive" }, "benefits[1].name"},
		"negative copay":           {func(p *PlanSpec) { p.Benefits[1].CopayIn = -1 }, "benefits.office_visit: an amount is negative"},
		"benefit's coinsurance":    {func(p *PlanSpec) { p.Benefits[1].CoinsuranceInBps = -1 }, "benefits.office_visit: coinsurance"},
		"negative visits":          {func(p *PlanSpec) { p.Benefits[1].VisitsPerYear = -1 }, "visitsPerYear"},
		"a backward range":         {func(p *PlanSpec) { p.Benefits[1].Procedures = []string{"99215-99202"} }, "runs backwards"},
		"a range of two lengths":   {func(p *PlanSpec) { p.Benefits[1].Procedures = []string{"9920-99202"} }, "different length"},
		"an unknown method":        {func(p *PlanSpec) { p.Coordination = "maintenance" }, "coordination"},
		"a backward list":          {func(p *PlanSpec) { p.PriorAuthorizationProcedures = []string{"99213", "99215-99202"} }, "priorAuthorizationProcedures: range \"99215-99202\" runs backwards"},
		"no code":                  {func(p *PlanSpec) { p.Benefits[1].RevenueCodes = []string{"-"} }, "not a code"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := goldSpec()
			c.spoil(&spec)
			if _, err := CompilePlan(spec); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("compiles with %v, want an error that says %q", err, c.says)
			}
		})
	}
}

func TestAPlanTooEntangledToReadIsRefused(t *testing.T) {
	spec := goldSpec()
	spec.Benefits = nil
	for i := range 500 {
		b := Benefit{Name: "b" + string(rune('a'+i/26)) + string(rune('a'+i%26)), Covered: true, PlacesOfService: []string{"11"}}
		for j := range 20 {
			from := 10000 + i + j*500
			b.Procedures = append(b.Procedures, codeText(itoa(from)+"-"+itoa(from+40000)))
		}
		spec.Benefits = append(spec.Benefits, b)
	}
	if _, err := CompilePlan(spec); err == nil || !strings.Contains(err.Error(), "too many pieces") {
		t.Errorf("compiles with %v", err)
	}
}

// The list of authorisations is searched; read from its first entry to its
// last it says the same, however its entries overlap.
func TestAListOfAuthorisationsIsSearchedAsItReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := rapid.StringMatching(`[AJ][0-3]{3}|[0-1]{2}[0-3]{3}|[0-1]{4}F`)
		list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			from, to := code.Draw(t, "from"), code.Draw(t, "to")
			if _, err := parseRange(from + "-" + to); err != nil {
				return from
			}
			return from + "-" + to
		}), 0, 8).Draw(t, "list")
		spec := goldSpec()
		spec.PriorAuthorizationProcedures = list
		plan := mustPlan(spec)
		asked := rapid.OneOf(code, rapid.SampledFrom([]string{"", "?", "999999"})).Draw(t, "asked")
		want := len(list) > 0 && (&Authorization{Procedures: list}).covers(asked)
		if got := plan.listsForAuthorization(asked); got != want {
			t.Fatalf("%v: %q is listed %v, want %v", list, asked, got, want)
		}
	})
}

func itoa(n int) string { return Fact{Value: int64(n)}.Text() }

func TestUnsoundFeeSchedulesDontCompile(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*FeeScheduleSpec)
		says  string
	}{
		"no id":              {func(s *FeeScheduleSpec) { s.ID = "" }, "without id"},
		"default over 100 %": {func(s *FeeScheduleSpec) { s.DefaultBpsOfCharge = 10001 }, "defaultBpsOfCharge"},
		"no code":            {func(s *FeeScheduleSpec) { s.Fees[0].Procedure = "" }, "fees[0]"},
		"priced twice":       {func(s *FeeScheduleSpec) { s.Fees[1].Procedure = s.Fees[0].Procedure }, "fees[1] prices 99213 a second time"},
		"negative":           {func(s *FeeScheduleSpec) { s.Fees[2].Amount = -1 }, "fees[2] is out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := feesSpec()
			c.spoil(&spec)
			if _, err := CompileFeeSchedule(spec); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("compiles with %v, want an error that says %q", err, c.says)
			}
		})
	}
}

// The compiled index finds what reading the document from the top finds.
func TestTheIndexFindsTheFirstBenefitThatMatches(t *testing.T) {
	code := rapid.StringMatching(`[0-3A]{4}`)
	rapid.Check(t, func(t *rapid.T) {
		spec := goldSpec()
		spec.Benefits = nil
		for i := range rapid.IntRange(1, 8).Draw(t, "benefits") {
			b := Benefit{Name: "b" + itoa(i)}
			for range rapid.IntRange(0, 4).Draw(t, "ranges") {
				from := code.Draw(t, "from")
				to := strings.Map(func(c rune) rune { // the ends of a range have the same letters
					if c == 'A' {
						return c
					}
					return rapid.SampledFrom([]rune("0123")).Draw(t, "digit")
				}, from)
				if from > to {
					from, to = to, from
				}
				if rapid.Bool().Draw(t, "single") {
					b.Procedures = append(b.Procedures, from)
				} else {
					b.Procedures = append(b.Procedures, from+"-"+to)
				}
			}
			b.PlacesOfService = rapid.SliceOfN(rapid.SampledFrom([]string{"11", "21", "23"}), 0, 2).Draw(t, "places")
			b.RevenueCodes = rapid.SliceOfN(rapid.SampledFrom([]string{"0100-0219", "0450"}), 0, 1).Draw(t, "revenue")
			spec.Benefits = append(spec.Benefits, b)
		}
		plan := mustPlan(spec)
		for range 20 {
			procedure := rapid.OneOf(code, rapid.SampledFrom([]string{"", "00000", "000000", "1"})).Draw(t, "procedure")
			place := rapid.SampledFrom([]string{"11", "21", "99"}).Draw(t, "place")
			revenue := rapid.SampledFrom([]string{"", "0120", "0450", "0900"}).Draw(t, "revenue code")
			want, got := "", ""
			for _, b := range spec.Benefits {
				if named(b.Procedures, procedure) && (len(b.PlacesOfService) == 0 || contains(b.PlacesOfService, place)) && named(b.RevenueCodes, revenue) {
					want = b.Name
					break
				}
			}
			if b := plan.benefitFor(procedure, place, revenue); b != nil {
				got = b.Name
			}
			if got != want {
				t.Fatalf("%q at %q, revenue %q: found %q, want %q in %+v", procedure, place, revenue, got, want, spec.Benefits)
			}
		}
	})
}

func named(ranges []string, code string) bool {
	for _, r := range ranges {
		from, to, ranged := strings.Cut(r, "-")
		if !ranged {
			to = from
		}
		if len(code) == len(from) && letters(code) == letters(from) && from <= code && code <= to {
			return true
		}
	}
	return len(ranges) == 0
}

// letters is a code with its digits made alike.
func letters(code string) string {
	return strings.Map(func(c rune) rune {
		if '0' <= c && c <= '9' {
			return '#'
		}
		return c
	}, code)
}

// Category II and III codes are written with a letter behind; as text 3008F
// would lie between two surgical codes.
func TestARangeHoldsOnlyCodesShapedLikeItsEnds(t *testing.T) {
	for _, c := range []struct {
		within, code string
		want         bool
	}{
		{"10004-69990", "27447", true}, {"10004-69990", "3008F", false}, {"10004-69990", "0101T", false},
		{"0001F-0010F", "0002F", true}, {"0001F-0010F", "0002U", false}, {"J0120-J9999", "J1550", true}, {"J0120-J9999", "K0001", false},
	} {
		r, err := parseRange(c.within)
		if err != nil {
			t.Fatal(err)
		}
		key, _ := rangeKeyOf(c.code)
		if r.contains(key) != c.want {
			t.Errorf("%s in %s: %v", c.code, c.within, !c.want)
		}
	}
	for _, bad := range []string{"J0120-K9999", "0001F-99999", "99213-9921", "99215-99202"} {
		if _, err := parseRange(bad); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

func TestACompiledPlanKeepsNothingOfItsDocument(t *testing.T) {
	spec := goldSpec()
	in := visit99213()
	in.Contracts = nil
	in.Member.Coverage[0].Plan = mustPlan(spec)
	before := Adjudicate(in)
	spec.OutOfNetwork.CoinsuranceBps = 10000
	for i := range spec.Benefits {
		spec.Benefits[i].CopayOut, spec.Benefits[i].Covered = 0, false
	}
	if after := Adjudicate(in); tale(&after) != tale(&before) {
		t.Errorf("a document changed after compilation changes decisions:\n%s", after.Explain())
	}
}

func TestDatesAreRealDays(t *testing.T) {
	for _, s := range []string{"2026-13-01", "2026-02-29", "2026-00-10", "2026-1-01", "0000-01-01", "20260101", "2026-01-01T00", "2026/01/01", "+026-01-01", "２026-1-1"} {
		if d, err := ParseDate(s); err == nil {
			t.Errorf("%q is read as %s", s, d)
		}
	}
	if d, err := ParseDate(""); err != nil || d != 0 || d.String() != "" {
		t.Errorf("no date: %v, %v", d, err)
	}
	if on("0001-01-01") != 1 || on("1970-01-01") != unixDay {
		t.Error("day 1 isn't 0001-01-01")
	}
	if icd10Start != on(codes.ICD10Start) || noSurprises != on("2022-01-01") {
		t.Errorf("constants: %s, %s", icd10Start, noSurprises)
	}
	rapid.Check(t, func(t *rapid.T) {
		d := Date(rapid.Int32Range(1, 3652059).Draw(t, "day")) // to 9999-12-31
		back, err := ParseDate(d.String())
		if err != nil || back != d {
			t.Fatalf("%d is %q, which reads back as %d, %v", d, d.String(), back, err)
		}
		if next := (d + 1).String(); d < 3652059 && next <= d.String() {
			t.Fatalf("%s is followed by %s", d, next)
		}
		year, month, day := d.civil()
		if DateOf(year, month, day) != d {
			t.Fatalf("%d-%d-%d isn't %d", year, month, day, d)
		}
	})
}

func FuzzParseDate(f *testing.F) {
	for _, s := range []string{"2026-11-21", "", "2024-02-29", "9999-12-31", "0000-00-00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDate(s)
		_, stdErr := time.Parse(time.DateOnly, s)
		switch {
		case err == nil && d.String() != s:
			t.Fatalf("%q reads as %s", s, d)
		case err == nil && s != "" && stdErr != nil:
			t.Fatalf("%q is accepted, package time says %v", s, stdErr)
		case err != nil && stdErr == nil && s >= "0001":
			t.Fatalf("%q is refused, package time accepts it", s)
		}
	})
}

func TestKeysAreWrittenAndReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := Key{
			Scope: Scope(rapid.IntRange(1, 2).Draw(t, "scope")), Kind: Kind(rapid.IntRange(1, 5).Draw(t, "kind")),
			Network: Network(rapid.IntRange(1, 3).Draw(t, "network")), PlanYear: Date(rapid.Int32Range(700000, 760000).Draw(t, "year")),
		}
		if k.Scope == Individual {
			k.Subject = anna
		}
		if k.Kind >= Visits {
			k.Benefit = rapid.StringMatching(`[a-z][a-z_]{0,8}`).Draw(t, "benefit")
		}
		if k.Kind == Lifetime {
			k.PlanYear = 0
		}
		back, ok := ParseKey(k.Scope.String(), k.Subject, k.KindName(), k.Network.String(), k.PlanYear.String())
		if !ok || back != k {
			t.Fatalf("%+v reads back as %+v, %t", k, back, ok)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add("individual", anna, "visits:therapy", "all", "2026-01-01")
	f.Add("family", "", "deductible", "in", "2026-01-01")
	f.Add("individual", anna, "lifetime:hearing", "all", "")
	f.Add("family", "", "deductible:x", "in", "")
	f.Fuzz(func(t *testing.T, scope, subject, kind, network, year string) {
		k, ok := ParseKey(scope, subject, kind, network, year)
		if !ok {
			if k != (Key{}) {
				t.Fatalf("refused, but gave %+v", k)
			}
			return
		}
		if k.Scope.String() != scope || k.KindName() != kind || k.Network.String() != network || k.PlanYear.String() != year {
			t.Fatalf("%q %q %q %q reads as %+v", scope, kind, network, year, k)
		}
	})
}

func TestWhatNoEngineWroteIsNoKey(t *testing.T) {
	for _, c := range [][5]string{
		{"group", "", "deductible", "in", "2026-01-01"},
		{"family", "", "deductible", "both", "2026-01-01"},
		{"family", "", "deductibles", "in", "2026-01-01"},
		{"family", "", "deductible:office_visit", "in", "2026-01-01"},
		{"individual", anna, "visits", "all", "2026-01-01"},
		{"individual", anna, "visits:", "all", "2026-01-01"},
		{"individual", anna, "visits:therapy", "all", ""},
		{"individual", anna, "lifetime:hearing", "all", "2026-01-01"},
		{"individual", anna, "visits:therapy", "all", "2026-02-30"},
	} {
		if k, ok := ParseKey(c[0], c[1], c[2], c[3], c[4]); ok {
			t.Errorf("%v is read as %+v", c, k)
		}
	}
}

func TestSumsThatOverflowAreRefused(t *testing.T) {
	k := Key{Scope: Family, Kind: Deductible, Network: InNetwork, PlanYear: 1}
	a := Accumulators{k: math.MaxInt64}
	if err := a.Post(Posting{k, 1}); !errors.Is(err, money.ErrOverflow) || a[k] != math.MaxInt64 {
		t.Errorf("%v, and the sum is %d", err, a[k])
	}
}

func TestEveryRuleHasItsCodes(t *testing.T) {
	seen := map[string]bool{}
	for i, rule := range Rules() {
		if rule.ID == "" || seen[rule.ID] || !strings.Contains(rule.ID, ".") {
			t.Errorf("rule %d: id %q is empty, used twice or names no stage", i, rule.ID)
		}
		seen[rule.ID] = true
		if _, ok := codes.Group(rule.Group); !ok {
			t.Errorf("%s: group %q", rule.ID, rule.Group)
		}
		if _, ok := codes.CARC(rule.CARC); !ok {
			t.Errorf("%s: codes has no text for CARC %q", rule.ID, rule.CARC)
		}
		if _, ok := codes.RARC(rule.RARC); rule.RARC != "" && !ok {
			t.Errorf("%s: codes has no text for RARC %q", rule.ID, rule.RARC)
		}
		// CARC 16 says that something is wrong and leaves what to the remark (X12 CARC 16).
		if rule.RARC == "" && (rule.CARC == "16" || rule.CARC == "252" || rule.CARC == "96") {
			t.Errorf("%s: CARC %s needs a remark", rule.ID, rule.CARC)
		}
	}
	if _, ok := ruleByID("no.such"); ok {
		t.Error("a rule that doesn't exist is found")
	}
}

// What would leave an accumulator below zero is refused, and then nothing of
// it is posted.
func TestPostingsAreAllOrNone(t *testing.T) {
	own := Key{Scope: Individual, Kind: Deductible, Network: InNetwork, PlanYear: 1, Subject: anna}
	family := Key{Scope: Family, Kind: Deductible, Network: InNetwork, PlanYear: 1}
	a := Accumulators{own: 100, family: 50}
	if err := a.Post(Posting{own, -100}, Posting{family, -51}); !errors.Is(err, ErrNegative) || a[own] != 100 || a[family] != 50 {
		t.Errorf("%v leaves %v", err, a)
	}
	if err := a.Post(Posting{own, 5}, Posting{family, math.MaxInt64}); !errors.Is(err, money.ErrOverflow) || a[own] != 100 || a[family] != 50 {
		t.Errorf("%v leaves %v", err, a)
	}
	if err := a.Post(Posting{family, -51}, Posting{family, 20}); err != nil || a[family] != 19 {
		t.Errorf("below zero only on the way: %v leaves %v", err, a)
	}
	below := Accumulators{own: -10}
	if err := below.Post(Posting{own, 4}); err != nil || below[own] != -6 {
		t.Errorf("mending an old wrong: %v leaves %v", err, below)
	}
}

func TestAClaimHasAtMost999Lines(t *testing.T) {
	for n, want := range map[int]string{999: "", 1000: "claim.lines"} {
		in := visit99213()
		lines := make([]Line, n)
		for i := range lines {
			lines[i] = given("80053", 1_00+money.Cents(i), 1)
		}
		serve(in, lines...)
		replan(in, func(p *PlanSpec) { p.ReviewAbove = 0 })
		d := Adjudicate(in)
		sound(t, in, &d)
		got := ""
		if len(d.Lines[n-1].Adjustments) > 0 && d.Lines[n-1].Denied {
			got = d.Lines[n-1].Adjustments[0].RuleID
		}
		if got != want {
			t.Errorf("%d lines end in %q, want %q", n, got, want)
		}
	}
}
