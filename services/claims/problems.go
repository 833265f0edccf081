package claims

import (
	"errors"

	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// hide answers a read of what is not the caller's as a read of nothing:
// whether an id exists is no stranger's business.
func hide(what string, err error) error {
	if problem.Is(err, problem.Forbidden) {
		return notFound(what)
	}
	return err
}

// asMoved tells whether an append failed because the stream was elsewhere:
// either the ledger says where, or it says that the request id is taken, and
// then the same fact was recorded by a call whose answer was lost, at the
// revision next at the earliest.
func asMoved(err error, stream string, next int64) (*eventstore.ConflictError, bool) {
	var moved *eventstore.ConflictError
	switch {
	case errors.As(err, &moved):
		return moved, true
	case problem.Is(err, problem.Conflict):
		return &eventstore.ConflictError{Stream: stream, Actual: next}, true
	}
	return nil, false
}
