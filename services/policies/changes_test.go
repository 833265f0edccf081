package policies

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// Whatever a sponsor asks for, in whatever order: coverage never overlaps and
// never leaves its policy, what was decided is so when it is asked again, and
// what was known after each event stays known of that time.
func TestAnyOrderOfChangesKeepsCoverageSound(t *testing.T) {
	year := func(id, end string) *policiesv1.Policy {
		return &policiesv1.Policy{PolicyId: id, PayerId: "P1", Effective: &typev1.Period{StartDate: "2026-01-01", EndDate: end}}
	}
	policyOf := map[string]*policiesv1.Policy{"pol_a": year("pol_a", ""), "pol_b": year("pol_b", "2026-12-31")}
	rapid.Check(t, func(t *rapid.T) {
		day := func(label string) string {
			return fmt.Sprintf("2026-%02d-%02d", rapid.IntRange(1, 6).Draw(t, label+" month"), rapid.SampledFrom([]int{1, 15, 28}).Draw(t, label+" day"))
		}
		m := NewMember()
		var states []Member
		at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			c := amendment{
				kind: rapid.SampledFrom([]policiesv1.MaintenanceType{
					policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD, policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE,
					policiesv1.MaintenanceType_MAINTENANCE_TYPE_REINSTATE, policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE,
					policiesv1.MaintenanceType_MAINTENANCE_TYPE_AUDIT,
				}).Draw(t, "kind"),
				coverageSaid: true,
				enrol:        enrol{subject: "sub_x", subscriber: "sub_card", relationship: "18", policy: policyOf[rapid.SampledFrom([]string{"pol_a", "pol_b"}).Draw(t, "policy")]},
			}
			c.coverage = Period{Start: day("start")}
			if rapid.Bool().Draw(t, "ends") || c.kind == policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE {
				c.coverage.End = day("end")
			}
			if c.coverage.End != "" && c.coverage.End < c.coverage.Start && c.kind != policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE {
				continue // the lint refuses it
			}
			got, err := decideAmendment(m, c)
			if err != nil {
				continue
			}
			if c.kind == policiesv1.MaintenanceType_MAINTENANCE_TYPE_AUDIT && len(got.events) > 0 {
				t.Fatal("an audit changed something")
			}
			for _, e := range got.events {
				at = at.Add(time.Hour)
				m = m.EvolveAt(e, uint64(m.Revision+1), at)
				states = append(states, m)
			}
			for i, s := range m.Spans {
				if i > 0 && m.Spans[i-1].Period.Overlaps(s.Period) || s.Period.End != "" && s.Period.End < s.Period.Start {
					t.Fatalf("spans %v", m.Spans)
				}
				if err := withinPolicy(policyOf[s.PolicyID], s.Period); err != nil {
					t.Fatalf("%v: %v", s, err)
				}
			}
			if again, err := decideAmendment(m, c); err != nil || len(again.events) > 0 {
				t.Fatalf("%v %v %v is not so after it was decided: %v %v; spans %v", c.kind, c.policy.GetPolicyId(), c.coverage, again.events, err, m.Spans)
			}
		}
		for _, want := range states {
			got, ok := m.KnownAt(want.Recorded)
			if !ok || fmt.Sprint(got.Spans) != fmt.Sprint(want.Spans) || got.Revision != want.Revision {
				t.Fatalf("as known at revision %d: %v", want.Revision, got)
			}
		}
		if len(states) > 0 {
			if _, known := m.KnownAt(states[0].Recorded.Add(-time.Second)); known {
				t.Fatal("something was known before anything was recorded")
			}
		}
	})
}
