// Package hammer loads a ledger over RPC and then holds it to what it said:
// every append it acknowledged is there once, where it said, and has a
// receipt that verifies. It knows the ledger by its RPCs alone.
package hammer

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// Ledger is what is hammered.
type Ledger interface {
	Append(context.Context, *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error)
	ReadStream(context.Context, *ledgerv1.ReadStreamRequest) (*ledgerv1.ReadStreamResponse, error)
	GetReceipt(context.Context, *ledgerv1.GetReceiptRequest) (*ledgerv1.GetReceiptResponse, error)
}

// Options say how hard. Name and Log are needed.
type Options struct {
	// Name begins every stream and request id of the run; no two runs on one
	// ledger may share it. Lower-case letters and digits.
	Name string
	// Log is appended to. What is written stays there for good.
	Log string
	// Callers append one after the other, each to a stream of its own; 0 is 8.
	Callers int
	// Rate is appends a second by all callers together; 0 is as fast as they
	// are answered.
	Rate float64
	// Duration of the load; 0 is 10 s.
	Duration time.Duration
	// Payload is an event's size in bytes, 16 at least; 0 is 1024.
	Payload int
	// Retry is how long an append whose outcome is unknown is sent again
	// with the same request id; 0 is 30 s.
	Retry time.Duration
	// Receipts bounds how many receipts are verified; 0 is all.
	Receipts int
	// Policy is whom the receipts are verified by.
	Policy receipt.Policy
	// Progress is called about once a second, with how it stands.
	Progress func(Progress)
}

// Progress is how a run stands.
type Progress struct {
	// Checking tells that the load is over; Done of Total are checked.
	Checking    bool
	Done, Total int
	Elapsed     time.Duration
	Appends     uint64
	Retries     uint64
	Rate        float64       // a second, since the last Progress
	P50, P99    time.Duration // since the last Progress
}

// Fault is a broken promise.
type Fault struct {
	// Kind is "lost", "moved", "doubled", "unasked" or "receipt".
	Kind  string `json:"kind"`
	Place string `json:"place"`
	What  string `json:"what"`
}

