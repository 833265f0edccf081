package cli_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/ledger/hammer"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

// anyone takes every token for a service's.
type anyone struct{}

func (anyone) Verify(context.Context, string) (identity.Principal, error) {
	return identity.Principal{Subject: "hammer", Org: "test", Roles: []identity.Role{identity.RoleService}}, nil
}

// Given a ledger node behind the chassis, when it is hammered, then progress
// goes to standard error, and the verdict to standard output.
func TestHammer(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	n := w.Open(t, w.Config)
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "ledger"})
	require.NoError(t, err)
	srv, err := server.New(server.Config{}, server.Deps{Telemetry: tel, Verifier: anyone{}})
	require.NoError(t, err)
	srv.Mount(ledgerv1connect.NewLedgerServiceHandler(n.Handler(), srv.Options()...))
	srv.Mount(ledgerv1connect.NewProofServiceHandler(n.Proofs(), srv.Options()...))
	listening := httptest.NewUnstartedServer(srv.Handler())
	listening.Config.Protocols = new(http.Protocols)
	listening.Config.Protocols.SetUnencryptedHTTP2(true)
	listening.Start()
	t.Cleanup(func() { listening.CloseClientConnections(); listening.Close() })
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("t"), 0o600))

	args := []string{
		"ledger", "hammer", "--server", listening.URL, "--token-file", token,
		"--log", "claims", "--callers", "3", "--rate", "200", "--duration", "1300ms", "--payload", "100",
	}
	code, out, errs := run(t, args...)
	require.Equal(t, cli.ExitOK, code, errs)
	require.Regexp(t, `^\d+ appends in \d+\.\d s: \d+/s, p50 .* ms, p99 .* ms, max .* ms, 0 retries, 0 unknown\nthe ledger kept its word: every acknowledged append looked for, \d+ receipts verified\n$`, out)
	require.Regexp(t, `hammer: 1s, \d+ appends, now \d+/s, p50 `, errs)

	code, out, _ = run(t, append(args, "-o", "json", "--receipts", "10")...)
	require.Equal(t, cli.ExitOK, code)
	var res hammer.Result
	require.NoError(t, json.Unmarshal([]byte(out), &res))
	require.Equal(t, 10, res.Receipts)
	require.NotNil(t, res.Faults)

	code, _, _ = run(t, "ledger", "hammer")
	require.Equal(t, cli.ExitUsage, code)
	code, _, errs = run(t, "ledger", "hammer", "--server", listening.URL, "--token-file", token, "--log", "nosuchlog")
	require.Equal(t, cli.ExitNotFound, code, errs)
}
