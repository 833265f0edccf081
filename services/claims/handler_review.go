package claims

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// ResolveClaim implements claimsv1connect.ClaimsServiceHandler: the engine
// decides again with the reviewer's answer, and review, decision and postings
// are one commit. The same request id is answered with how the claim stands.
func (s *Service) ResolveClaim(ctx context.Context, req *claimsv1.ResolveClaimRequest) (*claimsv1.ResolveClaimResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Ready(ctx); err != nil {
		return nil, err
	}
	state, _, err := s.readClaim(ctx, req.GetClaimId(), eventstore.NoStream)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ResolveClaim", claimResource(state)); err != nil {
		return nil, err
	}
	if req.GetReason() == "" || req.GetRequestId() == "" {
		return nil, problem.Invalidf("claims.review.reason", "reason", "a review has a request id and gives a reason")
	}
	requestID := s.index.ID("rev", req.GetClaimId(), req.GetRequestId())
	for n, atLeast := 0, eventstore.NoStream; n < decideAttempts; n++ {
		if state, _, err = s.readClaim(ctx, req.GetClaimId(), atLeast); err != nil {
			return nil, err
		}
		if state.Reviews[requestID] {
			return &claimsv1.ResolveClaimResponse{Claim: state.Summary(), Token: state.DecidedAt.Token()}, nil
		}
		reviewer := req.GetReviewer()
		if reviewer == "" || !caller.Has(identity.RoleService) {
			reviewer = caller.Subject
		}
		done, after, err := s.resolve(ctx, resolving{
			claim: req.GetClaimId(), resolution: req.GetResolution(), reason: req.GetReason(), actor: caller.Subject, reviewer: reviewer, request: requestID,
		}, state)
		var moved *eventstore.ConflictError
		switch {
		case err == nil:
			s.watch.tell(req.GetClaimId())
			return &claimsv1.ResolveClaimResponse{Claim: after.Summary(), Token: done.Token}, nil
		case errors.As(err, &moved):
			if moved.Stream == claimStream(req.GetClaimId()) {
				atLeast = moved.Actual
			}
		default:
			return nil, err
		}
	}
	return nil, busy(nil)
}

// resolving is one answer to a pended claim.
type resolving struct {
	claim, resolution, reason string
	actor, reviewer, request  string
	system                    bool // a deadline answers, not a person
}

// resolve makes and appends one review of the claim as it stands. Where others
// must agree first it is an opinion, and the claim goes on waiting.
func (s *Service) resolve(ctx context.Context, q resolving, state State) (eventstore.Appended, State, error) {
	none := eventstore.Appended{}
	if state.Status() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		_, err := Decide(state, Review{})
		return none, state, err
	}
	review := adjudication.Review{Reasons: enginePends(state.Decided.GetPendReasons()), Resolution: adjudication.Approved}
	if q.resolution == "deny" {
		review.Resolution = adjudication.Refused
	} else if q.resolution != "approve" {
		return none, state, problem.Invalidf("claims.review.resolution", "resolution", "a review approves or denies")
	}
	if !q.system {
		switch decides, err := state.Case.MayReview(q.reviewer, q.resolution); {
		case err != nil:
			return none, state, err
		case !decides:
			return s.propose(ctx, q, state)
		}
	}
	sub, err := s.resubmission(ctx, state)
	if err != nil {
		return none, state, err
	}
	read := nothingLedgered()
	if sub.matched || sub.adjusts() {
		held, err := s.families.hold(ctx, sub.subscriber)
		if err != nil {
			return none, state, err
		}
		defer s.families.release(held)
		// A review is rare and final: it is decided on what the ledger says now.
		held.value.snapshot = nil
		if read, err = s.settleFamily(ctx, held, sub.payer); err != nil {
			return none, state, err
		}
		// Whatever comes of it, the next decision reads the family again.
		defer func() { held.value.snapshot = nil }()
	}
	revision := uint64(state.Revision + 1)
	reason, err := s.sealer.Seal(ctx, sub.subject, keys.Place{Tenant: sub.payer, Stream: claimStream(sub.claimID), Revision: revision, Field: fieldReason}, []byte(q.reason))
	if err != nil {
		return none, state, sealProblem(err)
	}
	r, refused, err := s.ruleAmending(ctx, sub, read, review, revision+1, nil)
	if refused != nil && review.Resolution == adjudication.Refused {
		// Its original is gone by another way; to deny it takes nothing back.
		r, err = s.ruleSealed(ctx, sub, read, review, revision+1)
	} else if refused != nil {
		err = &problem.Error{Kind: problem.Conflict, Problems: refused}
	}
	if err != nil {
		return none, state, err
	}
	events, err := Decide(state, Review{Decided: r.decided, Reviewed: &eventsv1.ClaimReviewed{
		ClaimId: sub.claimID, Resolution: q.resolution, Reviewer: q.reviewer, Reason: reason, ReviewedTime: timestamppb.New(s.now()),
	}})
	if err != nil {
		return none, state, err
	}
	done, err := s.store.Append(ctx, eventstore.Commit{
		Log:        logName,
		RoutingKey: claimKey(sub.claimID),
		RequestID:  q.request,
		Causation:  sub.claimID,
		Actor:      q.actor,
		Writes:     r.writes(sub, state.Revision, events),
	})
	if moved, ok := asMoved(err, claimStream(sub.claimID), state.Revision+2); ok {
		return none, state, moved
	}
	if err != nil {
		return none, state, err
	}
	if done.Replayed {
		// What stands recorded is the first time's; it is not this ruling.
		state, _, err = s.readClaim(ctx, sub.claimID, state.Revision+2)
		return done, state, err
	}
	for i, e := range events {
		state = Evolve(state, eventstore.Recorded{Position: done.Position, Revision: revision + uint64(i), Event: e, RecordedTime: done.RecordedTime, RequestID: q.request})
	}
	return done, state, nil
}

// propose records one of several opinions.
func (s *Service) propose(ctx context.Context, q resolving, state State) (eventstore.Appended, State, error) {
	none := eventstore.Appended{}
	reason, err := s.sealFor(ctx, state, uint64(state.Revision+1), fieldReason, []byte(q.reason))
	if err != nil {
		return none, state, err
	}
	events := state.Case.Propose(&eventsv1.ReviewProposed{Resolution: q.resolution, Reviewer: q.reviewer, Reason: reason, ProposedTime: timestamppb.New(s.now())})
	done, err := s.store.Append(ctx, eventstore.Commit{
		Log: logName, RoutingKey: claimKey(q.claim), RequestID: q.request, Causation: q.claim, Actor: q.actor,
		Writes: []eventstore.Write{{Stream: claimStream(q.claim), Expected: state.Revision, Events: events}},
	})
	if moved, ok := asMoved(err, claimStream(q.claim), state.Revision+1); ok {
		return none, state, moved
	}
	if err != nil {
		return none, state, err
	}
	if done.Replayed {
		state, _, err = s.readClaim(ctx, q.claim, state.Revision+1)
		return done, state, err
	}
	for _, e := range events {
		state = Evolve(state, eventstore.Recorded{Position: done.Position, Revision: uint64(state.Revision + 1), Event: e, RecordedTime: done.RecordedTime, RequestID: q.request})
	}
	return done, state, nil
}

// claimResource is the claim as the policy set sees it.
func claimResource(state State) identity.Resource {
	return identity.Resource{
		Type: identity.Claim, ID: state.Received.GetClaimId(), Org: state.Received.GetSubmitterOrg(), Payer: state.Received.GetPayerId(),
	}
}
