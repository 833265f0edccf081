package policies

import (
	"context"
	"fmt"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/money"
	"github.com/probity-health/probity/services/problem"
)

// DiffPlans implements the RPC: what a new document changes, benefit by
// benefit, and how many persons it governs. What is wrong with the new document
// is part of the answer, and all of it where that is no plan.
func (h *Handler) DiffPlans(ctx context.Context, req *policiesv1.DiffPlansRequest) (*policiesv1.DiffPlansResponse, error) {
	if (req.GetPlanId() == "") == (req.GetOldDocument() == "") {
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "plan.diff.old", FieldPath: "plan_id",
			Message: "the request must name the old side once", Fix: "give plan_id, or old_document"})
	}
	fresh := &policiesv1.PlanDocument{}
	out := &policiesv1.DiffPlansResponse{}
	r, err := read([]byte(req.GetNewDocument()), fresh)
	if err == nil {
		err = isPlan([]byte(req.GetNewDocument()))
	}
	if err != nil {
		// Not even the payer can be read: asked as the lint is.
		if err := h.Authorizer.Authorize(ctx, "LintDocument", identity.Resource{Type: identity.Plan}); err != nil {
			return nil, err
		}
		out.Problems = problemProtos(err, "", "")
		return out, nil
	}
	if err := h.Authorizer.Authorize(ctx, "DiffPlans", identity.Resource{Type: identity.Plan, ID: fresh.GetPlanId(), Payer: fresh.GetPayerId()}); err != nil {
		return nil, err
	}
	old, err := h.oldSide(ctx, req)
	if err != nil {
		return nil, err
	}
	out.PlanId = fresh.GetPlanId()
	if ps := r.judge(fresh, func() []problem.Problem { return LintPlan(fresh) }); len(ps) > 0 {
		out.Problems = problemProtos(invalid(ps), "", "")
	}
	out.Differences = diffPlans(old, fresh)
	if err := h.awaitOwnWrites(ctx); err != nil {
		return nil, err
	}
	if fresh.GetEffective().GetStartDate() != "" {
		persons, families := h.Directory.Affected(fresh.GetPlanId(), PeriodOf(fresh.GetEffective()))
		out.MembersAffected, out.FamiliesAffected = uint32(persons), uint32(families)
	}
	return out, nil
}

func (h *Handler) oldSide(ctx context.Context, req *policiesv1.DiffPlansRequest) (*policiesv1.PlanDocument, error) {
	if id := req.GetPlanId(); id != "" {
		got, err := h.GetPlan(ctx, &policiesv1.GetPlanRequest{PlanId: id, Version: req.GetVersion()})
		return got.GetPlan(), err
	}
	old := &policiesv1.PlanDocument{}
	r, err := read([]byte(req.GetOldDocument()), old)
	if err == nil {
		err = isPlan([]byte(req.GetOldDocument()))
	}
	if err != nil {
		return nil, under("old_document", problem.As(err))
	}
	if len(r.problems) > 0 {
		return nil, under("old_document", invalid(r.problems))
	}
	return old, nil
}

// isPlan refuses a document that has no plan_id, by the kind that its fields
// make it. A document is told by the id that only its kind has; a plan names a
// fee schedule too, so plan_id counts first.
func isPlan(data []byte) error {
	root, err := soleDocument(data)
	if err != nil {
		return err
	}
	fields := map[string]bool{}
	if root.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(root.Content); i += 2 {
			fields[strings.ToLower(strings.ReplaceAll(root.Content[i].Value, "_", ""))] = true // in proto's or JSON's spelling
		}
	}
	if fields["planid"] {
		return nil
	}
	is := "it has no plan_id"
	for _, kind := range []struct{ field, name string }{{"contractid", "a contract"}, {"networkid", "a network"}, {"feescheduleid", "a fee schedule"}, {"policyid", "a policy"}} {
		if fields[kind.field] {
			is = "it is " + kind.name
			break
		}
	}
	return problem.New(problem.Invalid, problem.Problem{RuleID: "plan.diff.no-plan", Line: root.Line, Column: root.Column,
		Message: "the document is no plan: " + is, Fix: "give a plan's document, which begins with its plan_id; probity plans lint tells what another kind holds"})
}

