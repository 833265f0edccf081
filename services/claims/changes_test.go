package claims

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/problem"
)

// automatic has the service follow changes by itself.
func automatic(d *Deps) { d.Config.Reprocessing = reprocessAutomatic }

func proposing(d *Deps) { d.Config.Reprocessing = reprocessPropose }

// record puts events behind what the policies log holds of a stream, as one commit.
func (w *world) record(stream string, events ...proto.Message) eventstore.Position {
	w.t.Helper()
	have, err := w.store.Read(context.Background(), policies.Log, stream, stream, 0)
	require.NoError(w.t, err)
	done, err := w.store.Append(context.Background(), eventstore.Commit{
		Log: policies.Log, RoutingKey: stream, RequestID: fmt.Sprint(stream, "/", len(have)),
		Writes: []eventstore.Write{{Stream: stream, Expected: int64(len(have)) - 1, Events: events}},
	})
	require.NoError(w.t, err)
	return done.Position
}

// person is somebody of a family that record has enrolled, under the streams
// that the policies service would use.
type person struct {
	subject, subscriber string
	birth, self         []byte
	relationship        string
}

func (w *world) person(family int, first string) person {
	member, born := memberID(family), birthOf(first)
	return person{
		subject: w.index.Person(payer, member, born, first), subscriber: w.index.Subscriber(payer, member),
		birth: w.index.BirthIndex(payer, member, born), self: w.index.PersonIndex(payer, member, born, first),
		relationship: map[string]string{"ADA": "18", "BEN": "01"}[first],
	}
}

func (p person) enrolled(from, to string, otherPayer bool) *eventsv1.MemberEnrolled {
	return &eventsv1.MemberEnrolled{
		Subject: p.subject, Subscriber: p.subscriber, PayerId: payer, PolicyId: "pol_acme", BirthIndex: p.birth, PersonIndex: p.self,
		RelationshipCode: p.relationship, Coverage: &typev1.Period{StartDate: from, EndDate: to}, OtherPayerPrimary: otherPayer,
	}
}

// couple enrols both of a family from the year's first day.
func (w *world) couple(family int) (ada, ben person) {
	ada, ben = w.person(family, "ADA"), w.person(family, "BEN")
	for _, p := range []person{ada, ben} {
		w.record(policies.MemberStream(p.subject), p.enrolled("2026-01-01", "", false))
	}
	w.caughtUp(w.Service)
	return ada, ben
}

// followed waits until the service has looked at all that both logs hold.
func (w *world) followed(services ...*Service) {
	w.t.Helper()
	if len(services) == 0 {
		services = []*Service{w.Service}
	}
	for _, s := range services {
		require.Eventually(w.t, func() bool {
			policiesEnd, claimsEnd := w.end(policies.Log), w.end(logName)
			s.follower.mu.Lock()
			done := reached(s.follower.policies, policiesEnd) && reached(s.follower.claims, claimsEnd)
			s.follower.mu.Unlock()
			// What it did is a decision of its own, which goes by too.
			return done && reached(claimsEnd, w.end(logName))
		}, 20*time.Second, 2*time.Millisecond)
	}
}

func reached(next, end map[uint32]uint64) bool {
	for shard, index := range end {
		if next[shard] < index {
			return false
		}
	}
	return true
}

// end is where a log ends.
func (w *world) end(log string) (next map[uint32]uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.ErrorIs(w.t, w.store.Follow(ctx, log, nil, nil, func(_ context.Context, b eventstore.Batch) error {
		if next = b.Next; b.CaughtUp {
			return errEnough
		}
		return nil
	}), errEnough)
	return next
}

// changes are what is recorded of changes, latest first.
func (w *world) changes() []*claimsv1.Change {
	w.t.Helper()
	w.followed()
	require.NoError(w.t, w.listed(context.Background(), w.end(logName)))
	res, err := w.ListChanges(planAdmin(), &claimsv1.ListChangesRequest{PayerId: payer})
	require.NoError(w.t, err)
	return res.GetChanges()
}

// visits sends one visit a day for each, in this order, and returns their ids.
func (w *world) visits(family int, who ...string) []string {
	w.t.Helper()
	var ids []string
	for i, first := range who {
		c := visit(family, fmt.Sprintf("2026-02-%02d", 10+i))
		if first == "BEN" {
			spouse(c)
		}
		ids = append(ids, w.submit(lakeside(), fmt.Sprintf("%d/%d", family, i), c).Claim.ClaimId)
	}
	return ids
}

func (w *world) statuses(ids []string) (out []string) {
	for _, id := range ids {
		out = append(out, statusWord(w.claim(id).Status()))
	}
	return out
}

