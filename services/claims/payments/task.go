package payments

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/problem"
)

// A failed payment is a person's task: to pay after all, once the cause is gone
// or another way is agreed on; or to settle it outside. While the task is open
// its payee's other payments wait, unless the hold is lifted. Who reported the
// failure of a payment that may have been made doesn't decide what becomes of it.

// task is the work on a payment as its stream tells it.
type task struct {
	ever, open, holds  bool
	assignee, reporter string
	opened             *timestamppb.Timestamp
}

func (t task) evolve(event any) task {
	switch e := event.(type) {
	case *eventsv1.PaymentFailed:
		if e.GetTask() {
			return task{ever: true, open: true, holds: true, reporter: e.GetReportedBy(), opened: e.GetFailedTime()}
		}
	case *eventsv1.PaymentTaskAssigned:
		t.assignee = e.GetAssignee()
	case *eventsv1.PayeeReleased:
		t.holds = false
	case *eventsv1.PaymentResolved:
		t.open, t.holds = false, false
	}
	return t
}

// Task is the work on the payment; nil where it never failed.
func (s State) Task() *claimsv1.PaymentTask {
	if !s.task.ever {
		return nil
	}
	return &claimsv1.PaymentTask{Payment: s.Payment, Assignee: s.task.assignee, HoldsPayee: s.task.holds, OpenedTime: s.task.opened, Open: s.task.open}
}

// Voids tells whether the payment's remittance is to be voided now.
func (s State) Voids() bool {
	return s.Payment.GetState() == claimsv1.PaymentState_PAYMENT_STATE_FAILED && !s.task.open
}

// taskCommand is something asked of a payment's task.
type taskCommand interface {
	Command
	isTaskCommand()
}

type (
	// Assign gives the task to somebody; By is empty where one takes it, or
	// with an empty Assignee gives it back.
	Assign struct{ Assignee, Who, By string }
	// ReleasePayee lifts the hold.
	ReleasePayee struct{ Who string }
	// Resolve decides what becomes of the payment.
	Resolve struct {
		Resolution             claimsv1.PaymentResolution
		Method, Reference, Who string
	}
)

func (Assign) isCommand()           {}
func (ReleasePayee) isCommand()     {}
func (Resolve) isCommand()          {}
func (Assign) isTaskCommand()       {}
func (ReleasePayee) isTaskCommand() {}
func (Resolve) isTaskCommand()      {}

// work answers a command to the task with the events that follow.
func (s State) work(c taskCommand, at *timestamppb.Timestamp) ([]proto.Message, error) {
	p, t := s.Payment, s.task
	if !t.open {
		if c, again := c.(Resolve); again && t.ever && c.Resolution == p.GetResolution() && c.Method == p.GetNextMethod() && c.Reference == p.GetResolutionReference() {
			return nil, nil
		}
		return nil, taskProblem(problem.Conflict, "none", "the payment doesn't wait for a person", "read the payment to see how it stands")
	}
	assigned := func(assignee, by string) []proto.Message {
		return []proto.Message{&eventsv1.PaymentTaskAssigned{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), Assignee: assignee, AssignedBy: by}}
	}
	switch c := c.(type) {
	case Assign:
		switch {
		case c.Assignee == t.assignee:
			return nil, nil
		case c.By == "" && t.assignee != "" && t.assignee != c.Who:
			return nil, taskHeld()
		case c.Assignee != "" && c.Assignee == t.reporter:
			return nil, taskSamePerson()
		}
		return assigned(c.Assignee, c.By), nil
	case ReleasePayee:
		if !t.holds {
			return nil, nil
		}
		return []proto.Message{&eventsv1.PayeeReleased{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), PayeeNpi: p.GetPayeeNpi(), ReleasedBy: c.Who}}, nil
	case Resolve:
		changes := c.Resolution == claimsv1.PaymentResolution_PAYMENT_RESOLUTION_CHANGE_METHOD
		switch {
		case t.assignee != "" && t.assignee != c.Who:
			return nil, taskHeld()
		case c.Who == t.reporter:
			return nil, taskSamePerson()
		case changes != (c.Method != ""):
			return nil, problem.Invalidf("payments.task.method", "method", "a method is named exactly where it is changed")
		case c.Resolution == claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF && c.Reference == "":
			return nil, problem.Invalidf("payments.task.reference", "reference", "what is written off is settled elsewhere: say under which reference")
		}
		return []proto.Message{&eventsv1.PaymentResolved{
			PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), PayeeNpi: p.GetPayeeNpi(),
			Resolution: c.Resolution, Method: c.Method, Reference: c.Reference, Resolver: c.Who, ResolvedTime: at,
		}}, nil
	}
	return nil, defect("payments.task.command", "unknown command")
}

func taskProblem(kind problem.Kind, rule, message, fix string) error {
	return problem.New(kind, problem.Problem{RuleID: "payments.task." + rule, FieldPath: "payment_id", Message: message, Fix: fix})
}

func taskHeld() error {
	return taskProblem(problem.Conflict, "held", "another person has the task", "wait until it is released, or have it reassigned")
}

func taskSamePerson() error {
	return taskProblem(problem.Forbidden, "same-person", "who reported that the payment failed doesn't decide what becomes of it", "let another person take the task")
}
