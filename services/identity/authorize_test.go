package identity_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"pgregory.net/rapid"

	_ "github.com/probity-health/probity/proto/probity/claims/v1"
	_ "github.com/probity-health/probity/proto/probity/consent/v1"
	_ "github.com/probity-health/probity/proto/probity/gateway/v1"
	_ "github.com/probity-health/probity/proto/probity/ledger/v1"
	_ "github.com/probity-health/probity/proto/probity/policies/v1"
	_ "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// matrix is the whole of what is allowed, for a resource of organisation
// "lakeside" and payer "keystone". A role's letter: it may on its own
// resource; "+": also on a resource without organisation or payer (an
// unfiltered list); "!": on anybody's. Services may do everything.
//
//	S submitter  A adjudicator  V supervisor  P plan administrator  U auditor  R replica  * anyone signed in
const matrix = `
SubmitFile               S
ValidateFile             S
AdjudicateChunk
GetDocument              S A
SubmitClaim              S
SubmitClaims             S
GetClaim                 S A V U!
ListClaims               S+ A+ V+ U!
ExplainClaim             S A V
WatchClaim               S A V U!
ResolveClaim
RegisterFile             S
ReadFile                 S
GetFile                  S U!
ListFiles                S+ U!
RecordOutcomes
CompleteFile
CancelFile               S
ListFileOutcomes         S U!
VoidClaim                S
ReprocessClaims          P
ListAffectedClaims       P
ListChanges              P
ReprocessChange          P
GetClaimHistory          S A V U!
CreateRemittances
GetRemittance            S A
ListRemittances          S+ A+ U!
IntendPayments
ClearPayment
RecordPayment
ConfirmPayment           P
FailPayment              P
GetPayment               S A V P U!
ListPayments             S+ A+ V+ P+ U!
ListPaymentTasks         V+ P+ U!
ClaimPaymentTask         V P
ReleasePaymentTask       V P
ReassignPaymentTask      V
ReleasePayee             V P
ResolvePaymentTask       V P
AdvancePaymentTask
RunPayments              P
GetPaymentCycle          A P U!
ReplayDecisions          S A U!
GetCase                  S A V U!
ListTasks                A+ V+ U!
ClaimTask                A V
ReleaseTask              A V
ReassignTask             V
EscalateTask             A V
SetEscalation            V
RequestInformation       A V
ReceiveInformation       S A
FileAppeal               S A
ListAppeals              S+ A+ V+ U!
DecideAppeal             A V
AdvanceCase
LintDocument             P!
PublishPlan              P
GetPlan                  A P U!
ListPlans                A+ P+ U!
PublishFeeSchedule       P
PublishContract          P
PublishNetwork           P
CreatePolicy             P
EnrollMembers            P
TerminateMember          P
LookupMember             P
RecordPriorAuthorization P
DiffPlans                P
ApplyEnrollmentChanges   P
ImportEnrollmentFile     P
GetMember                A P U!
GetMemberHistory         A P U!
ImportEdits              P
ListEditTables           A P U!
RecordProviderStatus     P
SimulatePlan             P
GetFileProgress          S U!
ResumeFile               S
GetReview                S A V U!
ReviewClaim              A V
DecodePayloads           A
EncodePayloads
Append
AppendBatch
ReadStream               U!
ReadStreams              U!
Subscribe                U!
GetReceipt               *!
GetCheckpoint            *!
GetLedger                *!
GetConsistency           *!
ListEvidence             *!
SubmitEvidence           *!
GetLedgerPolicy          *!
SubmitLedgerPolicy       *!
ExchangeCosignatures     R!
GetCommits               R!
GetRows                  R!
RepublishShard
GetSubjectKeys
DestroySubjectKey
`

var letters = map[string]identity.Role{
	"S": identity.RoleSubmitter, "A": identity.RoleAdjudicator,
	"P": identity.RolePlanAdmin, "U": identity.RoleAuditor,
	"R": identity.RoleReplica, "V": identity.RoleSupervisor,
}

