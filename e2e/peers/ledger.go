package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/server"
)

const (
	origin   = "bench.probity.test/ledger"
	benchLog = "claims"
	// blockInterval of the four parties is short, for what is waited for there
	// is that a block is final.
	blockInterval = 5 * time.Millisecond
)

// broker is the embedded one: it persists and syncs before it answers.
func openBroker(dir string, topics ...string) (*kfake.Cluster, error) {
	return kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SyncWrites(), kfake.SeedTopics(1, topics...))
}

// raw is the floor: whatever waits is produced to one partition as one batch,
// one batch at a time.
type raw struct {
	client *kafka.Client
	queue  chan rawItem
	stop   chan struct{}
	done   chan struct{}
}

type rawItem struct {
	payload []byte
	done    chan error
}

const rawTopic = "bench-raw"

func openRaw(b *kfake.Cluster) *raw {
	r := &raw{
		client: &kafka.Client{Addr: kafka.TCP(b.ListenAddrs()...), Transport: &kafka.Transport{}},
		queue:  make(chan rawItem, 4096), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go r.run()
	return r
}

func (r *raw) run() {
	defer close(r.done)
	for {
		var batch []rawItem
		select {
		case it := <-r.queue:
			batch = append(batch, it)
		case <-r.stop:
			return
		}
		for more := true; more && len(batch) < 800; {
			select {
			case it := <-r.queue:
				batch = append(batch, it)
			default:
				more = false
			}
		}
		records := make([]kafka.Record, len(batch))
		for i, it := range batch {
			records[i].Value = kafka.NewBytes(it.payload)
		}
		res, err := r.client.Produce(context.Background(), &kafka.ProduceRequest{
			Topic: rawTopic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
		})
		if err == nil {
			err = res.Error
		}
		for _, it := range batch {
			it.done <- err
		}
	}
}

func (r *raw) append(_ context.Context, payload []byte) error {
	it := rawItem{payload, make(chan error, 1)}
	r.queue <- it
	return <-it.done
}

func (r *raw) close() error { close(r.stop); <-r.done; return nil }

// node is a ledger of one party, its handler called as a function.
type node struct {
	*ledger.Node
	dir    string
	serial atomic.Uint64
	last   atomic.Pointer[ledgerv1.Position]
}

func openNode(ctx context.Context, blocks time.Duration, cfg ledger.Config) (*node, error) {
	cfg.Origin, cfg.Logs, cfg.Logger, cfg.BlockInterval = origin, map[string]int{benchLog: 1}, slog.New(slog.DiscardHandler), blocks
	n, err := ledger.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for n.Ready(ctx) != nil {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return &node{Node: n, dir: cfg.DataDir}, nil
}

func (n *node) request(payload []byte) *ledgerv1.AppendRequest {
	id := fmt.Sprintf("%016x", n.serial.Add(1)*0x9e3779b97f4a7c15)
	return &ledgerv1.AppendRequest{
		Log: benchLog, RoutingKey: id, RequestId: id,
		Writes: []*ledgerv1.StreamWrite{{Stream: "claim-" + id, ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "bench.Event", Payload: payload}}}},
	}
}

func (n *node) append(ctx context.Context, payload []byte) error {
	res, err := n.Handler().Append(ctx, n.request(payload))
	if err == nil {
		n.last.Store(res.GetPosition())
	}
	return err
}

// settle waits for the node's audit of what it appended.
func (n *node) settle(ctx context.Context) error {
	for n.Unaudited() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (n *node) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return n.Close(ctx)
}

// remote is a node over loopback, through the client that services use.
type remote struct {
	node   *node
	server *httptest.Server
	client *server.Client
	store  *eventstore.Remote
	text   string // as long as the others' payload
}

func openRemote(n *node, size int) (*remote, error) {
	mux := http.NewServeMux()
	mux.Handle(ledgerv1connect.NewLedgerServiceHandler(n.Handler()))
	srv := httptest.NewUnstartedServer(mux)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv.Config.Protocols = protocols
	srv.Start()
	client, err := server.NewClient(server.ClientConfig{}, server.ClientDeps{})
	if err != nil {
		srv.Close()
		return nil, err
	}
	store := eventstore.NewRemote(ledgerv1connect.NewLedgerServiceClient(client, srv.URL, client.Options()...), eventstore.RemoteOptions{})
	return &remote{node: n, text: strings.Repeat("0123456789abcdef", size/16), server: srv, client: client, store: store}, nil
}

