package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// sessionTimeout of the clusters in these tests.
const sessionTimeout = 600 * time.Millisecond

// clustered is a node of a cluster and the server that its peers call.
type clustered struct {
	*ledger.Node
	cfg     ledger.Config
	batches atomic.Int64 // AppendBatch calls that came from peers
}

// startClustered opens the i-th node of a world's cluster, without waiting for it.
func startClustered(t *testing.T, w *ledgertest.Embedded, i int) *clustered {
	t.Helper()
	c := &clustered{cfg: w.Config}
	var handler atomic.Pointer[http.Handler]
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == ledgerv1connect.LedgerServiceAppendBatchProcedure {
			c.batches.Add(1)
		}
		if h := handler.Load(); h != nil {
			(*h).ServeHTTP(rw, r)
			return
		}
		http.Error(rw, "starting", http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	c.cfg.NodeName = fmt.Sprintf("node%d", i)
	c.cfg.DataDir = filepath.Join(t.TempDir(), c.cfg.NodeName)
	c.cfg.Cluster = &ledger.Cluster{
		URL: server.URL, SessionTimeout: sessionTimeout,
		Dial: func(url string) ledgerv1connect.LedgerServiceClient {
			return ledgerv1connect.NewLedgerServiceClient(http.DefaultClient, url)
		},
		DialProofs: func(url string) ledgerv1connect.ProofServiceClient {
			return ledgerv1connect.NewProofServiceClient(http.DefaultClient, url)
		},
	}
	n, err := ledger.Open(within(t), c.cfg)
	require.NoError(t, err)
	c.Node = n
	mux := http.NewServeMux()
	mux.Handle(ledgerv1connect.NewLedgerServiceHandler(n.Handler()))
	mux.Handle(ledgerv1connect.NewProofServiceHandler(n.Proofs()))
	mounted := http.Handler(mux)
	handler.Store(&mounted)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = n.Close(ctx)
	})
	return c
}

func ready(t *testing.T, nodes ...*clustered) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, n := range nodes {
			if n.Ready(t.Context()) != nil {
				return false
			}
		}
		return true
	}, patience, 5*time.Millisecond)
}

func newCluster(t *testing.T, size int) (*ledgertest.Embedded, []*clustered) {
	t.Helper()
	w := ledgertest.NewEmbedded(t, kfake.GroupMinSessionTimeout(sessionTimeout/10))
	var nodes []*clustered
	for i := range size {
		nodes = append(nodes, startClustered(t, w, i))
	}
	ready(t, nodes...)
	return w, nodes
}

// routed is an append of one event to a stream of its own routing key, so
// that appends spread over the shards.
func routed(i int, expected int64) *ledgerv1.AppendRequest {
	r := claim(i, expected)
	r.RoutingKey = fmt.Sprintf("key-%d", i)
	return r
}