func TestTheWholeMatrixOfRolesAndRPCs(t *testing.T) {
	authorizer := newAuthorizer(t)
	resources := map[string]identity.Resource{
		"own":      {Type: identity.Claim, ID: "clm_x", Org: "lakeside", Payer: "keystone"},
		"other":    {Type: identity.Claim, ID: "clm_y", Org: "elsewhere", Payer: "rival"},
		"nobody's": {Type: identity.Claim},
	}
	seen := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(matrix), "\n") {
		fields := strings.Fields(line)
		action, grants := fields[0], fields[1:]
		seen[action] = true
		for letter, role := range letters {
			caller := identity.Principal{Subject: "u1", Org: "lakeside", Roles: []identity.Role{role}, Payers: []string{"keystone"}}
			grant := ""
			for _, g := range grants {
				if strings.HasPrefix(g, letter) || strings.HasPrefix(g, "*") {
					grant = g
				}
			}
			want := map[string]bool{
				"own":      grant != "",
				"other":    strings.HasSuffix(grant, "!"),
				"nobody's": strings.HasSuffix(grant, "!") || strings.HasSuffix(grant, "+"),
			}
			for whose, resource := range resources {
				got := authorizer.Decide(caller, action, resource)
				if got.Allowed != want[whose] {
					t.Errorf("%s on %s resource by %s: allowed %v (rule %q), the matrix says %v",
						action, whose, role, got.Allowed, got.Rule, want[whose])
				}
			}
		}
		service := identity.Principal{Subject: "svc", Org: "probity", Roles: []identity.Role{identity.RoleService}}
		nobody := identity.Principal{Subject: "u2", Org: "lakeside", Payers: []string{"keystone"}}
		for whose, resource := range resources {
			require.True(t, authorizer.Decide(service, action, resource).Allowed, "%s on %s by a service", action, whose)
			require.Equal(t, slices.Contains(grants, "*!"), authorizer.Decide(nobody, action, resource).Allowed,
				"%s on %s by someone without a role", action, whose)
		}
	}
	require.Equal(t, rpcs(t), sorted(seen), "the matrix must have a row for every RPC and no other")
}

func TestAnRPCNameBelongsToOneService(t *testing.T) {
	names := rpcs(t)
	require.Equal(t, len(names), len(slices.Compact(slices.Clone(names))), "actions are bare RPC names, so two RPCs of one name would share their rules")
}

func TestPoliciesFitTheirSchemaAndTheSchemaTheProtos(t *testing.T) {
	text, err := os.ReadFile("policy.cedarschema")
	require.NoError(t, err)
	var declared schema.Schema
	require.NoError(t, declared.UnmarshalCedar(text))
	resolved, err := declared.Resolve()
	require.NoError(t, err)

	actions := map[string]bool{}
	for uid := range resolved.Actions {
		actions[string(uid.ID)] = true
	}
	require.Equal(t, rpcs(t), sorted(actions))

	rules, err := os.ReadFile("policy.cedar")
	require.NoError(t, err)
	list, err := cedar.NewPolicyListFromBytes("policy.cedar", rules)
	require.NoError(t, err)
	validator := validate.New(resolved)
	for _, rule := range list {
		id := string(rule.Annotations()["id"])
		require.NoError(t, validator.Policy(id, (*xast.Policy)(rule.AST())), id)
	}
}

func TestAllPayersStandsForEveryPayerAndForNone(t *testing.T) {
	authorizer := newAuthorizer(t)
	admin := identity.Principal{Subject: "a", Roles: []identity.Role{identity.RolePlanAdmin}, Payers: []string{identity.AllPayers}}
	require.True(t, authorizer.Decide(admin, "PublishFeeSchedule", identity.Resource{Type: identity.FeeSchedule, Payer: "keystone"}).Allowed)
	require.True(t, authorizer.Decide(admin, "PublishFeeSchedule", identity.Resource{Type: identity.FeeSchedule}).Allowed)
}

func TestWithoutCallerNothingIsAllowed(t *testing.T) {
	err := newAuthorizer(t).Authorize(context.Background(), "GetLedger", identity.Resource{Type: identity.Ledger})
	require.True(t, problem.Is(err, problem.Unauthenticated), "%v", err)
}

func TestARefusalSaysWhatWouldHelp(t *testing.T) {
	authorizer := newAuthorizer(t)
	claim := identity.Resource{Type: identity.Claim, ID: "clm_x", Org: "lakeside", Payer: "keystone"}
	for _, tc := range []struct {
		name, action, fix string
		caller            identity.Principal
	}{
		{"the role is missing", "/probity.workflows.v1.WorkflowService/ReviewClaim", "sign in with one of the roles adjudicator, supervisor",
			identity.Principal{Subject: "u", Org: "lakeside", Roles: []identity.Role{identity.RoleSubmitter}}},
		{"the organisation is another", "ExplainClaim", "sign in as the one that submitted it",
			identity.Principal{Subject: "u", Org: "elsewhere", Roles: []identity.Role{identity.RoleSubmitter}}},
		{"the payer is another", "ExplainClaim", "ask for access to that payer",
			identity.Principal{Subject: "u", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"rival"}}},
		{"several roles would do", "ExplainClaim", "one of the roles submitter, adjudicator, supervisor",
			identity.Principal{Subject: "u", Org: "lakeside"}},
		{"nobody may", "Append", "only Probity's own services",
			identity.Principal{Subject: "u", Org: "lakeside", Roles: []identity.Role{identity.RoleAuditor}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := authorizer.Authorize(identity.WithPrincipal(context.Background(), tc.caller), tc.action, claim)
			var refused *problem.Error
			require.True(t, errors.As(err, &refused))
			require.Equal(t, problem.Forbidden, refused.Kind)
			require.Contains(t, refused.Problems[0].Fix, tc.fix)
			require.NotContains(t, refused.Error(), "clm_x", "whether the claim exists is not told")
		})
	}
}

