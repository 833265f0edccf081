package claims

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
)

// What the words of ReprocessClaimsRequest.cause are for changes that the
// policies log tells by itself.
const (
	causeTermination   = "termination"
	causeEnrollment    = "enrollment"
	causeReinstatement = "reinstatement"
	causePlan          = "plan"
	causeFeeSchedule   = "fee-schedule"
	causeContract      = "contract"
	causeNetwork       = "network"
	causeOtherPayer    = "other-payer"
	causeAuthorization = "prior-authorization"
	// causeChanges is a decision so far behind the policies log that nobody
	// kept what it had not seen.
	causeChanges = "changes"
)

// change is a commit of the policies log as something that decided claims may
// have needed to know. What it touches is a superset, never too few: deciding
// again finds out which decisions it moves.
//
// Tables of claim edits are no change in this sense. CMS has its contractors
// reopen claims for a late edit only where a provider asks; whoever wants it
// names the claims. A provider's standing only raises doubts, and a doubt
// takes no decision back.
type change struct {
	id    string
	at    eventstore.Position
	payer string
	cause string

	// Either a family, and of its placed claims those of one person (empty: of
	// all, because the number of its persons has changed) …
	subscriber, subject string
	// … or a version of a document, and with it the versions whose readers it
	// touches, and the providers whom no contract listed.
	version string
	refs    []string
	npis    []string
}

// followedChanges are the event types that a change is made of.
func followedChanges() []string {
	return typeNames(
		&eventsv1.PlanPublished{}, &eventsv1.FeeSchedulePublished{}, &eventsv1.ContractPublished{}, &eventsv1.NetworkPublished{},
		&eventsv1.MemberEnrolled{}, &eventsv1.MemberTerminated{}, &eventsv1.MemberReinstated{}, &eventsv1.MemberChanged{},
		&eventsv1.PriorAuthorizationRecorded{},
	)
}

// changesOf are the changes of a batch, one a commit, in the batch's order.
// The book has applied the batch.
func (s *Service) changesOf(events []eventstore.Recorded) []change {
	var out []change
	for i, r := range events {
		if i > 0 && r.Position == events[i-1].Position {
			// A commit has one stream: its later events refine what the first began.
			if n := len(out) - 1; n >= 0 && out[n].at == r.Position {
				if more, ok := s.changeOf(r); ok && more.cause != out[n].cause {
					out[n].cause = causeEnrollment
					if more.cause == causeOtherPayer {
						out[n].cause = causeOtherPayer
					}
				}
				continue
			}
		}
		if c, ok := s.changeOf(r); ok {
			out = append(out, c)
		}
	}
	return out
}

func (s *Service) changeOf(r eventstore.Recorded) (change, bool) {
	c := change{at: r.Position, id: s.changeID(r.Position)}
	switch e := r.Event.(type) {
	case *eventsv1.PlanPublished:
		c.payer, c.cause = e.GetPlan().GetPayerId(), causePlan
		if !c.document(s.book, e.GetPlan().GetPlanId(), e.GetVersion()) {
			return change{}, false
		}
	case *eventsv1.FeeSchedulePublished:
		c.payer, c.cause = e.GetFeeSchedule().GetPayerId(), causeFeeSchedule
		if !c.document(s.book, e.GetFeeSchedule().GetFeeScheduleId(), e.GetVersion()) {
			return change{}, false
		}
	case *eventsv1.ContractPublished:
		d := e.GetContract()
		c.payer, c.cause, c.npis = d.GetPayerId(), causeContract, d.GetNpis()
		if !c.document(s.book, d.GetContractId(), e.GetVersion()) {
			return change{}, false
		}
		// It may rank before the contracts that were read, or govern days on
		// which they don't.
		c.refs = append(c.refs, s.book.ContractRefs(c.payer, c.npis, d.GetContractId())...)
	case *eventsv1.NetworkPublished:
		// A decision names every version it looked in, also where it found nobody.
		c.payer, c.cause = e.GetNetwork().GetPayerId(), causeNetwork
		if !c.document(s.book, e.GetNetwork().GetNetworkId(), e.GetVersion()) {
			return change{}, false
		}
	case *eventsv1.MemberEnrolled:
		c.subscriber, c.subject, c.payer, c.cause = e.GetSubscriber(), e.GetSubject(), e.GetPayerId(), causeEnrollment
		if otherPayerLearned(s.book.MemberAt(e.GetSubject(), r.Revision), e) {
			c.cause = causeOtherPayer
		}
		if r.Revision == 0 {
			c.subject = "" // one person more: what is a family's may have become one
		}
	case *eventsv1.MemberTerminated:
		c.subscriber, c.subject, c.cause = e.GetSubscriber(), e.GetSubject(), causeTermination
	case *eventsv1.MemberReinstated:
		c.subscriber, c.subject, c.cause = e.GetSubscriber(), e.GetSubject(), causeReinstatement
	case *eventsv1.MemberChanged:
		c.subscriber, c.subject, c.cause = e.GetSubscriber(), e.GetSubject(), causeEnrollment
	case *eventsv1.PriorAuthorizationRecorded:
		c.subject, c.payer, c.cause = e.GetSubject(), e.GetPayerId(), causeAuthorization
	default:
		return change{}, false
	}
	if c.version == "" {
		m := s.book.MemberAt(personOf(r.Event), latest)
		if m == nil {
			return change{}, false // nobody's: nothing was decided for them
		}
		c.payer, c.subscriber = m.PayerID, m.Subscriber
	}
	return c, true
}

