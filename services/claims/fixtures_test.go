package claims

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/fixtures"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/money"
)

var update = flag.Bool("update", false, "write the golden explanations anew; read them before committing")

// Third-party 837 files, each as it was sent and again with provider numbers
// that pass their check digit, so that its money is decided.
//
// What was checked by hand in every golden, against shared/fixtures/codes and
// the plan below:
//   - every CARC and RARC is in carc.tsv and rarc.tsv, its meaning there is the
//     reason given here, and its group is one that X12 allows;
//   - line by line, charge = paid + adjustments, and the allowed amounts are
//     the fees below times units (ambulance: 21 miles at 7.00; drug by unit);
//   - the deductible of 50.00 is met once a claim, in the order of lines, and
//     coinsurance of 20 % comes from what is left;
//   - ambulance: A0382 is part of A0427 by the pair below, CO-97 with M15, and
//     A0425, charged under its fee, has no CO-45;
//   - anaesthesia: 61 minutes are 4.1 units, with 4 base units 8.1 at 20.00 are
//     162.00; QK halves it, the half being CO-59 (concurrent anaesthesia);
//   - chiropractic: out of network, so PR-45 and the 40 % tier;
//   - coordination: this payer is primary (SBR01 P), the other has not decided
//     and isn't waited for; a child of the subscriber;
//   - commercial: two visits on two days, each with its copay; 86663 is charged
//     below its fee;
//   - drug: J1550 has an NDC and tax inside its charge; the fee is above it;
//   - encounter: the provider is paid by the head, CO-24 on every line;
//   - repriced: fees equal the network's own prices in HCP02 (23.75 and 3.00);
//   - institutional, 1996: as sent its statement period isn't one and nobody's
//     number stands for who attends; mended, both lines are priced as
//     outpatient (type of bill 141), 93005 three times;
//   - institutional, two claims: 93010 is three units where the day's limit is
//     two, CO-151 with N362; the second claim has its own deductible here,
//     because each is decided on fresh accumulators.
func TestFixturesAreExplained(t *testing.T) {
	names := []string{
		"837p/ambulance", "837p/anesthesia", "837p/chiropractic", "837p/cob-claim-from-billing-provider-to-payer-a",
		"837p/commercial-health-insurance", "837p/drug-administered-in-the-physician-office", "837p/encounter", "837p/ppo-repriced-claim",
		"837i/837-institutional-claim", "837i/two-claims-for-the-same-provider",
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(fixtures.Dir(t, "x12/"+name+".edi"))
			require.NoError(t, err)
			var got strings.Builder
			got.WriteString("As sent\n")
			explainFixture(t, &got, name, raw)
			if better := mended(raw); !bytes.Equal(raw, better) {
				got.WriteString("\nWith provider numbers that pass their check digit\n")
				explainFixture(t, &got, name, better)
			}
			path := filepath.Join("testdata", "fixtures", strings.ReplaceAll(name, "/", "-")+".txt")
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(got.String()), 0o644))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(want), got.String())
		})
	}
}

// explainFixture writes what becomes of each claim: why it is turned back at
// the door, or its explanation.
func explainFixture(t *testing.T, to *strings.Builder, name string, raw []byte) {
	t.Helper()
	f, err := x12.ParseFile(bytes.NewReader(raw), x12.Limits{})
	require.NoError(t, err)
	n := 0
	for c, err := range f.Claims(bytes.NewReader(raw), 0, f.ClaimCount) {
		require.NoError(t, err)
		n++
		if f.RejectedClaims > 0 && len(c.Problems) > 0 {
			fmt.Fprintf(to, "claim %d: rejected before adjudication, no money is decided\n", n)
			for _, p := range c.Problems {
				fmt.Fprintf(to, "  277CA %s %s at %s\n", p.Code, p.RuleID, p.X12Path)
			}
			continue
		}
		in := fixtureInput(t, name, c)
		d := adjudication.Adjudicate(in)
		fmt.Fprintf(to, "claim %d: %s", n, d.Explain())
		codesAreKnown(t, &d)
	}
}

// codesAreKnown holds a decision's codes against the published lists.
func codesAreKnown(t *testing.T, d *adjudication.Decision) {
	t.Helper()
	listed := func(file, code string) bool {
		b, err := os.ReadFile(fixtures.Dir(t, "codes/"+file))
		require.NoError(t, err)
		return regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(code) + `(\t|$)`).Match(b)
	}
	for _, l := range d.Lines {
		for _, a := range l.Adjustments {
			require.True(t, listed("carc.tsv", a.CARC), "CARC %s", a.CARC)
			require.True(t, codes.GroupAllowed(a.Group, a.CARC), "%s-%s", a.Group, a.CARC)
			require.True(t, !codes.NeedsRemark(a.CARC) || len(a.RARCs) > 0, "CARC %s without a remark", a.CARC)
			for _, r := range a.RARCs {
				require.True(t, listed("rarc.tsv", r), "RARC %s", r)
			}
			require.True(t, a.Clause == "" || adjudication.ClauseWords(a.Clause) != a.Clause, "%s is no words", a.Clause)
		}
	}
}

