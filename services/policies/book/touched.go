package book

import (
	"context"
	"slices"

	"github.com/probity-health/probity/services/policies"
)

// What a commit of the policies log touches of what was decided before it.
// Asked of a book that has applied the commit; what came later doesn't change
// the answer.

// Superseded are the versions, as decisions record them, that governed days
// which one version of a document takes over. The id's prefix tells the kind.
func (b *Book) Superseded(id string, version uint32) []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if s := b.plans[id]; s != nil {
		return superseded(s.history, id, version)
	}
	if s := b.schedules[id]; s != nil {
		return superseded(s.history, id, version)
	}
	if s := b.contracts[id]; s != nil {
		return superseded(s.history, id, version)
	}
	return nil
}

func superseded[D policies.Document](h policies.History[D], id string, version uint32) []string {
	if version < 2 || int(version) > len(h) {
		return nil
	}
	period := policies.PeriodOf(h[version-1].GetEffective())
	before := h[:version-1]
	var out []string
	for v := uint32(1); v < version; v++ {
		if governed, ok := before.Governs(v); ok && governed.Overlaps(period) {
			out = append(out, policies.Ref(id, v))
		}
	}
	return out
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
