// Package bench measures the system and its parts: the engine alone, the
// ledger beside the broker beneath it, and the whole standalone stack in a
// process of its own. Every round measures everything once, so that a slow
// minute of the machine falls on all figures alike; the median of the rounds
// counts and their spread tells how far to trust it.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/probity-health/probity/e2e/claimgen"
	"github.com/probity-health/probity/e2e/process"
	"github.com/probity-health/probity/services/ledger/ledgerbench"
	"github.com/probity-health/probity/services/sample"
)

// Options say how long and how hard to measure; zero values are usable.
type Options struct {
	// Rounds is how often each figure is measured; 0 is 3.
	Rounds int
	// FileClaims is the size of the file; 0 is 10,000.
	FileClaims int
	// Families of the payer; 0 is a quarter of FileClaims.
	Families int
	// Each is one measurement's length; 0 is 4 s.
	Each time.Duration
	// Rate of the steady load, claims a second; 0 is 100.
	Rate int
	// Parts measured: "engine", "ledger", "stack", or "claims" or "workflows" by
	// itself; empty is the first three.
	Parts []string
	// Profile is a folder for the stack's CPU profiles; empty takes none.
	Profile string
	// Progress is told what is being done; nil is told nothing.
	Progress io.Writer
}

func (o Options) withDefaults() Options {
	o.Rounds, o.FileClaims, o.Rate = cmp.Or(o.Rounds, 3), cmp.Or(o.FileClaims, 10_000), cmp.Or(o.Rate, 100)
	o.Families, o.Each = cmp.Or(o.Families, max(1, o.FileClaims/4)), cmp.Or(o.Each, 4*time.Second)
	if len(o.Parts) == 0 {
		o.Parts = []string{"engine", "ledger", "stack"}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return o
}

// Run measures. The calling command must begin with process.Become(Programs()).
func Run(ctx context.Context, o Options) (*Report, error) {
	b := &bench{Options: o.withDefaults(), report: &Report{}}
	parts := map[string]func(context.Context, int) error{"engine": b.engine, "ledger": b.ledger, "stack": b.stack, "claims": b.claims, "workflows": b.workflows}
	for _, name := range b.Parts {
		if parts[name] == nil {
			return nil, fmt.Errorf("bench: no part %q", name)
		}
	}
	for round := range b.Rounds {
		for _, name := range b.Parts {
			b.say(round, "%s", name)
			if err := parts[name](ctx, round); err != nil {
				return nil, fmt.Errorf("bench: %s: %w", name, err)
			}
		}
	}
	return b.report, nil
}

type bench struct {
	Options
	report *Report
}

func (b *bench) say(round int, format string, args ...any) {
	fmt.Fprintf(b.Progress, "round %d of %d: %s\n", round+1, b.Rounds, fmt.Sprintf(format, args...))
}

func (b *bench) engine(context.Context, int) error {
	rate, err := engineRate(b.Each / 2)
	if err != nil {
		return err
	}
	b.report.Add("engine, claims of four lines on one core", rate, "claims/s", Higher)
	return nil
}

func (b *bench) ledger(ctx context.Context, _ int) error {
	figures, err := ledgerbench.Run(ctx, ledgerbench.Options{Rounds: 1, Round: b.Each / 4})
	if err != nil {
		return err
	}
	raw := map[int]float64{}
	for _, f := range figures {
		callers := fmt.Sprintf("%d callers", f.Callers)
		if f.Callers == 1 {
			callers = "1 caller"
		}
		switch f.Name {
		case "raw group commit":
			raw[f.Callers] = f.Rate
			b.report.Add("broker, raw durable produces, "+callers, f.Rate, "commits/s", Higher)
		case "node append":
			b.report.Add("ledger, durable commits, "+callers, f.Rate, "commits/s", Higher)
			b.report.Add("ledger, commit p99, "+callers, f.P99.Seconds()*1000, "ms", Lower)
			if raw[f.Callers] > 0 {
				b.report.Add("ledger, share of raw, "+callers, 100*f.Rate/raw[f.Callers], "%", Higher)
			}
		case "receipt verified":
			b.report.Add("receipt, verified offline", f.Rate, "receipts/s", Higher)
		}
	}
	return nil
}

// providers are under contract with the sample payer; the last is not.
var providers = []claimgen.Provider{
	{NPI: "1600100014", Name: "LAKESIDE FAMILY MEDICINE", TaxID: "341000001"},
	{NPI: "1600100048", Name: "RIVERSIDE IMAGING", TaxID: "341000004"},
	{NPI: "1245319599", Name: "ELSEWHERE CLINIC", TaxID: "341000009"},
}

// Claims by RPC and claims of the file are of different months, so that none
// looks like another's duplicate.
var (
	rpcMonths  = time.Date(2026, 4, 30, 9, 0, 0, 0, time.UTC)
	fileMonths = time.Date(2026, 6, 30, 9, 0, 0, 0, time.UTC)
)

// stack measures the whole: a first start on an empty directory, claims by
// RPC, a file, and a second start on what the first left.
func (b *bench) stack(ctx context.Context, round int) (err error) {
	dir, err := os.MkdirTemp("", "probity-bench-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return err
	}
	world := claimgen.New(1, b.Families, claimgen.Payer{ID: sample.PayerID, Name: "KEYSTONE HEALTH PLAN", PolicyID: "pol_tidewater_gold"}, providers)
	steadyClaims := b.Rate * int(b.Each.Seconds())
	claims, err := submissions(world.File(2, 2+100+1000*int(b.Each.Seconds())+steadyClaims, 1, rpcMonths), "rpc")
	if err != nil {
		return err
	}
	first, rest := claims[:2], claims[2:]

	profile := ""
	if b.Profile != "" {
		profile = filepath.Join(b.Profile, fmt.Sprintf("stack-%d.pprof", round+1))
	}
	if err := b.firstStart(ctx, round, dir, address, profile, world, first[0], rest, steadyClaims); err != nil {
		return err
	}
	began := time.Now()
	again, err := startStack(ctx, dir, address, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, again.stop()) }()
	if err := again.awaitPlans(ctx, first[1]); err != nil {
		return err
	}
	if err := decide(ctx, again.clients.Claims, first[1]); err != nil {
		return err
	}
	b.report.Add(fmt.Sprintf("restart after %d claims, exec to an answered claim", b.FileClaims), time.Since(began).Seconds(), "s", Lower)
	return nil
}
