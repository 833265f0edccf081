package shard

import (
	"cmp"
	"slices"
)

// Place names a shard as Kafka does.
type Place struct {
	Topic     string
	Partition int
}

func comparePlaces(a, b Place) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// Member is a node that shares the ledger's shards with others.
type Member struct {
	// ID is the group's name for it.
	ID string
	// Holds are the shards it writes now.
	Holds []Place
	// Fit tells whether it can write a shard; nil is any.
	Fit func(Place) bool
}

// Balance gives each place to one member that is fit for it. Members get
// equal shares, give or take one, as far as fitness allows, and a place stays
// with the member that holds it unless its share is full: a shard that moves
// pauses its writers for a moment. What no member is fit for is given to
// nobody. The result depends on nothing but the arguments' content.
func Balance(members []Member, places []Place) map[string][]Place {
	members, places = slices.Clone(members), slices.Clone(places)
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(places, comparePlaces)
	out := make(map[string][]Place, len(members))
	if len(members) == 0 {
		return out
	}
	fit := func(m Member, p Place) bool { return m.Fit == nil || m.Fit(p) }
	given := make(map[Place]bool, len(places))
	give := func(m Member, p Place) {
		out[m.ID] = append(out[m.ID], p)
		given[p] = true
	}
	share, more := len(places)/len(members), len(places)%len(members)
	// Of two that claim to hold a place the first by name keeps it: which of
	// them really does shows by the epoch, soon enough.
	for limit := share; limit <= share+1; limit++ {
		for _, m := range members {
			for _, p := range slices.SortedFunc(slices.Values(m.Holds), comparePlaces) {
				if len(out[m.ID]) >= limit || limit > share && more == 0 {
					break
				}
				if _, known := slices.BinarySearchFunc(places, p, comparePlaces); !known || given[p] || !fit(m, p) {
					continue
				}
				give(m, p)
				if limit > share {
					more--
				}
			}
		}
	}
	for _, p := range places {
		if given[p] {
			continue
		}
		best := -1
		for i, m := range members {
			if fit(m, p) && (best < 0 || len(out[m.ID]) < len(out[members[best].ID])) {
				best = i
			}
		}
		if best >= 0 {
			give(members[best], p)
		}
	}
	for id := range out {
		slices.SortFunc(out[id], comparePlaces)
	}
	return out
}