func personOf(event any) string {
	if e, ok := event.(interface{ GetSubject() string }); ok {
		return e.GetSubject()
	}
	return ""
}

func (s *Service) changeID(p eventstore.Position) string {
	return s.index.ID("chg", p.Log, itoa(p.Shard), strconv.FormatUint(p.Index, 10))
}

// document says which version it is and what it supersedes; false for one that
// governs only days to come, for which nothing is decided yet.
func (c *change) document(b *book.Book, id string, version uint32) bool {
	var retroactive bool
	c.version = policies.Ref(id, version)
	c.refs, retroactive = b.Superseded(id, version)
	return retroactive
}

// otherPayerLearned tells whether an enrolment says anew who pays first for
// days that the person was covered on.
func otherPayerLearned(m *policies.Member, e *eventsv1.MemberEnrolled) bool {
	if m == nil || m.Before == nil {
		return false
	}
	return slices.ContainsFunc(m.Before.Spans, func(was policies.Span) bool {
		return was.PolicyID == e.GetPolicyId() && was.OtherPayerPrimary != e.GetOtherPayerPrimary() && was.Period.Overlaps(policies.PeriodOf(e.GetCoverage()))
	})
}

// touches tells whether a decision may need to know of the change.
func (c *change) touches(e *eventsv1.ClaimDecided) bool {
	if c.version == "" {
		return e.GetSubscriber() == c.subscriber
	}
	if e.GetPayerId() != c.payer {
		return false
	}
	for _, list := range readLists(e.GetVersions()) {
		for ref := range strings.SplitSeq(list, ",") {
			if ref != "" && slices.Contains(c.refs, ref) {
				return true
			}
		}
	}
	return slices.ContainsFunc(e.GetUncontractedNpis(), func(npi string) bool { return slices.Contains(c.npis, npi) }) ||
		c.cause != causeContract && wantsDocument(e.GetPendReasons())
}

// unseenBy tells whether a decision that had read so much of the policies log
// had not read the change.
func (c *change) unseenBy(next map[uint32]uint64) bool { return c.at.Index >= next[c.at.Shard] }

// readLists are the versions that a decision read, as lists.
func readLists(v *claimsv1.Versions) []string {
	return []string{v.GetPlan(), v.GetContract(), v.GetFeeSchedule(), v.GetNetwork()}
}

// wantsDocument tells whether a claim waits because no version of a plan, fee
// schedule or network governs its days.
func wantsDocument(reasons []*claimsv1.PendReason) bool {
	return slices.ContainsFunc(reasons, func(r *claimsv1.PendReason) bool {
		return r.GetRuleId() == "eligibility.no_plan" || r.GetRuleId() == "price.no_fee_schedule" || r.GetRuleId() == "network.no_version"
	})
}

// proto is the change as it is recorded, with what it moved.
func (c *change) proto(state claimsv1.ChangeState, m *movement, run string) *claimsv1.Change {
	return &claimsv1.Change{
		ChangeId: c.id, PayerId: c.payer, Position: c.at.Token(), Cause: c.cause, Version: c.version, Subscriber: c.subscriber,
		State: state, RunId: run, Corrections: m.corrections, Waiting: m.waiting,
		PaidDifferenceCents: m.paid, PatientDifferenceCents: m.patient, WaitingClaimIds: m.waitingIDs,
	}
}

