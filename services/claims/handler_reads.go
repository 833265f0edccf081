package claims

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// visible loads a claim that the caller may do action to; one that it may not
// is answered like one that isn't there.
func (s *Service) visible(ctx context.Context, action, id string) (State, []eventstore.Recorded, error) {
	state, events, err := s.readClaim(ctx, id, eventstore.NoStream)
	if err != nil {
		return state, nil, err
	}
	return state, events, hide("claim", s.auth.Authorize(ctx, action, claimResource(state)))
}

// GetClaim implements claimsv1connect.ClaimsServiceHandler. It reads the
// ledger, not a view, so it answers while the views are away. A token is
// waited for by the view, which follows the same replica: what the view has
// seen, the read that follows sees.
func (s *Service) GetClaim(ctx context.Context, req *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error) {
	if req.GetMinToken() != "" {
		if err := s.view.WaitFor(ctx, req.GetMinToken()); problem.Is(err, problem.Invalid) {
			return nil, err
		}
	}
	state, events, err := s.visible(ctx, "GetClaim", req.GetClaimId())
	if err != nil {
		return nil, err
	}
	return &claimsv1.GetClaimResponse{Claim: state.Summary(), Timeline: Timeline(events)}, nil
}

// ExplainClaim implements claimsv1connect.ClaimsServiceHandler: the decision
// unsealed, and the submitted claim for its sender and its payer only.
func (s *Service) ExplainClaim(ctx context.Context, req *claimsv1.ExplainClaimRequest) (*claimsv1.ExplainClaimResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	state, _, err := s.visible(ctx, "ExplainClaim", req.GetClaimId())
	if err != nil {
		return nil, err
	}
	out := &claimsv1.ExplainClaimResponse{Claim: state.Summary()}
	if out.Decision, err = s.openDecision(ctx, state); err != nil {
		return nil, err
	}
	if mayReadSubmitted(caller, state) {
		if out.Submitted, err = s.openClaim(ctx, state); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// mayReadSubmitted: an auditor's wide view ends at plaintext health data.
func mayReadSubmitted(p identity.Principal, state State) bool {
	if p.Has(identity.RoleService) {
		return true
	}
	own := p
	own.Roles = nil
	for _, r := range p.Roles {
		if r != identity.RoleAuditor {
			own.Roles = append(own.Roles, r)
		}
	}
	return identity.ScopeOf(own).Includes(state.Received.GetSubmitterOrg(), state.Received.GetPayerId())
}

// WatchClaim implements claimsv1connect.ClaimsServiceHandler: the claim now,
// then after every change, until it is final, the caller leaves or the
// service closes.
func (s *Service) WatchClaim(ctx context.Context, req *claimsv1.WatchClaimRequest, stream *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
	return s.watchClaim(ctx, req.GetClaimId(), func(c *claimsv1.ClaimSummary) error {
		return stream.Send(&claimsv1.WatchClaimResponse{Claim: c})
	})
}

func (s *Service) watchClaim(ctx context.Context, id string, send func(*claimsv1.ClaimSummary) error) error {
	changed, leave, ok := s.watch.join(id)
	if !ok {
		return problem.New(problem.Exhausted, problem.Problem{
			RuleID: "claims.watch.many", Message: "too many claims are being watched", Fix: "poll GetClaim, or watch again in a moment",
		})
	}
	defer leave()
	rhythm := time.NewTicker(s.config.WatchInterval)
	defer rhythm.Stop()
	var last *claimsv1.ClaimSummary
	for {
		state, _, err := s.visible(ctx, "WatchClaim", id)
		if err != nil {
			return err
		}
		if now := state.Summary(); !proto.Equal(now, last) {
			if err := send(now); err != nil {
				return err
			}
			last = now
		}
		if Final(state.Status()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.closed:
			return problem.New(problem.Unavailable, problem.Problem{RuleID: "claims.closing", Message: "the service is shutting down", Fix: "watch again in a moment"})
		case <-changed:
		case <-rhythm.C:
		}
	}
}
