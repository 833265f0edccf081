package claims

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/claims/casework"
	"github.com/probity-health/probity/services/claims/interest"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/money"
	"github.com/probity-health/probity/services/problem"
)

// State is one claim as its stream tells it. The zero State is a claim that
// doesn't exist.
//
//	Received ── Decided(paid|denied) ── Remitted
//	      └──── Decided(pended) ── Reviewed+Decided ──┘
//	Decided ── Reversed+Decided: the decision was made again
//	Decided ── Reversed: another claim voided or replaced it; an end
//	Remitted ── RemittanceVoided: its payment failed, and it is told again
//
// Every decision is told to the provider at most once, and so is the reversal
// of every decision that was told: Told is where the provider's books stand,
// standing is where they should. What a voided remittance told counts as not told.
type State struct {
	Received *eventsv1.ClaimReceived
	Decided  *eventsv1.ClaimDecided  // the last decision
	Reversed *eventsv1.ClaimReversed // by a void or replacement; nil when it stands
	Remitted *eventsv1.ClaimRemitted // the last; nil where that is void

	Revision         int64  // of the last event; -1 when there is none
	DecidedRevision  uint64 // where Decided stands: its place when it was sealed
	ReversedRevision uint64
	RemittedRevision uint64
	DecidedAt        eventstore.Position
	Reviews          map[string]bool     // commits' request ids of the reviews
	Review           adjudication.Review // the answer that the last decision was made with

	Told        *eventsv1.ClaimDecided    // the decision that the last remittance told; nil when none, or its reversal
	ToldAt      uint64                    // its revision
	Interest    int64                     // told so far, US cents
	FirstTold   *eventsv1.ClaimRemitted   // the first remittance
	Unclean     bool                      // waited for its provider once: no interest is owed on it
	Corrections []*eventsv1.ClaimReversed // taken back for another decision of the claim
	Reaffirmed  *eventsv1.ClaimReaffirmed // decided again under other documents, with the same outcome; nil when it wasn't

	Case    casework.State  // the work that is done on it
	Answers []sealedAnswer  // what it lacked and has come since, in order
	Handled map[string]bool // commits' request ids, or keys, of the work
	// Righted: a decision was overturned on appeal; what it then paid more had
	// been owed all along. RightedTold is the first remittance that told so.
	Righted     bool
	RightedTold *eventsv1.ClaimRemitted

	marks    map[string]*eventsv1.ClaimRemitted // by remittance, void ones too
	voided   map[string]bool                    // remittances of marks
	tellings []telling                          // in order; the last is never void
}

// telling is a step from what the provider was told before to what it was told then.
type telling struct {
	mark *eventsv1.ClaimRemitted // that told it, or told it again
	told *eventsv1.ClaimDecided  // the provider's books afterwards, as in State.Told
	at   uint64
	void bool // and later tellings build on it: it must be told again
	// righted: what it told came after a decision was overturned.
	righted bool
}

// Command is something asked of a claim.
type Command interface{ isCommand() }

// Receive brings a new claim in together with its first decision: a claim is
// never on the ledger undecided.
type Receive struct {
	Received *eventsv1.ClaimReceived
	Decided  *eventsv1.ClaimDecided
}

// Review gives a reviewer's answer and the decision that follows from it.
type Review struct {
	Reviewed *eventsv1.ClaimReviewed
	Decided  *eventsv1.ClaimDecided
}

// Reverse takes the decision back for good: a void or replacement is decided
// in the same commit.
type Reverse struct{ Reversed *eventsv1.ClaimReversed }

// Redecide takes the decision back and puts another in its place. A pended
// claim has nothing to take back: then Reversed is nil.
type Redecide struct {
	Reversed *eventsv1.ClaimReversed
	Decided  *eventsv1.ClaimDecided
}

// Remit puts what there is to tell of a claim into a remittance.
type Remit struct {
	RemittanceID string
	PaymentDate  string // ISO 8601; interest is reckoned to it
	Rates        interest.Rates
}

// VoidTelling takes back what a remittance told of a claim: its payment failed.
type VoidTelling struct{ RemittanceID string }

