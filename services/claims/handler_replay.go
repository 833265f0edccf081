package claims

import (
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
)

var _ claimsv1connect.ReplayServiceHandler = (*Service)(nil)

// toldDecisions bounds the decisions that one replay tells one by one.
const toldDecisions = 1000

// ReplayDecisions implements claimsv1connect.ReplayServiceHandler. It reads
// only the ledger and the key authority: views, workflows and other services
// may be away.
func (s *Service) ReplayDecisions(ctx context.Context, req *claimsv1.ReplayDecisionsRequest, stream *connect.ServerStream[claimsv1.ReplayDecisionsResponse]) error {
	return s.replay(ctx, req, stream.Send)
}

// replay is ReplayDecisions over any receiver of its messages.
func (s *Service) replay(ctx context.Context, req *claimsv1.ReplayDecisionsRequest, send func(*claimsv1.ReplayDecisionsResponse) error) error {
	t := &replayTeller{req: req, send: send, counts: &claimsv1.ReplayCounts{}}
	if req.GetClaimId() == "" {
		if err := s.auth.Authorize(ctx, "ReplayDecisions", identity.Resource{Type: identity.Claim}); err != nil {
			return err
		}
	}
	if err := s.Ready(ctx); err != nil {
		return err
	}
	r, release, err := s.replayer(ctx)
	if err != nil {
		return err
	}
	defer release()
	if id := req.GetClaimId(); id != "" {
		_, events, err := s.visible(ctx, "ReplayDecisions", id)
		if err != nil {
			return err
		}
		err = r.claim(ctx, events, t.tell)
		if err != nil && !errors.Is(err, errReached) {
			return err
		}
		return t.end()
	}
	if err := r.scan(ctx, req.GetFrom(), req.GetTo(), t); err != nil && !errors.Is(err, errReached) {
		return err
	}
	return t.end()
}

// replayer takes one of the books of the past; release gives it back.
func (s *Service) replayer(ctx context.Context) (r *replayer, release func(), err error) {
	select {
	case p := <-s.pasts:
		return &replayer{service: s, past: p, families: map[string]*Ledgered{}}, func() { s.pasts <- p }, nil
	case <-ctx.Done():
		return nil, nil, busy(ctx.Err())
	}
}

// replayTeller counts and tells; errReached from it ends the replay.
type replayTeller struct {
	req     *claimsv1.ReplayDecisionsRequest
	send    func(*claimsv1.ReplayDecisionsResponse) error
	counts  *claimsv1.ReplayCounts
	reached *ledgerv1.Position
	told    int
}

func (t *replayTeller) tell(d *claimsv1.ReplayedDecision) error {
	t.counts.Decisions++
	t.reached = d.GetPosition()
	switch d.GetVerdict() {
	case claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL:
		t.counts.Identical++
	case claimsv1.ReplayVerdict_REPLAY_VERDICT_DIFFERENT:
		t.counts.Different++
	case claimsv1.ReplayVerdict_REPLAY_VERDICT_OTHER_ENGINE:
		t.counts.OtherEngine++
	case claimsv1.ReplayVerdict_REPLAY_VERDICT_ERASED:
		t.counts.Erased++
	}
	wanted := t.req.GetClaimId() != "" || d.GetVerdict() != claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL
	if wanted && t.told < toldDecisions {
		t.told++
		if err := t.send(&claimsv1.ReplayDecisionsResponse{Counts: t.counts, Decision: d, Reached: t.reached}); err != nil {
			return err
		}
	}
	if d.GetVerdict() == claimsv1.ReplayVerdict_REPLAY_VERDICT_DIFFERENT && !t.req.GetKeepGoing() {
		return errReached
	}
	return nil
}

func (t *replayTeller) progress() error {
	return t.send(&claimsv1.ReplayDecisionsResponse{Counts: t.counts, Reached: t.reached})
}

