package sim

import (
	"errors"
	"slices"

	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/shard"
)

// What a broker may answer besides what an owner tells apart.
var (
	errNoBroker   = errors.New("sim: no broker")
	errTimeout    = errors.New("sim: timed out")
	errOutOfOrder = errors.New("sim: out of order sequence number")
	errMoved      = errors.New("sim: not the leader of the partition")
	errNoTopic    = errors.New("sim: no such topic")
)

// batches is how many of a producer's last batches a partition remembers
// (ProducerStateEntry.NUM_BATCHES_TO_RETAIN).
const batches = 5

type batch struct {
	first  int32
	count  int
	offset int64
}

// producerState is what a partition knows of a producer id
// (ProducerStateManager in Apache Kafka).
type producerState struct {
	epoch  int16
	recent []batch
}

// partition is one topic's partition with its transaction coordinator.
type partition struct {
	values    [][]byte
	lost      bool // the topic is no more
	producers map[int64]*producerState

	// The coordinator's: what the transactional id stands for; known is false
	// before the first Begin and after the id expired.
	known bool
	id    int64
	epoch int16
	// before is the epoch a Begin that went on replaced, -1 after one that
	// took over: the same Begin again gets the same answer.
	before int16
}

// broker is the simulated Kafka cluster as its clients see it: one log a
// partition, fencing and idempotence as Apache Kafka checks them.
type broker struct {
	parts  []*partition
	nextID int64
	// broken[node][partition]: a connection was lost with the leader.
	broken [][]bool
	// appended hears of every batch, after it is in the log.
	appended func(p int, offset int64, values [][]byte)
}

func newBroker(parts, nodes int) *broker {
	b := &broker{nextID: 1000}
	for range parts {
		b.parts = append(b.parts, &partition{producers: map[int64]*producerState{}})
	}
	for range nodes {
		b.broken = append(b.broken, make([]bool, parts))
	}
	return b
}

func (b *broker) end(p int) int64 { return int64(len(b.parts[p].values)) }

// begin is InitProducerId with a transactional id. A first or forgotten id
// gets a new producer; a known one its next epoch. With last it goes on from
// that producer only (KIP-360).
func (b *broker) begin(p int, last *shard.Producer) (shard.Producer, error) {
	part := b.parts[p]
	switch {
	case !part.known && last != nil:
		return shard.Producer{}, shard.ErrForgotten
	case !part.known:
		b.nextID++
		part.known, part.id, part.epoch, part.before = true, b.nextID, 0, -1
		return shard.Producer{ID: part.id}, nil
	case last == nil:
		part.before = -1
	case last.ID == part.id && last.Epoch == part.epoch:
		part.before = part.epoch
	case last.ID == part.id && last.Epoch == part.before:
		return shard.Producer{ID: part.id, Epoch: part.epoch}, nil
	default:
		return shard.Producer{}, shard.ErrFenced
	}
	part.epoch++
	return shard.Producer{ID: part.id, Epoch: part.epoch}, nil
}

// produce appends one batch. The epoch is compared with what the partition
// has seen in batches, not with the coordinator's: hence the barrier. A
// producer the partition has never seen, or forgot, may start anywhere.
func (b *broker) produce(p int, from shard.Producer, records []shard.Record) (int64, error) {
	part := b.parts[p]
	if part.lost {
		return 0, errNoTopic
	}
	state := part.producers[from.ID]
	switch {
	case state == nil:
	case from.Epoch < state.epoch:
		return 0, shard.ErrFenced
	case from.Epoch > state.epoch:
		if from.Sequence != 0 {
			return 0, errOutOfOrder
		}
		state = nil
	default:
		for _, r := range state.recent {
			if r.first == from.Sequence && r.count == len(records) {
				return r.offset, nil // a repetition
			}
		}
		if n := len(state.recent); n > 0 && state.recent[n-1].first+int32(state.recent[n-1].count) != from.Sequence {
			return 0, errOutOfOrder
		}
	}
	if state == nil {
		state = &producerState{epoch: from.Epoch}
		part.producers[from.ID] = state
	}
	offset := b.end(p)
	state.recent = append(state.recent, batch{first: from.Sequence, count: len(records), offset: offset})
	if len(state.recent) > batches {
		state.recent = slices.Clone(state.recent[1:])
	}
	var values [][]byte
	for _, r := range records {
		values = append(values, slices.Clone(r.Value))
	}
	part.values = append(part.values, values...)
	b.appended(p, offset, values)
	return offset, nil
}

// fetch reads from an offset on, at most most records.
func (b *broker) fetch(node, p int, offset int64, most int) (replica.Fetched, error) {
	if b.broken[node][p] {
		b.broken[node][p] = false
		return replica.Fetched{}, errMoved
	}
	if err := b.gone(p); err != nil {
		return replica.Fetched{}, err
	}
	end := b.end(p)
	if offset > end {
		return replica.Fetched{}, replica.ErrOutOfRange
	}
	out := replica.Fetched{End: end}
	for at := offset; at < min(end, offset+int64(most)); at++ {
		out.Records = append(out.Records, replica.Record{Offset: at, Value: slices.Clone(b.parts[p].values[at])})
	}
	return out, nil
}

// gone is the error of a topic that was lost.
func (b *broker) gone(p int) error {
	if b.parts[p].lost {
		return errNoTopic
	}
	return nil
}

// lose deletes a topic, and with it what its leader knows of producers.
func (b *broker) lose(p int) {
	b.parts[p].lost, b.parts[p].values = true, nil
	b.forgetProducers(p)
	for _, n := range b.broken {
		n[p] = true
	}
}

// cut loses the end of a partition, as an unclean election does: with it goes
// what its new leader knows of producers, and every connection unless it
// happens quietly.
func (b *broker) cut(p int, keep int64, quiet bool) {
	part := b.parts[p]
	part.values = slices.Clone(part.values[:keep])
	for _, s := range part.producers {
		s.recent = slices.DeleteFunc(s.recent, func(r batch) bool { return r.offset >= keep })
	}
	for _, n := range b.broken {
		n[p] = n[p] || !quiet
	}
}

// forgetProducers is producer.id.expiration.ms passing without a batch.
func (b *broker) forgetProducers(p int) { b.parts[p].producers = map[int64]*producerState{} }

// forgetTransactional is transactional.id.expiration.ms passing.
func (b *broker) forgetTransactional(p int) { b.parts[p].known = false }
