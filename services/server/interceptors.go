package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// handlerOnly gives an interceptor of handlers the client half of
// connect.Interceptor it has no use for.
type handlerOnly struct{}

func (handlerOnly) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// auditor writes one record a call: who did what, on which rule's word, with
// which outcome. Payloads and header values never enter it.
type auditor struct {
	handlerOnly
	log *slog.Logger
	now func() time.Time
}

// WrapUnary implements connect.Interceptor.
func (a *auditor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, finish := a.begin(ctx, req.Spec())
		resp, err := next(ctx, req)
		finish(err)
		return resp, err
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (a *auditor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		ctx, finish := a.begin(ctx, conn.Spec())
		err := next(ctx, conn)
		finish(err)
		return err
	}
}

func (a *auditor) begin(ctx context.Context, spec connect.Spec) (context.Context, func(error)) {
	ctx, trail := identity.WithTrail(ctx)
	began := a.now()
	return ctx, func(err error) {
		p, _ := identity.FromContext(ctx)
		attrs := []slog.Attr{
			slog.String("action", spec.Procedure),
			slog.String("subject", p.Subject),
			slog.String("org", p.Org),
			slog.Duration("took", a.now().Sub(began)),
		}
		made, denied := trail.Judgements()
		if len(made) > 0 {
			first := made[0]
			attrs = append(attrs, slog.String("resource", first.Resource.Type+"/"+first.Resource.ID), slog.String("policy", first.Decision.Rule))
		}
		if denied > 0 {
			attrs = append(attrs, slog.Int("denied", denied))
		}
		level, outcome := slog.LevelInfo, "ok"
		if err != nil {
			outcome = connect.CodeOf(err).String()
			attrs = append(attrs, slog.String("rule", firstRule(err)))
			e := problem.As(err)
			// A caller that hung up, as every follower does one day, is no failure of ours.
			hungUp := connect.CodeOf(err) == connect.CodeCanceled
			if !hungUp && (e.Kind == problem.Internal || e.Kind == problem.Unavailable) {
				level = slog.LevelError
				if e.Kind == problem.Unavailable {
					level = slog.LevelWarn // it passes, and the caller knows to come again
				}
				attrs = append(attrs, slog.Any("cause", e.Cause))
			}
		}
		a.log.LogAttrs(ctx, level, "audit", append(attrs, slog.String("outcome", outcome))...)
	}
}

// mapper turns whatever a handler returned into the error that crosses.
type mapper struct{ handlerOnly }

// WrapUnary implements connect.Interceptor.
func (mapper) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if err != nil {
			return nil, toConnect(ctx, err)
		}
		return resp, nil
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (mapper) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := next(ctx, conn); err != nil {
			return toConnect(ctx, err)
		}
		return nil
	}
}

// recoverer turns a panic into an internal problem. The panic's value may
// quote data, so only a runtime error's text and otherwise its type is logged.
type recoverer struct {
	handlerOnly
	log *slog.Logger
}

// WrapUnary implements connect.Interceptor.
func (r recoverer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (_ connect.AnyResponse, err error) {
		defer func() { r.caught(ctx, req.Spec(), recover(), &err) }()
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (r recoverer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		defer func() { r.caught(ctx, conn.Spec(), recover(), &err) }()
		return next(ctx, conn)
	}
}

func (r recoverer) caught(ctx context.Context, spec connect.Spec, value any, err *error) {
	if value == nil {
		return
	}
	what := fmt.Sprintf("%T", value)
	if e, ok := value.(runtime.Error); ok {
		what = e.Error()
	}
	r.log.ErrorContext(ctx, "panic", "action", spec.Procedure, "what", what, "stack", stackWithoutArguments(debug.Stack()))
	*err = problem.As(errors.New("panic: " + what))
}

// stackWithoutArguments keeps functions and lines: arguments are addresses
// and lengths at best.
func stackWithoutArguments(stack []byte) []string {
	lines := strings.Split(string(stack), "\n")
	var kept []string
	for _, line := range lines {
		if strings.HasPrefix(line, "\t") && len(kept) < 64 {
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	return kept
}

// deadline bounds unary work. A stream lives as long as its two ends want it.
type deadline struct {
	handlerOnly
	after time.Duration
}

// WrapUnary implements connect.Interceptor.
func (d deadline) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if lift, ok := ctx.Value(bodyKey{}).(func()); ok {
			lift()
		}
		ctx, cancel := context.WithTimeout(ctx, d.after)
		defer cancel()
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (d deadline) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
