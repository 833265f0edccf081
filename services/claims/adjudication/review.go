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
