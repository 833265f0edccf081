package distributed

import (
	"io"
	"net"
	"net/http"
	"testing"
)

// balancer is one address for several processes, as a Kubernetes service is:
// a new connection goes to the first that says it is ready, and an
// established one stays where it is whatever becomes of its readiness.
type balancer struct {
	address  string
	backends []string
	probe    *http.Client
}

func newBalancer(t *testing.T, probe *http.Client, backends ...string) *balancer {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	b := &balancer{address: l.Addr().String(), backends: backends, probe: probe}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.forward(t, c)
		}
	}()
	return b
}

func (b *balancer) forward(t *testing.T, from net.Conn) {
	defer func() { _ = from.Close() }()
	for _, backend := range b.backends {
		if !isReady(t.Context(), b.probe, backend) {
			continue
		}
		to, err := net.Dial("tcp", backend)
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(to, from)
			_ = to.Close()
		}()
		_, _ = io.Copy(from, to)
		return
	}
}
