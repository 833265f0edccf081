package x12_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/probity-health/probity/services/fixtures"
	"github.com/probity-health/probity/services/gateway/x12"
)

// Third-party samples: most carry made-up NPIs that fail their check digit,
// which is what a payer must answer. verdict lists the rules that must be
// among those broken; claims and rejected count.
var samples = map[string]struct {
	claims, rejected int
	verdict          string
}{
	"837p/ambulance.edi":                                  {1, 1, "x12.npi.check-digit"},
	"837p/anesthesia.edi":                                 {1, 1, "x12.npi.check-digit"},
	"837p/chiropractic.edi":                               {1, 1, "x12.npi.check-digit"},
	"837p/cob-claim-from-billing-provider-to-payer-a.edi": {1, 1, "x12.npi.check-digit"},
	"837p/commercial-health-insurance.edi":                {1, 1, "x12.npi.check-digit"},
	"837p/drug-administered-in-the-physician-office.edi":  {1, 0, ""},
	"837p/encounter.edi":                                  {1, 1, "x12.npi.check-digit"},
	"837p/ppo-repriced-claim.edi":                         {1, 1, "x12.npi.check-digit"},
	// DTP*434 says RD8 and holds one day.
	"837i/837-institutional-claim.edi":                    {1, 1, "x12.element.date x12.npi.check-digit"},
	"837i/two-claims-for-the-same-provider.edi":           {2, 2, "x12.npi.check-digit"},
	"negative/837p-bad-first-line.txt":                    {0, 0, "x12.interchange.isa-width"},
	"negative/837p-no-isa-line.txt":                       {0, 0, "x12.interchange.no-isa"},
	"negative/837p-bad-segment-identifier.txt":            {0, 0, "x12.segment.id x12.envelope.se-count"},
	"negative/837p-bad-valid-code.txt":                    {0, 0, "x12.segment.qualifier x12.loop.missing x12.envelope.se-count"},
	"negative/837p-hl-orphan.edi":                         {0, 0, "x12.hl.parent x12.envelope.se-count"},
	"negative/837p-loop-errors1-exceeds-max-1-parent.txt": {0, 0, "x12.loop.repeated x12.envelope.se-count"},
	"negative/837p-loop-errors3-missing-loops.txt":        {0, 0, "x12.loop.missing x12.envelope.se-count"},
	"negative/837p-missing-elements.txt":                  {0, 0, "x12.element.missing x12.envelope.se-count"},
	"negative/837p-segments-out-of-order.txt":             {0, 0, "x12.segment.order x12.envelope.se-count"},
	"negative/835-imbalance.edi":                          {0, 0, "x12.group.function"},
}

