package policies

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

const (
	// enrolReads bounds how many member streams are read side by side.
	enrolReads = 16
	// enrolAttempts bounds how often one person's enrolment begins again
	// because another writer was first.
	enrolAttempts = 8
	// maxEnrollments is the RPC's limit on a batch.
	maxEnrollments = 500
)

// enrolment is one person of a batch on its way.
type enrolment struct {
	index     int // in the request
	command   enrol
	plaintext []byte
	stream    string
	commitID  string
	// fresh: the directory has never seen the person, so the stream is taken
	// to be empty without reading it. The append's expected revision holds it
	// to that; a conflict clears the flag.
	fresh    bool
	attempts int
}

// EnrollMembers implements the RPC. Persons not seen before cost no read: one
// call for their keys and one append of the whole batch.
func (h *Handler) EnrollMembers(ctx context.Context, req *policiesv1.EnrollMembersRequest) (*policiesv1.EnrollMembersResponse, error) {
	if n := len(req.GetEnrollments()); n == 0 || n > maxEnrollments || req.GetRequestId() == "" {
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "member.batch", FieldPath: "enrollments",
			Message: fmt.Sprintf("a batch has a request_id and between 1 and %d enrolments", maxEnrollments), Fix: "split the batch"})
	}
	b := &batch{h: h, requestID: req.GetRequestId(), results: make([]*policiesv1.EnrollmentResult, len(req.GetEnrollments())),
		policies: map[string]policyAnswer{}, ages: map[string]uint32{}, latest: map[uint32]eventstore.Position{}}
	for i := range b.results {
		b.results[i] = &policiesv1.EnrollmentResult{}
	}
	pending, err := b.accept(ctx, req.GetEnrollments())
	if err != nil {
		return nil, err
	}
	if len(pending) > 0 {
		subjects := make([]string, len(pending))
		for i, e := range pending {
			subjects[i] = e.command.subject
		}
		slices.Sort(subjects)
		if err := h.Sealer.Prefetch(ctx, slices.Compact(subjects)); err != nil {
			return nil, sealing(err)
		}
	}
	for len(pending) > 0 {
		if pending, err = b.round(ctx, pending); err != nil {
			return nil, err
		}
	}
	return &policiesv1.EnrollMembersResponse{Results: b.results, Token: joinTokens(b.latest)}, nil
}

// batch is one EnrollMembers call.
type batch struct {
	h         *Handler
	requestID string
	results   []*policiesv1.EnrollmentResult
	policies  map[string]policyAnswer // policies of this batch, loaded and authorised once
	ages      map[string]uint32       // age limits by plan and day
	latest    map[uint32]eventstore.Position
}

type policyAnswer struct {
	policy *policiesv1.Policy
	err    error
}

func (b *batch) refuse(index int, err error) {
	b.results[index] = &policiesv1.EnrollmentResult{
		Problems: problemProtos(err, "enrollments["+strconv.Itoa(index)+"]", b.requestID),
	}
}

// accept checks each enrolment by itself and derives the person's opaque ids.
// The error is for the whole call: the caller is unknown, or a store is away.
func (b *batch) accept(ctx context.Context, all []*policiesv1.Enrollment) ([]*enrolment, error) {
	var out []*enrolment
	times := map[string]int{}
	for i, e := range all {
		if ps := check(e, lintEnrollment); len(ps) > 0 {
			b.refuse(i, invalid(ps))
			continue
		}
		policy, err := b.policy(ctx, e.GetPolicyId())
		switch p := problem.As(err); {
		case p == nil:
		case p.Kind == problem.Forbidden || p.Kind == problem.NotFound:
			b.refuse(i, p)
			continue
		default:
			return nil, p
		}
		plaintext, err := plain(e)
		if err != nil {
			return nil, err
		}
		payer := policy.GetPayerId()
		coverage := PeriodOf(e.GetCoverage())
		if e.GetRelationshipCode() == "19" && !e.GetDisabled() {
			limit, err := b.ageLimit(ctx, policy, coverage.Start)
			if err != nil {
				return nil, err
			}
			cut, left := agedOut(limit, e.GetBirthDate(), coverage)
			if !left {
				b.refuse(i, invalid([]problem.Problem{agedOutProblem()}))
				continue
			}
			coverage = cut
		}
		subject := b.h.Index.Person(payer, e.GetMemberId(), e.GetBirthDate(), e.GetFirstName())
		stream := MemberStream(subject)
		id := commitID(b.requestID, stream)
		if n := times[subject]; n > 0 { // the same person again: a commit of its own
			id += "#" + strconv.Itoa(n)
		}
		times[subject]++
		out = append(out, &enrolment{
			index: i, plaintext: plaintext, stream: stream, commitID: id, fresh: !b.h.Directory.Knows(subject),
			command: enrol{
				subject: subject, subscriber: b.h.Index.Subscriber(payer, e.GetMemberId()),
				birthIndex:  b.h.Index.BirthIndex(payer, e.GetMemberId(), e.GetBirthDate()),
				personIndex: b.h.Index.PersonIndex(payer, e.GetMemberId(), e.GetBirthDate(), e.GetFirstName()),
				policy:      policy, coverage: coverage, relationship: e.GetRelationshipCode(),
				otherPayerPrimary: e.GetOtherPayerPrimary(),
			},
		})
	}
	return out, nil
}

