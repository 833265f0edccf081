package claims

import (
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// What was decided is adjusted in one of three ways: another claim voids it
// (CLM05-3 = 8), another claim replaces it (7), or it is decided again because
// what it read has changed. Each takes the decision back in full and gives
// back what it used of the accumulators. The family's later claims had read
// those accumulators; each of them is decided again at its own place in the
// family's order, and where its outcome is another, that decision is taken back
// too. All of it is one commit, so that no claim is ever decided on a family
// that is half adjusted; where it is too much for one commit, the accumulators'
// stream says so and whoever next decides for the family completes it first.

// Bounds of what one commit amends, below the ledger's 100 streams and 900 KiB
// with room for the claim that asks for it.
const (
	maxAmendClaims = 90
	amendBytes     = 400 << 10
)

const (
	frequencyReplacement = "7"
	frequencyVoid        = "8"
)

// adjusts tells whether the claim is about an earlier one.
func (sub *submission) adjusts() bool {
	f := sub.claim().GetFrequencyCode()
	return f == frequencyReplacement || f == frequencyVoid
}

// revisions are what conflicts have said of streams: a read must be at least there.
type revisions map[string]int64

func (r revisions) note(c *eventstore.ConflictError) revisions {
	if r == nil {
		r = revisions{}
	}
	r[c.Stream] = c.Actual
	return r
}

func (r revisions) atLeast(stream string) int64 {
	if at, ok := r[stream]; ok {
		return at
	}
	return eventstore.NoStream
}

// amendment is what one commit takes back and decides again.
type amendment struct {
	found, after *Ledgered       // the family before and after it
	posted       []proto.Message // accumulators' events from found to after
	claims       []amended
	waiting      []amended // would pend now, and are left as they stand
	bytes        int
	cause        cause // of what is touched; the rest follows because accumulators moved
	lead         *lead // facts that go before one claim's new decision; nil for none
	unbounded    bool  // it will not be recorded
	all          bool  // something changed before it: every claim is decided again
}

// amended is one claim of an amendment: as it stood, and what is recorded of it.
type amended struct {
	state    State
	events   []proto.Message
	decision *claimsv1.Decision // that takes its decision's place; nil for a void or replacement's original
	// reaffirmed: its decision stands, under other documents.
	reaffirmed bool
}

// cause is why something is decided again.
type cause struct {
	reason eventsv1.ReversalReason
	by     string // claim
	run    string
	word   string
}

func (am *amendment) claimWrites() []eventstore.Write {
	out := make([]eventstore.Write, len(am.claims))
	for i, c := range am.claims {
		out[i] = eventstore.Write{Stream: claimStream(c.state.Received.GetClaimId()), Expected: c.state.Revision, Events: c.events}
	}
	return out
}

// post moves the family on by one event.
func (am *amendment) post(e *eventsv1.AccumulatorsPosted, history *eventsv1.ServiceHistory) error {
	next, err := am.after.post(uint64(am.after.Revision+1), e, history)
	if err != nil {
		return err
	}
	am.after = next
	am.posted = append(am.posted, e)
	am.bytes += proto.Size(e)
	return nil
}

// giveBack posts the negative of what a claim has posted, if anything stands
// of it. A family that is read as it was before the claim posted is a conflict:
// to reverse the claim and give nothing back would charge the family for ever.
func (am *amendment) giveBack(state State, unsettledFrom string) error {
	id := state.Received.GetClaimId()
	at := am.after.standingOf(id)
	if posted, ok := state.postedAt(); ok && posted > am.found.Revision {
		return &eventstore.ConflictError{Stream: accumulatorStream(state.Received.GetSubscriber()), Actual: posted}
	}
	if at < 0 || !am.after.claims[at].live {
		return nil
	}
	e := &eventsv1.AccumulatorsPosted{ClaimId: id, Subject: state.Received.GetSubject(), Reversal: true, UnsettledFrom: unsettledFrom}
	for _, p := range am.after.claims[at].postings {
		p.Amount = -p.Amount
		e.Postings = append(e.Postings, postingProto(p))
	}
	return am.post(e, nil)
}

// postedAt is the revision of the family's accumulators at which a standing
// decision posted; false where it was of nobody's member and posted nothing.
func (s State) postedAt() (int64, bool) {
	v := s.Decided.GetVersions()
	return v.GetAccumulatorsRevision() + 1, s.decidedFinally() && v.GetCoverage() != ""
}

// reversal is the event that takes a claim's standing decision back.
func (s *Service) reversal(state State, c cause) *eventsv1.ClaimReversed {
	return &eventsv1.ClaimReversed{
		ClaimId:          state.Received.GetClaimId(),
		DecisionRevision: state.DecidedRevision,
		Reason:           c.reason,
		ByClaimId:        c.by,
		Status:           state.Decided.GetStatus(),
		PaidCents:        state.Decided.GetPaidCents(),
		PatientCents:     state.Decided.GetPatientCents(),
		ReversedTime:     timestamppb.New(s.now()),
		PayerId:          state.Received.GetPayerId(),
		SubmitterOrg:     state.Received.GetSubmitterOrg(),
		Remitted:         state.Told != nil,
		RunId:            c.run,
		ProviderDayKeys:  providerDayKeys(state.Decided),
		Cause:            c.word,
	}
}

// ruleAmending is ruleSealed for any claim: for one that replaces or voids
// another, the ruling takes the other back with it. refused, not nil, says why
// the claim can't do what it asks for; nothing is then to be recorded.
func (s *Service) ruleAmending(ctx context.Context, sub *submission, read *Ledgered, review adjudication.Review, revision uint64, moved revisions) (r ruling, refused []problem.Problem, err error) {
	sub.original = ""
	preview := sub.request.GetValidateOnly()
	if sub.adjusts() {
		original, refusal, err := s.originalOf(ctx, sub, moved)
		if err != nil || refusal != nil {
			return r, refusal, err
		}
		kept := sub.claim().GetFrequencyCode() == frequencyVoid && review.Resolution == adjudication.Refused
		if original.decidedFinally() && !kept {
			sub.original = original.Received.GetClaimId()
			r, err = s.ruleOnOriginal(ctx, sub, original, read, review, revision, moved)
			return r, nil, err
		}
	}
	if preview {
		_, d := s.ruleWatched(ctx, sub, read, review)
		return ruling{decision: d, read: read}, nil, nil
	}
	d, decision := s.ruleWatched(ctx, sub, read, review)
	r, err = s.seal(ctx, sub, read, d, decision, revision)
	return r, nil, err
}

// ruleOnOriginal decides a claim that takes its original's place.
func (s *Service) ruleOnOriginal(ctx context.Context, sub *submission, original State, read *Ledgered, review adjudication.Review, revision uint64, moved revisions) (ruling, error) {
	if posted, ok := original.postedAt(); ok && posted > read.Revision {
		// On a family as it was before the original, it would be doubted for nothing.
		return ruling{}, &eventstore.ConflictError{Stream: accumulatorStream(sub.subscriber), Actual: posted}
	}
	without, err := read.view(nil, sub.original)
	if err != nil {
		return ruling{}, err
	}
	voids := sub.claim().GetFrequencyCode() == frequencyVoid
	_, first := voided(sub, read)
	if !voids {
		var d adjudication.Decision
		if d, first = rule(sub, without, review); first.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED && !sub.request.GetValidateOnly() {
			// Until the replacement is decided, its original stands.
			return s.seal(ctx, sub, without, d, first, revision)
		}
		if first.GetVersions().GetOriginalStands() && !sub.request.GetValidateOnly() {
			// Too late: it is denied beside its original, and posts after it.
			return s.seal(ctx, sub, read, d, first, revision)
		}
	}
	if sub.request.GetValidateOnly() {
		return ruling{decision: first, read: without}, nil
	}
	why := cause{reason: eventsv1.ReversalReason_REVERSAL_REASON_REPLACED, by: sub.claimID}
	if voids {
		why.reason = eventsv1.ReversalReason_REVERSAL_REASON_VOIDED
	}
	for _, cascade := range []bool{true, false} {
		am, err := s.takeBack(ctx, original, read, why, cascade, moved)
		if err != nil {
			return ruling{}, err
		}
		d, decision := voided(sub, am.after)
		if !voids {
			d, decision = rule(sub, am.after, review)
		}
		if cascade && decision.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
			// On the family as adjusted there is a doubt that there wasn't before:
			// the later claims are then settled after this one.
			continue
		}
		out, err := s.seal(ctx, sub, am.after, d, decision, revision)
		out.adjusted = am
		return out, err
	}
	return ruling{}, defect("claims.adjust.pended", "a replacement is decided and pended on the same accumulators")
}

