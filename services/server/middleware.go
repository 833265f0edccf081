package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/authn"
	"connectrpc.com/connect"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/telemetry"
)

// RequestIDHeader carries the request id in both directions.
const RequestIDHeader = "X-Request-Id"

// withRequestID gives every request an id.
func (s *Server) withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := s.requestID(r.Header)
		w.Header().Set(RequestIDHeader, id)
		next.ServeHTTP(w, r.WithContext(telemetry.WithRequestID(r.Context(), id)))
	})
}

// authenticate runs before the body is read. Its error reaches the caller in
// the protocol it speaks.
func (s *Server) authenticate(ctx context.Context, r *http.Request) (any, error) {
	action, _ := authn.InferProcedure(r.URL)
	who, err := s.whoCalls(ctx, r.Header, action)
	if err != nil {
		return nil, err
	}
	return who, nil
}

// whoCalls finds out who calls a procedure, by the token in header.
func (s *Server) whoCalls(ctx context.Context, header http.Header, action string) (caller, *connect.Error) {
	token, ok := authn.BearerToken(&http.Request{Header: header})
	if !ok {
		return caller{}, s.refuse(ctx, action, problem.New(problem.Unauthenticated, problem.Problem{
			RuleID:  "identity.no-token",
			Message: "the request carries no bearer token",
			Fix:     "sign in (probity login) or send the header Authorization: Bearer <token>",
		}))
	}
	p, err := s.deps.Verifier.Verify(ctx, token)
	if err != nil {
		return caller{}, s.refuse(ctx, action, err)
	}
	return caller{principal: p, token: token}, nil
}

// caller is what authenticate found; admit puts it where handlers look.
type caller struct {
	principal identity.Principal
	token     string
}

// refuse writes the audit record that the interceptors never get to write.
func (s *Server) refuse(ctx context.Context, action string, err error) *connect.Error {
	out := toConnect(ctx, err)
	if !s.serves(action) {
		action = "" // a path of the caller's making doesn't enter the log
	}
	attrs := []any{"action", action, "outcome", out.Code().String(), "rule", firstRule(out)}
	if e := problem.As(err); e.Cause != nil {
		attrs = append(attrs, "cause", e.Cause)
	}
	s.log.WarnContext(ctx, "audit", attrs...)
	return out
}

func (s *Server) serves(procedure string) bool {
	service, _, _ := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services[service]
}

type bodyKey struct{}

// bounded keeps a slow or huge unary body from holding a connection: it is
// refused by its declared length and must have arrived within the RPC's time.
// The deadline interceptor, which runs once the message is in, lifts the limit.
func (s *Server) bounded(authenticated http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := r.Header.Get("Content-Type")
		if strings.HasPrefix(kind, "application/json") || strings.HasPrefix(kind, "application/proto") {
			if r.ContentLength > int64(s.cfg.ReadMaxBytes) && r.Header.Get("Content-Encoding") == "" {
				err := toConnect(r.Context(), problem.New(problem.Invalid, problem.Problem{
					RuleID:  "request.too-large",
					Message: "the request is larger than this service reads",
					Fix:     "split it, or submit a file, which is streamed",
				}))
				_ = connect.NewErrorWriter().Write(w, r, err)
				return
			}
			control := http.NewResponseController(w)
			if control.SetReadDeadline(s.deps.Now().Add(time.Duration(s.cfg.RPCTimeout))) == nil {
				lift := func() { _ = control.SetReadDeadline(time.Time{}) }
				r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, lift))
			}
		}
		authenticated.ServeHTTP(w, r)
	})
}

// admit moves the caller from authn's place in the context to identity's.
func admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if c, ok := authn.GetInfo(ctx).(caller); ok {
			ctx = identity.WithToken(identity.WithPrincipal(authn.WithoutInfo(ctx), c.principal), c.token)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
