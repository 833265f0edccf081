package policies

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/problem"
)

func period(start, end string) *typev1.Period {
	return &typev1.Period{StartDate: start, EndDate: end}
}

func plan(payer, start, end string, days uint32) *policiesv1.PlanDocument {
	return &policiesv1.PlanDocument{PlanId: "plan_a", PayerId: payer, Effective: period(start, end), TimelyFilingDays: days}
}

// refusedWith asserts a refusal's kind and first rule.
func refusedWith(t *testing.T, err error, kind problem.Kind, rule string) {
	t.Helper()
	require.Error(t, err)
	e := problem.As(err)
	require.Equal(t, kind, e.Kind)
	require.Equal(t, rule, e.Problems[0].RuleID)
	require.NotEmpty(t, e.Problems[0].Fix)
}

func events(t *testing.T, got []proto.Message, want ...proto.Message) {
	t.Helper()
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
}

func TestPublishing(t *testing.T) {
	v1 := plan("P1", "2026-01-01", "", 90)
	year := plan("P1", "2026-01-01", "2026-12-31", 90)
	for name, c := range map[string]struct {
		given   History[*policiesv1.PlanDocument]
		when    *policiesv1.PlanDocument
		version uint32 // 0: nothing recorded
		kind    problem.Kind
		rule    string
	}{
		"the first version":                       {nil, v1, 1, "", ""},
		"an equal one is no new version":          {History[*policiesv1.PlanDocument]{v1}, plan("P1", "2026-01-01", "", 90), 0, "", ""},
		"a correction of all days":                {History[*policiesv1.PlanDocument]{v1}, plan("P1", "2026-01-01", "", 120), 2, "", ""},
		"a change from a day on":                  {History[*policiesv1.PlanDocument]{v1}, plan("P1", "2026-07-01", "", 120), 2, "", ""},
		"an earlier year, added later":            {History[*policiesv1.PlanDocument]{v1}, plan("P1", "2025-01-01", "2025-12-31", 120), 2, "", ""},
		"the next year":                           {History[*policiesv1.PlanDocument]{year}, plan("P1", "2027-01-01", "2027-12-31", 120), 2, "", ""},
		"back to what an older version said":      {History[*policiesv1.PlanDocument]{v1, plan("P1", "2026-01-01", "", 120)}, v1, 3, "", ""},
		"a month in between gives back":           {History[*policiesv1.PlanDocument]{v1}, plan("P1", "2026-03-01", "2026-03-31", 120), 0, problem.Invalid, "plan.effective.gives-back"},
		"the head of a running version":           {History[*policiesv1.PlanDocument]{v1}, plan("P1", "2025-06-01", "2026-03-31", 120), 0, problem.Invalid, "plan.effective.gives-back"},
		"the part an overtaken version still has": {History[*policiesv1.PlanDocument]{v1, plan("P1", "2026-06-01", "", 120)}, plan("P1", "2026-01-01", "2026-05-31", 60), 3, "", ""},
		"another payer's id":                      {History[*policiesv1.PlanDocument]{v1}, plan("P2", "2026-01-01", "", 90), 0, problem.Conflict, "plan.payer.changed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decidePublish(planKind(), c.given, c.when, nil)
			if c.rule != "" {
				refusedWith(t, err, c.kind, c.rule)
				return
			}
			require.NoError(t, err)
			if c.version == 0 {
				require.Empty(t, got)
				return
			}
			events(t, got, &eventsv1.PlanPublished{Plan: c.when, Version: c.version})
		})
	}
}

func TestDocumentsNameWhatExists(t *testing.T) {
	schedule := &policiesv1.FeeSchedule{FeeScheduleId: "fs_a", PayerId: "P1", Effective: period("2026-01-01", "")}
	contract := &policiesv1.ProviderContract{PayerId: "P1", FeeScheduleId: "fs_a", PlanIds: []string{"plan_a"}, Effective: period("2026-02-01", "")}
	known := References{
		FeeSchedule: History[*policiesv1.FeeSchedule]{schedule},
		Plans:       map[string]History[*policiesv1.PlanDocument]{"plan_a": {plan("P1", "2026-01-01", "", 90)}},
	}
	require.Empty(t, namedByContract(contract, known))

	rules := func(ps []problem.Problem) (out []string) {
		for _, p := range ps {
			out = append(out, p.RuleID)
		}
		return out
	}
	require.Equal(t, []string{"contract.fee_schedule.unknown", "contract.plan.unknown"}, rules(namedByContract(contract, References{})))

	early := proto.CloneOf(contract)
	early.Effective = period("2025-01-01", "")
	require.Equal(t, []string{"contract.fee_schedule.not-in-force"}, rules(namedByContract(early, known)))

	foreign := proto.CloneOf(contract)
	foreign.PayerId = "P2"
	require.Equal(t, []string{"contract.fee_schedule.unknown", "contract.plan.unknown"}, rules(namedByContract(foreign, known)),
		"another payer's documents are as good as absent")
}

