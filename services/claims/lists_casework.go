package claims

import (
	"context"
	"strconv"
	"time"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/casework"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/views"
)

// The worklists. Their rows are those of claims with more fields: a the
// reviewer who has the task, h until when, e its escalation, o how many
// opinions there are, n how many are needed, u the prompt-pay day, p the open
// appeal, l whether its time has passed.
//
//	tasks:all|payer:<p>          ids of claims that wait for a person, by prompt-pay day
//	appeals:all|org:<o>|payer:<p>  ids of claims with an open appeal, by its deadline
const (
	kindTasks   = "tasks"
	kindAppeals = "appeals"
	kindWork    = "work" // rows of claims with the fields above
)

// note sets a field of a claim's row.
func note(claim, field, value string) views.Op {
	return views.HSet(rowsKey(kindWork), rowField(claim, field), value)
}

func forget(claim string, fields ...string) views.Op {
	for i, f := range fields {
		fields[i] = rowField(claim, f)
	}
	return views.HDel(rowsKey(kindWork), fields...)
}

// workOps appends the worklists' commands for one event of a claim's stream.
func workOps(ops []views.Op, r eventstore.Recorded) (_ []views.Op, claim string, err error) {
	switch e := r.Event.(type) {
	case *eventsv1.ClaimDecided:
		return decidedWork(ops, e, r), e.GetClaimId(), nil
	case *eventsv1.ClaimReversed:
		if !endsClaim(e) {
			return ops, e.GetClaimId(), nil
		}
		ops = append(unindex(ops, kindAppeals, e.GetSubmitterOrg(), e.GetPayerId(), e.GetClaimId()), forget(e.GetClaimId(), "p", "l"))
		return ops, e.GetClaimId(), nil
	case *eventsv1.TaskClaimed:
		until := strconv.FormatInt(e.GetHeldUntil().AsTime().UnixMilli(), 10)
		return append(ops, note(e.GetClaimId(), "a", e.GetAssignee()), note(e.GetClaimId(), "h", until)), e.GetClaimId(), nil
	case *eventsv1.TaskReleased:
		return append(ops, forget(e.GetClaimId(), "a", "h")), e.GetClaimId(), nil
	case *eventsv1.TaskEscalated:
		return append(ops, note(e.GetClaimId(), "e", strconv.FormatUint(uint64(e.GetLevel()), 10))), e.GetClaimId(), nil
	case *eventsv1.ReviewProposed:
		return append(ops, views.HIncr(rowsKey(kindWork), rowField(e.GetClaimId(), "o"), 1), forget(e.GetClaimId(), "a", "h")), e.GetClaimId(), nil
	case *eventsv1.InformationRequested:
		if !e.GetRequest().GetStopsClock() {
			return ops, e.GetClaimId(), nil
		}
		ops, err := row(ops, kindWork, e.GetClaimId(), "w", &claimsv1.ClaimSummary{NextActor: casework.Provider})
		ops = unindex(ops, kindTasks, "", e.GetPayerId(), e.GetClaimId())
		return append(ops, forget(e.GetClaimId(), "a", "h", "u")), e.GetClaimId(), err
	case *eventsv1.InformationReceived:
		ops, err := clockOps(ops, e.GetClaimId(), e.GetPayerId(), e.GetClock())
		return ops, e.GetClaimId(), err
	case *eventsv1.InformationExpired:
		ops, err := clockOps(ops, e.GetClaimId(), e.GetPayerId(), e.GetClock())
		return ops, e.GetClaimId(), err
	case *eventsv1.AppealFiled:
		a := e.GetAppeal()
		ops, err := row(ops, kindWork, e.GetClaimId(), "p", a)
		ops = index(ops, kindAppeals, e.GetSubmitterOrg(), e.GetPayerId(), a.GetDueTime().AsTime().UnixMilli(), e.GetClaimId())
		return append(ops, forget(e.GetClaimId(), "l")), e.GetClaimId(), err
	case *eventsv1.AppealDecided:
		ops = append(unindex(ops, kindAppeals, e.GetSubmitterOrg(), e.GetPayerId(), e.GetClaimId()), forget(e.GetClaimId(), "p", "l"))
		return ops, e.GetClaimId(), nil
	case *eventsv1.AppealOverdue:
		return append(ops, note(e.GetClaimId(), "l", "1")), e.GetClaimId(), nil
	}
	return ops, "", nil
}

// decidedWork puts a pended claim on the list, unless its clock is stopped,
// and takes a decided one off; a decision also ends an appeal of the one before.
func decidedWork(ops []views.Op, e *eventsv1.ClaimDecided, r eventstore.Recorded) []views.Op {
	if r.Revision > 1 {
		ops = append(ops, forget(e.GetClaimId(), "a", "h", "e", "o", "n", "u", "p", "l"))
		ops = unindex(ops, kindTasks, "", e.GetPayerId(), e.GetClaimId())
		ops = unindex(ops, kindAppeals, e.GetSubmitterOrg(), e.GetPayerId(), e.GetClaimId())
	}
	if e.GetStatus() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
		if r.Revision > 1 {
			ops = append(ops, forget(e.GetClaimId(), "w"))
		}
		return ops
	}
	if n := e.GetReviewersNeeded(); n > 1 {
		ops = append(ops, note(e.GetClaimId(), "n", strconv.FormatUint(uint64(n), 10)))
	}
	return onList(ops, e.GetClaimId(), e.GetPayerId(), e.GetPromptPayDueDate())
}

