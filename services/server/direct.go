package server

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"sync"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/telemetry"
)

// A unary call inside the process goes straight to the handler's interceptors
// once they are known by its procedure: the first call of each goes by
// RoundTrip and shows them. What the interceptors do is done as for any call,
// token, authorisation, validation, deadline and audit included; only HTTP and
// the encoding of messages are left out.
//
// Caller and handler must not share what either may change. So messages are
// cloned, unless HandOver says of the procedure that both ends let go of them.

// HandOver names procedures whose callers inside the process don't change a
// request once it is sent, and whose handler changes neither that nor an
// answer once it is given, nor lives on pieces of one that its caller may
// change: their messages pass as they are. It is for before Run.
func (s *Server) HandOver(procedures ...string) {
	for _, p := range procedures {
		s.direct.given[p] = true
	}
}

// direct are the handlers' chains by procedure.
type direct struct {
	given  map[string]bool // fixed before Run
	chains sync.Map        // of string to connect.UnaryFunc
}

// learner is the outermost interceptor of handlers.
type learner struct {
	handlerOnly
	direct *direct
}

// WrapUnary implements connect.Interceptor.
func (l learner) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	var once sync.Once
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		once.Do(func() { l.direct.chains.Store(req.Spec().Procedure, next) })
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (learner) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// handed is a caller's request as a handler's interceptors see it.
type handed struct {
	connect.AnyRequest // the caller's, or its clone
	spec               connect.Spec
}

// Spec implements connect.AnyRequest.
func (h handed) Spec() connect.Spec { return h.spec }

// Peer implements connect.AnyRequest.
func (h handed) Peer() connect.Peer {
	return connect.Peer{Addr: "inside", Protocol: connect.ProtocolConnect}
}

// HTTPMethod implements connect.AnyRequest.
func (h handed) HTTPMethod() string { return http.MethodPost }

// opener is the innermost interceptor of handlers: the handler itself takes
// nothing but a *connect.Request.
type opener struct{ handlerOnly }

// WrapUnary implements connect.Interceptor.
func (opener) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if h, ok := req.(handed); ok {
			req = h.AnyRequest
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (opener) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// shortcut is the innermost interceptor of a client whose process is also the
// server at host.
type shortcut struct {
	server *Server
	host   string
}

// WrapStreamingClient implements connect.Interceptor.
func (shortcut) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (shortcut) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// WrapUnary implements connect.Interceptor.
func (c shortcut) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if req.Peer().Addr != c.host {
			return next(ctx, req)
		}
		chain, known := c.server.direct.chains.Load(req.Spec().Procedure)
		message, ok := req.Any().(proto.Message)
		// What is too large is refused where all such is.
		if !known || !ok || proto.Size(message) > c.server.cfg.ReadMaxBytes {
			return next(ctx, req)
		}
		return c.server.call(ctx, req, chain.(connect.UnaryFunc)) //nolint:forcetypeassert // nothing else is in it
	}
}

// call is RoundTrip of a unary call whose chain is known.
func (s *Server) call(from context.Context, req connect.AnyRequest, chain connect.UnaryFunc) (connect.AnyResponse, error) {
	if err := from.Err(); err != nil {
		return nil, gaveUp(err)
	}
	if !s.inside.enter() {
		return nil, connect.NewError(connect.CodeUnavailable, errEnded)
	}
	defer s.inside.leave()
	// As over a wire, none of the caller's values crosses.
	ctx, cancel := context.WithCancel(s.inside.work)
	defer cancel()
	defer context.AfterFunc(from, cancel)()
	if at, bounded := from.Deadline(); bounded {
		var done context.CancelFunc
		ctx, done = context.WithDeadline(ctx, at)
		defer done()
	}
	spec := req.Spec()
	spec.IsClient = false
	ctx = telemetry.WithRequestID(ctx, s.requestID(req.Header()))
	who, refused := s.whoCalls(ctx, req.Header(), spec.Procedure)
	if refused != nil {
		return nil, asSent(refused)
	}
	ctx = identity.WithToken(identity.WithPrincipal(ctx, who.principal), who.token)
	given := s.direct.given[spec.Procedure]
	if !given {
		req = cloned(req)
	}
	res, err := chain(ctx, handed{req, spec})
	switch {
	case from.Err() != nil:
		return nil, gaveUp(from.Err())
	case err != nil:
		return nil, asSent(toConnect(ctx, err))
	case !given:
		res = cloned(res)
	}
	return res, nil
}

// gaveUp is a caller's own end, as Connect tells it.
func gaveUp(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	return connect.NewError(connect.CodeCanceled, err)
}

// asSent is an error as it arrives over a wire: code, message and details, and
// nothing of what caused it.
func asSent(err *connect.Error) error {
	out := connect.NewWireError(err.Code(), errors.New(err.Message()))
	for _, d := range err.Details() {
		out.AddDetail(d)
	}
	return out
}

// cloned is a *connect.Request or *connect.Response with a copy of its
// message, and everything else as it is. The types are known to their makers only.
func cloned[M interface{ Any() any }](of M) M {
	message, ok := of.Any().(proto.Message)
	if !ok {
		return of
	}
	was := reflect.ValueOf(of)
	out := reflect.New(was.Type().Elem())
	out.Elem().Set(was.Elem())
	out.Elem().FieldByName("Msg").Set(reflect.ValueOf(proto.Clone(message)))
	return out.Interface().(M) //nolint:forcetypeassert // a copy is of the type
}

// requestID is a caller's own only when it is a UUID: anything freer could
// smuggle a patient's name into the logs.
func (s *Server) requestID(header http.Header) string {
	if given, err := uuid.Parse(header.Get(RequestIDHeader)); err == nil {
		return given.String()
	}
	return s.deps.NewID()
}