// voided is the decision of a claim that voids another: nothing of its own is
// adjudicated.
func voided(sub *submission, read *Ledgered) (adjudication.Decision, *claimsv1.Decision) {
	return adjudication.Decision{}, &claimsv1.Decision{
		Status: claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED, ChargeCents: sub.claim().GetChargeCents(),
		Versions: &claimsv1.Versions{
			Engine: adjudication.EngineVersion, AccumulatorsRevision: read.Revision,
			ReceivedDate: sub.input.Claim.ReceivedDate.String(), OriginalClaimId: sub.original,
		},
	}
}

// originalOf is the claim that a replacement or void is about. A claim that
// the sender may not touch is refused like one that doesn't exist.
func (s *Service) originalOf(ctx context.Context, sub *submission, moved revisions) (State, []problem.Problem, error) {
	// X12's basic character set has capitals only, and some senders keep to it.
	id := strings.ToLower(strings.TrimSpace(sub.claim().GetOriginalClaimNumber()))
	unknown := refusedOriginal("claims.original.unknown", "the claim to be replaced or voided is not known for this member and sender",
		"send the payer's claim number as the remittance or acknowledgement gave it (REF*F8)")
	if !isID("clm", id) || claimKey(id) != familyKey(sub.subscriber) || id == sub.claimID {
		return State{}, unknown, nil
	}
	original, _, err := s.readClaim(ctx, id, moved.atLeast(claimStream(id)))
	if problem.Is(err, problem.NotFound) {
		return State{}, unknown, nil
	}
	if err != nil {
		return State{}, nil, err
	}
	first := original.Received
	switch {
	case first.GetSubscriber() != sub.subscriber || first.GetPayerId() != sub.payer || first.GetSubmitterOrg() != sub.org:
		return State{}, unknown, nil
	case first.GetSubject() != sub.subject:
		return State{}, refusedOriginal("claims.original.patient", "the claim to be replaced or voided is for another patient of the family",
			"void it under its own patient and send a new claim"), nil
	case first.GetBillingNpi() != sub.claim().GetBillingProvider().GetNpi():
		return State{}, refusedOriginal("claims.original.provider", "the claim to be replaced or voided has another billing provider",
			"void it under its own billing provider and send a new claim"), nil
	case original.Reversed != nil:
		fix := "there is nothing left to adjust; send a new claim (frequency code 1) where one is due"
		if original.Reversed.GetReason() == eventsv1.ReversalReason_REVERSAL_REASON_REPLACED {
			fix = "replace or void its replacement, " + original.Reversed.GetByClaimId() + ", instead"
		}
		return State{}, refusedOriginal("claims.original.reversed", "the claim to be replaced or voided was replaced or voided before", fix), nil
	case original.Decided.GetVersions().GetOriginalStands():
		return State{}, refusedOriginal("claims.original.late", "the claim to be replaced or voided came too late to replace another, which stands",
			"replace or void "+original.Decided.GetVersions().GetOriginalClaimId()+" instead, within its plan's filing limit"), nil
	case original.Status() == claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED:
		return State{}, refusedOriginal("claims.original.void", "the claim to be replaced or voided is itself a void", "name the claim that is meant"), nil
	}
	return original, nil, nil
}