// persist sends one append to one node after the other until it's answered.
func persist(ctx context.Context, nodes []*clustered, first int, r *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	for try := 0; ; try++ {
		res, err := nodes[(first+try)%len(nodes)].Handler().Append(ctx, r)
		if err == nil || !problem.Is(err, problem.Unavailable) || ctx.Err() != nil {
			return res, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func shares(nodes ...*clustered) []int {
	var out []int
	for _, n := range nodes {
		out = append(out, n.Owned())
	}
	return out
}

// Given three nodes, then they share the shards evenly, every node answers
// appends of every shard, and every node shows what any of them wrote, with
// its caller as the actor.
func TestAClusterSharesItsShards(t *testing.T) {
	_, nodes := newCluster(t, 3)
	require.Eventually(t, func() bool {
		s := shares(nodes...)
		return s[0]+s[1]+s[2] == 7 && max(s[0], s[1], s[2]) == 3 && min(s[0], s[1], s[2]) == 2
	}, patience, 5*time.Millisecond, "six shards and the block log")
	var last *ledgerv1.AppendResponse
	for i := range 12 {
		for k, n := range nodes {
			r := routed(i, int64(k)-1)
			r.Actor = "principal-7"
			res, err := n.Handler().Append(within(t), r)
			require.NoError(t, err)
			require.False(t, res.Replayed)
			require.Equal(t, []uint64{uint64(k)}, res.Revisions)
			require.NotEmpty(t, res.Promise)
			last = res
		}
		for _, n := range nodes {
			res, err := n.Handler().ReadStream(within(t), &ledgerv1.ReadStreamRequest{
				Log: "claims", RoutingKey: fmt.Sprintf("key-%d", i), Stream: fmt.Sprintf("claim-%d", i), MinToken: last.Token,
			})
			require.NoError(t, err)
			require.Len(t, res.Events, 3)
			require.Equal(t, "principal-7", res.Events[0].Actor)
		}
	}
	require.Positive(t, nodes[0].batches.Load()+nodes[1].batches.Load()+nodes[2].batches.Load(), "some had to be passed on")

	// A conflict and a misused request id cross the hop whole.
	for _, n := range nodes {
		_, err := n.Handler().Append(within(t), routed(1, 7))
		var c *connect.Error
		require.ErrorAs(t, err, &c)
		require.Equal(t, connect.CodeFailedPrecondition, c.Code())
		other := routed(1, -1)
		other.Writes[0].Events[0].Payload = []byte("other content")
		_, err = n.Handler().Append(within(t), other)
		var p *problem.Error
		require.ErrorAs(t, err, &p)
		require.Equal(t, problem.Conflict, p.Kind)
		require.Equal(t, "ledger.append.request-id-reused", p.Problems[0].RuleID)
	}
}

// Given a node that was passed an append for a shard it doesn't write, then
// it passes nothing on again: one hop at most.
func TestAnAppendHopsOnce(t *testing.T) {
	_, nodes := newCluster(t, 2)
	refused := 0
	for i := range 20 {
		for _, n := range nodes {
			res, err := n.Handler().AppendBatch(within(t), &ledgerv1.AppendBatchRequest{
				Appends: []*ledgerv1.AppendRequest{routed(i, -1)}, ForwardedBy: "test",
			})
			require.NoError(t, err)
			if f := res.Results[0].GetFailure(); f != nil {
				require.Equal(t, "ledger.shard.not-owner", f.RuleId)
				require.True(t, f.Retryable)
				refused++
			}
		}
	}
	require.Equal(t, 20, refused, "each once, by the node that doesn't own it")
}

// Given callers that append all the time, when a node joins and a node leaves
// in good order, then the shards move and no caller hears of it.
func TestShardsAreHandedOverInOrder(t *testing.T) {
	w, nodes := newCluster(t, 2)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	const callers = 8
	written := make([]int64, callers)
	for c := range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				// Always through a node that stays.
				res, err := nodes[0].Handler().Append(within(t), routed(c, written[c]-1))
				if err != nil || res.Replayed || res.Revisions[0] != uint64(written[c]) {
					t.Errorf("append %d of caller %d: %v %v", written[c], c, res, err)
					return
				}
				written[c]++
			}
		})
	}
	third := startClustered(t, w, 2)
	ready(t, third)
	require.Eventually(t, func() bool { return third.Owned() >= 2 }, patience, 5*time.Millisecond)
	require.NoError(t, third.Close(within(t)))
	require.Eventually(t, func() bool { return nodes[0].Owned()+nodes[1].Owned() == 7 }, patience, 5*time.Millisecond)
	stop()
	wg.Wait()
	for c := range callers {
		require.Positive(t, written[c])
		requireHistory(t, nodes[1], c, written[c])
	}
}

// requireHistory checks that a stream has one event a revision and no other.
func requireHistory(t *testing.T, n *clustered, i int, events int64) {
	t.Helper()
	read := func() []*ledgerv1.RecordedEvent {
		res, err := n.Handler().ReadStream(within(t), &ledgerv1.ReadStreamRequest{
			Log: "claims", RoutingKey: fmt.Sprintf("key-%d", i), Stream: fmt.Sprintf("claim-%d", i), MaxCount: 10000,
		})
		require.NoError(t, err)
		return res.Events
	}
	require.Eventually(t, func() bool { return len(read()) >= int(events) }, patience, 5*time.Millisecond)
	got := read()
	require.Len(t, got, int(events))
	for k, e := range got {
		require.Equal(t, fmt.Sprintf("%d/%d", i, k-1), string(e.Event.Payload))
	}
}

// isOf tells whether a group request is a node's: by what it says of itself
// when it joins, and by its member id, which begins with its client id, after.
func isOf(req kmsg.Request, node string) bool {
	switch r := req.(type) {
	case *kmsg.JoinGroupRequest:
		return bytes.Contains(r.Protocols[0].Metadata, []byte(`"session":"`+node+"-"))
	case *kmsg.SyncGroupRequest:
		return strings.Contains(r.MemberID, node)
	case *kmsg.HeartbeatRequest:
		return strings.Contains(r.MemberID, node)
	case *kmsg.LeaveGroupRequest:
		return strings.Contains(r.MemberID, node)
	}
	return false
}

