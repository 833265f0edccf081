package adjudication

import "strings"

// covered denies what the plan doesn't name, or names as not covered.
func covered(r *run, l *line) {
	if l.benefit == nil {
		r.deny(l, benefitNone, "benefits")
		return
	}
	l.out.Benefit = l.benefit.Name
	if !l.benefit.Covered {
		r.deny(l, benefitNotCovered, l.benefit.clause)
	}
}

// necessary asks whether a diagnosis of the line is one that the benefit is
// for. A fitting diagnosis elsewhere on the claim means that the line points
// to the wrong one (CO-11), which the provider can mend; none is CO-50.
func necessary(r *run, l *line) {
	prefixes := l.benefit.DiagnosisPrefixes
	if len(prefixes) == 0 {
		return
	}
	fits := func(d Diagnosis) bool {
		for _, p := range prefixes {
			if strings.HasPrefix(d.Code, p) {
				return true
			}
		}
		return false
	}
	if r.anyDiagnosis(l, fits) {
		return
	}
	for _, d := range r.in.Claim.Diagnoses {
		if fits(d) {
			r.deny(l, benefitDiagnosisPointer, l.benefit.clauseDiagnosis)
			return
		}
	}
	r.deny(l, benefitNotNecessary, l.benefit.clauseDiagnosis)
}