// policy loads a policy and asks whether the caller may enrol into it.
func (b *batch) policy(ctx context.Context, id string) (*policiesv1.Policy, error) {
	if a, ok := b.policies[id]; ok {
		return a.policy, a.err
	}
	policy, err := b.h.policy(ctx, id)
	if err == nil {
		err = b.h.Authorizer.Authorize(ctx, "EnrollMembers", identity.Resource{Type: identity.Policy, ID: id, Payer: policy.GetPayerId()})
		if policy == nil && (err == nil || problem.Is(err, problem.Forbidden)) {
			err = problem.New(problem.NotFound, problem.Problem{RuleID: "member.policy.unknown", FieldPath: "policy_id",
				Message: "no such policy", Fix: "create the policy first, or correct its id"})
		}
	}
	b.policies[id] = policyAnswer{policy, err}
	return policy, err
}

// ageLimit is the dependants' age limit of a policy's plan on a day, loaded once.
func (b *batch) ageLimit(ctx context.Context, policy *policiesv1.Policy, day string) (uint32, error) {
	key := policy.GetPlanId() + "@" + day
	limit, ok := b.ages[key]
	if ok {
		return limit, nil
	}
	limit, err := b.h.ageLimit(ctx, policy, day)
	if err == nil {
		b.ages[key] = limit
	}
	return limit, err
}

// round takes each person's next enrolment one step: read where needed,
// decide, seal, append all. It returns what has to go again.
func (b *batch) round(ctx context.Context, pending []*enrolment) ([]*enrolment, error) {
	var now, later []*enrolment
	taken := map[string]bool{}
	for _, e := range pending {
		if taken[e.stream] {
			later = append(later, e)
			continue
		}
		taken[e.stream] = true
		now = append(now, e)
	}
	streams, err := b.read(ctx, now)
	if err != nil {
		return nil, err
	}
	var commits []eventstore.Commit
	var sent []*enrolment
	for i, e := range now {
		if m := foldMember(streams[i]); m.AliasOf != "" {
			// Name or birth date were corrected to these: the person has another stream.
			e.command.subject, e.stream = m.AliasOf, MemberStream(m.AliasOf)
			e.commitID = commitID(b.requestID, e.stream) + "#" + strconv.Itoa(e.index)
			later = append(later, e)
			continue
		}
		commit, ok, err := b.decide(ctx, e, streams[i])
		if err != nil {
			if p := problem.As(err); p.Kind == problem.Unavailable || p.Kind == problem.Internal {
				return nil, p
			}
			b.refuse(e.index, err)
		} else if ok {
			commits, sent = append(commits, commit), append(sent, e)
		}
	}
	if len(commits) == 0 {
		return later, nil
	}
	outcomes, err := b.h.Store.AppendBatch(ctx, commits)
	if err != nil {
		return nil, err
	}
	var again []*enrolment
	for i, o := range outcomes {
		e := sent[i]
		switch {
		case o.Err == nil:
			b.appended(e, o.Appended.Position)
			b.h.wrote(o.Appended.Position)
		case (eventstore.IsConflict(o.Err) || isReused(o.Err)) && e.attempts+1 < enrolAttempts:
			e.fresh, e.attempts = false, e.attempts+1
			again = append(again, e)
		case eventstore.IsConflict(o.Err):
			b.refuse(e.index, problem.New(problem.Unavailable, problem.Problem{RuleID: "member.contended",
				Message: "others kept changing the same person's coverage", Fix: "send this enrolment again in a moment"}).Because(o.Err))
		default:
			b.refuse(e.index, o.Err)
		}
	}
	// The request's order stands: a person's second enrolment amends the first.
	out := append(again, later...)
	slices.SortFunc(out, func(x, y *enrolment) int { return x.index - y.index })
	return out, nil
}

