package claims

import (
	"context"
	"errors"
	"maps"
	"time"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
)

// Ledgered is what a family has used of its benefits: the sum of every
// posting and the finalised lines, as of one revision of the accumulators'
// stream. It is never changed once made; post makes the next one.
type Ledgered struct {
	Revision int64 // -1: the family has no postings yet
	Sums     adjudication.Accumulators
	History  []adjudication.HistoryLine
}

func nothingLedgered() *Ledgered { return &Ledgered{Revision: eventstore.NoStream} }

// post is the snapshot after one more event. A posting that no engine has
// written, or a sum that overflows, is an error: deciding on wrong sums would
// be worse than not deciding.
func (l *Ledgered) post(revision uint64, e *eventsv1.AccumulatorsPosted, history *eventsv1.ServiceHistory) (*Ledgered, error) {
	next := &Ledgered{Revision: int64(revision), Sums: l.Sums, History: l.History}
	if len(e.GetPostings()) > 0 {
		if next.Sums = maps.Clone(l.Sums); next.Sums == nil {
			next.Sums = adjudication.Accumulators{}
		}
	}
	postings := make([]adjudication.Posting, 0, len(e.GetPostings()))
	for _, p := range e.GetPostings() {
		key, ok := adjudication.ParseKey(p.GetScope(), p.GetSubject(), p.GetKind(), p.GetNetwork(), p.GetPlanYear())
		if !ok {
			return nil, defect("claims.accumulators.key", "a recorded posting names no known accumulator")
		}
		postings = append(postings, adjudication.Posting{Key: key, Amount: p.GetAmount()})
	}
	if err := next.Sums.Post(postings...); err != nil {
		return nil, defect("claims.accumulators.range", "a recorded posting would take an accumulator out of its range")
	}
	lines, err := engineHistory(history)
	if err != nil {
		return nil, defect("claims.accumulators.history", "a recorded line has no readable date")
	}
	if len(lines) > 0 {
		// Two snapshots may grow from one: neither may see the other's lines.
		next.History = append(l.History[:len(l.History):len(l.History)], lines...)
	}
	return next, nil
}

// postedEvent is the accumulators' event of a decision, nil when the decision
// leaves nothing to remember. History is still to be sealed.
func postedEvent(claim, subject string, d *claimsv1.Decision, history *eventsv1.ServiceHistory) *eventsv1.AccumulatorsPosted {
	if len(d.GetPostings()) == 0 && len(history.GetLines()) == 0 {
		return nil
	}
	return &eventsv1.AccumulatorsPosted{ClaimId: claim, Subject: subject, Postings: d.GetPostings()}
}

// families keeps the snapshots of families that were lately decided for, so
// that a claim costs no read. A snapshot may be behind: the commit names the
// revision it was decided at, and the ledger refuses it where that is not the
// last. Two things bound what is kept: the number of families and the time
// that an opened history stays in memory.
type families struct {
	*shelf[family]
	store  eventstore.Store
	sealer keys.Sealer
	now    func() time.Time
	ttl    time.Duration
}

// family is what is kept of one subscriber's family.
type family struct {
	snapshot *Ledgered // nil: to be loaded
	loaded   time.Time // when the oldest opened history in it was opened
}

// load returns the held family's snapshot, at least at revision atLeast (what
// a conflict has named; NoStream for any), reading what it lacks.
func (fs *families) load(ctx context.Context, held *entry[family], tenant string, atLeast int64) (*Ledgered, error) {
	f := &held.value
	if f.snapshot != nil && fs.now().Sub(f.loaded) > fs.ttl {
		f.snapshot = nil
	}
	if f.snapshot != nil && f.snapshot.Revision >= atLeast {
		return f.snapshot, nil
	}
	snapshot := f.snapshot
	if snapshot == nil {
		snapshot, f.loaded = nothingLedgered(), fs.now()
	}
	stream := accumulatorStream(held.key)
	events, err := readAtLeast(ctx, fs.store, familyKey(held.key), stream, snapshot.Revision, atLeast)
	if err != nil {
		return nil, err
	}
	if snapshot, err = fs.fold(ctx, snapshot, tenant, events); err != nil {
		return nil, err
	}
	f.snapshot = snapshot
	return snapshot, nil
}

// fold is the snapshot after more events of the family's stream.
func (fs *families) fold(ctx context.Context, snapshot *Ledgered, tenant string, events []eventstore.Recorded) (*Ledgered, error) {
	if err := fs.prefetch(ctx, events); err != nil {
		return nil, err
	}
	for _, r := range events {
		e, ok := r.Event.(*eventsv1.AccumulatorsPosted)
		if !ok {
			return nil, defect("claims.accumulators.event", "an accumulators' stream holds another kind of event")
		}
		history, err := fs.open(ctx, tenant, r.Stream, r.Revision, e)
		if err != nil {
			return nil, err
		}
		if snapshot, err = snapshot.post(r.Revision, e, history); err != nil {
			return nil, err
		}
	}
	return snapshot, nil
}

func (fs *families) prefetch(ctx context.Context, events []eventstore.Recorded) error {
	subjects := map[string]bool{}
	for _, r := range events {
		if e, ok := r.Event.(*eventsv1.AccumulatorsPosted); ok && e.GetHistory() != nil {
			subjects[e.GetHistory().GetSubject()] = true
		}
	}
	// One key comes as fast by Open itself; and Prefetch makes missing keys,
	// which the key of something sealed never is, unless it was destroyed.
	if len(subjects) < 2 {
		return nil
	}
	names := make([]string, 0, len(subjects))
	for s := range subjects {
		names = append(names, s)
	}
	if err := fs.sealer.Prefetch(ctx, names); err != nil && !errors.Is(err, keys.ErrDestroyed) {
		return err
	}
	return nil
}

// open unseals a history. The history of an erased person is gone with the
// key; the sums stay, since they name nobody.
func (fs *families) open(ctx context.Context, tenant, stream string, revision uint64, e *eventsv1.AccumulatorsPosted) (*eventsv1.ServiceHistory, error) {
	if e.GetHistory() == nil {
		return nil, nil
	}
	plain, err := fs.sealer.Open(ctx, keys.Place{Tenant: tenant, Stream: stream, Revision: revision, Field: fieldHistory}, e.GetHistory())
	if errors.Is(err, keys.ErrDestroyed) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h := &eventsv1.ServiceHistory{}
	if err := proto.Unmarshal(plain, h); err != nil {
		return nil, defect("claims.accumulators.history", "a recorded history can't be read")
	}
	return h, nil
}