// Given an owner that hears nothing of the group any more but still reaches
// the brokers' partitions, when its shards are given to another, then both
// believe they own them; the broker refuses the old one, callers that retry
// lose and repeat nothing, and once the old one hears again it has its share.
func TestTwoThatBothBelieve(t *testing.T) {
	w, nodes := newCluster(t, 2)
	for i := range 8 {
		_, err := nodes[i%2].Handler().Append(within(t), routed(i, -1))
		require.NoError(t, err)
	}
	// Node 0's heartbeats are lost, and so are its attempts to join again.
	deaf := atomic.Bool{}
	deaf.Store(true)
	silence := func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.Broker.KeepControl()
		if deaf.Load() && isOf(req, "node0") {
			return nil, errors.New("silence"), true
		}
		return nil, nil, false
	}
	for _, key := range []kmsg.Key{kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.LeaveGroup} {
		w.Broker.ControlKey(int16(key), silence)
	}
	require.Eventually(t, func() bool { return nodes[1].Owned() == 7 }, patience, 5*time.Millisecond)
	for i := range 8 {
		for k := range int64(4) {
			_, err := persist(within(t), nodes, i, routed(i, k))
			require.NoError(t, err)
		}
	}
	require.Eventually(t, func() bool { return nodes[0].Owned() == 0 }, patience, 5*time.Millisecond)
	deaf.Store(false)
	require.Eventually(t, func() bool {
		return nodes[0].Owned()+nodes[1].Owned() == 7 && nodes[0].Owned() >= 3
	}, patience, 5*time.Millisecond, "the old one takes its share back")
	for i := range 8 {
		_, err := persist(within(t), nodes, i, routed(i, 4))
		require.NoError(t, err)
		requireHistory(t, nodes[i%2], i, 6)
	}
}

// clusterMain is a node of a cluster in a process of its own. It prints where
// it listens and serves until it's killed.
func clusterMain(ctx context.Context, c child) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	cfg := c.config()
	cfg.NodeName = c.Node
	cfg.Cluster = &ledger.Cluster{
		URL: "http://" + listener.Addr().String(), SessionTimeout: sessionTimeout,
		Dial: func(url string) ledgerv1connect.LedgerServiceClient {
			return ledgerv1connect.NewLedgerServiceClient(http.DefaultClient, url)
		},
	}
	n, err := ledger.Open(ctx, cfg)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(ledgerv1connect.NewLedgerServiceHandler(n.Handler()))
	mux.HandleFunc("/ready", func(w http.ResponseWriter, r *http.Request) {
		if err := n.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	fmt.Println(cfg.Cluster.URL)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return server.Serve(listener)
}

// process is a clusterMain.
type process struct {
	child
	cmd *exec.Cmd
	url string
}

func (p *process) start(t *testing.T) {
	t.Helper()
	raw, err := json.Marshal(p.child)
	require.NoError(t, err)
	p.cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^$")
	p.cmd.Env = append(os.Environ(), childVariable+"="+string(raw))
	p.cmd.Stderr = t.Output()
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	// Its context, which ends before this runs, has killed it.
	cmd := p.cmd
	t.Cleanup(func() { _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "the node said where it listens")
	p.url = lines.Text()
}

func (p *process) ready(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		res, err := http.Get(p.url + "/ready")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, patience, 10*time.Millisecond)
}

// Given three nodes and callers that send an append again until it's
// answered, when nodes are killed and started again while they append, then
// every acknowledged append is there exactly once, where its answer said, on
// every node.
func TestAClusterLosesNothingWhenOwnersDie(t *testing.T) {
	w := ledgertest.NewEmbedded(t, kfake.GroupMinSessionTimeout(sessionTimeout/10))
	dir := t.TempDir()
	var nodes []*process
	for i := range 3 {
		p := &process{child: child{
			Brokers: w.Config.Brokers, DataDir: filepath.Join(dir, fmt.Sprint(i)), KeyFile: w.Config.SigningKeyFile, Node: fmt.Sprintf("node%d", i),
		}}
		p.start(t)
		nodes = append(nodes, p)
	}
	for _, p := range nodes {
		p.ready(t)
	}
	var urls [3]atomic.Pointer[string]
	listens := func(i int) {
		url := nodes[i].url
		urls[i].Store(&url)
	}
	for i := range nodes {
		listens(i)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	const callers = 12
	acked := make([][]*ledgerv1.AppendResponse, callers)
	var total atomic.Int64
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := int64(0); ctx.Err() == nil; i++ {
				r := routed(c, i-1)
				for try := c; ; try++ {
					once, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					res, err := ledgerv1connect.NewLedgerServiceClient(http.DefaultClient, *urls[try%3].Load()).Append(once, r)
					cancel()
					if err == nil {
						acked[c] = append(acked[c], res)
						total.Add(1)
						break
					}
					if connect.CodeOf(err) == connect.CodeFailedPrecondition || t.Context().Err() != nil {
						t.Errorf("append %d of caller %d: %v", i, c, err)
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		from := total.Load()
		require.Eventually(t, func() bool { return total.Load() >= from+n }, patience, 5*time.Millisecond)
	}
	for round := range 4 {
		more(200)
		i := (round*2 + 1) % 3
		p := nodes[i]
		require.NoError(t, p.cmd.Process.Kill())
		require.Error(t, p.cmd.Wait())
		more(200) // the others take over
		p.start(t)
		listens(i)
		p.ready(t)
	}
	stop()
	wg.Wait()
	for _, p := range nodes {
		client := ledgerv1connect.NewLedgerServiceClient(http.DefaultClient, p.url)
		for c := range callers {
			require.NotEmpty(t, acked[c])
			var events []*ledgerv1.RecordedEvent
			for end := false; !end; {
				res, err := client.ReadStream(within(t), &ledgerv1.ReadStreamRequest{
					Log: "claims", RoutingKey: fmt.Sprintf("key-%d", c), Stream: fmt.Sprintf("claim-%d", c),
					FromRevision: uint64(len(events)), MinToken: acked[c][len(acked[c])-1].Token,
				})
				require.NoError(t, err)
				events, end = append(events, res.Events...), res.EndOfStream
			}
			require.Len(t, events, len(acked[c]), "caller %d", c)
			for i, e := range events {
				require.Equal(t, fmt.Sprintf("%d/%d", c, i-1), string(e.Event.Payload))
				require.Equal(t, acked[c][i].Position.Index, e.Position.Index)
			}
		}
	}
	t.Logf("%d appends over 4 kills", total.Load())
}

// Given a cluster whose broker goes away and comes back, then appends go on
// and nothing is lost or repeated.
func TestAClusterOutlivesItsBroker(t *testing.T) {
	w, nodes := newCluster(t, 2)
	away := atomic.Bool{}
	w.Broker.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		w.Broker.KeepControl()
		if away.Load() {
			return nil, errors.New("away"), true
		}
		return nil, nil, false
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	const callers = 6
	written := make([]atomic.Int64, callers)
	for c := range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := persist(within(t), nodes, c, routed(c, written[c].Load()-1)); err != nil {
					t.Errorf("caller %d: %v", c, err)
					return
				}
				written[c].Add(1)
			}
		})
	}
	each := func(more int64) {
		t.Helper()
		for c := range callers {
			from := written[c].Load()
			require.Eventually(t, func() bool { return written[c].Load() >= from+more }, patience, 5*time.Millisecond)
		}
	}
	each(5)
	away.Store(true)
	// Long enough for every session to time out.
	<-time.After(2 * sessionTimeout)
	away.Store(false)
	each(5)
	stop()
	wg.Wait()
	for c := range callers {
		requireHistory(t, nodes[c%2], c, written[c].Load())
	}
}

