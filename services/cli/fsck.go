package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/probity-health/probity/services/assembly"
	"github.com/probity-health/probity/services/ledger/fsck"
	"github.com/probity-health/probity/services/views"
)

func (a *app) fsckCommand() *cobra.Command {
	var config, policyFile, lists string
	var offline bool
	cmd := &cobra.Command{
		Use:   "fsck [DATA_DIR]",
		Short: "Check a stopped ledger node's data directory",
		Long: `Check a stopped ledger node's data directory: store, tiles, index, blocks and
signatures, each against the others, and against the topics if --config says
where they are. With --views the claims service's lists, in Redis or in the
lists/ directory of a standalone stack, are computed anew from the commits and
compared; stop that service meanwhile, or they move on. Every fault is named by its position. Nothing is changed.

The node must have been stopped, not killed: otherwise start and stop it
first. Exit code 7 says that there are faults. A damaged replica is not
repaired in place: move its data directory away, but not what it signed
(signedDir), name it as salvageDir in the node's configuration, and start the
node: it keeps what is sound of it and fetches the rest from a peer.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var opts fsck.Options
			if config != "" {
				var node assembly.LedgerConfig
				if err := assembly.ReadConfig(config, &node); err != nil {
					return usageError{err}
				}
				opts.DataDir, opts.SignedDir = node.DataDir, node.SignedDir
				if !offline {
					topics, hangUp, err := node.Topics()
					if err != nil {
						return err
					}
					defer hangUp()
					opts.Topics = topics
				}
			}
			if len(args) == 1 {
				opts.DataDir, opts.SignedDir = args[0], ""
			}
			if opts.DataDir == "" {
				return usagef("which directory? name it, or the node's configuration with --config")
			}
			if policyFile != "" {
				policy, err := readPolicy(policyFile)
				if err != nil {
					return err
				}
				opts.Policy = policy
			}
			if lists != "" {
				audit, hangUp, err := auditOf(lists)
				if err != nil {
					return err
				}
				defer hangUp()
				opts.Views = append(opts.Views, audit)
			}
			opts.Progress = a.every(2*time.Second, "fsck: ")
			report, err := fsck.Check(cmd.Context(), opts)
			if err != nil {
				return err
			}
			return a.printFsck(report)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the node's configuration (YAML): its data directory and its topics")
	cmd.Flags().StringVar(&policyFile, "policy", "", "policy file: whose signatures to believe; without it the stored policy is believed")
	cmd.Flags().StringVar(&lists, "views", "", "the claims service's configuration (YAML), or the lists directory of a standalone stack: compare its lists")
	cmd.Flags().BoolVar(&offline, "offline", false, "leave the topics out, though --config names brokers")
	return cmd
}

// auditOf is the audit of lists that a configuration, or a directory, names.
func auditOf(lists string) (*views.Audit, func(), error) {
	if info, err := os.Stat(lists); err == nil && info.IsDir() {
		return assembly.AuditLists(lists)
	}
	var service assembly.ClaimsConfig
	if err := assembly.ReadConfig(lists, &service); err != nil {
		return nil, nil, usageError{err}
	}
	return service.Audit()
}

func (a *app) printFsck(report fsck.Report) error {
	if report.Faults == nil {
		report.Faults = []fsck.Fault{}
	}
	rows := make([]any, 0, len(report.Faults))
	for _, f := range report.Faults {
		rows = append(rows, f)
	}
	err := a.emit(report, rows, func(w io.Writer) error {
		for _, f := range report.Faults {
			fmt.Fprintf(w, "%s %s\n", a.paint(red, "FAULT"), f)
		}
		if report.Truncated {
			fmt.Fprintln(w, "and more")
		}
		for _, n := range report.Notices {
			fmt.Fprintf(w, "note: %s\n", n)
		}
		verdict := a.paint(green, "sound")
		if n := len(report.Faults); n > 0 {
			verdict = fmt.Sprintf("%d faults", n)
			if n == 1 {
				verdict = "1 fault"
			}
			verdict = a.paint(red, verdict)
		}
		commits := fmt.Sprintf("%d commits", report.Commits)
		if report.Rows > 0 {
			commits = fmt.Sprintf("%d index rows in place of commits, %d commits", report.Rows, report.Commits)
		}
		fmt.Fprintf(w, "%s: %s, %d blocks, %d records of topics checked\n", verdict, commits, report.Blocks, report.Records)
		return nil
	})
	if err != nil {
		return err
	}
	if len(report.Faults) > 0 {
		return outcome(ExitProofFailed)
	}
	return nil
}

// every returns what tells on standard error how something goes, at most once
// a period and not before the first is over.
func (a *app) every(period time.Duration, prefix string) func(string) {
	told := a.Now()
	return func(what string) {
		if now := a.Now(); now.Sub(told) >= period {
			told = now
			a.say("%s%s", prefix, what)
		}
	}
}
