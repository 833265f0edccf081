package x12_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/gateway/x12/x12test"
)

const v222 = "005010X222A1"

func parse(t testing.TB, b []byte) *x12.File {
	t.Helper()
	f, err := x12.ParseFile(bytes.NewReader(b), x12.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func claims(t testing.TB, f *x12.File, b []byte, first, count int) []*x12.Claim {
	t.Helper()
	var out []*x12.Claim
	for c, err := range f.Claims(bytes.NewReader(b), first, count) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func rules(f *x12.File) []string {
	var out []string
	for _, p := range f.Problems() {
		out = append(out, p.RuleID)
	}
	return out
}

func has(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

func body(n int) []string {
	all := strings.Split(strings.TrimSuffix(string(x12test.Professional(n, nil)), "~\n"), "~\n")
	return all[3 : len(all)-3] // without ISA GS ST … SE GE IEA
}

// A sound file yields each claim with what its segments say.
func TestASoundFileYieldsItsClaims(t *testing.T) {
	b := x12test.Professional(3, nil)
	f := parse(t, b)
	if got := f.Problems(); len(got) != 0 {
		t.Fatalf("problems: %v", got)
	}
	if f.ClaimCount != 3 || f.Kind() != "837P" || f.Control() != "000000905" {
		t.Fatalf("found %d claims, kind %s, control %s", f.ClaimCount, f.Kind(), f.Control())
	}
	got := claims(t, f, b, 0, 10)
	if len(got) != 3 {
		t.Fatalf("%d claims", len(got))
	}
	c := got[1].Claim
	switch {
	case c.PatientControlNumber != "ACCT000001", c.ChargeCents != 15000, c.PlaceOfService != "11", c.FrequencyCode != "1",
		c.Payer.Id != "KEYSTONE", c.BillingProvider.Npi != "1234567893", c.BillingProvider.TaxId != "123456789", c.BillingProvider.Taxonomy != "207Q00000X",
		c.Subscriber.MemberId != "MBR000001", c.Subscriber.BirthDate != "1980-01-15", c.RelationshipCode != "18", c.GroupNumber != "GRP100",
		c.ClearinghouseTrace != "TRACE000001", len(c.Diagnoses) != 2, c.Diagnoses[1].Code != "E119",
		len(c.Lines) != 2, c.Lines[0].Procedure != "99213", c.Lines[0].Modifiers[0] != "25", c.Lines[0].ChargeCents != 10000, c.Lines[0].QuantityMilli != 1000,
		c.Lines[0].ServiceDate != "2026-11-03", c.Lines[0].LineControlNumber != "L1-1", c.Lines[1].Number != 2, c.Patient != nil,
		c.X12.TransactionControlNumber != "0001", c.X12.ClmSegment != 36:
		t.Fatalf("claim read wrongly: %v", c)
	}
}

// What is wrong with one claim rejects that claim and nothing beside it.
func TestABadClaimDoesNotSpoilItsNeighbours(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(s []string) []string
		rule string
		code string // of the first problem that has the rule
	}{
		{"required element missing", replace("CLM*", "CLM*ACCT*150***11:B:1**A*Y*Y"), "x12.element.missing", "IK304:8 IK403:1 A6:21"},
		{"code not in the guide", replace("HI*", "HI*ABK:J209*XX:E119"), "x12.element.code", "IK304:8 IK403:7 A7:255"},
		{"no such day", replace("DTP*472", "DTP*472*D8*20260230"), "x12.element.date", "IK304:8 IK403:8 A7:187"},
		{"first day after last", replace("DTP*472", "DTP*472*RD8*20261105-20261103"), "x12.element.date", "IK304:8 IK403:8 A7:187"},
		{"amount is text", replace("SV1*HC:99213:25", "SV1*HC:99213:25*ten*UN*1***1"), "x12.element.character", "IK304:8 IK403:6 A7:178"},
		{"part of a cent", replace("SV1*HC:99213:25", "SV1*HC:99213:25*100.005*UN*1***1"), "x12.amount.range", "IK304:8 IK403:7 A7:178"},
		{"required segment missing", replace("HI*", ""), "x12.segment.missing", "IK304:3 A6:255"},
		{"lines don't add up", replace("CLM*", "CLM*ACCT*151***11:B:1*Y*A*Y*Y"), "x12.claim.out-of-balance", "A8:400"},
		{"pointer beyond the diagnoses", replace("SV1*HC:99213:25", "SV1*HC:99213:25*100*UN*1***1:3"), "x12.diagnosis.pointer", "A8:477"},
		{"lines not counted", replace("LX*2", "LX*3"), "x12.line.sequence", "IK304:8 IK403:7 A7:247"},
		{"replacement of nothing", replace("CLM*", "CLM*ACCT*150***11:B:7*Y*A*Y*Y"), "x12.claim.original-number", "A6:464"},
		{"place that isn't", replace("CLM*", "CLM*ACCT*150***ZZ:B:1*Y*A*Y*Y"), "x12.place-of-service", "A7:249"},
		{"qualifier left out", replace("REF*D9", "REF**TRACE"), "x12.segment.qualifier", "IK304:8 IK403:7 A7:21"},
		{"interim bill", replace("CLM*", "CLM*ACCT*150***11:B:3*Y*A*Y*Y"), "x12.claim.frequency", "A7:535"},
		{"subscriber without birth date", replace("DMG*", ""), "x12.subscriber.birth-date", "A6:158:IL"},
		{"payer without id", replace("NM1*PR", "NM1*PR*2*KEYSTONE HEALTH"), "x12.element.missing", "IK304:8 IK403:1 A6:562:PR"},
		{"segment out of order", swap("HI*", "REF*D9"), "x12.segment.order", "IK304:7 A7:21"},
		{"control character", replace("NM1*IL", "NM1*IL*1*TES\x01TER*PAT*Q***MI*MBR"), "x12.segment.control-character", "IK304:8 IK403:6 A7:125:IL"},
		{"not UTF-8", replace("NM1*IL", "NM1*IL*1*TES\xe9TER*PAT*Q***MI*MBR"), "x12.segment.encoding", "IK304:8 IK403:6 A7:125:IL"},
		{"NPI of the rendering provider", after("HI*", "NM1*82*1*WELBY*MARC****XX*1234567890"), "x12.npi.check-digit", "A7:562:82"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := x12test.Professional(3, func(i int, s []string) []string {
				if i == 1 {
					return tc.edit(s)
				}
				return s
			})
			f := parse(t, b)
			if f.ClaimCount != 3 || f.RejectedClaims != 1 {
				t.Fatalf("%d claims, %d rejected; problems %v", f.ClaimCount, f.RejectedClaims, f.Problems())
			}
			for _, c := range claims(t, f, b, 0, 3) {
				if bad := len(c.Problems) > 0; bad != (c.Ordinal == 1) {
					t.Errorf("claim %d: %v", c.Ordinal, c.Problems)
				}
			}
			for _, p := range f.Problems() {
				if p.RuleID == tc.rule {
					if p.Code != tc.code {
						t.Errorf("code %q, want %q", p.Code, tc.code)
					}
					if !strings.HasPrefix(p.X12Path, "ISA 000000905 / GS 1 / ST 0001 / segment ") || p.Message == "" || p.Fix == "" {
						t.Errorf("a person can't act on %+v", p)
					}
					return
				}
			}
			t.Errorf("no %s among %v", tc.rule, f.Problems())
		})
	}
}

// What breaks a set's structure rejects the set; the sets around it proceed.
func TestABrokenSetDoesNotSpoilTheFile(t *testing.T) {
	sound := func(control string) []string { return x12test.Set("837", control, v222, body(2)) }
	for _, tc := range []struct {
		name string
		edit func(set []string) []string
		rule string
		code string // of IK502
	}{
		{"count", replaceLast("SE*99*0002"), "x12.envelope.se-count", "4"},
		{"control number", func(s []string) []string { s[len(s)-1] = strings.Replace(s[len(s)-1], "0002", "0009", 1); return s }, "x12.envelope.se-control", "3"},
		{"no SE", func(s []string) []string { return s[:len(s)-1] }, "x12.envelope.no-se", "2"},
		{"not an 837", func(s []string) []string { s[0] = "ST*835*0002"; return s }, "x12.set.unsupported", "1"},
		{"other guide", func(s []string) []string { s[0] = "ST*837*0002*005010X223A2"; return s }, "x12.set.version", "I6"},
		{"same control number", func(s []string) []string { s[0] = "ST*837*0001*" + v222; return s }, "x12.set.control-number", "23"},
		{"orphan level", recount(replace("HL*2", "HL*2*7*22*0")), "x12.hl.parent", "5"},
		{"level its own parent", recount(replace("HL*2", "HL*2*2*22*0")), "x12.hl.parent", "5"},
		{"levels not counted", recount(replace("HL*2", "HL*3*1*22*0")), "x12.hl.sequence", "5"},
		{"children that aren't", recount(replace("HL*2", "HL*2*1*22*1")), "x12.hl.child-code", "5"},
		{"unknown segment", recount(after("BHT*", "QQQ*1")), "x12.segment.unknown", "5"},
		{"id with a small letter", recount(after("BHT*", "Nm1*1")), "x12.segment.id", "5"},
		{"receiver missing", recount(replace("NM1*40", "")), "x12.loop.missing", "5"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := x12test.Envelope("000000001", x12test.Group("1", v222, sound("0001"), tc.edit(sound("0002")), sound("0003")))
			f := parse(t, b)
			if !has(rules(f), tc.rule) {
				t.Errorf("no %s among %v", tc.rule, f.Problems())
			}
			sets := f.Interchanges[0].Groups[0].Sets
			if len(sets) != 3 || sets[0].Rejected || !sets[1].Rejected || sets[2].Rejected || !has(sets[1].Codes, tc.code) {
				t.Fatalf("sets: %+v", sets)
			}
			if f.ClaimCount != 4 {
				t.Fatalf("%d claims", f.ClaimCount)
			}
			for i, c := range claims(t, f, b, 0, 99) {
				if want := []string{"0001", "0001", "0003", "0003"}[i]; c.Ordinal != i || c.Claim.X12.TransactionControlNumber != want || len(c.Problems) > 0 {
					t.Errorf("claim %d of set %s: %v", c.Ordinal, c.Claim.X12.TransactionControlNumber, c.Problems)
				}
			}
		})
	}
}

// A group or an interchange that doesn't add up is rejected by itself.
func TestEnvelopesAreHeldToTheirCounts(t *testing.T) {
	set := func() []string { return x12test.Set("837", "0001", v222, body(1)) }
	group := func(control string) []string { return x12test.Group(control, v222, set()) }
	edit := func(s []string, from, to string) []string {
		s[len(s)-1] = strings.Replace(s[len(s)-1], from, to, 1)
		return s
	}
	sound := x12test.Envelope("000000001", group("1"))
	for _, tc := range []struct {
		name   string
		file   []byte
		rule   string
		claims int
	}{
		{"GE counts wrong", x12test.Envelope("000000001", edit(group("1"), "GE*1", "GE*2"), group("2")), "x12.envelope.ge-count", 1},
		{"GE names another group", x12test.Envelope("000000001", edit(group("1"), "*1", "*9"), group("2")), "x12.envelope.ge-c", 1},
		{"two groups of one number", x12test.Envelope("000000001", group("1"), group("1")), "x12.group.control-number", 1},
		{"IEA counts wrong", append(bytes.Replace(sound, []byte("IEA*1"), []byte("IEA*2"), 1), sound...), "x12.envelope.iea-count", 1},
		{"IEA names another interchange", append(bytes.Replace(sound, []byte("IEA*1*000000001"), []byte("IEA*1*000000002"), 1), sound...), "x12.envelope.iea-control", 1},
		{"cut off before IEA", sound[:bytes.Index(sound, []byte("IEA"))], "x12.interchange.no-iea", 0},
		{"cut off in a segment", sound[:len(sound)-40], "x12.segment.unterminated", 0},
		{"version of another guide", bytes.ReplaceAll(sound, []byte(v222), []byte("005010X224A2")), "x12.group.version", 0},
		{"older interchange version", bytes.Replace(sound, []byte("*00501*"), []byte("*00401*"), 1), "x12.interchange.version", 0},
		{"a set outside a group", bytes.Replace(sound, []byte("GS*HC"), []byte("XX*HC"), 1), "x12.interchange.structure", 0},
		{"saved as UTF-16", append([]byte("\xFF\xFE"), bytes.Join(bytes.Split(sound, nil), []byte{0})...), "x12.interchange.utf-16", 0},
		{"packed", []byte("\x1F\x8B\x08\x00 and so on"), "x12.interchange.packed", 0},
		{"printed", []byte("%PDF-1.7 and so on"), "x12.interchange.other-format", 0},
		{"without its envelope", sound[bytes.Index(sound, []byte("GS*")):], "x12.interchange.no-isa", 0},
		{"text after the interchange", append(bytes.Clone(sound), "and so on"...), "x12.interchange.no-isa", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := parse(t, tc.file)
			if f.ClaimCount != tc.claims {
				t.Errorf("%d claims, want %d", f.ClaimCount, tc.claims)
			}
			if !strings.Contains(strings.Join(rules(f), " "), tc.rule) {
				t.Errorf("no %s among %v", tc.rule, f.Problems())
			}
		})
	}
}

