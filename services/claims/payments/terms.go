package payments

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probity-health/probity/services/claims/casework"
)

// highest is how far a task is escalated at most.
const highest = 3

// Terms are the lengths of time of the work on failed payments. The zero value
// is usable after WithDefaults: each field then has the default that its comment
// names. A time once set stands in its event; changing the terms moves none.
type Terms struct {
	// Decide is how long it may take to decide what becomes of a failed payment,
	// before the task is escalated; 5d. No law names a time: the payee is owed
	// money that it has been told of, and where it is paid anew interest runs on.
	Decide casework.Span `json:"decide,omitempty"`
	// DecideFor are payers, by id, that have agreed on another time.
	DecideFor map[string]casework.Span `json:"decideFor,omitempty"`
	// Remind is the time between reminders, and between the steps of escalation
	// once the task is overdue; 2d.
	Remind casework.Span `json:"remind,omitempty"`
	// Hold is how long one person may have a task before it goes back to the
	// list; 3d, since banks and payees must be asked.
	Hold casework.Span `json:"hold,omitempty"`
}

// WithDefaults fills in what was left zero.
func (t Terms) WithDefaults() Terms {
	for field, otherwise := range map[*casework.Span]casework.Span{&t.Decide: casework.Days(5), &t.Remind: casework.Days(2), &t.Hold: casework.Days(3)} {
		if *field <= 0 {
			*field = otherwise
		}
	}
	return t
}

// due is by when the task of a payment that failed then is to be decided, and
// when it is first reminded of, where that is before.
func (t Terms) due(payer string, failed *timestamppb.Timestamp) (due, remind *timestamppb.Timestamp) {
	t = t.WithDefaults()
	span := t.Decide
	if own := t.DecideFor[payer]; own > 0 {
		span = own
	}
	due, remind = later(failed, span), later(failed, t.Remind)
	if !remind.AsTime().Before(due.AsTime()) {
		remind = nil
	}
	return due, remind
}

func later(t *timestamppb.Timestamp, by casework.Span) *timestamppb.Timestamp {
	return timestamppb.New(t.AsTime().Add(time.Duration(by)))
}
