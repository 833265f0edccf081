// Package book is the reference data a claim is decided with, held in memory
// and kept current by following the policies log: which payers are ours, who
// is covered when, which version of which document governs on a day.
//
// Invariants: the book is a pure fold of the log, so two books that applied
// the same commits answer alike, in whatever order the shards arrived; links
// between streams (a span's policy, a policy's plan) are therefore followed
// when asked, never when applied. It holds no plaintext health data: people
// are opaque ids and keyed hashes, details stay sealed.
//
// What a lookup returns is immutable and may be kept: applying an event makes
// new values and never changes old ones.
package book

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/problem"
)

// Book is safe for concurrent use.
type Book struct {
	mu sync.RWMutex // guards everything below

	payers    map[string]struct{}
	plans     map[string]*shelf[*policiesv1.PlanDocument]
	planIDs   []string // ordered, for listing
	schedules map[string]*shelf[*policiesv1.FeeSchedule]
	contracts map[string]*shelf[*policiesv1.ProviderContract]
	networks  map[string]*shelf[*policiesv1.ProviderNetwork]
	// networksOf holds a payer's network ids, ordered.
	networksOf map[string][]string
	// listed holds the ids of contracts that ever named the NPI for the
	// payer, ordered; whether one does on a day is asked of its version.
	listed   map[providerKey][]string
	policies map[string]*policiesv1.Policy

	members map[string]*policies.Member // by subject
	persons map[string]string           // person index to subject
	births  map[string][]string         // birth index to subjects, in order
	// families counts the persons of a card. Its keys are also where equal
	// subscriber ids share their memory.
	families map[string]*family
	// cards maps dependants' own cards to the card they depend on.
	cards          map[string]string
	authorizations map[string]*Authorization // by number index
	providers      map[providerKey]*Provider

	chunks map[string]map[string][]byte // of tables of claim edits, by stream and hash
	tables map[string][]*table          // by payer, as published
	sets   map[string][]*EditSet        // by payer, in order of days

	next     map[uint32]uint64 // index to continue from, a shard
	asOf     AsOf              // next, as decisions record it
	caughtUp bool
	moved    chan struct{} // closed and replaced at every batch
}

type providerKey struct{ payerID, npi string }

type family struct {
	subscriber string
	subjects   []string // in order
}

// New makes an empty book.
func New() *Book {
	return &Book{
		payers: map[string]struct{}{}, plans: map[string]*shelf[*policiesv1.PlanDocument]{},
		schedules: map[string]*shelf[*policiesv1.FeeSchedule]{}, contracts: map[string]*shelf[*policiesv1.ProviderContract]{},
		networks: map[string]*shelf[*policiesv1.ProviderNetwork]{}, networksOf: map[string][]string{},
		listed: map[providerKey][]string{}, policies: map[string]*policiesv1.Policy{},
		members: map[string]*policies.Member{}, persons: map[string]string{}, births: map[string][]string{},
		families: map[string]*family{}, cards: map[string]string{}, authorizations: map[string]*Authorization{},
		providers: map[providerKey]*Provider{}, chunks: map[string]map[string][]byte{}, tables: map[string][]*table{}, sets: map[string][]*EditSet{},
		next: map[uint32]uint64{}, moved: make(chan struct{}),
	}
}

// Version is one version of a document, with the days it governs.
type Version[D policies.Document] struct {
	ID  string
	Ref string // "plan_gold@3", as decisions record it
	// Document as published. Its own period may be longer than Governs.
	Document D
	// Governs is when it is in force: until a later version takes over.
	// Versions of one document never govern the same day.
	Governs policies.Period
}

// The versions there are.
type (
	Plan        = Version[*policiesv1.PlanDocument]
	FeeSchedule = Version[*policiesv1.FeeSchedule]
	Contract    = Version[*policiesv1.ProviderContract]
	Network     = Version[*policiesv1.ProviderNetwork]
)

