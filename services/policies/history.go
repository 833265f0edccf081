package policies

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// GetMember implements the RPC: coverage as known now, or at a time past.
func (h *Handler) GetMember(ctx context.Context, req *policiesv1.GetMemberRequest) (*policiesv1.GetMemberResponse, error) {
	m, _, err := h.memberAsked(ctx, "GetMember", req)
	if err != nil {
		return nil, err
	}
	at := &m
	if t := req.GetKnownTime(); t != nil {
		var known bool
		if at, known = m.KnownAt(t.AsTime()); !known {
			return nil, problem.New(problem.NotFound, problem.Problem{RuleID: "member.unknown-then", FieldPath: "known_time",
				Message: "nothing was known of this member at that time", Fix: "ask for a later time; GetMemberHistory lists the times"})
		}
	}
	plans := map[string]string{}
	spans, err := h.spans(ctx, at, plans)
	if err != nil {
		return nil, err
	}
	return &policiesv1.GetMemberResponse{Subject: at.Subject, Subscriber: at.Subscriber, PayerId: at.PayerID, Coverage: spans,
		Revision: uint64(at.Revision), RecordedTime: timestamppb.New(at.Recorded)}, nil
}

// GetMemberHistory implements the RPC.
func (h *Handler) GetMemberHistory(ctx context.Context, req *policiesv1.GetMemberHistoryRequest) (*policiesv1.GetMemberHistoryResponse, error) {
	if req.GetMember() == nil {
		return nil, missing("member")
	}
	m, events, err := h.memberAsked(ctx, "GetMemberHistory", req.GetMember())
	if err != nil {
		return nil, err
	}
	out := &policiesv1.GetMemberHistoryResponse{Subject: m.Subject}
	plans := map[string]string{}
	state := NewMember()
	for _, r := range events {
		state = state.EvolveAt(r.Event, r.Revision, r.RecordedTime)
		change := &policiesv1.MemberChange{Revision: r.Revision, RecordedTime: timestamppb.New(r.RecordedTime)}
		switch e := r.Event.(type) {
		case *eventsv1.MemberEnrolled:
			change.Kind, change.PolicyId, change.EffectiveDate, change.BatchId = "enrolled", e.GetPolicyId(), e.GetCoverage().GetStartDate(), e.GetBatchId()
		case *eventsv1.MemberTerminated:
			change.Kind, change.EffectiveDate, change.BatchId = "terminated", DayAfter(e.GetEndDate()), e.GetBatchId()
		case *eventsv1.MemberReinstated:
			change.Kind, change.PolicyId, change.EffectiveDate, change.BatchId = "reinstated", e.GetPolicyId(), e.GetCoverage().GetStartDate(), e.GetBatchId()
		case *eventsv1.MemberChanged:
			change.Kind, change.BatchId = "changed", e.GetBatchId()
		default:
			continue
		}
		change.Retroactive = change.EffectiveDate != "" && change.EffectiveDate < r.RecordedTime.UTC().Format("2006-01-02")
		if change.Coverage, err = h.spans(ctx, &state, plans); err != nil {
			return nil, err
		}
		out.Changes = append(out.Changes, change)
	}
	return out, nil
}

// memberAsked loads the person a request names. Who may not see the person
// learns nothing about whether there is one.
func (h *Handler) memberAsked(ctx context.Context, action string, req *policiesv1.GetMemberRequest) (Member, []eventstore.Recorded, error) {
	subject := req.GetSubject()
	if subject == "" {
		if req.GetPayerId() == "" || req.GetMemberId() == "" || req.GetBirthDate() == "" {
			return Member{}, nil, problem.New(problem.Invalid, problem.Problem{RuleID: "member.whom", FieldPath: "subject",
				Message: "the request names nobody", Fix: "give subject, or payer_id with member_id and birth_date"})
		}
		if err := h.Authorizer.Authorize(ctx, action, identity.Resource{Type: identity.Member, Payer: req.GetPayerId()}); err != nil {
			return Member{}, nil, err
		}
		m, err := h.person(ctx, req.GetPayerId(), req.GetMemberId(), req.GetBirthDate())
		if err != nil {
			return Member{}, nil, err
		}
		subject = m.Subject
	}
	events, err := h.Store.Read(ctx, Log, MemberStream(subject), MemberStream(subject), 0)
	if err != nil {
		return Member{}, nil, err
	}
	m := foldMember(events)
	if m.AliasOf != "" {
		if events, err = h.Store.Read(ctx, Log, MemberStream(m.AliasOf), MemberStream(m.AliasOf), 0); err != nil {
			return Member{}, nil, err
		}
		m = foldMember(events)
	}
	if err := h.Authorizer.Authorize(ctx, action, identity.Resource{Type: identity.Member, ID: subject, Payer: m.PayerID}); err != nil {
		return Member{}, nil, err
	}
	if m.Revision < 0 {
		return Member{}, nil, problem.New(problem.NotFound, problem.Problem{RuleID: "member.unknown", FieldPath: "subject",
			Message: "no such member", Fix: "look the member up by card and birth date"})
	}
	return m, events, nil
}

// spans are a member's as messages; plans remembers each policy's plan.
func (h *Handler) spans(ctx context.Context, m *Member, plans map[string]string) ([]*policiesv1.CoverageSpan, error) {
	out := make([]*policiesv1.CoverageSpan, len(m.Spans))
	for i, s := range m.Spans {
		plan, known := plans[s.PolicyID]
		if !known {
			policy, err := h.policy(ctx, s.PolicyID)
			if err != nil {
				return nil, err
			}
			plan = policy.GetPlanId()
			plans[s.PolicyID] = plan
		}
		out[i] = &policiesv1.CoverageSpan{PolicyId: s.PolicyID, PlanId: plan, Period: s.Period.proto(),
			RelationshipCode: s.Relationship, OtherPayerPrimary: s.OtherPayerPrimary}
	}
	return out, nil
}