// A subscriber's coverage ended in January, and with it the spouse's: what was
// paid in February is taken back, for both, without anybody naming a claim.
func TestATerminationDatedBackTakesBackWhatItTouches(t *testing.T) {
	w := newWorld(t, 0, automatic)
	ada, ben := w.couple(0)
	w.couple(1)
	early := w.submit(lakeside(), "early", visit(0, "2026-01-15")).Claim.ClaimId
	ids := w.visits(0, "ADA", "BEN", "ADA")
	others := w.visits(1, "ADA")

	for _, p := range []person{ada, ben} {
		w.record(policies.MemberStream(p.subject), &eventsv1.MemberTerminated{Subject: p.subject, Subscriber: p.subscriber, EndDate: "2026-01-31"})
	}
	w.followed()

	require.Equal(t, []string{"denied", "denied", "denied"}, w.statuses(ids))
	require.Equal(t, "paid", statusWord(w.claim(early).Status()), "the service was before the coverage ended")
	require.Empty(t, w.claim(others[0]).Corrections)
	for _, id := range ids {
		state := w.claim(id)
		require.Equal(t, []string{"PR-27"}, state.Decided.GetCodes())
		require.Len(t, state.Corrections, 1, "once")
		require.Equal(t, "termination", state.Corrections[0].GetCause())
	}
	changes := w.changes()
	require.NotEmpty(t, changes)
	var corrections uint32
	var paidLess int64
	for _, c := range changes {
		require.Equal(t, claimsv1.ChangeState_CHANGE_STATE_REPROCESSED, c.GetState())
		require.Equal(t, "termination", c.GetCause())
		corrections += c.GetCorrections()
		paidLess += c.GetPaidDifferenceCents()
	}
	require.EqualValues(t, 3, corrections)
	require.EqualValues(t, -(4000 + 8000 + 8000), paidLess, "$50 of the family's deductible were left for the spouse's visit")
	inOrder(t, w, 0)
	replayed(t, w)
}

func TestAReinstatementPaysWhatTheTerminationHadDenied(t *testing.T) {
	w := newWorld(t, 0, automatic)
	ada, _ := w.couple(0)
	w.record(policies.MemberStream(ada.subject), &eventsv1.MemberTerminated{Subject: ada.subject, Subscriber: ada.subscriber, EndDate: "2026-01-31"})
	w.caughtUp(w.Service)
	ids := w.visits(0, "ADA", "ADA")
	require.Equal(t, []string{"denied", "denied"}, w.statuses(ids))

	w.record(policies.MemberStream(ada.subject), &eventsv1.MemberReinstated{
		Subject: ada.subject, Subscriber: ada.subscriber, PolicyId: "pol_acme", RelationshipCode: "18", Coverage: &typev1.Period{StartDate: "2026-02-01"},
	})
	w.followed()

	require.Equal(t, []string{"paid", "paid"}, w.statuses(ids))
	require.Zero(t, w.claim(ids[0]).Decided.GetPaidCents(), "the first visit meets the deductible")
	require.EqualValues(t, 8000, w.claim(ids[1]).Decided.GetPaidCents())
	require.Equal(t, "reinstatement", w.claim(ids[1]).Corrections[0].GetCause())
	inOrder(t, w, 0)
	replayed(t, w)
}

// The claim was nobody's when it came. Once the person is enrolled it takes
// its place, after what the family had before it.
func TestALateEnrolmentPaysWhatWasNobodys(t *testing.T) {
	w := newWorld(t, 0, automatic)
	ids := w.visits(0, "ADA", "ADA")
	require.Equal(t, []string{"PR-31"}, w.claim(ids[0]).Decided.GetCodes())

	w.couple(0)
	w.followed()

	require.Equal(t, []string{"paid", "paid"}, w.statuses(ids))
	require.Zero(t, w.claim(ids[0]).Decided.GetPaidCents(), "in the order in which they were first decided")
	require.EqualValues(t, 8000, w.claim(ids[1]).Decided.GetPaidCents())
	require.Equal(t, "enrollment", w.claim(ids[0]).Corrections[0].GetCause())
	replayed(t, w)
}

func TestAnotherPayerLearnedLaterDeniesUntilThatOneHasDecided(t *testing.T) {
	w := newWorld(t, 0, automatic)
	ada, _ := w.couple(0)
	ids := w.visits(0, "ADA", "BEN")

	w.record(policies.MemberStream(ada.subject), ada.enrolled("2026-01-01", "", true))
	w.followed()

	require.Equal(t, []string{"CO-22"}, w.claim(ids[0]).Decided.GetCodes())
	require.Equal(t, "other-payer", w.claim(ids[0]).Corrections[0].GetCause())
	spouses := w.claim(ids[1])
	require.Equal(t, "paid", statusWord(spouses.Status()))
	require.Equal(t, eventsv1.ReversalReason_REVERSAL_REASON_ACCUMULATORS_MOVED, spouses.Corrections[0].GetReason(),
		"the spouse's own coverage is as it was; the family's deductible moved")
	inOrder(t, w, 0)
	replayed(t, w)
}

