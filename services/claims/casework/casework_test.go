package casework

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/problem"
)

const (
	pended = claimsv1.ClaimStatus_CLAIM_STATUS_PENDED
	paid   = claimsv1.ClaimStatus_CLAIM_STATUS_PAID
	denied = claimsv1.ClaimStatus_CLAIM_STATUS_DENIED

	document      = claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT
	otherPayer    = claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER
	authorization = claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION
)

var (
	noon  = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	terms = Terms{}.WithDefaults()

	wantsDocument      = &claimsv1.PendReason{RuleId: "authorization.document", Carc: "252"}
	wantsOtherPayer    = &claimsv1.PendReason{RuleId: "cob.awaited", Carc: "22"}
	wantsAuthorization = &claimsv1.PendReason{RuleId: "authorization.awaited", Carc: "197"}
	wantsPerson        = &claimsv1.PendReason{RuleId: "review.threshold", Carc: "216"}
)

// story is a claim and the time.
type story struct {
	t        rapid.TB
	s        State
	revision uint64
	now      time.Time
}

// received is a claim from Texas: 30 days, clean on arrival.
func received(t rapid.TB, status claimsv1.ClaimStatus, reasons ...*claimsv1.PendReason) *story {
	x := &story{t: t, now: noon}
	x.apply(&eventsv1.ClaimReceived{ClaimId: "clm_a", PayerId: "ACME", SubmitterOrg: "lakeside", ChargeCents: 15000})
	x.decided(status, reasons...)
	return x
}

func (x *story) decided(status claimsv1.ClaimStatus, reasons ...*claimsv1.PendReason) {
	x.apply(&eventsv1.ClaimDecided{
		ClaimId: "clm_a", Status: status, PendReasons: reasons, PromptPayState: "TX", DecidedTime: timestamppb.New(x.now),
		Versions: &claimsv1.Versions{ReceivedDate: "2026-03-02"},
	})
}

func (x *story) apply(events ...proto.Message) {
	for _, e := range events {
		x.s = Evolve(x.s, e, x.revision)
		x.revision++
	}
}

func (x *story) at(t time.Time) Now { return Now{Time: t} }

// due applies what is due at a time and names it.
func (x *story) due(at time.Time) (names []string) {
	x.now = at
	for _, e := range x.s.Due(x.at(at), terms, func(k claimsv1.InformationKind) string { return "inf_" + k.String() }) {
		name := string(e.ProtoReflect().Descriptor().Name())
		if esc, ok := e.(*eventsv1.TaskEscalated); ok {
			name += " " + esc.GetCause()
		}
		names = append(names, name)
		x.apply(e)
	}
	return names
}

func (x *story) deadline(kind string) time.Time {
	x.t.Helper()
	for _, d := range x.s.Deadlines(x.at(x.now), terms) {
		if d.GetKind() == kind {
			return d.GetTime().AsTime()
		}
	}
	x.t.Fatalf("no deadline %s among %v", kind, x.s.Deadlines(x.at(x.now), terms))
	return time.Time{}
}

func (x *story) receives(kind claimsv1.InformationKind, refused bool) error {
	asked, err := x.s.Answers(kind)
	if err != nil {
		return err
	}
	e := &eventsv1.InformationReceived{Kind: kind, Refused: refused}
	x.s.Received(e, asked, x.at(x.now))
	x.apply(e)
	return nil
}

func rule(t testing.TB, err error) string {
	t.Helper()
	var p *problem.Error
	require.True(t, errors.As(err, &p), "%v", err)
	return p.Problems[0].RuleID
}

