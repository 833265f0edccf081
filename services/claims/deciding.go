package claims

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/claims/casework"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// Names of the sealed fields, authenticated with what is sealed.
const (
	fieldClaim    = "claim"
	fieldDecision = "decision"
	fieldReason   = "reason"
	fieldHistory  = "history"
)

// decideAttempts bounds how often a claim is decided again because its
// family's accumulators moved meanwhile.
const decideAttempts = 8

// ruling is one run of the engine, ready to be recorded.
type ruling struct {
	decision *claimsv1.Decision
	decided  *eventsv1.ClaimDecided       // sealed
	posted   *eventsv1.AccumulatorsPosted // sealed; nil when nothing is to be remembered
	history  *eventsv1.ServiceHistory     // what posted seals
	read     *Ledgered                    // what it was decided on
	adjusted *amendment                   // what the commit takes back and decides again beside it; nil for nothing
}

// rule runs the engine on a claim and a family's snapshot.
func rule(sub *submission, read *Ledgered, review adjudication.Review) (adjudication.Decision, *claimsv1.Decision) {
	in := sub.input
	in.Accumulators, in.History = read.Sums, read.History
	in.Versions.AccumulatorsRevision = read.Revision
	in.Review = review
	in.OriginalReversed = sub.original != ""
	d := adjudication.Adjudicate(&in)
	out := decisionProto(d)
	out.Versions.AccumulatorsBefore, out.Versions.OriginalClaimId = read.before, sub.original
	return d, out
}

// ruleSealed is rule with everything sealed for its place: the decision at
// the claim stream's revision, the history at the accumulators' next one.
func (s *Service) ruleSealed(ctx context.Context, sub *submission, read *Ledgered, review adjudication.Review, revision uint64) (ruling, error) {
	d, decision := rule(sub, read, review)
	return s.seal(ctx, sub, read, d, decision, revision)
}

// seal makes the events of a decision.
func (s *Service) seal(ctx context.Context, sub *submission, read *Ledgered, d adjudication.Decision, decision *claimsv1.Decision, revision uint64) (ruling, error) {
	encoded, err := encode(decision)
	if err != nil {
		return ruling{}, err
	}
	state := sub.claim().GetBillingProvider().GetAddress().GetState()
	clock := sub.clock
	if pended := decision.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED; clock == nil || (clock.GetDueDate() == "" && !pended) {
		clock = casework.NewClock(state, sub.request.GetPaper(), sub.input.Claim.ReceivedDate.String())
	}
	box, err := s.sealer.Seal(ctx, sub.subject, keys.Place{Tenant: sub.payer, Stream: claimStream(sub.claimID), Revision: revision, Field: fieldDecision}, encoded)
	if err != nil {
		return ruling{}, sealProblem(err)
	}
	out := ruling{decision: decision, read: read, decided: &eventsv1.ClaimDecided{
		ClaimId:        sub.claimID,
		Status:         decision.GetStatus(),
		ChargeCents:    decision.GetChargeCents(),
		AllowedCents:   decision.GetAllowedCents(),
		PaidCents:      decision.GetPaidCents(),
		PatientCents:   decision.GetPatientCents(),
		Codes:          codesOf(decision),
		Decision:       box,
		Versions:       decision.GetVersions(),
		DecisionSha256: decisionHash(encoded),
		DecidedTime:    timestamppb.New(s.now()),
		DuplicateOf:    decision.GetDuplicateOf(),
		PendReasons:    decision.GetPendReasons(),
		PayerId:        sub.payer,
		SubmitterOrg:   sub.org,
		ReceivedTime:   timestamppb.New(sub.received),
		Subscriber:     sub.subscriber,

		PromptPayDueDate: clock.GetDueDate(),
		PromptPayState:   state,
		ProviderDays:     s.providerDays(sub.payer, d),
		UncontractedNpis: uncontracted(sub, decision.GetVersions()),
	}}
	if decision.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		if needed, why := s.config.Casework.Reviewers(decision.GetChargeCents(), secondReviewers(sub, decision.GetVersions())); needed > 1 {
			out.decided.ReviewersNeeded, out.decided.ReviewersRule = needed, why
		}
	}
	if revision == 1 && decision.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		received := &eventsv1.ClaimReceived{ClaimId: sub.claimID, PayerId: sub.payer, Paper: sub.request.GetPaper()}
		out.decided.FirstDeadline = casework.First(received, out.decided, s.caseNow(), s.config.Casework)
	}
	if st := decision.GetStatus(); !sub.matched || st == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED || st == claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED {
		return out, nil
	}
	out.history = historyOf(sub.claimID, sub.subject, sub.input.Claim, d)
	out.posted = postedEvent(sub.claimID, sub.subject, decision, out.history)
	out.posted.UnsettledFrom = read.unsettled
	if out.history != nil {
		plain, err := encode(out.history)
		if err != nil {
			return ruling{}, err
		}
		place := keys.Place{Tenant: sub.payer, Stream: accumulatorStream(sub.subscriber), Revision: uint64(read.Revision + 1), Field: fieldHistory}
		if out.posted.History, err = s.sealer.Seal(ctx, sub.subject, place, plain); err != nil {
			return ruling{}, sealProblem(err)
		}
	}
	return out, nil
}