func TestATrailKeepsTheDecidingRule(t *testing.T) {
	ctx, trail := identity.WithTrail(identity.WithPrincipal(context.Background(),
		identity.Principal{Subject: "u", Org: "lakeside", Roles: []identity.Role{identity.RoleSubmitter}}))
	authorizer := newAuthorizer(t)
	require.NoError(t, authorizer.Authorize(ctx, "GetClaim", identity.Resource{Type: identity.Claim, Org: "lakeside"}))
	for range 100 {
		require.Error(t, authorizer.Authorize(ctx, "Append", identity.Resource{Type: identity.Ledger}))
	}
	made, denied := trail.Judgements()
	require.Equal(t, "submitter.own", made[0].Decision.Rule)
	require.Equal(t, "services.only", made[1].Decision.Rule)
	require.Len(t, made, 64)
	require.Equal(t, 100, denied)
}

// A list shows exactly the rows that could be opened one by one.
func TestScopeAgreesWithThePolicySet(t *testing.T) {
	authorizer := newAuthorizer(t)
	orgs := rapid.SampledFrom([]string{"", "lakeside", "elsewhere"})
	payers := rapid.SampledFrom([]string{"", "keystone", "rival", identity.AllPayers})
	roles := rapid.SampledFrom([]identity.Role{
		identity.RoleSubmitter, identity.RoleAdjudicator, identity.RoleSupervisor, identity.RolePlanAdmin,
		identity.RoleAuditor, identity.RoleService, "unheard-of",
	})
	rapid.Check(t, func(t *rapid.T) {
		p := identity.Principal{
			Subject: "u", Org: orgs.Draw(t, "org"),
			Roles:  rapid.SliceOfN(roles, 0, 3).Draw(t, "roles"),
			Payers: rapid.SliceOfN(payers, 0, 3).Draw(t, "payers"),
		}
		row := identity.Resource{Type: identity.Claim, ID: "clm_x", Org: orgs.Draw(t, "row org"), Payer: payers.Draw(t, "row payer")}
		may := authorizer.Decide(p, "GetClaim", row).Allowed
		if sees := identity.ScopeOf(p).Includes(row.Org, row.Payer); sees != may {
			t.Fatalf("%+v lists %+v: %v, opens it: %v", p, row, sees, may)
		}
	})
}

func newAuthorizer(t testing.TB) *identity.Authorizer {
	t.Helper()
	a, err := identity.NewAuthorizer()
	require.NoError(t, err)
	return a
}

// rpcs are the names of every RPC of every Probity service, sorted.
func rpcs(t testing.TB) []string {
	t.Helper()
	names := []string{"DecodePayloads", "EncodePayloads"} // the codec endpoint's, whose protocol is Temporal's
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(f.Package()), "probity.") {
			for i := range f.Services().Len() {
				methods := f.Services().Get(i).Methods()
				for j := range methods.Len() {
					names = append(names, string(methods.Get(j).Name()))
				}
			}
		}
		return true
	})
	sort.Strings(names)
	require.NotEmpty(t, names)
	return names
}

func sorted(set map[string]bool) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func ExampleAuthorizer_Authorize() {
	authorizer, err := identity.NewAuthorizer()
	if err != nil {
		panic(err)
	}
	ctx := identity.WithPrincipal(context.Background(), identity.Principal{
		Subject: "u-17", Org: "prov-lakeside", Roles: []identity.Role{identity.RoleSubmitter},
	})
	err = authorizer.Authorize(ctx, "GetClaim", identity.Resource{
		Type: identity.Claim, ID: "clm_…", Org: "prov-hillside", Payer: "KEYSTONE",
	})
	fmt.Println(err)
	// Output: forbidden: GetClaim on this claim is not allowed for you (identity.denied)
}
