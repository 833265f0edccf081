package codes

// PromptPayRule is what one state's law asks of a payer that has a clean claim.
//
// Where a law counts working days, or differs by kind of plan, the table
// holds the strictest reading in calendar days, so that a clock built on it
// warns early and never late. It is a starting point taken from published
// overviews of the statutes: a payer's counsel confirms its own states.
type PromptPayRule struct {
	// Electronic and Paper are the days to pay or deny, by how the claim came.
	Electronic, Paper int
	// Pauses: days spent waiting for the provider don't count, and the others
	// do. Otherwise the days begin anew when what was missing has come, since
	// until then the claim wasn't clean.
	Pauses bool
	// InterestBps is the annual simple interest on what is paid late, in basis
	// points; 0 where the law names no single rate.
	InterestBps int64
	// Source is where the rule is to be read.
	Source string
}

// DefaultPromptPayDays is the clock where no state's rule is known; it is
// also Medicare's (42 U.S.C. 1395u(c)(2)).
const DefaultPromptPayDays = 30

// PromptPay returns the rule of a two-letter state. An unknown state has the
// default days and no interest.
func PromptPay(state string) PromptPayRule {
	if r, ok := promptPay[state]; ok {
		return r
	}
	return PromptPayRule{Electronic: DefaultPromptPayDays, Paper: DefaultPromptPayDays, Source: "42 U.S.C. 1395u(c)(2), in want of a state's rule"}
}

// PromptPayDays returns the days within which a payer must pay or answer a
// clean claim, by the two-letter state whose law governs it and by how the
// claim came.
func PromptPayDays(state string, electronic bool) int {
	r := PromptPay(state)
	if electronic {
		return r.Electronic
	}
	return r.Paper
}

// PromptPayStates returns the states that the table names, in no order.
func PromptPayStates() []string {
	out := make([]string, 0, len(promptPay))
	for state := range promptPay {
		out = append(out, state)
	}
	return out
}

// overview marks rows whose days come from published overviews alone.
const overview = "published overviews of state prompt-pay laws; confirm the section"

// promptPay is the one table: electronic days, paper days, pauses, interest.
// States with steps of interest (Kentucky, Maryland), with penalties instead
// of it or with a rate that is set every year have none here.
var promptPay = map[string]PromptPayRule{
	"AL": {30, 45, false, 0, overview},
	"AR": {30, 45, false, 0, overview},
	"CA": {30, 30, false, 1500, "Health and Safety Code 1371"},
	"CO": {30, 45, false, 1000, "C.R.S. 10-16-106.5"},
	"CT": {20, 60, false, 1500, "Conn. Gen. Stat. 38a-816(15)"},
	"FL": {20, 40, false, 1200, "Fla. Stat. 627.6131"},
	"GA": {15, 30, false, 1200, "O.C.G.A. 33-24-59.5"},
	"HI": {15, 30, false, 0, overview},
	"ID": {30, 45, false, 0, overview},
	"IL": {30, 30, false, 900, "215 ILCS 5/368a"},
	"IN": {30, 45, false, 0, overview},
	"LA": {25, 45, false, 0, overview},
	"MA": {45, 45, false, 1800, "M.G.L. c. 176G s. 6: 1.5 % a month"},
	"MI": {45, 45, false, 1200, "MCL 500.2006"},
	"MN": {30, 30, false, 1800, "Minn. Stat. 62Q.75: 1.5 % a month"},
	"MO": {30, 30, false, 1200, "RSMo 376.383: 1 % a month"},
	"MS": {25, 35, false, 0, overview},
	"NC": {30, 30, false, 1800, "N.C.G.S. 58-3-225"},
	"ND": {15, 15, false, 0, overview},
	"NE": {30, 45, false, 0, overview},
	"NH": {15, 30, false, 0, overview},
	"NJ": {30, 40, false, 1200, "N.J.S.A. 17B:26-9.1"},
	"NM": {30, 45, false, 0, overview},
	"NY": {30, 45, false, 1200, "Insurance Law 3224-a"},
	"OH": {30, 30, true, 1800, "R.C. 3901.381(B)(2), days awaiting documents are not counted; R.C. 3901.389"},
	"OK": {45, 45, false, 0, overview},
	"PA": {45, 45, false, 1000, "40 P.S. 991.2166"},
	"RI": {30, 40, false, 0, overview},
	"SC": {20, 40, false, 0, overview},
	"SD": {30, 45, false, 0, overview},
	"TN": {21, 30, false, 1200, "T.C.A. 56-7-109: 1 % a month"},
	"TX": {30, 45, false, 1800, "Insurance Code 1301.103, 1301.137"},
	"VA": {40, 40, false, 0, overview},
	"WV": {30, 40, false, 0, overview},
	"WY": {45, 45, false, 0, overview},
}
