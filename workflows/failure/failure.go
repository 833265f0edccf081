// Package failure carries a service's refusal through Temporal and back.
//
// A refusal becomes an ApplicationError whose type is the problem's kind, so
// that an activity's retry policy can name the kinds it must not repeat, and
// whose details are the problems themselves, so that whoever waits for a
// workflow Update reads the same rule, message and fix as a caller of the
// service. The cause, which may quote anything, stays in this process.
// Problems hold no health data; the failure converter seals them all the same.
package failure

import (
	"context"
	"errors"
	"slices"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
)

// FromRPC turns the error of a service call into an activity's failure. A
// cancelled context stays what it is: Temporal tells cancellation apart.
func FromRPC(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return refuse(server.FromConnect(err))
}

// Refuse makes a workflow's own refusal, for validators and handlers.
func Refuse(kind problem.Kind, p problem.Problem) error { return refuse(problem.New(kind, p)) }

func refuse(e *problem.Error) error {
	return temporal.NewApplicationErrorWithOptions(e.Error(), string(e.Kind), temporal.ApplicationErrorOptions{
		Details: []any{&problemv1.Problems{Problems: server.ToProto(e, "")}},
	})
}

// ToProblem turns what a Temporal client returned into a refusal: the one a
// service gave, if that is what is inside, otherwise the kind that fits.
func ToProblem(err error) *problem.Error {
	var (
		own  *problem.Error
		app  *temporal.ApplicationError
		away *serviceerror.Unavailable
		late *serviceerror.DeadlineExceeded
		full *serviceerror.ResourceExhausted
		slow *client.WorkflowUpdateServiceTimeoutOrCanceledError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.As(err, &app):
		return fromApplication(app)
	case errors.As(err, &full):
		return unanswered(problem.Exhausted, err)
	case errors.As(err, &away), errors.As(err, &late), errors.As(err, &slow), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return unanswered(problem.Unavailable, err)
	}
	return problem.As(err)
}

// isTimeout: an activity or Update that ran out of its own time.
func isTimeout(err error) bool {
	var timeout *temporal.TimeoutError
	return errors.As(err, &timeout)
}

// IsKind tells whether an error that came out of an activity or Update is a refusal of one of the kinds.
func IsKind(err error, kinds ...problem.Kind) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && slices.Contains(kinds, problem.Kind(app.Type()))
}

func unanswered(kind problem.Kind, cause error) *problem.Error {
	return problem.New(kind, problem.Problem{
		RuleID: "workflow.away", Message: "the workflow did not answer in time",
		Fix: "send the same request again with the same request id; it is not done twice",
	}).Because(cause)
}

var kinds = []problem.Kind{
	problem.Invalid, problem.NotFound, problem.Conflict, problem.Unauthenticated,
	problem.Forbidden, problem.Exhausted, problem.Unavailable,
}

func fromApplication(app *temporal.ApplicationError) *problem.Error {
	e := &problem.Error{Kind: problem.Internal, Cause: app}
	if kind := problem.Kind(app.Type()); slices.Contains(kinds, kind) {
		e.Kind = kind
	}
	var told *problemv1.Problems
	if app.HasDetails() && app.Details(&told) == nil {
		for _, p := range told.GetProblems() {
			e.Problems = append(e.Problems, problem.Problem{
				RuleID: p.GetRuleId(), FieldPath: p.GetFieldPath(), X12Path: p.GetX12Path(), Code: p.GetCode(),
				Message: p.GetMessage(), Fix: p.GetFix(),
			})
		}
	}
	if len(e.Problems) == 0 {
		return problem.As(errors.New(app.Error()))
	}
	return e
}
