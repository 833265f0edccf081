package claims

import (
	"unicode/utf8"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

// FitsSchema tells quickly of submitted claims that they satisfy their schema
// (claim.proto, claims_service.proto). A file's claims all do, and asking the
// schema itself takes as long as deciding them. It may say no to what the
// schema takes: lengths are counted in bytes here and in characters there.
func FitsSchema(r *claimsv1.SubmitClaimsRequest) bool {
	if n := len(r.GetClaims()); n < 1 || n > maxSubmissions || claimsv1.SubmissionView_name[int32(r.GetView())] == "" {
		return false
	}
	for _, s := range r.GetClaims() {
		if !filled(120, s.GetRequestId()) || s.GetClaim() == nil || !(s.GetFileId() == "" || isID("fil", s.GetFileId())) || !fitsClaim(s.GetClaim()) {
			return false
		}
	}
	return true
}

const maxCents = 9_999_999_999

func fitsClaim(c *claimsv1.Claim) bool {
	f := c.GetFrequencyCode()
	return c.GetForm() != 0 && claimsv1.ClaimForm_name[int32(c.GetForm())] != "" &&
		filled(38, c.GetPatientControlNumber()) &&
		within(c.GetChargeCents(), maxCents) && c.GetPatientPaidCents() >= 0 &&
		(f == "1" || f == "7" || f == "8") &&
		short(1, c.GetPayerSequence(), c.GetAssignmentCode(), c.GetBenefitsAssigned()) &&
		short(2, c.GetPlaceOfService(), c.GetRelationshipCode(), c.GetFilingIndicator(), c.GetFacilityType(), c.GetTransactionType()) &&
		short(50, c.GetOriginalClaimNumber(), c.GetGroupNumber(), c.GetPriorAuthorizationNumber(), c.GetReferralNumber(), c.GetClearinghouseTrace()) &&
		len(c.GetRelatedCauses()) <= 3 &&
		c.GetPayer() != nil && fitsPayer(c.GetPayer()) &&
		c.GetBillingProvider() != nil && fitsProvider(c.GetBillingProvider()) &&
		fitsProvider(c.GetRenderingProvider()) && fitsProvider(c.GetReferringProvider()) && fitsProvider(c.GetServiceFacility()) &&
		c.GetSubscriber() != nil && fitsPerson(c.GetSubscriber()) && fitsPerson(c.GetPatient()) &&
		all(25, c.GetDiagnoses(), fitsDiagnosis) &&
		len(c.GetLines()) > 0 && all(999, c.GetLines(), fitsLine) &&
		all(10, c.GetOtherPayers(), fitsOtherPayer) &&
		all(20, c.GetDates(), fitsDate) &&
		(c.GetInstitutional() == nil || fitsInstitutional(c.GetInstitutional()))
}

func fitsPayer(p *claimsv1.Payer) bool {
	return p == nil || filled(80, p.GetId()) && short(60, p.GetName())
}

func fitsProvider(p *claimsv1.Provider) bool {
	return p == nil || short(80, p.GetNpi()) && short(60, p.GetName()) && short(35, p.GetFirstName()) &&
		short(50, p.GetTaxId(), p.GetTaxonomy()) && fitsAddress(p.GetAddress())
}

func fitsAddress(a *claimsv1.Address) bool {
	return a == nil || short(55, a.GetLine1(), a.GetLine2()) && short(30, a.GetCity()) && short(2, a.GetState()) && short(15, a.GetPostalCode())
}

func fitsPerson(p *claimsv1.Person) bool {
	return p == nil || short(80, p.GetMemberId()) && short(60, p.GetLastName()) && short(35, p.GetFirstName()) && short(25, p.GetMiddleName()) &&
		dated(p.GetBirthDate()) && short(1, p.GetSex()) && fitsAddress(p.GetAddress())
}

func fitsDiagnosis(d *claimsv1.Diagnosis) bool {
	return filled(30, d.GetCode()) && short(3, d.GetQualifier()) && short(1, d.GetPresentOnAdmission())
}

func fitsDate(d *claimsv1.ClaimDate) bool {
	return short(3, d.GetQualifier()) && d.GetStartDate() != "" && dated(d.GetStartDate(), d.GetEndDate())
}

func fitsLine(l *claimsv1.ServiceLine) bool {
	if n := l.GetNumber(); n < 1 || n > 999 || len(l.GetModifiers()) > 4 || len(l.GetDiagnosisPointers()) > 12 {
		return false
	}
	for _, m := range l.GetModifiers() {
		if utf8.RuneCountInString(m) != 2 {
			return false
		}
	}
	for _, p := range l.GetDiagnosisPointers() {
		if p < 1 || p > 25 {
			return false
		}
	}
	return short(2, l.GetProcedureQualifier(), l.GetUnitCode(), l.GetPlaceOfService()) &&
		short(48, l.GetProcedure(), l.GetNdc()) && short(4, l.GetRevenueCode()) &&
		short(50, l.GetLineControlNumber(), l.GetPriorAuthorizationNumber()) &&
		within(l.GetChargeCents(), maxCents) && within(l.GetQuantityMilli(), maxCents) && within(l.GetNoncoveredCents(), maxCents) && l.GetSalesTaxCents() >= 0 &&
		dated(l.GetServiceDate(), l.GetServiceEndDate()) &&
		all(10, l.GetPriorAdjudications(), fitsPriorAdjudication) && fitsProvider(l.GetRenderingProvider())
}

func fitsOtherPayer(o *claimsv1.OtherPayer) bool {
	return fitsPayer(o.GetPayer()) && short(1, o.GetPayerSequence()) && o.GetPaidCents() >= 0 &&
		all(30, o.GetAdjustments(), fitsPriorAdjustment) && dated(o.GetAdjudicationDate())
}

func fitsPriorAdjudication(p *claimsv1.PriorAdjudication) bool {
	return short(80, p.GetPayerId()) && all(30, p.GetAdjustments(), fitsPriorAdjustment) && dated(p.GetAdjudicationDate())
}

func fitsPriorAdjustment(p *claimsv1.PriorAdjustment) bool {
	return short(2, p.GetGroupCode()) && short(5, p.GetCarc())
}

func fitsInstitutional(i *claimsv1.Institutional) bool {
	return dated(i.GetStatementFrom(), i.GetStatementThrough(), i.GetAdmissionDate()) &&
		timed(i.GetAdmissionTime()) && timed(i.GetDischargeTime()) &&
		short(1, i.GetAdmissionType(), i.GetAdmissionSource()) && short(2, i.GetPatientStatus()) && short(4, i.GetDrg()) &&
		fitsProvider(i.GetAttendingProvider()) && fitsProvider(i.GetOperatingProvider()) && fitsProvider(i.GetOtherOperatingProvider()) &&
		(i.GetAdmittingDiagnosis() == nil || fitsDiagnosis(i.GetAdmittingDiagnosis())) &&
		all(3, i.GetVisitReasons(), fitsDiagnosis) && all(12, i.GetExternalCauses(), fitsDiagnosis) &&
		all(25, i.GetProcedures(), func(p *claimsv1.InstitutionalProcedure) bool {
			return short(30, p.GetCode()) && short(3, p.GetQualifier()) && dated(p.GetDate())
		}) &&
		len(i.GetConditionCodes()) <= 24 && all(24, i.GetOccurrences(), fitsOccurrence) && all(24, i.GetOccurrenceSpans(), fitsOccurrence) &&
		all(24, i.GetValues(), func(v *claimsv1.ValueCode) bool { return short(2, v.GetCode()) })
}

func fitsOccurrence(o *claimsv1.Occurrence) bool {
	return short(2, o.GetCode()) && dated(o.GetStartDate(), o.GetEndDate())
}

// all tells whether there are at most so many, and each fits.
func all[T any](most int, of []T, fits func(T) bool) bool {
	if len(of) > most {
		return false
	}
	for _, v := range of {
		if !fits(v) {
			return false
		}
	}
	return true
}

func filled(most int, s string) bool { return s != "" && len(s) <= most }

func short(most int, of ...string) bool {
	for _, s := range of {
		if len(s) > most {
			return false
		}
	}
	return true
}

func within(v, most int64) bool { return v >= 0 && v <= most }

// dated tells whether each is empty or has the form YYYY-MM-DD.
func dated(of ...string) bool {
	for _, s := range of {
		if s != "" && !(len(s) == 10 && digits(s[:4]) && s[4] == '-' && digits(s[5:7]) && s[7] == '-' && digits(s[8:])) {
			return false
		}
	}
	return true
}

func timed(s string) bool { return s == "" || len(s) == 4 && digits(s) }

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
