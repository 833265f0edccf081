package adjudication

import "slices"

// ProviderDay is what a provider's other allowed services of a day add up to,
// over all the payer's members, the claim at hand left out.
type ProviderDay struct {
	NPI     string
	Date    Date
	Minutes int64
}

// minutesOfADay is more than anybody can work.
const minutesOfADay = 24 * 60

// signals pends what looks like fraud or waste and says why: a person, never
// the engine, decides what it is. Each looks at facts outside the claim, and
// each names them: figures, and earlier claims by their opaque ids. (That a
// procedure's part was paid before is told by the stage of pairs.)
func signals(r *run) {
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() {
			continue
		}
		r.standing(l)
		r.givenByAnother(l)
	}
	r.impossibleDays()
}

// standing doubts a service dated after the death of the provider who is said
// to have given or billed it, or in a time when its number wasn't active.
func (r *run) standing(l *line) {
	for i := range r.in.Providers {
		p := &r.in.Providers[i]
		if p.NPI != r.in.Claim.BillingNPI && p.NPI != r.rendering(l) {
			continue
		}
		if p.Died != 0 && l.last() > p.Died {
			r.pendAbout(l, signalDeceased, "", Fact{"provider_died_date", int64(p.Died)})
		}
		for _, gap := range p.Inactive {
			if gap.Contains(l.ServiceDate) {
				r.pendAbout(l, signalInactive, "", Fact{"provider_inactive_from_date", int64(gap.Start)})
			}
		}
	}
}

// givenByAnother doubts a procedure that is done once and that another
// provider was paid for on the same day. Shared work has its modifiers.
func (r *run) givenByAnother(l *line) {
	if !l.surgical || slices.ContainsFunc(l.Modifiers, sharedWork) {
		return
	}
	for i := range r.in.History {
		h := &r.in.History[i]
		if h.Allowed && h.Subject == r.in.Member.Subject && h.ServiceDate == l.ServiceDate && h.Procedure == l.Procedure &&
			h.BillingNPI != r.in.Claim.BillingNPI && !slices.ContainsFunc(h.Modifiers, sharedWork) && sameModifiers(h.Modifiers, l.Modifiers) {
			r.pendAbout(l, signalOtherProvider, h.ClaimID, Fact{"earlier_line", int64(h.Number)})
			return
		}
	}
}

// sharedWork tells whether a modifier says that several providers had a part
// in one procedure, or that it was done again.
func sharedWork(modifier string) bool {
	switch modifier {
	case "26", "TC", "54", "55", "56", "62", "66", "76", "77", "78", "79", "80", "81", "82", "AS", "59", "XE", "XP", "XS", "XU":
		return true
	}
	return false
}

// impossibleDays doubts the lines of a provider whose day, by minutes billed
// and the usual time of procedures, is longer than a day.
func (r *run) impossibleDays() {
	for i := range r.lines {
		l := &r.lines[i]
		if !l.open() || l.minutes <= 0 || l.days() > 1 {
			continue
		}
		who := r.rendering(l)
		own, others := int64(0), int64(0)
		for j := range r.lines {
			if o := &r.lines[j]; o.open() && o.ServiceDate == l.ServiceDate && o.days() == 1 && r.rendering(o) == who {
				own += min(o.minutes, maxQuantityMilli) / 1000
			}
		}
		for _, d := range r.in.ProviderDays {
			if d.NPI == who && d.Date == l.ServiceDate {
				others += min(max(d.Minutes, 0), maxQuantityMilli)
			}
		}
		if own+others > minutesOfADay {
			r.pendAbout(l, signalImpossibleDay, "", Fact{"claim_minutes", own}, Fact{factOtherMinutes, others})
		}
	}
}

// providerDays adds up what the claim itself takes of its providers' days.
func (r *run) providerDays() {
	for i := range r.lines {
		l := &r.lines[i]
		if l.out.Denied || l.minutes < 1000 || l.days() > 1 {
			continue
		}
		d := ProviderDay{NPI: r.rendering(l), Date: l.ServiceDate, Minutes: min(l.minutes, maxQuantityMilli) / 1000}
		at := slices.IndexFunc(r.out.ProviderDays, func(o ProviderDay) bool { return o.NPI == d.NPI && o.Date == d.Date })
		if at < 0 {
			r.out.ProviderDays = append(r.out.ProviderDays, d)
			continue
		}
		r.out.ProviderDays[at].Minutes += d.Minutes
	}
}

// RecallProviderDays gives the claim the providers' days that a decision with
// these reasons was made with, as far as they mattered: they stand in the
// reasons of the lines that they raised a doubt about.
func (in *Input) RecallProviderDays(reasons []PendReason) {
	r := run{in: in}
	for _, p := range reasons {
		if p.RuleID != rules[signalImpossibleDay].ID {
			continue
		}
		at := slices.IndexFunc(in.Claim.Lines, func(l Line) bool { return l.Number == p.Line })
		of := slices.IndexFunc(p.Facts, func(f Fact) bool { return f.Key == factOtherMinutes })
		if at < 0 || of < 0 {
			continue
		}
		l := &line{Line: &in.Claim.Lines[at]}
		d := ProviderDay{NPI: r.rendering(l), Date: l.ServiceDate, Minutes: p.Facts[of].Value}
		if !slices.Contains(in.ProviderDays, d) {
			in.ProviderDays = append(in.ProviderDays, d)
		}
	}
}

const factOtherMinutes = "other_minutes"
