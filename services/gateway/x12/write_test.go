package x12_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/gateway/x12/x12test"
	"github.com/probity-health/probity/services/problem"
)

var update = flag.Bool("update", false, "rewrite the golden documents in testdata")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s (run with -update to accept):\n%s", name, diff)
	}
}

var (
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	env  = x12.Envelope{Sender: "KEYSTONE", Receiver: "LAKESIDE", Control: 77, Time: noon}
)

// mixed is a file with sound claims, claims in error, a rejected set and a
// group of a version that isn't read.
func mixed() []byte {
	faulty := x12test.Professional(4, func(i int, s []string) []string {
		switch i {
		case 1:
			return replace("HI*", "HI*ABK:J209*XX:E119")(replace("REF*D9", "REF*D9")(s))
		case 2:
			return replace("CLM*", "CLM*ACCT*151***11:B:1*Y*A*Y*Y")(s)
		}
		return s
	})
	segs := strings.Split(strings.TrimSuffix(string(faulty), "~\n"), "~\n")
	one := segs[2 : len(segs)-2]
	lost := x12test.Set("837", "0002", v222, body(1))
	lost[len(lost)-1] = "SE*7*0002"
	return x12test.Envelope("000000905", x12test.Group("1", v222, one, lost), x12test.Group("2", "005010X224A2", x12test.Set("837", "0001", "005010X224A2", body(1))))
}

