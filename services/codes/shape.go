package codes

// ValidNPI tells whether s is a National Provider Identifier with a right
// check digit: ten digits, the first 1 or 2, Luhn over "80840" and the
// number (45 CFR 162.406, CMS NPI check digit guidance).
func ValidNPI(s string) bool {
	if len(s) != 10 || (s[0] != '1' && s[0] != '2') || !allDigits(s) {
		return false
	}
	// The prefix 80840 adds 8 + 2·0 + 8 + 2·4 + 0 to every sum.
	sum := 24
	for i := range len(s) {
		d := int(s[i] - '0')
		if i%2 == 0 { // doubled: every second digit left of the check digit
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// ValidProcedure tells whether s is shaped like a CPT code (five digits, or
// four digits and F, M, T or U) or a HCPCS level II code (A to V and four
// digits).
func ValidProcedure(s string) bool {
	if len(s) != 5 || !allDigits(s[1:4]) {
		return false
	}
	switch first, last := s[0], s[4]; {
	case digit(first) && digit(last):
		return true
	case digit(first):
		return last == 'F' || last == 'M' || last == 'T' || last == 'U'
	default:
		return 'A' <= first && first <= 'V' && digit(last)
	}
}

// ValidModifier tells whether s is shaped like a CPT or HCPCS modifier: two
// digits or capital letters.
func ValidModifier(s string) bool {
	return len(s) == 2 && alnum(s[0]) && alnum(s[1])
}

// ValidRevenueCode tells whether s is shaped like a revenue code (NUBC): four
// digits, or three with the leading zero left out.
func ValidRevenueCode(s string) bool {
	return (len(s) == 3 || len(s) == 4) && allDigits(s)
}

// Edition is a diagnosis code set.
type Edition uint8

// The editions. ICD-10-CM replaced ICD-9-CM for services from ICD10Start
// (45 CFR 162.1002).
const (
	ICD9CM Edition = iota + 1
	ICD10CM
)

// ICD10Start is the first date of service coded in ICD-10-CM.
const ICD10Start = "2015-10-01"

// EditionOfQualifier returns the edition that an HI qualifier names (HI01-1);
// ok is false for a qualifier that isn't a diagnosis's.
func EditionOfQualifier(q string) (e Edition, ok bool) {
	switch q {
	case "ABK", "ABF", "ABJ", "ABN", "APR":
		return ICD10CM, true
	case "BK", "BF", "BJ", "BN", "PR":
		return ICD9CM, true
	}
	return 0, false
}

// ValidDiagnosis tells whether s, without its dot, is shaped like a code of
// the edition. ICD-10-CM: a letter, a digit, a digit or A or B, then up to
// four more. ICD-9-CM: three to five digits, V and two to four, or E and
// three or four.
func ValidDiagnosis(s string, e Edition) bool {
	switch e {
	case ICD10CM:
		if len(s) < 3 || len(s) > 7 || s[0] < 'A' || s[0] > 'Z' || !digit(s[1]) {
			return false
		}
		if !digit(s[2]) && s[2] != 'A' && s[2] != 'B' {
			return false
		}
		for i := 3; i < len(s); i++ {
			if !alnum(s[i]) {
				return false
			}
		}
		return true
	case ICD9CM:
		if s == "" {
			return false
		}
		switch s[0] {
		case 'V':
			return len(s) >= 3 && len(s) <= 5 && allDigits(s[1:])
		case 'E':
			return len(s) >= 4 && len(s) <= 5 && allDigits(s[1:])
		default:
			return len(s) >= 3 && len(s) <= 5 && allDigits(s)
		}
	}
	return false
}

// SeparateService tells whether a modifier says that a service like another
// of the day was given a second time or apart from it: repeats (76, 77, 91),
// distinct services (59, XE, XP, XS, XU), sides and digits of the body, and
// the professional or technical half.
func SeparateService(modifier string) bool {
	switch modifier {
	case "76", "77", "91", "59", "XE", "XP", "XS", "XU",
		"50", "LT", "RT", "E1", "E2", "E3", "E4",
		"FA", "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9",
		"TA", "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9",
		"LC", "LD", "LM", "RC", "RI", "26", "TC":
		return true
	}
	return false
}

// RepeatService tells whether a modifier says that the very same service was
// given again: two otherwise equal lines of one claim are then no duplicates.
func RepeatService(modifier string) bool {
	switch modifier {
	case "76", "77", "91", "59", "XE", "XP", "XS", "XU":
		return true
	}
	return false
}

// OpensPair tells whether a modifier may set two procedures of a pair apart:
// the modifiers that CMS associates with procedure-to-procedure edits of
// indicator 1 (NCCI Policy Manual, chapter 1, section E).
func OpensPair(modifier string) bool {
	switch modifier {
	case "24", "25", "27", "57", "58", "78", "79", "91":
		return true
	}
	return DistinctService(modifier) || BodySite(modifier)
}

// DistinctService tells whether a modifier says that a service was apart from
// the day's others: 59 and its four finer forms.
func DistinctService(modifier string) bool {
	switch modifier {
	case "59", "XE", "XP", "XS", "XU":
		return true
	}
	return false
}

// BodySite tells whether a modifier names a side, a digit, an eyelid or an artery.
func BodySite(modifier string) bool {
	switch modifier {
	case "LT", "RT", "E1", "E2", "E3", "E4",
		"FA", "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9",
		"TA", "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9",
		"LC", "LD", "LM", "RC", "RI":
		return true
	}
	return false
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func alnum(c byte) bool { return digit(c) || ('A' <= c && c <= 'Z') }

func allDigits(s string) bool {
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return true
}
