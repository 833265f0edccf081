package claims

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/claims/payments"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
)

var _ claimsv1connect.PaymentServiceHandler = (*Service)(nil)

// intendedAtOnce is how many payments one call intends.
const intendedAtOnce = 500

// second is now as payments record it: whole seconds, so that a later time
// replaces an earlier one whole when parts are joined.
func (s *Service) second() *timestamppb.Timestamp {
	return timestamppb.New(s.now().UTC().Truncate(time.Second))
}

// IntendPayments implements claimsv1connect.PaymentServiceHandler. What the
// list shows too long has its payment already; what it doesn't show yet is the
// next call's, unless the caller names its commit.
func (s *Service) IntendPayments(ctx context.Context, req *claimsv1.IntendPaymentsRequest) (*claimsv1.IntendPaymentsResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "IntendPayments", identity.Resource{Type: identity.Payment, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.awaitLists(ctx, req.GetMinPositions()); err != nil {
		return nil, err
	}
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil, err
	}
	methods, err := pairs(ctx, reading, payerIndex(kindMethods, req.GetPayerId()))
	if err != nil {
		return nil, err
	}
	unpaid, more, held, err := s.unpaid(ctx, reading, req.GetPayerId())
	if err != nil {
		return nil, err
	}
	out := &claimsv1.IntendPaymentsResponse{More: more, Held: held}
	var commits []eventstore.Commit
	var amounts []int64
	at := s.second()
	records, failed := make([]RemittanceRecord, len(unpaid)), make([]error, len(unpaid))
	inParallel(len(unpaid), readers, func(i int) {
		records[i], failed[i] = s.readRemittance(ctx, unpaid[i].Name, eventstore.NoStream)
	})
	for i, record := range records {
		if failed[i] != nil {
			return nil, failed[i]
		}
		m := record.Issued
		if m == nil {
			return nil, notFound("remittance")
		}
		e, err := payments.Intend(m, paymentID(m.GetRemittanceId()), methods[m.GetPayeeNpi()], at)
		if err != nil {
			return nil, err
		}
		id := e.GetPayment().GetPaymentId()
		amounts = append(amounts, e.GetPayment().GetAmountCents())
		commits = append(commits, eventstore.Commit{
			Log: logName, RoutingKey: remittanceOf(id), RequestID: id + "/intend", Causation: remittanceOf(id), Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: paymentStream(id), Expected: eventstore.NoStream, Events: []proto.Message{e}}},
		})
	}
	var written []*ledgerv1.Position
	for i, o := range s.appendAll(ctx, commits) {
		if _, there := asMoved(o.Err, commits[i].Writes[0].Stream, 0); there {
			continue
		}
		if o.Err != nil {
			return nil, o.Err
		}
		out.Count++
		out.AmountCents += amounts[i]
		written = append(written, positionProto(o.Appended.Position))
	}
	return out, s.awaitLists(ctx, written)
}

// unpaid are remittances that have no payment yet and whose payee isn't held,
// as many as one call intends; whether more are left; and how many were passed
// by for their payee's sake.
func (s *Service) unpaid(ctx context.Context, r *views.Reading, payer string) (out []views.Member, more bool, held uint32, err error) {
	payees, err := pairs(ctx, r, payerIndex(kindHeld, payer))
	if err != nil {
		return nil, false, 0, err
	}
	for after := (*views.Member)(nil); ; {
		page, err := r.Range(ctx, payerIndex(kindUnpaid, payer), views.Page{After: after, Limit: intendedAtOnce})
		if err != nil {
			return nil, false, 0, err
		}
		free := page
		if len(payees) > 0 {
			rows, err := rowsOf(ctx, r, kindRemittances, page)
			if err != nil {
				return nil, false, 0, err
			}
			free = nil
			for i, fields := range rows {
				m, err := remittanceRow(fields)
				if err != nil {
					return nil, false, 0, err
				}
				if payees[m.GetPayeeNpi()] != "" {
					held++
				} else {
					free = append(free, page[i])
				}
			}
		}
		if out = append(out, free...); len(out) >= intendedAtOnce {
			return out[:intendedAtOnce], true, held, nil
		}
		if len(page) < intendedAtOnce {
			return out, false, held, nil
		}
		after = &page[len(page)-1]
	}
}

