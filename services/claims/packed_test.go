package claims

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
)

// A family that was packed is the family that was: under any order of claims,
// reversals and claims decided again.
func TestAPackedFamilyIsTheFamily(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		family := nothingLedgered()
		stands := map[string][]*claimsv1.AccumulatorPosting{}
		for revision := range rapid.IntRange(0, 12).Draw(t, "events") {
			event := &eventsv1.AccumulatorsPosted{
				ClaimId:       rapid.SampledFrom([]string{"", "clm_a", "clm_b", "clm_c", "clm_d"}).Draw(t, "claim"),
				UnsettledFrom: rapid.SampledFrom([]string{"", "clm_a"}).Draw(t, "unsettled"),
			}
			var history *eventsv1.ServiceHistory
			switch posted, live := stands[event.ClaimId]; {
			case event.ClaimId == "":
			case live:
				event.Reversal = true
				for _, p := range posted {
					event.Postings = append(event.Postings, &claimsv1.AccumulatorPosting{
						Scope: p.Scope, Subject: p.Subject, Kind: p.Kind, Network: p.Network, PlanYear: p.PlanYear, Amount: -p.Amount,
					})
				}
				delete(stands, event.ClaimId)
			default:
				event.Postings = rapid.SliceOfN(rapid.Custom(somePosting), 0, 4).Draw(t, "postings")
				stands[event.ClaimId] = event.Postings
				history = &eventsv1.ServiceHistory{Lines: rapid.SliceOfN(rapid.Custom(someLine), 0, 3).Draw(t, "lines")}
			}
			var err error
			if family, err = family.post(uint64(revision), event, history); err != nil {
				t.Fatal(err)
			}
			again := family.pack().unpack()
			require.Equal(t, family.Revision, again.Revision)
			require.Equal(t, family.unsettled, again.unsettled)
			require.Equal(t, len(family.Sums), len(again.Sums))
			for k, v := range family.Sums {
				require.Equal(t, v, again.Sums[k], "%v", k)
			}
			require.Equal(t, fmt.Sprintf("%+v", family.History), fmt.Sprintf("%+v", again.History))
			require.Equal(t, fmt.Sprintf("%+v", family.claims), fmt.Sprintf("%+v", again.claims))
		}
	})
}

func somePosting(t *rapid.T) *claimsv1.AccumulatorPosting {
	p := &claimsv1.AccumulatorPosting{
		Scope: "family", Network: rapid.SampledFrom([]string{"in", "out", "all", "in:gold"}).Draw(t, "network"),
		Kind: "deductible", PlanYear: rapid.SampledFrom([]string{"2025-01-01", "2026-01-01"}).Draw(t, "year"),
		Amount: rapid.SampledFrom([]int64{0, 1, 12345, 9999999999}).Draw(t, "amount"),
	}
	if rapid.Bool().Draw(t, "individual") {
		p.Scope, p.Subject = "individual", rapid.SampledFrom([]string{"sub_a", "sub_b"}).Draw(t, "subject")
	}
	switch {
	case p.Network == "in:gold":
	case rapid.Bool().Draw(t, "visits"):
		p.Kind = "visits:physical-therapy"
	case rapid.Bool().Draw(t, "lifetime"):
		p.Kind, p.PlanYear = "lifetime:orthodontia", ""
	}
	return p
}

func someLine(t *rapid.T) *eventsv1.HistoryLine {
	text := rapid.SampledFrom([]string{"", "1234567893", "99213", "a longer text, also not ASCII: ä"})
	return &eventsv1.HistoryLine{
		ClaimId: text.Draw(t, "claim"), Number: rapid.Uint32().Draw(t, "number"), Subject: text.Draw(t, "subject"),
		BillingNpi: text.Draw(t, "billing"), RenderingNpi: text.Draw(t, "rendering"),
		ServiceDate: "2026-02-10", ServiceEndDate: rapid.SampledFrom([]string{"", "2026-02-11"}).Draw(t, "end"),
		Procedure: text.Draw(t, "procedure"), Modifiers: rapid.SliceOfN(text, 0, 4).Draw(t, "modifiers"),
		QuantityMilli: rapid.Int64().Draw(t, "quantity"), ChargeCents: rapid.Int64().Draw(t, "charge"),
		Allowed: rapid.Bool().Draw(t, "allowed"), AllowedQuantityMilli: rapid.Int64().Draw(t, "allowed quantity"),
	}
}

// Families are bounded by what they take, and those that are held are kept.
func TestFamiliesAreForgottenByTheirWeight(t *testing.T) {
	fs := &families{shelf: newShelf[family](3 * familyOverhead)}
	big, err := fs.hold(context.Background(), "big")
	require.NoError(t, err)
	snapshot := nothingLedgered()
	for i := range 20 {
		snapshot, err = snapshot.post(uint64(i), &eventsv1.AccumulatorsPosted{ClaimId: fmt.Sprint("clm_", i)}, nil)
		require.NoError(t, err)
	}
	big.value.snapshot = snapshot
	fs.release(big)

	// One that still fits leaves it there.
	small, err := fs.hold(context.Background(), "small")
	require.NoError(t, err)
	fs.release(small)
	again, err := fs.hold(context.Background(), "big")
	require.NoError(t, err)
	require.NotNil(t, again.value.snapshot)
	require.Equal(t, int64(19), again.value.snapshot.Revision)
	fs.release(again)

	// Others push out what was not used for the longest time.
	for i := range 3 {
		e, err := fs.hold(context.Background(), fmt.Sprint(i))
		require.NoError(t, err)
		fs.release(e)
	}
	again, err = fs.hold(context.Background(), "big")
	require.NoError(t, err)
	require.Nil(t, again.value.snapshot, "it was forgotten")
	fs.release(again)
	require.LessOrEqual(t, fs.weight, fs.max+familyOverhead)
}
