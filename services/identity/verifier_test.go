package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// provider is an OIDC provider with named faults.
type provider struct {
	*httptest.Server
	keys      jwk.Set
	down      atomic.Bool // every request answers 503
	jwksCalls atomic.Int32
}

func newProvider(t *testing.T) *provider {
	p := &provider{keys: jwk.NewSet()}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		p.jwksCalls.Add(1)
		_ = json.NewEncoder(w).Encode(p.keys)
	})
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// addKey publishes a key's public half and returns the private one.
func (p *provider) addKey(t *testing.T, id string, alg jwa.SignatureAlgorithm) jwk.Key {
	t.Helper()
	private := newKey(t, id, alg)
	public, err := private.PublicKey()
	require.NoError(t, err)
	require.NoError(t, p.keys.AddKey(public))
	return private
}

func newKey(t *testing.T, id string, alg jwa.SignatureAlgorithm) jwk.Key {
	t.Helper()
	var raw any
	var err error
	switch alg {
	case jwa.RS256():
		raw, err = rsa.GenerateKey(rand.Reader, 2048)
	case jwa.EdDSA():
		_, raw, err = ed25519.GenerateKey(rand.Reader)
	default:
		raw, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	require.NoError(t, err)
	key, err := jwk.Import(raw)
	require.NoError(t, err)
	require.NoError(t, key.Set(jwk.KeyIDKey, id))
	return key
}

// token is a good token of the provider, spoiled by change.
func (p *provider) token(t *testing.T, alg jwa.SignatureAlgorithm, key jwk.Key, change func(jwt.Token)) string {
	t.Helper()
	token, err := jwt.NewBuilder().Issuer(p.URL).Subject("u-1").Audience([]string{"probity"}).
		IssuedAt(noon).Expiration(noon.Add(10*time.Minute)).
		Claim("org", "prov-lakeside").Claim("roles", []string{"submitter"}).Claim("payers", []string{"KEYSTONE"}).Build()
	require.NoError(t, err)
	if change != nil {
		change(token)
	}
	signed, err := jwt.Sign(token, jwt.WithKey(alg, key))
	require.NoError(t, err)
	return string(signed)
}

func (p *provider) verifier(t *testing.T, now *time.Time) *identity.Verifier {
	t.Helper()
	v, err := identity.NewVerifier(identity.VerifierConfig{Issuer: p.URL, Skew: time.Minute, Now: func() time.Time { return *now }})
	require.NoError(t, err)
	return v
}

func TestATokenOfEachAlgorithmBecomesAPrincipal(t *testing.T) {
	p, now := newProvider(t), noon
	for _, alg := range []jwa.SignatureAlgorithm{jwa.RS256(), jwa.ES256(), jwa.EdDSA()} {
		key := p.addKey(t, alg.String(), alg)
		got, err := p.verifier(t, &now).Verify(context.Background(), p.token(t, alg, key, nil))
		require.NoError(t, err, alg)
		require.Equal(t, identity.Principal{
			Subject: "u-1", Org: "prov-lakeside",
			Roles: []identity.Role{identity.RoleSubmitter}, Payers: []string{"KEYSTONE"},
		}, got)
	}
}

func TestBadTokensAreRefused(t *testing.T) {
	p, now := newProvider(t), noon
	key := p.addKey(t, "k1", jwa.ES256())
	verifier := p.verifier(t, &now)
	set := func(name string, value any) func(jwt.Token) {
		return func(token jwt.Token) { require.NoError(t, token.Set(name, value)) }
	}
	good := p.token(t, jwa.ES256(), key, nil)
	parts := strings.Split(good, ".")

	for name, token := range map[string]string{
		"empty":                         "",
		"not a JWT":                     "abc",
		"too long":                      strings.Repeat("a", 20<<10),
		"unsigned":                      "eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"signature cut":                 parts[0] + "." + parts[1] + ".",
		"another's key of the same id":  p.token(t, jwa.ES256(), newKey(t, "k1", jwa.ES256()), nil),
		"symmetric with the public key": hmacToken(t, p, key),
		"other issuer":                  p.token(t, jwa.ES256(), key, set("iss", "https://elsewhere.example")),
		"other audience":                p.token(t, jwa.ES256(), key, set("aud", []string{"billing"})),
		"no expiry":                     p.token(t, jwa.ES256(), key, func(token jwt.Token) { require.NoError(t, token.Remove("exp")) }),
		"expired beyond the skew":       p.token(t, jwa.ES256(), key, set("exp", noon.Add(-time.Minute))),
		"valid from beyond the skew":    p.token(t, jwa.ES256(), key, set("nbf", noon.Add(62*time.Second))),
		"issued in the future":          p.token(t, jwa.ES256(), key, set("iat", noon.Add(time.Hour))),
		"no subject":                    p.token(t, jwa.ES256(), key, func(token jwt.Token) { require.NoError(t, token.Remove("sub")) }),
		"roles are no list":             p.token(t, jwa.ES256(), key, set("roles", "submitter")),
		"hundreds of payers":            p.token(t, jwa.ES256(), key, set("payers", strings.Split(strings.Repeat("x,", 300), ","))),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifier.Verify(context.Background(), token)
			require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
			if len(token) > 20 {
				require.NotContains(t, err.Error(), token[:20])
			}
		})
	}
	_, err := verifier.Verify(context.Background(), good)
	require.NoError(t, err, "the token they were made from is good")
}

