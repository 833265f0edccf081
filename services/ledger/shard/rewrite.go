package shard

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
)

// Rewriter writes an empty partition anew, under a producer epoch of the
// shard's own transactional id: what an owner sent to the partition before it
// was lost is refused by the broker whenever it arrives, as in a takeover.
type Rewriter struct {
	broker   broker
	producer Producer
	now      func() time.Time
}

// NewRewriter opens the epoch. The error is ErrFenced or the broker's.
func NewRewriter(ctx context.Context, client *kafka.Client, topic string, partition int, transactionalID string, now func() time.Time) (*Rewriter, error) {
	r := &Rewriter{broker: broker{client: client, topic: topic, partition: partition, transactional: transactionalID}, now: now}
	var err error
	r.producer, err = r.broker.begin(ctx, nil)
	return r, err
}

// Write appends record values, what one batch of Kafka takes,
// acknowledged by all in-sync replicas. After an error it is unknown whether
// they were appended, and the partition must be made empty again.
func (r *Rewriter) Write(ctx context.Context, values [][]byte) error {
	records := make([]Record, len(values))
	for i, v := range values {
		records[i].Value = v
	}
	if _, err := r.broker.produce(ctx, r.producer, r.now(), records); err != nil {
		return err
	}
	r.producer = r.producer.after(len(records))
	return nil
}
