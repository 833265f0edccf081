package peers

import (
	"strings"
	"testing"
	"time"
)

// Given a moment for each, then every system takes part and every ratio is
// made; what they come to is the benchmark's business.
func TestTheBenchMeasuresEverySystem(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short; it starts eight systems")
	}
	report, err := Run(t.Context(), Options{Rounds: 1, Round: 50 * time.Millisecond, Callers: []int{4}, WithoutPostgres: postgresBin() == ""})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range report {
		names[f.Name] = true
		if f.Value <= 0 {
			t.Errorf("%s: %v", f.Name, f.Value)
		}
	}
	for _, name := range []string{inProcess, overLoopback, fourAccepted, fourFinal, rawBatches, tesseraNamed, tesseraPublic, jetStreamName, etcdName} {
		if !names[name+", 4 callers"] {
			t.Errorf("%s did not take part", name)
		}
	}
	for _, name := range []string{
		"append.c4.p50_vs_raw", "append.c4.vs_raw", "append.c4.vs_tessera", "append_rpc.c4.vs_jetstream", "append_rpc.c4.vs_etcd",
		"final.c4.vs_tessera_published", "final.c4.p99_ms", "replay.events_per_s", "receipt.bytes", "receipt.verify_us", "disk.bytes_per_event",
	} {
		if !names[name] {
			t.Errorf("%s is missing", name)
		}
	}
	ratios := 0
	for name := range names {
		if strings.Contains(name, " / ") {
			ratios++
		}
	}
	if ratios < 5 {
		t.Errorf("%d ratios", ratios)
	}
}