// movement is what deciding again has changed, added up.
type movement struct {
	corrections, waiting uint32
	paid, patient        int64 // US cents
	waitingIDs           []string
	shown                []*claimsv1.Correction // the first, for a dry run
	failed               int                    // families that could not be decided again
	more                 bool                   // stopped at the limit
}

const (
	maxWaitingTold     = 100
	maxCorrectionsTold = 500
)

func (m *movement) add(r *claimsv1.ReprocessClaimsResponse) {
	for _, c := range r.GetCorrections() {
		m.corrections++
		m.paid += c.GetPaidAfterCents() - c.GetPaidBeforeCents()
		m.patient += c.GetPatientAfterCents() - c.GetPatientBeforeCents()
		if len(m.shown) < maxCorrectionsTold {
			m.shown = append(m.shown, c)
		}
	}
	for _, w := range r.GetWaiting() {
		m.waiting++
		if len(m.waitingIDs) < maxWaitingTold {
			m.waitingIDs = append(m.waitingIDs, w.GetClaimId())
		}
	}
}

func (m *movement) moved() bool { return m.corrections > 0 || m.waiting > 0 }

// apply decides again what a change touches: all of it, or the claims named.
// A family that can't be decided again by a cause that waiting doesn't mend
// is left and counted; any other error ends it, and it may be called again.
// limit bounds how many claims are looked at; 0 is no bound.
func (s *Service) apply(ctx context.Context, c *change, named []string, dryRun bool, limit int) (*movement, error) {
	out := &movement{}
	if named != nil {
		return out, s.applyTo(ctx, c, named, dryRun, out)
	}
	if c.version == "" {
		ids, err := s.familyTouched(ctx, c)
		if err != nil || len(ids) == 0 {
			return out, err
		}
		return out, s.applyTo(ctx, c, ids, dryRun, out)
	}
	looked, token := 0, ""
	for {
		ids, next, err := s.documentTouched(ctx, c, token)
		if err != nil {
			return nil, err
		}
		if err := s.applyTo(ctx, c, ids, dryRun, out); err != nil {
			return nil, err
		}
		looked += len(ids)
		if token = next; token == "" {
			return out, nil
		}
		if limit > 0 && looked >= limit {
			out.more = true
			return out, nil
		}
	}
}

// applyTo decides named claims again, family by family.
func (s *Service) applyTo(ctx context.Context, c *change, ids []string, dryRun bool, out *movement) error {
	states, err := s.readUnsealed(ctx, ids)
	if err != nil {
		return err
	}
	families := map[string][]State{}
	for _, st := range states {
		if !s.touchedBy(c, st) {
			continue
		}
		families[st.Received.GetSubscriber()] = append(families[st.Received.GetSubscriber()], st)
	}
	order := make([]string, 0, len(families))
	for subscriber := range families {
		order = append(order, subscriber)
	}
	slices.Sort(order)
	for _, subscriber := range order {
		r := reprocessing{
			service: s, subscriber: subscriber, actor: changesActor, dryRun: dryRun,
			cause: cause{reason: eventsv1.ReversalReason_REVERSAL_REASON_REPROCESSED, run: s.changeRun(c), word: c.cause},
		}
		got := &claimsv1.ReprocessClaimsResponse{}
		err := r.run(ctx, families[subscriber], got)
		switch {
		case err == nil:
			out.add(got)
		case ctx.Err() != nil || problem.As(err).Retryable():
			return err
		default:
			out.failed++
			s.log.ErrorContext(ctx, "a change could not be applied to a family; its claims stand as they were", "change", c.id, "claim", families[subscriber][0].Received.GetClaimId(), "error", err)
		}
	}
	return nil
}

// touchedBy leaves out of what a change's lists name the decisions that had
// read it, and of a family those of persons whose own coverage is as it was:
// they are moved only where accumulators are.
func (s *Service) touchedBy(c *change, st State) bool {
	v := st.read()
	if c.at.Log == policies.Log {
		if next, err := book.AsOf(v.GetReference()).Next(); err == nil && !c.unseenBy(next) {
			return false
		}
	}
	if c.subject == "" || st.Received.GetSubject() == c.subject || !st.decidedFinally() || slices.Contains(st.Decided.GetCodes(), codeNoMember) {
		return true
	}
	m := s.book.MemberAt(st.Received.GetSubject(), latest)
	return m != nil && v.GetCoverage() != policies.Ref(policies.MemberStream(m.Subject), uint32(m.Revision))
}

