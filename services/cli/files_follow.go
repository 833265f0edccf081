package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
)

const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
)

// awaitFile polls until a file is done, complete or canceled, and shows how
// far it has come; patiently when nothing moves.
func (a *app) awaitFile(ctx context.Context, conn *connection, id, what string, timeout time.Duration) (*workflowsv1.GetFileProgressResponse, error) {
	until := a.Now().Add(timeout)
	var bar *meter
	defer func() {
		if bar != nil {
			bar.done()
		}
	}()
	for pause, last := firstPause, int64(-1); ; {
		now, err := conn.standing(ctx, id)
		if err != nil {
			return nil, err
		}
		if bar == nil {
			bar = a.progress(what, int64(now.GetClaimCount()))
		}
		bar.set(int64(now.GetDone()))
		if now.GetComplete() || now.GetStage() == "refused" {
			return now, nil
		}
		if !a.Now().Before(until) {
			return nil, problem.New(problem.Unavailable, problem.Problem{
				RuleID:  "cli.submit.timeout",
				Message: fmt.Sprintf("%d of %d claims have an outcome; the rest is still being decided", now.GetDone(), now.GetClaimCount()),
				Fix:     "the file is recorded and goes on by itself; look again with: probity files watch " + id,
			})
		}
		if int64(now.GetDone()) != last {
			pause, last = firstPause, int64(now.GetDone())
		} else {
			pause = min(pause*3/2, maxPause)
		}
		if err := a.Sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// standing asks the file's workflow, and the record of the file where there
// is no workflow to ask: with workflows down, what is decided is still told.
func (c *connection) standing(ctx context.Context, id string) (*workflowsv1.GetFileProgressResponse, error) {
	progress, err := c.workflows.GetFileProgress(ctx, &workflowsv1.GetFileProgressRequest{FileId: id})
	if err == nil {
		return progress, nil
	}
	if ctx.Err() != nil || problem.Is(err, problem.Unauthenticated) {
		return nil, err
	}
	got, err := c.files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id})
	if err != nil {
		return nil, err
	}
	f := got.GetFile()
	out := &workflowsv1.GetFileProgressResponse{
		ClaimCount: f.GetClaimCount(), Done: f.GetOutcomeCount(), NotProcessed: f.GetNotProcessedCount(), RemittanceIds: f.GetRemittanceIds(),
	}
	switch f.GetState() {
	case claimsv1.FileState_FILE_STATE_COMPLETE:
		out.Stage, out.Complete = "complete", true
	case claimsv1.FileState_FILE_STATE_CANCELED:
		out.Stage, out.Complete = "canceled", true
	case claimsv1.FileState_FILE_STATE_CANCELING:
		out.Stage = "canceling"
	case claimsv1.FileState_FILE_STATE_REFUSED:
		out.Stage = "refused"
	}
	return out, nil
}

// outcomesPage is how many outcomes are asked for at once.
const outcomesPage = 2000

// listOutcomes walks what became of a file's claims, by ordinal.
func (c *connection) listOutcomes(ctx context.Context, id string, each func(*claimsv1.ClaimOutcome) error) error {
	for token := ""; ; {
		page, err := c.files.ListFileOutcomes(ctx, &claimsv1.ListFileOutcomesRequest{FileId: id, PageSize: outcomesPage, PageToken: token})
		if err != nil {
			return err
		}
		for _, o := range page.GetOutcomes() {
			if err := each(o); err != nil {
				return err
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			return nil
		}
	}
}

func (a *app) filesWatch() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "watch FILE_ID",
		Short: "Show a file's progress until every claim has an outcome",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			return a.watchFile(cmd.Context(), conn, args[0], "deciding "+args[0], timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to watch")
	return cmd
}

// watchFile waits for a file and says how it ended.
func (a *app) watchFile(ctx context.Context, conn *connection, id, what string, timeout time.Duration) error {
	end, err := a.awaitFile(ctx, conn, id, what, timeout)
	if err != nil {
		return err
	}
	return a.emitOne(end, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s, %d of %d claims have an outcome", id, end.GetStage(), end.GetDone(), end.GetClaimCount())
		if end.GetNotProcessed() > 0 && err == nil {
			_, err = fmt.Fprintf(w, ", %d of them not processed", end.GetNotProcessed())
		}
		if err == nil {
			_, err = fmt.Fprintln(w)
		}
		a.say("next: probity files outcomes %s", id)
		return err
	})
}

