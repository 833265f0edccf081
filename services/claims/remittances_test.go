package claims

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/problem"
)

// adjudicate takes a file of claims through submission and outcomes, as the
// gateway does, and returns its id and the claims' ids.
func (w *world) adjudicate(claims ...*claimsv1.Claim) (file string, ids []string) {
	w.t.Helper()
	file = w.register(lakeside(), contentOf(uint64(len(claims)), 50), uint32(len(claims))).File.FileId
	req := &claimsv1.SubmitClaimsRequest{}
	for i, c := range claims {
		req.Claims = append(req.Claims, &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprintf("%s/%d", file, i), Claim: c, FileId: file, FileOrdinal: uint32(i)})
	}
	res, err := w.SubmitClaims(service(), req)
	require.NoError(w.t, err)
	var outcomes []*claimsv1.ClaimOutcome
	for i, r := range res.Results {
		require.NotNil(w.t, r.Claim, "%v", r.Problems)
		outcomes = append(outcomes, outcome(uint32(i), r.Claim.ClaimId, r.Claim.Status))
		ids = append(ids, r.Claim.ClaimId)
	}
	_, err = w.RecordOutcomes(service(), &claimsv1.RecordOutcomesRequest{FileId: file, Outcomes: outcomes})
	require.NoError(w.t, err)
	return file, ids
}

const otherBiller = "1245319599"

func billedBy(npi string) func(*claimsv1.Claim) {
	return func(c *claimsv1.Claim) { c.BillingProvider.Npi = npi }
}

func TestAFilesClaimsBelongToItsSenderAndItsDay(t *testing.T) {
	w := newWorld(t, 1)
	_, ids := w.adjudicate(visit(0, "2026-02-10"))
	got, err := w.GetClaim(lakeside(), &claimsv1.GetClaimRequest{ClaimId: ids[0]})
	require.NoError(t, err)
	require.Equal(t, "prov-lakeside", got.Claim.SubmitterOrg, "not the worker's organisation")
	require.Equal(t, noon, got.Claim.ReceivedTime.AsTime())
}

