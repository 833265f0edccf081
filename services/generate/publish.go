package generate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
)

// enrolments of one call, as the RPC bounds them.
const enrolments = 500

// Payer is where a world is published.
type Payer struct {
	Policies policiesv1connect.PoliciesServiceClient
	Edits    policiesv1connect.EditsServiceClient
}

// Publish makes the world known to a payer's policies service: documents,
// tables of claim edits, members and authorisations. It may be repeated:
// request ids are made from the content. progress is told the persons enrolled
// so far; nil is told nothing.
func (w *World) Publish(ctx context.Context, to Payer, progress func(persons int)) error {
	documents := w.Documents()
	if err := documents.publish(ctx, to.Policies); err != nil {
		return err
	}
	for _, t := range documents.Edits {
		if err := t.publish(ctx, to.Edits); err != nil {
			return fmt.Errorf("generate: import %s of %s: %w", t.Name(), t.Quarter, err)
		}
	}
	p := publisher{client: to.Policies, progress: progress}
	for f := range w.Families() {
		p.members = append(p.members, f.Enrollments...)
		p.authorizations = append(p.authorizations, f.Authorizations...)
		if len(p.members) >= enrolments-8 {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
	}
	return p.flush(ctx)
}

func (d Documents) publish(ctx context.Context, client policiesv1connect.PoliciesServiceClient) error {
	for _, x := range d.FeeSchedules {
		if _, err := client.PublishFeeSchedule(ctx, &policiesv1.PublishFeeScheduleRequest{RequestId: requestID(x), FeeSchedule: x}); err != nil {
			return fmt.Errorf("generate: publish %s: %w", x.GetFeeScheduleId(), err)
		}
	}
	for _, x := range d.Networks {
		if _, err := client.PublishNetwork(ctx, &policiesv1.PublishNetworkRequest{RequestId: requestID(x), Network: x}); err != nil {
			return fmt.Errorf("generate: publish %s: %w", x.GetNetworkId(), err)
		}
	}
	for _, x := range d.Plans {
		if _, err := client.PublishPlan(ctx, &policiesv1.PublishPlanRequest{RequestId: requestID(x), Plan: x}); err != nil {
			return fmt.Errorf("generate: publish %s: %w", x.GetPlanId(), err)
		}
	}
	for _, x := range d.Contracts {
		if _, err := client.PublishContract(ctx, &policiesv1.PublishContractRequest{RequestId: requestID(x), Contract: x}); err != nil {
			return fmt.Errorf("generate: publish %s: %w", x.GetContractId(), err)
		}
	}
	for _, x := range d.Policies {
		if _, err := client.CreatePolicy(ctx, &policiesv1.CreatePolicyRequest{RequestId: requestID(x), Policy: x}); err != nil {
			return fmt.Errorf("generate: create %s: %w", x.GetPolicyId(), err)
		}
	}
	return nil
}

type publisher struct {
	client         policiesv1connect.PoliciesServiceClient
	progress       func(int)
	members        []*policiesv1.Enrollment
	authorizations []*policiesv1.PriorAuthorization
	enrolled       int
}

// flush enrols who is waiting, then records what they were authorised.
func (p *publisher) flush(ctx context.Context) error {
	if len(p.members) == 0 {
		return nil
	}
	req := &policiesv1.EnrollMembersRequest{Enrollments: p.members}
	req.RequestId = requestID(req)
	answer, err := p.client.EnrollMembers(ctx, req)
	if err != nil {
		return fmt.Errorf("generate: enrol members: %w", err)
	}
	for _, r := range answer.GetResults() {
		if found := r.GetProblems(); len(found) > 0 {
			return fmt.Errorf("generate: enrol members: %s (%s)", found[0].GetMessage(), found[0].GetRuleId())
		}
	}
	for _, a := range p.authorizations {
		if _, err := p.client.RecordPriorAuthorization(ctx, &policiesv1.RecordPriorAuthorizationRequest{RequestId: requestID(a), Authorization: a}); err != nil {
			return fmt.Errorf("generate: record prior authorisation: %w", err)
		}
	}
	p.enrolled += len(p.members)
	if p.progress != nil {
		p.progress(p.enrolled)
	}
	p.members, p.authorizations = p.members[:0], p.authorizations[:0]
	return nil
}

// requestID is made from the content.
func requestID(m proto.Message) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // what is generated is valid UTF-8
	}
	digest := sha256.Sum256(b)
	return "generated-" + hex.EncodeToString(digest[:12])
}

// JSON is a document in the form that `probity plans lint` and the naive
// model read.
func JSON(m proto.Message) []byte {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		panic(err) // what is generated is valid UTF-8
	}
	return b
}

// All lists the documents; the tables of edits are none.
func (d Documents) All() []proto.Message {
	var out []proto.Message
	for _, x := range d.FeeSchedules {
		out = append(out, x)
	}
	for _, x := range d.Networks {
		out = append(out, x)
	}
	for _, x := range d.Plans {
		out = append(out, x)
	}
	for _, x := range d.Contracts {
		out = append(out, x)
	}
	for _, x := range d.Policies {
		out = append(out, x)
	}
	return out
}
