package replica

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
)

// memory is a topic in memory, handed out as large as a broker's answers.
type memory [][]byte

func (m memory) Fetch(_ context.Context, offset int64) (Fetched, error) {
	out := Fetched{End: int64(len(m))}
	for size := 0; offset < out.End && size < fetchBytes; offset++ {
		out.Records = append(out.Records, Record{Offset: offset, Value: m[offset]})
		size += len(m[offset])
	}
	return out, nil
}

// BenchmarkReplay is what a replica does with an event of 1 KiB, alone in its
// commit and its stream, once it came from the broker: ns/op is a commit's.
// Run it with GOMAXPROCS=1 and -benchtime 200000x or so.
func BenchmarkReplay(b *testing.B) {
	noise := make([]byte, 1<<10)
	if _, err := rand.NewChaCha8([32]byte{}).Read(noise); err != nil {
		b.Fatal(err)
	}
	barrier, err := core.Barrier("claims", 0, 1, 0, "o", time.Unix(1, 0))
	require.NoError(b, err)
	topic, empty := memory{barrier}, core.NewSnapshot("claims", 0)
	for i := range b.N {
		id := fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15)
		d, err := core.Decide(core.Head{Log: "claims", Next: uint64(i), Term: 1}, empty, &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: id, RequestId: id,
			Writes: []*ledgerv1.StreamWrite{{Stream: "claim-" + id, ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "bench.Event", Payload: noise}}}},
		}, core.Provenance{Recorded: time.Unix(1, 0)})
		require.NoError(b, err)
		topic = append(topic, d.Value)
	}
	dir, logger := b.TempDir(), slog.New(slog.DiscardHandler)
	store, err := OpenStore(filepath.Join(dir, "store"), logger)
	require.NoError(b, err)
	s, err := OpenShard(ShardConfig{Log: "claims", Store: store, Dir: filepath.Join(dir, "tiles"), Source: topic, Logger: logger})
	require.NoError(b, err)
	b.SetBytes(int64(len(topic[1])))
	b.ReportAllocs()
	b.ResetTimer()
	user, system := processor()
	for s.Head().Next < uint64(b.N) {
		require.NoError(b, s.Step(b.Context(), time.Now()))
	}
	b.StopTimer()
	require.NoError(b, store.Close())
	userAfter, systemAfter := processor()
	b.ReportMetric(float64(userAfter-user)/float64(b.N)/1000, "user-µs/op")
	b.ReportMetric(float64(systemAfter-system)/float64(b.N)/1000, "system-µs/op")
}

// processor returns the processor time this process has used, in nanoseconds,
// itself and in the kernel: under load by others it says more than the time.
func processor() (user, system int64) {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano(), u.Stime.Nano()
}
