package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
)

func (a *app) paymentsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "payments", Short: "Pay providers and follow their payments", Args: cobra.NoArgs}
	cmd.AddCommand(a.paymentsList(), a.paymentsGet(), a.paymentsRun(), a.paymentsConfirm(), a.paymentsFail())
	return cmd
}

var paymentStates = map[string]claimsv1.PaymentState{
	"":          claimsv1.PaymentState_PAYMENT_STATE_UNSPECIFIED,
	"intended":  claimsv1.PaymentState_PAYMENT_STATE_INTENDED,
	"sent":      claimsv1.PaymentState_PAYMENT_STATE_SENT,
	"confirmed": claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED,
	"failed":    claimsv1.PaymentState_PAYMENT_STATE_FAILED,
	"voided":    claimsv1.PaymentState_PAYMENT_STATE_VOIDED,

	"written_off": claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF,
}

func paymentState(s claimsv1.PaymentState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "PAYMENT_STATE_"))
}

func (a *app) paymentsList() *cobra.Command {
	filter := &claimsv1.ListPaymentsRequest{}
	var state string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the payments you may see, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var known bool
			if filter.State, known = paymentStates[state]; !known {
				return usagef("--state %q is none of intended, sent, confirmed, failed, voided, written_off", state)
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.payments.ListPayments(cmd.Context(), filter)
			if err != nil {
				return err
			}
			list := raws(got.GetPayments())
			return a.emit(list, list, func(w io.Writer) error {
				rows := right(grid("PAYMENT", "PAYER", "PAYEE", "AMOUNT", "DATE", "STATE", "SINCE", "WHY"), "AMOUNT")
				for _, p := range got.GetPayments() {
					rows.AppendRow([]any{p.GetPaymentId(), p.GetPayerId(), p.GetPayeeNpi(), dollars(p.GetAmountCents()), p.GetPaymentDate(), paymentState(p.GetState()), a.time(p.GetStateTime()), paymentWhy(p)})
				}
				return render(w, rows)
			})
		},
	}
	cmd.Flags().StringVar(&filter.PayerId, "payer", "", "only those of this payer")
	cmd.Flags().StringVar(&state, "state", "", "only intended, sent, confirmed, failed, voided or written_off")
	cmd.Flags().Uint32Var(&filter.PageSize, "limit", 50, "at most this many, up to 1000")
	return cmd
}

// paymentWhy says why a payment is not made: its own failure, or the one of
// its payee that it waits for.
func paymentWhy(p *claimsv1.Payment) string {
	switch {
	case p.GetHeldBy() != "":
		return "waits for " + p.GetHeldBy()
	case p.GetReturned():
		return p.GetFailureReason() + " (came back)"
	}
	return p.GetFailureReason()
}

func (a *app) paymentText(p *claimsv1.Payment) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "payment    %s\nremittance %s\nfrom       %s\nto         %s\namount     %s on %s\ntrace      %s\nstate      %s since %s\n",
			p.GetPaymentId(), p.GetRemittanceId(), p.GetPayerId(), p.GetPayeeNpi(), dollars(p.GetAmountCents()), p.GetPaymentDate(),
			p.GetTraceNumber(), paymentState(p.GetState()), a.time(p.GetStateTime()))
		if err == nil && p.GetReference() != "" {
			_, err = fmt.Fprintf(w, "reference  %s\n", p.GetReference())
		}
		for _, line := range [][2]string{{"method", p.GetMethod()}, {"why", paymentWhy(p)}, {"decided", resolutionText(p)}} {
			if err == nil && line[1] != "" {
				_, err = fmt.Fprintf(w, "%-10s %s\n", line[0], line[1])
			}
		}
		return err
	}
}

func (a *app) paymentsGet() *cobra.Command {
	return &cobra.Command{
		Use:   "get PAYMENT_ID",
		Short: "Show one payment",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.payments.GetPayment(cmd.Context(), &claimsv1.GetPaymentRequest{PaymentId: args[0]})
			if err != nil {
				return err
			}
			return a.emitOne(got, a.paymentText(got.GetPayment()))
		},
	}
}

func (a *app) paymentsRun() *cobra.Command {
	req := &workflowsv1.RunPaymentsRequest{}
	cmd := &cobra.Command{
		Use:   "run --payer PAYER",
		Short: "Run a payer's payment cycle now and wait for its end",
		Long: `Run a payer's payment cycle now and wait for its end.

It makes remittances of what the providers have not been told, and pays each
that comes to anything. What is paid already is not paid again, however often
this is run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			if req.GetRequestId() == "" {
				req.RequestId = a.requestID
			}
			got, err := conn.cycles.RunPayments(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				r := got.GetRun()
				_, err := fmt.Fprintf(w, "%d remittances made; %d payments handed over, %s\n", r.GetRemittances(), r.GetPaid(), dollars(r.GetPaidCents()))
				if err == nil && r.GetFailed() > 0 {
					_, err = fmt.Fprintf(w, "%d payments failed: a person decides what becomes of them (probity tasks payments list)\n", r.GetFailed())
				}
				if err == nil && r.GetHeld() > 0 {
					_, err = fmt.Fprintf(w, "%d payments wait because another of their payee's has failed (probity tasks payments list)\n", r.GetHeld())
				}
				if err == nil && r.GetInDoubt() > 0 {
					_, err = fmt.Fprintf(w, "%d payments are in doubt: ask whoever moves the money whether they were made (probity payments list --state intended)\n", r.GetInDoubt())
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.PayerId, "payer", "", "payer whose cycle it is")
	cmd.Flags().StringVar(&req.RequestId, "request-id", "", "idempotency key; by default a new one")
	_ = cmd.MarkFlagRequired("payer")
	return cmd
}

func (a *app) paymentsConfirm() *cobra.Command {
	req := &claimsv1.ConfirmPaymentRequest{}
	cmd := &cobra.Command{
		Use:   "confirm PAYMENT_ID",
		Short: "Say that a payment that was handed over was made",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			req.PaymentId = args[0]
			got, err := conn.payments.ConfirmPayment(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.emitOne(got, a.paymentText(got.GetPayment()))
		},
	}
	cmd.Flags().StringVar(&req.Reference, "reference", "", "the bank's reference; by default the one that is known")
	return cmd
}

func (a *app) paymentsFail() *cobra.Command {
	req := &claimsv1.FailPaymentRequest{}
	cmd := &cobra.Command{
		Use:   "fail PAYMENT_ID",
		Short: "Say that a payment that was handed over was not made, or came back",
		Long: `Say that a payment that was handed over was not made and never will be or,
with --returned, that it was made and the money has come back.

It becomes a task (probity tasks payments list): another person decides whether
it is paid after all, and until then the payee's other payments wait. Be sure of
it: if the money moves all the same, the claims may be paid twice.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			req.PaymentId = args[0]
			got, err := conn.payments.FailPayment(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.emitOne(got, a.paymentText(got.GetPayment()))
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "account-closed, account-unknown, returned, refused, not-delivered or request")
	cmd.Flags().BoolVar(&req.Returned, "returned", false, "it was made, and the money has come back")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}
