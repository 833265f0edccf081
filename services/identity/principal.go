// Package identity says who calls and what they may do.
//
// A caller is a Principal taken from a verified JWT (OIDC). One Cedar policy
// set decides; a handler reads the principal from the context and asks
// Authorize with the resource it is about to touch.
package identity

import "context"

// Role is what a principal may act as; roles come from the token's "roles" claim.
type Role string

// The roles.
const (
	RoleSubmitter   Role = "submitter"   // provider's or clearinghouse's billing office
	RoleAdjudicator Role = "adjudicator" // payer's claims staff
	RoleSupervisor  Role = "supervisor"  // leads claims staff: gives tasks, sets escalation, second approver
	RolePlanAdmin   Role = "plan_admin"  // payer's benefit configuration and enrolment
	RoleAuditor     Role = "auditor"     // reads everything but plaintext health data
	RoleReplica     Role = "replica"     // a ledger node of another party
	RoleService     Role = "service"     // another service of this installation
)

// Principal is an authenticated caller.
type Principal struct {
	// Subject is the token's "sub": opaque, never a person's name.
	Subject string
	// Org is the organisation ("org" claim) it acts for: "payer-keystone", "prov-lakeside".
	Org string
	// Roles, from the token.
	Roles []Role
	// Payers are the payer ids an adjudicator, supervisor or plan administrator acts for ("payers" claim); "*" is all.
	Payers []string
}

// Has tells whether the principal holds the role.
func (p Principal) Has(r Role) bool {
	for _, have := range p.Roles {
		if have == r {
			return true
		}
	}
	return false
}

type contextKey struct{}

// WithPrincipal returns ctx carrying p. Only the authenticating interceptor and tests call it.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// FromContext returns the caller; false when the request was not authenticated.
func FromContext(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(contextKey{}).(Principal)
	return p, ok
}
