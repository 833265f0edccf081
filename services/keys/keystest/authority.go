// Package keystest has an in-memory key authority, and says what every key
// authority must do.
package keystest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// Authority keeps keys in memory.
type Authority struct {
	mu        sync.Mutex // guards everything below
	keys      map[string]keys.SubjectKey
	destroyed map[string]bool
	calls     int
	away      bool
}

// New makes an authority without keys.
func New() *Authority {
	return &Authority{keys: map[string]keys.SubjectKey{}, destroyed: map[string]bool{}}
}

// SubjectKeys implements keys.Authority.
func (a *Authority) SubjectKeys(_ context.Context, subjects []string, create bool) (map[string]keys.SubjectKey, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if a.away {
		return nil, problem.New(problem.Unavailable, problem.Problem{RuleID: "keys.authority", Message: "the key authority is away"})
	}
	out := map[string]keys.SubjectKey{}
	var gone []string
	for _, s := range subjects {
		k, ok := a.keys[s]
		switch {
		case !keys.ValidSubject(s):
			return nil, problem.Invalidf("keys.subject", "subjects", "not a subject id")
		case a.destroyed[s]:
			gone = append(gone, s)
			continue
		case !ok && create:
			k = keys.SubjectKey{Subject: s, Version: 1}
			_, _ = rand.Read(k.Key[:]) // never fails (crypto/rand)
			a.keys[s] = k
		case !ok:
			continue
		}
		out[s] = k
	}
	if len(gone) > 0 {
		return out, keys.Destroyed(gone...)
	}
	return out, nil
}

// Destroy destroys a subject's key.
func (a *Authority) Destroy(subject string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.keys, subject)
	a.destroyed[subject] = true
}

// Lose drops a key as a restored backup would: without a trace.
func (a *Authority) Lose(subject string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.keys, subject)
}

// SetAway makes the authority unavailable, or available again.
func (a *Authority) SetAway(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.away = away
}

// Calls tells how often it was asked.
func (a *Authority) Calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

// Subject returns the n-th of a row of valid subject ids.
func Subject(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	tail := ""
	for range 6 {
		tail = string(letters[n%32]) + tail
		n /= 32
	}
	return "sub_" + strings.Repeat("q", 20) + tail
}

// Run runs the suite of a key authority. open returns a fresh one and how its
// keys are destroyed.
func Run(t *testing.T, open func(t *testing.T) (a keys.Authority, destroy func(subject string) error)) {
	ctx := context.Background()
	t.Run("a key is made once and stays", func(t *testing.T) {
		a, _ := open(t)
		absent, err := a.SubjectKeys(ctx, []string{Subject(1)}, false)
		require.NoError(t, err)
		require.Empty(t, absent, "not made unless asked")
		first, err := a.SubjectKeys(ctx, []string{Subject(1), Subject(2)}, true)
		require.NoError(t, err)
		require.Len(t, first, 2)
		k := first[Subject(1)]
		require.Equal(t, Subject(1), k.Subject)
		require.Equal(t, uint32(1), k.Version)
		require.NotZero(t, k.Key)
		require.NotEqual(t, k.Key, first[Subject(2)].Key)
		again, err := a.SubjectKeys(ctx, []string{Subject(2), Subject(1), Subject(3)}, false)
		require.NoError(t, err)
		require.Equal(t, first, again)
	})
	t.Run("many subjects in one call", func(t *testing.T) {
		a, _ := open(t)
		var subjects []string
		for n := range 2500 {
			subjects = append(subjects, Subject(n))
		}
		got, err := a.SubjectKeys(ctx, subjects, true)
		require.NoError(t, err)
		require.Len(t, got, 2500)
	})
	t.Run("racing creators get one key", func(t *testing.T) {
		a, _ := open(t)
		got := make([]map[string]keys.SubjectKey, 16)
		errs := make([]error, len(got))
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() { got[i], errs[i] = a.SubjectKeys(ctx, []string{Subject(1), Subject(i)}, true) })
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		for _, g := range got {
			require.Equal(t, got[0][Subject(1)], g[Subject(1)])
		}
	})
	t.Run("a destroyed key never returns, and harms no other", func(t *testing.T) {
		a, destroy := open(t)
		before, err := a.SubjectKeys(ctx, []string{Subject(1), Subject(2)}, true)
		require.NoError(t, err)
		for range 2 {
			require.NoError(t, destroy(Subject(1)), "destroying is idempotent")
		}
		require.NoError(t, destroy(Subject(9)), "a subject without a key can be destroyed in advance")
		for _, create := range []bool{false, true} {
			got, err := a.SubjectKeys(ctx, []string{Subject(1), Subject(2), Subject(9)}, create)
			require.ErrorIs(t, err, keys.ErrDestroyed)
			var gone *keys.DestroyedError
			require.ErrorAs(t, err, &gone)
			require.ElementsMatch(t, []string{Subject(1), Subject(9)}, gone.Subjects)
			require.Equal(t, map[string]keys.SubjectKey{Subject(2): before[Subject(2)]}, got)
		}
	})
	t.Run("a malformed subject is refused", func(t *testing.T) {
		a, _ := open(t)
		for _, s := range []string{"", "sub_", "Jane Roe", Subject(1) + "a", fmt.Sprintf("usr%s", Subject(1)[3:])} {
			_, err := a.SubjectKeys(ctx, []string{s}, true)
			require.Error(t, err, "%q", s)
		}
	})
}
