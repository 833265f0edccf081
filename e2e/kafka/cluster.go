// Package kafka runs Apache Kafka brokers as a production cluster has them:
// KRaft mode, a process each, every topic replicated to all. Its tests hold
// the ledger against them; the embedded broker of the unit tests is one
// process, replicates nothing and was written by others from the protocol's
// description.
package kafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/segmentio/kafka-go"

	"github.com/probity-health/probity/e2e/process"
)

// Options describe a cluster. Libs and Dir are needed.
type Options struct {
	// Libs is the folder of Kafka's jars, as run.sh fetches them.
	Libs string
	// Dir gets the brokers' data, configuration and logs.
	Dir string
	// Brokers is how many there are; 0 is 3.
	Brokers int
	// Network puts every broker in a network namespace; nil is loopback.
	Network *Network
	// Settings are broker settings over those of this package.
	Settings map[string]string
}

// Cluster is a running cluster. Its methods must have one caller at a time.
type Cluster struct {
	opts    Options
	id      string
	brokers []*broker
}

type broker struct {
	id                 int
	client, controller string // host:port
	dir                string
	process            *process.Process // nil while it doesn't run
}

// settings are the brokers' own, apart from addresses. What makes failures
// show sooner than in production is marked; nothing here makes them rarer.
var settings = map[string]string{
	"process.roles":                  "broker,controller",
	"listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
	"controller.listener.names":      "CONTROLLER",
	"inter.broker.listener.name":     "CLIENT",

	"default.replication.factor":               "3",
	"min.insync.replicas":                      "2",
	"unclean.leader.election.enable":           "false",
	"auto.create.topics.enable":                "false",
	"offsets.topic.replication.factor":         "3",
	"offsets.topic.num.partitions":             "3",
	"transaction.state.log.replication.factor": "3",
	"transaction.state.log.min.isr":            "2",
	"transaction.state.log.num.partitions":     "3",
	"num.network.threads":                      "2",
	"num.io.threads":                           "4",
	"log.cleaner.dedupe.buffer.size":           "16777216",
	"controlled.shutdown.enable":               "false",

	// Sooner than in production.
	"broker.session.timeout.ms":               "3000",
	"broker.heartbeat.interval.ms":            "500",
	"controller.quorum.election.timeout.ms":   "1000",
	"controller.quorum.fetch.timeout.ms":      "2000",
	"replica.lag.time.max.ms":                 "3000",
	"replica.socket.timeout.ms":               "3000",
	"controller.socket.timeout.ms":            "3000",
	"replica.fetch.wait.max.ms":               "100",
	"group.initial.rebalance.delay.ms":        "0",
	"group.min.session.timeout.ms":            "1000",
	"leader.imbalance.check.interval.seconds": "5",

	// How often the brokers look for what may be forgotten; how long they
	// keep it is the default, which a test may change.
	"producer.id.expiration.check.interval.ms":                   "500",
	"transaction.remove.expired.transaction.cleanup.interval.ms": "1000",
}

// Start formats and starts a cluster and waits until every broker serves.
func Start(ctx context.Context, opts Options) (_ *Cluster, err error) {
	if opts.Brokers == 0 {
		opts.Brokers = 3
	}
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	raw[0] &= 0x7f        // an id must not begin with a hyphen
	c := &Cluster{opts: opts, id: base64.RawURLEncoding.EncodeToString(raw)}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	var voters []string
	for i := range opts.Brokers {
		b := &broker{id: i + 1, dir: filepath.Join(opts.Dir, fmt.Sprintf("broker-%d", i+1))}
		if opts.Network != nil {
			b.client, b.controller = opts.Network.address(i, 9092), opts.Network.address(i, 9093)
		} else {
			if b.client, err = process.FreeAddress(ctx); err != nil {
				return nil, err
			}
			if b.controller, err = process.FreeAddress(ctx); err != nil {
				return nil, err
			}
		}
		c.brokers = append(c.brokers, b)
		voters = append(voters, fmt.Sprintf("%d@%s", b.id, b.controller))
	}
	var formatting errgroup.Group
	for _, b := range c.brokers {
		formatting.Go(func() error { return c.format(b, strings.Join(voters, ",")) })
	}
	if err := formatting.Wait(); err != nil {
		return nil, err
	}
	for i := range c.brokers {
		if err := c.start(i); err != nil {
			return nil, err
		}
	}
	return c, c.AwaitBrokers(ctx, opts.Brokers)
}

