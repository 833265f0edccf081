package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
)

func (a *app) loginCommand() *cobra.Command {
	var c Context
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Check credentials and remember them as a context",
		Long: `Check credentials and remember them as a context.

The context holds the path of the secret's file, not the secret. Without
flags the chosen context is checked as it is.`,
		Example: "  probity login --server https://claims.example --token-url https://id.example/token \\\n    --client-id lakeside --secret-file ~/.probity/lakeside.secret --context lakeside",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			known, err := a.context()
			if err != nil && a.flags.server == "" {
				return err
			}
			if err != nil {
				known = Context{Server: a.flags.server}
			}
			for _, field := range []struct{ to, from *string }{
				{&known.TokenURL, &c.TokenURL}, {&known.ClientID, &c.ClientID},
				{&known.SecretFile, &c.SecretFile}, {&known.CAFile, &c.CAFile},
			} {
				if *field.from != "" {
					*field.to = *field.from
				}
			}
			for _, path := range []*string{&known.SecretFile, &known.CAFile} {
				if *path != "" {
					if *path, err = filepath.Abs(*path); err != nil {
						return err
					}
				}
			}
			if known.TokenURL == "" && a.flags.tokenFile == "" {
				return usagef("--token-url, --client-id and --secret-file are needed to sign in")
			}
			conn, err := a.dial(known)
			if err != nil {
				return err
			}
			ledger, err := conn.ledger.GetLedger(cmd.Context(), &ledgerv1.GetLedgerRequest{})
			if err != nil {
				return err
			}
			path, err := WriteContext(a.Env, a.contextName(), known)
			if err != nil {
				return err
			}
			a.say("signed in to %s, ledger %s; context %s is in %s", known.Server, ledger.GetOrigin(), a.contextName(), path)
			a.say("next: probity submit FILE")
			return nil
		},
	}
	cmd.Flags().StringVar(&c.TokenURL, "token-url", "", "OAuth 2.0 token endpoint")
	cmd.Flags().StringVar(&c.ClientID, "client-id", "", "client id")
	cmd.Flags().StringVar(&c.SecretFile, "secret-file", "", "file with the client's secret")
	cmd.Flags().StringVar(&c.CAFile, "ca-file", "", "certificate authority (PEM) of the server")
	return cmd
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			doc := map[string]string{"version": "unknown", "go": "", "revision": ""}
			if info, ok := debug.ReadBuildInfo(); ok {
				doc["version"], doc["go"] = info.Main.Version, info.GoVersion
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						doc["revision"] = s.Value
					}
				}
			}
			return a.emit(doc, nil, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "probity %s %s %s\n", doc["version"], doc["revision"], doc["go"])
				return err
			})
		},
	}
}