// secondReviewers are what the plans that a decision read say of two reviewers.
func secondReviewers(sub *submission, v *claimsv1.Versions) []casework.PlanTerm {
	var out []casework.PlanTerm
	read := strings.Split(v.GetPlan(), ",")
	for _, c := range sub.input.Member.Coverage {
		version, says := c.Plan.SecondReviewer()
		if says != nil && slices.Contains(read, version) {
			out = append(out, casework.PlanTerm{Plan: version, FromCents: int64(says.From), Never: says.Never})
		}
	}
	return out
}

// uncontracted are the NPIs that no contract was found by; nil where one was,
// or none was looked for.
func uncontracted(sub *submission, v *claimsv1.Versions) []string {
	if v.GetPlan() == "" || v.GetContract() != "" {
		return nil
	}
	return contractNPIs(&sub.input.Claim)
}

// writes are the streams a ruling changes: the claim's, those of the claims
// it amends and, at the revision that was read, the family's accumulators.
func (r ruling) writes(sub *submission, expected int64, events []proto.Message) []eventstore.Write {
	out := []eventstore.Write{{Stream: claimStream(sub.claimID), Expected: expected, Events: events}}
	var posted []proto.Message
	at := r.read.Revision
	if r.adjusted != nil {
		out = append(out, r.adjusted.claimWrites()...)
		posted, at = r.adjusted.posted, r.adjusted.found.Revision
	}
	if r.posted != nil {
		posted = append(posted[:len(posted):len(posted)], r.posted)
	}
	if len(posted) > 0 {
		out = append(out, eventstore.Write{Stream: accumulatorStream(sub.subscriber), Expected: at, Events: posted})
	}
	return out
}

// received is the claim's first event, the claim sealed in it.
func (s *Service) received(ctx context.Context, sub *submission) (*eventsv1.ClaimReceived, error) {
	box, err := s.sealer.Seal(ctx, sub.subject, keys.Place{Tenant: sub.payer, Stream: claimStream(sub.claimID), Revision: 0, Field: fieldClaim}, sub.encoded)
	if err != nil {
		return nil, sealProblem(err)
	}
	return &eventsv1.ClaimReceived{
		ClaimId:      sub.claimID,
		PayerId:      sub.payer,
		SubmitterOrg: sub.org,
		BillingNpi:   sub.claim().GetBillingProvider().GetNpi(),
		Subject:      sub.subject,
		Subscriber:   sub.subscriber,
		Claim:        box,
		FileId:       sub.request.GetFileId(),
		FileOrdinal:  sub.request.GetFileOrdinal(),
		ReceivedTime: timestamppb.New(sub.received),
		ChargeCents:  sub.claim().GetChargeCents(),
		RequestId:    sub.name,
		Paper:        sub.request.GetPaper(),
	}, nil
}

// lane is the claims of one family in the order they came. A family's claims
// are decided one after the other, each seeing what the one before it used;
// families are decided beside each other.
type lane struct {
	queue    []*submission
	held     *entry[family] // nil for a claim that matched no member
	attempts int            // of the queue's head
	atLeast  int64          // revision a conflict has named
	moved    revisions      // the same of other claims that the head amends
}

// attempt is a lane's head on its way through one round.
type attempt struct {
	lane   *lane
	sub    *submission
	ruling ruling
	events []proto.Message
	commit eventstore.Commit
}

