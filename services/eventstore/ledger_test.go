package eventstore_test

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/eventstore/eventstoretest"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
)

// anyone takes every token for a service's.
type anyone struct{}

func (anyone) Verify(context.Context, string) (identity.Principal, error) {
	return identity.Principal{Subject: "suite", Org: "suite", Roles: []identity.Role{identity.RoleService}}, nil
}

// The whole way: a ledger node on the embedded broker, behind the chassis that
// every service has, reached by the client that every service has.
func TestRemoteOnALedgerNode(t *testing.T) {
	world := ledgertest.NewEmbedded(t)
	node := world.Open(t, world.Config)
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "ledger"})
	require.NoError(t, err)
	srv, err := server.New(server.Config{}, server.Deps{Telemetry: tel, Verifier: anyone{}})
	require.NoError(t, err)
	srv.Mount(ledgerv1connect.NewLedgerServiceHandler(node.Handler(), srv.Options()...))
	listening := httptest.NewServer(srv.Handler())
	t.Cleanup(func() { listening.CloseClientConnections(); listening.Close() })
	client, err := server.NewClient(server.ClientConfig{HTTP1: true}, server.ClientDeps{
		Tokens: identity.TokenFunc(func(context.Context) (string, error) { return "t", nil }),
	})
	require.NoError(t, err)
	eventstoretest.Run(t, func(*testing.T) eventstore.Store {
		return eventstore.NewRemote(ledgerv1connect.NewLedgerServiceClient(client, listening.URL, client.Options()...), eventstore.RemoteOptions{})
	})
}