func TestAnAuthorisationRecordedLaterPaysWhatWantedIt(t *testing.T) {
	w := newWorld(t, 0, automatic)
	ada, _ := w.couple(0)
	scan := func(c *claimsv1.Claim) { c.Lines[0].Procedure, c.PriorAuthorizationNumber = "73721", "PA-7" }
	id := w.submit(lakeside(), "r1", visit(0, "2026-02-10", charged(40000), scan)).Claim.ClaimId
	require.Equal(t, []string{"CO-197"}, w.claim(id).Decided.GetCodes())

	w.authorise(ada, "PA-7", false)
	w.followed()

	require.Equal(t, "paid", statusWord(w.claim(id).Status()))
	require.Equal(t, "prior-authorization", w.claim(id).Corrections[0].GetCause())
	replayed(t, w)

	t.Run("and one that is cancelled takes it back", func(t *testing.T) {
		w.authorise(ada, "PA-7", true)
		w.followed()
		require.Equal(t, []string{"CO-15"}, w.claim(id).Decided.GetCodes())
	})
}

// authorise records an authorisation as the policies service does.
func (w *world) authorise(p person, number string, cancelled bool) {
	w.t.Helper()
	hash := w.index.Authorization(payer, number)
	stream := fmt.Sprintf("authorization-%x", hash)
	have, err := w.store.Read(context.Background(), policies.Log, stream, stream, 0)
	require.NoError(w.t, err)
	plain, err := encode(&policiesv1.PriorAuthorization{Number: number, PayerId: payer, Procedures: []string{"73721"}})
	require.NoError(w.t, err)
	sealer := keys.NewSealer(w.authority, keys.SealerOptions{})
	box, err := sealer.Seal(context.Background(), p.subject, keys.Place{Tenant: payer, Stream: stream, Revision: uint64(len(have)), Field: policies.AuthorizationField}, plain)
	require.NoError(w.t, err)
	w.record(stream, &eventsv1.PriorAuthorizationRecorded{
		NumberIndex: hash, Subject: p.subject, PayerId: payer, Effective: &typev1.Period{StartDate: "2026-01-01"}, Authorization: box, Cancelled: cancelled,
	})
}

func TestAPlansCorrectionMovesThoseWhoReadWhatItTakesOver(t *testing.T) {
	w := newWorld(t, 0, automatic)
	w.couple(0)
	january := w.submit(lakeside(), "january", visit(0, "2026-01-15")).Claim.ClaimId
	ids := w.visits(0, "ADA", "ADA")

	dearer := dearerPlan(15000)
	dearer.Effective = &typev1.Period{StartDate: "2026-02-01"}
	w.publishVersion(2, dearer)
	w.followed()

	require.Equal(t, "plan", w.claim(ids[0]).Corrections[0].GetCause())
	require.EqualValues(t, 4000, w.claim(ids[0]).Decided.GetPaidCents(), "$50 of deductible, 80 % of the other $50")
	require.Empty(t, w.claim(ids[1]).Corrections)
	require.Equal(t, "plan_acme@1", w.claim(january).Decided.GetVersions().GetPlan())
	changes := w.changes()
	require.Len(t, changes, 1)
	require.Equal(t, "plan_acme@2", changes[0].GetVersion())
	require.EqualValues(t, -4000, changes[0].GetPaidDifferenceCents())
	inOrder(t, w, 0)
	replayed(t, w)
}

// What a version leaves as it was is still touched by the next one, although
// its decision names neither of the two.
func TestAClaimThatOneCorrectionLeftAsItWasIsTouchedByTheNext(t *testing.T) {
	w := newWorld(t, 0, automatic)
	w.couple(0)
	ids := w.visits(0, "ADA")
	w.publishVersion(2, dearerPlan(15000))
	w.followed()
	require.Empty(t, w.claim(ids[0]).Corrections, "$100 of deductible as before")
	require.Len(t, w.stream(ids[0]), 2)

	w.publishVersion(3, dearerPlan(5000))
	w.followed()

	require.Len(t, w.claim(ids[0]).Corrections, 1)
	require.EqualValues(t, 4000, w.claim(ids[0]).Decided.GetPaidCents())
	replayed(t, w)
}