// Every deadline: what is due at it, and that nothing is one second before.
func TestEveryDeadline(t *testing.T) {
	claim := func(x *story) {
		events, err := x.s.Claim("rev-1", "", x.at(x.now), terms)
		require.NoError(t, err)
		x.apply(events...)
	}
	for _, c := range []struct {
		name     string
		reasons  []*claimsv1.PendReason
		given    func(*story)
		deadline string
		at       time.Time
		due      []string
		answer   func(*story) error // instead, one second before
	}{
		{name: "a first reminder", reasons: []*claimsv1.PendReason{wantsDocument}, deadline: "information-reminder",
			at: noon.AddDate(0, 0, 15), due: []string{"InformationReminded"}, answer: func(x *story) error { return x.receives(document, false) }},
		{name: "a document doesn't come", reasons: []*claimsv1.PendReason{wantsDocument}, deadline: "information-due",
			given: func(x *story) { x.due(noon.AddDate(0, 0, 40)) },
			at:    noon.AddDate(0, 0, 45), due: []string{"InformationExpired"}, answer: func(x *story) error { return x.receives(document, false) }},
		{name: "another payer's decision doesn't come", reasons: []*claimsv1.PendReason{wantsOtherPayer}, deadline: "information-due",
			given: func(x *story) { x.due(noon.AddDate(0, 0, 40)) },
			at:    noon.AddDate(0, 0, 45), due: []string{"InformationExpired"}, answer: func(x *story) error { return x.receives(otherPayer, false) }},
		{name: "a document doesn't come and there is more to judge", reasons: []*claimsv1.PendReason{wantsDocument, wantsPerson}, deadline: "information-due",
			given: func(x *story) { x.due(noon.AddDate(0, 0, 40)) },
			at:    noon.AddDate(0, 0, 45), due: []string{"InformationExpired", "TaskEscalated information-expired"}},
		{name: "a standard authorisation is 7 days", reasons: []*claimsv1.PendReason{wantsAuthorization}, deadline: "authorization-due",
			at: noon.AddDate(0, 0, 7), due: []string{"TaskEscalated authorization-overdue"}, answer: func(x *story) error { return x.receives(authorization, true) }},
		{name: "an urgent one 72 hours", reasons: []*claimsv1.PendReason{wantsPerson}, deadline: "authorization-due",
			given: func(x *story) {
				events, err := x.s.Request("inf_u", authorization, true, "rev-1", x.at(noon), terms)
				require.NoError(t, err)
				x.apply(events...)
			},
			at: noon.Add(72 * time.Hour), due: []string{"TaskEscalated authorization-overdue"}, answer: func(x *story) error { return x.receives(authorization, false) }},
		{name: "a task held too long", reasons: []*claimsv1.PendReason{wantsPerson}, given: claim, deadline: "task-hold",
			at: noon.AddDate(0, 0, 1), due: []string{"TaskReleased"},
			answer: func(x *story) error {
				events, err := x.s.Release("rev-1")
				x.apply(events...)
				return err
			}},
		{name: "five days before the prompt-pay day", reasons: []*claimsv1.PendReason{wantsPerson}, deadline: "escalation",
			at: time.Date(2026, 3, 27, 0, 0, 0, 0, time.UTC), due: []string{"TaskEscalated due-soon"},
			answer: func(x *story) error { x.decided(paid); return nil }},
		{name: "the prompt-pay day has passed", reasons: []*claimsv1.PendReason{wantsPerson}, deadline: "prompt-pay",
			given: func(x *story) { x.due(time.Date(2026, 3, 27, 0, 0, 0, 0, time.UTC)) },
			at:    time.Date(2026, 4, 2, 0, 0, 0, 0, time.UTC), due: []string{"TaskEscalated overdue"},
			answer: func(x *story) error { x.decided(paid); return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := received(t, pended, c.reasons...)
			x.due(noon)
			if c.given != nil {
				c.given(x)
			}
			require.Equal(t, c.at, x.deadline(c.deadline), "it shows")
			before := *x
			require.Empty(t, x.due(c.at.Add(-time.Second)), "not yet")
			require.Equal(t, c.due, x.due(c.at), "nobody came")
			require.Empty(t, x.due(c.at), "once")

			if c.answer == nil {
				return
			}
			x = &before
			x.now = c.at.Add(-time.Second)
			require.NoError(t, c.answer(x))
			require.NotContains(t, x.due(c.at), c.due[0], "it came one second before")
		})
	}
}

