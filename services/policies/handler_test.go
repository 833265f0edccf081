package policies_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/keys/keystest"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
)

var (
	_ policiesv1connect.PoliciesServiceHandler = (*policies.Handler)(nil)
	_ policies.Authorizer                      = (*identity.Authorizer)(nil)
	_ policies.Index                           = (*keys.Index)(nil)
	_ policies.Directory                       = (*book.Book)(nil)
)

// house is a policies service over a ledger in memory.
type house struct {
	*policies.Handler
	store     *eventstore.Memory
	book      *book.Book
	authority *keystest.Authority
	ctx       context.Context // a plan administrator of P1
}

func open(t *testing.T) *house {
	t.Helper()
	authorizer, err := identity.NewAuthorizer()
	require.NoError(t, err)
	h := &house{store: eventstore.NewMemory(eventstore.MemoryOptions{}), book: book.New(), authority: keystest.New(), ctx: admin("P1")}
	sealer := keys.NewSealer(h.authority, keys.SealerOptions{})
	t.Cleanup(func() { require.NoError(t, sealer.Close()) })
	h.Handler = policies.NewHandler(policies.Deps{
		Store: h.store, Directory: h.book, Sealer: sealer, Index: keys.NewIndex([32]byte{1}), Authorizer: authorizer,
	})
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.book.Run(ctx, h.store) }()
	t.Cleanup(func() { stop(); require.ErrorIs(t, <-ran, context.Canceled) })
	return h
}

func admin(payers ...string) context.Context {
	return identity.WithPrincipal(context.Background(), identity.Principal{
		Subject: "admin-1", Org: "payer", Roles: []identity.Role{identity.RolePlanAdmin}, Payers: payers,
	})
}

func from(start string) *typev1.Period { return &typev1.Period{StartDate: start} }

func schedule(payer string) *policiesv1.FeeSchedule {
	return &policiesv1.FeeSchedule{FeeScheduleId: "fs_" + strings.ToLower(payer), PayerId: payer, Effective: from("2026-01-01"), Fees: []*policiesv1.Fee{{Procedure: "99213", AmountCents: 100}}}
}

func planOf(payer, id string) *policiesv1.PlanDocument {
	return &policiesv1.PlanDocument{
		PlanId: id, Name: "Gold", PayerId: payer, Effective: from("2026-01-01"), PlanYear: "calendar", TimelyFilingDays: 90,
		InNetwork: &policiesv1.CostShare{DeductibleKind: "embedded"}, FeeScheduleId: "fs_" + strings.ToLower(payer),
		Benefits: []*policiesv1.Benefit{{Name: "all", Covered: true}},
	}
}

// stocked publishes a plan and a policy of P1.
func (h *house) stocked(t *testing.T) *house {
	t.Helper()
	_, err := h.PublishFeeSchedule(h.ctx, &policiesv1.PublishFeeScheduleRequest{RequestId: "s", FeeSchedule: schedule("P1")})
	require.NoError(t, err)
	_, err = h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "p", Plan: planOf("P1", "plan_a")})
	require.NoError(t, err)
	_, err = h.CreatePolicy(h.ctx, &policiesv1.CreatePolicyRequest{RequestId: "c", Policy: policy("P1")})
	require.NoError(t, err)
	return h
}

func policy(payer string) *policiesv1.Policy {
	return &policiesv1.Policy{PolicyId: "pol_a", PayerId: payer, PlanId: "plan_a", Effective: from("2026-01-01")}
}

func person(first string) *policiesv1.Enrollment {
	return &policiesv1.Enrollment{
		PolicyId: "pol_a", MemberId: "CARD-77", RelationshipCode: "18", LastName: "Zzyzx", FirstName: first,
		BirthDate: "1984-03-12", Sex: "F", Coverage: from("2026-01-01"),
	}
}

func (h *house) enrol(t *testing.T, requestID string, es ...*policiesv1.Enrollment) *policiesv1.EnrollMembersResponse {
	t.Helper()
	a, err := h.EnrollMembers(h.ctx, &policiesv1.EnrollMembersRequest{RequestId: requestID, Enrollments: es})
	require.NoError(t, err)
	require.Len(t, a.GetResults(), len(es))
	return a
}