func TestDelimitersComeFromTheISA(t *testing.T) {
	plain := x12test.Professional(2, nil)
	want := claims(t, parse(t, plain), plain, 0, 2)
	swap := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(from), []byte(to)) }
	}
	for name, change := range map[string]func([]byte) []byte{
		"CRLF":                   swap("~\n", "~\r\n"),
		"one line":               swap("~\n", "~"),
		"byte order mark":        func(b []byte) []byte { return append([]byte("\xEF\xBB\xBF"), b...) },
		"blank lines in front":   func(b []byte) []byte { return append([]byte("\r\n \r\n"), b...) },
		"newline terminator":     swap("~\n", "\n"),
		"control separators":     func(b []byte) []byte { return swap("~\n", "\x1c")(swap("*", "\x1d")(b)) },
		"pipe and angle":         func(b []byte) []byte { return swap(":", ">")(swap("*", "|")(b)) },
		"letter U in ISA11":      swap("*^*00501", "*U*00501"),
		"other repetition sign":  swap("*^*00501", "*!*00501"),
		"carriage return ending": swap("~\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			b := change(plain)
			f := parse(t, b)
			got := claims(t, f, b, 0, 2)
			if len(got) != 2 {
				t.Fatalf("problems %v", f.Problems())
			}
			for i := range got {
				if !proto.Equal(got[i].Claim, want[i].Claim) {
					t.Errorf("claim %d differs: %v", i, got[i].Claim)
				}
			}
		})
	}
}

