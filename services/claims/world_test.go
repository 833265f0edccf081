package claims

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/keys/keystest"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/views/redisstore"
)

// The invented world of these tests: one payer, one plan with a $100
// deductible and 20 % coinsurance, a fee of $100 for 99213, a contract with
// the biller, and families of two with member ids W1, W2 …
const (
	payer  = "ACME"
	biller = "1234567893"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// world is a claims service with everything it stands on, in this process.
type world struct {
	*Service
	t         testing.TB
	store     eventstore.Store
	memory    *eventstore.Memory
	authority *keystest.Authority
	redis     *miniredis.Miniredis
	stops     []func()
	plan      string // stream of the plan's first version
	fees      string // and of the fee schedule's

	mu  sync.Mutex
	now time.Time
}

type worldOption func(*Deps)

// newWorld makes a running service with n enrolled families.
func newWorld(t testing.TB, n int, options ...worldOption) *world {
	t.Helper()
	w := &world{t: t, now: noon, authority: keystest.New(), redis: miniredis.RunT(t)}
	w.memory = eventstore.NewMemory(eventstore.MemoryOptions{Now: w.clock})
	w.store = w.memory
	index := keys.NewIndex([32]byte{7})
	w.publish(index, n)
	w.Service = w.start(index, options...)
	return w
}

// start runs one more claims service on the same ledger, as a second process would be.
func (w *world) start(index *keys.Index, options ...worldOption) *Service {
	w.t.Helper()
	auth, err := identity.NewAuthorizer()
	require.NoError(w.t, err)
	client := redis.NewClient(&redis.Options{Addr: w.redis.Addr()})
	d := Deps{
		Store: w.store, Sealer: keys.NewSealer(w.authority, keys.SealerOptions{}), Index: index, Book: book.New(),
		Authorizer: auth, Lists: redisstore.New(client), Now: w.clock, Config: Config{WatchInterval: time.Hour, Reprocessing: reprocessOff},
	}
	for _, o := range options {
		o(&d)
	}
	s, err := New(d)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		<-ended
		_ = client.Close()
	})
	w.stops = append(w.stops, stop)
	w.t.Cleanup(stop)
	ready, enough := context.WithTimeout(ctx, 10*time.Second)
	defer enough()
	require.NoError(w.t, s.Ready(ready))
	require.Eventually(w.t, func() bool { return s.view.Ready(ready) == nil }, 10*time.Second, time.Millisecond)
	return s
}

// stop ends all services, for tests that make many worlds.
func (w *world) stop() {
	for _, stop := range w.stops {
		stop()
	}
	w.redis.Close()
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) publish(ix *keys.Index, n int) {
	always := &typev1.Period{StartDate: "2026-01-01"}
	share := &policiesv1.CostShare{
		DeductibleIndividualCents: 10000, DeductibleFamilyCents: 15000, DeductibleKind: "embedded", CoinsuranceBps: 2000,
		OutOfPocketIndividualCents: 50000, OutOfPocketFamilyCents: 80000,
	}
	w.fees = w.append("plan", &eventsv1.FeeSchedulePublished{Version: 1, FeeSchedule: &policiesv1.FeeSchedule{
		FeeScheduleId: "fs_acme", Effective: always, Fees: []*policiesv1.Fee{{Procedure: "99213", AmountCents: 10000}, {Procedure: "73721", AmountCents: 40000}},
	}})
	w.plan = w.append("plan", &eventsv1.PlanPublished{Version: 1, Plan: &policiesv1.PlanDocument{
		PlanId: "plan_acme", Name: "Acme", PayerId: payer, Effective: always, PlanYear: "calendar", TimelyFilingDays: 90,
		InNetwork: share, FeeScheduleId: "fs_acme", ReviewAboveCents: 500000,
		Benefits: []*policiesv1.Benefit{
			{Name: "imaging", Covered: true, PriorAuthorization: true, Match: &policiesv1.ServiceMatch{Procedures: []string{"73721"}}},
			{Name: "care", Covered: true, Match: &policiesv1.ServiceMatch{Procedures: []string{"90000-99999"}}},
		},
	}})
	w.append("contract", &eventsv1.ContractPublished{Version: 1, Contract: &policiesv1.ProviderContract{
		ContractId: "ctr_acme", PayerId: payer, Npis: []string{biller}, Effective: always, FeeScheduleId: "fs_acme",
	}})
	w.append("policy", &eventsv1.PolicyCreated{Policy: &policiesv1.Policy{PolicyId: "pol_acme", PayerId: payer, PlanId: "plan_acme", Effective: always}})
	for i := range n {
		for _, first := range []string{"ADA", "BEN"} {
			member, born := memberID(i), birthOf(first)
			w.append("member", &eventsv1.MemberEnrolled{
				Subject: ix.Person(payer, member, born, first), Subscriber: ix.Subscriber(payer, member), PayerId: payer, PolicyId: "pol_acme",
				BirthIndex: ix.BirthIndex(payer, member, born), PersonIndex: ix.PersonIndex(payer, member, born, first),
				RelationshipCode: map[string]string{"ADA": "18", "BEN": "01"}[first], Coverage: always,
			})
		}
	}
}

func memberID(family int) string { return fmt.Sprintf("W%d", family+1) }