// What a claim's first decision says of its deadlines is what its case says,
// and says nothing where something is due at once.
func TestTheFirstDecisionNamesTheFirstDeadline(t *testing.T) {
	first := func(status claimsv1.ClaimStatus, on string, now time.Time, reasons ...*claimsv1.PendReason) *claimsv1.Deadline {
		return First(&eventsv1.ClaimReceived{ClaimId: "clm_a", PayerId: "ACME"}, &eventsv1.ClaimDecided{
			ClaimId: "clm_a", Status: status, PendReasons: reasons, PromptPayState: "TX", Versions: &claimsv1.Versions{ReceivedDate: on},
		}, Now{Time: now}, terms)
	}
	x := received(t, pended, wantsPerson)
	got := first(pended, "2026-03-02", noon, wantsPerson)
	require.Equal(t, "escalation", got.GetKind())
	require.Equal(t, x.deadline("escalation"), got.GetTime().AsTime())
	require.Empty(t, x.due(got.GetTime().AsTime().Add(-time.Second)), "nothing is due before")
	require.Equal(t, []string{"TaskEscalated due-soon"}, x.due(got.GetTime().AsTime()))

	require.Nil(t, first(pended, "2026-03-02", noon, wantsPerson, wantsDocument), "the document is asked for at once")
	require.Nil(t, first(pended, "2026-02-02", noon, wantsPerson), "it is escalated at once")
	require.Nil(t, first(paid, "2026-03-02", noon), "it waits for nothing")
}

func TestWhatWasAskedInVainDeniesAndWhatHasMoreIsAPersons(t *testing.T) {
	x := received(t, pended, wantsDocument)
	require.True(t, x.s.WaitsForProvider(), "nothing to do for a reviewer, asked or not")
	require.Equal(t, []string{"InformationRequested"}, x.due(noon))
	require.False(t, x.s.Lapsed())
	x.due(noon.AddDate(0, 0, 45))
	require.True(t, x.s.Lapsed(), "all that it waits for was asked for in vain")

	mixed := received(t, pended, wantsDocument, wantsPerson)
	mixed.due(noon)
	require.True(t, mixed.s.WaitsForProvider())
	mixed.due(noon.AddDate(0, 0, 45))
	require.False(t, mixed.s.Lapsed())
	require.False(t, mixed.s.WaitsForProvider())
	require.NotNil(t, mixed.s.Task())

	late := received(t, pended, wantsAuthorization)
	late.due(noon)
	late.due(noon.AddDate(0, 0, 8))
	require.False(t, late.s.Lapsed(), "the payer's own delay denies nothing")
	require.NoError(t, late.receives(authorization, true))
	require.True(t, late.s.Lapsed(), "its refusal does")
}

func TestRemindersComeAtTheirRhythmAndEndWithTheDeadline(t *testing.T) {
	x := received(t, pended, wantsDocument)
	var when []time.Time
	for hour := 0; hour <= 46*24; hour++ {
		at := noon.Add(time.Duration(hour) * time.Hour)
		for _, name := range x.due(at) {
			if name == "InformationReminded" {
				when = append(when, at)
			}
		}
	}
	require.Equal(t, []time.Time{noon.AddDate(0, 0, 15), noon.AddDate(0, 0, 30)}, when)
}

