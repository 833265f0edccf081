package casework

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
)

// Span is a length of time that configuration writes as "45d" or "72h". A day
// is 24 hours.
type Span time.Duration

// Days makes a span of n days.
func Days(n int) Span { return Span(n) * Span(24*time.Hour) }

// UnmarshalJSON reads "45d" or what time.ParseDuration reads. It refuses bare
// numbers, whose unit nobody can see, and what isn't positive.
func (s *Span) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf(`a length of time is written as text with a unit, like "45d" or "72h"`)
	}
	var d time.Duration
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n > 36_500 {
			return fmt.Errorf("%q is no number of days", text)
		}
		d = time.Duration(Days(n))
	} else {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			return err
		}
	}
	if d <= 0 {
		return fmt.Errorf("%q is not a positive length of time", text)
	}
	*s = Span(d)
	return nil
}

// MarshalJSON writes it the way it is read.
func (s Span) MarshalJSON() ([]byte, error) {
	if d := time.Duration(s); d != 0 && d%(24*time.Hour) == 0 {
		return json.Marshal(strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d")
	}
	return json.Marshal(time.Duration(s).String())
}

func (s Span) after(t time.Time) time.Time { return t.Add(time.Duration(s)) }

// Terms are the lengths of time and amounts of casework. The zero value is
// usable: each field then has the default that its comment names. A deadline
// once set stands in its event; changing the terms moves none.
type Terms struct {
	// Documents is how long a provider has to send a document; 45d, the least
	// that 29 CFR 2560.503-1(f)(4) gives a claimant.
	Documents Span `json:"documents,omitempty"`
	// OtherPayer is how long the other payer's decision is waited for; 45d.
	OtherPayer Span `json:"otherPayer,omitempty"`
	// Remind is the time between reminders; 15d.
	Remind Span `json:"remind,omitempty"`
	// AuthorizationUrgent and AuthorizationStandard are the payer's own times to
	// answer a request for prior authorisation; 72h and 7d (42 CFR 422.572(a)
	// and 422.568(b)(1), from 2026).
	AuthorizationUrgent   Span `json:"authorizationUrgent,omitempty"`
	AuthorizationStandard Span `json:"authorizationStandard,omitempty"`
	// EscalateBefore the prompt-pay clock's last day begins; 5d.
	EscalateBefore Span `json:"escalateBefore,omitempty"`
	// Hold is how long a reviewer may have a task; 24h.
	Hold Span `json:"hold,omitempty"`
	// SecondReviewerCents is the charge from which two reviewers must agree, US
	// cents; 1,000,000 ($10,000.00). Below zero is never. A plan's document may
	// say otherwise for its claims.
	SecondReviewerCents int64 `json:"secondReviewerCents,omitempty"`
	// Filing is how long each level of appeal is open after the decision it is
	// against: reconsideration 180d (29 CFR 2560.503-1(h)(3)(i)), second level
	// 60d, external 123d, which is never less than the four months of 45 CFR
	// 147.136(d)(2)(i).
	FileReconsideration Span `json:"fileReconsideration,omitempty"`
	FileSecond          Span `json:"fileSecond,omitempty"`
	FileExternal        Span `json:"fileExternal,omitempty"`
	// Decide is how long each level has to answer: 30d and 30d (29 CFR
	// 2560.503-1(i)(2)(iii), two levels, post-service), external 45d (45 CFR
	// 147.136(c)(2)); expedited 72h at every level.
	DecideReconsideration Span `json:"decideReconsideration,omitempty"`
	DecideSecond          Span `json:"decideSecond,omitempty"`
	DecideExternal        Span `json:"decideExternal,omitempty"`
	DecideExpedited       Span `json:"decideExpedited,omitempty"`
}

// WithDefaults fills in what was left zero.
func (t Terms) WithDefaults() Terms {
	fill := func(field *Span, otherwise Span) {
		if *field <= 0 {
			*field = otherwise
		}
	}
	fill(&t.Documents, Days(45))
	fill(&t.OtherPayer, Days(45))
	fill(&t.Remind, Days(15))
	fill(&t.AuthorizationUrgent, Days(3))
	fill(&t.AuthorizationStandard, Days(7))
	fill(&t.EscalateBefore, Days(5))
	fill(&t.Hold, Days(1))
	fill(&t.FileReconsideration, Days(180))
	fill(&t.FileSecond, Days(60))
	fill(&t.FileExternal, Days(123))
	fill(&t.DecideReconsideration, Days(30))
	fill(&t.DecideSecond, Days(30))
	fill(&t.DecideExternal, Days(45))
	fill(&t.DecideExpedited, Days(3))
	if t.SecondReviewerCents == 0 {
		t.SecondReviewerCents = 1_000_000
	}
	return t
}

// PlanTerm is what a plan's document says of two reviewers.
type PlanTerm struct {
	Plan      string // version, "plan_gold@3"
	FromCents int64  // of charge
	Never     bool
}

// Reviewers is how many people must agree on a claim of that charge, and by
// which rule where it is more than one. What the plans that it falls under say
// counts before the installation's own amount; of several the one that asks for
// more.
func (t Terms) Reviewers(chargeCents int64, plans []PlanTerm) (uint32, *claimsv1.ReviewersRule) {
	for _, p := range plans {
		if !p.Never && chargeCents >= p.FromCents {
			return 2, &claimsv1.ReviewersRule{Plan: p.Plan, FromCents: p.FromCents}
		}
	}
	if len(plans) == 0 && t.SecondReviewerCents >= 0 && chargeCents >= t.SecondReviewerCents {
		return 2, &claimsv1.ReviewersRule{FromCents: t.SecondReviewerCents}
	}
	return 1, nil
}

func (t Terms) answer(kind claimsv1.InformationKind, urgent bool) Span {
	switch {
	case kind == claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT:
		return t.Documents
	case kind == claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER:
		return t.OtherPayer
	case urgent:
		return t.AuthorizationUrgent
	}
	return t.AuthorizationStandard
}

func (t Terms) filing(l claimsv1.AppealLevel) Span {
	switch l {
	case claimsv1.AppealLevel_APPEAL_LEVEL_RECONSIDERATION:
		return t.FileReconsideration
	case claimsv1.AppealLevel_APPEAL_LEVEL_SECOND:
		return t.FileSecond
	}
	return t.FileExternal
}

func (t Terms) deciding(l claimsv1.AppealLevel, expedited bool) Span {
	switch {
	case expedited:
		return t.DecideExpedited
	case l == claimsv1.AppealLevel_APPEAL_LEVEL_RECONSIDERATION:
		return t.DecideReconsideration
	case l == claimsv1.AppealLevel_APPEAL_LEVEL_SECOND:
		return t.DecideSecond
	}
	return t.DecideExternal
}
