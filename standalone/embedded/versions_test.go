package embedded_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/standalone/embedded"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/follower"
	"github.com/probity-health/probity/workflows/worker"
)

func TestAFileEndsOnTheBuildThatBeganItAndAReviewMovesToTheNext(t *testing.T) {
	ctx := testContext(t)
	server, err := embedded.TemporalOptions{Dir: t.TempDir(), System: true, Logger: slog.New(slog.DiscardHandler)}.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	i := newInstallation(2_100)
	i.holdAt = 1_000
	const deployment = "probity"
	build := func(id string) client.Client {
		c := dialSealed(t, server)
		w := worker.New(worker.Deps{Temporal: c, Gateway: i, Files: i, Remittances: i, Claims: i, Deployment: deployment, BuildID: id})
		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
		// A build can be made current when Temporal has seen it poll.
		require.Eventually(t, func() bool {
			_, err := c.WorkerDeploymentClient().GetHandle(deployment).SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: id})
			if err != nil {
				t.Logf("build %s: %v", id, err)
			}
			return err == nil
		}, 40*time.Second, 200*time.Millisecond)
		return c
	}
	// Given a file and a review that were begun on one build.
	c := build("one")
	start := follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}
	require.NoError(t, start.Start(ctx, claimfile.Start(fileID)))
	require.NoError(t, start.Start(ctx, claim.Start(claimID, "2099-12-21")))
	<-i.reached
	on := func(workflowID string) string {
		r, err := c.DescribeWorkflowExecution(ctx, workflowID, "")
		require.NoError(t, err)
		return r.GetWorkflowExecutionInfo().GetVersioningInfo().GetDeploymentVersion().GetBuildId()
	}
	require.Eventually(t, func() bool {
		return on(claim.WorkflowID(claimID)) == "one" && on(claimfile.WorkflowID(fileID)) == "one"
	}, 20*time.Second, 20*time.Millisecond)

	// When another is made current, and that has come through to the task
	// queue, so that a workflow begun by neither's process runs there, then the
	// review is decided there.
	build("two")
	bystander := follower.Temporal{Client: dialSealed(t, server), TaskQueue: worker.TaskQueue}
	probes := 0
	require.Eventually(t, func() bool {
		probes++
		id := fmt.Sprintf("clm_%026d", probes)
		require.NoError(t, bystander.Start(ctx, claim.Start(id, "2099-12-21")))
		for range 50 {
			if build := on(claim.WorkflowID(id)); build != "" {
				return build == "two"
			}
			time.Sleep(20 * time.Millisecond)
		}
		return false
	}, 40*time.Second, 50*time.Millisecond)
	reviewer := identity.WithPrincipal(ctx, identity.Principal{Subject: "rev-7", Roles: []identity.Role{identity.RoleAdjudicator}, Payers: []string{"*"}})
	_, err = newService(t, c, i).ReviewClaim(reviewer, &workflowsv1.ReviewClaimRequest{ClaimId: claimID, RequestId: "r1", Resolution: "approve", Reason: "x"})
	require.NoError(t, err)
	require.NoError(t, c.GetWorkflow(ctx, claim.WorkflowID(claimID), "").Get(ctx, nil))
	require.Equal(t, "two", on(claim.WorkflowID(claimID)))

	// And the file ends where it was begun.
	close(i.release)
	require.NoError(t, c.GetWorkflow(ctx, claimfile.WorkflowID(fileID), "").Get(ctx, nil))
	require.Equal(t, "one", on(claimfile.WorkflowID(fileID)))
	require.Len(t, i.decided, 2_100)
}
