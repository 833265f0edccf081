package claims

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// all walks a list to its end and returns the claims' ids.
func (w *world) all(ctx context.Context, req *claimsv1.ListClaimsRequest) (ids []string, pages int) {
	w.t.Helper()
	seen := map[string]bool{}
	for {
		res, err := w.ListClaims(ctx, req)
		require.NoError(w.t, err)
		pages++
		for _, c := range res.Claims {
			require.False(w.t, seen[c.ClaimId], "twice on the list")
			seen[c.ClaimId] = true
			ids = append(ids, c.ClaimId)
		}
		if res.NextPageToken == "" {
			return ids, pages
		}
		req = proto.CloneOf(req)
		req.PageToken, req.MinToken = res.NextPageToken, ""
	}
}

func TestListsShowEachCallerItsOwnNewestFirst(t *testing.T) {
	w := newWorld(t, 8)
	var mine []string
	var token string
	for i := range 7 {
		res := w.submit(lakeside(), fmt.Sprint(i), visit(i, "2026-02-10"))
		mine = append([]string{res.Claim.ClaimId}, mine...)
		w.now = w.now.Add(1e9)
	}
	theirs := w.submit(otherOrg(), "x", visit(7, "2026-02-10"))
	token = theirs.Token
	// lists of this process wait for every shard the claims went to
	for _, id := range mine {
		got, err := w.GetClaim(service(), &claimsv1.GetClaimRequest{ClaimId: id})
		require.NoError(t, err)
		require.NoError(t, w.view.WaitFor(context.Background(), positionOf(got.Claim).Token()))
	}

	ids, pages := w.all(lakeside(), &claimsv1.ListClaimsRequest{PageSize: 3, MinToken: token})
	require.Equal(t, mine, ids)
	require.Equal(t, 3, pages)
	ids, _ = w.all(otherOrg(), &claimsv1.ListClaimsRequest{})
	require.Equal(t, []string{theirs.Claim.ClaimId}, ids)
	for _, ctx := range []context.Context{adjudicator(), auditor(), service()} {
		ids, _ = w.all(ctx, &claimsv1.ListClaimsRequest{PageSize: 2})
		require.Equal(t, append([]string{theirs.Claim.ClaimId}, mine...), ids)
	}
	// one who is both sees each claim once
	both := as(identity.Principal{Subject: "b", Org: "prov-lakeside", Payers: []string{payer}, Roles: []identity.Role{identity.RoleSubmitter, identity.RoleAdjudicator}})
	ids, _ = w.all(both, &claimsv1.ListClaimsRequest{PageSize: 2})
	require.Len(t, ids, 8)
	ids, _ = w.all(auditor(), &claimsv1.ListClaimsRequest{PayerId: "NOBODY"})
	require.Empty(t, ids)
	ids, _ = w.all(auditor(), &claimsv1.ListClaimsRequest{BillingNpi: otherBiller})
	require.Empty(t, ids)

	t.Run("a page token is bound to its list", func(t *testing.T) {
		page, err := w.ListClaims(lakeside(), &claimsv1.ListClaimsRequest{PageSize: 2})
		require.NoError(t, err)
		for _, bad := range []*claimsv1.ListClaimsRequest{
			{PageToken: page.NextPageToken, BillingNpi: biller}, {PageToken: "nonsense"}, {PageToken: page.NextPageToken + "AA", Status: paid},
		} {
			_, err = w.ListClaims(lakeside(), bad)
			require.True(t, problem.Is(err, problem.Invalid), "%v", err)
		}
		_, err = w.ListClaims(otherOrg(), &claimsv1.ListClaimsRequest{PageToken: page.NextPageToken})
		require.True(t, problem.Is(err, problem.Invalid), "%v", err)
	})
	t.Run("the row is the claim", func(t *testing.T) {
		page, err := w.ListClaims(lakeside(), &claimsv1.ListClaimsRequest{PageSize: 1})
		require.NoError(t, err)
		got, err := w.GetClaim(lakeside(), &claimsv1.GetClaimRequest{ClaimId: mine[0]})
		require.NoError(t, err)
		require.True(t, proto.Equal(got.Claim, page.Claims[0]), "%v and %v", got.Claim, page.Claims[0])
	})
}

func TestTheReviewQueueHoldsWhatWaits(t *testing.T) {
	w := newWorld(t, 3)
	w.submit(lakeside(), "a", visit(0, "2026-02-10"))
	waiting := w.submit(lakeside(), "b", visit(1, "2026-02-10", charged(600000)))
	queue := &claimsv1.ListClaimsRequest{Status: pended, PayerId: payer, MinToken: waiting.Token}
	ids, _ := w.all(adjudicator(), queue)
	require.Equal(t, []string{waiting.Claim.ClaimId}, ids)

	done, err := w.ResolveClaim(service(), resolve(waiting.Claim.ClaimId, "v1", "deny"))
	require.NoError(t, err)
	queue.MinToken = done.Token
	ids, _ = w.all(adjudicator(), queue)
	require.Empty(t, ids)
}

