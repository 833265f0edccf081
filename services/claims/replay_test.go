package claims

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/policies/book"
)

// Every decision on the ledger can be made again from what it says it read:
// the claim, the day of receipt, the documents, the family's accumulators at
// the recorded revision and the review before it. The hashes agree.
func TestARecordedDecisionIsReproducedBitForBit(t *testing.T) {
	w := newWorld(t, 2)
	for i, c := range []*claimsv1.Claim{
		visit(0, "2026-02-10"), visit(0, "2026-02-11", spouse), visit(0, "2026-02-10"), visit(0, "2026-02-12"),
		visit(1, "2026-02-10", charged(600000)), visit(1, "2026-02-11", billedBy(otherBiller)), visit(9, "2026-02-10"), visit(1, "2025-11-01"),
	} {
		w.submit(lakeside(), string(rune('a'+i)), c)
	}
	for _, r := range w.events() {
		if e, ok := r.Event.(*eventsv1.ClaimDecided); ok && e.GetStatus() == pended {
			_, err := w.ResolveClaim(service(), resolve(e.GetClaimId(), "v", "approve"))
			require.NoError(t, err)
		}
	}
	// a process without any memory of them
	other := w.start(w.index)
	decisions := 0
	for _, r := range w.events() {
		e, ok := r.Event.(*eventsv1.ClaimDecided)
		if !ok {
			continue
		}
		decisions++
		require.Equal(t, e.GetDecisionSha256(), again(t, other, e, r.Revision), "%s", e.GetClaimId())
	}
	require.Equal(t, 9, decisions)
}

// again makes the decision recorded at a revision anew and returns its hash.
func again(t *testing.T, s *Service, e *eventsv1.ClaimDecided, revision uint64) []byte {
	t.Helper()
	ctx := context.Background()
	events, err := s.store.Read(ctx, logName, claimKey(e.GetClaimId()), claimStream(e.GetClaimId()), 0)
	require.NoError(t, err)
	before := Fold(events[:revision])
	claim, err := s.openClaim(ctx, before)
	require.NoError(t, err)
	received, err := adjudication.ParseDate(e.GetVersions().GetReceivedDate())
	require.NoError(t, err)
	subscriber := before.Received.GetSubscriber()
	input, err := s.reference.lookup(ctx, claim, subscriber, received)
	require.NoError(t, err)
	read := nothingLedgered()
	posted, err := s.store.Read(ctx, logName, familyKey(subscriber), accumulatorStream(subscriber), 0)
	require.NoError(t, err)
	for _, p := range posted[:e.GetVersions().GetAccumulatorsRevision()+1] {
		event := p.Event.(*eventsv1.AccumulatorsPosted)
		history, err := s.families.open(ctx, payer, p.Stream, p.Revision, event)
		require.NoError(t, err)
		read, err = read.post(p.Revision, event, history)
		require.NoError(t, err)
	}
	sub := &submission{input: input, request: &claimsv1.SubmitClaimRequest{Claim: claim}, original: e.GetVersions().GetOriginalClaimId()}
	_, decision := voided(sub, read)
	if e.GetStatus() != reversed {
		read, err = read.view(e.GetVersions().AccumulatorsBefore, sub.original) //nolint:protogetter // absent isn't 0
		require.NoError(t, err)
		_, decision = rule(sub, read, before.Review)
	}
	encoded, err := encode(decision)
	require.NoError(t, err)
	return decisionHash(encoded)
}

func TestADecisionMadeBeforeTheBookIsThereWaits(t *testing.T) {
	w := newWorld(t, 1)
	s, err := New(Deps{Store: w.store, Sealer: w.sealer, Index: w.index, Book: book.New(), Authorizer: w.auth, Redis: redis.NewClient(&redis.Options{Addr: w.redis.Addr()})})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(lakeside())
	cancel()
	_, err = s.SubmitClaim(ctx, &claimsv1.SubmitClaimRequest{RequestId: "r", Claim: visit(0, "2026-02-10")})
	require.ErrorContains(t, err, "caught up")
	require.Empty(t, w.events())
}