// diffPlans compares two plans. Benefits are told apart by name and rules by
// id; a benefit that another one has overtaken has moved, because the first
// that matches a service applies.
func diffPlans(old, fresh *policiesv1.PlanDocument) []*policiesv1.PlanDifference {
	d := &differences{}
	d.fields("", "", old.ProtoReflect(), fresh.ProtoReflect())
	before := map[string]*policiesv1.Benefit{}
	for _, b := range old.GetBenefits() {
		before[b.GetName()] = b
	}
	kept := map[string]bool{}
	var was, is []string // names on both sides, in each order
	for _, b := range fresh.GetBenefits() {
		if before[b.GetName()] != nil && !kept[b.GetName()] {
			kept[b.GetName()] = true
			is = append(is, b.GetName())
		}
	}
	for _, b := range old.GetBenefits() {
		if kept[b.GetName()] {
			was = append(was, b.GetName())
		} else {
			d.add(&policiesv1.PlanDifference{Benefit: b.GetName(), Kind: "removed"})
		}
	}
	stayed := longestCommon(was, is)
	for _, b := range fresh.GetBenefits() {
		have := before[b.GetName()]
		if have == nil {
			d.add(&policiesv1.PlanDifference{Benefit: b.GetName(), Kind: "added"})
			continue
		}
		if !stayed[b.GetName()] {
			d.add(&policiesv1.PlanDifference{Benefit: b.GetName(), Kind: "moved"})
		}
		d.fields(b.GetName(), "", have.ProtoReflect(), b.ProtoReflect())
		d.benefitTiers(b.GetName(), have.GetTiers(), b.GetTiers())
	}
	rules := map[string]*policiesv1.PlanRule{}
	for _, r := range old.GetRules() {
		rules[r.GetId()] = r
	}
	for _, r := range fresh.GetRules() {
		have := rules[r.GetId()]
		delete(rules, r.GetId())
		switch {
		case have == nil:
			d.add(&policiesv1.PlanDifference{Kind: "added", Field: "rules." + r.GetId(), NewValue: r.GetClause()})
		case !proto.Equal(have, r):
			d.fields("", "rules."+r.GetId()+".", have.ProtoReflect(), r.ProtoReflect())
		}
	}
	for _, r := range old.GetRules() {
		if rules[r.GetId()] != nil {
			d.add(&policiesv1.PlanDifference{Kind: "removed", Field: "rules." + r.GetId(), OldValue: r.GetClause()})
		}
	}
	d.networks("networks.", old.GetNetworks(), fresh.GetNetworks())
	d.tiers(old.GetTiers(), fresh.GetTiers())
	return d.list
}

// tiers compares a plan's tiers by name, who is in each and what it costs. One
// that another has overtaken has moved: the first that takes a provider in applies.
func (d *differences) tiers(old, fresh []*policiesv1.CostShareTier) {
	named := map[string]*policiesv1.CostShareTier{}
	var was, is []string
	for _, t := range old {
		named[t.GetName()] = t
	}
	for _, t := range fresh {
		if named[t.GetName()] != nil {
			is = append(is, t.GetName())
		}
	}
	for _, t := range old {
		if slices.Contains(is, t.GetName()) {
			was = append(was, t.GetName())
		} else {
			d.add(&policiesv1.PlanDifference{Kind: "removed", Field: "tiers." + t.GetName()})
		}
	}
	stayed := longestCommon(was, is)
	for _, t := range fresh {
		have, field := named[t.GetName()], "tiers."+t.GetName()
		if have == nil {
			d.add(&policiesv1.PlanDifference{Kind: "added", Field: field})
			d.networks(field+".participants.", nil, t.GetParticipants())
			d.added("", field+".cost_share.", (&policiesv1.CostShare{}).ProtoReflect(), t.GetCostShare().ProtoReflect())
			continue
		}
		if !stayed[t.GetName()] {
			d.add(&policiesv1.PlanDifference{Kind: "moved", Field: field})
		}
		d.networks(field+".participants.", have.GetParticipants(), t.GetParticipants())
		d.fields("", field+".cost_share.", have.GetCostShare().ProtoReflect(), t.GetCostShare().ProtoReflect())
	}
}

