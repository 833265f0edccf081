package adjudication

import (
	"slices"

	"github.com/probity-health/probity/services/codes"
)

// icd10Start is codes.ICD10Start; a test holds the two together.
const icd10Start Date = 735872

// validCodes denies codes that can't have been valid on the date of service.
func validCodes(r *run, l *line) {
	hcpcs := l.ProcedureQualifier == "HC" || l.ProcedureQualifier == ""
	switch {
	case l.Procedure != "" && hcpcs && !codes.ValidProcedure(l.Procedure):
		r.deny(l, completeProcedureCode, "")
	case slices.ContainsFunc(l.Modifiers, func(m string) bool { return !codes.ValidModifier(m) }):
		r.deny(l, completeModifierCode, "")
	case hcpcs && contradicts(l.Procedure, l.Modifiers):
		r.deny(l, completeModifierPair, "")
	default:
		r.validDiagnoses(l)
	}
}

// contradicts tells whether modifiers exclude each other or the procedure: a
// modifier twice; both the professional (26) and the technical half (TC) on
// one line; or a modifier of evaluation and management visits (24, 25, 57) on
// a surgical, radiological or laboratory procedure of CPT.
func contradicts(procedure string, modifiers []string) bool {
	for i, m := range modifiers {
		if slices.Contains(modifiers[:i], m) {
			return true
		}
		switch m {
		case "26":
			if slices.Contains(modifiers, "TC") {
				return true
			}
		case "24", "25", "57":
			if len(procedure) == 5 && procedure >= "10000" && procedure <= "89999" && procedure[4] <= '9' {
				return true
			}
		}
	}
	return false
}

// validDiagnoses checks the diagnoses that a professional line points to, or
// all of an institutional claim's, against the code set of the date: that of
// the last day for institutional claims, whose date is the discharge's.
func (r *run) validDiagnoses(l *line) {
	all, on := r.in.Claim.Diagnoses, l.ServiceDate
	if r.in.Claim.Form == Institutional {
		on = l.last()
		if len(all) == 0 {
			r.deny(l, completeDiagnosis, "")
			return
		}
	} else {
		if len(l.DiagnosisPointers) == 0 {
			r.deny(l, completeDiagnosis, "")
			return
		}
		for _, p := range l.DiagnosisPointers {
			if p == 0 || int64(p) > int64(len(all)) {
				r.deny(l, completeDiagnosis, "")
				return
			}
		}
	}
	edition := codes.ICD10CM
	if on < icd10Start {
		edition = codes.ICD9CM
	}
	if r.anyDiagnosis(l, func(d Diagnosis) bool {
		if named, ok := codes.EditionOfQualifier(d.Qualifier); ok && named != edition {
			return true
		}
		return !codes.ValidDiagnosis(d.Code, edition)
	}) {
		r.deny(l, completeDiagnosisCode, "")
	}
}

// anyDiagnosis tells whether one of the line's diagnoses satisfies f.
func (r *run) anyDiagnosis(l *line, f func(Diagnosis) bool) bool {
	all := r.in.Claim.Diagnoses
	if r.in.Claim.Form == Institutional {
		return slices.ContainsFunc(all, f)
	}
	for _, p := range l.DiagnosisPointers {
		if p >= 1 && int64(p) <= int64(len(all)) && f(all[p-1]) {
			return true
		}
	}
	return false
}
