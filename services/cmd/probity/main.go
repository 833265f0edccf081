// Command probity is the platform's one binary: client commands for people
// and scripts, and `probity serve` for each service.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/probity-health/probity/services/assembly"
	"github.com/probity-health/probity/services/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	root := cli.New(cli.System())
	root.AddCommand(assembly.ServeCommand(), assembly.KeygenCommand())
	code := cli.Execute(ctx, root, os.Args[1:])
	stop()
	os.Exit(code)
}