// benefitTiers compares what a benefit costs in the plan's tiers.
func (d *differences) benefitTiers(benefit string, old, fresh []*policiesv1.BenefitTier) {
	named := map[string]*policiesv1.BenefitTier{}
	for _, t := range old {
		named[t.GetTier()] = t
	}
	for _, t := range fresh {
		have, field := named[t.GetTier()], "tiers."+t.GetTier()
		delete(named, t.GetTier())
		if have == nil {
			d.add(&policiesv1.PlanDifference{Benefit: benefit, Kind: "added", Field: field})
			d.added(benefit, field+".", (&policiesv1.BenefitTier{Tier: t.GetTier()}).ProtoReflect(), t.ProtoReflect())
			continue
		}
		d.fields(benefit, field+".", have.ProtoReflect(), t.ProtoReflect())
	}
	for _, t := range old {
		if named[t.GetTier()] != nil {
			d.add(&policiesv1.PlanDifference{Benefit: benefit, Kind: "removed", Field: "tiers." + t.GetTier()})
		}
	}
}

// networks compares which networks a plan names, and which of their tiers.
func (d *differences) networks(prefix string, old, fresh []*policiesv1.PlanNetwork) {
	tiers := func(n *policiesv1.PlanNetwork) string {
		if len(n.GetTiers()) == 0 {
			return "all tiers"
		}
		return strings.Join(n.GetTiers(), ", ")
	}
	named := map[string]*policiesv1.PlanNetwork{}
	for _, n := range old {
		named[n.GetNetworkId()] = n
	}
	for _, n := range fresh {
		was := named[n.GetNetworkId()]
		delete(named, n.GetNetworkId())
		switch {
		case was == nil:
			d.add(&policiesv1.PlanDifference{Kind: "added", Field: prefix + n.GetNetworkId(), NewValue: tiers(n)})
		case tiers(was) != tiers(n):
			d.add(&policiesv1.PlanDifference{Kind: "changed", Field: prefix + n.GetNetworkId(), OldValue: tiers(was), NewValue: tiers(n)})
		}
	}
	for _, n := range old {
		if named[n.GetNetworkId()] != nil {
			d.add(&policiesv1.PlanDifference{Kind: "removed", Field: prefix + n.GetNetworkId(), OldValue: tiers(n)})
		}
	}
}

type differences struct{ list []*policiesv1.PlanDifference }

func (d *differences) add(p *policiesv1.PlanDifference) { d.list = append(d.list, p) }

// fields compares two messages of one type, messages inside them included.
func (d *differences) fields(benefit, prefix string, old, fresh protoreflect.Message) {
	fields := fresh.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := prefix + string(f.Name())
		switch {
		case f.IsList() && f.Message() != nil: // benefits, rules, networks and tiers: by name
		case f.Message() != nil:
			if !old.Has(f) && !fresh.Has(f) {
				continue
			}
			if old.Has(f) != fresh.Has(f) {
				kind := "added"
				if old.Has(f) {
					kind = "removed"
				}
				d.add(&policiesv1.PlanDifference{Benefit: benefit, Kind: kind, Field: name})
				// Without its rules a plan coordinates all the same; other
				// messages that are gone have no fields to compare.
				if kind == "removed" && f.Message().FullName() != coordinationMethod.Parent() {
					continue
				}
			}
			d.fields(benefit, name+".", old.Get(f).Message(), fresh.Get(f).Message())
		default:
			was, is := old.Get(f), fresh.Get(f)
			if was.Equal(is) || inWords(f, was) == inWords(f, is) {
				continue
			}
			d.add(&policiesv1.PlanDifference{Benefit: benefit, Kind: "changed", Field: name,
				OldValue: inWords(f, was), NewValue: inWords(f, is), Favours: favours(string(f.Name()), f, was, is)})
		}
	}
}

// added tells what a tier that is new says. Before it the plan's share in
// network applied, by other fields: so nothing was zero, and which of two gains
// no field alone can tell.
func (d *differences) added(benefit, prefix string, empty, fresh protoreflect.Message) {
	var said differences
	said.fields(benefit, prefix, empty, fresh)
	for _, p := range said.list {
		p.Kind, p.OldValue, p.Favours = "added", "", ""
		d.add(p)
	}
}