func (b *broker) config() string { return filepath.Join(b.dir, "server.properties") }

func (c *Cluster) format(b *broker, voters string) error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	all := maps.Clone(settings)
	maps.Copy(all, map[string]string{
		"node.id":                  fmt.Sprint(b.id),
		"controller.quorum.voters": voters,
		"listeners":                "CLIENT://" + b.client + ",CONTROLLER://" + b.controller,
		"advertised.listeners":     "CLIENT://" + b.client,
		"log.dirs":                 filepath.Join(b.dir, "data"),
	})
	maps.Copy(all, c.opts.Settings)
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s=%s\n", k, all[k])
	}
	if err := os.WriteFile(b.config(), []byte(text.String()), 0o644); err != nil {
		return err
	}
	p, err := process.LaunchProgram(b.dir, "format", "java",
		c.java("-Xmx64m", "kafka.tools.StorageTool", "format", "-t", c.id, "-c", b.config())...)
	if err != nil {
		return err
	}
	<-p.Done()
	if p.Err() != nil {
		return fmt.Errorf("format broker %d: %w\n%s", b.id, p.Err(), p.Tail(5))
	}
	return nil
}

// java returns the arguments of a virtual machine as small and as soon
// started as a broker of a few partitions allows.
func (c *Cluster) java(heap string, args ...string) []string {
	return append([]string{
		heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dlog4j2.configurationFile=" + filepath.Join(c.opts.Libs, "log4j2.properties"),
		"-cp", filepath.Join(c.opts.Libs, "*"),
	}, args...)
}

func (c *Cluster) start(i int) (err error) {
	b := c.brokers[i]
	path, args := "java", c.java("-Xmx320m", "kafka.Kafka", b.config())
	if c.opts.Network != nil {
		path, args = "ip", append([]string{"netns", "exec", c.opts.Network.namespace(i), path}, args...)
	}
	b.process, err = process.LaunchProgram(b.dir, fmt.Sprintf("broker-%d", b.id), path, args...)
	return err
}

// Addrs are the brokers' addresses, running or not.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, b := range c.brokers {
		out = append(out, b.client)
	}
	return out
}

// Running is how many brokers run.
func (c *Cluster) Running() int {
	n := 0
	for _, b := range c.brokers {
		if b.process != nil {
			n++
		}
	}
	return n
}

// Kill ends a broker, the first being 0, with SIGKILL.
func (c *Cluster) Kill(i int) {
	if b := c.brokers[i]; b.process != nil {
		b.process.Kill()
		b.process = nil
	}
}

// Restart starts a broker again that was killed.
func (c *Cluster) Restart(i int) error {
	if c.brokers[i].process != nil {
		return fmt.Errorf("broker %d runs", i+1)
	}
	return c.start(i)
}

// Pause and Resume stop and continue a broker's process.
func (c *Cluster) Pause(i int) error { return c.brokers[i].process.Pause() }

// Resume undoes Pause.
func (c *Cluster) Resume(i int) error { return c.brokers[i].process.Resume() }

// Stop ends all brokers.
func (c *Cluster) Stop() {
	for i := range c.brokers {
		c.Kill(i)
	}
}

// Tail is the end of what a broker logged since it was last started.
func (c *Cluster) Tail(i, lines int) string {
	if p := c.brokers[i].process; p != nil {
		return p.Tail(lines)
	}
	return ""
}

