package eventstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/problem"
)

// Fault is a way in which the next append of a Memory goes wrong.
type Fault int

// The faults.
const (
	// FaultRefused: nothing is recorded and the caller is told Unavailable.
	FaultRefused Fault = iota + 1
	// FaultLostAck: the commit is recorded and the caller is told Unavailable.
	FaultLostAck
)

// MemoryOptions configure a Memory; the zero value is usable.
type MemoryOptions struct {
	// Shards of a log by name; a log that is not named has 4.
	Shards map[string]uint32
	// Now is the clock of RecordedTime; nil is time.Now.
	Now func() time.Time
	// Codec translates events; the zero value has no upcasters.
	Codec Codec
}

// Memory is a Store in this process, for tests and for learning the contract.
// It refuses what the ledger refuses: events pass through the same codec and
// the same validation rules. Nothing is kept when the process ends.
type Memory struct {
	codec  Codec
	now    func() time.Time
	shards map[string]uint32

	mu     sync.Mutex                // guards everything below
	logs   map[string][]*memoryShard // by log name, made on first use
	grown  chan struct{}             // closed and replaced whenever a log grows
	faults []Fault                   // the next appends' fates, first first
}

// memoryShard is one shard; its memory's mu guards it.
type memoryShard struct {
	commits [][]*ledgerv1.RecordedEvent          // by index
	streams map[string][]*ledgerv1.RecordedEvent // by stream, dense revisions from 0
	answers map[string]memoryAnswer              // by request id
}

// memoryAnswer is what a request id was answered with, and for what.
type memoryAnswer struct {
	content  [sha256.Size]byte
	appended Appended
}

// NewMemory makes an empty store.
func NewMemory(o MemoryOptions) *Memory {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Memory{codec: o.Codec, now: o.Now, shards: maps.Clone(o.Shards), logs: map[string][]*memoryShard{}, grown: make(chan struct{})}
}

// Inject makes the next appends fail, one fault each, in order.
func (m *Memory) Inject(faults ...Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, faults...)
}

