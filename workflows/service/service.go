// Package service answers WorkflowService: how far a file has come, how a
// pended claim's review stands, and the review itself.
//
// It owns no data. What a caller may see is decided by the service that does:
// files and claims are read with the caller's own token before the workflow
// is asked, so a workflow's answer goes only to those who may see its file or
// claim. Where a workflow is gone, or Temporal is, the services' own record
// answers instead.
package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/failure"
	"github.com/probity-health/probity/workflows/hook"
)

const (
	// queryTimeout bounds a Query: a progress page that waits is worse than one
	// that shows the record's counts.
	queryTimeout = 3 * time.Second
	// stirred is how long ago a file's record last grew for the record alone to
	// say how the file stands. A Query is a task of the workflow's worker, and
	// who follows a file asks many times a second.
	stirred = 5 * time.Second
)

// Files reads a file as the caller; its client must forward the caller's token.
type Files interface {
	GetFile(context.Context, *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error)
}

// Claims reads a claim as the caller; its client must forward the caller's token.
type Claims interface {
	GetClaim(context.Context, *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error)
}

// Cases reads a claim's case as the caller; its client must forward the caller's token.
type Cases interface {
	GetCase(context.Context, *claimsv1.GetCaseRequest) (*claimsv1.GetCaseResponse, error)
}

// Authorizer decides what a caller may do; *identity.Authorizer is the real one.
type Authorizer interface {
	Authorize(ctx context.Context, action string, r identity.Resource) error
}

// Deps are what the service works with; Logger may be nil.
type Deps struct {
	Temporal   client.Client
	TaskQueue  string
	Files      Files
	Claims     Claims
	Cases      Cases
	Authorizer Authorizer
	Logger     *slog.Logger
	// Payments says that the workers have a payment port.
	Payments bool
	// Now tells the time; nil is time.Now.
	Now func() time.Time
}

// Service implements workflowsv1connect.WorkflowServiceHandler.
type Service struct{ deps Deps }

var _ workflowsv1connect.WorkflowServiceHandler = (*Service)(nil)

// New makes the service.
func New(d Deps) *Service {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Service{d}
}

// GetFileProgress answers from the file's record: its outcomes by kind, how
// many there are by now, how it ended. The workflow is asked beside it where
// an open file's record has not grown lately: it alone knows whether it is
// stalled, or what it is at.
func (s *Service) GetFileProgress(ctx context.Context, q *workflowsv1.GetFileProgressRequest) (*workflowsv1.GetFileProgressResponse, error) {
	r, err := s.deps.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: q.GetFileId()})
	if err != nil {
		return nil, err
	}
	file := r.GetFile()
	err = s.deps.Authorizer.Authorize(ctx, "GetFileProgress", identity.Resource{
		Type: identity.File, ID: file.GetFileId(), Org: file.GetSubmitterOrg(),
	})
	if err != nil {
		return nil, err
	}
	var p workflowsv1.GetFileProgressResponse
	if s.stirs(file) || !s.query(ctx, claimfile.WorkflowID(q.GetFileId()), claimfile.QueryProgress, &p) {
		p.Stage = stageOf(file)
	}
	p.ClaimCount = file.GetClaimCount()
	// A workflow that was started again, or can't be asked, knows less than the file.
	p.Done = max(p.GetDone(), file.GetOutcomeCount())
	p.Paid, p.Denied = max(p.GetPaid(), file.GetPaidCount()), max(p.GetDenied(), file.GetDeniedCount())
	p.Pended, p.Rejected = max(p.GetPended(), file.GetPendedCount()), max(p.GetRejected(), file.GetRejectedCount())
	switch file.GetState() {
	case claimsv1.FileState_FILE_STATE_COMPLETE:
		p.Stage, p.Complete, p.RemittanceIds = claimfile.StageComplete, true, file.GetRemittanceIds()
	case claimsv1.FileState_FILE_STATE_CANCELING:
		p.Stage = claimfile.StageCanceling
	case claimsv1.FileState_FILE_STATE_CANCELED:
		p.Stage, p.Complete, p.RemittanceIds = claimfile.StageCanceled, true, file.GetRemittanceIds()
		p.NotProcessed = file.GetNotProcessedCount()
	case claimsv1.FileState_FILE_STATE_REFUSED:
		p.Stage = claimfile.StageRefused
	}
	return &p, nil
}

// stirs tells whether the file's record says all there is to say.
func (s *Service) stirs(f *claimsv1.File) bool {
	switch f.GetState() {
	case claimsv1.FileState_FILE_STATE_COMPLETE, claimsv1.FileState_FILE_STATE_CANCELED, claimsv1.FileState_FILE_STATE_REFUSED:
		return true
	}
	grown := f.GetReceivedTime()
	if f.GetCompletedTime() != nil {
		grown = f.GetCompletedTime()
	}
	return grown != nil && s.deps.Now().Sub(grown.AsTime()) < stirred
}

// stageOf is an open file's stage as far as its outcomes tell it.
func stageOf(f *claimsv1.File) string {
	switch done := f.GetOutcomeCount(); {
	case done == 0:
		return claimfile.StageWaiting
	case done < f.GetClaimCount():
		return claimfile.StageDeciding
	}
	return claimfile.StageRemitting
}

