// Package ledger is a node of the ledger: it owns shards and appends to them,
// replicates every shard, seals blocks, and serves appends, reads, following
// and proofs.
//
// A Node puts three independent halves together. A shard.Writer a shard holds
// the right to write and decides appends. A replica.Shard a shard follows the
// topic and re-checks what any writer wrote, this node's own included. And
// replica.Blocks verifies and signs blocks that any node proposed. Writers
// depend on replicas, never the other way round, so a node may follow what it
// doesn't own.
package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/shard"
	"github.com/probity-health/probity/services/problem"
)

// auditBytes is what an audit reads of a topic at once.
const auditBytes = 512 << 10

// Node is a running ledger node. All methods are safe for concurrent use.
type Node struct {
	cfg     Config
	key     *receipt.SigningKey
	policy  receipt.Policy // as configured; the ledger's own is in blocks
	store   *replica.Store
	logs    map[string]*log // fixed after Open
	moved   replica.Signal  // any shard of any log moved
	blocks  *replica.Blocks
	block   *member      // the block log's own shard
	session string       // names this run of the node in barriers
	group   *shard.Group // nil for a lone node
	forward *forwarder   // nil for a lone node
	appends horizon      // of calls that wait for an append
	metrics *metrics
	logger  *slog.Logger

	generation atomic.Int64       // how often the group shared the shards with this node
	sealing    atomic.Bool        // the newest block was once verified and signed
	hangUp     func()             // closes the connections to the brokers
	stop       context.CancelFunc // ends everything below
	leave      context.CancelFunc // leaves the group; nil for a lone node
	running    sync.WaitGroup
	closing    chan struct{} // closed by EndStreams: following streams end
	ending     sync.Once     // closes closing
	once       sync.Once

	gate   sync.RWMutex // held for reading around every use of the store
	closed bool         // guarded by gate; the store is gone
}

// log is one log's shards on this node.
type log struct {
	shards  []*member
	changed replica.Signal // any of the shards moved
}

// member is a shard on this node.
type member struct {
	replica  *replica.Shard
	writer   *shard.Writer
	assigned atomic.Bool // the shard is this node's to write
	followed atomic.Bool // the replica once reached the topic's end
}

// Open starts a node: it creates missing topics, opens the local replica and
// begins to follow, take and seal in the background. Ready tells when the
// node serves. ctx bounds Open alone.
func Open(ctx context.Context, config Config) (_ *Node, err error) {
	cfg, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	key, err := loadKey(cfg.SigningKeyFile)
	if err != nil {
		return nil, err
	}
	policy, err := cfg.policy(key.Public())
	if err != nil {
		return nil, err
	}
	// The bootstrap client knows no topics yet; the one that stays asks the
	// brokers for the ledger's alone.
	bootstrap, hangUp := cfg.client(nil)
	err = shard.EnsureTopics(ctx, bootstrap, cfg.topics())
	hangUp()
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.DataDir, cfg.SignedDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := cfg.catchUp(ctx, key, policy); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, key: key, policy: policy, logger: cfg.Logger, logs: map[string]*log{}, closing: make(chan struct{}), appends: horizon{after: appendTimeout}}
	if n.metrics, err = newMetrics(cfg.Meters); err != nil {
		return nil, err
	}
	if n.store, err = replica.OpenStore(filepath.Join(cfg.DataDir, "store"), cfg.Logger); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.store.Damaged(), n.store.Close())
		}
	}()
	client, hangUp := cfg.client(cfg.topics())
	n.hangUp = hangUp
	n.session = cfg.NodeName + "-" + strings.ToLower(rand.Text())
	open := func(name string, index int, signals ...*replica.Signal) (*member, error) {
		r, err := replica.OpenShard(replica.ShardConfig{
			Log: name, Shard: uint32(index), Store: n.store, Dir: filepath.Join(cfg.DataDir, "tiles"),
			Source: &replica.KafkaSource{Client: client, Topic: cfg.topic(name), Partition: index, Reuse: true},
			Audit:  &replica.KafkaSource{Client: client, Topic: cfg.topic(name), Partition: index, Reuse: true, Most: auditBytes},
			Logger: cfg.Logger, Signals: signals, Grace: cfg.TopicGrace,
		})
		if err != nil {
			return nil, fmt.Errorf("ledger: open shard %s/%d: %w", name, index, err)
		}
		observer := n.metrics.observer(name, index)
		// Taking the block log makes this node the proposer, and commits may
		// have been waiting for one: no shard needs to move for that.
		observer.Changed = func(shard.State) { n.moved.Broadcast() }
		w := shard.NewWriter(shard.Config{
			Client: client, Topic: cfg.topic(name), Log: name, Shard: uint32(index),
			TransactionalID: cfg.transactionalID(name, index), Origin: cfg.Origin,
			Signer: key.Notes(), Follower: r, Moved: r.Changed.Wait, Session: n.session, Alone: cfg.Cluster == nil, Now: cfg.Now, Logger: cfg.Logger,
			Observer: observer,
		})
		return &member{replica: r, writer: w}, nil
	}
	var all []*replica.Shard
	for _, name := range cfg.logNames() {
		l := &log{}
		for i := range cfg.Logs[name] {
			m, err := open(name, i, &l.changed, &n.moved)
			if err != nil {
				return nil, err
			}
			l.shards = append(l.shards, m)
			all = append(all, m.replica)
		}
		n.logs[name] = l
	}
	if n.block, err = open(replica.BlockLog, 0, &n.moved); err != nil {
		return nil, err
	}
	n.blocks, err = replica.OpenBlocks(replica.BlocksConfig{
		Root: policy.First(), Store: n.store, Dir: cfg.DataDir, SignedDir: cfg.SignedDir, Log: n.block.replica,
		Shards: all, Key: key, Now: cfg.Now, ScrubInterval: cfg.ScrubInterval, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: open the block log: %w", err)
	}
	if err := n.checkGenesis(); err != nil {
		return nil, err
	}
	if cfg.Cluster != nil {
		n.join(client)
	}
	if err := n.metrics.watch(n); err != nil {
		return nil, err
	}
	n.start()
	return n, nil
}

