package policies

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// Fields under which plaintext is sealed; part of the box's authenticated place.
const (
	EnrollmentField    = "enrollment"
	AuthorizationField = "authorization"
)

// TerminateMember implements the RPC. A subscriber's dependants end with the
// subscriber: nobody is covered through a person who isn't. A call that breaks
// off has ended some and is completed by repeating it.
func (h *Handler) TerminateMember(ctx context.Context, req *policiesv1.TerminateMemberRequest) (*policiesv1.TerminateMemberResponse, error) {
	if ps := Validate(req); len(ps) > 0 {
		return nil, invalid(ps)
	}
	var f finding
	if !f.date(req.GetEndDate(), "end_date") {
		return nil, invalid(f.problems)
	}
	var ended Member
	done, err := h.terminate(ctx, req, req.GetSubject(), func(m Member) ([]proto.Message, error) {
		ended = m
		return decideTerminate(m, req.GetEndDate())
	})
	if err != nil {
		return nil, err
	}
	latest := map[uint32]eventstore.Position{}
	note := func(token string) {
		if p, ok, err := eventstore.ParseToken(token); err == nil && ok && p.Index >= latest[p.Shard].Index {
			latest[p.Shard] = p
		}
	}
	note(done.token)
	if ended.Subject == "" { // answered from what was recorded
		if ended, err = h.member(ctx, req.GetSubject()); err != nil {
			return nil, err
		}
	}
	if ended.Subscribes() {
		if err := h.awaitOwnWrites(ctx); err != nil {
			return nil, err
		}
		for _, m := range h.Directory.Family(ended.Subscriber) {
			if m.Subject == ended.Subject || m.Subscribes() || !slices.ContainsFunc(m.Spans, func(s Span) bool { return s.Period.End == "" || s.Period.End > req.GetEndDate() }) {
				continue
			}
			done, err := h.terminate(ctx, req, m.Subject, func(m Member) ([]proto.Message, error) {
				got, err := decideEnd(m, amendment{enrol: enrol{coverage: Period{End: req.GetEndDate()}}})
				return got.events, err
			})
			if err != nil {
				return nil, err
			}
			note(done.token)
		}
	}
	return &policiesv1.TerminateMemberResponse{Token: joinTokens(latest)}, nil
}

// terminate ends one person's coverage on the day that the request names.
func (h *Handler) terminate(ctx context.Context, req *policiesv1.TerminateMemberRequest, subject string, decide func(Member) ([]proto.Message, error)) (recorded, error) {
	return h.record(ctx, work{
		requestID: req.GetRequestId(),
		stream:    MemberStream(subject),
		decide: func(ctx context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			m := foldMember(events)
			if err := h.authorizeTermination(ctx, m, subject); err != nil {
				return nil, err
			}
			return decide(m)
		},
		says: func(_ context.Context, r eventstore.Recorded) (bool, error) {
			e, ok := r.Event.(*eventsv1.MemberTerminated)
			return ok && e.GetEndDate() == req.GetEndDate(), nil
		},
	})
}

// authorizeTermination asks with the payer that the stream names. A person
// never enrolled has none, so only who acts for all payers is told so.
func (h *Handler) authorizeTermination(ctx context.Context, m Member, subject string) error {
	return h.Authorizer.Authorize(ctx, "TerminateMember", identity.Resource{Type: identity.Member, ID: subject, Payer: m.PayerID})
}

func foldMember(events []eventstore.Recorded) Member {
	m := NewMember()
	for _, r := range events {
		m = m.EvolveAt(r.Event, r.Revision, r.RecordedTime)
	}
	return m
}

