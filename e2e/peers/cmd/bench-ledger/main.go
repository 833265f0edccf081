// Command bench-ledger measures the ledger beside its peers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/probity-health/probity/e2e/peers"
	"github.com/probity-health/probity/services/heap"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench-ledger: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	out := flag.String("o", "", "file for the figures as JSON; empty writes none")
	rounds := flag.Int("rounds", 3, "rounds of each measurement")
	length := flag.Duration("round", time.Second, "length of one measurement")
	callers := flag.String("callers", "1,64,512", "concurrencies")
	without := flag.Bool("without-postgres", false, "measure the others where PostgreSQL isn't installed")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	// As `probity serve ledger` runs. The peers gain by it too, all but
	// PostgreSQL, which has processes of its own.
	go heap.Tend(ctx, heap.DefaultFloor())
	o := peers.Options{Rounds: *rounds, Round: *length, WithoutPostgres: *without, Progress: os.Stderr}
	for s := range strings.SplitSeq(*callers, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return errors.New("callers are positive numbers with commas between them")
		}
		o.Callers = append(o.Callers, n)
	}
	report, err := peers.Run(ctx, o)
	if err != nil {
		return err
	}
	report.Print(os.Stdout)
	if *out == "" {
		return nil
	}
	return report.Write(*out)
}