// Authorization is a prior authorisation; what it covers is sealed.
type Authorization struct {
	NumberIndex []byte
	PayerID     string
	Subject     string
	Units       uint32 // 0 is no limit
	Effective   policies.Period
	NPIs        []string // providers it was given to; empty is any
	Cancelled   bool     // it covers nothing
	// Stream and Revision are the place the sealed PriorAuthorization was
	// sealed for, with policies.AuthorizationField and the payer as tenant.
	Stream   string
	Revision uint64
	Sealed   *typev1.Sealed
}

// shelf holds one document's versions.
type shelf[D policies.Document] struct {
	history policies.History[D]
	// published is the day after each version was recorded (UTC, which may be
	// a payer's day before): no service of a later day had been decided then.
	published []string
	// inForce are the versions that govern any day at all, by first day.
	// Replaced whole, so that readers may keep it.
	inForce []*Version[D]
}

// add puts a version on the shelf; one that is there already changes nothing.
func (s *shelf[D]) add(id string, version uint32, doc D, recorded time.Time) error {
	switch have := uint32(len(s.history)); {
	case version <= have && version > 0:
		return nil
	case version != have+1:
		return fmt.Errorf("book: %s follows version %d", policies.Ref(id, version), have)
	}
	s.history = append(s.history, doc)
	s.published = append(s.published, recorded.UTC().AddDate(0, 0, 1).Format(time.DateOnly))
	inForce := make([]*Version[D], 0, len(s.history))
	for i, d := range s.history {
		v := uint32(i + 1)
		governs, ok := s.history.Governs(v)
		if !ok {
			continue
		}
		// An unchanged version keeps its identity: readers cache what they compiled from it.
		same := slices.IndexFunc(s.inForce, func(x *Version[D]) bool { return x.Ref == policies.Ref(id, v) && x.Governs == governs })
		if same >= 0 {
			inForce = append(inForce, s.inForce[same])
			continue
		}
		inForce = append(inForce, &Version[D]{ID: id, Ref: policies.Ref(id, v), Document: d, Governs: governs})
	}
	slices.SortFunc(inForce, func(a, b *Version[D]) int { return strings.Compare(a.Governs.Start, b.Governs.Start) })
	s.inForce = inForce
	return nil
}

// on returns the version in force on a day; nil is none.
func (s *shelf[D]) on(day string) *Version[D] {
	if s == nil {
		return nil
	}
	for _, v := range s.inForce {
		if v.Governs.Contains(day) {
			return v
		}
	}
	return nil
}

// Apply folds a batch. Commits applied before are passed over, so a batch may
// come twice. An error means that the log breaks a rule of package policies:
// the batch's cursor is then not advanced and following must stop.
func (b *Book) Apply(batch eventstore.Batch) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range batch.Events {
		if r.Position.Index < b.next[r.Position.Shard] {
			continue
		}
		if err := b.apply(r); err != nil {
			return problem.New(problem.Internal, problem.Problem{RuleID: "book.log",
				Message: fmt.Sprintf("commit %s can't follow what the log held before it", r.Position.Token()),
				Fix:     "check the ledger replica this service reads; claims wait until the book is current"}).Because(err)
		}
	}
	for shard, next := range batch.Next {
		b.next[shard] = max(b.next[shard], next)
	}
	b.asOf = AsOfNext(b.next)
	b.caughtUp = b.caughtUp || batch.CaughtUp
	close(b.moved)
	b.moved = make(chan struct{})
	return nil
}

