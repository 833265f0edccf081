package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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

	// With Reuse, of one Fetch.
	room    valueRoom
	records []Record
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
	room := &valueRoom{}
	if s.Reuse {
		room, out.Records = &s.room, s.records[:0]
		defer func() {
			room.release()
			if s.records = out.Records; cap(s.records) > heldRecords {
				s.records = nil
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
		value, err := room.take(rec.Value)
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

// heldRecords is for how many records room is kept for the next fetch.
const heldRecords = 8 << 10

// valueRoom holds the values of one fetch in pieces.
type valueRoom struct {
	pieces [][]byte // of the fetch before those from used on
	used   int
}

// Sizes of a piece: small at first, for most fetches of a quiet shard bring one
// record.
const (
	leastPiece = 4 << 10
	mostPiece  = 256 << 10
)

// take reads a value into the room.
func (r *valueRoom) take(from protocol.Bytes) ([]byte, error) {
	if from == nil {
		return nil, nil
	}
	size := from.Len()
	for r.used == 0 || cap(r.pieces[r.used-1])-len(r.pieces[r.used-1]) < size {
		if r.used == len(r.pieces) {
			next := leastPiece
			if r.used > 0 {
				next = min(4*cap(r.pieces[r.used-1]), mostPiece)
			}
			r.pieces = append(r.pieces, make([]byte, 0, max(size, next)))
		}
		r.used++
	}
	piece := &r.pieces[r.used-1]
	at := len(*piece)
	value := (*piece)[at : at+size : at+size]
	if _, err := io.ReadFull(from, value); err != nil {
		return nil, err
	}
	*piece = (*piece)[:at+size]
	return value, nil
}

// release takes the room for the next fetch, which brings about as much as this
// one; what this one did not need goes piece by piece.
func (r *valueRoom) release() {
	if most := max(r.used, len(r.pieces)-1); len(r.pieces) > most {
		clear(r.pieces[most:])
		r.pieces = r.pieces[:most]
	}
	r.pieces = slices.DeleteFunc(r.pieces, func(piece []byte) bool { return cap(piece) > mostPiece })
	for i := range r.pieces {
		r.pieces[i] = r.pieces[i][:0]
	}
	r.used = 0
}
