package claims

import (
	"context"
	"errors"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/eventstore"
)

// reaskAll asks again about those claims that wait and are about another
// claim: what they waited for may have been decided meanwhile.
func (s *Service) reaskAll(ctx context.Context, states []State, out *claimsv1.ReprocessClaimsResponse) error {
	for _, st := range states {
		if st.Status() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
			continue
		}
		changed, err := s.reask(ctx, st.Received.GetClaimId())
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		now, _, err := s.readClaim(ctx, st.Received.GetClaimId(), st.Revision+1)
		if err != nil {
			return err
		}
		out.Corrections = append(out.Corrections, &claimsv1.Correction{
			ClaimId: st.Received.GetClaimId(), StatusBefore: st.Status(), StatusAfter: now.Status(),
			PaidAfterCents: now.Decided.GetPaidCents(), PatientAfterCents: now.Decided.GetPatientCents(),
		})
	}
	return nil
}

// reask decides a pended replacement or void again, with its original if that
// is decided by now, and records the outcome where it is another. Other
// claims, and those whose original is gone, are left to a person.
func (s *Service) reask(ctx context.Context, id string) (changed bool, err error) {
	var moved revisions
	for range decideAttempts {
		changed, err = s.reaskOnce(ctx, id, moved)
		var conflict *eventstore.ConflictError
		if !errors.As(err, &conflict) {
			return changed, err
		}
		moved = moved.note(conflict)
	}
	return false, busy(nil)
}

func (s *Service) reaskOnce(ctx context.Context, id string, moved revisions) (bool, error) {
	state, _, err := s.readClaim(ctx, id, moved.atLeast(claimStream(id)))
	if err != nil || state.Status() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		return false, err
	}
	sub, err := s.resubmission(ctx, state)
	if err != nil || !sub.adjusts() {
		return false, err
	}
	held, err := s.families.hold(ctx, sub.subscriber)
	if err != nil {
		return false, err
	}
	defer s.families.release(held)
	held.value.snapshot = nil
	read, err := s.settleFamily(ctx, held, sub.payer)
	if err != nil {
		return false, err
	}
	defer func() { held.value.snapshot = nil }()
	r, refused, err := s.ruleAmending(ctx, sub, read, state.Review, uint64(state.Revision+1), moved)
	if err != nil || refused != nil {
		return false, err
	}
	was, err := s.openDecision(ctx, state)
	if err != nil || sameOutcome(was, r.decision) {
		return false, err
	}
	events, err := Decide(state, Redecide{Decided: r.decided})
	if err != nil {
		return false, err
	}
	_, err = s.store.Append(ctx, eventstore.Commit{
		Log: logName, RoutingKey: claimKey(id), RequestID: s.index.ID("ask", id, itoa(uint32(state.Revision+1))), Causation: id, Actor: changesActor,
		Writes: r.writes(sub, state.Revision, events),
	})
	if conflict, ok := asMoved(err, claimStream(id), state.Revision+1); ok {
		return false, conflict
	}
	if err != nil {
		return false, err
	}
	s.watch.tell(id)
	if r.adjusted != nil && r.adjusted.after.unsettled != "" {
		held.value.snapshot = nil
		_, err = s.settleFamily(ctx, held, sub.payer)
	}
	return true, err
}
