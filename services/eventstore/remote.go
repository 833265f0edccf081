package eventstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/convoy"
	"github.com/probity-health/probity/services/problem"
)

const (
	// Limits of one AppendBatch call: under the ledger's 1,000 appends and
	// half of the 8 MiB that a service's handler reads.
	batchCommits = 500
	batchBytes   = 4 << 20
	// appendsInFlight calls go at once; see package convoy. More would make
	// smaller ones, and the ledger's group commit takes one after the other.
	appendsInFlight = 4
	// appendsTimeout bounds a shared call, which outlives any one of its callers.
	appendsTimeout = 35 * time.Second
	// readPage is how many events one ReadStream asks for.
	readPage = 1000
	// maxStream bounds what Read loads. A stream is one claim, policy or
	// accumulator; one that is longer is a defect of routing, not of memory.
	maxStream = 1 << 20
	// maxFloors bounds how many routing keys a Remote remembers a token for.
	maxFloors = 1 << 15
	fewFloors = 64 // room for these is made first
)

// RemoteOptions configure a Remote; the zero value is usable.
type RemoteOptions struct {
	// Attempts of one append or read while the ledger is unavailable; 0 is 12,
	// which with the default backoffs outlasts a shard's change of owner.
	Attempts int
	// MinBackoff doubles after each attempt up to MaxBackoff, with jitter; 0 is 20 ms and 2 s.
	MinBackoff, MaxBackoff time.Duration
	// Codec translates events; the zero value has no upcasters.
	Codec Codec
	// Logger is told of reconnects; nil is silence.
	Logger *slog.Logger
}

// Remote is the Store of ledger nodes, by RPC. Its HTTP client should ping
// idle HTTP/2 connections, or a half-open one holds a follower up until TCP
// gives in. Reads and appends of several callers share calls, so the client
// acts under credentials of its own and doesn't forward its caller's; a
// commit's actor and trace are its own all the same.
type Remote struct {
	client  ledgerv1connect.LedgerServiceClient
	reads   *reads
	appends *convoy.Convoy[*ledgerv1.AppendRequest, answered]
	o       RemoteOptions

	mu sync.Mutex // guards floors
	// floors say, by log and routing key, the highest position this process
	// was answered with. Reads ask for it, so that a replica that is behind
	// doesn't hide from a service what it has just written. They never fall:
	// a repeated request is answered with its first, lower position.
	floors floors
}