func (r *remote) append(ctx context.Context, _ []byte) error {
	id := fmt.Sprintf("%016x", r.node.serial.Add(1)*0x9e3779b97f4a7c15)
	_, err := r.store.Append(ctx, eventstore.Commit{
		Log: benchLog, RoutingKey: id, RequestID: id, Actor: "bench",
		Writes: []eventstore.Write{{Stream: "claim-" + id, Expected: eventstore.NoStream, Events: []proto.Message{&eventsv1.SubjectKeyDestroyed{Reason: r.text}}}},
	})
	return err
}

func (r *remote) settle(ctx context.Context) error { return r.node.settle(ctx) }

func (r *remote) close() error { r.client.CloseIdle(); r.server.Close(); return nil }

// consortium is four parties on one broker, three of whom make final; the
// first owns the shards. They exchange cosignatures by function call.
type consortium struct{ nodes []*node }

type line struct{ up atomic.Pointer[ledger.Node] }

func (l *line) ExchangeCosignatures(ctx context.Context, r *ledgerv1.ExchangeCosignaturesRequest) (*ledgerv1.ExchangeCosignaturesResponse, error) {
	n := l.up.Load()
	if n == nil {
		return nil, errNotUp
	}
	return n.Replicas().ExchangeCosignatures(ctx, r)
}

func (l *line) GetCommits(ctx context.Context, r *ledgerv1.GetCommitsRequest) (*ledgerv1.GetCommitsResponse, error) {
	n := l.up.Load()
	if n == nil {
		return nil, errNotUp
	}
	return n.Replicas().GetCommits(ctx, r)
}

func (l *line) GetRows(ctx context.Context, r *ledgerv1.GetRowsRequest) (*ledgerv1.GetRowsResponse, error) {
	n := l.up.Load()
	if n == nil {
		return nil, errNotUp
	}
	return n.Replicas().GetRows(ctx, r)
}

func (l *line) RepublishShard(context.Context, *ledgerv1.RepublishShardRequest) (*ledgerv1.RepublishShardResponse, error) {
	return nil, errNotUp
}

var errNotUp = errors.New("the party's node is not up")

func openConsortium(ctx context.Context, b *kfake.Cluster, dir string) (*consortium, receipt.Policy, error) {
	terms := &receipt.Terms{Origin: origin, Sequence: 1, Activation: 1, Quorum: 3, Logs: []receipt.LogShards{{Log: benchLog, Shards: 1}}}
	parties := []string{"insurer.example", "network.example", "regulator.example", "auditor.example"}
	lines := map[string]*line{}
	for _, party := range parties {
		vkey, err := ledger.EnsureKey(filepath.Join(dir, party+".key"), party)
		if err != nil {
			return nil, receipt.Policy{}, err
		}
		key, err := receipt.ParsePublicKey(vkey)
		if err != nil {
			return nil, receipt.Policy{}, err
		}
		terms.Members = append(terms.Members, receipt.Member{Role: receipt.Cosigner, Key: key})
		lines[party] = &line{}
	}
	policy, err := receipt.FirstPolicy(terms)
	if err != nil {
		return nil, receipt.Policy{}, err
	}
	file := filepath.Join(dir, "policy.txt")
	if err := os.WriteFile(file, policy.Marshal(), 0o644); err != nil {
		return nil, receipt.Policy{}, err
	}
	c := &consortium{}
	// The last to start owns the shards, so the owner is the first of nodes.
	for i := len(parties) - 1; i >= 0; i-- {
		peers := map[string]ledger.Peer{}
		for name, l := range lines {
			if name != parties[i] {
				peers[name] = l
			}
		}
		n, err := openNode(ctx, blockInterval, ledger.Config{
			Brokers: b.ListenAddrs(), TopicPrefix: "four", NodeName: parties[i], PolicyFile: file, Peers: peers,
			DataDir: filepath.Join(dir, parties[i]), SigningKeyFile: filepath.Join(dir, parties[i]+".key"),
		})
		if err != nil {
			return nil, receipt.Policy{}, errors.Join(err, c.close())
		}
		lines[parties[i]].up.Store(n.Node)
		c.nodes = append([]*node{n}, c.nodes...)
	}
	return c, policy, nil
}

// append returns when a quorum has cosigned a checkpoint over the commit.
func (c *consortium) append(ctx context.Context, payload []byte) error {
	owner := c.nodes[0]
	res, err := owner.Handler().Append(ctx, owner.request(payload))
	if err != nil {
		return err
	}
	_, err = owner.Handler().GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: res.Position, MinStage: ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL})
	return err
}

func (c *consortium) settle(ctx context.Context) error { return c.nodes[0].settle(ctx) }

func (c *consortium) close() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// accepted is the consortium's owner without waiting for the others.
type accepted struct{ *consortium }

func (a accepted) append(ctx context.Context, payload []byte) error {
	return a.nodes[0].append(ctx, payload)
}

func (accepted) close() error { return nil } // the consortium is closed once
