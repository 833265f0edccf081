// Package eventstore is what a service sees of the ledger: load a stream,
// decide, append, follow a log.
//
// Events are protobuf messages of probity.events.v1; their type on the ledger
// is the message's full name. Protected fields are sealed by the caller
// before Append and opened after Read.
package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
)

// Expected revisions that are not a revision.
const (
	NoStream int64 = -1 // the stream must not exist
	Any      int64 = -2 // whatever it is
)

// Position is a commit's place on the ledger.
type Position struct {
	Log   string
	Shard uint32
	Index uint64
}

// Write is what one commit appends to one stream.
type Write struct {
	Stream   string
	Expected int64
	Events   []proto.Message
}

// Commit is an atomic append. RoutingKey chooses the shard; RequestID makes
// it safe to send again: the second time answers with the first result.
type Commit struct {
	Log        string
	RoutingKey string
	RequestID  string
	Causation  string
	Actor      string
	Writes     []Write
}

// Appended is a commit's answer.
type Appended struct {
	Position     Position
	Revisions    []uint64 // last revision of each written stream
	Token        string   // pass to a read to see at least this commit
	Promise      []byte   // shard owner's signature: proof of timely filing
	Replayed     bool     // RequestID had been seen
	RecordedTime time.Time
}

// Outcome is one commit's result within a batch: Err is nil, a
// *ConflictError or a *problem.Error.
type Outcome struct {
	Appended Appended
	Err      error
}

// Recorded is an event read back.
type Recorded struct {
	Position     Position
	Stream       string
	Revision     uint64
	Event        proto.Message
	RecordedTime time.Time
	Actor        string
	RequestID    string
	Traceparent  string
}

// Batch is what a follower is handed: whole commits, in order within each shard.
type Batch struct {
	Events []Recorded
	// Next is the index to continue from, a shard.
	Next map[uint32]uint64
	// CaughtUp: everything that was there at the time has been delivered.
	CaughtUp bool
}

// Store is the ledger. Memory is the in-process one for tests; Remote speaks
// to ledger nodes. Both pass eventstoretest.Run.
type Store interface {
	// Append appends one commit, or fails with *ConflictError or *problem.Error.
	Append(ctx context.Context, c Commit) (Appended, error)
	// AppendBatch appends independent commits; the error is for the whole call only.
	AppendBatch(ctx context.Context, cs []Commit) ([]Outcome, error)
	// Read returns all events of a stream from a revision on. No stream is no events and no error.
	Read(ctx context.Context, log, routingKey, stream string, from uint64) ([]Recorded, error)
	// Follow calls handle with batches from the given indexes on, live, until
	// ctx ends or handle fails; it reconnects by itself. types empty is all.
	Follow(ctx context.Context, log string, from map[uint32]uint64, types []string, handle func(context.Context, Batch) error) error
}

// ConflictError says that a stream was not at the expected revision.
type ConflictError struct {
	Stream string
	Actual int64 // -1 when it doesn't exist
}

// Error names the stream, which is opaque.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("eventstore: stream %s is at revision %d", e.Stream, e.Actual)
}

// IsConflict tells whether err is a *ConflictError.
func IsConflict(err error) bool {
	var c *ConflictError
	return errors.As(err, &c)
}