// The clock starts with a clean claim, stops while the provider is waited for,
// and goes on as the state's law has it.
func TestThePromptPayClock(t *testing.T) {
	for _, c := range []struct {
		name, state string
		paper       bool
		due, after  string
	}{
		{"Texas begins anew", "TX", false, "2026-04-01", "2026-04-11"},
		{"on paper it has 45 days", "TX", true, "2026-04-16", "2026-04-26"},
		{"Ohio leaves out the nine days of waiting", "OH", false, "2026-04-01", "2026-04-10"},
		{"Georgia has 15 days", "GA", false, "2026-03-17", "2026-03-27"},
		{"an unknown state has 30", "", false, "2026-04-01", "2026-04-11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := &story{t: t, now: noon}
			x.apply(&eventsv1.ClaimReceived{ClaimId: "clm_a", PayerId: "ACME", Paper: c.paper})
			x.apply(&eventsv1.ClaimDecided{ClaimId: "clm_a", Status: pended, PendReasons: []*claimsv1.PendReason{wantsDocument, wantsOtherPayer},
				PromptPayState: c.state, DecidedTime: timestamppb.New(noon), Versions: &claimsv1.Versions{ReceivedDate: "2026-03-02"}})
			require.Equal(t, c.due, x.s.Clock.GetDueDate())

			// when a document and another payer's decision are asked for the day after
			x.due(noon.AddDate(0, 0, 1))
			require.Empty(t, x.s.Clock.GetDueDate(), "stopped")

			// and the first of them has come, then the second
			x.now = noon.AddDate(0, 0, 5)
			require.NoError(t, x.receives(document, false))
			require.Empty(t, x.s.Clock.GetDueDate(), "not clean yet")
			x.now = noon.AddDate(0, 0, 10)
			require.NoError(t, x.receives(otherPayer, false))
			require.Equal(t, c.after, x.s.Clock.GetDueDate())
		})
	}
}

func TestTheClockKeepsThePayersCalendar(t *testing.T) {
	central, err := time.LoadLocation("America/Chicago")
	require.NoError(t, err)
	x := received(t, pended, wantsPerson)
	now := Now{Time: noon, Zone: central}
	for _, d := range x.s.Deadlines(now, terms) {
		if d.GetKind() == "prompt-pay" {
			require.Equal(t, time.Date(2026, 4, 2, 5, 0, 0, 0, time.UTC), d.GetTime().AsTime(), "midnight in Chicago, in summer time")
			return
		}
	}
	t.Fatal("no prompt-pay deadline")
}

func TestATaskIsOnePersonsAtATime(t *testing.T) {
	x := received(t, pended, wantsPerson)
	take := func(who, by string) error {
		events, err := x.s.Claim(who, by, x.at(noon), terms)
		x.apply(events...)
		return err
	}
	require.NoError(t, take("rev-1", ""))
	require.NoError(t, take("rev-1", ""), "to take what one has does nothing")
	require.Equal(t, "casework.task.held", rule(t, take("rev-2", "")))
	_, err := x.s.MayReview("rev-2", "approve")
	require.Equal(t, "casework.task.held", rule(t, err))
	_, err = x.s.Release("rev-2")
	require.Equal(t, "casework.task.held", rule(t, err))
	require.NoError(t, take("rev-2", "lead"), "reassigned")
	decides, err := x.s.MayReview("rev-2", "approve")
	require.NoError(t, err)
	require.True(t, decides)
	events, err := x.s.Release("rev-2")
	require.NoError(t, err)
	x.apply(events...)
	events, err = x.s.Release("rev-2")
	require.NoError(t, err)
	require.Empty(t, events, "given back twice is given back")
	require.Empty(t, x.s.Task().GetAssignee())

	x.decided(paid)
	require.Equal(t, "casework.task.none", rule(t, take("rev-1", "")))
	require.Nil(t, x.s.Task())
}

func TestTwoReviewersMustAgreeAndNobodyCountsTwice(t *testing.T) {
	x := received(t, pended, wantsPerson)
	x.s.Needed = 2
	opine := func(who, resolution string) bool {
		decides, err := x.s.MayReview(who, resolution)
		require.NoError(t, err)
		if !decides {
			x.apply(x.s.Propose(&eventsv1.ReviewProposed{Reviewer: who, Resolution: resolution})...)
		}
		return decides
	}
	require.False(t, opine("rev-1", "approve"))
	_, err := x.s.MayReview("rev-1", "approve")
	require.Equal(t, "casework.review.same-person", rule(t, err))
	_, err = x.s.Claim("rev-1", "", x.at(noon), terms)
	require.Equal(t, "casework.task.same-person", rule(t, err))
	require.Zero(t, x.s.Escalation)
	require.False(t, opine("rev-2", "deny"), "they differ")
	require.EqualValues(t, 1, x.s.Escalation, "and others are told")
	require.True(t, opine("rev-3", "deny"), "two of three agree")
	require.Equal(t, []string{"rev-1", "rev-2"}, x.s.Deciders)
}

