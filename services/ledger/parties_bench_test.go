package ledger_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// BenchmarkParties is an event of 1 KiB through a ledger of four parties in
// one process, whose brokers sync every batch: until it is accepted, and until
// three parties have cosigned it. CALLERS callers wait for their answer each;
// 0 is 512. cpu-µs/op is the whole process's, which other work on the machine
// moves less than the time.
func BenchmarkParties(b *testing.B) {
	callers, _ := strconv.Atoi(os.Getenv("CALLERS"))
	callers = cmp.Or(callers, 512)
	for _, final := range []bool{false, true} {
		name := map[bool]string{false: "accepted", true: "final"}[final]
		b.Run(name, func(b *testing.B) { benchmarkParties(b, callers, final) })
	}
}

func benchmarkParties(b *testing.B, callers int, final bool) {
	dir := b.TempDir()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(filepath.Join(dir, "broker")), kfake.SyncWrites())
	require.NoError(b, err)
	b.Cleanup(broker.Close)
	terms := &receipt.Terms{Origin: ledgertest.Origin, Sequence: 1, Activation: 1, Quorum: 3, Logs: []receipt.LogShards{{Log: "claims", Shards: 1}}}
	parties := []string{"insurer.example", "network.example", "regulator.example", "auditor.example"}
	nodes := make([]atomic.Pointer[ledger.Node], len(parties))
	configs := make([]ledger.Config, len(parties))
	for i, party := range parties {
		configs[i] = ledger.Config{
			Origin: ledgertest.Origin, Brokers: broker.ListenAddrs(), TopicPrefix: "four", NodeName: party, Logs: map[string]int{"claims": 1},
			DataDir: filepath.Join(dir, party), SigningKeyFile: filepath.Join(dir, party+".key"), PolicyFile: filepath.Join(dir, "policy.txt"),
			BlockInterval: 5 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), Peers: map[string]ledger.Peer{},
		}
		vkey, err := ledger.EnsureKey(configs[i].SigningKeyFile, party)
		require.NoError(b, err)
		key, err := receipt.ParsePublicKey(vkey)
		require.NoError(b, err)
		terms.Members = append(terms.Members, receipt.Member{Role: receipt.Cosigner, Key: key})
		for j, other := range parties {
			if j != i {
				configs[i].Peers[other] = call{&nodes[j]}
			}
		}
	}
	policy, err := receipt.FirstPolicy(terms)
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(configs[0].PolicyFile, policy.Marshal(), 0o600))
	for i := len(parties) - 1; i >= 0; i-- { // the last to start owns the shards
		n, err := ledger.Open(b.Context(), configs[i])
		require.NoError(b, err)
		nodes[i].Store(n)
		b.Cleanup(func() { _ = n.Close(context.WithoutCancel(b.Context())) })
		for n.Ready(b.Context()) != nil {
			time.Sleep(time.Millisecond)
		}
	}
	noise := make([]byte, 1<<20)
	_, err = rand.NewChaCha8([32]byte{}).Read(noise)
	require.NoError(b, err)
	h := nodes[0].Load().Handler()
	var serial atomic.Int64
	took := make([][]time.Duration, callers)
	var wg sync.WaitGroup
	b.ResetTimer()
	before := processor()
	for c := range callers {
		wg.Go(func() {
			for n := serial.Add(1); n <= int64(b.N); n = serial.Add(1) {
				id := fmt.Sprintf("%016x", uint64(n)*0x9e3779b97f4a7c15)
				at, start := n*1021%(1<<20-1024), time.Now()
				res, err := h.Append(b.Context(), &ledgerv1.AppendRequest{
					Log: "claims", RoutingKey: id, RequestId: id,
					Writes: []*ledgerv1.StreamWrite{{Stream: "claim-" + id, ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "bench.Event", Payload: noise[at : at+1024]}}}},
				})
				if err == nil && final {
					_, err = h.GetReceipt(b.Context(), &ledgerv1.GetReceiptRequest{Position: res.Position, MinStage: ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL})
				}
				if err != nil {
					b.Error(err)
					return
				}
				took[c] = append(took[c], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	b.ReportMetric(float64((processor()-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	cp, err := h.GetCheckpoint(b.Context(), &ledgerv1.GetCheckpointRequest{})
	require.NoError(b, err)
	c, err := receipt.UnverifiedCheckpoint(cp.Checkpoint)
	require.NoError(b, err)
	b.ReportMetric(float64(c.Size), "blocks")
}

// processor returns the processor time this process has used.
func processor() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// call is a peer in the same process.
type call struct{ to *atomic.Pointer[ledger.Node] }

func (c call) replicas() (ledger.Peer, error) {
	if n := c.to.Load(); n != nil {
		return n.Replicas(), nil
	}
	return nil, absent
}

func (c call) ExchangeCosignatures(ctx context.Context, r *ledgerv1.ExchangeCosignaturesRequest) (*ledgerv1.ExchangeCosignaturesResponse, error) {
	p, err := c.replicas()
	if err != nil {
		return nil, err
	}
	return p.ExchangeCosignatures(ctx, r)
}

func (c call) GetCommits(ctx context.Context, r *ledgerv1.GetCommitsRequest) (*ledgerv1.GetCommitsResponse, error) {
	p, err := c.replicas()
	if err != nil {
		return nil, err
	}
	return p.GetCommits(ctx, r)
}

func (c call) GetRows(ctx context.Context, r *ledgerv1.GetRowsRequest) (*ledgerv1.GetRowsResponse, error) {
	p, err := c.replicas()
	if err != nil {
		return nil, err
	}
	return p.GetRows(ctx, r)
}

func (c call) RepublishShard(context.Context, *ledgerv1.RepublishShardRequest) (*ledgerv1.RepublishShardResponse, error) {
	return nil, absent
}
