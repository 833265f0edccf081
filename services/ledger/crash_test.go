package ledger_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// childVariable makes the test binary a node that appends until it's killed.
const childVariable = "PROBITY_LEDGER_CHILD"

type child struct {
	Brokers []string
	DataDir string
	KeyFile string
	Life    int
	// Node makes it a node of a cluster that serves others, if not empty.
	Node string
}

func (c child) config() ledger.Config {
	return ledger.Config{
		Origin: ledgertest.Origin, Brokers: c.Brokers, TopicPrefix: "test", DataDir: c.DataDir, SigningKeyFile: c.KeyFile,
		BlockInterval: 5 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(childVariable); raw != "" {
		if err := childMain(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// childMain appends from several callers and prints "<caller> <index>" after
// each acknowledgement.
func childMain(raw string) error {
	var c child
	if err := json.Unmarshal([]byte(raw), &c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c.Node != "" {
		return clusterMain(ctx, c)
	}
	n, err := ledger.Open(ctx, c.config())
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg errgroup.Group
	for caller := range 8 {
		wg.Go(func() error {
			for i := int64(-1); ; i++ {
				res, err := n.Handler().Append(ctx, claim(1000*c.Life+caller, i))
				if err != nil {
					return err
				}
				mu.Lock()
				fmt.Println(1000*c.Life+caller, i, res.Position.Shard, res.Position.Index)
				mu.Unlock()
			}
		})
	}
	return wg.Wait()
}

// Given a node that is killed again and again while it appends and seals,
// then nothing acknowledged is lost, repeated or moved, and everything gets a
// receipt.
func TestAKilledNodeLosesNothingItAcknowledged(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	type acked struct {
		caller   int
		expected int64
		shard    uint32
		index    uint64
	}
	var all []acked
	for life := range 3 {
		raw, err := json.Marshal(child{Brokers: w.Config.Brokers, DataDir: w.Config.DataDir, KeyFile: w.Config.SigningKeyFile, Life: life})
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^$")
		cmd.Env = append(os.Environ(), childVariable+"="+string(raw))
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var a acked
			if _, err := fmt.Sscan(lines.Text(), &a.caller, &a.expected, &a.shard, &a.index); err != nil {
				break // cut by the kill
			}
			all = append(all, a)
			if n == 150+life*77 {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		require.Error(t, cmd.Wait(), "it was killed")
	}
	require.Greater(t, len(all), 450)

	w.Config.Logs = nil
	n := w.Open(t, w.Config)
	policy, err := receipt.NewPolicy(ledgertest.Origin, 1, n.VerifierKey())
	require.NoError(t, err)
	for i, a := range all {
		res, err := n.Handler().Append(within(t), claim(a.caller, a.expected))
		require.NoError(t, err)
		require.True(t, res.Replayed, "append %d of caller %d was acknowledged and is gone", a.expected, a.caller)
		require.Equal(t, a.index, res.Position.Index)
		require.Equal(t, a.shard, res.Position.Shard)
		if i%20 == 0 {
			got, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
			require.NoError(t, err)
			_, err = receipt.Verify(got.Receipt, policy)
			require.NoError(t, err)
		}
	}
}
