package assembly

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/server"
)

// LedgerConfig of `probity serve ledger`: one node.
type LedgerConfig struct {
	ProcessConfig
	// Origin names the ledger in checkpoints and receipts; all nodes share it and it never changes.
	Origin string `json:"origin"`
	// Kafka that carries the logs.
	Kafka KafkaConfig `json:"kafka"`
	// TopicPrefix begins every topic's name; default "probity".
	TopicPrefix string `json:"topicPrefix,omitempty"`
	// Logs gives each log's number of shards; fixed at the first start. Default ledger.DefaultLogs.
	Logs map[string]int `json:"logs,omitempty"`
	// Replication factor of topics this node creates; 0 is the brokers' default.
	Replication int `json:"replication,omitempty"`
	// DataDir holds this node's replica. It may be rebuilt, or restored from a backup.
	DataDir string `json:"dataDir"`
	// SignedDir holds the memory of what was cosigned; never restore it from a backup. Default: DataDir with "-signed".
	SignedDir string `json:"signedDir,omitempty"`
	// SalvageDir is a data directory of before, damaged or behind: an empty node takes from it what is still sound, and
	// only the rest from a peer.
	SalvageDir string `json:"salvageDir,omitempty"`
	// StartFromRows makes a node with an empty data directory take the index rows of what is final from a peer, and not
	// the commits: it judges, cosigns and proves, and gives out no event from before.
	StartFromRows bool `json:"startFromRows,omitempty"`
	// SigningKeyFile holds the note signer key, named as the member in the policy.
	SigningKeyFile string `json:"signingKeyFile"`
	// PolicyFile holds the ledger's policy, one text for all parties; empty is a ledger of one party.
	PolicyFile string `json:"policyFile,omitempty"`
	// Peers are base URLs of the other members' nodes, by member name. This node calls them with its own token.
	Peers map[string]string `json:"peers,omitempty"`
	// BlockInterval is the least time between two blocks; default 250ms.
	BlockInterval server.Duration `json:"blockInterval,omitempty"`
	// NodeName names the node in barriers and blocks.
	NodeName string `json:"nodeName,omitempty"`
	// Cluster shares the shards with other nodes; without it the node is alone and takes all.
	Cluster *ClusterConfig `json:"cluster,omitempty"`
}

// ClusterConfig of a ledger node that shares the shards with others.
type ClusterConfig struct {
	// Group is the Kafka consumer group's id; default "<topicPrefix>.owners".
	Group string `json:"group,omitempty"`
	// URL at which the other nodes reach this one's RPCs.
	URL string `json:"url"`
	// Peers are the URLs of all nodes: appends are passed on to no other. Empty trusts
	// whoever may join the group, which a broker ACL should then guard.
	Peers []string `json:"peers,omitempty"`
	// SessionTimeout is how long a node may be silent before others take its shards; default 6s.
	SessionTimeout server.Duration `json:"sessionTimeout,omitempty"`
}

// KafkaConfig says how to reach the brokers.
type KafkaConfig struct {
	// Brokers, host:port each.
	Brokers []string `json:"brokers"`
	// TLS on; CAFile replaces the system's authorities, CertFile and KeyFile show a client certificate.
	TLS      bool   `json:"tls,omitempty"`
	CAFile   string `json:"caFile,omitempty"`
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
	// SASLMechanism is "PLAIN", "SCRAM-SHA-256" or "SCRAM-SHA-512"; empty is none.
	SASLMechanism string `json:"saslMechanism,omitempty"`
	Username      string `json:"username,omitempty"`
	PasswordFile  string `json:"passwordFile,omitempty"`
}

func (c KafkaConfig) tls() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pool, err := authorities(c.CAFile)
		if err != nil {
			return nil, err
		}
		out.RootCAs = pool
	}
	if c.CertFile != "" || c.KeyFile != "" {
		certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("configuration: kafka.certFile: %w", err)
		}
		out.Certificates = []tls.Certificate{certificate}
	}
	return out, nil
}

func (c KafkaConfig) sasl() (sasl.Mechanism, error) {
	if c.SASLMechanism == "" {
		return nil, nil
	}
	if !c.TLS && c.SASLMechanism == "PLAIN" {
		return nil, fmt.Errorf("configuration: kafka.saslMechanism PLAIN sends the password; it needs kafka.tls")
	}
	raw, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("configuration: kafka.passwordFile: %w", err)
	}
	password := strings.TrimSpace(string(raw))
	switch c.SASLMechanism {
	case "PLAIN":
		return plain.Mechanism{Username: c.Username, Password: password}, nil
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, c.Username, password)
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, c.Username, password)
	}
	return nil, fmt.Errorf("configuration: kafka.saslMechanism %q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", c.SASLMechanism)
}

