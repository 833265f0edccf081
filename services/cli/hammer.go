package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/hammer"
	"github.com/probity-health/probity/services/ledger/receipt"
)

func (a *app) hammerCommand() *cobra.Command {
	var opts hammer.Options
	var policyFile string
	cmd := &cobra.Command{
		Use:   "hammer --log LOG",
		Short: "Load a ledger, then check that it kept its word",
		Long: `Load a ledger, then check that it kept its word.

Callers append to streams of their own, one append after the other, and send
what was not answered again with the same request id. Afterwards every
acknowledged append must be there once, at the revision that was told, and
have a receipt that verifies. Exit code 7 says that one is not.

What is written stays on the ledger for good: hammer a log made for it. The
ledger takes appends from services alone, so --server names a ledger node (or
the standalone), not the gateway, and the context signs in as a service.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case opts.Log == "":
				return usagef("--log is needed: which log may be filled for good?")
			case opts.Callers < 1 || opts.Rate < 0 || opts.Duration <= 0 || opts.Payload < 16 || opts.Receipts < 0:
				return usagef("callers, duration and a payload of 16 bytes are the least; rate and receipts are not negative")
			}
			conn, err := a.connect()
			if err != nil {
				return err
			}
			if policyFile != "" {
				opts.Policy, err = readPolicy(policyFile)
			} else {
				opts.Policy, err = a.toldPolicy(cmd, conn)
			}
			if err != nil {
				return err
			}
			opts.Name = "h" + strings.ToLower(strings.ReplaceAll(a.NewID(), "-", ""))
			opts.Progress = a.tellHammer
			res, err := hammer.Run(cmd.Context(), conn.ledger, opts)
			if err != nil {
				return err
			}
			return a.printHammer(res)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Log, "log", "", "the log to fill")
	flags.IntVar(&opts.Callers, "callers", 8, "how many append at once")
	flags.Float64Var(&opts.Rate, "rate", 0, "appends a second by all callers; 0 is as fast as they are answered")
	flags.DurationVar(&opts.Duration, "duration", 10*time.Second, "how long to load")
	flags.IntVar(&opts.Payload, "payload", 1024, "bytes of an event")
	flags.DurationVar(&opts.Retry, "retry", 30*time.Second, "how long an unanswered append is sent again")
	flags.IntVar(&opts.Receipts, "receipts", 0, "how many receipts to verify; 0 is all")
	flags.StringVar(&policyFile, "policy", "", "policy file: whose signatures to believe; without it the ledger's own word is taken")
	return cmd
}

// toldPolicy is the policy as the ledger tells it.
func (a *app) toldPolicy(cmd *cobra.Command, conn *connection) (receipt.Policy, error) {
	got, err := conn.proofs.GetLedgerPolicy(cmd.Context(), &ledgerv1.GetLedgerPolicyRequest{})
	if err != nil {
		return receipt.Policy{}, err
	}
	return receipt.ParsePolicy(got.GetPolicy())
}

func (a *app) tellHammer(p hammer.Progress) {
	if p.Checking {
		a.say("hammer: checked %d of %d receipts", p.Done, p.Total)
		return
	}
	a.say("hammer: %ds, %d appends, now %.0f/s, p50 %v, p99 %v, %d retries",
		int(p.Elapsed.Seconds()), p.Appends, p.Rate, p.P50.Round(10*time.Microsecond), p.P99.Round(10*time.Microsecond), p.Retries)
}

func (a *app) printHammer(res hammer.Result) error {
	if res.Faults == nil {
		res.Faults = []hammer.Fault{}
	}
	err := a.emit(res, nil, func(w io.Writer) error {
		for _, f := range res.Faults {
			fmt.Fprintf(w, "%s %s %s: %s\n", a.paint(red, "FAULT"), f.Kind, f.Place, f.What)
		}
		fmt.Fprintf(w, "%d appends in %.1f s: %.0f/s, p50 %.2f ms, p99 %.2f ms, max %.2f ms, %d retries, %d unknown\n",
			res.Appends, res.Seconds, res.Rate, res.P50, res.P99, res.Max, res.Retries, res.Unknown)
		if res.LastError != "" {
			fmt.Fprintf(w, "last retried: %s\n", res.LastError)
		}
		verdict := a.paint(green, "kept its word")
		if n := len(res.Faults); n > 0 {
			verdict = a.paint(red, fmt.Sprintf("broke its word %d times", n))
		}
		fmt.Fprintf(w, "the ledger %s: every acknowledged append looked for, %d receipts verified\n", verdict, res.Receipts)
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(res.Faults) > 0:
		return outcome(ExitProofFailed)
	case res.Appends == 0:
		return outcome(ExitUnavailable)
	}
	return nil
}
