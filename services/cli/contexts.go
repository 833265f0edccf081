package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
)

// DefaultContext is used when neither --context nor PROBITY_CONTEXT names one.
const DefaultContext = "standalone"

// Context is whom the command line speaks to and as whom. It names the file
// of a secret, never the secret.
type Context struct {
	// Server is the gateway's base URL.
	Server string `json:"server"`
	// TokenURL gives tokens by OAuth 2.0 client credentials.
	TokenURL string `json:"tokenURL,omitempty"`
	// ClientID and SecretFile are the credentials.
	ClientID   string `json:"clientID,omitempty"`
	SecretFile string `json:"secretFile,omitempty"`
	// CAFile (PEM) replaces the system's certificate authorities.
	CAFile string `json:"caFile,omitempty"`
}

var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ContextPath is where a context lies: under XDG_CONFIG_HOME, or ~/.config.
func ContextPath(env func(string) string, name string) (string, error) {
	if !contextName.MatchString(name) {
		return "", usagef("context name %q must be letters, digits, dots, dashes and underscores", name)
	}
	base := env("XDG_CONFIG_HOME")
	if base == "" {
		home := env("HOME")
		if home == "" {
			return "", usagef("neither XDG_CONFIG_HOME nor HOME is set, so there is no place for contexts")
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "probity", "contexts", name+".json"), nil
}

// WriteContext saves a context; the standalone stack writes its own with it.
func WriteContext(env func(string) string, name string, c Context) (string, error) {
	path, err := ContextPath(env, name)
	if err != nil {
		return "", err
	}
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, append(raw, '\n'), 0o600)
}

func (a *app) contextName() string {
	for _, name := range []string{a.flags.context, a.Env("PROBITY_CONTEXT")} {
		if name != "" {
			return name
		}
	}
	return DefaultContext
}

// context reads the chosen context and lays the flags over it. Without a file
// --server alone is enough.
func (a *app) context() (Context, error) {
	var c Context
	path, err := ContextPath(a.Env, a.contextName())
	if err != nil {
		return c, err
	}
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if a.flags.server == "" {
			return c, problem.New(problem.Unauthenticated, problem.Problem{
				RuleID:  "cli.no-context",
				Message: fmt.Sprintf("there is no context %q", a.contextName()),
				Fix:     "start the standalone stack (make run), or sign in: probity login --server URL --token-url URL --client-id ID --secret-file FILE",
			})
		}
	case err != nil:
		return c, err
	default:
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&c); err != nil {
			return c, fmt.Errorf("%s: %w", path, err)
		}
	}
	if a.flags.server != "" {
		c.Server = a.flags.server
	}
	if u, err := url.Parse(c.Server); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return c, usagef("server %q is not an http(s) URL", c.Server)
	}
	return c, nil
}

func (c Context) tokens(tokenFile string) identity.TokenSource {
	switch {
	case tokenFile != "":
		return identity.FileToken(tokenFile)
	case c.TokenURL != "":
		return identity.ClientCredentials(c.TokenURL, c.ClientID, c.SecretFile)
	}
	return nil
}

// connect returns the connection of the chosen context.
func (a *app) connect() (*connection, error) {
	c, err := a.context()
	if err != nil {
		return nil, err
	}
	return a.dial(c)
}

func (a *app) dial(c Context) (*connection, error) {
	client, err := server.NewClient(server.ClientConfig{CAFile: c.CAFile, Compress: true}, server.ClientDeps{Tokens: c.tokens(a.flags.tokenFile)})
	if err != nil {
		return nil, err
	}
	return newConnection(client, c.Server), nil
}
