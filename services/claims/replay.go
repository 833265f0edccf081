package claims

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
)

// A recorded decision can be made again from the ledger alone: the claim and
// a review from its stream, the family's accumulators up to the revision that
// the decision names, the reference data from the policies log up to where
// the decision names it. The engine is pure, so the outcome is the same to
// the bit, or something is not what it was.

// replayer makes decisions anew for one call. It is not safe for concurrent use.
type replayer struct {
	service *Service
	past    *past
	// families are snapshots by subscriber, any revision each; a guess that
	// saves reading, never an answer.
	families map[string]*Ledgered
}

// replayFamilies bounds the snapshots that one replay holds.
const replayFamilies = 50_000

// remade is a decision made anew and what follows from it.
type remade struct {
	decision *claimsv1.Decision
	history  *eventsv1.ServiceHistory
	posted   *eventsv1.AccumulatorsPosted // nil: nothing is posted
	read     *Ledgered
}

// decision replays the last event of events, a ClaimDecided, of which events
// are the claim's stream from its beginning. posted is what the same commit
// added to the accumulators, nil when it added nothing. An error means that
// the replay could not be made, not that it came out otherwise.
func (r *replayer) decision(ctx context.Context, events []eventstore.Recorded, posted *eventstore.Recorded) (*claimsv1.ReplayedDecision, error) {
	at := events[len(events)-1]
	recorded, ok := at.Event.(*eventsv1.ClaimDecided)
	if !ok {
		return nil, defect("claims.replay.event", "what is to be replayed is not a decision")
	}
	out := &claimsv1.ReplayedDecision{
		ClaimId: recorded.GetClaimId(), Position: positionProto(at.Position), Revision: at.Revision,
		RecordedSha256: recorded.GetDecisionSha256(), Versions: recorded.GetVersions(),
	}
	if recorded.GetVersions().GetEngine() != adjudication.EngineVersion {
		out.Verdict = claimsv1.ReplayVerdict_REPLAY_VERDICT_OTHER_ENGINE
		return out, nil
	}
	before := Fold(events[:len(events)-1])
	anew, err := r.remake(ctx, before, recorded.GetVersions(), enginePends(recorded.GetPendReasons()), recorded.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED)
	if errors.Is(err, keys.ErrDestroyed) {
		out.Verdict = claimsv1.ReplayVerdict_REPLAY_VERDICT_ERASED
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	encoded, err := encode(anew.decision)
	if err != nil {
		return nil, err
	}
	out.ReplayedSha256 = decisionHash(encoded)
	d := &differ{}
	if err := r.compare(ctx, d, Evolve(before, at), recorded, anew, posted); err != nil {
		return nil, err
	}
	if !bytes.Equal(out.ReplayedSha256, recorded.GetDecisionSha256()) && len(d.found) == 0 {
		// The sealed decision is the same and its hash isn't.
		d.add("decision_sha256", "another hash", "the decision's")
	}
	out.Verdict, out.Differences = claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL, d.found
	if len(d.found) > 0 {
		out.Verdict = claimsv1.ReplayVerdict_REPLAY_VERDICT_DIFFERENT
		return out, nil
	}
	r.remember(before.Received.GetSubscriber(), anew, posted)
	return out, nil
}

// remake decides again as the decision with these versions was decided; voids
// says that it is one that took its original back and decided nothing itself.
func (r *replayer) remake(ctx context.Context, before State, v *claimsv1.Versions, reasons []adjudication.PendReason, voids bool) (*remade, error) {
	s := r.service
	claim, err := s.openAnswered(ctx, before)
	if err != nil {
		return nil, err
	}
	received, err := adjudication.ParseDate(v.GetReceivedDate())
	if err != nil {
		return nil, defect("claims.replay.received", "a decision names no readable day of receipt")
	}
	subscriber, payer := before.Received.GetSubscriber(), before.Received.GetPayerId()
	sub := &submission{request: &claimsv1.SubmitClaimRequest{Claim: claim}, original: v.GetOriginalClaimId()}
	if voids {
		// It read no reference data.
		sub.input.Claim.ReceivedDate = received
	} else if sub.input, err = r.past.lookup(ctx, v.GetReference(), claim, subscriber, received); err != nil {
		return nil, err
	}
	// What the view said of the providers' days stands in the doubts it raised.
	sub.input.RecallProviderDays(reasons)
	read := nothingLedgered()
	matched := sub.input.Member.Match == adjudication.MatchOne
	if matched || sub.adjusts() {
		if read, err = r.family(ctx, payer, subscriber, v.GetAccumulatorsRevision()); err != nil {
			return nil, err
		}
	}
	d, decision := voided(sub, read)
	if !voids {
		var view *Ledgered
		if view, err = read.view(v.AccumulatorsBefore, sub.original); err != nil { //nolint:protogetter // absent isn't 0
			return nil, err
		}
		d, decision = rule(sub, view, before.Review)
	}
	out := &remade{decision: decision, read: read}
	if matched && !voids && decision.GetStatus() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		out.history = historyOf(before.Received.GetClaimId(), sub.input.Member.Subject, sub.input.Claim, d)
		out.posted = postedEvent(before.Received.GetClaimId(), sub.input.Member.Subject, decision, out.history)
		out.posted.UnsettledFrom = read.unsettled
	}
	return out, nil
}