// A claim that another contract leaves as it was reads other prices from then
// on. That is recorded, so that a change of those is known to touch it.
func TestAClaimThatReadsOtherDocumentsWithTheSameOutcomeSaysSo(t *testing.T) {
	w := newWorld(t, 0, automatic)
	w.couple(0)
	ids := w.visits(0, "ADA", "ADA")
	always := &typev1.Period{StartDate: "2026-01-01"}
	prices := func(version uint32, cents int64) {
		w.record("feeschedule-fs_other", &eventsv1.FeeSchedulePublished{Version: version, FeeSchedule: &policiesv1.FeeSchedule{
			FeeScheduleId: "fs_other", PayerId: payer, Effective: always, Fees: []*policiesv1.Fee{{Procedure: "99213", AmountCents: cents}},
		}})
	}
	prices(1, 10000)
	w.append("contract", &eventsv1.ContractPublished{Version: 1, Contract: &policiesv1.ProviderContract{
		ContractId: "ctr_better", PayerId: payer, Npis: []string{biller}, Effective: always, FeeScheduleId: "fs_other", PlanIds: []string{"plan_acme"},
	}})
	w.followed()
	state := w.claim(ids[1])
	require.Empty(t, state.Corrections)
	require.Equal(t, "fs_other@1", state.Reaffirmed.GetVersions().GetFeeSchedule())
	require.Equal(t, "fs_acme@1", state.Decided.GetVersions().GetFeeSchedule(), "what was decided stands")
	require.Empty(t, w.changes(), "nothing has moved")

	prices(2, 12000)
	w.followed()

	require.EqualValues(t, 9600, w.claim(ids[1]).Decided.GetPaidCents())
	require.Nil(t, w.claim(ids[1]).Reaffirmed)
	inOrder(t, w, 0)
	replayed(t, w)
}

func TestAFeeSchedulesCorrectionPricesAgain(t *testing.T) {
	w := newWorld(t, 0, automatic)
	w.couple(0)
	ids := w.visits(0, "ADA", "ADA")
	w.record(w.fees, &eventsv1.FeeSchedulePublished{Version: 2, FeeSchedule: &policiesv1.FeeSchedule{
		FeeScheduleId: "fs_acme", PayerId: payer, Effective: &typev1.Period{StartDate: "2026-01-01"}, Fees: []*policiesv1.Fee{{Procedure: "99213", AmountCents: 12000}},
	}})
	w.followed()

	require.EqualValues(t, 1600, w.claim(ids[0]).Decided.GetPaidCents(), "80 % of what is above the deductible of $100")
	require.EqualValues(t, 9600, w.claim(ids[1]).Decided.GetPaidCents())
	require.Equal(t, "fee-schedule", w.claim(ids[0]).Corrections[0].GetCause())
	inOrder(t, w, 0)
	replayed(t, w)
}

func TestAContractDatedBackPaysWhatWasOutOfNetwork(t *testing.T) {
	const stranger = "1245319599"
	w := newWorld(t, 0, automatic)
	w.couple(0)
	byStranger := func(c *claimsv1.Claim) { c.BillingProvider.Npi = stranger }
	id := w.submit(lakeside(), "r1", visit(0, "2026-02-05", byStranger)).Claim.ClaimId
	ours := w.visits(0, "ADA")
	require.Equal(t, []string{"CO-242"}, w.claim(id).Decided.GetCodes())

	w.append("contract", &eventsv1.ContractPublished{Version: 1, Contract: &policiesv1.ProviderContract{
		ContractId: "ctr_stranger", PayerId: payer, Npis: []string{stranger}, Effective: &typev1.Period{StartDate: "2026-02-01"}, FeeScheduleId: "fs_acme",
	}})
	w.followed()

	require.Equal(t, "paid", statusWord(w.claim(id).Status()))
	require.Equal(t, "contract", w.claim(id).Corrections[0].GetCause())
	require.Equal(t, eventsv1.ReversalReason_REVERSAL_REASON_ACCUMULATORS_MOVED, w.claim(ours[0]).Corrections[0].GetReason(),
		"it came first, so the deductible was its to meet")
	require.EqualValues(t, 8000, w.claim(ours[0]).Decided.GetPaidCents())
	inOrder(t, w, 0)
	replayed(t, w)

	t.Run("and one that ranks before the contract that was read prices again", func(t *testing.T) {
		w.append("contract", &eventsv1.ContractPublished{Version: 1, Contract: &policiesv1.ProviderContract{
			ContractId: "ctr_better", PayerId: payer, Npis: []string{stranger}, Effective: &typev1.Period{StartDate: "2026-02-01"}, FeeScheduleId: "fs_acme",
			FeeBps: 5000, PlanIds: []string{"plan_acme"},
		}})
		w.followed()
		require.Equal(t, "ctr_better@1", w.claim(id).Decided.GetVersions().GetContract())
		require.EqualValues(t, 5000, w.claim(id).Decided.GetAllowedCents())
	})
}

