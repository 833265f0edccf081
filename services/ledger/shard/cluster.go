package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// requestTimeout bounds one request to a broker.
const requestTimeout = 10 * time.Second

// Topic is a log's topic as the ledger needs it.
type Topic struct {
	Name        string
	Partitions  int
	Replication int // 0 is the broker's default
	MinInSync   int // 0 is the broker's default
}

// EnsureTopics creates the topics that are missing and checks the partition
// counts of those that exist: a count must never change, for keys would move
// to other shards.
func EnsureTopics(ctx context.Context, client *kafka.Client, topics []Topic) error {
	var missing []kafka.TopicConfig
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return fmt.Errorf("shard: read the cluster's topics: %w", err)
	}
	have := map[string]int{}
	for _, t := range meta.Topics {
		if t.Error == nil {
			have[t.Name] = len(t.Partitions)
		}
	}
	for _, t := range topics {
		n, ok := have[t.Name]
		if ok && n != t.Partitions {
			return fmt.Errorf("shard: topic %s has %d partitions and the configuration says %d; a log's shard count never changes", t.Name, n, t.Partitions)
		}
		if ok {
			continue
		}
		cfg := kafka.TopicConfig{
			Topic: t.Name, NumPartitions: t.Partitions, ReplicationFactor: -1,
			ConfigEntries: []kafka.ConfigEntry{
				{ConfigName: "cleanup.policy", ConfigValue: "delete"},
				{ConfigName: "retention.ms", ConfigValue: "-1"},
				{ConfigName: "retention.bytes", ConfigValue: "-1"},
				{ConfigName: "compression.type", ConfigValue: "producer"},
				{ConfigName: "max.message.bytes", ConfigValue: "1048588"},
			},
		}
		if t.Replication > 0 {
			cfg.ReplicationFactor = t.Replication
		}
		if t.MinInSync > 0 {
			cfg.ConfigEntries = append(cfg.ConfigEntries,
				kafka.ConfigEntry{ConfigName: "min.insync.replicas", ConfigValue: strconv.Itoa(t.MinInSync)},
				kafka.ConfigEntry{ConfigName: "unclean.leader.election.enable", ConfigValue: "false"})
		}
		missing = append(missing, cfg)
	}
	if len(missing) == 0 {
		return nil
	}
	res, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: missing})
	if err != nil {
		return fmt.Errorf("shard: create topics: %w", err)
	}
	for name, err := range res.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			return fmt.Errorf("shard: create topic %s: %w", name, err)
		}
	}
	return nil
}

// broker is what a Writer needs of Kafka; the fields name one partition.
type broker struct {
	client        *kafka.Client
	topic         string
	partition     int
	transactional string
}

// begin opens a producer session. With last nil it takes the shard from
// whoever had it. With the last session it goes on only if nobody took the
// shard since (KIP-360), and fails with ErrFenced otherwise.
func (b *broker) begin(ctx context.Context, last *Producer) (Producer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := &kafka.InitProducerIDRequest{
		// There are no transactions. The timeout also bounds how long a
		// coordinator that can't store its answer refuses the next attempt
		// with "concurrent transactions".
		TransactionalID: b.transactional, TransactionTimeoutMs: int(requestTimeout / time.Millisecond),
		ProducerID: -1, ProducerEpoch: -1,
	}
	if last != nil {
		req.ProducerID, req.ProducerEpoch = int(last.ID), int(last.Epoch)
	}
	res, err := b.client.InitProducerID(ctx, req)
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return Producer{}, classify(err)
	}
	return Producer{ID: int64(res.Producer.ProducerID), Epoch: int16(res.Producer.ProducerEpoch)}, nil
}

// batches are what produce encodes into: a shard that rests holds none.
var batches = sync.Pool{New: func() any { return new([]byte) }}

// produce appends records as one batch, acknowledged by all in-sync replicas,
// and returns the first one's offset. After any error but ErrFenced it is
// unknown whether they were appended.
func (b *broker) produce(ctx context.Context, p Producer, at time.Time, records []Record) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	buf := batches.Get().(*[]byte)
	*buf = encodeBatch((*buf)[:0], p, at, records)
	res, err := b.client.RawProduce(ctx, &kafka.RawProduceRequest{
		Topic: b.topic, Partition: b.partition, RequiredAcks: kafka.RequireAll,
		RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(*buf)},
	})
	if err == nil {
		// After a failure a connection may still be reading it.
		batches.Put(buf)
		err = res.Error
	}
	if err != nil {
		return 0, classify(err)
	}
	return res.BaseOffset, nil
}

// end returns the offset after the partition's last record.
func (b *broker) end(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := b.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{b.topic: {kafka.LastOffsetOf(b.partition)}},
	})
	if err != nil {
		return 0, err
	}
	for _, p := range res.Topics[b.topic] {
		if p.Partition == b.partition {
			return p.LastOffset, p.Error
		}
	}
	return 0, errors.New("shard: the broker did not answer for the partition")
}

// classify makes the broker's answers that an Owner tells apart its own errors.
func classify(err error) error {
	for _, fenced := range []kafka.Error{kafka.InvalidProducerEpoch, kafka.ProducerFenced, kafka.FencedInstanceID} {
		if errors.Is(err, fenced) {
			return fmt.Errorf("%w: %w", ErrFenced, err)
		}
	}
	if errors.Is(err, kafka.InvalidProducerIDMapping) {
		return fmt.Errorf("%w: %w", ErrForgotten, err)
	}
	return err
}
