package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

func (a *app) tasksPayments() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "payments",
		Short: "Decide what becomes of payments that failed",
		Long: `Decide what becomes of payments that failed.

While a task is open the payee's other payments wait; release-payee lifts that
alone. Who reported the failure doesn't decide what becomes of it. A task has a
time by which it is to be decided: until then it is reminded of, and from then
on escalated, step by step, to the supervisors. What one person has had too long
goes back to the list.`,
		Args: cobra.NoArgs,
	}
	var to string
	reassign := a.onPayment("reassign", "Give a task to another person, whoever has it", func(ctx context.Context, c *connection, payment string) (*claimsv1.PaymentTask, error) {
		if to == "" {
			return nil, usagef("--to is needed: the person's id")
		}
		r, err := c.payTasks.ReassignPaymentTask(ctx, &claimsv1.ReassignPaymentTaskRequest{PaymentId: payment, Assignee: to})
		return r.GetTask(), err
	})
	reassign.Flags().StringVar(&to, "to", "", "person's id (required)")
	cmd.AddCommand(
		a.paymentTasksList(),
		a.onPayment("claim", "Take a task: until you release it nobody else decides it", func(ctx context.Context, c *connection, payment string) (*claimsv1.PaymentTask, error) {
			r, err := c.payTasks.ClaimPaymentTask(ctx, &claimsv1.ClaimPaymentTaskRequest{PaymentId: payment})
			return r.GetTask(), err
		}),
		a.onPayment("release", "Give a task back", func(ctx context.Context, c *connection, payment string) (*claimsv1.PaymentTask, error) {
			r, err := c.payTasks.ReleasePaymentTask(ctx, &claimsv1.ReleasePaymentTaskRequest{PaymentId: payment})
			return r.GetTask(), err
		}),
		reassign,
		a.onPayment("release-payee", "Let the payee's other payments be made while the task stays open", func(ctx context.Context, c *connection, payment string) (*claimsv1.PaymentTask, error) {
			r, err := c.payTasks.ReleasePayee(ctx, &claimsv1.ReleasePayeeRequest{PaymentId: payment})
			return r.GetTask(), err
		}),
		a.paymentTasksResolve(),
	)
	return cmd
}

func (a *app) paymentTasksList() *cobra.Command {
	filter := &claimsv1.ListPaymentTasksRequest{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List payments that failed and wait for a person, the earliest due first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.payTasks.ListPaymentTasks(cmd.Context(), filter)
			if err != nil {
				return err
			}
			docs := raws(got.GetTasks())
			return a.emit(docs, docs, func(w io.Writer) error {
				if len(got.GetTasks()) == 0 {
					a.say("no payment waits for a person")
					return nil
				}
				rows := right(grid("PAYMENT", "PAYER", "PAYEE", "AMOUNT", "FAILED", "WHY", "DUE", "ESCALATED", "PERSON", "PAYEE WAITS"), "AMOUNT", "ESCALATED")
				for _, t := range got.GetTasks() {
					p := t.GetPayment()
					rows.AppendRow([]any{p.GetPaymentId(), p.GetPayerId(), p.GetPayeeNpi(), dollars(p.GetAmountCents()), a.time(t.GetOpenedTime()), paymentWhy(p), a.time(t.GetDueTime()), t.GetEscalation(), orDash(t.GetAssignee()), yesNo(t.GetHoldsPayee())})
				}
				return render(w, rows)
			})
		},
	}
	cmd.Flags().StringVar(&filter.PayerId, "payer", "", "only those of this payer")
	cmd.Flags().StringVar(&filter.Assignee, "person", "", `only this person's; "-" is those that nobody has`)
	cmd.Flags().Uint32Var(&filter.PageSize, "limit", 50, "at most this many, up to 1000")
	cmd.Flags().Uint32Var(&filter.MinEscalation, "escalated", 0, "only those escalated at least so far; 1 is all that are overdue")
	return cmd
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func (a *app) onPayment(verb, short string, do func(context.Context, *connection, string) (*claimsv1.PaymentTask, error)) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " PAYMENT_ID",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			task, err := do(cmd.Context(), conn, args[0])
			if err != nil {
				return err
			}
			return a.emitOne(task, a.paymentTaskText(task))
		},
	}
}

func (a *app) paymentTaskText(t *claimsv1.PaymentTask) func(io.Writer) error {
	return func(w io.Writer) error {
		if err := a.paymentText(t.GetPayment())(w); err != nil || !t.GetOpen() {
			return err
		}
		person, due := orDash(t.GetAssignee()), a.time(t.GetDueTime())
		if t.GetHeldUntil() != nil {
			person += " until " + a.time(t.GetHeldUntil())
		}
		if n := t.GetEscalation(); n > 0 {
			due += fmt.Sprintf(", overdue: escalated to level %d", n)
		}
		_, err := fmt.Fprintf(w, "person     %s\ndecide by  %s\npayee      %s\n", person, due, map[bool]string{true: "its other payments wait", false: "its other payments are made"}[t.GetHoldsPayee()])
		return err
	}
}

var resolutions = map[string]claimsv1.PaymentResolution{
	"retry":         claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY,
	"change-method": claimsv1.PaymentResolution_PAYMENT_RESOLUTION_CHANGE_METHOD,
	"write-off":     claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF,
}

// resolutionText is what was decided on a payment; empty where nothing was.
func resolutionText(p *claimsv1.Payment) string {
	for word, r := range resolutions {
		if r == p.GetResolution() {
			return strings.TrimSpace(strings.Join([]string{word, p.GetNextMethod(), p.GetResolutionReference()}, " "))
		}
	}
	return ""
}

func (a *app) paymentTasksResolve() *cobra.Command {
	req := &claimsv1.ResolvePaymentTaskRequest{}
	cmd := &cobra.Command{
		Use:   "resolve PAYMENT_ID retry|change-method|write-off",
		Short: "Decide what becomes of a payment that failed",
		Long: `Decide what becomes of a payment that failed.

  retry          the cause is gone: its remittance becomes void, and the next
                 payment cycle tells and pays its claims again
  change-method  the same, and from now on the payee is paid by --method
  write-off      the amount is settled outside, by hand or as unclaimed
                 property under --reference: the remittance stands as it was told`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var known bool
			if req.Resolution, known = resolutions[args[1]]; !known {
				return usagef("%q is none of retry, change-method, write-off", args[1])
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			req.PaymentId = args[0]
			got, err := conn.payTasks.ResolvePaymentTask(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				if err := a.paymentTaskText(got.GetTask())(w); err != nil || req.GetResolution() == claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF {
					return err
				}
				_, err := fmt.Fprintf(w, "%s payable again; %s is owed again\n", counted(got.GetClaimCount(), "claim is", "claims are"), dollars(got.GetRestoredCents()))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.Method, "method", "", "check, eft or card: how the payee is paid from now on")
	cmd.Flags().StringVar(&req.Reference, "reference", "", "what the decision rests on; needed to write off")
	return cmd
}
