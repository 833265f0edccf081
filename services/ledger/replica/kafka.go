package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// ErrOutOfRange is a Source's answer when it has nothing at an offset: the
// records there were deleted, or never existed.
var ErrOutOfRange = errors.New("replica: the topic does not hold this offset")

// Record is one Kafka record.
type Record struct {
	Offset int64
	Value  []byte
}

// Fetched is one answer of a Source. End is the offset after the last record
// the topic held at the time.
type Fetched struct {
	Records []Record
	End     int64
}

// Source reads one partition. Fetch returns records from an offset on; it
// waits a bounded time for the first and returns none if none came. It fails
// with ErrOutOfRange, or with an error that may pass.
type Source interface {
	Fetch(ctx context.Context, offset int64) (Fetched, error)
}

// KafkaSource reads a partition with kafka-go's low-level client: its Reader
// would skip over a gap with no more than a log line.
type KafkaSource struct {
	Client    *kafka.Client
	Topic     string
	Partition int
	// Reuse reads values into the room of those before: they are there until
	// the next Fetch. A Shard keeps none longer.
	Reuse bool
	// Most bounds the bytes of one Fetch; 0 is 4 MiB.
	Most int

	room []byte // with Reuse, of one Fetch
}

const (
	fetchBytes = 4 << 20
	// fetchWait is how long the broker holds an empty fetch. It wakes at
	// once when a record arrives, so this costs no latency.
	fetchWait = 500 * time.Millisecond
)

// Fetch implements Source.
func (s *KafkaSource) Fetch(ctx context.Context, offset int64) (Fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := s.Client.Fetch(ctx, &kafka.FetchRequest{
		Topic: s.Topic, Partition: s.Partition, Offset: offset,
		MinBytes: 1, MaxBytes: int64(cmp.Or(s.Most, fetchBytes)), MaxWait: fetchWait,
	})
	if err != nil {
		return Fetched{}, err
	}
	if res.Error != nil {
		if errors.Is(res.Error, kafka.OffsetOutOfRange) {
			return Fetched{}, ErrOutOfRange
		}
		return Fetched{}, res.Error
	}
	out := Fetched{End: res.HighWatermark}
	room, most := s.room[:0], valuesAtOnce
	if s.Reuse {
		most = heldRoom
		defer func() {
			if cap(room) <= heldRoom {
				s.room = room
			}
		}()
	}
	for {
		rec, err := res.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			// A broker may cut the last batch of an answer; what came
			// whole is good, the rest comes with the next fetch.
			if len(out.Records) > 0 {
				return out, nil
			}
			return Fetched{}, fmt.Errorf("replica: decode a fetched batch: %w", err)
		}
		value, err := take(&room, rec.Value, most)
		if rec.Key != nil {
			_ = rec.Key.Close()
		}
		if rec.Value != nil {
			_ = rec.Value.Close()
		}
		if err != nil {
			return Fetched{}, err
		}
		// The first batch may begin before the offset asked for.
		if rec.Offset >= offset {
			out.Records = append(out.Records, Record{Offset: rec.Offset, Value: value})
		}
	}
}

// valuesAtOnce is the most room made at once for values that are kept.
const valuesAtOnce = 64 << 10

// heldRoom is the most room that is kept for the next fetch.
const heldRoom = 1 << 20

// take reads a value into room that it shares with others of the same fetch,
// of which at most most is made at once.
func take(room *[]byte, from protocol.Bytes, most int) ([]byte, error) {
	if from == nil {
		return nil, nil
	}
	size := from.Len()
	if cap(*room)-len(*room) < size {
		// Small at first: most fetches of a quiet shard bring one record.
		*room = make([]byte, 0, max(size, min(most, 4*cap(*room))))
	}
	at := len(*room)
	value := (*room)[at : at+size : at+size]
	if _, err := io.ReadFull(from, value); err != nil {
		return nil, err
	}
	*room = (*room)[:at+size]
	return value, nil
}