// A provider leaves a network, and the network's owner says so late: what was
// paid as in network is decided again, and again when the provider turns out
// to have stayed.
func TestANetworkCorrectedLateDecidesAgain(t *testing.T) {
	w := newWorld(t, 0, automatic)
	network := func(version uint32, until string) {
		w.record("network-net_acme", &eventsv1.NetworkPublished{Version: version, Network: &policiesv1.ProviderNetwork{
			NetworkId: "net_acme", Name: "Acme", PayerId: payer, Effective: &typev1.Period{StartDate: "2026-01-01"},
			Participants: []*policiesv1.NetworkParticipant{{Npi: biller, Participates: &typev1.Period{StartDate: "2026-01-01", EndDate: until}}},
		}})
	}
	network(1, "")
	doc := dearerPlan(10000)
	doc.Networks = []*policiesv1.PlanNetwork{{NetworkId: "net_acme"}}
	w.record(w.plan, &eventsv1.PlanPublished{Version: 2, Plan: doc})
	w.couple(0)
	ids := w.visits(0, "ADA", "ADA")
	require.Equal(t, []string{"paid", "paid"}, w.statuses(ids))
	require.Equal(t, "net_acme@1", w.claim(ids[0]).Decided.GetVersions().GetNetwork())

	network(2, "2026-02-10")
	w.followed()

	require.Equal(t, []string{"paid", "denied"}, w.statuses(ids), "the second visit was a day too late")
	require.Equal(t, []string{"CO-242"}, w.claim(ids[1]).Decided.GetCodes())
	require.Equal(t, "network", w.claim(ids[1]).Corrections[0].GetCause())
	require.Equal(t, "net_acme@2", w.claim(ids[1]).Decided.GetVersions().GetNetwork())
	inOrder(t, w, 0)

	network(3, "")
	w.followed()

	require.Equal(t, []string{"paid", "paid"}, w.statuses(ids), "found by the version in which the provider was looked for in vain")
	inOrder(t, w, 0)
	replayed(t, w)
}

// What waits for a version of a plan is asked about when one comes.
func TestAClaimThatWaitedForAPlanIsDecidedWhenItIsPublished(t *testing.T) {
	w := newWorld(t, 0, automatic)
	w.append("policy", &eventsv1.PolicyCreated{Policy: &policiesv1.Policy{PolicyId: "pol_new", PayerId: payer, PlanId: "plan_new", Effective: &typev1.Period{StartDate: "2026-01-01"}}})
	ada := w.person(0, "ADA")
	e := ada.enrolled("2026-01-01", "", false)
	e.PolicyId = "pol_new"
	w.record(policies.MemberStream(ada.subject), e)
	w.caughtUp(w.Service)
	ids := w.visits(0, "ADA")
	require.Equal(t, []string{"pended"}, w.statuses(ids))

	doc := dearerPlan(10000)
	doc.PlanId = "plan_new"
	doc.Networks = []*policiesv1.PlanNetwork{{NetworkId: "net_new"}}
	w.append("plan", &eventsv1.PlanPublished{Version: 1, Plan: doc})
	w.followed()
	require.Equal(t, []string{"pended"}, w.statuses(ids), "its network is not there yet")

	w.append("network", &eventsv1.NetworkPublished{Version: 1, Network: &policiesv1.ProviderNetwork{
		NetworkId: "net_new", PayerId: payer, Effective: &typev1.Period{StartDate: "2026-01-01"}, Participants: []*policiesv1.NetworkParticipant{{Npi: biller}},
	}})
	w.followed()

	require.Equal(t, []string{"paid"}, w.statuses(ids))
	replayed(t, w)
}

func TestAChangeThatTouchesNothingDoesNothing(t *testing.T) {
	w := newWorld(t, 0, automatic)
	ada, _ := w.couple(0)
	w.visits(0, "ADA", "BEN")
	before := len(w.events())

	w.record(policies.MemberStream(ada.subject), &eventsv1.MemberTerminated{Subject: ada.subject, Subscriber: ada.subscriber, EndDate: "2026-12-31"})
	later := dearerPlan(99900)
	later.Effective = &typev1.Period{StartDate: "2026-07-01"}
	w.publishVersion(2, later)
	w.couple(3)
	w.followed()

	require.Len(t, w.events(), before)
}