func (h *house) stream(t *testing.T, stream string) []eventstore.Recorded {
	t.Helper()
	events, err := h.store.Read(context.Background(), policies.Log, stream, stream, 0)
	require.NoError(t, err)
	return events
}

func refused(t *testing.T, err error, kind problem.Kind, rule string) {
	t.Helper()
	require.Error(t, err)
	e := problem.As(err)
	require.Equal(t, kind, e.Kind, err.Error())
	require.Equal(t, rule, e.Problems[0].RuleID)
}

func TestPublishingIsVersionedAndIdempotent(t *testing.T) {
	h := open(t).stocked(t)

	same, err := h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "p2", Plan: planOf("P1", "plan_a")})
	require.NoError(t, err)
	require.EqualValues(t, 1, same.GetVersion(), "an equal document is the newest version")
	require.NotEmpty(t, same.GetToken())

	changed := planOf("P1", "plan_a")
	changed.TimelyFilingDays = 120
	text, err := protojson.Marshal(changed)
	require.NoError(t, err)
	second, err := h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "p3", Yaml: string(text)})
	require.NoError(t, err)
	require.EqualValues(t, 2, second.GetVersion())

	// The first request arrives again, late: its answer stands, and nothing goes back.
	late, err := h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "p", Plan: planOf("P1", "plan_a")})
	require.NoError(t, err)
	require.EqualValues(t, 1, late.GetVersion())
	require.Len(t, h.stream(t, "plan-plan_a"), 2)

	// Its id with another document is refused.
	_, err = h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "p", Plan: changed})
	refused(t, err, problem.Conflict, "request_id.reused")

	for version, days := range map[uint32]uint32{0: 120, 1: 90, 2: 120} {
		got, err := h.GetPlan(h.ctx, &policiesv1.GetPlanRequest{PlanId: "plan_a", Version: version})
		require.NoError(t, err)
		require.Equal(t, days, got.GetPlan().GetTimelyFilingDays())
	}
	_, err = h.GetPlan(h.ctx, &policiesv1.GetPlanRequest{PlanId: "plan_a", Version: 3})
	refused(t, err, problem.NotFound, "plan.unknown")
	_, err = h.GetPlan(h.ctx, &policiesv1.GetPlanRequest{PlanId: "../etc"})
	refused(t, err, problem.NotFound, "plan.unknown")
}

func TestADocumentIsGivenOnce(t *testing.T) {
	h := open(t)
	_, err := h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "x"})
	refused(t, err, problem.Invalid, "document.once")
	_, err = h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "x", Plan: planOf("P1", "plan_a"), Yaml: "{}"})
	refused(t, err, problem.Invalid, "document.once")
	_, err = h.PublishPlan(h.ctx, &policiesv1.PublishPlanRequest{RequestId: "x", Plan: planOf("P1", "plan_a")})
	refused(t, err, problem.Invalid, "plan.fee_schedule.unknown")
}

func TestContractsNameWhatThePayerHas(t *testing.T) {
	h := open(t).stocked(t)
	c := &policiesv1.ProviderContract{ContractId: "ctr_a", PayerId: "P1", Npis: []string{"1234567893"}, Effective: from("2026-01-01"), FeeScheduleId: "fs_p1", PlanIds: []string{"plan_a"}}
	done, err := h.PublishContract(h.ctx, &policiesv1.PublishContractRequest{RequestId: "k", Contract: c})
	require.NoError(t, err)
	require.EqualValues(t, 1, done.GetVersion())
	c = proto.CloneOf(c)
	c.PlanIds = []string{"plan_b"}
	_, err = h.PublishContract(h.ctx, &policiesv1.PublishContractRequest{RequestId: "k2", Contract: c})
	refused(t, err, problem.Invalid, "contract.plan.unknown")
}

func TestLintAnswersWithProblems(t *testing.T) {
	h := open(t)
	a, err := h.LintDocument(h.ctx, &policiesv1.LintDocumentRequest{Kind: "plan", Document: "plan_idd: plan_a"})
	require.NoError(t, err)
	require.Equal(t, "document.unknown-field", a.GetProblems()[0].GetRuleId())
	require.Equal(t, "invalid", a.GetProblems()[0].GetKind())
	_, err = h.LintDocument(h.ctx, &policiesv1.LintDocumentRequest{Kind: "poem"})
	refused(t, err, problem.Invalid, "document.kind")
}