// Given a cluster of three, when a change of the policy is handed to each of
// them in turn, then whoever owns the block log records it, once, and all say
// the same of it.
func TestAPolicyChangeIsPassedOnToTheOwnerOfTheBlockLog(t *testing.T) {
	w, nodes := newCluster(t, 3)
	res, err := persist(within(t), nodes, 0, claim(1, -1))
	require.NoError(t, err)
	_, err = nodes[0].Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)
	raw, err := os.ReadFile(w.Config.SigningKeyFile)
	require.NoError(t, err)
	key, err := receipt.ParseSigningKey(strings.TrimSpace(string(raw)))
	require.NoError(t, err)

	for i := range nodes {
		got, err := nodes[0].Proofs().GetLedgerPolicy(within(t), &ledgerv1.GetLedgerPolicyRequest{})
		require.NoError(t, err)
		policy, err := receipt.ParsePolicy(got.Policy)
		require.NoError(t, err)
		next := *policy.Last()
		next.Sequence, next.Prev = next.Sequence+1, next.Hash()
		next.Activation += 1_000_000 // ahead of any block
		change, err := note.Sign(&note.Note{Text: string(next.Marshal())}, key.Notes())
		require.NoError(t, err)
		for _, n := range []*clustered{nodes[i], nodes[i], nodes[(i+1)%3]} {
			got, err := n.Proofs().SubmitLedgerPolicy(within(t), &ledgerv1.SubmitLedgerPolicyRequest{Change: change})
			require.NoError(t, err)
			require.Equal(t, next.Sequence, got.Sequence)
		}
		for _, n := range nodes {
			require.Eventually(t, func() bool {
				got, err := n.Proofs().GetLedgerPolicy(within(t), &ledgerv1.GetLedgerPolicyRequest{})
				return err == nil && bytes.HasSuffix(got.Policy, change)
			}, patience, 5*time.Millisecond)
		}
		next.Quorum = 7
		unsound, err := note.Sign(&note.Note{Text: string(next.Marshal())}, key.Notes())
		require.NoError(t, err)
		_, err = nodes[i].Proofs().SubmitLedgerPolicy(within(t), &ledgerv1.SubmitLedgerPolicyRequest{Change: unsound})
		require.Error(t, err)
	}
}