// LookupMember implements the RPC. The answer names the newest coverage's
// policy and plan, and holds no identifier of the person.
func (h *Handler) LookupMember(ctx context.Context, req *policiesv1.LookupMemberRequest) (*policiesv1.LookupMemberResponse, error) {
	if err := h.Authorizer.Authorize(ctx, "LookupMember", identity.Resource{Type: identity.Member, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	if ps := Validate(req); len(ps) > 0 {
		return nil, invalid(ps)
	}
	m, err := h.person(ctx, req.GetPayerId(), req.GetMemberId(), req.GetBirthDate())
	if err != nil {
		return nil, err
	}
	newest, ok := lastSpan(m)
	if !ok {
		return nil, unknownMember()
	}
	policy, err := h.policy(ctx, newest.PolicyID)
	if err != nil {
		return nil, err
	}
	out := &policiesv1.LookupMemberResponse{Subject: m.Subject, PolicyId: newest.PolicyID, PlanId: policy.GetPlanId()}
	for _, s := range m.Spans {
		out.Coverage = append(out.Coverage, s.Period.proto())
	}
	return out, nil
}

// person finds the one person of a card and birth date. Twins share both:
// then nothing says which is meant, and a guess would be somebody else's record.
func (h *Handler) person(ctx context.Context, payerID, memberID, birthDate string) (Member, error) {
	if err := h.awaitOwnWrites(ctx); err != nil {
		return Member{}, err
	}
	switch found := h.Directory.MembersByBirth(h.Index.BirthIndex(payerID, memberID, birthDate)); len(found) {
	case 0:
		return Member{}, problem.New(problem.NotFound, problem.Problem{RuleID: "member.unknown", FieldPath: "member_id",
			Message: "no member has this card and birth date", Fix: "check both against the card; enrol the member if it is new"})
	case 1:
		return found[0], nil
	default:
		return Member{}, problem.New(problem.Conflict, problem.Problem{RuleID: "member.ambiguous", FieldPath: "birth_date",
			Message: "several persons share this card and birth date", Fix: "enrol the persons under cards of their own, or ask the payer's staff"})
	}
}

// RecordPriorAuthorization implements the RPC.
func (h *Handler) RecordPriorAuthorization(ctx context.Context, req *policiesv1.RecordPriorAuthorizationRequest) (*policiesv1.RecordPriorAuthorizationResponse, error) {
	want := req.GetAuthorization()
	if want == nil {
		return nil, missing("authorization")
	}
	if err := h.Authorizer.Authorize(ctx, "RecordPriorAuthorization", identity.Resource{Type: identity.PriorAuthorization, Payer: want.GetPayerId()}); err != nil {
		return nil, err
	}
	if ps := check(want, lintAuthorization); len(ps) > 0 {
		return nil, under("authorization", invalid(ps))
	}
	m, err := h.person(ctx, want.GetPayerId(), want.GetMemberId(), want.GetBirthDate())
	if err != nil {
		return nil, under("authorization", problem.As(err))
	}
	plaintext, err := plain(want)
	if err != nil {
		return nil, err
	}
	number := h.Index.Authorization(want.GetPayerId(), want.GetNumber())
	stream := authorizationStream(number)
	place := keys.Place{Tenant: want.GetPayerId(), Stream: stream, Field: AuthorizationField}
	done, err := h.record(ctx, work{
		requestID: req.GetRequestId(),
		stream:    stream,
		decide: func(ctx context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			c := authorize{numberIndex: number, subject: m.Subject, payerID: want.GetPayerId(), units: want.GetUnits(), effective: PeriodOf(want.GetEffective()),
				npis: want.GetNpis(), cancelled: want.GetStatus() == "cancelled"}
			existing, place := authorizationOf(events), place
			if existing != nil {
				place.Revision = uint64(len(events) - 1)
				was, err := h.openedAuthorization(ctx, place, existing.GetAuthorization())
				if err != nil {
					return nil, err
				}
				c.corrected, c.narrowed = !proto.Equal(was, want), narrowsAuthorization(was, want)
			}
			decided, err := decideAuthorization(existing, c)
			if err != nil || len(decided) == 0 {
				return decided, err
			}
			place.Revision = uint64(len(events))
			box, err := h.Sealer.Seal(ctx, m.Subject, place, plaintext)
			if err != nil {
				return nil, sealing(err)
			}
			decided[0].(*eventsv1.PriorAuthorizationRecorded).Authorization = box
			return decided, nil
		},
		says: func(ctx context.Context, r eventstore.Recorded) (bool, error) {
			e, ok := r.Event.(*eventsv1.PriorAuthorizationRecorded)
			if !ok || e.GetSubject() != m.Subject {
				return false, nil
			}
			at := place
			at.Revision = r.Revision
			return h.sealedSame(ctx, at, e.GetAuthorization(), plaintext)
		},
	})
	if err != nil {
		return nil, err
	}
	return &policiesv1.RecordPriorAuthorizationResponse{Token: done.token}, nil
}

// authorizationStream is also the routing key; the number itself is health data.
func authorizationStream(numberIndex []byte) string {
	return "authorization-" + hex.EncodeToString(numberIndex)
}

// openedAuthorization opens a recorded authorisation.
func (h *Handler) openedAuthorization(ctx context.Context, at keys.Place, box *typev1.Sealed) (*policiesv1.PriorAuthorization, error) {
	opened, err := h.Sealer.Open(ctx, at, box)
	if err != nil {
		return nil, sealing(err)
	}
	out := &policiesv1.PriorAuthorization{}
	if err := proto.Unmarshal(opened, out); err != nil {
		return nil, problem.As(err)
	}
	return out, nil
}

// narrowsAuthorization tells whether the sealed part of an authorisation would
// cover less: another person's details, or fewer procedures.
func narrowsAuthorization(was, now *policiesv1.PriorAuthorization) bool {
	if was.GetMemberId() != now.GetMemberId() || was.GetBirthDate() != now.GetBirthDate() {
		return true
	}
	ranges := func(a *policiesv1.PriorAuthorization) []codeRange {
		var out []codeRange
		for _, s := range a.GetProcedures() {
			if r, ok := parseRange(s); ok {
				out = append(out, r)
			}
		}
		return out
	}
	return !union(ranges(now)).holdsAll(ranges(was))
}

func authorizationOf(events []eventstore.Recorded) *eventsv1.PriorAuthorizationRecorded {
	for _, r := range slices.Backward(events) {
		if e, ok := r.Event.(*eventsv1.PriorAuthorizationRecorded); ok {
			return e
		}
	}
	return nil
}

// plain is what gets sealed: deterministic, so that equal messages are equal bytes.
func plain(m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, problem.As(err)
	}
	return b, nil
}

// sealedSame tells whether box, opened at its place, holds plaintext.
func (h *Handler) sealedSame(ctx context.Context, at keys.Place, box *typev1.Sealed, plaintext []byte) (bool, error) {
	opened, err := h.Sealer.Open(ctx, at, box)
	if err != nil {
		return false, sealing(err)
	}
	return bytes.Equal(opened, plaintext), nil
}

// sealing gives an error of the sealer its kind.
func sealing(err error) error {
	switch p := problem.As(err); {
	case errors.Is(err, keys.ErrDestroyed):
		return problem.New(problem.Conflict, problem.Problem{RuleID: "member.erased",
			Message: "this person's data was erased, and what was erased can't be written to again",
			Fix:     "a person who returns after erasure is enrolled under a new card"})
	case p.Kind != problem.Internal:
		return p
	}
	return problem.New(problem.Unavailable, problem.Problem{RuleID: "keys.unavailable",
		Message: "the person's key can't be had just now", Fix: "send the same request again in a moment"}).Because(err)
}
