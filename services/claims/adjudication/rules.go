package adjudication

// Rule is one reason for not paying, or for waiting: what the engine's
// explanations, the portal and the documentation call it by.
type Rule struct {
	ID    string // "<stage>.<rule>"
	Group string // CAS group of the cents it takes
	CARC  string
	RARC  string // empty: none needed
	// Pend is what a person must do; empty for a rule that decides by itself.
	Pend string
}

// rule indexes the table below.
type rule uint8

const (
	claimEmpty rule = iota
	claimNoReceipt
	claimLines
	claimTotal
	claimAmount
	adjustmentReplacement

	memberNotOurs
	memberNotFound
	memberAmbiguous

	eligibilityNotYet
	eligibilityTerminated
	eligibilityGap
	eligibilityNoPlan

	timelyLate
	timelyLateCorrection

	duplicateExact
	duplicateInClaim
	duplicateSuspected

	institutionalTypeOfBill
	institutionalStatement
	institutionalAdmissionDate
	institutionalAdmissionType
	institutionalAdmissionSource
	institutionalPatientStatus
	institutionalAttending
	institutionalAttendingInvalid
	institutionalOutside
	institutionalDays
	institutionalNoncovered

	completeServiceDate
	completeEndDate
	completeFuture
	completeUnits
	completeCharge
	completeProcedure
	completeProcedureCode
	completeRevenueCode
	completePlace
	completeModifierCode
	completeModifierPair
	completeDiagnosis
	completeDiagnosisCode

	providerNPIMissing
	providerNPIInvalid
	providerNPIUnknown
	providerRenderingInvalid
	providerNotCertified
	providerRenderingNotEligible
	networkNoVersion
	networkOut
	networkNoReferral

	benefitNone
	benefitNotCovered
	benefitDiagnosisPointer
	benefitNotNecessary

	authorizationAbsent // the next three in the order of how near they come
	authorizationCancelled
	authorizationNotInForce
	authorizationOtherProvider
	authorizationExceeded
	authorizationDocument
	authorizationAwaited

	unitsLine
	unitsDayAbsolute
	unitsDayAppealable

	pairIncompatible
	pairComponent
	pairExclusive

	planRuleFailed
	planRuleCost

	priceCapitated
	priceNoSchedule
	priceNoRate
	priceContractUnits
	priceAboveAllowed
	priceAboveAllowedOut
	priceIncluded
	priceMultipleProcedure
	priceConcurrentAnesthesia

	limitVisits
	limitDollars
	limitLifetime

	shareCopay
	shareDeductible
	shareCoinsurance

	cobNoPrimaryDecision
	cobAwaited
	cobPriorPayers

	sequestrationReduction

	reviewThreshold
	reviewBenefit

	signalUnbundled
	signalOtherProvider
	signalImpossibleDay
	signalDeceased
	signalInactive

	ruleCount
)