// endless yields one byte for ever, without the memory to hold it.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), e.left)
	for i := range n {
		p[i] = 'A'
	}
	e.left -= n
	return n, nil
}

// A line of 50 MB is refused without being held or even read to its end.
func TestAnOverlongSegmentIsRefused(t *testing.T) {
	head := x12test.Professional(1, nil)[:107]
	src := &endless{left: 50 << 20}
	f, err := x12.ParseFile(io.MultiReader(bytes.NewReader(head), src), x12.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !f.Refused() || !has(rules(f), "x12.segment.too-long") {
		t.Fatalf("problems %v", f.Problems())
	}
	if src.left < 49<<20 {
		t.Errorf("read %d bytes before refusing", 50<<20-src.left)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	b := x12test.Professional(400, func(_ int, s []string) []string {
		return replace("HI*", "HI*ABK:J209*XX:E119*XX:E119*XX:E119")(s)
	})
	f, err := x12.ParseFile(bytes.NewReader(b), x12.Limits{Problems: 10})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.Problems()); n != 11 || !has(rules(f), "x12.file.more-problems") {
		t.Fatalf("%d problems", n)
	}
	if f.RejectedClaims != 400 {
		t.Fatalf("%d claims rejected of 400: what isn't listed must still reject", f.RejectedClaims)
	}
}

// Any range of claims read again is the same part of the whole, whatever
// sets between are rejected.
func TestClaimsCanBeReadAgainFromAnyOrdinal(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var sets [][]string
		want := 0
		for i := range rapid.IntRange(1, 4).Draw(rt, "sets") {
			n := rapid.IntRange(1, 150).Draw(rt, "claims")
			set := x12test.Set("837", fmt.Sprintf("%04d", i+1), v222, body(n))
			if rapid.Bool().Draw(rt, "rejected") {
				set[len(set)-1] = fmt.Sprintf("SE*1*%04d", i+1)
			} else {
				want += n
			}
			sets = append(sets, set)
		}
		b := x12test.Envelope("000000001", x12test.Group("1", v222, sets...))
		f := parse(t, b)
		if f.ClaimCount != want {
			rt.Fatalf("%d claims, want %d", f.ClaimCount, want)
		}
		whole := claims(t, f, b, 0, want)
		first := rapid.IntRange(0, max(want-1, 0)).Draw(rt, "first")
		count := rapid.IntRange(0, 200).Draw(rt, "count")
		part := claims(t, f, b, first, count)
		if len(part) != min(count, want-first) {
			rt.Fatalf("%d claims from %d, asked %d of %d", len(part), first, count, want)
		}
		for i, c := range part {
			if c.Ordinal != first+i || !proto.Equal(c.Claim, whole[first+i].Claim) {
				rt.Fatalf("claim %d differs when read from %d", c.Ordinal, first)
			}
		}
	})
}