func write999(t testing.TB, f *x12.File) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := x12.Write999(&out, f, env); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write277(t testing.TB, f *x12.File, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	err := x12.Write277CA(&out, env, noon, noon, f.Claims(bytes.NewReader(b), 0, f.ClaimCount), func(c *x12.Claim) x12.Acknowledged {
		if len(c.Statuses) > 0 {
			return x12.Acknowledged{Statuses: c.Statuses}
		}
		return x12.Acknowledged{ClaimID: "clm_" + strings.Repeat("a", 25) + string(rune('a'+c.Ordinal))}
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAcknowledgements(t *testing.T) {
	b := mixed()
	f := parse(t, b)
	golden(t, "mixed.999", write999(t, f))
	golden(t, "mixed.277ca", write277(t, f, b))
	if !bytes.Equal(write999(t, f), write999(t, f)) {
		t.Error("the same file was acknowledged in different bytes")
	}
}

// An interchange that can't be trusted is answered with a TA1, not a 999.
func TestARejectedInterchangeIsAnsweredWithTA1(t *testing.T) {
	b := bytes.Replace(x12test.Professional(1, nil), []byte("IEA*1"), []byte("IEA*3"), 1)
	out := string(write999(t, parse(t, b)))
	if !strings.Contains(out, "TA1*000000905*261121*0900*R*021~") || strings.Contains(out, "ST*999") {
		t.Error(out)
	}
}

// The content of a refused file isn't kept: its problems make the same 999.
func TestARefusedFileIsAcknowledgedFromItsProblems(t *testing.T) {
	set := x12test.Set("837", "0001", v222, body(2))
	for name, edit := range map[string]func([]string) []string{
		"count":           replaceLast("SE*7*0001"),
		"unknown segment": after("BHT*", "QQQ*1"),
		"element":         replace("NM1*40", "NM1*40**KEYSTONE*****46*KEYSTONE"),
		"level":           replace("HL*2", "HL*2*5*22*0"),
	} {
		t.Run(name, func(t *testing.T) {
			s := edit(append([]string(nil), set...))
			b := x12test.Envelope("000000905", x12test.Group("1", v222, s))
			f := parse(t, b)
			if !f.Refused() {
				t.Fatal("not refused")
			}
			again := x12.RefusedFile(f.Kind(), f.Problems())
			again.Interchanges[0].Usage = "T"
			body := func(b []byte) string { // without the addresses, which problems don't carry
				_, rest, _ := strings.Cut(string(b), "ST*999")
				return rest
			}
			if diff := cmp.Diff(body(write999(t, f)), body(write999(t, again))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// remittance makes n decided claims of the made-up file.
func remittance(t testing.TB, n int) (*claimsv1.Remittance, []*claimsv1.RemittedClaim) {
	t.Helper()
	b := x12test.Professional(n, nil)
	var list []*claimsv1.RemittedClaim
	for _, c := range claims(t, parse(t, b), b, 0, n) {
		list = append(list, &claimsv1.RemittedClaim{ClaimId: fmt.Sprintf("clm_%026d", c.Ordinal), Submitted: c.Claim, ReceivedTime: timestamppb.New(noon),
			Decision: &claimsv1.Decision{Status: claimsv1.ClaimStatus_CLAIM_STATUS_PAID, ChargeCents: 15000, AllowedCents: 9000, PaidCents: 7000, PatientCents: 2000, Network: "in",
				Lines: []*claimsv1.LineDecision{
					{Number: 1, ChargeCents: 10000, AllowedCents: 9000, PaidCents: 7000, PatientCents: 2000, Adjustments: []*claimsv1.Adjustment{
						{GroupCode: "CO", Carc: "45", AmountCents: 1000}, {GroupCode: "PR", Carc: "3", AmountCents: 2000}}},
					{Number: 2, ChargeCents: 5000, Adjustments: []*claimsv1.Adjustment{{GroupCode: "CO", Carc: "97", AmountCents: 5000, Rarcs: []string{"N130"}}}},
				}}})
	}
	return &claimsv1.Remittance{PayerId: "KEYSTONE", PayeeNpi: x12test.Lakeside.NPI, PaidCents: 7000 * int64(n), PaymentDate: "2026-11-22", TraceNumber: "T0001"}, list
}

var keystone = x12.PayerProfile{Name: "KEYSTONE HEALTH", Line1: "1 MAIN ST", City: "CLEVELAND", State: "OH", PostalCode: "44113", Contact: "DESK", Phone: "5550100001", OriginatingID: "1123456789"}

func write835(t testing.TB, rem *claimsv1.Remittance, list []*claimsv1.RemittedClaim) (*x12.Advice, []byte) {
	t.Helper()
	a, err := x12.NewAdvice(rem, list, keystone)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := x12.Write835(&out, env, a); err != nil {
		t.Fatal(err)
	}
	return a, out.Bytes()
}

func TestAdvice(t *testing.T) {
	rem, list := remittance(t, 2)
	// The second claim: denied as not ours to know, and a patient of her own.
	d := list[1].Decision
	d.Status, d.PaidCents, d.AllowedCents, d.PatientCents = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, 0, 0, 15000
	d.Lines[0] = &claimsv1.LineDecision{Number: 1, ChargeCents: 10000, PatientCents: 10000, Adjustments: []*claimsv1.Adjustment{{GroupCode: "PR", Carc: "31", AmountCents: 10000}}}
	d.Lines[1] = &claimsv1.LineDecision{Number: 2, ChargeCents: 5000, PatientCents: 5000, Adjustments: []*claimsv1.Adjustment{{GroupCode: "PR", Carc: "31", AmountCents: 5000}}}
	list[1].Submitted.Patient = &claimsv1.Person{LastName: "TES*TER~", FirstName: "KID:A"}
	rem.PaidCents = 7000
	_, out := write835(t, rem, list)
	golden(t, "paid-and-unknown.835", out)
}

// A reversal negates every amount; where reversals outweigh payments the
// payment is nothing and the debt goes forward.
func TestAReversalIsCarriedForward(t *testing.T) {
	rem, list := remittance(t, 1)
	list[0].Reversal = true
	rem.PaidCents, rem.ClaimsCents, rem.BalanceCents = 0, -7000, 7000
	rem.Adjustments = []*claimsv1.ProviderAdjustment{{ReasonCode: "FB", Reference: rem.TraceNumber, AmountCents: -7000}}
	a, out := write835(t, rem, list)
	golden(t, "reversal.835", out)
	if a.PaidCents != 0 || a.Claims[0].Status != "22" || a.Provider[0].Cents != -7000 {
		t.Errorf("%+v", a)
	}
}

// A correction is two CLPs: all that was told negated, then what stands now.
// Interest and a recovered balance stand in PLB, and all three levels balance.
func TestACorrectionIsAPair(t *testing.T) {
	rem, list := corrected(t)
	a, out := write835(t, rem, list)
	golden(t, "correction.835", out)
	if a.Claims[0].Status != "22" || a.Claims[1].Status != "1" || a.Claims[0].PayerClaim != a.Claims[1].PayerClaim {
		t.Errorf("%+v", a.Claims)
	}
	for i, l := range a.Claims[0].Lines {
		was := list[0].Decision.Lines[i]
		if len(l.Adjustments) != len(was.Adjustments) {
			t.Fatalf("line %d: %+v", i, l)
		}
		for j, adj := range l.Adjustments {
			if adj.Group != was.Adjustments[j].GroupCode || adj.CARC != was.Adjustments[j].Carc || adj.Cents != -was.Adjustments[j].AmountCents {
				t.Errorf("line %d: %+v", i, adj)
			}
		}
	}
	read, err := x12.ParseAdvice(bytes.NewReader(out), x12.Limits{})
	if err != nil || len(read) != 1 {
		t.Fatalf("%v %v", read, err)
	}
	if bad := x12.CheckBalance835(read[0]); len(bad) > 0 {
		t.Errorf("%v", bad)
	}
}

// corrected is a claim of $70.00 that now pays $40.00, one that is paid late,
// and a payee that still owed $5.00.
func corrected(t testing.TB) (*claimsv1.Remittance, []*claimsv1.RemittedClaim) {
	rem, list := remittance(t, 2)
	was := list[0]
	now := proto.CloneOf(was)
	was.Reversal = true
	now.Decision.PaidCents, now.Decision.PatientCents = 4000, 5000
	now.Decision.Lines[0].PaidCents, now.Decision.Lines[0].PatientCents = 4000, 5000
	now.Decision.Lines[0].Adjustments[1].AmountCents = 5000
	list[1].InterestCents = 39
	rem.ClaimsCents, rem.PaidCents = -7000+4000+7000, 4000+39-500
	rem.Adjustments = []*claimsv1.ProviderAdjustment{
		{ReasonCode: "L6", Reference: list[1].ClaimId, AmountCents: -39},
		{ReasonCode: "FB", Reference: "T0000", AmountCents: 500},
	}
	return rem, []*claimsv1.RemittedClaim{was, now, list[1]}
}

// Seven reasons of one group need two segments.
func TestCASHoldsSixReasons(t *testing.T) {
	rem, list := remittance(t, 1)
	l := list[0].Decision.Lines[1]
	l.Adjustments = nil
	for i := range 7 {
		l.Adjustments = append(l.Adjustments, &claimsv1.Adjustment{GroupCode: "CO", Carc: fmt.Sprint(100 + i), AmountCents: 500})
	}
	l.Adjustments = append(l.Adjustments, &claimsv1.Adjustment{GroupCode: "CO", Carc: "100", AmountCents: 1500})
	_, out := write835(t, rem, list)
	if !bytes.Contains(out, []byte("CAS*CO*100*20**101*5**102*5**103*5**104*5**105*5~\nCAS*CO*106*5~")) {
		t.Errorf("%s", out)
	}
}

func TestAnUnbalancedAdviceNeverLeaves(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*claimsv1.Remittance, *claimsv1.Decision)
		rule string
	}{
		"a cent on a line":     {func(_ *claimsv1.Remittance, d *claimsv1.Decision) { d.Lines[0].PaidCents++ }, "x12.835.line-balance"},
		"a cent on the claim":  {func(_ *claimsv1.Remittance, d *claimsv1.Decision) { d.PaidCents++ }, "x12.835.claim-balance"},
		"a cent on the charge": {func(_ *claimsv1.Remittance, d *claimsv1.Decision) { d.ChargeCents++ }, "x12.835.claim-charge"},
		"a cent paid more":     {func(r *claimsv1.Remittance, _ *claimsv1.Decision) { r.PaidCents++ }, "x12.835.payment-balance"},
		"a cent of patient's":  {func(_ *claimsv1.Remittance, d *claimsv1.Decision) { d.PatientCents++ }, "x12.835.patient-responsibility"},
		"no group":             {func(_ *claimsv1.Remittance, d *claimsv1.Decision) { d.Lines[0].Adjustments[0].GroupCode = "XX" }, "x12.835.adjustment-code"},
		"overflow": {func(_ *claimsv1.Remittance, d *claimsv1.Decision) {
			d.Lines[0].Adjustments[0].AmountCents, d.Lines[1].Adjustments[0].AmountCents = 1<<62, 1<<62
		}, "x12.835.claim-balance"},
	} {
		t.Run(name, func(t *testing.T) {
			rem, list := remittance(t, 1)
			tc.edit(rem, list[0].Decision)
			_, err := x12.NewAdvice(rem, list, keystone)
			var e *problem.Error
			if !errors.As(err, &e) {
				t.Fatalf("it left: %v", err)
			}
			var got []string
			for _, p := range e.Problems {
				got = append(got, p.RuleID)
			}
			if !has(got, tc.rule) {
				t.Errorf("found %v", got)
			}
		})
	}
}

// Whatever a decision says, if it balances its advice is read back as written.
func TestAnAdviceIsReadBackAsWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rem, list := remittance(t, rapid.IntRange(1, 4).Draw(rt, "claims"))
		rem.PaidCents = 0
		for _, c := range list {
			d := c.Decision
			d.ChargeCents, d.PaidCents, d.PatientCents, d.AllowedCents = 0, 0, 0, 0
			for _, l := range d.Lines {
				l.Adjustments, l.PatientCents = nil, 0
				l.ChargeCents = rapid.Int64Range(0, 1_000_000).Draw(rt, "charge")
				rest := l.ChargeCents
				for range rapid.IntRange(0, 9).Draw(rt, "adjustments") {
					adj := &claimsv1.Adjustment{GroupCode: rapid.SampledFrom([]string{"CO", "OA", "PI", "PR"}).Draw(rt, "group"),
						Carc: rapid.SampledFrom([]string{"1", "2", "3", "45", "97", "253"}).Draw(rt, "carc"), AmountCents: rapid.Int64Range(0, rest).Draw(rt, "amount")}
					rest -= adj.AmountCents
					if adj.GroupCode == "PR" {
						l.PatientCents += adj.AmountCents
					}
					l.Adjustments = append(l.Adjustments, adj)
				}
				l.PaidCents, l.AllowedCents = rest, rest+l.PatientCents
				d.ChargeCents += l.ChargeCents
				d.PaidCents += l.PaidCents
				d.PatientCents += l.PatientCents
				d.AllowedCents += l.AllowedCents
			}
			rem.PaidCents += d.PaidCents
		}
		a, out := write835(t, rem, list)
		back, err := x12.ParseAdvice(bytes.NewReader(out), x12.Limits{})
		if err != nil || len(back) != 1 {
			rt.Fatalf("%v", err)
		}
		if bad := x12.CheckBalance835(back[0]); len(bad) > 0 {
			rt.Fatalf("balanced when written, not when read: %v", bad)
		}
		// What the reader doesn't take, and groups stand together once written.
		a.Payer, a.Payee, back[0].Payer, back[0].Payee = x12.AdviceParty{}, x12.AdviceParty{}, x12.AdviceParty{}, x12.AdviceParty{}
		for i := range a.Claims {
			for j := range a.Claims[i].Lines {
				l := &a.Claims[i].Lines[j]
				l.Adjustments = byGroup(l.Adjustments)
			}
		}
		if diff := cmp.Diff(a, back[0]); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func byGroup(list []x12.AdviceAdjustment) []x12.AdviceAdjustment {
	var out []x12.AdviceAdjustment
	taken := map[string]bool{}
	for _, a := range list {
		if taken[a.Group] {
			continue
		}
		taken[a.Group] = true
		for _, b := range list {
			if b.Group == a.Group {
				out = append(out, b)
			}
		}
	}
	return out
}