// refusedOriginal is a refusal for the claim number in REF*F8. 277CA status
// 464 is the payer assigned claim control number.
func refusedOriginal(rule, message, fix string) []problem.Problem {
	return []problem.Problem{{RuleID: rule, FieldPath: "claim.original_claim_number", Code: invalid + ":464", Message: message, Fix: fix}}
}

// takeBack makes the amendment that reverses a claim for good and, with
// cascade, decides the family's later claims again. Without, or where they are
// too many for one commit, the family is left unsettled.
func (s *Service) takeBack(ctx context.Context, original State, read *Ledgered, why cause, cascade bool, moved revisions) (*amendment, error) {
	later := read.claimsAfter(original.Received.GetClaimId())
	take := func(unsettledFrom string) (*amendment, error) {
		am := &amendment{found: read, after: read, cause: why}
		events, err := Decide(original, Reverse{Reversed: s.reversal(original, why)})
		if err != nil {
			return nil, err
		}
		am.claims = append(am.claims, amended{state: original, events: events})
		return am, am.giveBack(original, unsettledFrom)
	}
	if !cascade && len(later) > 0 {
		return take(later[0])
	}
	am, err := take("")
	if err != nil {
		return nil, err
	}
	rest, err := s.redecideAll(ctx, am, later, nothingTouched, moved)
	if err != nil {
		return nil, err
	}
	if rest != "" {
		return take(later[0])
	}
	return am, nil
}

