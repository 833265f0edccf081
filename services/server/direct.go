package server

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"reflect"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/telemetry"
)

// A call inside the process goes straight to the handler's interceptors. What
// they do is done as for any call, token, authorisation, validation, deadline
// and audit included; only HTTP and the encoding of messages are left out.
// Streams of requests go by RoundTrip.
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

// direct are the handlers' chains by procedure; fixed before Run.
type direct struct {
	given   map[string]bool
	unary   map[string]connect.UnaryFunc
	streams map[string]connect.StreamingHandlerFunc
}

type learnKey struct{}

var errLearned = errors.New("server: only to be learned")

// learn finds the chain of each of a service's procedures: Connect gives them
// to interceptors with a call only, so each is called once, to no effect.
func (d *direct) learn(service string, handler http.Handler) {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	of, ok := found.(protoreflect.ServiceDescriptor)
	if err != nil || !ok {
		return // no service of this build: its calls go by RoundTrip
	}
	for i := range of.Methods().Len() {
		m := of.Methods().Get(i)
		kind := "application/proto"
		if m.IsStreamingServer() || m.IsStreamingClient() {
			kind = "application/connect+proto"
		}
		req := &http.Request{
			Method: http.MethodPost, URL: &url.URL{Path: "/" + service + "/" + string(m.Name())},
			Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{"Content-Type": {kind}}, Body: http.NoBody,
		}
		handler.ServeHTTP(nowhere{http.Header{}}, req.WithContext(context.WithValue(context.Background(), learnKey{}, d)))
	}
}

// nowhere is where the answer to a call goes that was made to learn.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header       { return n.header }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Flush()                      {}

// learner is the outermost interceptor of handlers.
type learner struct{ handlerOnly }

// WrapUnary implements connect.Interceptor.
func (learner) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if d, ok := ctx.Value(learnKey{}).(*direct); ok {
			d.unary[req.Spec().Procedure] = next
			return nil, errLearned
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (learner) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if d, ok := ctx.Value(learnKey{}).(*direct); ok {
			if conn.Spec().StreamType == connect.StreamTypeServer {
				d.streams[conn.Spec().Procedure] = next
			}
			return errLearned
		}
		return next(ctx, conn)
	}
}

// insidePeer is what a handler sees of its caller.
var insidePeer = connect.Peer{Addr: "inside", Protocol: connect.ProtocolConnect}

// handed is a caller's request as a handler's interceptors see it.
type handed struct {
	connect.AnyRequest // the caller's, or its clone
	spec               connect.Spec
}

// Spec implements connect.AnyRequest.
func (h handed) Spec() connect.Spec { return h.spec }

// Peer implements connect.AnyRequest.
func (h handed) Peer() connect.Peer { return insidePeer }

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
		chain, known := c.server.direct.unary[req.Spec().Procedure]
		message, ok := req.Any().(proto.Message)
		if !known || !ok {
			return next(ctx, req)
		}
		// What is too large is refused where all such is. What is handed over
		// is there already and never copied, so its size is its schema's matter.
		if !c.server.direct.given[req.Spec().Procedure] && proto.Size(message) > c.server.cfg.ReadMaxBytes {
			return next(ctx, req)
		}
		return c.server.call(ctx, req, chain)
	}
}

// arrive is what happens to a call before its handler's interceptors run: who
// calls is found out, and a context made that ends with the caller's and, as
// over a wire, has none of its values. leave is called when the call is over,
// unless there is an error.
func (s *Server) arrive(from context.Context, spec connect.Spec, header http.Header) (ctx context.Context, leave func(), err error) {
	if err := from.Err(); err != nil {
		return nil, nil, gaveUp(err)
	}
	if !s.inside.enter() {
		return nil, nil, connect.NewError(connect.CodeUnavailable, errEnded)
	}
	ctx, cancel := context.WithCancel(s.inside.work)
	unhook := context.AfterFunc(from, cancel)
	done := func() {}
	if at, bounded := from.Deadline(); bounded {
		ctx, done = context.WithDeadline(ctx, at)
	}
	leave = func() {
		unhook()
		done()
		cancel()
		s.inside.leave()
	}
	ctx = telemetry.WithRequestID(ctx, s.requestID(header))
	who, refused := s.whoCalls(ctx, header, spec.Procedure)
	if refused != nil {
		leave()
		return nil, nil, asSent(refused)
	}
	return identity.WithToken(identity.WithPrincipal(ctx, who.principal), who.token), leave, nil
}

// call is RoundTrip of a unary call.
func (s *Server) call(from context.Context, req connect.AnyRequest, chain connect.UnaryFunc) (connect.AnyResponse, error) {
	spec := req.Spec()
	spec.IsClient = false
	ctx, leave, err := s.arrive(from, spec, req.Header())
	if err != nil {
		return nil, err
	}
	defer leave()
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