// No value that a sender writes comes back in a problem.
func TestProblemsNeverCarryData(t *testing.T) {
	const secret = "QZSECRETQ"
	segments := strings.Split(string(x12test.Professional(1, nil)), "~\n")
	for i := 2; i < len(segments)-3; i++ {
		elements := strings.Split(segments[i], "*")
		for j := 0; j < len(elements)+1; j++ {
			changed := append([]string(nil), append(elements, "")...)
			if elements[0] == "ST" && j == 2 {
				continue // a control number is what a problem is found by
			}
			changed[j] = secret
			b := strings.Join(append(append(append([]string(nil), segments[:i]...), strings.Join(changed, "*")), segments[i+1:]...), "~\n")
			f := parse(t, []byte(b))
			for _, p := range f.Problems() {
				if strings.Contains(fmt.Sprintf("%+v", p), secret) {
					t.Fatalf("%s element %d comes back in %+v", elements[0], j, p)
				}
			}
		}
	}
}

// Whatever an element says, a claim without problems is one the claims service can record.
func TestASoundClaimFitsTheSchema(t *testing.T) {
	values := []string{"", "9", "99", "Q9", "-1", "0.5", "20260230", "ÄÖÜ", "A:B:C:D:E:F:G:H:I", "99999999.99", "999999999999999999", strings.Repeat("X", 39), strings.Repeat("X", 61), strings.Repeat("9", 300)}
	segments := x12test.Rich()
	sound := 0
	for i := range segments {
		elements := strings.Split(segments[i], "*")
		for j := 1; j <= len(elements); j++ {
			for _, v := range values {
				changed := append([]string(nil), append(elements, "")...)
				changed[j] = v
				body := append([]string(nil), segments...)
				body[i] = strings.Join(changed, "*")
				b := x12test.Interchange("000000905", "837", v222, body)
				for _, c := range claims(t, parse(t, b), b, 0, 9) {
					if len(c.Problems) > 0 {
						continue
					}
					sound++
					if err := protovalidate.Validate(c.Claim); err != nil {
						t.Errorf("%s%02d: %v", elements[0], j, err)
					}
				}
			}
		}
	}
	if sound < 100 {
		t.Errorf("only %d claims stayed sound: this shows little", sound)
	}
}

