package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/telemetry"
)

// ClientConfig of calls to one or more servers. The zero value speaks HTTP/2,
// in clear to http:// and with the system's authorities to https://.
type ClientConfig struct {
	// CAFile (PEM) replaces the system's authorities.
	CAFile string `json:"caFile,omitempty"`
	// CertFile and KeyFile show a client certificate.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
	// Timeout of a unary call whose context has none; default 35 s, a little
	// more than a server's own, so that the server's answer is the one heard.
	Timeout Duration `json:"timeout,omitempty"`
	// HTTP1 speaks HTTP/1.1, for a proxy that knows no HTTP/2.
	HTTP1 bool `json:"http1,omitempty"`
	// Compress asks for and sends gzip; worth it across a wide network only.
	Compress bool `json:"compress,omitempty"`
}

// ClientDeps are what a Client needs from its process.
type ClientDeps struct {
	// Tokens gives the bearer token of a call; nil sends none.
	// identity.CallerOr(own) forwards the caller's.
	Tokens identity.TokenSource
	// Telemetry traces and measures calls; nil doesn't.
	Telemetry *telemetry.Telemetry
	// Inside is the server of this very process, where it answers at InsideURL:
	// calls there go without a connection. Nil for none.
	Inside    *Server
	InsideURL *url.URL
}

// Client is what a generated client's constructor wants: an HTTP client and options.
//
//	claims := claimsv1connect.NewClaimsServiceClient(c, url, c.Options()...)
//
// Errors of calls made through it are *problem.Error; the *connect.Error is
// their cause, so that errors.As and Detail find its details.
type Client struct {
	http    *http.Client
	options []connect.ClientOption
}

// NewClient makes a client. It connects lazily.
func NewClient(cfg ClientConfig, deps ClientDeps) (*Client, error) {
	setDefault(&cfg.Timeout, Duration(DefaultRPCTimeout+5*time.Second))
	protocols := new(http.Protocols)
	if cfg.HTTP1 {
		protocols.SetHTTP1(true)
	} else {
		protocols.SetHTTP2(true)
		protocols.SetUnencryptedHTTP2(true)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pool, err := loadPool(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if cfg.CertFile != "" || cfg.KeyFile != "" {
		pair := &keyPair{certFile: cfg.CertFile, keyFile: cfg.KeyFile}
		if _, err := pair.get(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get() }
	}
	var transport http.RoundTripper = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		Protocols:           protocols,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // Connect negotiates its own
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second,
			// What a server takes from clients. Each frame of an answer passes
			// through three goroutines, and the least size is 16 KiB.
			MaxReadFrameSize: 1 << 20,
		},
	}
	if deps.Inside != nil {
		transport = deps.Inside.Inside(deps.InsideURL, transport)
	}
	chain := []connect.Interceptor{&outgoing{tokens: deps.Tokens, timeout: time.Duration(cfg.Timeout)}}
	if deps.Telemetry != nil {
		otel, err := otelconnect.NewInterceptor(
			otelconnect.WithTracerProvider(deps.Telemetry.Tracer),
			otelconnect.WithMeterProvider(deps.Telemetry.Meter),
			otelconnect.WithPropagator(deps.Telemetry.Propagator),
		)
		if err != nil {
			return nil, fmt.Errorf("server: %w", err)
		}
		chain = append(chain, otel)
	}
	if deps.Inside != nil {
		chain = append(chain, shortcut{deps.Inside, deps.InsideURL.Host})
	}
	options := []connect.ClientOption{
		connect.WithInterceptors(chain...),
		connect.WithReadMaxBytes(4 * DefaultReadMaxBytes),
	}
	if cfg.Compress {
		options = append(options, connect.WithSendGzip(), connect.WithCompressMinBytes(4<<10))
	} else {
		options = append(options, connect.WithAcceptCompression("gzip", nil, nil))
	}
	return &Client{http: &http.Client{Transport: transport}, options: options}, nil
}

// Do implements connect.HTTPClient.
func (c *Client) Do(req *http.Request) (*http.Response, error) { return c.http.Do(req) }

// Options are for the generated client's constructor.
func (c *Client) Options(extra ...connect.ClientOption) []connect.ClientOption {
	return append(append([]connect.ClientOption(nil), c.options...), extra...)
}

// Transport carries requests as they are, with neither token nor error
// mapping: for a proxy, whose callers bring their own.
func (c *Client) Transport() http.RoundTripper { return c.http.Transport }

// CloseIdle closes connections that carry no call.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// outgoing is the client's interceptor: token, request id, deadline, and the
// way back from wire errors to problems.
type outgoing struct {
	tokens  identity.TokenSource
	timeout time.Duration
}

// WrapUnary implements connect.Interceptor.
func (o *outgoing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if _, has := ctx.Deadline(); !has {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, o.timeout)
			defer cancel()
		}
		if err := o.prepare(ctx, req.Header()); err != nil {
			return nil, err
		}
		resp, err := next(ctx, req)
		if err != nil {
			return nil, FromConnect(err)
		}
		return resp, nil
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (o *outgoing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		return &stream{StreamingClientConn: conn, failed: o.prepare(ctx, conn.RequestHeader())}
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (o *outgoing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (o *outgoing) prepare(ctx context.Context, header http.Header) error {
	if id := telemetry.RequestID(ctx); id != "" {
		header.Set(RequestIDHeader, id)
	}
	if o.tokens == nil {
		return nil
	}
	token, err := o.tokens.Token(ctx)
	if err != nil {
		return err
	}
	header.Set("Authorization", "Bearer "+token)
	return nil
}

// stream maps a stream's errors. A stream whose token could not be had fails
// at its first use, before anything is sent.
type stream struct {
	connect.StreamingClientConn
	failed error
}

// Send implements connect.StreamingClientConn.
func (s *stream) Send(message any) error {
	if s.failed != nil {
		return s.failed
	}
	return mapStream(s.StreamingClientConn.Send(message))
}

// Receive implements connect.StreamingClientConn.
func (s *stream) Receive(message any) error {
	if s.failed != nil {
		return s.failed
	}
	return mapStream(s.StreamingClientConn.Receive(message))
}

// CloseRequest implements connect.StreamingClientConn. Closing an unsent
// stream would send its headers, so a failed one isn't closed but dropped.
func (s *stream) CloseRequest() error {
	if s.failed != nil {
		return s.failed
	}
	return mapStream(s.StreamingClientConn.CloseRequest())
}

// CloseResponse implements connect.StreamingClientConn.
func (s *stream) CloseResponse() error {
	if s.failed != nil {
		return nil
	}
	return mapStream(s.StreamingClientConn.CloseResponse())
}

// mapStream leaves io.EOF, the stream's ordinary end, as it is.
func mapStream(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return FromConnect(err)
}
