package eventstore

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
)

// slowNode answers reads when it is let; a read of "bad" is refused, and so is
// every call that holds one.
type slowNode struct {
	ledgerv1connect.LedgerServiceClient
	let   chan struct{}
	old   bool // knows no ReadStreams
	mu    sync.Mutex
	calls [][]string // guarded by mu: streams of each call
}

func (n *slowNode) answer(streams ...string) error {
	n.mu.Lock()
	n.calls = append(n.calls, streams)
	n.mu.Unlock()
	<-n.let
	for _, s := range streams {
		if s == "bad" {
			return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("malformed"))
		}
	}
	return nil
}

func (n *slowNode) ReadStream(_ context.Context, r *ledgerv1.ReadStreamRequest) (*ledgerv1.ReadStreamResponse, error) {
	if err := n.answer(r.GetStream()); err != nil {
		return nil, err
	}
	return &ledgerv1.ReadStreamResponse{Events: []*ledgerv1.RecordedEvent{{Stream: r.GetStream()}}}, nil
}

// ReadStreams answers at most two of a call.
func (n *slowNode) ReadStreams(_ context.Context, r *ledgerv1.ReadStreamsRequest) (*ledgerv1.ReadStreamsResponse, error) {
	if n.old {
		return nil, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("no such method"))
	}
	var streams []string
	for _, read := range r.GetReads() {
		streams = append(streams, read.GetStream())
	}
	if err := n.answer(streams...); err != nil {
		return nil, err
	}
	out := &ledgerv1.ReadStreamsResponse{}
	for _, s := range streams[:min(len(streams), 2)] {
		out.Results = append(out.Results, &ledgerv1.ReadStreamResponse{Events: []*ledgerv1.RecordedEvent{{Stream: s}}})
	}
	return out, nil
}

// crowd has the node asked by as many as may fly, then by others who have to
// wait. When all wait it does meanwhile, lets the node answer and returns the
// errors of those others.
func crowd(ctx context.Context, t *testing.T, n *slowNode, meanwhile func(), others ...string) map[string]error {
	t.Helper()
	g := &reads{client: n}
	var wg sync.WaitGroup
	for i := range readsInFlight {
		wg.Go(func() { _, _ = g.read(t.Context(), &ledgerv1.ReadStreamRequest{Stream: fmt.Sprint("early-", i)}) })
	}
	require.Eventually(t, func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.calls) == readsInFlight }, waiting, tick)
	var mu sync.Mutex
	failed := map[string]error{}
	for _, s := range others {
		wg.Go(func() {
			res, err := g.read(ctx, &ledgerv1.ReadStreamRequest{Stream: s})
			if err == nil && res.GetEvents()[0].GetStream() != s {
				err = fmt.Errorf("got the answer of %s", res.GetEvents()[0].GetStream())
			}
			mu.Lock()
			defer mu.Unlock()
			failed[s] = err
		})
	}
	require.Eventually(t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.waiting) == len(others)
	}, waiting, tick)
	meanwhile()
	close(n.let)
	wg.Wait()
	require.Eventually(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.flying == 0 && len(g.waiting) == 0 }, waiting, tick,
		"every place is given up")
	return failed
}

func TestReadsThatWaitTravelTogetherAndEachGetsItsOwnAnswer(t *testing.T) {
	n := &slowNode{let: make(chan struct{})}
	for s, err := range crowd(t.Context(), t, n, func() {}, "a", "b", "c", "d", "e") {
		require.NoError(t, err, s)
	}
	require.Less(t, len(n.calls), readsInFlight+5, "five reads take fewer than five calls")
}

// Inside the process a node answers before the next reader has asked.
func TestReadersThatAskAtOnceShareCallsThoughTheNodeAnswersAtOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	n := &slowNode{let: make(chan struct{})}
	close(n.let)
	g := &reads{client: n}
	const readers = 200
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			res, err := g.read(t.Context(), &ledgerv1.ReadStreamRequest{Stream: fmt.Sprint(i)})
			if err != nil || res.GetEvents()[0].GetStream() != fmt.Sprint(i) {
				t.Errorf("%d: %v, %v", i, res, err)
			}
		})
	}
	wg.Wait()
	answered := 0
	for _, call := range n.calls {
		answered += min(len(call), 2) // of a call two are answered, the others asked for again
	}
	require.Equal(t, readers, answered)
	alone := 0
	for _, call := range n.calls {
		if len(call) == 1 {
			alone++
		}
	}
	require.Less(t, alone, readers/2, "%d calls", len(n.calls))
}

func TestOneRefusedReadSpoilsNoOther(t *testing.T) {
	n := &slowNode{let: make(chan struct{})}
	failed := crowd(t.Context(), t, n, func() {}, "a", "bad", "c")
	require.NoError(t, failed["a"])
	require.NoError(t, failed["c"])
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(failed["bad"]))
}

func TestANodeThatKnowsNoSharedReadsIsReadOneByOne(t *testing.T) {
	n := &slowNode{let: make(chan struct{}), old: true}
	for s, err := range crowd(t.Context(), t, n, func() {}, "a", "b", "c") {
		require.NoError(t, err, s)
	}
}

func TestAReaderThatGivesUpIsLetGoAndNotReadFor(t *testing.T) {
	n := &slowNode{let: make(chan struct{})}
	gone, leave := context.WithCancel(t.Context())
	failed := crowd(gone, t, n, leave, "a", "b")
	require.ErrorIs(t, failed["a"], context.Canceled)
	for _, call := range n.calls {
		require.NotContains(t, call, "a")
	}
}

const (
	waiting = 10 * time.Second
	tick    = time.Millisecond
)
