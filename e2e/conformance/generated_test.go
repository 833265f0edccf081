//go:build conformance

package conformance

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/probity-health/probity/e2e/process"
	"github.com/probity-health/probity/e2e/reconcile"
	"github.com/probity-health/probity/services/generate"
	"github.com/probity-health/probity/standalone"
)

func TestMain(m *testing.M) {
	process.Main(m, map[string]process.Program{"standalone": standalone.Main})
}

// The files that the generator writes and the remittances that a stack makes
// of them are valid to pyx12. Claims that are meant to be refused (a wrong
// check digit) break no rule that pyx12 knows.
func TestGeneratedFilesAndTheirRemittancesAreAccepted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	home, address := t.TempDir(), process.Address(t)
	p := process.Start(t, "standalone", []string{"XDG_CONFIG_HOME=" + filepath.Join(home, "config"), "TMPDIR=" + home},
		"--data-dir", filepath.Join(home, "data"), "--listen", address)
	if err := p.AwaitReady(ctx, "http://"+address+"/readyz"); err != nil {
		t.Fatal(err)
	}
	clients, err := standalone.Dial("http://"+address, filepath.Join(home, "data"), "developer")
	if err != nil {
		t.Fatal(err)
	}
	world, err := generate.New(generate.Options{Seed: 21, Claims: 1000, AsOf: time.Now().UTC()})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	run := &reconcile.Run{World: world, Clients: clients, Remittance: func(id string, document []byte) error {
		files[id+".835"] = document
		return nil
	}}
	if err := run.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	files["professional.837"], files["institutional.837"] = run.Interchanges()
	got, err := run.Files(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got.Cents != 0 || got.Remittances == 0 {
		t.Fatalf("%d remittances, %d cents otherwise than the naive model: %v", got.Remittances, got.Cents, got.Told)
	}
	for name, v := range oracle(t, files) {
		if !v.OK {
			t.Errorf("pyx12 refuses %s: %v", name, v.Errors)
		}
	}
}
