package claims

import (
	"testing"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

const hospital = "1245319599"

// outpatient is a hospital's claim of $600.00 for two services of a day.
func outpatient(change ...func(*claimsv1.Claim)) *claimsv1.Claim {
	c := visit(0, "", func(c *claimsv1.Claim) {
		c.Form, c.PlaceOfService, c.FacilityType, c.ChargeCents = claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL, "", "13", 60000
		c.BillingProvider.Npi = hospital
		c.Institutional = &claimsv1.Institutional{
			StatementFrom: "2026-02-20", StatementThrough: "2026-02-20", PatientStatus: "01", AttendingProvider: &claimsv1.Provider{Npi: biller},
		}
		for i, l := range []*claimsv1.ServiceLine{{RevenueCode: "0510", Procedure: "99214", ChargeCents: 20000}, {RevenueCode: "0510", Procedure: "99215", ChargeCents: 40000}} {
			l.Number, l.ProcedureQualifier, l.UnitCode, l.QuantityMilli = uint32(i+1), "HC", "UN", 1000
			if i == 0 {
				c.Lines = nil
			}
			c.Lines = append(c.Lines, l)
		}
	})
	for _, f := range change {
		f(c)
	}
	return c
}

// What is published reaches the engine: a facility's rate prices an 837I
// claim, and a claim without its institutional part is told what it lacks.
func TestAFacilitysRatePricesAnInstitutionalClaim(t *testing.T) {
	w := newWorld(t, 1)
	w.append("contract", &eventsv1.ContractPublished{Version: 1, Contract: &policiesv1.ProviderContract{
		ContractId: "ctr_hospital", PayerId: payer, Npis: []string{hospital}, Effective: &typev1.Period{StartDate: "2026-01-01"}, FeeScheduleId: "fs_acme",
		FacilityRates: []*policiesv1.FacilityRate{{
			Name: "clinic", TypesOfBill: []string{"13"}, RevenueCodes: []string{"0510-0519"}, Method: &policiesv1.FacilityRate_PercentOfChargeBps{PercentOfChargeBps: 4000},
		}},
	}})
	w.caughtUp(w.Service)

	bare := w.submit(lakeside(), "bare", outpatient(func(c *claimsv1.Claim) {
		c.Institutional, c.Dates = nil, []*claimsv1.ClaimDate{{Qualifier: "434", StartDate: "2026-02-20"}}
	}))
	require.Equal(t, "denied", statusOf(bare))
	require.Equal(t, "institutional.patient_status", bare.Decision.Lines[0].Adjustments[0].RuleId)

	res := w.submit(lakeside(), "whole", outpatient())
	require.Equal(t, "paid", statusOf(res))
	d := res.Decision
	require.EqualValues(t, 8000+16000, d.AllowedCents) // 40 % of 200.00 and of 400.00
	require.EqualValues(t, 24000-10000-2800, d.PaidCents)
	require.Equal(t, "facilityRates.clinic", d.Lines[0].Adjustments[0].Clause)
	require.Equal(t, "4000", d.Lines[0].Adjustments[0].Facts["charge_bps"])

	again := w.submit(lakeside(), "again", outpatient())
	require.Equal(t, "denied", statusOf(again))
	require.Equal(t, []string{"OA-18"}, again.Claim.Codes)
}

// A line of revenue code alone is known again: its history names the code.
func TestAnInstitutionalLineWithoutProcedureIsRemembered(t *testing.T) {
	room := outpatient(func(c *claimsv1.Claim) { c.Lines[0].Procedure = "" })
	in := engineClaim(room, 740000)
	require.Equal(t, "131", in.TypeOfBill)
	require.EqualValues(t, -1, in.CoveredDays)
	require.Equal(t, in.StatementFrom, in.Lines[0].ServiceDate)
}

// What the payer knows of a provider raises a doubt, and the doubt says what.
func TestAServiceAfterTheProvidersDeathWaits(t *testing.T) {
	w := newWorld(t, 1)
	w.append("provider", &eventsv1.ProviderStatusRecorded{PayerId: payer, Npi: biller, DeceasedOn: "2026-02-19"})
	w.caughtUp(w.Service)
	res := w.submit(lakeside(), "late", visit(0, "2026-02-20"))
	require.Equal(t, "pended", statusOf(res))
	reason := res.Claim.PendReasons[0]
	require.Equal(t, "signal.deceased_provider", reason.RuleId)
	require.Equal(t, map[string]string{"provider_died_date": "2026-02-19"}, reason.Facts)

	before := w.submit(lakeside(), "before", visit(0, "2026-02-19"))
	require.Equal(t, "paid", statusOf(before))
}

// A provider's day is added up over families: the claim that makes it longer
// than a day waits and names the minutes of the others, a replacement counts
// in place of its original, and every decision can be made again.
func TestAnImpossibleDayIsSeenOverFamilies(t *testing.T) {
	w := newWorld(t, 4)
	w.append("plan", &eventsv1.FeeSchedulePublished{Version: 1, FeeSchedule: &policiesv1.FeeSchedule{
		FeeScheduleId: "fs_timed", Effective: &typev1.Period{StartDate: "2026-01-01"}, Fees: []*policiesv1.Fee{{Procedure: "99213", AmountCents: 10000, TypicalMinutes: 600}},
	}})
	w.append("contract", &eventsv1.ContractPublished{Version: 1, Contract: &policiesv1.ProviderContract{
		ContractId: "ctr_timed", PayerId: payer, Npis: []string{hospital}, Effective: &typev1.Period{StartDate: "2026-01-01"}, FeeScheduleId: "fs_timed",
	}})
	w.caughtUp(w.Service)
	session := func(family int) *claimsv1.Claim {
		return visit(family, "2026-02-20", func(c *claimsv1.Claim) { c.BillingProvider.Npi = hospital })
	}
	first := w.submit(lakeside(), "first", session(0))
	require.Equal(t, "paid", statusOf(first))
	w.settled()
	require.Equal(t, "paid", statusOf(w.submit(lakeside(), "second", session(1)))) // 1200 minutes
	w.settled()
	third := w.submit(lakeside(), "third", session(2))
	require.Equal(t, "pended", statusOf(third))
	reason := third.Claim.PendReasons[0]
	require.Equal(t, "signal.impossible_day", reason.RuleId)
	require.Equal(t, map[string]string{"claim_minutes": "600", "other_minutes": "1200"}, reason.Facts)
	replayed(t, w)

	// The first is voided: its minutes leave the day.
	void := session(0)
	void.FrequencyCode, void.OriginalClaimNumber = "8", first.Claim.ClaimId
	require.Equal(t, "reversed", statusOf(w.submit(lakeside(), "void", void)))
	w.settled()
	require.Equal(t, "paid", statusOf(w.submit(lakeside(), "fourth", session(3))))
	replayed(t, w)

	for _, r := range w.events() {
		if e, ok := r.Event.(*eventsv1.ClaimDecided); ok {
			for _, d := range e.GetProviderDays() {
				require.NotContains(t, d.GetKey(), hospital)
				require.NotContains(t, d.GetKey(), "2026")
			}
		}
	}
}
