package adjudication

import (
	"slices"

	"github.com/probity-health/probity/services/codes"
)

// noSurprises is 2022-01-01: from then emergency services of providers
// without a contract carry in-network cost sharing, need no prior
// authorisation, and the patient may not be billed above the allowed amount
// (45 CFR 149.110, 149.410).
const noSurprises Date = 738156

// knownProvider checks the billing and the rendering provider's numbers, and
// their standing on the date where the payer has data on it.
func knownProvider(r *run, l *line) {
	billing, rendering := r.in.Claim.BillingNPI, r.rendering(l)
	switch {
	case billing == "":
		r.deny(l, providerNPIMissing, "")
	case !codes.ValidNPI(billing):
		r.deny(l, providerNPIInvalid, "")
	case rendering != billing && !codes.ValidNPI(rendering):
		r.deny(l, providerRenderingInvalid, "")
	case r.unknown(billing), r.unknown(rendering):
		r.deny(l, providerNPIUnknown, "")
	case !r.certified(billing, l.ServiceDate):
		r.deny(l, providerNotCertified, "")
	case !r.certified(rendering, l.ServiceDate):
		r.deny(l, providerRenderingNotEligible, "")
	}
}

func (r *run) unknown(npi string) bool {
	return slices.ContainsFunc(r.in.Providers, func(p ProviderRecord) bool { return p.NPI == npi && p.Unknown })
}

func (r *run) certified(npi string, on Date) bool {
	for _, p := range r.in.Providers {
		if p.NPI == npi && len(p.Certified) > 0 {
			return slices.ContainsFunc(p.Certified, func(when Period) bool { return when.Contains(on) })
		}
	}
	return true
}

// network finds the contract and with it the tier, then asks for the referral
// that the plan wants for a specialist's service.
func network(r *run, l *line) {
	l.benefit = l.plan.benefitFor(l.Procedure, r.place(l), l.RevenueCode)
	emergency := l.Emergency && l.ServiceDate >= noSurprises
	l.contract = r.contractFor(l)
	l.tier = InNetwork
	if l.contract == nil && !emergency {
		l.tier = OutOfNetwork
	}
	l.out.Network = l.tier.String()
	if l.tier == OutOfNetwork && l.plan.spec.OutOfNetwork == nil {
		r.deny(l, networkOut, "outOfNetwork")
		return
	}
	if l.plan.spec.ReferralRequired && l.benefit != nil && l.benefit.Specialist && !emergency &&
		r.in.Claim.ReferralNumber == "" {
		r.deny(l, networkNoReferral, l.benefit.clauseSpecialist)
	}
}

func (r *run) contractFor(l *line) *Contract {
	for _, c := range r.in.Contracts {
		if c != nil && c.Period.Contains(l.ServiceDate) &&
			(len(c.PlanIDs) == 0 || slices.Contains(c.PlanIDs, l.plan.spec.ID)) {
			return c
		}
	}
	return nil
}
