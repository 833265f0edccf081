// Package ledgertest is the conformance suite of a ledger node: what any
// LedgerService must do, on whatever Kafka it runs. Embedded brokers run it
// in this repository's unit tests, real ones in its larger suites.
package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/problem"
)

// Node is a running ledger node under test, which has a log "claims" of at
// least two shards.
type Node interface {
	Handler() ledgerv1connect.LedgerServiceHandler
	Tiles() http.Handler
	VerifierKey() string
	Close(ctx context.Context) error
}

// World is one ledger: topics, a data directory and a key.
type World interface {
	// Origin is the ledger's.
	Origin() string
	// Start opens the node on the world's data and waits until it's ready.
	Start(t *testing.T) Node
	// Forget deletes the node's data directory, of a node that is closed.
	Forget(t *testing.T)
}

// Run runs the suite; each test gets a world of its own.
func Run(t *testing.T, create func(t *testing.T) World) {
	for name, test := range map[string]func(*testing.T, World){
		"appends are read back in order":                      testReadBack,
		"a stale revision is a conflict that names the real":  testConflict,
		"several streams are written all or nothing":          testAtomic,
		"a request id appends once":                           testIdempotent,
		"one request id cannot name two contents":             testReusedRequestID,
		"of rival writers one wins each revision":             testRivals,
		"a batch fails and succeeds one by one":               testBatch,
		"malformed appends are refused":                       testRefusals,
		"a token makes the write visible":                     testToken,
		"pages join up":                                       testPages,
		"a follower catches up, is told so, and goes on live": testFollow,
		"a follower may filter and resume":                    testFollowFilter,
		"a receipt verifies offline and tampering shows":      testReceipt,
		"a promise verifies offline":                          testPromise,
		"checkpoints only grow":                               testCheckpoints,
		"a restart forgets nothing":                           testRestart,
		"a lost replica is rebuilt from Kafka":                testRebuild,
	} {
		t.Run(name, func(t *testing.T) { test(t, create(t)) })
	}
}

const patience = 20 * time.Second

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func write(stream string, expected int64, payloads ...string) *ledgerv1.StreamWrite {
	w := &ledgerv1.StreamWrite{Stream: stream, ExpectedRevision: expected}
	for _, p := range payloads {
		kind, _, _ := strings.Cut(p, ":")
		w.Events = append(w.Events, &ledgerv1.Event{Type: "test." + kind, Payload: []byte(p)})
	}
	return w
}

func request(key, id string, writes ...*ledgerv1.StreamWrite) *ledgerv1.AppendRequest {
	return &ledgerv1.AppendRequest{Log: "claims", RoutingKey: key, RequestId: id, Writes: writes}
}

func read(t *testing.T, n Node, key, stream, token string) []string {
	t.Helper()
	res, err := n.Handler().ReadStream(ctxOf(t), &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: key, Stream: stream, MinToken: token})
	require.NoError(t, err)
	require.True(t, res.EndOfStream)
	var out []string
	for i, e := range res.Events {
		require.Equal(t, uint64(i), e.Revision)
		out = append(out, string(e.Event.Payload))
	}
	return out
}

func appendOK(t *testing.T, n Node, r *ledgerv1.AppendRequest) *ledgerv1.AppendResponse {
	t.Helper()
	res, err := n.Handler().Append(ctxOf(t), r)
	require.NoError(t, err)
	return res
}

// conflict returns the Conflict detail of an error, which must have one.
func conflict(t *testing.T, err error) *ledgerv1.Conflict {
	t.Helper()
	var c *connect.Error
	require.ErrorAs(t, err, &c)
	require.Equal(t, connect.CodeFailedPrecondition, c.Code())
	for _, d := range c.Details() {
		v, err := d.Value()
		require.NoError(t, err)
		if out, ok := v.(*ledgerv1.Conflict); ok {
			return out
		}
	}
	t.Fatal("no Conflict detail")
	return nil
}

func testReadBack(t *testing.T, w World) {
	n := w.Start(t)
	first := appendOK(t, n, request("k", "r1", write("claim-1", -1, "a:1", "a:2")))
	second := appendOK(t, n, request("k", "r2", write("claim-1", 1, "a:3")))
	require.Equal(t, []uint64{1}, first.Revisions)
	require.Equal(t, []uint64{2}, second.Revisions)
	require.Equal(t, first.Position.Shard, second.Position.Shard)
	require.Equal(t, first.Position.Index+1, second.Position.Index)
	require.False(t, first.Replayed)
	require.WithinDuration(t, time.Now(), first.RecordedTime.AsTime(), time.Hour)
	require.Equal(t, []string{"a:1", "a:2", "a:3"}, read(t, n, "k", "claim-1", second.Token))
	require.Empty(t, read(t, n, "k", "claim-none", ""))
}