// latest is past every revision.
const latest = ^uint64(0) >> 1

// changesActor is the actor of what nobody asked for but the policies log.
const changesActor = "changes"

// changeRun names the run of a change in what it reverses.
func (s *Service) changeRun(c *change) string { return s.index.ID("rpr", "change", c.id) }

// familyTouched are a family's claims in its order, and after them those that
// have no place in it: they wait, or were no member's.
func (s *Service) familyTouched(ctx context.Context, c *change) ([]string, error) {
	ids, err := s.familysClaims(ctx, c.payer, c.subscriber)
	if err != nil {
		return nil, err
	}
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil, err
	}
	for token := ""; ; {
		rows, next, err := pageOf(ctx, reading, listing[*claimsv1.ClaimSummary]{
			kind: kindClaims, indexes: []string{noMemberIndex(c.subscriber), waitingIndex(c.subscriber)}, ascending: true, size: maxPage,
			filter: c.id, token: token, row: claimRow,
			keep: func(row *claimsv1.ClaimSummary) bool { return row.GetPayerId() == c.payer && standsOrWaits(row) },
		})
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if !slices.Contains(ids, row.GetClaimId()) {
				ids = append(ids, row.GetClaimId())
			}
		}
		if token = next; token == "" {
			return ids, nil
		}
	}
}

// documentTouched is a page of the claims that read what a version supersedes,
// or wanted what it gives.
func (s *Service) documentTouched(ctx context.Context, c *change, token string) ([]string, string, error) {
	indexes := make([]string, 0, len(c.refs)+len(c.npis)+1)
	for _, ref := range c.refs {
		indexes = append(indexes, readIndex(ref))
	}
	for _, npi := range c.npis {
		indexes = append(indexes, uncontractedIndex(c.payer, npi))
	}
	if c.cause != causeContract {
		indexes = append(indexes, wantingIndex(c.payer))
	}
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil, "", err
	}
	rows, next, err := pageOf(ctx, reading, listing[*claimsv1.ClaimSummary]{
		kind: kindClaims, indexes: indexes, ascending: true, size: maxSubmissions,
		filter: c.id, token: token, row: claimRow,
		keep: func(row *claimsv1.ClaimSummary) bool { return row.GetPayerId() == c.payer && standsOrWaits(row) },
	})
	if err != nil {
		return nil, "", err
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.GetClaimId()
	}
	return ids, next, nil
}

// standsOrWaits leaves out what was taken back for good, and voids.
func standsOrWaits(c *claimsv1.ClaimSummary) bool {
	switch c.GetStatus() {
	case claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		return true
	}
	return false
}

// recordedChange is what the stream of a change says.
type recordedChange struct {
	change   *claimsv1.Change // nil: nothing is recorded of it
	approved bool
	revision int64
}

func (s *Service) readChange(ctx context.Context, id string) (recordedChange, error) {
	out := recordedChange{revision: eventstore.NoStream}
	events, err := s.store.Read(ctx, logName, changeStream(id), changeStream(id), 0)
	if err != nil {
		return out, err
	}
	for _, r := range events {
		out.revision = int64(r.Revision)
		switch e := r.Event.(type) {
		case *eventsv1.ChangeProposed:
			out.change = e.GetChange()
			out.change.Time = timestamppb.New(r.RecordedTime)
		case *eventsv1.ChangeApproved:
			out.approved = true
			if out.change.GetState() == claimsv1.ChangeState_CHANGE_STATE_PROPOSED {
				out.change.State = claimsv1.ChangeState_CHANGE_STATE_APPROVED
			}
		case *eventsv1.ChangeReprocessed:
			out.change = e.GetChange()
			out.change.Time = timestamppb.New(r.RecordedTime)
		}
	}
	return out, nil
}

func (s *Service) appendChange(ctx context.Context, id, request, actor string, at int64, event proto.Message) (eventstore.Appended, error) {
	return s.store.Append(ctx, eventstore.Commit{
		Log: logName, RoutingKey: changeStream(id), RequestID: request, Causation: id, Actor: actor,
		Writes: []eventstore.Write{{Stream: changeStream(id), Expected: at, Events: []proto.Message{event}}},
	})
}