// A payer may want to be asked first. Nothing moves until a person says so,
// who is shown before what would.
func TestAPayerThatWantsToBeAskedIsShownFirst(t *testing.T) {
	w := newWorld(t, 0, proposing)
	ada, _ := w.couple(0)
	ids := w.visits(0, "ADA", "BEN")
	w.record(policies.MemberStream(ada.subject), &eventsv1.MemberTerminated{Subject: ada.subject, Subscriber: ada.subscriber, EndDate: "2026-01-31"})

	changes := w.changes()
	require.Len(t, changes, 1)
	proposed := changes[0]
	require.Equal(t, claimsv1.ChangeState_CHANGE_STATE_PROPOSED, proposed.GetState())
	require.EqualValues(t, 2, proposed.GetCorrections(), "the spouse's deductible moves with it")
	require.Equal(t, []string{"paid", "paid"}, w.statuses(ids), "nothing has moved")

	before := len(w.events())
	shown, err := w.ReprocessChange(planAdmin(), &claimsv1.ReprocessChangeRequest{ChangeId: proposed.GetChangeId(), DryRun: true})
	require.NoError(t, err)
	require.Len(t, shown.GetCorrections(), 2)
	require.Equal(t, proposed.GetPaidDifferenceCents(), shown.GetChange().GetPaidDifferenceCents())
	require.Len(t, w.events(), before)

	for range 2 { // to approve twice is to approve
		_, err = w.ReprocessChange(planAdmin(), &claimsv1.ReprocessChangeRequest{ChangeId: proposed.GetChangeId()})
		require.NoError(t, err)
	}
	done := w.changes()[0]
	require.Equal(t, claimsv1.ChangeState_CHANGE_STATE_REPROCESSED, done.GetState())
	require.Equal(t, proposed.GetPaidDifferenceCents(), done.GetPaidDifferenceCents())
	require.Equal(t, []string{"denied", "paid"}, w.statuses(ids))
	inOrder(t, w, 0)
	replayed(t, w)

	t.Run("it is nobody else's to see or to approve", func(t *testing.T) {
		for _, ctx := range []context.Context{lakeside(), adjudicator(), auditor()} {
			_, err := w.ReprocessChange(ctx, &claimsv1.ReprocessChangeRequest{ChangeId: proposed.GetChangeId()})
			require.True(t, problem.Is(err, problem.NotFound), "%v", err)
			_, err = w.ListChanges(ctx, &claimsv1.ListChangesRequest{PayerId: payer})
			require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
		}
	})
	t.Run("a change nobody knows is refused", func(t *testing.T) {
		for _, id := range []string{"", "chg_x", "chg_" + "aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
			_, err := w.ReprocessChange(planAdmin(), &claimsv1.ReprocessChangeRequest{ChangeId: id})
			require.True(t, problem.Is(err, problem.NotFound), "%v", err)
		}
	})
}

// One payer may be asked while the others aren't.
func TestOnePayerMayBeAskedWhileOthersAreNot(t *testing.T) {
	w := newWorld(t, 0, automatic, func(d *Deps) { d.Config.ProposeFor = []string{payer} })
	w.couple(0)
	ids := w.visits(0, "ADA", "ADA")
	w.publishVersion(2, dearerPlan(15000))
	require.Equal(t, claimsv1.ChangeState_CHANGE_STATE_PROPOSED, w.changes()[0].GetState())
	require.Empty(t, w.claim(ids[1]).Corrections)
}

// What came while no service ran is applied by the next one, and what was
// applied is not looked at again.
func TestAServiceThatStartsAgainGoesOnWhereItStopped(t *testing.T) {
	w := newWorld(t, 0, automatic)
	ada, _ := w.couple(0)
	ids := w.visits(0, "ADA", "ADA")
	w.publishVersion(2, dearerPlan(15000))
	w.followed()
	require.Len(t, w.claim(ids[1]).Corrections, 1)
	w.stops[0]()
	cursor, err := w.store.Read(context.Background(), logName, cursorStream, cursorStream, 0)
	require.NoError(t, err)
	require.NotEmpty(t, cursor, "it said how far it came")

	w.record(policies.MemberStream(ada.subject), &eventsv1.MemberTerminated{Subject: ada.subject, Subscriber: ada.subscriber, EndDate: "2026-01-31"})
	next := w.start(w.index, automatic)
	w.followed(next)

	require.Equal(t, []string{"denied", "denied"}, w.statuses(ids))
	require.Len(t, w.claim(ids[1]).Corrections, 2)
	next.follower.mu.Lock()
	defer next.follower.mu.Unlock()
	require.Len(t, next.follower.window, 1, "the plan was not looked at again")
}

// Two services follow side by side, and a cursor that is lost has everything
// looked at again: each correction is made once all the same.
func TestAChangeIsAppliedOnceWhoeverFollows(t *testing.T) {
	w := newWorld(t, 0, automatic)
	second := w.start(w.index, automatic)
	w.couple(0)
	w.caughtUp(second)
	ids := w.visits(0, "ADA", "BEN", "ADA")
	w.publishVersion(2, dearerPlan(15000))
	w.followed(w.Service, second)
	changes := w.changes()
	require.Len(t, changes, 1)
	before := len(w.events())

	third := w.start(w.index, automatic) // the cursor was never saved: it begins at the beginning
	w.followed(third)

	require.Len(t, w.events(), before)
	for _, id := range ids {
		require.LessOrEqual(t, len(w.claim(id).Corrections), 1)
	}
	require.Equal(t, changes[0].GetCorrections(), w.changes()[0].GetCorrections())
	inOrder(t, w, 0)
}