// awaitLists waits until the lists show commits of the claims log.
func (s *Service) awaitLists(ctx context.Context, at []*ledgerv1.Position) error {
	last := map[uint32]uint64{}
	for _, p := range at {
		if p.GetLog() != logName {
			return problem.Invalidf("payments.position", "min_positions", "a position is not of the claims log")
		}
		last[p.GetShard()] = max(last[p.GetShard()], p.GetIndex())
	}
	for _, shard := range slices.Sorted(maps.Keys(last)) {
		if err := s.view.WaitFor(ctx, (eventstore.Position{Log: logName, Shard: shard, Index: last[shard]}).Token()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) readPayment(ctx context.Context, id string, atLeast int64) (paymentRecord, error) {
	if !isID("pay", id) {
		return paymentRecord{}, notFound("payment")
	}
	events, err := readAtLeast(ctx, s.store, remittanceOf(id), paymentStream(id), eventstore.NoStream, atLeast)
	if err != nil {
		return paymentRecord{}, err
	}
	return foldPayment(events), nil
}

// paymentFor reads a payment that the caller may do action to; one that the
// caller may not see is unknown.
func (s *Service) paymentFor(ctx context.Context, action, id string) (paymentRecord, error) {
	record, err := s.readPayment(ctx, id, eventstore.NoStream)
	if err != nil {
		return paymentRecord{}, err
	}
	p := record.Payment
	if p == nil {
		return paymentRecord{}, notFound("payment")
	}
	err = s.auth.Authorize(ctx, action, identity.Resource{Type: identity.Payment, ID: p.GetPaymentId(), Org: p.GetSubmitterOrg(), Payer: p.GetPayerId()})
	return record, hide("payment", err)
}

// changePayment records what follows from a command and returns the payment as
// it then stands.
func (s *Service) changePayment(ctx context.Context, action, id string, c payments.Command) (*claimsv1.Payment, error) {
	record, err := s.commandPayment(ctx, action, id, c)
	return record.Payment, err
}

func (s *Service) commandPayment(ctx context.Context, action, id string, c payments.Command) (paymentRecord, error) {
	none := paymentRecord{}
	caller, err := callerOf(ctx)
	if err != nil {
		return none, err
	}
	leave, err := s.enter()
	if err != nil {
		return none, err
	}
	defer leave()
	record, err := s.paymentFor(ctx, action, id)
	if err != nil {
		return none, err
	}
	for range decideAttempts {
		events, err := record.Decide(c, s.second())
		if err != nil || len(events) == 0 {
			return record, err
		}
		done, err := s.store.Append(ctx, eventstore.Commit{
			// What follows from one revision is recorded once; a call whose answer
			// was lost finds it by reading.
			Log: logName, RoutingKey: remittanceOf(id), RequestID: id + "/" + action + "/" + itoa(uint32(record.revision)), Causation: remittanceOf(id), Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: paymentStream(id), Expected: record.revision, Events: events}},
		})
		moved, ok := asMoved(err, paymentStream(id), record.revision+1)
		switch {
		case ok:
			if record, err = s.readPayment(ctx, id, moved.Actual); err != nil {
				return none, err
			}
		case err != nil:
			return none, err
		default:
			for _, e := range events {
				record.State = payments.Evolve(record.State, e)
				record.revision++
			}
			record.position = done.Position
			return record, nil
		}
	}
	return none, busy(nil)
}

