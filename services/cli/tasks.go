package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
)

func (a *app) tasksCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "tasks", Short: "Work on claims and payments that wait for a person", Args: cobra.NoArgs}
	cmd.AddCommand(
		a.tasksList(), a.tasksShow(),
		a.onTask("claim", "Take a task: until you release it nobody else decides it", func(ctx context.Context, c *connection, claim, request string) (*claimsv1.Case, error) {
			r, err := c.cases.ClaimTask(ctx, &claimsv1.ClaimTaskRequest{ClaimId: claim, RequestId: request})
			return r.GetCase(), err
		}),
		a.onTask("release", "Give a task back", func(ctx context.Context, c *connection, claim, request string) (*claimsv1.Case, error) {
			r, err := c.cases.ReleaseTask(ctx, &claimsv1.ReleaseTaskRequest{ClaimId: claim, RequestId: request})
			return r.GetCase(), err
		}),
		a.onTask("escalate", "Tell more senior people of a task", func(ctx context.Context, c *connection, claim, request string) (*claimsv1.Case, error) {
			r, err := c.cases.EscalateTask(ctx, &claimsv1.EscalateTaskRequest{ClaimId: claim, RequestId: request})
			return r.GetCase(), err
		}),
		a.tasksReassign(), a.tasksSetEscalation(), a.tasksDecide(), a.tasksRequest(), a.tasksReceive(), a.tasksPayments(),
	)
	return cmd
}

func (a *app) tasksList() *cobra.Command {
	var limit int
	var mine string
	var escalation uint32
	list := &cobra.Command{
		Use:   "list",
		Short: "List claims that wait for a person, the earliest prompt-pay day first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			var tasks []*claimsv1.Task
			filter := &claimsv1.ListTasksRequest{Assignee: mine, MinEscalation: escalation}
			for {
				filter.PageSize = pageSize
				if limit > 0 {
					filter.PageSize = uint32(min(pageSize, limit-len(tasks))) //nolint:gosec // at most pageSize
				}
				page, err := conn.cases.ListTasks(cmd.Context(), filter)
				if err != nil {
					return err
				}
				tasks = append(tasks, page.GetTasks()...)
				if filter.PageToken = page.GetNextPageToken(); filter.PageToken == "" || (limit > 0 && len(tasks) >= limit) {
					break
				}
			}
			docs := raws(tasks)
			return a.emit(docs, docs, func(w io.Writer) error {
				if len(tasks) == 0 {
					a.say("no task waits for a person")
					return nil
				}
				rows := right(grid("CLAIM", "PAYER", "DUE", "CHARGE", "REVIEWER", "ESCALATED", "OPINIONS", "WAITS FOR"), "CHARGE", "ESCALATED")
				for _, t := range tasks {
					var why []string
					for _, r := range t.GetPendReasons() {
						why = append(why, r.GetRuleId())
					}
					rows.AppendRow([]any{t.GetClaimId(), t.GetPayerId(), orDash(t.GetDueDate()), dollars(t.GetChargeCents()), orDash(t.GetAssignee()),
						t.GetEscalation(), opinions(t), strings.Join(why, ", ")})
				}
				return render(w, rows)
			})
		},
	}
	list.Flags().IntVar(&limit, "limit", 50, "at most this many; 0 is all")
	list.Flags().StringVar(&mine, "reviewer", "", `only this reviewer's; "-" is those that nobody has`)
	list.Flags().Uint32Var(&escalation, "escalated", 0, "only those escalated at least so far")
	return list
}

func opinions(t *claimsv1.Task) string {
	if t.GetReviewersNeeded() < 2 {
		return "-"
	}
	return fmt.Sprintf("%d of %d", t.GetOpinionCount(), t.GetReviewersNeeded())
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) tasksShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show CLAIM_ID",
		Short: "Show the work on a claim: task, requests, appeals, clock and deadlines",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.cases.GetCase(cmd.Context(), &claimsv1.GetCaseRequest{ClaimId: args[0]})
			if err != nil {
				return err
			}
			return a.showCase(got.GetCase())
		},
	}
}

