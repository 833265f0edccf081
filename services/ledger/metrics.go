package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/shard"
	"github.com/probity-health/probity/services/problem"
)

// metrics are the node's instruments. Attributes name logs, shards and
// outcomes; never streams, keys or callers.
type metrics struct {
	meter     metric.Meter
	appends   metric.Int64Counter
	latency   metric.Float64Histogram
	groups    metric.Int64Histogram
	produce   metric.Float64Histogram
	ambiguous metric.Int64Counter
	receipts  metric.Int64Histogram
	forwards  metric.Int64Counter
	gauges    metric.Registration

	mu   sync.RWMutex // guards sets
	sets map[labelled]labels
}

type labelled struct{ log, outcome string }

// labels are the attributes of a log and an outcome, as instruments take them.
type labels struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func newMetrics(p metric.MeterProvider) (*metrics, error) {
	if p == nil {
		p = noop.NewMeterProvider()
	}
	m := &metrics{meter: p.Meter("github.com/probity-health/probity/services/ledger"), sets: map[labelled]labels{}}
	var errs [7]error
	m.appends, errs[0] = m.meter.Int64Counter("probity.ledger.appends",
		metric.WithDescription("Appends answered, by log and outcome."))
	m.latency, errs[1] = m.meter.Float64Histogram("probity.ledger.append.duration", metric.WithUnit("s"),
		metric.WithDescription("From submission to the acknowledged answer."), bounds)
	m.groups, errs[2] = m.meter.Int64Histogram("probity.ledger.group.records",
		metric.WithDescription("Commits in one group commit."), metric.WithExplicitBucketBoundaries(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900))
	m.produce, errs[3] = m.meter.Float64Histogram("probity.ledger.group.duration", metric.WithUnit("s"),
		metric.WithDescription("Time Kafka took to acknowledge one group commit."), bounds)
	m.ambiguous, errs[4] = m.meter.Int64Counter("probity.ledger.ambiguous",
		metric.WithDescription("Group commits whose outcome was unknown, so that the writer stepped down."))
	m.receipts, errs[5] = m.meter.Int64Histogram("probity.ledger.receipt.size", metric.WithUnit("By"),
		metric.WithDescription("Size of receipts handed out."), metric.WithExplicitBucketBoundaries(512, 1024, 2048, 4096, 8192))
	m.forwards, errs[6] = m.meter.Int64Counter("probity.ledger.forwards",
		metric.WithDescription("Appends passed on to the node that owns their shard, by outcome of the call."))
	return m, errors.Join(errs[:]...)
}

func (m *metrics) forwarded(ctx context.Context, appends int, err error) {
	outcome := "answered"
	if err != nil {
		outcome = "unreached"
	}
	m.forwards.Add(ctx, int64(appends), metric.WithAttributes(attribute.String("outcome", outcome)))
}

var bounds = metric.WithExplicitBucketBoundaries(.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5, 30)

func (m *metrics) observer(log string, index int) shard.Observer {
	attrs := metric.WithAttributeSet(attribute.NewSet(attribute.String("log", log), attribute.Int("shard", index)))
	ctx := context.Background()
	return shard.Observer{
		Committed: func(records, _ int, took time.Duration) {
			m.groups.Record(ctx, int64(records), attrs)
			m.produce.Record(ctx, took.Seconds(), attrs)
		},
		Ambiguous: func() { m.ambiguous.Add(ctx, 1, attrs) },
	}
}

func (m *metrics) appended(ctx context.Context, log string, took time.Duration, replayed bool, err error) {
	outcome := "appended"
	switch {
	case err != nil:
		outcome = string(problem.As(err).Kind)
		var conflict *core.ConflictError
		if errors.As(err, &conflict) { // of a connect.Error, too
			outcome = "conflict"
		}
	case replayed:
		outcome = "replayed"
	}
	m.appends.Add(ctx, 1, m.labels(log, outcome).add...)
	if err == nil {
		m.latency.Record(ctx, took.Seconds(), m.labels(log, "").record...)
	}
}