// checkGenesis compares the configuration with the policy on the ledger.
func (n *Node) checkGenesis() error {
	terms := n.blocks.Policy().Last()
	if terms == nil {
		return nil
	}
	for _, l := range terms.Logs {
		if c := n.cfg.Logs[l.Log]; c != int(l.Shards) {
			return fmt.Errorf("ledger: policy %d has %d shards of log %s and the configuration says %d", terms.Sequence, l.Shards, l.Log, c)
		}
	}
	return nil
}

// join makes the node a member of the group that shares the shards.
func (n *Node) join(client *kafka.Client) {
	places := map[shard.Place]*member{}
	n.members(func(name string, i int, m *member) {
		places[shard.Place{Topic: n.cfg.topic(name), Partition: i}] = m
	})
	which := func(is func(*member) bool) func() []shard.Place {
		return func() (out []shard.Place) {
			for p, m := range places {
				if is(m) {
					out = append(out, p)
				}
			}
			return out
		}
	}
	n.group = shard.NewGroup(shard.GroupConfig{
		ID: n.cfg.Cluster.Group, Brokers: n.cfg.Brokers, TLS: n.cfg.TLS, SASL: n.cfg.SASL,
		ClientID: n.cfg.clientID(), Client: client, Session: n.session, URL: n.cfg.Cluster.URL,
		SessionTimeout: n.cfg.Cluster.SessionTimeout, Logger: n.logger, Places: slices.Collect(maps.Keys(places)),
		Holds: which(func(m *member) bool { return m.writer.State() == shard.Owning }),
		// Who signs no more must not propose: nothing would become final.
		Unfit: which(func(m *member) bool {
			return m.replica.Halted() != nil || m == n.block && n.blocks.Halted() != nil
		}),
		Assigned: func(mine map[shard.Place]bool) {
			for p, m := range places {
				if m.assigned.Store(mine[p]); mine[p] {
					m.writer.Assign()
				} else {
					m.writer.Release()
				}
			}
			n.generation.Add(1)
			n.moved.Broadcast()
		},
	})
	n.forward = &forwarder{n: n, group: n.group, peers: map[string]*peer{}}
}

