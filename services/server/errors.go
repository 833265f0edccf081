package server

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/telemetry"
)

// retryAfter is what a retryable refusal advises.
const retryAfter = time.Second

// maxProblems bounds an error's details; headers of gRPC hold them.
const maxProblems = 50

var codes = map[problem.Kind]connect.Code{
	problem.Invalid:         connect.CodeInvalidArgument,
	problem.NotFound:        connect.CodeNotFound,
	problem.Conflict:        connect.CodeFailedPrecondition,
	problem.Unauthenticated: connect.CodeUnauthenticated,
	problem.Forbidden:       connect.CodePermissionDenied,
	problem.Exhausted:       connect.CodeResourceExhausted,
	problem.Unavailable:     connect.CodeUnavailable,
	problem.Internal:        connect.CodeInternal,
}

// kinds is codes' inverse, wider: a peer that isn't Probity uses all codes.
var kinds = map[connect.Code]problem.Kind{
	connect.CodeInvalidArgument:    problem.Invalid,
	connect.CodeOutOfRange:         problem.Invalid,
	connect.CodeUnimplemented:      problem.Invalid,
	connect.CodeNotFound:           problem.NotFound,
	connect.CodeFailedPrecondition: problem.Conflict,
	connect.CodeAlreadyExists:      problem.Conflict,
	connect.CodeAborted:            problem.Conflict,
	connect.CodeUnauthenticated:    problem.Unauthenticated,
	connect.CodePermissionDenied:   problem.Forbidden,
	connect.CodeResourceExhausted:  problem.Exhausted,
	connect.CodeUnavailable:        problem.Unavailable,
	connect.CodeDeadlineExceeded:   problem.Unavailable,
	connect.CodeCanceled:           problem.Unavailable,
}

// toConnect makes the error that crosses. The cause of a problem stays behind
// it for the audit record and is not sent.
//
//   - a *problem.Error crosses whole but for its cause
//   - a *connect.Error a handler made on purpose keeps its code and details
//     and gains Problems; one that came from another service was mapped into a
//     *problem.Error by that call's client, or is Internal here
//   - a schema violation names field and rule, never the value
//   - an ended context is Unavailable or canceled
//   - anything else is Internal, its text withheld
func toConnect(ctx context.Context, err error) *connect.Error {
	var (
		p          *problem.Error
		deliberate *connect.Error
		violated   *protovalidate.ValidationError
		unchecked  *protovalidate.RuntimeError
		unruly     *protovalidate.CompilationError
	)
	switch {
	case errors.As(err, &violated):
		p = fromViolations(violated)
	case errors.As(err, &unchecked), errors.As(err, &unruly):
		// The schema's rules could not be evaluated: a defect, and its text may quote the message.
		p = problem.As(errors.New("the schema's rules could not be evaluated"))
	case errors.As(err, &deliberate) && !connect.IsWireError(err) && (errors.As(deliberate, &p) || !errors.As(err, &p)):
		if p == nil {
			p = FromConnect(deliberate)
		}
		return withProblems(ctx, deliberate, p)
	case errors.As(err, &p):
	case errors.Is(err, context.DeadlineExceeded):
		p = problem.New(problem.Unavailable, problem.Problem{
			RuleID: "rpc.deadline", Message: "the request ran out of time", Fix: "send it again with the same request id",
		}).Because(err)
		return withProblems(ctx, connect.NewError(connect.CodeDeadlineExceeded, p), p)
	case errors.Is(err, context.Canceled):
		p = problem.New(problem.Unavailable, problem.Problem{
			RuleID: "rpc.canceled", Message: "the request was canceled before it ended", Fix: "send it again with the same request id",
		}).Because(err)
		return withProblems(ctx, connect.NewError(connect.CodeCanceled, p), p)
	default:
		p = problem.As(err)
	}
	code, known := codes[p.Kind]
	if !known {
		code = connect.CodeInternal
	}
	out := connect.NewError(code, p)
	for _, message := range detailsOf(err) {
		attach(out, message)
	}
	return withProblems(ctx, out, p)
}

