package distributed

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/eventstore"
)

// listed are the biller's claims.
func (c *crowd) listed(t *testing.T) []*claimsv1.ClaimSummary {
	t.Helper()
	var all []*claimsv1.ClaimSummary
	for page := ""; ; {
		answer := patiently(t, func(ctx context.Context) (*claimsv1.ListClaimsResponse, error) {
			return c.biller.Claims.ListClaims(ctx, &claimsv1.ListClaimsRequest{PageSize: 500, PageToken: page})
		})
		all = append(all, answer.GetClaims()...)
		if page = answer.GetNextPageToken(); page == "" {
			return all
		}
	}
}

// events hands every event of the claims log to each.
func (c *crowd) events(t *testing.T, each func(stream string, event any)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := c.at(c.url("ledger"), "auditor").Ledger.Subscribe(ctx, &ledgerv1.SubscribeRequest{Log: "claims"})
	require.NoError(t, err)
	defer func() { _ = stream.Close() }()
	var codec eventstore.Codec
	for caughtUp := false; !caughtUp && stream.Receive(); caughtUp = stream.Msg().GetCaughtUp() {
		for _, e := range stream.Msg().GetEvents() {
			event, err := codec.Decode(e.GetEvent())
			require.NoError(t, err)
			each(e.GetStream(), event)
		}
	}
	require.NoError(t, stream.Err())
}

func (c *crowd) requireFinal(t *testing.T) {
	want := map[string][]string{}
	for i, id := range c.ids {
		switch {
		case i < crowdReplaced+crowdVoided:
			want[id] = []string{"reversed"}
		case i >= crowdByRPC && (i-crowdByRPC)%3 == 0:
			want[id] = []string{"denied"}
		default:
			want[id] = []string{"paid", "denied"} // a deductible may take all of it; elsewhere is not covered
		}
	}
	for _, id := range c.replacement {
		want[id] = []string{"paid", "denied"}
	}
	statuses, ids, inFile, voids := map[string]int{}, map[string]bool{}, 0, 0
	for _, x := range c.listed(t) {
		require.False(t, ids[x.GetClaimId()], "listed twice")
		ids[x.GetClaimId()] = true
		is := status(x.GetStatus())
		statuses[is]++
		switch allowed, known := want[x.GetClaimId()]; {
		case known:
			require.Contains(t, allowed, is, x.GetClaimId())
		case x.GetFileId() == c.file:
			inFile++
			require.Contains(t, []string{"paid", "denied"}, is, x.GetClaimId())
		default:
			voids++
			require.Equal(t, "reversed", is, "a void")
		}
	}
	require.Equal(t, []int{crowdInFile, crowdVoided}, []int{inFile, voids})
	require.Len(t, ids, crowdInFile+crowdByRPC+crowdReviewed+crowdReplaced+crowdVoided)
	t.Logf("%d claims: %v; killed: %v", len(ids), statuses, c.kills)

	received, ends, reviewed, completed := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	c.events(t, func(stream string, event any) {
		switch e := event.(type) {
		case *eventsv1.ClaimReceived:
			received[e.GetClaimId()]++
		case *eventsv1.ClaimReviewed:
			reviewed[e.GetClaimId()]++
		case *eventsv1.FileCompleted:
			completed[stream]++
		case *eventsv1.ClaimDecided:
			if e.GetStatus() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
				ends[e.GetClaimId()]++
			}
		case *eventsv1.ClaimReversed:
			if e.GetReason() == eventsv1.ReversalReason_REVERSAL_REASON_ACCUMULATORS_MOVED {
				ends[e.GetClaimId()]-- // another decision follows in the same commit
			}
		}
	})
	require.Len(t, received, len(ids))
	for id := range ids {
		require.Equal(t, []int{1, 1}, []int{received[id], ends[id]}, id)
	}
	require.Len(t, reviewed, crowdReviewed)
	for _, id := range c.ids[crowdByRPC:] {
		require.Equal(t, 1, reviewed[id], id)
	}
	require.Equal(t, map[string]int{"file-" + c.file: 1}, completed)
}

