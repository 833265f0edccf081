package claims

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// ListChanges implements claimsv1connect.AdjustmentServiceHandler.
func (s *Service) ListChanges(ctx context.Context, req *claimsv1.ListChangesRequest) (*claimsv1.ListChangesResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListChanges", identity.Resource{Type: identity.Claim, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	reading, err := s.view.At(ctx, req.GetMinToken())
	if err != nil {
		return nil, err
	}
	rows, next, err := pageOf(ctx, reading, listing[*claimsv1.Change]{
		kind: kindChanges, indexes: []string{payerIndex(kindChanges, req.GetPayerId())}, size: int(req.GetPageSize()),
		filter: filterOf(caller, "changes", req.GetPayerId(), req.GetState().String()), token: req.GetPageToken(), row: changeRow,
		keep: func(c *claimsv1.Change) bool {
			return req.GetState() == claimsv1.ChangeState_CHANGE_STATE_UNSPECIFIED || req.GetState() == c.GetState()
		},
	})
	if err != nil {
		return nil, err
	}
	return &claimsv1.ListChangesResponse{Changes: rows, NextPageToken: next}, nil
}

// dryRunClaims is how many claims a look at a proposed change decides again.
const dryRunClaims = 2_000

// ReprocessChange implements claimsv1connect.AdjustmentServiceHandler. To
// approve is a fact of its own; whoever follows the log applies the change.
func (s *Service) ReprocessChange(ctx context.Context, req *claimsv1.ReprocessChangeRequest) (*claimsv1.ReprocessChangeResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if !isID("chg", req.GetChangeId()) {
		return nil, notFound("change")
	}
	for range decideAttempts {
		was, err := s.readChange(ctx, req.GetChangeId())
		if err != nil {
			return nil, err
		}
		if was.change == nil {
			return nil, notFound("change")
		}
		if err := hide("change", s.auth.Authorize(ctx, "ReprocessChange", identity.Resource{Type: identity.Claim, Payer: was.change.GetPayerId()})); err != nil {
			return nil, err
		}
		switch {
		case req.GetDryRun():
			return s.lookAtChange(ctx, was.change)
		case was.change.GetState() != claimsv1.ChangeState_CHANGE_STATE_PROPOSED:
			return &claimsv1.ReprocessChangeResponse{Change: was.change}, nil
		case s.follower.mode == reprocessOff:
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "claims.changes.off",
				Message: "this service doesn't apply changes by itself", Fix: "set reprocessing to propose or automatic, or reprocess the claims by their ids"})
		}
		e := &eventsv1.ChangeApproved{ChangeId: req.GetChangeId(), PayerId: was.change.GetPayerId(), Actor: caller.Subject, ApprovedTime: timestamppb.New(s.now())}
		done, err := s.appendChange(ctx, req.GetChangeId(), req.GetChangeId()+"/approved", caller.Subject, was.revision, e)
		if eventstore.IsConflict(err) || problem.Is(err, problem.Conflict) {
			continue // somebody else was first
		}
		if err != nil {
			return nil, err
		}
		was.change.State, was.change.Time = claimsv1.ChangeState_CHANGE_STATE_APPROVED, timestamppb.New(done.RecordedTime)
		return &claimsv1.ReprocessChangeResponse{Change: was.change}, nil
	}
	return nil, busy(nil)
}

// lookAtChange shows what a change would move now.
func (s *Service) lookAtChange(ctx context.Context, recorded *claimsv1.Change) (*claimsv1.ReprocessChangeResponse, error) {
	if err := s.Ready(ctx); err != nil {
		return nil, err
	}
	c, err := s.recall(ctx, recorded)
	if err != nil {
		return nil, err
	}
	m, err := s.apply(ctx, &c, nil, true, dryRunClaims)
	if err != nil {
		return nil, err
	}
	out := c.proto(recorded.GetState(), m, recorded.GetRunId())
	out.Time = recorded.GetTime()
	return &claimsv1.ReprocessChangeResponse{Change: out, Corrections: m.shown, More: m.more}, nil
}