// NewRemote makes a Store over a ledger client.
func NewRemote(client ledgerv1connect.LedgerServiceClient, o RemoteOptions) *Remote {
	if o.Attempts <= 0 {
		o.Attempts = 12
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = 20 * time.Millisecond
	}
	if o.MaxBackoff < o.MinBackoff {
		o.MaxBackoff = max(2*time.Second, o.MinBackoff)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Remote{
		client: client, reads: &reads{client: client}, o: o,
		appends: convoy.New(convoy.Options[*ledgerv1.AppendRequest, answered]{
			Call: func(ctx context.Context, reqs []*ledgerv1.AppendRequest) ([]answered, error) {
				return appendTogether(ctx, client, reqs), nil
			},
			Size:  func(r *ledgerv1.AppendRequest) int { return proto.Size(r) },
			Lanes: appendsInFlight, Most: batchCommits, Bytes: batchBytes, Timeout: appendsTimeout,
		}),
	}
}

// Append implements Store. While the ledger is unavailable the same request
// id is sent again, so an append whose answer was lost is found, not repeated.
func (r *Remote) Append(ctx context.Context, c Commit) (Appended, error) {
	req, err := r.o.Codec.request(c)
	if err != nil {
		return Appended{}, err
	}
	// The call it travels in belongs to no trace of its callers.
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	req.Traceparent = carrier.Get("traceparent")
	var res *ledgerv1.AppendResponse
	err = r.retry(ctx, func() error {
		got, err := r.appends.Do(ctx, req)
		if err == nil {
			res, err = got.response, got.err
		}
		return err
	})
	if err != nil {
		return Appended{}, err
	}
	return r.appended(req, res)
}

// answered is one append's outcome within a shared call.
type answered struct {
	response *ledgerv1.AppendResponse
	err      error
}

// appendTogether sends appends of several callers in one call.
func appendTogether(ctx context.Context, client ledgerv1connect.LedgerServiceClient, reqs []*ledgerv1.AppendRequest) []answered {
	out := make([]answered, len(reqs))
	if len(reqs) == 1 {
		out[0].response, out[0].err = client.Append(ctx, reqs[0])
		return out
	}
	res, err := client.AppendBatch(ctx, &ledgerv1.AppendBatchRequest{Appends: reqs})
	if err == nil && len(res.GetResults()) != len(reqs) {
		err = malformedAnswer(fmt.Sprintf("%d results for %d appends", len(res.GetResults()), len(reqs)))
	}
	passing := err != nil && problem.Is(fromRPC(err), problem.Unavailable)
	for i := range out {
		switch {
		case passing:
			// Each caller tries again.
			out[i].err = err
		case err != nil:
			// One of them may be to blame for all, which are checked as a
			// whole: each goes by itself.
			out[i].response, out[i].err = client.Append(ctx, reqs[i])
		case res.Results[i].GetResponse() != nil:
			out[i].response = res.Results[i].GetResponse()
		default:
			out[i].err = refused(res.Results[i])
		}
	}
	return out
}

// AppendBatch implements Store. It splits what is too much for one call, and
// sends again only the commits that may yet succeed. Every outcome is filled;
// the error is always nil.
func (r *Remote) AppendBatch(ctx context.Context, cs []Commit) ([]Outcome, error) {
	out := make([]Outcome, len(cs))
	reqs := make([]*ledgerv1.AppendRequest, len(cs))
	var pending []int
	for i, c := range cs {
		if reqs[i], out[i].Err = r.o.Codec.request(c); out[i].Err == nil {
			pending = append(pending, i)
		}
	}
	for attempt := 0; len(pending) > 0; attempt++ {
		if attempt > 0 {
			if err := pause(ctx, r.backoff(attempt)); err != nil {
				return out, nil //nolint:nilerr // the outcomes already say Unavailable
			}
		}
		var again []int
		for len(pending) > 0 {
			var part []int
			part, pending = split(reqs, pending)
			again = append(again, r.appendPart(ctx, reqs, part, out)...)
		}
		if attempt+1 >= r.o.Attempts {
			break
		}
		pending = again
	}
	return out, nil
}

// split takes as many pending commits off as fit one call: at least one.
func split(reqs []*ledgerv1.AppendRequest, pending []int) (part, rest []int) {
	size := 0
	for n, i := range pending {
		size += proto.Size(reqs[i])
		if n > 0 && (n == batchCommits || size > batchBytes) {
			return pending[:n], pending[n:]
		}
	}
	return pending, nil
}

// appendPart makes one call, fills the part's outcomes and returns those to send again.
func (r *Remote) appendPart(ctx context.Context, reqs []*ledgerv1.AppendRequest, part []int, out []Outcome) (again []int) {
	call := &ledgerv1.AppendBatchRequest{}
	for _, i := range part {
		call.Appends = append(call.Appends, reqs[i])
	}
	res, err := r.client.AppendBatch(ctx, call)
	if err == nil && len(res.GetResults()) != len(part) {
		err = malformedAnswer(fmt.Sprintf("%d results for %d appends", len(res.GetResults()), len(part)))
	}
	if err != nil && problem.Is(fromRPC(err), problem.Invalid) && len(part) > 1 {
		// The ledger checks a call as a whole, and one malformed commit must not
		// take the others with it: send those that are sound.
		sound := part[:0:0]
		for _, i := range part {
			if out[i].Err = validate(reqs[i]); out[i].Err == nil {
				sound = append(sound, i)
			}
		}
		if len(sound) < len(part) {
			if len(sound) == 0 {
				return nil
			}
			return r.appendPart(ctx, reqs, sound, out)
		}
	}
	for n, i := range part {
		if err != nil {
			out[i].Err = fromRPC(err)
		} else {
			out[i] = r.outcome(reqs[i], res.GetResults()[n])
		}
		if retryable(ctx, out[i].Err) {
			again = append(again, i)
		}
	}
	return again
}

func (r *Remote) outcome(req *ledgerv1.AppendRequest, res *ledgerv1.AppendResult) (o Outcome) {
	if res.GetResponse() != nil {
		o.Appended, o.Err = r.appended(req, res.GetResponse())
	} else {
		o.Err = refused(res)
	}
	return o
}

// refused is the error of a result that is no answer.
func refused(res *ledgerv1.AppendResult) error {
	switch {
	case res.GetConflict() != nil:
		return &ConflictError{Stream: res.GetConflict().GetStream(), Actual: res.GetConflict().GetActualRevision()}
	case res.GetFailure() != nil:
		return fromFailure(res.GetFailure())
	}
	return malformedAnswer("an empty result")
}

// appended translates an answer and remembers its token.
func (r *Remote) appended(req *ledgerv1.AppendRequest, res *ledgerv1.AppendResponse) (Appended, error) {
	if res.GetPosition() == nil || len(res.GetRevisions()) != len(req.GetWrites()) {
		return Appended{}, malformedAnswer("an append's answer without its position or revisions")
	}
	at := position(res.GetPosition())
	r.mu.Lock()
	r.floors.raise(routed{req.GetLog(), req.GetRoutingKey()}, at)
	r.mu.Unlock()
	return Appended{
		Position:     at,
		Revisions:    res.GetRevisions(),
		Token:        res.GetToken(),
		Promise:      res.GetPromise(),
		Replayed:     res.GetReplayed(),
		RecordedTime: res.GetRecordedTime().AsTime(),
	}, nil
}

// Read implements Store, page by page. A page that leaves a gap is refused.
func (r *Remote) Read(ctx context.Context, log, routingKey, stream string, from uint64) ([]Recorded, error) {
	r.mu.Lock()
	var floor string
	if at, ok := r.floors.of(routed{log, routingKey}); ok {
		floor = at.Token()
	}
	r.mu.Unlock()
	var out []Recorded
	for next := from; ; {
		var page *ledgerv1.ReadStreamResponse
		err := r.retry(ctx, func() (err error) {
			page, err = r.reads.read(ctx, &ledgerv1.ReadStreamRequest{
				Log: log, RoutingKey: routingKey, Stream: stream, FromRevision: next, MaxCount: readPage, MinToken: floor,
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, e := range page.GetEvents() {
			if e.GetStream() != stream || e.GetRevision() != next {
				return nil, malformedAnswer("a stream with a gap")
			}
			next++
			rec, err := r.o.Codec.recorded(e)
			if err != nil {
				return nil, err
			}
			out = append(out, rec)
		}
		switch {
		case page.GetEndOfStream():
			return out, nil
		case len(page.GetEvents()) == 0:
			return nil, malformedAnswer("an empty page before the stream's end")
		case len(out) >= maxStream:
			return nil, problem.New(problem.Exhausted, problem.Problem{
				RuleID:  "eventstore.stream.length",
				Message: "the stream is too long to load",
				Fix:     "read it in parts with an explicit first revision",
			})
		}
	}
}

// Follow implements Store. It reconnects for as long as ctx lives, from what
// handle last accepted; only an answer that no reconnect can mend ends it.
func (r *Remote) Follow(ctx context.Context, log string, from map[uint32]uint64, types []string, handle func(context.Context, Batch) error) error {
	return r.follow(ctx, r.o.Codec, log, from, types, handle)
}

// Leaving returns the same store whose Follow, and only that, delivers events
// without some of their fields, as Codec.Leaving decodes them.
func (r *Remote) Leaving(leave func(Codec) Codec) Store {
	return &leaving{Remote: r, codec: leave(r.o.Codec)}
}

type leaving struct {
	*Remote
	codec Codec
}

func (l *leaving) Follow(ctx context.Context, log string, from map[uint32]uint64, types []string, handle func(context.Context, Batch) error) error {
	return l.follow(ctx, l.codec, log, from, types, handle)
}

func (r *Remote) follow(ctx context.Context, codec Codec, log string, from map[uint32]uint64, types []string, handle func(context.Context, Batch) error) error {
	if !logName(log) {
		return problem.Invalidf("eventstore.log", "log", "a log's name is 1 to 32 letters a-z")
	}
	c := newCursor(codec, log, from, handle)
	wanted := codec.Sources(types)
	for failures := 0; ; {
		received, err := r.subscribe(ctx, c, wanted)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !reconnectable(err) {
			return ownError(err)
		}
		if failures++; received {
			failures = 1
		}
		r.o.Logger.WarnContext(ctx, "following the ledger was interrupted; reconnecting",
			"log", log, "failures", failures, "error", err)
		if pause(ctx, r.backoff(failures)) != nil {
			return ctx.Err()
		}
	}
}

// subscribe follows until the connection ends; received tells whether it delivered anything.
func (r *Remote) subscribe(ctx context.Context, c *cursor, wanted []string) (received bool, err error) {
	ctx, release := context.WithCancel(ctx)
	defer release()
	req := &ledgerv1.SubscribeRequest{Log: c.log, Types: wanted}
	for shard, index := range c.next {
		req.From = append(req.From, &ledgerv1.ShardIndex{Shard: shard, Index: index})
	}
	stream, err := r.client.Subscribe(ctx, req)
	if err != nil {
		return false, fromRPC(err)
	}
	defer stream.Close() //nolint:errcheck // nothing is left to lose: what was delivered has been handled
	for stream.Receive() {
		received = true
		heads := make(map[uint32]uint64, len(stream.Msg().GetNext()))
		for _, n := range stream.Msg().GetNext() {
			heads[n.GetShard()] = n.GetIndex()
		}
		if err := c.deliver(ctx, stream.Msg().GetEvents(), heads, stream.Msg().GetCaughtUp()); err != nil {
			return received, terminalError{err}
		}
	}
	if err := stream.Err(); err != nil {
		return received, fromRPC(err)
	}
	return received, nil
}

// retry calls until it succeeds, fails for good, or attempts or ctx run out.
func (r *Remote) retry(ctx context.Context, call func() error) error {
	for attempt := 1; ; attempt++ {
		err := call()
		if err == nil {
			return nil
		}
		if err = fromRPC(err); attempt >= r.o.Attempts || !retryable(ctx, err) {
			return err
		}
		if pause(ctx, r.backoff(attempt)) != nil {
			return err
		}
	}
}

func (r *Remote) backoff(attempt int) time.Duration {
	d := r.o.MinBackoff << min(attempt-1, 16)
	if d <= 0 || d > r.o.MaxBackoff {
		return r.o.MaxBackoff
	}
	return d
}