func TestAnotherPayersAdministratorIsRefused(t *testing.T) {
	h := open(t).stocked(t)
	stranger := admin("P2")
	forbidden := func(err error) { t.Helper(); require.True(t, problem.Is(err, problem.Forbidden), "%v", err) }

	_, err := h.PublishPlan(stranger, &policiesv1.PublishPlanRequest{RequestId: "x", Plan: planOf("P1", "plan_x")})
	forbidden(err)
	_, err = h.PublishFeeSchedule(stranger, &policiesv1.PublishFeeScheduleRequest{RequestId: "x", FeeSchedule: schedule("P1")})
	forbidden(err)
	_, err = h.GetPlan(stranger, &policiesv1.GetPlanRequest{PlanId: "plan_a"})
	forbidden(err)
	_, err = h.LookupMember(stranger, &policiesv1.LookupMemberRequest{PayerId: "P1", MemberId: "CARD-77", BirthDate: "1984-03-12"})
	forbidden(err)

	taken := schedule("P2")
	taken.FeeScheduleId = "fs_p1"
	_, err = h.PublishFeeSchedule(stranger, &policiesv1.PublishFeeScheduleRequest{RequestId: "x", FeeSchedule: taken})
	refused(t, err, problem.Conflict, "fee_schedule.payer.changed")

	subject := h.enrol(t, "e", person("Ada")).GetResults()[0].GetSubject()
	_, err = h.TerminateMember(stranger, &policiesv1.TerminateMemberRequest{RequestId: "x", Subject: subject, EndDate: "2026-06-30"})
	forbidden(err)
	a, err := h.EnrollMembers(stranger, &policiesv1.EnrollMembersRequest{RequestId: "x", Enrollments: []*policiesv1.Enrollment{person("Bea")}})
	require.NoError(t, err)
	require.Equal(t, "forbidden", a.GetResults()[0].GetProblems()[0].GetKind())

	_, err = h.EnrollMembers(context.Background(), &policiesv1.EnrollMembersRequest{RequestId: "x", Enrollments: []*policiesv1.Enrollment{person("Bea")}})
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)

	plans, err := h.ListPlans(stranger, &policiesv1.ListPlansRequest{})
	require.NoError(t, err)
	require.Empty(t, plans.GetPlans())
}

func TestListingPlansInPages(t *testing.T) {
	h := open(t)
	var want []string
	for _, payer := range []string{"P1", "P2"} {
		ctx := admin(payer)
		_, err := h.PublishFeeSchedule(ctx, &policiesv1.PublishFeeScheduleRequest{RequestId: "s", FeeSchedule: schedule(payer)})
		require.NoError(t, err)
		for i := range 5 {
			id := fmt.Sprintf("plan_%d_%s", i, strings.ToLower(payer))
			_, err := h.PublishPlan(ctx, &policiesv1.PublishPlanRequest{RequestId: "p", Plan: planOf(payer, id)})
			require.NoError(t, err)
			if payer == "P1" {
				want = append(want, id)
			}
		}
	}
	for size := uint32(1); size <= 6; size++ {
		var got []string
		token := ""
		for pages := 0; pages == 0 || token != ""; pages++ {
			require.Less(t, pages, 8)
			a, err := h.ListPlans(h.ctx, &policiesv1.ListPlansRequest{PageSize: size, PageToken: token})
			require.NoError(t, err)
			require.LessOrEqual(t, len(a.GetPlans()), int(size))
			for _, p := range a.GetPlans() {
				got = append(got, p.GetPlan().GetPlanId())
			}
			token = a.GetNextPageToken()
		}
		require.Equal(t, want, got, "pages of %d", size)
	}
	_, err := h.ListPlans(h.ctx, &policiesv1.ListPlansRequest{PageToken: "%%"})
	refused(t, err, problem.Invalid, "page_token.malformed")
}

