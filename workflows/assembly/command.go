// Package assembly builds the worker's process from its configuration: it
// polls Temporal, follows the claims log and serves WorkflowService. It holds
// no rule; command probity-worker is its main.
package assembly

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/probity-health/probity/workflows/setup"
	"github.com/probity-health/probity/workflows/worker"
)

const usage = `usage: probity-worker [--config FILE] [--check]
       probity-worker setup [--config FILE]

The worker runs until it is told to stop. setup makes the Temporal server
ready, as the configuration's temporal section says: namespace, retention,
search attributes. It may be run again at any time and says what it changed.

`

// Command is the program probity-worker: args after its name in, the exit
// code out. It runs until ctx ends and then drains.
func Command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("probity-worker", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	path := flags.String("config", "/etc/probity/worker.yaml", "configuration file")
	check := flags.Bool("check", false, "check the configuration and exit")
	prepare := len(args) > 0 && args[0] == "setup"
	if prepare {
		args = args[1:]
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "probity-worker: %q is no command\n", flags.Arg(0))
		flags.Usage()
		return 2
	}
	err := func() error {
		cfg, err := ReadConfig(*path)
		switch {
		case err != nil || *check:
			return err
		case prepare:
			return prepareServer(ctx, cfg.Temporal, stdout)
		}
		p, err := assemble(ctx, cfg)
		if err != nil {
			return err
		}
		return p.run(ctx)
	}()
	if err != nil {
		fmt.Fprintln(stderr, "probity-worker:", err)
		return 1
	}
	return 0
}

// setupTimeout bounds setup whole; a new namespace takes some seconds to be known.
const setupTimeout = 90 * time.Second

func prepareServer(ctx context.Context, t TemporalConfig, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	connection, err := t.Connection()
	if err != nil {
		return err
	}
	connection.Logger = slog.New(slog.DiscardHandler)
	c, err := worker.Dial(connection)
	if err != nil {
		return err
	}
	defer c.Close()
	changed, err := setup.Apply(ctx, c, setup.Want{Namespace: t.Namespace, Retention: time.Duration(t.RetentionDays) * 24 * time.Hour})
	for _, line := range changed {
		fmt.Fprintln(out, line)
	}
	if err == nil && len(changed) == 0 {
		fmt.Fprintf(out, "the namespace %s is as wanted; nothing changed\n", t.Namespace)
	}
	return err
}
