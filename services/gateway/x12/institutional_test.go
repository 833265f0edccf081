package x12_test

import (
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/gateway/x12/x12test"
)

// A stay with everything that institutional claims say is read whole.
func TestAStayIsReadWhole(t *testing.T) {
	b := x12test.Interchange("000000905", "837", "005010X223A2", x12test.Stay())
	f := parse(t, b)
	if got := f.Problems(); len(got) > 0 || f.ClaimCount != 1 {
		t.Fatalf("%d claims, problems %v", f.ClaimCount, got)
	}
	c := claims(t, f, b, 0, 1)[0].Claim
	if err := protovalidate.Validate(c); err != nil {
		t.Errorf("the claim breaks its message's own rules: %v", err)
	}
	person := func(first, last, npi, taxonomy string) *claimsv1.Provider {
		return &claimsv1.Provider{Npi: npi, Name: last, FirstName: first, IsPerson: true, Taxonomy: taxonomy}
	}
	want := &claimsv1.Institutional{
		StatementFrom: "2026-11-01", StatementThrough: "2026-11-04", AdmissionDate: "2026-11-01", AdmissionTime: "0815", DischargeTime: "1130",
		AdmissionType: "1", AdmissionSource: "7", PatientStatus: "01", Drg: "470",
		AttendingProvider:      person("MARC", "WELBY", "1234567893", "207X00000X"),
		OperatingProvider:      person("JAMES", "KILDARE", "1245319599", ""),
		OtherOperatingProvider: person("GREG", "HOUSE", "1245319599", ""),
		AdmittingDiagnosis:     &claimsv1.Diagnosis{Code: "M25561", Qualifier: "ABJ"},
		ExternalCauses:         []*claimsv1.Diagnosis{{Code: "W1830XA", Qualifier: "ABN", PresentOnAdmission: "N"}},
		Procedures: []*claimsv1.InstitutionalProcedure{
			{Code: "0SRD0J9", Qualifier: "BBR", Date: "2026-11-01"}, {Code: "3E0T3BZ", Qualifier: "BBQ", Date: "2026-11-01"},
		},
		ConditionCodes:  []string{"38"},
		Occurrences:     []*claimsv1.Occurrence{{Code: "11", StartDate: "2026-10-20"}},
		OccurrenceSpans: []*claimsv1.Occurrence{{Code: "74", StartDate: "2026-11-02", EndDate: "2026-11-03"}},
		Values:          []*claimsv1.ValueCode{{Code: "80", Hundredths: 300}, {Code: "01", Hundredths: 120000}},
	}
	if diff := cmp.Diff(want, c.Institutional, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(c.Diagnoses) != 3 || c.Diagnoses[0].PresentOnAdmission != "Y" || c.Diagnoses[2].PresentOnAdmission != "W" || c.FacilityType != "11" {
		t.Errorf("%v", c.Diagnoses)
	}
	if l := c.Lines[1]; l.NoncoveredCents != 100_00 || l.ServiceDate != "2026-11-01" || c.Lines[0].UnitCode != "DA" || c.Lines[0].QuantityMilli != 3000 {
		t.Errorf("%v", c.Lines)
	}
}

func TestUnsoundInstitutionalCodesRejectTheClaim(t *testing.T) {
	for name, c := range map[string]struct{ from, to, rule string }{
		"a value in parts of a cent":  {"BE:80:::3", "BE:80:::3.001", "x12.amount.range"},
		"a negative value":            {"BE:80:::3", "BE:80:::-3", "x12.amount.range"},
		"a condition of three":        {"HI*BG:38", "HI*BG:381", "x12.institutional.code"},
		"negative not covered":        {"UN*1**100", "UN*1**-100", "x12.amount.range"},
		"an admission without a day":  {"DTP*435*DT*202611010815", "DTP*435*DT*202613010815", "x12.element.date"},
		"a period that runs backward": {"20261101-20261104", "20261104-20261101", "x12.element.date"},
	} {
		t.Run(name, func(t *testing.T) {
			b := []byte(strings.Replace(string(x12test.Interchange("000000905", "837", "005010X223A2", x12test.Stay())), c.from, c.to, 1))
			f := parse(t, b)
			if f.RejectedClaims != 1 || !has(rules(f), c.rule) {
				t.Errorf("%d rejected, %v", f.RejectedClaims, f.Problems())
			}
		})
	}
}
