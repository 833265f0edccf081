package ledger

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/convoy"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/shard"
	"github.com/probity-health/probity/services/problem"
)

// Bounds of a call, where the caller sets none that is shorter.
const (
	appendTimeout  = 30 * time.Second
	receiptTimeout = 5 * time.Second
	tokenTimeout   = 5 * time.Second

	defaultPage  = 1000
	maxPage      = 10000
	maxPageBytes = 4 << 20
)

// handler implements the RPC service. Errors are *problem.Error, which the
// server maps to codes, except a revision conflict: that is a *connect.Error
// with a Conflict detail, ready for the wire.
type handler struct{ n *Node }

// Append implements the RPC.
func (h handler) Append(ctx context.Context, r *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	s, err := h.submit(ctx, r, "")
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); !ok || end.Sub(s.start) > appendTimeout {
		s.past = h.n.appends.from(s.start)
	}
	return h.answer(ctx, &s)
}

// submitted is an append on its way: to this node's own writer or, as a
// ticket, to the node that owns the shard.
type submitted struct {
	request     *ledgerv1.AppendRequest
	provenance  core.Provenance
	forwardedBy string
	member      *member
	shard       uint32
	start       time.Time
	past        <-chan struct{} // closed when it has waited long enough; nil where the context tells

	pending *shard.Pending
	ticket  *convoy.Ticket[*ledgerv1.AppendRequest, *ledgerv1.AppendResult]
	owner   string // the session it was sent to
}

func (h handler) submit(ctx context.Context, r *ledgerv1.AppendRequest, forwardedBy string) (submitted, error) {
	if err := core.CheckRequest(r); err != nil {
		return submitted{}, err
	}
	m, index, err := h.n.route(r.Log, r.RoutingKey)
	if err != nil {
		return submitted{}, err
	}
	s := submitted{
		request: r, provenance: core.Provenance{Actor: r.Actor, Traceparent: r.Traceparent},
		forwardedBy: forwardedBy, member: m, shard: index, start: time.Now(),
	}
	if caller, ok := identity.FromContext(ctx); ok && s.provenance.Actor == "" {
		s.provenance.Actor = caller.Subject
	}
	if s.provenance.Traceparent == "" && trace.SpanContextFromContext(ctx).IsValid() {
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		s.provenance.Traceparent = carrier.Get("traceparent")
	}
	return s, h.send(ctx, &s)
}

// send offers an append to this node's writer and, when the shard is another
// node's, to that one.
func (h handler) send(ctx context.Context, s *submitted) (err error) {
	s.pending, s.ticket = nil, nil
	for range maxRounds {
		s.pending, err = s.member.writer.Submit(s.request, s.provenance)
		if !h.mayForward(s, err) {
			return err
		}
		to, owner, ferr := h.n.forward.owner(ctx, s.member, s.owner)
		if ferr != nil {
			return noOwner(s.request.Log, s.shard, ferr)
		}
		if to == nil {
			continue // this node took the shard meanwhile
		}
		s.owner = owner
		// Who acted travels in the request: the hop's own token is the node's.
		r := proto.CloneOf(s.request)
		r.Actor, r.Traceparent = s.provenance.Actor, s.provenance.Traceparent
		s.ticket = to.Send(ctx, r)
		return nil
	}
	return err
}

func (h handler) mayForward(s *submitted, err error) bool {
	return h.n.forward != nil && s.forwardedBy == "" && isNotOwner(err)
}

func (h handler) answer(ctx context.Context, s *submitted) (*ledgerv1.AppendResponse, error) {
	for round := 1; ; round++ {
		res, err := h.outcome(ctx, s)
		// Whoever was asked no longer owns the shard and appended nothing.
		if h.mayForward(s, err) && round < maxRounds {
			if err = h.send(ctx, s); err == nil {
				continue
			}
		}
		h.n.metrics.appended(ctx, s.request.Log, time.Since(s.start), res.GetReplayed(), err)
		return res, err
	}
}

