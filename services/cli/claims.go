package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

func (a *app) claimsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "claims", Short: "List, follow, explain, replay and adjust claims", Args: cobra.NoArgs}
	cmd.AddCommand(a.claimsList(), a.claimsGet(), a.claimsWatch(), a.claimsExplain(), a.claimsReplay(),
		a.claimsHistory(), a.claimsVoid(), a.claimsReprocess(), a.claimsChanges())
	return cmd
}

var statusNames = map[string]claimsv1.ClaimStatus{
	"":         claimsv1.ClaimStatus_CLAIM_STATUS_UNSPECIFIED,
	"received": claimsv1.ClaimStatus_CLAIM_STATUS_RECEIVED,
	"pended":   claimsv1.ClaimStatus_CLAIM_STATUS_PENDED,
	"paid":     claimsv1.ClaimStatus_CLAIM_STATUS_PAID,
	"denied":   claimsv1.ClaimStatus_CLAIM_STATUS_DENIED,
	"rejected": claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED,
	"reversed": claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED,
}

func (a *app) claimsList() *cobra.Command {
	var status string
	var limit int
	filter := &claimsv1.ListClaimsRequest{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the claims you may see, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, known := statusNames[status]
			if !known {
				return usagef("--status %q is none of received, pended, paid, denied, rejected, reversed", status)
			}
			filter.Status = wanted
			conn, err := a.connect()
			if err != nil {
				return err
			}
			return a.showClaims(cmd.Context(), conn, filter, limit)
		},
	}
	cmd.Flags().StringVar(&status, "status", "", "received, pended, paid, denied, rejected or reversed")
	cmd.Flags().StringVar(&filter.FileId, "file", "", "only claims of this file, in its order")
	cmd.Flags().StringVar(&filter.PayerId, "payer", "", "only this payer")
	cmd.Flags().StringVar(&filter.BillingNpi, "npi", "", "only this billing provider")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this many; 0 is all")
	return cmd
}

func (a *app) showClaims(ctx context.Context, conn *connection, filter *claimsv1.ListClaimsRequest, limit int) error {
	if limit < 0 {
		return usagef("--limit can't be negative")
	}
	var claims []*claimsv1.ClaimSummary
	if err := conn.listClaims(ctx, filter, limit, func(c *claimsv1.ClaimSummary) error {
		claims = append(claims, c)
		return nil
	}); err != nil {
		return err
	}
	list := raws(claims)
	return a.emit(list, list, func(w io.Writer) error {
		if len(claims) == 0 {
			a.say("no claims")
			return nil
		}
		rows := right(grid("CLAIM", "MEMBER", "CHARGE", "ALLOWED", "PAID", "PATIENT", "CODES", "STATUS", "RECEIVED"), "CHARGE", "ALLOWED", "PAID", "PATIENT")
		for _, c := range claims {
			rows.AppendRow(append(claimRow(c, c.GetPaidCents(), a.status(c.GetStatus())+repeated(c)), a.time(c.GetReceivedTime())))
		}
		return render(w, rows)
	})
}

// claimRow is the columns every table of claims begins with.
func claimRow(c *claimsv1.ClaimSummary, paidCents int64, status string) []any {
	codes := strings.Join(c.GetCodes(), " ")
	if codes == "" {
		codes = "-"
	}
	return []any{c.GetClaimId(), shortHash(c.GetMemberHash()), dollars(c.GetChargeCents()), dollars(c.GetAllowedCents()),
		dollars(paidCents), dollars(c.GetPatientCents()), codes, status}
}

// repeated says which claim one repeats.
func repeated(c *claimsv1.ClaimSummary) string {
	if c.GetDuplicateOf() == "" {
		return ""
	}
	return ", duplicate of " + c.GetDuplicateOf()
}

func (a *app) claimsGet() *cobra.Command {
	return &cobra.Command{
		Use:   "get CLAIM_ID",
		Short: "Show one claim and what happened to it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.claims.GetClaim(cmd.Context(), &claimsv1.GetClaimRequest{ClaimId: args[0]})
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error {
				c := got.GetClaim()
				a.claimHead(w, c)
				fmt.Fprintln(w)
				rows := grid("WHEN", "EVENT", "WHO", "PROOF", "")
				for _, e := range got.GetTimeline() {
					rows.AppendRow([]any{a.time(e.GetTime()), e.GetEvent(), e.GetActor(), place(e.GetPosition()), e.GetText()})
				}
				return render(w, rows)
			})
		},
	}
}

// actors says in words who must act next.
var actors = map[string]string{
	"none": "nobody: it is settled", "payer": "the payer reviews it",
	"provider": "the provider: see the reasons", "patient": "the patient pays their share",
}

// next says in words what happens next, and who does it.
func next(c *claimsv1.ClaimSummary) string {
	decided := c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PAID || c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_DENIED
	if c.GetNextActor() == "payer" && decided {
		return "the payer puts it into a remittance"
	}
	return actors[c.GetNextActor()]
}

func (a *app) claimHead(w io.Writer, c *claimsv1.ClaimSummary) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, value)
		}
	}
	row("claim", c.GetClaimId())
	row("status", a.status(c.GetStatus())+repeated(c))
	row("payer", c.GetPayerId())
	row("charge", dollars(c.GetChargeCents()))
	row("allowed", dollars(c.GetAllowedCents()))
	row("paid", dollars(c.GetPaidCents()))
	row("patient", dollars(c.GetPatientCents()))
	row("codes", strings.Join(c.GetCodes(), " "))
	row("received", a.time(c.GetReceivedTime()))
	row("decided", a.time(c.GetDecidedTime()))
	row("proof", place(c.GetPosition()))
	row("remittance", c.GetRemittanceId())
	row("next", next(c))
	for _, p := range c.GetPendReasons() {
		row("waits for", fmt.Sprintf("%s (%s)", p.GetMessage(), p.GetRuleId()))
	}
}

func (a *app) claimsWatch() *cobra.Command {
	return &cobra.Command{
		Use:   "watch CLAIM_ID",
		Short: "Follow a claim until it is final",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			stream, err := conn.claims.WatchClaim(cmd.Context(), &claimsv1.WatchClaimRequest{ClaimId: args[0]})
			if err != nil {
				return err
			}
			defer func() { _ = stream.Close() }()
			for stream.Receive() {
				c := stream.Msg().GetClaim()
				// A line a change in every format but yaml, whose documents separate themselves.
				if a.flags.output == "json" {
					a.flags.output = "jsonl"
				}
				if a.flags.output == "yaml" {
					fmt.Fprintln(a.Out, "---")
				}
				if err := a.emitOne(c, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s  %s  paid %s  patient %s  %s\n", c.GetClaimId(), a.status(c.GetStatus()),
						dollars(c.GetPaidCents()), dollars(c.GetPatientCents()), place(c.GetPosition()))
					return err
				}); err != nil {
					return err
				}
			}
			return stream.Err()
		},
	}
}
