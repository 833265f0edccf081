package policies

import (
	"fmt"
	"time"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/problem"
)

// finding collects problems of one document.
type finding struct{ problems []problem.Problem }

func (f *finding) add(rule, path, message, fix string) {
	f.problems = append(f.problems, problem.Problem{RuleID: rule, FieldPath: path, Message: message, Fix: fix})
}

// date reports a text that is no day of the calendar: the field's rule sees its shape only.
func (f *finding) date(day, path string) bool {
	if _, err := time.Parse(time.DateOnly, day); err != nil {
		f.add("date.calendar", path, "no such day in the calendar", "write a date as YYYY-MM-DD")
		return false
	}
	return true
}

// period checks both ends and their order.
func (f *finding) period(p Period, path string) {
	ok := f.date(p.Start, path+".start_date")
	if p.End == "" {
		return
	}
	if ok = f.date(p.End, path+".end_date") && ok; ok && p.End < p.Start {
		f.add("period.reversed", path, "the period ends before it starts", "swap the dates, or leave end_date empty for an open period")
	}
}

// LintFeeSchedule finds what makes a valid fee schedule ambiguous.
func LintFeeSchedule(d *policiesv1.FeeSchedule) []problem.Problem {
	var f finding
	f.period(PeriodOf(d.GetEffective()), "effective")
	type key struct{ procedure, modifier string }
	first := make(map[key]int, len(d.GetFees()))
	for i, fee := range d.GetFees() {
		k := key{fee.GetProcedure(), fee.GetModifier()}
		if j, ok := first[k]; ok {
			f.add("fee_schedule.fee.repeated", fmt.Sprintf("fees[%d]", i),
				fmt.Sprintf("fees[%d] prices the same procedure and modifier", j), "keep one of the two prices")
			continue
		}
		first[k] = i
	}
	if len(f.problems) == 0 {
		if _, err := CompileFeeSchedule(d, Ref(d.GetFeeScheduleId(), 1), adjudication.Period{Start: 1}); err != nil {
			f.add("fee_schedule.compile", "", err.Error(), "correct what the message names")
		}
	}
	return f.problems
}

// LintContract finds contradictions of a valid contract.
func LintContract(d *policiesv1.ProviderContract) []problem.Problem {
	var f finding
	f.period(PeriodOf(d.GetEffective()), "effective")
	seen := make(map[string]bool, len(d.GetNpis()))
	for i, npi := range d.GetNpis() {
		path := fmt.Sprintf("npis[%d]", i)
		switch {
		case !codes.ValidNPI(npi):
			f.add("contract.npi.check-digit", path, "the NPI's check digit is wrong",
				"look the number up in the NPPES registry: one of its digits is mistyped")
		case seen[npi]:
			f.add("contract.npi.repeated", path, "the NPI is listed twice", "keep it once")
		}
		seen[npi] = true
	}
	plans := make(map[string]bool, len(d.GetPlanIds()))
	for i, id := range d.GetPlanIds() {
		if plans[id] {
			f.add("contract.plan.repeated", fmt.Sprintf("plan_ids[%d]", i), "the plan is listed twice", "keep it once")
		}
		plans[id] = true
	}
	if d.GetCapitated() && d.GetFeeBps() != 0 {
		f.add("contract.capitated.fee", "fee_bps", "services under a capitation are not paid by fee, so fee_bps would never be read",
			"leave fee_bps out, or set capitated to false")
	}
	names := map[string]bool{}
	for i, rate := range d.GetFacilityRates() {
		path := fmt.Sprintf("facility_rates[%d]", i)
		if names[rate.GetName()] {
			f.add("contract.rate.repeated", path+".name", "another rate has this name", "give each rate a name of its own: decisions quote it")
		}
		names[rate.GetName()] = true
		weights := map[string]bool{}
		for j, w := range rate.GetCaseRate().GetWeights() {
			if weights[w.GetDrg()] {
				f.add("contract.rate.weight-repeated", fmt.Sprintf("%s.case_rate.weights[%d].drg", path, j), "the group has a weight already", "keep one weight a group")
			}
			weights[w.GetDrg()] = true
		}
		if _, err := adjudication.CompileFacilityRate(facilityRate(rate)); err != nil {
			f.add("contract.rate.compile", path, err.Error(), "correct what the message names")
		}
	}
	return f.problems
}

func lintProviderStatus(d *policiesv1.RecordProviderStatusRequest) []problem.Problem {
	var f finding
	if !codes.ValidNPI(d.GetNpi()) {
		f.add("provider.npi.check-digit", "npi", "the NPI's check digit is wrong", "look the number up in the NPPES registry: one of its digits is mistyped")
	}
	for _, at := range []struct{ day, path string }{{d.GetInactiveFrom(), "inactive_from"}, {d.GetReactivatedFrom(), "reactivated_from"}, {d.GetDeceasedOn(), "deceased_on"}} {
		if at.day != "" {
			f.date(at.day, at.path)
		}
	}
	if again := d.GetReactivatedFrom(); again != "" && (d.GetInactiveFrom() == "" || again <= d.GetInactiveFrom()) {
		f.add("provider.reactivated.before-inactive", "reactivated_from", "the provider is active again before it was inactive", "give inactive_from, and a later day")
	}
	return f.problems
}

func lintPolicy(d *policiesv1.Policy) []problem.Problem {
	var f finding
	f.period(PeriodOf(d.GetEffective()), "effective")
	return f.problems
}

func lintEnrollment(d *policiesv1.Enrollment) []problem.Problem {
	var f finding
	coverage := PeriodOf(d.GetCoverage())
	f.period(coverage, "coverage")
	if f.date(d.GetBirthDate(), "birth_date") && coverage.Start < d.GetBirthDate() {
		f.add("member.coverage.before-birth", "coverage.start_date", "coverage starts before the birth date",
			"correct the birth date, or start coverage on or after it")
	}
	return f.problems
}

func lintAuthorization(d *policiesv1.PriorAuthorization) []problem.Problem {
	var f finding
	f.period(PeriodOf(d.GetEffective()), "effective")
	f.date(d.GetBirthDate(), "birth_date")
	for i, npi := range d.GetNpis() {
		if !codes.ValidNPI(npi) {
			f.add("authorization.npi.check-digit", fmt.Sprintf("npis[%d]", i), "the NPI's check digit is wrong",
				"look the number up in the NPPES registry: one of its digits is mistyped")
		}
	}
	if len(d.GetProcedures()) > maxAuthorizedProcedures {
		f.add("authorization.procedures.count", "procedures", fmt.Sprintf("more than %d procedures and ranges", maxAuthorizedProcedures),
			"use ranges for runs of codes")
		return f.problems
	}
	for i, s := range d.GetProcedures() {
		if !procedurePattern.MatchString(s) {
			f.add("authorization.procedure.shape", fmt.Sprintf("procedures[%d]", i), "not a procedure code or a range of them",
				`write a code or an inclusive range, "97110" or "97110-97140"`)
		} else if _, ok := parseRange(s); !ok {
			f.add("authorization.procedure.range", fmt.Sprintf("procedures[%d]", i), rangeMessage, rangeFix)
		}
	}
	return f.problems
}

const (
	maxAuthorizedProcedures = 500
	rangeMessage            = "the range's ends differ in shape, or stand in the wrong order"
	rangeFix                = `write the lower code first and give both the same letters, "J0120-J9999"`
)