// A process whose book is behind decides by what it knows. Its decision goes
// by after the change was applied, and is found by what it says it had read.
func TestADecisionMadeBehindTheChangeIsFound(t *testing.T) {
	w := newWorld(t, 0, automatic)
	ada, _ := w.couple(0)
	behind := w.start(w.index, func(d *Deps) { d.Store = &deaf{Store: d.Store, until: w.end(policies.Log)} })
	first := w.visits(0, "ADA")
	w.record(policies.MemberStream(ada.subject), &eventsv1.MemberTerminated{Subject: ada.subject, Subscriber: ada.subscriber, EndDate: "2026-01-31"})
	w.followed()
	require.Equal(t, []string{"denied"}, w.statuses(first))

	res, err := behind.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "late", Claim: visit(0, "2026-02-20")})
	require.NoError(t, err)
	require.Equal(t, "paid", statusOf(res), "it didn't know")
	w.followed()

	require.Equal(t, []string{"denied"}, w.statuses([]string{res.Claim.ClaimId}))
	require.Equal(t, "termination", w.claim(res.Claim.ClaimId).Corrections[0].GetCause())
	require.EqualValues(t, 2, w.changes()[0].GetCorrections(), "it is added to what the change moved")
	inOrder(t, w, 0)
	replayed(t, w)
}

// It had not read two changes: one that is about its family and not about this
// person, then the plan's correction. The first must not hide the second.
func TestADecisionMadeBehindTwoChangesIsDecidedByTheOneThatConcernsIt(t *testing.T) {
	w := newWorld(t, 0, automatic)
	_, ben := w.couple(0)
	behind := w.start(w.index, func(d *Deps) { d.Store = &deaf{Store: d.Store, until: w.end(policies.Log)} })
	w.record(policies.MemberStream(ben.subject), ben.enrolled("2026-01-01", "", true))
	w.followed() // it is held against decisions before the other, whichever shards they are on
	w.publishVersion(2, dearerPlan(2500))
	w.followed()

	res, err := behind.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: "late", Claim: visit(0, "2026-02-20")})
	require.NoError(t, err)
	w.followed()

	corrections := w.claim(res.Claim.ClaimId).Corrections
	require.Len(t, corrections, 1)
	require.Equal(t, "plan", corrections[0].GetCause())
	inOrder(t, w, 0)
	replayed(t, w)
}

// deaf hears nothing of the policies log after a point.
type deaf struct {
	eventstore.Store
	until map[uint32]uint64
}

func (d *deaf) Follow(ctx context.Context, log string, from map[uint32]uint64, types []string, handle func(context.Context, eventstore.Batch) error) error {
	if log != policies.Log {
		return d.Store.Follow(ctx, log, from, types, handle)
	}
	return d.Store.Follow(ctx, log, from, types, func(ctx context.Context, b eventstore.Batch) error {
		var heard []eventstore.Recorded
		for _, r := range b.Events {
			if r.Position.Index < d.until[r.Position.Shard] {
				heard = append(heard, r)
			}
		}
		for shard, next := range b.Next {
			b.Next[shard] = min(next, d.until[shard])
		}
		b.Events = heard
		return handle(ctx, b)
	})
}

// A replacement came while its original waited for a person. When the original
// is decided, the replacement is asked about by itself.
func TestAReplacementThatWaitedForItsOriginalIsDecidedAfterIt(t *testing.T) {
	w := newWorld(t, 0, automatic)
	w.couple(0)
	original := w.submit(lakeside(), "r1", large("2026-02-10")).Claim.ClaimId
	replacement := w.submit(lakeside(), "r2", visit(0, "2026-02-10", replaces(original)))
	require.Equal(t, "pended", statusOf(replacement))
	require.Equal(t, "adjustment.replacement", replacement.Decision.PendReasons[0].RuleId)

	_, err := w.ResolveClaim(service(), &claimsv1.ResolveClaimRequest{ClaimId: original, RequestId: "v1", Resolution: "approve", Reason: "seen"})
	require.NoError(t, err)
	w.followed()

	require.Equal(t, reversed, w.claim(original).Status())
	require.Equal(t, "paid", statusWord(w.claim(replacement.Claim.ClaimId).Status()))
	inOrder(t, w, 0)
	replayed(t, w)
}

