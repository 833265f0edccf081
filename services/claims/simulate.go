package claims

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/policies/book"
)

// A simulation decides the claims of a period as they were decided, but for
// one thing: wherever a version of the plan governed, the version on trial
// does. A family's first claim of the period meets the accumulators that it
// met then, each later one those that the simulated claims before it left; so
// a higher deductible is felt once a family and not once a claim. Families of
// which something was taken back (a void, a replacement, a claim decided
// again) are left out and counted: their claims stand in another order than
// that in which they were decided. Nothing is recorded.

// simulator tries one plan. It is not safe for concurrent use.
type simulator struct {
	*replayer
	document *policiesv1.PlanDocument
	trial    *adjudication.Plan
	from, to adjudication.Date // days of receipt
	// after is each family's accumulators as the simulated claims left them.
	after    map[string]*Ledgered
	adjusted map[string]bool // accumulators' streams of which something was taken back
	leftOut  map[string]bool // claims of those families
	plans    map[string]bool
	benefits map[string]*claimsv1.BenefitDifference
	out      *claimsv1.PlanSimulation
}

func newSimulator(r *replayer, document *policiesv1.PlanDocument, from, to adjudication.Date) *simulator {
	// The version on trial gets a name that no published one has.
	trial := r.service.reference.plan(&book.Plan{ID: document.GetPlanId(), Ref: document.GetPlanId() + "@trial", Document: document})
	return &simulator{
		replayer: r, document: document, trial: trial, from: from, to: to,
		after: map[string]*Ledgered{}, adjusted: map[string]bool{}, leftOut: map[string]bool{}, plans: map[string]bool{}, benefits: map[string]*claimsv1.BenefitDifference{},
		out: &claimsv1.PlanSimulation{Document: document, Total: &claimsv1.BenefitDifference{}},
	}
}

// claim tries the plan on a claim whose last decision ends events. Claims of
// other plans or engines, and those still waiting, are passed over.
func (m *simulator) claim(ctx context.Context, events []eventstore.Recorded) error {
	at := events[len(events)-1]
	recorded, ok := at.Event.(*eventsv1.ClaimDecided)
	if st := recorded.GetStatus(); !ok || (st != claimsv1.ClaimStatus_CLAIM_STATUS_PAID && st != claimsv1.ClaimStatus_CLAIM_STATUS_DENIED) {
		return nil
	}
	if recorded.GetVersions().GetEngine() != adjudication.EngineVersion {
		m.out.LeftOut++
		return nil
	}
	state := Fold(events)
	if m.adjusted[accumulatorStream(state.Received.GetSubscriber())] {
		m.leftOut[recorded.GetClaimId()] = true
		return nil
	}
	first, second, concerned, err := m.both(ctx, state)
	switch {
	case errors.Is(err, keys.ErrDestroyed):
		m.out.LeftOut++
		return nil
	case err != nil || !concerned:
		return err
	}
	m.count(first, second)
	return nil
}

// both returns the decision as recorded and as the plan on trial makes it;
// concerned is false where the plan governs none of the claim's days.
func (m *simulator) both(ctx context.Context, state State) (first, second *claimsv1.Decision, concerned bool, err error) {
	claim, err := m.service.openAnswered(ctx, state)
	if err != nil {
		return nil, nil, false, err
	}
	v, subscriber := state.Decided.GetVersions(), state.Received.GetSubscriber()
	received, err := adjudication.ParseDate(v.GetReceivedDate())
	if err != nil {
		return nil, nil, false, defect("claims.replay.received", "a decision names no readable day of receipt")
	}
	input, err := m.past.lookup(ctx, v.GetReference(), claim, subscriber, received)
	if err != nil {
		return nil, nil, false, err
	}
	governed := m.govern(&input)
	if len(m.document.GetNetworks()) > 0 {
		// A plan on trial may name a network that was published since.
		input.Networks = m.service.reference.networksNow(m.document.GetPayerId(), &input.Claim)
	}
	_, touched := m.after[subscriber]
	if input.Member.Match != adjudication.MatchOne || (!governed && !touched) {
		return nil, nil, false, nil
	}
	sub := &submission{input: input, request: &claimsv1.SubmitClaimRequest{Claim: claim}}
	// The family as the simulation has it; its first claim finds it as it was.
	read := m.after[subscriber]
	if read == nil {
		if read, err = m.family(ctx, state.Received.GetPayerId(), subscriber, v.GetAccumulatorsRevision()); err != nil {
			return nil, nil, false, err
		}
	}
	if first, err = m.service.openDecision(ctx, state); err != nil {
		return nil, nil, false, err
	}
	id := state.Received.GetClaimId()
	d, second := rule(sub, read, state.Review)
	next := read
	if second.GetStatus() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		subject := input.Member.Subject
		history := historyOf(id, subject, input.Claim, d)
		if posted := postedEvent(id, subject, second, history); posted != nil {
			if next, err = read.post(uint64(read.Revision+1), posted, history); err != nil {
				return nil, nil, false, err
			}
		}
	}
	m.after[subscriber] = next
	return first, second, governed, nil
}

