// Package policies owns what a payer sells, to whom and at which prices:
// plans, fee schedules, provider contracts and networks, policies, members and
// prior authorisations.
//
// A document (plan, fee schedule, contract, network) is written as YAML or JSON, read
// strictly (document.go), held against the rules of its message, then linted
// for contradictions no single field shows (lint*.go). What is published is
// recorded whole and never changes; a new version takes over from the day it
// names.
//
// decider.go is pure: it knows neither clock, store nor transport. Handler
// loads a stream, asks the decider, appends, and begins again when another
// writer was first.
//
// Invariants, each kept by the decider over one stream:
//   - versions of a document count from 1 without a gap, and on any date of
//     service at most one version governs (see InForce);
//   - a document never changes its payer;
//   - a person's coverage spans never overlap;
//   - a prior authorisation's number is given once.
//
// On the ledger a person is only an opaque subject id and keyed hashes; the
// enrolment itself is sealed under the subject's key. No error of this
// package carries a name, member id, birth date or number from a card.
package policies

import (
	"strconv"
	"time"

	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// Log is the log this package writes and the book follows.
const Log = "policies"

// Ref names a version of a document as decisions record it: "plan_gold@3".
func Ref(id string, version uint32) string {
	return id + "@" + strconv.FormatUint(uint64(version), 10)
}

// Streams. Each is its own aggregate and its id is also its routing key, so a
// command reads and writes one stream and depends on no view.
func planStream(id string) string        { return "plan-" + id }
func feeScheduleStream(id string) string { return "feeschedule-" + id }
func contractStream(id string) string    { return "contract-" + id }
func networkStream(id string) string     { return "network-" + id }
func policyStream(id string) string      { return "policy-" + id }

// MemberStream is the stream of a person's coverage; its routing key is the subject.
func MemberStream(subject string) string { return "member-" + subject }

// Period is a run of calendar days, both ends included, as ISO 8601 dates;
// an empty End is open. ISO dates order as text, so no zone ever enters.
type Period struct{ Start, End string }

// PeriodOf converts; nil is the empty period, which contains no day.
func PeriodOf(p *typev1.Period) Period {
	return Period{Start: p.GetStartDate(), End: p.GetEndDate()}
}

// Contains tells whether day falls within p.
func (p Period) Contains(day string) bool {
	return p.Start != "" && p.Start <= day && (p.End == "" || day <= p.End)
}

// Overlaps tells whether p and q share a day.
func (p Period) Overlaps(q Period) bool {
	return (q.End == "" || p.Start <= q.End) && (p.End == "" || q.Start <= p.End)
}

// Within cuts p to q; false when no day is left.
func (p Period) Within(q Period) (Period, bool) {
	if !p.Overlaps(q) {
		return Period{}, false
	}
	if q.Start > p.Start {
		p.Start = q.Start
	}
	if q.End != "" && (p.End == "" || q.End < p.End) {
		p.End = q.End
	}
	return p, true
}

// endsBefore tells whether p ends on an earlier day than q; open ends last.
func (p Period) endsBefore(q Period) bool {
	return p.End != "" && (q.End == "" || p.End < q.End)
}

// DayBefore returns the day before an ISO date; the empty string when it is none.
func DayBefore(day string) string { return move(day, -1) }

// DayAfter returns the day after an ISO date; the empty string when it is none.
func DayAfter(day string) string { return move(day, 1) }

func move(day string, by int) string {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return ""
	}
	return t.AddDate(0, 0, by).Format(time.DateOnly)
}

func (p Period) proto() *typev1.Period {
	return &typev1.Period{StartDate: p.Start, EndDate: p.End}
}
