// Package distributed runs Probity the way it is deployed: every service, the
// worker, the issuer and what they stand on are processes of their own,
// configured by files, reached over TLS, signed in by client credentials.
// Then it kills them one after the other.
package distributed

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/probity-health/probity/e2e/process"
	serve "github.com/probity-health/probity/services/assembly"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/identity/issuer"
	"github.com/probity-health/probity/standalone/embedded"
	worker "github.com/probity-health/probity/workflows/assembly"
)

func TestMain(m *testing.M) {
	process.Main(m, map[string]process.Program{
		"probity": func(ctx context.Context, args []string, _, _ io.Writer) int {
			root := cli.New(cli.System())
			root.AddCommand(serve.ServeCommand(), serve.KeygenCommand())
			return cli.Execute(ctx, root, args)
		},
		"worker": func(ctx context.Context, args []string, _, stderr io.Writer) int {
			return worker.Command(ctx, args, io.Discard, stderr)
		},
		"kafka":    runs(kafka),
		"temporal": runs(temporal),
		"issuer":   runs(oidc),
	})
}

// dependency configures the roles that stand in for what an installation
// brings along. They read it from a file, as the services do.
type dependency struct {
	Dir, Address      string
	CertFile, KeyFile string
	// Username and Password of Kafka, by SCRAM-SHA-512.
	Username, Password string
	// URL and Principals of the issuer.
	URL        string
	Principals map[string]identity.Principal
}

func (d dependency) port() int {
	_, port, _ := net.SplitHostPort(d.Address)
	n, _ := strconv.Atoi(port)
	return n
}

func runs(f func(context.Context, dependency, *slog.Logger) error) process.Program {
	return func(ctx context.Context, args []string, _, stderr io.Writer) int {
		var d dependency
		raw, err := os.ReadFile(args[0])
		if err == nil {
			err = json.Unmarshal(raw, &d)
		}
		if err == nil {
			err = f(ctx, d, slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
		}
		if err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}
}

// kafka is the standalone stack's broker with what a cluster adds: TLS and
// SASL. Like the stack's it syncs before it acknowledges.
func kafka(ctx context.Context, d dependency, _ *slog.Logger) error {
	pair, err := tls.LoadX509KeyPair(d.CertFile, d.KeyFile)
	if err != nil {
		return err
	}
	broker, err := kfake.NewCluster(
		kfake.Ports(d.port()), kfake.ClusterID("probity-distributed"),
		kfake.DataDir(d.Dir), kfake.SyncWrites(),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}),
		kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", d.Username, d.Password),
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1", "log.retention.bytes": "-1", "message.max.bytes": "16777216"}),
	)
	if err != nil {
		return err
	}
	<-ctx.Done()
	broker.Close()
	return nil
}

func temporal(ctx context.Context, d dependency, log *slog.Logger) error {
	server, err := embedded.TemporalOptions{Dir: d.Dir, Port: d.port(), Logger: log}.Start(ctx)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return server.Stop()
}

func oidc(ctx context.Context, d dependency, _ *slog.Logger) error {
	issuing, err := issuer.New(issuer.Config{URL: d.URL, Dir: d.Dir, Principals: d.Principals})
	if err != nil {
		return err
	}
	server := &http.Server{Addr: d.Address, Handler: issuing.Handler(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServeTLS(d.CertFile, d.KeyFile); ctx.Err() == nil {
		return err
	}
	return nil
}

// write writes a file that only its owner reads and returns its path.
func write(t testing.TB, path string, content []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
