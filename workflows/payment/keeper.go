package payment

import (
	"context"
	"log/slog"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
)

// Scheduled is a payer whose cycle runs by a schedule.
type Scheduled struct {
	PayerID  string
	Schedule Schedule
}

// startTimeout bounds one call to Temporal, so that a lost connection is noticed.
const startTimeout = 10 * time.Second

// KeepSchedules tells each payer's cycle its schedule, starting it where it
// isn't there, and returns when all were told or ctx ends. Temporal being away
// is no reason to give up. A payer that is taken out of the configuration
// keeps its schedule until it is told another: give it the zero one.
func KeepSchedules(ctx context.Context, c client.Client, taskQueue string, all []Scheduled, log *slog.Logger) {
	for _, s := range all {
		for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
			err := tell(ctx, c, taskQueue, s)
			if err == nil {
				break
			}
			log.WarnContext(ctx, "a payment cycle could not be told its schedule; trying again", "payer_id", s.PayerID, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

func tell(ctx context.Context, c client.Client, taskQueue string, s Scheduled) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := c.SignalWithStartWorkflow(ctx, WorkflowID(s.PayerID), SignalSchedule, s.Schedule, client.StartWorkflowOptions{
		TaskQueue: taskQueue, WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}, WorkflowType, Input{PayerID: s.PayerID, Schedule: s.Schedule})
	return err
}
