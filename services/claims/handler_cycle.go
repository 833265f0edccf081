package claims

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
)

// cycles are a payer's payment cycles as their stream tells them.
type cycles struct {
	revision  int64
	planned   []*eventsv1.RemittanceCyclePlanned
	completed map[string]bool
}

func foldCycles(events []eventstore.Recorded) cycles {
	c := cycles{revision: eventstore.NoStream, completed: map[string]bool{}}
	for _, r := range events {
		switch e := r.Event.(type) {
		case *eventsv1.RemittanceCyclePlanned:
			c.planned = append(c.planned, e)
		case *eventsv1.RemittanceCycleCompleted:
			c.completed[e.GetRunId()] = true
		}
		c.revision = int64(r.Revision)
	}
	return c
}

func (c cycles) run(id string) *eventsv1.RemittanceCyclePlanned {
	for _, p := range c.planned {
		if p.GetRunId() == id {
			return p
		}
	}
	return nil
}

// createCycle is CreateRemittances over all that a payer has to tell. A cycle
// that broke off is completed by the next one of the payer, whatever its
// request id.
func (s *Service) createCycle(ctx context.Context, caller identity.Principal, req *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error) {
	if err := s.auth.Authorize(ctx, "CreateRemittances", identity.Resource{Type: identity.Remittance, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	// A payer misspelt would have nothing to tell for ever, and nobody would
	// hear of it. The book may be a moment behind, hence the wait.
	if err := s.book.WaitCaughtUp(ctx); err != nil {
		return nil, err
	}
	if !s.book.KnowsPayer(req.GetPayerId()) {
		// Invalid, not NotFound: the payment workflow repeats the latter.
		return nil, problem.New(problem.Invalid, problem.Problem{
			RuleID: "remittances.payer.unknown", FieldPath: "payer_id",
			Message: "no payer of this id has published a plan here", Fix: "check the payer's id",
		})
	}
	cutoff := s.now()
	if t := req.GetCutoffTime(); t != nil {
		if !t.IsValid() || t.AsTime().After(cutoff) {
			return nil, problem.Invalidf("remittances.cutoff", "cutoff_time", "the cutoff is no time, or lies in the future")
		}
		cutoff = t.AsTime()
	}
	run := s.index.ID("run", "cycle", req.GetPayerId(), req.GetRequestId())
	stream := cycleStream(s.index, req.GetPayerId())
	var known map[string]State // as planned
	for n, atLeast := 0, eventstore.NoStream; n < decideAttempts; n++ {
		events, err := readAtLeast(ctx, s.store, stream, stream, eventstore.NoStream, atLeast)
		if err != nil {
			return nil, err
		}
		have := foldCycles(events)
		if have.run(run) != nil {
			return s.completeCycles(ctx, caller, stream, have, run, known)
		}
		var planned *eventsv1.RemittanceCyclePlanned
		if planned, known, err = s.planCycle(ctx, caller, req.GetPayerId(), run, cutoff); err != nil {
			return nil, err
		}
		_, err = s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: stream, RequestID: run + "/plan", Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: stream, Expected: have.revision, Events: []proto.Message{planned}}},
		})
		moved, ok := asMoved(err, stream, have.revision+1)
		switch {
		case ok:
			atLeast = moved.Actual
		case err != nil:
			return nil, err
		default:
			atLeast = have.revision + 1
		}
	}
	return nil, busy(nil)
}

// planCycle records the plans of a cycle's remittances. The list that it takes
// the claims from may be behind what other processes do; what it doesn't show
// yet is the next cycle's, and what it shows too long has nothing more to tell.
func (s *Service) planCycle(ctx context.Context, caller identity.Principal, payer, run string, cutoff time.Time) (*eventsv1.RemittanceCyclePlanned, map[string]State, error) {
	out := &eventsv1.RemittanceCyclePlanned{RunId: run, PayerId: payer, CutoffTime: timestamppb.New(cutoff)}
	s.ownListed(ctx)
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	limit := cutoff.UnixMilli() - 1
	var ids []string
	for after := (*views.Member)(nil); len(ids) < s.config.CycleClaims; {
		page, err := reading.Range(ctx, payerIndex(kindUnremitted, payer), views.Page{Max: &limit, After: after, Limit: maxPage})
		if err != nil {
			return nil, nil, err
		}
		if len(page) == 0 {
			break
		}
		for _, m := range page {
			ids = append(ids, m.Name)
		}
		after = &page[len(page)-1]
	}
	if len(ids) >= s.config.CycleClaims {
		ids, out.More = ids[:s.config.CycleClaims], true
	}
	states, err := s.readUnsealed(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	known, tell := make(map[string]State, len(states)), make([]tellable, len(states))
	for i, c := range states {
		known[c.Received.GetClaimId()], tell[i] = c, tellableOf(c)
	}
	sc := scope{name: "cycle", run: run, date: s.day(s.now()).String()}
	out.RemittanceIds, err = s.recordPlans(ctx, caller, planRemittances(s.index, sc, s.config.RemittanceClaims, tell))
	return out, known, err
}

// completeCycles issues what is planned and not issued, of all cycles of the
// payer, and answers with those of one.
func (s *Service) completeCycles(ctx context.Context, caller identity.Principal, stream string, have cycles, run string, known map[string]State) (*claimsv1.CreateRemittancesResponse, error) {
	out := &claimsv1.CreateRemittancesResponse{}
	for _, c := range have.planned {
		mine := c.GetRunId() == run
		if have.completed[c.GetRunId()] && !mine {
			continue
		}
		for _, id := range c.GetRemittanceIds() {
			issued, err := s.complete(ctx, caller, id, known)
			if err != nil {
				return nil, err
			}
			if mine && len(issued.GetClaimIds()) > 0 {
				out.Remittances = append(out.Remittances, issued)
			}
		}
		if mine {
			out.More = c.GetMore()
		}
		if have.completed[c.GetRunId()] {
			continue
		}
		_, err := s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: stream, RequestID: c.GetRunId() + "/completed", Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: stream, Expected: eventstore.Any, Events: []proto.Message{&eventsv1.RemittanceCycleCompleted{RunId: c.GetRunId()}}}},
		})
		if _, recorded := asMoved(err, stream, 0); err != nil && !recorded {
			return nil, err
		}
	}
	return out, nil
}