func birthOf(first string) string {
	return map[string]string{"ADA": "1980-05-05", "BEN": "1981-06-06"}[first]
}

var published = map[testing.TB]int{}
var publishedMu sync.Mutex

// append puts one reference event on the policies log, a stream an event, and
// returns the stream.
func (w *world) append(kind string, e proto.Message) string {
	w.t.Helper()
	publishedMu.Lock()
	published[w.t]++
	name := fmt.Sprintf("%s-%d", kind, published[w.t])
	publishedMu.Unlock()
	_, err := w.store.Append(context.Background(), eventstore.Commit{
		Log: policies.Log, RoutingKey: name, RequestID: name, Writes: []eventstore.Write{{Stream: name, Expected: eventstore.NoStream, Events: []proto.Message{e}}},
	})
	require.NoError(w.t, err)
	return name
}

// Who calls.
func as(p identity.Principal) context.Context {
	return identity.WithPrincipal(context.Background(), p)
}

func lakeside() context.Context {
	return as(identity.Principal{Subject: "biller-1", Org: "prov-lakeside", Roles: []identity.Role{identity.RoleSubmitter}})
}

func otherOrg() context.Context {
	return as(identity.Principal{Subject: "biller-2", Org: "prov-other", Roles: []identity.Role{identity.RoleSubmitter}})
}

func adjudicator() context.Context {
	return as(identity.Principal{Subject: "adj-1", Org: "payer-acme", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{payer}})
}

func auditor() context.Context {
	return as(identity.Principal{Subject: "aud-1", Org: "audit", Roles: []identity.Role{identity.RoleAuditor}})
}

func service() context.Context {
	return as(identity.Principal{Subject: "svc-worker", Org: "probity", Roles: []identity.Role{identity.RoleService}})
}

// visit is a claim for one office visit of $150.00, of which $100.00 is allowed.
func visit(family int, day string, change ...func(*claimsv1.Claim)) *claimsv1.Claim {
	c := &claimsv1.Claim{
		Form: claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL, PatientControlNumber: "PCN-1", ChargeCents: 15000, PlaceOfService: "11", FrequencyCode: "1",
		Payer:           &claimsv1.Payer{Id: payer, Name: "ACME HEALTH"},
		BillingProvider: &claimsv1.Provider{Npi: biller, Name: "LAKESIDE", Address: &claimsv1.Address{State: "TX"}},
		Subscriber:      &claimsv1.Person{MemberId: memberID(family), LastName: "Lovelace", FirstName: "Ada", BirthDate: birthOf("ADA"), Sex: "F"},
		PayerSequence:   "P", FilingIndicator: "CI",
		Diagnoses: []*claimsv1.Diagnosis{{Code: "J069", Qualifier: "ABK"}},
		Lines: []*claimsv1.ServiceLine{{
			Number: 1, ProcedureQualifier: "HC", Procedure: "99213", ChargeCents: 15000, UnitCode: "UN", QuantityMilli: 1000, DiagnosisPointers: []uint32{1}, ServiceDate: day,
		}},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// spouse makes it a claim for the family's other member.
func spouse(c *claimsv1.Claim) {
	c.Patient = &claimsv1.Person{LastName: "Lovelace", FirstName: "Ben", BirthDate: birthOf("BEN"), Sex: "M"}
	c.RelationshipCode = "01"
}

// charged sets the line's and the claim's charge.
func charged(cents int64) func(*claimsv1.Claim) {
	return func(c *claimsv1.Claim) { c.ChargeCents, c.Lines[0].ChargeCents = cents, cents }
}

func (w *world) submit(ctx context.Context, requestID string, c *claimsv1.Claim) *claimsv1.SubmitClaimResponse {
	w.t.Helper()
	res, err := w.SubmitClaim(ctx, &claimsv1.SubmitClaimRequest{RequestId: requestID, Claim: c})
	require.NoError(w.t, err)
	return res
}

// commits are all events on the claims log, in order within each shard.
func (w *world) events() []eventstore.Recorded {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var out []eventstore.Recorded
	err := w.store.Follow(ctx, logName, nil, nil, func(_ context.Context, b eventstore.Batch) error {
		out = append(out, b.Events...)
		if b.CaughtUp {
			return errEnough
		}
		return nil
	})
	require.ErrorIs(w.t, err, errEnough)
	return out
}

var errEnough = fmt.Errorf("enough")

// sums are a family's accumulators by adding up what is on the ledger, by
// hand and apart from the code under test.
func (w *world) sums(family int) (map[adjudication.Key]int64, int) {
	w.t.Helper()
	sums, posted := map[adjudication.Key]int64{}, 0
	stream := accumulatorStream(w.index.Subscriber(payer, memberID(family)))
	for _, r := range w.events() {
		e, ok := r.Event.(*eventsv1.AccumulatorsPosted)
		if !ok || r.Stream != stream {
			continue
		}
		posted++
		for _, p := range e.GetPostings() {
			key, ok := adjudication.ParseKey(p.GetScope(), p.GetSubject(), p.GetKind(), p.GetNetwork(), p.GetPlanYear())
			require.True(w.t, ok)
			sums[key] += p.GetAmount()
		}
	}
	return sums, posted
}

func statusOf(res *claimsv1.SubmitClaimResponse) string {
	return statusWord(res.GetClaim().GetStatus())
}
