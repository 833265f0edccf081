package book

import (
	"context"
	"slices"

	"github.com/probity-health/probity/services/policies"
)

// What a commit of the policies log touches of what was decided before it.
// Asked of a book that has applied the commit; what came later doesn't change
// the answer.

// Superseded are the versions, as decisions record them, whose readers one
// version of a document touches: those that governed days which it takes over,
// and those before them that were still read on such days, because a version
// between was published late and left the outcome as it was. retroactive tells
// whether it governs any day before it was published; if not, nothing was
// decided that it touches.
func (b *Book) Superseded(id string, version uint32) (refs []string, retroactive bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if s := b.plans[id]; s != nil {
		return s.superseded(id, version)
	}
	if s := b.schedules[id]; s != nil {
		return s.superseded(id, version)
	}
	if s := b.contracts[id]; s != nil {
		return s.superseded(id, version)
	}
	if s := b.networks[id]; s != nil {
		return s.superseded(id, version)
	}
	return nil, false
}

func (s *shelf[D]) superseded(id string, version uint32) ([]string, bool) {
	if version == 0 || int(version) > len(s.history) {
		return nil, false
	}
	late := func(v uint32) policies.Period {
		return policies.Period{Start: s.history[v-1].GetEffective().GetStartDate(), End: s.published[v-1]}
	}
	taken := late(version)
	if taken.Start > taken.End {
		return nil, false
	}
	before := s.history[:version-1]
	var out []string
	for v := uint32(1); v < version; v++ {
		governed, ok := before.Governs(v)
		touched := ok && governed.Overlaps(taken)
		for between := v + 1; between < version && !touched; between++ {
			days, ok := late(between).Within(policies.PeriodOf(s.history[v-1].GetEffective()))
			touched = ok && late(between).Start <= late(between).End && days.Overlaps(taken)
		}
		if touched {
			out = append(out, policies.Ref(id, v))
		}
	}
	return out, true
}

// ContractRefs are all versions of the payer's contracts that ever listed one
// of the NPIs, but for those of one contract.
func (b *Book) ContractRefs(payerID string, npis []string, but string) []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var ids []string
	for _, npi := range npis {
		ids = append(ids, b.listed[providerKey{payerID, npi}]...)
	}
	slices.Sort(ids)
	var out []string
	for _, id := range slices.Compact(ids) {
		if id == but {
			continue
		}
		for v := range b.contracts[id].history {
			out = append(out, policies.Ref(id, uint32(v+1)))
		}
	}
	return out
}

// MemberAt is a person's coverage as it was after a revision of the person's
// stream, with Before as the event found it; nil for a person unknown then.
func (b *Book) MemberAt(subject string, revision uint64) *policies.Member {
	b.mu.RLock()
	defer b.mu.RUnlock()
	m := b.members[subject]
	for m != nil && m.Revision > int64(revision) {
		m = m.Before
	}
	return m
}

// WaitNext returns once everything before the given indexes is applied, or
// with an Unavailable problem when ctx ends.
func (b *Book) WaitNext(ctx context.Context, next map[uint32]uint64) error {
	return b.await(ctx, func() bool {
		for shard, index := range next {
			if b.next[shard] < index {
				return false
			}
		}
		return true
	})
}
