package claims

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
)

// A failed payment is a person's task: to pay after all, once the cause is gone
// or another way is agreed on; or to settle it outside. While the task is open
// its payee's other payments wait, unless the hold is lifted. Who reported the
// failure of a payment that may have been made doesn't decide what becomes of it.

// paymentTask is the work on a payment as its stream tells it.
type paymentTask struct {
	ever, open, holds  bool
	assignee, reporter string
	opened             *timestamppb.Timestamp
}

func (t paymentTask) evolve(event any) paymentTask {
	switch e := event.(type) {
	case *eventsv1.PaymentFailed:
		if e.GetTask() {
			return paymentTask{ever: true, open: true, holds: true, reporter: e.GetReportedBy(), opened: e.GetFailedTime()}
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
func (r PaymentRecord) Task() *claimsv1.PaymentTask {
	if !r.task.ever {
		return nil
	}
	return &claimsv1.PaymentTask{Payment: r.Payment, Assignee: r.task.assignee, HoldsPayee: r.task.holds, OpenedTime: r.task.opened, Open: r.task.open}
}

// voids tells whether the payment's remittance is to be voided now.
func (r PaymentRecord) voids() bool {
	return r.Payment.GetState() == claimsv1.PaymentState_PAYMENT_STATE_FAILED && !r.task.open
}

// taskCommand is something asked of a payment's task.
type taskCommand interface {
	paymentCommand
	isTaskCommand()
}

type (
	// assignTask gives the task to somebody; by is empty where one takes it, or
	// with an empty assignee gives it back.
	assignTask struct{ assignee, who, by string }
	// releasePayee lifts the hold.
	releasePayee struct{ who string }
	// resolveTask decides what becomes of the payment.
	resolveTask struct {
		resolution             claimsv1.PaymentResolution
		method, reference, who string
	}
)

func (assignTask) isPaymentCommand()   {}
func (releasePayee) isPaymentCommand() {}
func (resolveTask) isPaymentCommand()  {}
func (assignTask) isTaskCommand()      {}
func (releasePayee) isTaskCommand()    {}
func (resolveTask) isTaskCommand()     {}

// work answers a command to the task with the events that follow.
func (r PaymentRecord) work(c taskCommand, at *timestamppb.Timestamp) ([]proto.Message, error) {
	p, t := r.Payment, r.task
	if !t.open {
		if c, again := c.(resolveTask); again && t.ever && c.resolution == p.GetResolution() && c.method == p.GetNextMethod() && c.reference == p.GetResolutionReference() {
			return nil, nil
		}
		return nil, taskProblem(problem.Conflict, "none", "the payment doesn't wait for a person", "read the payment to see how it stands")
	}
	assigned := func(assignee, by string) []proto.Message {
		return []proto.Message{&eventsv1.PaymentTaskAssigned{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), Assignee: assignee, AssignedBy: by}}
	}
	switch c := c.(type) {
	case assignTask:
		switch {
		case c.assignee == t.assignee:
			return nil, nil
		case c.by == "" && t.assignee != "" && t.assignee != c.who:
			return nil, taskHeld()
		case c.assignee != "" && c.assignee == t.reporter:
			return nil, taskSamePerson()
		}
		return assigned(c.assignee, c.by), nil
	case releasePayee:
		if !t.holds {
			return nil, nil
		}
		return []proto.Message{&eventsv1.PayeeReleased{PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), PayeeNpi: p.GetPayeeNpi(), ReleasedBy: c.who}}, nil
	case resolveTask:
		changes := c.resolution == claimsv1.PaymentResolution_PAYMENT_RESOLUTION_CHANGE_METHOD
		switch {
		case t.assignee != "" && t.assignee != c.who:
			return nil, taskHeld()
		case c.who == t.reporter:
			return nil, taskSamePerson()
		case changes != (c.method != ""):
			return nil, problem.Invalidf("payments.task.method", "method", "a method is named exactly where it is changed")
		case c.resolution == claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF && c.reference == "":
			return nil, problem.Invalidf("payments.task.reference", "reference", "what is written off is settled elsewhere: say under which reference")
		}
		return []proto.Message{&eventsv1.PaymentResolved{
			PaymentId: p.GetPaymentId(), PayerId: p.GetPayerId(), PayeeNpi: p.GetPayeeNpi(),
			Resolution: c.resolution, Method: c.method, Reference: c.reference, Resolver: c.who, ResolvedTime: at,
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

// The tasks' lists. Rows are those of payments with more fields: a who has the
// task, l that the hold is lifted. Members of held and methods are pairs.
//
//	paytasks:all|payer:<p>  ids of payments whose task is open, by the time they failed
//	held:payer:<p>          <payee NPI>/<payment id> of failed payments that hold their payee
//	methods:payer:<p>       <payee NPI>/<method>, the newest of a payee counts
const (
	kindPaymentTasks = "paytasks"
	kindHeld         = "held"
	kindMethods      = "methods"
)

func paired(npi, what string) string { return npi + "/" + what }

func failedOps(e *eventsv1.PaymentFailed, id string, at int64) []views.Op {
	if !e.GetTask() {
		return []views.Op{views.ZAdd(payerIndex(kindPaying, e.GetPayerId()), at, id)}
	}
	return []views.Op{
		views.ZRem(payerIndex(kindPaying, e.GetPayerId()), id),
		views.ZAdd(payerIndex(kindHeld, e.GetPayerId()), at, paired(e.GetPayeeNpi(), id)),
		views.ZAdd(payerIndex(kindPaymentTasks, e.GetPayerId()), at, id), views.ZAdd(allIndex(kindPaymentTasks), at, id),
	}
}

func resolvedOps(e *eventsv1.PaymentResolved, id string, at int64) []views.Op {
	ops := []views.Op{
		views.ZRem(payerIndex(kindHeld, e.GetPayerId()), paired(e.GetPayeeNpi(), id)),
		views.ZRem(payerIndex(kindPaymentTasks, e.GetPayerId()), id), views.ZRem(allIndex(kindPaymentTasks), id),
	}
	if e.GetMethod() != "" {
		ops = append(ops, views.ZAdd(payerIndex(kindMethods, e.GetPayerId()), at, paired(e.GetPayeeNpi(), e.GetMethod())))
	}
	if e.GetResolution() != claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF {
		ops = append(ops, views.ZAdd(payerIndex(kindPaying, e.GetPayerId()), at, id)) // to be voided
	}
	return ops
}

// paymentTaskRow joins a task's row.
func paymentTaskRow(fields map[string]string) (*claimsv1.PaymentTask, error) {
	p, err := paymentRow(fields)
	if err != nil {
		return nil, err
	}
	return &claimsv1.PaymentTask{
		Payment: p, Assignee: fields["a"], HoldsPayee: fields["l"] == "", OpenedTime: p.GetStateTime(),
		Open: p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_FAILED && p.GetResolution() == claimsv1.PaymentResolution_PAYMENT_RESOLUTION_UNSPECIFIED,
	}, nil
}

// newest are pairs by their first half, in the members' order: the last wins.
func newest(members []views.Member) map[string]string {
	members = slices.Clone(members)
	slices.SortStableFunc(members, func(a, b views.Member) int { return cmp.Compare(a.Score, b.Score) })
	out := make(map[string]string, len(members))
	for _, m := range members {
		npi, what, _ := strings.Cut(m.Name, "/")
		out[npi] = what
	}
	return out
}
