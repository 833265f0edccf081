package policies

import (
	"context"
	"slices"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/problem"
)

// What a change of enrolment asks for, in the decider's terms.

// command makes the decider's command of a change.
func (b *maintenanceBatch) command(ctx context.Context, c *policiesv1.EnrollmentChange, card string, w who) (amendment, error) {
	born := c.GetBirthDate()
	if born == "" {
		born = w.born
	}
	cmd := amendment{
		kind: c.GetMaintenanceType(), batchID: b.id,
		coverageSaid: c.GetInsuranceLine() != "" || c.GetPolicyId() != "",
		enrol: enrol{
			subject: w.subject, subscriber: card, coverage: Period{Start: c.GetStartDate(), End: c.GetEndDate()},
			relationship: c.GetRelationshipCode(), otherPayerPrimary: c.GetOtherPayerPrimary(),
			birthIndex:  b.h.Index.BirthIndex(b.payer, c.GetMemberId(), born),
			personIndex: b.h.Index.PersonIndex(b.payer, c.GetMemberId(), born, c.GetFirstName()),
		},
	}
	if own := c.GetOwnMemberId(); own != "" && c.GetRelationshipCode() != "18" {
		if hash := b.h.Index.Subscriber(b.payer, own); hash != card {
			cmd.ownCard = hash
		}
	}
	if w.enrolled {
		cmd.previousBirth = b.h.Index.BirthIndex(b.payer, c.GetMemberId(), w.born)
		cmd.previousPerson = b.h.Index.PersonIndex(b.payer, c.GetMemberId(), w.born, w.first)
	}
	switch cmd.kind {
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE:
		return cmd, nil
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE, policiesv1.MaintenanceType_MAINTENANCE_TYPE_AUDIT:
		if !cmd.coverageSaid {
			return cmd, nil
		}
	}
	policy, err := b.policyFor(ctx, c, w)
	if err != nil {
		return amendment{}, err
	}
	cmd.policy = policy
	if cmd.relationship != "19" || c.GetDisabled() || cmd.coverage.Start == "" {
		return cmd, nil
	}
	limit, err := b.ageLimit(ctx, policy, cmd.coverage.Start)
	if err != nil {
		return amendment{}, err
	}
	cut, left := agedOut(limit, born, cmd.coverage)
	if !left {
		return amendment{}, invalid([]problem.Problem{agedOutProblem()})
	}
	cmd.coverage = cut
	return cmd, nil
}

func agedOutProblem() problem.Problem {
	return problem.Problem{RuleID: "member.dependent.aged-out", FieldPath: "start_date",
		Message: "the child is past the plan's age limit on the first day", Fix: "send the disability indicator if the person is disabled, or cover the person on a card of its own"}
}

// mayDepend refuses dependants that nobody can depend on.
func (b *maintenanceBatch) mayDepend(c *policiesv1.EnrollmentChange, card string, cmd amendment) error {
	if cmd.kind != policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD {
		return nil
	}
	if c.GetRelationshipCode() == "18" {
		return nil
	}
	rule, message := dependsOn(card, cmd.ownCard, func(at string) (string, bool) {
		if up, ok := b.own[at]; ok {
			return up, true
		}
		return b.h.Directory.DependsOn(at)
	})
	if rule != "" {
		return problem.New(problem.Conflict, problem.Problem{RuleID: rule, FieldPath: "member_id", Message: message,
			Fix: "send the subscriber's own number (REF*0F) for every member of the family"})
	}
	b.mu.Lock()
	known := b.subscribers[card]
	b.mu.Unlock()
	if known || slices.ContainsFunc(b.h.Directory.Family(card), Member.Subscribes) {
		return nil
	}
	return problem.New(problem.Conflict, problem.Problem{RuleID: "member.dependent.no-subscriber", FieldPath: "member_id",
		Message: "no subscriber is enrolled under this card", Fix: "send the subscriber's addition before the dependants'"})
}