func TestAPolicyNeverChanges(t *testing.T) {
	p := &policiesv1.Policy{PolicyId: "pol_a", PayerId: "P1", PlanId: "plan_a", Effective: period("2026-01-01", "")}
	plans := History[*policiesv1.PlanDocument]{plan("P1", "2026-01-01", "", 90)}

	got, err := decidePolicy(nil, p, plans)
	require.NoError(t, err)
	events(t, got, &eventsv1.PolicyCreated{Policy: p})

	got, err = decidePolicy(p, proto.CloneOf(p), plans)
	require.NoError(t, err)
	require.Empty(t, got)

	other := proto.CloneOf(p)
	other.GroupNumber = "G2"
	_, err = decidePolicy(p, other, plans)
	refusedWith(t, err, problem.Conflict, "policy.exists")

	_, err = decidePolicy(nil, p, nil)
	refusedWith(t, err, problem.Invalid, "policy.plan.unknown")
}

// enrolment of one person into a policy of the year 2026 on.
func command(start, end string) enrol {
	return enrol{
		subject: "sub_x", subscriber: "sub_card", birthIndex: []byte("b"), personIndex: []byte("p"), relationship: "18",
		policy:   &policiesv1.Policy{PolicyId: "pol_a", PayerId: "P1", PlanId: "plan_a", Effective: period("2026-01-01", "")},
		coverage: Period{start, end},
	}
}

func enrolled(t *testing.T, commands ...enrol) Member {
	t.Helper()
	m := NewMember()
	for _, c := range commands {
		got, err := decideEnrol(m, c)
		require.NoError(t, err)
		for _, e := range got {
			m = m.Evolve(e, uint64(m.Revision+1))
		}
	}
	return m
}

func TestEnrolling(t *testing.T) {
	other := command("2026-06-01", "")
	other.policy = &policiesv1.Policy{PolicyId: "pol_b", PayerId: "P1", Effective: period("2026-01-01", "")}
	secondary := command("2026-01-01", "")
	secondary.otherPayerPrimary = true
	corrected := command("2026-01-01", "")
	corrected.corrected = true
	bounded := command("2026-01-01", "2027-01-31")
	bounded.policy = &policiesv1.Policy{PolicyId: "pol_a", PayerId: "P1", Effective: period("2026-01-01", "2026-12-31")}

	for name, c := range map[string]struct {
		given Member
		when  enrol
		spans []Period // afterwards
		rule  string
		kind  problem.Kind
	}{
		"a new person":                           {enrolled(t), command("2026-01-01", ""), []Period{{"2026-01-01", ""}}, "", ""},
		"the same again":                         {enrolled(t, command("2026-01-01", "")), command("2026-01-01", ""), nil, "", ""},
		"another end amends the span":            {enrolled(t, command("2026-01-01", "")), command("2026-01-01", "2026-03-31"), []Period{{"2026-01-01", "2026-03-31"}}, "", ""},
		"another payer is primary after all":     {enrolled(t, command("2026-01-01", "")), secondary, []Period{{"2026-01-01", ""}}, "", ""},
		"corrected sealed details":               {enrolled(t, command("2026-01-01", "")), corrected, []Period{{"2026-01-01", ""}}, "", ""},
		"a second span after the first":          {enrolled(t, command("2026-01-01", "2026-03-31")), command("2026-05-01", ""), []Period{{"2026-01-01", "2026-03-31"}, {"2026-05-01", ""}}, "", ""},
		"an earlier span, told later":            {enrolled(t, command("2026-05-01", "")), command("2026-01-01", "2026-03-31"), []Period{{"2026-01-01", "2026-03-31"}, {"2026-05-01", ""}}, "", ""},
		"a second policy while the first runs":   {enrolled(t, command("2026-01-01", "")), other, nil, "member.coverage.overlap", problem.Conflict},
		"amended into the next span":             {enrolled(t, command("2026-01-01", "2026-03-31"), command("2026-05-01", "")), command("2026-01-01", "2026-05-01"), nil, "member.coverage.overlap", problem.Conflict},
		"before the policy":                      {enrolled(t), command("2025-12-31", ""), nil, "member.coverage.outside-policy", problem.Invalid},
		"beyond the policy's end":                {enrolled(t), bounded, nil, "member.coverage.outside-policy", problem.Invalid},
		"open coverage may outlast what it says": {enrolled(t), func() enrol { b := bounded; b.coverage.End = ""; return b }(), []Period{{"2026-01-01", ""}}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decideEnrol(c.given, c.when)
			if c.rule != "" {
				refusedWith(t, err, c.kind, c.rule)
				return
			}
			require.NoError(t, err)
			if c.spans == nil {
				require.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			var after []Period
			for _, s := range c.given.Evolve(got[0], uint64(c.given.Revision+1)).Spans {
				after = append(after, s.Period)
			}
			require.Equal(t, c.spans, after)
		})
	}
}

