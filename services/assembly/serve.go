package assembly

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/probity-health/probity/services/heap"
)

// ServeCommand is `probity serve SERVICE --config FILE`: one service a process.
func ServeCommand() *cobra.Command {
	serve := &cobra.Command{
		Use:   "serve",
		Short: "Run one service",
		Long: "Run one service until it is told to stop (SIGINT, SIGTERM), then drain.\n" +
			"The configuration is YAML; a field it doesn't know is refused.",
		Args: cobra.NoArgs,
	}
	serve.AddCommand(
		service("ledger", "a ledger node", func(c *LedgerConfig) *ProcessConfig { return &c.ProcessConfig }, Ledger),
		service("policies", "plans, members, contracts and prices", func(c *PoliciesConfig) *ProcessConfig { return &c.ProcessConfig }, untimed(Policies)),
		service("claims", "claims, intake files and remittances", func(c *ClaimsConfig) *ProcessConfig { return &c.ProcessConfig }, untimed(Claims)),
		service("consent", "the subjects' keys", func(c *ConsentConfig) *ProcessConfig { return &c.ProcessConfig }, untimed(Consent)),
		service("gateway", "the edge: X12 in and out", func(c *GatewayConfig) *ProcessConfig { return &c.ProcessConfig }, untimed(Gateway)),
	)
	return serve
}

func untimed[C any](add func(*Process, C) error) func(context.Context, *Process, C) error {
	return func(_ context.Context, p *Process, cfg C) error { return add(p, cfg) }
}

// service is one subcommand; process finds what its configuration begins with.
func service[C any](name, short string, process func(*C) *ProcessConfig, add func(context.Context, *Process, C) error) *cobra.Command {
	var file string
	floor := heap.DefaultFloor() >> 20
	command := &cobra.Command{
		Use:   name,
		Short: "Run " + short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var cfg C
			if err := ReadConfig(file, &cfg); err != nil {
				return err
			}
			go heap.Tend(ctx, min(floor, 1<<20)<<20)
			p, err := NewProcess(ctx, name, *process(&cfg))
			if err != nil {
				return err
			}
			if err := add(ctx, p, cfg); err != nil {
				return fmt.Errorf("%s: %w", name, closing(p, err))
			}
			return p.Run(ctx)
		},
	}
	command.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	command.Flags().Uint64Var(&floor, "heap-floor", floor, heap.Usage)
	command.Flags().Lookup("heap-floor").DefValue = "0" // it depends on the machine, and the help tells how
	_ = command.MarkFlagRequired("config")
	return command
}

// closing closes what had been added before err.
func closing(p *Process, err error) error {
	_ = p.Close()
	return err
}