// claimsAfter are the claims that stand after one in the family's order; with
// an empty claim all that stand.
func (l *Ledgered) claimsAfter(claim string) []string {
	var out []string
	for _, c := range l.claims[l.standingOf(claim)+1:] {
		if c.live {
			out = append(out, c.claim)
		}
	}
	return out
}

// redecideAll decides claims of a family again, in its order: those that are
// touched, and every one after a claim whose outcome has changed. When the
// commit is full it returns the claim to go on with.
func (s *Service) redecideAll(ctx context.Context, am *amendment, ids []string, touched func(string) bool, moved revisions) (rest string, err error) {
	changed := am.all || am.found != am.after
	for _, id := range ids {
		if !changed && !touched(id) {
			continue
		}
		why := am.cause
		if !touched(id) {
			why.reason = eventsv1.ReversalReason_REVERSAL_REASON_ACCUMULATORS_MOVED
		}
		if !am.unbounded && (len(am.claims) >= s.config.AmendClaims || am.bytes >= amendBytes) {
			return id, nil
		}
		did, err := s.redecide(ctx, am, id, why, moved)
		if err != nil {
			return "", err
		}
		changed = changed || did
	}
	return "", nil
}

// redecide decides a claim again at its place and, where the outcome is
// another, adds that to the amendment.
func (s *Service) redecide(ctx context.Context, am *amendment, id string, why cause, moved revisions) (changed bool, err error) {
	state, _, err := s.readClaim(ctx, id, moved.atLeast(claimStream(id)))
	if err != nil {
		return false, err
	}
	if !state.decidedFinally() && state.Status() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		return false, nil // a void, or taken back for good
	}
	led, facts, err := am.lead.put(ctx, state)
	if err != nil {
		return false, err
	}
	sub, err := s.resubmission(ctx, led)
	if err != nil {
		// An erased person's claim can't be read any more, and stands as it is.
		if problem.Is(err, problem.NotFound) && facts == nil {
			return false, nil
		}
		return false, err
	}
	if !state.decidedFinally() && sub.adjusts() {
		return false, nil // its original must go with it: see reask
	}
	was, err := s.openDecision(ctx, state)
	if err != nil {
		return false, err
	}
	sub.original = was.GetVersions().GetOriginalClaimId()
	var before *int64
	if at := am.after.standingOf(id); at >= 0 {
		before = &am.after.claims[at].place
	}
	// Who is no member now has no accumulators, but for what the claim replaces.
	viewed := func() (*Ledgered, error) {
		if !sub.matched && !sub.adjusts() {
			return nothingLedgered(), nil
		}
		return am.after.view(before, sub.original)
	}
	view, err := viewed()
	if err != nil {
		return false, err
	}
	// What waits may wait for a doubt that only the view raises.
	decide := rule
	if !state.decidedFinally() {
		decide = func(sub *submission, read *Ledgered, review adjudication.Review) (adjudication.Decision, *claimsv1.Decision) {
			return s.ruleWatched(ctx, sub, read, review)
		}
	}
	_, now := decide(sub, view, led.Review)
	// Whether its original stands can't be undone with it: a person must void and send anew.
	turned := was.GetVersions().GetOriginalStands() != now.GetVersions().GetOriginalStands()
	same := !turned && sameOutcome(was, now)
	waits := turned || (!same && now.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED && state.decidedFinally())
	if same && facts == nil && state.decidedFinally() && !sameDocuments(state.read(), now.GetVersions()) {
		am.reaffirm(state, why, now.GetVersions(), uncontracted(sub, now.GetVersions()))
	}
	if waits {
		// A person must look at it first; until then what was decided stands.
		am.waiting = append(am.waiting, amended{state: state, decision: now})
	}
	if same || waits {
		return false, am.keep(state, facts, was, now)
	}
	size := len(am.posted)
	revision, command := uint64(led.Revision+1), Redecide{}
	if state.decidedFinally() {
		if err := am.giveBack(state, am.after.unsettled); err != nil {
			return false, err
		}
		command.Reversed = s.reversal(state, why)
		revision++
	}
	if view, err = viewed(); err != nil {
		return false, err
	}
	r, err := s.ruleSealed(ctx, sub, view, led.Review, revision)
	if err != nil {
		return false, err
	}
	command.Decided = r.decided
	decided, err := Decide(led, command)
	if err != nil {
		return false, err
	}
	events := append(facts, decided...)
	if r.posted != nil {
		if err := am.post(r.posted, r.history); err != nil {
			return false, err
		}
	}
	for _, e := range events {
		am.bytes += proto.Size(e)
	}
	am.claims = append(am.claims, amended{state: state, events: events, decision: r.decision})
	return len(am.posted) > size, nil
}

