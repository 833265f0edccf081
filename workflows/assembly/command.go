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
)

// Command is the program probity-worker: args after its name in, the exit
// code out. It runs until ctx ends and then drains.
func Command(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("probity-worker", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "/etc/probity/worker.yaml", "configuration file")
	check := flags.Bool("check", false, "check the configuration and exit")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if err := run(ctx, *path, *check); err != nil {
		fmt.Fprintln(stderr, "probity-worker:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, path string, check bool) error {
	cfg, err := ReadConfig(path)
	if err != nil || check {
		return err
	}
	p, err := assemble(ctx, cfg)
	if err != nil {
		return err
	}
	return p.run(ctx)
}