// turn is one thing that happens in the property below.
type turn struct {
	kind   int // 0, 1, 2 a claim; 3 a replacement; 4 a void; 5 a plan; 6 a termination; 7 cover again; 8 the other payer; 9 a second service
	spouse bool
	cents  int64
	target int
}

// Claims, replacements, voids, plans, terminations, reinstatements and other
// payers, in whatever order and by whichever of two services: when all that is
// followed, the family stands as if its claims had come in their order under
// what is known at the end, no cap is passed, and every decision replays.
func TestWhateverChangesTheFamilyEndsAsIfItHadBeenKnownFromTheStart(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		turns := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) turn {
			return turn{
				kind: rapid.IntRange(0, 9).Draw(rt, "kind"), spouse: rapid.Bool().Draw(rt, "spouse"),
				cents: rapid.SampledFrom([]int64{2500, 9000, 15000}).Draw(rt, "cents"), target: rapid.IntRange(0, 20).Draw(rt, "target"),
			}
		}), 1, 14).Draw(rt, "turns")
		amend := rapid.SampledFrom([]int{1, 2, 90}).Draw(rt, "claims a commit")
		bounded := func(d *Deps) { d.Config.AmendClaims = amend }
		w := newWorld(t, 0, automatic, bounded)
		defer w.stop()
		second := w.start(w.index, automatic, bounded)
		ada, ben := w.couple(0)
		services := []*Service{w.Service, second}
		var sent []*claimsv1.Claim
		var ids []string
		plan := familyPlan(10000, false)
		version := uint32(1)
		send := func(n int, c *claimsv1.Claim) {
			// One that is refused (its original is gone) has changed nothing.
			res, err := services[n%2].SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprint(len(ids)), Claim: c})
			require.NoError(rt, err)
			sent, ids = append(sent, c), append(ids, res.GetClaim().GetClaimId())
		}
		ended := map[string]bool{}
		for n, s := range turns {
			who := ada
			if s.spouse {
				who = ben
			}
			switch s.kind {
			case 3, 4:
				if at := s.target % max(1, len(ids)); len(ids) > 0 && ids[at] != "" {
					change := replaces(ids[at])
					if s.kind == 4 {
						change = voids(ids[at])
					}
					c := visit(0, sent[at].GetLines()[0].GetServiceDate(), charged(s.cents), change)
					if sent[at].GetPatient() != nil {
						spouse(c)
					}
					send(n, c)
				}
			case 5:
				version++
				plan = familyPlan(s.cents, false)
				w.publishVersion(version, plan)
			case 6:
				if !ended[who.subject] {
					ended[who.subject] = true
					w.record(policies.MemberStream(who.subject), &eventsv1.MemberTerminated{Subject: who.subject, Subscriber: who.subscriber, EndDate: fmt.Sprintf("2026-02-%02d", 1+s.target%14)})
				}
			case 7, 8:
				ended[who.subject] = false
				w.record(policies.MemberStream(who.subject), who.enrolled("2026-01-01", "", s.kind == 8))
			case 9:
				w.followed(services...)
			default:
				c := visit(0, fmt.Sprintf("2026-02-%02d", 1+n), charged(s.cents))
				if s.spouse {
					spouse(c)
				}
				send(n, c)
			}
		}
		w.followed(services...)
		w.followed(services...) // what one did went by the other
		inOrder(rt, w, 0)
		sums, _ := w.sums(0)
		share := w.shareInForce(version, plan)
		for k, v := range sums {
			require.GreaterOrEqual(rt, v, int64(0))
			switch {
			case k.Kind == adjudication.Deductible && k.Scope == adjudication.Family:
				require.LessOrEqual(rt, v, share.GetDeductibleFamilyCents())
			case k.Kind == adjudication.Deductible:
				require.LessOrEqual(rt, v, share.GetDeductibleIndividualCents())
			case k.Kind == adjudication.OutOfPocket && k.Scope == adjudication.Family:
				require.LessOrEqual(rt, v, share.GetOutOfPocketFamilyCents())
			}
		}
		told, end := replayAll(auditor(), t, w.Service, &claimsv1.ReplayDecisionsRequest{})
		require.Empty(rt, told)
		require.Equal(rt, end.GetDecisions(), end.GetIdentical())
	})
}

// shareInForce is the cost share of the plan's last version.
func (w *world) shareInForce(version uint32, plan *policiesv1.PlanDocument) *policiesv1.CostShare {
	if version > 1 {
		return plan.GetInNetwork()
	}
	return &policiesv1.CostShare{DeductibleIndividualCents: 10000, DeductibleFamilyCents: 15000, OutOfPocketIndividualCents: 50000, OutOfPocketFamilyCents: 80000}
}
