package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/problem"
)

func (a *app) claimsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "claims", Short: "List, follow and explain claims", Args: cobra.NoArgs}
	cmd.AddCommand(a.claimsList(), a.claimsGet(), a.claimsWatch(), a.claimsExplain())
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

func (a *app) claimsExplain() *cobra.Command {
	var line uint32
	cmd := &cobra.Command{
		Use:   "explain CLAIM_ID",
		Short: "Say why every cent was or was not paid",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.claims.ExplainClaim(cmd.Context(), &claimsv1.ExplainClaimRequest{ClaimId: args[0]})
			if err != nil {
				return err
			}
			if line > 0 && !slices.ContainsFunc(got.GetDecision().GetLines(), func(l *claimsv1.LineDecision) bool { return l.GetNumber() == line }) {
				return problem.New(problem.NotFound, problem.Problem{
					RuleID: "cli.explain.line", Message: fmt.Sprintf("the decision has no line %d", line), Fix: "leave --line out to see them all",
				})
			}
			return a.emitOne(got, func(w io.Writer) error { a.explain(w, got, line); return nil })
		},
	}
	cmd.Flags().Uint32Var(&line, "line", 0, "only this line")
	return cmd
}

func (a *app) explain(w io.Writer, e *claimsv1.ExplainClaimResponse, only uint32) {
	c, d := e.GetClaim(), e.GetDecision()
	fmt.Fprintf(w, "Claim %s · %s · plan pays %s · patient owes %s\n", c.GetClaimId(), a.status(c.GetStatus()), dollars(d.GetPaidCents()), dollars(d.GetPatientCents()))
	v := d.GetVersions()
	if v.GetPlan() != "" {
		fmt.Fprintf(w, "  by     plan %s, engine %s, received %s\n", v.GetPlan(), v.GetEngine(), v.GetReceivedDate())
	}
	fmt.Fprintf(w, "  proof  %s · probity receipt %s\n", place(c.GetPosition()), c.GetClaimId())
	if who := next(c); who != "" {
		fmt.Fprintf(w, "  next   %s\n", who)
	}
	for _, p := range d.GetPendReasons() {
		fmt.Fprintf(w, "  waits  %s (%s)\n", p.GetMessage(), p.GetRuleId())
	}
	for i, l := range d.GetLines() {
		if only > 0 && l.GetNumber() != only {
			continue
		}
		fmt.Fprintf(w, "\nLine %d · %s · charge %s · plan pays %s · patient owes %s\n", l.GetNumber(), procedure(e.GetSubmitted(), i),
			dollars(l.GetChargeCents()), dollars(l.GetPaidCents()), dollars(l.GetPatientCents()))
		if l.GetBenefit() != "" {
			fmt.Fprintf(w, "  under  benefit %s, allowed %s\n", l.GetBenefit(), dollars(l.GetAllowedCents()))
		}
		for _, adjustment := range l.GetAdjustments() {
			fmt.Fprintf(w, "  why    %s\n", because(adjustment))
		}
		fmt.Fprintf(w, "  where  %s\n", whereIs(e.GetSubmitted(), i))
	}
}

func procedure(c *claimsv1.Claim, i int) string {
	if i >= len(c.GetLines()) {
		return "-"
	}
	l := c.GetLines()[i]
	code := l.GetProcedure()
	if code == "" {
		code = "revenue " + l.GetRevenueCode()
	}
	return strings.Join(append([]string{code}, l.GetModifiers()...), "-")
}

func because(adj *claimsv1.Adjustment) string {
	parts := []string{fmt.Sprintf("%s-%s %s", adj.GetGroupCode(), adj.GetCarc(), dollars(adj.GetAmountCents()))}
	if len(adj.GetRarcs()) > 0 {
		parts = append(parts, strings.Join(adj.GetRarcs(), " "))
	}
	parts = append(parts, adj.GetRuleId())
	if adj.GetClause() != "" {
		parts = append(parts, "clause "+adj.GetClause())
	}
	keys := make([]string, 0, len(adj.GetFacts()))
	for key := range adj.GetFacts() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		parts = append(parts, fact(key, adj.GetFacts()[key]))
	}
	return strings.Join(parts, " · ")
}

// fact writes a figure the way people read it; the key's ending tells its unit.
func fact(key, value string) string {
	if name, isCents := strings.CutSuffix(key, "_cents"); isCents {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			return strings.ReplaceAll(name, "_", " ") + " " + dollars(n)
		}
	}
	return strings.ReplaceAll(key, "_", " ") + " " + value
}

// whereIs names a line in the forms people hold in their hands.
func whereIs(c *claimsv1.Claim, i int) string {
	if c.GetForm() == claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL {
		return fmt.Sprintf("JSON lines[%d] · 837I 2400/SV2 · UB-04 line %d", i, i+1)
	}
	return fmt.Sprintf("JSON lines[%d] · 837P 2400/SV1 · CMS-1500 box 24 line %d", i, i+1)
}
