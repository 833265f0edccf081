package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

func (a *app) claimsHistory() *cobra.Command {
	return &cobra.Command{
		Use:   "history CLAIM_ID",
		Short: "Show what happened to a claim and to those that replaced it or that it replaced",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.adjustments.GetClaimHistory(cmd.Context(), &claimsv1.GetClaimHistoryRequest{ClaimId: args[0]})
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				for _, c := range got.GetClaims() {
					fmt.Fprintf(w, "%s %s charge %s paid %s\n", c.GetClaimId(), a.status(c.GetStatus()), dollars(c.GetChargeCents()), dollars(c.GetPaidCents()))
				}
				fmt.Fprintln(w)
				rows := grid("WHEN", "CLAIM", "EVENT", "WHO", "PROOF", "")
				for _, e := range got.GetEntries() {
					t := e.GetEntry()
					rows.AppendRow([]any{a.time(t.GetTime()), e.GetClaimId(), t.GetEvent(), t.GetActor(), place(t.GetPosition()), t.GetText()})
				}
				return render(w, rows)
			})
		},
	}
}

func (a *app) claimsVoid() *cobra.Command {
	req := &claimsv1.VoidClaimRequest{}
	cmd := &cobra.Command{
		Use:   "void CLAIM_ID",
		Short: "Take a claim back: what it paid is reversed, what it used of the benefits is given back",
		Long: "Take a claim back: what it paid is reversed, what it used of the benefits is given back.\n" +
			"To correct a claim instead, submit it again with frequency code 7 and this claim's number in REF*F8.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			req.ClaimId = args[0]
			if req.GetRequestId() == "" {
				// A claim is voided once: to send it again is the same request.
				req.RequestId = "void:" + args[0]
			}
			got, err := conn.adjustments.VoidClaim(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				a.claimHead(w, got.GetClaim())
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&req.RequestId, "request-id", "", "idempotency key; by default one for this claim's void")
	return cmd
}

func (a *app) claimsReprocess() *cobra.Command {
	req := &claimsv1.ReprocessClaimsRequest{}
	cmd := &cobra.Command{
		Use:   "reprocess CLAIM_ID...",
		Short: "Decide claims again under what is known now, and their families' later claims with them",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			req.ClaimIds = args
			if req.GetRequestId() == "" {
				req.RequestId = a.requestID
			}
			got, err := conn.adjustments.ReprocessClaims(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				rows := right(grid("CLAIM", "BEFORE", "AFTER", "PAID BEFORE", "PAID AFTER", "PATIENT BEFORE", "PATIENT AFTER", "BECAUSE"),
					"PAID BEFORE", "PAID AFTER", "PATIENT BEFORE", "PATIENT AFTER")
				for _, c := range got.GetCorrections() {
					because := strings.ReplaceAll(req.GetCause(), "-", " ")
					if c.GetAccumulatorsMoved() {
						because = "its accumulators moved"
					}
					rows.AppendRow([]any{c.GetClaimId(), a.status(c.GetStatusBefore()), a.status(c.GetStatusAfter()), dollars(c.GetPaidBeforeCents()), dollars(c.GetPaidAfterCents()),
						dollars(c.GetPatientBeforeCents()), dollars(c.GetPatientAfterCents()), because})
				}
				if len(got.GetCorrections()) > 0 {
					if err := render(w, rows); err != nil {
						return err
					}
				}
				for _, c := range got.GetWaiting() {
					fmt.Fprintf(w, "%s would wait for a person and stands as it was\n", c.GetClaimId())
				}
				verb := "changed"
				if req.GetDryRun() {
					verb = "would change"
				}
				fmt.Fprintf(w, "%d claims %s; paid %s, patients %s\n", len(got.GetCorrections()), verb, signed(got.GetPaidDifferenceCents()), signed(got.GetPatientDifferenceCents()))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&req.Cause, "cause", "request", "termination, enrollment, plan, fee-schedule, contract, other-payer, prior-authorization, edits or request")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "show what would change and record nothing")
	cmd.Flags().StringVar(&req.RequestId, "request-id", "", "idempotency key; by default a new one")
	return cmd
}

// signed is an amount with its sign, for a difference.
func signed(cents int64) string {
	if cents < 0 {
		return dollars(cents)
	}
	return "+" + dollars(cents)
}
