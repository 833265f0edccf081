package embedded_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/standalone/embedded"
	"github.com/probity-health/probity/workflows/assembly"
	"github.com/probity-health/probity/workflows/setup"
	"github.com/probity-health/probity/workflows/worker"
)

func TestSetupMakesWhatIsMissingOnceAndSaysSo(t *testing.T) {
	ctx := testContext(t)
	c := dial(t, startTemporal(t, t.TempDir()))
	defer c.Close()

	// The standalone stack's own namespace is as wanted from the start.
	changed, err := setup.Apply(ctx, c, setup.Want{Namespace: embedded.Namespace})
	require.NoError(t, err)
	require.Empty(t, changed)

	// A server without one gets it, and a second run changes nothing.
	want := setup.Want{Namespace: "clinic", Retention: 30 * 24 * time.Hour}
	changed, err = setup.Apply(ctx, c, want)
	require.NoError(t, err)
	require.Equal(t, []string{
		"made the namespace clinic with a retention of 30 days",
		"added the search attribute ProbityDueDate of type Datetime",
		"added the search attribute ProbityPayer of type Keyword",
	}, changed)
	changed, err = setup.Apply(ctx, c, want)
	require.NoError(t, err)
	require.Empty(t, changed)

	// A longer retention is set, a shorter one leaves histories alone.
	want.Retention = 60 * 24 * time.Hour
	changed, err = setup.Apply(ctx, c, want)
	require.NoError(t, err)
	require.Equal(t, []string{"lengthened the retention of clinic from 30 days to 60 days"}, changed)
	want.Retention = 2 * 24 * time.Hour
	changed, err = setup.Apply(ctx, c, want)
	require.NoError(t, err)
	require.Empty(t, changed)
}

func TestAnOlderFileIsBroughtUpToDateWhenItIsOpened(t *testing.T) {
	ctx := testContext(t)
	dir := t.TempDir()
	server := startTemporal(t, dir)
	c := dial(t, server)
	// Given a file whose namespace lacks what this build searches by.
	_, err := c.OperatorService().RemoveSearchAttributes(ctx, &operatorservice.RemoveSearchAttributesRequest{
		Namespace: embedded.Namespace, SearchAttributes: []string{"ProbityPayer"},
	})
	require.NoError(t, err)
	c.Close()
	require.NoError(t, server.Stop())

	c = dial(t, startTemporal(t, dir))
	defer c.Close()
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: embedded.Namespace})
	require.NoError(t, err)
	require.Equal(t, enumspb.INDEXED_VALUE_TYPE_KEYWORD, have.GetCustomAttributes()["ProbityPayer"])
}

func TestSetupRefusesAnAttributeOfAnotherTypeAndChangesNothing(t *testing.T) {
	ctx := testContext(t)
	c := dial(t, startTemporal(t, t.TempDir()))
	defer c.Close()
	// Given a namespace that somebody prepared otherwise.
	_, err := c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: "clinic", WorkflowExecutionRetentionPeriod: durationpb.New(48 * time.Hour),
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
			Namespace: "clinic", SearchAttributes: map[string]enumspb.IndexedValueType{"ProbityPayer": enumspb.INDEXED_VALUE_TYPE_INT},
		})
		return err == nil
	}, 30*time.Second, 100*time.Millisecond)

	changed, err := setup.Apply(ctx, c, setup.Want{Namespace: "clinic"})
	require.ErrorContains(t, err, "ProbityPayer of clinic is Int and has to be Keyword")
	require.ErrorContains(t, err, "search-attribute remove --name ProbityPayer")
	require.Empty(t, changed)
	there, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "clinic"})
	require.NoError(t, err)
	require.Equal(t, 48*time.Hour, there.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration())
	attributes, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: "clinic"})
	require.NoError(t, err)
	require.Len(t, attributes.GetCustomAttributes(), 1)
}

