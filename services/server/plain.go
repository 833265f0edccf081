package server

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// Plain answers a request of a protocol that isn't Probity's own, given its
// body; what it returns is sent as JSON. An error crosses as an RPC's would.
type Plain func(ctx context.Context, r *http.Request, body []byte) ([]byte, error)

// Plain makes of h what Mount makes of an RPC handler: only authenticated
// callers reach it, the body is bounded, the work has a deadline, a panic
// becomes an internal problem, and the audit record is written, with action
// in it. Mount it with MountPublic.
func (s *Server) Plain(action string, h Plain) http.Handler {
	audit := &auditor{log: s.log, now: s.deps.Now}
	spec := connect.Spec{Procedure: action}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(s.cfg.RPCTimeout))
		defer cancel()
		info, err := s.authenticate(ctx, r)
		var answer []byte
		if err == nil {
			c := info.(caller)
			ctx = identity.WithToken(identity.WithPrincipal(ctx, c.principal), c.token)
			var finish func(error)
			ctx, finish = audit.begin(ctx, spec)
			answer, err = s.plainly(ctx, w, r, spec, h)
			if err != nil {
				err = toConnect(ctx, err)
			}
			finish(err)
		}
		if err != nil {
			_ = connect.NewErrorWriter().Write(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(answer)
	})
}

func (s *Server) plainly(ctx context.Context, w http.ResponseWriter, r *http.Request, spec connect.Spec, h Plain) (answer []byte, err error) {
	defer func() { recoverer{log: s.log}.caught(ctx, spec, recover(), &err) }()
	control := http.NewResponseController(w)
	// A caller that sends its body slowly holds a connection no longer than an RPC may.
	_ = control.SetReadDeadline(s.deps.Now().Add(time.Duration(s.cfg.RPCTimeout)))
	var body bytes.Buffer
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, int64(s.cfg.ReadMaxBytes))); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, problem.New(problem.Invalid, problem.Problem{
				RuleID: "request.too-large", Message: "the request is larger than this service reads", Fix: "send it in smaller parts",
			})
		}
		return nil, problem.New(problem.Invalid, problem.Problem{
			RuleID: "request.body", Message: "the request's body did not arrive whole", Fix: "send it again",
		}).Because(err)
	}
	// Lifted only now: after a failed read net/http would wait for the rest.
	_ = control.SetReadDeadline(time.Time{})
	return h(ctx, r, body.Bytes())
}