func (Receive) isCommand()     {}
func (Review) isCommand()      {}
func (Reverse) isCommand()     {}
func (Redecide) isCommand()    {}
func (Remit) isCommand()       {}
func (VoidTelling) isCommand() {}

// NewState is the claim that doesn't exist yet.
func NewState() State { return State{Revision: eventstore.NoStream} }

// Exists tells whether anything is recorded of the claim.
func (s State) Exists() bool { return s.Received != nil }

// Status is how the claim stands.
func (s State) Status() claimsv1.ClaimStatus {
	switch {
	case s.Decided == nil:
		return claimsv1.ClaimStatus_CLAIM_STATUS_UNSPECIFIED
	case s.Reversed != nil:
		return claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED
	}
	return s.Decided.GetStatus()
}

// read is what the decision that stands would be made with: what it read, or
// what it was reaffirmed with since.
func (s State) read() *claimsv1.Versions {
	if s.Reaffirmed != nil {
		return s.Reaffirmed.GetVersions()
	}
	return s.Decided.GetVersions()
}

// decidedFinally tells whether a decision stands that pays or denies.
func (s State) decidedFinally() bool {
	st := s.Status()
	return st == claimsv1.ClaimStatus_CLAIM_STATUS_PAID || st == claimsv1.ClaimStatus_CLAIM_STATUS_DENIED
}

// Final tells whether a status is an end: nothing waits for anybody.
func Final(s claimsv1.ClaimStatus) bool {
	switch s {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED:
		return true
	}
	return false
}

// Decide answers a command with the events that follow from it, or refuses.
// Refusals are Conflict where the claim stands elsewhere than the caller
// believed and Internal where the command itself can't be true, which keeps a
// defect in front of the ledger rather than on it.
func Decide(s State, c Command) ([]proto.Message, error) {
	switch c := c.(type) {
	case Receive:
		if s.Exists() {
			return nil, conflict("claims.received", "the claim was received before")
		}
		if err := soundDecision(c.Received.GetClaimId(), c.Received.GetChargeCents(), c.Decided); err != nil {
			return nil, err
		}
		return []proto.Message{c.Received, c.Decided}, nil
	case Review:
		if !s.Exists() {
			return nil, notFound("claim")
		}
		if s.Status() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
			return nil, conflict("claims.review.not-pended", "the claim is not waiting for a review; it is "+statusWord(s.Status()))
		}
		if err := soundDecision(s.Received.GetClaimId(), s.Received.GetChargeCents(), c.Decided); err != nil {
			return nil, err
		}
		return []proto.Message{c.Reviewed, c.Decided}, nil
	case Reverse:
		if err := s.reversible(c.Reversed); err != nil {
			return nil, err
		}
		return []proto.Message{c.Reversed}, nil
	case Redecide:
		return s.redecide(c)
	case Remit:
		return s.remit(c)
	case VoidTelling:
		return s.voidTelling(c.RemittanceID)
	}
	return nil, defect("claims.command", "unknown command")
}

// reversible refuses to take back what doesn't stand.
func (s State) reversible(r *eventsv1.ClaimReversed) error {
	switch {
	case !s.Exists():
		return notFound("claim")
	case !s.decidedFinally():
		return conflict("claims.reverse.not-final", "only a paid or denied claim is reversed; this one is "+statusWord(s.Status()))
	case r.GetClaimId() != s.Received.GetClaimId() || r.GetDecisionRevision() != s.DecidedRevision ||
		r.GetPaidCents() != s.Decided.GetPaidCents() || r.GetPatientCents() != s.Decided.GetPatientCents() || r.GetRemitted() != (s.Told != nil):
		return defect("claims.reverse.other", "a reversal of another decision than the one that stands")
	}
	return nil
}

