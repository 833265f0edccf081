package ledger

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"go.opentelemetry.io/otel/metric"

	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/shard"
)

// Defaults of Config.
const (
	DefaultTopicPrefix   = "probity"
	DefaultBlockInterval = 250 * time.Millisecond
)

// DefaultLogs are the logs of a Config that names none, with their shards.
func DefaultLogs() map[string]int { return map[string]int{"policies": 1, "claims": 4, "consent": 1} }

// Config describes a ledger node. Origin, Brokers, DataDir and SigningKeyFile
// are needed; everything else has a usable zero value.
type Config struct {
	// Origin names the ledger in checkpoints and receipts, by convention a
	// schema-less URL: "ledger.example.org/health". All nodes share it, and
	// it never changes.
	Origin string
	// Brokers are Kafka bootstrap addresses, host:port.
	Brokers []string
	// TLS secures the connections to the brokers; nil is plaintext.
	TLS *tls.Config
	// SASL authenticates to the brokers; nil is no authentication.
	SASL sasl.Mechanism
	// TopicPrefix begins every topic's name: "<prefix>.<log>". Empty is "probity".
	TopicPrefix string
	// Logs gives each log's number of shards (Kafka partitions). It's fixed by
	// the first start and never changes; new logs may be added. Empty is
	// DefaultLogs. "blocks" is the ledger's own.
	Logs map[string]int
	// Replication is the replication factor of topics this node creates; 0
	// is the brokers' default. From 3 on, all replicas but one must be in
	// sync for an append.
	Replication int
	// DataDir holds the replica: its store and tiles. It may be deleted and
	// rebuilt, or restored from a backup.
	DataDir string
	// SignedDir holds the memory of what this node cosigned. It must survive
	// whatever happens to DataDir and must never be restored from a backup:
	// keep it out of the backup set. Empty is DataDir with "-signed" after it.
	SignedDir string
	// SigningKeyFile holds the Ed25519 note signer key ("PRIVATE+KEY+…"),
	// readable by its owner only. EnsureKey makes one. Its name is the
	// member's in the policy.
	SigningKeyFile string
	// PolicyFile holds the ledger's policy: members, quorum, logs (package
	// receipt, Terms). All members' files begin with the same first version;
	// changes that the ledger doesn't hold yet are recorded from here. Empty
	// is a ledger of one party, this node's key, named as Origin.
	PolicyFile string
	// Peers are the other members' nodes by member name: cosignatures are
	// exchanged with them, and commits fetched that Kafka no longer has.
	Peers map[string]Peer
	// StartFromRows makes a node whose data directory is empty take the index
	// rows of what is final from a peer, and not the commits: it then judges,
	// cosigns and proves as any other, and gives out no event from before.
	StartFromRows bool
	// SalvageDir is a data directory of before, damaged or behind. A node whose
	// DataDir is empty takes from it what is still sound, and only the rest from
	// a peer; all of it is proved as if it came from the peer. Nothing in it is
	// changed. It needs Peers.
	SalvageDir string
	// PeerInterval is the most time between two exchanges with a peer; 0 is
	// 1 s. News is sent at once.
	PeerInterval time.Duration
	// ScrubInterval is the time between two steps of the sweep that reads
	// everything stored back, 256 commits at a time; 0 is 250 ms. A step that
	// takes long is followed by a longer rest: the sweep gets a fiftieth of a core.
	ScrubInterval time.Duration
	// TopicGrace is how long a topic may lack what was read from it before it
	// is compared with what this node holds, and then how long before the
	// shard halts; 0 is 10 s.
	TopicGrace time.Duration
	// BlockInterval is the least time between two blocks; 0 is 250 ms. A
	// commit after a quiet time is sealed at once.
	BlockInterval time.Duration
	// NodeName names this node in barriers and blocks; empty is "node".
	NodeName string

	// Cluster makes this node share the shards with others; nil is a lone node,
	// which takes every shard at once and keeps it until another lone node does.
	Cluster *Cluster

	// Logger gets what operators should know; nil is slog.Default. No health
	// data, stream content or routing key is ever logged.
	Logger *slog.Logger
	// Meters gets the node's metrics; nil is none.
	Meters metric.MeterProvider
	// Now is the clock that stamps commits and blocks; nil is time.Now.
	Now func() time.Time
}

// Cluster is a node's place among those that share the shards through a
// Kafka consumer group. Every node follows and serves all shards; each is
// written by one of them, and the others pass its appends on.
type Cluster struct {
	// Group is the consumer group's id; empty is "<TopicPrefix>.owners".
	Group string
	// URL is where the other nodes reach this one's LedgerService.
	URL string
	// Peers are the URLs that appends may be passed on to. Empty trusts
	// whoever may join the group: then guard it by a broker ACL.
	Peers []string
	// Dial returns a client of the node at a URL that acts under this node's
	// own credentials, not its callers'.
	Dial func(url string) ledgerv1connect.LedgerServiceClient
	// DialProofs does the same for the ProofService, to pass changes of the
	// policy on. Nil passes none on.
	DialProofs func(url string) ledgerv1connect.ProofServiceClient
	// SessionTimeout is how long a node may be silent before its shards are
	// given to others; 0 is 6 s, the least brokers allow by default.
	SessionTimeout time.Duration
}

