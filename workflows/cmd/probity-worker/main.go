// Command probity-worker runs Probity's workflows: it polls Temporal, follows
// the claims log, and serves WorkflowService.
//
//	probity-worker --config worker.yaml
//	probity-worker setup --config worker.yaml
//
// The configuration is described at assembly.Config.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/probity-health/probity/workflows/assembly"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := assembly.Command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
