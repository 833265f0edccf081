// Package core holds the ledger's rules as pure functions: what makes a
// commit or a block valid, given what stands before it. The shard's owner
// uses Decide to build commits, every replica uses Judge to re-check them,
// and the two meet in the same View of the shard, so that a record its owner
// wrote is a record every replica accepts.
//
// Nothing here reads a clock, a store, a network or a random source.
//
// Invariants of a shard:
//   - leaves are dense: the n-th accepted commit has index n-1;
//   - a stream's revisions are dense from 0, across commits;
//   - a request id names at most one commit of a shard;
//   - the term never falls, and one owner alone writes in a term.
//
// Barriers raise the term. They are records of the topic, not leaves of the
// tree: a new owner writes its barrier before it can know the next index.
package core

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/problem"
)

// Bounds of an append. A record must fit a Kafka broker's default
// message.max.bytes of 1,048,588 with its envelope.
const (
	MaxRecord       = 1_000_000
	MaxWrites       = 100
	MaxEvents       = 1000
	MaxIdentifier   = 200
	MaxStreamSuffix = 120
	maxTraceparent  = 100
)

// Layouts of a record. They differ in what the commit's index row keeps, so a
// ledger's history verifies as it was written, whatever is written now.
const (
	// Format is what Decide and Barrier write.
	Format = 2
	// digestFormat is the first layout. Its rows keep the SHA-256 of the
	// request's content, a second hash over every payload.
	digestFormat = 1
)

// Expected revisions that are not a revision.
const (
	NoStream int64 = -1
	Any      int64 = -2
)

// Head is where a shard stands after the last record that was judged.
type Head struct {
	Log   string
	Shard uint32
	// Next is the index the next commit takes: the tree's size.
	Next uint64
	// Term is the newest barrier's; 0 before the first.
	Term uint64
	// Owner is the session that raised Term.
	Owner string
}

// Seen is the commit a request id named.
type Seen struct {
	Index     uint64
	Entry     []byte
	Recorded  time.Time
	Revisions []uint64
	// Commit is the commit, or Row its index row where the body is not held:
	// Decide tells by either whether a request is the one that was decided.
	Commit *ledgerv1.Commit
	Row    *Row
}

// View is what is known of a shard's accepted commits. Its errors are those
// of the store beneath and abort the judgement; they are never a verdict.
type View interface {
	// LastRevision returns a stream's last revision, NoStream when it has none.
	LastRevision(stream string) (int64, error)
	// Request finds the commit a request id named.
	Request(id string) (Seen, bool, error)
}

// ConflictError says that a stream was not at the expected revision.
type ConflictError struct {
	Stream string
	Actual int64
}

// Error names the stream, which is opaque.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("ledger: stream %s is at revision %d", e.Stream, e.Actual)
}

// Provenance is what the owner adds to a request.
type Provenance struct {
	Actor       string
	Traceparent string
	Recorded    time.Time
}

// ValidLog tells whether s can name a log: 1 to 32 lower-case letters.
func ValidLog(s string) bool {
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// ValidStream tells whether s can name a stream:
// [a-z][a-z0-9]*-[A-Za-z0-9_.:-]{1,120}. It is on the path of every append,
// where a regular expression would cost more than the rest of the check.
func ValidStream(s string) bool {
	n := 0 // of the category
	for n < len(s) && nameBytes[s[n]]&ofCategories != 0 {
		n++
	}
	if n == 0 || s[0] < 'a' || n+1 >= len(s) || s[n] != '-' || len(s) > n+1+MaxStreamSuffix {
		return false
	}
	for i := n + 1; i < len(s); i++ {
		if nameBytes[s[i]]&ofIDs == 0 {
			return false
		}
	}
	return true
}

const (
	ofCategories = 1 << iota
	ofIDs
)

// nameBytes says where in a stream's name a byte may stand.
var nameBytes = func() (of [256]byte) {
	for c := range of {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			of[c] = ofCategories | ofIDs
		case c >= 'A' && c <= 'Z', c == '_', c == '.', c == ':', c == '-':
			of[c] = ofIDs
		}
	}
	return of
}()

