package server_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
)

// within is a client in the server's own process, whose procedures are known,
// with what hears of calls that go by HTTP all the same.
func within(t *testing.T, r *running, token string) (claimsv1connect.ClaimsServiceClient, *int) {
	t.Helper()
	r.meet(t)
	at, err := url.Parse(r.url)
	require.NoError(t, err)
	c, err := server.NewClient(server.ClientConfig{}, server.ClientDeps{Tokens: fixed(token), Inside: r.Server, InsideURL: at})
	require.NoError(t, err)
	byHTTP := new(int)
	counted := doer(func(req *http.Request) (*http.Response, error) {
		*byHTTP++
		return c.Do(req)
	})
	return claimsv1connect.NewClaimsServiceClient(counted, r.url, c.Options()...), byHTTP
}

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(req *http.Request) (*http.Response, error) { return d(req) }

func TestACallInsideNeedsNoHTTPAndSharesNothing(t *testing.T) {
	// Given a handler that keeps what it was sent and changes it.
	var kept *claimsv1.SubmitClaimRequest
	r := run(t, server.Config{}, &claims{submit: func(_ context.Context, req *claimsv1.SubmitClaimRequest) error {
		kept = req
		req.RequestId = "changed"
		return nil
	}})
	c, byHTTP := within(t, r, "good-ann")
	sent := &claimsv1.SubmitClaimRequest{RequestId: "r-1", ValidateOnly: true, Claim: soundClaim()}

	// When it is called, then its caller's request is as it was, and the other way round.
	_, err := c.SubmitClaim(t.Context(), sent)
	require.NoError(t, err)
	require.Zero(t, *byHTTP)
	require.Equal(t, "r-1", sent.GetRequestId())
	sent.Claim.PatientControlNumber = "later"
	require.NotEqual(t, "later", kept.GetClaim().GetPatientControlNumber())

	// And where both ends let go of a message, it passes as it is.
	r.HandOver(claimsv1connect.ClaimsServiceSubmitClaimProcedure)
	_, err = c.SubmitClaim(t.Context(), sent)
	require.NoError(t, err)
	require.Same(t, sent, kept)
}

func TestATooLargeCallGoesWhereItIsRefused(t *testing.T) {
	r := run(t, server.Config{ReadMaxBytes: 1 << 10}, &claims{})
	c, byHTTP := within(t, r, "good-ann")
	_, err := c.GetClaim(t.Context(), &claimsv1.GetClaimRequest{ClaimId: claimID, MinToken: strings.Repeat("x", 2<<10)})
	require.Error(t, err)
	require.Equal(t, 1, *byHTTP)
}

func TestACallInsideEndsWithItsCallerAndWithTheProcess(t *testing.T) {
	told := make(chan error, 1)
	r := run(t, server.Config{DrainTimeout: server.Duration(time.Second)}, &claims{get: func(ctx context.Context) error {
		<-ctx.Done()
		told <- ctx.Err()
		return ctx.Err()
	}})
	c, _ := within(t, r, "good-ann")

	// Given a caller that goes away, then its handler is told.
	ctx, leave := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, leave)
	err := get(ctx, c)
	require.True(t, problem.Is(err, problem.Unavailable), err)
	require.ErrorIs(t, <-told, context.Canceled)

	// Given a process that ends, then nothing more is begun.
	require.NoError(t, r.stop())
	err = get(t.Context(), c)
	require.True(t, problem.Is(err, problem.Unavailable), err)
	require.Empty(t, told)
}

func soundClaim() *claimsv1.Claim {
	return &claimsv1.Claim{
		Form: claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL, PatientControlNumber: "A", FrequencyCode: "1",
		Payer: &claimsv1.Payer{Id: "KEYSTONE"}, BillingProvider: &claimsv1.Provider{}, Subscriber: &claimsv1.Person{LastName: "DOE"},
		Lines: []*claimsv1.ServiceLine{{Number: 1}},
	}
}
