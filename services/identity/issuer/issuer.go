// Package issuer is a small OpenID Connect issuer for development: it lets
// the standalone stack and tests run the same verification as production
// without an identity provider beside them.
//
// It knows a fixed map of principals, gives tokens by the client credentials
// grant and keeps its signing key (ES256) and the clients' secrets as files
// of mode 0600 in one directory. It is not for production: there is no user,
// no consent, no revocation, and secrets lie in clear on disk.
package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/probity-health/probity/services/identity"
)

// MaxLifetime of a token, and the default.
const MaxLifetime = time.Hour

// Config of an Issuer.
type Config struct {
	// URL is the issuer ("iss"), e.g. "http://127.0.0.1:8080/issuer". The
	// handler must be reachable under its path.
	URL string
	// Dir holds issuer.key and <client>.secret; made with mode 0700 when missing.
	Dir string
	// Principals by client id ([a-z0-9-]); who a client's tokens speak for.
	Principals map[string]identity.Principal
	// Lifetime of tokens; default and at most one hour.
	Lifetime time.Duration
	// Now defaults to time.Now.
	Now func() time.Time
}

// Development returns principals for a stack on one's own machine: a biller of
// org, and an adjudicator, a supervisor, a plan administrator, an auditor and a service
// account of every payer.
func Development(org string) map[string]identity.Principal {
	every := []string{identity.AllPayers}
	return map[string]identity.Principal{
		"biller":      {Subject: "dev-biller", Org: org, Roles: []identity.Role{identity.RoleSubmitter}},
		"adjudicator": {Subject: "dev-adjudicator", Org: "payer", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: every},
		"supervisor":  {Subject: "dev-supervisor", Org: "payer", Roles: []identity.Role{identity.RoleSupervisor}, Payers: every},
		"plan-admin":  {Subject: "dev-plan-admin", Org: "payer", Roles: []identity.Role{identity.RolePlanAdmin}, Payers: every},
		"auditor":     {Subject: "dev-auditor", Org: "auditor", Roles: []identity.Role{identity.RoleAuditor}},
		"service":     {Subject: "svc-standalone", Org: "probity", Roles: []identity.Role{identity.RoleService}},
	}
}

// Issuer issues tokens. It is immutable and safe for concurrent use.
type Issuer struct {
	cfg     Config
	path    string
	signing jwk.Key
	public  crypto.PublicKey
	jwks    []byte
	secrets map[string][sha256.Size]byte // SHA-256 of each client's secret
}

var clientID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// New opens or makes the key and the secrets in cfg.Dir.
func New(cfg Config) (*Issuer, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil || base.Host == "" || strings.HasSuffix(base.Path, "/") {
		return nil, fmt.Errorf("issuer: URL %q must be absolute and end without a slash", cfg.URL)
	}
	if cfg.Lifetime < 0 || cfg.Lifetime > MaxLifetime {
		return nil, fmt.Errorf("issuer: lifetime %s is outside 0s to %s", cfg.Lifetime, MaxLifetime)
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = MaxLifetime
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	private, err := openKey(filepath.Join(cfg.Dir, "issuer.key"))
	if err != nil {
		return nil, err
	}
	i := &Issuer{cfg: cfg, path: base.Path, public: private.Public(), secrets: map[string][sha256.Size]byte{}}
	if i.signing, i.jwks, err = webKeys(private); err != nil {
		return nil, err
	}
	for id := range cfg.Principals {
		if !clientID.MatchString(id) {
			return nil, fmt.Errorf("issuer: client id %q must be lower case letters, digits and dashes", id)
		}
		secret, err := openSecret(i.SecretFile(id))
		if err != nil {
			return nil, err
		}
		i.secrets[id] = sha256.Sum256([]byte(secret))
	}
	return i, nil
}

// webKeys returns the private key as a JWK named by its own thumbprint, and
// the JWKS document of its public half.
func webKeys(private *ecdsa.PrivateKey) (jwk.Key, []byte, error) {
	key, err := jwk.Import(private)
	if err != nil {
		return nil, nil, fmt.Errorf("issuer: %w", err)
	}
	thumb, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, nil, fmt.Errorf("issuer: %w", err)
	}
	err = errors.Join(
		key.Set(jwk.KeyIDKey, base64.RawURLEncoding.EncodeToString(thumb)),
		key.Set(jwk.AlgorithmKey, jwa.ES256()),
		key.Set(jwk.KeyUsageKey, "sig"),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("issuer: %w", err)
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, nil, fmt.Errorf("issuer: %w", err)
	}
	doc, err := json.Marshal(map[string]any{"keys": []jwk.Key{public}})
	return key, doc, err
}