// outcome waits for where the append was sent.
func (h handler) outcome(ctx context.Context, s *submitted) (*ledgerv1.AppendResponse, error) {
	if s.ticket != nil {
		ctx, cancel := context.WithDeadline(ctx, s.start.Add(appendTimeout))
		defer cancel()
		result, err := s.ticket.Wait(ctx)
		switch {
		case errors.Is(err, convoy.ErrFull):
			return nil, problem.New(problem.Exhausted, problem.Problem{
				RuleID:  "ledger.append.queue-full",
				Message: "too many appends wait for the node that writes the shard",
				Fix:     "send the same append again after a pause",
			})
		case err != nil:
			return nil, unreached(err)
		}
		return fromResult(result)
	}
	a, err := s.pending.WaitUntil(ctx, s.past)
	if err != nil {
		var conflict *core.ConflictError
		if errors.As(err, &conflict) {
			err = conflictError(&ledgerv1.Conflict{Stream: conflict.Stream, ActualRevision: conflict.Actual})
		}
		return nil, err
	}
	promise, err := a.Promise()
	if err != nil {
		return nil, err
	}
	// The parts of an answer live and die together.
	made := &struct {
		response  ledgerv1.AppendResponse
		position  ledgerv1.Position
		recorded  timestamppb.Timestamp
		revisions [1]uint64
	}{}
	log, out := s.request.Log, &made.response
	made.position.Log, made.position.Shard, made.position.Index = log, s.shard, a.Index
	out.Position = &made.position
	if !a.Recorded.IsZero() { // the row of an old commit has none, and this node may not hold the body
		made.recorded.Seconds, made.recorded.Nanos = a.Recorded.Unix(), int32(a.Recorded.Nanosecond())
		out.RecordedTime = &made.recorded
	}
	// A copy: the commit's own would keep the commit.
	out.Revisions, out.Token = append(made.revisions[:0], a.Revisions...), core.Token(log, s.shard, a.Index)
	out.Promise, out.Replayed = promise, a.Replayed
	return out, nil
}

func conflictError(c *ledgerv1.Conflict) *connect.Error {
	err := connect.NewError(connect.CodeFailedPrecondition, &core.ConflictError{Stream: c.Stream, Actual: c.ActualRevision})
	if d, derr := connect.NewErrorDetail(c); derr == nil {
		err.AddDetail(d)
	}
	return err
}

// AppendBatch implements the RPC. The appends are queued in order before any
// is awaited, so those of one shard share group commits.
func (h handler) AppendBatch(ctx context.Context, r *ledgerv1.AppendBatchRequest) (*ledgerv1.AppendBatchResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if len(r.Appends) == 0 || len(r.Appends) > 1000 {
		return nil, problem.Invalidf("ledger.append-batch.size", "appends", "a batch has 1 to 1,000 appends")
	}
	out := &ledgerv1.AppendBatchResponse{Results: make([]*ledgerv1.AppendResult, len(r.Appends))}
	waiting := make([]submitted, len(r.Appends))
	for i, a := range r.Appends {
		var err error
		if waiting[i], err = h.submit(ctx, a, r.ForwardedBy); err != nil {
			out.Results[i] = failed(err)
		}
	}
	for i := range waiting {
		if out.Results[i] != nil {
			continue
		}
		res, err := h.answer(ctx, &waiting[i])
		if err != nil {
			out.Results[i] = failed(err)
			continue
		}
		out.Results[i] = &ledgerv1.AppendResult{Result: &ledgerv1.AppendResult_Response{Response: res}}
	}
	return out, nil
}

// codes maps kinds to the RPC codes the server uses for them.
var codes = map[problem.Kind]connect.Code{
	problem.Invalid: connect.CodeInvalidArgument, problem.NotFound: connect.CodeNotFound,
	problem.Conflict: connect.CodeFailedPrecondition, problem.Unauthenticated: connect.CodeUnauthenticated,
	problem.Forbidden: connect.CodePermissionDenied, problem.Exhausted: connect.CodeResourceExhausted,
	problem.Unavailable: connect.CodeUnavailable, problem.Internal: connect.CodeInternal,
}

func failed(err error) *ledgerv1.AppendResult {
	var c *connect.Error
	if errors.As(err, &c) {
		for _, d := range c.Details() {
			if v, derr := d.Value(); derr == nil {
				if conflict, ok := v.(*ledgerv1.Conflict); ok {
					return &ledgerv1.AppendResult{Result: &ledgerv1.AppendResult_Conflict{Conflict: conflict}}
				}
			}
		}
	}
	p := problem.As(err)
	f := &ledgerv1.AppendFailure{Code: codes[p.Kind].String(), Message: p.Error(), Retryable: p.Retryable()}
	if len(p.Problems) == 1 {
		one := p.Problems[0]
		f.RuleId, f.FieldPath, f.Message, f.Fix = one.RuleID, one.FieldPath, one.Message, one.Fix
	}
	return &ledgerv1.AppendResult{Result: &ledgerv1.AppendResult_Failure{Failure: f}}
}

