package standalone

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/probity-health/probity/services/heap"
)

// Main is the command probity-standalone; it returns its exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	command := newCommand()
	command.SetArgs(args)
	command.SetOut(stdout)
	command.SetErr(stderr)
	if err := command.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "probity-standalone: %v\n", err)
		return 1
	}
	return 0
}

func newCommand() *cobra.Command {
	var cfg Config
	var sample, once bool
	heapFloor := heap.DefaultFloor() >> 20
	command := &cobra.Command{
		Use:   "probity-standalone",
		Short: "Run the whole of Probity in one process, for development",
		Long: "Run every service, the worker, an embedded broker, Temporal and a view store in one process.\n" +
			"For development only: its users and keys lie in the data directory.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.LogOutput = cmd.ErrOrStderr()
			go heap.Tend(cmd.Context(), min(heapFloor, 1<<20)<<20)
			return run(cmd.Context(), cfg, sample || once, once, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := command.Flags()
	flags.StringVar(&cfg.DataDir, "data-dir", DefaultDataDir, "where everything is kept; starting again resumes from it")
	flags.StringVar(&cfg.Listen, "listen", DefaultListen, "address of all RPCs")
	flags.StringVar(&cfg.LogLevel, "log-level", "error", "debug, info, warn or error")
	flags.StringVar(&cfg.OTLPEndpoint, "otlp-endpoint", "", "OTLP/HTTP base URL that receives traces")
	flags.Uint64Var(&heapFloor, "heap-floor", heapFloor, heap.Usage)
	flags.BoolVar(&sample, "sample", false, "load the sample payer and adjudicate its file of claims")
	flags.BoolVar(&once, "once", false, "stop when the sample is done (implies --sample)")
	return command
}

func run(ctx context.Context, cfg Config, sample, once bool, stdout, stderr io.Writer) error {
	began := time.Now()
	stack, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	contextFile, err := stack.writeContext()
	if err != nil {
		return stopping(stack, err)
	}
	fmt.Fprintf(stderr, "probity standalone: ready after %.1f s, data in %s\n", time.Since(began).Seconds(), stack.DataDir)
	if sample {
		if err := stack.runSample(ctx, stdout, stderr); err != nil {
			return stopping(stack, err)
		}
	}
	if once {
		return stack.Stop()
	}
	stack.announce(stdout, contextFile)
	err = stack.Wait()
	fmt.Fprintln(stderr, "probity standalone: stopped")
	return err
}

func stopping(s *Stack, err error) error {
	if stop := s.Stop(); stop != nil {
		return fmt.Errorf("%w (and while stopping: %w)", err, stop)
	}
	return err
}

func (s *Stack) announce(w io.Writer, contextFile string) {
	fmt.Fprintf(w, `
DEVELOPMENT ONLY: users, keys and data lie in %[2]s

  RPC, all services    %[1]s
  checkpoint, tiles    %[1]s/checkpoint
  metrics, readiness   %[1]s/metrics  %[1]s/readyz
  CLI context          %[3]s

Try   bin/probity claims list
      bin/probity submit FILE.edi
      bin/probity review list
Stop  Ctrl-C
`, s.URL, s.DataDir, contextFile)
}
