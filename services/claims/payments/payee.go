package payments

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
)

// Payee is what a payer's payments to one payee have to do with each other, as
// the payee's own stream tells it: which failed payments hold it. A payment is
// handed over only after PaymentCleared, and none is cleared between PayeeHeld
// and PayeeFreed; one stream orders them all, whoever wrote them.
type Payee struct {
	held  []string // ids of failed payments that hold the payee, in the order they came
	freed []string // of those that once did
}

// EvolvePayee is the state after one more event of the payee's stream; the
// state before stays as it is.
func EvolvePayee(p Payee, event any) Payee {
	switch e := event.(type) {
	case *eventsv1.PayeeHeld:
		p.held = append(slices.Clone(p.held), e.GetPaymentId())
	case *eventsv1.PayeeFreed:
		id := e.GetPaymentId()
		p.held = slices.DeleteFunc(slices.Clone(p.held), func(held string) bool { return held == id })
		p.freed = append(slices.Clone(p.freed), id)
	}
	return p
}

// Held are the ids of failed payments that hold the payee, in the order they came.
func (p Payee) Held() []string { return p.held }

// Hold makes the payee's stream say what the task of a failed payment of its
// says. A payment holds its payee at most once: who read the task before it was
// done can't hold the payee again.
func (p Payee) Hold(s State) []proto.Message {
	task := s.Task()
	held, payment := slices.Contains(p.held, s.Payment.GetPaymentId()), s.Payment
	switch {
	case task == nil:
		return nil
	case task.GetHoldsPayee() && !held && !slices.Contains(p.freed, payment.GetPaymentId()):
		return []proto.Message{&eventsv1.PayeeHeld{PaymentId: payment.GetPaymentId(), PayerId: payment.GetPayerId(), PayeeNpi: payment.GetPayeeNpi()}}
	case !task.GetHoldsPayee() && held:
		return []proto.Message{&eventsv1.PayeeFreed{PaymentId: payment.GetPaymentId(), PayerId: payment.GetPayerId(), PayeeNpi: payment.GetPayeeNpi()}}
	}
	return nil
}

// Clear decides whether a payment that waits may be handed over now; heldBy
// names the failed payment that it waits for otherwise. Refused with a conflict
// is one that somebody has handed over, or that has failed.
func (p Payee) Clear(s State, at *timestamppb.Timestamp) (events []proto.Message, heldBy string, err error) {
	if err := s.Clearable(); err != nil {
		return nil, "", err
	}
	if len(p.held) > 0 {
		return nil, p.held[0], nil
	}
	payment := s.Payment
	return []proto.Message{&eventsv1.PaymentCleared{
		PaymentId: payment.GetPaymentId(), PayerId: payment.GetPayerId(), PayeeNpi: payment.GetPayeeNpi(), ClearedTime: at,
	}}, "", nil
}
