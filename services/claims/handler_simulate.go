package claims

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/problem"
)

// SimulatePlan implements claimsv1connect.ReplayServiceHandler. Its answer is
// sums; no claim and no person is named in it.
func (s *Service) SimulatePlan(ctx context.Context, req *claimsv1.SimulatePlanRequest, stream *connect.ServerStream[claimsv1.SimulatePlanResponse]) error {
	return s.simulate(ctx, req, stream.Send)
}

// simulate is SimulatePlan over any receiver of its messages.
func (s *Service) simulate(ctx context.Context, req *claimsv1.SimulatePlanRequest, send func(*claimsv1.SimulatePlanResponse) error) error {
	from, err1 := adjudication.ParseDate(req.GetFromDate())
	to, err2 := adjudication.ParseDate(req.GetToDate())
	if err1 != nil || err2 != nil || from == 0 || to < from {
		return problem.Invalidf("claims.simulate.period", "from_date", "the period is no run of calendar days")
	}
	document, err := policies.ParsePlan([]byte(req.GetDocument()))
	if err != nil {
		own := problem.As(err)
		if own.Kind != problem.Invalid {
			return err
		}
		return send(&claimsv1.SimulatePlanResponse{Result: &claimsv1.PlanSimulation{Problems: problemProtos(own.Kind, own.Problems)}})
	}
	resource := identity.Resource{Type: identity.Plan, ID: document.GetPlanId(), Payer: document.GetPayerId()}
	if err := s.auth.Authorize(ctx, "SimulatePlan", resource); err != nil {
		return err
	}
	if err := s.Ready(ctx); err != nil {
		return err
	}
	r, release, err := s.replayer(ctx)
	if err != nil {
		return err
	}
	defer release()
	m := newSimulator(r, document, from, to)
	if m.trial == nil {
		return problem.Invalidf("claims.simulate.plan", "document", "the engine can't compile the plan")
	}
	if err := m.findAdjusted(ctx); err != nil && !errors.Is(err, errReached) {
		return err
	}
	if err := m.scan(ctx, send); err != nil && !errors.Is(err, errReached) {
		return err
	}
	return send(&claimsv1.SimulatePlanResponse{Claims: m.out.GetClaims(), Result: m.result()})
}

// findAdjusted finds the families of which something was taken back.
func (m *simulator) findAdjusted(ctx context.Context) error {
	types := []string{eventstore.TypeOf(&eventsv1.AccumulatorsPosted{})}
	return m.service.store.Follow(ctx, logName, nil, types, func(_ context.Context, b eventstore.Batch) error {
		for _, r := range b.Events {
			if e, ok := r.Event.(*eventsv1.AccumulatorsPosted); ok && e.GetReversal() {
				m.adjusted[r.Stream] = true
			}
		}
		if b.CaughtUp {
			return errReached
		}
		return nil
	})
}

// scan tries the plan on every claim of the log, in the order in which the
// claims were finalised.
func (m *simulator) scan(ctx context.Context, send func(*claimsv1.SimulatePlanResponse) error) error {
	types := []string{eventstore.TypeOf(&eventsv1.ClaimReceived{}), eventstore.TypeOf(&eventsv1.ClaimDecided{})}
	return m.service.store.Follow(ctx, logName, nil, types, func(ctx context.Context, b eventstore.Batch) error {
		if err := m.prefetch(ctx, b.Events); err != nil {
			return err
		}
		for commit := range commits(b.Events) {
			for i, e := range commit {
				decided, ok := e.Event.(*eventsv1.ClaimDecided)
				if !ok || !m.inPeriod(decided) {
					continue
				}
				events, err := m.streamTo(ctx, commit, i, decided.GetClaimId())
				if err != nil {
					return err
				}
				if err := m.claim(ctx, events); err != nil {
					return err
				}
			}
		}
		if b.CaughtUp {
			return errReached
		}
		return send(&claimsv1.SimulatePlanResponse{Claims: m.out.GetClaims()})
	})
}

// inPeriod spares reading claims that are passed over anyway.
func (m *simulator) inPeriod(d *eventsv1.ClaimDecided) bool {
	day, err := adjudication.ParseDate(d.GetVersions().GetReceivedDate())
	return err == nil && day >= m.from && day <= m.to && d.GetPayerId() == m.document.GetPayerId()
}
