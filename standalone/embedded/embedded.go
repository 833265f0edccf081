// Package embedded runs Probity's three dependencies inside the calling
// process: the Temporal server on SQLite, a Kafka-protocol broker that keeps
// its log on disk, and the store of the views.
//
// It is for development and evaluation on one machine. Invariants: every
// listener is on loopback; a data directory belongs to one process at a time
// (an advisory lock says so); what Kafka acknowledged is on disk before the
// acknowledgement; Temporal resumes from its file; the views from theirs, or
// they are rebuilt from the ledger.
package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

const loopback = "127.0.0.1"

// claimDir makes dir private to this user and takes its lock: two processes
// writing one SQLite file or one Kafka log would corrupt it. The lock goes
// with the process, so a crash leaves nothing to clean up.
func claimDir(dir string) (release func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded: data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("embedded: lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(
			fmt.Errorf("embedded: %s is in use by another process; stop it or choose another data directory", dir), f.Close())
	}
	return f.Close, nil
}

// Ports are taken from below the range that systems give to outgoing
// connections and to listeners on port 0 (32768 and up on Linux): so between
// finding a port and using it only another call of freePorts can take it, and
// each picks at random.
const (
	firstPort = 18_000
	lastPort  = 32_000
)

// freePorts returns n distinct loopback ports that nothing listened on. All
// are held until the last is found, so they differ; another process could
// still take one before it is used, and then starting fails and says so.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	var last error
	for range 50 * n {
		port := firstPort + rand.IntN(lastPort-firstPort)
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, fmt.Sprint(port)))
		if err != nil {
			last = err
			continue
		}
		defer l.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("embedded: no free loopback port: %w", last)
}

// portTaken tells, in words to act on, when a fixed port can't be used.
func portTaken(what string, port int) error {
	if port == 0 {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, fmt.Sprint(port)))
	if err != nil {
		return fmt.Errorf("embedded: %s: port %d is taken; free it or configure another: %w", what, port, err)
	}
	return l.Close()
}
