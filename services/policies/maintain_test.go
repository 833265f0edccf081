package policies_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
)

const (
	add       = policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD
	change    = policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE
	terminate = policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE
	reinstate = policiesv1.MaintenanceType_MAINTENANCE_TYPE_REINSTATE
	audit     = policiesv1.MaintenanceType_MAINTENANCE_TYPE_AUDIT
)

// asks is a change of one of the family of CARD-1: Ann the subscriber, Bob
// the spouse, Cy and Di the children.
func asks(kind policiesv1.MaintenanceType, first string, edits ...func(*policiesv1.EnrollmentChange)) *policiesv1.EnrollmentChange {
	c := &policiesv1.EnrollmentChange{MaintenanceType: kind, MemberId: "CARD-1", LastName: "Zzyzx", FirstName: first, GroupNumber: "G1"}
	switch first {
	case "Ann":
		c.RelationshipCode, c.BirthDate, c.Sex = "18", "1984-03-12", "F"
	case "Bob":
		c.RelationshipCode, c.BirthDate, c.Sex = "01", "1982-11-05", "M"
	case "Cy":
		c.RelationshipCode, c.BirthDate, c.Sex = "19", "2015-06-21", "M"
	case "Di":
		c.RelationshipCode, c.BirthDate, c.Sex = "19", "2015-06-21", "F"
	}
	if kind == add {
		c.StartDate, c.InsuranceLine = "2026-01-01", "HLT"
	}
	for _, edit := range edits {
		edit(c)
	}
	return c
}

func day(set func(*policiesv1.EnrollmentChange, string), d string) func(*policiesv1.EnrollmentChange) {
	return func(c *policiesv1.EnrollmentChange) { set(c, d) }
}

func starts(d string) func(*policiesv1.EnrollmentChange) {
	return day(func(c *policiesv1.EnrollmentChange, d string) { c.StartDate = d }, d)
}

func ends(d string) func(*policiesv1.EnrollmentChange) {
	return day(func(c *policiesv1.EnrollmentChange, d string) { c.EndDate = d }, d)
}

func born(d string) func(*policiesv1.EnrollmentChange) {
	return day(func(c *policiesv1.EnrollmentChange, d string) { c.BirthDate = d }, d)
}

func line(l string) func(*policiesv1.EnrollmentChange) {
	return func(c *policiesv1.EnrollmentChange) { c.InsuranceLine = l }
}

// sponsored is a house with the policies pol_a (plan_a) of group G1 and pol_b
// (plan_b, children age out at 26) of G2.
func sponsored(t *testing.T) *house {
	t.Helper()
	h := open(t).stocked(t)
	second := planOf("P1", "plan_b")
	second.DependentAgeLimit = 26
	_, err := h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "pb", Plan: second})
	require.NoError(t, err)
	for _, p := range []*policiesv1.Policy{
		{PolicyId: "pol_g1", PayerId: "P1", GroupNumber: "G1", PlanId: "plan_a", Effective: from("2026-01-01")},
		{PolicyId: "pol_g2", PayerId: "P1", GroupNumber: "G2", PlanId: "plan_b", Effective: from("2026-01-01")},
		{PolicyId: "pol_g3a", PayerId: "P1", GroupNumber: "G3", PlanId: "plan_a", Effective: from("2026-01-01")},
		{PolicyId: "pol_g3b", PayerId: "P1", GroupNumber: "G3", PlanId: "plan_b", Effective: from("2026-01-01")},
	} {
		_, err := h.CreatePolicy(h.ctx, &policiesv1.CreatePolicyRequest{RequestId: "c" + p.GetPolicyId(), Policy: p})
		require.NoError(t, err)
	}
	return h
}

func (h *house) maintain(t *testing.T, requestID string, cs ...*policiesv1.EnrollmentChange) *policiesv1.ApplyEnrollmentChangesResponse {
	t.Helper()
	a, err := h.ApplyEnrollmentChanges(h.ctx, &policiesv1.ApplyEnrollmentChangesRequest{RequestId: requestID, PayerId: "P1", Changes: cs})
	require.NoError(t, err)
	require.Len(t, a.GetOutcomes(), len(cs))
	return a
}