// Result is what came of a run. Times are in milliseconds.
type Result struct {
	Appends  uint64  `json:"appends"` // acknowledged
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"rate"` // a second
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
	Retries  uint64  `json:"retries"`
	Unknown  uint64  `json:"unknown"` // never learned; each may be there or not
	Receipts int     `json:"receipts"`
	Faults   []Fault `json:"faults"`
	// LastError is the last that was answered by a retry, for whoever wonders.
	LastError string `json:"last_error,omitempty"`
}

// ack is one acknowledged append.
type ack struct {
	number   uint64
	revision uint64
	shard    uint32
	index    uint64
}

type caller struct {
	key, stream string
	acks        []ack
	token       string
	unknown     map[uint64]bool
	took        []time.Duration
}

type run struct {
	opts    Options
	ledger  Ledger
	callers []*caller
	appends atomic.Uint64
	retries atomic.Uint64

	mu     sync.Mutex // guards what follows
	recent []time.Duration
	last   error
	faults []Fault
}

// Run loads the ledger until Duration is over or ctx ends, and then checks.
// The error is of what kept it from doing so; what is wrong with the ledger
// is in Result.Faults.
func Run(ctx context.Context, ledger Ledger, opts Options) (Result, error) {
	opts.Callers = cmp.Or(opts.Callers, 8)
	opts.Duration = cmp.Or(opts.Duration, 10*time.Second)
	opts.Payload = max(16, cmp.Or(opts.Payload, 1024))
	opts.Retry = cmp.Or(opts.Retry, 30*time.Second)
	r := &run{opts: opts, ledger: ledger}
	for i := range opts.Callers {
		name := fmt.Sprintf("%s-%d", opts.Name, i)
		r.callers = append(r.callers, &caller{key: name, stream: "hammer-" + name, unknown: map[uint64]bool{}})
	}
	start := time.Now()
	if err := r.load(ctx, start); err != nil {
		return Result{}, err
	}
	elapsed := time.Since(start)
	checked, err := r.check(ctx, start)
	if err != nil {
		return Result{}, err
	}
	return r.result(elapsed, checked), nil
}

// load runs the callers.
func (r *run) load(ctx context.Context, start time.Time) error {
	over, stop := context.WithTimeout(ctx, r.opts.Duration)
	defer stop()
	done := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() { r.tell(done, start) })
	var group errgroup.Group
	for i, c := range r.callers {
		group.Go(func() error { return r.call(ctx, over, c, i, start) })
	}
	err := group.Wait()
	close(done)
	telling.Wait()
	return err
}

// call is one caller's load. Its append in flight at the end is still seen
// through, so that its outcome is known.
func (r *run) call(ctx, over context.Context, c *caller, place int, start time.Time) error {
	payload := make([]byte, r.opts.Payload)
	random := rand.NewChaCha8([32]byte{byte(place), byte(place >> 8)})
	_, _ = random.Read(payload) // never fails; incompressible, as sealed data is
	expected := int64(-1)
	for n := uint64(0); over.Err() == nil; n++ {
		if r.opts.Rate > 0 {
			each := time.Duration(float64(r.opts.Callers) / r.opts.Rate * float64(time.Second))
			due := start.Add(time.Duration(n)*each + each*time.Duration(place)/time.Duration(r.opts.Callers))
			if wait(over, time.Until(due)) != nil {
				return nil
			}
		}
		binary.BigEndian.PutUint64(payload, n)
		req := &ledgerv1.AppendRequest{
			Log: r.opts.Log, RoutingKey: c.key, RequestId: fmt.Sprintf("%s-%d", c.key, n),
			Writes: []*ledgerv1.StreamWrite{{
				Stream: c.stream, ExpectedRevision: expected,
				Events: []*ledgerv1.Event{{Type: "probity.ledger.hammer.Blow", Payload: bytes.Clone(payload)}},
			}},
		}
		begun := time.Now()
		res, err := r.append(ctx, req)
		switch {
		case err == nil:
			took := time.Since(begun)
			c.took = append(c.took, took)
			c.token = res.Token
			c.acks = append(c.acks, ack{n, res.Revisions[0], res.Position.GetShard(), res.Position.GetIndex()})
			expected = int64(res.Revisions[0])
			r.appends.Add(1)
			r.mu.Lock()
			r.recent = append(r.recent, took)
			r.mu.Unlock()
		case retryable(err):
			// The time for retries is over. What comes next must fit either way.
			c.unknown[n] = true
			expected = -2
		default:
			return fmt.Errorf("hammer: append %d of %s: %w", n, c.stream, err)
		}
	}
	return nil
}

// append sends an append until its outcome is known.
func (r *run) append(ctx context.Context, req *ledgerv1.AppendRequest) (*ledgerv1.AppendResponse, error) {
	until := time.Now().Add(r.opts.Retry)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		res, err := r.ledger.Append(ctx, req)
		if err == nil || !retryable(err) || ctx.Err() != nil || time.Now().After(until) {
			return res, err
		}
		r.retries.Add(1)
		r.mu.Lock()
		r.last = err
		r.mu.Unlock()
		if wait(ctx, pause) != nil {
			return nil, err
		}
	}
}

func retryable(err error) bool {
	var p *problem.Error
	if errors.As(err, &p) {
		return p.Retryable()
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted, connect.CodeAborted, connect.CodeCanceled:
		return true
	default:
		return false
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tell reports once a second until done.
func (r *run) tell(done <-chan struct{}, start time.Time) {
	if r.opts.Progress == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for before := time.Now(); ; {
		select {
		case <-done:
			return
		case now := <-tick.C:
			r.mu.Lock()
			recent := r.recent
			r.recent = nil
			r.mu.Unlock()
			slices.Sort(recent)
			r.opts.Progress(Progress{
				Elapsed: now.Sub(start), Appends: r.appends.Load(), Retries: r.retries.Load(),
				Rate: float64(len(recent)) / now.Sub(before).Seconds(), P50: quantile(recent, 0.5), P99: quantile(recent, 0.99),
			})
			before = now
		}
	}
}

// quantile of sorted times; 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func (r *run) fault(kind, place, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, Fault{kind, place, fmt.Sprintf(format, args...)})
}

// checkers bounds how many calls a check has open.
const checkers = 16

// check reads every stream back and verifies receipts; it returns how many.
func (r *run) check(ctx context.Context, start time.Time) (receipts int, err error) {
	var group errgroup.Group
	group.SetLimit(checkers)
	for _, c := range r.callers {
		group.Go(func() error { return r.readBack(ctx, c) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	type proof struct {
		c *caller
		a ack
	}
	var proofs []proof
	for _, c := range r.callers {
		for _, a := range c.acks {
			proofs = append(proofs, proof{c, a})
		}
	}
	if n := r.opts.Receipts; n > 0 && n < len(proofs) {
		// Evenly over the run, its end included.
		step := float64(len(proofs)) / float64(n)
		var some []proof
		for i := range n {
			some = append(some, proofs[len(proofs)-1-int(float64(i)*step)])
		}
		proofs = some
	}
	var done atomic.Int64
	told := time.Now()
	for _, p := range proofs {
		group.Go(func() error {
			done.Add(1)
			return r.prove(ctx, p.c, p.a)
		})
		if r.opts.Progress != nil && time.Since(told) > time.Second {
			told = time.Now()
			r.opts.Progress(Progress{Checking: true, Done: int(done.Load()), Total: len(proofs), Elapsed: time.Since(start), Appends: r.appends.Load()})
		}
	}
	return len(proofs), group.Wait()
}

// again makes a call of the check again while what went wrong may pass.
func again[T any](ctx context.Context, r *run, call func() (T, error)) (T, error) {
	until := time.Now().Add(r.opts.Retry)
	for {
		res, err := call()
		var p *problem.Error
		sealed := !errors.As(err, &p) || p.Kind != problem.Conflict // a receipt that is not sealed yet
		if err == nil || sealed && !retryable(err) && connect.CodeOf(err) != connect.CodeFailedPrecondition || time.Now().After(until) {
			return res, err
		}
		if wait(ctx, 100*time.Millisecond) != nil {
			return res, err
		}
	}
}

// readBack compares a stream with what its caller was told.
func (r *run) readBack(ctx context.Context, c *caller) error {
	at := map[uint64]uint64{} // number → revision
	req := &ledgerv1.ReadStreamRequest{Log: r.opts.Log, RoutingKey: c.key, Stream: c.stream, MinToken: c.token}
	for end := false; !end; {
		res, err := again(ctx, r, func() (*ledgerv1.ReadStreamResponse, error) { return r.ledger.ReadStream(ctx, req) })
		if err != nil {
			return fmt.Errorf("hammer: read %s: %w", c.stream, err)
		}
		for _, e := range res.Events {
			place := fmt.Sprintf("%s@%d", c.stream, e.Revision)
			if len(e.Event.GetPayload()) < 8 || e.Revision != req.FromRevision {
				r.fault("unasked", place, "revision %d was due", req.FromRevision)
				return nil
			}
			n := binary.BigEndian.Uint64(e.Event.Payload)
			if before, ok := at[n]; ok {
				r.fault("doubled", place, "append %d is at revision %d already", n, before)
			}
			at[n] = e.Revision
			req.FromRevision++
		}
		end = res.EndOfStream
	}
	for _, a := range c.acks {
		got, ok := at[a.number]
		place := fmt.Sprintf("%s@%d", c.stream, a.revision)
		switch {
		case !ok:
			r.fault("lost", place, "append %d was acknowledged as index %d of shard %d", a.number, a.index, a.shard)
		case got != a.revision:
			r.fault("moved", place, "append %d is at revision %d", a.number, got)
		}
		delete(at, a.number)
	}
	for n, revision := range at {
		if !c.unknown[n] {
			r.fault("unasked", fmt.Sprintf("%s@%d", c.stream, revision), "append %d was refused or never sent", n)
		}
	}
	return nil
}

// prove verifies one receipt, and that it is of this append.
func (r *run) prove(ctx context.Context, c *caller, a ack) error {
	place := fmt.Sprintf("%s/%d/%d", r.opts.Log, a.shard, a.index)
	res, err := again(ctx, r, func() (*ledgerv1.GetReceiptResponse, error) {
		return r.ledger.GetReceipt(ctx, &ledgerv1.GetReceiptRequest{
			Position: &ledgerv1.Position{Log: r.opts.Log, Shard: a.shard, Index: a.index}, IncludeCommit: true,
		})
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.fault("receipt", place, "there is none: %v", err)
		return nil
	}
	commit := &ledgerv1.Commit{}
	v, err := receipt.Verify(res.Receipt, r.opts.Policy)
	if err == nil {
		err = errors.Join(receipt.VerifyCommit(v, res.Commit), proto.Unmarshal(res.Commit, commit))
	}
	switch {
	case err != nil:
		r.fault("receipt", place, "%v", err)
	case v.Log != r.opts.Log || v.Shard != a.shard || v.Index != a.index:
		r.fault("receipt", place, "it is of %s/%d/%d", v.Log, v.Shard, v.Index)
	case commit.RequestId != fmt.Sprintf("%s-%d", c.key, a.number):
		r.fault("receipt", place, "its commit is not the append that was acknowledged there")
	}
	return nil
}

func (r *run) result(elapsed time.Duration, receipts int) Result {
	var took []time.Duration
	out := Result{
		Appends: r.appends.Load(), Seconds: elapsed.Seconds(), Retries: r.retries.Load(), Receipts: receipts, Faults: r.faults,
	}
	for _, c := range r.callers {
		took = append(took, c.took...)
		out.Unknown += uint64(len(c.unknown))
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	out.Rate = float64(out.Appends) / elapsed.Seconds()
	out.P50, out.P99, out.Max = ms(quantile(took, 0.5)), ms(quantile(took, 0.99)), ms(quantile(took, 1))
	slices.SortFunc(out.Faults, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Place, b.Place)) })
	if r.last != nil {
		out.LastError = r.last.Error()
	}
	return out
}
