package identity

// Kinds of resource, for Resource.Type. They name what is touched in refusals
// and in the audit log; the policies look at Org and Payer.
const (
	Claim              = "Claim"
	File               = "File"
	Remittance         = "Remittance"
	Payment            = "Payment"
	Document           = "Document" // an X12 document made from a file or remittance
	Plan               = "Plan"
	FeeSchedule        = "FeeSchedule"
	Contract           = "Contract"
	Network            = "Network"
	Policy             = "Policy"
	Member             = "Member"
	PriorAuthorization = "PriorAuthorization"
	EditTable          = "EditTable"
	Provider           = "Provider"
	Workflow           = "Workflow" // one that is about no single claim
	Ledger             = "Ledger"
	SubjectKey         = "SubjectKey"
)

// Resource is what an action touches. Every field is opaque or public: none
// may hold health data, for they appear in the audit log.
//
// Empty means "none": a resource without an Org is no submitter's, one
// without a Payer is no payer's (only a principal for all payers, "*", may
// touch it). A list action may leave both empty and then shows the rows of
// the caller's Scope.
type Resource struct {
	Type  string // one of the constants above
	ID    string // "clm_…"; empty for a collection or a thing about to be made
	Org   string // organisation that submitted it
	Payer string // payer that decides it or owns it
}

// Scope is which rows of a list a principal sees: those of its organisation
// and those of its payers. It agrees with the policy set on GetClaim; a test
// holds the two together.
type Scope struct {
	All    bool
	Org    string   // empty: none by organisation
	Payers []string // empty: none by payer
}

// ScopeOf returns the rows p may list.
func ScopeOf(p Principal) Scope {
	var s Scope
	if p.Has(RoleService) || p.Has(RoleAuditor) {
		return Scope{All: true}
	}
	if p.Has(RoleSubmitter) {
		s.Org = p.Org
	}
	if p.Has(RoleAdjudicator) || p.Has(RoleSupervisor) {
		for _, payer := range p.Payers {
			if payer == AllPayers {
				return Scope{All: true}
			}
		}
		s.Payers = append(s.Payers, p.Payers...)
	}
	return s
}

// Includes tells whether a row of that organisation and payer is in scope.
func (s Scope) Includes(org, payer string) bool {
	if s.All || (s.Org != "" && s.Org == org) {
		return true
	}
	for _, mine := range s.Payers {
		if payer != "" && mine == payer {
			return true
		}
	}
	return false
}