// GetReview answers from the claim's case. Its workflow knows no more, and
// may not have had its first task yet, nor Temporal be there.
func (s *Service) GetReview(ctx context.Context, q *workflowsv1.GetReviewRequest) (*workflowsv1.GetReviewResponse, error) {
	c, err := s.claim(ctx, "GetReview", q.GetClaimId())
	switch {
	case err != nil:
		return nil, err
	case claim.Final(c.GetStatus()):
		return &workflowsv1.GetReviewResponse{ClaimId: q.GetClaimId(), State: claim.StateDecided}, nil
	case c.GetStatus() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		return nil, problem.New(problem.NotFound, problem.Problem{
			RuleID: "review.none", FieldPath: "claim_id", Message: "the claim is not under review",
			Fix: "read the claim to see how it stands",
		})
	}
	r, err := s.deps.Cases.GetCase(ctx, &claimsv1.GetCaseRequest{ClaimId: q.GetClaimId()})
	if err != nil {
		return nil, err
	}
	return claim.Review(r.GetCase()), nil
}

// ReviewClaim passes the review to the claim's workflow, starting it where it
// isn't there yet, and answers when the engine has decided again. The same
// request id meets the same review, however often it is sent.
func (s *Service) ReviewClaim(ctx context.Context, q *workflowsv1.ReviewClaimRequest) (*workflowsv1.ReviewClaimResponse, error) {
	c, err := s.claim(ctx, "ReviewClaim", q.GetClaimId())
	if err != nil {
		return nil, err
	}
	caller, known := identity.FromContext(ctx)
	if !known || caller.Subject == "" {
		return nil, problem.New(problem.Unauthenticated, problem.Problem{
			RuleID: "review.reviewer", Message: "a review needs a reviewer who has signed in", Fix: "sign in and send it again",
		})
	}
	review := &workflowsv1.ReviewClaimRequest{
		ClaimId: q.GetClaimId(), RequestId: q.GetRequestId(), Resolution: q.GetResolution(), Reason: q.GetReason(),
		// Who reviews is who asks; a name in the request counts for nothing.
		Reviewer: caller.Subject,
	}
	start := s.deps.Temporal.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID: claim.WorkflowID(q.GetClaimId()), TaskQueue: s.deps.TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		TypedSearchAttributes:    hook.Attributes(c.GetPayerId(), ""),
	}, claim.WorkflowType, claim.Start(q.GetClaimId(), "").Input)
	handle, err := s.deps.Temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			// Named here too: the payload codec binds the review to it.
			WorkflowID: claim.WorkflowID(q.GetClaimId()),
			UpdateID:   caller.Org + "/" + q.GetRequestId(), UpdateName: claim.UpdateReview,
			WaitForStage: client.WorkflowUpdateStageCompleted, Args: []any{review},
		},
	})
	var answer workflowsv1.ReviewClaimResponse
	if err == nil {
		err = handle.Get(ctx, &answer)
	}
	var ended *serviceerror.WorkflowExecutionAlreadyStarted
	switch {
	case errors.As(err, &ended):
		return s.afterTheEnd(ctx, q, c)
	case err != nil:
		return nil, failure.ToProblem(err)
	}
	return &answer, nil
}

// afterTheEnd answers a review whose workflow has ended: the claim as it
// stands to the reviewer who decided it so and asks again, a refusal to others.
func (s *Service) afterTheEnd(ctx context.Context, q *workflowsv1.ReviewClaimRequest, c *claimsv1.ClaimSummary) (*workflowsv1.ReviewClaimResponse, error) {
	caller, _ := identity.FromContext(ctx)
	handle := s.deps.Temporal.GetWorkflowUpdateHandle(client.GetWorkflowUpdateHandleOptions{
		WorkflowID: claim.WorkflowID(q.GetClaimId()), UpdateID: caller.Org + "/" + q.GetRequestId(),
	})
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var answer workflowsv1.ReviewClaimResponse
	if err := handle.Get(ctx, &answer); err == nil {
		return &answer, nil
	}
	return nil, problem.New(problem.Conflict, problem.Problem{
		RuleID: "review.decided", FieldPath: "claim_id", Message: "the claim is decided already",
		Fix: "read the claim; nothing is left to review",
	})
}

// claim reads the claim as the caller and asks whether the caller may do this to it.
func (s *Service) claim(ctx context.Context, action, id string) (*claimsv1.ClaimSummary, error) {
	r, err := s.deps.Claims.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: id})
	if err != nil {
		return nil, err
	}
	c := r.GetClaim()
	return c, s.deps.Authorizer.Authorize(ctx, action, identity.Resource{
		Type: identity.Claim, ID: c.GetClaimId(), Org: c.GetSubmitterOrg(), Payer: c.GetPayerId(),
	})
}

// query asks a workflow; false when there is none or nobody answers in time.
func (s *Service) query(ctx context.Context, workflowID, name string, into any) bool {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	v, err := s.deps.Temporal.QueryWorkflow(ctx, workflowID, "", name)
	if err == nil {
		err = v.Get(into)
	}
	var gone *serviceerror.NotFound
	if err != nil && !errors.As(err, &gone) {
		s.deps.Logger.WarnContext(ctx, "a workflow did not answer a query; its service's record answers instead",
			"workflow_id", workflowID, "query", name, "error", err)
	}
	return err == nil
}
