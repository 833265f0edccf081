// Package process runs the project's own programs as processes of their own,
// so that a test can kill them. The programs are the test binary itself,
// started again with a role in its environment: what is tested is what was
// compiled, and nothing has to be built or found first.
package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const roleVariable = "PROBITY_E2E_ROLE"

// Program is what a role runs: the arguments after the program's name in, the exit code out.
type Program func(ctx context.Context, args []string, stdout, stderr io.Writer) int

// Main is for TestMain: it runs the program of this process's role, or the tests.
func Main(m *testing.M, programs map[string]Program) {
	Become(programs)
	os.Exit(m.Run())
}

// Process is a started program.
type Process struct {
	Role string
	cmd  *exec.Cmd
	done chan struct{}
	log  string // file of its output

	mu  sync.Mutex
	err error // guarded by mu; set before done is closed
}

// Start starts a role with arguments. When the test ends the process is
// killed if it still runs; when the test failed, the end of its output is shown.
func Start(t testing.TB, role string, env []string, args ...string) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, role, self, append(env, roleVariable+"="+role), args)
}

// StartProgram starts another program, redis-server for instance.
func StartProgram(t testing.TB, path string, args ...string) *Process {
	t.Helper()
	return start(t, filepath.Base(path), path, nil, args)
}

func start(t testing.TB, role, path string, env, args []string) *Process {
	t.Helper()
	p, err := launch(t.TempDir(), role, path, env, args)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("last output of %s:\n%s", role, p.Tail(40))
			// A panic's reason stands above its stacks, far from the end.
			if at := strings.Index("\n"+p.Output(), "\npanic: "); at >= 0 {
				t.Logf("%s panicked: %.600s", role, p.Output()[at:])
			}
		}
	})
	return p
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop sends SIGTERM and waits for the end; it returns how the process ended.
func (p *Process) Stop(ctx context.Context) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.Err()
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s didn't drain: %w", p.Role, ctx.Err())
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how it ended; nil while it runs and after exit code 0.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is all that it has written so far.
func (p *Process) Output() string {
	raw, _ := os.ReadFile(p.log)
	return string(raw)
}

// Tail is the end of its output.
func (p *Process) Tail(lines int) string {
	all := strings.Split(strings.TrimSpace(p.Output()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// AwaitReady returns when GET url answers 200.
func (p *Process) AwaitReady(ctx context.Context, url string) error {
	for {
		if status(ctx, url) == http.StatusOK {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w", p.Role, errors.Join(p.Err(), errors.New(p.Tail(5))))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.Role, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func status(ctx context.Context, url string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// RSSMiB is the process's resident memory.
func (p *Process) RSSMiB() (float64, error) { return p.memory("VmRSS") }

// PeakRSSMiB is the most memory that was resident at any time.
func (p *Process) PeakRSSMiB() (float64, error) { return p.memory("VmHWM") }

// ticksPerSecond is Linux' USER_HZ, which /proc counts in on every architecture Go runs on.
const ticksPerSecond = 100

// CPU is the processor time that the process has used so far.
func (p *Process) CPU() (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in brackets and may hold anything; utime and stime are the 14th and 15th.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("no utime")
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticksPerSecond, errors.Join(err1, err2)
}

func (p *Process) memory(field string) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var kib float64
		if _, err := fmt.Sscanf(lines.Text(), field+": %f kB", &kib); err == nil {
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("no %s", field)
}
