package cli

import (
	"context"
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
	var change, touched, payer string
	var dryRun, plan bool
	cmd := &cobra.Command{
		Use:   "reprocess [CLAIM_ID...]",
		Short: "Decide claims again under what is known now, and their families' later claims with them",
		Long: "Decide claims again under what is known now, and their families' later claims with them, in the order in which they were first decided.\n" +
			"Name the claims, or what has changed: --change takes one of 'probity claims changes', --touched-by a version or a subscriber.\n" +
			"With --dry-run (or --plan) what would move is shown, and nothing is recorded.",
		Example: "  probity claims reprocess --touched-by plan_gold@3 --payer ACME --dry-run\n  probity claims reprocess --change chg_…",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.DryRun = dryRun || plan
			ways := 0
			for _, given := range []bool{len(args) > 0, change != "", touched != ""} {
				if given {
					ways++
				}
			}
			switch {
			case ways != 1:
				return usagef("name claims, or --change, or --touched-by: one of the three")
			case touched != "" && payer == "":
				return usagef("--touched-by needs --payer")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			if req.GetRequestId() == "" {
				req.RequestId = a.requestID
			}
			switch {
			case change != "":
				return a.reprocessChange(cmd.Context(), conn, &claimsv1.ReprocessChangeRequest{ChangeId: change, DryRun: req.GetDryRun()})
			case touched != "":
				return a.reprocessTouched(cmd.Context(), conn, req, payer, touched)
			}
			req.ClaimIds = args
			got, err := conn.adjustments.ReprocessClaims(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error { return a.showReprocessing(w, got, req.GetCause(), req.GetDryRun()) })
		},
	}
	cmd.Flags().StringVar(&req.Cause, "cause", "request", "termination, enrollment, reinstatement, plan, fee-schedule, contract, network, other-payer, prior-authorization, edits or request")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change and record nothing")
	cmd.Flags().BoolVar(&plan, "plan", false, "the same as --dry-run")
	cmd.Flags().StringVar(&req.RequestId, "request-id", "", "idempotency key; by default a new one")
	cmd.Flags().StringVar(&change, "change", "", "a retroactive change: shown with --dry-run, else approved")
	cmd.Flags().StringVar(&touched, "touched-by", "", "every claim that read this version (plan_gold@3), or of this subscriber's family (sub_…)")
	cmd.Flags().StringVar(&payer, "payer", "", "with --touched-by: whose claims")
	return cmd
}

// reprocessChange shows or approves a change.
func (a *app) reprocessChange(ctx context.Context, conn *connection, req *claimsv1.ReprocessChangeRequest) error {
	got, err := conn.adjustments.ReprocessChange(ctx, req)
	if err != nil {
		return err
	}
	return a.emitOne(got, func(w io.Writer) error {
		c := got.GetChange()
		if !req.GetDryRun() {
			fmt.Fprintf(w, "%s is %s\n", c.GetChangeId(), changeState(c))
			return nil
		}
		shown := &claimsv1.ReprocessClaimsResponse{
			Corrections: got.GetCorrections(), PaidDifferenceCents: c.GetPaidDifferenceCents(), PatientDifferenceCents: c.GetPatientDifferenceCents(),
		}
		for _, id := range c.GetWaitingClaimIds() {
			shown.Waiting = append(shown.Waiting, &claimsv1.WaitingCorrection{ClaimId: id})
		}
		if err := a.showReprocessing(w, shown, c.GetCause(), true); err != nil {
			return err
		}
		switch {
		case got.GetMore():
			fmt.Fprintln(w, "there are more claims than were looked at; the figures are of those that were")
		case int(c.GetCorrections()) > len(got.GetCorrections()):
			fmt.Fprintf(w, "%s in all; the figures are of all of them\n", counted(c.GetCorrections(), "claim"))
		}
		return nil
	})
}

// reprocessTouched reprocesses what a change may have touched, a page at a
// time. The request ids are one for each page, so that the command may be
// repeated with the same --request-id.
func (a *app) reprocessTouched(ctx context.Context, conn *connection, req *claimsv1.ReprocessClaimsRequest, payer, touched string) error {
	list := &claimsv1.ListAffectedClaimsRequest{PayerId: payer, PageSize: 500}
	if strings.HasPrefix(touched, "sub_") {
		list.Change = &claimsv1.ListAffectedClaimsRequest_Subscriber{Subscriber: touched}
	} else {
		list.Change = &claimsv1.ListAffectedClaimsRequest_Version{Version: touched}
	}
	all := &claimsv1.ReprocessClaimsResponse{}
	base := req.GetRequestId()
	for page := 0; ; page++ {
		found, err := conn.adjustments.ListAffectedClaims(ctx, list)
		if err != nil {
			return err
		}
		if len(found.GetClaimIds()) > 0 {
			req.ClaimIds, req.RequestId = found.GetClaimIds(), fmt.Sprintf("%s/%d", base, page)
			got, err := conn.adjustments.ReprocessClaims(ctx, req)
			if err != nil {
				return err
			}
			all.Corrections = append(all.Corrections, got.GetCorrections()...)
			all.Waiting = append(all.Waiting, got.GetWaiting()...)
			all.PaidDifferenceCents += got.GetPaidDifferenceCents()
			all.PatientDifferenceCents += got.GetPatientDifferenceCents()
		}
		if list.PageToken = found.GetNextPageToken(); list.GetPageToken() == "" {
			return a.emitOne(all, func(w io.Writer) error { return a.showReprocessing(w, all, req.GetCause(), req.GetDryRun()) })
		}
	}
}

