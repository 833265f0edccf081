package adjudication

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAClauseIsSaidInPlainWords(t *testing.T) {
	for clause, want := range map[string]string{
		"costShare.inNetwork.deductible":                               "the plan's deductible in network",
		"costShare.tiers.centre.coinsurance":                           "the plan's coinsurance in tier centre",
		"benefits":                                                     "the plan's list of benefits",
		"benefits.office_visit":                                        "benefit office_visit of the plan",
		"benefits.office_visit.copay":                                  "the copay of benefit office_visit",
		"benefits.imaging.tiers.centre.copay":                          "the copay of benefit imaging in tier centre",
		"benefits.imaging.priorAuthorization":                          "benefit imaging needs prior authorisation",
		"facilityRates.stay":                                           "the contract's facility rate stay",
		"rules.no_cosmetic: What is for looks is not covered. See 4.2": "the plan's rule no_cosmetic: What is for looks is not covered. See 4.2",
		// What isn't known is told as it stands.
		"costShare.tiers": "costShare.tiers", "benefits.x.y": "benefits.x.y", "": "",
	} {
		require.Equal(t, want, ClauseWords(clause), clause)
	}
}

// Every clause that a plan's benefits and tiers are compiled to has its words.
func TestEveryClauseOfAPlanHasWords(t *testing.T) {
	b := newBenefit(Benefit{Name: "care"})
	for _, clause := range []string{
		b.clause, b.clauseCopay, b.clauseCoinsurance, b.clauseVisits, b.clauseDollars, b.clauseLifetime, b.clauseDiagnosis,
		b.clauseAuthorization, b.clauseDocument, b.clauseReview, b.clauseSpecialist, clauseCarveOut, clauseAuthorizationList,
	} {
		require.NotEqual(t, clause, ClauseWords(clause))
	}
}

func TestAFigureIsSaidInItsUnit(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"deductible_remaining_cents", "5000", "deductible still to meet 50.00"},
		{"payable_milli", "8100", "units priced 8.1"},
		{"fee_bps", "10000", "allowed at 100 % of the fee"},
		{"share_bps", "3333", "reduced to 33.33 %"},
		{"noncovered_cents", "-105", "noncovered -1.05"},
		{"coverage_end_date", "2026-03-31", "covered until 2026-03-31"},
		{"service_date", "2026-03-31", "service 2026-03-31"},
		{"modifier_indicator", "0", "no modifier lets the two be paid side by side"},
		{"modifier_indicator", "9", "modifier indicator 9"},
		{"limit_units", "2", "most units 2"},
	} {
		require.Equal(t, c.want, FactWords(c.key, c.value), c.key)
	}
	require.Equal(t, "-0.5", decimal(-500, 1000))
	require.Equal(t, "100", decimal(10000, 100))
}