// hmacToken signs with the public key's bytes as a shared secret, the classic confusion of algorithms.
func hmacToken(t *testing.T, p *provider, key jwk.Key) string {
	public, err := key.PublicKey()
	require.NoError(t, err)
	raw, err := json.Marshal(public)
	require.NoError(t, err)
	secret, err := jwk.Import(raw)
	require.NoError(t, err)
	require.NoError(t, secret.Set(jwk.KeyIDKey, "k1"))
	return p.token(t, jwa.HS256(), secret, nil)
}

func TestSkewIsToleratedToTheSecond(t *testing.T) {
	p, now := newProvider(t), noon
	key := p.addKey(t, "k1", jwa.ES256())
	verifier := p.verifier(t, &now)
	token := p.token(t, jwa.ES256(), key, func(token jwt.Token) { require.NoError(t, token.Set("nbf", noon)) })

	now = noon.Add(-time.Minute)
	_, err := verifier.Verify(context.Background(), token)
	require.NoError(t, err, "a minute early")
	now = noon.Add(11*time.Minute - time.Second)
	_, err = verifier.Verify(context.Background(), token)
	require.NoError(t, err, "a second before a minute late")
	now = noon.Add(11 * time.Minute)
	_, err = verifier.Verify(context.Background(), token)
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
}

func TestStrangersCannotMakeTheVerifierFetch(t *testing.T) {
	p, now := newProvider(t), noon
	key := p.addKey(t, "k1", jwa.ES256())
	verifier := p.verifier(t, &now)
	_, err := verifier.Verify(context.Background(), p.token(t, jwa.ES256(), key, nil))
	require.NoError(t, err)
	require.EqualValues(t, 1, p.jwksCalls.Load())

	forged := newKey(t, "made-up", jwa.ES256())
	for range 20 {
		_, err = verifier.Verify(context.Background(), p.token(t, jwa.ES256(), forged, nil))
		require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
	}
	require.EqualValues(t, 1, p.jwksCalls.Load())
}

func TestANewKeyIsFetchedAndAWithdrawnOneForgotten(t *testing.T) {
	p, now := newProvider(t), noon
	first := p.addKey(t, "k1", jwa.ES256())
	verifier := p.verifier(t, &now)
	old := p.token(t, jwa.ES256(), first, func(token jwt.Token) { require.NoError(t, token.Set("exp", noon.Add(time.Hour))) })
	_, err := verifier.Verify(context.Background(), old)
	require.NoError(t, err)

	require.NoError(t, p.keys.Clear())
	second := p.addKey(t, "k2", jwa.ES256())
	now = noon.Add(15 * time.Second)
	_, err = verifier.Verify(context.Background(), p.token(t, jwa.ES256(), second, nil))
	require.NoError(t, err, "an unknown key id is looked up")
	_, err = verifier.Verify(context.Background(), old)
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
}

