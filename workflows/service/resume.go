package service

import (
	"context"
	"errors"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/failure"
)

// ResumeFile starts a file's workflow anew where none runs. The file's record
// says whether anything is left to do: a workflow that ended may have been
// stopped, or have lost its file's last steps with Temporal's store.
func (s *Service) ResumeFile(ctx context.Context, q *workflowsv1.ResumeFileRequest) (*workflowsv1.ResumeFileResponse, error) {
	r, err := s.deps.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: q.GetFileId()})
	if err != nil {
		return nil, err
	}
	file := r.GetFile()
	err = s.deps.Authorizer.Authorize(ctx, "ResumeFile", identity.Resource{Type: identity.File, ID: file.GetFileId(), Org: file.GetSubmitterOrg()})
	if err != nil {
		return nil, err
	}
	switch file.GetState() {
	case claimsv1.FileState_FILE_STATE_COMPLETE:
		return nil, nothingToResume("the file is complete", "nothing: read its outcomes")
	case claimsv1.FileState_FILE_STATE_REFUSED:
		return nil, nothingToResume("the file was refused as a whole", "correct what its 999 says and submit it again")
	case claimsv1.FileState_FILE_STATE_CANCELED:
		return nil, nothingToResume("the file was canceled, and its sender has been told which claims are not processed", "send those claims in a new file")
	}
	start := claimfile.Start(file.GetFileId())
	before, err := s.deps.Temporal.DescribeWorkflowExecution(ctx, start.ID, "")
	var none *serviceerror.NotFound
	switch {
	case err == nil && before.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return &workflowsv1.ResumeFileResponse{}, nil
	case err != nil && !errors.As(err, &none):
		return nil, failure.ToProblem(err)
	}
	// Who resumes it at the same time, or a follower, meets this run by its id.
	_, err = s.deps.Temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: start.ID, TaskQueue: s.deps.TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}, start.Type, start.Input)
	if err != nil {
		return nil, failure.ToProblem(err)
	}
	return &workflowsv1.ResumeFileResponse{Started: true}, nil
}

func nothingToResume(message, fix string) error {
	return problem.New(problem.Conflict, problem.Problem{RuleID: "files.resume.nothing", FieldPath: "file_id", Message: message, Fix: fix})
}
