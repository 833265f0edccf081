package adjudication

import (
	"errors"
	"fmt"
	"slices"
)

// NetworkSpec is one version of a provider network in the terms of
// probity.policies.v1.ProviderNetwork.
type NetworkSpec struct {
	ID           string
	Version      string // "net_keystone_ppo@2"
	Period       Period // dates of service it governs
	Participants []Participant
}

// Participant is one provider's part in a network: by NPI, or all that bill
// under a tax id.
type Participant struct {
	NPI, TIN string // one of the two
	Tier     string
	Period   Period
}

// NetworkUse is a network as a plan uses it.
type NetworkUse struct {
	ID    string
	Tiers []string // empty: every participant
}

// ProviderNetwork is a compiled network: immutable, safe to share.
type ProviderNetwork struct {
	id, version string
	period      Period
	byNPI       map[string][]participation
	byTIN       map[string][]participation
}

type participation struct {
	tier   string
	period Period
}

// CompileNetwork checks a network and indexes its participants.
func CompileNetwork(spec NetworkSpec) (*ProviderNetwork, error) {
	if spec.ID == "" || spec.Version == "" {
		return nil, errors.New("adjudication: network without id or version")
	}
	n := &ProviderNetwork{id: spec.ID, version: spec.Version, period: spec.Period, byNPI: map[string][]participation{}, byTIN: map[string][]participation{}}
	for i, p := range spec.Participants {
		if (p.NPI == "") == (p.TIN == "") {
			return nil, fmt.Errorf("adjudication: network %s: participants[%d] is named by either NPI or tax id", spec.Version, i)
		}
		if p.Period.End != 0 && p.Period.End < p.Period.Start {
			return nil, fmt.Errorf("adjudication: network %s: participants[%d] leaves before it joins", spec.Version, i)
		}
		part := participation{p.Tier, p.Period}
		if p.NPI != "" {
			n.byNPI[p.NPI] = append(n.byNPI[p.NPI], part)
		} else {
			n.byTIN[p.TIN] = append(n.byTIN[p.TIN], part)
		}
	}
	return n, nil
}

// Version returns the version as decisions record it.
func (n *ProviderNetwork) Version() string { return n.version }

// participates tells whether the line's provider is in one of the plan's
// networks on the date: who bills or who rendered, by NPI, or who bills by
// tax id. known is false where no version of a network that might have told
// so governs the date.
func (r *run) participates(l *line) (in, known bool) {
	known = true
	for _, use := range l.plan.spec.Networks {
		n := r.networkFor(use.ID, l.ServiceDate)
		if n == nil {
			known = false
			continue
		}
		l.networks = append(l.networks, n)
		in = in || r.takesPart(l, n, use.Tiers)
	}
	return in, in || known
}

func (r *run) takesPart(l *line, n *ProviderNetwork, tiers []string) bool {
	c := &r.in.Claim
	return covers(n.byNPI[c.BillingNPI], tiers, l.ServiceDate) || covers(n.byNPI[r.rendering(l)], tiers, l.ServiceDate) ||
		c.BillingTIN != "" && covers(n.byTIN[c.BillingTIN], tiers, l.ServiceDate)
}

func covers(parts []participation, tiers []string, on Date) bool {
	for _, p := range parts {
		if p.period.Contains(on) && (len(tiers) == 0 || slices.Contains(tiers, p.tier)) {
			return true
		}
	}
	return false
}

func (r *run) networkFor(id string, on Date) *ProviderNetwork {
	for _, n := range r.in.Networks {
		if n != nil && n.id == id && n.period.Contains(on) {
			return n
		}
	}
	return nil
}