// Client returns a client whose connections the caller closes.
func (c *Cluster) Client() (*kafka.Client, func()) {
	transport := &kafka.Transport{MetadataTTL: 500 * time.Millisecond, DialTimeout: 2 * time.Second}
	return &kafka.Client{Addr: kafka.TCP(c.Addrs()...), Transport: transport, Timeout: 10 * time.Second}, transport.CloseIdleConnections
}

// AwaitBrokers waits until n brokers serve and know each other.
func (c *Cluster) AwaitBrokers(ctx context.Context, n int) error {
	return c.await(ctx, fmt.Sprintf("%d brokers", n), func(m *kafka.MetadataResponse) bool { return len(m.Brokers) == n })
}

// AwaitInSync waits until every partition of the topics with a prefix has a
// leader and n replicas in sync.
func (c *Cluster) AwaitInSync(ctx context.Context, prefix string, n int) error {
	return c.await(ctx, fmt.Sprintf("%d replicas in sync", n), func(m *kafka.MetadataResponse) bool {
		for _, t := range m.Topics {
			for _, p := range t.Partitions {
				if strings.HasPrefix(t.Name, prefix) && (p.Leader.Port == 0 || len(p.Isr) != n) {
					return false
				}
			}
		}
		return true
	})
}

// Leader returns which broker, the first being 0, leads a partition; -1 when
// none does.
func (c *Cluster) Leader(ctx context.Context, topic string, partition int) (int, error) {
	client, hangUp := c.Client()
	defer hangUp()
	m, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return 0, err
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if t.Name == topic && p.ID == partition {
				return p.Leader.ID - 1, nil
			}
		}
	}
	return -1, nil
}

// await polls the metadata of every broker that runs: they learn it at
// different times.
func (c *Cluster) await(ctx context.Context, what string, done func(*kafka.MetadataResponse) bool) error {
	var all []int
	for i := range c.brokers {
		all = append(all, i)
	}
	return c.awaitAt(ctx, what, all, done)
}

// awaitAt is await for some of the brokers.
// It gives up when for a minute none of them showed a sign of life, which is a
// new line in its log: how long a broker takes to start says
// more about the machine than about the broker.
func (c *Cluster) awaitAt(ctx context.Context, what string, which []int, done func(*kafka.MetadataResponse) bool) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	var signs string
	seen := time.Now()
	for {
		var last error
		if now := c.signs(which); now != signs {
			signs, seen = now, time.Now()
		}
		for _, i := range which {
			b := c.brokers[i]
			if b.process == nil {
				continue
			}
			select {
			case <-b.process.Done():
				return fmt.Errorf("broker %d ended: %w\n%s", b.id, errors.Join(b.process.Err(), errors.New(b.process.Tail(15))), what)
			default:
			}
			if err := b.check(ctx, done); err != nil {
				last = fmt.Errorf("broker %d: %w", b.id, err)
			}
		}
		if last == nil {
			return nil
		}
		if quiet := time.Since(seen); quiet > time.Minute {
			return fmt.Errorf("waiting for %s: no sign of life for %s: %w", what, quiet.Round(time.Second), last)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// longest bounds a wait however lively the brokers are: some of what they may
// be stuck in they log again and again.
const longest = 5 * time.Minute

// signs are the last lines that the brokers logged.
func (c *Cluster) signs(which []int) string {
	var out []string
	for _, i := range which {
		out = append(out, c.Tail(i, 1))
	}
	return strings.Join(out, "\n")
}

func (b *broker) check(ctx context.Context, done func(*kafka.MetadataResponse) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", b.client)
	if err != nil {
		return err
	}
	_ = conn.Close()
	transport := &kafka.Transport{DialTimeout: time.Second}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(b.client), Transport: transport, Timeout: 5 * time.Second}
	m, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return err
	}
	if !done(m) {
		return errors.New("not yet")
	}
	return nil
}
