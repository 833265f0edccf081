package consent_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	consentv1 "github.com/probity-health/probity/proto/probity/consent/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/consent"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

var (
	master = [32]byte{1, 2, 3}
	alice  = "sub_" + strings.Repeat("a", 26)
	bela   = "sub_" + strings.Repeat("b", 26)
)

func open(t *testing.T, dir string) *consent.KeyStore {
	t.Helper()
	s, err := consent.OpenKeyStore(dir, master)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestAKeyIsMadeOnceAndSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	none, err := s.SubjectKeys(t.Context(), []string{alice}, false)
	require.NoError(t, err)
	require.Empty(t, none, "looking must not make a key")

	made, err := s.SubjectKeys(t.Context(), []string{alice, bela, alice}, true)
	require.NoError(t, err)
	require.Len(t, made, 2)
	require.NotEqual(t, made[alice].Key, made[bela].Key)
	require.NoError(t, s.Close())

	again, err := open(t, dir).SubjectKeys(t.Context(), []string{alice, bela}, true)
	require.NoError(t, err)
	require.Equal(t, made, again)
}

func TestKeysAtRestAreWrapped(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	made, err := s.SubjectKeys(t.Context(), []string{alice}, true)
	require.NoError(t, err)
	require.NoError(t, s.Close())

	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		key := made[alice].Key
		require.False(t, bytes.Contains(raw, key[:]), "a key lies in clear in %s", d.Name())
		return nil
	}))
}

func TestAnotherMasterKeyIsRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, open(t, dir).Close())
	_, err := consent.OpenKeyStore(dir, [32]byte{9})
	require.ErrorContains(t, err, "master key")
}

type everybody struct{}

func (everybody) Authorize(context.Context, string, identity.Resource) error { return nil }

func TestDestroyingLeavesATombstoneAndNoKey(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ledger := eventstore.NewMemory(eventstore.MemoryOptions{})
	h := consent.NewKeyHandler(s, ledger, everybody{}, nil)
	_, err := h.GetSubjectKeys(t.Context(), &consentv1.GetSubjectKeysRequest{Subjects: []string{alice, bela}, Create: true})
	require.NoError(t, err)

	request := &consentv1.DestroySubjectKeyRequest{Subject: alice, Reason: "erasure"}
	for range 2 { // once more, as after a lost answer
		_, err = h.DestroySubjectKey(t.Context(), request)
		require.NoError(t, err)
	}

	answer, err := h.GetSubjectKeys(t.Context(), &consentv1.GetSubjectKeysRequest{Subjects: []string{alice, bela}, Create: true})
	require.NoError(t, err)
	require.True(t, answer.GetKeys()[0].GetDestroyed(), "an erased subject never gets a new key")
	require.Empty(t, answer.GetKeys()[0].GetKey())
	require.Len(t, answer.GetKeys()[1].GetKey(), 32, "the other one's key is untouched")

	events, err := ledger.Read(t.Context(), consent.Log, alice, "subject-"+alice, 0)
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.Equal(t, "erasure", events[0].Event.(*eventsv1.SubjectKeyDestroyed).GetReason())

	_, err = s.SubjectKeys(t.Context(), []string{alice}, true)
	require.ErrorIs(t, err, keys.ErrDestroyed)
	require.NoError(t, s.Close())
	_, err = open(t, dir).SubjectKeys(t.Context(), []string{alice}, true)
	require.ErrorIs(t, err, keys.ErrDestroyed, "also after a restart")
}

func TestOnlyServicesGetKeys(t *testing.T) {
	auth, err := identity.NewAuthorizer()
	require.NoError(t, err)
	h := consent.NewKeyHandler(open(t, t.TempDir()), eventstore.NewMemory(eventstore.MemoryOptions{}), auth, nil)
	for _, role := range []identity.Role{identity.RoleSubmitter, identity.RoleAdjudicator, identity.RolePlanAdmin, identity.RoleAuditor} {
		ctx := identity.WithPrincipal(t.Context(), identity.Principal{Subject: "x", Org: "o", Roles: []identity.Role{role}, Payers: []string{"*"}})
		_, err := h.GetSubjectKeys(ctx, &consentv1.GetSubjectKeysRequest{Subjects: []string{alice}, Create: true})
		require.True(t, problem.Is(err, problem.Forbidden), "%s must not get keys", role)
	}
}
