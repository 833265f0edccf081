package eventstore

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/problem"
)

// terminalError marks what no reconnect mends: the caller's own failure, an
// event that can't be read, a ledger that contradicts itself.
type terminalError struct{ error }

func (e terminalError) Unwrap() error { return e.error }

func reconnectable(err error) bool {
	if _, ok := errors.AsType[terminalError](err); ok {
		return false
	}
	switch problem.As(err).Kind {
	case problem.Invalid, problem.NotFound, problem.Unauthenticated, problem.Forbidden:
		return false
	}
	return true
}

// ownError takes the marks off again.
func ownError(err error) error {
	if own, ok := errors.AsType[handlerError](err); ok {
		return own.error
	}
	if terminal, ok := errors.AsType[terminalError](err); ok {
		return terminal.error
	}
	return err
}

// retryable tells whether sending the same again may help while ctx lives.
func retryable(ctx context.Context, err error) bool {
	var p *problem.Error
	return err != nil && ctx.Err() == nil && errors.As(err, &p) && p.Retryable()
}

// fromRPC turns a ledger client's error into *ConflictError or
// *problem.Error. The server's text is kept as the cause only: it is for the
// log, and the problems it attached are for the caller.
func fromRPC(err error) error {
	var remote *connect.Error
	if !errors.As(err, &remote) {
		// A client interceptor may have translated it already.
		var p *problem.Error
		if errors.As(err, &p) {
			return p
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return contextProblem(err)
		}
		return problem.As(err)
	}
	var details *problemv1.Problems
	for _, d := range remote.Details() {
		v, derr := d.Value()
		if derr != nil {
			continue
		}
		switch v := v.(type) {
		case *ledgerv1.Conflict:
			return &ConflictError{Stream: v.GetStream(), Actual: v.GetActualRevision()}
		case *problemv1.Problems:
			details = v
		}
	}
	out := &problem.Error{Kind: kindOf(remote.Code()), Cause: err}
	for _, p := range details.GetProblems() {
		out.Problems = append(out.Problems, problem.Problem{
			RuleID: p.GetRuleId(), FieldPath: p.GetFieldPath(), X12Path: p.GetX12Path(), Code: p.GetCode(), Message: p.GetMessage(), Fix: p.GetFix(),
		})
	}
	if len(out.Problems) == 0 {
		out.Problems = []problem.Problem{textFor(out.Kind)}
	}
	return out
}

func fromFailure(f *ledgerv1.AppendFailure) error {
	var code connect.Code
	kind := problem.Internal
	if code.UnmarshalText([]byte(f.GetCode())) == nil {
		kind = kindOf(code)
	}
	if f.GetRetryable() && kind != problem.Exhausted {
		kind = problem.Unavailable
	}
	p := textFor(kind)
	if f.GetMessage() != "" {
		p.Message = f.GetMessage()
	}
	if f.GetRuleId() != "" {
		p.RuleID, p.FieldPath, p.Fix = f.GetRuleId(), f.GetFieldPath(), f.GetFix()
	}
	return problem.New(kind, p)
}

func kindOf(code connect.Code) problem.Kind {
	switch code {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return problem.Invalid
	case connect.CodeNotFound:
		return problem.NotFound
	case connect.CodeAlreadyExists, connect.CodeFailedPrecondition, connect.CodeAborted:
		return problem.Conflict
	case connect.CodeUnauthenticated:
		return problem.Unauthenticated
	case connect.CodePermissionDenied:
		return problem.Forbidden
	case connect.CodeResourceExhausted:
		return problem.Exhausted
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return problem.Unavailable
	default:
		return problem.Internal
	}
}

// textFor is what to tell where the ledger attached no problem.
func textFor(kind problem.Kind) problem.Problem {
	p := problem.Problem{RuleID: "eventstore." + string(kind)}
	switch kind {
	case problem.Invalid:
		p.Message, p.Fix = "the ledger refuses the request as malformed", "see the rules in probity/ledger/v1/ledger.proto"
	case problem.NotFound:
		p.Message, p.Fix = "the ledger has no such log", "check the log's name against the ledger's genesis record"
	case problem.Conflict:
		p.Message, p.Fix = "the ledger's state is not what the request takes it for", "read again, then decide again"
	case problem.Unauthenticated:
		p.Message, p.Fix = "the ledger doesn't accept this service's token", "check the service's client credentials and the clocks"
	case problem.Forbidden:
		p.Message, p.Fix = "this service may not do that on the ledger", "check the roles in the service's token"
	case problem.Exhausted:
		p.Message, p.Fix = "the ledger's queue is full", "send the same request again in a moment; it is not recorded twice"
	case problem.Unavailable:
		p.Message, p.Fix = "the ledger is not available just now", "send the same request again in a moment; it is not recorded twice"
	default:
		p.Message, p.Fix = "something went wrong inside the ledger", "retry; if it persists give the request id to the operator"
	}
	return p
}

func malformedAnswer(what string) error {
	return problem.New(problem.Internal, problem.Problem{
		RuleID:  "eventstore.answer",
		Message: "the ledger answered with " + what,
		Fix:     "check that the ledger node and this service are of compatible versions",
	})
}
