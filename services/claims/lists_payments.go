package claims

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/payments"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/views"
)

// paymentRecord is one payment and where its stream stands.
type paymentRecord struct {
	payments.State
	revision int64
	position eventstore.Position // of its last event
}

func foldPayment(events []eventstore.Recorded) paymentRecord {
	out := paymentRecord{revision: eventstore.NoStream}
	for _, r := range events {
		out.State = payments.Evolve(out.State, r.Event)
		out.revision, out.position = int64(r.Revision), r.Position
	}
	return out
}

// paymentOps put payments into the read models.
func paymentOps(ops []views.Op, r eventstore.Recorded, at int64) ([]views.Op, error) {
	p := payments.Part(r.Event)
	switch r.Event.(type) {
	case *eventsv1.PaymentTaskAssigned, *eventsv1.PayeeReleased, *eventsv1.PaymentTaskReminded, *eventsv1.PaymentTaskEscalated:
	default:
		if p == nil {
			return ops, nil
		}
	}
	if e, ok := r.Event.(*eventsv1.PaymentIntended); ok {
		id := e.GetPayment().GetPaymentId()
		ops, err := row(ops, kindPayments, id, "i", p)
		ops = index(ops, kindPayments, p.GetSubmitterOrg(), p.GetPayerId(), at, id)
		return append(ops, views.ZRem(payerIndex(kindUnpaid, p.GetPayerId()), p.GetRemittanceId()), views.ZAdd(payerIndex(kindPaying, p.GetPayerId()), at, id)), err
	}
	id := paymentOfStream(r.Stream)
	switch e := r.Event.(type) {
	case *eventsv1.PaymentSent:
		ops, err := row(ops, kindPayments, id, "s", p)
		return append(ops, views.ZRem(payerIndex(kindPaying, e.GetPayerId()), id)), err
	case *eventsv1.PaymentConfirmed:
		return row(ops, kindPayments, id, "c", p)
	case *eventsv1.PaymentFailed:
		ops, err := row(ops, kindPayments, id, "x", p)
		return failedOps(ops, e, id, at), err
	case *eventsv1.PaymentTaskAssigned:
		return append(ops,
			views.HSet(rowsKey(kindPayments), rowField(id, "a"), e.GetAssignee()),
			views.HSet(rowsKey(kindPayments), rowField(id, "h"), instant(e.GetHeldUntil())),
		), nil
	case *eventsv1.PaymentTaskReminded:
		return append(ops, views.HSet(rowsKey(kindPayments), rowField(id, "n"), itoa(e.GetCount()))), nil
	case *eventsv1.PaymentTaskEscalated:
		return append(ops, views.HSet(rowsKey(kindPayments), rowField(id, "e"), itoa(e.GetLevel()))), nil
	case *eventsv1.PayeeReleased:
		return append(ops,
			views.HSet(rowsKey(kindPayments), rowField(id, "l"), "1"),
			views.ZRem(payerIndex(kindHeld, e.GetPayerId()), paired(e.GetPayeeNpi(), id)),
		), nil
	case *eventsv1.PaymentResolved:
		ops, err := row(ops, kindPayments, id, "q", p)
		return resolvedOps(ops, e, id, at), err
	case *eventsv1.PaymentVoided:
		ops, err := row(ops, kindPayments, id, "v", p)
		return append(ops, views.ZRem(payerIndex(kindPaying, e.GetPayerId()), id)), err
	}
	return ops, nil
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

// instant is a time as a row's field has it, Unix milliseconds; empty is none.
func instant(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return strconv.FormatInt(t.AsTime().UnixMilli(), 10)
}

// instantOf reads what instant wrote; nil for anything else.
func instantOf(field string) *timestamppb.Timestamp {
	ms, err := strconv.ParseInt(field, 10, 64)
	if err != nil {
		return nil
	}
	return millis(ms)
}

// The tasks' lists. Rows are those of payments with more fields: a who has the
// task, h until when, d when it is due, n how often it was reminded of, e how
// far it is escalated, l that the hold is lifted. Members of held and methods
// are pairs.
//
//	paytasks:all|payer:<p>  ids of payments whose task is open, by the time they are due
//	held:payer:<p>          <payee NPI>/<payment id> of failed payments that hold their payee
//	methods:payer:<p>       <payee NPI>/<method>, the newest of a payee counts
const (
	kindPaymentTasks = "paytasks"
	kindHeld         = "held"
	kindMethods      = "methods"
)

func paired(npi, what string) string { return npi + "/" + what }

func failedOps(ops []views.Op, e *eventsv1.PaymentFailed, id string, at int64) []views.Op {
	if !e.GetTask() {
		return append(ops, views.ZAdd(payerIndex(kindPaying, e.GetPayerId()), at, id))
	}
	due := at // of a task from before they were due
	if e.GetDueTime() != nil {
		due = e.GetDueTime().AsTime().UnixMilli()
	}
	return append(ops,
		views.ZRem(payerIndex(kindPaying, e.GetPayerId()), id),
		views.ZAdd(payerIndex(kindHeld, e.GetPayerId()), at, paired(e.GetPayeeNpi(), id)),
		views.HSet(rowsKey(kindPayments), rowField(id, "d"), instant(e.GetDueTime())),
		views.ZAdd(payerIndex(kindPaymentTasks, e.GetPayerId()), due, id), views.ZAdd(allIndex(kindPaymentTasks), due, id),
	)
}

func resolvedOps(ops []views.Op, e *eventsv1.PaymentResolved, id string, at int64) []views.Op {
	ops = append(ops,
		views.ZRem(payerIndex(kindHeld, e.GetPayerId()), paired(e.GetPayeeNpi(), id)),
		views.ZRem(payerIndex(kindPaymentTasks, e.GetPayerId()), id), views.ZRem(allIndex(kindPaymentTasks), id),
	)
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
	number := func(field string) uint32 {
		n, _ := strconv.ParseUint(fields[field], 10, 32)
		return uint32(n)
	}
	return &claimsv1.PaymentTask{
		DueTime: instantOf(fields["d"]), HeldUntil: instantOf(fields["h"]), Escalation: number("e"), ReminderCount: number("n"),
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