// An appeal goes up level by level, each within its time, and never to a
// person who had a say before.
func TestThePlansAmountForTwoReviewersCountsBeforeTheInstallations(t *testing.T) {
	gold, open := PlanTerm{Plan: "plan_gold@3", FromCents: 500}, PlanTerm{Plan: "plan_open@1", Never: true}
	for _, c := range []struct {
		charge int64
		plans  []PlanTerm
		needed uint32
		rule   *claimsv1.ReviewersRule
	}{
		{999_999, nil, 1, nil},
		{1_000_000, nil, 2, &claimsv1.ReviewersRule{FromCents: 1_000_000}},
		{499, []PlanTerm{gold}, 1, nil},
		{500, []PlanTerm{gold}, 2, &claimsv1.ReviewersRule{Plan: "plan_gold@3", FromCents: 500}},
		{5_000_000, []PlanTerm{open}, 1, nil},
		{500, []PlanTerm{open, gold}, 2, &claimsv1.ReviewersRule{Plan: "plan_gold@3", FromCents: 500}},
		{0, []PlanTerm{{Plan: "plan_all@1"}}, 2, &claimsv1.ReviewersRule{Plan: "plan_all@1"}},
	} {
		needed, rule := terms.Reviewers(c.charge, c.plans)
		require.Equal(t, c.needed, needed, "%v", c)
		require.EqualExportedValues(t, c.rule, rule)
	}
}

func TestAppealsGoUpLevelByLevel(t *testing.T) {
	x := received(t, pended, wantsPerson)
	x.apply(&eventsv1.ClaimReviewed{Reviewer: "rev-1", Resolution: "deny"})
	x.decided(denied)
	file := func(id string, at time.Time, expedited bool) error {
		a, err := x.s.File(id, "biller", expedited, x.at(at), terms)
		if err == nil {
			x.now = at
			x.apply(&eventsv1.AppealFiled{ClaimId: "clm_a", Appeal: a})
		}
		return err
	}
	hear := func(id, who string, at time.Time) error {
		err := x.s.MayHear(id, who)
		if err == nil {
			x.apply(&eventsv1.AppealDecided{AppealId: id, Outcome: Upheld, Decider: who, DecidedTime: timestamppb.New(at)})
		}
		return err
	}
	require.Equal(t, "casework.appeal.late", rule(t, file("a0", noon.AddDate(0, 0, 180).Add(time.Second), false)))
	require.NoError(t, file("a1", noon.AddDate(0, 0, 180), false), "on its last moment")
	filed := noon.AddDate(0, 0, 180)
	require.Equal(t, filed.AddDate(0, 0, 30), x.deadline("appeal-due"))
	require.Equal(t, "casework.appeal.open", rule(t, file("a1b", filed, false)))
	require.Equal(t, "casework.appeal.same-person", rule(t, hear("a1", "rev-1", filed)))
	require.Equal(t, "casework.appeal.unknown", rule(t, hear("a9", "rev-2", filed)))
	require.NoError(t, hear("a1", "rev-2", filed))
	require.Equal(t, "casework.appeal.decided", rule(t, hear("a1", "rev-3", filed)))

	require.Equal(t, "casework.appeal.late", rule(t, file("a2", filed.AddDate(0, 0, 61), false)))
	require.NoError(t, file("a2", filed.AddDate(0, 0, 60), true))
	second := filed.AddDate(0, 0, 60)
	require.Equal(t, second.Add(72*time.Hour), x.deadline("appeal-due"), "expedited")
	require.Equal(t, "casework.appeal.same-person", rule(t, hear("a2", "rev-2", second)), "who heard the level below")

	// when nobody decides in time, then the next level is open and the one below is moot
	require.Empty(t, x.due(second.Add(72*time.Hour-time.Second)))
	require.Equal(t, []string{"AppealOverdue"}, x.due(second.Add(72*time.Hour)))
	require.NoError(t, file("a3", second.Add(72*time.Hour), false))
	require.Equal(t, claimsv1.AppealState_APPEAL_STATE_MOOT, x.s.Appeal("a2").GetState())
	require.Equal(t, claimsv1.AppealLevel_APPEAL_LEVEL_EXTERNAL, x.s.Appeal("a3").GetLevel())
	require.NoError(t, hear("a3", "rev-4", second))
	require.Equal(t, "casework.appeal.exhausted", rule(t, file("a4", second.AddDate(0, 0, 4), false)))

	// and another decision opens the first level again
	x.decided(paid)
	require.NoError(t, file("b1", x.now, false))
	require.Equal(t, claimsv1.AppealLevel_APPEAL_LEVEL_RECONSIDERATION, x.s.Appeal("b1").GetLevel())
	x.decided(denied)
	require.Equal(t, claimsv1.AppealState_APPEAL_STATE_MOOT, x.s.Appeal("b1").GetState())
}

