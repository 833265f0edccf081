package cli_test

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/problem"
)

// casesFake has the pended claim's case, and answers what was asked of it.
type casesFake struct {
	claimsv1connect.UnimplementedCaseServiceHandler
	*world
}

func (f casesFake) pending(id string, change func(*claimsv1.Case)) (*claimsv1.Case, error) {
	if _, err := (claimsFake{world: f.world}).find(id); err != nil {
		return nil, err
	}
	due := timestamppb.New(noon.Add(24 * time.Hour))
	c := &claimsv1.Case{
		ClaimId: id, Status: claimsv1.ClaimStatus_CLAIM_STATUS_PENDED, Clock: &claimsv1.PromptPayClock{DueDate: "2026-04-01"},
		Task: &claimsv1.Task{ClaimId: id, PayerId: "KEYSTONE", ChargeCents: 240000, DueDate: "2026-04-01", ReviewersNeeded: 2, OpinionCount: 1, Escalation: 1,
			PendReasons: []*claimsv1.PendReason{{RuleId: "review.high-charge", Message: "the charge is high"}}},
		Deadlines: []*claimsv1.Deadline{{Kind: "escalation", Time: due}},
	}
	if change != nil {
		change(c)
	}
	return c, nil
}

func (f casesFake) GetCase(_ context.Context, r *claimsv1.GetCaseRequest) (*claimsv1.GetCaseResponse, error) {
	c, err := f.pending(r.GetClaimId(), func(c *claimsv1.Case) {
		c.Task.Opinions = []*claimsv1.Opinion{{Reviewer: "adj-1", Resolution: "approve"}}
	})
	return &claimsv1.GetCaseResponse{Case: c}, err
}

func (f casesFake) ListTasks(_ context.Context, r *claimsv1.ListTasksRequest) (*claimsv1.ListTasksResponse, error) {
	if r.GetAssignee() != "" {
		return &claimsv1.ListTasksResponse{}, nil
	}
	c, err := f.pending(pendedID, nil)
	return &claimsv1.ListTasksResponse{Tasks: []*claimsv1.Task{c.GetTask()}}, err
}

func (f casesFake) ClaimTask(_ context.Context, r *claimsv1.ClaimTaskRequest) (*claimsv1.ClaimTaskResponse, error) {
	c, err := f.pending(r.GetClaimId(), func(c *claimsv1.Case) { c.Task.Assignee, c.Task.HeldUntil = "me", timestamppb.New(noon) })
	return &claimsv1.ClaimTaskResponse{Case: c}, err
}

func (f casesFake) ReleaseTask(_ context.Context, r *claimsv1.ReleaseTaskRequest) (*claimsv1.ReleaseTaskResponse, error) {
	c, err := f.pending(r.GetClaimId(), nil)
	return &claimsv1.ReleaseTaskResponse{Case: c}, err
}

func (f casesFake) ReassignTask(_ context.Context, r *claimsv1.ReassignTaskRequest) (*claimsv1.ReassignTaskResponse, error) {
	c, err := f.pending(r.GetClaimId(), func(c *claimsv1.Case) { c.Task.Assignee, c.Task.HeldUntil = r.GetAssignee(), timestamppb.New(noon) })
	return &claimsv1.ReassignTaskResponse{Case: c}, err
}

func (f casesFake) EscalateTask(_ context.Context, r *claimsv1.EscalateTaskRequest) (*claimsv1.EscalateTaskResponse, error) {
	c, err := f.pending(r.GetClaimId(), func(c *claimsv1.Case) { c.Task.Escalation++ })
	return &claimsv1.EscalateTaskResponse{Case: c}, err
}

func (f casesFake) SetEscalation(_ context.Context, r *claimsv1.SetEscalationRequest) (*claimsv1.SetEscalationResponse, error) {
	c, err := f.pending(r.GetClaimId(), func(c *claimsv1.Case) { c.Task.Escalation = r.GetLevel() })
	return &claimsv1.SetEscalationResponse{Case: c}, err
}

func (f casesFake) RequestInformation(_ context.Context, r *claimsv1.RequestInformationRequest) (*claimsv1.RequestInformationResponse, error) {
	c, err := f.pending(r.GetClaimId(), func(c *claimsv1.Case) {
		c.Requests = []*claimsv1.InformationRequest{{Kind: r.GetKind(), State: claimsv1.InformationState_INFORMATION_STATE_REQUESTED, DueTime: timestamppb.New(noon)}}
		c.Clock = &claimsv1.PromptPayClock{StoppedTime: timestamppb.New(noon)}
	})
	return &claimsv1.RequestInformationResponse{Case: c}, err
}

// ReceiveInformation shows what was handed in by the request's kind.
func (f casesFake) ReceiveInformation(_ context.Context, r *claimsv1.ReceiveInformationRequest) (*claimsv1.ReceiveInformationResponse, error) {
	state := claimsv1.InformationState_INFORMATION_STATE_RECEIVED
	if r.GetRefused() {
		state = claimsv1.InformationState_INFORMATION_STATE_REFUSED
	}
	c, err := f.pending(r.GetClaimId(), func(c *claimsv1.Case) {
		c.Requests = []*claimsv1.InformationRequest{{Kind: r.GetKind(), State: state, DueTime: timestamppb.New(noon)}}
	})
	return &claimsv1.ReceiveInformationResponse{Case: c}, err
}

const appealID = "apl_aaaaaaaaaaaaaaaaaaaaaaaaaa"

func appealOf(claim string, state claimsv1.AppealState) *claimsv1.Appeal {
	return &claimsv1.Appeal{AppealId: appealID, ClaimId: claim, PayerId: "KEYSTONE", Level: claimsv1.AppealLevel_APPEAL_LEVEL_RECONSIDERATION,
		State: state, FiledTime: timestamppb.New(noon), DueTime: timestamppb.New(noon.AddDate(0, 0, 30))}
}

func (f casesFake) FileAppeal(_ context.Context, r *claimsv1.FileAppealRequest) (*claimsv1.FileAppealResponse, error) {
	if r.GetClaimId() == pendedID {
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "casework.appeal.not-final", Message: "only a decision that pays or denies is appealed"})
	}
	return &claimsv1.FileAppealResponse{Appeal: appealOf(r.GetClaimId(), claimsv1.AppealState_APPEAL_STATE_FILED)}, nil
}

func (f casesFake) ListAppeals(context.Context, *claimsv1.ListAppealsRequest) (*claimsv1.ListAppealsResponse, error) {
	return &claimsv1.ListAppealsResponse{Appeals: []*claimsv1.Appeal{appealOf(deniedID, claimsv1.AppealState_APPEAL_STATE_OVERDUE)}}, nil
}

func (f casesFake) DecideAppeal(_ context.Context, r *claimsv1.DecideAppealRequest) (*claimsv1.DecideAppealResponse, error) {
	claim, err := claimsFake{world: f.world}.find(r.GetClaimId())
	return &claimsv1.DecideAppealResponse{Appeal: appealOf(r.GetClaimId(), claimsv1.AppealState_APPEAL_STATE_UPHELD), Claim: claim}, err
}
