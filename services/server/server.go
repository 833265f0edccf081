// Package server is the chassis under every Connect service, and the client
// that speaks to one.
//
// A request passes, from the outside in: request id; authentication, before
// a byte of the body is read; then, with the message decoded, tracing and
// metrics, the audit record, error mapping, panic recovery, the deadline and
// the schema's own validation. What comes out as an error carries
// problem.v1.Problems, whatever it was inside.
//
// Authorisation is not here: only a handler knows the resource, so it asks
// identity.Authorizer, whose judgements the audit record collects.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/authn"
	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/otelconnect"
	"connectrpc.com/validate"
	"github.com/google/uuid"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/telemetry"
)

// Defaults, each overridden by the Config field of that name.
const (
	DefaultAddress      = "127.0.0.1:8080"
	DefaultRPCTimeout   = 30 * time.Second // longer work is a workflow's
	DefaultReadMaxBytes = 8 << 20          // a message; files arrive as streams of small ones
	DefaultDrainTimeout = 20 * time.Second // below Kubernetes' 30 s grace period
)

// Config of a Server. The zero value listens on 127.0.0.1:8080 without TLS.
type Config struct {
	// Address to listen on.
	Address string `json:"address,omitempty"`
	// MetricsAddress serves /metrics apart from the RPCs; empty serves it beside them.
	MetricsAddress string `json:"metricsAddress,omitempty"`
	// TLS; without files it's HTTP/1.1 and unencrypted HTTP/2, for loopback and meshes.
	TLS TLSFiles `json:"tls,omitzero"`
	// RPCTimeout bounds a unary call; a stream isn't bounded by it.
	RPCTimeout Duration `json:"rpcTimeout,omitempty"`
	// ReadMaxBytes bounds one message.
	ReadMaxBytes int `json:"readMaxBytes,omitempty"`
	// DrainTimeout bounds how long running requests may take to end at shutdown.
	DrainTimeout Duration `json:"drainTimeout,omitempty"`
}

// TLSFiles name a certificate and its key (PEM); they are read again when
// they change. With ClientCAFile a caller must show a certificate of that authority.
type TLSFiles struct {
	CertFile     string `json:"certFile,omitempty"`
	KeyFile      string `json:"keyFile,omitempty"`
	ClientCAFile string `json:"clientCAFile,omitempty"`
}

// Verifier turns a bearer token into a caller; *identity.Verifier is the real one.
type Verifier interface {
	Verify(ctx context.Context, token string) (identity.Principal, error)
}

// Deps are what a Server needs from its process; all but NewID are required.
type Deps struct {
	Telemetry *telemetry.Telemetry
	Verifier  Verifier
	// NewID makes request ids; default random UUIDs.
	NewID func() string
	// Now measures durations for the audit record; default time.Now.
	Now func() time.Time
}

// Server serves RPCs. Mount, AddCheck and ShedWhen are for before Run.
type Server struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	mux   *http.ServeMux
	otel  *otelconnect.Interceptor
	authn *authn.Middleware

	draining atomic.Bool
	shed     func() bool // nil never sheds; fixed before Run
	inside   insideCalls
	direct   direct
	quick    quick

	mu       sync.Mutex
	checks   []check         // guarded by mu
	services map[string]bool // guarded by mu; full names of mounted RPC services
	address  net.Addr        // guarded by mu; nil until listening
	listens  chan struct{}   // closed when address is set
}