func TestEnrollingEachByItself(t *testing.T) {
	h := open(t).stocked(t)
	bad := person("Bob")
	bad.BirthDate = "1984-02-31"
	lost := person("Cyd")
	lost.PolicyId = "pol_zz"
	a := h.enrol(t, "e1", person("Ada"), bad, lost, person("Dee"))
	rules := make([]string, 4)
	for i, r := range a.GetResults() {
		if len(r.GetProblems()) > 0 {
			rules[i] = r.GetProblems()[0].GetRuleId() + " at " + r.GetProblems()[0].GetFieldPath()
		}
	}
	require.Equal(t, []string{"", "date.calendar at enrollments[1].birth_date", "member.policy.unknown at enrollments[2].policy_id", ""}, rules)
	require.NoError(t, h.book.WaitFor(h.ctx, a.GetToken()))

	again := h.enrol(t, "e2", person("Ada"), person("Eve"))
	require.True(t, again.GetResults()[0].GetUnchanged())
	require.Equal(t, a.GetResults()[0].GetSubject(), again.GetResults()[0].GetSubject())
	require.False(t, again.GetResults()[1].GetUnchanged())

	amended := person("Ada")
	amended.LastName = "Married"
	third := h.enrol(t, "e3", amended, person("Ada"))
	require.False(t, third.GetResults()[0].GetUnchanged(), "a corrected name is recorded, though it stands only in the sealed part")
	require.False(t, third.GetResults()[1].GetUnchanged(), "and the batch's second word on a person follows its first")
	require.Len(t, h.stream(t, policies.MemberStream(a.GetResults()[0].GetSubject())), 3)
}

func TestALostAnswerIsFoundAgain(t *testing.T) {
	h := open(t).stocked(t)
	h.store.Inject(eventstore.FaultLostAck)
	a := h.enrol(t, "e", person("Ada"), person("Bea"))
	require.Equal(t, "unavailable", a.GetResults()[0].GetProblems()[0].GetKind())
	require.True(t, a.GetResults()[0].GetProblems()[0].GetRetryable())

	// The client repeats the whole batch; the box it would seal now differs
	// from the recorded one, and still it is one enrolment.
	b := h.enrol(t, "e", person("Ada"), person("Bea"))
	for _, r := range b.GetResults() {
		require.Empty(t, r.GetProblems())
		require.True(t, r.GetUnchanged())
		require.Len(t, h.stream(t, policies.MemberStream(r.GetSubject())), 1)
	}

	h.store.Inject(eventstore.FaultLostAck)
	end := &policiesv1.TerminateMemberRequest{RequestId: "t", Subject: b.GetResults()[0].GetSubject(), EndDate: "2026-06-30"}
	_, err := h.TerminateMember(h.ctx, end)
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
	_, err = h.TerminateMember(h.ctx, end)
	require.NoError(t, err)
	require.Len(t, h.stream(t, policies.MemberStream(end.GetSubject())), 2)

	end.EndDate = "2026-05-31"
	_, err = h.TerminateMember(h.ctx, end)
	refused(t, err, problem.Conflict, "request_id.reused")
}

// Nobody is covered through a person who isn't: by this RPC as by 834. A call
// that broke off after the subscriber is completed by repeating it.
func TestASubscribersTerminationEndsTheDependants(t *testing.T) {
	h := open(t).stocked(t)
	spouse, child := person("Bea"), person("Cal")
	spouse.RelationshipCode, child.RelationshipCode = "01", "19"
	child.Coverage.EndDate = "2026-03-31" // left before
	got := h.enrol(t, "e", person("Ada"), spouse, child).GetResults()
	end := &policiesv1.TerminateMemberRequest{RequestId: "t", Subject: got[0].GetSubject(), EndDate: "2026-06-30"}

	h.store.Inject(0, eventstore.FaultRefused) // the first append is well
	_, err := h.TerminateMember(h.ctx, end)
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
	require.Len(t, h.stream(t, policies.MemberStream(got[1].GetSubject())), 1)
	done, err := h.TerminateMember(h.ctx, end)
	require.NoError(t, err)

	require.NoError(t, h.book.WaitFor(h.ctx, done.GetToken()))
	for i, wants := range []int{2, 2, 1} {
		require.Len(t, h.stream(t, policies.MemberStream(got[i].GetSubject())), wants)
	}
	ended, _ := h.stream(t, policies.MemberStream(got[1].GetSubject()))[1].Event.(*eventsv1.MemberTerminated)
	require.Equal(t, "2026-06-30", ended.GetEndDate())

	t.Run("a dependant's own ends nobody else's", func(t *testing.T) {
		h := open(t).stocked(t)
		got := h.enrol(t, "e", person("Ada"), spouse).GetResults()
		_, err := h.TerminateMember(h.ctx, &policiesv1.TerminateMemberRequest{RequestId: "t", Subject: got[1].GetSubject(), EndDate: "2026-06-30"})
		require.NoError(t, err)
		require.Len(t, h.stream(t, policies.MemberStream(got[0].GetSubject())), 1)
	})
}