func (s State) redecide(c Redecide) ([]proto.Message, error) {
	if !s.Exists() {
		return nil, notFound("claim")
	}
	if err := soundDecision(s.Received.GetClaimId(), s.Received.GetChargeCents(), c.Decided); err != nil {
		return nil, err
	}
	if c.Reversed == nil {
		if s.Status() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
			return nil, conflict("claims.redecide.not-pended", "a decision that stands is taken back before another is made; the claim is "+statusWord(s.Status()))
		}
		return []proto.Message{c.Decided}, nil
	}
	if err := s.reversible(c.Reversed); err != nil {
		return nil, err
	}
	if st := c.Decided.GetStatus(); st != claimsv1.ClaimStatus_CLAIM_STATUS_PAID && st != claimsv1.ClaimStatus_CLAIM_STATUS_DENIED {
		return nil, defect("claims.redecide.status", "a decision is only taken back for another that pays or denies")
	}
	return []proto.Message{c.Reversed, c.Decided}, nil
}

// remit tells the provider what it hasn't been told: that the decision it
// knows is reversed, what stands now, or both.
func (s State) remit(c Remit) ([]proto.Message, error) {
	if !s.Exists() {
		return nil, notFound("claim")
	}
	e := &eventsv1.ClaimRemitted{
		ClaimId: s.Received.GetClaimId(), RemittanceId: c.RemittanceID,
		PayerId: s.Received.GetPayerId(), SubmitterOrg: s.Received.GetSubmitterOrg(), PaymentDate: c.PaymentDate,
	}
	stands := s.decidedFinally()
	settled := (stands && s.Told != nil && s.ToldAt == s.DecidedRevision) || (!stands && s.Told == nil)
	if again := s.toTellAgain(); len(again) > 0 {
		m := again[0].mark
		e.ReversedRevision, e.DecisionRevision, e.PaidCents, e.InterestCents = m.GetReversedRevision(), m.GetDecisionRevision(), m.GetPaidCents(), m.GetInterestCents()
		e.RetellsRemittanceId, e.More = m.GetRemittanceId(), len(again) > 1 || !settled
		return []proto.Message{e}, nil
	}
	switch {
	case stands && s.Told != nil && s.ToldAt == s.DecidedRevision:
		return nil, conflict("claims.remit.twice", "the claim is in a remittance already")
	case !stands && s.Told == nil:
		return nil, conflict("claims.remit.not-final", "only a paid or denied claim is remitted, or the reversal of one that was; this one is "+statusWord(s.Status()))
	}
	if s.Told != nil {
		e.ReversedRevision = s.ToldAt
		e.PaidCents -= s.Told.GetPaidCents()
	}
	if stands {
		e.DecisionRevision = s.DecidedRevision
		e.PaidCents += s.Decided.GetPaidCents()
	}
	e.InterestCents = s.interestOwed(c, stands) - s.Interest
	return []proto.Message{e}, nil
}

// toTellAgain are the tellings that are void and that later ones build on.
func (s State) toTellAgain() []telling {
	var out []telling
	for _, t := range s.tellings {
		if t.void {
			out = append(out, t)
		}
	}
	return out
}

func (s State) voidTelling(remittance string) ([]proto.Message, error) {
	switch {
	case !s.Exists():
		return nil, notFound("claim")
	case s.marks[remittance] == nil:
		return nil, defect("claims.void-telling.unmarked", "the remittance told nothing of this claim")
	case s.voided[remittance]:
		return nil, conflict("claims.void-telling.twice", "what the remittance told of the claim was taken back before")
	}
	return []proto.Message{&eventsv1.ClaimRemittanceVoided{
		ClaimId: s.Received.GetClaimId(), RemittanceId: remittance, PayerId: s.Received.GetPayerId(),
		Superseded: s.Remitted.GetRemittanceId() != remittance,
	}}, nil
}

// interestOwed is the interest that belongs to what stands of the claim. It
// is owed on what the first remittance paid, as late as that was; what a
// correction adds was never late, unless it was denied wrongly, which an
// appeal has shown; and of what a correction takes away the interest goes with
// it.
func (s State) interestOwed(c Remit, stands bool) int64 {
	if !stands || s.Unclean {
		return 0
	}
	owed := func(paid int64, on string) int64 {
		return int64(c.Rates.Owed(s.Decided.GetPromptPayState(), money.Cents(paid), interest.DaysLate(s.Decided.GetPromptPayDueDate(), on)))
	}
	paid, on := s.Decided.GetPaidCents(), c.PaymentDate
	if s.FirstTold == nil {
		return owed(paid, on)
	}
	first := min(paid, s.FirstTold.GetPaidCents())
	out := owed(first, s.FirstTold.GetPaymentDate())
	if s.Righted {
		if s.RightedTold != nil {
			on = s.RightedTold.GetPaymentDate()
		}
		out += owed(paid-first, on)
	}
	return out
}

