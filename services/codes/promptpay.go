package codes

// DefaultPromptPayDays is the clock where no state's rule is known; it is
// also Medicare's (42 U.S.C. 1395u(c)(2)).
const DefaultPromptPayDays = 30

// PromptPayDays returns the days within which a payer must pay or answer a
// clean claim, by the two-letter state whose law governs it and by how the
// claim came. An unknown state has DefaultPromptPayDays.
//
// Where a law counts working days, or differs by kind of plan, the table
// holds the strictest reading in calendar days, so that a clock built on it
// warns early and never late. It is a starting point taken from published
// overviews of the statutes: a payer's counsel confirms its own states.
func PromptPayDays(state string, electronic bool) int {
	days, ok := promptPay[state]
	switch {
	case !ok:
		return DefaultPromptPayDays
	case electronic:
		return int(days[0])
	}
	return int(days[1])
}

// promptPay holds electronic and paper days; states at 30/30 are left to the default.
var promptPay = map[string][2]uint8{
	"AL": {30, 45}, "AR": {30, 45}, "CO": {30, 45}, "CT": {20, 60}, "FL": {20, 40},
	"GA": {15, 30}, "HI": {15, 30}, "ID": {30, 45}, "IN": {30, 45}, "LA": {25, 45},
	"MA": {45, 45}, "MI": {45, 45}, "MS": {25, 35}, "ND": {15, 15},
	"NE": {30, 45}, "NH": {15, 30}, "NJ": {30, 40}, "NM": {30, 45}, "NY": {30, 45},
	"OK": {45, 45}, "PA": {45, 45}, "RI": {30, 40}, "SC": {20, 40}, "SD": {30, 45},
	"TN": {21, 30}, "TX": {30, 45}, "VA": {40, 40}, "WV": {30, 40}, "WY": {45, 45},
}