// RecordPayment implements claimsv1connect.PaymentServiceHandler.
func (s *Service) RecordPayment(ctx context.Context, req *claimsv1.RecordPaymentRequest) (*claimsv1.RecordPaymentResponse, error) {
	p, err := s.changePayment(ctx, "RecordPayment", req.GetPaymentId(), payments.Send{Reference: req.GetReference(), Confirmed: req.GetConfirmed()})
	if err != nil {
		return nil, err
	}
	return &claimsv1.RecordPaymentResponse{Payment: p}, nil
}

// ConfirmPayment implements claimsv1connect.PaymentServiceHandler.
func (s *Service) ConfirmPayment(ctx context.Context, req *claimsv1.ConfirmPaymentRequest) (*claimsv1.ConfirmPaymentResponse, error) {
	p, err := s.changePayment(ctx, "ConfirmPayment", req.GetPaymentId(), payments.Confirm{Reference: req.GetReference()})
	if err != nil {
		return nil, err
	}
	return &claimsv1.ConfirmPaymentResponse{Payment: p}, nil
}

// FailPayment implements claimsv1connect.PaymentServiceHandler. It records that
// the payment failed, from when on nobody makes it, and a person has it as a
// task. Where that was decided before, it completes what follows.
func (s *Service) FailPayment(ctx context.Context, req *claimsv1.FailPaymentRequest) (*claimsv1.FailPaymentResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetWithdrawn() && !caller.Has(identity.RoleService) {
		return nil, problem.Invalidf("payments.withdrawn", "withdrawn", "that a payment is withdrawn is for the payment cycle to say; leave it out")
	}
	by := caller.Subject
	if req.GetWithdrawn() {
		by = "" // the port's word, which the cycle passes on
	}
	p, err := s.changePayment(ctx, "FailPayment", req.GetPaymentId(), payments.Fail{
		Reason: req.GetReason(), Withdrawn: req.GetWithdrawn(), Returned: req.GetReturned(), By: by, Terms: s.config.PaymentTasks,
	})
	if err != nil {
		return nil, err
	}
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	record, err := s.readPayment(ctx, p.GetPaymentId(), 1) // it has failed: there is more than the intent
	if err != nil {
		return nil, err
	}
	// Whoever learns that it failed finds its payee held: nothing of its is cleared
	// any more, and the lists say why.
	if err := s.holdPayee(ctx, caller, record.State); err != nil {
		return nil, err
	}
	if err := s.view.WaitFor(ctx, record.position.Token()); err != nil {
		return nil, err
	}
	if !record.Voids() && record.Payment.GetState() != claimsv1.PaymentState_PAYMENT_STATE_VOIDED {
		return &claimsv1.FailPaymentResponse{Payment: record.Payment}, nil
	}
	return s.voidRemittance(ctx, caller, record.Payment)
}