func (a *app) filesCancel() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "cancel FILE_ID",
		Short: "Stop a file: what is decided stands, the rest is not processed",
		Long: `Stop a file: what is decided stands, the rest is not processed.

Claims under way are brought to their end and remitted like those before them.
The rest is listed as not processed, in probity files outcomes and in the 277CA.
Asking again changes nothing. To take a decided claim back use probity claims void.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.files.CancelFile(cmd.Context(), &claimsv1.CancelFileRequest{FileId: args[0]})
			if err != nil {
				return err
			}
			if !wait {
				a.say("%s: cancel recorded; see probity files watch %s", args[0], args[0])
				return a.emitOne(got, func(io.Writer) error { return nil })
			}
			return a.watchFile(cmd.Context(), conn, args[0], "closing "+args[0], timeout)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until the file is closed")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	return cmd
}

func (a *app) filesResume() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "resume FILE_ID",
		Short: "Have a file that stands still worked on again",
		Long: `Have a file that stands still worked on again.

For a file whose workflow was lost or canceled in Temporal itself, or which is
stalled because a service had refused part of it. What is decided stays, and
where the file is being worked on nothing happens. A file that was canceled with
probity files cancel is closed: send its other claims in a new one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.workflows.ResumeFile(cmd.Context(), &workflowsv1.ResumeFileRequest{FileId: args[0]})
			if err != nil {
				return err
			}
			if !wait {
				if got.GetStarted() {
					a.say("%s: resumed; see probity files watch %s", args[0], args[0])
				} else {
					a.say("%s: it is being worked on; see probity files watch %s", args[0], args[0])
				}
				return a.emitOne(got, func(io.Writer) error { return nil })
			}
			return a.watchFile(cmd.Context(), conn, args[0], "resuming "+args[0], timeout)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until the file is complete")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	return cmd
}

// outcomeStatuses are the words of --status; a status may have a claim or none.
var outcomeStatuses = map[string]claimsv1.ClaimStatus{
	"paid":          claimsv1.ClaimStatus_CLAIM_STATUS_PAID,
	"denied":        claimsv1.ClaimStatus_CLAIM_STATUS_DENIED,
	"pended":        claimsv1.ClaimStatus_CLAIM_STATUS_PENDED,
	"rejected":      claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED,
	"not-processed": claimsv1.ClaimStatus_CLAIM_STATUS_NOT_PROCESSED,
}

func (a *app) filesOutcomes() *cobra.Command {
	var status string
	cmd := &cobra.Command{
		Use:   "outcomes FILE_ID",
		Short: "List what became of every claim of a file",
		Long: `List what became of every claim of a file, as it was recorded when the claim was
looked at. How a claim stands since is told by probity claims get.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			only, known := outcomeStatuses[status]
			if status != "" && !known {
				return usagef("--status %q is none of paid, denied, pended, rejected, not-processed", status)
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			var list []*claimsv1.ClaimOutcome
			if err := conn.listOutcomes(cmd.Context(), args[0], func(o *claimsv1.ClaimOutcome) error {
				if status == "" || o.GetStatus() == only {
					list = append(list, o)
				}
				return nil
			}); err != nil {
				return err
			}
			rows := raws(list)
			return a.emit(rows, rows, func(w io.Writer) error {
				table := right(grid("NUMBER", "CLAIM", "STATUS", "WHY"), "NUMBER")
				for _, o := range list {
					claim, why := o.GetClaimId(), "-"
					if claim == "" {
						claim = "-"
					}
					if len(o.GetProblems()) > 0 {
						why = strings.TrimSpace(o.GetProblems()[0].GetRuleId() + " " + o.GetProblems()[0].GetMessage())
					}
					table.AppendRow([]any{o.GetOrdinal() + 1, claim, a.status(o.GetStatus()), why})
				}
				return render(w, table)
			})
		},
	}
	cmd.Flags().StringVar(&status, "status", "", "only these: paid, denied, pended, rejected, not-processed")
	return cmd
}
