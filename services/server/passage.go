package server

import (
	"context"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// WrapStreamingClient implements connect.Interceptor.
func (c shortcut) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		chain, known := c.server.direct.streams[spec.Procedure]
		if !known || conn.Peer().Addr != c.host {
			return conn
		}
		// The one that goes by HTTP sends nothing before it is asked to.
		p := &passage{
			server: c.server, chain: chain, from: ctx, spec: spec, peer: conn.Peer(), header: conn.RequestHeader(),
			given: c.server.direct.given[spec.Procedure], answers: make(chan proto.Message, 1), ended: make(chan struct{}),
			responseHeader: http.Header{}, trailer: http.Header{},
		}
		p.closed, p.close = context.WithCancel(ctx)
		return p
	}
}

// passage is a stream of answers inside the process, from a handler to its
// caller. One message waits between them, so neither gets far ahead.
type passage struct {
	server *Server
	chain  connect.StreamingHandlerFunc
	from   context.Context //nolint:containedctx // Connect gives it when the stream is made
	spec   connect.Spec
	peer   connect.Peer
	header http.Header
	given  bool

	request proto.Message // set before the handler runs
	// closed ends with the caller, or when it closes the stream.
	closed context.Context //nolint:containedctx // as from
	close  context.CancelFunc

	answers chan proto.Message
	ended   chan struct{} // closed when err is set: how the handler ended
	err     error

	responseHeader, trailer http.Header
}

// What a caller has of it: connect.StreamingClientConn.

func (p *passage) Spec() connect.Spec         { return p.spec }
func (p *passage) Peer() connect.Peer         { return p.peer }
func (p *passage) RequestHeader() http.Header { return p.header }

// Send takes the request.
func (p *passage) Send(message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return connect.NewError(connect.CodeInternal, errors.New("the request is no message"))
	}
	if p.request = m; !p.given {
		p.request = proto.Clone(m)
	}
	return nil
}

// CloseRequest calls the handler.
func (p *passage) CloseRequest() error {
	spec := p.spec
	spec.IsClient = false
	ctx, leave, err := p.server.arrive(p.closed, spec, p.header)
	if err != nil {
		p.err = err
		close(p.ended)
		return nil //nolint:nilerr // who receives is told, as over a wire
	}
	go func() {
		defer leave()
		defer close(p.ended)
		if err := p.chain(ctx, &handlersEnd{passage: p, ctx: ctx, spec: spec}); err != nil {
			p.err = asSent(toConnect(ctx, err))
		} else {
			p.err = io.EOF
		}
	}()
	return nil
}

// Receive waits for the next answer.
func (p *passage) Receive(message any) error {
	select {
	case m := <-p.answers:
		return put(m, message)
	default:
	}
	select {
	case m := <-p.answers:
		return put(m, message)
	case <-p.closed.Done():
		return gaveUp(p.closed.Err())
	case <-p.ended:
		select {
		case m := <-p.answers: // its last word
			return put(m, message)
		default:
			return p.err
		}
	}
}

func (p *passage) ResponseHeader() http.Header  { return p.responseHeader }
func (p *passage) ResponseTrailer() http.Header { return p.trailer }

// CloseResponse ends the call.
func (p *passage) CloseResponse() error {
	p.close()
	return nil
}

// handlersEnd is what a handler has of it: connect.StreamingHandlerConn.
type handlersEnd struct {
	*passage
	ctx      context.Context //nolint:containedctx // the call's own
	spec     connect.Spec
	received bool
}

func (h *handlersEnd) Spec() connect.Spec { return h.spec }
func (h *handlersEnd) Peer() connect.Peer { return insidePeer }

// Receive gives the request, once.
func (h *handlersEnd) Receive(message any) error {
	if h.received || h.request == nil {
		return io.EOF
	}
	h.received = true
	return put(h.request, message)
}

// Send waits until the caller has taken all but one of the answers.
func (h *handlersEnd) Send(message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return connect.NewError(connect.CodeInternal, errors.New("the answer is no message"))
	}
	if !h.given {
		m = proto.Clone(m)
	}
	select {
	case h.answers <- m:
		return nil
	case <-h.ctx.Done():
		return gaveUp(h.ctx.Err())
	}
}

// put makes the empty message to what m is; nobody uses m any more.
func put(m proto.Message, to any) error {
	out, ok := to.(proto.Message)
	if !ok || m.ProtoReflect().Descriptor() != out.ProtoReflect().Descriptor() {
		return connect.NewError(connect.CodeInternal, errors.New("the message is of another type"))
	}
	into := out.ProtoReflect()
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		into.Set(field, v)
		return true
	})
	into.SetUnknown(m.ProtoReflect().GetUnknown())
	return nil
}
