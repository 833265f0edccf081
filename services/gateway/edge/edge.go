// Package edge passes RPCs of the inner services through the gateway, so
// that clients need one address and one certificate.
//
// It forwards bytes and headers as they are: each service verifies the
// caller's token and decides for itself, so passing through here grants
// nothing. Only the procedures listed are reachable from outside.
package edge

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/probity-health/probity/services/problem"
)

// Routes says which procedures ("/package.Service/Method", or a whole service
// with a trailing slash) go to which base URL.
type Routes map[string]string

// Handler forwards what routes name. transport must speak HTTP/2 to the
// services, since some of their RPCs stream. Patterns returns what to mount.
type Handler struct {
	mux      *http.ServeMux
	patterns []string
}

// New checks the routes and makes the handler.
func New(routes Routes, transport http.RoundTripper, log *slog.Logger) (*Handler, error) {
	h := &Handler{mux: http.NewServeMux()}
	for pattern, target := range routes {
		if !strings.HasPrefix(pattern, "/probity.") {
			return nil, fmt.Errorf("edge: %q is not a Probity procedure", pattern)
		}
		base, err := url.Parse(target)
		if err != nil || base.Host == "" {
			return nil, fmt.Errorf("edge: %q is not a base URL", target)
		}
		h.mux.Handle(pattern, &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(base)
				r.SetXForwarded()
			},
			Transport:     transport,
			FlushInterval: -1, // streams are delivered as they come
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				log.WarnContext(r.Context(), "a service is out of reach", "procedure", r.URL.Path, "error", err.Error())
				refuse(w)
			},
		})
		h.patterns = append(h.patterns, pattern)
	}
	return h, nil
}

// Patterns are the routes' keys, for mounting.
func (h *Handler) Patterns() []string { return h.patterns }

// ServeHTTP forwards.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// refuse answers as Connect does when a backend is away: unavailable, retryable.
func refuse(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(map[string]string{
		"code":    string(problem.Unavailable),
		"message": "a service behind the gateway is out of reach; the request can be sent again",
	})
}