// soundDecision checks what must hold of every decision whatever the engine
// did: the cents are within the charge, and a denial pays nothing.
func soundDecision(claim string, charge int64, d *eventsv1.ClaimDecided) error {
	switch {
	case d.GetClaimId() != claim:
		return defect("claims.decision.claim", "a decision for another claim")
	case d.GetChargeCents() != charge:
		return defect("claims.decision.charge", "the decision's charge is not the claim's")
	case d.GetPaidCents() < 0 || d.GetPatientCents() < 0 || d.GetPaidCents() > charge || d.GetAllowedCents() > charge:
		return defect("claims.decision.range", "an amount of the decision is outside the charge")
	}
	switch d.GetStatus() {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID:
	case claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, claimsv1.ClaimStatus_CLAIM_STATUS_PENDED, claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED:
		if d.GetPaidCents() != 0 {
			return defect("claims.decision.paid", "a claim that is not paid has a payment")
		}
	default:
		return defect("claims.decision.status", "a decision is paid, denied or pended, that of a void reversed")
	}
	return nil
}

// Evolve applies one recorded event. Events that are not a claim's are ignored.
func Evolve(s State, r eventstore.Recorded) State {
	s = s.worked(r)
	switch e := r.Event.(type) {
	case *eventsv1.ClaimReceived:
		s.Received = e
	case *eventsv1.ClaimDecided:
		s.Decided, s.DecidedRevision, s.DecidedAt, s.Reaffirmed = e, r.Revision, r.Position, nil
		s.Unclean = s.Unclean || (e.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED && waitsForProvider(e.GetPendReasons()))
	case *eventsv1.ClaimReversed:
		s.ReversedRevision = r.Revision
		if endsClaim(e) {
			s.Reversed = e
		} else {
			s.Corrections = append(s.Corrections[:len(s.Corrections):len(s.Corrections)], e)
		}
	case *eventsv1.ClaimReaffirmed:
		s.Reaffirmed = e
	case *eventsv1.ClaimReviewed:
		s.Review = adjudication.Review{Resolution: adjudication.Approved, Reasons: enginePends(s.Decided.GetPendReasons())}
		if e.GetResolution() == "deny" {
			s.Review.Resolution = adjudication.Refused
		}
		s.Reviews = marked(s.Reviews, r.RequestID)
	case *eventsv1.ClaimRemitted:
		s = s.tell(e, r.Revision)
	case *eventsv1.ClaimRemittanceVoided:
		s = s.untell(e, r.Revision)
	}
	s.Revision = int64(r.Revision)
	return s
}

// tell applies a mark. A State's slices and maps are never changed in place:
// States of one claim share them.
func (s State) tell(e *eventsv1.ClaimRemitted, revision uint64) State {
	s.Remitted, s.RemittedRevision = e, revision
	marks := maps.Clone(s.marks)
	if marks == nil {
		marks = map[string]*eventsv1.ClaimRemitted{}
	}
	marks[e.GetRemittanceId()] = e
	s.marks, s.tellings = marks, slices.Clone(s.tellings)
	if i := slices.IndexFunc(s.tellings, func(t telling) bool {
		return t.void && e.GetRetellsRemittanceId() != "" && t.mark.GetRemittanceId() == e.GetRetellsRemittanceId()
	}); i >= 0 {
		s.tellings[i].mark, s.tellings[i].void = e, false
		return s.booked()
	}
	t := telling{mark: e, righted: s.Righted}
	// An event from before reversals were told names no revision at all.
	if e.GetDecisionRevision() != 0 || e.GetReversedRevision() == 0 {
		t.told, t.at = s.Decided, s.DecidedRevision
	}
	s.tellings = append(s.tellings, t)
	return s.booked()
}