func TestRemittancesGroupByPayeeAndPayEachClaimOnce(t *testing.T) {
	w := newWorld(t, 3)
	file, ids := w.adjudicate(
		visit(0, "2026-02-10"), visit(0, "2026-02-11"), // deductible, then $80 paid
		visit(1, "2026-02-10", billedBy(otherBiller)), // out of network: denied
		visit(2, "2026-02-10", charged(600000)),       // pends
		visit(77, "2026-02-10"),                       // unknown: denied
	)
	res, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
	require.NoError(t, err)
	require.Len(t, res.Remittances, 2)
	byNPI := map[string]*claimsv1.Remittance{}
	for _, m := range res.Remittances {
		byNPI[m.PayeeNpi] = m
	}
	require.Equal(t, []string{ids[0], ids[1], ids[4]}, byNPI[biller].ClaimIds)
	require.EqualValues(t, 8000, byNPI[biller].PaidCents)
	require.Equal(t, []string{ids[2]}, byNPI[otherBiller].ClaimIds)
	require.Equal(t, "2026-03-02", byNPI[biller].PaymentDate)
	require.NotEqual(t, byNPI[biller].TraceNumber, byNPI[otherBiller].TraceNumber)

	t.Run("the same run answers alike", func(t *testing.T) {
		before := len(w.events())
		again, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
		require.NoError(t, err)
		require.True(t, proto.Equal(res, again), "%v\n%v", res, again)
		require.Len(t, w.events(), before)
	})
	t.Run("another run takes only what became final since", func(t *testing.T) {
		_, err := w.ResolveClaim(service(), resolve(ids[3], "v1", "approve"))
		require.NoError(t, err)
		again, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
		require.NoError(t, err)
		require.True(t, proto.Equal(res, again), "a run is what it was")
		later, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run2"})
		require.NoError(t, err)
		require.Len(t, later.Remittances, 1)
		require.Equal(t, []string{ids[3]}, later.Remittances[0].ClaimIds)
	})
	t.Run("its sender and its payer read it unsealed", func(t *testing.T) {
		id := byNPI[biller].RemittanceId
		got, err := w.GetRemittance(lakeside(), &claimsv1.GetRemittanceRequest{RemittanceId: id})
		require.NoError(t, err)
		require.Len(t, got.Claims, 3)
		sum := int64(0)
		for i, c := range got.Claims {
			require.Equal(t, byNPI[biller].ClaimIds[i], c.ClaimId)
			require.Equal(t, "PCN-1", c.Submitted.PatientControlNumber)
			sum += c.Decision.PaidCents
		}
		require.Equal(t, got.Remittance.PaidCents, sum)
		_, err = w.GetRemittance(adjudicator(), &claimsv1.GetRemittanceRequest{RemittanceId: id})
		require.NoError(t, err)
		_, err = w.GetRemittance(otherOrg(), &claimsv1.GetRemittanceRequest{RemittanceId: id})
		require.True(t, problem.Is(err, problem.NotFound), "%v", err)
		_, err = w.GetRemittance(auditor(), &claimsv1.GetRemittanceRequest{RemittanceId: id})
		require.True(t, problem.Is(err, problem.NotFound), "%v", err)
	})
	t.Run("only services make them", func(t *testing.T) {
		_, err := w.CreateRemittances(lakeside(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run3"})
		require.True(t, problem.Is(err, problem.Forbidden), "%v", err)
	})
}

func TestALargeGroupIsSplit(t *testing.T) {
	w := newWorld(t, 5, func(d *Deps) { d.Config.RemittanceClaims = 2 })
	file, _ := w.adjudicate(visit(0, "2026-02-10"), visit(1, "2026-02-10"), visit(2, "2026-02-10"), visit(3, "2026-02-10"), visit(4, "2026-02-10"))
	res, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
	require.NoError(t, err)
	sizes := []int{}
	for _, m := range res.Remittances {
		sizes = append(sizes, len(m.ClaimIds))
	}
	require.Equal(t, []int{2, 2, 1}, sizes)
}

// A run that breaks off at any append, recorded or not, and is then repeated
// by itself or overtaken by another run, puts each claim into one remittance
// and each remittance on the ledger once.
func TestARunThatBrokeOffAnywhereIsCompletedAndNothingIsPaidTwice(t *testing.T) {
	for _, fault := range []eventstore.Fault{eventstore.FaultRefused, eventstore.FaultLostAck} {
		for _, next := range []string{"run1", "run2"} {
			for after := range 14 {
				t.Run(fmt.Sprintf("fault %d at append %d then %s", fault, after, next), func(t *testing.T) {
					store := &flaky{after: -1, fault: fault}
					w := newWorld(t, 4, func(d *Deps) {
						store.Memory = d.Store.(*eventstore.Memory)
						d.Store = store
					})
					file, ids := w.adjudicate(visit(0, "2026-02-10"), visit(0, "2026-02-11"), visit(1, "2026-02-10", billedBy(otherBiller)), visit(2, "2026-02-10"))
					store.after = after
					_, err := w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: "run1"})
					if err != nil {
						require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
					}
					store.after = -1
					_, err = w.CreateRemittances(service(), &claimsv1.CreateRemittancesRequest{FileId: file, RequestId: next})
					require.NoError(t, err)

					in, issued, total := map[string]int{}, map[string]int{}, int64(0)
					for _, r := range w.events() {
						if e, ok := r.Event.(*eventsv1.RemittanceIssued); ok {
							issued[e.Remittance.RemittanceId]++
							total += e.Remittance.PaidCents
							for _, id := range e.Remittance.ClaimIds {
								in[id]++
							}
						}
					}
					for _, id := range ids {
						require.Equal(t, 1, in[id], "each claim is in one remittance")
					}
					for _, n := range issued {
						require.Equal(t, 1, n)
					}
					require.EqualValues(t, 8000, total)
				})
			}
		}
	}
}
