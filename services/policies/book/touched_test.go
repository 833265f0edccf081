package book_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/policies/book"
)

// Which readers a version touches, by when it was published and from when it governs.
func TestWhatAVersionSupersedes(t *testing.T) {
	type published struct{ on, from string }
	for name, c := range map[string]struct {
		versions    []published
		refs        []string
		retroactive bool
	}{
		"the first, for days gone by":                           {[]published{{"2026-03-01", "2026-01-01"}}, nil, true},
		"one for days to come touches nothing":                  {[]published{{"2025-12-01", "2026-01-01"}, {"2026-03-01", "2026-07-01"}}, nil, false},
		"one for the day after it, as some zones have it":       {[]published{{"2025-12-01", "2026-01-01"}, {"2026-03-01", "2026-03-02"}}, []string{"plan_a@1"}, true},
		"a correction of all":                                   {[]published{{"2025-12-01", "2026-01-01"}, {"2026-03-01", "2026-01-01"}}, []string{"plan_a@1"}, true},
		"the year before isn't touched by a correction of this": {[]published{{"2024-12-01", "2025-01-01"}, {"2025-12-01", "2026-01-01"}, {"2026-03-01", "2026-01-01"}}, []string{"plan_a@2"}, true},
		"what a late version left as it was is":                 {[]published{{"2025-12-01", "2026-01-01"}, {"2026-03-01", "2026-01-01"}, {"2026-04-01", "2026-01-01"}}, []string{"plan_a@1", "plan_a@2"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := book.New()
			for i, v := range c.versions {
				on, err := time.Parse(time.DateOnly, v.on)
				require.NoError(t, err)
				require.NoError(t, b.Apply(eventstore.Batch{Events: []eventstore.Recorded{{
					Position: eventstore.Position{Log: "policies", Index: uint64(i)}, RecordedTime: on,
					Event: &eventsv1.PlanPublished{Version: uint32(i + 1), Plan: &policiesv1.PlanDocument{PlanId: "plan_a", PayerId: "P1", Effective: &typev1.Period{StartDate: v.from}}},
				}}}))
			}
			refs, retroactive := b.Superseded("plan_a", uint32(len(c.versions)))
			require.Equal(t, c.refs, refs)
			require.Equal(t, c.retroactive, retroactive)
		})
	}
}
