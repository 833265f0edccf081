package ledger

import (
	"testing"

	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/server/schematest"
)

func TestTheQuickCheckPassesNothingThatTheSchemaRefuses(t *testing.T) {
	schematest.Holds(t, FitsSchema)
}

// Names of streams and logs are compared with the schema's patterns.
func TestNamesFitAsTheSchemaSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &ledgerv1.StreamWrite{
			Stream: rapid.StringMatching(`[a-z0-9A-Z]{0,3}-?[A-Za-z0-9_.:\n-]{0,3}(-?[a-z]{60}){0,3}`).Draw(t, "stream"),
			Events: []*ledgerv1.Event{{Type: "t"}},
		}
		require.Equal(t, protovalidate.Validate(w) == nil, fitsStream(w.GetStream()), "%q", w.GetStream())
		a := &ledgerv1.AppendRequest{
			Log: rapid.StringMatching(`[a-z0-9]{0,2}[a-z\n]{0,32}`).Draw(t, "log"), RoutingKey: "k", RequestId: "r",
			Writes: []*ledgerv1.StreamWrite{{Stream: "claim-1", Events: w.GetEvents()}},
		}
		require.Equal(t, protovalidate.Validate(a) == nil, fitsAppend(a), "%q", a.GetLog())
	})
}