// apply folds one event; mu is held. Events of types it doesn't know are
// another reader's.
func (b *Book) apply(r eventstore.Recorded) error {
	switch e := r.Event.(type) {
	case *eventsv1.PlanPublished:
		d := e.GetPlan()
		b.payers[d.GetPayerId()] = struct{}{}
		if at, found := slices.BinarySearch(b.planIDs, d.GetPlanId()); !found {
			b.planIDs = slices.Insert(b.planIDs, at, d.GetPlanId())
		}
		return stand(b.plans, d.GetPlanId(), e.GetVersion(), d, r.RecordedTime)
	case *eventsv1.FeeSchedulePublished:
		return stand(b.schedules, e.GetFeeSchedule().GetFeeScheduleId(), e.GetVersion(), e.GetFeeSchedule(), r.RecordedTime)
	case *eventsv1.ContractPublished:
		d := e.GetContract()
		for _, npi := range d.GetNpis() {
			key := providerKey{d.GetPayerId(), npi}
			if at, found := slices.BinarySearch(b.listed[key], d.GetContractId()); !found {
				b.listed[key] = slices.Insert(slices.Clone(b.listed[key]), at, d.GetContractId())
			}
		}
		return stand(b.contracts, d.GetContractId(), e.GetVersion(), d, r.RecordedTime)
	case *eventsv1.NetworkPublished:
		d := e.GetNetwork()
		if at, found := slices.BinarySearch(b.networksOf[d.GetPayerId()], d.GetNetworkId()); !found {
			b.networksOf[d.GetPayerId()] = slices.Insert(slices.Clone(b.networksOf[d.GetPayerId()]), at, d.GetNetworkId())
		}
		return stand(b.networks, d.GetNetworkId(), e.GetVersion(), d, r.RecordedTime)
	case *eventsv1.PolicyCreated:
		b.policies[e.GetPolicy().GetPolicyId()] = e.GetPolicy()
	case *eventsv1.MemberEnrolled:
		b.enrolled(e, r)
	case *eventsv1.MemberTerminated:
		b.evolve(e.GetSubject(), r)
	case *eventsv1.MemberReinstated:
		b.evolve(e.GetSubject(), r)
	case *eventsv1.MemberChanged:
		b.identified(e)
		b.evolve(e.GetSubject(), r)
	case *eventsv1.EditChunkRecorded:
		b.chunked(r.Stream, e)
	case *eventsv1.EditTablePublished:
		return b.tabled(r.Stream, e)
	case *eventsv1.ProviderStatusRecorded:
		b.providers[providerKey{e.GetPayerId(), e.GetNpi()}] = &Provider{NPI: e.GetNpi(),
			InactiveFrom: e.GetInactiveFrom(), ReactivatedFrom: e.GetReactivatedFrom(), DeceasedOn: e.GetDeceasedOn()}
	case *eventsv1.PriorAuthorizationRecorded:
		b.authorizations[string(e.GetNumberIndex())] = &Authorization{
			NumberIndex: e.GetNumberIndex(), PayerID: e.GetPayerId(), Subject: e.GetSubject(), Units: e.GetUnits(),
			Effective: policies.PeriodOf(e.GetEffective()), NPIs: e.GetNpis(), Cancelled: e.GetCancelled(), Stream: r.Stream, Revision: r.Revision, Sealed: e.GetAuthorization(),
		}
	}
	return nil
}

func stand[D policies.Document](shelves map[string]*shelf[D], id string, version uint32, doc D, recorded time.Time) error {
	s := shelves[id]
	if s == nil {
		s = &shelf[D]{}
		shelves[id] = s
	}
	return s.add(id, version, doc, recorded)
}

func (b *Book) enrolled(e *eventsv1.MemberEnrolled, r eventstore.Recorded) {
	subject := e.GetSubject()
	if _, known := b.members[subject]; !known {
		f := b.families[e.GetSubscriber()]
		if f == nil {
			f = &family{subscriber: e.GetSubscriber()}
			b.families[f.subscriber] = f
		}
		at, _ := slices.BinarySearch(f.subjects, subject)
		f.subjects = slices.Insert(slices.Clone(f.subjects), at, subject)
		b.find(subject, e.GetBirthIndex(), e.GetPersonIndex())
	}
	if own := e.GetOwnCard(); own != "" {
		b.cards[own] = b.families[e.GetSubscriber()].subscriber
	}
	b.evolve(subject, r)
}

