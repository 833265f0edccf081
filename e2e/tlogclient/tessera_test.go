// Package tlogclient shows that a tlog-tiles client which nobody here wrote,
// Tessera's, reads and proves the ledger from its static files alone.
package tlogclient

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// given returns a node whose block log is larger than a tile, and its files.
func given(t *testing.T, blocks int) (*ledger.Node, string) {
	w := ledgertest.NewEmbedded(t)
	w.Config.BlockInterval = time.Millisecond
	w.Config.Logs = map[string]int{"claims": 1}
	n := w.Open(t, w.Config)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i := range blocks {
		res, err := n.Handler().Append(ctx, &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: "k", RequestId: fmt.Sprint("r", i),
			Writes: []*ledgerv1.StreamWrite{{Stream: fmt.Sprint("claim-", i), ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "t", Payload: []byte{1}}}}},
		})
		require.NoError(t, err)
		_, err = n.Handler().GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: res.Position})
		require.NoError(t, err)
	}
	s := httptest.NewServer(n.Tiles())
	t.Cleanup(s.Close)
	return n, s.URL
}

func TestTesserasClientReadsTheLedger(t *testing.T) {
	n, base := given(t, 300)
	key, err := receipt.ParsePublicKey(n.VerifierKey())
	require.NoError(t, err)
	for prefix, origin := range map[string]string{
		"/":                ledgertest.Origin,
		"/shards/claims/0": ledgertest.Origin + "/claims/0",
	} {
		t.Run(origin, func(t *testing.T) {
			root, err := url.Parse(base + prefix)
			require.NoError(t, err)
			files, err := client.NewHTTPFetcher(root, nil)
			require.NoError(t, err)
			verifier, err := note.NewVerifier(key.LogKey(origin))
			require.NoError(t, err)
			c, _, _, err := client.FetchCheckpoint(t.Context(), files.ReadCheckpoint, verifier, origin)
			require.NoError(t, err)
			require.Greater(t, c.Size, uint64(256), "more than a tile")
			proofs, err := client.NewProofBuilder(t.Context(), c.Size, files.ReadTile)
			require.NoError(t, err)
			leaves, err := client.FetchLeafHashes(t.Context(), files.ReadTile, 0, c.Size, c.Size)
			require.NoError(t, err)
			require.Len(t, leaves, int(c.Size))
			for i := uint64(0); i < c.Size; i++ {
				bundle, err := client.GetEntryBundle(t.Context(), files.ReadEntryBundle, i/256, c.Size)
				require.NoError(t, err)
				leaf := rfc6962.DefaultHasher.HashLeaf(bundle.Entries[i%256])
				require.Equal(t, leaves[i], leaf)
				if i%37 == 0 || i > c.Size-3 {
					path, err := proofs.InclusionProof(t.Context(), i)
					require.NoError(t, err)
					require.NoError(t, proof.VerifyInclusion(rfc6962.DefaultHasher, i, c.Size, leaf, path, c.Hash))
				}
			}
			path, err := proofs.ConsistencyProof(t.Context(), 100, c.Size)
			require.NoError(t, err)
			nodes, err := client.FetchRangeNodes(t.Context(), 100, files.ReadTile)
			require.NoError(t, err)
			require.NotEmpty(t, nodes)
			require.NotEmpty(t, path)
			_, err = client.NewLogStateTracker(t.Context(), files.ReadTile, nil, verifier, origin, client.UnilateralConsensus(files.ReadCheckpoint))
			require.NoError(t, err)
		})
	}
}
