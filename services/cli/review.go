package cli

import (
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/problem"
)

func (a *app) reviewCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "review", Short: "Decide claims that wait for a person", Args: cobra.NoArgs}
	var limit int
	list := &cobra.Command{
		Use:   "list",
		Short: "List claims that wait for a person",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			var claims []*claimsv1.ClaimSummary
			filter := &claimsv1.ListClaimsRequest{Status: claimsv1.ClaimStatus_CLAIM_STATUS_PENDED}
			if err := conn.listClaims(cmd.Context(), filter, limit, func(c *claimsv1.ClaimSummary) error {
				claims = append(claims, c)
				return nil
			}); err != nil {
				return err
			}
			list := raws(claims)
			return a.emit(list, list, func(w io.Writer) error {
				if len(claims) == 0 {
					a.say("nothing waits for review")
					return nil
				}
				rows := right(grid("CLAIM", "PAYER", "CHARGE", "RECEIVED", "WAITS FOR"), "CHARGE")
				for _, c := range claims {
					for i, reason := range c.GetPendReasons() {
						why := fmt.Sprintf("%s (%s)", reason.GetMessage(), reason.GetRuleId())
						if i == 0 {
							rows.AppendRow([]any{c.GetClaimId(), c.GetPayerId(), dollars(c.GetChargeCents()), a.time(c.GetReceivedTime()), why})
						} else {
							rows.AppendRow([]any{"", "", "", "", why})
						}
					}
					if len(c.GetPendReasons()) == 0 {
						rows.AppendRow([]any{c.GetClaimId(), c.GetPayerId(), dollars(c.GetChargeCents()), a.time(c.GetReceivedTime()), "-"})
					}
				}
				return render(w, rows)
			})
		},
	}
	list.Flags().IntVar(&limit, "limit", 50, "at most this many; 0 is all")
	cmd.AddCommand(list,
		a.resolve("approve", "Clear every reason the claim waits for; the engine decides again"),
		a.resolve("deny", "Deny the claim for the reasons it waits for"))
	return cmd
}

func (a *app) resolve(resolution, short string) *cobra.Command {
	var reason, requestID string
	cmd := &cobra.Command{
		Use:   resolution + " CLAIM_ID",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usagef("--reason is needed: it is kept, sealed, with the decision")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			if requestID == "" {
				requestID = a.requestID
			}
			got, err := conn.workflows.ReviewClaim(cmd.Context(), &workflowsv1.ReviewClaimRequest{
				ClaimId: args[0], RequestId: requestID, Resolution: resolution, Reason: reason,
			})
			if err != nil {
				return err
			}
			return a.emitOne(got, func(w io.Writer) error { a.claimHead(w, got.GetClaim()); return nil })
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	cmd.Flags().StringVar(&requestID, "request-id", "", "idempotency key; the same key answers with the first result")
	return cmd
}

func (a *app) plansCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "plans", Short: "Check and publish benefit plans, fee schedules, contracts and networks", Args: cobra.NoArgs}
	var kind string
	lint := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Check documents without publishing them",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			conn, err := a.connect()
			if err != nil {
				return err
			}
			sound := true
			for _, path := range files {
				text, err := readDocument(path)
				if err != nil {
					return err
				}
				what := kind
				if what == "" {
					if what, err = kindOf(path, text); err != nil {
						return err
					}
				}
				got, err := conn.policies.LintDocument(cmd.Context(), &policiesv1.LintDocumentRequest{Document: string(text), Kind: what})
				if err != nil {
					return err
				}
				sound = sound && len(got.GetProblems()) == 0
				if err := a.emitOne(got, func(w io.Writer) error {
					if len(got.GetProblems()) == 0 {
						_, err := fmt.Fprintf(w, "%s: sound (%s)\n", path, what)
						return err
					}
					printProblems(w, path, got.GetProblems())
					return nil
				}); err != nil {
					return err
				}
			}
			if !sound {
				return outcome(ExitFailed)
			}
			return nil
		},
	}
	lint.Flags().StringVar(&kind, "kind", "", "plan, fee_schedule, contract or network; found out when empty")
	cmd.AddCommand(lint, a.plansDiff(), a.plansSimulate(), a.plansPublish())
	return cmd
}

// maxDocument is the schema's bound on a document.
const maxDocument = 4 << 20

func readDocument(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxDocument {
		return nil, usagef("%s is larger than 4 MiB", path)
	}
	text, err := os.ReadFile(path)
	if err == nil && !utf8.Valid(text) {
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "document.encoding", Message: path + " is not text in UTF-8", Fix: "save it as plain UTF-8 text; a spreadsheet or a word processor's file is none"})
	}
	return text, err
}

// kindOf tells a document by the id only its kind has.
func kindOf(path string, text []byte) (string, error) {
	var fields map[string]any
	if err := yaml.Unmarshal(text, &fields); err != nil {
		return "", problem.New(problem.Invalid, problem.Problem{RuleID: "document.syntax", Message: path + " is not one YAML or JSON document", Fix: "write one document of fields and values; with --kind the place of the fault is told"})
	}
	for _, tell := range []struct{ kind, camel, snake string }{
		{"contract", "contractId", "contract_id"}, {"network", "networkId", "network_id"}, {"plan", "planId", "plan_id"}, {"fee_schedule", "feeScheduleId", "fee_schedule_id"},
	} {
		for _, key := range []string{tell.camel, tell.snake} {
			if _, has := fields[key]; has {
				return tell.kind, nil
			}
		}
	}
	return "", usagef("%s has no planId, feeScheduleId, contractId or networkId; say what it is with --kind", path)
}
