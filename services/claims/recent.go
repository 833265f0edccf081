package claims

import (
	"container/list"
	"context"
	"sync"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
)

// recent keeps final claims that were decided here and that no remittance has
// told yet, without their sealed fields: who remits a file asks for every claim
// of it soon after it was decided. What is kept may be behind the ledger, so a
// reader asks for what follows the revision that is kept, which mostly is
// nothing and costs no read of a segment.
//
// A claim that isn't here is read. So the bound is one of memory, about 3 KB a
// claim, and the oldest go first.
type recent struct {
	max int

	mu    sync.Mutex               // guards the two below
	byID  map[string]*list.Element // of State
	order *list.List               // newest first
}

func newRecent(limit int) *recent {
	return &recent{max: limit, byID: map[string]*list.Element{}, order: list.New()}
}

// put keeps a claim whose events nobody else holds: their sealed fields are
// taken out of them.
func (r *recent) put(s State) {
	dropSealed(s.Received, s.Decided)
	id := s.Received.GetClaimId()
	r.mu.Lock()
	defer r.mu.Unlock()
	if el, ok := r.byID[id]; ok {
		r.order.Remove(el)
	}
	r.byID[id] = r.order.PushFront(s)
	for r.order.Len() > r.max {
		last := r.order.Back()
		delete(r.byID, r.order.Remove(last).(State).Received.GetClaimId()) //nolint:forcetypeassert // nothing else is in it
	}
}

func (r *recent) get(id string) (State, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	el, ok := r.byID[id]
	if !ok {
		return State{}, false
	}
	return el.Value.(State), true //nolint:forcetypeassert // nothing else is in it
}

// drop forgets a claim that has been told.
func (r *recent) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if el, ok := r.byID[id]; ok {
		r.order.Remove(el)
		delete(r.byID, id)
	}
}

// dropSealed takes the sealed claim and decision out of a claim's events:
// they are most of its bytes, and nothing that a remittance or a change of
// documents asks for. The events must be the caller's alone.
func dropSealed(received *eventsv1.ClaimReceived, decided *eventsv1.ClaimDecided) {
	if received != nil {
		received.Claim = nil
	}
	if decided != nil {
		decided.Decision = nil
	}
}

// readUnsealed loads claims without their sealed fields, beside each other, in
// the order given: a file's worth of sealed claims is not to be held at once.
func (s *Service) readUnsealed(ctx context.Context, ids []string) ([]State, error) {
	return s.eachClaim(ids, func(id string) (State, error) {
		if state, ok := s.recent.get(id); ok {
			since, err := readAtLeast(ctx, s.store, claimKey(id), claimStream(id), state.Revision, eventstore.NoStream)
			if err != nil {
				return State{}, err
			}
			return evolveUnsealed(state, since), nil
		}
		if !isID("clm", id) {
			return State{}, notFound("claim")
		}
		events, err := readAtLeast(ctx, s.store, claimKey(id), claimStream(id), eventstore.NoStream, eventstore.NoStream)
		if err != nil {
			return State{}, err
		}
		state := evolveUnsealed(NewState(), events)
		if !state.Exists() {
			return State{}, notFound("claim")
		}
		return state, nil
	})
}

// evolveUnsealed folds events that were read for this alone.
func evolveUnsealed(s State, events []eventstore.Recorded) State {
	for _, r := range events {
		switch e := r.Event.(type) {
		case *eventsv1.ClaimReceived:
			dropSealed(e, nil)
		case *eventsv1.ClaimDecided:
			dropSealed(nil, e)
		}
		s = Evolve(s, r)
	}
	return s
}
