package scenario

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/fixtures"
)

// theExamples: given the 837P examples that the world's implementers learn
// from, when each is submitted, then each of its claims is decided, or is
// refused with a rule and a place.
func theExamples(t *testing.T, s *stack, _ *ledgerOfTheSender) {
	paths, err := filepath.Glob(filepath.Join(fixtures.Dir(t, "x12/837p"), "*.edi"))
	require.NoError(t, err)
	require.Len(t, paths, 8)
	for _, path := range paths {
		answer := s.probity(t, "submit", path, "-o", "json")
		require.Contains(t, []int{cli.ExitOK, cli.ExitRejected}, answer.code, "%s: %s", path, answer.err)
		got := readSubmitted(t, answer.out)
		refused := reasons(t, got)
		require.Equal(t, answer.code == cli.ExitRejected, len(refused) > 0, path)
		for _, c := range got.Claims {
			require.Contains(t, []string{"paid", "denied", "pended"}, status(c), path)
		}
		for _, p := range refused {
			requireReason(t, p, path)
		}
		t.Logf("%s: %d claims decided, %d reasons of refusal %s", filepath.Base(path), len(got.Claims), len(refused), rules(refused))
	}
}

// theBrokenExamples: given files with one fault each, when they are checked
// and submitted, then each is refused at the fault, and the exit code says so.
func theBrokenExamples(t *testing.T, s *stack, _ *ledgerOfTheSender) {
	paths, err := filepath.Glob(filepath.Join(fixtures.Dir(t, "x12/negative"), "837p-*"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		before := s.tally(t)
		check := s.probity(t, "validate", path, "-o", "json")
		require.Equal(t, cli.ExitRejected, check.code, "%s: %s%s", path, check.out, check.err)

		answer := s.probity(t, "submit", path, "-o", "json")
		require.Equal(t, cli.ExitRejected, answer.code, "%s: %s", path, answer.err)
		got := readSubmitted(t, answer.out)
		refused := reasons(t, got)
		require.NotEmpty(t, refused, path)
		for _, p := range refused {
			requireReason(t, p, path)
		}
		require.Empty(t, got.Claims, path)
		require.Equal(t, claimsv1.FileState_FILE_STATE_REFUSED, got.File.GetState(), path)
		require.Equal(t, before, s.tally(t), path)
		t.Logf("%s: %s", filepath.Base(path), rules(refused))
	}
}

// reasons are all problems of a submission: the file's, and its claims'.
func reasons(t *testing.T, got submitted) []*problemv1.Problem {
	t.Helper()
	var all []*problemv1.Problem
	for _, raw := range got.Problems {
		p := &problemv1.Problem{}
		require.NoError(t, protojson.Unmarshal(raw, p))
		all = append(all, p)
	}
	for _, o := range got.Refused {
		all = append(all, o.GetProblems()...)
	}
	return all
}

// requireReason: a refusal has a rule to look up, a place to go to and
// something to do.
func requireReason(t *testing.T, p *problemv1.Problem, about string) {
	t.Helper()
	require.NotEmpty(t, p.GetRuleId(), about)
	require.NotEmpty(t, p.GetMessage(), "%s: %s", about, p.GetRuleId())
	require.NotEmpty(t, p.GetFix(), "%s: %s", about, p.GetRuleId())
	require.True(t, p.GetX12Path() != "" || p.GetFieldPath() != "", "%s: %s (%s) names no place", about, p.GetRuleId(), p.GetMessage())
}

func rules(list []*problemv1.Problem) string {
	var names []string
	for _, p := range list {
		names = append(names, p.GetRuleId()+" @ "+p.GetX12Path()+p.GetFieldPath())
	}
	return strings.Join(names[:min(4, len(names))], ", ")
}

// stated reads the problems of an error that the CLI printed as JSON.
func stated(t *testing.T, text string) (kind string, problems []*problemv1.Problem) {
	t.Helper()
	at := strings.Index(text, `{"error"`)
	require.GreaterOrEqual(t, at, 0, text)
	var doc struct {
		Error struct {
			Kind     string
			Problems []json.RawMessage
		}
	}
	require.NoError(t, json.NewDecoder(strings.NewReader(text[at:])).Decode(&doc))
	for _, raw := range doc.Error.Problems {
		p := &problemv1.Problem{}
		require.NoError(t, protojson.Unmarshal(raw, p))
		problems = append(problems, p)
	}
	return doc.Error.Kind, problems
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	body, err := os.ReadFile(path)
	require.NoError(t, err)
	return body
}
