package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"
	"time"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"

	"github.com/probity-health/probity/e2e/claimgen"
	"github.com/probity-health/probity/e2e/process"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
)

// role is the stack's, in a process of its own.
const role = "standalone"

// profileVariable is the path of the stack's profiles, to which each adds its suffix.
const profileVariable = "PROBITY_BENCH_CPU_PROFILE"

// Programs are what a command that calls Run must be able to become.
func Programs() map[string]process.Program {
	return map[string]process.Program{role: profiled}
}

// profileSlice is how long one CPU profile lasts at most. A run has phases that
// cost in different places; slices keep them apart, and pprof merges what it is
// given. endSlice ends one where a phase does.
const (
	profileSlice = 15 * time.Second
	endSlice     = syscall.SIGUSR1
)

// profiled is the standalone command, its CPU profile written in slices
// (path.00, path.01 ...), each with the heap at its end (path.00.heap ...).
func profiled(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	path := os.Getenv(profileVariable)
	if path == "" {
		return standalone.Main(ctx, args, stdout, stderr)
	}
	sliced, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- profileInSlices(sliced, path) }()
	code := standalone.Main(ctx, args, stdout, stderr)
	stop()
	if err := <-done; err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return code
}

func profileInSlices(ctx context.Context, path string) error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, endSlice)
	defer signal.Stop(ended)
	for n := 0; ctx.Err() == nil; n++ {
		f, err := os.Create(fmt.Sprintf("%s.%02d", path, n))
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
		case <-ended:
		case <-time.After(profileSlice):
		}
		pprof.StopCPUProfile()
		if err := errors.Join(f.Close(), writeHeap(f.Name()+".heap")); err != nil {
			return err
		}
	}
	return nil
}

func writeHeap(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}

// stack is a running one and what it is asked by.
type stack struct {
	process *process.Process
	clients standalone.Clients
	service standalone.Clients // as a service

	profiled bool // it takes endSlice
}

// startStack starts a stack on a data directory and returns when it is ready.
func startStack(ctx context.Context, dir, address, profile string) (*stack, error) {
	env := []string{"XDG_CONFIG_HOME=" + filepath.Join(dir, "config")}
	if profile != "" {
		env = append(env, profileVariable+"="+profile)
	}
	data := filepath.Join(dir, "data")
	p, err := process.Launch(dir, role, env, "--data-dir", data, "--listen", address)
	if err != nil {
		return nil, err
	}
	s := &stack{process: p, profiled: profile != ""}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	url := "http://" + address
	if err := p.AwaitReady(ctx, url+"/readyz"); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	if s.service, err = standalone.Dial(url, data, "service"); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	if s.clients, err = standalone.Dial(url, data, "developer"); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// stop drains the stack; one that doesn't drain in time is killed and an error.
func (s *stack) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.process.Stop(ctx)
}

// slice begins a new slice of the stack's profiles, where it takes any.
func (s *stack) slice() error {
	if !s.profiled {
		return nil
	}
	return syscall.Kill(s.process.PID(), endSlice)
}

// load publishes the sample payer's documents.
func (s *stack) load(ctx context.Context) error {
	_, err := sample.Load(ctx, s.clients.Policies)
	return err
}

// awaitPlans returns when a claim would be decided by a plan: the claims
// service follows the log that carries it.
func (s *stack) awaitPlans(ctx context.Context, claim *claimsv1.SubmitClaimRequest) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	look := &claimsv1.SubmitClaimRequest{RequestId: "look", Claim: claim.GetClaim(), ValidateOnly: true}
	for {
		res, err := s.clients.Claims.SubmitClaim(ctx, look)
		if err != nil {
			return err
		}
		if res.GetDecision().GetPaidCents()+res.GetDecision().GetPatientCents() > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bench: a generated claim finds no plan: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *stack) enrol(ctx context.Context, world *claimgen.World) error {
	all := world.Enrollments()
	for first := 0; first < len(all); first += 500 {
		res, err := s.clients.Policies.EnrollMembers(ctx, &policiesv1.EnrollMembersRequest{
			RequestId: fmt.Sprintf("bench-%d", first), Enrollments: all[first:min(first+500, len(all))],
		})
		if err != nil {
			return err
		}
		for _, r := range res.GetResults() {
			if len(r.GetProblems()) > 0 {
				return fmt.Errorf("bench: enrolment refused: %s", r.GetProblems()[0].GetRuleId())
			}
		}
	}
	return nil
}

// milestones of a file, counted from its submission.
type milestones struct {
	durable  time.Duration // the submitter has its answer
	decided  time.Duration // every claim has an outcome
	complete time.Duration // remittances are made
}

// adjudicateFile submits a file and returns when it is complete.
func (s *stack) adjudicateFile(ctx context.Context, file []byte, claims int) (m milestones, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	start := time.Now()
	submitted, err := standalone.Submit(ctx, s.clients.Gateway, file)
	if err != nil {
		return m, err
	}
	m.durable = time.Since(start)
	for {
		p, err := s.clients.Workflows.GetFileProgress(ctx, &workflowsv1.GetFileProgressRequest{FileId: submitted.GetFile().GetFileId()})
		if err != nil {
			return m, err
		}
		if m.decided == 0 && int(p.GetDone()) == claims {
			m.decided = time.Since(start)
		}
		if p.GetComplete() {
			m.complete = time.Since(start)
			if int(p.GetDone()) != claims || p.GetRejected() > 0 || int(p.GetPaid()) < claims*9/10 {
				return m, fmt.Errorf("bench: of %d generated claims %d are done, %d paid, %d rejected", claims, p.GetDone(), p.GetPaid(), p.GetRejected())
			}
			return m, nil
		}
		select {
		case <-ctx.Done():
			return m, fmt.Errorf("bench: the file is %s at %d of %d claims: %w", p.GetStage(), p.GetDone(), claims, ctx.Err())
		case <-s.process.Done():
			return m, fmt.Errorf("bench: the stack ended: %w\n%s", s.process.Err(), s.process.Tail(10))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
