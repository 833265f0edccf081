package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/e2e/process"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

// nodeRole is a ledger node in a process of its own, so that it can be killed
// and paused: a bare one, without the chassis that checks callers.
const nodeRole = "ledger-node"

// nodeConfig is what a node's process is told.
type nodeConfig struct {
	Listen  string
	Prefix  string
	Brokers []string
	Logs    map[string]int
	DataDir string
	KeyFile string
	Name    string
	// Shared makes the node one of a cluster that shares the shards.
	Shared bool
}

func nodeMain(ctx context.Context, args []string, _, stderr io.Writer) int {
	if err := runNode(ctx, args, stderr); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func runNode(ctx context.Context, args []string, stderr io.Writer) error {
	var c nodeConfig
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		return err
	}
	cfg := ledger.Config{
		Origin: "ledger.test/health", Brokers: c.Brokers, TopicPrefix: c.Prefix, Logs: c.Logs, Replication: 3,
		DataDir: c.DataDir, SigningKeyFile: c.KeyFile, NodeName: c.Name, BlockInterval: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	if c.Shared {
		cfg.Cluster = &ledger.Cluster{
			URL: "http://" + c.Listen, SessionTimeout: 2 * time.Second,
			Dial: func(url string) ledgerv1connect.LedgerServiceClient {
				client, err := dial(url)
				if err != nil {
					panic(err) // the client's configuration is constant
				}
				return client
			},
		}
	}
	n, err := ledger.Open(ctx, cfg)
	if err != nil {
		return err
	}
	h, err := chassis(n)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("/ready", func(w http.ResponseWriter, r *http.Request) {
		if err := n.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, mux) }()
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return n.Close(stop)
}

// node is a node's process and a client of it.
type node struct {
	*process.Process
	ledgerv1connect.LedgerServiceClient
	url string
}

func startNode(t *testing.T, c nodeConfig) *node {
	t.Helper()
	c.Listen = process.Address(t)
	raw, err := json.Marshal(c)
	require.NoError(t, err)
	n := &node{url: "http://" + c.Listen}
	n.Process = process.Start(t, nodeRole, nil, string(raw))
	n.LedgerServiceClient, err = dial(n.url)
	require.NoError(t, err)
	return n
}

// chassis puts a node behind what every service has in front of it, with
// everybody let in.
func chassis(n *ledger.Node) (http.Handler, error) {
	tel, err := telemetry.Setup(context.Background(), telemetry.Config{Service: "ledger"})
	if err != nil {
		return nil, err
	}
	srv, err := server.New(server.Config{}, server.Deps{Telemetry: tel, Verifier: anyone{}})
	if err != nil {
		return nil, err
	}
	srv.Mount(ledgerv1connect.NewLedgerServiceHandler(n.Handler(), srv.Options()...))
	return srv.Handler(), nil
}

// anyone takes every token for a service's.
type anyone struct{}

func (anyone) Verify(context.Context, string) (identity.Principal, error) {
	return identity.Principal{Subject: "suite", Org: "suite", Roles: []identity.Role{identity.RoleService}}, nil
}

func dial(url string) (ledgerv1connect.LedgerServiceClient, error) {
	client, err := server.NewClient(server.ClientConfig{HTTP1: true}, server.ClientDeps{
		Tokens: identity.TokenFunc(func(context.Context) (string, error) { return "t", nil }),
	})
	if err != nil {
		return nil, err
	}
	return ledgerv1connect.NewLedgerServiceClient(client, url, client.Options()...), nil
}

// serve puts a node of this process behind HTTP.
func serve(t *testing.T, n *ledger.Node) ledgerv1connect.LedgerServiceClient {
	t.Helper()
	h, err := chassis(n)
	require.NoError(t, err)
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	client, err := dial(s.URL)
	require.NoError(t, err)
	return client
}
