package cli

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// docsCommand writes the reference pages; `make generate` calls it and CI
// checks that they are the ones checked in.
func docsCommand() *cobra.Command {
	var dir string
	command := &cobra.Command{
		Use:    "docs",
		Short:  "Write the reference of all commands as Markdown",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // a date in every page would be drift every day
			return doc.GenMarkdownTree(root, dir)
		},
	}
	command.Flags().StringVar(&dir, "dir", "docs/reference/cli", "folder to write to")
	return command
}
