package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
)

// What a quick check doesn't pass is the schema's to judge, and requests
// without one always are.
func TestAQuickCheckOnlySparesTheSchema(t *testing.T) {
	sound := &ledgerv1.ReadStreamRequest{Log: "claims", Stream: "claim-1", RoutingKey: "k"}
	broken := &ledgerv1.ReadStreamRequest{Log: "CLAIMS", Stream: "claim-1", RoutingKey: "k"}
	asked := 0
	s := &Server{quick: quick{}}
	require.NoError(t, s.quick.Validate(sound))
	require.Error(t, s.quick.Validate(broken))

	Quick(s, func(*ledgerv1.ReadStreamRequest) bool { asked++; return false })
	require.NoError(t, s.quick.Validate(sound), "the schema takes it")
	require.Error(t, s.quick.Validate(broken), "the schema refuses it")
	require.Equal(t, 2, asked)

	Quick(s, func(*ledgerv1.ReadStreamRequest) bool { return true })
	require.NoError(t, s.quick.Validate(broken), "the schema isn't asked")
	require.Error(t, s.quick.Validate(&ledgerv1.AppendRequest{}), "another message")
}
