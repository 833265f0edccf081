package standalone

import (
	"os"

	"github.com/probity-health/probity/services/cli"
)

// writeContext writes the CLI's default context, so that bin/probity finds
// this stack and signs in as the developer. The secret itself stays in the
// data directory, readable by its owner only.
func (s *Stack) writeContext() (string, error) {
	return cli.WriteContext(os.Getenv, cli.DefaultContext, cli.Context{
		Server: s.URL, TokenURL: s.issuer.TokenURL(), ClientID: developer, SecretFile: s.issuer.SecretFile(developer),
	})
}