func TestSamplesAreReadOrRefusedForTheirFault(t *testing.T) {
	seen := 0
	for _, dir := range []string{"837p", "837i", "negative"} {
		root := fixtures.Dir(t, filepath.Join("x12", dir))
		entries, err := os.ReadDir(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := dir + "/" + e.Name()
			t.Run(name, func(t *testing.T) {
				want, known := samples[name]
				if !known {
					t.Fatalf("no verdict is written down for this sample")
				}
				b, err := os.ReadFile(filepath.Join(root, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				f := parse(t, b)
				if f.ClaimCount != want.claims || f.RejectedClaims != want.rejected {
					t.Errorf("%d claims, %d rejected, want %d and %d: %v", f.ClaimCount, f.RejectedClaims, want.claims, want.rejected, f.Problems())
				}
				for _, rule := range strings.Fields(want.verdict) {
					if !has(rules(f), rule) {
						t.Errorf("no %s among %v", rule, rules(f))
					}
				}
				if want.verdict == "" && len(f.Problems()) > 0 {
					t.Errorf("problems: %v", f.Problems())
				}
				if got := len(claims(t, f, b, 0, 99)); got != want.claims {
					t.Errorf("yields %d claims", got)
				}
			})
			seen++
		}
	}
	if seen < len(samples) {
		t.Errorf("%d samples of %d are there", seen, len(samples))
	}
}

// Claims that are rejected for an NPI are still read as far as they go.
func TestSamplesMeanWhatTheySay(t *testing.T) {
	read := func(name string) *x12.Claim {
		b, err := os.ReadFile(fixtures.Dir(t, "x12/"+name))
		if err != nil {
			t.Fatal(err)
		}
		return claims(t, parse(t, b), b, 0, 1)[0]
	}
	t.Run("dependent, pay-to address, two payers", func(t *testing.T) {
		c := read("837p/cob-claim-from-billing-provider-to-payer-a.edi").Claim
		if c.RelationshipCode != "19" || c.Patient.GetFirstName() != "TED" || c.Subscriber.GetMemberId() != "111223333" || !c.PayToDiffers ||
			len(c.OtherPayers) != 1 || c.OtherPayers[0].PayerSequence != "S" || c.OtherPayers[0].Adjudicated || len(c.Lines) != 3 || len(c.Lines[0].DiagnosisPointers) != 4 {
			t.Errorf("%v", c)
		}
	})
	t.Run("drug with tax and NDC", func(t *testing.T) {
		c := read("837p/drug-administered-in-the-physician-office.edi").Claim
		if c.Lines[1].Ndc != "00026063512" || c.Lines[1].SalesTaxCents != 337 || c.Lines[0].PlaceOfService != "11" || c.RenderingProvider.GetNpi() != "1122333341" {
			t.Errorf("%v", c)
		}
	})
	t.Run("institutional", func(t *testing.T) {
		c := read("837i/two-claims-for-the-same-provider.edi").Claim
		if c.FacilityType != "13" || c.FrequencyCode != "1" || c.Lines[0].RevenueCode != "0305" || c.Lines[1].QuantityMilli != 3000 || len(c.Diagnoses) != 3 || c.Dates[0].EndDate != "2005-03-15" {
			t.Errorf("%v", c)
		}
		in := c.Institutional
		if in.StatementFrom != "2005-03-15" || in.StatementThrough != "2005-03-15" || in.AdmissionType != "1" || in.AdmissionSource != "" ||
			in.PatientStatus != "01" || in.AttendingProvider.GetNpi() != "1122334455" || in.AttendingProvider.GetFirstName() != "JOHN" {
			t.Errorf("%v", in)
		}
	})
	t.Run("institutional codes", func(t *testing.T) {
		in := read("837i/837-institutional-claim.edi").Claim.Institutional
		if len(in.Occurrences) != 4 || in.Occurrences[1].Code != "A2" || in.Occurrences[1].StartDate != "1991-11-01" ||
			len(in.Values) != 1 || in.Values[0].Code != "A2" || in.Values[0].Hundredths != 1531 || len(in.ConditionCodes) != 1 || in.ConditionCodes[0] != "09" {
			t.Errorf("%v", in)
		}
	})
}

// The three levels of balance, on advices that others made.
func TestSampleAdvicesBalanceOrDont(t *testing.T) {
	for name, want := range map[string]string{
		"835/835-with-plb.edi": "", "835/dollars-and-data-sent-together.edi": "", "835/secondary-payments.edi": "",
		"835/era-sample.edi": "", "835/multiple-claims-single-check.edi": "",
		"negative/835-imbalance.edi": "x12.835.line-balance x12.835.claim-balance",
	} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(fixtures.Dir(t, "x12/"+name))
			if err != nil {
				t.Fatal(err)
			}
			advices, err := x12.ParseAdvice(bytes.NewReader(b), x12.Limits{})
			if err != nil || len(advices) != 1 {
				t.Fatalf("%d advices, %v", len(advices), err)
			}
			var got []string
			for _, p := range x12.CheckBalance835(advices[0]) {
				got = append(got, p.RuleID)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("found %v, want %q", got, want)
			}
		})
	}
}