// untell applies that a remittance is void. What it told last is as if never
// told; what others build on stays in its place until it is told again.
func (s State) untell(e *eventsv1.ClaimRemittanceVoided, revision uint64) State {
	voided := maps.Clone(s.voided)
	if voided == nil {
		voided = map[string]bool{}
	}
	voided[e.GetRemittanceId()] = true
	s.voided, s.tellings = voided, slices.Clone(s.tellings)
	for i := range s.tellings {
		if s.tellings[i].mark.GetRemittanceId() == e.GetRemittanceId() {
			s.tellings[i].void = true
		}
	}
	for n := len(s.tellings); n > 0 && s.tellings[n-1].void; n-- {
		s.tellings = s.tellings[:n-1]
	}
	if !e.GetSuperseded() {
		s.Remitted, s.RemittedRevision = nil, revision
	}
	return s.booked()
}

// booked draws the provider's books from the tellings.
func (s State) booked() State {
	s.Told, s.ToldAt, s.Interest, s.FirstTold, s.RightedTold = nil, 0, 0, nil, nil
	for _, t := range s.tellings {
		s.Told, s.ToldAt = t.told, t.at
		if t.void {
			continue
		}
		s.Interest += t.mark.GetInterestCents()
		if s.FirstTold == nil {
			s.FirstTold = t.mark
		}
		if t.righted && s.RightedTold == nil {
			s.RightedTold = t.mark
		}
	}
	return s
}

// Fold is Evolve over a stream from its beginning.
func Fold(events []eventstore.Recorded) State {
	s := NewState()
	for _, r := range events {
		s = Evolve(s, r)
	}
	return s
}

// Summary is what a list shows of the claim. It is nil when there is none.
func (s State) Summary() *claimsv1.ClaimSummary {
	if !s.Exists() {
		return nil
	}
	parts := []*claimsv1.ClaimSummary{summaryOfReceived(s.Received)}
	if s.Decided != nil {
		parts = append(parts, summaryOfDecided(s.Decided, s.DecidedAt, s.DecidedRevision))
	}
	if s.Reversed != nil {
		parts = append(parts, summaryOfReversed(s.ReversedRevision))
	}
	if next := s.Case.NextActor(); next != "" {
		parts = append(parts, &claimsv1.ClaimSummary{NextActor: next})
	}
	// A remittance from before the last reversal told something else.
	if s.RemittedRevision > s.ReversedRevision {
		parts = append(parts, summaryOfRemitted(s.Remitted, s.RemittedRevision))
	}
	return joinSummary(parts...)
}

// The summary is made of one part an event, each replacing the part of the
// event before it of the same kind. The stream's state and the read model
// join the same parts, so they can't differ.

func summaryOfReceived(e *eventsv1.ClaimReceived) *claimsv1.ClaimSummary {
	return &claimsv1.ClaimSummary{
		ClaimId:      e.GetClaimId(),
		PayerId:      e.GetPayerId(),
		SubmitterOrg: e.GetSubmitterOrg(),
		BillingNpi:   e.GetBillingNpi(),
		MemberHash:   e.GetSubject(),
		Status:       claimsv1.ClaimStatus_CLAIM_STATUS_RECEIVED,
		ChargeCents:  e.GetChargeCents(),
		FileId:       e.GetFileId(),
		FileOrdinal:  e.GetFileOrdinal(),
		ReceivedTime: e.GetReceivedTime(),
	}
}

func summaryOfDecided(e *eventsv1.ClaimDecided, at eventstore.Position, revision uint64) *claimsv1.ClaimSummary {
	return &claimsv1.ClaimSummary{
		Status:       e.GetStatus(),
		AllowedCents: e.GetAllowedCents(),
		PaidCents:    e.GetPaidCents(),
		PatientCents: e.GetPatientCents(),
		Codes:        e.GetCodes(),
		DecidedTime:  e.GetDecidedTime(),
		Position:     positionProto(at),
		Etag:         strconv.FormatUint(revision, 10),
		DuplicateOf:  e.GetDuplicateOf(),
		PendReasons:  e.GetPendReasons(),
	}
}

func summaryOfReversed(revision uint64) *claimsv1.ClaimSummary {
	return &claimsv1.ClaimSummary{Status: claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED, Etag: strconv.FormatUint(revision, 10)}
}