// voidRemittance undoes the remittance of a failed payment step by step, each
// of which is done once whoever does it: the payee's account, the claims, the
// remittance itself.
func (s *Service) voidRemittance(ctx context.Context, caller identity.Principal, p *claimsv1.Payment) (*claimsv1.FailPaymentResponse, error) {
	record, err := s.readRemittance(ctx, p.GetRemittanceId(), eventstore.NoStream)
	if err != nil {
		return nil, err
	}
	m := record.Issued
	if m == nil {
		return nil, defect("payments.void.unissued", "a remittance that was to be paid was never issued")
	}
	out := &claimsv1.FailPaymentResponse{Payment: p, ClaimCount: uint32(len(m.GetClaimIds()))}
	// The debt comes back before the claims do, so that whatever pays them next finds it.
	restored, err := s.restoreAccount(ctx, caller, m)
	if err != nil {
		return nil, err
	}
	for _, b := range restored.GetBalances() {
		out.RestoredCents += b.GetAmountCents()
	}
	if p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_VOIDED {
		return out, nil
	}
	failed := make([]error, len(m.GetClaimIds()))
	inParallel(len(failed), readers, func(i int) { failed[i] = s.untell(ctx, caller, m.GetClaimIds()[i], m.GetRemittanceId()) })
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	for range decideAttempts {
		payment, err := s.readPayment(ctx, p.GetPaymentId(), 1) // it has failed: there is more than the intent
		if err != nil {
			return nil, err
		}
		if payment.Payment.GetState() == claimsv1.PaymentState_PAYMENT_STATE_VOIDED {
			out.Payment = payment.Payment
			return out, nil
		}
		e := &eventsv1.PaymentVoided{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), VoidedTime: s.second()}
		_, err = s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: m.GetRemittanceId(), RequestID: p.GetPaymentId() + "/void", Causation: m.GetRemittanceId(), Actor: caller.Subject,
			Writes: []eventstore.Write{
				{Stream: paymentStream(p.GetPaymentId()), Expected: payment.revision, Events: []proto.Message{e}},
				{Stream: remittanceStream(m.GetRemittanceId()), Expected: record.Revision, Events: []proto.Message{
					&eventsv1.RemittanceVoided{RemittanceId: m.GetRemittanceId(), PaymentId: p.GetPaymentId()},
				}},
			},
		})
		if _, moved := asMoved(err, paymentStream(p.GetPaymentId()), payment.revision+1); moved {
			continue
		}
		if err != nil {
			return nil, err
		}
		out.Payment = payments.Evolve(payment.State, e).Payment
		return out, nil
	}
	return nil, busy(nil)
}

// restoreAccount gives back, once, what a remittance had recovered.
func (s *Service) restoreAccount(ctx context.Context, caller identity.Principal, m *claimsv1.Remittance) (*eventsv1.PayeeAccountRestored, error) {
	stream := accountStream(s.index, m.GetPayerId(), m.GetPayeeNpi())
	for n, atLeast := 0, eventstore.NoStream; n < decideAttempts; n++ {
		events, err := readAtLeast(ctx, s.store, stream, stream, eventstore.NoStream, atLeast)
		if err != nil {
			return nil, err
		}
		account := foldAccount(events)
		if e := account.restored[m.GetRemittanceId()]; e != nil {
			return e, nil
		}
		e, err := account.restore(m.GetRemittanceId())
		if err != nil || len(e.GetBalances()) == 0 {
			return e, err
		}
		_, err = s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: stream, RequestID: m.GetRemittanceId() + "/restore", Causation: m.GetRemittanceId(), Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: stream, Expected: account.Revision, Events: []proto.Message{e}}},
		})
		moved, ok := asMoved(err, stream, account.Revision+1)
		switch {
		case ok:
			atLeast = moved.Actual
		case err != nil:
			return nil, err
		default:
			return e, nil
		}
	}
	return nil, busy(nil)
}

// untell takes back, once, what a remittance told of a claim.
func (s *Service) untell(ctx context.Context, caller identity.Principal, claim, remittance string) error {
	for n, atLeast := 0, eventstore.NoStream; n < decideAttempts; n++ {
		st, _, err := s.readClaim(ctx, claim, atLeast)
		if err != nil {
			return err
		}
		if st.voided[remittance] {
			return nil
		}
		events, err := Decide(st, VoidTelling{RemittanceID: remittance})
		if err != nil {
			return err
		}
		_, err = s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: claimKey(claim), RequestID: claim + "/void/" + remittance, Causation: remittance, Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: claimStream(claim), Expected: st.Revision, Events: events}},
		})
		moved, ok := asMoved(err, claimStream(claim), st.Revision+1)
		switch {
		case ok:
			atLeast = moved.Actual
		case err != nil:
			return err
		default:
			s.watch.tell(claim)
			return nil
		}
	}
	return busy(nil)
}

// GetPayment implements claimsv1connect.PaymentServiceHandler.
func (s *Service) GetPayment(ctx context.Context, req *claimsv1.GetPaymentRequest) (*claimsv1.GetPaymentResponse, error) {
	record, err := s.paymentFor(ctx, "GetPayment", req.GetPaymentId())
	if err != nil {
		return nil, err
	}
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil, err
	}
	return &claimsv1.GetPaymentResponse{Payment: record.Payment}, markHeld(ctx, reading, []*claimsv1.Payment{record.Payment})
}