// decideAll decides every submission and leaves each with its result or error.
func (s *Service) decideAll(ctx context.Context, subs []*submission) {
	lanes, release, err := s.lanes(ctx, subs)
	defer release()
	if err != nil {
		failAll(subs, err)
		return
	}
	if err := s.prefetch(ctx, subs); err != nil {
		failAll(subs, err)
		return
	}
	// Families that are not in memory are read together; one that can't be is
	// read again, and its claim then tells why.
	inParallel(len(lanes), readers, func(i int) {
		if l := lanes[i]; l.held != nil {
			_, _ = s.families.load(ctx, l.held, l.queue[0].payer, eventstore.NoStream)
		}
	})
	for len(lanes) > 0 {
		s.round(ctx, lanes)
		lanes = slices.DeleteFunc(lanes, func(l *lane) bool {
			for len(l.queue) > 0 && l.queue[0].done() {
				l.queue, l.attempts, l.atLeast, l.moved = l.queue[1:], 0, eventstore.NoStream, nil
			}
			return len(l.queue) == 0
		})
	}
}

// lanes sorts submissions by family and takes the families; release, which is
// never nil, gives back what was taken.
func (s *Service) lanes(ctx context.Context, subs []*submission) (lanes []*lane, release func(), err error) {
	byFamily := map[string]*lane{}
	var names []string
	for _, sub := range subs {
		if sub.done() {
			continue
		}
		if !sub.matched && !sub.adjusts() {
			lanes = append(lanes, &lane{queue: []*submission{sub}, atLeast: eventstore.NoStream})
			continue
		}
		l, ok := byFamily[sub.subscriber]
		if !ok {
			l = &lane{atLeast: eventstore.NoStream}
			byFamily[sub.subscriber] = l
			names = append(names, sub.subscriber)
			lanes = append(lanes, l)
		}
		l.queue = append(l.queue, sub)
	}
	sort.Strings(names)
	var taken []*entry[family]
	release = func() {
		for _, f := range taken {
			s.families.release(f)
		}
	}
	for _, name := range names {
		f, err := s.families.hold(ctx, name)
		if err != nil {
			return nil, release, err
		}
		taken = append(taken, f)
		byFamily[name].held = f
	}
	return lanes, release, nil
}

// prefetch makes or loads the keys of everybody whose claim will be sealed, in one call.
func (s *Service) prefetch(ctx context.Context, subs []*submission) error {
	var subjects []string
	for _, sub := range subs {
		if !sub.done() && !sub.request.GetValidateOnly() {
			subjects = append(subjects, sub.subject)
		}
	}
	slices.Sort(subjects)
	subjects = slices.Compact(subjects)
	if len(subjects) == 0 {
		return nil
	}
	// One erased person must not fail the others; Seal tells for whom it was.
	if err := s.sealer.Prefetch(ctx, subjects); err != nil && !errors.Is(err, keys.ErrDestroyed) {
		return sealProblem(err)
	}
	return nil
}

// round takes every lane's head one step: to its result, or back to be tried again.
func (s *Service) round(ctx context.Context, lanes []*lane) {
	attempts := make([]*attempt, len(lanes))
	inParallel(len(lanes), s.workers, func(i int) {
		l := lanes[i]
		sub := l.queue[0]
		a, err := s.attempt(ctx, l, sub)
		if behind, ok := errors.AsType[*eventstore.ConflictError](err); ok && l.held != nil && behind.Stream == accumulatorStream(sub.subscriber) {
			l.atLeast = behind.Actual // the family is read again
			return
		}
		if err != nil {
			sub.err = err
			return
		}
		attempts[i] = a
	})
	var pending []*attempt
	var commits []eventstore.Commit
	for _, a := range attempts {
		if a != nil && !a.sub.done() {
			pending = append(pending, a)
			commits = append(commits, a.commit)
		}
	}
	outcomes := s.appendAll(ctx, commits)
	inParallel(len(pending), s.workers, func(i int) { s.settle(ctx, pending[i], outcomes[i]) })
}

