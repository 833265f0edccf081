package kafka

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Network is a switch of its own with one network namespace a broker, so that
// a broker can be cut off while it goes on believing in itself. It needs root
// and iproute2.
type Network struct {
	name   string // of the bridge; namespaces and cables derive from it
	prefix string // the first three numbers of its addresses
	ends   int
}

// CanMakeNetworks tells why this process cannot make a Network; nil if it can.
func CanMakeNetworks() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	_, err := exec.LookPath("ip")
	return err
}

// NewNetwork makes a switch with n namespaces behind it. Close removes it.
func NewNetwork(n int) (_ *Network, err error) {
	// The process id makes the names and addresses this run's own.
	pid := os.Getpid()
	w := &Network{name: fmt.Sprintf("pk%x", pid), prefix: fmt.Sprintf("10.%d.%d", 200+pid>>8%50, pid&0xff), ends: n}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if err := ip("link", "add", "name", w.name, "type", "bridge"); err != nil {
		return nil, err
	}
	if err := ip("addr", "add", w.prefix+".254/24", "dev", w.name); err != nil {
		return nil, err
	}
	if err := ip("link", "set", w.name, "up"); err != nil {
		return nil, err
	}
	for i := range n {
		ns, outer := w.namespace(i), w.cable(i)
		for _, args := range [][]string{
			{"netns", "add", ns},
			{"link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", ns},
			{"link", "set", outer, "master", w.name, "up"},
			{"-n", ns, "link", "set", "lo", "up"},
			{"-n", ns, "addr", "add", fmt.Sprintf("%s.%d/24", w.prefix, i+1), "dev", "eth0"},
			{"-n", ns, "link", "set", "eth0", "up"},
		} {
			if err := ip(args...); err != nil {
				return nil, err
			}
		}
	}
	return w, nil
}

func (w *Network) namespace(i int) string { return fmt.Sprintf("%s-%d", w.name, i+1) }

func (w *Network) cable(i int) string { return fmt.Sprintf("%sv%d", w.name, i+1) }

func (w *Network) address(i, port int) string { return fmt.Sprintf("%s.%d:%d", w.prefix, i+1, port) }

// Cut pulls a namespace's cable: packets vanish, no connection is reset.
func (w *Network) Cut(i int) error { return ip("link", "set", w.cable(i), "down") }

// Mend plugs it in again.
func (w *Network) Mend(i int) error { return ip("link", "set", w.cable(i), "up") }

// Isolate makes a namespace deaf and dumb towards the others of its switch.
// Whoever is outside still reaches it: a leader that clients talk to and its
// followers don't.
func (w *Network) Isolate(i int) error { return w.routes(i, "add") }

// Rejoin undoes Isolate.
func (w *Network) Rejoin(i int) error { return w.routes(i, "del") }

func (w *Network) routes(i int, verb string) error {
	for k := range w.ends {
		if k == i {
			continue
		}
		// Both ways: what a namespace can't answer it may still hear.
		for _, r := range [][2]int{{i, k}, {k, i}} {
			if err := ip("-n", w.namespace(r[0]), "route", verb, "blackhole", fmt.Sprintf("%s.%d/32", w.prefix, r[1]+1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close removes the namespaces, with their end of each cable, and the switch.
func (w *Network) Close() {
	for i := range w.ends {
		_ = ip("netns", "del", w.namespace(i))
		_ = ip("link", "del", w.cable(i))
	}
	_ = ip("link", "del", w.name)
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