func replace(prefix, with string) func([]string) []string {
	return func(s []string) []string {
		var out []string
		done := false
		for _, seg := range s {
			if !done && strings.HasPrefix(seg, prefix) {
				done = true
				if with == "" {
					continue
				}
				seg = with
			}
			out = append(out, seg)
		}
		return out
	}
}

func after(prefix, added string) func([]string) []string {
	return func(s []string) []string {
		var out []string
		for _, seg := range s {
			if out = append(out, seg); strings.HasPrefix(seg, prefix) {
				out = append(out, added)
			}
		}
		return out
	}
}

func swap(a, b string) func([]string) []string {
	return func(s []string) []string {
		out := append([]string(nil), s...)
		var i, j int
		for n, seg := range out {
			if strings.HasPrefix(seg, a) {
				i = n
			}
			if strings.HasPrefix(seg, b) {
				j = n
			}
		}
		out[i], out[j] = out[j], out[i]
		return out
	}
}

func replaceLast(with string) func([]string) []string {
	return func(s []string) []string { s[len(s)-1] = with; return s }
}

// recount edits a set and makes its SE count right again.
func recount(edit func([]string) []string) func([]string) []string {
	return func(s []string) []string {
		s = edit(s)
		s[len(s)-1] = fmt.Sprintf("SE*%d*0002", len(s))
		return s
	}
}
