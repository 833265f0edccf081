package eventstore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// The registry can only decode what is linked in: every event is.
	_ "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/problem"
)

const (
	// eventPackage fences the codec in: nothing but a fact may be recorded,
	// and a payload can't make a reader build an arbitrary registered type.
	eventPackage = "probity.events."
	// maxPayload is the ledger's limit on one event (ledger.proto, Event.payload).
	maxPayload = 900 << 10
	// maxUpcasts bounds a chain of upcasters, so that a cycle is an error and not a hang.
	maxUpcasts = 16
)

// Upcaster turns an event of a superseded type into its successor. It is
// pure: the same old event always gives the same new one.
type Upcaster func(old proto.Message) (proto.Message, error)

// Codec translates events between their Go messages and the ledger's form.
// The zero value knows every message of probity.events.* and has no upcasters.
type Codec struct {
	upcasters map[string]Upcaster
	// successors maps an old type to the type its upcaster yields, so that a
	// filter on the new type also asks the ledger for the old one.
	successors map[string]string
	// left are the fields of a type that are left out, see Leaving.
	left map[string][]protowire.Number
}

// Leaving returns a codec that decodes an event's type without some of its
// fields: their readers don't look at them, and sealed health data is most of
// an event's bytes. An unknown field panics: it is a mistake in the program.
func (c Codec) Leaving(event proto.Message, fields ...protoreflect.Name) Codec {
	c.left = maps.Clone(c.left)
	if c.left == nil {
		c.left = map[string][]protowire.Number{}
	}
	d := event.ProtoReflect().Descriptor()
	for _, name := range fields {
		f := d.Fields().ByName(name)
		if f == nil {
			panic(fmt.Sprintf("eventstore: %s has no field %s", d.FullName(), name))
		}
		c.left[string(d.FullName())] = append(slices.Clip(c.left[string(d.FullName())]), f.Number())
	}
	return c
}

// lean holds what is left of payloads while they are decoded, which copies.
var lean = sync.Pool{New: func() any { return new([]byte) }}

// without appends a message's encoding to out, less some fields. What is no
// message comes out as it is, for the decoder to refuse.
func without(out, payload []byte, fields []protowire.Number) []byte {
	from := 0 // of what is kept and not yet appended
	for at := 0; at < len(payload); {
		number, kind, n := protowire.ConsumeTag(payload[at:])
		if n < 0 {
			break
		}
		m := protowire.ConsumeFieldValue(number, kind, payload[at+n:])
		if m < 0 {
			break
		}
		if slices.Contains(fields, number) {
			out, from = append(out, payload[from:at]...), at+n+m
		}
		at += n + m
	}
	return append(out, payload[from:]...)
}

// Upcast registers an upcaster from one event type to another, both given by
// an instance. It returns a codec that has it beside those of c.
func (c Codec) Upcast(from, to proto.Message, up Upcaster) Codec {
	out := Codec{upcasters: maps.Clone(c.upcasters), successors: maps.Clone(c.successors), left: c.left}
	if out.upcasters == nil {
		out.upcasters, out.successors = map[string]Upcaster{}, map[string]string{}
	}
	out.upcasters[TypeOf(from)] = up
	out.successors[TypeOf(from)] = TypeOf(to)
	return out
}

// TypeOf returns an event's type on the ledger: its message's full name.
func TypeOf(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }

// Sources returns the given types and every older type that upcasts to one of
// them, sorted: what a subscription must ask for to miss nothing. Empty stays
// empty, which is all types.
func (c Codec) Sources(types []string) []string {
	want := map[string]bool{}
	for _, t := range types {
		want[t] = true
	}
	for grown := true; grown; {
		grown = false
		for from, to := range c.successors {
			if want[to] && !want[from] {
				want[from], grown = true, true
			}
		}
	}
	return slices.Sorted(maps.Keys(want))
}

// Encode serialises an event deterministically, so that the same fact sent
// twice under one request id is the same bytes. Errors are Invalid.
func (c Codec) Encode(m proto.Message) (*ledgerv1.Event, error) {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil, problem.Invalidf("eventstore.event.missing", "writes.events", "an event is nil")
	}
	name := TypeOf(m)
	if !strings.HasPrefix(name, eventPackage) {
		return nil, problem.Invalidf("eventstore.event.type", "writes.events", "%s is not an event: only messages of %s* are recorded", name, eventPackage)
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, problem.Invalidf("eventstore.event.encoding", "writes.events", "%s doesn't serialise", name).Because(err)
	}
	if len(payload) > maxPayload {
		return nil, problem.Invalidf("eventstore.event.size", "writes.events", "%s is %d bytes; an event has at most %d", name, len(payload), maxPayload)
	}
	return &ledgerv1.Event{Type: name, Payload: payload}, nil
}