func testConflict(t *testing.T, w World) {
	n := w.Start(t)
	appendOK(t, n, request("k", "r1", write("claim-1", -1, "a:1")))
	for id, expected := range map[string]int64{"r2": -1, "r3": 1, "r4": 7} {
		_, err := n.Handler().Append(ctxOf(t), request("k", id, write("claim-1", expected, "a:x")))
		c := conflict(t, err)
		require.Equal(t, "claim-1", c.Stream)
		require.Equal(t, int64(0), c.ActualRevision)
	}
	_, err := n.Handler().Append(ctxOf(t), request("k", "r5", write("claim-2", 0, "a:x")))
	require.Equal(t, int64(-1), conflict(t, err).ActualRevision)
	last := appendOK(t, n, request("k", "r6", write("claim-1", -2, "a:2")))
	require.Equal(t, []string{"a:1", "a:2"}, read(t, n, "k", "claim-1", last.Token))
}

func testAtomic(t *testing.T, w World) {
	n := w.Start(t)
	both := appendOK(t, n, request("k", "r1", write("claim-1", -1, "a:1"), write("accumulators-1", -1, "b:1", "b:2")))
	require.Equal(t, []uint64{0, 1}, both.Revisions)
	_, err := n.Handler().Append(ctxOf(t), request("k", "r2", write("claim-2", -1, "a:1"), write("accumulators-1", 0, "b:3")))
	require.Equal(t, "accumulators-1", conflict(t, err).Stream)
	require.Empty(t, read(t, n, "k", "claim-2", both.Token))
	require.Equal(t, []string{"b:1", "b:2"}, read(t, n, "k", "accumulators-1", both.Token))
}

func testIdempotent(t *testing.T, w World) {
	n := w.Start(t)
	r := request("k", "r1", write("claim-1", -1, "a:1"))
	first := appendOK(t, n, r)
	again := appendOK(t, n, r)
	require.True(t, again.Replayed)
	require.Empty(t, again.RecordedTime.AsTime().Sub(first.RecordedTime.AsTime()))
	require.True(t, proto.Equal(first.Position, again.Position))
	require.Equal(t, first.Revisions, again.Revisions)
	require.Equal(t, first.Token, again.Token)
	require.Equal(t, []string{"a:1"}, read(t, n, "k", "claim-1", again.Token))

	// When many send one append at once, it's still made once.
	same := request("k", "r2", write("claim-2", -1, "a:1"))
	var wg sync.WaitGroup
	answers := make([]*ledgerv1.AppendResponse, 20)
	for i := range answers {
		wg.Go(func() {
			res, err := n.Handler().Append(ctxOf(t), proto.Clone(same).(*ledgerv1.AppendRequest))
			if err == nil {
				answers[i] = res
			}
		})
	}
	wg.Wait()
	fresh := 0
	for _, a := range answers {
		require.NotNil(t, a)
		require.True(t, proto.Equal(answers[0].Position, a.Position))
		if !a.Replayed {
			fresh++
		}
	}
	require.Equal(t, 1, fresh)
}

func testReusedRequestID(t *testing.T, w World) {
	n := w.Start(t)
	appendOK(t, n, request("k", "r1", write("claim-1", -1, "a:1")))
	_, err := n.Handler().Append(ctxOf(t), request("k", "r1", write("claim-1", -1, "a:2")))
	require.True(t, problem.Is(err, problem.Conflict), "got %v", err)
	require.NotContains(t, err.Error(), "a:2")
}