// pairs reads an index of pairs whole; the newest of each first half counts.
func pairs(ctx context.Context, r *views.Reading, index string) (map[string]string, error) {
	var all []views.Member
	for after := (*views.Member)(nil); ; {
		page, err := r.Range(ctx, index, views.Page{After: after, Limit: maxPage})
		if err != nil {
			return nil, err
		}
		if all = append(all, page...); len(page) < maxPage {
			return newest(all), nil
		}
		after = &page[len(page)-1]
	}
}

// markHeld names, on each payment that waits to be handed over, the failed one
// of its payee that it waits for.
func markHeld(ctx context.Context, r *views.Reading, list []*claimsv1.Payment) error {
	held := map[string]map[string]string{} // by payer
	for _, p := range list {
		if p.GetState() != claimsv1.PaymentState_PAYMENT_STATE_INTENDED {
			continue
		}
		if held[p.GetPayerId()] == nil {
			of, err := pairs(ctx, r, payerIndex(kindHeld, p.GetPayerId()))
			if err != nil {
				return err
			}
			held[p.GetPayerId()] = of
		}
		p.HeldBy = held[p.GetPayerId()][p.GetPayeeNpi()]
	}
	return nil
}

// paymentScope is which payments a caller's list shows: with those of its
// claims a plan administrator sees those of its payers. It agrees with the
// policy set on GetPayment.
func paymentScope(p identity.Principal) identity.Scope {
	scope := identity.ScopeOf(p)
	if scope.All || !p.Has(identity.RolePlanAdmin) {
		return scope
	}
	if slices.Contains(p.Payers, identity.AllPayers) {
		return identity.Scope{All: true}
	}
	if !p.Has(identity.RoleAdjudicator) && !p.Has(identity.RoleSupervisor) {
		scope.Payers = append(slices.Clone(scope.Payers), p.Payers...)
	}
	return scope
}

// ListPayments implements claimsv1connect.PaymentServiceHandler.
func (s *Service) ListPayments(ctx context.Context, req *claimsv1.ListPaymentsRequest) (*claimsv1.ListPaymentsResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListPayments", identity.Resource{Type: identity.Payment, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	if req.GetOpen() && req.GetPayerId() == "" {
		return nil, problem.Invalidf("payments.open", "payer_id", "open payments are listed by payer: name one")
	}
	scope := paymentScope(caller)
	open := "all"
	l := listing[*claimsv1.Payment]{kind: kindPayments, indexes: indexesFor(kindPayments, scope, req.GetPayerId())}
	if req.GetOpen() {
		open = "open"
		l.kind, l.ascending, l.indexes = kindPaying, true, []string{payerIndex(kindPaying, req.GetPayerId())}
	}
	l.size, l.token, l.row = int(req.GetPageSize()), req.GetPageToken(), paymentRow
	l.filter = filterOf(caller, "payments", open, req.GetPayerId(), req.GetState().String())
	l.keep = func(p *claimsv1.Payment) bool {
		return scope.Includes(p.GetSubmitterOrg(), p.GetPayerId()) &&
			(req.GetPayerId() == "" || req.GetPayerId() == p.GetPayerId()) &&
			(req.GetState() == claimsv1.PaymentState_PAYMENT_STATE_UNSPECIFIED || req.GetState() == p.GetState()) &&
			(!req.GetOpen() || payments.Open(p))
	}
	reading, err := s.view.At(ctx, req.GetMinToken())
	if err != nil {
		return nil, err
	}
	rows, next, err := pageOf(ctx, reading, l)
	if err != nil {
		return nil, err
	}
	return &claimsv1.ListPaymentsResponse{Payments: rows, NextPageToken: next}, markHeld(ctx, reading, rows)
}
