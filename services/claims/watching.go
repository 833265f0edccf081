package claims

import (
	"context"
	"strconv"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/views"
)

// What a provider's day adds up to over all members is no family's to know: it
// is summed in the view, under a keyed hash of payer, provider and day, and
// asked for when a claim has minutes to add. The sum may be behind, and is not
// asked where the view is away: it only ever raises a doubt, so the worst is
// that one is missed.
//
//	providerday:<key>  claim id: minutes
const kindProviderDay = "providerday"

func providerDayRow(key string) string { return kindProviderDay + ":" + key }

func (s *Service) providerDayKey(payer string, d adjudication.ProviderDay) string {
	return s.index.ID("pday", payer, d.NPI, d.Date.String())
}

// ruleWatched is rule with what the claim's providers did for others.
func (s *Service) ruleWatched(ctx context.Context, sub *submission, read *Ledgered, review adjudication.Review) (adjudication.Decision, *claimsv1.Decision) {
	sub.input.ProviderDays = nil
	d, decision := rule(sub, read, review)
	// A person has seen the day's doubt, or there was none.
	if len(d.ProviderDays) == 0 || review.Resolution != adjudication.Unreviewed {
		return d, decision
	}
	if sub.input.ProviderDays = s.othersMinutes(ctx, sub, d.ProviderDays); len(sub.input.ProviderDays) == 0 {
		return d, decision
	}
	return rule(sub, read, review)
}

func (s *Service) othersMinutes(ctx context.Context, sub *submission, days []adjudication.ProviderDay) []adjudication.ProviderDay {
	reading, err := s.view.At(ctx, "")
	if err != nil {
		return nil
	}
	var out []adjudication.ProviderDay
	for _, d := range days {
		sums, err := reading.Sum(ctx, providerDayRow(s.providerDayKey(sub.payer, d)))
		if err != nil {
			s.log.WarnContext(ctx, "the providers' days could not be read; the claim is decided without them", "error", err)
			return nil
		}
		var minutes int64
		for claim, n := range sums {
			if claim != sub.claimID && claim != sub.original {
				minutes += n
			}
		}
		if minutes > 0 {
			out = append(out, adjudication.ProviderDay{NPI: d.NPI, Date: d.Date, Minutes: minutes})
		}
	}
	return out
}

// providerDays are what a final decision adds to its providers' days.
func (s *Service) providerDays(payer string, d adjudication.Decision) []*eventsv1.ProviderDay {
	if d.Status != adjudication.Paid {
		return nil
	}
	var out []*eventsv1.ProviderDay
	for _, day := range d.ProviderDays {
		out = append(out, &eventsv1.ProviderDay{Key: s.providerDayKey(payer, day), Minutes: day.Minutes})
	}
	return out
}

// providerDayOps put a decision's minutes into the view, and take them out.
func providerDayOps(ops []views.Op, event any) []views.Op {
	switch e := event.(type) {
	case *eventsv1.ClaimDecided:
		for _, d := range e.GetProviderDays() {
			ops = append(ops, views.HSet(providerDayRow(d.GetKey()), e.GetClaimId(), strconv.FormatInt(d.GetMinutes(), 10)))
		}
	case *eventsv1.ClaimReversed:
		for _, key := range e.GetProviderDayKeys() {
			ops = append(ops, views.HDel(providerDayRow(key), e.GetClaimId()))
		}
	}
	return ops
}

func providerDayKeys(decided *eventsv1.ClaimDecided) []string {
	var out []string
	for _, d := range decided.GetProviderDays() {
		out = append(out, d.GetKey())
	}
	return out
}