// applied is maintain of changes that all must be.
func (h *house) applied(t *testing.T, requestID string, cs ...*policiesv1.EnrollmentChange) []string {
	t.Helper()
	var subjects []string
	for i, o := range h.maintain(t, requestID, cs...).GetOutcomes() {
		require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_APPLIED, o.GetResult(), "change %d: %v", i, o)
		subjects = append(subjects, o.GetSubject())
	}
	return subjects
}

// covered is a person's coverage as one line.
func (h *house) covered(t *testing.T, subject string, knownAt ...time.Time) string {
	t.Helper()
	req := &policiesv1.GetMemberRequest{Subject: subject}
	for _, at := range knownAt {
		req.KnownTime = timestamppb.New(at)
	}
	m, err := h.GetMember(h.ctx, req)
	require.NoError(t, err)
	var out []string
	for _, s := range m.GetCoverage() {
		out = append(out, fmt.Sprintf("%s %s..%s", s.GetPolicyId(), s.GetPeriod().GetStartDate(), s.GetPeriod().GetEndDate()))
	}
	return strings.Join(out, ", ")
}

func TestAFamilyIsEnrolledOnce(t *testing.T) {
	h := sponsored(t)
	changes := []*policiesv1.EnrollmentChange{asks(add, "Ann"), asks(add, "Bob"), asks(add, "Cy"), asks(add, "Di")}
	first := h.maintain(t, "file-1", changes...)
	subjects := map[string]bool{}
	for i, o := range first.GetOutcomes() {
		require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_APPLIED, o.GetResult(), "%v", o)
		require.EqualValues(t, i, o.GetOrdinal())
		require.Equal(t, "2026-01-01", o.GetTouched().GetStartDate())
		require.Equal(t, "pol_g1 2026-01-01..", h.covered(t, o.GetSubject()))
		subjects[o.GetSubject()] = true
	}
	require.Len(t, subjects, 4, "twins are two persons")
	require.NotEmpty(t, first.GetToken())

	again := h.maintain(t, "file-1", changes...)
	require.True(t, again.GetDuplicate())
	require.True(t, proto.Equal(&policiesv1.ApplyEnrollmentChangesResponse{Outcomes: first.GetOutcomes()}, &policiesv1.ApplyEnrollmentChangesResponse{Outcomes: again.GetOutcomes()}))
	for subject := range subjects {
		require.Len(t, h.stream(t, policies.MemberStream(subject)), 1, "nothing was recorded twice")
	}

	other := h.maintain(t, "file-2", changes...)
	for _, o := range other.GetOutcomes() {
		require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_UNCHANGED, o.GetResult())
	}

	_, err := h.ApplyEnrollmentChanges(h.ctx, &policiesv1.ApplyEnrollmentChangesRequest{RequestId: "file-1", PayerId: "P1", Changes: changes[:1]})
	refused(t, err, problem.Conflict, "request_id.reused")
}

func TestNothingOfAPersonIsInClearOnTheLedger(t *testing.T) {
	h := sponsored(t)
	h.applied(t, "a", asks(add, "Ann"))
	subject := h.applied(t, "b", asks(terminate, "Ann", ends("2026-03-31"), func(c *policiesv1.EnrollmentChange) { c.MaintenanceReason = "03" }))[0]
	h.applied(t, "c", asks(reinstate, "Ann"))
	h.applied(t, "d", asks(change, "Ann", func(c *policiesv1.EnrollmentChange) { c.LastName = "Wyzant" }))
	batches := 0
	require.NoError(t, follow(h, func(r eventstore.Recorded) {
		b, err := proto.Marshal(r.Event)
		require.NoError(t, err)
		for _, secret := range []string{"Ann", "Zzyzx", "Wyzant", "1984-03-12", "CARD-1"} {
			require.NotContains(t, string(b), secret, "%T", r.Event)
			require.NotContains(t, r.Stream+r.RequestID, secret)
		}
		if strings.HasPrefix(r.Stream, "enrollment-") {
			batches++
		}
	}))
	require.Equal(t, 4, batches)
	require.Len(t, h.stream(t, policies.MemberStream(subject)), 4)
}

