package identity

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"github.com/cedar-policy/cedar-go"

	"github.com/probity-health/probity/services/problem"
)

// AllPayers among a principal's payers stands for every payer.
const AllPayers = "*"

//go:embed policy.cedar
var policyText []byte

const (
	typePrincipal = cedar.EntityType("Probity::Principal")
	typeRole      = cedar.EntityType("Probity::Role")
	typeAction    = cedar.EntityType("Probity::Action")
	typeResource  = cedar.EntityType("Probity::Resource")
)

// Authorizer decides by the embedded policy set, which never changes. It is
// safe for concurrent use.
type Authorizer struct {
	policies *cedar.PolicySet
	answered answered
}

// NewAuthorizer parses the policy set; an error is a defect of the build.
func NewAuthorizer() (*Authorizer, error) {
	list, err := cedar.NewPolicyListFromBytes("policy.cedar", policyText)
	if err != nil {
		return nil, fmt.Errorf("identity: policy.cedar: %w", err)
	}
	set := cedar.NewPolicySet()
	for i, p := range list {
		id, ok := p.Annotations()["id"]
		if !ok {
			return nil, fmt.Errorf("identity: policy.cedar: rule %d has no @id", i+1)
		}
		if !set.Add(cedar.PolicyID(id), p) {
			return nil, fmt.Errorf("identity: policy.cedar: two rules are called %s", id)
		}
	}
	return &Authorizer{policies: set}, nil
}

// Decision is the policy set's verdict and the rule it rests on; no rule is
// the default, deny.
type Decision struct {
	Allowed bool
	Rule    string
}

// Decide is the pure question: may p do action to r? Services ask the same
// few thousands of times a second, so answers are remembered.
func (a *Authorizer) Decide(p Principal, action string, r Resource) Decision {
	q := question{subject: p.Subject, org: p.Org, roles: listed(p.Roles), payers: listed(p.Payers), action: method(action), resource: r}
	if d, known := a.answered.get(q); known {
		return d
	}
	d := a.decide(p, q.action, r)
	a.answered.put(q, d)
	return d
}

func (a *Authorizer) decide(p Principal, action string, r Resource) Decision {
	subject := cedar.NewEntityUID(typePrincipal, cedar.String(p.Subject))
	roles := make([]cedar.EntityUID, 0, len(p.Roles))
	for _, role := range p.Roles {
		roles = append(roles, cedar.NewEntityUID(typeRole, cedar.String(role)))
	}
	payers := make([]cedar.Value, 0, len(p.Payers))
	for _, payer := range p.Payers {
		payers = append(payers, cedar.String(payer))
	}
	resource := cedar.NewEntityUID(typeResource, cedar.String(r.Type+"/"+r.ID))
	entities := cedar.EntityMap{
		subject: {
			UID:     subject,
			Parents: cedar.NewEntityUIDSet(roles...),
			Attributes: cedar.NewRecord(cedar.RecordMap{
				"org":    cedar.String(p.Org),
				"payers": cedar.NewSet(payers...),
			}),
		},
		resource: {
			UID: resource,
			Attributes: cedar.NewRecord(cedar.RecordMap{
				"kind":  cedar.String(r.Type),
				"org":   cedar.String(r.Org),
				"payer": cedar.String(r.Payer),
			}),
		},
	}
	verdict, why := cedar.Authorize(a.policies, entities, cedar.Request{
		Principal: subject,
		Action:    cedar.NewEntityUID(typeAction, cedar.String(action)),
		Resource:  resource,
	})
	// A rule that failed to evaluate was skipped, and a skipped forbid would
	// let through what it should have stopped.
	if len(why.Errors) > 0 {
		return Decision{Rule: string(why.Errors[0].PolicyID)}
	}
	d := Decision{Allowed: bool(verdict)}
	for _, reason := range why.Reasons {
		if d.Rule == "" || string(reason.PolicyID) < d.Rule {
			d.Rule = string(reason.PolicyID)
		}
	}
	return d
}

// Authorize returns nil when the caller in ctx may do action (an RPC's name,
// bare or as a procedure path) to r, and otherwise a *problem.Error:
// Unauthenticated without a caller, Forbidden with what would help.
func (a *Authorizer) Authorize(ctx context.Context, action string, r Resource) error {
	p, ok := FromContext(ctx)
	if !ok {
		return problem.New(problem.Unauthenticated, problem.Problem{
			RuleID:  "identity.no-caller",
			Message: "the request carries no verified token",
			Fix:     "sign in (probity login) or send a bearer token",
		})
	}
	d := a.Decide(p, action, r)
	if t := trailFrom(ctx); t != nil {
		t.add(Judgement{Action: method(action), Resource: r, Decision: d})
	}
	if d.Allowed {
		return nil
	}
	rule := "identity.denied"
	if d.Rule != "" {
		rule = "identity." + d.Rule
	}
	return problem.New(problem.Forbidden, problem.Problem{
		RuleID:  rule,
		Message: fmt.Sprintf("%s on this %s is not allowed for you", method(action), kindOf(r)),
		Fix:     a.fix(p, action, r),
	})
}

// fix names what the caller lacks by asking the policy set itself: which role,
// held for this very organisation or payer, would be let through?
func (a *Authorizer) fix(p Principal, action string, r Resource) string {
	var lacking []string
	for _, role := range []Role{RoleSubmitter, RoleAdjudicator, RoleSupervisor, RolePlanAdmin, RoleAuditor} {
		ideal := Principal{Subject: "someone", Org: r.Org, Roles: []Role{role}, Payers: []string{r.Payer}}
		if !a.Decide(ideal, action, r).Allowed {
			continue
		}
		if p.Has(role) {
			if role == RoleSubmitter {
				return "it belongs to another organisation: sign in as the one that submitted it"
			}
			return "it belongs to another payer: ask for access to that payer, or sign in as its staff"
		}
		lacking = append(lacking, string(role))
	}
	switch len(lacking) {
	case 0:
		return "only Probity's own services may do this; use the gateway's or the portal's way to it"
	case 1:
		return "sign in with the role " + lacking[0]
	}
	return "sign in with one of the roles " + strings.Join(lacking, ", ")
}

func kindOf(r Resource) string {
	if r.Type == "" {
		return "resource"
	}
	return strings.ToLower(r.Type)
}

func method(action string) string { return action[strings.LastIndexByte(action, '/')+1:] }

// Judgement is one authorisation made while a request was served.
type Judgement struct {
	Action   string
	Resource Resource
	Decision Decision
}

// trailLimit bounds a trail: a list handler may judge row by row.
const trailLimit = 64

// Trail collects the authorisations of one request for its audit record.
type Trail struct {
	mu     sync.Mutex
	made   []Judgement // guarded by mu
	denied int         // guarded by mu
}

type trailKey struct{}

// WithTrail returns ctx whose authorisations are collected in the trail.
func WithTrail(ctx context.Context) (context.Context, *Trail) {
	t := &Trail{}
	return context.WithValue(ctx, trailKey{}, t), t
}

func trailFrom(ctx context.Context) *Trail {
	t, _ := ctx.Value(trailKey{}).(*Trail)
	return t
}

func (t *Trail) add(j Judgement) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !j.Decision.Allowed {
		t.denied++
	}
	if len(t.made) < trailLimit {
		t.made = append(t.made, j)
	}
}

// Judgements returns the first authorisations made, at most 64, and how many were denied in all.
func (t *Trail) Judgements() (made []Judgement, denied int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Judgement(nil), t.made...), t.denied
}