func TestATokenSeenAMomentAgoStillExpires(t *testing.T) {
	p, now := newProvider(t), noon
	key := p.addKey(t, "k1", jwa.ES256())
	verifier := p.verifier(t, &now)
	// Given a token that expires in five seconds, with a minute's skew allowed, and is seen just before.
	token := p.token(t, jwa.ES256(), key, func(token jwt.Token) { require.NoError(t, token.Set("exp", noon.Add(5*time.Second))) })
	now = noon.Add(60 * time.Second)
	first, err := verifier.Verify(context.Background(), token)
	require.NoError(t, err)

	// Then what its bearer makes of the principal is nobody else's,
	first.Roles[0] = identity.RolePlanAdmin
	now = noon.Add(64 * time.Second)
	again, err := verifier.Verify(context.Background(), token)
	require.NoError(t, err)
	require.Equal(t, []identity.Role{identity.RoleSubmitter}, again.Roles)

	// another with the same claims and a bad signature is refused, and so is the token itself in its time.
	_, err = verifier.Verify(context.Background(), token[:strings.LastIndex(token, ".")+1]+strings.Repeat("A", 86))
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
	now = noon.Add(66 * time.Second)
	_, err = verifier.Verify(context.Background(), token)
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
}

func TestKnownKeysOutliveTheIssuerForAnHour(t *testing.T) {
	p, now := newProvider(t), noon
	key := p.addKey(t, "k1", jwa.ES256())
	verifier := p.verifier(t, &now)
	token := p.token(t, jwa.ES256(), key, func(token jwt.Token) { require.NoError(t, token.Set("exp", noon.Add(24*time.Hour))) })
	_, err := verifier.Verify(context.Background(), token)
	require.NoError(t, err)

	p.down.Store(true)
	now = noon.Add(59 * time.Minute)
	_, err = verifier.Verify(context.Background(), token)
	require.NoError(t, err)
	now = noon.Add(61 * time.Minute)
	_, err = verifier.Verify(context.Background(), token)
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)

	p.down.Store(false)
	now = now.Add(11 * time.Second)
	_, err = verifier.Verify(context.Background(), token)
	require.NoError(t, err, "it recovers by itself")
}

func TestAVerifierMayStartBeforeItsIssuer(t *testing.T) {
	p, now := newProvider(t), noon
	key := p.addKey(t, "k1", jwa.ES256())
	p.down.Store(true)
	verifier := p.verifier(t, &now)
	_, err := verifier.Verify(context.Background(), p.token(t, jwa.ES256(), key, nil))
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)

	p.down.Store(false)
	now = noon.Add(2 * time.Second)
	_, err = verifier.Verify(context.Background(), p.token(t, jwa.ES256(), key, nil))
	require.NoError(t, err)
}

func TestAVerifierRefusesAnUnsafeConfiguration(t *testing.T) {
	for name, cfg := range map[string]identity.VerifierConfig{
		"no issuer":      {},
		"no URL":         {Issuer: "keystone"},
		"file":           {Issuer: "file:///etc/passwd"},
		"generous skew":  {Issuer: "https://id.example", Skew: 2 * time.Minute},
		"JWKS not a URL": {Issuer: "https://id.example", JWKSURL: "jwks.json"},
	} {
		_, err := identity.NewVerifier(cfg)
		require.Error(t, err, name)
	}
}

func TestASecretFileMustBeThere(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	for _, path := range []string{filepath.Join(dir, "missing"), empty} {
		_, err := identity.FileToken(path).Token(context.Background())
		require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
	}
}

func TestTheCallersTokenIsForwardedOrNothing(t *testing.T) {
	ctx := identity.WithToken(context.Background(), "callers")
	token, err := identity.CallerOr(nil).Token(ctx)
	require.NoError(t, err)
	require.Equal(t, "callers", token)

	_, err = identity.CallerOr(nil).Token(context.Background())
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
}

// Whatever bytes come as a token or as a JWKS, the verifier answers and lets nobody in.
func FuzzVerify(f *testing.F) {
	f.Add("a.b.c", []byte(`{"keys":[]}`))
	f.Add("eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.e30.AAAA", []byte(`{"keys":[{"kty":"EC","kid":"k","crv":"P-256","x":"AA","y":"AA"}]}`))
	f.Add("eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.e30.AAAA", []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AA"}]}`))
	f.Fuzz(func(t *testing.T, token string, jwks []byte) {
		client := &http.Client{Transport: answer(jwks)}
		v, err := identity.NewVerifier(identity.VerifierConfig{Issuer: "https://id.example", JWKSURL: "https://id.example/jwks", Client: client})
		require.NoError(t, err)
		if p, err := v.Verify(context.Background(), token); err == nil {
			t.Fatalf("let in: %+v", p)
		}
	})
}

// answer is a transport that always answers these bytes.
type answer []byte

func (a answer) RoundTrip(*http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	_, _ = w.Write(a)
	return w.Result(), nil
}
