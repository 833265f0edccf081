package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
)

// authority signs certificates of 127.0.0.1.
type authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// issue writes name.pem and name.key.
func (a *authority) issue(t *testing.T, name string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	a.write(t, name+".key", "PRIVATE KEY", private)
	a.write(t, name+".pem", "CERTIFICATE", der)
}

func TestMutualTLSLetsInOnlyTheAuthoritysOwn(t *testing.T) {
	ca := newAuthority(t)
	ca.issue(t, "server", 2)
	ca.issue(t, "client", 3)
	protocol := ""
	r := run(t, server.Config{TLS: server.TLSFiles{CertFile: ca.path("server.pem"), KeyFile: ca.path("server.key"), ClientCAFile: ca.path("ca.pem")}},
		&claims{get: func(ctx context.Context) error {
			info, _ := connect.CallInfoForHandlerContext(ctx)
			protocol = info.Peer().Protocol
			return nil
		}})
	r.url = strings.Replace(r.url, "http://", "https://", 1)

	known := server.ClientConfig{CAFile: ca.path("ca.pem"), CertFile: ca.path("client.pem"), KeyFile: ca.path("client.key")}
	require.NoError(t, get(context.Background(), r.client(t, known, fixed("good-ann"))))
	require.Equal(t, connect.ProtocolConnect, protocol)

	for name, stranger := range map[string]server.ClientConfig{
		"no certificate":          {CAFile: ca.path("ca.pem")},
		"a server it can't trust": {CertFile: ca.path("client.pem"), KeyFile: ca.path("client.key")},
	} {
		err := get(context.Background(), r.client(t, stranger, fixed("good-ann")))
		require.True(t, problem.Is(err, problem.Unavailable), "%s: %v", name, err)
	}
}

func TestAReplacedCertificateIsServedWithoutARestart(t *testing.T) {
	old, fresh := newAuthority(t), newAuthority(t)
	old.issue(t, "server", 2)
	r := run(t, server.Config{TLS: server.TLSFiles{CertFile: old.path("server.pem"), KeyFile: old.path("server.key")}}, &claims{})
	r.url = strings.Replace(r.url, "http://", "https://", 1)
	require.NoError(t, get(context.Background(), r.client(t, server.ClientConfig{CAFile: old.path("ca.pem")}, fixed("good-ann"))))

	fresh.issue(t, "server", 4)
	for _, name := range []string{"server.key", "server.pem"} {
		require.NoError(t, os.Rename(fresh.path(name), old.path(name)))
	}
	// A file system may keep times by the second; the test doesn't wait for the next one.
	require.NoError(t, os.Chtimes(old.path("server.pem"), time.Time{}, time.Now().Add(time.Minute)))
	require.NoError(t, get(context.Background(), r.client(t, server.ClientConfig{CAFile: fresh.path("ca.pem")}, fixed("good-ann"))))
}

func TestTLSIsRefusedByHalves(t *testing.T) {
	r := run(t, server.Config{}, &claims{})
	for name, files := range map[string]server.TLSFiles{
		"no key":           {CertFile: "x"},
		"only clients' CA": {ClientCAFile: "x"},
	} {
		_, err := server.New(server.Config{TLS: files}, server.Deps{Telemetry: r.tel, Verifier: tokens{}})
		require.Error(t, err, name)
	}
	_, err := server.NewClient(server.ClientConfig{CAFile: "/nonexistent"}, server.ClientDeps{})
	require.Error(t, err)
}