// attempt decides a lane's head on the family as it is believed to stand.
func (s *Service) attempt(ctx context.Context, l *lane, sub *submission) (*attempt, error) {
	if l.attempts++; l.attempts > decideAttempts {
		return nil, busy(nil)
	}
	read := nothingLedgered()
	if l.held != nil {
		var err error
		if read, err = s.families.load(ctx, l.held, sub.payer, l.atLeast); err != nil {
			return nil, err
		}
	}
	if read.unsettled != "" {
		var err error
		if read, err = s.settleFamily(ctx, l.held, sub.payer); err != nil {
			return nil, err
		}
	}
	if sub.adjusts() && !sub.request.GetValidateOnly() {
		// Sent again, it must be answered as it was and not be refused for what
		// it has done itself.
		switch _, _, err := s.readClaim(ctx, sub.claimID, eventstore.NoStream); {
		case err == nil:
			sub.result, err = s.answerAgain(ctx, sub)
			return nil, err
		case !problem.Is(err, problem.NotFound):
			return nil, err
		}
	}
	r, refused, err := s.ruleAmending(ctx, sub, read, adjudication.Review{}, 1, l.moved)
	switch {
	case err != nil:
		return nil, err
	case refused != nil:
		s.refuse(ctx, []refusal{{sub, refused}})
		return nil, nil
	case sub.request.GetValidateOnly():
		sub.result = s.preview(sub, r.decision)
		return nil, nil
	}
	received, err := s.received(ctx, sub)
	if err != nil {
		return nil, err
	}
	events, err := Decide(NewState(), Receive{Received: received, Decided: r.decided})
	if err != nil {
		return nil, err
	}
	return &attempt{lane: l, sub: sub, ruling: r, events: events, commit: eventstore.Commit{
		Log:        logName,
		RoutingKey: familyKey(sub.subscriber),
		RequestID:  sub.claimID + "/decide",
		Causation:  sub.request.GetFileId(),
		Actor:      sub.actor,
		Writes:     r.writes(sub, eventstore.NoStream, events),
	}}, nil
}

// settle turns a commit's outcome into the submission's result. What the
// ledger refused is either the claim itself, which is then answered as it was
// recorded, or the family's accumulators, which are then read again.
func (s *Service) settle(ctx context.Context, a *attempt, o eventstore.Outcome) {
	var moved *eventstore.ConflictError
	switch {
	case o.Err == nil && !o.Appended.Replayed:
		s.recorded(a)
		a.sub.result = s.answer(a, o.Appended)
		s.settleAfter(ctx, a)
	case errors.As(o.Err, &moved) && a.lane.held != nil && moved.Stream == accumulatorStream(a.sub.subscriber):
		a.lane.atLeast = moved.Actual
	case moved != nil && moved.Stream != claimStream(a.sub.claimID):
		a.lane.moved = a.lane.moved.note(moved)
	case o.Err == nil, moved != nil, problem.Is(o.Err, problem.Conflict):
		if a.lane.held != nil {
			// The recorded decision may have posted what the snapshot doesn't have.
			a.lane.held.value.snapshot = nil
		}
		a.sub.result, a.sub.err = s.answerAgain(ctx, a.sub)
	default:
		// Not known whether it was recorded: the next claim of the family finds out.
		if a.lane.held != nil {
			a.lane.held.value.snapshot = nil
		}
		a.sub.err = o.Err
	}
}

// recorded moves the held family's snapshot on by what was just recorded.
func (s *Service) recorded(a *attempt) {
	if a.lane.held == nil {
		return
	}
	f := &a.lane.held.value
	if am := a.ruling.adjusted; am != nil {
		f.snapshot = am.after
		for _, c := range am.claims {
			s.watch.tell(c.state.Received.GetClaimId())
		}
	}
	if a.ruling.posted == nil {
		return
	}
	var err error
	if f.snapshot, err = a.ruling.read.post(uint64(a.ruling.read.Revision+1), a.ruling.posted, a.ruling.history); err != nil {
		f.snapshot = nil
	}
}

// settleAfter goes on with what the claim's commit could not hold. Where that
// fails, whoever next decides for the family does it.
func (s *Service) settleAfter(ctx context.Context, a *attempt) {
	if a.ruling.adjusted == nil || a.ruling.adjusted.after.unsettled == "" {
		return
	}
	if _, err := s.settleFamily(ctx, a.lane.held, a.sub.payer); err != nil {
		s.log.WarnContext(ctx, "a family is not settled yet", "claim", a.sub.claimID, "error", err)
	}
}