func TestAFilesClaimsListInOrderAndAFileAndItsRemittancesToo(t *testing.T) {
	w := newWorld(t, 3)
	file, ids := w.adjudicate(visit(0, "2026-02-10"), visit(1, "2026-02-10"), visit(2, "2026-02-10"))
	runs, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run"})
	require.NoError(t, err)
	remittance := runs.Remittances[0]
	done, err := w.CompleteFile(service(), &claimsv1.CompleteFileRequest{FileId: file, RemittanceIds: []string{remittance.RemittanceId}})
	require.NoError(t, err)
	w.settled()

	listed, _ := w.all(lakeside(), &claimsv1.ListClaimsRequest{FileId: file, PageSize: 2})
	require.Equal(t, ids, listed)
	listed, _ = w.all(otherOrg(), &claimsv1.ListClaimsRequest{FileId: file})
	require.Empty(t, listed)

	files, err := w.ListFiles(lakeside(), &claimsv1.ListFilesRequest{})
	require.NoError(t, err)
	require.Len(t, files.Files, 1)
	want, got := proto.CloneOf(done.File), files.Files[0]
	want.CompletedTime, got.CompletedTime = nil, nil // whole milliseconds in the list
	require.True(t, proto.Equal(want, got), "%v and %v", want, got)
	none, err := w.ListFiles(otherOrg(), &claimsv1.ListFilesRequest{})
	require.NoError(t, err)
	require.Empty(t, none.Files)

	for _, ctx := range []context.Context{lakeside(), adjudicator(), auditor()} {
		res, err := w.ListRemittances(ctx, &claimsv1.ListRemittancesRequest{FileId: file})
		require.NoError(t, err)
		require.Len(t, res.Remittances, 1)
		require.Equal(t, remittance.PaidCents, res.Remittances[0].PaidCents)
		res, err = w.ListRemittances(ctx, &claimsv1.ListRemittancesRequest{})
		require.NoError(t, err)
		require.Len(t, res.Remittances, 1)
	}
	claim, err := w.ListClaims(lakeside(), &claimsv1.ListClaimsRequest{FileId: file, PageSize: 1})
	require.NoError(t, err)
	require.Equal(t, remittance.RemittanceId, claim.Claims[0].RemittanceId)
}

// settled waits until the lists show everything on the ledger.
func (w *world) settled() {
	w.t.Helper()
	last := map[uint32]string{}
	for _, r := range w.events() {
		last[r.Position.Shard] = r.Position.Token()
	}
	for _, token := range last {
		require.NoError(w.t, w.view.WaitFor(context.Background(), token))
	}
}

func TestWithoutListsClaimsAreStillDecidedAndRead(t *testing.T) {
	w := newWorld(t, 1)
	w.redis.Close()
	res := w.submit(lakeside(), "r1", visit(0, "2026-02-10"))
	got, err := w.GetClaim(lakeside(), &claimsv1.GetClaimRequest{ClaimId: res.Claim.ClaimId})
	require.NoError(t, err)
	require.True(t, proto.Equal(res.Claim, got.Claim))
	_, err = w.ListClaims(lakeside(), &claimsv1.ListClaimsRequest{})
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
}

func TestARefilledViewGivesTheSameAnswers(t *testing.T) {
	w := newWorld(t, 6)
	w.adjudicate(visit(0, "2026-02-10"), visit(1, "2026-02-10"), visit(2, "2026-02-10", charged(600000)))
	w.submit(otherOrg(), "x", visit(4, "2026-02-10"))
	w.settled()
	before, err := w.ListClaims(auditor(), &claimsv1.ListClaimsRequest{})
	require.NoError(t, err)
	require.Len(t, before.Claims, 4)

	require.NoError(t, w.view.DropAll(context.Background()))
	require.Eventually(t, func() bool {
		after, err := w.ListClaims(auditor(), &claimsv1.ListClaimsRequest{})
		return err == nil && proto.Equal(before, after)
	}, 20e9, 20e6)
}

func FuzzPageToken(f *testing.F) {
	f.Add(pageToken(nil, "f"), "f")
	f.Add("AQ", "")
	f.Fuzz(func(t *testing.T, token, filter string) {
		m, err := parsePageToken(token, filter)
		if err == nil && m != nil && pageToken(m, filter) != token {
			again, err := parsePageToken(pageToken(m, filter), filter)
			require.NoError(t, err)
			require.Equal(t, m, again)
		}
	})
}

// What is sealed makes no difference to the lists, which are followed without it.
func TestListsNeedNothingSealed(t *testing.T) {
	w := newWorld(t, 2)
	aBusyWeek(w)
	p, seen := Projection(nil), map[string]int{}
	for _, r := range w.events() {
		whole, err := p.Apply(nil, r)
		require.NoError(t, err)
		encoded, err := eventstore.Codec{}.Encode(r.Event)
		require.NoError(t, err)
		lean := r
		lean.Event, err = withoutSealed(eventstore.Codec{}).Decode(encoded)
		require.NoError(t, err)
		if proto.Size(lean.Event) < proto.Size(r.Event) {
			seen[eventstore.TypeOf(r.Event)]++
		}
		ops, err := p.Apply(nil, lean)
		require.NoError(t, err)
		require.Equal(t, whole, ops)
	}
	require.Len(t, seen, 2, "received and decided claims are shorter: %v", seen)
}
