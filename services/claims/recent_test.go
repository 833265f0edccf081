package claims

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/eventstore"
)

// tallied counts the claims' streams that are read from their beginning.
type tallied struct {
	eventstore.Store

	mu    sync.Mutex
	whole map[string]int // by stream
}

func (s *tallied) Read(ctx context.Context, log, key, stream string, from uint64) ([]eventstore.Recorded, error) {
	s.mu.Lock()
	if from == 0 && strings.HasPrefix(stream, claimStream("")) {
		s.whole[stream]++
	}
	s.mu.Unlock()
	return s.Store.Read(ctx, log, key, stream, from)
}

func TestClaimsJustDecidedAreRemittedFromMemory(t *testing.T) {
	// Given a service that keeps two claims, and a file of three that it decided.
	store := &tallied{whole: map[string]int{}}
	w := newWorld(t, 3, func(d *Deps) {
		store.Store, d.Store = d.Store, store
		d.Config.UntoldBytes = 2_000
	})
	file, ids := w.adjudicate(visit(0, "2026-02-10"), visit(1, "2026-02-10"), visit(2, "2026-02-10"))

	// When the file is remitted.
	res, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
	require.NoError(t, err)

	// Then every claim is told, one had to be read, and none is kept any more.
	require.Len(t, res.Remittances, 1)
	require.Equal(t, ids, res.Remittances[0].ClaimIds)
	read := 0
	for _, n := range store.whole {
		read += n
	}
	require.Equal(t, 1, read, "%v", store.whole)
	for _, id := range ids {
		_, kept := w.recent.get(id)
		require.False(t, kept, "a claim that was told is not kept")
		require.NotNil(t, w.claim(id).Received.GetClaim(), "what is on the ledger is whole")
	}
}

func TestWhatAnotherProcessDidIsToldAlthoughTheClaimIsInMemory(t *testing.T) {
	// Given a file of three claims decided here, of which another process voids
	// one and replaces another.
	w := newWorld(t, 3)
	file, ids := w.adjudicate(visit(0, "2026-02-10"), visit(1, "2026-02-10"), visit(2, "2026-02-10"))
	other := w.start(w.index)
	for i, change := range []func(*claimsv1.Claim){voids(ids[0]), replaces(ids[1])} {
		res, err := other.SubmitClaim(lakeside(), &claimsv1.SubmitClaimRequest{
			RequestId: ids[i], Claim: visit(i, "2026-02-10", charged(9000), change),
		})
		require.NoError(t, err)
		require.NotNil(t, res.Claim, "%v", res.Problems)
	}
	for _, id := range ids {
		_, kept := w.recent.get(id)
		require.True(t, kept)
	}

	// When the file is remitted here.
	res, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
	require.NoError(t, err)

	// Then only the claim that stands is told: of the others nothing had been.
	require.Len(t, res.Remittances, 1)
	require.Equal(t, ids[2:], res.Remittances[0].ClaimIds)
}
