package payments

import (
	"time"

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

//
// The times by which something is due stand in the events and are judged by
// Advance, so that whoever asks, and however often, the same follows.

// task is the work on a payment as its stream tells it.
type task struct {
	ever, open, holds     bool
	assignee, reporter    string
	opened, due           *timestamppb.Timestamp
	reminds, rises, until *timestamppb.Timestamp // nil where nothing is due of it
	level, reminders      uint32
}

func (t task) evolve(event any) task {
	switch e := event.(type) {
	case *eventsv1.PaymentFailed:
		if e.GetTask() {
			return task{
				ever: true, open: true, holds: true, reporter: e.GetReportedBy(), opened: e.GetFailedTime(),
				due: e.GetDueTime(), rises: e.GetDueTime(), reminds: e.GetRemindTime(),
			}
		}
	case *eventsv1.PaymentTaskAssigned:
		t.assignee, t.until = e.GetAssignee(), e.GetHeldUntil()
	case *eventsv1.PaymentTaskReminded:
		t.reminders, t.reminds = e.GetCount(), e.GetNextTime()
	case *eventsv1.PaymentTaskEscalated:
		t.level, t.rises = e.GetLevel(), e.GetNextTime()
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
	return &claimsv1.PaymentTask{
		Payment: s.Payment, Assignee: s.task.assignee, HoldsPayee: s.task.holds, OpenedTime: s.task.opened, Open: s.task.open,
		DueTime: s.task.due, Escalation: s.task.level, ReminderCount: s.task.reminders, HeldUntil: s.task.until,
	}
}

// Voids tells whether the payment's remittance is to be voided now.
func (s State) Voids() bool {
	return s.Payment.GetState() == claimsv1.PaymentState_PAYMENT_STATE_FAILED && !s.task.open
}

// due is the next thing that is due of the task at a time; nil where nothing is.
func (s State) due(at time.Time, terms Terms) proto.Message {
	t, p := s.task, s.Payment
	over := func(due *timestamppb.Timestamp) bool { return t.open && due != nil && !at.Before(due.AsTime()) }
	switch {
	case over(t.until):
		return &eventsv1.PaymentTaskAssigned{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), Lapsed: true}
	case over(t.rises):
		e := &eventsv1.PaymentTaskEscalated{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), Level: t.level + 1}
		if e.Level < highest {
			// From the time that has come, not from when somebody looked: who was
			// away for long finds the level that the task has risen to since.
			e.NextTime = later(t.rises, terms.Remind)
		}
		return e
	case over(t.reminds):
		e := &eventsv1.PaymentTaskReminded{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), Count: t.reminders + 1}
		// Who was away for long is reminded once, not once for each time missed.
		next := t.reminds
		for !next.AsTime().After(at) {
			next = later(next, terms.Remind)
		}
		if next.AsTime().Before(t.due.AsTime()) {
			e.NextTime = next
		}
		return e
	}
	return nil
}

// NextTime is when something of the task is due next; zero where nothing is.
func (s State) NextTime() time.Time {
	var first time.Time
	if !s.task.open {
		return first
	}
	for _, due := range []*timestamppb.Timestamp{s.task.until, s.task.rises, s.task.reminds} {
		if due != nil && (first.IsZero() || due.AsTime().Before(first)) {
			first = due.AsTime()
		}
	}
	return first
}

// taskCommand is something asked of a payment's task.
type taskCommand interface {
	Command
	isTaskCommand()
}

type (
	// Assign gives the task to somebody; By is empty where one takes it, or
	// with an empty Assignee gives it back.
	Assign struct {
		Assignee, Who, By string
		Terms             Terms // by which it goes back again
	}
	// ReleasePayee lifts the hold.
	ReleasePayee struct{ Who string }
	// Advance does all that is due by now; with nothing due it does nothing.
	Advance struct{ Terms Terms }
	// Resolve decides what becomes of the payment.
	Resolve struct {
		Resolution             claimsv1.PaymentResolution
		Method, Reference, Who string
	}
)

func (Assign) isCommand()           {}
func (ReleasePayee) isCommand()     {}
func (Resolve) isCommand()          {}
func (Advance) isCommand()          {}
func (Assign) isTaskCommand()       {}
func (ReleasePayee) isTaskCommand() {}
func (Resolve) isTaskCommand()      {}
func (Advance) isTaskCommand()      {}

// work answers a command to the task with the events that follow.
func (s State) work(c taskCommand, at *timestamppb.Timestamp) ([]proto.Message, error) {
	p, t := s.Payment, s.task
	if c, ok := c.(Advance); ok {
		var out []proto.Message
		for next := s; ; next = Evolve(next, out[len(out)-1]) {
			e := next.due(at.AsTime(), c.Terms.WithDefaults())
			if e == nil {
				return out, nil
			}
			out = append(out, e)
		}
	}
	if !t.open {
		if c, again := c.(Resolve); again && t.ever && c.Resolution == p.GetResolution() && c.Method == p.GetNextMethod() && c.Reference == p.GetResolutionReference() {
			return nil, nil
		}
		return nil, taskProblem(problem.Conflict, "none", "the payment doesn't wait for a person", "read the payment to see how it stands")
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
		e := &eventsv1.PaymentTaskAssigned{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), Assignee: c.Assignee, AssignedBy: c.By}
		if c.Assignee != "" {
			e.HeldUntil = later(at, c.Terms.WithDefaults().Hold)
		}
		return []proto.Message{e}, nil
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
