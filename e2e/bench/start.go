package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/probity-health/probity/e2e/claimgen"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

// idle is how long a stack is left alone before its memory is read.
const idle = 2 * time.Second

// firstStart measures a stack from exec on an empty directory: the first
// answer, memory at rest, claims by RPC, the file.
func (b *bench) firstStart(ctx context.Context, round int, dir, address, profile string, world *claimgen.World,
	first *claimsv1.SubmitClaimRequest, rest []*claimsv1.SubmitClaimRequest, steadyClaims int,
) (err error) {
	began := time.Now()
	s, err := startStack(ctx, dir, address, profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.load(ctx); err != nil {
		return err
	}
	// Nobody of the generated families is enrolled yet: the claim is answered
	// with PR-31, by the plan that was just published.
	if err := decide(ctx, s.clients.Claims, first); err != nil {
		return err
	}
	b.report.Add("first start, exec to an answered claim", time.Since(began).Seconds(), "s", Lower)
	<-time.After(idle)
	if err := b.memory("memory at rest", s.process.RSSMiB); err != nil {
		return err
	}

	b.say(round, "stack: enrolling %d families", b.Families)
	began = time.Now()
	if err := s.enrol(ctx, world); err != nil {
		return err
	}
	b.report.Add("members enrolled", float64(len(world.Enrollments()))/time.Since(began).Seconds(), "members/s", Higher)
	if err := s.awaitPlans(ctx, rest[0]); err != nil {
		return err
	}
	warm, alone, together := rest[:100], rest[100:len(rest)-steadyClaims], rest[len(rest)-steadyClaims:]
	for _, c := range warm {
		if err := decide(ctx, s.clients.Claims, c); err != nil {
			return err
		}
	}
	b.say(round, "stack: claims by RPC")
	took, err := oneCaller(ctx, s.clients.Claims, alone, b.Each)
	if err != nil {
		return err
	}
	b.latency("SubmitClaim, 1 caller", took)
	if took, err = steady(ctx, s.clients.Claims, together, b.Rate, b.Each); err != nil {
		return err
	}
	b.latency(fmt.Sprintf("SubmitClaim, %d a second", b.Rate), took)

	b.say(round, "stack: a file of %d claims", b.FileClaims)
	return b.file(ctx, s, world.File(3, b.FileClaims, 2, fileMonths))
}

func (b *bench) file(ctx context.Context, s *stack, file []byte) error {
	before, err := s.process.CPU()
	if err != nil {
		return err
	}
	reached, err := s.adjudicateFile(ctx, file, b.FileClaims)
	if err != nil {
		return err
	}
	after, err := s.process.CPU()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("file of %d claims, ", b.FileClaims)
	b.report.Add(name+"submit to complete", float64(b.FileClaims)/reached.complete.Seconds(), "claims/s", Higher)
	b.report.Add(name+"submit to decided", float64(b.FileClaims)/reached.decided.Seconds(), "claims/s", Higher)
	b.report.Add(name+"submit to durable", reached.durable.Seconds()*1000, "ms", Lower)
	b.report.Add(name+"CPU a claim", (after-before).Seconds()*1e6/float64(b.FileClaims), "µs", Lower)
	return b.memory(name+"peak memory", s.process.PeakRSSMiB)
}

func (b *bench) latency(name string, took latencies) {
	b.report.Add(name+", p50", took.at(0.50), "ms", Lower)
	b.report.Add(name+", p99", took.at(0.99), "ms", Lower)
}

func (b *bench) memory(name string, read func() (float64, error)) error {
	mib, err := read()
	if err == nil {
		b.report.Add(name, mib, "MiB", Lower)
	}
	return err
}
