package identity

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/lestrrat-go/jwx/v3/jwk"
)

var errKeysUnavailable = errors.New("identity: the issuer's keys are not available")

// awayKey is under which Verify leaves a place for errKeysUnavailable.
type awayKey struct{}

const (
	// A key the issuer has withdrawn stops being accepted this long after.
	keysFresh = 10 * time.Minute
	// Known keys outlive an issuer that is away by this much, then nothing is accepted.
	keysStale = time.Hour
	// Tokens with made-up key ids cause at most one fetch in this time.
	keysPause = 10 * time.Second

	maxJWKSBytes = 1 << 20
)

// remoteKeys is a JWKS behind a URL. go-oidc's own fetches again for every
// token with an unknown key id; this one bounds how often strangers can make
// it fetch, and for how long it believes what it fetched.
type remoteKeys struct {
	url    string
	client *http.Client
	now    func() time.Time

	mu      sync.Mutex
	keys    map[string][]crypto.PublicKey // guarded by mu; by key id, "" for keys without
	fetched time.Time                     // guarded by mu; last success
	tried   time.Time                     // guarded by mu; last attempt
}

func newRemoteKeys(url string, client *http.Client, now func() time.Time) *remoteKeys {
	return &remoteKeys{url: url, client: client, now: now}
}

// VerifySignature implements oidc.KeySet.
func (r *remoteKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	id, err := keyID(token)
	if err != nil {
		return nil, err
	}
	candidates, err := r.candidates(ctx, id)
	if err != nil {
		if away, ok := ctx.Value(awayKey{}).(*error); ok && errors.Is(err, errKeysUnavailable) {
			*away = err
		}
		return nil, err
	}
	return (&oidc.StaticKeySet{PublicKeys: candidates}).VerifySignature(ctx, token)
}

// candidates returns the keys of an id, fetching when they are old or the id
// is new. The lock is held across the fetch: one is enough for everyone.
func (r *remoteKeys) candidates(ctx context.Context, id string) ([]crypto.PublicKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	known := len(r.keys[id]) > 0
	old := now.Sub(r.fetched) > keysFresh
	if (old || !known) && now.Sub(r.tried) >= keysPause {
		r.tried = now
		keys, err := r.fetch(ctx)
		if err == nil {
			r.keys, r.fetched = keys, now
		} else if now.Sub(r.fetched) > keysStale || !known {
			return nil, fmt.Errorf("%w: %w", errKeysUnavailable, err)
		}
	}
	switch {
	case now.Sub(r.fetched) > keysStale:
		return nil, errKeysUnavailable
	case len(r.keys[id]) == 0:
		return nil, errors.New("identity: the issuer publishes no such key")
	}
	return r.keys[id], nil
}

func (r *remoteKeys) fetch(ctx context.Context) (map[string][]crypto.PublicKey, error) {
	// One caller's hurry must not fail the fetch for everyone who waits for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("identity: JWKS answered %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKSBytes))
	if err != nil {
		return nil, err
	}
	return parseKeys(body)
}

// parseKeys reads a JWKS (RFC 7517 section 5). Keys it can't use are passed
// over, as section 5 asks; symmetric keys are never used.
func parseKeys(body []byte) (map[string][]crypto.PublicKey, error) {
	set, err := jwk.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("identity: JWKS: %w", err)
	}
	keys := make(map[string][]crypto.PublicKey, set.Len())
	for i := range set.Len() {
		key, _ := set.Key(i)
		public, err := key.PublicKey()
		if err != nil || key.KeyType().String() == "oct" {
			continue
		}
		var raw any
		if err := jwk.Export(public, &raw); err != nil {
			continue
		}
		id, _ := key.KeyID()
		keys[id] = append(keys[id], raw)
	}
	return keys, nil
}

func keyID(token string) (string, error) {
	head, _, ok := strings.Cut(token, ".")
	if !ok {
		return "", errors.New("identity: not a JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return "", errors.New("identity: the JWT's header is not base64url")
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	if err := json.Unmarshal(raw, &header); err != nil {
		return "", errors.New("identity: the JWT's header is not JSON")
	}
	return header.KeyID, nil
}
