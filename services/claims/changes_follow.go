package claims

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
)

// What Config.Reprocessing may say.
const (
	reprocessAutomatic = "automatic"
	reprocessPropose   = "propose"
	reprocessOff       = "off"
)

// follower has decided claims follow what the policies log says afterwards.
//
// It reads two logs that nothing orders: a change on the one, decisions on the
// other, each decision made by some process whose book may have been behind.
// A decision that a change touches and that had not read it is found either
// way round, and none is missed:
//
//   - When a change comes, it is put into the window; from then on every
//     decision that goes by is held against it. Then the lists are asked for
//     the decisions before: those that had gone by, which is why the lists must
//     have caught up with them first.
//   - When a decision goes by that had not read a change of the window which
//     touches it, its claim is decided again.
//
// The book has applied a change before it is put into the window, so to decide
// again is to decide with it. Deciding again is idempotent, for the ledger
// names what every decision was; so several processes may follow, and a
// cursor that is behind costs only looking again.
type follower struct {
	service *Service
	mode    string
	propose map[string]bool // payers

	mu sync.Mutex // guards what follows
	// window holds the changes that decisions are held against, in the order
	// they came; those before since have left it.
	window []change
	since  map[uint32]uint64 // of the policies log
	// policies and claims are the indexes to continue from; decisions before
	// gone were held against the window, though what was found there may not
	// have been decided again yet.
	policies, claims, gone map[uint32]uint64
	// Decisions mostly name the same point of the policies log as the one
	// before: what of the window it hasn't seen is kept. window[unseen] holds.
	reference string
	unseen    []int
	known     bool // reference and unseen are of the window as it is
	worth     int  // what was looked at since the cursor was saved
}

const (
	// maxWindow is how many changes decisions are held against. A decision
	// that had not even read what has left the window is decided again for that.
	maxWindow = 20_000
	// saveWorth is how much must have been looked at before the cursor is worth a commit.
	saveWorth = 5_000
	// familiesAtOnce bounds what changes take from the claims that are coming in.
	familiesAtOnce = 2

	firstPause = 100 * time.Millisecond
	longPause  = 15 * time.Second
)

func newFollower(s *Service, c Config) (*follower, error) {
	f := &follower{service: s, mode: c.Reprocessing, propose: map[string]bool{}}
	switch f.mode {
	case "":
		f.mode = reprocessAutomatic
	case reprocessAutomatic, reprocessPropose, reprocessOff:
	default:
		return nil, errors.New("claims: config reprocessing is none of automatic, propose and off")
	}
	for _, payer := range c.ProposeFor {
		f.propose[payer] = true
	}
	return f, nil
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) error {
	if f.mode == reprocessOff {
		<-ctx.Done()
		return ctx.Err()
	}
	s := f.service
	f.insist(ctx, "the cursor of changes can't be read", func() error { return f.load(ctx) })
	// Before the lists answer, no change can be applied.
	f.insist(ctx, "the lists are not built yet", func() error { return s.view.Ready(ctx) })
	var both sync.WaitGroup
	ready := make(chan struct{})
	both.Go(func() { f.followDecisions(ctx, ready) })
	both.Go(func() {
		select {
		case <-ready:
			f.followChanges(ctx)
		case <-ctx.Done():
		}
	})
	both.Wait()
	// The process is told to end: a moment for the cursor, which is no harm to lose.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := f.save(last, 1); err != nil {
		s.log.WarnContext(last, "the cursor of changes was not saved; they are looked at again", "error", err)
	}
	return ctx.Err()
}

// load finds where to continue. Without a cursor all changes are looked at,
// and the decisions that are there already are found by the lists.
func (f *follower) load(ctx context.Context) error {
	events, err := f.service.store.Read(ctx, logName, cursorStream, cursorStream, 0)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.policies, f.claims, f.since = map[uint32]uint64{}, nil, map[uint32]uint64{}
	if len(events) == 0 {
		return nil
	}
	last := events[len(events)-1]
	e, ok := last.Event.(*eventsv1.ChangesFollowed)
	if !ok {
		return defect("claims.changes.cursor", "the cursor's stream holds another kind of event")
	}
	if f.policies, err = book.AsOf(e.GetPolicies()).Next(); err != nil {
		return err
	}
	f.since = maps.Clone(f.policies)
	f.claims, err = book.AsOf(e.GetClaims()).Next()
	f.gone = maps.Clone(f.claims)
	return err
}

// insist repeats what fails for the moment until it succeeds or ctx ends.
func (f *follower) insist(ctx context.Context, what string, do func() error) {
	for wait := firstPause; ctx.Err() == nil; wait = min(2*wait, longPause) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		level := f.service.log.WarnContext
		if !problem.As(err).Retryable() {
			level = f.service.log.ErrorContext
		}
		level(ctx, "changes wait: "+what, "error", err, "pause", wait)
		_ = pause(ctx, wait)
	}
}

