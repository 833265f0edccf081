package policies

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
)

// Span is one run of a person's coverage.
type Span struct {
	PolicyID          string
	Period            Period
	Relationship      string // 18, 01, 19, G8
	OtherPayerPrimary bool
	Revision          uint64 // of the member stream's event that gave it this form
}

// Member is a person's coverage, folded from the stream member-<subject>. It
// holds no identifier but opaque ids. Values are immutable: evolving
// returns a new one, so readers may keep what they were handed.
type Member struct {
	Subject    string
	Subscriber string // the family's card, as a keyed hash
	PayerID    string
	Spans      []Span // in order of start, without overlap
	Revision   int64  // of the last event; -1 before the first
	// Ended is the end date of the last termination; empty: none, or coverage
	// was granted since.
	Ended string
	// AliasOf names the person whom this id also stands for; such a stream
	// holds nothing else.
	AliasOf string
	// Recorded is when the last event was, Before the state it found, nil
	// before the first: what was known at a time is found by walking back.
	// Both are kept by EvolveAt.
	Recorded time.Time
	Before   *Member
}

// NewMember is the state before the first event.
func NewMember() Member { return Member{Revision: -1} }

// Evolve folds the event at revision into m. Events of other streams leave it
// unchanged but for the revision. It never fails: what is on the ledger was
// decided.
func (m Member) Evolve(event proto.Message, revision uint64) Member {
	m.Revision = int64(revision)
	switch e := event.(type) {
	case *eventsv1.MemberEnrolled:
		m.Subject, m.Subscriber, m.PayerID = e.GetSubject(), e.GetSubscriber(), e.GetPayerId()
		m.Spans = m.with(Span{
			PolicyID: e.GetPolicyId(), Period: PeriodOf(e.GetCoverage()), Relationship: e.GetRelationshipCode(),
			OtherPayerPrimary: e.GetOtherPayerPrimary(), Revision: revision,
		})
		m.Ended = ""
	case *eventsv1.MemberTerminated:
		m.Spans, m.Ended = m.endedAfter(e.GetEndDate(), revision), e.GetEndDate()
	case *eventsv1.MemberReinstated:
		m.Spans, m.Ended = m.resumed(Span{
			PolicyID: e.GetPolicyId(), Period: PeriodOf(e.GetCoverage()), Relationship: e.GetRelationshipCode(),
			OtherPayerPrimary: e.GetOtherPayerPrimary(), Revision: revision,
		}), ""
	case *eventsv1.MemberAliased:
		m.Subject, m.AliasOf = e.GetSubject(), e.GetAliasOf()
	}
	return m
}

// EvolveAt is Evolve of an event recorded at a time; the state it found stays
// reachable by KnownAt.
func (m Member) EvolveAt(event proto.Message, revision uint64, recorded time.Time) Member {
	next := m.Evolve(event, revision)
	next.Recorded, next.Before = recorded, nil
	if m.Revision >= 0 {
		next.Before = &m
	}
	return next
}

// KnownAt returns the state as it was known at a time: that of the last event
// recorded until then; false when there was none. Coverage has two times: the
// days it is for stand in its spans, and this asks what was known of them.
func (m *Member) KnownAt(at time.Time) (*Member, bool) {
	for m != nil && m.Recorded.After(at) {
		m = m.Before
	}
	return m, m != nil
}

// resumed returns the spans with s added; where it follows a span of the same
// policy without a gap, as that span's continuation.
func (m Member) resumed(s Span) []Span {
	for _, have := range m.Spans {
		if have.PolicyID == s.PolicyID && have.Period.End != "" && DayAfter(have.Period.End) == s.Period.Start {
			s.Period.Start = have.Period.Start
			break
		}
	}
	return m.with(s)
}

// On returns the span that covers a day.
func (m Member) On(day string) (Span, bool) {
	i := slices.IndexFunc(m.Spans, func(s Span) bool { return s.Period.Contains(day) })
	if i < 0 {
		return Span{}, false
	}
	return m.Spans[i], true
}

// Subscribes tells whether the person is, or last was, the subscriber.
func (m Member) Subscribes() bool {
	for at := &m; at != nil; at = at.Before {
		if n := len(at.Spans); n > 0 {
			return at.Spans[n-1].Relationship == "18"
		}
	}
	return false
}

// with returns the spans with s added. A span of the same policy and first
// day is the one s amends, and gives way to it.
func (m Member) with(s Span) []Span {
	out := make([]Span, 0, len(m.Spans)+1)
	for _, have := range m.Spans {
		if !have.amendedBy(s) {
			out = append(out, have)
		}
	}
	i, _ := slices.BinarySearchFunc(out, s, func(a, b Span) int { return strings.Compare(a.Period.Start, b.Period.Start) })
	return slices.Insert(out, i, s)
}

func (s Span) amendedBy(later Span) bool {
	return s.PolicyID == later.PolicyID && s.Period.Start == later.Period.Start
}

// same tells whether two spans grant the same, whenever recorded.
func (s Span) same(o Span) bool {
	s.Revision = o.Revision
	return s == o
}

// endedAfter cuts every span at day and drops those that would begin later.
func (m Member) endedAfter(day string, revision uint64) []Span {
	out := make([]Span, 0, len(m.Spans))
	for _, s := range m.Spans {
		if s.Period.Start > day {
			continue
		}
		if s.Period.End == "" || s.Period.End > day {
			s.Period.End, s.Revision = day, revision
		}
		out = append(out, s)
	}
	return out
}