// read loads the streams of those who aren't fresh.
func (b *batch) read(ctx context.Context, now []*enrolment) ([][]eventstore.Recorded, error) {
	out := make([][]eventstore.Recorded, len(now))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(enrolReads)
	for i, e := range now {
		if e.fresh {
			continue
		}
		g.Go(func() (err error) {
			out[i], err = b.h.Store.Read(ctx, Log, e.stream, e.stream, 0)
			return err
		})
	}
	return out, g.Wait()
}

// decide makes an enrolment's commit; false when there is nothing to append.
func (b *batch) decide(ctx context.Context, e *enrolment, events []eventstore.Recorded) (eventstore.Commit, bool, error) {
	place := keys.Place{Tenant: e.command.policy.GetPayerId(), Stream: e.stream, Field: EnrollmentField}
	if r, ok := byRequest(events, e.commitID); ok {
		if same, err := b.sameDetails(ctx, place, e, r); err != nil || !same {
			if err == nil {
				err = requestReused()
			}
			return eventstore.Commit{}, false, err
		}
		b.unchanged(e, r.Position)
		return eventstore.Commit{}, false, nil
	}
	if earlier, ok := amends(events, e.command); ok {
		same, err := b.sameDetails(ctx, place, e, earlier)
		if err != nil {
			return eventstore.Commit{}, false, err
		}
		e.command.corrected = !same
	}
	decided, err := decideEnrol(foldMember(events), e.command)
	if err != nil {
		return eventstore.Commit{}, false, err
	}
	if len(decided) == 0 {
		b.unchanged(e, events[len(events)-1].Position)
		return eventstore.Commit{}, false, nil
	}
	place.Revision = uint64(len(events))
	box, err := b.h.Sealer.Seal(ctx, e.command.subject, place, e.plaintext)
	if err != nil {
		return eventstore.Commit{}, false, sealing(err)
	}
	decided[0].(*eventsv1.MemberEnrolled).Enrollment = box
	return commitOf(ctx, e.commitID, e.stream, len(events), decided), true, nil
}

// sameDetails tells whether the sealed enrolment of an event is e's.
func (b *batch) sameDetails(ctx context.Context, at keys.Place, e *enrolment, r eventstore.Recorded) (bool, error) {
	have, ok := r.Event.(*eventsv1.MemberEnrolled)
	if !ok {
		return false, nil
	}
	at.Revision = r.Revision
	return b.h.sealedSame(ctx, at, have.GetEnrollment(), e.plaintext)
}

// amends finds the enrolment that c repeats or corrects: the newest into the
// same policy from the same day.
func amends(events []eventstore.Recorded, c enrol) (eventstore.Recorded, bool) {
	for _, r := range slices.Backward(events) {
		if e, ok := r.Event.(*eventsv1.MemberEnrolled); ok && e.GetPolicyId() == c.policy.GetPolicyId() && e.GetCoverage().GetStartDate() == c.coverage.Start {
			return r, true
		}
	}
	return eventstore.Recorded{}, false
}

func (b *batch) appended(e *enrolment, p eventstore.Position) {
	b.results[e.index] = &policiesv1.EnrollmentResult{Subject: e.command.subject}
	if have, ok := b.latest[p.Shard]; !ok || p.Index > have.Index {
		b.latest[p.Shard] = p
	}
}

func (b *batch) unchanged(e *enrolment, p eventstore.Position) {
	b.appended(e, p)
	b.results[e.index].Unchanged = true
}