func (a *app) showReprocessing(w io.Writer, got *claimsv1.ReprocessClaimsResponse, cause string, dryRun bool) error {
	rows := right(grid("CLAIM", "BEFORE", "AFTER", "PAID BEFORE", "PAID AFTER", "PATIENT BEFORE", "PATIENT AFTER", "BECAUSE"),
		"PAID BEFORE", "PAID AFTER", "PATIENT BEFORE", "PATIENT AFTER")
	for _, c := range got.GetCorrections() {
		because := strings.ReplaceAll(cause, "-", " ")
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
	if dryRun {
		verb = "would change"
	}
	fmt.Fprintf(w, "%s %s; paid %s, patients %s\n", counted(len(got.GetCorrections()), "claim"), verb, signed(got.GetPaidDifferenceCents()), signed(got.GetPatientDifferenceCents()))
	return nil
}

var changeStates = map[string]claimsv1.ChangeState{
	"":            claimsv1.ChangeState_CHANGE_STATE_UNSPECIFIED,
	"proposed":    claimsv1.ChangeState_CHANGE_STATE_PROPOSED,
	"approved":    claimsv1.ChangeState_CHANGE_STATE_APPROVED,
	"reprocessed": claimsv1.ChangeState_CHANGE_STATE_REPROCESSED,
}

func changeState(c *claimsv1.Change) string {
	return strings.ToLower(strings.TrimPrefix(c.GetState().String(), "CHANGE_STATE_"))
}

func (a *app) claimsChanges() *cobra.Command {
	var state string
	var limit int
	req := &claimsv1.ListChangesRequest{}
	cmd := &cobra.Command{
		Use:   "changes --payer PAYER",
		Short: "List the retroactive changes that moved decided claims, or would, latest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, known := changeStates[state]
			switch {
			case !known:
				return usagef("--state %q is none of proposed, approved, reprocessed", state)
			case req.GetPayerId() == "":
				return usagef("--payer is needed")
			case limit < 0:
				return usagef("--limit can't be negative")
			}
			req.State = wanted
			conn, err := a.connect()
			if err != nil {
				return err
			}
			var changes []*claimsv1.Change
			for limit == 0 || len(changes) < limit {
				if req.PageSize = 500; limit > 0 {
					req.PageSize = uint32(min(500, limit-len(changes))) //nolint:gosec // at most 500
				}
				got, err := conn.adjustments.ListChanges(cmd.Context(), req)
				if err != nil {
					return err
				}
				changes = append(changes, got.GetChanges()...)
				if req.PageToken = got.GetNextPageToken(); req.GetPageToken() == "" {
					break
				}
			}
			list := raws(changes)
			return a.emit(list, list, func(w io.Writer) error {
				if len(changes) == 0 {
					a.say("no changes")
					return nil
				}
				rows := right(grid("CHANGE", "CAUSE", "WHAT", "STATE", "CLAIMS", "WAITING", "PAID", "PATIENTS", "WHEN"), "CLAIMS", "WAITING", "PAID", "PATIENTS")
				for _, c := range changes {
					what := c.GetVersion()
					if what == "" {
						what = c.GetSubscriber()
					}
					rows.AppendRow([]any{c.GetChangeId(), strings.ReplaceAll(c.GetCause(), "-", " "), what, changeState(c), c.GetCorrections(), c.GetWaiting(),
						signed(c.GetPaidDifferenceCents()), signed(c.GetPatientDifferenceCents()), a.time(c.GetTime())})
				}
				return render(w, rows)
			})
		},
	}
	cmd.Flags().StringVar(&req.PayerId, "payer", "", "whose claims")
	cmd.Flags().StringVar(&state, "state", "", "proposed, approved or reprocessed")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this many; 0 is all")
	return cmd
}

// signed is an amount with its sign, for a difference.
func signed(cents int64) string {
	if cents < 0 {
		return dollars(cents)
	}
	return "+" + dollars(cents)
}
