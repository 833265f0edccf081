package generate

import (
	"fmt"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// PayerID is the generated payer's: NM109 of loop 2010BB.
const (
	PayerID   = "HARBORLINE"
	PayerName = "HARBORLINE HEALTH"
)

// Ids of the documents.
const (
	planPPO, planHDHP, planHMO, planSenior = "plan_h_ppo", "plan_h_hdhp", "plan_h_hmo", "plan_h_senior"

	networkHMO = "net_h_hmo"

	feesStandard, feesPrimary, feesFacility = "fs_h_standard", "fs_h_primary", "fs_h_facility"
)

// Ids of the plans' own rules.
const (
	RuleWaiting = "equipment_waiting"
	RuleSpinal  = "spinal_only"
)

// filingDays of the plans, which the stories of late claims know.
var filingDays = map[string]int{planPPO: 365, planHDHP: 180, planHMO: 120, planSenior: 365}

// Documents are what the payer publishes, in the order in which their parts
// refer to each other. Members and authorisations come with the families.
type Documents struct {
	FeeSchedules []*policiesv1.FeeSchedule
	Plans        []*policiesv1.PlanDocument
	Contracts    []*policiesv1.ProviderContract
	Policies     []*policiesv1.Policy
	Networks     []*policiesv1.ProviderNetwork
	Edits        []EditTable
}

// Documents of the world.
func (w *World) Documents() Documents {
	from := w.begin()
	return Documents{Networks: []*policiesv1.ProviderNetwork{w.network(from)}, FeeSchedules: w.feeSchedules(from), Plans: plans(from), Contracts: w.contracts(from), Policies: policies(from), Edits: w.editTables()}
}

// begin is the first day of everything published: two years before the year of receipt.
func (w *World) begin() *typev1.Period {
	return &typev1.Period{StartDate: fmt.Sprintf("%d-01-01", w.year-2)}
}

func share(individual, family int64, kind string, bps uint32, capIndividual, capFamily int64) *policiesv1.CostShare {
	return &policiesv1.CostShare{
		DeductibleIndividualCents: individual, DeductibleFamilyCents: family, DeductibleKind: kind, CoinsuranceBps: bps,
		OutOfPocketIndividualCents: capIndividual, OutOfPocketFamilyCents: capFamily,
	}
}

func codes(ranges ...string) *policiesv1.ServiceMatch {
	return &policiesv1.ServiceMatch{Procedures: ranges}
}

// benefits that every plan has in one form or another.
func benefits(visitCopay, specialistCopay, therapyCopay int64) []*policiesv1.Benefit {
	return []*policiesv1.Benefit{
		{Name: "preventive", Match: codes("99381-99397", "90460-90474", "77067", "G0438-G0439"), Covered: true, DeductibleWaived: true, UseCoinsurance: true, CoinsuranceOutBps: 4000},
		{Name: "consultation", Match: codes("99242-99245"), Covered: true, CopayInCents: specialistCopay, Specialist: true},
		{Name: "office_visit", Match: codes("99202-99215"), Covered: true, CopayInCents: visitCopay},
		{Name: "inpatient", Match: &policiesv1.ServiceMatch{RevenueCodes: []string{"0100-0219"}}, Covered: true, CopayInCents: visitCopay * 10},
		{Name: "emergency_room", Match: &policiesv1.ServiceMatch{RevenueCodes: []string{"0450-0459"}}, Covered: true, CopayInCents: 25000, CopayOutCents: 25000},
		{Name: "emergency_physician", Match: codes("99281-99285"), Covered: true},
		{Name: "cosmetic", Match: codes("15775-15776", "15820-15823", "17380"), Covered: false},
		{Name: "advanced_imaging", Match: codes("70540-70559", "72141-72158", "73218-73223", "73718-73723"), Covered: true, PriorAuthorization: true},
		{Name: "imaging", Match: codes("70010-76499", "76506-79999"), Covered: true},
		{Name: "ultrasound", Match: codes("76500-76505", "76700-76999"), Covered: true},
		{Name: "laboratory", Match: codes("80047-89398", "36415"), Covered: true},
		{Name: "therapy", Match: codes("97010-97799"), Covered: true, CopayInCents: therapyCopay, VisitsPerYear: 12},
		{Name: "chiropractic", Match: codes("98940-98942"), Covered: true, DeductibleWaived: true, DollarsPerYearCents: 20000, UseCoinsurance: true, CoinsuranceInBps: 3000, CoinsuranceOutBps: 5000},
		{Name: "behavioral", Match: codes("90785-90899"), Covered: true, CopayInCents: visitCopay},
		{Name: "equipment", Match: codes("E0100-E9999", "A4000-A8999", "L0100-L9999"), Covered: true, LifetimeCents: 150000},
		{Name: "surgery", Match: codes("10004-69990"), Covered: true},
		{Name: "supplies", Match: &policiesv1.ServiceMatch{RevenueCodes: []string{"0250-0279"}}, Covered: true},
		{Name: "other", Covered: true},
	}
}

func plans(from *typev1.Period) []*policiesv1.PlanDocument {
	ppo := &policiesv1.PlanDocument{
		PlanId: planPPO, Name: "Harborline PPO", PlanYear: "calendar",
		InNetwork:    share(50000, 100000, "embedded", 2000, 400000, 800000),
		OutOfNetwork: share(150000, 300000, "embedded", 4000, 1000000, 2000000), OutOfNetworkAllowedBps: 7000,
		FeeScheduleId: feesStandard, MultipleProcedureBps: 5000, ReviewAboveCents: 2500000, Benefits: benefits(3000, 5000, 2500),
	}
	hdhp := &policiesv1.PlanDocument{
		PlanId: planHDHP, Name: "Harborline Saver", PlanYear: "calendar",
		InNetwork:    share(160000, 320000, "aggregate", 1000, 450000, 700000),
		OutOfNetwork: share(320000, 640000, "aggregate", 3500, 0, 0), OutOfNetworkAllowedBps: 6000,
		FeeScheduleId: feesStandard, MultipleProcedureBps: 5000, ReviewAboveCents: 2500000, Benefits: benefits(0, 0, 0),
	}
	// The saver plan pays nothing twice, and lists what needs an authorisation
	// rather than marking the benefit.
	hdhp.Coordination = &policiesv1.CoordinationRules{Method: "carve_out"}
	for _, b := range hdhp.GetBenefits() {
		if b.GetPriorAuthorization() {
			b.PriorAuthorization = false
			hdhp.PriorAuthorizationProcedures = append(hdhp.PriorAuthorizationProcedures, b.GetMatch().GetProcedures()...)
		}
	}
	hdhp.PriorAuthorizationProcedures = append(hdhp.PriorAuthorizationProcedures, "E0601")
	hmo := &policiesv1.PlanDocument{
		PlanId: planHMO, Name: "Harborline HMO", PlanYear: "coverage",
		InNetwork:     share(0, 0, "embedded", 1000, 250000, 500000),
		FeeScheduleId: feesPrimary, ReferralRequired: true, ReviewAboveCents: 1500000, Benefits: benefits(1500, 4000, 1500),
	}
	// Its network is narrower than its contracts: see World.network.
	hmo.Networks = []*policiesv1.PlanNetwork{{NetworkId: networkHMO, Tiers: []string{"primary", "specialist"}}}
	// Its specialists cost more: a deductible that the rest of it has not, and
	// for some benefits shares of their own.
	hmo.Tiers = []*policiesv1.CostShareTier{{
		Name: "specialists", Participants: []*policiesv1.PlanNetwork{{NetworkId: networkHMO, Tiers: []string{"specialist"}}},
		CostShare: share(20000, 50000, "embedded", 2500, 300000, 600000),
	}}
	for _, b := range hmo.GetBenefits() {
		b.CopayOutCents, b.CoinsuranceOutBps = 0, 0
		switch {
		case b.GetCopayInCents() > 0:
			b.Tiers = []*policiesv1.BenefitTier{{Tier: "specialists", CopayCents: b.GetCopayInCents() + b.GetCopayInCents()/2}}
		case b.GetCoinsuranceInBps() > 0:
			b.Tiers = []*policiesv1.BenefitTier{{Tier: "specialists", CoinsuranceBps: b.GetCoinsuranceInBps() + 500}}
		}
	}
	senior := &policiesv1.PlanDocument{
		PlanId: planSenior, Name: "Harborline Senior", PlanYear: "calendar",
		InNetwork:    share(24000, 0, "embedded", 2000, 670000, 0),
		OutOfNetwork: share(24000, 0, "embedded", 3000, 0, 0), OutOfNetworkAllowedBps: 10000,
		FeeScheduleId: feesStandard, MultipleProcedureBps: 5000, SequestrationBps: 200, Benefits: benefits(0, 0, 0),
	}
	ppo.Rules = []*policiesv1.PlanRule{{
		Id: RuleWaiting, Clause: "Equipment is covered from the 600th day of coverage on.", When: "coverage.days < 600", Benefits: []string{"equipment"}, GroupCode: "PR", Carc: "179",
	}}
	hdhp.Rules = []*policiesv1.PlanRule{{
		Id: RuleSpinal, Clause: "Chiropractic care is covered for segmental dysfunction (M99) only.",
		When: "!line.diagnoses.exists(d, d.startsWith('M99'))", Benefits: []string{"chiropractic"}, GroupCode: "PR", Carc: "167",
	}}
	all := []*policiesv1.PlanDocument{ppo, hdhp, hmo, senior}
	for _, p := range all {
		p.PayerId, p.Effective, p.TimelyFilingDays = PayerID, from, uint32(filingDays[p.GetPlanId()])
	}
	return all
}

func policies(from *typev1.Period) []*policiesv1.Policy {
	var out []*policiesv1.Policy
	for i, plan := range []string{planPPO, planHDHP, planHMO, planSenior} {
		out = append(out, &policiesv1.Policy{PolicyId: policyOf(plan), PayerId: PayerID, PlanId: plan, GroupNumber: fmt.Sprintf("HB-%04d", i+1), Effective: from})
	}
	return out
}

func policyOf(plan string) string { return "pol_" + plan[len("plan_"):] }

// feeSchedules price what the specialties do, some services by modifier or
// not at all, so that every way of pricing occurs.
func (w *World) feeSchedules(from *typev1.Period) []*policiesv1.FeeSchedule {
	standard := &policiesv1.FeeSchedule{FeeScheduleId: feesStandard, DefaultBpsOfCharge: 5500}
	primary := &policiesv1.FeeSchedule{FeeScheduleId: feesPrimary} // what it doesn't list has no price: CO-147
	facility := &policiesv1.FeeSchedule{FeeScheduleId: feesFacility, DefaultBpsOfCharge: 4250}
	have := map[string]bool{}
	for _, s := range specialties {
		for i, v := range append(append([]service{}, s.visits...), s.extras...) {
			if v.code == "" || have[v.code] {
				continue
			}
			have[v.code] = true
			// Shares of the charge that make odd cents.
			amount := v.charge * int64(52+7*(i%5)) / 97
			if v.base > 0 {
				// The conversion factor of a unit; a plan of the poor has another.
				standard.Fees = append(standard.Fees, &policiesv1.Fee{Procedure: v.code, AmountCents: 61_37, BaseUnits: uint32(v.base)})
				primary.Fees = append(primary.Fees, &policiesv1.Fee{Procedure: v.code, AmountCents: 48_11, BaseUnits: uint32(v.base)})
				continue
			}
			fee := &policiesv1.Fee{Procedure: v.code, AmountCents: amount, Surgical: v.surgical, MaxUnits: uint32(v.maxUnits)}
			switch {
			case s.hospital:
				facility.Fees = append(facility.Fees, fee)
				continue
			case v.code == "82306":
				continue // by default: a share of the charge
			}
			standard.Fees = append(standard.Fees, fee)
			if v.code != "92551" {
				primary.Fees = append(primary.Fees, &policiesv1.Fee{Procedure: v.code, AmountCents: amount * 9 / 10, Surgical: v.surgical, MaxUnits: uint32(v.maxUnits)})
			}
		}
	}
	standard.Fees = append(standard.Fees, &policiesv1.Fee{Procedure: "73721", Modifier: "26", AmountCents: 91_37}, &policiesv1.Fee{Procedure: "71046", Modifier: "26", AmountCents: 11_11})
	all := []*policiesv1.FeeSchedule{standard, primary, facility}
	for _, f := range all {
		f.PayerId, f.Effective = PayerID, from
	}
	return all
}

// contracts: one a specialty, with its clinicians; two price at a share of the
// schedule, the HMO has schedules of its own, one group is paid by the head.
func (w *World) contracts(from *typev1.Period) []*policiesv1.ProviderContract {
	var out []*policiesv1.ProviderContract
	bySpecialty := map[int][]string{}
	var capitated []string
	for _, p := range w.providers {
		numbers := []string{p.npi}
		if p.rendering != "" {
			numbers = append(numbers, p.rendering)
		}
		switch p.contract {
		case "in":
			bySpecialty[p.specialty] = append(bySpecialty[p.specialty], numbers...)
		case "capitated":
			capitated = append(capitated, numbers...)
		}
	}
	for s, kind := range specialties {
		schedule := feesStandard
		if kind.hospital {
			schedule = feesFacility
		}
		c := &policiesv1.ProviderContract{ContractId: fmt.Sprintf("ctr_h_%02d", s), PayerId: PayerID, Npis: bySpecialty[s], Effective: from, FeeScheduleId: schedule}
		switch s % 4 {
		case 1:
			c.FeeBps = 9250
		case 3:
			c.FeeBps = 11000
		}
		if kind.hospital {
			c.FacilityRates = facilityRates()
		}
		out = append(out, c)
		if !kind.hospital && s%2 == 0 {
			out = append(out, &policiesv1.ProviderContract{ContractId: fmt.Sprintf("ctr_h_%02d_hmo", s), PayerId: PayerID, Npis: bySpecialty[s], Effective: from,
				FeeScheduleId: feesPrimary, PlanIds: []string{planHMO}})
		}
	}
	return append(out, &policiesv1.ProviderContract{ContractId: "ctr_h_headland", PayerId: PayerID, Npis: capitated, Effective: from,
		FeeScheduleId: feesPrimary, PlanIds: []string{planHMO}, Capitated: true})
}

// facilityRates of the hospitals' contract: stays by group or by the day,
// outpatient imaging by a share of the charge, anything else by the schedule.
func facilityRates() []*policiesv1.FacilityRate {
	groups := &policiesv1.CaseRate{BaseCents: 6123_45}
	for _, g := range []struct {
		drg    string
		weight uint32
	}{{"470", 19876}, {"419", 13012}, {"392", 7631}} {
		groups.Weights = append(groups.Weights, &policiesv1.GroupWeight{Drg: g.drg, Weight: g.weight})
	}
	return []*policiesv1.FacilityRate{
		{Name: "groups", TypesOfBill: []string{"11"}, Method: &policiesv1.FacilityRate_CaseRate{CaseRate: groups}},
		{Name: "intensive_per_diem", TypesOfBill: []string{"11"}, RevenueCodes: []string{"0200-0219"}, Method: &policiesv1.FacilityRate_PerDiemCents{PerDiemCents: 2212_34}},
		{Name: "medical_per_diem", TypesOfBill: []string{"11"}, RevenueCodes: []string{"0100-0169"}, Method: &policiesv1.FacilityRate_PerDiemCents{PerDiemCents: 1388_88}},
		{Name: "imaging_share", TypesOfBill: []string{"13"}, RevenueCodes: []string{"0320-0329"}, Method: &policiesv1.FacilityRate_PercentOfChargeBps{PercentOfChargeBps: 3850}},
	}
}

// network of the HMO. Of each specialty's contracted providers the first is in
// by number; the second by tax id, but joined in the midst of the services;
// the third is in a tier that the plan doesn't take, for some specialties.
func (w *World) network(from *typev1.Period) *policiesv1.ProviderNetwork {
	n := &policiesv1.ProviderNetwork{NetworkId: networkHMO, Name: "Harborline Select", PayerId: PayerID, Effective: from, Tiers: []string{"primary", "specialist", "reserve"}}
	seen := map[int]int{}
	for _, p := range w.providers {
		i := seen[p.specialty]
		seen[p.specialty]++
		part := &policiesv1.NetworkParticipant{Npi: p.npi, Tier: "primary"}
		if specialties[p.specialty].referral {
			part.Tier = "specialist"
		}
		switch {
		case p.contract == "":
			continue
		case i == 1:
			part.Npi, part.Tin = "", p.taxID
			if p.specialty%4 == 0 {
				part.Participates = &typev1.Period{StartDate: w.day((oldest + youngest) / 2)}
			}
		case i == 2 && p.specialty%5 == 0:
			part.Tier = "reserve"
		case i == 2 && p.specialty%5 == 1:
			part.Npi = p.rendering
			if part.Npi == "" {
				part.Npi = p.npi
			}
		}
		n.Participants = append(n.Participants, part)
	}
	return n
}