// mended gives every named provider a number that passes its check digit, the
// attending one also where none was sent, and the one statement period that
// isn't a period its two ends.
func mended(raw []byte) []byte {
	number := regexp.MustCompile(`\*XX\*(\d{9,10})`)
	raw = number.ReplaceAllFunc(raw, func(m []byte) []byte {
		digits := m[len("*XX*"):]
		if codes.ValidNPI(string(digits)) {
			return m
		}
		nine := append([]byte("1"), digits[1:9]...)
		for check := byte('0'); check <= '9'; check++ {
			if npi := string(append(nine[:9:9], check)); codes.ValidNPI(npi) {
				return []byte("*XX*" + npi)
			}
		}
		return m
	})
	raw = bytes.Replace(raw, []byte("NM1*71*1*JONES*JOHN*J~"), []byte("NM1*71*1*JONES*JOHN*J***XX*1245319599~"), 1)
	return bytes.Replace(raw, []byte("RD8*19960911~"), []byte("RD8*19960911-19960911~"), 1)
}

// fixtureInput puts a claim into a small invented world: a plan that covers
// what the files bill, prices, two reference edits, and a member covered since
// 1990 who has used nothing.
func fixtureInput(t *testing.T, name string, c *x12.Claim) *adjudication.Input {
	t.Helper()
	from := adjudication.Period{Start: adjudication.DateOf(1990, 1, 1)}
	plan, err := adjudication.CompilePlan(adjudication.PlanSpec{
		ID: "plan_fixture", Version: "plan_fixture@1", TimelyFilingDays: 365, FeeScheduleID: "fs_fixture",
		InNetwork:    adjudication.CostShare{DeductibleIndividual: 50_00, DeductibleFamily: 100_00, CoinsuranceBps: 2000, OutOfPocketIndividual: 1000_00},
		OutOfNetwork: &adjudication.CostShare{DeductibleIndividual: 50_00, CoinsuranceBps: 4000},
		Benefits: []adjudication.Benefit{
			{Name: "office_visit", Procedures: []string{"99202-99215"}, Covered: true, CopayIn: 15_00},
			{Name: "ambulance", Procedures: []string{"A0021-A0999"}, Covered: true},
			{Name: "anaesthesia", Procedures: []string{"00100-01999"}, Covered: true},
			{Name: "chiropractic", Procedures: []string{"98940-98943"}, Covered: true, VisitsPerYear: 12},
			{Name: "injection", Procedures: []string{"90782", "J0120-J9999"}, Covered: true},
			{Name: "equipment", Procedures: []string{"A4206-A9999", "E0100-E9999"}, Covered: true},
			{Name: "diagnostics", Procedures: []string{"80047-89398", "93000-93010"}, Covered: true},
		},
	})
	require.NoError(t, err)
	fee := func(procedure string, amount money.Cents) adjudication.Fee {
		return adjudication.Fee{Procedure: procedure, Amount: amount}
	}
	fees, err := adjudication.CompileFeeSchedule(adjudication.FeeScheduleSpec{
		ID: "fs_fixture", Version: "fs_fixture@1", Period: from, DefaultBpsOfCharge: 8000,
		Fees: []adjudication.Fee{
			fee("A0427", 450_00), fee("A0425", 7_00), fee("A0422", 30_00), fee("A0382", 10_00),
			{Procedure: "00142", Amount: 20_00, BaseUnits: 4},
			fee("98940", 60_00), fee("99213", 35_00), fee("99214", 33_00), fee("90782", 12_00), fee("J3301", 7_00), fee("J1550", 60_00),
			fee("87070", 12_00), fee("86663", 11_00), fee("85025", 10_00), fee("93005", 20_00), fee("93010", 15_00),
			{Procedure: "E0570", Modifier: "RR", Amount: 23_75}, {Procedure: "A7003", Modifier: "NU", Amount: 3_00},
		},
	})
	require.NoError(t, err)
	b := adjudication.NewEdits("edits_fixture@1", from)
	require.NoError(t, b.Pair(adjudication.Pair{
		Setting: adjudication.Practitioner, Column1: "A0427", Column2: "A0382", Period: from, Indicator: adjudication.PairNever, Reason: adjudication.PairComponent,
	}))
	require.NoError(t, b.Limit(adjudication.UnitLimit{
		Setting: adjudication.OutpatientHospital, Procedure: "93010", Units: 2, Indicator: adjudication.LimitDayAppealable, Period: from,
	}))
	edits, err := b.Compile()
	require.NoError(t, err)

	var last adjudication.Date
	claim := engineClaim(c.Claim, 0)
	for _, l := range claim.Lines {
		last = max(last, l.ServiceDate, l.ServiceEndDate)
	}
	claim.ReceivedDate = last + 10
	in := &adjudication.Input{
		Claim: claim,
		Member: adjudication.Member{
			Match: adjudication.MatchOne, Subject: "sub_fixture", Subscriber: "sub_fixture", Relationship: c.Claim.GetRelationshipCode(),
			Coverage: []adjudication.Coverage{{Period: from, Plan: plan}},
		},
		FeeSchedules: []*adjudication.FeeSchedule{fees},
		Edits:        []*adjudication.Edits{edits},
		Versions:     adjudication.Versions{Coverage: "member-sub_fixture@1", AccumulatorsRevision: -1},
	}
	if name != "837p/chiropractic" {
		in.Contracts = []*adjudication.Contract{{Version: "ctr_fixture@1", Period: from, FeeScheduleID: "fs_fixture", Capitated: name == "837p/encounter"}}
	}
	return in
}