func TestTwoServicesEnrolTheSamePerson(t *testing.T) {
	h := open(t).stocked(t)
	// A second service whose book never moves: it takes everybody for new.
	behind := policies.NewHandler(policies.Deps{Store: h.store, Directory: book.New(), Sealer: h.Sealer, Index: h.Index, Authorizer: h.Authorizer})

	first := h.enrol(t, "e", person("Ada"))
	same, err := behind.EnrollMembers(h.ctx, &policiesv1.EnrollMembersRequest{RequestId: "f", Enrollments: []*policiesv1.Enrollment{person("Ada")}})
	require.NoError(t, err)
	require.True(t, same.GetResults()[0].GetUnchanged())

	ends := person("Ada")
	ends.Coverage.EndDate = "2026-03-31"
	amended, err := behind.EnrollMembers(h.ctx, &policiesv1.EnrollMembersRequest{RequestId: "g", Enrollments: []*policiesv1.Enrollment{ends}})
	require.NoError(t, err)
	require.Empty(t, amended.GetResults()[0].GetProblems())
	require.Len(t, h.stream(t, policies.MemberStream(first.GetResults()[0].GetSubject())), 2)
}

func TestLookupShowsNoNameAndRefusesToGuess(t *testing.T) {
	h := open(t).stocked(t)
	ada := h.enrol(t, "e", person("Ada")).GetResults()[0].GetSubject()
	ask := &policiesv1.LookupMemberRequest{PayerId: "P1", MemberId: "card-77 ", BirthDate: "1984-03-12"}

	got, err := h.LookupMember(h.ctx, ask)
	require.NoError(t, err, "the lookup that follows an enrolment finds it")
	require.True(t, proto.Equal(&policiesv1.LookupMemberResponse{Subject: ada, PolicyId: "pol_a", PlanId: "plan_a", Coverage: []*typev1.Period{from("2026-01-01")}}, got), "%v", got)

	ask.BirthDate = "1984-03-13"
	_, err = h.LookupMember(h.ctx, ask)
	refused(t, err, problem.NotFound, "member.unknown")

	h.enrol(t, "twin", person("Bea"))
	ask.BirthDate = "1984-03-12"
	_, err = h.LookupMember(h.ctx, ask)
	refused(t, err, problem.Conflict, "member.ambiguous")
}

func TestPriorAuthorizations(t *testing.T) {
	h := open(t).stocked(t)
	want := &policiesv1.PriorAuthorization{Number: "PA-1", PayerId: "P1", MemberId: "CARD-77", BirthDate: "1984-03-12", Procedures: []string{"97110-97140"}, Units: 12, Effective: from("2026-02-01")}
	record := func(requestID string) error {
		_, err := h.RecordPriorAuthorization(h.ctx, &policiesv1.RecordPriorAuthorizationRequest{RequestId: requestID, Authorization: want})
		return err
	}
	refused(t, record("a"), problem.NotFound, "member.unknown")
	h.enrol(t, "e", person("Ada"))
	require.NoError(t, record("a"))
	require.NoError(t, record("a"), "repeated")
	require.NoError(t, record("b"), "told twice")
	want.Procedures = []string{"97110"}
	refused(t, record("c"), problem.Conflict, "authorization.narrowed")
	want.Procedures, want.Units = []string{"97110-97140", "97530"}, 20
	require.NoError(t, record("x"), "it is extended")
	require.NoError(t, record("x"), "repeated")
	want.Procedures, want.Units = []string{"97110"}, 12
	refused(t, record("a"), problem.Conflict, "request_id.reused")
	want.Procedures = []string{"97140-97110"}
	refused(t, record("d"), problem.Invalid, "authorization.procedure.range")
}

