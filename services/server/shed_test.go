package server_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

// counting counts the connections it accepts.
type counting struct {
	net.Listener
	n atomic.Int32
}

func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

func TestASheddingServerSendsItsClientsAwayAndEndsNoStream(t *testing.T) {
	for name, cfg := range map[string]server.ClientConfig{"HTTP/2": {}, "HTTP/1.1": {HTTP1: true}} {
		t.Run(name, func(t *testing.T) {
			// Given a client that watches a claim and has a connection for its calls.
			tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "claims", LogOutput: &lockedBuffer{}})
			require.NoError(t, err)
			srv, err := server.New(server.Config{}, server.Deps{Telemetry: tel, Verifier: tokens{}})
			require.NoError(t, err)
			var shed atomic.Bool
			srv.ShedWhen(shed.Load)
			more := make(chan struct{})
			srv.Mount(claimsv1connect.NewClaimsServiceHandler(&claims{
				watch: func(_ context.Context, s *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
					if err := s.Send(&claimsv1.WatchClaimResponse{}); err != nil {
						return err
					}
					<-more
					return s.Send(&claimsv1.WatchClaimResponse{})
				},
			}, srv.Options()...))
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			listener := &counting{Listener: inner}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- srv.Serve(ctx, listener) }()
			c := (&running{url: "http://" + inner.Addr().String(), tel: tel}).client(t, cfg, fixed("good-a"))
			stream, err := c.WatchClaim(t.Context(), &claimsv1.WatchClaimRequest{ClaimId: claimID})
			require.NoError(t, err)
			require.True(t, stream.Receive())
			require.NoError(t, get(t.Context(), c))
			require.NoError(t, get(t.Context(), c))
			before := listener.n.Load()

			// When the server sheds, then calls come over new connections.
			shed.Store(true)
			require.Eventually(t, func() bool {
				return get(t.Context(), c) == nil && listener.n.Load() > before
			}, 10*time.Second, time.Millisecond)

			// And the watch goes on.
			close(more)
			require.True(t, stream.Receive())
			require.False(t, stream.Receive())
			require.NoError(t, stream.Err())
			require.NoError(t, stream.Close())
			stop()
			require.NoError(t, <-ended)
		})
	}
}
