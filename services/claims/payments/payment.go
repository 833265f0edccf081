// Package payments decides on the payment of a remittance and on the task that
// a failed one is. It is pure: the time is passed in, and every answer follows
// from the events of the payment's own stream.
//
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
// back. In doubt it stays as it is. Then a person decides: see State.Task. Only
// where that is to pay after all is anything of its remittance payable again.
package payments

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/problem"
)

// State is one payment as its stream tells it.
type State struct {
	Payment *claimsv1.Payment // nil when it was never intended
	task    task
}

// Evolve is the state after one more event of the payment's stream; the state
// before stays as it is.
func Evolve(s State, event any) State {
	if p := Part(event); p != nil {
		joined := &claimsv1.Payment{}
		if _, begins := event.(*eventsv1.PaymentIntended); !begins {
			joined = proto.CloneOf(s.Payment)
		}
		proto.Merge(joined, p)
		s.Payment = joined
	}
	s.task = s.task.evolve(event)
	return s
}

// Part is what an event adds to what is known of a payment. The stream's
// record and the read model's row are joined from the same parts.
func Part(event any) *claimsv1.Payment {
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

// Intend decides on the payment, by its id, of a remittance, by a method or,
// where that is empty, by whichever the port has for the payee.
func Intend(m *claimsv1.Remittance, id, method string, at *timestamppb.Timestamp) (*eventsv1.PaymentIntended, error) {
	switch {
	case m.GetPaidCents() <= 0:
		return nil, defect("payments.nothing", "a remittance that pays nothing needs no payment")
	case m.GetVoided():
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "payments.voided",
			Message: "the remittance is void", Fix: "what it told is told again by the next payment cycle"})
	}
	return &eventsv1.PaymentIntended{Payment: &claimsv1.Payment{
		PaymentId: id, RemittanceId: m.GetRemittanceId(), PayerId: m.GetPayerId(), PayeeNpi: m.GetPayeeNpi(),
		AmountCents: m.GetPaidCents(), PaymentDate: m.GetPaymentDate(), TraceNumber: m.GetTraceNumber(), SubmitterOrg: m.GetSubmitterOrg(),
		State: claimsv1.PaymentState_PAYMENT_STATE_INTENDED, IntendedTime: at, StateTime: at, Method: method,
	}}, nil
}

// Command is something asked of a payment.
type Command interface{ isCommand() }

type (
	// Send says that it was handed over, and perhaps made with that.
	Send struct {
		Reference string
		Confirmed bool
	}
	// Confirm says that one that was handed over was made.
	Confirm struct{ Reference string }
	// Fail says that it was not made and never will be, or came back.
	Fail struct {
		Reason              string
		Withdrawn, Returned bool
		By                  string // a person's subject; empty for the port's word
		Terms               Terms  // by which its task is due
	}
)

func (Send) isCommand()    {}
func (Confirm) isCommand() {}
func (Fail) isCommand()    {}

// Decide answers a command with the events that follow; none where what it
// says is recorded already.
func (s State) Decide(c Command, at *timestamppb.Timestamp) ([]proto.Message, error) {
	p := s.Payment
	if p == nil {
		return nil, defect("payments.none", "nothing was intended")
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
	case Send:
		switch {
		case over:
			return nil, hasFailed(p)
		case state == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, state == claimsv1.PaymentState_PAYMENT_STATE_SENT && !c.Confirmed:
			return nil, nil
		case state == claimsv1.PaymentState_PAYMENT_STATE_SENT:
			return []proto.Message{confirmed(c.Reference)}, nil
		}
		events := []proto.Message{&eventsv1.PaymentSent{PaymentId: p.GetPaymentId(), Reference: c.Reference, SentTime: at, PayerId: p.GetPayerId()}}
		if c.Confirmed {
			events = append(events, confirmed(c.Reference))
		}
		return events, nil
	case Confirm:
		switch {
		case over:
			return nil, hasFailed(p)
		case state == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED:
			return nil, nil
		case state == claimsv1.PaymentState_PAYMENT_STATE_INTENDED:
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "payments.not-sent", FieldPath: "payment_id",
				Message: "the payment is not recorded as handed over", Fix: "run the payment cycle, which hands it over or finds that it was; then confirm it"})
		}
		return []proto.Message{confirmed(c.Reference)}, nil
	case Fail:
		switch {
		case over:
			return nil, nil
		case state == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED && !c.Returned:
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "payments.made", FieldPath: "payment_id",
				Message: "the payment was made", Fix: "where the money has come back, say that it was returned"})
		case state == claimsv1.PaymentState_PAYMENT_STATE_INTENDED && !c.Withdrawn:
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "payments.not-withdrawn", FieldPath: "payment_id",
				Message: "the payment may still be handed over", Fix: "run the payment cycle, which hands it over or withdraws it; then look at it again"})
		}
		failed := &eventsv1.PaymentFailed{
			PaymentId: p.GetPaymentId(), Reason: c.Reason, FailedTime: at, PayerId: p.GetPayerId(), PayeeNpi: p.GetPayeeNpi(),
			Returned: state == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, Task: true, ReportedBy: c.By,
		}
		failed.DueTime, failed.RemindTime = c.Terms.due(p.GetPayerId(), at)
		return []proto.Message{failed}, nil
	}
	if c, ok := c.(taskCommand); ok {
		return s.work(c, at)
	}
	return nil, defect("payments.command", "unknown command")
}

// Clearable tells why a payment can't be handed over whoever its payee is: it
// was, or it has failed.
func (s State) Clearable() error {
	p := s.Payment
	switch {
	case p == nil:
		return defect("payments.none", "nothing was intended")
	case slices.Contains(failedStates, p.GetState()):
		return hasFailed(p)
	case p.GetState() != claimsv1.PaymentState_PAYMENT_STATE_INTENDED:
		return problem.New(problem.Conflict, problem.Problem{RuleID: "payments.handed-over", FieldPath: "payment_id",
			Message: "the payment was handed over", Fix: "nothing: read the payment to see how it stands"})
	}
	return nil
}

// failedStates are those of a payment that was not made or came back.
var failedStates = []claimsv1.PaymentState{
	claimsv1.PaymentState_PAYMENT_STATE_FAILED, claimsv1.PaymentState_PAYMENT_STATE_VOIDED, claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF,
}

func hasFailed(p *claimsv1.Payment) error {
	return problem.New(problem.Conflict, problem.Problem{RuleID: "payments.failed", FieldPath: "payment_id",
		Message: "the payment has failed", Fix: "if money moved all the same, tell whoever moves it at once: " + p.GetPaymentId() + " was paid by mistake"})
}

// Open tells whether a cycle has something to do with a payment. What
// waits for a person is left out by not being in the list.
func Open(p *claimsv1.Payment) bool {
	return slices.Contains([]claimsv1.PaymentState{claimsv1.PaymentState_PAYMENT_STATE_INTENDED, claimsv1.PaymentState_PAYMENT_STATE_FAILED}, p.GetState())
}

func defect(rule, message string) error {
	return problem.New(problem.Internal, problem.Problem{RuleID: rule, Message: message, Fix: "nothing was recorded; give the request id to the operator"})
}
