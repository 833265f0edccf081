package ledger_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

// gate knows the tokens of nodes, and says who came.
type gate map[string]string

func (g gate) Verify(_ context.Context, token string) (identity.Principal, error) {
	if subject, ok := g[token]; ok {
		return identity.Principal{Subject: subject, Org: "ledger", Roles: []identity.Role{identity.RoleService}}, nil
	}
	return identity.Principal{}, errors.New("a token of nobody")
}

// guarded is a node behind the chassis of every service, on TLS.
type guarded struct {
	*ledger.Node
	ca    string // file
	trust atomic.Pointer[string]
	token atomic.Pointer[string] // that its hops bear

	mu   sync.Mutex // guards what follows
	hops []string   // subjects that passed appends on to it
}

func startGuarded(t *testing.T, w *ledgertest.Embedded, name string) *guarded {
	t.Helper()
	g := &guarded{}
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "ledger"})
	require.NoError(t, err)
	chassis, err := server.New(server.Config{}, server.Deps{Telemetry: tel, Verifier: gate{"token-a": "node-a", "token-b": "node-b"}})
	require.NoError(t, err)
	var handler atomic.Pointer[http.Handler]
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if h := handler.Load(); h != nil {
			(*h).ServeHTTP(rw, r)
			return
		}
		http.Error(rw, "starting", http.StatusServiceUnavailable)
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	g.ca = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(g.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	own := "token-" + name
	g.token.Store(&own)
	g.trust.Store(&g.ca)

	cfg := w.Config
	cfg.NodeName, cfg.DataDir = name, filepath.Join(t.TempDir(), name)
	cfg.Cluster = &ledger.Cluster{
		URL: s.URL, SessionTimeout: sessionTimeout,
		Dial: func(url string) ledgerv1connect.LedgerServiceClient {
			client, err := server.NewClient(server.ClientConfig{CAFile: *g.trust.Load()}, server.ClientDeps{
				Tokens: identity.TokenFunc(func(context.Context) (string, error) { return *g.token.Load(), nil }),
			})
			if err != nil {
				panic(err) // the certificate was written above
			}
			return ledgerv1connect.NewLedgerServiceClient(client, url, client.Options()...)
		},
	}
	g.Node, err = ledger.Open(within(t), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = g.Close(ctx)
	})
	chassis.Mount(ledgerv1connect.NewLedgerServiceHandler(door{g.Handler(), g}, chassis.Options()...))
	mounted := chassis.Handler()
	handler.Store(&mounted)
	return g
}

// stranger is the file of a certificate that nobody shows.
func stranger(t *testing.T) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "stranger.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600))
	return file
}

// door notes who passes appends on.
type door struct {
	ledgerv1connect.LedgerServiceHandler
	g *guarded
}

func (d door) AppendBatch(ctx context.Context, r *ledgerv1.AppendBatchRequest) (*ledgerv1.AppendBatchResponse, error) {
	caller, _ := identity.FromContext(ctx)
	d.g.mu.Lock()
	d.g.hops = append(d.g.hops, caller.Subject)
	d.g.mu.Unlock()
	return d.LedgerServiceHandler.AppendBatch(ctx, r)
}

// Given two nodes that reach each other over TLS and let nobody in without a
// token, when one passes its callers' appends on, then it comes under its own
// name, over a certificate it trusts, and its callers are the actors; where
// token or certificate is wrong, nothing is appended and the answer may be
// asked for again.
func TestAHopIsGuarded(t *testing.T) {
	w := ledgertest.NewEmbedded(t, kfake.GroupMinSessionTimeout(sessionTimeout/10))
	w.Config.Logs = map[string]int{"claims": 4}
	a, b := startGuarded(t, w, "a"), startGuarded(t, w, "b")
	require.Eventually(t, func() bool {
		return a.Ready(t.Context()) == nil && b.Ready(t.Context()) == nil && a.Owned() >= 2 && b.Owned() >= 2
	}, patience, 5*time.Millisecond)
	caller := identity.WithPrincipal(within(t), identity.Principal{Subject: "principal-7", Org: "payer", Roles: []identity.Role{identity.RoleService}})
	for i := range 8 {
		res, err := a.Handler().Append(caller, routed(i, -1))
		require.NoError(t, err)
		read, err := b.Handler().ReadStream(within(t), &ledgerv1.ReadStreamRequest{
			Log: "claims", RoutingKey: fmt.Sprintf("key-%d", i), Stream: fmt.Sprintf("claim-%d", i), MinToken: res.Token,
		})
		require.NoError(t, err)
		require.Equal(t, "principal-7", read.Events[0].Actor)
	}
	b.mu.Lock()
	require.NotEmpty(t, b.hops)
	for _, subject := range b.hops {
		require.Equal(t, "node-a", subject)
	}
	b.mu.Unlock()

	nobody, other := "token-of-nobody", stranger(t)
	for name, c := range map[string]struct {
		spoil    func()
		from, to *guarded
		first    int // of the appends
	}{
		"a token that the owner doesn't know": {func() { a.token.Store(&nobody) }, a, b, 100},
		// It has passed nothing on yet, so it makes its client now.
		"a certificate that isn't trusted": {func() { b.trust.Store(&other) }, b, a, 200},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := c.from, c.to
			c.spoil()
			refused := 0
			for i := range 8 {
				r := routed(c.first+i, -1)
				_, err := from.Handler().Append(caller, r)
				if err == nil {
					continue // its own shard
				}
				refused++
				require.True(t, problem.Is(err, problem.Unavailable), "got %v", err)
				require.True(t, problem.As(err).Retryable())
				read, err := to.Handler().ReadStream(within(t), &ledgerv1.ReadStreamRequest{
					Log: "claims", RoutingKey: r.RoutingKey, Stream: r.Writes[0].Stream,
				})
				require.NoError(t, err)
				require.Empty(t, read.Events)
			}
			require.Positive(t, refused)
		})
	}
}
