package server_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/server"
)

// within is a client in the server's own process, with a count of the calls
// that go by HTTP all the same.
func within(t *testing.T, r *running, token string) (claimsv1connect.ClaimsServiceClient, *int) {
	t.Helper()
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

func TestAStreamInsideNeedsNoHTTPEither(t *testing.T) {
	// Given a handler that tells a claim's changes, and keeps what it told.
	var sent []*claimsv1.WatchClaimResponse
	r := run(t, server.Config{}, &claims{watch: func(_ context.Context, s *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
		for n := range 100 {
			m := &claimsv1.WatchClaimResponse{Claim: &claimsv1.ClaimSummary{ClaimId: claimID, PaidCents: int64(n)}}
			sent = append(sent, m)
			if err := s.Send(m); err != nil {
				return err
			}
		}
		return nil
	}})
	c, byHTTP := within(t, r, "good-ann")
	stream, err := c.WatchClaim(t.Context(), &claimsv1.WatchClaimRequest{ClaimId: claimID})
	require.NoError(t, err)
	defer stream.Close()
	// Then every one arrives, in order, and is its receiver's.
	for n := range 100 {
		require.True(t, stream.Receive(), stream.Err())
		require.EqualValues(t, n, stream.Msg().GetClaim().GetPaidCents())
		stream.Msg().Claim.PaidCents = -1
	}
	require.False(t, stream.Receive())
	require.NoError(t, stream.Err())
	require.Zero(t, *byHTTP)
	for n, m := range sent {
		require.EqualValues(t, n, m.GetClaim().GetPaidCents())
	}
}

func TestAStreamInsideIsBoundedAndEndsWithItsReader(t *testing.T) {
	var sent atomic.Int64
	gone := make(chan error, 1)
	r := run(t, server.Config{}, &claims{watch: func(_ context.Context, s *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
		for {
			if err := s.Send(&claimsv1.WatchClaimResponse{}); err != nil {
				gone <- err
				return err
			}
			sent.Add(1)
		}
	}})
	c, _ := within(t, r, "good-ann")
	stream, err := c.WatchClaim(t.Context(), &claimsv1.WatchClaimRequest{ClaimId: claimID})
	require.NoError(t, err)
	require.True(t, stream.Receive())
	// Given a reader that stops, then the handler waits with the second message
	// in hand; given one that leaves, then it is told.
	require.Eventually(t, func() bool { return sent.Load() == 2 }, 5*time.Second, time.Millisecond)
	require.NoError(t, stream.Close())
	require.Error(t, <-gone)
	require.LessOrEqual(t, sent.Load(), int64(3))
	more := 0
	for stream.Receive() {
		more++
	}
	require.LessOrEqual(t, more, 1, "what waited may be read, nothing more comes")
}

func TestAStreamInsideIsRefusedAsAnyOther(t *testing.T) {
	r := run(t, server.Config{}, &claims{})
	for name, c := range map[string]struct {
		token, claim string
		kind         problem.Kind
	}{
		"no good token": {"bad", claimID, problem.Unauthenticated},
		"schema":        {"good-ann", "short", problem.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := within(t, r, c.token)
			stream, err := client.WatchClaim(t.Context(), &claimsv1.WatchClaimRequest{ClaimId: c.claim})
			require.NoError(t, err)
			require.False(t, stream.Receive())
			require.True(t, problem.Is(stream.Err(), c.kind), stream.Err())
		})
	}
}

func soundClaim() *claimsv1.Claim {
	return &claimsv1.Claim{
		Form: claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL, PatientControlNumber: "A", FrequencyCode: "1",
		Payer: &claimsv1.Payer{Id: "KEYSTONE"}, BillingProvider: &claimsv1.Provider{}, Subscriber: &claimsv1.Person{LastName: "DOE"},
		Lines: []*claimsv1.ServiceLine{{Number: 1}},
	}
}
