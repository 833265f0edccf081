package x12_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/encoding/prototext"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/fixtures"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/gateway/x12/x12test"
)

func parseEnrollment(t testing.TB, b []byte) (*x12.EnrollmentFile, []*x12.Member) {
	t.Helper()
	f, err := x12.ParseEnrollment(bytes.NewReader(b), x12.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var out []*x12.Member
	for m, err := range f.Members(bytes.NewReader(b)) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	if len(out) != f.MemberCount {
		t.Fatalf("%d members counted, %d read", f.MemberCount, len(out))
	}
	return f, out
}

func enrollmentRules(f *x12.EnrollmentFile) []string {
	var out []string
	for _, p := range f.Problems() {
		out = append(out, p.RuleID)
	}
	return out
}

// What the guide's own examples ask for, read off them by eye.
func TestSampleEnrollments(t *testing.T) {
	for name, want := range map[string]string{
		"add-subscriber-coverage": `maintenance_type:MAINTENANCE_TYPE_ADD maintenance_reason:"22" member_id:"202443307" relationship_code:"18"
			last_name:"SMITH" first_name:"WILLIAM" group_number:"123456001" insurance_line:"DEN" start_date:"2002-07-01"`,
		"add-dependent-full-time-student-to-existing-enrollment": `maintenance_type:MAINTENANCE_TYPE_ADD maintenance_reason:"28" member_id:"123456789" relationship_code:"19"
			last_name:"DOE" first_name:"JAMES" birth_date:"1977-08-16" sex:"M" group_number:"123456001" insurance_line:"HLT" start_date:"1996-06-01"`,
		"cancel-a-dependent": `maintenance_type:MAINTENANCE_TYPE_TERMINATE maintenance_reason:"07" member_id:"123456789" relationship_code:"19"
			last_name:"DOE" first_name:"JAMES" birth_date:"1977-08-16" sex:"M" group_number:"123456001" end_date:"1996-08-01"`,
		"change-subscriber-information": `maintenance_type:MAINTENANCE_TYPE_CHANGE maintenance_reason:"25" member_id:"123456789" relationship_code:"18"
			last_name:"DOE" first_name:"JAMES" birth_date:"1950-04-15" sex:"M" previous_first_name:"JAMES" previous_birth_date:"1950-04-16" group_number:"123456001"`,
		"terminate-eligibility-for-subscriber": `maintenance_type:MAINTENANCE_TYPE_TERMINATE maintenance_reason:"08" member_id:"123456789" relationship_code:"18"
			last_name:"DOE" first_name:"JOHN" group_number:"123456001" end_date:"1996-10-01"`,
	} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(fixtures.Dir(t, filepath.Join("x12", "834", name+".edi")))
			if err != nil {
				t.Fatal(err)
			}
			f, members := parseEnrollment(t, b)
			if got := f.Problems(); len(got) > 0 {
				t.Fatalf("problems: %+v", got)
			}
			if len(members) != 1 || members[0].PayerID != "654456654" || len(members[0].Changes) != 1 {
				t.Fatalf("%+v", members)
			}
			var expected policiesv1.EnrollmentChange
			if err := prototext.Unmarshal([]byte(want), &expected); err != nil {
				t.Fatal(err)
			}
			if got := members[0].Changes[0]; got.String() != expected.String() {
				t.Errorf("got  %v\nwant %v", got, &expected)
			}
			if ack := acknowledge(t, f); !strings.Contains(ack, "AK1*BE*20213*005010X220A1~") || !strings.Contains(ack, "IK5*A~") || !strings.Contains(ack, "AK9*A*1*1*1~") {
				t.Error(ack)
			}
		})
	}
}

