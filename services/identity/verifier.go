package identity

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/probity-health/probity/services/problem"
)

// DefaultAudience is the "aud" every token for Probity carries.
const DefaultAudience = "probity"

const (
	maxTokenBytes = 16 << 10
	maxSkew       = 60 * time.Second
	maxRoles      = 32
	maxPayers     = 256
)

// VerifierConfig says whose tokens to believe.
type VerifierConfig struct {
	// Issuer is the exact "iss" and, unless JWKSURL or Keys is given, the base
	// of OIDC discovery (<issuer>/.well-known/openid-configuration).
	Issuer string
	// Audience defaults to "probity".
	Audience string
	// JWKSURL skips discovery, for an issuer reached under another name inside a cluster.
	JWKSURL string
	// Keys skips both: the issuer runs in this process.
	Keys oidc.KeySet
	// Skew is how far clocks may differ; default 30 s, at most 60 s.
	Skew time.Duration
	// Client defaults to one with a 10 s timeout.
	Client *http.Client
	// Now defaults to time.Now.
	Now func() time.Time
}

// Verifier turns a bearer token into a Principal. Discovery happens at the
// first token, so a process may start before its issuer; while the issuer is
// away tokens of known keys go on being accepted for an hour, and no others.
// A token that was found right is not checked by signature again for a while.
type Verifier struct {
	cfg      VerifierConfig
	believed believed

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // guarded by mu; nil until discovered
	tried    time.Time             // guarded by mu; last failed discovery
}

// discoveryPause keeps a flood of tokens from becoming a flood of discoveries
// while the issuer is away.
const discoveryPause = time.Second

// NewVerifier checks the configuration; it makes no request.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if cfg.Issuer == "" {
		return nil, errors.New("identity: an issuer URL is needed to verify tokens")
	}
	for _, raw := range []string{cfg.Issuer, cfg.JWKSURL} {
		if raw == "" {
			continue
		}
		if u, err := url.Parse(raw); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, fmt.Errorf("identity: %q is not an http(s) URL", raw)
		}
	}
	if cfg.Skew < 0 || cfg.Skew > maxSkew {
		return nil, fmt.Errorf("identity: clock skew %s is outside 0s to %s", cfg.Skew, maxSkew)
	}
	if cfg.Skew == 0 {
		cfg.Skew = 30 * time.Second
	}
	if cfg.Audience == "" {
		cfg.Audience = DefaultAudience
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: issuerTimeout}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{cfg: cfg}, nil
}

// tokenClaims are the claims Probity reads besides those go-oidc checks.
type tokenClaims struct {
	Subject   string      `json:"sub"`
	Org       string      `json:"org"`
	Roles     []Role      `json:"roles"`
	Payers    []string    `json:"payers"`
	Expiry    json.Number `json:"exp"`
	NotBefore json.Number `json:"nbf"`
	IssuedAt  json.Number `json:"iat"`
}

// Verify checks signature (RS256, ES256 or EdDSA), issuer, audience and times
// and returns the token's principal. Errors are *problem.Error:
// Unauthenticated for a bad token, Unavailable when the issuer's keys can't
// be had. They never repeat the token.
func (v *Verifier) Verify(ctx context.Context, token string) (Principal, error) {
	if token == "" || len(token) > maxTokenBytes {
		return Principal{}, badToken("identity.token.size", "the bearer token is empty or longer than 16 KiB", nil)
	}
	digest := sha256.Sum256([]byte(token))
	c, known := v.believed.get(digest, v.cfg.Now())
	if !known {
		var err error
		if c, err = v.check(ctx, token); err != nil {
			return Principal{}, err
		}
	}
	if err := v.checkTimes(c); err != nil {
		return Principal{}, err
	}
	if !known {
		v.believed.put(digest, c, v.cfg.Now())
	}
	return c.principal(), nil
}