func summaryOfRemitted(e *eventsv1.ClaimRemitted, revision uint64) *claimsv1.ClaimSummary {
	return &claimsv1.ClaimSummary{RemittanceId: e.GetRemittanceId(), Etag: strconv.FormatUint(revision, 10)}
}

// joinSummary makes the first of the parts, which are the caller's, into the whole.
func joinSummary(parts ...*claimsv1.ClaimSummary) *claimsv1.ClaimSummary {
	out := &claimsv1.ClaimSummary{}
	if len(parts) > 0 {
		out, parts = parts[0], parts[1:]
	}
	for _, p := range parts {
		proto.Merge(out, p)
	}
	standingAmounts(out)
	out.NextActor = nextActor(out)
	return out
}

// standingAmounts leaves out what a reversed claim once paid: nothing of it stands.
func standingAmounts(c *claimsv1.ClaimSummary) {
	if c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED {
		c.AllowedCents, c.PaidCents, c.PatientCents = 0, 0, 0
	}
}

// endsClaim tells a void's or replacement's reversal from one that another
// decision of the same claim follows.
func endsClaim(e *eventsv1.ClaimReversed) bool {
	r := e.GetReason()
	return r == eventsv1.ReversalReason_REVERSAL_REASON_VOIDED || r == eventsv1.ReversalReason_REVERSAL_REASON_REPLACED
}

// nextActor says who must act next. A pended claim is the provider's move
// only when everything it waits for is the provider's to send.
func nextActor(c *claimsv1.ClaimSummary) string {
	switch c.GetStatus() {
	case claimsv1.ClaimStatus_CLAIM_STATUS_RECEIVED:
		return "payer"
	case claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		if told := c.GetNextActor(); told != "" {
			return told
		}
		if waitsForProvider(c.GetPendReasons()) {
			return "provider"
		}
		return "payer"
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED:
		switch {
		case c.GetRemittanceId() == "":
			return "payer"
		case c.GetPatientCents() > 0:
			return "patient"
		}
	}
	return "none"
}

// waitsForProvider: everything it waits for is the provider's to send.
func waitsForProvider(reasons []*claimsv1.PendReason) bool {
	return !slices.ContainsFunc(reasons, func(r *claimsv1.PendReason) bool { return r.GetCarc() != carcDocumentNeeded })
}

// carcDocumentNeeded is CARC 252: an attachment is required to adjudicate.
const carcDocumentNeeded = "252"

// Timeline tells the claim's history in plain words. A review is its
// reviewer's, whichever service handed it in.
func Timeline(events []eventstore.Recorded) []*claimsv1.TimelineEntry {
	var out []*claimsv1.TimelineEntry
	for _, r := range events {
		when, who := r.RecordedTime, r.Actor
		var text string
		switch e := r.Event.(type) {
		case *eventsv1.ClaimReceived:
			if text = "Received"; e.GetFileId() != "" {
				text = fmt.Sprintf("Received as claim %d of file %s", e.GetFileOrdinal()+1, e.GetFileId())
			}
		case *eventsv1.ClaimDecided:
			text, when = decidedText(e), timeOf(e.GetDecidedTime(), when)
		case *eventsv1.ClaimReviewed:
			text, when = "Reviewed: "+e.GetResolution(), timeOf(e.GetReviewedTime(), when)
			if e.GetReviewer() != "" {
				who = e.GetReviewer()
			}
		case *eventsv1.ClaimRemitted:
			text = remittedText(e)
		case *eventsv1.ClaimRemittanceVoided:
			text = fmt.Sprintf("Remittance %s is void: its payment failed", e.GetRemittanceId())
		case *eventsv1.ClaimReversed:
			text, when = reversedText(e), timeOf(e.GetReversedTime(), when)
		case *eventsv1.ClaimReaffirmed:
			text = "Decided again under other documents with the same outcome"
		default:
			if text, who = workText(e, who); text == "" {
				continue
			}
		}
		name := string(r.Event.ProtoReflect().Descriptor().Name())
		out = append(out, &claimsv1.TimelineEntry{
			Time: timestamppb.New(when), Event: name, Actor: who, Position: positionProto(r.Position), Text: text,
		})
	}
	return out
}