// govern puts the plan on trial where a version of it governed, and says
// whether it governs one of the claim's days.
func (m *simulator) govern(in *adjudication.Input) bool {
	concerned := false
	spans := slices.Clone(in.Member.Coverage)
	for i := range spans {
		if spans[i].Plan == nil || spans[i].Plan.ID() != m.document.GetPlanId() {
			continue
		}
		was := spans[i].Plan.Version()
		spans[i].Plan = m.trial
		for _, l := range in.Claim.Lines {
			if spans[i].Period.Contains(l.ServiceDate) {
				m.plans[was], concerned = true, true
			}
		}
	}
	in.Member.Coverage = spans
	return concerned
}

// count sums one claim up.
func (m *simulator) count(first, second *claimsv1.Decision) {
	m.out.Claims++
	paid, patient := second.GetPaidCents()-first.GetPaidCents(), second.GetPatientCents()-first.GetPatientCents()
	was, is := first.GetStatus(), second.GetStatus()
	switch {
	case is == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		m.out.NewlyPended++
	case paid > 0:
		m.out.PaidMore++
	case paid < 0:
		m.out.PaidLess++
	case patient != 0:
		m.out.Shifted++
	default:
		m.out.Unchanged++
	}
	if was == claimsv1.ClaimStatus_CLAIM_STATUS_PAID && is == claimsv1.ClaimStatus_CLAIM_STATUS_DENIED {
		m.out.NewlyDenied++
	}
	if was == claimsv1.ClaimStatus_CLAIM_STATUS_DENIED && is == claimsv1.ClaimStatus_CLAIM_STATUS_PAID {
		m.out.NewlyPaid++
	}
	for _, l := range first.GetLines() {
		for _, b := range []*claimsv1.BenefitDifference{m.benefit(l.GetBenefit()), m.out.Total} {
			b.LinesBefore++
			b.AllowedBeforeCents += l.GetAllowedCents()
			b.PaidBeforeCents += l.GetPaidCents()
			b.PatientBeforeCents += l.GetPatientCents()
			b.DeniedBefore += deniedLines(l)
		}
	}
	for _, l := range second.GetLines() {
		for _, b := range []*claimsv1.BenefitDifference{m.benefit(l.GetBenefit()), m.out.Total} {
			b.LinesAfter++
			b.AllowedAfterCents += l.GetAllowedCents()
			b.PaidAfterCents += l.GetPaidCents()
			b.PatientAfterCents += l.GetPatientCents()
			b.DeniedAfter += deniedLines(l)
		}
	}
}

// deniedLines is 1 for a line of which nothing was allowed and whose charge
// carries one reason: the engine's form of a denial.
func deniedLines(l *claimsv1.LineDecision) uint64 {
	if l.GetAllowedCents() == 0 && l.GetPaidCents() == 0 && len(l.GetAdjustments()) == 1 &&
		l.GetAdjustments()[0].GetAmountCents() == l.GetChargeCents() {
		return 1
	}
	return 0
}

func (m *simulator) benefit(name string) *claimsv1.BenefitDifference {
	b := m.benefits[name]
	if b == nil {
		b = &claimsv1.BenefitDifference{Benefit: name}
		m.benefits[name] = b
	}
	return b
}

// result is what was found so far.
func (m *simulator) result() *claimsv1.PlanSimulation {
	out := proto.CloneOf(m.out)
	out.LeftOut += uint64(len(m.leftOut))
	out.Plans = slices.Sorted(maps.Keys(m.plans))
	out.Benefits = slices.SortedFunc(maps.Values(m.benefits), func(a, b *claimsv1.BenefitDifference) int {
		return cmp.Compare(a.GetBenefit(), b.GetBenefit())
	})
	return out
}