// identified moves a person to the indexes of corrected details; mu is held.
func (b *Book) identified(e *eventsv1.MemberChanged) {
	subject := e.GetSubject()
	if b.persons[string(e.GetPreviousPersonIndex())] == subject {
		delete(b.persons, string(e.GetPreviousPersonIndex()))
	}
	birth := string(e.GetPreviousBirthIndex())
	if at, found := slices.BinarySearch(b.births[birth], subject); found {
		if b.births[birth] = slices.Delete(slices.Clone(b.births[birth]), at, at+1); len(b.births[birth]) == 0 {
			delete(b.births, birth)
		}
	}
	b.find(subject, e.GetBirthIndex(), e.GetPersonIndex())
}

// find makes a person findable by both indexes; mu is held.
func (b *Book) find(subject string, birthIndex, personIndex []byte) {
	birth := string(birthIndex)
	if at, found := slices.BinarySearch(b.births[birth], subject); !found {
		b.births[birth] = slices.Insert(slices.Clone(b.births[birth]), at, subject)
	}
	b.persons[string(personIndex)] = subject
}

// evolve replaces a member by its next state, sharing the text that equals
// the book's own so that a hundred thousand members stay small.
func (b *Book) evolve(subject string, r eventstore.Recorded) {
	m := policies.NewMember()
	if have, ok := b.members[subject]; ok {
		m = *have
	}
	m = m.EvolveAt(r.Event, r.Revision, r.RecordedTime)
	if f := b.families[m.Subscriber]; f != nil {
		m.Subscriber = f.subscriber
	}
	for i := range m.Spans {
		if p := b.policies[m.Spans[i].PolicyID]; p != nil {
			m.Spans[i].PolicyID = p.GetPolicyId()
			m.PayerID = p.GetPayerId()
		}
	}
	b.members[subject] = &m
}

// Run follows the policies log from where the book stands, until ctx ends or
// the log breaks a rule.
func (b *Book) Run(ctx context.Context, store eventstore.Store) error {
	b.mu.RLock()
	from := maps.Clone(b.next)
	b.mu.RUnlock()
	return store.Follow(ctx, policies.Log, from, nil, func(_ context.Context, batch eventstore.Batch) error { return b.Apply(batch) })
}

// WaitCaughtUp returns once the book has applied everything that was on the
// log when it began to follow, or with an Unavailable problem when ctx ends.
func (b *Book) WaitCaughtUp(ctx context.Context) error {
	return b.await(ctx, func() bool { return b.caughtUp })
}

// WaitFor returns once the commits that the token names are applied, or with
// an Unavailable problem when ctx ends. Several tokens may be joined by
// commas; an empty one waits for nothing, one of another log is refused.
func (b *Book) WaitFor(ctx context.Context, token string) error {
	if token == "" {
		return nil
	}
	if len(token) > maxToken {
		return badToken()
	}
	var wanted []eventstore.Position
	for one := range strings.SplitSeq(token, ",") {
		p, ok, err := eventstore.ParseToken(one)
		if err != nil {
			return err
		}
		if !ok || p.Log != policies.Log {
			return badToken()
		}
		wanted = append(wanted, p)
	}
	return b.await(ctx, func() bool {
		for _, p := range wanted {
			if b.next[p.Shard] <= p.Index {
				return false
			}
		}
		return true
	})
}

// maxToken allows for a token of each of some hundred shards.
const maxToken = 8 << 10

func badToken() error {
	return problem.New(problem.Invalid, problem.Problem{RuleID: "book.token", FieldPath: "token",
		Message: "not a consistency token of the policies log", Fix: "pass the token that the write returned, or none"})
}

// await waits until done, which is asked under mu, holds.
func (b *Book) await(ctx context.Context, done func() bool) error {
	for {
		b.mu.RLock()
		ok, moved := done(), b.moved
		b.mu.RUnlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return problem.New(problem.Unavailable, problem.Problem{RuleID: "book.behind",
				Message: "the reference data has not caught up with the ledger yet", Fix: "send the same request again in a moment"}).Because(ctx.Err())
		}
	}
}