func remittedText(e *eventsv1.ClaimRemitted) string {
	switch {
	case e.GetRetellsRemittanceId() != "":
		return fmt.Sprintf("Put into remittance %s with %s, in place of the void %s", e.GetRemittanceId(), dollars(e.GetPaidCents()), e.GetRetellsRemittanceId())
	case e.GetDecisionRevision() == 0:
		return fmt.Sprintf("Reversal of %s put into remittance %s", dollars(-e.GetPaidCents()), e.GetRemittanceId())
	case e.GetReversedRevision() != 0:
		return fmt.Sprintf("Reversal and new decision put into remittance %s, a difference of %s", e.GetRemittanceId(), dollars(e.GetPaidCents()))
	}
	return fmt.Sprintf("Put into remittance %s with %s paid", e.GetRemittanceId(), dollars(e.GetPaidCents()))
}

func reversedText(e *eventsv1.ClaimReversed) string {
	var why string
	switch e.GetReason() {
	case eventsv1.ReversalReason_REVERSAL_REASON_VOIDED:
		why = "voided by claim " + e.GetByClaimId()
	case eventsv1.ReversalReason_REVERSAL_REASON_REPLACED:
		why = "replaced by claim " + e.GetByClaimId()
	case eventsv1.ReversalReason_REVERSAL_REASON_ACCUMULATORS_MOVED:
		why = "an earlier claim of the family was adjusted"
		if e.GetByClaimId() != "" {
			why += " by claim " + e.GetByClaimId()
		}
	default:
		why = "decided again"
		if e.GetCause() != "" {
			why += " because of " + strings.ReplaceAll(e.GetCause(), "-", " ")
		}
	}
	return fmt.Sprintf("Reversed %s: %s", dollars(e.GetPaidCents()), why)
}

func decidedText(e *eventsv1.ClaimDecided) string {
	var b strings.Builder
	switch e.GetStatus() {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID:
		fmt.Fprintf(&b, "Paid %s of %s; the patient owes %s", dollars(e.GetPaidCents()), dollars(e.GetChargeCents()), dollars(e.GetPatientCents()))
	case claimsv1.ClaimStatus_CLAIM_STATUS_DENIED:
		b.WriteString("Denied")
		if e.GetVersions().GetOriginalStands() {
			b.WriteString(": too late to replace " + e.GetVersions().GetOriginalClaimId() + ", which stands")
		}
	case claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED:
		b.WriteString("Voided claim " + e.GetVersions().GetOriginalClaimId())
	case claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		b.WriteString("Waiting")
		for i, r := range e.GetPendReasons() {
			b.WriteString([]string{" for ", ", "}[min(i, 1)] + r.GetRuleId())
		}
		if due := e.GetPromptPayDueDate(); due != "" {
			b.WriteString("; due by " + due)
		}
		return b.String()
	}
	if len(e.GetCodes()) > 0 {
		b.WriteString(" (" + strings.Join(e.GetCodes(), ", ") + ")")
	}
	return b.String()
}

func timeOf(t *timestamppb.Timestamp, otherwise time.Time) time.Time {
	if t == nil {
		return otherwise
	}
	return t.AsTime()
}

func positionProto(p eventstore.Position) *ledgerv1.Position {
	return &ledgerv1.Position{Log: p.Log, Shard: p.Shard, Index: p.Index}
}

func statusWord(s claimsv1.ClaimStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "CLAIM_STATUS_"))
}

func conflict(rule, message string) error {
	return problem.New(problem.Conflict, problem.Problem{RuleID: rule, Message: message, Fix: "read the claim again and decide from how it stands now"})
}

func notFound(what string) error {
	return problem.New(problem.NotFound, problem.Problem{
		RuleID:  "claims." + what + ".unknown",
		Message: "there is no such " + what + ", or it is not yours to see",
		Fix:     "check the id and the account you are signed in with",
	})
}

func defect(rule, message string) error {
	return problem.New(problem.Internal, problem.Problem{RuleID: rule, Message: message, Fix: "nothing was recorded; give the request id to the operator"})
}