// reaffirm adds that a decision stands under other documents than it read.
func (am *amendment) reaffirm(state State, why cause, v *claimsv1.Versions, uncontracted []string) {
	e := &eventsv1.ClaimReaffirmed{
		ClaimId: state.Received.GetClaimId(), PayerId: state.Received.GetPayerId(), DecisionRevision: state.DecidedRevision,
		Versions: v, UncontractedNpis: uncontracted, RunId: why.run, Cause: why.word,
	}
	am.bytes += proto.Size(e)
	am.claims = append(am.claims, amended{state: state, events: []proto.Message{e}, reaffirmed: true})
}

// sameDocuments tells whether two decisions read the same documents, in
// whatever versions.
func sameDocuments(a, b *claimsv1.Versions) bool {
	return slices.EqualFunc(readLists(a), readLists(b), func(a, b string) bool { return documentsOf(a) == documentsOf(b) })
}

// documentsOf are the ids of a list of versions: "plan_gold@3,plan_gold@4" is plan_gold.
func documentsOf(list string) string {
	var ids []string
	for ref := range strings.SplitSeq(list, ",") {
		id, _, _ := strings.Cut(ref, "@")
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return strings.Join(slices.Compact(ids), ",")
}

func nothingTouched(string) bool { return false }

// sameOutcome compares what two decisions do, not what they read or how they
// explain their figures.
func sameOutcome(a, b *claimsv1.Decision) bool {
	bare := func(d *claimsv1.Decision) *claimsv1.Decision {
		d = proto.CloneOf(d)
		d.Versions = nil
		for _, l := range d.GetLines() {
			for _, adj := range l.GetAdjustments() {
				adj.Facts = nil
			}
		}
		return d
	}
	return proto.Equal(bare(a), bare(b))
}

// resubmission is a recorded claim on its way to another decision, with what
// has been learnt of it since it came.
func (s *Service) resubmission(ctx context.Context, state State) (*submission, error) {
	claim, err := s.openAnswered(ctx, state)
	if err != nil {
		return nil, err
	}
	first := state.Received
	sub := &submission{
		request:    &claimsv1.SubmitClaimRequest{Claim: claim, FileId: first.GetFileId(), FileOrdinal: first.GetFileOrdinal(), Paper: first.GetPaper()},
		clock:      state.Case.Clock,
		org:        first.GetSubmitterOrg(),
		received:   first.GetReceivedTime().AsTime(),
		claimID:    first.GetClaimId(),
		payer:      first.GetPayerId(),
		subscriber: first.GetSubscriber(),
		subject:    first.GetSubject(),
	}
	if sub.input, err = s.reference.lookup(ctx, claim, sub.subscriber, s.day(sub.received)); err != nil {
		return nil, err
	}
	if sub.matched = sub.input.Member.Match == adjudication.MatchOne; sub.matched {
		sub.subject = sub.input.Member.Subject
	}
	return sub, nil
}

// settleFamily completes an adjustment that didn't fit one commit, and returns
// the family as it then stands. The caller holds it.
func (s *Service) settleFamily(ctx context.Context, held *entry[family], payer string) (*Ledgered, error) {
	var moved revisions
	atLeast := eventstore.NoStream
	for range maxSettling {
		read, err := s.families.load(ctx, held, payer, atLeast)
		if err != nil || read.unsettled == "" {
			return read, err
		}
		at := max(read.standingOf(read.unsettled), 0)
		var ids []string
		for _, c := range read.claims[at:] {
			if c.live {
				ids = append(ids, c.claim)
			}
		}
		am := &amendment{found: read, after: read, all: true}
		rest, err := s.redecideAll(ctx, am, ids, nothingTouched, moved)
		if behind, ok := errors.AsType[*eventstore.ConflictError](err); ok {
			atLeast = behind.Actual
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := am.post(&eventsv1.AccumulatorsPosted{UnsettledFrom: rest}, nil); err != nil {
			return nil, err
		}
		switch err := s.appendAmendment(ctx, held, am, s.index.ID("stl", held.key, itoa(uint32(read.Revision))), settler); {
		case err == nil:
		case errors.As(err, new(*eventstore.ConflictError)):
			var conflict *eventstore.ConflictError
			errors.As(err, &conflict)
			if conflict.Stream == accumulatorStream(held.key) {
				atLeast = conflict.Actual
			}
			moved = moved.note(conflict)
		default:
			return nil, err
		}
	}
	return nil, busy(nil)
}

const (
	// maxSettling is how many commits one call appends to settle a family.
	maxSettling = 64
	// settler is the actor of what nobody asked for by itself.
	settler = "settling"
)

// appendAmendment records an amendment that no claim's own decision goes with.
// The held family moves on by it; where that can't be known it is read again.
func (s *Service) appendAmendment(ctx context.Context, held *entry[family], am *amendment, requestID, actor string) error {
	writes := am.claimWrites()
	if len(am.posted) > 0 {
		writes = append(writes, eventstore.Write{Stream: accumulatorStream(held.key), Expected: am.found.Revision, Events: am.posted})
	}
	if len(writes) == 0 {
		return nil
	}
	_, err := s.store.Append(ctx, eventstore.Commit{
		Log: logName, RoutingKey: familyKey(held.key), RequestID: requestID, Causation: am.cause.run, Actor: actor, Writes: writes,
	})
	if err != nil {
		held.value.snapshot = nil
		if moved, ok := asMoved(err, accumulatorStream(held.key), am.found.Revision+int64(len(am.posted))); ok {
			return moved
		}
		return err
	}
	held.value.snapshot = am.after
	for _, c := range am.claims {
		s.watch.tell(c.state.Received.GetClaimId())
	}
	return nil
}

// amendedIDs are the claims whose decisions an amendment takes back, in order.
func (am *amendment) amendedIDs() []string {
	out := make([]string, 0, len(am.claims))
	for _, c := range am.claims {
		out = append(out, c.state.Received.GetClaimId())
	}
	return slices.Clip(out)
}
