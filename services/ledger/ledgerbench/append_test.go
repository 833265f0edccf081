package ledgerbench_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/server"
)

// BenchmarkAppend appends events of 1 KiB from 1, 64 and 512 callers: to the
// broker alone, through a node in this process, and through one over loopback
// with the client that services use. Besides the rate it reports what one
// append costs the processor, broker and callers included: noise moves that
// least. Profile it with -cpuprofile, one sub-benchmark at a time.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64, 512} {
		for _, s := range []struct {
			name string
			open func(testing.TB) func(context.Context) error
		}{{"raw", openRaw}, {"node", openNode}, {"loopback", openLoopback}} {
			b.Run(fmt.Sprintf("%s/%d", s.name, callers), func(b *testing.B) {
				call := s.open(b)
				run(b, callers, call)
			})
		}
	}
}

func run(b *testing.B, callers int, call func(context.Context) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, callers)
	var before, after syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	var m0, m1 runtime.MemStats
	runtime.ReadMemStats(&m0)
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				start := time.Now()
				if err := call(b.Context()); err != nil {
					b.Error(err)
					return
				}
				took[c] = append(took[c], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	runtime.ReadMemStats(&m1)
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	all := slices.Concat(took...)
	slices.Sort(all)
	user, sys := after.Utime.Nano()-before.Utime.Nano(), after.Stime.Nano()-before.Stime.Nano()
	n := float64(b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "appends/s")
	b.ReportMetric(float64(user+sys)/n/1000, "cpu-µs/op")
	b.ReportMetric(float64(sys)/n/1000, "sys-µs/op")
	b.ReportMetric(float64(m1.Mallocs-m0.Mallocs)/n, "mallocs/op")
	b.ReportMetric(float64(m1.TotalAlloc-m0.TotalAlloc)/n, "heap-B/op")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(0, "ns/op")
}

const (
	benchOrigin = "bench.probity.test/ledger"
	benchRaw    = "bench-raw"
)

func openBroker(t testing.TB) *kfake.Cluster {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(filepath.Join(t.TempDir(), "broker")), kfake.SyncWrites(), kfake.SeedTopics(1, benchRaw))
	require.NoError(t, err)
	t.Cleanup(broker.Close)
	return broker
}

func open(t testing.TB) *ledger.Node {
	broker := openBroker(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	_, err := ledger.EnsureKey(key, benchOrigin)
	require.NoError(t, err)
	n, err := ledger.Open(t.Context(), ledger.Config{
		Origin: benchOrigin, Brokers: broker.ListenAddrs(), TopicPrefix: "bench", Logs: map[string]int{"claims": 1},
		DataDir: filepath.Join(dir, "data"), SigningKeyFile: key, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close(context.Background())) })
	require.Eventually(t, func() bool { return n.Ready(t.Context()) == nil }, 30*time.Second, time.Millisecond)
	return n
}

func openNode(t testing.TB) func(context.Context) error {
	h := open(t).Handler()
	payload := make([]byte, 1<<10)
	var serial atomic.Uint64
	return func(ctx context.Context) error {
		id := fmt.Sprintf("%016x", serial.Add(1)*0x9e3779b97f4a7c15)
		_, err := h.Append(ctx, &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: id, RequestId: id,
			Writes: []*ledgerv1.StreamWrite{{Stream: "claim-" + id, ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "bench.Event", Payload: payload}}}},
		})
		return err
	}
}

func openLoopback(t testing.TB) func(context.Context) error {
	mux := http.NewServeMux()
	mux.Handle(ledgerv1connect.NewLedgerServiceHandler(open(t).Handler()))
	srv := httptest.NewUnstartedServer(mux)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv.Config.Protocols = protocols
	srv.Start()
	t.Cleanup(srv.Close)
	client, err := server.NewClient(server.ClientConfig{}, server.ClientDeps{})
	require.NoError(t, err)
	t.Cleanup(client.CloseIdle)
	store := eventstore.NewRemote(ledgerv1connect.NewLedgerServiceClient(client, srv.URL, client.Options()...), eventstore.RemoteOptions{})
	text := strings.Repeat("0123456789abcdef", 64)
	var serial atomic.Uint64
	return func(ctx context.Context) error {
		id := fmt.Sprintf("%016x", serial.Add(1)*0x9e3779b97f4a7c15)
		_, err := store.Append(ctx, eventstore.Commit{
			Log: "claims", RoutingKey: id, RequestID: id, Actor: "bench",
			Writes: []eventstore.Write{{Stream: "claim-" + id, Expected: eventstore.NoStream, Events: []proto.Message{&eventsv1.SubjectKeyDestroyed{Reason: text}}}},
		})
		return err
	}
}

func openRaw(t testing.TB) func(context.Context) error {
	client := &kafka.Client{Addr: kafka.TCP(openBroker(t).ListenAddrs()...), Transport: &kafka.Transport{}}
	payload := make([]byte, 1<<10)
	queue, stop := make(chan chan error, 4096), make(chan struct{})
	var wg sync.WaitGroup
	t.Cleanup(func() { close(stop); wg.Wait() })
	wg.Go(func() {
		for {
			var batch []chan error
			select {
			case it := <-queue:
				batch = append(batch, it)
			case <-stop:
				return
			}
			for more := true; more && len(batch) < 800; {
				select {
				case it := <-queue:
					batch = append(batch, it)
				default:
					more = false
				}
			}
			records := make([]kafka.Record, len(batch))
			for i := range records {
				records[i].Value = kafka.NewBytes(payload)
			}
			res, err := client.Produce(context.Background(), &kafka.ProduceRequest{Topic: benchRaw, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...)})
			if err == nil {
				err = res.Error
			}
			for _, it := range batch {
				it <- err
			}
		}
	})
	return func(context.Context) error {
		done := make(chan error, 1)
		queue <- done
		return <-done
	}
}