// requirePaid: of each claim as much was told as stands; and each payee has, of
// what the bank kept and what was settled outside, what was told of its claims
// with interest and what it still owes back.
func (c *crowd) requirePaid(t *testing.T) {
	require.Empty(t, c.twice)
	payeeOf, remitted := map[string]string{}, map[string]*claimsv1.Remittance{}
	for page := ""; ; {
		answer := patiently(t, func(ctx context.Context) (*claimsv1.ListRemittancesResponse, error) {
			return c.biller.Remittances.ListRemittances(ctx, &claimsv1.ListRemittancesRequest{PageSize: 500, PageToken: page})
		})
		for _, m := range answer.GetRemittances() {
			payeeOf[m.GetRemittanceId()] = m.GetPayeeNpi()
			remitted[m.GetRemittanceId()] = m
		}
		if page = answer.GetNextPageToken(); page == "" {
			break
		}
	}
	type telling struct{ claim, remittance string }
	tellings, interest, intended := map[telling]int64{}, map[telling]int64{}, map[string]int{}
	owed, held := map[string]int64{}, map[string]bool{} // by payee; by stream and payment
	c.events(t, func(stream string, event any) {
		switch e := event.(type) {
		case *eventsv1.ClaimRemitted:
			of := telling{e.GetClaimId(), e.GetRemittanceId()}
			require.NotContains(t, tellings, of)
			tellings[of] = e.GetPaidCents()
			interest[of] = e.GetInterestCents()
		case *eventsv1.ClaimRemittanceVoided: // what it told is not due
			delete(tellings, telling{e.GetClaimId(), e.GetRemittanceId()})
		case *eventsv1.PayeeAccountPosted:
			owed[payeeOf[e.GetRemittanceId()]] = e.GetBalanceCents()
		case *eventsv1.PayeeAccountRestored:
			owed[payeeOf[e.GetRemittanceId()]] = e.GetBalanceCents()
		case *eventsv1.PaymentIntended:
			intended[e.GetPayment().GetRemittanceId()]++
		case *eventsv1.PayeeHeld:
			held[stream+e.GetPaymentId()] = true
		case *eventsv1.PayeeFreed:
			delete(held, stream+e.GetPaymentId())
		case *eventsv1.PaymentCleared:
			for hold := range held {
				require.False(t, strings.HasPrefix(hold, stream), "cleared while its payee was held")
			}
		}
	})
	toldOf, due := map[string]int64{}, map[string]int64{} // by claim; by payee
	for of, cents := range tellings {
		toldOf[of.claim] += cents
		due[payeeOf[of.remittance]] += cents + interest[of]
	}
	standing := int64(0)
	for _, x := range c.listed(t) {
		require.Equal(t, x.GetPaidCents(), toldOf[x.GetClaimId()], x.GetClaimId())
		standing += x.GetPaidCents()
	}
	require.Positive(t, standing)

	list := patiently(t, func(ctx context.Context) (*claimsv1.ListPaymentsResponse, error) {
		return c.planAdmin.Payments.ListPayments(ctx, &claimsv1.ListPaymentsRequest{PageSize: 1000})
	})
	require.Empty(t, list.GetNextPageToken())
	got, kinds, byCheck := map[string]int64{}, map[string]int{}, 0
	for _, p := range list.GetPayments() {
		m := remitted[p.GetRemittanceId()]
		require.NotNil(t, m)
		require.Equal(t, 1, intended[p.GetRemittanceId()])
		require.Equal(t, p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_VOIDED, m.GetVoided(), "%v", p)
		o, taken := c.taken[p.GetPaymentId()]
		require.Equal(t, taken && c.kept[p.GetPaymentId()], p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, "%v", p)
		if taken {
			require.Equal(t, []any{m.GetPaidCents(), m.GetPayeeNpi(), m.GetTraceNumber()}, []any{o.AmountCents, o.PayeeNPI, o.TraceNumber})
			byCheck += strings.Count(o.Method, "check")
		} else {
			require.Equal(t, closed, p.GetPayeeNpi(), "only what the bank refused was not taken")
		}
		kinds[p.GetState().String()]++
		switch p.GetState() {
		case claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF:
			got[p.GetPayeeNpi()] += p.GetAmountCents()
		default:
			require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_VOIDED, p.GetState())
		}
	}
	require.Positive(t, byCheck)
	require.Equal(t, 1, kinds["PAYMENT_STATE_WRITTEN_OFF"])
	paid := int64(0)
	for npi := range due {
		require.Equal(t, due[npi]+owed[npi], got[npi], "payee %s", npi)
		paid += got[npi]
	}
	require.Positive(t, paid)
	t.Logf("%d payments %v pay %d cents for claims of %d", len(list.GetPayments()), kinds, paid, standing)
}
