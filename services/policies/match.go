package policies

import (
	"cmp"
	"slices"
	"strings"
)

// codeRange is a code or an inclusive run of codes of one shape: "99202-99215"
// runs over five digits, "J0120-J9999" over J and four digits. Codes of other
// shapes ("0001F") never fall into it, although as text they might.
type codeRange struct {
	shape  string // letters kept, digits as '#': "#####", "J####", "####F"
	lo, hi int    // the digits as a number
}

// parseRange reads "99213" or "99202-99215"; false when the ends differ in shape or order.
func parseRange(s string) (codeRange, bool) {
	from, to, isRange := strings.Cut(s, "-")
	shape, lo := shapeOf(from)
	if !isRange {
		return codeRange{shape, lo, lo}, true
	}
	end, hi := shapeOf(to)
	return codeRange{shape, lo, hi}, end == shape && lo <= hi
}

func shapeOf(code string) (string, int) {
	shape, n := []byte(code), 0
	for i, c := range shape {
		if '0' <= c && c <= '9' {
			n = n*10 + int(c-'0')
			shape[i] = '#'
		}
	}
	return string(shape), n
}

// codeSet is a union of ranges, merged and ordered so that every run of
// adjoining codes is one element.
type codeSet []codeRange

func union(ranges []codeRange) codeSet {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b codeRange) int {
		return cmp.Or(strings.Compare(a.shape, b.shape), cmp.Compare(a.lo, b.lo))
	})
	var out codeSet
	for _, r := range sorted {
		if last := len(out) - 1; last >= 0 && out[last].shape == r.shape && r.lo <= out[last].hi+1 {
			out[last].hi = max(out[last].hi, r.hi)
			continue
		}
		out = append(out, r)
	}
	return out
}

// holds tells whether every code of r is in s: merged, they lie in one element.
func (s codeSet) holds(r codeRange) bool {
	i, exact := slices.BinarySearchFunc(s, r, func(e, r codeRange) int {
		return cmp.Or(strings.Compare(e.shape, r.shape), cmp.Compare(e.lo, r.lo))
	})
	if !exact {
		i--
	}
	return i >= 0 && s[i].shape == r.shape && s[i].lo <= r.lo && r.hi <= s[i].hi
}

// meets tells whether s and r share a code.
func (s codeSet) meets(r codeRange) bool {
	i, _ := slices.BinarySearchFunc(s, r, func(e, r codeRange) int {
		return cmp.Or(strings.Compare(e.shape, r.shape), cmp.Compare(e.lo, r.lo))
	})
	return i < len(s) && s[i].shape == r.shape && s[i].lo <= r.hi ||
		i > 0 && s[i-1].shape == r.shape && r.lo <= s[i-1].hi
}

func (s codeSet) holdsAll(ranges []codeRange) bool {
	for _, r := range ranges {
		if !s.holds(r) {
			return false
		}
	}
	return true
}