// showCase prints a case; a deadline that has passed is still shown until the
// claims service has dealt with it.
func (a *app) showCase(c *claimsv1.Case) error {
	return a.emitOne(c, func(w io.Writer) error {
		row := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%-11s %s\n", name, value)
			}
		}
		row("claim", c.GetClaimId())
		row("status", a.status(c.GetStatus()))
		if t := c.GetTask(); t != nil {
			reviewer := "nobody"
			if t.GetAssignee() != "" {
				reviewer = t.GetAssignee() + " until " + a.time(t.GetHeldUntil())
			}
			row("reviewer", reviewer)
			if t.GetEscalation() > 0 {
				row("escalated", fmt.Sprintf("level %d", t.GetEscalation()))
			}
			if r := t.GetReviewersRule(); r != nil {
				by := "as this installation has it"
				if r.GetPlan() != "" {
					by = "as " + r.GetPlan() + " has it"
				}
				row("reviewers", fmt.Sprintf("%d must agree on %s and more, %s", t.GetReviewersNeeded(), dollars(r.GetFromCents()), by))
			}
			for _, o := range t.GetOpinions() {
				row("opinion", fmt.Sprintf("%s by %s; %d must agree", o.GetResolution(), o.GetReviewer(), t.GetReviewersNeeded()))
			}
			for _, r := range t.GetPendReasons() {
				row("waits for", fmt.Sprintf("%s (%s)", r.GetMessage(), r.GetRuleId()))
			}
		}
		if clock := c.GetClock(); clock != nil {
			due := "pay or deny by " + clock.GetDueDate()
			if clock.GetStoppedTime() != nil {
				due = "stopped since " + a.time(clock.GetStoppedTime()) + ", while the provider is waited for"
			}
			row("clock", due)
		}
		for _, r := range c.GetRequests() {
			row("asked for", fmt.Sprintf("%s %s, due %s", word(r.GetKind().String(), "INFORMATION_KIND_"), word(r.GetState().String(), "INFORMATION_STATE_"), a.time(r.GetDueTime())))
		}
		for _, p := range c.GetAppeals() {
			row("appeal", fmt.Sprintf("%s %s %s, due %s", p.GetAppealId(), word(p.GetLevel().String(), "APPEAL_LEVEL_"), word(p.GetState().String(), "APPEAL_STATE_"), a.time(p.GetDueTime())))
		}
		for _, d := range c.GetDeadlines() {
			row("deadline", a.time(d.GetTime())+" "+d.GetKind())
		}
		return nil
	})
}

// word turns an enum's name into a word for people.
func word(name, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", " "))
}

// onTask is a command on one task that answers with the case.
func (a *app) onTask(verb, short string, do func(context.Context, *connection, string, string) (*claimsv1.Case, error)) *cobra.Command {
	var requestID string
	cmd := &cobra.Command{
		Use: verb + " CLAIM_ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			c, err := do(cmd.Context(), conn, args[0], a.keyOr(requestID))
			if err != nil {
				return err
			}
			return a.showCase(c)
		},
	}
	requestIDFlag(cmd, &requestID)
	return cmd
}

func requestIDFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "request-id", "", "idempotency key; the same key answers with the first result")
}

func (a *app) keyOr(requestID string) string {
	if requestID == "" {
		return a.requestID
	}
	return requestID
}

func (a *app) tasksReassign() *cobra.Command {
	var to string
	cmd := a.onTask("reassign", "Give a task to another reviewer, whoever has it", func(ctx context.Context, c *connection, claim, request string) (*claimsv1.Case, error) {
		if to == "" {
			return nil, usagef("--to is needed: the reviewer's id")
		}
		r, err := c.cases.ReassignTask(ctx, &claimsv1.ReassignTaskRequest{ClaimId: claim, RequestId: request, Assignee: to})
		return r.GetCase(), err
	})
	cmd.Flags().StringVar(&to, "to", "", "reviewer's id (required)")
	return cmd
}

func (a *app) tasksSetEscalation() *cobra.Command {
	var level uint32
	cmd := a.onTask("set-escalation", "Set how far a task is escalated, up or down", func(ctx context.Context, c *connection, claim, request string) (*claimsv1.Case, error) {
		r, err := c.cases.SetEscalation(ctx, &claimsv1.SetEscalationRequest{ClaimId: claim, RequestId: request, Level: level})
		return r.GetCase(), err
	})
	cmd.Flags().Uint32Var(&level, "level", 0, "0 is not escalated, 9 the most")
	return cmd
}

