package policies

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// Who a change of enrolment is about.

// who is the person a change is about.
type who struct {
	subject string
	// enrolled: there is a stream of the person.
	enrolled bool
	// first and born found the person; they differ from the change's where
	// those correct them.
	first, born string
}

// find names the person: by card, birth date and first name as they are sent;
// by those recorded wrongly before; or, where no birth date is sent, by first
// name and relationship within the family.
func (b *maintenanceBatch) find(ctx context.Context, c *policiesv1.EnrollmentChange, card string) (who, error) {
	tries := [][2]string{{c.GetFirstName(), c.GetBirthDate()}}
	if c.GetPreviousFirstName() != "" || c.GetPreviousBirthDate() != "" {
		first, born := c.GetPreviousFirstName(), c.GetPreviousBirthDate()
		if first == "" {
			first = c.GetFirstName()
		}
		if born == "" {
			born = c.GetBirthDate()
		}
		tries = append([][2]string{{first, born}}, tries...)
	}
	for _, try := range tries {
		if try[1] == "" {
			continue
		}
		subject := b.h.Index.Person(b.payer, c.GetMemberId(), try[1], try[0])
		m, err := b.h.member(ctx, subject)
		if err != nil {
			return who{}, err
		}
		if m.AliasOf != "" {
			subject = m.AliasOf
			if m, err = b.h.member(ctx, subject); err != nil {
				return who{}, err
			}
		}
		if m.Revision >= 0 {
			return who{subject: subject, enrolled: true, first: try[0], born: try[1]}, nil
		}
	}
	if c.GetMaintenanceType() == policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD {
		return who{subject: b.h.Index.Person(b.payer, c.GetMemberId(), c.GetBirthDate(), c.GetFirstName()), first: c.GetFirstName(), born: c.GetBirthDate()}, nil
	}
	if c.GetBirthDate() != "" {
		return who{}, unknownMember()
	}
	return b.byName(ctx, c, card)
}

func unknownMember() error {
	return problem.New(problem.NotFound, problem.Problem{RuleID: "member.unknown", FieldPath: "member_id",
		Message: "nobody of this card, birth date and first name is enrolled", Fix: "check them against the card; send an addition if the person is new"})
}

// byName opens the sealed details of the family's members. Whom it finds must
// have the first name: ending the wrong person's cover would be worse than asking again.
func (b *maintenanceBatch) byName(ctx context.Context, c *policiesv1.EnrollmentChange, card string) (who, error) {
	var found []who
	for _, m := range b.h.Directory.Family(card) {
		last, ok := lastSpan(m)
		if !ok || last.Relationship != c.GetRelationshipCode() {
			continue
		}
		events, err := b.h.Store.Read(ctx, Log, MemberStream(m.Subject), MemberStream(m.Subject), 0)
		if err != nil {
			return who{}, err
		}
		details, err := b.h.details(ctx, b.payer, m.Subject, events)
		if err != nil {
			return who{}, err
		}
		if keys.Fold(details.GetFirstName()) == keys.Fold(c.GetFirstName()) {
			found = append(found, who{subject: m.Subject, enrolled: true, first: details.GetFirstName(), born: details.GetBirthDate()})
		}
	}
	switch len(found) {
	case 0:
		return who{}, unknownMember()
	case 1:
		return found[0], nil
	}
	return who{}, problem.New(problem.Conflict, problem.Problem{RuleID: "member.ambiguous", FieldPath: "birth_date",
		Message: "several persons of the family have this first name and relationship", Fix: "send the birth date (DMG02)"})
}

// member folds a person's stream.
func (h *Handler) member(ctx context.Context, subject string) (Member, error) {
	events, err := h.Store.Read(ctx, Log, MemberStream(subject), MemberStream(subject), 0)
	if err != nil {
		return Member{}, err
	}
	return foldMember(events), nil
}

// details opens what was sealed last of a person: nil where nothing was.
func (h *Handler) details(ctx context.Context, payer, subject string, events []eventstore.Recorded) (*policiesv1.Enrollment, error) {
	for _, r := range slices.Backward(events) {
		box := sealedEnrollment(r.Event)
		if box == nil {
			continue
		}
		opened, err := h.Sealer.Open(ctx, keys.Place{Tenant: payer, Stream: MemberStream(subject), Revision: r.Revision, Field: EnrollmentField}, box)
		if err != nil {
			return nil, sealing(err)
		}
		out := &policiesv1.Enrollment{}
		if err := proto.Unmarshal(opened, out); err != nil {
			return nil, problem.As(err)
		}
		return out, nil
	}
	return nil, nil
}

// sealedEnrollment is the box of an event that holds a person's details.
func sealedEnrollment(event proto.Message) *typev1.Sealed {
	switch e := event.(type) {
	case *eventsv1.MemberEnrolled:
		return e.GetEnrollment()
	case *eventsv1.MemberChanged:
		return e.GetEnrollment()
	}
	return nil
}