func TestOnlyADecisionIsAppealed(t *testing.T) {
	x := received(t, pended, wantsPerson)
	_, err := x.s.File("a1", "biller", false, x.at(noon), terms)
	require.Equal(t, "casework.appeal.not-final", rule(t, err))
}

func TestADecisionWithdrawsWhatWasAskedFor(t *testing.T) {
	x := received(t, pended, wantsDocument)
	x.due(noon)
	x.decided(paid)
	require.Equal(t, claimsv1.InformationState_INFORMATION_STATE_WITHDRAWN, x.s.Requests[0].GetState())
	require.Empty(t, x.s.Deadlines(x.at(noon), terms))
}

// Whatever happens in whatever order: what is due leaves nothing due, a
// deadline that shows lies ahead, and the state is the fold of its events.
func TestWorkIsSoundInAnyOrder(t *testing.T) {
	kinds := []claimsv1.InformationKind{document, otherPayer, authorization}
	reasons := []*claimsv1.PendReason{wantsDocument, wantsOtherPayer, wantsAuthorization, wantsPerson}
	rapid.Check(t, func(t *rapid.T) {
		x := received(t, pended, rapid.SliceOfNDistinct(rapid.SampledFrom(reasons), 1, 4, func(r *claimsv1.PendReason) string { return r.GetRuleId() }).Draw(t, "reasons")...)
		var all []proto.Message
		apply := func(events ...proto.Message) {
			all = append(all, events...)
			x.apply(events...)
		}
		start, from := x.s, x.revision
		who := rapid.SampledFrom([]string{"rev-1", "rev-2", "rev-3"})
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			x.now = x.now.Add(time.Duration(rapid.IntRange(0, 20*24).Draw(t, "hours")) * time.Hour)
			now := x.at(x.now)
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0:
				if events, err := x.s.Claim(who.Draw(t, "who"), "", now, terms); err == nil {
					apply(events...)
				}
			case 1:
				if events, err := x.s.Release(who.Draw(t, "who")); err == nil {
					apply(events...)
				}
			case 2:
				kind := rapid.SampledFrom(kinds).Draw(t, "kind")
				if asked, err := x.s.Answers(kind); err == nil {
					e := &eventsv1.InformationReceived{Kind: kind, Refused: rapid.Bool().Draw(t, "refused")}
					x.s.Received(e, asked, now)
					apply(e)
				}
			case 3:
				if decides, err := x.s.MayReview(who.Draw(t, "who"), "approve"); err == nil && decides && step > 10 {
					apply(&eventsv1.ClaimDecided{ClaimId: "clm_a", Status: denied, DecidedTime: timestamppb.New(x.now)})
				}
			case 4:
				if a, err := x.s.File(timestamppb.New(x.now).String(), "biller", false, now, terms); err == nil {
					apply(&eventsv1.AppealFiled{ClaimId: "clm_a", Appeal: a})
				}
			case 5:
				if events, err := x.s.Request("inf_"+timestamppb.New(x.now).String(), rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.Bool().Draw(t, "urgent"), "rev-1", now, terms); err == nil {
					apply(events...)
				}
			}
			apply(x.s.Due(now, terms, func(k claimsv1.InformationKind) string { return k.String() + timestamppb.New(x.now).String() })...)
			if again := x.s.Due(now, terms, func(claimsv1.InformationKind) string { return "again" }); len(again) > 0 {
				t.Fatalf("still due: %v", again)
			}
			for _, d := range x.s.Deadlines(now, terms) {
				if d.GetKind() != "work" && !d.GetTime().AsTime().After(x.now) && !x.s.Lapsed() {
					t.Fatalf("%v has passed at %v", d, x.now)
				}
			}
			if (x.s.Clock.GetDueDate() == "") != (x.s.Clock.GetStoppedTime() != nil) {
				t.Fatalf("a clock that neither runs nor stands: %v", x.s.Clock)
			}
		}
		folded := start
		for i, e := range all {
			folded = Evolve(folded, e, from+uint64(i))
		}
		require.Equal(t, x.s, folded)
	})
}