// followChanges applies what comes on the policies log.
func (f *follower) followChanges(ctx context.Context) {
	f.insist(ctx, "the policies log can't be followed", func() error {
		f.mu.Lock()
		from := maps.Clone(f.policies)
		f.mu.Unlock()
		return f.service.store.Follow(ctx, policies.Log, from, followedChanges(), func(ctx context.Context, b eventstore.Batch) error {
			return f.changed(ctx, b)
		})
	})
}

func (f *follower) changed(ctx context.Context, b eventstore.Batch) error {
	s := f.service
	if err := s.book.WaitNext(ctx, b.Next); err != nil {
		return err
	}
	changes := s.changesOf(b.Events)
	decided := f.open(changes)
	if len(changes) > 0 && slices.ContainsFunc(slices.Collect(maps.Values(decided)), func(n uint64) bool { return n > 0 }) {
		f.insist(ctx, "the lists are behind", func() error { return s.listed(ctx, decided) })
		// Families are apart from one another; a document's claims are of many.
		for from := 0; from < len(changes); {
			to := from + 1
			for changes[from].version == "" && to < len(changes) && changes[to].version == "" {
				to++
			}
			run := changes[from:to]
			inParallel(len(run), familiesAtOnce, func(i int) {
				f.insist(ctx, "a change can't be applied now", func() error { return f.take(ctx, &run[i], nil) })
			})
			from = to
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.mu.Lock()
	f.policies = maps.Clone(b.Next)
	f.worth += len(changes)
	f.mu.Unlock()
	return f.saveWorthy(ctx)
}

// open puts changes into the window and returns how far decisions had gone by.
func (f *follower) open(changes []change) map[uint32]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.window = append(f.window, changes...)
	for len(f.window) > maxWindow {
		gone := f.window[0].at
		f.since[gone.Shard] = max(f.since[gone.Shard], gone.Index+1)
		f.window = f.window[1:]
	}
	if len(changes) > 0 {
		f.known = false
	}
	return maps.Clone(f.gone)
}

// listed waits until the lists hold every decision that has gone by.
func (s *Service) listed(ctx context.Context, next map[uint32]uint64) error {
	for shard, index := range next {
		if index == 0 {
			continue
		}
		if err := s.view.WaitFor(ctx, eventstore.Position{Log: logName, Shard: shard, Index: index - 1}.Token()); err != nil {
			return err
		}
	}
	return nil
}

// followDecisions holds decisions against the window, and does what a person
// has approved. ready is closed when it has found where the log ends, if it
// has to begin there, else at once.
func (f *follower) followDecisions(ctx context.Context, ready chan struct{}) {
	begun := sync.OnceFunc(func() { close(ready) })
	f.mu.Lock()
	fresh := f.claims == nil
	f.mu.Unlock()
	if !fresh {
		begun()
	}
	types := typeNames(&eventsv1.ClaimDecided{}, &eventsv1.ChangeApproved{})
	f.insist(ctx, "the claims log can't be followed", func() error {
		f.mu.Lock()
		from := maps.Clone(f.claims)
		f.mu.Unlock()
		return f.service.store.Follow(ctx, logName, from, types, func(ctx context.Context, b eventstore.Batch) error {
			if fresh {
				// What was decided before the first change is looked at, the lists find.
				f.mu.Lock()
				f.claims, f.gone = maps.Clone(b.Next), maps.Clone(b.Next)
				f.mu.Unlock()
				if !b.CaughtUp {
					return nil
				}
				fresh = false
				begun()
				f.insist(ctx, "what waits can't be asked about again now", func() error {
					if err := f.service.listed(ctx, b.Next); err != nil {
						return err
					}
					return f.service.reaskWaiting(ctx, kindPended, allIndex(kindPended))
				})
				return nil
			}
			return f.decided(ctx, b)
		})
	})
}

// stale is a claim whose decision had not read a change that touches it.
type stale struct {
	claim string
	by    change
}

func (f *follower) decided(ctx context.Context, b eventstore.Batch) error {
	found, again := f.hold(b)
	if len(found)+len(again) > 0 {
		f.insist(ctx, "the lists are behind", func() error { return f.service.listed(ctx, b.Next) })
	}
	for _, st := range found {
		f.insist(ctx, "a claim can't be decided again now", func() error { return f.take(ctx, &st.by, []string{st.claim}) })
	}
	for _, r := range again {
		switch e := r.Event.(type) {
		case *eventsv1.ClaimDecided:
			f.insist(ctx, "what waited for a claim can't be asked about again now", func() error { return f.service.reaskWaiting(ctx, kindClaims, waitingIndex(e.GetSubscriber())) })
		case *eventsv1.ChangeApproved:
			f.insist(ctx, "an approved change can't be applied now", func() error { return f.approved(ctx, e) })
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.mu.Lock()
	f.claims = maps.Clone(b.Next)
	f.mu.Unlock()
	return f.saveWorthy(ctx)
}

// hold holds a batch of decisions against the window. It also returns what is
// to be looked at for another reason: a claim that was decided later than it
// came, for which others may have waited, and approvals.
func (f *follower) hold(b eventstore.Batch) (found []stale, again []eventstore.Recorded) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range b.Events {
		e, ok := r.Event.(*eventsv1.ClaimDecided)
		if !ok {
			again = append(again, r)
			continue
		}
		f.worth++
		if e.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED {
			continue
		}
		if r.Revision > 1 && Final(e.GetStatus()) {
			again = append(again, r)
		}
		old, readable := f.against(e.GetVersions().GetReference())
		if !readable {
			continue
		}
		if old {
			found = append(found, stale{e.GetClaimId(), change{
				id: f.service.index.ID("chg", "decision", e.GetClaimId(), itoa(uint32(r.Revision))), at: r.Position, payer: e.GetPayerId(), cause: causeChanges, subscriber: e.GetSubscriber(),
			}})
			continue
		}
		// Each that may touch it, not the first alone: what a change touches is a
		// superset, and the first may turn out not to concern this claim. Once one
		// has had it decided again, it has read the others too.
		for _, i := range f.unseen {
			if f.window[i].touches(e) {
				found = append(found, stale{e.GetClaimId(), f.window[i]})
			}
		}
	}
	f.gone = maps.Clone(b.Next)
	return found, again
}

// against finds what of the window a decision had not seen; old says that it
// had not seen what has left the window. mu is held.
func (f *follower) against(reference string) (old, readable bool) {
	next, err := book.AsOf(reference).Next()
	if err != nil {
		return false, false
	}
	if !f.known || f.reference != reference {
		f.reference, f.known, f.unseen = reference, true, f.unseen[:0]
		for i := range f.window {
			if f.window[i].unseenBy(next) {
				f.unseen = append(f.unseen, i)
			}
		}
	}
	for shard, index := range f.since {
		if next[shard] < index {
			return true, true
		}
	}
	return false, true
}

// take has a change do what it does: named are the claims that came after the
// lists were asked, nil is everything it touches.
func (f *follower) take(ctx context.Context, c *change, named []string) error {
	s := f.service
	if f.asks(c.payer) {
		if c.cause == causeChanges {
			s.log.WarnContext(ctx, "a claim was decided long behind the policies log; reprocess it by hand", "claim", named[0])
			return nil
		}
		was, err := s.readChange(ctx, c.id)
		switch {
		case err != nil:
			return err
		case was.change == nil:
			return f.proposeIt(ctx, c)
		case !was.approved || named == nil:
			return nil // all it touches is looked at again once it is approved
		}
	}
	m, err := s.apply(ctx, c, named, false, 0)
	if err != nil || !m.moved() {
		return err
	}
	was, err := s.readChange(ctx, c.id)
	if err != nil || named == nil && was.change.GetState() == claimsv1.ChangeState_CHANGE_STATE_REPROCESSED {
		return err // done before the cursor was saved
	}
	return f.recordIt(ctx, c, was, m)
}

// asks tells whether a payer wants to be asked first.
func (f *follower) asks(payer string) bool { return f.mode == reprocessPropose || f.propose[payer] }

// proposeIt records what a change would move, if it would move anything.
func (f *follower) proposeIt(ctx context.Context, c *change) error {
	s := f.service
	m, err := s.apply(ctx, c, nil, true, 0)
	if err != nil || !m.moved() {
		return err
	}
	e := &eventsv1.ChangeProposed{Change: c.proto(claimsv1.ChangeState_CHANGE_STATE_PROPOSED, m, s.changeRun(c))}
	_, err = s.appendChange(ctx, c.id, c.id+"/proposed", changesActor, eventstore.NoStream, e)
	return unlessRecorded(err)
}

// recordIt records what a change has moved; claims that came late to it are
// added to what is recorded.
func (f *follower) recordIt(ctx context.Context, c *change, was recordedChange, m *movement) error {
	s := f.service
	e := &eventsv1.ChangeReprocessed{Change: c.proto(claimsv1.ChangeState_CHANGE_STATE_REPROCESSED, m, s.changeRun(c))}
	if before := was.change; before.GetState() == claimsv1.ChangeState_CHANGE_STATE_REPROCESSED {
		e.Change.Corrections += before.GetCorrections()
		e.Change.Waiting += before.GetWaiting()
		e.Change.PaidDifferenceCents += before.GetPaidDifferenceCents()
		e.Change.PatientDifferenceCents += before.GetPatientDifferenceCents()
		e.Change.WaitingClaimIds = bounded(append(slices.Clone(before.GetWaitingClaimIds()), m.waitingIDs...), maxWaitingTold)
	}
	_, err := s.appendChange(ctx, c.id, c.id+"/reprocessed/"+itoa(uint32(was.revision+1)), changesActor, was.revision, e)
	return unlessRecorded(err)
}

// unlessRecorded takes it for done where another process has recorded the same.
func unlessRecorded(err error) error {
	if eventstore.IsConflict(err) || problem.Is(err, problem.Conflict) {
		return nil
	}
	return err
}

// approved applies a change that a person approved.
func (f *follower) approved(ctx context.Context, e *eventsv1.ChangeApproved) error {
	s := f.service
	was, err := s.readChange(ctx, e.GetChangeId())
	if err != nil || was.change == nil || was.change.GetState() == claimsv1.ChangeState_CHANGE_STATE_REPROCESSED {
		return err
	}
	c, err := s.recall(ctx, was.change)
	if err != nil {
		return err
	}
	m, err := s.apply(ctx, &c, nil, false, 0)
	if err != nil {
		return err
	}
	return f.recordIt(ctx, &c, was, m)
}

// recall makes a recorded change again from its commit on the policies log.
func (s *Service) recall(ctx context.Context, recorded *claimsv1.Change) (change, error) {
	at, _, err := eventstore.ParseToken(recorded.GetPosition())
	if err != nil {
		return change{}, err
	}
	if err := s.book.WaitFor(ctx, recorded.GetPosition()); err != nil {
		return change{}, err
	}
	from, err := s.book.For(book.Query{}).AsOf.Next()
	if err != nil {
		return change{}, err
	}
	from[at.Shard] = at.Index
	var events []eventstore.Recorded
	found := errors.New("found")
	err = s.store.Follow(ctx, policies.Log, from, nil, func(_ context.Context, b eventstore.Batch) error {
		for _, r := range b.Events {
			if r.Position == at {
				events = append(events, r)
			}
		}
		if len(events) > 0 || b.CaughtUp {
			return found
		}
		return nil
	})
	if !errors.Is(err, found) {
		return change{}, err
	}
	out := s.changesOf(events)
	if len(out) != 1 || out[0].id != recorded.GetChangeId() {
		return change{}, defect("claims.changes.position", "a recorded change is not what the policies log has at its position")
	}
	return out[0], nil
}

// reaskWaiting asks again about the replacements and voids of an index that
// wait for another claim to be decided.
func (s *Service) reaskWaiting(ctx context.Context, kind, index string) error {
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return err
	}
	for token := ""; ; {
		rows, next, err := pageOf(ctx, reading, listing[*claimsv1.ClaimSummary]{
			kind: kind, indexes: []string{index}, ascending: true, size: maxPage, filter: index, token: token, row: claimRow, keep: waitsForAnother,
		})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if _, err := s.reask(ctx, row.GetClaimId()); err != nil && (ctx.Err() != nil || problem.As(err).Retryable()) {
				return err
			} else if err != nil {
				s.log.ErrorContext(ctx, "a claim that waited for another could not be asked about again", "claim", row.GetClaimId(), "error", err)
			}
		}
		if token = next; token == "" {
			return nil
		}
	}
}