// clockOps put a claim back on the list whose clock runs again.
func clockOps(ops []views.Op, claim, payer string, c *claimsv1.PromptPayClock) ([]views.Op, error) {
	if c == nil {
		return ops, nil
	}
	ops, err := row(ops, kindWork, claim, "w", &claimsv1.ClaimSummary{NextActor: casework.Payer})
	return onList(ops, claim, payer, c.GetDueDate()), err
}

func onList(ops []views.Op, claim, payer, due string) []views.Op {
	day, err := time.Parse(time.DateOnly, due)
	if err != nil {
		return ops
	}
	return index(append(ops, note(claim, "u", due)), kindTasks, "", payer, day.UnixMilli(), claim)
}

// listed is one row of a worklist.
type listed struct {
	claim  *claimsv1.ClaimSummary
	task   *claimsv1.Task
	appeal *claimsv1.Appeal
}

func listedRow(fields map[string]string) (listed, error) {
	c, err := claimRow(fields)
	if err != nil {
		return listed{}, err
	}
	number := func(field string) uint32 {
		n, _ := strconv.ParseUint(fields[field], 10, 32)
		return uint32(n)
	}
	out := listed{claim: c, task: &claimsv1.Task{
		ClaimId: c.GetClaimId(), PayerId: c.GetPayerId(), ChargeCents: c.GetChargeCents(), PendReasons: c.GetPendReasons(), Status: c.GetStatus(),
		DueDate: fields["u"], Assignee: fields["a"], Escalation: number("e"), OpinionCount: number("o"), ReviewersNeeded: max(1, number("n")),
	}}
	if ms, err := strconv.ParseInt(fields["h"], 10, 64); err == nil {
		out.task.HeldUntil = millis(ms)
	}
	if _, ok := fields["p"]; ok {
		out.appeal = &claimsv1.Appeal{}
		if err := part(fields, "p", out.appeal); err != nil {
			return out, err
		}
		if fields["l"] != "" {
			out.appeal.State = claimsv1.AppealState_APPEAL_STATE_OVERDUE
		}
	}
	return out, nil
}

// ListTasks implements claimsv1connect.CaseServiceHandler.
func (s *Service) ListTasks(ctx context.Context, req *claimsv1.ListTasksRequest) (*claimsv1.ListTasksResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListTasks", identity.Resource{Type: identity.Claim, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	// A task is the payer's: a sender's own organisation shows it none.
	scope := identity.ScopeOf(caller)
	scope.Org = ""
	rows, next, err := s.worklist(ctx, req.GetMinToken(), listing[listed]{
		kind: kindTasks, indexes: indexesFor(kindTasks, scope, req.GetPayerId()), size: int(req.GetPageSize()), token: req.GetPageToken(),
		filter: filterOf(caller, "tasks", req.GetPayerId(), req.GetAssignee(), itoa(req.GetMinEscalation())),
		keep: func(l listed) bool {
			t := l.task
			return t.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED && scope.Includes("", t.GetPayerId()) &&
				t.GetEscalation() >= req.GetMinEscalation() &&
				(req.GetAssignee() == "" || req.GetAssignee() == t.GetAssignee() || (req.GetAssignee() == "-" && t.GetAssignee() == ""))
		},
	})
	out := &claimsv1.ListTasksResponse{NextPageToken: next}
	for _, l := range rows {
		out.Tasks = append(out.Tasks, l.task)
	}
	return out, err
}

// ListAppeals implements claimsv1connect.CaseServiceHandler.
func (s *Service) ListAppeals(ctx context.Context, req *claimsv1.ListAppealsRequest) (*claimsv1.ListAppealsResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListAppeals", identity.Resource{Type: identity.Claim, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	scope := identity.ScopeOf(caller)
	rows, next, err := s.worklist(ctx, req.GetMinToken(), listing[listed]{
		kind: kindAppeals, indexes: indexesFor(kindAppeals, scope, req.GetPayerId()), size: int(req.GetPageSize()), token: req.GetPageToken(),
		filter: filterOf(caller, "appeals", req.GetPayerId()),
		keep: func(l listed) bool {
			return l.appeal != nil && scope.Includes(l.claim.GetSubmitterOrg(), l.claim.GetPayerId()) &&
				(req.GetPayerId() == "" || req.GetPayerId() == l.claim.GetPayerId())
		},
	})
	out := &claimsv1.ListAppealsResponse{NextPageToken: next}
	for _, l := range rows {
		out.Appeals = append(out.Appeals, l.appeal)
	}
	return out, err
}

func (s *Service) worklist(ctx context.Context, token string, l listing[listed]) ([]listed, string, error) {
	reading, err := s.view.At(ctx, token)
	if err != nil {
		return nil, "", err
	}
	l.ascending, l.row = true, listedRow
	return pageOf(ctx, reading, l)
}
