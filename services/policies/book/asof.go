package book

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/problem"
)

// AsOf says how much of the policies log a book has applied: the next index
// of every shard that is not empty, by shard, "0:412,3:97". The book is a
// pure fold, so a book that has applied exactly these commits answers exactly
// alike. Empty is a book that has applied nothing.
type AsOf string

// AsOfNext writes indexes to continue from as an AsOf.
func AsOfNext(next map[uint32]uint64) AsOf {
	var b strings.Builder
	for _, shard := range slices.Sorted(maps.Keys(next)) {
		if next[shard] == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(uint64(shard), 10))
		b.WriteByte(':')
		b.WriteString(strconv.FormatUint(next[shard], 10))
	}
	return AsOf(b.String())
}

// Next reads an AsOf back. Anything but what AsOfNext writes is refused.
func (a AsOf) Next() (map[uint32]uint64, error) {
	next := map[uint32]uint64{}
	if a == "" {
		return next, nil
	}
	for one := range strings.SplitSeq(string(a), ",") {
		shard, index, _ := strings.Cut(one, ":")
		s, err1 := strconv.ParseUint(shard, 10, 32)
		n, err2 := strconv.ParseUint(index, 10, 64)
		if err1 != nil || err2 != nil {
			return nil, badAsOf()
		}
		next[uint32(s)] = n
	}
	if AsOfNext(next) != a {
		return nil, badAsOf()
	}
	return next, nil
}

func badAsOf() error {
	return problem.New(problem.Internal, problem.Problem{RuleID: "book.as-of",
		Message: "a recorded state of the reference data can't be read", Fix: "tell the operator which claim it was"})
}