// Append implements Store.
func (m *Memory) Append(ctx context.Context, c Commit) (Appended, error) {
	if err := ctx.Err(); err != nil {
		return Appended{}, contextProblem(err)
	}
	req, err := m.codec.request(c)
	if err != nil {
		return Appended{}, err
	}
	if err := validate(req); err != nil {
		return Appended{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var fault Fault
	if len(m.faults) > 0 {
		fault, m.faults = m.faults[0], m.faults[1:]
	}
	if fault == FaultRefused {
		return Appended{}, unavailable(nil)
	}
	a, err := m.append(req)
	if err == nil && fault == FaultLostAck {
		return Appended{}, unavailable(nil)
	}
	return a, err
}

// append records req or refuses it; mu is held.
func (m *Memory) append(req *ledgerv1.AppendRequest) (Appended, error) {
	number, shard := m.shard(req.GetLog(), req.GetRoutingKey())
	content := contentOf(req)
	if seen, ok := shard.answers[req.GetRequestId()]; ok {
		if seen.content != content {
			return Appended{}, requestReused()
		}
		replay := seen.appended
		replay.Revisions = slices.Clone(replay.Revisions)
		replay.Replayed = true
		return replay, nil
	}
	for _, w := range req.GetWrites() {
		actual := int64(len(shard.streams[w.GetStream()])) - 1
		if w.GetExpectedRevision() != Any && w.GetExpectedRevision() != actual {
			return Appended{}, &ConflictError{Stream: w.GetStream(), Actual: actual}
		}
	}
	p := Position{Log: req.GetLog(), Shard: number, Index: uint64(len(shard.commits))}
	a := Appended{Position: p, Token: p.Token(), RecordedTime: m.now().UTC()}
	var commit []*ledgerv1.RecordedEvent
	for _, w := range req.GetWrites() {
		for _, e := range w.GetEvents() {
			r := &ledgerv1.RecordedEvent{
				Position:     &ledgerv1.Position{Log: p.Log, Shard: p.Shard, Index: p.Index},
				Stream:       w.GetStream(),
				Revision:     uint64(len(shard.streams[w.GetStream()])),
				Event:        e,
				RecordedTime: timestamppb.New(a.RecordedTime),
				Actor:        req.GetActor(),
				RequestId:    req.GetRequestId(),
				Causation:    req.GetCausation(),
			}
			shard.streams[w.GetStream()] = append(shard.streams[w.GetStream()], r)
			commit = append(commit, r)
		}
		a.Revisions = append(a.Revisions, uint64(len(shard.streams[w.GetStream()])-1))
	}
	shard.commits = append(shard.commits, commit)
	kept := a
	kept.Revisions = slices.Clone(a.Revisions)
	shard.answers[req.GetRequestId()] = memoryAnswer{content: content, appended: kept}
	close(m.grown)
	m.grown = make(chan struct{})
	return a, nil
}

// AppendBatch implements Store.
func (m *Memory) AppendBatch(ctx context.Context, cs []Commit) ([]Outcome, error) {
	out := make([]Outcome, len(cs))
	for i, c := range cs {
		out[i].Appended, out[i].Err = m.Append(ctx, c)
	}
	return out, nil
}

// Read implements Store.
func (m *Memory) Read(ctx context.Context, log, routingKey, stream string, from uint64) ([]Recorded, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextProblem(err)
	}
	if err := validate(&ledgerv1.ReadStreamRequest{Log: log, RoutingKey: routingKey, Stream: stream, FromRevision: from}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	_, shard := m.shard(log, routingKey)
	// Recorded events are never changed, so reading on without the lock is safe.
	events := shard.streams[stream]
	m.mu.Unlock()
	if from >= uint64(len(events)) {
		return nil, nil
	}
	out := make([]Recorded, 0, uint64(len(events))-from)
	for _, e := range events[from:] {
		r, err := m.codec.recorded(e)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// Follow implements Store.
func (m *Memory) Follow(ctx context.Context, log string, from map[uint32]uint64, types []string, handle func(context.Context, Batch) error) error {
	if !logName(log) {
		return problem.Invalidf("eventstore.log", "log", "a log's name is 1 to 32 letters a-z")
	}
	wanted := m.codec.Sources(types)
	c := newCursor(m.codec, log, from, handle)
	for told := false; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.mu.Lock()
		grown := m.grown
		events, heads, more := m.collect(log, c.next, wanted)
		m.mu.Unlock()
		if !maps.Equal(heads, c.next) || (!more && !told) {
			if err := c.deliver(ctx, events, heads, !more); err != nil {
				if own, ok := errors.AsType[handlerError](err); ok {
					return own.error
				}
				return err
			}
			told = true
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grown:
		}
	}
}

// collect takes the next batch of whole commits after next, about 500 events; mu is held.
func (m *Memory) collect(log string, next map[uint32]uint64, wanted []string) (events []*ledgerv1.RecordedEvent, heads map[uint32]uint64, more bool) {
	const batch = 500
	heads = maps.Clone(next)
	for i, shard := range m.log(log) {
		n := uint32(i)
		for heads[n] < uint64(len(shard.commits)) && len(events) < batch {
			for _, e := range shard.commits[heads[n]] {
				if len(wanted) == 0 || slices.Contains(wanted, e.GetEvent().GetType()) {
					events = append(events, e)
				}
			}
			heads[n]++
		}
		more = more || heads[n] < uint64(len(shard.commits))
		heads[n] = max(heads[n], next[n])
	}
	return events, heads, more
}

// log returns a log's shards, making them on first use; mu is held.
func (m *Memory) log(name string) []*memoryShard {
	shards, ok := m.logs[name]
	if !ok {
		n := m.shards[name]
		if n == 0 {
			n = 4
		}
		for range n {
			shards = append(shards, &memoryShard{streams: map[string][]*ledgerv1.RecordedEvent{}, answers: map[string]memoryAnswer{}})
		}
		m.logs[name] = shards
	}
	return shards
}

// shard returns the shard of a routing key; mu is held.
func (m *Memory) shard(log, routingKey string) (uint32, *memoryShard) {
	shards := m.log(log)
	sum := sha256.Sum256([]byte(routingKey))
	n := uint32(binary.BigEndian.Uint64(sum[:8]) % uint64(len(shards)))
	return n, shards[n]
}

// contentOf is the hash of what a request id stands for: where and what.
// Expected revisions are left out, because a repeated request may believe
// otherwise and still be the same request.
func contentOf(req *ledgerv1.AppendRequest) [sha256.Size]byte {
	same := &ledgerv1.AppendRequest{Log: req.GetLog(), RoutingKey: req.GetRoutingKey()}
	for _, w := range req.GetWrites() {
		same.Writes = append(same.Writes, &ledgerv1.StreamWrite{Stream: w.GetStream(), Events: w.GetEvents()})
	}
	// Marshalling can't fail: there is no invalid UTF-8 left after validation.
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(same)
	return sha256.Sum256(b)
}

func requestReused() error {
	return problem.New(problem.Conflict, problem.Problem{
		RuleID:    "eventstore.request.reused",
		FieldPath: "request_id",
		Message:   "this request id was used for something else",
		Fix:       "use a new request id for a new request; repeat a request unchanged",
	})
}

func unavailable(cause error) error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "eventstore.unavailable",
		Message: "the ledger is not available just now",
		Fix:     "send the same request again in a moment; it is not recorded twice",
	}).Because(cause)
}
