package eventstore

import (
	"context"
	"runtime"
	"sync"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/problem"
)

const (
	// readsInFlight calls go at once; what is asked for meanwhile waits for
	// one of them to come back and then travels together.
	readsInFlight = 4
	// readsTogether is the most reads of one call: under the ledger's 1,000.
	readsTogether = 256
	// readsTimeout bounds a shared call, which outlives any one of its callers.
	readsTimeout = 30 * time.Second
)

// reads shares calls between callers that read at the same time. Nobody
// waits for company: a read goes at once while few are on their way, with those
// that were about to ask.
type reads struct {
	client ledgerv1connect.LedgerServiceClient

	mu      sync.Mutex // guards the two below
	flying  int
	waiting []*read
}

type read struct {
	ctx  context.Context // of who waits for it
	req  *ledgerv1.ReadStreamRequest
	done chan struct{} // closed when the two below are set
	res  *ledgerv1.ReadStreamResponse
	err  error
}

func (g *reads) read(ctx context.Context, req *ledgerv1.ReadStreamRequest) (*ledgerv1.ReadStreamResponse, error) {
	r := &read{ctx: ctx, req: req, done: make(chan struct{})}
	g.mu.Lock()
	if g.flying == readsInFlight {
		g.waiting = append(g.waiting, r)
		g.mu.Unlock()
		return r.wait()
	}
	g.flying++
	g.mu.Unlock()
	// A call inside the process is back before the next caller has run: of
	// hundreds that ask at once, each would go alone.
	runtime.Gosched()
	g.mu.Lock()
	some := g.take(readsTogether - 1)
	g.mu.Unlock()
	if len(some) == 0 {
		defer g.next()
		return g.client.ReadStream(ctx, req)
	}
	go func() {
		defer g.next()
		g.together(append(some, r))
	}()
	return r.wait()
}

func (r *read) wait() (*ledgerv1.ReadStreamResponse, error) {
	select {
	case <-r.done:
		return r.res, r.err
	case <-r.ctx.Done():
		return nil, r.ctx.Err()
	}
}

// take takes those that still wait, at most so many; mu is held.
func (g *reads) take(most int) []*read {
	var some []*read
	for len(g.waiting) > 0 && len(some) < most {
		if r := g.waiting[0]; r.ctx.Err() == nil {
			some = append(some, r)
		}
		g.waiting = g.waiting[1:]
	}
	return some
}

// next hands a returned call's place on to those who wait, or gives it up.
func (g *reads) next() {
	g.mu.Lock()
	defer g.mu.Unlock()
	some := g.take(readsTogether)
	if len(some) == 0 {
		g.flying--
		return
	}
	go func() {
		defer g.next()
		g.together(some)
	}()
}

// together reads for all; the context is none of theirs, so that one who
// gives up doesn't take the others along.
func (g *reads) together(some []*read) {
	ctx, cancel := context.WithTimeout(context.Background(), readsTimeout)
	defer cancel()
	for len(some) > 0 {
		n, err := g.call(ctx, some)
		if err != nil {
			g.apart(ctx, some, err)
			return
		}
		some = some[n:]
	}
}

// call answers the first n of some.
func (g *reads) call(ctx context.Context, some []*read) (n int, err error) {
	if len(some) == 1 {
		some[0].res, some[0].err = g.client.ReadStream(ctx, some[0].req)
		close(some[0].done)
		return 1, nil
	}
	req := &ledgerv1.ReadStreamsRequest{Reads: make([]*ledgerv1.ReadStreamRequest, len(some))}
	for i, r := range some {
		req.Reads[i] = r.req
	}
	res, err := g.client.ReadStreams(ctx, req)
	if err != nil {
		return 0, err
	}
	if n = len(res.GetResults()); n == 0 || n > len(some) {
		return 0, malformedAnswer("another number of results than reads")
	}
	for i, r := range some[:n] {
		r.res = res.GetResults()[i]
		close(r.done)
	}
	return n, nil
}

// apart settles reads whose shared call failed. What passes by itself each
// caller tries again; otherwise one of them may be to blame for all, or the
// node be of a version that can't yet, and each is read by itself.
func (g *reads) apart(ctx context.Context, some []*read, err error) {
	passing := problem.Is(fromRPC(err), problem.Unavailable)
	for _, r := range some {
		if r.err = err; !passing {
			r.res, r.err = g.client.ReadStream(ctx, r.req)
		}
		close(r.done)
	}
}
