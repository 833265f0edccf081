package assembly

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/ledger"
)

// KeygenCommand is `probity keygen`: the keys that services read from files.
// A file that is there is checked and kept, so a setup may be repeated.
func KeygenCommand() *cobra.Command {
	keygen := &cobra.Command{
		Use:   "keygen",
		Short: "Make the keys that services read from files",
		Long: "Make the keys that services read from files, readable by their owner alone.\n" +
			"A key that is there already is kept.",
		Args: cobra.NoArgs,
	}
	keygen.AddCommand(&cobra.Command{
		Use:   "secret FILE",
		Short: "Make a master, index or payload key: 32 random bytes in base64",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, _, err := keys.EnsureKeyFile(args[0])
			return err
		},
	})
	var origin string
	signing := &cobra.Command{
		Use:   "ledger FILE",
		Short: "Make a ledger node's signing key and print the key that verifies it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			verifier, err := ledger.EnsureKey(args[0], origin)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), verifier)
			return err
		},
	}
	signing.Flags().StringVar(&origin, "origin", "", "the ledger's name, as in its configuration")
	_ = signing.MarkFlagRequired("origin")
	keygen.AddCommand(signing)
	return keygen
}
