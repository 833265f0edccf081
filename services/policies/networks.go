package policies

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/codes"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

func networkKind() kind[*policiesv1.ProviderNetwork] {
	return kind[*policiesv1.ProviderNetwork]{
		name: "network", stream: networkStream, id: (*policiesv1.ProviderNetwork).GetNetworkId, lint: LintNetwork,
		published: func(d *policiesv1.ProviderNetwork, v uint32) proto.Message {
			return &eventsv1.NetworkPublished{Network: d, Version: v}
		},
		document: func(m proto.Message) (*policiesv1.ProviderNetwork, bool) {
			e, ok := m.(*eventsv1.NetworkPublished)
			return e.GetNetwork(), ok
		},
	}
}

// PublishNetwork implements the RPC.
func (h *Handler) PublishNetwork(ctx context.Context, req *policiesv1.PublishNetworkRequest) (*policiesv1.PublishNetworkResponse, error) {
	doc, err := given(req.GetNetwork(), req.GetYaml(), ParseNetwork, networkKind())
	if err != nil {
		return nil, err
	}
	if err := h.Authorizer.Authorize(ctx, "PublishNetwork", identity.Resource{Type: identity.Network, ID: doc.GetNetworkId(), Payer: doc.GetPayerId()}); err != nil {
		return nil, err
	}
	done, err := publish(ctx, h, networkKind(), req.GetRequestId(), req.GetEtag(), doc, nil)
	if err != nil {
		return nil, err
	}
	version := uint32(done.revision + 1)
	return &policiesv1.PublishNetworkResponse{NetworkId: doc.GetNetworkId(), Version: version, Token: done.token, Etag: etagOf(doc, version)}, nil
}

// networks loads those that a plan names.
func (h *Handler) networks(ctx context.Context, d *policiesv1.PlanDocument) (map[string]History[*policiesv1.ProviderNetwork], error) {
	out := map[string]History[*policiesv1.ProviderNetwork]{}
	for _, use := range d.GetNetworks() {
		found, err := history(ctx, h.Store, networkKind(), use.GetNetworkId())
		if err != nil {
			return nil, err
		}
		out[use.GetNetworkId()] = found
	}
	return out, nil
}

// LintNetwork finds contradictions of a valid network: participants that
// nobody could be, tiers that aren't the network's, and the same provider
// twice on the same days.
func LintNetwork(d *policiesv1.ProviderNetwork) []problem.Problem {
	var f finding
	effective := PeriodOf(d.GetEffective())
	f.period(effective, "effective")
	type part struct {
		at   int
		who  string
		days Period
	}
	parts := make([]part, 0, len(d.GetParticipants()))
	for i, p := range d.GetParticipants() {
		path := fmt.Sprintf("participants[%d]", i)
		if (p.GetNpi() == "") == (p.GetTin() == "") {
			f.add("network.participant.who", path, "a participant is named by either npi or tin", "give one of the two")
			continue
		}
		if p.GetNpi() != "" && !codes.ValidNPI(p.GetNpi()) {
			f.add("network.npi.check-digit", path+".npi", "the NPI's check digit is wrong", "look the number up in the NPPES registry: one of its digits is mistyped")
		}
		switch {
		case len(d.GetTiers()) == 0 && p.GetTier() != "":
			f.add("network.tier.none", path+".tier", "the network has no tiers", "list them under tiers, or leave tier out")
		case len(d.GetTiers()) > 0 && !slices.Contains(d.GetTiers(), p.GetTier()):
			f.add("network.tier.unknown", path+".tier", "the network has no such tier", "write one of the tiers listed under tiers")
		}
		days := effective
		if p.GetParticipates() != nil {
			before := len(f.problems)
			f.period(PeriodOf(p.GetParticipates()), path+".participates")
			if len(f.problems) > before {
				continue
			}
			var ok bool
			if days, ok = PeriodOf(p.GetParticipates()).Within(effective); !ok {
				f.add("network.participant.outside", path+".participates", "the provider takes part on no day that this version governs", "correct the dates, or leave the participant out")
				continue
			}
		}
		parts = append(parts, part{i, cmp.Or(p.GetNpi(), p.GetTin()), days})
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(a.who, b.who), cmp.Compare(a.days.Start, b.days.Start)) })
	for i := 1; i < len(parts); i++ {
		if parts[i].who == parts[i-1].who && parts[i].days.Overlaps(parts[i-1].days) {
			f.add("network.participant.repeated", fmt.Sprintf("participants[%d]", parts[i].at),
				fmt.Sprintf("participants[%d] is the same provider on some of the same days", parts[i-1].at), "keep one a provider and day")
		}
	}
	if len(f.problems) == 0 {
		if _, err := CompileNetwork(d, Ref(d.GetNetworkId(), 1), adjudication.Period{Start: 1}); err != nil {
			f.add(compiledNetwork, "", err.Error(), "correct what the message names")
		}
	}
	return f.problems
}

const compiledNetwork = "network.compile"

// CompileNetwork compiles one version of a network for the days it governs.
func CompileNetwork(d *policiesv1.ProviderNetwork, ref string, governs adjudication.Period) (*adjudication.ProviderNetwork, error) {
	spec := adjudication.NetworkSpec{ID: d.GetNetworkId(), Version: ref, Period: governs, Participants: make([]adjudication.Participant, 0, len(d.GetParticipants()))}
	for _, p := range d.GetParticipants() {
		out := adjudication.Participant{NPI: p.GetNpi(), TIN: p.GetTin(), Tier: p.GetTier()}
		var err error
		if out.Period.Start, err = adjudication.ParseDate(p.GetParticipates().GetStartDate()); err != nil {
			return nil, err
		}
		if out.Period.End, err = adjudication.ParseDate(p.GetParticipates().GetEndDate()); err != nil {
			return nil, err
		}
		spec.Participants = append(spec.Participants, out)
	}
	return adjudication.CompileNetwork(spec)
}
