package shard

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
)

// GroupConfig is what a Group is made of; all fields but TLS, SASL and
// SessionTimeout are needed.
type GroupConfig struct {
	ID       string // of the consumer group
	Brokers  []string
	TLS      *tls.Config
	SASL     sasl.Mechanism
	ClientID string
	Client   *kafka.Client // asks who the other members are
	// Places are all shards of the ledger.
	Places []Place
	// Session is this node's name in barriers, URL where peers reach it.
	Session, URL string
	// SessionTimeout is how long a node may be silent before its shards are
	// given to others; 0 is 6 s, the least that Kafka brokers allow unless
	// told otherwise.
	SessionTimeout time.Duration
	// Holds and Unfit return what this node writes now and what it can't.
	Holds, Unfit func() []Place
	// Assigned is told of every generation what is this node's to write.
	Assigned func(map[Place]bool)
	Logger   *slog.Logger
}

// DefaultSessionTimeout is GroupConfig.SessionTimeout's default.
const DefaultSessionTimeout = 6 * time.Second

// Group is a node's membership among those that share the shards. It says
// whose turn a shard is and no more: the producer epoch alone decides who
// can write. So a member goes on writing through a rebalance, and while it
// can't reach the coordinator, until it's fenced or told that it's over.
type Group struct {
	cfg    GroupConfig
	rejoin chan struct{} // has room for one

	mu      sync.Mutex // guards what follows
	current bool       // a generation is on
	since   time.Time  // when current changed
	peers   map[string]string

	asking chan struct{} // held while the members are asked for
	asked  time.Time     // guarded by asking
}

// NewGroup returns a Group that joins once it runs.
func NewGroup(cfg GroupConfig) *Group {
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = DefaultSessionTimeout
	}
	return &Group{
		cfg: cfg, rejoin: make(chan struct{}, 1), since: time.Now(),
		peers: map[string]string{}, asking: make(chan struct{}, 1),
	}
}

// userData is what members tell each other when they join.
type userData struct {
	Session string           `json:"session"`
	URL     string           `json:"url"`
	Holds   map[string][]int `json:"holds,omitempty"`
	Unfit   map[string][]int `json:"unfit,omitempty"`
}

func byTopic(places []Place) map[string][]int {
	out := map[string][]int{}
	for _, p := range places {
		out[p.Topic] = append(out[p.Topic], p.Partition)
	}
	return out
}

// balancer is Balance in kafka-go's terms.
type balancer struct{ g *Group }

// ProtocolName implements kafka.GroupBalancer. A rule that gives other
// results needs another name.
func (balancer) ProtocolName() string { return "probity-shard-owners-1" }

// UserData implements kafka.GroupBalancer.
func (b balancer) UserData() ([]byte, error) {
	return json.Marshal(userData{
		Session: b.g.cfg.Session, URL: b.g.cfg.URL, Holds: byTopic(b.g.cfg.Holds()), Unfit: byTopic(b.g.cfg.Unfit()),
	})
}

// AssignGroups implements kafka.GroupBalancer.
func (b balancer) AssignGroups(members []kafka.GroupMember, _ []kafka.Partition) kafka.GroupMemberAssignments {
	all := make([]Member, 0, len(members))
	for _, m := range members {
		var told userData
		if err := json.Unmarshal(m.UserData, &told); err != nil {
			b.g.cfg.Logger.Error("a member of the group can't be understood and gets no shard", "member", m.ID, "error", err)
			continue
		}
		one := Member{ID: m.ID, Fit: func(p Place) bool {
			return slices.Contains(m.Topics, p.Topic) && !slices.Contains(told.Unfit[p.Topic], p.Partition)
		}}
		for topic, partitions := range told.Holds {
			for _, p := range partitions {
				one.Holds = append(one.Holds, Place{topic, p})
			}
		}
		all = append(all, one)
	}
	out := kafka.GroupMemberAssignments{}
	for _, m := range members {
		out[m.ID] = map[string][]int{}
	}
	for id, places := range Balance(all, b.g.cfg.Places) {
		for _, p := range places {
			out[id][p.Topic] = append(out[id][p.Topic], p.Partition)
		}
	}
	return out
}

// stalledAfter is how many session timeouts a node may be without a
// generation before that is an alarm.
const stalledAfter = 5