func TestAfterErasureNothingIsWrittenToAPerson(t *testing.T) {
	h := open(t).stocked(t)
	subject := h.enrol(t, "e", person("Ada")).GetResults()[0].GetSubject()
	h.authority.Destroy(subject)
	h.Sealer.(*keys.CachingSealer).Forget(subject)
	changed := person("Ada")
	changed.LastName = "New"
	a, err := h.EnrollMembers(h.ctx, &policiesv1.EnrollMembersRequest{RequestId: "f", Enrollments: []*policiesv1.Enrollment{changed, person("Bea")}})
	require.NoError(t, err)
	require.Equal(t, "member.erased", a.GetResults()[0].GetProblems()[0].GetRuleId())
	require.Empty(t, a.GetResults()[1].GetProblems(), "others are not held up")
}

func TestWithoutTheKeyAuthorityNobodyIsEnrolled(t *testing.T) {
	h := open(t).stocked(t)
	h.authority.SetAway(true)
	_, err := h.EnrollMembers(h.ctx, &policiesv1.EnrollMembersRequest{RequestId: "e", Enrollments: []*policiesv1.Enrollment{person("Ada")}})
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
	h.authority.SetAway(false)
	require.Empty(t, h.enrol(t, "e", person("Ada")).GetResults()[0].GetProblems())
}

func TestALargeBatchTakesOneCallForKeys(t *testing.T) {
	h := open(t).stocked(t)
	var es []*policiesv1.Enrollment
	for i := range 500 {
		e := person(fmt.Sprintf("N%d", i))
		e.MemberId = fmt.Sprintf("CARD-%d", i)
		es = append(es, e)
	}
	before := h.authority.Calls()
	a := h.enrol(t, "bulk", es...)
	for _, r := range a.GetResults() {
		require.Empty(t, r.GetProblems())
	}
	require.Equal(t, 1, h.authority.Calls()-before)
	_, err := h.EnrollMembers(h.ctx, &policiesv1.EnrollMembersRequest{RequestId: "more", Enrollments: append(es, person("Zoe"))})
	refused(t, err, problem.Invalid, "member.batch")
}

// TestTheLogHoldsNoHealthData reads back every byte that reached the ledger.
func TestTheLogHoldsNoHealthData(t *testing.T) {
	h := open(t).stocked(t)
	subject := h.enrol(t, "e", person("Adelheid")).GetResults()[0].GetSubject()
	_, err := h.RecordPriorAuthorization(h.ctx, &policiesv1.RecordPriorAuthorizationRequest{RequestId: "a", Authorization: &policiesv1.PriorAuthorization{
		Number: "PA-SECRET-1", PayerId: "P1", MemberId: "CARD-77", BirthDate: "1984-03-12", Procedures: []string{"97110"}, Effective: from("2026-02-01"),
	}})
	require.NoError(t, err)
	_, err = h.TerminateMember(h.ctx, &policiesv1.TerminateMemberRequest{RequestId: "t", Subject: subject, EndDate: "2026-06-30"})
	require.NoError(t, err)

	var all []eventstore.Recorded
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	err = h.store.Follow(ctx, policies.Log, nil, nil, func(_ context.Context, b eventstore.Batch) error {
		all = append(all, b.Events...)
		if b.CaughtUp {
			stop()
		}
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, slices.ContainsFunc(all, func(r eventstore.Recorded) bool { _, ok := r.Event.(*eventsv1.MemberTerminated); return ok }))
	for _, r := range all {
		raw, err := proto.Marshal(r.Event)
		require.NoError(t, err)
		require.Equal(t, "admin-1", r.Actor)
		for _, secret := range []string{"Adelheid", "ADELHEID", "Zzyzx", "CARD-77", "1984-03-12", "PA-SECRET-1", "97110"} {
			require.False(t, bytes.Contains(raw, []byte(secret)), "%T holds %s", r.Event, secret)
			require.NotContains(t, r.Stream+r.RequestID+r.Actor, secret)
		}
	}
}
