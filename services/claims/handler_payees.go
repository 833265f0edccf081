package claims

import (
	"context"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/claims/payments"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
)

// payeesKept is how many payees' streams are kept folded in memory. One grows by
// an event a payment, and is read on from where it was left.
const payeesKept = 4096

// payeeRecord is a payee as its stream told it up to a revision.
type payeeRecord struct {
	payments.Payee
	revision int64
}

// decidePayee records what decide answers on the payee of a payment, at the end
// of the payee's stream and nowhere else.
func (s *Service) decidePayee(ctx context.Context, caller identity.Principal, p *claimsv1.Payment, action string, decide func(payments.Payee) ([]proto.Message, error)) error {
	stream := payeeStream(s.index, p.GetPayerId(), p.GetPayeeNpi())
	// Payments of one payee are handed over beside each other: they take turns
	// here rather than collide on the ledger.
	entry, err := s.payees.hold(ctx, stream)
	if err != nil {
		return err
	}
	defer s.payees.release(entry)
	if entry.value == nil {
		entry.value = &payeeRecord{revision: eventstore.NoStream}
	}
	record := entry.value
	for n, atLeast := 0, eventstore.NoStream; n < decideAttempts; n++ {
		events, err := readAtLeast(ctx, s.store, stream, stream, record.revision, atLeast)
		if err != nil {
			return err
		}
		for _, e := range events {
			record.Payee, record.revision = payments.EvolvePayee(record.Payee, e.Event), int64(e.Revision)
		}
		follows, err := decide(record.Payee)
		if err != nil || len(follows) == 0 {
			return err
		}
		_, err = s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: stream, RequestID: p.GetPaymentId() + "/" + action + "/" + itoa(uint32(record.revision+1)), Causation: p.GetPaymentId(), Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: stream, Expected: record.revision, Events: follows}},
		})
		moved, ok := asMoved(err, stream, record.revision+1)
		switch {
		case ok:
			atLeast = moved.Actual
		case err != nil:
			return err
		default:
			return nil // read at the next turn
		}
	}
	return busy(nil)
}

// holdPayee makes the payee's stream say what the task of its failed payment
// says. Whoever changes the task does it, and whoever finds it undone.
func (s *Service) holdPayee(ctx context.Context, caller identity.Principal, of payments.State) error {
	if of.Task() == nil {
		return nil
	}
	return s.decidePayee(ctx, caller, of.Payment, "hold", func(p payments.Payee) ([]proto.Message, error) { return p.Hold(of), nil })
}

// ClearPayment implements claimsv1connect.PaymentServiceHandler. The lists show
// a hold whose recording in the payee's stream broke off, and the streams of
// the payments that hold the payee show one whose end did.
func (s *Service) ClearPayment(ctx context.Context, req *claimsv1.ClearPaymentRequest) (*claimsv1.ClearPaymentResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	record, err := s.paymentFor(ctx, "ClearPayment", req.GetPaymentId())
	if err != nil {
		return nil, err
	}
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := markHeld(ctx, reading, []*claimsv1.Payment{record.Payment}); err != nil {
		return nil, err
	}
	suspect := record.Payment.GetHeldBy()
	record.Payment.HeldBy = "" // never recorded
	for range decideAttempts {
		if suspect != "" {
			failed, err := s.readPayment(ctx, suspect, eventstore.NoStream)
			if err != nil {
				return nil, err
			}
			if err := s.holdPayee(ctx, caller, failed.State); err != nil {
				return nil, err
			}
		}
		heldBy := ""
		err := s.decidePayee(ctx, caller, record.Payment, "clear", func(p payments.Payee) (events []proto.Message, err error) {
			events, heldBy, err = p.Clear(record.State, s.second())
			return events, err
		})
		if err != nil || heldBy == "" || heldBy == suspect {
			return &claimsv1.ClearPaymentResponse{HeldBy: heldBy}, err
		}
		suspect = heldBy
	}
	return nil, busy(nil)
}
