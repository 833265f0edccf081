package adjudication

// thresholds pends a claim whose charge reaches its plan's review threshold.
func thresholds(r *run) {
	for i := range r.lines {
		l := &r.lines[i]
		if l.open() && l.plan.spec.ReviewAbove > 0 && r.in.Claim.Charge >= l.plan.spec.ReviewAbove {
			r.pend(nil, reviewThreshold)
			return
		}
	}
}

// judgements are the rules that deny what a person may judge otherwise, and
// without which the line can still be priced. A stage that denies by one of
// them does nothing more to the line, so leaving it open is to go on.
var judgements = func() map[string]bool {
	out := map[string]bool{}
	for _, r := range []rule{
		timelyLate, networkNoReferral, benefitNotNecessary, benefitDiagnosisPointer,
		authorizationAbsent, authorizationCancelled, authorizationNotInForce, authorizationOtherProvider, authorizationExceeded, authorizationDocument, authorizationAwaited,
		unitsLine, unitsDayAppealable, pairIncompatible, pairComponent, pairExclusive, duplicateSuspected,
		reviewThreshold, reviewBenefit, signalUnbundled, signalOtherProvider, signalImpossibleDay,
	} {
		out[rules[r].ID] = true
	}
	return out
}()

// Judgement tells whether an appeal can set the rule aside. What says who is
// insured, what the plan covers or what a provider may bill is no judgement:
// where it is wrong the data it came from is corrected.
func Judgement(ruleID string) bool { return judgements[ruleID] }

// setAside tells whether an appeal has overturned the rule on the line.
func (r *run) setAside(l *line, id string) bool {
	for _, f := range r.in.Review.SetAside {
		if f.RuleID == id && (f.Line == 0 || f.Line == l.Number) {
			return judgements[id]
		}
	}
	return false
}

// reviewed applies a reviewer's refusal: what was doubted is denied with the
// doubt's own codes. A rule that this engine no longer has is still a
// refusal, under the general code for a reviewer's finding.
func reviewed(r *run) {
	if r.in.Review.Resolution != Refused {
		return
	}
	reasons := r.in.Review.Reasons
	if len(reasons) == 0 {
		for _, p := range r.pends {
			reasons = append(reasons, p.reason())
		}
	}
	for _, reason := range reasons {
		for i := range r.lines {
			l := &r.lines[i]
			if !l.out.Denied && (reason.Line == 0 || reason.Line == l.Number) {
				r.refuse(l, reason.RuleID)
			}
		}
	}
}

// refuse denies a line by the rule that a reviewer upheld: one of the
// engine's, or one of the line's plan.
func (r *run) refuse(l *line, id string) {
	if why, ok := ruleByID(id); ok {
		r.deny(l, why, "")
		return
	}
	if l.plan != nil {
		for _, p := range l.plan.rules {
			if id == p.rule.ID || id == rules[planRuleFailed].ID+"."+p.spec.ID || id == rules[planRuleCost].ID+"."+p.spec.ID {
				r.denyBy(l, &p.rule, p.clause)
				return
			}
		}
	}
	r.deny(l, reviewBenefit, "")
}
