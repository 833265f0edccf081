package policies

import (
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/money"
)

// Documents in the engine's terms. Whoever checks a document and whoever
// decides claims with it compile it here, so that what was published is what
// the engine takes.

// CompilePlan compiles one version of a plan; ref names it in decisions.
func CompilePlan(d *policiesv1.PlanDocument, ref string) (*adjudication.Plan, error) {
	return adjudication.CompilePlan(planSpec(d, ref))
}

func planSpec(d *policiesv1.PlanDocument, ref string) adjudication.PlanSpec {
	spec := adjudication.PlanSpec{
		ID:                     d.GetPlanId(),
		Version:                ref,
		CoverageYear:           d.GetPlanYear() == "coverage",
		TimelyFilingDays:       int64(d.GetTimelyFilingDays()),
		InNetwork:              costShare(d.GetInNetwork()),
		OutOfNetworkAllowedBps: int64(d.GetOutOfNetworkAllowedBps()),
		FeeScheduleID:          d.GetFeeScheduleId(),
		ReferralRequired:       d.GetReferralRequired(),
		MultipleProcedureBps:   int64(d.GetMultipleProcedureBps()),
		ReviewAbove:            money.Cents(d.GetReviewAboveCents()),
		SequestrationBps:       int64(d.GetSequestrationBps()),
		Coordination:           adjudication.Coordination(d.GetCoordination().GetMethod()),

		PriorAuthorizationProcedures: d.GetPriorAuthorizationProcedures(),

		AwaitOtherPayer: d.GetAwaitOtherPayer(), AwaitAuthorization: d.GetAwaitPriorAuthorization(),
	}
	if r := d.GetSecondReviewer(); r != nil {
		spec.SecondReviewer = &adjudication.SecondReviewer{From: money.Cents(r.GetFromCents()), Never: r.GetNever()}
	}
	if d.GetOutOfNetwork() != nil {
		out := costShare(d.GetOutOfNetwork())
		spec.OutOfNetwork = &out
	}
	for _, b := range d.GetBenefits() {
		spec.Benefits = append(spec.Benefits, benefitSpec(b))
	}
	for _, use := range d.GetNetworks() {
		spec.Networks = append(spec.Networks, adjudication.NetworkUse{ID: use.GetNetworkId(), Tiers: use.GetTiers()})
	}
	for _, t := range d.GetTiers() {
		tier := adjudication.Tier{Name: t.GetName(), Share: costShare(t.GetCostShare())}
		for _, use := range t.GetParticipants() {
			tier.Participants = append(tier.Participants, adjudication.NetworkUse{ID: use.GetNetworkId(), Tiers: use.GetTiers()})
		}
		spec.Tiers = append(spec.Tiers, tier)
	}
	for _, rule := range d.GetRules() {
		spec.Rules = append(spec.Rules, ruleSpec(rule))
	}
	return spec
}

func benefitSpec(b *policiesv1.Benefit) adjudication.Benefit {
	out := adjudication.Benefit{
		Name:               b.GetName(),
		Procedures:         b.GetMatch().GetProcedures(),
		PlacesOfService:    b.GetMatch().GetPlacesOfService(),
		RevenueCodes:       b.GetMatch().GetRevenueCodes(),
		Covered:            b.GetCovered(),
		CopayIn:            money.Cents(b.GetCopayInCents()),
		CopayOut:           money.Cents(b.GetCopayOutCents()),
		DeductibleWaived:   b.GetDeductibleWaived(),
		CoinsuranceInBps:   int64(b.GetCoinsuranceInBps()),
		CoinsuranceOutBps:  int64(b.GetCoinsuranceOutBps()),
		UseCoinsurance:     b.GetUseCoinsurance(),
		VisitsPerYear:      int64(b.GetVisitsPerYear()),
		DollarsPerYear:     money.Cents(b.GetDollarsPerYearCents()),
		LifetimeDollars:    money.Cents(b.GetLifetimeCents()),
		PriorAuthorization: b.GetPriorAuthorization(),
		DocumentRequired:   b.GetDocumentRequired(),
		DiagnosisPrefixes:  b.GetDiagnosisPrefixes(),
		Specialist:         b.GetSpecialist(),
		Review:             b.GetReview(),
	}
	for _, t := range b.GetTiers() {
		out.Tiers = append(out.Tiers, adjudication.BenefitTier{Tier: t.GetTier(), Copay: money.Cents(t.GetCopayCents()), CoinsuranceBps: int64(t.GetCoinsuranceBps())})
	}
	return out
}

