package payment

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/workflows/failure"
	"github.com/probity-health/probity/workflows/hook"
)

// Remittances makes a payer's remittances; a request id seen before answers as it did.
type Remittances interface {
	CreateRemittances(context.Context, *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error)
}

// Payments records what becomes of payments; all of it may be repeated.
type Payments interface {
	IntendPayments(context.Context, *claimsv1.IntendPaymentsRequest) (*claimsv1.IntendPaymentsResponse, error)
	ClearPayment(context.Context, *claimsv1.ClearPaymentRequest) (*claimsv1.ClearPaymentResponse, error)
	RecordPayment(context.Context, *claimsv1.RecordPaymentRequest) (*claimsv1.RecordPaymentResponse, error)
	FailPayment(context.Context, *claimsv1.FailPaymentRequest) (*claimsv1.FailPaymentResponse, error)
	GetPayment(context.Context, *claimsv1.GetPaymentRequest) (*claimsv1.GetPaymentResponse, error)
	ListPayments(context.Context, *claimsv1.ListPaymentsRequest) (*claimsv1.ListPaymentsResponse, error)
}

// Documents renders 835s.
type Documents interface {
	GetDocument(context.Context, *gatewayv1.GetDocumentRequest) (*connect.ServerStreamForClient[gatewayv1.GetDocumentResponse], error)
}

// Activities are the workflow's hands.
type Activities struct {
	Remittances Remittances
	Payments    Payments
	Documents   Documents // nil: orders go without their 835
	Port        Port
}

// Hook is the workflow's row in the worker's catalog: schedules and people
// start it, no fact does. Without activities it is known and can't work.
func Hook(a *Activities) hook.Workflow {
	w := hook.Workflow{Type: WorkflowType, Run: Workflow, Versioning: workflow.VersioningBehaviorAutoUpgrade}
	if a != nil {
		w.Activities = map[string]any{
			activityRemit: a.Remit, activityIntend: a.Intend, activityPay: a.Pay, activityRepay: a.Repay, activityWithdraw: a.Withdraw,
		}
	}
	return w
}

const (
	// heartbeatTimeout bounds how long a dead worker's step lies idle.
	heartbeatTimeout = 10 * time.Second
	heartbeatEvery   = heartbeatTimeout / 4
	// portTimeout of one call to the port.
	portTimeout = 30 * time.Second
	// pagePayments are handed over by one activity, parallel at a time.
	pagePayments = 200
	parallel     = 8
)

// beating heartbeats until its stop is called.
func beating(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		ticker := time.NewTicker(heartbeatEvery)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				activity.RecordHeartbeat(ctx)
			}
		}
	})
	return func() { close(done); wait.Wait() }
}

// Remitted is what one call of the cycle's first step made.
type Remitted struct {
	Count uint32
	More  bool
	// Last commit of each shard that it wrote a remittance to.
	Positions []*ledgerv1.Position
}

// Remit has remittances made of what a payer's providers have not been told.
func (a *Activities) Remit(ctx context.Context, payer, requestID string) (Remitted, error) {
	defer beating(ctx)()
	r, err := a.Remittances.CreateRemittances(ctx, &claimsv1.CreateRemittancesRequest{PayerId: payer, RequestId: requestID})
	if err != nil {
		return Remitted{}, failure.FromRPC(err)
	}
	out := Remitted{More: r.GetMore()}
	for _, m := range r.GetRemittances() {
		out.Count++
		out.Positions = append(out.Positions, m.GetPosition())
	}
	out.Positions = lastOf(out.Positions)
	return out, nil
}

// lastOf keeps the last position of each shard.
func lastOf(all []*ledgerv1.Position) []*ledgerv1.Position {
	var out []*ledgerv1.Position
	for _, p := range all {
		i := slices.IndexFunc(out, func(have *ledgerv1.Position) bool { return have.GetShard() == p.GetShard() })
		switch {
		case i < 0:
			out = append(out, p)
		case out[i].GetIndex() < p.GetIndex():
			out[i] = p
		}
	}
	return out
}

// Intend has the payments intended of all remittances that have none, and
// tells of how many that was not done because their payee is held.
func (a *Activities) Intend(ctx context.Context, payer string, after []*ledgerv1.Position) (held uint32, err error) {
	defer beating(ctx)()
	for {
		r, err := a.Payments.IntendPayments(ctx, &claimsv1.IntendPaymentsRequest{PayerId: payer, MinPositions: after})
		if err != nil {
			return 0, failure.FromRPC(err)
		}
		if !r.GetMore() {
			return r.GetHeld(), nil
		}
		after = nil
	}
}

