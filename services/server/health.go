package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
)

// checkTimeout bounds all readiness checks together: a kubelet waits one second by default.
const checkTimeout = 900 * time.Millisecond

type check struct {
	name string
	ask  func(context.Context) error
}

// AddCheck makes readiness depend on ask, which must be cheap: it is called
// at every probe. The name is shown to anyone; the error is logged only.
func (s *Server) AddCheck(name string, ask func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks = append(s.checks, check{name, ask})
}

func (s *Server) mountHealth() {
	// Alive as long as it can answer: a dependency that is away is no reason
	// to be killed, only to be sent no traffic.
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	s.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		failing := s.failing(r.Context())
		w.Header().Set("Content-Type", "application/json")
		if len(failing) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": len(failing) == 0, "failing": failing})
	})
	if s.cfg.MetricsAddress == "" {
		s.mux.Handle("GET /metrics", s.deps.Telemetry.Metrics)
	}
	s.mux.Handle(grpchealth.NewHandler(s, connect.WithReadMaxBytes(4<<10)))
}

// failing names what is not ready, in the order added; nothing is ready.
func (s *Server) failing(ctx context.Context) []string {
	if s.draining.Load() {
		return []string{"draining"}
	}
	s.mu.Lock()
	checks := s.checks
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	errs := make([]error, len(checks))
	var wait sync.WaitGroup
	for i, c := range checks {
		wait.Go(func() { errs[i] = c.ask(ctx) })
	}
	wait.Wait()
	var failing []string
	for i, err := range errs {
		if err != nil {
			s.log.WarnContext(ctx, "not ready", "check", checks[i].name, "cause", err)
			failing = append(failing, checks[i].name)
		}
	}
	return failing
}

// Check implements grpchealth.Checker: of the process ("") and of every mounted service.
func (s *Server) Check(ctx context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	s.mu.Lock()
	known := req.Service == "" || s.services[req.Service]
	s.mu.Unlock()
	if !known {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such service here"))
	}
	if len(s.failing(ctx)) > 0 {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