// authority signs certificates of 127.0.0.1 and writes them to its directory.
type authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.key, a.cert = a.issue(t, "ca", nil)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// issue writes name.pem and name.key; without a signer it is an authority itself.
func (a *authority) issue(t *testing.T, name string, by *authority) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        by == nil, BasicConstraintsValid: true,
	}
	signer, parent := key, template
	if by == nil {
		template.KeyUsage = x509.KeyUsageCertSign
	} else {
		signer, parent = by.key, by.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		require.NoError(t, os.WriteFile(a.path(file), pem.EncodeToMemory(block), 0o600))
	}
	return key, cert
}

// guarded serves the embedded Temporal as a real one is served: with TLS, to
// clients with a certificate of the authority and the right API key.
func guarded(t *testing.T, server *embedded.Temporal, ca *authority, apiKey string) (address string) {
	t.Helper()
	ca.issue(t, "frontend", ca)
	pair, err := tls.LoadX509KeyPair(ca.path("frontend.pem"), ca.path("frontend.key"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.HostPort()})
	proxy.Transport = &http.Transport{Protocols: plain}
	proxy.FlushInterval = -1
	frontend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+apiKey {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	frontend.EnableHTTP2 = true
	frontend.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	frontend.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the point
	frontend.StartTLS()
	t.Cleanup(frontend.Close)
	return frontend.Listener.Addr().String()
}

func TestAGuardedServerIsReachedWithTheRightCertificatesAndKeyOnly(t *testing.T) {
	server := startTemporal(t, t.TempDir())
	ca, stranger := newAuthority(t), newAuthority(t)
	ca.issue(t, "worker", ca)
	stranger.issue(t, "worker", stranger)
	address := guarded(t, server, ca, "the-key")
	keyFile, payloads := ca.path("api-key"), ca.path("payload-key")
	require.NoError(t, os.WriteFile(keyFile, []byte("the-key\n"), 0o600))
	_, err := keys.GenerateKeyFile(payloads)
	require.NoError(t, err)
	t.Setenv("PROBITY_TEST_API_KEY", "the-key")
	t.Setenv("PROBITY_TEST_WRONG_KEY", "another")

	right := assembly.TemporalConfig{
		Address: address, Namespace: embedded.Namespace, TLS: true,
		CAFile: ca.path("ca.pem"), CertFile: ca.path("worker.pem"), KeyFile: ca.path("worker.key"),
		APIKeyFile: keyFile, PayloadKeyFile: payloads,
	}
	reach := func(change func(*assembly.TemporalConfig)) error {
		cfg := right
		change(&cfg)
		connection, err := cfg.Connection()
		require.NoError(t, err)
		c, err := worker.Dial(connection)
		require.NoError(t, err)
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err = c.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	}
	require.NoError(t, reach(func(*assembly.TemporalConfig) {}))
	require.NoError(t, reach(func(c *assembly.TemporalConfig) { c.APIKeyFile, c.APIKeyEnv = "", "PROBITY_TEST_API_KEY" }))
	for name, change := range map[string]func(*assembly.TemporalConfig){
		"another authority's server": func(c *assembly.TemporalConfig) { c.CAFile = stranger.path("ca.pem") },
		"no client certificate":      func(c *assembly.TemporalConfig) { c.CertFile, c.KeyFile = "", "" },
		"a stranger's certificate": func(c *assembly.TemporalConfig) {
			c.CertFile, c.KeyFile = stranger.path("worker.pem"), stranger.path("worker.key")
		},
		"another name":    func(c *assembly.TemporalConfig) { c.ServerName = "temporal.example" },
		"no TLS":          func(c *assembly.TemporalConfig) { c.TLS = false },
		"a wrong API key": func(c *assembly.TemporalConfig) { c.APIKeyFile, c.APIKeyEnv = "", "PROBITY_TEST_WRONG_KEY" },
		"no API key":      func(c *assembly.TemporalConfig) { c.APIKeyFile = "" },
	} {
		t.Run(name, func(t *testing.T) { require.Error(t, reach(change)) })
	}
	_, err = assembly.TemporalConfig{TLS: true, APIKeyEnv: "PROBITY_TEST_ABSENT", PayloadKeyFile: payloads}.Connection()
	require.ErrorContains(t, err, "PROBITY_TEST_ABSENT")
}