func acknowledge(t testing.TB, f *x12.EnrollmentFile) string {
	t.Helper()
	var out bytes.Buffer
	if err := f.Acknowledge(&out, env); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func family(edit func(i int, segments []string) []string) []byte {
	members := [][]string{
		x12test.Addition("KS1", "18", "TESTER", "ANN", "19800115"),
		x12test.Addition("KS1", "01", "TESTER", "BOB", "19790203"),
		x12test.Addition("KS1", "17", "TESTER", "CY", "20150304"),
	}
	for i := range members {
		if edit != nil {
			members[i] = edit(i, members[i])
		}
	}
	return x12test.Enrollment(members...)
}

func TestAFaultyMemberDoesNotSpoilTheFamily(t *testing.T) {
	for name, c := range map[string]struct {
		edit func([]string) []string
		rule string
	}{
		"no subscriber number":          {without("REF*0F"), "x12.segment.missing"},
		"no name":                       {without("NM1*IL"), "x12.loop.missing"},
		"a birth date that is none":     {replace("DMG*", "DMG*D8*19800231*F"), "x12.element.date"},
		"an unknown relationship":       {replace("INS*", "INS*N*02*021*28*A"), "x12.element.code"},
		"an unknown maintenance type":   {replace("INS*", "INS*N*19*022*28*A"), "x12.element.code"},
		"a subscriber who is a spouse":  {replace("INS*", "INS*Y*01*021*28*A"), "x12.834.relationship"},
		"a coverage without a date":     {without("DTP*348"), "x12.segment.missing"},
		"an insurance line nobody has":  {replace("HD*", "HD*021**XXX"), "x12.element.code"},
		"a date in another notation":    {replace("DTP*348", "DTP*348*D8*01012026"), "x12.element.date"},
		"segments in the wrong order":   {swap("REF*0F", "NM1*IL"), "x12.segment.order"},
		"coordination without coverage": {replace("HD*", "COB*P*X*1"), "x12.segment.unexpected"},
	} {
		t.Run(name, func(t *testing.T) {
			f, members := parseEnrollment(t, family(func(i int, s []string) []string {
				if i == 1 {
					return c.edit(s)
				}
				return s
			}))
			if f.MemberCount != 3 || f.RejectedMembers != 1 || !has(enrollmentRules(f), c.rule) {
				t.Fatalf("%d members, %d rejected, %v", f.MemberCount, f.RejectedMembers, enrollmentRules(f))
			}
			if len(members[0].Problems) > 0 || len(members[1].Problems) == 0 || len(members[2].Problems) > 0 {
				t.Errorf("%+v", members)
			}
			if ack := acknowledge(t, f); !strings.Contains(ack, "IK5*E*5~") || !strings.Contains(ack, "AK9*E*1*1*1~") {
				t.Error(ack)
			}
		})
	}
}

func without(prefix string) func([]string) []string {
	return func(s []string) []string {
		var out []string
		for _, x := range s {
			if !strings.HasPrefix(x, prefix) {
				out = append(out, x)
			}
		}
		return out
	}
}

func TestWhatSpoilsAnEnrollmentFile(t *testing.T) {
	for name, c := range map[string]struct {
		edit func([]byte) []byte
		rule string
	}{
		"a wrong segment count": {func(b []byte) []byte { return bytes.Replace(b, []byte("SE*37"), []byte("SE*36"), 1) }, "x12.envelope.se-count"},
		"no insurer":            {func(b []byte) []byte { return bytes.Replace(b, []byte("N1*IN*KEYSTONE HEALTH*FI*KEYSTONE~\n"), nil, 1) }, "x12.loop.missing"},
		"a mangled segment id":  {func(b []byte) []byte { return bytes.Replace(b, []byte("INS*N*01"), []byte("IN*N*01"), 1) }, "x12.segment.unknown"},
		"claims":                {func([]byte) []byte { return x12test.Professional(1, nil) }, "x12.group.function"},
		"another version":       {func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("005010X220A1"), []byte("004010X095A1")) }, "x12.group.version"},
		"nothing":               {func([]byte) []byte { return nil }, "x12.interchange.no-isa"},
		"half of it":            {func(b []byte) []byte { return b[:len(b)/2] }, "x12.segment.unterminated"},
		"no members":            {func([]byte) []byte { return x12test.Enrollment() }, "x12.loop.missing"},
	} {
		t.Run(name, func(t *testing.T) {
			f, members := parseEnrollment(t, c.edit(family(nil)))
			if len(members) > 0 || !f.Refused() || !has(enrollmentRules(f), c.rule) {
				t.Errorf("%d members, %v", len(members), enrollmentRules(f))
			}
		})
	}
	t.Run("an 834 sent as claims", func(t *testing.T) {
		if f := parse(t, family(nil)); !f.Refused() || !has(rules(f), "x12.group.function") {
			t.Error(rules(f))
		}
	})
}

