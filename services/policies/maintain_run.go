package policies

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// Deciding a change of enrolment and recording what follows.

// run decides and appends, and ends a subscriber's dependants with the subscriber.
func (b *maintenanceBatch) run(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, w who, out *policiesv1.EnrollmentOutcome) error {
	if err := b.alias(ctx, c, cmd, w); err != nil {
		return err
	}
	got, done, err := b.amend(ctx, c, cmd, out.GetOrdinal())
	if err != nil {
		return err
	}
	switch {
	case len(got.differs) > 0:
		out.Result = policiesv1.EnrollmentOutcome_RESULT_DIFFERS
		out.Problems = problemProtos(&problem.Error{Kind: problem.Conflict, Problems: got.differs}, "", "")
	case done.unchanged && !done.answered:
		out.Result = policiesv1.EnrollmentOutcome_RESULT_UNCHANGED
	default:
		out.Result = policiesv1.EnrollmentOutcome_RESULT_APPLIED
		if got.touched.Start != "" {
			out.Touched = got.touched.proto()
		}
	}
	if cmd.relationship != "18" {
		return nil
	}
	switch cmd.kind {
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD, policiesv1.MaintenanceType_MAINTENANCE_TYPE_REINSTATE:
		b.mu.Lock()
		b.subscribers[cmd.subscriber] = true
		b.mu.Unlock()
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE:
		return b.endDependants(ctx, c, cmd, out.GetOrdinal())
	}
	return nil
}

// endDependants ends the coverage of all who depend on a subscriber whose
// coverage ended: nobody is covered through a person who isn't.
func (b *maintenanceBatch) endDependants(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, ordinal uint32) error {
	for _, m := range b.h.Directory.Family(cmd.subscriber) {
		if m.Subject == cmd.subject || !slices.ContainsFunc(m.Spans, func(s Span) bool { return s.Period.End == "" || s.Period.End > cmd.coverage.End }) {
			continue
		}
		one := cmd
		one.subject = m.Subject
		if _, _, err := b.amend(ctx, c, one, ordinal); err != nil {
			return err
		}
	}
	return nil
}

// amend runs one command on one person's stream.
func (b *maintenanceBatch) amend(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, ordinal uint32) (amended, recorded, error) {
	var got amended
	done, err := b.h.record(ctx, work{
		requestID: fmt.Sprintf("%s/%d", b.id, ordinal),
		stream:    MemberStream(cmd.subject),
		decide: func(ctx context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			m := foldMember(events)
			details, err := b.merged(ctx, c, cmd.subject, events)
			if err != nil {
				return nil, err
			}
			run := cmd
			run.detailsChanged = details.changed && details.had
			run.corrected = run.kind == policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD && details.changed
			if got, err = decideAmendment(m, run); err != nil {
				return nil, err
			}
			return b.seal(ctx, c, cmd, details.enrollment, got.events, len(events))
		},
		// The id stands for this batch and ordinal, and the batch's content is compared as a whole.
		says: func(context.Context, eventstore.Recorded) (bool, error) { return true, nil },
	})
	if err == nil && !done.unchanged {
		b.note(done)
	}
	return got, done, err
}

func (b *maintenanceBatch) note(done recorded) {
	if p, ok, err := eventstore.ParseToken(done.token); err == nil && ok {
		b.wrote(p)
	}
}

// merged is what is known of a person with what a change says of it.
type merged struct {
	enrollment   *policiesv1.Enrollment
	had, changed bool
}

func (b *maintenanceBatch) merged(ctx context.Context, c *policiesv1.EnrollmentChange, subject string, events []eventstore.Recorded) (merged, error) {
	known, err := b.h.details(ctx, b.payer, subject, events)
	if err != nil {
		return merged{}, err
	}
	out := merged{had: known != nil, enrollment: &policiesv1.Enrollment{Sex: "U"}}
	if known != nil {
		out.enrollment = proto.CloneOf(known)
	}
	for _, f := range []struct {
		to   *string
		said string
	}{
		{&out.enrollment.MemberId, c.GetMemberId()}, {&out.enrollment.LastName, c.GetLastName()}, {&out.enrollment.FirstName, c.GetFirstName()},
		{&out.enrollment.BirthDate, c.GetBirthDate()}, {&out.enrollment.Sex, c.GetSex()},
	} {
		if f.said != "" {
			*f.to = f.said
		}
	}
	out.changed = known == nil || !proto.Equal(known, out.enrollment)
	return out, nil
}

// seal gives events what is sealed: the details as now known, or the change
// as it was sent.
func (b *maintenanceBatch) seal(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, details *policiesv1.Enrollment, events []proto.Message, have int) ([]proto.Message, error) {
	change, err := plain(c)
	if err != nil {
		return nil, err
	}
	for i, event := range events {
		place := keys.Place{Tenant: b.payer, Stream: MemberStream(cmd.subject), Revision: uint64(have + i), Field: ChangeField}
		text := change
		if e, ok := event.(*eventsv1.MemberEnrolled); ok {
			details = proto.CloneOf(details)
			details.PolicyId, details.RelationshipCode, details.Coverage, details.OtherPayerPrimary = e.GetPolicyId(), e.GetRelationshipCode(), e.GetCoverage(), e.GetOtherPayerPrimary()
		}
		switch event.(type) {
		case *eventsv1.MemberEnrolled, *eventsv1.MemberChanged:
			place.Field = EnrollmentField
			if text, err = plain(details); err != nil {
				return nil, err
			}
		}
		box, err := b.h.Sealer.Seal(ctx, cmd.subject, place, text)
		if err != nil {
			return nil, sealing(err)
		}
		switch e := event.(type) {
		case *eventsv1.MemberEnrolled:
			e.Enrollment = box
		case *eventsv1.MemberChanged:
			e.Enrollment = box
		case *eventsv1.MemberTerminated:
			e.Change = box
		case *eventsv1.MemberReinstated:
			e.Change = box
		}
	}
	return events, nil
}

// alias makes sure that the name and birth date a change corrects to lead to
// the person, before they do: the id they give gets a stream that says whose
// it is. Should somebody else be enrolled under them, the change is refused.
func (b *maintenanceBatch) alias(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, w who) error {
	if !w.enrolled || cmd.kind != policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE || bytes.Equal(cmd.personIndex, cmd.previousPerson) {
		return nil
	}
	born := c.GetBirthDate()
	if born == "" {
		born = w.born
	}
	derived := b.h.Index.Person(b.payer, c.GetMemberId(), born, c.GetFirstName())
	if derived == w.subject {
		return nil
	}
	done, err := b.h.record(ctx, work{
		requestID: "alias",
		stream:    MemberStream(derived),
		decide: func(_ context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			if len(events) == 0 {
				return []proto.Message{&eventsv1.MemberAliased{Subject: derived, AliasOf: w.subject}}, nil
			}
			if foldMember(events).AliasOf == w.subject {
				return nil, nil
			}
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "member.identity.taken", FieldPath: "birth_date",
				Message: "another person of the card is enrolled with this birth date and first name", Fix: "find out who is who before correcting either"})
		},
		says: func(_ context.Context, r eventstore.Recorded) (bool, error) {
			e, ok := r.Event.(*eventsv1.MemberAliased)
			return ok && e.GetAliasOf() == w.subject, nil
		},
	})
	if err == nil && !done.unchanged {
		b.note(done)
	}
	return err
}