// members visits every shard, the block log's last.
func (n *Node) members(visit func(log string, index int, m *member)) {
	for _, name := range n.cfg.logNames() {
		for i, m := range n.logs[name].shards {
			visit(name, i, m)
		}
	}
	visit(replica.BlockLog, 0, n.block)
}

// start runs the node's parts. A writer ends with its replica: without it
// there is no state to decide on.
func (n *Node) start() {
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	run := func(f func()) {
		n.running.Add(1)
		go func() {
			defer n.running.Done()
			f()
		}()
	}
	each := func(m *member) {
		if n.group == nil {
			// Before Open returns, so that an append right after it waits
			// for the shard instead of being refused.
			m.assigned.Store(true)
			m.writer.Assign()
		}
		ctx, halt := context.WithCancel(ctx)
		run(func() {
			defer halt()
			// A halt is logged by the replica and shows in Ready.
			_ = m.replica.Run(ctx)
			if n.group != nil {
				n.group.Rejoin() // others are fit for it
			}
		})
		run(func() { m.replica.Audit(ctx) })
		run(func() {
			// A lost shard is logged by the writer and shows in Ready.
			m.writer.Run(ctx)
		})
	}
	n.members(func(_ string, _ int, m *member) { each(m) })
	if n.group != nil {
		ctx, leave := context.WithCancel(ctx)
		n.leave = leave
		run(func() { n.group.Run(ctx) })
	}
	run(func() {
		// A halt is logged by Blocks and shows in Ready.
		_ = n.blocks.Run(ctx)
		if n.group != nil {
			n.group.Rejoin() // others are fit to propose
		}
	})
	run(func() { n.store.Patrol(ctx, n.cfg.ScrubInterval) })
	run(func() { n.propose(ctx) })
	for name, peer := range n.cfg.Peers {
		run(func() { n.exchange(ctx, name, peer) })
	}
}

// Handler returns the node as the RPC service's implementation.
func (n *Node) Handler() ledgerv1connect.LedgerServiceHandler { return handler{n} }

// Replicas returns what the node answers its peers.
func (n *Node) Replicas() ledgerv1connect.ReplicaServiceHandler { return replicas{n} }

// Proofs returns the node's consistency proofs, evidence and policy.
func (n *Node) Proofs() ledgerv1connect.ProofServiceHandler { return proofs{n} }

// VerifierKey returns the key that verifies this node's cosignatures, a
// cosignature/v1 vkey.
func (n *Node) VerifierKey() string { return n.key.Public().String() }

// Ready returns nil when every shard is followed to its end, those that are
// this node's to write are written by it, and the blocks are verified as far;
// or what is missing.
func (n *Node) Ready(context.Context) error {
	if n.group != nil {
		if _, since := n.group.Current(); !n.joined() {
			return problem.New(problem.Unavailable, problem.Problem{
				RuleID:  "ledger.group.none",
				Message: fmt.Sprintf("this node has not joined the group that shares the shards, for %s", time.Since(since).Round(time.Second)),
				Fix:     "wait; when it lasts check the brokers' group coordinator and this node's right to join the group",
			})
		}
	}
	// What doesn't pass by itself first.
	if err := n.blocks.Halted(); err != nil {
		return err
	}
	var missing error
	n.members(func(name string, i int, m *member) {
		if missing == nil {
			missing = n.ready(name, i, m)
		}
	})
	if missing != nil {
		return missing
	}
	if !n.sealing.Load() && !n.sealedAll() {
		return problem.New(problem.Unavailable, problem.Problem{
			RuleID:  "ledger.blocks.catching-up",
			Message: "this node is still verifying the blocks of its predecessors",
			Fix:     "wait; until then it has no checkpoint and no receipt to give",
		})
	}
	n.sealing.Store(true)
	return nil
}

// joined tells whether the group ever gave this node its shards: between two
// generations it goes on with those of the first.
func (n *Node) joined() bool { return n.generation.Load() > 0 }