// CheckRequest refuses a request that no state of the ledger would accept.
// The RPC edge checks the same limits; the ledger doesn't rely on it.
func CheckRequest(r *ledgerv1.AppendRequest) error {
	switch {
	case !ValidLog(r.Log):
		return problem.Invalidf("ledger.append.log", "log", "a log's name is 1 to 32 lower-case letters")
	case r.RoutingKey == "" || len(r.RoutingKey) > MaxIdentifier:
		return problem.Invalidf("ledger.append.routing-key", "routing_key", "a routing key has 1 to %d bytes", MaxIdentifier)
	case r.RequestId == "" || len(r.RequestId) > MaxIdentifier:
		return problem.Invalidf("ledger.append.request-id", "request_id", "a request id has 1 to %d bytes", MaxIdentifier)
	case len(r.Causation) > MaxIdentifier || len(r.Actor) > MaxIdentifier:
		return problem.Invalidf("ledger.append.identifier", "causation", "causation and actor have at most %d bytes", MaxIdentifier)
	case len(r.Traceparent) > maxTraceparent:
		return problem.Invalidf("ledger.append.traceparent", "traceparent", "a traceparent has at most %d bytes", maxTraceparent)
	case len(r.Writes) == 0 || len(r.Writes) > MaxWrites:
		return problem.Invalidf("ledger.append.writes", "writes", "a commit writes 1 to %d streams", MaxWrites)
	}
	for i, w := range r.Writes {
		at := func(field string) string { return fmt.Sprintf("writes[%d].%s", i, field) }
		switch {
		case w == nil || !ValidStream(w.Stream):
			return problem.Invalidf("ledger.append.stream", at("stream"), "a stream's name is a category, a hyphen and an opaque id")
		case slices.ContainsFunc(r.Writes[:i], func(before *ledgerv1.StreamWrite) bool { return before.Stream == w.Stream }):
			return problem.Invalidf("ledger.append.stream-twice", at("stream"), "a commit writes each stream at most once")
		case w.ExpectedRevision < Any:
			return problem.Invalidf("ledger.append.expected", at("expected_revision"), "an expected revision is at least %d", Any)
		case len(w.Events) == 0 || len(w.Events) > MaxEvents:
			return problem.Invalidf("ledger.append.events", at("events"), "a stream is written 1 to %d events", MaxEvents)
		}
		for j, e := range w.Events {
			if e == nil || e.Type == "" || len(e.Type) > MaxIdentifier {
				return problem.Invalidf("ledger.append.type", at(fmt.Sprintf("events[%d].type", j)),
					"an event's type has 1 to %d bytes", MaxIdentifier)
			}
		}
	}
	return nil
}

// Digest identifies the content of a request: its streams, event types and
// payloads, length-prefixed, in order. Expected revisions, actor and trace
// are left out, for they may differ between two sendings of one intention.
// Rows of the first format keep it.
func Digest(writes []*ledgerv1.CommittedWrite) [sha256.Size]byte {
	// Hashing many small pieces costs more than copying them together.
	var room [4 << 10]byte
	return sha256.Sum256(appendContent(room[:0], writes))
}

// Decided is the outcome of Decide: a commit to write, or the commit its
// request id already named.
type Decided struct {
	Commit   *ledgerv1.Commit
	Value    []byte
	Seen     Seen
	Replayed bool
}

// Decide decides one request: see Decider.Decide.
func Decide(head Head, view View, r *ledgerv1.AppendRequest, p Provenance) (Decided, error) {
	return new(Decider).Decide(head, view, r, p)
}

// Barrier returns the record by which a session takes a term: higher than
// any before it to take the shard over, its own to show that it lives. It ends
// with a digest of itself.
func Barrier(log string, shard uint32, term, next uint64, owner string, at time.Time) ([]byte, error) {
	value, err := proto.Marshal(&ledgerv1.Commit{
		Format: Format, Log: log, Shard: shard, Term: term, Index: next, RequestId: owner,
		RecordedTime: timestamppb.New(at), Barrier: true,
	})
	if err != nil {
		return nil, err
	}
	return append(value, barrierDigest(value)...), nil
}

// barrierDigestField is Commit.barrier_digest's number.
const barrierDigestField = 13

// barrierDigest returns the field that ends a barrier which begins so.
func barrierDigest(value []byte) []byte {
	sum := sha256.Sum256(value)
	field := protowire.AppendTag(nil, barrierDigestField, protowire.BytesType)
	return protowire.AppendBytes(field, sum[:])
}

// barrierHolds tells whether a barrier's record is what its owner wrote.
func barrierHolds(value []byte) bool {
	at := len(value) - len(barrierDigest(nil))
	return at >= 0 && bytes.Equal(value[at:], barrierDigest(value[:at]))
}
