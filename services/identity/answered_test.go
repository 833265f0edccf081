package identity

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What was asked before must never answer another question: the questions
// here differ in as little as where one name ends and the next begins.
func TestARememberedAnswerIsTheOneThePolicySetGives(t *testing.T) {
	a, err := NewAuthorizer()
	require.NoError(t, err)
	name := rapid.SampledFrom([]string{"", "a", "b", "ab", "1:a", "*", "payer-a"})
	role := rapid.SampledFrom([]Role{RoleSubmitter, RoleAdjudicator, RoleAuditor, RoleService, RolePlanAdmin, "", "submitteradjudicator"})
	rapid.Check(t, func(t *rapid.T) {
		p := Principal{
			Subject: name.Draw(t, "subject"), Org: name.Draw(t, "org"),
			Roles: rapid.SliceOfN(role, 0, 3).Draw(t, "roles"), Payers: rapid.SliceOfN(name, 0, 3).Draw(t, "payers"),
		}
		action := rapid.SampledFrom([]string{"GetClaim", "SubmitClaim", "ResolveClaim", "AppendBatch", "Nonsense"}).Draw(t, "action")
		r := Resource{
			Type: rapid.SampledFrom([]string{Claim, File, Ledger}).Draw(t, "type"),
			ID:   name.Draw(t, "id"), Org: name.Draw(t, "resource org"), Payer: name.Draw(t, "payer"),
		}
		want := a.decide(p, action, r)
		require.Equal(t, want, a.Decide(p, action, r))
		require.Equal(t, want, a.Decide(p, action, r), "asked again")
	})
	require.NotEmpty(t, a.answered.of)
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	a, err := NewAuthorizer()
	require.NoError(t, err)
	for i := range maxAnswered + 10 {
		a.Decide(Principal{Subject: string(rune('a' + i%26)), Org: string(rune(i))}, "GetClaim", Resource{Type: Claim})
	}
	require.LessOrEqual(t, len(a.answered.of), maxAnswered)
}