func TestCoveragesBecomeChangesOfTheirOwn(t *testing.T) {
	member := []string{
		"INS*N*53*001*AI*A*****Y", "REF*0F*KS1", "REF*1L*TIDE-100", "DTP*303*D8*20260401",
		"NM1*IL*1*TESTER*BOB****ZZ*KS1B", "DMG*D8*19790203*M",
		"HD*024**HMO*plan_care", "DTP*349*D8*20260331",
		"HD*021**PPO*plan_gold", "DTP*348*D8*20260401", "REF*1L*TIDE-200", "COB*P*OTHER1*1",
		"HD*032**DEN", "DTP*348*D8*20260401",
		"LS*2700", "LX*1", "N1*75*SITE", "REF*17*NORTH", "LE*2700",
	}
	f, members := parseEnrollment(t, x12test.Enrollment(member))
	if len(f.Problems()) > 0 {
		t.Fatal(f.Problems())
	}
	var got []string
	for _, c := range members[0].Changes {
		got = append(got, fmt.Sprint(c.GetMaintenanceType(), " ", c.GetInsuranceLine(), " ", c.GetPlanId(), " ", c.GetGroupNumber(), " ", c.GetStartDate(), "/", c.GetEndDate(),
			" ", c.GetRelationshipCode(), " ", c.GetOwnMemberId(), " ", c.GetOtherPayerPrimary(), " ", c.GetDisabled()))
	}
	want := "MAINTENANCE_TYPE_TERMINATE HMO plan_care TIDE-100 /2026-03-31 G8 KS1B false true\n" +
		"MAINTENANCE_TYPE_ADD PPO plan_gold TIDE-200 2026-04-01/ G8 KS1B true true"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// A member's termination without a coverage that ends is one change, however many coverages are listed.
func TestATerminationEndsEverything(t *testing.T) {
	_, members := parseEnrollment(t, x12test.Enrollment([]string{
		"INS*Y*18*024*08*A***TE", "REF*0F*KS1", "DTP*357*D8*20260331", "NM1*IL*1*TESTER*ANN",
		"HD*001**HLT", "DTP*348*D8*20260101", "HD*001**DEN", "DTP*348*D8*20260101"}))
	if c := members[0].Changes; len(c) != 1 || c[0].GetEndDate() != "2026-03-31" || c[0].GetInsuranceLine() != "" {
		t.Errorf("%v", c)
	}
}

func TestEnrollmentProblemsNeverCarryData(t *testing.T) {
	const secret = "QZSECRETQ"
	segments := strings.Split(string(family(nil)), "~\n")
	for i := 3; i < len(segments)-4; i++ {
		elements := strings.Split(segments[i], "*")
		for j := range len(elements) + 1 {
			changed := append(append([]string(nil), elements...), "")
			changed[j] = secret
			b := strings.Join(append(append(append([]string(nil), segments[:i]...), strings.Join(changed, "*")), segments[i+1:]...), "~\n")
			f, _ := parseEnrollment(t, []byte(b))
			for _, p := range f.Problems() {
				if strings.Contains(fmt.Sprintf("%+v", p), secret) {
					t.Fatalf("%s element %d comes back in %+v", elements[0], j, p)
				}
			}
			if ack := acknowledge(t, f); strings.Contains(ack, secret) {
				t.Fatalf("%s element %d comes back in the 999", elements[0], j)
			}
		}
	}
}

// Whatever the bytes: no panic, the second pass yields what the first
// counted, a member without problems asks for changes that fit the schema,
// and the acknowledgement can be written.
func FuzzParseEnrollment(f *testing.F) {
	f.Add(family(nil))
	f.Add(family(func(_ int, s []string) []string {
		return append(s, "COB*P**1", "LS*2700", "LX*1", "N1*75*A", "LE*2700")
	}))
	f.Add([]byte("ISA*00*"))
	f.Add(x12test.Professional(1, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := x12.ParseEnrollment(bytes.NewReader(b), x12.Limits{SegmentBytes: 4096, Problems: 50})
		if err != nil {
			t.Fatal(err)
		}
		n, rejected := 0, 0
		for m, err := range file.Members(bytes.NewReader(b)) {
			if err != nil {
				t.Fatal(err)
			}
			if m.Ordinal != n {
				t.Fatalf("member %d follows %d", m.Ordinal, n-1)
			}
			n++
			if len(m.Problems) > 0 {
				rejected++
				continue
			}
			for _, c := range m.Changes {
				if err := protovalidate.Validate(c); err != nil {
					t.Fatalf("a member without problems asks for what can't be sent: %v", err)
				}
			}
		}
		if n != file.MemberCount || rejected != file.RejectedMembers {
			t.Fatalf("%d members and %d rejected counted, %d and %d read", file.MemberCount, file.RejectedMembers, n, rejected)
		}
		if file.Refused() && len(file.Problems()) == 0 {
			t.Fatal("refused and no reason given")
		}
		if file.Enveloped() {
			if err := file.Acknowledge(io.Discard, env); err != nil {
				t.Fatal(err)
			}
		}
	})
}
