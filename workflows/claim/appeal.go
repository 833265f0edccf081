package claim

import (
	"time"

	"go.temporal.io/sdk/workflow"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

// Names of the appeal's workflow.
const (
	AppealWorkflowType = "appeal"
	QueryAppeal        = "appeal" // -> probity.claims.v1.Case

	activityRemitAppeal = "appeal.remit"
)

// AppealWorkflowID is the id of an appeal's workflow: opaque, as the appeal's id is.
func AppealWorkflowID(appealID string) string { return "appeal:" + appealID }

// AppealInput starts an appeal's workflow.
type AppealInput struct {
	AppealID string
	ClaimID  string
}

// AppealWorkflow watches the time to decide an appeal and, where the appeal
// overturns a decision of a claim that came in a file, has the correction
// remitted. It ends when the appeal is closed, however that came about.
func AppealWorkflow(ctx workflow.Context, in AppealInput) error {
	w := newWatch(ctx, in.ClaimID)
	if err := workflow.SetQueryHandler(ctx, QueryAppeal, func() (*claimsv1.Case, error) { return w.now, nil }); err != nil {
		return err
	}
	state := claimsv1.AppealState_APPEAL_STATE_FILED
	w.keep(ctx, time.Time{}, func(c *claimsv1.Case) (done bool) {
		for _, a := range c.GetAppeals() {
			if a.GetAppealId() == in.AppealID {
				state = a.GetState()
			}
		}
		return state != claimsv1.AppealState_APPEAL_STATE_FILED && state != claimsv1.AppealState_APPEAL_STATE_OVERDUE
	})
	if state != claimsv1.AppealState_APPEAL_STATE_OVERTURNED {
		return ctx.Err()
	}
	return workflow.ExecuteActivity(withRemit(ctx), activityRemitAppeal, in).Get(ctx, nil)
}
