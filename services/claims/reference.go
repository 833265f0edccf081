package claims

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
)

// reference puts what the payer has published into the engine's terms: the
// book finds it, this compiles it once a version.
type reference struct {
	book   *book.Book
	index  *keys.Index
	sealer keys.Sealer
	log    *slog.Logger

	plans     compiled[*book.Plan, *adjudication.Plan]
	schedules compiled[*book.FeeSchedule, *adjudication.FeeSchedule]
	contracts compiled[*book.Contract, *adjudication.Contract]
	networks  compiled[*book.Network, *adjudication.ProviderNetwork]
}

// lookup returns the engine's input for a claim, but for the family's
// accumulators and a review. Names, birth dates and numbers end here: the
// book is asked by keyed hashes.
func (r *reference) lookup(ctx context.Context, claim *claimsv1.Claim, subscriber string, received adjudication.Date) (adjudication.Input, error) {
	in := adjudication.Input{Claim: engineClaim(claim, received)}
	numbers := authorizationNumbers(in.Claim)
	found := r.book.For(r.query(claim, subscriber, &in.Claim, numbers))
	in.Member = r.member(found, subscriber, in.Claim)
	for _, c := range found.Contracts {
		if contract := r.contracts.of(c, r.contract); contract != nil {
			in.Contracts = append(in.Contracts, contract)
		}
	}
	for _, f := range found.FeeSchedules {
		if schedule := r.schedules.of(f, r.schedule); schedule != nil {
			in.FeeSchedules = append(in.FeeSchedules, schedule)
		}
	}
	for _, n := range found.Networks {
		if network := r.networks.of(n, r.network); network != nil {
			in.Networks = append(in.Networks, network)
		}
	}
	for _, set := range found.Edits {
		edits, err := set.Compiled()
		if err != nil {
			return in, defect("claims.edits.unreadable", "the published claim edits can't be read")
		}
		in.Edits = append(in.Edits, edits)
	}
	for _, p := range found.Providers {
		in.Providers = append(in.Providers, provider(p))
	}
	in.Versions = adjudication.Versions{
		Coverage: found.CoverageRef, AccumulatorsRevision: -1, ReceivedDate: received.String(), Reference: string(found.AsOf),
	}
	for i, a := range found.Authorizations {
		if a == nil || a.Sealed == nil {
			continue
		}
		opened, err := r.authorization(ctx, numbers[i], a)
		if errors.Is(err, keys.ErrDestroyed) {
			continue
		}
		if err != nil {
			return in, sealProblem(err)
		}
		in.Authorizations = append(in.Authorizations, opened)
	}
	return in, nil
}

func (r *reference) query(claim *claimsv1.Claim, subscriber string, c *adjudication.Claim, numbers []string) book.Query {
	q := book.Query{PayerID: claim.GetPayer().GetId(), Subscriber: subscriber}
	member := claim.GetSubscriber().GetMemberId()
	if p := patientOf(claim); p.GetBirthDate() != "" {
		q.BirthIndex = r.index.BirthIndex(q.PayerID, member, p.GetBirthDate())
		q.PersonIndex = r.index.PersonIndex(q.PayerID, member, p.GetBirthDate(), p.GetFirstName())
	}
	add := func(list *[]string, v string) {
		if v != "" && !slices.Contains(*list, v) {
			*list = append(*list, v)
		}
	}
	q.NPIs = contractNPIs(c)
	for _, l := range c.Lines {
		add(&q.ServiceDates, l.ServiceDate.String())
	}
	for _, n := range numbers {
		q.Authorizations = append(q.Authorizations, r.index.Authorization(q.PayerID, n))
	}
	return q
}

// contractNPIs are the providers by whom a claim's contract is found, the
// billing provider first.
func contractNPIs(c *adjudication.Claim) []string {
	var out []string
	add := func(npi string) {
		if npi != "" && !slices.Contains(out, npi) {
			out = append(out, npi)
		}
	}
	add(c.BillingNPI)
	add(c.RenderingNPI)
	for i := range c.Lines {
		add(c.Lines[i].RenderingNPI)
	}
	return out
}

// authorizationNumbers are the distinct numbers that a claim quotes.
func authorizationNumbers(c adjudication.Claim) []string {
	var out []string
	if c.PriorAuthorizationNumber != "" {
		out = append(out, c.PriorAuthorizationNumber)
	}
	for _, l := range c.Lines {
		if l.PriorAuthorizationNumber != "" && !slices.Contains(out, l.PriorAuthorizationNumber) {
			out = append(out, l.PriorAuthorizationNumber)
		}
	}
	return out
}

func (r *reference) member(found book.Context, subscriber string, c adjudication.Claim) adjudication.Member {
	m := adjudication.Member{Subscriber: subscriber, Family: found.Persons > 1}
	switch {
	case !found.PayerKnown:
		m.Match = adjudication.MatchNotOurs
		return m
	case found.Match == book.MatchAmbiguous:
		m.Match = adjudication.MatchAmbiguous
		return m
	case found.Member == nil:
		return m
	}
	m.Match, m.Subject = adjudication.MatchOne, found.Member.Subject
	var first adjudication.Date
	for _, l := range c.Lines {
		if first == 0 || (l.ServiceDate != 0 && l.ServiceDate < first) {
			first = l.ServiceDate
		}
	}
	for _, cover := range found.Coverage {
		span := adjudication.Coverage{Period: enginePeriod(cover.Period)}
		span.YearStart, _ = adjudication.ParseDate(cover.SpanStart)
		if cover.Plan != nil {
			span.Plan = r.plans.of(cover.Plan, r.plan)
		}
		m.Coverage = append(m.Coverage, span)
		if span.Period.Contains(first) {
			m.Relationship, m.OtherPayerPrimary = cover.Relationship, cover.OtherPayerPrimary
		}
	}
	return m
}