// inWords writes a value as a person would.
func inWords(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if f.IsList() {
		list := v.List()
		out := make([]string, list.Len())
		for i := range out {
			out[i] = list.Get(i).String()
		}
		return strings.Join(out, ", ")
	}
	name := string(f.Name())
	switch {
	case f.Kind() == protoreflect.BoolKind:
		if v.Bool() {
			return "yes"
		}
		return "no"
	case strings.HasSuffix(name, "_cents"):
		if v.Int() == 0 && unlimited[name] {
			return "none"
		}
		return "$" + money.Cents(v.Int()).String()
	case strings.HasSuffix(name, "_bps"):
		return fmt.Sprintf("%g %%", float64(v.Uint())/100)
	case f.Kind() == protoreflect.Uint32Kind && v.Uint() == 0 && unlimited[name]:
		return "none"
	case f.FullName() == coordinationMethod && v.String() == "":
		return standardCoordination
	}
	return v.String()
}

// A plan that doesn't say how it coordinates does so by the standard method;
// the other pays less, never more.
const (
	coordinationMethod   protoreflect.FullName = "probity.policies.v1.CoordinationRules.method"
	standardCoordination                       = string(adjudication.StandardCoordination)
)

// unlimited are the limits that don't limit at 0.
var unlimited = map[string]bool{
	"out_of_pocket_individual_cents": true, "out_of_pocket_family_cents": true, "deductible_family_cents": true,
	"visits_per_year": true, "dollars_per_year_cents": true, "lifetime_cents": true, "review_above_cents": true, "dependent_age_limit": true,
}

// rising says whom a field favours as it rises, or turns to yes.
var rising = map[string]string{
	"deductible_individual_cents": "plan", "coinsurance_bps": "plan", "coinsurance_in_bps": "plan", "coinsurance_out_bps": "plan",
	"copay_in_cents": "plan", "copay_out_cents": "plan", "copay_cents": "plan", "out_of_pocket_individual_cents": "plan", "out_of_pocket_family_cents": "plan",
	"prior_authorization": "plan", "document_required": "plan", "referral_required": "plan", "sequestration_bps": "plan",
	"covered": "member", "deductible_waived": "member", "visits_per_year": "member", "dollars_per_year_cents": "member",
	"lifetime_cents": "member", "out_of_network_allowed_bps": "member", "dependent_age_limit": "member",
}

// favours tells who gains by a change, where the field alone says so.
func favours(name string, f protoreflect.FieldDescriptor, was, is protoreflect.Value) string {
	if f.FullName() == coordinationMethod {
		if inWords(f, is) == standardCoordination {
			return "member"
		}
		return "plan"
	}
	who := rising[name]
	if who == "" || f.IsList() {
		return ""
	}
	var a, b int64
	switch f.Kind() {
	case protoreflect.BoolKind:
		a, b = asInt(was.Bool()), asInt(is.Bool())
	case protoreflect.Int64Kind:
		a, b = was.Int(), is.Int()
	case protoreflect.Uint32Kind:
		a, b = int64(was.Uint()), int64(is.Uint())
	default:
		return ""
	}
	up := b > a
	if unlimited[name] && (a == 0 || b == 0) {
		up = b == 0 // no limit is the highest
	}
	if up {
		return who
	}
	return map[string]string{"plan": "member", "member": "plan"}[who]
}

func asInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// longestCommon returns the names of a longest run that stands in the same
// order in both lists, which hold the same names once each.
func longestCommon(a, b []string) map[string]bool {
	table := make([][]int, len(a)+1)
	for i := range table {
		table[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				table[i][j] = table[i+1][j+1] + 1
			} else {
				table[i][j] = max(table[i+1][j], table[i][j+1])
			}
		}
	}
	out := map[string]bool{}
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			out[a[i]] = true
			i, j = i+1, j+1
		case table[i+1][j] >= table[i][j+1]:
			i++
		default:
			j++
		}
	}
	return out
}
