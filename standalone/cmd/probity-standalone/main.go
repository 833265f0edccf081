// probity-standalone runs the whole of Probity in one process, for
// development and tests.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/probity-health/probity/standalone"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := standalone.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