func testRivals(t *testing.T, w World) {
	n := w.Start(t)
	const rivals, rounds = 8, 5
	var wg sync.WaitGroup
	won := make([]int, rivals)
	for i := range rivals {
		wg.Go(func() {
			revision := int64(-1)
			for attempt := 0; won[i] < rounds; attempt++ {
				_, err := n.Handler().Append(ctxOf(t), request("k", fmt.Sprintf("r-%d-%d", i, attempt), write("claim-1", revision, fmt.Sprintf("a:%d", i))))
				var c *connect.Error
				switch {
				case err == nil:
					won[i]++
					revision++
				case errors.As(err, &c):
					revision = conflict(t, err).ActualRevision
				default:
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	token := appendOK(t, n, request("k", "last", write("claim-1", -2, "a:end"))).Token
	counts := map[string]int{}
	for _, p := range read(t, n, "k", "claim-1", token) {
		counts[p]++
	}
	for i := range rivals {
		require.Equal(t, rounds, counts[fmt.Sprintf("a:%d", i)])
	}
}

func testBatch(t *testing.T, w World) {
	n := w.Start(t)
	appendOK(t, n, request("k", "r0", write("claim-1", -1, "a:1")))
	res, err := n.Handler().AppendBatch(ctxOf(t), &ledgerv1.AppendBatchRequest{Appends: []*ledgerv1.AppendRequest{
		request("k", "r1", write("claim-1", 0, "a:2")),
		request("k", "r2", write("claim-1", 0, "a:3")),
		request("k", "r3", write("claim-1", 1, "a:3")),
		request("other", "r4", write("claim-9", -1, "a:1")),
		request("k", "r0", write("claim-1", -1, "a:1")),
		{Log: "nosuchlog", RoutingKey: "k", RequestId: "r5", Writes: []*ledgerv1.StreamWrite{write("claim-1", -2, "a:1")}},
		request("k", "r6", write("not a stream", -2, "a:1")),
	}})
	require.NoError(t, err)
	require.Len(t, res.Results, 7)
	require.NotNil(t, res.Results[0].GetResponse())
	require.Equal(t, int64(1), res.Results[1].GetConflict().GetActualRevision())
	require.NotNil(t, res.Results[2].GetResponse(), "an append sees those before it in its batch")
	require.NotNil(t, res.Results[3].GetResponse())
	require.True(t, res.Results[4].GetResponse().GetReplayed())
	require.Equal(t, "not_found", res.Results[5].GetFailure().GetCode())
	require.Equal(t, "invalid_argument", res.Results[6].GetFailure().GetCode())
	require.False(t, res.Results[6].GetFailure().GetRetryable())
}

func testRefusals(t *testing.T, w World) {
	n := w.Start(t)
	big := string(bytes.Repeat([]byte("x"), 1_000_001))
	for name, r := range map[string]*ledgerv1.AppendRequest{
		"no writes":          request("k", "r"),
		"no request id":      request("k", "", write("claim-1", -1, "a:1")),
		"no routing key":     request("", "r", write("claim-1", -1, "a:1")),
		"a stream twice":     request("k", "r", write("claim-1", -1, "a:1"), write("claim-1", 0, "a:1")),
		"a bad stream name":  request("k", "r", write("Jane Roe", -1, "a:1")),
		"no events":          request("k", "r", write("claim-1", -1)),
		"too large":          request("k", "r", write("claim-1", -1, "a:"+big)),
		"the ledger's own":   {Log: "blocks", RoutingKey: "k", RequestId: "r", Writes: []*ledgerv1.StreamWrite{write("block-log", -2, "a:1")}},
		"an impossible rev.": request("k", "r", write("claim-1", -3, "a:1")),
	} {
		_, err := n.Handler().Append(ctxOf(t), r)
		require.Error(t, err, name)
		p := problem.As(err)
		require.Contains(t, []problem.Kind{problem.Invalid, problem.NotFound}, p.Kind, name)
		require.NotContains(t, err.Error(), "Jane", name)
	}
	// What is as large as it may be still goes through.
	appendOK(t, n, request("k", "r", write("claim-1", -1, "a:"+big[:921_598])))
}

func testToken(t *testing.T, w World) {
	n := w.Start(t)
	for i := range 50 {
		res := appendOK(t, n, request("k", fmt.Sprint("r", i), write("claim-1", int64(i)-1, "a:1")))
		require.Len(t, read(t, n, "k", "claim-1", res.Token), i+1)
	}
	_, err := n.Handler().ReadStream(ctxOf(t), &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: "k", Stream: "claim-1", MinToken: "garbage"})
	require.True(t, problem.Is(err, problem.Invalid))
}

func testPages(t *testing.T, w World) {
	n := w.Start(t)
	var token string
	for i := range 7 {
		token = appendOK(t, n, request("k", fmt.Sprint("r", i), write("claim-1", -2, "a:1", "a:2", "a:3"))).Token
	}
	var got []uint64
	for from, end := uint64(0), false; !end; {
		res, err := n.Handler().ReadStream(ctxOf(t), &ledgerv1.ReadStreamRequest{
			Log: "claims", RoutingKey: "k", Stream: "claim-1", FromRevision: from, MaxCount: 4, MinToken: token,
		})
		require.NoError(t, err)
		require.LessOrEqual(t, len(res.Events), 4)
		require.Equal(t, int64(20), res.LastRevision)
		for _, e := range res.Events {
			got = append(got, e.Revision)
			from = e.Revision + 1
		}
		end = res.EndOfStream
	}
	require.Len(t, got, 21)
	for i, r := range got {
		require.Equal(t, uint64(i), r)
	}
	res, err := n.Handler().ReadStream(ctxOf(t), &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: "k", Stream: "claim-1", FromRevision: 21})
	require.NoError(t, err)
	require.Empty(t, res.Events)
	require.True(t, res.EndOfStream)
}

// serve puts a node behind HTTP and returns a client, for streams.
func serve(t *testing.T, n Node) ledgerv1connect.LedgerServiceClient {
	mux := http.NewServeMux()
	mux.Handle(ledgerv1connect.NewLedgerServiceHandler(n.Handler()))
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return ledgerv1connect.NewLedgerServiceClient(s.Client(), s.URL)
}

type follower struct {
	t      *testing.T
	stream *connect.ServerStreamForClient[ledgerv1.SubscribeResponse]
	next   map[uint32]uint64
	got    []string
}

func follow(t *testing.T, n Node, r *ledgerv1.SubscribeRequest) *follower {
	stream, err := serve(t, n).Subscribe(ctxOf(t), r)
	require.NoError(t, err)
	return &follower{t: t, stream: stream, next: map[uint32]uint64{}}
}

// until receives up to a message that satisfies done.
func (f *follower) until(done func(*ledgerv1.SubscribeResponse) bool) {
	f.t.Helper()
	for {
		require.True(f.t, f.stream.Receive(), "stream ended: %v", f.stream.Err())
		msg := f.stream.Msg()
		for _, e := range msg.Events {
			f.got = append(f.got, string(e.Event.Payload))
		}
		for _, x := range msg.Next {
			require.GreaterOrEqual(f.t, x.Index, f.next[x.Shard])
			f.next[x.Shard] = x.Index
		}
		if done(msg) {
			return
		}
	}
}

func caughtUp(m *ledgerv1.SubscribeResponse) bool { return m.CaughtUp }

func testFollow(t *testing.T, w World) {
	n := w.Start(t)
	var want []string
	var token string
	for i := range 40 {
		p := fmt.Sprintf("a:%d", i)
		want = append(want, p)
		key := fmt.Sprint("k", i%5)
		token = appendOK(t, n, request(key, fmt.Sprint("r", i), write(fmt.Sprintf("claim-%d", i%5), -2, p))).Token
		if i >= 35 {
			read(t, n, key, fmt.Sprintf("claim-%d", i%5), token)
		}
	}
	f := follow(t, n, &ledgerv1.SubscribeRequest{Log: "claims"})
	f.until(caughtUp)
	require.ElementsMatch(t, want, f.got)
	f.got = nil
	appendOK(t, n, request("k1", "live-1", write("claim-1", -2, "a:live-1")))
	f.until(func(*ledgerv1.SubscribeResponse) bool { return len(f.got) == 1 })
	require.Equal(t, []string{"a:live-1"}, f.got)
}

func testFollowFilter(t *testing.T, w World) {
	n := w.Start(t)
	f := follow(t, n, &ledgerv1.SubscribeRequest{Log: "claims", Types: []string{"test.b"}})
	f.until(caughtUp)
	require.Empty(t, f.got)
	skipped := appendOK(t, n, request("k", "r1", write("claim-1", -2, "a:1", "a:2")))
	appendOK(t, n, request("k", "r2", write("claim-1", -2, "a:3", "b:1")))
	f.until(func(*ledgerv1.SubscribeResponse) bool { return len(f.got) == 1 })
	require.Equal(t, []string{"b:1"}, f.got)
	require.Equal(t, skipped.Position.Index+2, f.next[skipped.Position.Shard], "filtered commits advance the heads")

	// Resuming from the heads delivers what came since, once.
	third := appendOK(t, n, request("k", "r3", write("claim-1", -2, "b:2")))
	read(t, n, "k", "claim-1", third.Token)
	resume := &ledgerv1.SubscribeRequest{Log: "claims"}
	for s, i := range f.next {
		resume.From = append(resume.From, &ledgerv1.ShardIndex{Shard: s, Index: i})
	}
	g := follow(t, n, resume)
	g.until(caughtUp)
	require.Equal(t, []string{"b:2"}, g.got)
}