// Peer is another node of the ledger, as its ReplicaService is called.
type Peer = ledgerv1connect.ReplicaServiceClient

var topicPrefix = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)

// withDefaults fills zero values in and checks what remains.
func (c Config) withDefaults() (Config, error) {
	if c.TopicPrefix == "" {
		c.TopicPrefix = DefaultTopicPrefix
	}
	if c.SignedDir == "" && c.DataDir != "" {
		c.SignedDir = filepath.Clean(c.DataDir) + "-signed"
	}
	if c.PeerInterval == 0 {
		c.PeerInterval = time.Second
	}
	if c.ScrubInterval == 0 {
		c.ScrubInterval = 250 * time.Millisecond
	}
	if len(c.Logs) == 0 {
		c.Logs = DefaultLogs()
	}
	c.Logs = maps.Clone(c.Logs)
	if c.BlockInterval == 0 {
		c.BlockInterval = DefaultBlockInterval
	}
	if c.NodeName == "" {
		c.NodeName = "node"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ledger: config: "+format, args...)) }
	if !receipt.ValidOrigin(c.Origin) {
		bad("Origin must be printable ASCII without spaces and plus, at most 200 bytes")
	}
	if len(c.Brokers) == 0 {
		bad("Brokers is empty")
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			bad("broker %q is not host:port", b)
		}
	}
	if !topicPrefix.MatchString(c.TopicPrefix) {
		bad("TopicPrefix %q does not begin a Kafka topic name", c.TopicPrefix)
	}
	if c.DataDir == "" {
		bad("DataDir is empty")
	}
	if c.SigningKeyFile == "" {
		bad("SigningKeyFile is empty; EnsureKey makes a key")
	}
	if c.PeerInterval < 0 || c.ScrubInterval < 0 || c.TopicGrace < 0 {
		bad("PeerInterval, ScrubInterval and TopicGrace must not be negative")
	}
	if c.BlockInterval < time.Millisecond || c.BlockInterval > time.Minute {
		bad("BlockInterval must be 1 ms to 1 min")
	}
	if c.Replication < 0 {
		bad("Replication is negative")
	}
	if c.Cluster != nil {
		cluster := *c.Cluster
		c.Cluster = &cluster
		if cluster.Group == "" {
			c.Cluster.Group = c.TopicPrefix + ".owners"
		}
		if u, err := url.Parse(cluster.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad("Cluster.URL %q is not an http or https URL", cluster.URL)
		}
		if cluster.Dial == nil {
			bad("Cluster.Dial is missing")
		}
		if cluster.SessionTimeout != 0 && (cluster.SessionTimeout < 100*time.Millisecond || cluster.SessionTimeout > 5*time.Minute) {
			bad("Cluster.SessionTimeout must be 100 ms to 5 min")
		}
	}
	total := 0
	for log, n := range c.Logs {
		if !core.ValidLog(log) || log == replica.BlockLog {
			bad("log name %q is not 1 to 32 lower-case letters, or is the ledger's own", log)
		}
		if n < 1 {
			bad("log %q has no shards", log)
		}
		total += n
	}
	if total > receipt.MaxBlockHeads {
		bad("%d shards are more than the %d a block can name", total, receipt.MaxBlockHeads)
	}
	return c, errors.Join(errs...)
}

func (c Config) topic(log string) string { return c.TopicPrefix + "." + log }

// transactionalID is the name under which the owners of a shard fence each
// other, the same for every node.
func (c Config) transactionalID(log string, shard int) string {
	return fmt.Sprintf("%s.%d", c.topic(log), shard)
}

func (c Config) clientID() string { return "probity-ledger/" + c.NodeName }

// logNames returns the configured logs in order.
func (c Config) logNames() []string { return slices.Sorted(maps.Keys(c.Logs)) }

// topics lists the topics the ledger needs.
func (c Config) topics() []shard.Topic {
	minInSync := 0
	switch {
	case c.Replication >= 3:
		minInSync = c.Replication - 1
	case c.Replication > 0:
		minInSync = 1
	}
	out := []shard.Topic{{Name: c.topic(replica.BlockLog), Partitions: 1, Replication: c.Replication, MinInSync: minInSync}}
	for _, log := range c.logNames() {
		out = append(out, shard.Topic{Name: c.topic(log), Partitions: c.Logs[log], Replication: c.Replication, MinInSync: minInSync})
	}
	return out
}

// client returns a Kafka client whose metadata covers the given topics, or
// all with none given, and a function that closes its connections.
func (c Config) client(topics []shard.Topic) (*kafka.Client, func()) {
	var names []string
	for _, t := range topics {
		names = append(names, t.Name)
	}
	views := shard.NewViews(func() *kafka.Transport {
		return &kafka.Transport{
			TLS: c.TLS, SASL: c.SASL, ClientID: c.clientID(),
			MetadataTopics: names,
			// kafka-go cannot be told to refresh, so this bounds how long a
			// moved leader goes unnoticed.
			MetadataTTL: 2 * time.Second,
			IdleTimeout: 5 * time.Minute,
			DialTimeout: 5 * time.Second,
		}
	})
	return &kafka.Client{Addr: kafka.TCP(c.Brokers...), Transport: views, Timeout: 15 * time.Second}, views.CloseIdleConnections
}
