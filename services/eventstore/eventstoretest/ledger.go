package eventstoretest

import (
	"context"
	"errors"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// Fault is a way in which the fake ledger's next call goes wrong.
type Fault int

// The faults. Each strikes once, at the next call it fits.
const (
	Refuse      Fault = iota + 1 // the next unary call is Unavailable and has no effect
	LoseAck                      // the next append takes effect, and is answered Unavailable
	CutStream                    // a subscription ends after one batch, without an error
	BreakStream                  // a subscription fails after one batch
	RewindHead                   // a subscription's second batch says a head went backwards
)

// Ledger is a LedgerService over a Store, for tests of what speaks to a
// ledger. It gives no receipts.
type Ledger struct {
	ledgerv1connect.UnimplementedLedgerServiceHandler
	store eventstore.Store
	codec eventstore.Codec

	mu     sync.Mutex // guards faults
	faults []Fault
}

// NewLedger serves store.
func NewLedger(store eventstore.Store) *Ledger { return &Ledger{store: store} }

// Inject queues faults.
func (l *Ledger) Inject(faults ...Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, faults...)
}

// struck takes the first queued fault if it is one of those that fit.
func (l *Ledger) struck(fit ...Fault) Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) == 0 || !slices.Contains(fit, l.faults[0]) {
		return 0
	}
	f := l.faults[0]
	l.faults = l.faults[1:]
	return f
}

// Pending tells how many faults have not struck yet.
func (l *Ledger) Pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.faults)
}

var errFault = connect.NewError(connect.CodeUnavailable, errors.New("injected"))

// Append implements LedgerService.
func (l *Ledger) Append(ctx context.Context, req *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	fault := l.struck(Refuse, LoseAck)
	if fault == Refuse {
		return nil, errFault
	}
	res, err := l.append(ctx, req)
	if err != nil {
		return nil, rpcError(err)
	}
	if fault == LoseAck {
		return nil, errFault
	}
	return res, nil
}

func (l *Ledger) append(ctx context.Context, req *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	c := eventstore.Commit{Log: req.GetLog(), RoutingKey: req.GetRoutingKey(), RequestID: req.GetRequestId(), Causation: req.GetCausation(), Actor: req.GetActor()}
	for _, w := range req.GetWrites() {
		write := eventstore.Write{Stream: w.GetStream(), Expected: w.GetExpectedRevision()}
		for _, e := range w.GetEvents() {
			m, err := l.codec.Decode(e)
			if err != nil {
				return nil, problem.Invalidf("ledger.event", "writes.events", "not an event")
			}
			write.Events = append(write.Events, m)
		}
		c.Writes = append(c.Writes, write)
	}
	a, err := l.store.Append(ctx, c)
	if err != nil {
		return nil, err
	}
	return &ledgerv1.AppendResponse{
		Position:     &ledgerv1.Position{Log: a.Position.Log, Shard: a.Position.Shard, Index: a.Position.Index},
		Revisions:    a.Revisions,
		Token:        a.Token,
		Promise:      a.Promise,
		Replayed:     a.Replayed,
		RecordedTime: timestamppb.New(a.RecordedTime),
	}, nil
}

// AppendBatch implements LedgerService.
func (l *Ledger) AppendBatch(ctx context.Context, req *ledgerv1.AppendBatchRequest) (*ledgerv1.AppendBatchResponse, error) {
	fault := l.struck(Refuse, LoseAck)
	if fault == Refuse {
		return nil, errFault
	}
	out := &ledgerv1.AppendBatchResponse{}
	for _, a := range req.GetAppends() {
		res, err := l.append(ctx, a)
		var conflict *eventstore.ConflictError
		switch {
		case err == nil:
			out.Results = append(out.Results, &ledgerv1.AppendResult{Result: &ledgerv1.AppendResult_Response{Response: res}})
		case errors.As(err, &conflict):
			out.Results = append(out.Results, &ledgerv1.AppendResult{Result: &ledgerv1.AppendResult_Conflict{Conflict: &ledgerv1.Conflict{Stream: conflict.Stream, ActualRevision: conflict.Actual}}})
		default:
			code := connect.CodeOf(rpcError(err))
			out.Results = append(out.Results, &ledgerv1.AppendResult{Result: &ledgerv1.AppendResult_Failure{Failure: &ledgerv1.AppendFailure{
				Code: code.String(), Message: problem.As(err).Error(), Retryable: problem.As(err).Retryable(),
			}}})
		}
	}
	if fault == LoseAck {
		return nil, errFault
	}
	return out, nil
}