// check reads a token's claims after checking all that doesn't change with time.
func (v *Verifier) check(ctx context.Context, token string) (c tokenClaims, err error) {
	verifier, err := v.discovered(ctx)
	if err != nil {
		return c, err
	}
	// go-oidc flattens a key set's error to text; the set reports it here.
	var away error
	parsed, err := verifier.Verify(context.WithValue(ctx, awayKey{}, &away), token)
	if err != nil {
		if away != nil {
			return c, issuerAway(away)
		}
		return c, badToken("identity.token.invalid", "the bearer token's signature, issuer or audience is not right", err)
	}
	if err := parsed.Claims(&c); err != nil {
		return c, badToken("identity.token.claims", "the bearer token's claims have the wrong types", err)
	}
	if c.Subject == "" || len(c.Roles) > maxRoles || len(c.Payers) > maxPayers {
		return c, badToken("identity.token.claims", "the bearer token has no subject, or too many roles or payers", nil)
	}
	return c, nil
}

// checkTimes is done here and not by go-oidc because that allows no skew on
// expiry and five minutes on not-before.
func (v *Verifier) checkTimes(c tokenClaims) error {
	now, skew := v.cfg.Now(), v.cfg.Skew
	exp, ok := numericDate(c.Expiry)
	switch {
	case !ok:
		return badToken("identity.token.no-expiry", "the bearer token has no expiry", nil)
	case !now.Before(exp.Add(skew)):
		return badToken("identity.token.expired", "the bearer token has expired", nil)
	}
	for _, claim := range []json.Number{c.NotBefore, c.IssuedAt} {
		if claim == "" {
			continue
		}
		at, ok := numericDate(claim)
		if !ok || at.After(now.Add(skew)) {
			return badToken("identity.token.early", "the bearer token is dated in the future", nil)
		}
	}
	return nil
}

// numericDate reads RFC 7519's NumericDate; beyond what a time holds is no date.
func numericDate(n json.Number) (time.Time, bool) {
	f, err := n.Float64()
	if err != nil || f <= 0 || f > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(f), 0), true
}

// discovered returns the verifier, discovering the issuer when that has not
// succeeded yet. The lock is held across discovery so that one request does it.
func (v *Verifier) discovered(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.verifier != nil {
		return v.verifier, nil
	}
	keys := v.cfg.Keys
	if keys == nil {
		jwksURL := v.cfg.JWKSURL
		if jwksURL == "" {
			if v.cfg.Now().Before(v.tried.Add(discoveryPause)) {
				return nil, issuerAway(errors.New("discovery failed a moment ago"))
			}
			provider, err := oidc.NewProvider(oidc.ClientContext(ctx, v.cfg.Client), v.cfg.Issuer)
			if err != nil {
				v.tried = v.cfg.Now()
				return nil, issuerAway(err)
			}
			var found struct {
				JWKSURL string `json:"jwks_uri"`
			}
			if err := provider.Claims(&found); err != nil || found.JWKSURL == "" {
				v.tried = v.cfg.Now()
				return nil, issuerAway(fmt.Errorf("discovery names no jwks_uri: %w", err))
			}
			jwksURL = found.JWKSURL
		}
		keys = newRemoteKeys(jwksURL, v.cfg.Client, v.cfg.Now)
	}
	v.verifier = oidc.NewVerifier(v.cfg.Issuer, keys, &oidc.Config{
		ClientID:             v.cfg.Audience,
		SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256, oidc.EdDSA},
		SkipExpiryCheck:      true, // checkTimes does it
		Now:                  v.cfg.Now,
	})
	return v.verifier, nil
}

func badToken(rule, message string, cause error) *problem.Error {
	return problem.New(problem.Unauthenticated, problem.Problem{
		RuleID: rule, Message: message, Fix: "sign in again (probity login) and resend",
	}).Because(cause)
}

func issuerAway(cause error) *problem.Error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "identity.issuer-away",
		Message: "the token issuer's keys can't be fetched right now",
		Fix:     "retry in a moment; if it persists check the issuer URL and the network to it",
	}).Because(cause)
}
