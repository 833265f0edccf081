package worker_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/worker"
)

func TestEveryRowOfTheCatalogSaysWhatBecomesOfItsOpenWorkflows(t *testing.T) {
	behaviours := map[string]workflow.VersioningBehavior{}
	types, activities, histories := map[string]bool{}, map[string]bool{}, recordedTypes(t)
	for _, w := range worker.Catalog(worker.Deps{}) {
		require.False(t, types[w.Type], "%s is there twice", w.Type)
		types[w.Type] = true
		require.NotEqual(t, workflow.VersioningBehaviorUnspecified, w.Versioning, w.Type)
		behaviours[w.Type] = w.Versioning
		for name := range w.Activities {
			require.False(t, activities[name], "two activities are called %s", name)
			activities[name] = true
		}
		for _, fact := range w.Facts {
			require.NotEmpty(t, w.Log, w.Type)
			_, err := fact.Asks([]byte{0xff}, hookPlace)
			require.Error(t, err, "%s must stop at an event that can't be read", w.Type)
			require.NotContains(t, err.Error(), "\xff")
		}
		require.True(t, histories[w.Type], "no history of %s is recorded in testdata: a change of its course would go unnoticed", w.Type)
	}
	require.Equal(t, workflow.VersioningBehaviorPinned, behaviours[claimfile.WorkflowType], "a file ends on the build that began it")
	require.Equal(t, workflow.VersioningBehaviorAutoUpgrade, behaviours[claim.WorkflowType], "a review outlives builds")
}

func TestABuildKnowsItsRevisionOrSaysThatItDoesNot(t *testing.T) {
	id, err := worker.BuildID()
	if err != nil {
		require.ErrorContains(t, err, "temporal.buildID")
		return
	}
	require.Regexp(t, regexp.MustCompile(`^[0-9a-f]{12}(-changed)?$`), id)
}
