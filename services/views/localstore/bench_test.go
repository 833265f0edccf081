package localstore

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/views"
)

// BenchmarkClaims applies claims as the claims view has them: two parts of a
// row, a dozen indexes. It reports what a claim takes of time and, once it is
// in, of memory.
func BenchmarkClaims(b *testing.B) {
	s := open(b, b.TempDir())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	applyClaims(b, s, b.N)
	b.StopTimer()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "live-B/claim")
	runtime.KeepAlive(s)
}

// BenchmarkOpen is a start on the files of 20,000 claims.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	begin(b, s)
	applyClaims(b, s, 20_000)
	require.NoError(b, s.Close())
	b.ResetTimer()
	for range b.N {
		s, err := Open(dir, nil)
		require.NoError(b, err)
		require.NoError(b, s.Close())
	}
}

// applyClaims times the store only.
func applyClaims(b *testing.B, s *Store, n int) {
	received, decided := strings.Repeat("r", 150), strings.Repeat("d", 190)
	claim := func(i int) []views.Op {
		id := fmt.Sprintf("clm_%04x_%022d", i*7919%65536, i*104729)
		at := int64(1_790_000_000_000 + i/5)
		ops := []views.Op{
			views.HSet("row:claims", id+".r", received),
			views.ZAdd("claims:all", at, id), views.ZAdd("claims:org:lakeside", at, id), views.ZAdd("claims:payer:acme", at, id),
			views.ZAdd("claims:file:f1", int64(i/8*8+i*5%8), id),
			views.HSet("row:claims", id+".d", decided),
			views.HSet(fmt.Sprintf("providerday:%032d", i/3), id, "30"),
			views.ZAdd("unremitted:payer:acme", at, id),
		}
		for _, ref := range []string{"plan", "contract", "fees", "network"} {
			ops = append(ops, views.ZAdd("read:"+ref, at, id))
		}
		return ops
	}
	const batch = 150
	for i := 0; i < n; {
		b.StopTimer()
		in := views.Batch{Build: one, From: uint64(i), Next: uint64(min(i+batch, n))}
		for ; i < int(in.Next); i++ {
			in.Changes = append(in.Changes, views.Change{Index: uint64(i), Ops: claim(i)})
		}
		b.StartTimer()
		done, err := s.Apply(ctx, in)
		require.NoError(b, err)
		require.Equal(b, views.Done, done.Verdict)
	}
}