// New makes a server with health and metrics mounted.
func New(cfg Config, deps Deps) (*Server, error) {
	if deps.Telemetry == nil || deps.Verifier == nil {
		return nil, errors.New("server: telemetry and a token verifier are required")
	}
	if cfg.RPCTimeout < 0 || cfg.DrainTimeout < 0 || cfg.ReadMaxBytes < 0 {
		return nil, errors.New("server: timeouts and sizes can't be negative")
	}
	if (cfg.TLS.CertFile == "") != (cfg.TLS.KeyFile == "") || (cfg.TLS.CertFile == "" && cfg.TLS.ClientCAFile != "") {
		return nil, errors.New("server: tls needs certFile and keyFile together")
	}
	setDefault(&cfg.Address, DefaultAddress)
	setDefault(&cfg.RPCTimeout, Duration(DefaultRPCTimeout))
	setDefault(&cfg.DrainTimeout, Duration(DefaultDrainTimeout))
	setDefault(&cfg.ReadMaxBytes, DefaultReadMaxBytes)
	if deps.NewID == nil {
		deps.NewID = uuid.NewString
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	otel, err := otelconnect.NewInterceptor(
		otelconnect.WithTracerProvider(deps.Telemetry.Tracer),
		otelconnect.WithMeterProvider(deps.Telemetry.Meter),
		otelconnect.WithPropagator(deps.Telemetry.Propagator),
		otelconnect.WithTrustRemote(),
	)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s := &Server{
		cfg: cfg, deps: deps, log: deps.Telemetry.Log, otel: otel,
		mux:      http.NewServeMux(),
		services: map[string]bool{},
		quick:    quick{},
		listens:  make(chan struct{}),
	}
	s.inside.idle = make(chan struct{})
	s.direct = direct{given: map[string]bool{}, unary: map[string]connect.UnaryFunc{}, streams: map[string]connect.StreamingHandlerFunc{}}
	s.inside.work, s.inside.cancel = context.WithCancel(context.Background())
	s.authn = authn.NewMiddleware(s.authenticate)
	s.mountHealth()
	return s, nil
}

func setDefault[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

// Options are for the constructor of a Connect handler: the interceptor chain
// and the limits. Extra options come after and so may widen a limit.
func (s *Server) Options(extra ...connect.HandlerOption) []connect.HandlerOption {
	return append(append([]connect.HandlerOption{
		connect.WithInterceptors(
			learner{},
			s.otel,
			&auditor{log: s.log, now: s.deps.Now},
			mapper{},
			recoverer{log: s.log},
			deadline{after: time.Duration(s.cfg.RPCTimeout)},
			validate.NewInterceptor(validate.WithoutErrorDetails(), validate.WithValidator(s.quick)),
		),
		connect.WithReadMaxBytes(s.cfg.ReadMaxBytes),
		connect.WithCompressMinBytes(4 << 10),
		connect.WithCodec(quietJSON{name: "json"}),
		connect.WithCodec(quietJSON{name: "json; charset=utf-8"}),
	}, extra...), connect.WithInterceptors(opener{}))
}

// Mount serves a Connect handler, as its constructor returns path and
// handler, to authenticated callers only.
func (s *Server) Mount(path string, handler http.Handler) {
	s.mu.Lock()
	s.services[strings.Trim(path, "/")] = true
	s.mu.Unlock()
	s.direct.learn(strings.Trim(path, "/"), handler)
	s.mux.Handle(path, s.shedding(s.bounded(s.authn.Wrap(admit(handler)))))
}

// ShedWhen makes clients connect anew with their next call while f says so.
// Readiness alone reaches only those who connect: one address may stand for
// several processes, and a client stays with the one it is connected to even
// when another could serve it. What a connection is carrying goes on. f is
// asked at every request.
func (s *Server) ShedWhen(f func() bool) { s.shed = f }

func (s *Server) shedding(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.shed != nil && s.shed() {
			// HTTP/2 has no such header: net/http sends GOAWAY instead.
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// MountPublic serves anything to anyone: a portal that signs in by itself,
// the development issuer, static tiles. pattern is http.ServeMux's.
func (s *Server) MountPublic(pattern string, handler http.Handler) {
	s.mux.Handle(pattern, handler)
}

// Handler is everything mounted, as Run serves it.
func (s *Server) Handler() http.Handler { return s.withRequestID(s.mux) }

// Address is where the server listens; it waits until it does.
func (s *Server) Address(ctx context.Context) (net.Addr, error) {
	select {
	case <-s.listens:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.address, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run listens and serves until ctx ends, then drains: it turns unready, lets
// running requests end for at most DrainTimeout and closes what is left. It
// returns nil after a drain in time. Run once.
func (s *Server) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return s.Serve(ctx, listener)
}

// Serve is Run on a listener of the caller's, which it closes.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	// Handlers outlive ctx by the drain; they are told to stop when it ends.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	rpc := newHTTPServer(s.Handler(), work)
	if s.cfg.TLS.CertFile != "" {
		config, err := serverTLS(s.cfg.TLS)
		if err != nil {
			_ = listener.Close()
			return err
		}
		rpc.TLSConfig = config
		rpc.Protocols.SetHTTP2(true)
		rpc.Protocols.SetUnencryptedHTTP2(false)
		listener = tls.NewListener(listener, config)
	}
	failed := make(chan error, 2)
	serve := func(server *http.Server, l net.Listener) {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("server: %w", err)
		}
	}
	servers := []*http.Server{rpc}
	if s.cfg.MetricsAddress != "" {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", s.deps.Telemetry.Metrics)
		side, err := net.Listen("tcp", s.cfg.MetricsAddress)
		if err != nil {
			_ = listener.Close()
			return fmt.Errorf("server: metrics: %w", err)
		}
		metrics := newHTTPServer(mux, work)
		servers = append(servers, metrics)
		go serve(metrics, side)
	}
	s.mu.Lock()
	s.address = listener.Addr()
	s.mu.Unlock()
	close(s.listens)
	s.log.InfoContext(ctx, "listening", "address", listener.Addr().String())
	go serve(rpc, listener)

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	s.draining.Store(true)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(s.cfg.DrainTimeout))
	defer cancel()
	// Streams (Subscribe, WatchClaim) have no end of their own: their
	// contexts end half way, so that they close in order and not by force.
	half := time.AfterFunc(time.Duration(s.cfg.DrainTimeout)/2, func() { stopWork(); s.inside.cancel() })
	defer half.Stop()
	for _, server := range servers {
		if shutErr := server.Shutdown(drain); shutErr != nil {
			err = errors.Join(err, fmt.Errorf("server: drain: %w", shutErr), server.Close())
		}
	}
	// Last, for what came from outside needs them.
	s.inside.drain(drain)
	return err
}

func newHTTPServer(handler http.Handler, base context.Context) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// No ReadTimeout or WriteTimeout: they would end streams. A unary
		// call's body is bounded by Server.bounded, its work by the deadline.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

var _ grpchealth.Checker = (*Server)(nil)