func waitsForAnother(c *claimsv1.ClaimSummary) bool {
	return c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED &&
		slices.ContainsFunc(c.GetPendReasons(), func(p *claimsv1.PendReason) bool { return p.GetRuleId() == "adjustment.replacement" })
}

// saveWorthy saves the cursor once enough was looked at.
func (f *follower) saveWorthy(ctx context.Context) error {
	if err := f.save(ctx, saveWorth); err != nil {
		f.service.log.WarnContext(ctx, "the cursor of changes was not saved; it is tried again", "error", err)
	}
	return nil
}

// save puts the cursor on the ledger if at least so much was looked at.
func (f *follower) save(ctx context.Context, worth int) error {
	f.mu.Lock()
	if f.worth < worth || f.claims == nil {
		f.mu.Unlock()
		return nil
	}
	e := &eventsv1.ChangesFollowed{Policies: string(book.AsOfNext(f.policies)), Claims: string(book.AsOfNext(f.claims))}
	worth = f.worth
	f.mu.Unlock()
	_, err := f.service.store.Append(ctx, eventstore.Commit{
		Log: logName, RoutingKey: cursorStream, RequestID: "changes/" + e.GetPolicies() + "/" + e.GetClaims(), Actor: changesActor,
		Writes: []eventstore.Write{{Stream: cursorStream, Expected: eventstore.Any, Events: []proto.Message{e}}},
	})
	if err == nil {
		f.mu.Lock()
		f.worth -= worth
		f.mu.Unlock()
	}
	return err
}