// Errors of Decode, reached through a *DecodeError's Unwrap when following.
var (
	ErrUnknownType = errors.New("eventstore: event type unknown to this build")
	ErrMalformed   = errors.New("eventstore: event payload is malformed")
)

// Decode reads an event and lifts it to its newest type. An unknown type is
// ErrUnknownType: a reader must be upgraded, or say which types it wants;
// silence would be a decision taken on half the facts. Neither error holds payload.
func (c Codec) Decode(e *ledgerv1.Event) (proto.Message, error) {
	name := e.GetType()
	if !strings.HasPrefix(name, eventPackage) || len(name) > 200 {
		return nil, fmt.Errorf("%w: outside %s*", ErrUnknownType, eventPackage)
	}
	if len(e.GetPayload()) > maxPayload {
		return nil, fmt.Errorf("%w: %s of %d bytes", ErrMalformed, name, len(e.GetPayload()))
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknownType, name)
	}
	m, payload := mt.New().Interface(), e.GetPayload()
	if left := c.left[name]; left != nil {
		scratch := lean.Get().(*[]byte)
		defer lean.Put(scratch)
		*scratch = without((*scratch)[:0], payload, left)
		payload = *scratch
	}
	if err := proto.Unmarshal(payload, m); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, name)
	}
	for range maxUpcasts {
		up, ok := c.upcasters[name]
		if !ok {
			return m, nil
		}
		if m, err = up(m); err != nil {
			return nil, fmt.Errorf("%w: upcasting %s: %w", ErrMalformed, name, err)
		}
		name = TypeOf(m)
	}
	return nil, fmt.Errorf("%w: upcasters of %s never end", ErrMalformed, name)
}

// request translates a commit to the ledger's request.
func (c Codec) request(commit Commit) (*ledgerv1.AppendRequest, error) {
	req := &ledgerv1.AppendRequest{
		Log:        commit.Log,
		RoutingKey: commit.RoutingKey,
		RequestId:  commit.RequestID,
		Causation:  commit.Causation,
		Actor:      commit.Actor,
	}
	for _, w := range commit.Writes {
		write := &ledgerv1.StreamWrite{Stream: w.Stream, ExpectedRevision: w.Expected}
		for _, m := range w.Events {
			e, err := c.Encode(m)
			if err != nil {
				return nil, err
			}
			write.Events = append(write.Events, e)
		}
		req.Writes = append(req.Writes, write)
	}
	return req, nil
}

// Recorded translates an event that was read from a replica's own files, as
// Read and Follow do with those of the ledger. The error is a *DecodeError.
func (c Codec) Recorded(e *ledgerv1.RecordedEvent) (Recorded, error) { return c.recorded(e) }

// recorded translates an event read back.
func (c Codec) recorded(e *ledgerv1.RecordedEvent) (Recorded, error) {
	m, err := c.Decode(e.GetEvent())
	if err != nil {
		return Recorded{}, &DecodeError{Position: position(e.GetPosition()), Stream: e.GetStream(), Revision: e.GetRevision(), Type: e.GetEvent().GetType(), Err: err}
	}
	return Recorded{
		Position:     position(e.GetPosition()),
		Stream:       e.GetStream(),
		Revision:     e.GetRevision(),
		Event:        m,
		RecordedTime: e.GetRecordedTime().AsTime(),
		Actor:        e.GetActor(),
		RequestID:    e.GetRequestId(),
		Traceparent:  e.GetTraceparent(),
	}, nil
}

func position(p *ledgerv1.Position) Position {
	return Position{Log: p.GetLog(), Shard: p.GetShard(), Index: p.GetIndex()}
}

// DecodeError names the event that could not be read. Follow returns it after
// everything before that commit has been delivered: a follower that parks
// what it can't read continues at Position.Index+1.
type DecodeError struct {
	Position Position
	Stream   string
	Revision uint64
	Type     string
	Err      error
}

// Error names the place and the type; never the payload.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("eventstore: event at %s/%d/%d: %v", e.Position.Log, e.Position.Shard, e.Position.Index, e.Err)
}

// Unwrap returns ErrUnknownType or ErrMalformed.
func (e *DecodeError) Unwrap() error { return e.Err }