// ReadStream implements the RPC.
func (h handler) ReadStream(ctx context.Context, r *ledgerv1.ReadStreamRequest) (*ledgerv1.ReadStreamResponse, error) {
	m, index, err := h.n.route(r.Log, r.RoutingKey)
	if err != nil {
		return nil, err
	}
	limit := int(r.MaxCount)
	switch {
	case limit == 0:
		limit = defaultPage
	case limit > maxPage:
		return nil, problem.Invalidf("ledger.read.count", "max_count", "a page has at most %d events", maxPage)
	}
	if r.MinToken != "" {
		if err := h.await(ctx, m, r, index); err != nil {
			return nil, err
		}
	}
	out := &ledgerv1.ReadStreamResponse{}
	err = h.n.read(func() error { return page(m, r, limit, out) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ReadStreams implements the RPC.
func (h handler) ReadStreams(ctx context.Context, r *ledgerv1.ReadStreamsRequest) (*ledgerv1.ReadStreamsResponse, error) {
	if len(r.Reads) == 0 || len(r.Reads) > 1000 {
		return nil, problem.Invalidf("ledger.read-streams.size", "reads", "a call has 1 to 1,000 reads")
	}
	out := &ledgerv1.ReadStreamsResponse{}
	for size := 0; len(out.Results) < len(r.Reads) && size < maxPageBytes; {
		res, err := h.ReadStream(ctx, r.Reads[len(out.Results)])
		if err != nil {
			return nil, err
		}
		size += proto.Size(res)
		out.Results = append(out.Results, res)
	}
	return out, nil
}

// page fills a stream's page in.
func page(m *member, r *ledgerv1.ReadStreamRequest, limit int, out *ledgerv1.ReadStreamResponse) (err error) {
	if out.LastRevision, err = m.replica.LastRevision(r.Stream); err != nil {
		return err
	}
	if out.LastRevision < 0 || r.FromRevision > uint64(out.LastRevision) {
		out.EndOfStream = true
		return nil
	}
	size := 0
	err = m.replica.Stream(r.Stream, r.FromRevision, func(e *ledgerv1.RecordedEvent) bool {
		if len(out.Events) > 0 && size+len(e.Event.Payload) > maxPageBytes {
			return false
		}
		size += len(e.Event.Payload) + 256
		out.Events = append(out.Events, e)
		// The stream may have grown since its last revision was read.
		out.LastRevision = max(out.LastRevision, int64(e.Revision))
		return len(out.Events) < limit
	})
	n := len(out.Events)
	out.EndOfStream = n > 0 && int64(out.Events[n-1].Revision) == out.LastRevision
	return err
}

// await waits until the commit of a read's token is visible here.
func (h handler) await(ctx context.Context, m *member, r *ledgerv1.ReadStreamRequest, index uint32) error {
	log, shardIndex, commit, err := core.ParseToken(r.MinToken)
	if err != nil {
		return err
	}
	if log != r.Log || shardIndex != index {
		return problem.Invalidf("ledger.read.token-shard", "min_token", "the token is of another log or routing key than the read")
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	err = m.replica.WaitIndex(ctx, commit)
	if err != nil && ctx.Err() != nil {
		return problem.New(problem.Unavailable, problem.Problem{
			RuleID: "ledger.read.behind", FieldPath: "min_token",
			Message: "this replica has not followed as far as the token in time",
			Fix:     "read again; a token of another ledger never comes",
		}).Because(err)
	}
	return err
}

// GetReceipt implements the RPC. It waits a bounded time for the commit to
// come as far as asked.
func (h handler) GetReceipt(ctx context.Context, r *ledgerv1.GetReceiptRequest) (*ledgerv1.GetReceiptResponse, error) {
	pos := r.GetPosition()
	m, err := h.n.find(pos.GetLog(), pos.GetShard())
	if err != nil {
		return nil, err
	}
	sealed := r.MinStage == ledgerv1.ReceiptStage_RECEIPT_STAGE_SEALED
	ctx, cancel := context.WithTimeout(ctx, receiptTimeout)
	defer cancel()
	signal := &h.n.blocks.Finalised
	if sealed {
		signal = &h.n.blocks.Changed
	}
	for {
		changed := signal.Wait()
		out := &ledgerv1.GetReceiptResponse{}
		err := h.n.read(func() error {
			doc, err := h.n.blocks.Receipt(pos.Log, pos.Shard, pos.Index, sealed)
			if err != nil || doc == nil {
				return err
			}
			out.Receipt, out.Stage = doc.Marshal(), ledgerv1.ReceiptStage_RECEIPT_STAGE_SEALED
			if _, final := h.n.blocks.Final(); final != nil && doc.Header.Height <= final.Height {
				out.Stage = ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL
			}
			if r.IncludeCommit {
				out.Commit, err = m.replica.Commit(pos.Index)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if out.Receipt != nil {
			h.n.metrics.receipt(ctx, len(out.Receipt))
			return out, nil
		}
		if err := h.n.blocks.Halted(); err != nil {
			return nil, err
		}
		select {
		case <-changed:
		case <-h.n.closing:
			return nil, closed()
		case <-ctx.Done():
			return nil, h.notYet(sealed)
		}
	}
}

func (h handler) notYet(sealed bool) error {
	p := problem.Problem{
		RuleID: "ledger.receipt.not-final", FieldPath: "position",
		Message: "no quorum has cosigned this position yet",
		Fix:     "ask again in a second, or for the stage SEALED; a position that was never returned by an append never becomes final",
	}
	if sealed {
		p.RuleID, p.Message = "ledger.receipt.not-sealed", "no block that this node cosigned holds this position yet"
		p.Fix = "ask again in a second; a position that was never returned by an append is never sealed"
	}
	return problem.New(problem.Conflict, p)
}

func closed() error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID: "ledger.node.closing", Message: "this ledger node is shutting down", Fix: "call again; another node or its successor answers",
	})
}

// GetCheckpoint implements the RPC. Where there are commits and nothing is
// final yet, it waits a bounded time for the first checkpoint.
func (h handler) GetCheckpoint(ctx context.Context, _ *ledgerv1.GetCheckpointRequest) (*ledgerv1.GetCheckpointResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptTimeout)
	defer cancel()
	changed := h.n.blocks.Changed.Wait()
	signed, block := h.n.blocks.Final()
	for signed == nil {
		if err := h.n.blocks.Halted(); err != nil {
			return nil, err
		}
		if !h.n.holdsCommits() {
			return nil, nothingFinal()
		}
		select {
		case <-changed:
		case <-h.n.closing:
			return nil, closed()
		case <-ctx.Done():
			return nil, nothingFinal()
		}
		changed = h.n.blocks.Changed.Wait()
		signed, block = h.n.blocks.Final()
	}
	policy := h.n.blocks.Policy()
	terms := policy.At(block.Height)
	out := &ledgerv1.GetCheckpointResponse{Checkpoint: signed, Policy: policy.Marshal(), Quorum: uint32(terms.Quorum)}
	for _, k := range terms.Cosigners() {
		out.VerifierKeys = append(out.VerifierKeys, k.String())
	}
	return out, nil
}

// holdsCommits tells whether any shard has a commit.
func (n *Node) holdsCommits() bool {
	any := false
	n.members(func(_ string, _ int, m *member) { any = any || m.replica.Head().Next > 0 })
	return any
}

func nothingFinal() error {
	return problem.New(problem.Conflict, problem.Problem{
		RuleID: "ledger.checkpoint.none", Message: "nothing is final yet",
		Fix: "append something, or wait until a quorum of the ledger's parties has cosigned what there is, then ask again",
	})
}

// GetLedger implements the RPC.
func (h handler) GetLedger(context.Context, *ledgerv1.GetLedgerRequest) (*ledgerv1.GetLedgerResponse, error) {
	heads, err := h.n.heads()
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.GetLedgerResponse{Origin: h.n.cfg.Origin}
	for _, head := range heads {
		out.Heads = append(out.Heads, protoHead(head))
	}
	if block, _ := h.n.blocks.Last(); block != nil {
		out.BlockHeight = block.Height
	}
	return out, nil
}

func protoHead(h receipt.Head) *ledgerv1.ShardHead {
	return &ledgerv1.ShardHead{Log: h.Log, Shard: h.Shard, Size: h.Size, Root: append([]byte(nil), h.Root[:]...), State: append([]byte(nil), h.State[:]...)}
}
