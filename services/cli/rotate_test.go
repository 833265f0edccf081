package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/assembly"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

// served is a ledger node behind the chassis, which may be replaced.
type served struct {
	url, token string
	handler    atomic.Pointer[http.Handler]
}

func serveLedger(t *testing.T) *served {
	t.Helper()
	s := &served{token: filepath.Join(t.TempDir(), "token")}
	require.NoError(t, os.WriteFile(s.token, []byte("t"), 0o600))
	listening := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*s.handler.Load()).ServeHTTP(rw, r) }))
	listening.Config.Protocols = new(http.Protocols)
	listening.Config.Protocols.SetUnencryptedHTTP2(true)
	listening.Start()
	t.Cleanup(func() { listening.CloseClientConnections(); listening.Close() })
	s.url = listening.URL
	return s
}

func (s *served) mount(t *testing.T, n *ledger.Node) {
	t.Helper()
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "ledger"})
	require.NoError(t, err)
	srv, err := server.New(server.Config{}, server.Deps{Telemetry: tel, Verifier: anyone{}})
	require.NoError(t, err)
	srv.Mount(ledgerv1connect.NewLedgerServiceHandler(n.Handler(), srv.Options()...))
	srv.Mount(ledgerv1connect.NewProofServiceHandler(n.Proofs(), srv.Options()...))
	handler := srv.Handler()
	s.handler.Store(&handler)
}

// Given a ledger with receipts, when its signing key is rotated by the steps of
// docs/how-to/rotate-keys.md, then receipts of both keys verify with the newer
// policy file, and the older file asks for it.
func TestASigningKeyIsRotatedByHand(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	s, dir := serveLedger(t), t.TempDir()
	n := w.Open(t, w.Config)
	s.mount(t, n)
	path := func(name string) string { return filepath.Join(dir, name) }
	probity := func(args ...string) string {
		t.Helper()
		code, out, errs := run(t, append(args, "--server", s.url, "--token-file", s.token)...)
		require.Equal(t, cli.ExitOK, code, errs)
		return out
	}
	appended := 0
	receiptOf := func(file string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		appended++
		res, err := n.Handler().Append(ctx, &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: "k", RequestId: fmt.Sprint("r", appended),
			Writes: []*ledgerv1.StreamWrite{{Stream: "claim-1", ExpectedRevision: -2, Events: []*ledgerv1.Event{{Type: "t"}}}},
		})
		require.NoError(t, err)
		if file == "" {
			return
		}
		got, err := n.Handler().GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: res.Position})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path(file), got.Receipt, 0o600))
	}
	receiptOf("before.receipt")
	probity("keys", "-f", path("before.txt"))
	probity("verify", path("before.receipt"), "--policy", path("before.txt"))

	// The next key, and the text of the next version with it in the old one's place.
	keygen := assembly.KeygenCommand()
	var made bytes.Buffer
	keygen.SetOut(&made)
	keygen.SetArgs([]string{"ledger", path("next-key"), "--origin", ledgertest.Origin})
	require.NoError(t, keygen.Execute())
	policy := probity("ledger", "policy")
	prev := regexp.MustCompile(`next version's prev: (\S+)`).FindStringSubmatch(policy)[1]
	next, err := os.ReadFile(path("before.txt"))
	require.NoError(t, err)
	text := string(next)
	height, err := strconv.Atoi(strings.Split(probity("ledger", "checkpoint"), "\n")[1])
	require.NoError(t, err)
	for _, line := range []struct{ old, now string }{
		{`sequence 1`, "sequence 2"},
		{`activates 1`, fmt.Sprint("activates ", height+20)},
		{`prev \S+`, "prev " + prev},
		{`member cosigner \S+`, "member cosigner " + strings.TrimSpace(made.String())},
	} {
		text = regexp.MustCompile(`(?m)^`+line.old+`$`).ReplaceAllLiteralString(text, line.now)
	}
	require.NoError(t, os.WriteFile(path("next.txt"), []byte(text), 0o600))

	// One signature is not both: the old members' quorum and the new ones'.
	probity("ledger", "policy", "sign", path("next.txt"), "--key", w.Config.SigningKeyFile)
	code, _, errs := run(t, "ledger", "policy", "submit", path("next.txt"), "--server", s.url, "--token-file", s.token)
	require.NotEqual(t, cli.ExitOK, code)
	require.Contains(t, errs, "under policy 2")
	probity("ledger", "policy", "sign", path("next.txt"), "--key", path("next-key"))
	require.Contains(t, probity("ledger", "policy", "submit", path("next.txt")), "recorded as version 2")
	probity("keys", "-f", path("after.txt"))

	// Until it activates the old key signs. At that height the node changes keys.
	receiptOf("between.receipt")
	for {
		blocks, err := n.Handler().GetLedger(t.Context(), &ledgerv1.GetLedgerRequest{})
		require.NoError(t, err)
		if blocks.GetBlockHeight() >= uint64(height+20) {
			break
		}
		receiptOf("")
	}
	require.NoError(t, n.Close(t.Context()))
	cfg := w.Config
	cfg.SigningKeyFile, cfg.PolicyFile = path("next-key"), path("after.txt")
	n = w.Open(t, cfg)
	s.mount(t, n)
	receiptOf("after.receipt")
	probity("verify", path("before.receipt"), path("between.receipt"), path("after.receipt"), "--policy", path("after.txt"))
	code, out, _ := run(t, "verify", path("after.receipt"), "--policy", path("before.txt"))
	require.Equal(t, cli.ExitProofFailed, code)
	require.Contains(t, out, "get the ledger's newer policy file")
}