// Refusal is a payment that the port will not make, or has withdrawn.
type Refusal struct{ PaymentID, Reason string }

// Paid is what became of some payments.
type Paid struct {
	Next    string // page token; empty after the last page
	Count   uint32 // handed over
	Cents   int64
	Failed  uint32
	Held    uint32    // not handed over, as another of the payee's has failed
	Refused []Refusal // to be withdrawn
	Unsure  []string  // perhaps made, perhaps not
}

func (p *Paid) add(o Paid) {
	p.Count += o.Count
	p.Cents += o.Cents
	p.Failed += o.Failed
	p.Held += o.Held
	p.Refused = append(p.Refused, o.Refused...)
	p.Unsure = append(p.Unsure, o.Unsure...)
}

// Pay hands over a page of the payments that wait, but for those whose payee is
// held, and completes the voiding of those that are to be paid anew.
func (a *Activities) Pay(ctx context.Context, payer, pageToken string) (Paid, error) {
	defer beating(ctx)()
	page, err := a.Payments.ListPayments(ctx, &claimsv1.ListPaymentsRequest{PayerId: payer, Open: true, PageSize: pagePayments, PageToken: pageToken})
	if err != nil {
		return Paid{}, failure.FromRPC(err)
	}
	out, err := each(page.GetPayments(), func(p *claimsv1.Payment) (Paid, error) { return a.settle(ctx, p) })
	out.Next = page.GetNextPageToken()
	return out, err
}

// Repay hands payments over that an earlier attempt left unsure.
func (a *Activities) Repay(ctx context.Context, ids []string) (Paid, error) {
	defer beating(ctx)()
	return each(ids, func(id string) (Paid, error) {
		got, err := a.Payments.GetPayment(ctx, &claimsv1.GetPaymentRequest{PaymentId: id})
		if err != nil {
			return Paid{}, failure.FromRPC(err)
		}
		return a.settle(ctx, got.GetPayment())
	})
}

// Withdraw has payments failed that the port promises never to make; what
// turns out to be made is recorded as such.
func (a *Activities) Withdraw(ctx context.Context, refused []Refusal) (Paid, error) {
	defer beating(ctx)()
	return each(refused, func(r Refusal) (Paid, error) { return a.withdraw(ctx, r) })
}

// each does something to some payments, a few at a time. A service that is
// away fails them all, and all are repeated.
func each[T any](list []T, do func(T) (Paid, error)) (Paid, error) {
	var mu sync.Mutex // guards out
	var out Paid
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, item := range list {
		g.Go(func() error {
			one, err := do(item)
			mu.Lock()
			defer mu.Unlock()
			out.add(one)
			return err
		})
	}
	return out, g.Wait()
}

func orderOf(p *claimsv1.Payment) Order {
	return Order{
		PaymentID: p.GetPaymentId(), RemittanceID: p.GetRemittanceId(), PayerID: p.GetPayerId(), PayeeNPI: p.GetPayeeNpi(),
		AmountCents: p.GetAmountCents(), PaymentDate: p.GetPaymentDate(), TraceNumber: p.GetTraceNumber(), Method: p.GetMethod(),
	}
}

// settle takes one payment a step further, from whatever its state is.
func (a *Activities) settle(ctx context.Context, p *claimsv1.Payment) (Paid, error) {
	switch p.GetState() {
	case claimsv1.PaymentState_PAYMENT_STATE_FAILED:
		return Paid{}, a.void(ctx, p)
	case claimsv1.PaymentState_PAYMENT_STATE_INTENDED:
	default:
		return Paid{}, nil // by another run
	}
	if p.GetHeldBy() != "" {
		return Paid{Held: 1}, nil
	}
	// The page was read some time ago. Whether the payee is held is decided now,
	// in the ledger's order, directly before the payment leaves.
	cleared, err := a.Payments.ClearPayment(ctx, &claimsv1.ClearPaymentRequest{PaymentId: p.GetPaymentId()})
	switch {
	case err != nil && server.FromConnect(err).Kind == problem.Conflict:
		return Paid{}, nil // by another run
	case err != nil:
		return Paid{}, failure.FromRPC(err)
	case cleared.GetHeldBy() != "":
		return Paid{Held: 1}, nil
	}
	calling, cancel := context.WithTimeout(ctx, portTimeout)
	defer cancel()
	var advice Advice
	var away error // of the gateway: no word of the port's
	if a.Documents != nil {
		advice = func(ctx context.Context, w io.Writer) error {
			away = a.document(ctx, p.GetRemittanceId(), w)
			return away
		}
	}
	receipt, err := a.Port.Pay(calling, orderOf(p), advice)
	var refused *RefusedError
	switch {
	case err == nil:
		return a.paid(ctx, p, receipt)
	case ctx.Err() != nil:
		return Paid{}, ctx.Err()
	case errors.As(err, &refused):
		return Paid{Refused: []Refusal{{p.GetPaymentId(), refused.Reason}}}, nil
	case errors.Is(err, ErrWithdrawn):
		return Paid{Refused: []Refusal{{p.GetPaymentId(), reasonNotDelivered}}}, nil
	case away != nil:
		return Paid{}, failure.FromRPC(away)
	}
	activity.GetLogger(ctx).Warn("a payment could not be handed over; it is tried again", "payment_id", p.GetPaymentId(), "error", err)
	return Paid{Unsure: []string{p.GetPaymentId()}}, nil
}