// cluster returns a node's place in its cluster; nil is none. Peers are called
// under this process's own token.
func (p *Process) cluster(cfg *ClusterConfig) (*ledger.Cluster, error) {
	if cfg == nil {
		return nil, nil
	}
	client, err := p.Own()
	if err != nil {
		return nil, err
	}
	return &ledger.Cluster{
		Group: cfg.Group, URL: cfg.URL, Peers: cfg.Peers, SessionTimeout: time.Duration(cfg.SessionTimeout),
		Dial: func(url string) ledgerv1connect.LedgerServiceClient {
			return ledgerv1connect.NewLedgerServiceClient(client, url, client.Options()...)
		},
		DialProofs: func(url string) ledgerv1connect.ProofServiceClient {
			return ledgerv1connect.NewProofServiceClient(client, url, client.Options()...)
		},
	}, nil
}

// Topics returns sources of the node's topics, for who reads them without a
// node, and what closes their connections.
func (c LedgerConfig) Topics() (topics func(log string, shard uint32) replica.Source, hangUp func(), err error) {
	transport := &kafka.Transport{DialTimeout: 5 * time.Second}
	if transport.TLS, err = c.Kafka.tls(); err != nil {
		return nil, nil, err
	}
	if transport.SASL, err = c.Kafka.sasl(); err != nil {
		return nil, nil, err
	}
	prefix := c.TopicPrefix
	if prefix == "" {
		prefix = ledger.DefaultTopicPrefix
	}
	client := &kafka.Client{Addr: kafka.TCP(c.Kafka.Brokers...), Transport: transport, Timeout: 15 * time.Second}
	return func(log string, shard uint32) replica.Source {
		return &replica.KafkaSource{Client: client, Topic: prefix + "." + log, Partition: int(shard)}
	}, transport.CloseIdleConnections, nil
}

// batchBytes bounds one AppendBatch: many commits of up to 900 KiB in principle, a few KiB in practice.
const batchBytes = 32 << 20

// Ledger adds a ledger node to p.
func Ledger(ctx context.Context, p *Process, cfg LedgerConfig) error {
	transport, err := cfg.Kafka.tls()
	if err != nil {
		return err
	}
	mechanism, err := cfg.Kafka.sasl()
	if err != nil {
		return err
	}
	cluster, err := p.cluster(cfg.Cluster)
	if err != nil {
		return err
	}
	peers, err := p.peers(cfg.Peers)
	if err != nil {
		return err
	}
	node, err := ledger.Open(ctx, ledger.Config{
		Cluster: cluster,
		Origin:  cfg.Origin, Brokers: cfg.Kafka.Brokers, TLS: transport, SASL: mechanism,
		TopicPrefix: cfg.TopicPrefix, Logs: cfg.Logs, Replication: cfg.Replication,
		DataDir: cfg.DataDir, SignedDir: cfg.SignedDir, StartFromRows: cfg.StartFromRows, SalvageDir: cfg.SalvageDir, SigningKeyFile: cfg.SigningKeyFile,
		PolicyFile: cfg.PolicyFile, Peers: peers,
		BlockInterval: time.Duration(cfg.BlockInterval), NodeName: cfg.NodeName,
		Logger: p.Telemetry.Log, Meters: p.Telemetry.Meter,
	})
	if err != nil {
		return err
	}
	p.Add(Part{Name: "ledger", Drain: node.EndStreams, Close: node.Close})
	p.Server.AddCheck("ledger", node.Ready)
	// Its clients find the node that took over behind the same address.
	p.Server.ShedWhen(node.Lost)
	guard := connect.WithInterceptors(authorized{p.Authorizer, identity.Resource{Type: identity.Ledger}})
	p.Server.Mount(ledgerv1connect.NewLedgerServiceHandler(node.Handler(),
		p.Server.Options(connect.WithReadMaxBytes(batchBytes), guard)...))
	// A commit's events are never changed once they are made, on either side.
	p.Server.HandOver(ledgerv1connect.LedgerServiceAppendProcedure, ledgerv1connect.LedgerServiceAppendBatchProcedure,
		ledgerv1connect.LedgerServiceReadStreamProcedure, ledgerv1connect.LedgerServiceReadStreamsProcedure,
		ledgerv1connect.LedgerServiceSubscribeProcedure)
	server.Quick(p.Server, ledger.FitsSchema)
	p.Server.Mount(ledgerv1connect.NewProofServiceHandler(node.Proofs(), p.Server.Options(guard)...))
	p.Server.Mount(ledgerv1connect.NewReplicaServiceHandler(node.Replicas(), p.Server.Options(guard)...))
	tiles := node.Tiles()
	p.Server.MountPublic("GET /tile/", tiles)
	p.Server.MountPublic("GET /shards/", tiles)
	p.Server.MountPublic("GET /checkpoint", tiles)
	return nil
}

// peers returns the clients of the other members' nodes.
func (p *Process) peers(urls map[string]string) (map[string]ledger.Peer, error) {
	if len(urls) == 0 {
		return nil, nil
	}
	client, err := p.Own()
	if err != nil {
		return nil, err
	}
	out := make(map[string]ledger.Peer, len(urls))
	for name, url := range urls {
		out[name] = ledgerv1connect.NewReplicaServiceClient(client, url, client.Options()...)
	}
	return out, nil
}