func (n *Node) ready(name string, i int, m *member) error {
	if err := m.replica.Halted(); err != nil {
		return err
	}
	if behind, known := m.replica.Lag(); known && behind == 0 {
		m.followed.Store(true)
	}
	if !m.followed.Load() {
		return problem.New(problem.Unavailable, problem.Problem{
			RuleID:  "ledger.replica.catching-up",
			Message: fmt.Sprintf("this replica has not read shard %s/%d to its end yet", name, i),
			Fix:     "wait; until then it doesn't show everything",
		})
	}
	if st := m.writer.State(); m.assigned.Load() && st != shard.Owning {
		return problem.New(problem.Unavailable, problem.Problem{
			RuleID:  "ledger.shard." + st.String(),
			Message: fmt.Sprintf("shard %s/%d is not written by this node (%s)", name, i, st),
			Fix:     "wait while it is taking the shard; when it lost it, another node runs with the same topics",
		})
	}
	return nil
}

// sealedAll tells whether this node judged all that the block log holds and,
// where its own cosignature is a quorum, has given it. Elsewhere what is final
// hangs on the other parties, and a node is ready without them. It may be
// false for a moment whenever a block arrives.
func (n *Node) sealedAll() bool {
	last, done := n.blocks.Last()
	if done < n.block.replica.Head().Next {
		return false
	}
	if last == nil || n.blocks.Policy().At(last.Height).Quorum > 1 {
		return true
	}
	_, final := n.blocks.Final()
	return final != nil && final.Height >= last.Height
}

// Lost tells whether another lone node took one of the shards: for good, so
// this one still answers reads and what it follows, and no append of that
// shard. A node of a cluster passes appends on instead and is never lost.
func (n *Node) Lost() bool {
	lost := false
	if n.group == nil {
		n.members(func(_ string, _ int, m *member) { lost = lost || m.writer.State() == shard.Lost })
	}
	return lost
}

// Owned returns how many shards this node writes, the block log's included.
func (n *Node) Owned() int {
	owned := 0
	n.members(func(_ string, _ int, m *member) {
		if m.writer.State() == shard.Owning {
			owned++
		}
	})
	return owned
}

// Unaudited returns how many records this node's owners handed over that were
// not compared with their topics yet.
func (n *Node) Unaudited() int64 {
	var all int64
	n.members(func(_ string, _ int, m *member) { all += m.replica.Unaudited() })
	return all
}

// EndStreams ends the streams that follow a log, which have no end of their
// own, and calls that wait for a receipt; new ones end where they would wait.
// The node also leaves the group, so that others take its shards over while
// it still answers. Everything else goes on until Close, which calls it too.
func (n *Node) EndStreams() {
	n.ending.Do(func() {
		close(n.closing)
		if n.leave != nil {
			n.leave()
		}
	})
}

// Close stops taking appends, answers those it took, ends following streams
// and closes the store. When ctx ends first the unanswered appends get
// Unavailable. A second call does nothing.
func (n *Node) Close(ctx context.Context) error {
	var err error
	n.once.Do(func() {
		n.EndStreams()
		n.members(func(_ string, _ int, m *member) { err = errors.Join(err, m.writer.Drain(ctx)) })
		n.stop()
		n.running.Wait()
		n.metrics.unwatch()
		n.hangUp()
		n.gate.Lock()
		defer n.gate.Unlock()
		n.closed = true
		err = errors.Join(err, n.blocks.Publish(), n.store.Sync(), n.store.Close())
	})
	return err
}

// read runs f, which uses the store for a moment, unless the node is closed.
// A call that waits or sends must do so outside f, or Close would wait for it.
func (n *Node) read(f func() error) error {
	n.gate.RLock()
	defer n.gate.RUnlock()
	if n.closed {
		return closed()
	}
	return f()
}

// find returns a shard of a log.
func (n *Node) find(name string, index uint32) (*member, error) {
	l, ok := n.logs[name]
	if !ok || int(index) >= len(l.shards) {
		return nil, problem.New(problem.NotFound, problem.Problem{
			RuleID: "ledger.log.unknown", FieldPath: "log",
			Message: "this ledger has no such log or shard",
			Fix:     "GetLedger lists the logs and shards there are",
		})
	}
	return l.shards[index], nil
}

// route returns the shard a routing key lives in.
func (n *Node) route(name, key string) (*member, uint32, error) {
	l, ok := n.logs[name]
	if !ok {
		_, err := n.find(name, 0)
		return nil, 0, err
	}
	i := core.Route(key, uint32(len(l.shards)))
	return l.shards[i], i, nil
}