func ruleSpec(rule *policiesv1.PlanRule) adjudication.PlanRuleSpec {
	return adjudication.PlanRuleSpec{
		ID: rule.GetId(), Clause: rule.GetClause(), When: rule.GetWhen(), Benefits: rule.GetBenefits(), Pend: rule.GetPend(),
		Group: rule.GetGroupCode(), CARC: rule.GetCarc(), RARC: rule.GetRarc(),
	}
}

func costShare(c *policiesv1.CostShare) adjudication.CostShare {
	return adjudication.CostShare{
		DeductibleIndividual:  money.Cents(c.GetDeductibleIndividualCents()),
		DeductibleFamily:      money.Cents(c.GetDeductibleFamilyCents()),
		AggregateDeductible:   c.GetDeductibleKind() == "aggregate",
		CoinsuranceBps:        int64(c.GetCoinsuranceBps()),
		OutOfPocketIndividual: money.Cents(c.GetOutOfPocketIndividualCents()),
		OutOfPocketFamily:     money.Cents(c.GetOutOfPocketFamilyCents()),
	}
}

// CompileFeeSchedule compiles one version of a fee schedule for the days it governs.
func CompileFeeSchedule(d *policiesv1.FeeSchedule, ref string, governs adjudication.Period) (*adjudication.FeeSchedule, error) {
	spec := adjudication.FeeScheduleSpec{
		ID: d.GetFeeScheduleId(), Version: ref, Period: governs,
		Fees: make([]adjudication.Fee, 0, len(d.GetFees())), DefaultBpsOfCharge: int64(d.GetDefaultBpsOfCharge()),
	}
	for _, f := range d.GetFees() {
		spec.Fees = append(spec.Fees, feeSpec(f))
	}
	return adjudication.CompileFeeSchedule(spec)
}

func feeSpec(f *policiesv1.Fee) adjudication.Fee {
	return adjudication.Fee{
		Procedure: f.GetProcedure(), Modifier: f.GetModifier(), Amount: money.Cents(f.GetAmountCents()), Surgical: f.GetSurgical(), MaxUnits: int64(f.GetMaxUnits()),
		BaseUnits: int64(f.GetBaseUnits()), TypicalMinutes: int64(f.GetTypicalMinutes()),
	}
}

// CompileContract compiles one version of a contract for the days it governs.
func CompileContract(d *policiesv1.ProviderContract, ref string, governs adjudication.Period) (*adjudication.Contract, error) {
	out := &adjudication.Contract{
		Version: ref, Period: governs, FeeScheduleID: d.GetFeeScheduleId(),
		FeeBps: int64(d.GetFeeBps()), PlanIDs: d.GetPlanIds(), Capitated: d.GetCapitated(),
	}
	for _, f := range d.GetFacilityRates() {
		rate, err := adjudication.CompileFacilityRate(facilityRate(f))
		if err != nil {
			return nil, err
		}
		out.FacilityRates = append(out.FacilityRates, rate)
	}
	return out, nil
}

func facilityRate(f *policiesv1.FacilityRate) adjudication.FacilityRateSpec {
	out := adjudication.FacilityRateSpec{
		Name: f.GetName(), TypesOfBill: f.GetTypesOfBill(), RevenueCodes: f.GetRevenueCodes(),
		PerDiem: money.Cents(f.GetPerDiemCents()), PercentOfChargeBps: int64(f.GetPercentOfChargeBps()),
	}
	if c := f.GetCaseRate(); c != nil {
		out.CaseBase, out.CaseWeights = money.Cents(c.GetBaseCents()), make(map[string]int64, len(c.GetWeights()))
		for _, w := range c.GetWeights() {
			out.CaseWeights[w.GetDrg()] = int64(w.GetWeight())
		}
	}
	return out
}