func TestTerminating(t *testing.T) {
	two := enrolled(t, command("2026-01-01", "2026-03-31"), command("2026-05-01", ""))
	for name, c := range map[string]struct {
		given Member
		when  string
		spans []Period
		rule  string
		kind  problem.Kind
	}{
		"open coverage":           {two, "2026-08-15", []Period{{"2026-01-01", "2026-03-31"}, {"2026-05-01", "2026-08-15"}}, "", ""},
		"back into the first":     {two, "2026-02-28", []Period{{"2026-01-01", "2026-02-28"}}, "", ""},
		"first span's own end":    {two, "2026-03-31", []Period{{"2026-01-01", "2026-03-31"}}, "", ""},
		"its own end again":       {enrolled(t, command("2026-01-01", "2026-03-31")), "2026-03-31", nil, "", ""},
		"a day in the gap":        {two, "2026-04-15", nil, "member.termination.not-covered", problem.Conflict},
		"before everything":       {two, "2025-12-31", nil, "member.termination.not-covered", problem.Conflict},
		"after the end":           {enrolled(t, command("2026-01-01", "2026-03-31")), "2026-04-30", nil, "member.termination.not-covered", problem.Conflict},
		"a person never enrolled": {NewMember(), "2026-04-30", nil, "member.unknown", problem.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decideTerminate(c.given, c.when)
			if c.rule != "" {
				refusedWith(t, err, c.kind, c.rule)
				return
			}
			require.NoError(t, err)
			if c.spans == nil {
				require.Empty(t, got)
				return
			}
			events(t, got, &eventsv1.MemberTerminated{Subject: "sub_x", Subscriber: "sub_card", EndDate: c.when})
			var after []Period
			for _, s := range c.given.Evolve(got[0], 9).Spans {
				after = append(after, s.Period)
			}
			require.Equal(t, c.spans, after)
		})
	}
}

func TestAnAuthorizationNumberIsGivenOnce(t *testing.T) {
	c := authorize{numberIndex: []byte("n"), subject: "sub_x", payerID: "P1", units: 3, effective: Period{"2026-01-01", "2026-06-30"}}
	got, err := decideAuthorization(nil, c)
	require.NoError(t, err)
	recorded := &eventsv1.PriorAuthorizationRecorded{NumberIndex: []byte("n"), Subject: "sub_x", PayerId: "P1", Units: 3, Effective: period("2026-01-01", "2026-06-30")}
	events(t, got, recorded)

	got, err = decideAuthorization(recorded, c)
	require.NoError(t, err)
	require.Empty(t, got)

	for name, change := range map[string]func(*authorize){
		"more units": func(c *authorize) { c.units = 4 }, "units without limit": func(c *authorize) { c.units = 0 },
		"more days": func(c *authorize) { c.effective.End = "" }, "more procedures": func(c *authorize) { c.corrected = true },
	} {
		t.Run("extended by "+name, func(t *testing.T) {
			changed := c
			change(&changed)
			got, err := decideAuthorization(recorded, changed)
			require.NoError(t, err)
			require.Len(t, got, 1)
		})
	}
	for name, c2 := range map[string]struct {
		rule   string
		change func(*authorize)
	}{
		"another person":   {"authorization.exists", func(c *authorize) { c.subject = "sub_y" }},
		"fewer units":      {"authorization.narrowed", func(c *authorize) { c.units = 2 }},
		"fewer days":       {"authorization.narrowed", func(c *authorize) { c.effective.Start = "2026-01-02" }},
		"fewer procedures": {"authorization.narrowed", func(c *authorize) { c.corrected, c.narrowed = true, true }},
		"some providers":   {"authorization.narrowed", func(c *authorize) { c.npis = []string{"1234567893"} }},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			changed := c
			c2.change(&changed)
			_, err := decideAuthorization(recorded, changed)
			refusedWith(t, err, problem.Conflict, c2.rule)
		})
	}
	t.Run("a cancelled one isn't revived", func(t *testing.T) {
		gone := proto.CloneOf(recorded)
		gone.Cancelled = true
		_, err := decideAuthorization(gone, c)
		refusedWith(t, err, problem.Conflict, "authorization.cancelled")
	})
}

