package codes

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/fixtures"
)

func published(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(fixtures.Dir(t, "codes/"+name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list := map[string]string{}
	for in := bufio.NewScanner(f); in.Scan(); {
		code, text, _ := strings.Cut(strings.TrimSpace(in.Text()), "\t")
		list[code] = text
	}
	if len(list) < 40 {
		t.Fatalf("%s holds only %d codes", name, len(list))
	}
	return list
}

func TestEveryCodeIsAPublishedOne(t *testing.T) {
	for _, c := range []struct {
		file  string
		table map[string]string
	}{
		{"carc.tsv", carcs},
		{"rarc.tsv", rarcs},
		{"place-of-service.tsv", places},
		{"claim-status-category.tsv", categories},
		{"claim-status.tsv", statuses},
	} {
		list := published(t, c.file)
		for code := range c.table {
			if _, ok := list[code]; !ok {
				t.Errorf("%s: %q isn't in the published list", c.file, code)
			}
		}
	}
}

func TestTextsAreOurOwnWords(t *testing.T) {
	for code, theirs := range published(t, "carc.tsv") {
		ours, used := CARC(code)
		if used && strings.EqualFold(strings.TrimSuffix(theirs, "."), ours) {
			t.Errorf("CARC %s repeats the publisher's text", code)
		}
		if len(ours) > 80 {
			t.Errorf("CARC %s: the text isn't short", code)
		}
	}
}

func TestPlacesOfServiceAreComplete(t *testing.T) {
	for code := range published(t, "place-of-service.tsv") {
		if _, ok := PlaceOfService(code); !ok {
			t.Errorf("place of service %s is missing: a claim with it would be denied", code)
		}
	}
	if text, ok := PlaceOfService("00"); ok {
		t.Errorf("place of service 00 is %q", text)
	}
}

func TestLookupsSayWhenACodeIsUnknown(t *testing.T) {
	for name, look := range map[string]func(string) (string, bool){
		"CARC": CARC, "RARC": RARC, "PlaceOfService": PlaceOfService,
		"StatusCategory": StatusCategory, "Status": Status, "Group": Group,
	} {
		if text, ok := look("no such"); ok || text != "" {
			t.Errorf("%s knows a code that doesn't exist: %q", name, text)
		}
	}
	if text, ok := Group("PR"); !ok || text == "" {
		t.Error("group PR has no text")
	}
}

func TestAnNPIHasOneRightCheckDigit(t *testing.T) {
	for npi, want := range map[string]bool{
		"1234567893": true, "1234567890": false,
		"2234567891": true,
		// Right check digits, but no NPI begins so.
		"0234567895": false, "3234567899": false,
		"": false, "123456789": false, "12345678934": false, "12345678a3": false,
	} {
		if got := ValidNPI(npi); got != want {
			t.Errorf("ValidNPI(%q) = %t", npi, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		stem := rapid.StringMatching(`[12][0-9]{8}`).Draw(t, "stem")
		valid := 0
		for d := range 10 {
			npi := stem + string(rune('0'+d))
			if ValidNPI(npi) {
				valid++
				// Luhn finds every single wrong digit.
				i := rapid.IntRange(1, 9).Draw(t, "place")
				wrong := byte('0' + (int(npi[i]-'0')+rapid.IntRange(1, 9).Draw(t, "shift"))%10)
				if damaged := npi[:i] + string(wrong) + npi[i+1:]; ValidNPI(damaged) {
					t.Fatalf("%s and %s are both valid", npi, damaged)
				}
			}
		}
		if valid != 1 {
			t.Fatalf("stem %s has %d check digits", stem, valid)
		}
	})
}

func TestShapes(t *testing.T) {
	check := func(what string, f func(string) bool, good, bad []string) {
		t.Helper()
		for _, s := range good {
			if !f(s) {
				t.Errorf("%s refuses %q", what, s)
			}
		}
		for _, s := range bad {
			if f(s) {
				t.Errorf("%s accepts %q", what, s)
			}
		}
	}
	check("procedure", ValidProcedure,
		[]string{"99213", "0075T", "1036F", "0001U", "0002M", "J0120", "V2020", "A0425", "D0120"},
		[]string{"", "9921", "992133", "W1234", "99A13", "0075X", "j0120", "ABCDE", "J012T", "９9213"})
	check("modifier", ValidModifier, []string{"25", "LT", "F1", "XE"}, []string{"", "2", "255", "lt", "2-"})
	check("revenue code", ValidRevenueCode, []string{"0450", "450"}, []string{"", "45", "04500", "04A0"})
	icd10 := func(s string) bool { return ValidDiagnosis(s, ICD10CM) }
	check("ICD-10-CM", icd10, []string{"E119", "U071", "C4A0", "S72001A", "Z0000", "O9A2", "I10"},
		[]string{"", "25000", "E1", "e119", "E1.19", "EA19", "E1C9", "S72001AAA"})
	icd9 := func(s string) bool { return ValidDiagnosis(s, ICD9CM) }
	check("ICD-9-CM", icd9, []string{"250", "25000", "V7231", "V70", "E8490", "E849"},
		[]string{"", "25", "250000", "V", "E84", "I10", "V72312"})
	check("no edition", func(s string) bool { return ValidDiagnosis(s, 0) }, nil, []string{"E119", "25000"})
}

func TestQualifiersNameTheirEdition(t *testing.T) {
	for q, want := range map[string]Edition{"ABK": ICD10CM, "ABF": ICD10CM, "BK": ICD9CM, "BF": ICD9CM, "": 0, "ZZ": 0} {
		if got, ok := EditionOfQualifier(q); got != want || ok != (want != 0) {
			t.Errorf("qualifier %q names edition %d, %t", q, got, ok)
		}
	}
}

func TestARepeatIsAlsoASeparateService(t *testing.T) {
	for _, m := range []string{"76", "77", "91", "59", "XE", "XP", "XS", "XU"} {
		if !RepeatService(m) || !SeparateService(m) {
			t.Errorf("modifier %s doesn't set a service apart", m)
		}
	}
	for _, m := range []string{"LT", "RT", "50", "26", "TC", "FA", "T9"} {
		if RepeatService(m) || !SeparateService(m) {
			t.Errorf("modifier %s is a side or a half, not a repeat", m)
		}
	}
	if SeparateService("25") || SeparateService("") {
		t.Error("modifier 25 doesn't make a second service")
	}
}

func TestPromptPayClocks(t *testing.T) {
	for _, c := range []struct {
		state             string
		electronic, paper int
	}{
		{"", 30, 30}, {"ZZ", 30, 30}, {"CA", 30, 30},
		{"GA", 15, 30}, {"FL", 20, 40}, {"NY", 30, 45}, {"TX", 30, 45},
	} {
		if e, p := PromptPayDays(c.state, true), PromptPayDays(c.state, false); e != c.electronic || p != c.paper {
			t.Errorf("%q: %d/%d days, want %d/%d", c.state, e, p, c.electronic, c.paper)
		}
	}
	for _, state := range PromptPayStates() {
		r := PromptPay(state)
		if r.Electronic > r.Paper || r.Electronic < 10 || r.Paper > 60 || r.InterestBps < 0 || r.InterestBps > 2400 || r.Source == "" {
			t.Errorf("%s: %v is no rule", state, r)
		}
	}
	if !PromptPay("OH").Pauses || PromptPay("TX").Pauses {
		t.Error("Ohio leaves out the days of waiting, Texas begins anew")
	}
}
