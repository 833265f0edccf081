package process

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// Become runs the program of this process's role and ends the process with
// its exit code. A process without a role goes on: Become is the first thing
// that a main which calls Launch does.
func Become(programs map[string]Program) {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	program, ok := programs[role]
	if !ok {
		fmt.Fprintf(os.Stderr, "no program %q\n", role)
		os.Exit(2)
	}
	code := program(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Launch is Start for a command: the process's output goes to a file in dir,
// and the caller ends the process. It dies with its parent in any case.
func Launch(dir, role string, env []string, args ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return launch(dir, role, self, append(env, roleVariable+"="+role), args)
}

func launch(dir, role, path string, env, args []string) (*Process, error) {
	log, err := os.CreateTemp(dir, role+"-*.log")
	if err != nil {
		return nil, err
	}
	p := &Process{Role: role, cmd: exec.Command(path, args...), done: make(chan struct{}), log: log.Name()}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Its own group: a Ctrl-C at the terminal is the parent's to pass on.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	go func() {
		err := p.cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		_ = log.Close()
		close(p.done)
	}()
	return p, nil
}

// FreeAddress finds a free loopback address and gives it back at once.
// Another process could take it before the caller does; on a machine that
// runs these programs alone none does.
func FreeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// LaunchProgram is Launch for another program: a broker's virtual machine for
// instance. Role names it in its log's file name and in errors.
func LaunchProgram(dir, role, path string, args ...string) (*Process, error) {
	return launch(dir, role, path, nil, args)
}

// Pause stops the process where it stands, as a machine does that swaps or
// collects garbage for too long; Resume lets it go on, none the wiser.
func (p *Process) Pause() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (p *Process) Resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }
