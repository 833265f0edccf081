package claims

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
)

// A remittance that pays something is paid by one payment, named after it:
//
//	Intended ── Sent ── Confirmed          ┌─ Voided
//	   │          │         │              │
//	   └──────────┴─────────┴── Failed ── Resolved
//	                                       │
//	                                       └─ WrittenOff
//
// That Intended can stand only at revision 0 of the payment's stream is what
// pays a remittance once; whoever moves the money knows it by its id, and
// makes it once. It fails only when it is certain that it was not made and
// will not be: by the word of whoever moves the money (withdrawn), or of a
// person who was told so about one that was handed over, or that the money came
// back. In doubt it stays as it is. Then a person decides: see PaymentTask. Only
// where that is to pay after all is anything of its remittance payable again.

// PaymentRecord is one payment as its stream tells it.
type PaymentRecord struct {
	Payment  *claimsv1.Payment // nil when it was never intended
	Revision int64
	Position eventstore.Position // of its last event
	task     paymentTask
}

// FoldPayment reads a payment's stream.
func FoldPayment(events []eventstore.Recorded) PaymentRecord {
	out := PaymentRecord{Revision: eventstore.NoStream}
	for _, r := range events {
		switch e := r.Event.(type) {
		case *eventsv1.PaymentIntended:
			out.Payment = proto.CloneOf(e.GetPayment())
		default:
			if p := paymentPart(r.Event); p != nil {
				proto.Merge(out.Payment, p)
			}
		}
		out.task = out.task.evolve(r.Event)
		out.Revision, out.Position = int64(r.Revision), r.Position
	}
	return out
}

// paymentPart is what an event adds to what is known of a payment. The stream's
// record and the read model's row are joined from the same parts.
func paymentPart(event any) *claimsv1.Payment {
	switch e := event.(type) {
	case *eventsv1.PaymentIntended:
		return e.GetPayment()
	case *eventsv1.PaymentSent:
		return &claimsv1.Payment{State: claimsv1.PaymentState_PAYMENT_STATE_SENT, Reference: e.GetReference(), StateTime: e.GetSentTime()}
	case *eventsv1.PaymentConfirmed:
		return &claimsv1.Payment{State: claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, Reference: e.GetReference(), StateTime: e.GetConfirmedTime()}
	case *eventsv1.PaymentFailed:
		return &claimsv1.Payment{State: claimsv1.PaymentState_PAYMENT_STATE_FAILED, FailureReason: e.GetReason(), StateTime: e.GetFailedTime(), Returned: e.GetReturned()}
	case *eventsv1.PaymentResolved:
		part := &claimsv1.Payment{Resolution: e.GetResolution(), NextMethod: e.GetMethod(), ResolutionReference: e.GetReference()}
		if e.GetResolution() == claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF {
			part.State, part.StateTime = claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF, e.GetResolvedTime()
		}
		return part
	case *eventsv1.PaymentVoided:
		return &claimsv1.Payment{State: claimsv1.PaymentState_PAYMENT_STATE_VOIDED, StateTime: e.GetVoidedTime()}
	}
	return nil
}

// intendPayment decides on the payment of a remittance, by a method or, where
// that is empty, by whichever the port has for the payee.
func intendPayment(r RemittanceRecord, method string, at *timestamppb.Timestamp) (*eventsv1.PaymentIntended, error) {
	m := r.Issued
	switch {
	case m == nil:
		return nil, notFound("remittance")
	case m.GetPaidCents() <= 0:
		return nil, defect("payments.nothing", "a remittance that pays nothing needs no payment")
	case m.GetVoided():
		return nil, conflict("payments.voided", "the remittance is void")
	}
	return &eventsv1.PaymentIntended{Payment: &claimsv1.Payment{
		PaymentId: paymentID(m.GetRemittanceId()), RemittanceId: m.GetRemittanceId(), PayerId: m.GetPayerId(), PayeeNpi: m.GetPayeeNpi(),
		AmountCents: m.GetPaidCents(), PaymentDate: m.GetPaymentDate(), TraceNumber: m.GetTraceNumber(), SubmitterOrg: m.GetSubmitterOrg(),
		State: claimsv1.PaymentState_PAYMENT_STATE_INTENDED, IntendedTime: at, StateTime: at, Method: method,
	}}, nil
}

// paymentCommand is something asked of a payment.
type paymentCommand interface{ isPaymentCommand() }

type (
	// sendPayment says that it was handed over, and perhaps made with that.
	sendPayment struct {
		reference string
		confirmed bool
	}
	// confirmPayment says that one that was handed over was made.
	confirmPayment struct{ reference string }
	// failPayment says that it was not made and never will be, or came back.
	failPayment struct {
		reason              string
		withdrawn, returned bool
		by                  string // a person's subject; empty for the port's word
	}
)

func (sendPayment) isPaymentCommand()    {}
func (confirmPayment) isPaymentCommand() {}
func (failPayment) isPaymentCommand()    {}

// decide answers a command with the events that follow; none where what it
// says is recorded already.
func (r PaymentRecord) decide(c paymentCommand, at *timestamppb.Timestamp) ([]proto.Message, error) {
	p := r.Payment
	if p == nil {
		return nil, notFound("payment")
	}
	state := p.GetState()
	over := slices.Contains(failedStates, state)
	confirmed := func(reference string) *eventsv1.PaymentConfirmed {
		if reference == "" {
			reference = p.GetReference()
		}
		return &eventsv1.PaymentConfirmed{PaymentId: p.GetPaymentId(), Reference: reference, ConfirmedTime: at}
	}
	switch c := c.(type) {
	case sendPayment:
		switch {
		case over:
			return nil, paymentOver(p)
		case state == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, state == claimsv1.PaymentState_PAYMENT_STATE_SENT && !c.confirmed:
			return nil, nil
		case state == claimsv1.PaymentState_PAYMENT_STATE_SENT:
			return []proto.Message{confirmed(c.reference)}, nil
		}
		events := []proto.Message{&eventsv1.PaymentSent{PaymentId: p.GetPaymentId(), Reference: c.reference, SentTime: at, PayerId: p.GetPayerId()}}
		if c.confirmed {
			events = append(events, confirmed(c.reference))
		}
		return events, nil
	case confirmPayment:
		switch {
		case over:
			return nil, paymentOver(p)
		case state == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED:
			return nil, nil
		case state == claimsv1.PaymentState_PAYMENT_STATE_INTENDED:
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "payments.not-sent", FieldPath: "payment_id",
				Message: "the payment is not recorded as handed over", Fix: "run the payment cycle, which hands it over or finds that it was; then confirm it"})
		}
		return []proto.Message{confirmed(c.reference)}, nil
	case failPayment:
		switch {
		case over:
			return nil, nil
		case state == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED && !c.returned:
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "payments.made", FieldPath: "payment_id",
				Message: "the payment was made", Fix: "where the money has come back, say that it was returned"})
		case state == claimsv1.PaymentState_PAYMENT_STATE_INTENDED && !c.withdrawn:
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "payments.not-withdrawn", FieldPath: "payment_id",
				Message: "the payment may still be handed over", Fix: "run the payment cycle, which hands it over or withdraws it; then look at it again"})
		}
		return []proto.Message{&eventsv1.PaymentFailed{
			PaymentId: p.GetPaymentId(), Reason: c.reason, FailedTime: at, PayerId: p.GetPayerId(), PayeeNpi: p.GetPayeeNpi(),
			Returned: state == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, Task: true, ReportedBy: c.by,
		}}, nil
	}
	if c, ok := c.(taskCommand); ok {
		return r.work(c, at)
	}
	return nil, defect("payments.command", "unknown command")
}

// failedStates are those of a payment that was not made or came back.
var failedStates = []claimsv1.PaymentState{
	claimsv1.PaymentState_PAYMENT_STATE_FAILED, claimsv1.PaymentState_PAYMENT_STATE_VOIDED, claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF,
}

func paymentOver(p *claimsv1.Payment) error {
	return problem.New(problem.Conflict, problem.Problem{RuleID: "payments.failed", FieldPath: "payment_id",
		Message: "the payment has failed", Fix: "if money moved all the same, tell whoever moves it at once: " + p.GetPaymentId() + " was paid by mistake"})
}

// paymentOps put payments into the read models.
func paymentOps(r eventstore.Recorded, at int64) ([]views.Op, error) {
	p := paymentPart(r.Event)
	switch r.Event.(type) {
	case *eventsv1.PaymentTaskAssigned, *eventsv1.PayeeReleased:
	default:
		if p == nil {
			return nil, nil
		}
	}
	if e, ok := r.Event.(*eventsv1.PaymentIntended); ok {
		id := e.GetPayment().GetPaymentId()
		ops, err := row(kindPayments, id, "i", p)
		ops = append(ops, index(kindPayments, p.GetSubmitterOrg(), p.GetPayerId(), at, id)...)
		return append(ops, views.ZRem(payerIndex(kindUnpaid, p.GetPayerId()), p.GetRemittanceId()), views.ZAdd(payerIndex(kindPaying, p.GetPayerId()), at, id)), err
	}
	id := paymentOfStream(r.Stream)
	switch e := r.Event.(type) {
	case *eventsv1.PaymentSent:
		ops, err := row(kindPayments, id, "s", p)
		return append(ops, views.ZRem(payerIndex(kindPaying, e.GetPayerId()), id)), err
	case *eventsv1.PaymentConfirmed:
		return row(kindPayments, id, "c", p)
	case *eventsv1.PaymentFailed:
		ops, err := row(kindPayments, id, "x", p)
		return append(ops, failedOps(e, id, at)...), err
	case *eventsv1.PaymentTaskAssigned:
		return []views.Op{views.HSet(rowsKey(kindPayments), rowField(id, "a"), e.GetAssignee())}, nil
	case *eventsv1.PayeeReleased:
		return []views.Op{
			views.HSet(rowsKey(kindPayments), rowField(id, "l"), "1"),
			views.ZRem(payerIndex(kindHeld, e.GetPayerId()), paired(e.GetPayeeNpi(), id)),
		}, nil
	case *eventsv1.PaymentResolved:
		ops, err := row(kindPayments, id, "q", p)
		return append(ops, resolvedOps(e, id, at)...), err
	case *eventsv1.PaymentVoided:
		ops, err := row(kindPayments, id, "v", p)
		return append(ops, views.ZRem(payerIndex(kindPaying, e.GetPayerId()), id)), err
	}
	return nil, nil
}

func paymentOfStream(stream string) string { return stream[len(paymentStream("")):] }

// paymentRow joins a payment's row.
func paymentRow(fields map[string]string) (*claimsv1.Payment, error) {
	out := &claimsv1.Payment{}
	for _, f := range rowParts[kindPayments] {
		if err := part(fields, f, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// paymentOpen tells whether a cycle has something to do with a payment. What
// waits for a person is left out by not being in the list.
func paymentOpen(p *claimsv1.Payment) bool {
	return slices.Contains([]claimsv1.PaymentState{claimsv1.PaymentState_PAYMENT_STATE_INTENDED, claimsv1.PaymentState_PAYMENT_STATE_FAILED}, p.GetState())
}