// withProblems attaches Problems, and RetryInfo where a retry may help, unless they are there.
func withProblems(ctx context.Context, out *connect.Error, p *problem.Error) *connect.Error {
	for _, detail := range out.Details() {
		if detail.Type() == "probity.problem.v1.Problems" {
			return out
		}
	}
	attach(out, &problemv1.Problems{Problems: ToProto(p, telemetry.RequestID(ctx))})
	if p.Retryable() {
		attach(out, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
		out.Meta().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	return out
}

// attach can fail only for a message that doesn't marshal; the error then
// crosses without it.
func attach(out *connect.Error, message proto.Message) {
	if detail, err := connect.NewErrorDetail(message); err == nil {
		out.AddDetail(detail)
	}
}

// WithDetail returns an error that crosses as err with one more detail, for a
// caller that needs a fact in a typed form (ledger.v1.Conflict). Details is its inverse.
func WithDetail(err *problem.Error, message proto.Message) error {
	return &detailed{err: err, message: message}
}

type detailed struct {
	err     error
	message proto.Message
}

func (d *detailed) Error() string { return d.err.Error() }
func (d *detailed) Unwrap() error { return d.err }

func detailsOf(err error) []proto.Message {
	var d *detailed
	if errors.As(err, &d) {
		return []proto.Message{d.message}
	}
	return nil
}

// Detail finds the first detail of type T in an error a client returned.
func Detail[T proto.Message](err error) (T, bool) {
	var none T
	var wire *connect.Error
	if errors.As(err, &wire) {
		for _, detail := range wire.Details() {
			if value, err := detail.Value(); err == nil {
				if found, ok := value.(T); ok {
					return found, true
				}
			}
		}
	}
	return none, false
}

// ToProto gives a refusal the shape it has in answers, acknowledgements and
// error details. At most 50 problems are told.
func ToProto(e *problem.Error, requestID string) []*problemv1.Problem {
	told := e.Problems
	if len(told) > maxProblems {
		told = told[:maxProblems]
	}
	out := make([]*problemv1.Problem, 0, len(told))
	for _, p := range told {
		out = append(out, &problemv1.Problem{
			RuleId: p.RuleID, FieldPath: p.FieldPath, X12Path: p.X12Path, Code: p.Code, Line: uint32(p.Line), Column: uint32(p.Column),
			Message: p.Message, Fix: p.Fix,
			Kind: string(e.Kind), Retryable: e.Retryable(), RequestId: requestID,
		})
	}
	return out
}

// FromConnect reads the problem back out of an error a client got. The
// *connect.Error stays reachable through errors.As, and so do its details.
// nil gives nil.
func FromConnect(err error) *problem.Error {
	if err == nil {
		return nil
	}
	var wire *connect.Error
	var already *problem.Error
	if errors.As(err, &already) && !errors.As(already, &wire) {
		return already
	}
	if !errors.As(err, &wire) {
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			wire = connect.NewError(connect.CodeDeadlineExceeded, err)
		default:
			return problem.As(err)
		}
	}
	for _, detail := range wire.Details() {
		value, valueErr := detail.Value()
		if list, ok := value.(*problemv1.Problems); ok && valueErr == nil && len(list.GetProblems()) > 0 {
			return fromProto(list.GetProblems(), wire.Code()).Because(err)
		}
	}
	kind, known := kinds[wire.Code()]
	if !known {
		kind = problem.Internal
	}
	p := problem.Problem{RuleID: "rpc." + wire.Code().String(), Message: wire.Message()}
	switch kind {
	case problem.Unavailable:
		p.Message, p.Fix = "the service could not be reached, or did not answer in time", "retry; sending the same request id again is safe"
	case problem.Internal:
		p.Message, p.Fix = "something went wrong inside the service", "retry; if it persists give the request id to the operator"
	}
	return problem.New(kind, p).Because(err)
}

func fromProto(list []*problemv1.Problem, code connect.Code) *problem.Error {
	kind := problem.Kind(list[0].GetKind())
	if _, known := codes[kind]; !known {
		if kind, known = kinds[code]; !known {
			kind = problem.Internal
		}
	}
	e := &problem.Error{Kind: kind}
	for _, p := range list {
		e.Problems = append(e.Problems, problem.Problem{
			RuleID: p.GetRuleId(), FieldPath: p.GetFieldPath(), X12Path: p.GetX12Path(), Line: int(p.GetLine()), Column: int(p.GetColumn()),
			Code: p.GetCode(), Message: p.GetMessage(), Fix: p.GetFix(),
		})
	}
	return e
}

// fromViolations tells field and rule of each violation. protovalidate's
// messages state the rule; a map's key in the path is data and is left out.
func fromViolations(v *protovalidate.ValidationError) *problem.Error {
	e := &problem.Error{Kind: problem.Invalid}
	for _, violation := range v.Violations {
		if len(e.Problems) == maxProblems {
			break
		}
		e.Problems = append(e.Problems, problem.Problem{
			RuleID:    "schema." + violation.Proto.GetRuleId(),
			FieldPath: safePath(violation),
			Message:   message(violation),
			Fix:       "correct the field and resend",
		})
	}
	return e
}

// idTail is what the pattern of every id ends with: 128 random bits in base 32.
const idTail = "_[a-z2-7]{26}"

// message says what a violation's rule asks. Of an id, most of them cut short
// on the way, it says so in words, where protovalidate shows the pattern.
func message(violation *protovalidate.Violation) string {
	if violation.Proto.GetRuleId() == "string.pattern" && violation.RuleValue.IsValid() {
		pattern, ok := violation.RuleValue.Interface().(string)
		if kinds, found := strings.CutSuffix(strings.Trim(pattern, "^$?()"), idTail); ok && found {
			kinds = strings.ReplaceAll(strings.Trim(kinds, "()"), "|", "_ or ")
			return "is no whole id: " + kinds + "_ and 26 letters a to z or digits 2 to 7"
		}
	}
	return violation.Proto.GetMessage()
}

func safePath(violation *protovalidate.Violation) string {
	var b strings.Builder
	for _, element := range violation.Proto.GetField().GetElements() {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(element.GetFieldName())
		switch {
		case element.HasIndex():
			b.WriteString("[" + strconv.FormatUint(element.GetIndex(), 10) + "]")
		case element.HasSubscript():
			b.WriteString("[]")
		}
	}
	return b.String()
}

func firstRule(err error) string {
	if e := FromConnect(err); e != nil && len(e.Problems) > 0 {
		return e.Problems[0].RuleID
	}
	return ""
}