func (a *app) tasksDecide() *cobra.Command {
	var resolution, reason, requestID string
	cmd := &cobra.Command{
		Use:   "decide CLAIM_ID",
		Short: "Decide a claim; the engine then decides again, or another reviewer must agree first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (resolution != "approve" && resolution != "deny") || reason == "" {
				return usagef("--as approve or deny and --reason are needed; the reason is kept, sealed, with the decision")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.workflows.ReviewClaim(cmd.Context(), &workflowsv1.ReviewClaimRequest{
				ClaimId: args[0], RequestId: a.keyOr(requestID), Resolution: resolution, Reason: reason,
			})
			if err != nil {
				return err
			}
			if got.GetClaim().GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
				a.say("your opinion is recorded; the claim still waits, see probity tasks show %s", args[0])
			}
			return a.emitOne(got, func(w io.Writer) error { a.claimHead(w, got.GetClaim()); return nil })
		},
	}
	cmd.Flags().StringVar(&resolution, "as", "", "approve or deny (required)")
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	requestIDFlag(cmd, &requestID)
	return cmd
}

var informationKinds = map[string]claimsv1.InformationKind{
	"document":            claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT,
	"other-payer":         claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER,
	"prior-authorization": claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION,
}

func (a *app) tasksRequest() *cobra.Command {
	var what string
	var urgent bool
	cmd := a.onTask("request", "Ask for what a claim lacks", func(ctx context.Context, c *connection, claim, request string) (*claimsv1.Case, error) {
		kind, ok := informationKinds[what]
		if !ok {
			return nil, usagef("--what is document, other-payer or prior-authorization")
		}
		r, err := c.cases.RequestInformation(ctx, &claimsv1.RequestInformationRequest{ClaimId: claim, RequestId: request, Kind: kind, Urgent: urgent})
		return r.GetCase(), err
	})
	cmd.Flags().StringVar(&what, "what", "document", "document, other-payer or prior-authorization")
	cmd.Flags().BoolVar(&urgent, "urgent", false, "a prior authorisation within 72 hours instead of 7 days")
	return cmd
}

func (a *app) tasksReceive() *cobra.Command {
	var document, otherPayers, number, what string
	cmd := a.onTask("receive", "Hand in what a claim lacked", func(ctx context.Context, c *connection, claim, request string) (*claimsv1.Case, error) {
		q := &claimsv1.ReceiveInformationRequest{ClaimId: claim, RequestId: request, Answer: &claimsv1.InformationAnswer{}}
		given := 0
		if document != "" {
			given++
			q.Kind, q.Answer.DocumentReference = claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT, document
		}
		if otherPayers != "" {
			given++
			q.Kind = claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER
			if err := readAnswer(otherPayers, q.Answer); err != nil {
				return nil, err
			}
		}
		if number != "" {
			given++
			q.Kind, q.Answer.PriorAuthorizationNumber = claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION, number
		}
		if what != "" {
			given++
			q.Kind, q.Refused = informationKinds[what], true
		}
		if given != 1 || q.GetKind() == 0 {
			return nil, usagef("give one of --document, --other-payer, --authorization, or --refused document, other-payer or prior-authorization")
		}
		r, err := c.cases.ReceiveInformation(ctx, q)
		return r.GetCase(), err
	})
	cmd.Flags().StringVar(&document, "document", "", "where the document is kept")
	cmd.Flags().StringVar(&otherPayers, "other-payer", "", "file with the other payers' decisions: JSON of probity.claims.v1.InformationAnswer")
	cmd.Flags().StringVar(&number, "authorization", "", "number of the prior authorisation, as recorded")
	cmd.Flags().StringVar(&what, "refused", "", "what will not come: document, other-payer or prior-authorization")
	return cmd
}

