package adjudication

import (
	"slices"

	"github.com/probity-health/probity/services/codes"
)

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
