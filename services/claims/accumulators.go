package claims

import (
	"context"
	"errors"
	"maps"
	"slices"
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
//
// Its claims stand in the order of their first posting, which is the order in
// which they were finalised. A claim that is decided again keeps its place, so
// that after an adjustment the family is as if its claims had been decided in
// that order from the beginning.
type Ledgered struct {
	Revision int64 // -1: the family has no postings yet
	Sums     adjudication.Accumulators
	History  []adjudication.HistoryLine // of what stands, in the claims' order

	claims    []standing // by place
	unsettled string     // claim from which on the family is to be decided again; empty: settled
	before    *int64     // set in a view of the claims with lower places only
}

// standing is what one claim of the family has posted.
type standing struct {
	claim    string
	place    int64 // revision of its first posting
	live     bool  // false: reversed
	postings []adjudication.Posting
	lines    []adjudication.HistoryLine
}

func nothingLedgered() *Ledgered { return &Ledgered{Revision: eventstore.NoStream} }

// standingOf is the place of a claim in l.claims; -1 when it never posted.
func (l *Ledgered) standingOf(claim string) int {
	for i := len(l.claims) - 1; i >= 0; i-- {
		if l.claims[i].claim == claim {
			return i
		}
	}
	return -1
}

// post is the snapshot after one more event. A posting that no engine has
// written, a reversal of what doesn't stand, or a sum that overflows or falls
// below zero is an error: deciding on wrong sums would be worse than not
// deciding.
func (l *Ledgered) post(revision uint64, e *eventsv1.AccumulatorsPosted, history *eventsv1.ServiceHistory) (*Ledgered, error) {
	next := &Ledgered{Revision: int64(revision), Sums: l.Sums, History: l.History, claims: l.claims, unsettled: e.GetUnsettledFrom()}
	if e.GetClaimId() == "" {
		return next, nil // says only whether the family is settled
	}
	claim := standing{claim: e.GetClaimId(), place: int64(revision), live: !e.GetReversal()}
	for _, p := range e.GetPostings() {
		key, ok := adjudication.ParseKey(p.GetScope(), p.GetSubject(), p.GetKind(), p.GetNetwork(), p.GetPlanYear())
		if !ok {
			return nil, defect("claims.accumulators.key", "a recorded posting names no known accumulator")
		}
		claim.postings = append(claim.postings, adjudication.Posting{Key: key, Amount: p.GetAmount()})
	}
	var err error
	if next.Sums, err = sumsAfter(l.Sums, claim.postings); err != nil {
		return nil, err
	}
	if claim.lines, err = engineHistory(history); err != nil {
		return nil, defect("claims.accumulators.history", "a recorded line has no readable date")
	}
	at := l.standingOf(claim.claim)
	if at < 0 {
		if e.GetReversal() {
			return nil, defect("claims.accumulators.reversal", "a reversal of a claim that has posted nothing")
		}
		// Two snapshots may grow from one: neither may see the other's claims.
		next.claims = append(l.claims[:len(l.claims):len(l.claims)], claim)
		if len(claim.lines) > 0 {
			next.History = append(l.History[:len(l.History):len(l.History)], claim.lines...)
		}
		return next, nil
	}
	was := l.claims[at]
	if was.live == claim.live {
		return nil, defect("claims.accumulators.reversal", "a claim posted twice without a reversal, or was reversed twice")
	}
	if e.GetReversal() {
		if !takesBack(was.postings, claim.postings) {
			return nil, defect("claims.accumulators.reversal", "a reversal takes back something else than was posted")
		}
		claim.postings, claim.lines = nil, nil
	}
	claim.place = was.place
	next.claims = slices.Clone(l.claims)
	next.claims[at] = claim
	next.History = nil
	for _, c := range next.claims {
		next.History = append(next.History, c.lines...)
	}
	return next, nil
}

// sumsAfter adds postings to a copy of sums.
func sumsAfter(sums adjudication.Accumulators, postings []adjudication.Posting) (adjudication.Accumulators, error) {
	if len(postings) == 0 {
		return sums, nil
	}
	out := maps.Clone(sums)
	if out == nil {
		out = adjudication.Accumulators{}
	}
	if err := out.Post(postings...); err != nil {
		return nil, defect("claims.accumulators.range", "a recorded posting would take an accumulator out of its range")
	}
	for _, p := range postings {
		if out[p.Key] == 0 {
			delete(out, p.Key)
		}
	}
	return out, nil
}

// takesBack tells whether a reversal's postings are exactly the negatives.
func takesBack(posted, reversal []adjudication.Posting) bool {
	return slices.EqualFunc(posted, reversal, func(p, r adjudication.Posting) bool { return p.Key == r.Key && p.Amount == -r.Amount })
}

// view is what stands of the claims with a place before one (nil: of all)
// and without one claim (empty: none): what a decision reads that is made
// again at its place, or that takes another claim's place.
func (l *Ledgered) view(before *int64, without string) (*Ledgered, error) {
	if before == nil && (without == "" || l.standingOf(without) < 0) {
		return l, nil
	}
	out := &Ledgered{Revision: l.Revision, unsettled: l.unsettled, before: before}
	for _, c := range l.claims {
		if before != nil && c.place >= *before {
			break
		}
		if !c.live || c.claim == without {
			continue
		}
		var err error
		if out.Sums, err = sumsAfter(out.Sums, c.postings); err != nil {
			return nil, err
		}
		out.History = append(out.History, c.lines...)
		out.claims = append(out.claims, c)
	}
	return out, nil
}

// postedEvent is the accumulators' event of a final decision: also of one
// that adds nothing, because its place in the family's order is a fact of its
// own. History is still to be sealed.
func postedEvent(claim, subject string, d *claimsv1.Decision, history *eventsv1.ServiceHistory) *eventsv1.AccumulatorsPosted {
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
	snapshot *Ledgered // while it is held; nil: to be loaded
	loaded   time.Time // when the oldest opened history in it was opened
	packed   packed    // the snapshot while nobody holds it
}

// hold takes a family for the caller until release.
func (fs *families) hold(ctx context.Context, subscriber string) (*entry[family], error) {
	held, err := fs.shelf.hold(ctx, subscriber)
	if err != nil {
		return nil, err
	}
	held.value.snapshot, held.value.packed = held.value.packed.unpack(), ""
	return held, nil
}

// release gives a family back as it stands.
func (fs *families) release(held *entry[family]) {
	held.value.packed, held.value.snapshot = held.value.snapshot.pack(), nil
	fs.weigh(held, familyOverhead+len(held.value.packed))
	fs.shelf.release(held)
}

// familyOverhead is what a family takes beside its packed snapshot: its entry
// on the shelf, its names and their places.
const familyOverhead = 400

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