// follow hands on everything on the policies log.
func follow(h *house, each func(eventstore.Recorded)) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	err := h.store.Follow(ctx, policies.Log, nil, nil, func(_ context.Context, b eventstore.Batch) error {
		for _, r := range b.Events {
			each(r)
		}
		if b.CaughtUp {
			stop()
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Coverage has two times: the days it is for, and when it became known.
func TestWhatWasKnownThenAndWhatIsKnownNow(t *testing.T) {
	h := sponsored(t)
	ann := h.applied(t, "a", asks(add, "Ann"))[0]
	h.applied(t, "b", asks(terminate, "Ann", ends("2026-02-28")))
	h.applied(t, "c", asks(reinstate, "Ann", starts("2026-04-01")))

	history, err := h.GetMemberHistory(h.ctx, &policiesv1.GetMemberHistoryRequest{Member: &policiesv1.GetMemberRequest{PayerId: "P1", MemberId: "CARD-1", BirthDate: "1984-03-12"}})
	require.NoError(t, err)
	require.Equal(t, ann, history.GetSubject())
	var got []string
	for _, c := range history.GetChanges() {
		got = append(got, fmt.Sprint(c.GetKind(), " ", c.GetEffectiveDate(), " ", len(c.GetCoverage())))
		require.NotEmpty(t, c.GetBatchId())
	}
	require.Equal(t, []string{"enrolled 2026-01-01 1", "terminated 2026-03-01 1", "reinstated 2026-04-01 2"}, got)

	states := []string{"pol_g1 2026-01-01..", "pol_g1 2026-01-01..2026-02-28", "pol_g1 2026-01-01..2026-02-28, pol_g1 2026-04-01.."}
	for i, c := range history.GetChanges() {
		require.Equal(t, states[i], h.covered(t, ann, c.GetRecordedTime().AsTime()), "as known after change %d", i)
	}
	require.Equal(t, states[2], h.covered(t, ann))
	_, err = h.GetMember(h.ctx, &policiesv1.GetMemberRequest{Subject: ann, KnownTime: timestamppb.New(history.GetChanges()[0].GetRecordedTime().AsTime().Add(-time.Second))})
	refused(t, err, problem.NotFound, "member.unknown-then")

	// The book that claims are decided with answers alike.
	require.NoError(t, h.book.WaitFor(h.ctx, h.maintain(t, "c", asks(reinstate, "Ann", starts("2026-04-01"))).GetToken()))
	index := keys.NewIndex([32]byte{1})
	ask := book.Query{PayerID: "P1", Subscriber: index.Subscriber("P1", "CARD-1"), BirthIndex: index.BirthIndex("P1", "CARD-1", "1984-03-12"), PersonIndex: index.PersonIndex("P1", "CARD-1", "1984-03-12", "Ann")}
	require.Len(t, h.book.For(ask).Coverage, 2)
	ask.KnownAt = history.GetChanges()[0].GetRecordedTime().AsTime()
	then := h.book.For(ask)
	require.Len(t, then.Coverage, 1)
	require.Equal(t, policies.MemberStream(ann)+"@0", then.CoverageRef)
	ask.KnownAt = ask.KnownAt.Add(-time.Hour)
	require.Equal(t, book.MatchNone, h.book.For(ask).Match)
}

func TestTerminationsAndReinstatements(t *testing.T) {
	for name, c := range map[string]struct {
		then  []*policiesv1.EnrollmentChange
		spans string
	}{
		"from a day":                     {[]*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2026-03-31"))}, "pol_g1 2026-01-01..2026-03-31"},
		"a second time, earlier":         {[]*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2026-03-31")), asks(terminate, "Ann", ends("2026-02-28"))}, "pol_g1 2026-01-01..2026-02-28"},
		"it never began":                 {[]*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2025-12-31"))}, ""},
		"never began, and began after":   {[]*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2025-12-31")), asks(reinstate, "Ann", starts("2026-01-01"))}, "pol_g1 2026-01-01.."},
		"resumed without a gap":          {[]*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2026-03-31")), asks(reinstate, "Ann")}, "pol_g1 2026-01-01.."},
		"resumed, first day repeated":    {[]*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2026-03-31")), asks(reinstate, "Ann", starts("2026-01-01"))}, "pol_g1 2026-01-01.."},
		"resumed with a gap":             {[]*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2026-03-31")), asks(reinstate, "Ann", starts("2026-06-01"), ends("2026-09-30"))}, "pol_g1 2026-01-01..2026-03-31, pol_g1 2026-06-01..2026-09-30"},
		"to another plan":                {[]*policiesv1.EnrollmentChange{asks(change, "Ann", line("HLT"), starts("2026-05-01"), func(c *policiesv1.EnrollmentChange) { c.GroupNumber = "G2" })}, "pol_g1 2026-01-01..2026-04-30, pol_g2 2026-05-01.."},
		"to another plan from the start": {[]*policiesv1.EnrollmentChange{asks(change, "Ann", line("HLT"), starts("2026-01-01"), func(c *policiesv1.EnrollmentChange) { c.GroupNumber = "G2" })}, "pol_g2 2026-01-01.."},
		"coverage gets an end":           {[]*policiesv1.EnrollmentChange{asks(change, "Ann", line("HLT"), starts("2026-01-01"), ends("2026-06-30"))}, "pol_g1 2026-01-01..2026-06-30"},
	} {
		t.Run(name, func(t *testing.T) {
			h := sponsored(t)
			ann := h.applied(t, "a", asks(add, "Ann"))[0]
			for i, ch := range c.then {
				require.Equal(t, ann, h.applied(t, fmt.Sprint(i), ch)[0])
			}
			require.Equal(t, c.spans, h.covered(t, ann))
			last := h.maintain(t, "again", c.then[len(c.then)-1]).GetOutcomes()[0]
			require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_UNCHANGED, last.GetResult(), "sent again it is so already: %v", last)
			require.Equal(t, c.spans, h.covered(t, ann))
		})
	}
}

func TestASubscribersEndEndsTheFamily(t *testing.T) {
	h := sponsored(t)
	family := h.applied(t, "a", asks(add, "Ann"), asks(add, "Bob"), asks(add, "Cy"))
	h.applied(t, "b", asks(terminate, "Bob", ends("2026-01-31")))
	h.applied(t, "c", asks(terminate, "Ann", ends("2026-03-31"), born("")))
	require.Equal(t, "pol_g1 2026-01-01..2026-03-31", h.covered(t, family[0]))
	require.Equal(t, "pol_g1 2026-01-01..2026-01-31", h.covered(t, family[1]), "who left before stays as it was")
	require.Equal(t, "pol_g1 2026-01-01..2026-03-31", h.covered(t, family[2]))
}

func TestAPersonIsFoundByNameWhereNoBirthDateIsSent(t *testing.T) {
	h := sponsored(t)
	family := h.applied(t, "a", asks(add, "Ann"), asks(add, "Cy"), asks(add, "Di"))
	out := h.maintain(t, "b",
		asks(terminate, "Cy", ends("2026-02-28"), born("")),
		asks(terminate, "Cy", ends("2026-02-28"), born(""), func(c *policiesv1.EnrollmentChange) { c.FirstName = "Ed" }),
		asks(terminate, "Di", ends("2026-02-28"), born("2015-06-22")),
	).GetOutcomes()
	require.Equal(t, family[1], out[0].GetSubject())
	require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_APPLIED, out[0].GetResult())
	for _, o := range out[1:] {
		require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_REFUSED, o.GetResult(), "a twin is not taken for the other")
		require.Equal(t, "member.unknown", o.GetProblems()[0].GetRuleId())
	}
	require.Equal(t, "pol_g1 2026-01-01..", h.covered(t, family[2]))
}

// A corrected birth date leads to the same person from then on, in every way in.
func TestACorrectedIdentityStaysOnePerson(t *testing.T) {
	h := sponsored(t)
	family := h.applied(t, "a", asks(add, "Ann"), asks(add, "Bob"))
	corrected := asks(change, "Bob", born("1982-11-06"), func(c *policiesv1.EnrollmentChange) { c.PreviousBirthDate = "1982-11-05" })
	require.Equal(t, family[1], h.applied(t, "b", corrected)[0])
	require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_UNCHANGED, h.maintain(t, "b2", corrected).GetOutcomes()[0].GetResult())

	found, err := h.LookupMember(h.ctx, &policiesv1.LookupMemberRequest{PayerId: "P1", MemberId: "CARD-1", BirthDate: "1982-11-06"})
	require.NoError(t, err)
	require.Equal(t, family[1], found.GetSubject())
	_, err = h.LookupMember(h.ctx, &policiesv1.LookupMemberRequest{PayerId: "P1", MemberId: "CARD-1", BirthDate: "1982-11-05"})
	refused(t, err, problem.NotFound, "member.unknown")

	enrolled := h.enrol(t, "c", &policiesv1.Enrollment{PolicyId: "pol_g1", MemberId: "CARD-1", RelationshipCode: "01", LastName: "Zzyzx", FirstName: "Bob",
		BirthDate: "1982-11-06", Sex: "M", Coverage: from("2026-01-01")})
	require.Equal(t, family[1], enrolled.GetResults()[0].GetSubject())
	require.True(t, enrolled.GetResults()[0].GetUnchanged() || len(enrolled.GetResults()[0].GetProblems()) == 0)
	require.Equal(t, family[1], h.applied(t, "d", asks(terminate, "Bob", ends("2026-03-31"), born("1982-11-06")))[0])

	taken := h.maintain(t, "e", asks(change, "Bob", func(c *policiesv1.EnrollmentChange) {
		c.FirstName, c.BirthDate, c.PreviousFirstName, c.PreviousBirthDate = "Ann", "1984-03-12", "Bob", "1982-11-06"
	})).GetOutcomes()[0]
	require.Equal(t, "member.identity.taken", taken.GetProblems()[0].GetRuleId())
}

func TestAnAuditTellsWhatDiffersAndChangesNothing(t *testing.T) {
	h := sponsored(t)
	ann := h.applied(t, "a", asks(add, "Ann"))[0]
	for name, c := range map[string]struct {
		ask  *policiesv1.EnrollmentChange
		rule string
	}{
		"as recorded":    {asks(audit, "Ann", line("HLT"), starts("2026-02-01")), ""},
		"another name":   {asks(audit, "Ann", func(c *policiesv1.EnrollmentChange) { c.LastName = "Other" }), "enrollment.audit.details"},
		"another end":    {asks(audit, "Ann", starts("2026-02-01"), ends("2026-06-30")), "enrollment.audit.end"},
		"another policy": {asks(audit, "Ann", line("HLT"), starts("2026-02-01"), func(c *policiesv1.EnrollmentChange) { c.GroupNumber = "G2" }), "enrollment.audit.policy"},
		"before cover":   {asks(audit, "Ann", starts("2025-02-01")), "enrollment.audit.not-covered"},
	} {
		t.Run(name, func(t *testing.T) {
			o := h.maintain(t, name, c.ask).GetOutcomes()[0]
			if c.rule == "" {
				require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_UNCHANGED, o.GetResult(), "%v", o)
				return
			}
			require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_DIFFERS, o.GetResult())
			require.Equal(t, c.rule, o.GetProblems()[0].GetRuleId())
		})
	}
	require.Len(t, h.stream(t, policies.MemberStream(ann)), 1)
}

func TestChangesThatAreRefusedChangeNothing(t *testing.T) {
	own := func(card, own string) func(*policiesv1.EnrollmentChange) {
		return func(c *policiesv1.EnrollmentChange) { c.MemberId, c.OwnMemberId = card, own }
	}
	group := func(g string) func(*policiesv1.EnrollmentChange) {
		return func(c *policiesv1.EnrollmentChange) { c.GroupNumber = g }
	}
	for name, c := range map[string]struct {
		given []*policiesv1.EnrollmentChange
		when  []*policiesv1.EnrollmentChange
		rule  string // of the last
	}{
		"a dependant without a subscriber": {nil, []*policiesv1.EnrollmentChange{asks(add, "Bob")}, "member.dependent.no-subscriber"},
		"a dependant of a dependant": {[]*policiesv1.EnrollmentChange{asks(add, "Ann"), asks(add, "Bob", own("CARD-1", "CARD-2"))},
			[]*policiesv1.EnrollmentChange{asks(add, "Cy", own("CARD-2", ""))}, "member.dependent.of-dependent"},
		"two who depend on each other": {nil, []*policiesv1.EnrollmentChange{asks(add, "Bob", own("CARD-8", "CARD-9")), asks(add, "Cy", own("CARD-9", "CARD-8"))}, "member.dependent.cycle"},
		"one who depends on himself":   {nil, []*policiesv1.EnrollmentChange{asks(add, "Bob", own("CARD-1", "CARD-1"))}, "member.dependent.no-subscriber"},
		"a child past the age limit":   {[]*policiesv1.EnrollmentChange{asks(add, "Ann")}, []*policiesv1.EnrollmentChange{asks(add, "Cy", group("G2"), born("1999-12-31"))}, "member.dependent.aged-out"},
		"an unknown group":             {nil, []*policiesv1.EnrollmentChange{asks(add, "Ann", group("G9"))}, "member.policy.unknown"},
		"a group of two plans":         {nil, []*policiesv1.EnrollmentChange{asks(add, "Ann", group("G3"))}, "member.policy.ambiguous"},
		"before the policy":            {nil, []*policiesv1.EnrollmentChange{asks(add, "Ann", starts("2025-12-31"))}, "member.policy.unknown"},
		"a day that is none":           {nil, []*policiesv1.EnrollmentChange{asks(add, "Ann", starts("2026-02-30"))}, "date.calendar"},
		"an end before the start":      {nil, []*policiesv1.EnrollmentChange{asks(add, "Ann", ends("2025-12-01"))}, "period.reversed"},
		"cover before birth":           {nil, []*policiesv1.EnrollmentChange{asks(add, "Ann", born("2026-02-01"))}, "member.coverage.before-birth"},
		"no birth date":                {nil, []*policiesv1.EnrollmentChange{asks(add, "Ann", born(""))}, "enrollment.required"},
		"a termination without a day":  {nil, []*policiesv1.EnrollmentChange{asks(terminate, "Ann")}, "enrollment.required"},
		"a termination of nobody":      {nil, []*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2026-03-31"))}, "member.unknown"},
		"a reinstatement of nobody":    {nil, []*policiesv1.EnrollmentChange{asks(reinstate, "Ann")}, "member.unknown"},
		"an end after the end": {[]*policiesv1.EnrollmentChange{asks(add, "Ann", ends("2026-03-31"))},
			[]*policiesv1.EnrollmentChange{asks(terminate, "Ann", ends("2026-06-30"))}, "member.termination.not-covered"},
		"cover twice": {[]*policiesv1.EnrollmentChange{asks(add, "Ann")}, []*policiesv1.EnrollmentChange{asks(add, "Ann", group("G2"))}, "member.coverage.overlap"},
		"a move while not covered": {[]*policiesv1.EnrollmentChange{asks(add, "Ann", ends("2026-03-31"))},
			[]*policiesv1.EnrollmentChange{asks(change, "Ann", line("HLT"), group("G2"), starts("2026-05-01"))}, "member.change.not-covered"},
		"a move with cover after it": {[]*policiesv1.EnrollmentChange{asks(add, "Ann", ends("2026-03-31")), asks(add, "Ann", starts("2026-06-01"))},
			[]*policiesv1.EnrollmentChange{asks(change, "Ann", line("HLT"), group("G2"), starts("2026-02-01"))}, "member.change.later-coverage"},
	} {
		t.Run(name, func(t *testing.T) {
			h := sponsored(t)
			if len(c.given) > 0 {
				h.applied(t, "given", c.given...)
			}
			var before, after int
			require.NoError(t, follow(h, func(eventstore.Recorded) { before++ }))
			out := h.maintain(t, "when", c.when...).GetOutcomes()
			last := out[len(out)-1]
			require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_REFUSED, last.GetResult(), "%v", last)
			require.Equal(t, c.rule, last.GetProblems()[0].GetRuleId())
			require.NotEmpty(t, last.GetProblems()[0].GetFix())
			require.NoError(t, follow(h, func(eventstore.Recorded) { after++ }))
			require.Equal(t, before+1, after, "only that the batch was refused is recorded")
		})
	}
	t.Run("another payer's policy", func(t *testing.T) {
		h := sponsored(t)
		c := asks(add, "Ann", func(c *policiesv1.EnrollmentChange) { c.PolicyId = "pol_g1" })
		_, err := h.ApplyEnrollmentChanges(h.ctx, &policiesv1.ApplyEnrollmentChangesRequest{RequestId: "x", PayerId: "P2", Changes: []*policiesv1.EnrollmentChange{c}})
		refused(t, err, problem.Forbidden, problem.As(err).Problems[0].RuleID)
		a, err := h.ApplyEnrollmentChanges(admin("*"), &policiesv1.ApplyEnrollmentChangesRequest{RequestId: "x", PayerId: "P2", Changes: []*policiesv1.EnrollmentChange{c}})
		require.NoError(t, err)
		require.Equal(t, "member.policy.unknown", a.GetOutcomes()[0].GetProblems()[0].GetRuleId())
	})
}

func TestChildrenAgeOutAsThePlanSays(t *testing.T) {
	h := sponsored(t)
	g2 := func(c *policiesv1.EnrollmentChange) { c.GroupNumber = "G2" }
	family := h.applied(t, "a", asks(add, "Ann", g2), asks(add, "Cy", g2, born("2000-12-31")),
		asks(add, "Di", g2, born("2000-12-31"), func(c *policiesv1.EnrollmentChange) { c.Disabled = true }))
	require.Equal(t, "pol_g2 2026-01-01..2026-12-31", h.covered(t, family[1]))
	require.Equal(t, "pol_g2 2026-01-01..", h.covered(t, family[2]))
	enrolled := h.enrol(t, "b", &policiesv1.Enrollment{PolicyId: "pol_g2", MemberId: "CARD-1", RelationshipCode: "19", LastName: "Zzyzx", FirstName: "Flo",
		BirthDate: "1999-12-01", Sex: "F", Coverage: &typev1.Period{StartDate: "2026-01-01"}})
	require.Equal(t, "member.dependent.aged-out", enrolled.GetResults()[0].GetProblems()[0].GetRuleId(), "by either RPC")
}

func TestOtherInsuranceLinesArePassedOver(t *testing.T) {
	h := sponsored(t)
	o := h.maintain(t, "a", asks(add, "Ann", line("DEN"))).GetOutcomes()[0]
	require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_SKIPPED, o.GetResult())
	require.Empty(t, o.GetSubject())
}

// A batch that stopped half way goes on, and says of what it had done that it did it.
func TestABatchThatStoppedHalfWayGoesOn(t *testing.T) {
	h := sponsored(t)
	h.Store = &failing{Store: h.store, after: 2}
	changes := []*policiesv1.EnrollmentChange{asks(add, "Ann"), asks(add, "Bob"), asks(terminate, "Bob", ends("2026-03-31"))}
	req := &policiesv1.ApplyEnrollmentChangesRequest{RequestId: "x", PayerId: "P1", Changes: changes}
	_, err := h.ApplyEnrollmentChanges(h.ctx, req)
	refused(t, err, problem.Unavailable, problem.As(err).Problems[0].RuleID)
	require.Len(t, h.stream(t, policies.MemberStream(keys.NewIndex([32]byte{1}).Person("P1", "CARD-1", "1982-11-05", "Bob"))), 1, "Bob is added and not yet ended")
	h.Store = h.store
	a, err := h.ApplyEnrollmentChanges(h.ctx, req)
	require.NoError(t, err)
	for _, o := range a.GetOutcomes() {
		require.Equal(t, policiesv1.EnrollmentOutcome_RESULT_APPLIED, o.GetResult())
	}
	require.False(t, a.GetDuplicate())
	require.Equal(t, "pol_g1 2026-01-01..2026-03-31", h.covered(t, a.GetOutcomes()[1].GetSubject()))
}

// failing is a store that takes some commits and then is away.
type failing struct {
	eventstore.Store
	after int
}

func (f *failing) Append(ctx context.Context, c eventstore.Commit) (eventstore.Appended, error) {
	if f.after--; f.after < 0 {
		return eventstore.Appended{}, problem.New(problem.Unavailable, problem.Problem{RuleID: "store.away", Message: "away"})
	}
	return f.Store.Append(ctx, c)
}