// authorization opens what a prior authorisation covers.
func (r *reference) authorization(ctx context.Context, number string, a *book.Authorization) (adjudication.Authorization, error) {
	plain, err := r.sealer.Open(ctx, keys.Place{Tenant: a.PayerID, Stream: a.Stream, Revision: a.Revision, Field: policies.AuthorizationField}, a.Sealed)
	if err != nil {
		return adjudication.Authorization{}, err
	}
	doc := &policiesv1.PriorAuthorization{}
	if err := proto.Unmarshal(plain, doc); err != nil {
		return adjudication.Authorization{}, defect("claims.authorization.unreadable", "a recorded prior authorisation can't be read")
	}
	return adjudication.Authorization{
		Number: number, Subject: a.Subject, Procedures: doc.GetProcedures(), Units: int64(a.Units), Period: enginePeriod(a.Effective),
		NPIs: a.NPIs, Cancelled: a.Cancelled,
	}, nil
}

// compiled keeps what was made of each version. The book gives an unchanged
// version the same identity, so each is compiled once; one that doesn't
// compile is kept as nil, for which the engine pends the claim.
type compiled[V comparable, C any] struct {
	mu   sync.RWMutex
	made map[V]C // guarded by mu
}

// maxCompiled bounds each kind: superseded versions are only ever dropped by
// starting over.
const maxCompiled = 20_000

func (c *compiled[V, C]) of(version V, compile func(V) C) C {
	c.mu.RLock()
	made, ok := c.made[version]
	c.mu.RUnlock()
	if ok {
		return made
	}
	made = compile(version)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil || len(c.made) >= maxCompiled {
		c.made = map[V]C{}
	}
	c.made[version] = made
	return made
}

// contract compiles a contract. Under one that doesn't compile nothing can be
// priced, and claims pend; passed over, they would be decided as out of network.
func (r *reference) contract(v *book.Contract) *adjudication.Contract {
	out, err := policies.CompileContract(v.Document, v.Ref, enginePeriod(v.Governs))
	if err != nil {
		r.log.Error("a published contract doesn't compile; claims under it pend", "version", v.Ref, "error", err)
		return &adjudication.Contract{Version: v.Ref, Period: enginePeriod(v.Governs), PlanIDs: v.Document.GetPlanIds(), FeeScheduleID: noSchedule}
	}
	return out
}

// noSchedule is the id of no fee schedule: theirs begin with "fs_".
const noSchedule = "-"

func (r *reference) schedule(v *book.FeeSchedule) *adjudication.FeeSchedule {
	out, err := policies.CompileFeeSchedule(v.Document, v.Ref, enginePeriod(v.Governs))
	if err != nil {
		r.log.Error("a published fee schedule doesn't compile; claims under it pend", "version", v.Ref, "error", err)
		return nil
	}
	return out
}

func (r *reference) network(v *book.Network) *adjudication.ProviderNetwork {
	out, err := policies.CompileNetwork(v.Document, v.Ref, enginePeriod(v.Governs))
	if err != nil {
		r.log.Error("a published network doesn't compile; claims under it pend", "version", v.Ref, "error", err)
		return nil
	}
	return out
}

// networksNow are a payer's networks of the claim's days as they are known now.
func (r *reference) networksNow(payer string, c *adjudication.Claim) []*adjudication.ProviderNetwork {
	q := book.Query{PayerID: payer}
	for i := range c.Lines {
		if day := c.Lines[i].ServiceDate.String(); !slices.Contains(q.ServiceDates, day) {
			q.ServiceDates = append(q.ServiceDates, day)
		}
	}
	var out []*adjudication.ProviderNetwork
	for _, n := range r.book.For(q).Networks {
		if network := r.networks.of(n, r.network); network != nil {
			out = append(out, network)
		}
	}
	return out
}

func (r *reference) plan(v *book.Plan) *adjudication.Plan {
	out, err := policies.CompilePlan(v.Document, v.Ref)
	if err != nil {
		r.log.Error("a published plan doesn't compile; claims under it pend", "version", v.Ref, "error", err)
		return nil
	}
	return out
}

// provider is what the payer knows of a provider's standing. It makes signals,
// which pend; what certifies a provider is another matter and denies.
func provider(p *book.Provider) adjudication.ProviderRecord {
	out := adjudication.ProviderRecord{NPI: p.NPI}
	out.Died, _ = adjudication.ParseDate(p.DeceasedOn) // a recorded day parses
	if p.InactiveFrom != "" {
		inactive := policies.Period{Start: p.InactiveFrom}
		if p.ReactivatedFrom != "" {
			inactive.End = policies.DayBefore(p.ReactivatedFrom)
		}
		out.Inactive = []adjudication.Period{enginePeriod(inactive)}
	}
	return out
}

// enginePeriod converts a published period; its dates were validated on
// publication, and one that doesn't parse governs no day.
func enginePeriod(p policies.Period) adjudication.Period {
	start, err1 := adjudication.ParseDate(p.Start)
	end, err2 := adjudication.ParseDate(p.End)
	if err1 != nil || err2 != nil || start == 0 {
		return adjudication.Period{Start: 1, End: 1}
	}
	return adjudication.Period{Start: start, End: end}
}