// policyFor finds the policy a change means.
func (b *maintenanceBatch) policyFor(ctx context.Context, c *policiesv1.EnrollmentChange, w who) (*policiesv1.Policy, error) {
	unknown := func(message, fix string) error {
		return problem.New(problem.NotFound, problem.Problem{RuleID: "member.policy.unknown", FieldPath: "group_number", Message: message, Fix: fix})
	}
	if id := c.GetPolicyId(); id != "" {
		policy, err := b.h.policy(ctx, id)
		if err == nil && policy.GetPayerId() != b.payer { // also when there is none
			err = unknown("the payer has no such policy", "create the policy first, or correct its id")
		}
		return policy, err
	}
	if c.GetGroupNumber() == "" && c.GetMaintenanceType() != policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD && w.enrolled {
		m, err := b.h.member(ctx, w.subject)
		if err != nil {
			return nil, err
		}
		if last, ok := lastSpan(m); ok {
			return b.h.policy(ctx, last.PolicyID)
		}
	}
	var fit []*policiesv1.Policy
	for _, p := range b.h.Directory.PoliciesOf(b.payer, c.GetGroupNumber()) {
		if day := c.GetStartDate(); day == "" || PeriodOf(p.GetEffective()).Contains(day) {
			fit = append(fit, p)
		}
	}
	if named := slices.DeleteFunc(slices.Clone(fit), func(p *policiesv1.Policy) bool {
		return p.GetPlanId() != c.GetPlanId() && p.GetPolicyId() != c.GetPlanId()
	}); len(named) > 0 {
		fit = named
	}
	switch len(fit) {
	case 0:
		return nil, unknown("the payer has no policy of this group on the first day", "create the policy first, or correct REF*1L and the day")
	case 1:
		return fit[0], nil
	}
	return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "member.policy.ambiguous", FieldPath: "plan_id",
		Message: "the group has several policies on this day, and the plan named is none of theirs", Fix: "name the plan or policy id in HD04"})
}

// ageLimit is the plan's, as in force on a day.
func (b *maintenanceBatch) ageLimit(ctx context.Context, policy *policiesv1.Policy, day string) (uint32, error) {
	key := policy.GetPlanId() + "@" + day
	b.mu.Lock()
	limit, ok := b.ageLimits[key]
	b.mu.Unlock()
	if ok {
		return limit, nil
	}
	limit, err := b.h.ageLimit(ctx, policy, day)
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	b.ageLimits[key] = limit
	b.mu.Unlock()
	return limit, nil
}

func (h *Handler) ageLimit(ctx context.Context, policy *policiesv1.Policy, day string) (uint32, error) {
	plan, err := history(ctx, h.Store, planKind(), policy.GetPlanId())
	if err != nil {
		return 0, err
	}
	doc, _ := plan.InForce(day)
	return doc.GetDependentAgeLimit(), nil
}

// lintChange finds what a valid change lacks for what it asks.
func lintChange(c *policiesv1.EnrollmentChange) []problem.Problem {
	var f finding
	for _, d := range []struct{ day, path string }{
		{c.GetBirthDate(), "birth_date"}, {c.GetPreviousBirthDate(), "previous_birth_date"}, {c.GetStartDate(), "start_date"}, {c.GetEndDate(), "end_date"},
	} {
		if d.day != "" {
			f.date(d.day, d.path)
		}
	}
	need := func(value, path, fix string) {
		if value == "" {
			f.add("enrollment.required", path, path+" is needed for this maintenance type", fix)
		}
	}
	switch c.GetMaintenanceType() {
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD:
		need(c.GetBirthDate(), "birth_date", "send DMG02")
		need(c.GetLastName(), "last_name", "send NM103")
		need(c.GetStartDate(), "start_date", "send the benefit's first day (DTP*348)")
		if c.GetBirthDate() != "" && c.GetStartDate() != "" && c.GetStartDate() < c.GetBirthDate() {
			f.add("member.coverage.before-birth", "start_date", "coverage starts before the birth date", "correct the birth date, or start coverage on or after it")
		}
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE:
		need(c.GetEndDate(), "end_date", "send the last covered day (DTP*349 or DTP*357)")
	}
	if start, end := c.GetStartDate(), c.GetEndDate(); start != "" && end != "" && end < start && c.GetMaintenanceType() != policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE {
		f.add("period.reversed", "end_date", "the period ends before it starts", "swap the dates, or leave end_date empty for an open period")
	}
	return f.problems
}
