package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/probity-health/probity/e2e/process"
	"github.com/probity-health/probity/e2e/reconcile"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/generate"
)

// warmClaims are decided by RPC before anything is measured.
const warmClaims = 100

// claims measures what `make bench-claims` reports: the engine on one claim,
// claims by RPC at a steady rate, and one file of realistic claims, of which
// every cent is held against the naive model and every remittance against
// pyx12, where PROBITY_PYX12 names a python that has it.
func (b *bench) claims(ctx context.Context, round int) (err error) {
	if err := b.claim4(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "probity-bench-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	address, err := process.FreeAddress(ctx)
	if err != nil {
		return err
	}
	profile := ""
	if b.Profile != "" {
		profile = filepath.Join(b.Profile, fmt.Sprintf("claims-%d.pprof", round+1))
	}
	s, err := startStack(ctx, dir, address, profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := b.claimsByRPC(ctx, s, round); err != nil {
		return err
	}
	return b.claimsByFile(ctx, s, dir, round)
}

// claim4 is the engine alone on a claim of four lines, on one core.
func (b *bench) claim4() error {
	in, err := fourLines()
	if err != nil {
		return err
	}
	if d := adjudication.Adjudicate(in); d.Status != adjudication.Paid || len(d.Lines) != 4 || d.Paid == 0 {
		return fmt.Errorf("bench: the engine's claim is %s, not paid", d.Status)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := testing.Benchmark(func(t *testing.B) {
		t.ReportAllocs()
		for range t.N {
			adjudication.Adjudicate(in)
		}
	})
	b.report.Add("engine.claim4.us", float64(r.T.Nanoseconds())/float64(r.N)/1000, "µs", Lower)
	b.report.Add("engine.claim4.allocs", float64(r.AllocsPerOp()), "allocations", Lower)
	return nil
}

func (b *bench) claimsByRPC(ctx context.Context, s *stack, round int) error {
	n := b.Rate * int(b.Each.Seconds())
	world, err := generate.New(generate.Options{Seed: 1000 + uint64(round), Claims: (n + warmClaims) * 5 / 4, AsOf: time.Now().UTC(), Control: 2})
	if err != nil {
		return err
	}
	if err := world.Publish(ctx, generate.Payer{Policies: s.clients.Policies, Edits: s.clients.Edits}, nil); err != nil {
		return err
	}
	claims, err := professional(world)
	if err != nil {
		return err
	}
	b.say(round, "claims: %d by RPC, %d a second", n, b.Rate)
	for _, c := range claims[:warmClaims] {
		if err := decide(ctx, s.clients.Claims, c); err != nil {
			return err
		}
	}
	took, err := steady(ctx, s.clients.Claims, claims[warmClaims:], b.Rate, b.Each)
	if err != nil {
		return err
	}
	b.report.Add("rpc.p50_ms", took.at(0.50), "ms", Lower)
	b.report.Add("rpc.p99_ms", took.at(0.99), "ms", Lower)
	return nil
}

// professional are a world's professional claims that can be adjudicated, to
// be sent one by one.
func professional(world *generate.World) ([]*claimsv1.SubmitClaimRequest, error) {
	var file bytes.Buffer
	out := world.NewWriter(&file, "P")
	for f := range world.Families() {
		for i := range f.Professional {
			if err := out.Claim(&f.Professional[i]); err != nil {
				return nil, err
			}
		}
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	parsed, err := x12.ParseFile(bytes.NewReader(file.Bytes()), x12.Limits{})
	if err != nil {
		return nil, err
	}
	var claims []*claimsv1.SubmitClaimRequest
	for c, err := range parsed.Claims(bytes.NewReader(file.Bytes()), 0, parsed.ClaimCount) {
		if err != nil {
			return nil, err
		}
		if len(c.Problems) == 0 {
			claims = append(claims, &claimsv1.SubmitClaimRequest{RequestId: "rpc-" + c.Claim.GetPatientControlNumber(), Claim: c.Claim})
		}
	}
	return claims, nil
}

func (b *bench) claimsByFile(ctx context.Context, s *stack, dir string, round int) error {
	world, err := generate.New(generate.Options{Seed: 1 + uint64(round), Claims: b.FileClaims, AsOf: time.Now().UTC()})
	if err != nil {
		return err
	}
	remittances := filepath.Join(dir, "835")
	if err := os.Mkdir(remittances, 0o700); err != nil {
		return err
	}
	run := &reconcile.Run{World: world, Clients: s.clients, Service: s.service, Progress: b.Progress, Remittance: func(id string, document []byte) error {
		return os.WriteFile(filepath.Join(remittances, id+".835"), document, 0o600)
	}}
	if err := run.Prepare(ctx); err != nil {
		return err
	}
	before, err := s.process.CPU()
	if err != nil {
		return err
	}
	var sealed time.Duration
	run.Sealed = func() (err error) {
		sealed, err = s.process.CPU()
		return errors.Join(err, s.slice())
	}
	if err := s.slice(); err != nil {
		return err
	}
	got, err := run.Files(ctx)
	if err != nil {
		return err
	}
	after, err := s.process.CPU()
	if err != nil {
		return err
	}
	count := float64(run.Professional())
	b.report.Add("file.claims", count, "claims", Higher)
	b.report.Add("file.claims_per_s", count/got.Sealed.Seconds(), "claims/s", Higher)
	b.report.Add("file.decided_per_s", count/got.Decided.Seconds(), "claims/s", Higher)
	b.report.Add("file.complete_per_s", count/got.Complete.Seconds(), "claims/s", Higher)
	b.report.Add("file.durable_ms", got.Durable.Seconds()*1000, "ms", Lower)
	b.report.Add("file.sealed_cpu_us_a_claim", (sealed-before).Seconds()*1e6/count, "µs", Lower)
	b.report.Add("file.cpu_us_a_claim", (after-before).Seconds()*1e6/float64(got.Claims), "µs", Lower)
	if err := b.memory("file.peak_rss_mib", s.process.PeakRSSMiB); err != nil {
		return err
	}
	b.report.Add("auto_decided_rate", got.AutoDecided(), "share", Higher)
	b.report.Add("naive_model.cents_difference", float64(got.Cents), "cents", Lower)
	b.report.Add("naive_model.lines_for_other_reasons", float64(got.Reasons), "lines", Lower)
	b.report.Add("remittances.balanced", float64(got.Remittances), "documents", Higher)
	adjusted, err := run.Adjust(ctx)
	if err != nil {
		return err
	}
	b.report.Add("adjusted.claims", float64(adjusted.Claims), "claims", Higher)
	b.report.Add("adjusted.cents_difference", float64(adjusted.Cents), "cents", Lower)
	b.report.Add("adjusted.lines_for_other_reasons", float64(adjusted.Reasons), "lines", Lower)
	for _, text := range adjusted.Told {
		b.say(round, "differs when adjusted: %s", text)
	}
	began := time.Now()
	replayed, err := run.Replay(ctx)
	if err != nil {
		return err
	}
	b.report.Add("replay.decisions_per_s", float64(replayed)/time.Since(began).Seconds(), "decisions/s", Higher)
	for _, text := range got.Told {
		b.say(round, "differs: %s", text)
	}
	return b.pyx12(ctx, remittances, round)
}

// pyx12 has an independent validator read every remittance.
func (b *bench) pyx12(ctx context.Context, dir string, round int) error {
	python := os.Getenv("PROBITY_PYX12")
	if python == "" {
		b.say(round, "claims: PROBITY_PYX12 names no python with pyx12; the remittances are not validated")
		return nil
	}
	b.say(round, "claims: validating the remittances with pyx12")
	cmd := exec.CommandContext(ctx, python, "e2e/conformance/validate.py", dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("bench: pyx12: %w", err)
	}
	var verdicts map[string]struct {
		OK     bool     `json:"ok"`
		Errors []string `json:"errors"`
	}
	if err := json.Unmarshal(out, &verdicts); err != nil {
		return fmt.Errorf("bench: pyx12: %w", err)
	}
	refused := 0
	for name, v := range verdicts {
		if !v.OK {
			if refused++; refused <= 5 {
				b.say(round, "pyx12 refuses %s: %v", name, v.Errors)
			}
		}
	}
	b.report.Add("remittances.pyx12_accepted", float64(len(verdicts)-refused), "documents", Higher)
	b.report.Add("remittances.pyx12_refused", float64(refused), "documents", Lower)
	return nil
}
