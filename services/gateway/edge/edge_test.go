package edge_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/gateway/edge"
)

func TestAListedProcedureReachesItsServiceWithTheCallersToken(t *testing.T) {
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path+" "+r.Header.Get("Authorization"))
	}))
	defer inner.Close()
	h, err := edge.New(edge.Routes{"/probity.claims.v1.ClaimsService/": inner.URL}, http.DefaultTransport, slog.New(slog.DiscardHandler))
	require.NoError(t, err)

	request := httptest.NewRequest(http.MethodPost, "/probity.claims.v1.ClaimsService/GetClaim", strings.NewReader("{}"))
	request.Header.Set("Authorization", "Bearer caller")
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, request)

	require.Equal(t, "/probity.claims.v1.ClaimsService/GetClaim Bearer caller", answer.Body.String())
}

func TestAnUnlistedProcedureIsNotThere(t *testing.T) {
	h, err := edge.New(edge.Routes{"/probity.ledger.v1.LedgerService/GetReceipt": "http://127.0.0.1:1"}, http.DefaultTransport, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/probity.ledger.v1.LedgerService/Append", nil))
	require.Equal(t, http.StatusNotFound, answer.Code)
}

func TestAServiceOutOfReachIsUnavailable(t *testing.T) {
	h, err := edge.New(edge.Routes{"/probity.claims.v1.ClaimsService/": "http://127.0.0.1:1"}, http.DefaultTransport, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/probity.claims.v1.ClaimsService/GetClaim", nil))
	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
	require.Contains(t, answer.Body.String(), `"unavailable"`)
}

func TestRoutesOutsideProbityAreRefused(t *testing.T) {
	_, err := edge.New(edge.Routes{"/metrics": "http://127.0.0.1:1"}, http.DefaultTransport, slog.New(slog.DiscardHandler))
	require.Error(t, err)
}
