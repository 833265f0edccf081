package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/ledger/fsck"
	"github.com/probity-health/probity/services/ledger/ledgertest"
)

// run runs one command line and returns its exit code and outputs.
func run(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	streams := cli.System()
	streams.Out, streams.Err = &stdout, &stderr
	streams.OutTerminal, streams.ErrTerminal = false, false
	home := t.TempDir()
	streams.Env = func(name string) string {
		if name == "HOME" {
			return home
		}
		return ""
	}
	code = cli.Execute(t.Context(), cli.New(streams), args)
	return code, stdout.String(), stderr.String()
}

// Given a stopped node's directory, sound and then with one bit flipped, when
// it is checked with the node's own configuration, then the exit code and the
// document tell the one from the other.
func TestFsck(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	n := w.Open(t, w.Config)
	res, err := n.Handler().Append(t.Context(), &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "k", RequestId: "r1",
		Writes: []*ledgerv1.StreamWrite{{Stream: "claim-1", ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "test.Event"}}}},
	})
	require.NoError(t, err)
	_, err = n.Handler().GetReceipt(t.Context(), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)

	dir := t.TempDir()
	policy, config := filepath.Join(dir, "policy.txt"), filepath.Join(dir, "ledger.yaml")
	terms, err := n.Handler().GetCheckpoint(t.Context(), &ledgerv1.GetCheckpointRequest{})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(policy, terms.Policy, 0o600))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "dataDir: %s\ntopicPrefix: test\nkafka: {brokers: [%q]}\n", w.Config.DataDir, w.Config.Brokers[0]), 0o600))
	args := []string{"fsck", "--config", config, "--policy", policy}

	code, _, errs := run(t, args...)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "stop the node first")
	require.NoError(t, n.Close(t.Context()))

	code, out, errs := run(t, args...)
	require.Equal(t, cli.ExitOK, code, errs)
	require.Regexp(t, `^sound: \d+ commits, \d+ blocks, \d+ records of topics checked\n$`, out)

	signed := filepath.Join(w.Config.DataDir+"-signed", "last-signed")
	raw, err := os.ReadFile(signed)
	require.NoError(t, err)
	raw[len(raw)-5] ^= 1
	require.NoError(t, os.WriteFile(signed, raw, 0o600))
	code, out, _ = run(t, args...)
	require.Equal(t, cli.ExitProofFailed, code)
	require.Contains(t, out, "FAULT last-signed last-signed: ")
	code, out, _ = run(t, append(args, "-o", "json", "--offline")...)
	require.Equal(t, cli.ExitProofFailed, code)
	var report fsck.Report
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Len(t, report.Faults, 1)
	require.Equal(t, "last-signed", report.Faults[0].Part)
	require.Len(t, report.Notices, 1, "the topics were left out")

	code, _, errs = run(t, "fsck", t.TempDir())
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "no ledger node's data directory")
	code, _, _ = run(t, "fsck")
	require.Equal(t, cli.ExitUsage, code)
}