// Run is a member until ctx ends, then leaves, so that the others need not
// wait for the session to time out.
func (g *Group) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := g.member(ctx); err != nil && ctx.Err() == nil {
			g.cfg.Logger.Error("the group of shard owners has stalled; joining it afresh", "group", g.cfg.ID, "error", err)
		}
	}
}

// member joins until ctx ends or joining stalls.
func (g *Group) member(ctx context.Context) error {
	topics := map[string]bool{}
	for _, p := range g.cfg.Places {
		topics[p.Topic] = true
	}
	quiet := kafka.LoggerFunc(func(format string, args ...any) {
		g.cfg.Logger.Debug("group", "message", fmt.Sprintf(format, args...))
	})
	// It asks the first that can be reached who coordinates the group. One that
	// the others can't reach names itself; joining afresh asks another.
	brokers := slices.Clone(g.cfg.Brokers)
	rand.Shuffle(len(brokers), func(i, j int) { brokers[i], brokers[j] = brokers[j], brokers[i] })
	cg, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: g.cfg.ID, Brokers: brokers, Topics: slices.Sorted(maps.Keys(topics)),
		Dialer:            &kafka.Dialer{ClientID: g.cfg.ClientID, Timeout: 5 * time.Second, TLS: g.cfg.TLS, SASLMechanism: g.cfg.SASL},
		GroupBalancers:    []kafka.GroupBalancer{balancer{g}},
		SessionTimeout:    g.cfg.SessionTimeout,
		RebalanceTimeout:  g.cfg.SessionTimeout,
		HeartbeatInterval: g.cfg.SessionTimeout / 6,
		JoinGroupBackoff:  g.cfg.SessionTimeout / 12,
		Logger:            quiet, ErrorLogger: quiet,
	})
	if err != nil {
		return err
	}
	defer cg.Close() //nolint:errcheck // it leaves the group; the session times out otherwise
	for {
		wait, cancel := context.WithTimeout(ctx, stalledAfter*g.cfg.SessionTimeout)
		gen, err := cg.Next(wait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			if current, since := g.Current(); !current && time.Since(since) >= stalledAfter*g.cfg.SessionTimeout {
				return fmt.Errorf("no generation since %s", since.UTC().Format(time.RFC3339))
			}
			continue
		case err != nil:
			g.cfg.Logger.Debug("not in the group of shard owners yet", "error", err)
			continue
		}
		assigned := map[Place]bool{}
		for topic, partitions := range gen.Assignments {
			for _, p := range partitions {
				assigned[Place{topic, p.ID}] = true
			}
		}
		g.cfg.Logger.Info("a generation of shard owners", "generation", gen.ID, "shards", len(assigned))
		g.become(true)
		gen.Start(func(ctx context.Context) {
			select {
			case <-g.rejoin:
			case <-ctx.Done():
			}
			g.become(false)
		})
		g.cfg.Assigned(assigned)
	}
}

func (g *Group) become(current bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current, g.since = current, time.Now()
}

// Rejoin makes the group share the shards anew, after Unfit changed.
func (g *Group) Rejoin() {
	select {
	case g.rejoin <- struct{}{}:
	default:
	}
}

// Current tells whether this node is in a generation, and since when it is or isn't.
func (g *Group) Current() (bool, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current, g.since
}

const (
	// askEvery bounds how often the members are asked for.
	askEvery = 100 * time.Millisecond
	askFor   = 2 * time.Second
	maxPeers = 1024
)

// Peer returns where the node of a session is reached; empty when it's no
// member.
func (g *Group) Peer(ctx context.Context, session string) (string, error) {
	if url := g.known(session); url != "" {
		return url, nil
	}
	select {
	case g.asking <- struct{}{}:
		defer func() { <-g.asking }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if url := g.known(session); url != "" || time.Since(g.asked) < askEvery {
		return url, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	res, err := g.cfg.Client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{g.cfg.ID}})
	g.asked = time.Now()
	if err != nil {
		return "", err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.peers) > maxPeers {
		clear(g.peers)
	}
	for _, group := range res.Groups {
		if group.Error != nil {
			return "", group.Error
		}
		for _, m := range group.Members {
			var told userData
			// A session keeps its URL for life. During a rebalance the
			// broker tells none, so what is known is kept.
			if json.Unmarshal(m.MemberMetadata.UserData, &told) == nil && told.Session != "" {
				g.peers[told.Session] = told.URL
			}
		}
	}
	return g.peers[session], nil
}

func (g *Group) known(session string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peers[session]
}
