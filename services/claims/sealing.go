package claims

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// open unseals box into m.
func (s *Service) open(ctx context.Context, at keys.Place, box *typev1.Sealed, m proto.Message) error {
	plain, err := s.sealer.Open(ctx, at, box)
	if err != nil {
		return sealProblem(err)
	}
	if err := proto.Unmarshal(plain, m); err != nil {
		return defect("claims.sealed.unreadable", "a sealed record opens but can't be read")
	}
	return nil
}

// sealProblem says in the domain's words why something can't be sealed or opened.
func sealProblem(err error) error {
	var own *problem.Error
	switch {
	case errors.Is(err, keys.ErrDestroyed):
		return problem.New(problem.NotFound, problem.Problem{
			RuleID:  "claims.erased",
			Message: "the person's key was destroyed; what was sealed with it can no longer be read or added to",
			Fix:     "what was recorded can still be proven by its receipt",
		}).Because(err)
	case errors.As(err, &own):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return busy(err)
	}
	return problem.New(problem.Internal, problem.Problem{
		RuleID:  "claims.sealed.broken",
		Message: "a sealed record doesn't open in its place",
		Fix:     "give the request id to the operator: a record was damaged or moved",
	}).Because(err)
}

// appendAll appends independent commits and gives each its outcome; a call
// that fails as a whole is the outcome of all.
func (s *Service) appendAll(ctx context.Context, commits []eventstore.Commit) []eventstore.Outcome {
	if len(commits) == 0 {
		return nil
	}
	out, err := s.store.AppendBatch(ctx, commits)
	if err == nil && len(out) != len(commits) {
		err = defect("claims.append.count", "the ledger answered another number of commits than it was given")
	}
	if err != nil {
		out = make([]eventstore.Outcome, len(commits))
		for i := range out {
			out[i].Err = err
		}
	}
	return out
}

// refusalEvent is the trace that a refused submission leaves.
func refusalEvent(org, name string, problems []problem.Problem) *eventsv1.SubmissionRefused {
	return &eventsv1.SubmissionRefused{SubmitterOrg: org, RequestId: name, Problems: problemProtos(problem.Invalid, problems)}
}