// rules is the one place where a rule meets its codes.
var rules = [ruleCount]Rule{
	claimEmpty:            {"claim.empty", "CO", "16", "M51", "The claim has no service lines; ask the provider for a complete one."},
	claimNoReceipt:        {"claim.receipt", "CO", "16", "MA130", "The day of receipt isn't known, so timely filing can't be judged; record it."},
	claimLines:            {"claim.lines", "CO", "16", "MA130", ""},
	claimTotal:            {"claim.total", "CO", "16", "M54", ""},
	claimAmount:           {"claim.amount", "CO", "16", "M79", ""},
	adjustmentReplacement: {"adjustment.replacement", "CO", "16", "N152", "The claim replaces or voids one that is not decided yet; decide that one first, then approve this one."},

	memberNotOurs:   {"member.not_ours", "CO", "109", "N418", ""},
	memberNotFound:  {"member.not_found", "PR", "31", "N382", ""},
	memberAmbiguous: {"member.ambiguous", "PR", "31", "N382", "Several members fit the patient; choose the one who is meant."},

	eligibilityNotYet:     {"eligibility.not_yet", "PR", "26", "N30", ""},
	eligibilityTerminated: {"eligibility.terminated", "PR", "27", "N30", ""},
	eligibilityGap:        {"eligibility.gap", "PR", "27", "N30", ""},
	eligibilityNoPlan:     {"eligibility.no_plan", "PR", "204", "N130", "The member is covered but no plan version governs the date of service; publish one."},

	timelyLate:           {"timely.late", "CO", "29", "", ""},
	timelyLateCorrection: {"timely.late_correction", "CO", "29", "", ""},

	duplicateExact:     {"duplicate.exact", "OA", "18", "N522", ""},
	duplicateInClaim:   {"duplicate.in_claim", "OA", "18", "N522", ""},
	duplicateSuspected: {"duplicate.suspected", "OA", "18", "N522", "The line differs in one point from a service already allowed; decide whether it is the same service."},

	institutionalTypeOfBill:       {"institutional.type_of_bill", "CO", "16", "MA30", ""},
	institutionalStatement:        {"institutional.statement_period", "CO", "16", "MA31", ""},
	institutionalAdmissionDate:    {"institutional.admission_date", "CO", "16", "MA40", ""},
	institutionalAdmissionType:    {"institutional.admission_type", "CO", "16", "MA41", ""},
	institutionalAdmissionSource:  {"institutional.admission_source", "CO", "16", "MA42", ""},
	institutionalPatientStatus:    {"institutional.patient_status", "CO", "16", "MA43", ""},
	institutionalAttending:        {"institutional.attending", "CO", "16", "N253", ""},
	institutionalAttendingInvalid: {"institutional.attending_npi_invalid", "CO", "207", "N253", ""},
	institutionalOutside:          {"institutional.outside_statement", "CO", "16", "MA31", ""},
	institutionalDays:             {"institutional.covered_days", "CO", "16", "MA32", ""},
	institutionalNoncovered:       {"institutional.noncovered", "PR", "96", "N130", ""},

	completeServiceDate:   {"complete.service_date", "CO", "16", "M52", ""},
	completeEndDate:       {"complete.end_date", "CO", "16", "M59", ""},
	completeFuture:        {"complete.future", "CO", "110", "", ""},
	completeUnits:         {"complete.units", "CO", "16", "M53", ""},
	completeCharge:        {"complete.charge", "CO", "16", "M79", ""},
	completeProcedure:     {"complete.procedure", "CO", "16", "M51", ""},
	completeProcedureCode: {"complete.procedure_code", "CO", "181", "N56", ""},
	completeRevenueCode:   {"complete.revenue_code", "CO", "16", "M50", ""},
	completePlace:         {"complete.place_of_service", "CO", "16", "M77", ""},
	completeModifierCode:  {"complete.modifier_code", "CO", "182", "N519", ""},
	completeModifierPair:  {"complete.modifier_pair", "CO", "4", "N519", ""},
	completeDiagnosis:     {"complete.diagnosis", "CO", "16", "M76", ""},
	completeDiagnosisCode: {"complete.diagnosis_code", "CO", "146", "M76", ""},

	providerNPIMissing:           {"provider.npi_missing", "CO", "206", "N257", ""},
	providerNPIInvalid:           {"provider.npi_invalid", "CO", "207", "N257", ""},
	providerNPIUnknown:           {"provider.npi_unknown", "CO", "208", "N257", ""},
	providerRenderingInvalid:     {"provider.rendering_npi_invalid", "CO", "207", "N290", ""},
	providerNotCertified:         {"provider.not_certified", "CO", "B7", "", ""},
	providerRenderingNotEligible: {"provider.rendering_not_eligible", "CO", "185", "", ""},
	networkNoVersion:             {"network.no_version", "CO", "242", "", "No version of the plan's network governs the date of service; publish one."},
	networkOut:                   {"network.out_of_network", "CO", "242", "", ""},
	networkNoReferral:            {"network.no_referral", "CO", "288", "", ""},

	benefitNone:             {"benefit.none", "PR", "204", "N130", ""},
	benefitNotCovered:       {"benefit.not_covered", "PR", "96", "N130", ""},
	benefitDiagnosisPointer: {"benefit.diagnosis_pointer", "CO", "11", "", ""},
	benefitNotNecessary:     {"benefit.not_necessary", "CO", "50", "", ""},

	authorizationAbsent:        {"authorization.absent", "CO", "197", "M62", ""},
	authorizationCancelled:     {"authorization.cancelled", "CO", "15", "M62", ""},
	authorizationOtherProvider: {"authorization.other_provider", "CO", "15", "M62", ""},
	authorizationNotInForce:    {"authorization.not_in_force", "CO", "197", "M62", ""},
	authorizationExceeded:      {"authorization.exceeded", "CO", "198", "", ""},
	authorizationDocument:      {"authorization.document", "CO", "252", "N706", "The plan wants a document for this service; ask the provider for it."},

	authorizationAwaited: {"authorization.awaited", "CO", "197", "M62", "The service needs a prior authorisation and has none yet; answer the request for one."},

	unitsLine:          {"units.line", "CO", "151", "N362", ""},
	unitsDayAbsolute:   {"units.day_absolute", "CO", "151", "N362", ""},
	unitsDayAppealable: {"units.day_appealable", "CO", "151", "N362", ""},

	pairIncompatible: {"pair.incompatible", "CO", "236", "", ""},
	pairComponent:    {"pair.component", "CO", "97", "M15", ""},
	pairExclusive:    {"pair.exclusive", "CO", "231", "", ""},

	planRuleFailed: {"plan_rule.failed", "CO", "216", "", "A rule of the plan could not be evaluated on this claim; decide by the clause and have the rule mended."},
	planRuleCost:   {"plan_rule.cost", "CO", "216", "", "A rule of the plan took more than its cost limit on this claim; decide by the clause and have the rule mended."},

	priceCapitated:            {"price.capitated", "CO", "24", "", ""},
	priceNoSchedule:           {"price.no_fee_schedule", "CO", "147", "", "No fee schedule version governs the date of service; publish one."},
	priceNoRate:               {"price.no_rate", "CO", "147", "", ""},
	priceContractUnits:        {"price.contract_units", "CO", "222", "N362", ""},
	priceAboveAllowed:         {"price.above_allowed", "CO", "45", "", ""},
	priceAboveAllowedOut:      {"price.above_allowed_out_of_network", "PR", "45", "", ""},
	priceIncluded:             {"price.included", "CO", "97", "M15", ""},
	priceMultipleProcedure:    {"price.multiple_procedure", "CO", "59", "", ""},
	priceConcurrentAnesthesia: {"price.concurrent_anesthesia", "CO", "59", "", ""},

	limitVisits:   {"limit.visits", "PR", "119", "", ""},
	limitDollars:  {"limit.dollars", "PR", "119", "", ""},
	limitLifetime: {"limit.lifetime", "PR", "35", "", ""},

	shareCopay:       {"share.copay", "PR", "3", "", ""},
	shareDeductible:  {"share.deductible", "PR", "1", "", ""},
	shareCoinsurance: {"share.coinsurance", "PR", "2", "", ""},

	cobNoPrimaryDecision: {"cob.no_primary_decision", "CO", "22", "MA04", ""},
	cobAwaited:           {"cob.awaited", "CO", "22", "MA04", "Another payer decides first and its decision isn't known; ask for it."},
	cobPriorPayers:       {"cob.prior_payers", "OA", "23", "", ""},

	sequestrationReduction: {"sequestration.reduction", "CO", "253", "", ""},

	reviewThreshold: {"review.threshold", "CO", "216", "", "The charge reaches the plan's review threshold; review the claim."},
	reviewBenefit:   {"review.benefit", "CO", "216", "", "The plan has every service of this benefit reviewed; review the line."},

	signalUnbundled:     {"signal.unbundled", "CO", "97", "M15", "A part of this service was paid on an earlier claim of the day; decide whether to take that payment back or to refuse this line."},
	signalOtherProvider: {"signal.other_provider", "CO", "B20", "", "Another provider was paid for the same service to the same person on the same day; find out who gave it."},
	signalImpossibleDay: {"signal.impossible_day", "CO", "151", "N362", "The provider's services of the day add up to more than a day; ask for the records."},
	signalDeceased:      {"signal.deceased_provider", "CO", "B7", "", "The service is dated after the provider's death; find out who gave it."},
	signalInactive:      {"signal.inactive_provider", "CO", "B7", "", "The provider's number was not active on the date of service; find out whether it was in practice."},
}

// remarkLists holds a list of one for every remark code of the table, so that
// a decision needn't make its own; they are read only.
var remarkLists = func() map[string][]string {
	lists := map[string][]string{}
	for i := range rules {
		if code := rules[i].RARC; code != "" && lists[code] == nil {
			lists[code] = []string{code}
		}
	}
	return lists
}()

func remarks(code string) []string {
	if list, ok := remarkLists[code]; ok {
		return list
	}
	return []string{code}
}

// Rules lists every rule of the engine in the order of its stages.
func Rules() []Rule { return append([]Rule(nil), rules[:]...) }

func ruleByID(id string) (rule, bool) {
	for i := range rules {
		if rules[i].ID == id {
			return rule(i), true
		}
	}
	return 0, false
}
