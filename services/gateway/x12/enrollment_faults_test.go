package x12_test

import (
	"fmt"
	"strings"
	"testing"
)

// Each fault of a member, and what its sender is told to do.
func TestEnrollmentFaultsSayWhatToDo(t *testing.T) {
	cases := []struct {
		name string
		edit func([]string) []string
	}{
		{"no subscriber number", without("REF*0F")},
		{"a number that is too long", replace("REF*0F", "REF*0F*"+strings.Repeat("9", 51))},
		{"no name", without("NM1*IL")},
		{"no last name", replace("NM1*IL", "NM1*IL*1")},
		{"a birth date that is none", replace("DMG*", "DMG*D8*19800231*F")},
		{"a birth date in another notation", replace("DMG*", "DMG*D8*02/03/1979*M")},
		{"an unknown sex", replace("DMG*", "DMG*D8*19790203*X")},
		{"an unknown relationship", replace("INS*", "INS*N*02*021*28*A")},
		{"a relationship that is no code", replace("INS*", "INS*N*SPOUSE*021*28*A")},
		{"an unknown maintenance type", replace("INS*", "INS*N*19*022*28*A")},
		{"no maintenance type", replace("INS*", "INS*N*19**28*A")},
		{"a subscriber who is a spouse", replace("INS*", "INS*Y*01*021*28*A")},
		{"a dependant who is the subscriber", replace("INS*", "INS*N*18*021*28*A")},
		{"a coverage without a date", without("DTP*348")},
		{"a range where a day is wanted", replace("DTP*348", "DTP*348*D8*20260101-20260331")},
		{"a range that ends before it begins", replace("DTP*348", "DTP*348*RD8*20260331-20260101")},
		{"an insurance line nobody has", replace("HD*", "HD*021**XXX")},
		{"an unknown coverage maintenance", replace("HD*", "HD*020**HLT")},
		{"segments in the wrong order", swap("REF*0F", "NM1*IL")},
		{"coordination without coverage", replace("HD*", "COB*P*X*1")},
		{"coordination of an unknown kind", func(s []string) []string { return append(s, "COB*P*X*9") }},
		{"coordination in no order", func(s []string) []string { return append(s, "COB*Q*X*1") }},
		{"a second member name", func(s []string) []string { return append(s[:5:5], append([]string{"NM1*XX*1*A*B"}, s[5:]...)...) }},
		{"an element too many", replace("REF*0F", "REF*0F*KS1*X*Y*Z*1*2")},
	}
	var out strings.Builder
	for _, c := range cases {
		f, _ := parseEnrollment(t, family(func(i int, s []string) []string {
			if i == 1 {
				return c.edit(s)
			}
			return s
		}))
		problems := f.Problems()
		if len(problems) == 0 {
			t.Errorf("%s: nothing is wrong", c.name)
		}
		fmt.Fprintf(&out, "%s\n", c.name)
		for _, p := range problems {
			_, at, _ := strings.Cut(p.X12Path, "ST 0001 / ")
			fmt.Fprintf(&out, "  at    %s (%s)\n  wrong %s\n  do    %s\n", at, p.RuleID, p.Message, p.Fix)
		}
	}
	golden(t, "enrollment-faults.txt", []byte(out.String()))
}