// answer is the response to a claim that was just decided.
func (s *Service) answer(a *attempt, done eventstore.Appended) *claimsv1.SubmitClaimResponse {
	s.watch.tell(a.sub.claimID)
	state := NewState()
	for i, e := range a.events {
		state = Evolve(state, eventstore.Recorded{Position: done.Position, Revision: uint64(i), Event: e, RecordedTime: done.RecordedTime})
	}
	summary := state.Summary()
	if a.ruling.adjusted == nil && Final(a.ruling.decided.GetStatus()) {
		// What is on the ledger was encoded before; nobody else holds these events.
		s.recent.put(state.Received, state.Decided, done.Position)
	}
	return &claimsv1.SubmitClaimResponse{Claim: summary, Decision: a.ruling.decision, Token: done.Token, Promise: done.Promise}
}

// answerAgain is the response to a claim that was decided before: as it
// stands now, if it is the same claim, and a refusal if it is another.
func (s *Service) answerAgain(ctx context.Context, sub *submission) (*claimsv1.SubmitClaimResponse, error) {
	state, _, err := s.readClaim(ctx, sub.claimID, 1)
	if err != nil {
		if problem.Is(err, problem.NotFound) {
			return nil, busy(err)
		}
		return nil, err
	}
	first, err := s.openClaim(ctx, state)
	if err != nil {
		return nil, err
	}
	if !proto.Equal(first, sub.claim()) {
		return nil, keyReused()
	}
	decision, err := s.openDecision(ctx, state)
	if err != nil {
		return nil, err
	}
	return &claimsv1.SubmitClaimResponse{Claim: state.Summary(), Decision: decision, Token: state.DecidedAt.Token(), Replayed: true}, nil
}

func keyReused() error {
	return problem.New(problem.Conflict, problem.Problem{
		RuleID:    "claims.request.reused",
		FieldPath: "request_id",
		Message:   "this request id brought another claim before; the claim now sent differs from it",
		Fix:       "send a new claim under a new request id; correct a decided claim by a replacement (frequency code 7)",
	})
}

// preview is the response to a claim that is only looked at.
func (s *Service) preview(sub *submission, d *claimsv1.Decision) *claimsv1.SubmitClaimResponse {
	c := summaryOfReceived(&eventsv1.ClaimReceived{
		PayerId: sub.payer, SubmitterOrg: sub.org, BillingNpi: sub.claim().GetBillingProvider().GetNpi(), Subject: sub.subject,
		ChargeCents: sub.claim().GetChargeCents(), FileId: sub.request.GetFileId(), FileOrdinal: sub.request.GetFileOrdinal(),
		ReceivedTime: timestamppb.New(sub.received),
	})
	c.Status, c.AllowedCents, c.PaidCents, c.PatientCents = d.GetStatus(), d.GetAllowedCents(), d.GetPaidCents(), d.GetPatientCents()
	c.Codes, c.DuplicateOf, c.PendReasons = codesOf(d), d.GetDuplicateOf(), d.GetPendReasons()
	c.NextActor = nextActor(c)
	return &claimsv1.SubmitClaimResponse{Claim: c, Decision: d}
}

// openClaim unseals the claim as submitted.
func (s *Service) openClaim(ctx context.Context, state State) (*claimsv1.Claim, error) {
	at := keys.Place{Tenant: state.Received.GetPayerId(), Stream: claimStream(state.Received.GetClaimId()), Revision: 0, Field: fieldClaim}
	out := &claimsv1.Claim{}
	return out, s.open(ctx, at, state.Received.GetClaim(), out)
}

// openDecision unseals the last decision.
func (s *Service) openDecision(ctx context.Context, state State) (*claimsv1.Decision, error) {
	at := keys.Place{Tenant: state.Received.GetPayerId(), Stream: claimStream(state.Received.GetClaimId()), Revision: state.DecidedRevision, Field: fieldDecision}
	out := &claimsv1.Decision{}
	return out, s.open(ctx, at, state.Decided.GetDecision(), out)
}

func failAll(subs []*submission, err error) {
	for _, sub := range subs {
		if !sub.done() {
			sub.err = err
		}
	}
}

// inParallel calls do for 0 … n-1 by at most workers goroutines and waits for all.
func inParallel(n, workers int, do func(int)) {
	if workers = min(n, max(workers, runtime.GOMAXPROCS(0))); workers <= 1 {
		for i := range n {
			do(i)
		}
		return
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	wg.Wait()
}
