package cli

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/probity-health/probity/e2e/naive"
	"github.com/probity-health/probity/services/generate"
)

func (a *app) generateCommand() *cobra.Command {
	var o generate.Options
	var out, asOf string
	var publish bool
	cmd := &cobra.Command{
		Use:   "generate --claims N --out DIR",
		Short: "Make an invented payer, its members and claims with the money expected of them",
		Long: `Make an invented payer, its members and claims with the money expected of them.

DIR gets the documents (plans, fee_schedules, contracts, networks, policies, edits), members and
authorizations, the claims as 837P and 837I files and in plain terms
(claims.jsonl), and what becomes of each line by a second, deliberately simple
model that shares nothing with the engine (expected.jsonl). The same seed gives
the same bytes.

The outcomes hold when the professional file is decided first, and when both
are received from the day --as-of to 30 days later.

--publish also makes the payer and its members known to the server, so that
the files can be submitted.`,
		Example: "  probity generate --claims 1000 --seed 7 --out /tmp/world --publish\n  probity submit /tmp/world/claims-837p.edi",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			day, err := time.Parse(time.DateOnly, asOf)
			if asOf == "" {
				day, err = a.Now().UTC(), nil
			}
			if err != nil {
				return usagef("--as-of %q is no day like 2026-11-21", asOf)
			}
			o.AsOf = day
			world, err := generate.New(o)
			if err != nil {
				return usageError{err}
			}
			bar := a.progress("making claims", int64(o.Claims))
			written, err := world.WriteDir(out, expecting{naive.New(world.AsOf().Format(time.DateOnly))}, func(n int) { bar.set(int64(n)) })
			bar.done()
			if err != nil {
				return err
			}
			if publish {
				conn, err := a.connect()
				if err != nil {
					return err
				}
				bar := a.progress("enrolling", int64(written.Members))
				err = world.Publish(cmd.Context(), generate.Payer{Policies: conn.policies, Edits: conn.edits}, func(n int) { bar.set(int64(n)) })
				bar.done()
				if err != nil {
					return err
				}
			}
			if err := a.emit(written, nil, func(w io.Writer) error {
				fmt.Fprintf(w, "%s (%d institutional) of %s in %s\n",
					counted(written.Claims, "claim"), written.Institutional, counted(written.Members, "member"), counted(written.Families, "family", "families"))
				rows := right(grid("CLAIMS", "KIND"), "CLAIMS")
				for _, kind := range slices.Sorted(maps.Keys(written.Kinds)) {
					rows.AppendRow([]any{written.Kinds[kind], kind})
				}
				return render(w, rows)
			}); err != nil {
				return err
			}
			a.say("next: probity submit %s", filepath.Join(out, generate.FileProfessional))
			return nil
		},
	}
	cmd.Flags().IntVar(&o.Claims, "claims", 0, "how many claims")
	cmd.Flags().Uint64Var(&o.Seed, "seed", 1, "chooses the people and their claims")
	cmd.Flags().StringVar(&out, "out", "", "an empty or new directory")
	cmd.Flags().StringVar(&asOf, "as-of", "", "day of receipt, YYYY-MM-DD (default today, UTC)")
	cmd.Flags().IntVar(&o.Control, "control", 1, "numbers the interchanges: another for every file of one sender")
	cmd.Flags().BoolVar(&publish, "publish", false, "make the payer and its members known to the server")
	for _, name := range []string{"claims", "out"} {
		// The flag exists: that is the only way this fails.
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

// expecting is the naive model as the generator asks it.
type expecting struct{ *naive.Model }

func (e expecting) Decide(claim []byte) (any, error) { return e.Model.Decide(claim) }