// ReadStream implements LedgerService, with small pages so that paging is tested.
func (l *Ledger) ReadStream(ctx context.Context, req *ledgerv1.ReadStreamRequest) (*ledgerv1.ReadStreamResponse, error) {
	if l.struck(Refuse) != 0 {
		return nil, errFault
	}
	events, err := l.store.Read(ctx, req.GetLog(), req.GetRoutingKey(), req.GetStream(), 0)
	if err != nil {
		return nil, rpcError(err)
	}
	out := &ledgerv1.ReadStreamResponse{LastRevision: int64(len(events)) - 1}
	page := events[min(req.GetFromRevision(), uint64(len(events))):]
	page = page[:min(len(page), 100, max(1, int(req.GetMaxCount())))]
	for _, e := range page {
		out.Events = append(out.Events, l.recorded(e))
	}
	out.EndOfStream = req.GetFromRevision()+uint64(len(page)) >= uint64(len(events))
	return out, nil
}

// ReadStreams implements LedgerService; it answers a few reads of a call, so
// that asking for the others is tested.
func (l *Ledger) ReadStreams(ctx context.Context, req *ledgerv1.ReadStreamsRequest) (*ledgerv1.ReadStreamsResponse, error) {
	out := &ledgerv1.ReadStreamsResponse{}
	for _, read := range req.GetReads()[:min(len(req.GetReads()), 3)] {
		res, err := l.ReadStream(ctx, read)
		if err != nil {
			return nil, err
		}
		out.Results = append(out.Results, res)
	}
	return out, nil
}

// Subscribe implements LedgerService.
func (l *Ledger) Subscribe(ctx context.Context, req *ledgerv1.SubscribeRequest, stream *connect.ServerStream[ledgerv1.SubscribeResponse]) error {
	from := map[uint32]uint64{}
	for _, f := range req.GetFrom() {
		from[f.GetShard()] = f.GetIndex()
	}
	over := errors.New("over")
	rewind := false
	err := l.store.Follow(ctx, req.GetLog(), from, req.GetTypes(), func(_ context.Context, b eventstore.Batch) error {
		out := &ledgerv1.SubscribeResponse{CaughtUp: b.CaughtUp}
		for _, e := range b.Events {
			out.Events = append(out.Events, l.recorded(e))
		}
		for shard, index := range b.Next {
			if rewind && index > 0 {
				index--
			}
			out.Next = append(out.Next, &ledgerv1.ShardIndex{Shard: shard, Index: index})
		}
		if rewind {
			out.Events = nil
		}
		if err := stream.Send(out); err != nil {
			return err
		}
		switch l.struck(CutStream, BreakStream, RewindHead) {
		case CutStream:
			return over
		case BreakStream:
			return errFault
		case RewindHead:
			rewind = true
		}
		return nil
	})
	if errors.Is(err, over) {
		return nil
	}
	return rpcError(err)
}

func (l *Ledger) recorded(e eventstore.Recorded) *ledgerv1.RecordedEvent {
	// What was read back encodes: it was decoded by the same codec.
	event, err := l.codec.Encode(e.Event)
	if err != nil {
		panic(err)
	}
	return &ledgerv1.RecordedEvent{
		Position:     &ledgerv1.Position{Log: e.Position.Log, Shard: e.Position.Shard, Index: e.Position.Index},
		Stream:       e.Stream,
		Revision:     e.Revision,
		Event:        event,
		RecordedTime: timestamppb.New(e.RecordedTime),
		Actor:        e.Actor,
		RequestId:    e.RequestID,
		Traceparent:  e.Traceparent,
	}
}

// rpcError does for tests what package server does for services.
func rpcError(err error) error {
	var rpc *connect.Error
	var conflict *eventstore.ConflictError
	switch {
	case err == nil || errors.As(err, &rpc):
		return err
	case errors.As(err, &conflict):
		out := connect.NewError(connect.CodeFailedPrecondition, conflict)
		if d, derr := connect.NewErrorDetail(&ledgerv1.Conflict{Stream: conflict.Stream, ActualRevision: conflict.Actual}); derr == nil {
			out.AddDetail(d)
		}
		return out
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	}
	code := map[problem.Kind]connect.Code{
		problem.Invalid: connect.CodeInvalidArgument, problem.NotFound: connect.CodeNotFound, problem.Conflict: connect.CodeAborted,
		problem.Exhausted: connect.CodeResourceExhausted, problem.Unavailable: connect.CodeUnavailable,
	}[problem.As(err).Kind]
	if code == 0 {
		code = connect.CodeInternal
	}
	return connect.NewError(code, err)
}