// readAnswer reads an answer from a JSON file, strictly.
func readAnswer(path string, into proto.Message) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxDocument {
		return usagef("%s is larger than 4 MiB", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(text, into); err != nil {
		return usagef("%s is no JSON of probity.claims.v1.InformationAnswer", path)
	}
	return nil
}

func (a *app) appealsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "appeals", Short: "File and decide appeals of decisions", Args: cobra.NoArgs}
	cmd.AddCommand(a.appealsFile(), a.appealsList(), a.appealsDecide())
	return cmd
}

func (a *app) appealsFile() *cobra.Command {
	var grounds, requestID string
	var expedited bool
	cmd := &cobra.Command{
		Use:   "file CLAIM_ID",
		Short: "Appeal a decision at the next level that is open",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if grounds == "" {
				return usagef("--grounds is needed: why the decision is wrong; it is kept sealed")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.cases.FileAppeal(cmd.Context(), &claimsv1.FileAppealRequest{ClaimId: args[0], RequestId: a.keyOr(requestID), Grounds: grounds, Expedited: expedited})
			if err != nil {
				return err
			}
			return a.showAppeals([]*claimsv1.Appeal{got.GetAppeal()})
		},
	}
	cmd.Flags().StringVar(&grounds, "grounds", "", "why the decision is wrong (required)")
	cmd.Flags().BoolVar(&expedited, "expedited", false, "it can't wait: 72 hours")
	requestIDFlag(cmd, &requestID)
	return cmd
}

func (a *app) appealsList() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List open appeals, the earliest deadline first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			var appeals []*claimsv1.Appeal
			q := &claimsv1.ListAppealsRequest{}
			for {
				q.PageSize = pageSize
				if limit > 0 {
					q.PageSize = uint32(min(pageSize, limit-len(appeals))) //nolint:gosec // at most pageSize
				}
				page, err := conn.cases.ListAppeals(cmd.Context(), q)
				if err != nil {
					return err
				}
				appeals = append(appeals, page.GetAppeals()...)
				if q.PageToken = page.GetNextPageToken(); q.PageToken == "" || (limit > 0 && len(appeals) >= limit) {
					break
				}
			}
			if len(appeals) == 0 {
				a.say("no appeal is open")
			}
			return a.showAppeals(appeals)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this many; 0 is all")
	return cmd
}

func (a *app) showAppeals(appeals []*claimsv1.Appeal) error {
	docs := raws(appeals)
	return a.emit(docs, docs, func(w io.Writer) error {
		if len(appeals) == 0 {
			return nil
		}
		rows := grid("APPEAL", "CLAIM", "PAYER", "LEVEL", "STATE", "FILED", "DUE")
		for _, p := range appeals {
			rows.AppendRow([]any{p.GetAppealId(), p.GetClaimId(), p.GetPayerId(), word(p.GetLevel().String(), "APPEAL_LEVEL_"),
				word(p.GetState().String(), "APPEAL_STATE_"), a.time(p.GetFiledTime()), a.time(p.GetDueTime())})
		}
		return render(w, rows)
	})
}

func (a *app) appealsDecide() *cobra.Command {
	var outcome, reason, requestID string
	var rules []string
	cmd := &cobra.Command{
		Use:   "decide CLAIM_ID APPEAL_ID",
		Short: "Uphold a decision or overturn it; who had a say in it may not",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (outcome != "upheld" && outcome != "overturned") || reason == "" {
				return usagef("--as upheld or overturned and --reason are needed; the reason is kept, sealed")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			q := &claimsv1.DecideAppealRequest{ClaimId: args[0], AppealId: args[1], RequestId: a.keyOr(requestID), Outcome: outcome, Reason: reason}
			for _, r := range rules {
				q.Overturned = append(q.Overturned, &claimsv1.Finding{RuleId: r})
			}
			got, err := conn.cases.DecideAppeal(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				fmt.Fprintf(w, "%-11s %s %s\n", "appeal", got.GetAppeal().GetAppealId(), word(got.GetAppeal().GetState().String(), "APPEAL_STATE_"))
				a.claimHead(w, got.GetClaim())
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&outcome, "as", "", "upheld or overturned (required)")
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	cmd.Flags().StringSliceVar(&rules, "rule", nil, "rule that is set aside on every line; default: all that deny and that a person may judge")
	requestIDFlag(cmd, &requestID)
	return cmd
}