func TestTermsAreReadStrictly(t *testing.T) {
	var got Terms
	require.NoError(t, json.Unmarshal([]byte(`{"documents":"60d","authorizationUrgent":"48h","secondReviewerCents":250000}`), &got))
	require.Equal(t, Terms{Documents: Days(60), AuthorizationUrgent: Days(2), SecondReviewerCents: 250000}, got)
	for _, bad := range []string{`{"documents":45}`, `{"documents":"45"}`, `{"documents":"-1d"}`, `{"documents":"0d"}`, `{"documents":"999999d"}`} {
		require.Error(t, json.Unmarshal([]byte(bad), &got), bad)
	}
	text, err := json.Marshal(Terms{Documents: Days(45), Hold: Span(90 * time.Minute)})
	require.NoError(t, err)
	require.JSONEq(t, `{"documents":"45d","hold":"1h30m0s"}`, string(text))
	needed, _ := Terms{SecondReviewerCents: -1}.WithDefaults().Reviewers(1<<40, nil)
	require.EqualValues(t, 1, needed)
}

func TestAnswersAreBoundedAndOnlyWhatIsLacking(t *testing.T) {
	x := received(t, pended, wantsDocument)
	for range 50 {
		require.NoError(t, x.receives(document, false))
	}
	require.Equal(t, "casework.information.many", rule(t, x.receives(document, false)))
	_, err := x.s.Request("inf_x", otherPayer, false, "rev-1", x.at(noon), terms)
	require.NoError(t, err, "one kind was asked for once")

	x = received(t, denied)
	require.Equal(t, "casework.information.none", rule(t, x.receives(otherPayer, false)), "it wasn't denied for want of that")
	x.apply(&eventsv1.ClaimDecided{ClaimId: "clm_a", Status: denied, Codes: []string{"CO-22"}, DecidedTime: timestamppb.New(noon)})
	require.NoError(t, x.receives(otherPayer, false))
}

func FuzzTerms(f *testing.F) {
	for _, seed := range []string{`{"documents":"45d"}`, `{"hold":"72h"}`, `{"remind":""}`, `{"documents":"-9223372036854775808d"}`, `{"documents":"1e9h"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got Terms
		if json.Unmarshal(raw, &got) != nil {
			return
		}
		full := got.WithDefaults()
		for _, s := range []Span{full.Documents, full.OtherPayer, full.Remind, full.Hold, full.EscalateBefore, full.DecideExpedited} {
			if s <= 0 {
				t.Fatalf("%s reads as a span of %d", raw, s)
			}
		}
		text, err := json.Marshal(got)
		require.NoError(t, err)
		var again Terms
		require.NoError(t, json.Unmarshal(text, &again))
		require.Equal(t, got, again)
	})
}