// day draws a date of a short time, so that periods often meet.
func day(t *rapid.T, label string) string {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, rapid.IntRange(0, 40).Draw(t, label)).Format(time.DateOnly)
}

func drawPeriod(t *rapid.T) Period {
	p := Period{Start: day(t, "start")}
	if rapid.Bool().Draw(t, "bounded") {
		if p.End = day(t, "end"); p.End < p.Start {
			p.Start, p.End = p.End, p.Start
		}
	}
	return p
}

// TestOneVersionGovernsADay: whatever is published, a version governs exactly
// the days on which it is the newest one whose period holds them, and those
// are one run of days.
func TestOneVersionGovernsADay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h History[*policiesv1.PlanDocument]
		for i := range rapid.IntRange(1, 12).Draw(t, "published") {
			p := drawPeriod(t)
			got, err := decidePublish(planKind(), h, plan("P1", p.Start, p.End, uint32(i+1)), nil)
			if err != nil {
				continue
			}
			for _, e := range got {
				h = append(h, e.(*eventsv1.PlanPublished).GetPlan())
			}
		}
		for n := range 60 {
			d := time.Date(2025, 12, 25, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n).Format(time.DateOnly)
			_, inForce := h.InForce(d)
			for v := uint32(1); v <= uint32(len(h)); v++ {
				governs, any := h.Governs(v)
				if got, want := any && governs.Contains(d), v == inForce; got != want {
					t.Fatalf("version %d governs %s: %v, but version %d is in force", v, d, got, inForce)
				}
			}
		}
	})
}

// TestCoverageNeverOverlaps: over any commands, spans stay ordered and apart,
// a command repeated at once changes nothing, and folding the stream anew
// gives the same member as folding it step by step.
func TestCoverageNeverOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMember()
		var stream []proto.Message
		for range rapid.IntRange(1, 15).Draw(t, "commands") {
			var decide func() ([]proto.Message, error)
			if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
				end := day(t, "last")
				decide = func() ([]proto.Message, error) { return decideTerminate(m, end) }
			} else {
				p := drawPeriod(t)
				c := command(p.Start, p.End)
				c.policy = proto.CloneOf(c.policy)
				c.policy.PolicyId = fmt.Sprintf("pol_%d", rapid.IntRange(0, 1).Draw(t, "policy"))
				decide = func() ([]proto.Message, error) { return decideEnrol(m, c) }
			}
			got, err := decide()
			if err != nil {
				continue
			}
			before := fmt.Sprint(m.Spans)
			was := m
			for _, e := range got {
				m = m.Evolve(e, uint64(len(stream)))
				stream = append(stream, e)
			}
			if fmt.Sprint(was.Spans) != before {
				t.Fatal("evolving changed a value that a reader may hold")
			}
			for i := 1; i < len(m.Spans); i++ {
				if a, b := m.Spans[i-1].Period, m.Spans[i].Period; a.Overlaps(b) || a.Start >= b.Start {
					t.Fatalf("spans %v and %v", a, b)
				}
			}
			if again, err := decide(); err != nil || len(again) > 0 {
				t.Fatalf("the command repeated gave %v, %v", again, err)
			}
		}
		fresh := NewMember()
		for i, e := range stream {
			fresh = fresh.Evolve(e, uint64(i))
		}
		if fmt.Sprint(fresh) != fmt.Sprint(m) {
			t.Fatalf("folded anew %v, step by step %v", fresh, m)
		}
	})
}
