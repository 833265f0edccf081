package claims

import (
	"container/list"
	"context"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
)

// recent keeps final claims that were decided here and that no remittance has
// told yet, without their sealed fields: who remits a file asks for every claim
// of it soon after it was decided. What is kept may be behind the ledger, so a
// reader asks for what follows the revision that is kept, which mostly is
// nothing and costs no read of a segment.
//
// A claim that isn't here is read. So the bound is one of memory, and the
// oldest go first. A claim is kept encoded: as messages it would be some thirty
// objects that the collector marks again and again.
type recent struct {
	max int // bytes

	mu    sync.Mutex               // guards what is below
	byID  map[string]*list.Element // of *untold
	order *list.List               // newest first
	bytes int
}

// untold is a claim of two events: received and, finally, decided.
type untold struct {
	id       string
	at       eventstore.Position
	received int    // bytes of the first event
	events   []byte // both
}

// untoldOverhead is what an untold takes beside its events: itself, its id, and
// its places in list and map.
const untoldOverhead = 250

func newRecent(limit int) *recent {
	return &recent{max: limit, byID: map[string]*list.Element{}, order: list.New()}
}

// put keeps a claim that was received and decided in one commit, and whose
// events nobody else holds: their sealed fields are taken out of them.
func (r *recent) put(received *eventsv1.ClaimReceived, decided *eventsv1.ClaimDecided, at eventstore.Position) {
	dropSealed(received, decided)
	kept := &untold{id: strings.Clone(received.GetClaimId()), at: at, received: proto.Size(received)}
	encoding := proto.MarshalOptions{UseCachedSize: true}
	events, err := encoding.MarshalAppend(make([]byte, 0, kept.received+proto.Size(decided)), received)
	if err != nil {
		return // it can be read
	}
	if kept.events, err = encoding.MarshalAppend(events, decided); err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(kept.id)
	r.byID[kept.id] = r.order.PushFront(kept)
	for r.bytes += kept.size(); r.bytes > r.max; {
		r.remove(r.order.Back().Value.(*untold).id) //nolint:forcetypeassert // nothing else is in it
	}
}

func (u *untold) size() int { return untoldOverhead + len(u.events) }

// state is the claim as it was put.
func (u *untold) state() (State, bool) {
	received, decided := &eventsv1.ClaimReceived{}, &eventsv1.ClaimDecided{}
	if proto.Unmarshal(u.events[:u.received], received) != nil || proto.Unmarshal(u.events[u.received:], decided) != nil {
		return State{}, false
	}
	s := Evolve(NewState(), eventstore.Recorded{Position: u.at, Event: received})
	return Evolve(s, eventstore.Recorded{Position: u.at, Revision: 1, Event: decided}), true
}

func (r *recent) get(id string) (State, bool) {
	r.mu.Lock()
	el, ok := r.byID[id]
	r.mu.Unlock()
	if !ok {
		return State{}, false
	}
	return el.Value.(*untold).state() //nolint:forcetypeassert // nothing else is in it
}

// drop forgets a claim that has been told.
func (r *recent) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(id)
}

// remove is drop; mu is held.
func (r *recent) remove(id string) {
	if el, ok := r.byID[id]; ok {
		r.bytes -= r.order.Remove(el).(*untold).size() //nolint:forcetypeassert // nothing else is in it
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
