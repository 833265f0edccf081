package issuer_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/identity/issuer"
	"github.com/probity-health/probity/services/problem"
)

// serve starts an issuer whose URL is that of a server which mounts it.
func serve(t *testing.T, dir string, now func() time.Time) (*issuer.Issuer, *httptest.Server) {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i, err := issuer.New(issuer.Config{
		URL: server.URL + "/issuer", Dir: dir, Now: now, Lifetime: 10 * time.Minute,
		Principals: issuer.Development("prov-lakeside"),
	})
	require.NoError(t, err)
	mux.Handle("/issuer/", i.Handler())
	return i, server
}

func TestEveryDevelopmentClientSignsInAndIsVerified(t *testing.T) {
	i, server := serve(t, t.TempDir(), time.Now)
	verifier, err := identity.NewVerifier(identity.VerifierConfig{Issuer: server.URL + "/issuer"})
	require.NoError(t, err)
	inProcess, err := identity.NewVerifier(identity.VerifierConfig{Issuer: server.URL + "/issuer", Keys: i.Keys()})
	require.NoError(t, err)

	for id, want := range issuer.Development("prov-lakeside") {
		token, err := identity.ClientCredentials(i.TokenURL(), id, i.SecretFile(id)).Token(context.Background())
		require.NoError(t, err, id)
		for _, v := range []*identity.Verifier{verifier, inProcess} {
			got, err := v.Verify(context.Background(), token)
			require.NoError(t, err, id)
			require.Equal(t, want, got)
		}
	}
}

func TestAWrongSecretIsRefusedWithoutSayingWhoExists(t *testing.T) {
	i, _ := serve(t, t.TempDir(), time.Now)
	wrong := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(wrong, []byte("not the secret at all"), 0o600))
	var answers []string
	for _, id := range []string{"biller", "stranger"} {
		_, err := identity.ClientCredentials(i.TokenURL(), id, wrong).Token(context.Background())
		require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
		require.NotContains(t, err.Error(), "not the secret")
		answers = append(answers, strings.ReplaceAll(err.Error(), id, "X"))
	}
	require.Equal(t, answers[0], answers[1])
}

func TestOnlyTheClientCredentialsGrantIsServed(t *testing.T) {
	_, server := serve(t, t.TempDir(), time.Now)
	for name, form := range map[string]url.Values{
		"password": {"grant_type": {"password"}, "username": {"u"}, "password": {"p"}},
		"nothing":  {},
	} {
		resp, err := http.PostForm(server.URL+"/issuer/token", form)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusBadRequest, resp.StatusCode, name)
	}
	resp, err := http.Post(server.URL+"/issuer/token", "application/json", strings.NewReader(`{}`))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}

func TestTokensAndSecretsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	open := func() *issuer.Issuer {
		i, err := issuer.New(issuer.Config{URL: "http://127.0.0.1:1/issuer", Dir: dir, Principals: issuer.Development("o")})
		require.NoError(t, err)
		return i
	}
	first := open()
	token, _, err := first.Mint("biller")
	require.NoError(t, err)
	secret, err := os.ReadFile(first.SecretFile("biller"))
	require.NoError(t, err)

	second := open()
	v, err := identity.NewVerifier(identity.VerifierConfig{Issuer: "http://127.0.0.1:1/issuer", Keys: second.Keys()})
	require.NoError(t, err)
	_, err = v.Verify(context.Background(), token)
	require.NoError(t, err)
	again, err := os.ReadFile(second.SecretFile("biller"))
	require.NoError(t, err)
	require.Equal(t, secret, again)

	for _, name := range []string{"issuer.key", "biller.secret"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.EqualValues(t, 0o600, info.Mode().Perm(), name)
	}
}

func TestASecretOthersCanReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	cfg := issuer.Config{URL: "http://127.0.0.1:1/issuer", Dir: dir, Principals: issuer.Development("o")}
	_, err := issuer.New(cfg)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(filepath.Join(dir, "biller.secret"), 0o644))
	_, err = issuer.New(cfg)
	require.ErrorContains(t, err, "chmod 600")
}

func TestAnUnsafeConfigurationIsRefused(t *testing.T) {
	for name, cfg := range map[string]issuer.Config{
		"long tokens":      {URL: "http://h/issuer", Lifetime: 2 * time.Hour},
		"relative URL":     {URL: "/issuer"},
		"trailing slash":   {URL: "http://h/issuer/"},
		"a path as client": {URL: "http://h/issuer", Principals: map[string]identity.Principal{"../x": {}}},
	} {
		cfg.Dir = t.TempDir()
		_, err := issuer.New(cfg)
		require.Error(t, err, name)
	}
}

func TestATokenIsCachedUntilShortlyBeforeItExpires(t *testing.T) {
	dir := t.TempDir()
	i, server := serve(t, dir, time.Now)
	var asked int
	counting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		i.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(counting.Close)
	source := identity.ClientCredentials(counting.URL+"/issuer/token", "biller", i.SecretFile("biller"))
	first, err := source.Token(context.Background())
	require.NoError(t, err)
	second, err := source.Token(context.Background())
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.Equal(t, 1, asked)
	_ = server
}
