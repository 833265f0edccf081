package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/money"
)

func (a *app) plansSimulate() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "simulate NEW.yaml --from DATE --to DATE",
		Short: "Show what a plan version would have done to a period's claims",
		Long: `Show what a plan version would have done to a period's claims.

The claims received from one day to another that were decided under the plan
are decided again as if the document had been its only version, in the order
in which they were finalised, each family's accumulators carried along. The
first claim of a family meets what its accumulators held then. Nothing is
recorded.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readDocument(args[0])
			if err != nil {
				return err
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			got, err := conn.simulate(cmd.Context(), &claimsv1.SimulatePlanRequest{Document: string(text), FromDate: from, ToDate: to})
			if err != nil {
				return err
			}
			if err := a.emitOne(got, func(w io.Writer) error { return a.printSimulation(w, args[0], got) }); err != nil {
				return err
			}
			if len(got.GetProblems()) > 0 {
				return outcome(ExitFailed)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "first day of receipt, YYYY-MM-DD")
	cmd.Flags().StringVar(&to, "to", "", "last day of receipt, YYYY-MM-DD")
	for _, name := range []string{"from", "to"} {
		// The flag exists: that is the only way this fails.
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

// simulate waits for a simulation's result.
func (c *connection) simulate(ctx context.Context, req *claimsv1.SimulatePlanRequest) (*claimsv1.PlanSimulation, error) {
	stream, err := c.replays.SimulatePlan(ctx, req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	var out *claimsv1.PlanSimulation
	for stream.Receive() {
		out = stream.Msg().GetResult()
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if out == nil {
		return nil, brokenOff()
	}
	return out, nil
}

func (a *app) printSimulation(w io.Writer, path string, s *claimsv1.PlanSimulation) error {
	if len(s.GetProblems()) > 0 {
		printProblems(w, path, s.GetProblems())
		return nil
	}
	if s.GetClaims() == 0 {
		fmt.Fprintln(w, "no claims of the period were decided under this plan")
		return nil
	}
	rows := right(grid("BENEFIT", "LINES", "DENIED", "ALLOWED", "PLAN PAYS", "PATIENT OWES"), "LINES", "DENIED", "ALLOWED", "PLAN PAYS", "PATIENT OWES")
	row := func(name string, b *claimsv1.BenefitDifference) {
		if name == "" {
			name = "(none reached)"
		}
		rows.AppendRow([]any{
			name, change(b.GetLinesBefore(), b.GetLinesAfter()), change(b.GetDeniedBefore(), b.GetDeniedAfter()),
			changeOf(b.GetAllowedBeforeCents(), b.GetAllowedAfterCents()), changeOf(b.GetPaidBeforeCents(), b.GetPaidAfterCents()),
			changeOf(b.GetPatientBeforeCents(), b.GetPatientAfterCents()),
		})
	}
	for _, b := range s.GetBenefits() {
		row(b.GetBenefit(), b)
	}
	row("total", s.GetTotal())
	if err := render(w, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s decided by %s\n", counted(s.GetClaims(), "claim"), strings.Join(s.GetPlans(), ", "))
	for _, c := range []struct {
		count uint64
		words string
	}{
		{s.GetUnchanged(), "the same to the cent"}, {s.GetPaidMore(), "the plan pays more"}, {s.GetPaidLess(), "the plan pays less"},
		{s.GetShifted(), "only what the patient owes changes"}, {s.GetNewlyPended(), "would wait for a person"},
		{s.GetNewlyDenied(), "paid, would be denied"}, {s.GetNewlyPaid(), "denied, would be paid"},
		{s.GetLeftOut(), "left out: erased, of another engine version, or of a family with corrections"},
	} {
		if c.count > 0 {
			fmt.Fprintf(w, "%8d  %s\n", c.count, c.words)
		}
	}
	return nil
}

func change(before, after uint64) string {
	if before == after {
		return fmt.Sprint(after)
	}
	return fmt.Sprintf("%d (%+d)", after, int64(after)-int64(before))
}

func changeOf(before, after int64) string {
	switch d := after - before; {
	case d > 0:
		return fmt.Sprintf("%s (+%s)", dollars(after), money.Cents(d))
	case d < 0:
		return fmt.Sprintf("%s (%s)", dollars(after), money.Cents(d))
	}
	return dollars(after)
}