func (t *replayTeller) end() error {
	return t.send(&claimsv1.ReplayDecisionsResponse{Counts: t.counts, Reached: t.reached, Done: true})
}

// scan replays the decisions of a range of the claims log in the log's order,
// in which most of what a decision read has just come by.
func (r *replayer) scan(ctx context.Context, from, to *ledgerv1.Position, t *replayTeller) error {
	types := []string{
		eventstore.TypeOf(&eventsv1.ClaimReceived{}), eventstore.TypeOf(&eventsv1.ClaimReviewed{}),
		eventstore.TypeOf(&eventsv1.ClaimDecided{}), eventstore.TypeOf(&eventsv1.AccumulatorsPosted{}),
	}
	start := map[uint32]uint64{}
	if from != nil {
		start[from.GetShard()] = from.GetIndex()
	}
	within := func(p eventstore.Position) bool {
		switch {
		case from != nil && p.Shard != from.GetShard(), to != nil && p.Shard != to.GetShard():
			return false
		}
		return to == nil || p.Index <= to.GetIndex()
	}
	return r.service.store.Follow(ctx, logName, start, types, func(ctx context.Context, b eventstore.Batch) error {
		if err := r.prefetch(ctx, b.Events); err != nil {
			return err
		}
		for commit := range commits(b.Events) {
			if !within(commit[0].Position) {
				continue
			}
			if err := r.commit(ctx, commit, t); err != nil {
				return err
			}
		}
		if b.CaughtUp || (to != nil && b.Next[to.GetShard()] > to.GetIndex()) {
			return errReached
		}
		return t.progress()
	})
}

// commits cuts a batch into its commits.
func commits(events []eventstore.Recorded) func(yield func([]eventstore.Recorded) bool) {
	return func(yield func([]eventstore.Recorded) bool) {
		for len(events) > 0 {
			n := 1
			for n < len(events) && events[n].Position == events[0].Position {
				n++
			}
			if !yield(events[:n]) {
				return
			}
			events = events[n:]
		}
	}
}

// commit replays the decisions of one commit.
func (r *replayer) commit(ctx context.Context, commit []eventstore.Recorded, t *replayTeller) error {
	for i, e := range commit {
		decided, ok := e.Event.(*eventsv1.ClaimDecided)
		if !ok {
			continue
		}
		events, err := r.streamTo(ctx, commit, i, decided.GetClaimId())
		if err != nil {
			return err
		}
		out, err := r.decision(ctx, events, postedIn(commit, e.Position, decided.GetClaimId()))
		if err != nil {
			return err
		}
		if err := t.tell(out); err != nil {
			return err
		}
	}
	return nil
}

// streamTo is a claim's stream up to the i'th event of a commit. A claim's
// first decision comes in the commit of its receipt, and then nothing is read.
func (r *replayer) streamTo(ctx context.Context, commit []eventstore.Recorded, i int, claim string) ([]eventstore.Recorded, error) {
	e := commit[i]
	if i > 0 && e.Revision == 1 && commit[i-1].Stream == e.Stream {
		return commit[i-1 : i+1], nil
	}
	all, err := readAtLeast(ctx, r.service.store, claimKey(claim), e.Stream, eventstore.NoStream, int64(e.Revision))
	if err != nil {
		return nil, err
	}
	return all[:e.Revision+1], nil
}

// prefetch brings the keys of a batch's people in one call.
func (r *replayer) prefetch(ctx context.Context, events []eventstore.Recorded) error {
	var subjects []string
	for _, e := range events {
		if received, ok := e.Event.(*eventsv1.ClaimReceived); ok {
			subjects = append(subjects, received.GetSubject())
		}
	}
	slices.Sort(subjects)
	if subjects = slices.Compact(subjects); len(subjects) < 2 {
		return nil
	}
	if err := r.service.sealer.Prefetch(ctx, subjects); err != nil && !errors.Is(err, keys.ErrDestroyed) {
		return sealProblem(err)
	}
	return nil
}
