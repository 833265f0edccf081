package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// Inside carries calls to a Server that runs in the caller's own process: the
// same handlers, interceptors, tokens and messages, without a connection.
// Calls to any other address go by next.
//
// A call's context ends with the caller's, and none of its values crosses, as
// over a wire. The Server's drain waits for calls as it does for requests.
func (s *Server) Inside(base *url.URL, next http.RoundTripper) http.RoundTripper {
	return &inside{server: s, host: base.Host, handler: s.Handler(), next: next}
}

type inside struct {
	server  *Server
	host    string
	handler http.Handler
	next    http.RoundTripper
}

var errEnded = errors.New("server: the process is ending")

// CloseIdleConnections is http.Client's way to close connections that carry no call.
func (t *inside) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *inside) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.host {
		return t.next.RoundTrip(req)
	}
	closeBody := func() {
		if req.Body != nil {
			_ = req.Body.Close()
		}
	}
	if !t.server.inside.enter() {
		closeBody()
		return nil, errEnded
	}
	ctx, cancel := context.WithCancel(t.server.inside.work)
	unhook := context.AfterFunc(req.Context(), cancel)
	w := &insideWriter{header: http.Header{}, began: make(chan struct{}), body: newConduit()}
	// Whoever waits on either end of the answer hears that the call is over.
	broken := context.AfterFunc(ctx, func() { w.body.end(context.Canceled) })
	in := req.Clone(ctx)
	in.RequestURI, in.RemoteAddr = req.URL.RequestURI(), "inside"
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/2.0", 2, 0
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		defer t.server.inside.leave()
		defer cancel()
		defer unhook()
		defer closeBody()
		defer func() {
			// A handler's panic ends the call, as it ends a stream of HTTP/2;
			// the server's own recoverer has logged what there is to log.
			if recover() != nil {
				w.body.end(io.ErrUnexpectedEOF)
			}
			w.WriteHeader(http.StatusOK)
		}()
		t.handler.ServeHTTP(w, in)
		w.WriteHeader(http.StatusOK)
		broken()
		w.body.end(io.EOF)
	}()
	select {
	case <-w.began:
	case <-req.Context().Done():
		cancel()
		return nil, req.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status,
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: w.sent, Body: insideBody{w.body, cancel}, ContentLength: -1, Request: req,
	}, nil
}

// insideWriter is the handler's side of an answer. A Connect answer has no
// HTTP trailers, so none are carried.
type insideWriter struct {
	header http.Header
	body   *conduit

	once   sync.Once
	began  chan struct{} // closed when the two below are set
	status int
	sent   http.Header
}

// Header implements http.ResponseWriter.
func (w *insideWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *insideWriter) WriteHeader(status int) {
	if status < 200 {
		return
	}
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		for key := range w.sent {
			if strings.HasPrefix(key, http.TrailerPrefix) {
				delete(w.sent, key)
			}
		}
		close(w.began)
	})
}

// Write implements http.ResponseWriter.
func (w *insideWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush implements http.Flusher: what was written has been sent already.
func (w *insideWriter) Flush() { w.WriteHeader(http.StatusOK) }

type insideBody struct {
	*conduit
	cancel context.CancelFunc
}

// Close implements io.Closer. An answer that isn't read to its end ends the call.
func (b insideBody) Close() error {
	b.end(http.ErrBodyReadAfterClose)
	b.release()
	b.cancel()
	return nil
}

// maxConduit is how much of an answer may wait for its reader: what HTTP/2's
// flow control would let through.
const maxConduit = 1 << 20

// conduit is a bounded pipe that buffers, so that writer and reader needn't meet.
type conduit struct {
	mu    sync.Mutex // guards what follows
	moved sync.Cond  // something was written, read or ended
	buf   *bytes.Buffer
	err   error // what a read gets after the buffer; what a write gets at once
}

// conduits are buffers that answers passed through: an answer of claims or
// events is some hundred kilobytes, and most of what such a call would allocate.
var conduits = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func newConduit() *conduit {
	c := &conduit{buf: conduits.Get().(*bytes.Buffer)} //nolint:forcetypeassert // nothing else is in it
	c.moved.L = &c.mu
	return c
}

// release gives the buffer back once nobody reads any more; the conduit has
// ended, so nobody writes either.
func (c *conduit) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf.Reset()
	if c.buf.Cap() > 0 && c.buf.Cap() <= maxConduit {
		conduits.Put(c.buf)
	}
	c.buf = new(bytes.Buffer)
}

// end makes err the last of it; the first call counts.
func (c *conduit) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.moved.Broadcast()
	}
}

// Write implements io.Writer.
func (c *conduit) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && c.buf.Len() > 0 && c.buf.Len()+len(p) > maxConduit {
		c.moved.Wait()
	}
	if c.err != nil {
		return 0, c.err
	}
	c.moved.Broadcast()
	return c.buf.Write(p)
}

// Read implements io.Reader.
func (c *conduit) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.buf.Len() == 0 && c.err == nil {
		c.moved.Wait()
	}
	if c.buf.Len() == 0 {
		return 0, c.err
	}
	c.moved.Broadcast()
	return c.buf.Read(p)
}

// insideCalls counts the calls that are on their way inside a process.
type insideCalls struct {
	work   context.Context // ends when calls must
	cancel context.CancelFunc

	mu     sync.Mutex // guards what follows
	n      int
	closed bool
	idle   chan struct{} // closed when closed and n is 0
}

func (c *insideCalls) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.n++
	}
	return !c.closed
}

func (c *insideCalls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.closed && c.n == 0 {
		close(c.idle)
	}
}

// drain waits for the calls there are, refusing new ones; what ctx ends
// before is cut.
func (c *insideCalls) drain(ctx context.Context) {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		if c.n == 0 {
			close(c.idle)
		}
	}
	c.mu.Unlock()
	select {
	case <-c.idle:
	case <-ctx.Done():
	}
	c.cancel()
}
