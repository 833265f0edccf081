// Command bench measures Probity: a table for people, JSON for comparison.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/probity-health/probity/e2e/bench"
	"github.com/probity-health/probity/e2e/process"
)

func main() {
	process.Become(bench.Programs())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	out := flag.String("o", "", "file for the figures as JSON; empty writes none")
	quick := flag.Bool("quick", false, "measure within a minute, on a smaller file: to see that it works, not to compare")
	rounds := flag.Int("rounds", 0, "rounds of each measurement; 0 is 3")
	claims := flag.Int("claims", 0, "claims of the file; 0 is 10,000")
	parts := flag.String("parts", "", "what to measure, of engine,ledger,stack,claims,workflows; empty is the first three")
	profile := flag.String("profile", "", "folder for CPU profiles of the stack; taking them costs some of its speed")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	o := bench.Options{Rounds: *rounds, FileClaims: *claims, Profile: *profile, Progress: os.Stderr}
	if *quick {
		o.Each = time.Second
		if o.FileClaims == 0 {
			o.FileClaims = 2000
		}
	}
	if *parts != "" {
		o.Parts = strings.Split(*parts, ",")
	}
	report, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	report.Print(os.Stdout)
	if *out == "" {
		return nil
	}
	return report.Write(*out)
}