// TokenURL is where clients ask for tokens.
func (i *Issuer) TokenURL() string { return i.cfg.URL + "/token" }

// SecretFile is where a client's secret lies.
func (i *Issuer) SecretFile(id string) string { return filepath.Join(i.cfg.Dir, id+".secret") }

// Keys verifies this issuer's tokens without a request, for a Verifier in the same process.
func (i *Issuer) Keys() oidc.KeySet {
	return &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{i.public}}
}

// Mint returns a token of a client and when it expires.
func (i *Issuer) Mint(id string) (string, time.Time, error) {
	p, ok := i.cfg.Principals[id]
	if !ok {
		return "", time.Time{}, fmt.Errorf("issuer: no client %q", id)
	}
	now := i.cfg.Now()
	expires := now.Add(i.cfg.Lifetime)
	token, err := jwt.NewBuilder().
		Issuer(i.cfg.URL).Subject(p.Subject).Audience([]string{identity.DefaultAudience}).
		IssuedAt(now).NotBefore(now).Expiration(expires).JwtID(rand.Text()).
		Claim("org", p.Org).Claim("roles", p.Roles).Claim("payers", p.Payers).
		Build()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("issuer: %w", err)
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.ES256(), i.signing))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("issuer: %w", err)
	}
	return string(signed), expires, nil
}

// Handler serves discovery, the JWKS and the token endpoint under the path of
// Config.URL: mount it on the mux that URL points at.
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+i.path+"/.well-known/openid-configuration", i.discovery)
	mux.HandleFunc("GET "+i.path+"/jwks", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "max-age=300")
		_, _ = w.Write(i.jwks)
	})
	mux.HandleFunc("POST "+i.path+"/token", i.token)
	return mux
}

func (i *Issuer) discovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                i.cfg.URL,
		"jwks_uri":                              i.cfg.URL + "/jwks",
		"token_endpoint":                        i.TokenURL(),
		"grant_types_supported":                 []string{"client_credentials"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
		"subject_types_supported":               []string{"public"},
		"response_types_supported":              []string{"token"},
	})
}

// token is RFC 6749 section 4.4; its errors are those of section 5.2.
func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		oauthError(w, http.StatusBadRequest, "invalid_request")
		return
	}
	if err := r.ParseForm(); err != nil {
		oauthError(w, http.StatusBadRequest, "invalid_request")
		return
	}
	if r.PostForm.Get("grant_type") != "client_credentials" {
		oauthError(w, http.StatusBadRequest, "unsupported_grant_type")
		return
	}
	id, secret, basic := r.BasicAuth()
	if basic {
		// Section 2.3.1: both are form-encoded before they are joined.
		id, secret = unescape(id), unescape(secret)
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	want, known := i.secrets[id]
	got := sha256.Sum256([]byte(secret))
	// Compared for unknown clients too, so that time doesn't tell who exists.
	if same := subtle.ConstantTimeCompare(want[:], got[:]) == 1; !known || !same {
		w.Header().Set("WWW-Authenticate", `Basic realm="probity"`)
		oauthError(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	signed, expires, err := i.Mint(id)
	if err != nil {
		oauthError(w, http.StatusInternalServerError, "server_error")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": signed,
		"token_type":   "Bearer",
		"expires_in":   int(expires.Sub(i.cfg.Now()).Seconds()),
	})
}

func unescape(s string) string {
	plain, err := url.QueryUnescape(s)
	if err != nil {
		return ""
	}
	return plain
}

func oauthError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, map[string]string{"error": code})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func openKey(path string) (*ecdsa.PrivateKey, error) {
	raw, err := openOrMake(path, func() ([]byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	})
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("issuer: %s is not PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("issuer: %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("issuer: %s is not a P-256 key", path)
	}
	return key, nil
}

func openSecret(path string) (string, error) {
	raw, err := openOrMake(path, func() ([]byte, error) { return []byte(rand.Text() + rand.Text() + "\n"), nil })
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(raw))
	if len(secret) < 16 {
		return "", fmt.Errorf("issuer: the secret in %s is shorter than 16 characters", path)
	}
	return secret, nil
}

// openOrMake reads a file, or makes it whole: written beside and linked into
// place, so that of two processes starting at once one wins and both read the same.
func openOrMake(path string, make func() ([]byte, error)) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err == nil {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("issuer: %s must be readable by its owner alone (chmod 600)", path)
		}
		return raw, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	fresh, err := make()
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	draft, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	defer os.Remove(draft.Name())
	if _, err = draft.Write(fresh); err == nil {
		err = draft.Sync()
	}
	if err = errors.Join(err, draft.Close()); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if err := os.Link(draft.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	return os.ReadFile(path)
}
