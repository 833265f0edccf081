package server_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
)

func TestAPlainEndpointHasTheChassisOfAnRPC(t *testing.T) {
	r := run(t, server.Config{ReadMaxBytes: 100, RPCTimeout: server.Duration(time.Second)}, &claims{})
	r.MountPublic("POST /plain/", r.Plain("DoPlainly", func(ctx context.Context, q *http.Request, body []byte) ([]byte, error) {
		switch string(body) {
		case "panic":
			panic("SECRET")
		case "unknown":
			return nil, errors.New("SECRET")
		case "refuse":
			return nil, problem.Invalidf("plain.no", "body", "not so")
		case "wait":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		p, _ := identity.FromContext(ctx)
		token, _ := identity.TokenFromContext(ctx)
		return []byte(`{"by":"` + p.Subject + `","with":"` + token + `"}`), nil
	}))
	ask := func(token, body string) (int, string) {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/plain/x", strings.NewReader(body))
		require.NoError(t, err)
		if token != "" {
			q.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := http.DefaultClient.Do(q)
		require.NoError(t, err)
		defer answer.Body.Close()
		said, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(said)
	}
	code, said := ask("good-ann", "hello")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"by":"ann","with":"good-ann"}`, said)
	require.Contains(t, r.log.String(), `"action":"DoPlainly","subject":"ann"`)

	for _, c := range []struct {
		token, body string
		code        int
		says        string
	}{
		{"", "hello", http.StatusUnauthorized, "identity.no-token"},
		{"bad", "hello", http.StatusUnauthorized, "identity.token.invalid"},
		{"good-ann", strings.Repeat("x", 101), http.StatusBadRequest, "request.too-large"},
		{"good-ann", "refuse", http.StatusBadRequest, "plain.no"},
		{"good-ann", "panic", http.StatusInternalServerError, "internal"},
		{"good-ann", "unknown", http.StatusInternalServerError, "internal"},
		{"good-ann", "wait", http.StatusGatewayTimeout, "rpc.deadline"},
	} {
		code, said := ask(c.token, c.body)
		require.Equal(t, c.code, code, "%s: %s", c.body, said)
		require.Contains(t, said, c.says)
		require.NotContains(t, said, "SECRET")
	}
	require.NotContains(t, r.log.String(), `"what":"SECRET"`)
}

func TestAPlainEndpointDoesNotWaitForABodyForEver(t *testing.T) {
	r := run(t, server.Config{RPCTimeout: server.Duration(200 * time.Millisecond)}, &claims{})
	r.MountPublic("POST /plain/", r.Plain("DoPlainly", func(context.Context, *http.Request, []byte) ([]byte, error) { return []byte(`{}`), nil }))
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "POST /plain/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good-ann\r\nContent-Length: 10\r\n\r\nhalf")
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	answer := make([]byte, 12)
	_, err = io.ReadFull(c, answer)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 400", string(answer))
}