// labels returns the attributes of a log and an outcome, if there is one. They
// are few, and making them anew costs more than counting.
func (m *metrics) labels(log, outcome string) labels {
	m.mu.RLock()
	held, ok := m.sets[labelled{log, outcome}]
	m.mu.RUnlock()
	if ok {
		return held
	}
	attrs := []attribute.KeyValue{attribute.String("log", log)}
	if outcome != "" {
		attrs = append(attrs, attribute.String("outcome", outcome))
	}
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	held = labels{[]metric.AddOption{set}, []metric.RecordOption{set}}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets[labelled{log, outcome}] = held
	return held
}

func (m *metrics) receipt(ctx context.Context, size int) { m.receipts.Record(ctx, int64(size)) }

// watch registers the gauges that read a node's state.
func (m *metrics) watch(n *Node) error {
	lag, err1 := m.meter.Int64ObservableGauge("probity.ledger.replica.lag", metric.WithDescription("Records in the topic that this replica has not applied."))
	size, err2 := m.meter.Int64ObservableGauge("probity.ledger.shard.size", metric.WithDescription("Commits in the shard."))
	owned, err3 := m.meter.Int64ObservableGauge("probity.ledger.shard.owned", metric.WithDescription("1 while this node writes the shard."))
	halted, err4 := m.meter.Int64ObservableGauge("probity.ledger.replica.halted", metric.WithDescription("1 when following the shard halted: alarm on it."))
	height, err5 := m.meter.Int64ObservableGauge("probity.ledger.block.height", metric.WithDescription("Height of the newest valid block."))
	sealing, err6 := m.meter.Int64ObservableGauge("probity.ledger.seal.halted", metric.WithDescription("1 when sealing halted: alarm on it."))
	stalled, err7 := m.meter.Float64ObservableGauge("probity.ledger.group.stalled", metric.WithUnit("s"),
		metric.WithDescription("How long this node has been without a generation of the group that shares the shards; 0 while it has one: alarm on minutes."))
	final, err8 := m.meter.Int64ObservableGauge("probity.ledger.block.final", metric.WithDescription("Height of the newest block that a quorum cosigned: alarm when it stays behind the height."))
	unaudited, err9 := m.meter.Int64ObservableGauge("probity.ledger.replica.unaudited",
		metric.WithDescription("Records that this node's owner of the shard handed over and that were not compared with the topic yet; bounded, and falling whenever the shard rests: alarm when it doesn't."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9); err != nil {
		return fmt.Errorf("ledger: metrics: %w", err)
	}
	flag := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	var err error
	m.gauges, err = m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for name, l := range n.logs {
			for i, s := range l.shards {
				at := metric.WithAttributes(attribute.String("log", name), attribute.Int("shard", i))
				behind, _ := s.replica.Lag()
				o.ObserveInt64(lag, behind, at)
				o.ObserveInt64(unaudited, s.replica.Unaudited(), at)
				o.ObserveInt64(size, int64(s.replica.Head().Next), at)
				o.ObserveInt64(owned, flag(s.writer.State() == shard.Owning), at)
				o.ObserveInt64(halted, flag(s.replica.Halted() != nil), at)
			}
		}
		if block, _ := n.blocks.Last(); block != nil {
			o.ObserveInt64(height, int64(block.Height))
		}
		if _, block := n.blocks.Final(); block != nil {
			o.ObserveInt64(final, int64(block.Height))
		}
		o.ObserveInt64(sealing, flag(n.blocks.Halted() != nil))
		if n.group != nil {
			if current, since := n.group.Current(); current {
				o.ObserveFloat64(stalled, 0)
			} else {
				o.ObserveFloat64(stalled, time.Since(since).Seconds())
			}
		}
		return nil
	}, lag, unaudited, size, owned, halted, height, final, sealing, stalled)
	return err
}

func (m *metrics) unwatch() {
	if m.gauges != nil {
		_ = m.gauges.Unregister()
	}
}