// paid records a receipt. A payment that has failed meanwhile was handed over
// before, by another run: somebody knows that it came back.
func (a *Activities) paid(ctx context.Context, p *claimsv1.Payment, r Receipt) (Paid, error) {
	_, err := a.Payments.RecordPayment(ctx, &claimsv1.RecordPaymentRequest{PaymentId: p.GetPaymentId(), Reference: r.Reference, Confirmed: r.Made})
	switch {
	case err == nil:
		return Paid{Count: 1, Cents: p.GetAmountCents()}, nil
	case server.FromConnect(err).Kind == problem.Conflict:
		return Paid{}, nil
	}
	return Paid{}, failure.FromRPC(err)
}

// void completes the voiding of a failed payment's remittance, where it is
// decided that it is paid after all.
func (a *Activities) void(ctx context.Context, p *claimsv1.Payment) error {
	_, err := a.Payments.FailPayment(ctx, &claimsv1.FailPaymentRequest{PaymentId: p.GetPaymentId(), Reason: p.GetFailureReason(), Withdrawn: true})
	return failure.FromRPC(err)
}

func (a *Activities) fail(ctx context.Context, id, reason string) (Paid, error) {
	_, err := a.Payments.FailPayment(ctx, &claimsv1.FailPaymentRequest{PaymentId: id, Reason: reason, Withdrawn: true})
	switch {
	case err == nil:
		activity.GetMetricsHandler(ctx).Counter("probity_payments_failed").Inc(1)
		activity.GetLogger(ctx).Warn("a payment failed; a person decides what becomes of it (probity tasks payments)", "payment_id", id, "reason", reason)
		return Paid{Failed: 1}, nil
	case server.FromConnect(err).Kind == problem.Conflict:
		return Paid{}, nil // it was confirmed meanwhile
	}
	return Paid{}, failure.FromRPC(err)
}

func (a *Activities) withdraw(ctx context.Context, r Refusal) (Paid, error) {
	got, err := a.Payments.GetPayment(ctx, &claimsv1.GetPaymentRequest{PaymentId: r.PaymentID})
	if err != nil {
		return Paid{}, failure.FromRPC(err)
	}
	p := got.GetPayment()
	switch p.GetState() {
	case claimsv1.PaymentState_PAYMENT_STATE_INTENDED:
	case claimsv1.PaymentState_PAYMENT_STATE_FAILED:
		return Paid{}, a.void(ctx, p)
	default:
		return Paid{}, nil
	}
	calling, cancel := context.WithTimeout(ctx, portTimeout)
	defer cancel()
	receipt, made, err := a.Port.Withdraw(calling, orderOf(p))
	switch {
	case ctx.Err() != nil:
		return Paid{}, ctx.Err()
	case err != nil:
		activity.GetMetricsHandler(ctx).Counter("probity_payments_in_doubt").Inc(1)
		activity.GetLogger(ctx).Error("nobody knows whether a payment was made: ask whoever moves the money", "payment_id", r.PaymentID, "error", err)
		return Paid{Unsure: []string{r.PaymentID}}, nil
	case made:
		return a.paid(ctx, p, receipt)
	}
	return a.fail(ctx, r.PaymentID, r.Reason)
}

func (a *Activities) document(ctx context.Context, remittance string, w io.Writer) error {
	stream, err := a.Documents.GetDocument(ctx, &gatewayv1.GetDocumentRequest{Kind: "835", Id: remittance})
	if err != nil {
		return err
	}
	for stream.Receive() {
		if _, err := w.Write(stream.Msg().GetData()); err != nil {
			return errors.Join(err, stream.Close())
		}
	}
	return errors.Join(stream.Err(), stream.Close())
}