// compare notes where the decision made anew differs from what is recorded:
// the decision itself, what is told of it in clear, and what it posted.
func (r *replayer) compare(ctx context.Context, d *differ, state State, recorded *eventsv1.ClaimDecided, anew *remade, posted *eventstore.Recorded) error {
	first, err := r.service.openDecision(ctx, state)
	if err != nil {
		return err
	}
	d.messages("decision", first.ProtoReflect(), anew.decision.ProtoReflect())

	again := proto.CloneOf(recorded)
	again.Status, again.Versions = anew.decision.GetStatus(), anew.decision.GetVersions()
	again.ChargeCents, again.AllowedCents = anew.decision.GetChargeCents(), anew.decision.GetAllowedCents()
	again.PaidCents, again.PatientCents = anew.decision.GetPaidCents(), anew.decision.GetPatientCents()
	again.Codes, again.DuplicateOf, again.PendReasons = codesOf(anew.decision), anew.decision.GetDuplicateOf(), anew.decision.GetPendReasons()
	d.messages("decided", recorded.ProtoReflect(), again.ProtoReflect())

	was := &eventsv1.AccumulatorsPosted{}
	history := &eventsv1.ServiceHistory{}
	if posted != nil {
		e, ok := posted.Event.(*eventsv1.AccumulatorsPosted)
		if !ok {
			return defect("claims.accumulators.event", "an accumulators' stream holds another kind of event")
		}
		was = proto.CloneOf(e)
		// The commit was accepted at one revision only: the one it says it read.
		if next := recorded.GetVersions().GetAccumulatorsRevision() + 1; int64(posted.Revision) != next {
			d.add("posted.revision", strconv.FormatUint(posted.Revision, 10), strconv.FormatInt(next, 10))
		}
		opened, err := r.service.families.open(ctx, state.Received.GetPayerId(), posted.Stream, posted.Revision, e)
		if err != nil {
			return err
		}
		if opened != nil {
			history = opened
		}
	}
	was.History = nil
	now := anew.posted
	if now == nil {
		now = &eventsv1.AccumulatorsPosted{}
	}
	d.messages("posted", was.ProtoReflect(), now.ProtoReflect())
	lines := anew.history
	if lines == nil {
		lines = &eventsv1.ServiceHistory{}
	}
	d.messages("history", history.ProtoReflect(), lines.ProtoReflect())
	return nil
}

// family is the family's accumulators at a revision; -1 is none.
func (r *replayer) family(ctx context.Context, tenant, subscriber string, revision int64) (*Ledgered, error) {
	have := r.families[subscriber]
	if have == nil || have.Revision > revision {
		have = nothingLedgered()
	}
	if have.Revision < revision {
		events, err := readAtLeast(ctx, r.service.store, familyKey(subscriber), accumulatorStream(subscriber), have.Revision, revision)
		if err != nil {
			return nil, err
		}
		if have, err = r.service.families.fold(ctx, have, tenant, events[:revision-have.Revision]); err != nil {
			return nil, err
		}
	}
	r.keep(subscriber, have)
	return have, nil
}

// remember moves the family's snapshot on by what was just found as recorded.
func (r *replayer) remember(subscriber string, anew *remade, posted *eventstore.Recorded) {
	if posted == nil || anew.posted == nil || anew.read.Revision+1 != int64(posted.Revision) {
		return
	}
	if next, err := anew.read.post(posted.Revision, anew.posted, anew.history); err == nil {
		r.keep(subscriber, next)
	}
}

func (r *replayer) keep(subscriber string, l *Ledgered) {
	if len(r.families) >= replayFamilies {
		clear(r.families)
	}
	r.families[subscriber] = l
}

// claim replays every decision of a claim's stream, in order.
func (r *replayer) claim(ctx context.Context, events []eventstore.Recorded, each func(*claimsv1.ReplayedDecision) error) error {
	for i, at := range events {
		decided, ok := at.Event.(*eventsv1.ClaimDecided)
		if !ok {
			continue
		}
		posted, err := r.postedWith(ctx, Fold(events[:i]).Received, decided, at.Position)
		if err != nil {
			return err
		}
		out, err := r.decision(ctx, events[:i+1], posted)
		if err != nil {
			return err
		}
		if err := each(out); err != nil {
			return err
		}
	}
	return nil
}

// postedWith finds what the claim's decision in the commit at a position added
// to the family's accumulators.
func (r *replayer) postedWith(ctx context.Context, received *eventsv1.ClaimReceived, decided *eventsv1.ClaimDecided, at eventstore.Position) (*eventstore.Recorded, error) {
	after := decided.GetVersions().GetAccumulatorsRevision()
	events, err := r.service.store.Read(ctx, logName, familyKey(received.GetSubscriber()), accumulatorStream(received.GetSubscriber()), uint64(after+1))
	if err != nil {
		return nil, err
	}
	return postedIn(events, at, decided.GetClaimId()), nil
}

// postedIn finds among events what a claim's decision in the commit at a
// position added to the family's accumulators; nil when it added nothing.
func postedIn(events []eventstore.Recorded, at eventstore.Position, claim string) *eventstore.Recorded {
	i := slices.IndexFunc(events, func(r eventstore.Recorded) bool {
		e, ok := r.Event.(*eventsv1.AccumulatorsPosted)
		return ok && r.Position == at && e.GetClaimId() == claim && !e.GetReversal()
	})
	if i < 0 {
		return nil
	}
	return &events[i]
}
