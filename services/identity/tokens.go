package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/probity-health/probity/services/problem"
)

// TokenSource gives the bearer token for an outgoing call.
type TokenSource interface {
	Token(ctx context.Context) (string, error)
}

// TokenFunc is a TokenSource made of a function.
type TokenFunc func(ctx context.Context) (string, error)

// Token calls the function.
func (f TokenFunc) Token(ctx context.Context) (string, error) { return f(ctx) }

// FileToken reads the token from a file at every call, so that a rotated one
// (a projected service account token) is used as soon as it is there.
func FileToken(path string) TokenSource {
	return TokenFunc(func(context.Context) (string, error) { return readSecret(path) })
}

// renewBefore is how long before its expiry a cached token is replaced: more
// than the skew a verifier may allow.
const renewBefore = 90 * time.Second

// ClientCredentials returns a source of tokens by OAuth 2.0's client
// credentials grant (RFC 6749 section 4.4). Tokens are cached until shortly
// before they expire; the secret is read from its file at every renewal, so it may be rotated.
func ClientCredentials(tokenURL, id, secretFile string) TokenSource {
	return ClientCredentialsVia(&http.Client{Timeout: issuerTimeout}, tokenURL, id, secretFile)
}

// ClientCredentialsVia is ClientCredentials over the caller's HTTP client.
func ClientCredentialsVia(client *http.Client, tokenURL, id, secretFile string) TokenSource {
	return &clientToken{tokenURL: tokenURL, id: id, secretFile: secretFile, client: client, now: time.Now}
}

// issuerTimeout bounds one request to the issuer.
const issuerTimeout = 10 * time.Second

// IssuerClient returns the HTTP client for an issuer. caFile (PEM) replaces
// the system's certificate authorities, for an issuer inside a cluster; empty
// keeps them.
func IssuerClient(caFile string) (*http.Client, error) {
	client := &http.Client{Timeout: issuerTimeout}
	if caFile == "" {
		return client, nil
	}
	raw, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("identity: caFile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("identity: caFile %s holds no PEM certificate", caFile)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	client.Transport = transport
	return client, nil
}

type clientToken struct {
	tokenURL, id, secretFile string
	client                   *http.Client
	now                      func() time.Time

	mu     sync.Mutex
	cached *oauth2.Token // guarded by mu
}

// Token implements TokenSource. The lock is held across the request: callers
// that wait for it want the same token.
func (c *clientToken) Token(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.cached != nil && now.Before(c.cached.Expiry.Add(-renewBefore)) {
		return c.cached.AccessToken, nil
	}
	secret, err := readSecret(c.secretFile)
	if err != nil {
		return "", err
	}
	grant := clientcredentials.Config{
		ClientID: c.id, ClientSecret: secret, TokenURL: c.tokenURL,
		EndpointParams: map[string][]string{"audience": {DefaultAudience}},
		AuthStyle:      oauth2.AuthStyleInHeader,
	}
	token, err := grant.Token(context.WithValue(ctx, oauth2.HTTPClient, c.client))
	if err == nil {
		c.cached = token
		return token.AccessToken, nil
	}
	// A token that still lives beats none while the issuer is away.
	if c.cached != nil && now.Before(c.cached.Expiry) {
		return c.cached.AccessToken, nil
	}
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < 500 {
		return "", problem.New(problem.Unauthenticated, problem.Problem{
			RuleID:  "identity.grant-refused",
			Message: fmt.Sprintf("the token issuer refused client %s (%s)", c.id, refused.ErrorCode),
			Fix:     "check the client id and its secret file",
		}).Because(err)
	}
	return "", issuerAway(err)
}

const maxSecretBytes = 16 << 10

func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxSecretBytes {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxSecretBytes)
	}
	var raw []byte
	if err == nil {
		raw, err = os.ReadFile(path)
	}
	if secret := strings.TrimSpace(string(raw)); err == nil && secret != "" {
		return secret, nil
	}
	return "", problem.New(problem.Unauthenticated, problem.Problem{
		RuleID:  "identity.secret-file",
		Message: "the secret file " + path + " is missing, empty or unreadable",
		Fix:     "write the client's secret into it, readable by you alone",
	}).Because(err)
}

type tokenKey struct{}

// WithToken returns ctx carrying the caller's own bearer token, so that a call
// made on its behalf can forward it. Only the authenticating middleware calls it.
func WithToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// TokenFromContext returns the caller's bearer token.
func TokenFromContext(ctx context.Context) (string, bool) {
	token, ok := ctx.Value(tokenKey{}).(string)
	return token, ok && token != ""
}

// CallerOr forwards the caller's own token where ctx has one and asks own
// otherwise. A nil own fails closed: without a caller there is no call.
func CallerOr(own TokenSource) TokenSource {
	return TokenFunc(func(ctx context.Context) (string, error) {
		if token, ok := TokenFromContext(ctx); ok {
			return token, nil
		}
		if own == nil {
			return "", problem.New(problem.Unauthenticated, problem.Problem{
				RuleID:  "identity.no-caller",
				Message: "there is no caller whose token could be forwarded",
				Fix:     "sign in and send a bearer token",
			})
		}
		return own.Token(ctx)
	})
}
