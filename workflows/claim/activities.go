package claim

import (
	"context"

	"go.temporal.io/sdk/worker"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/failure"
)

// Claims resolves pended claims; a request id seen before answers as it did.
type Claims interface {
	ResolveClaim(context.Context, *claimsv1.ResolveClaimRequest) (*claimsv1.ResolveClaimResponse, error)
	GetClaim(context.Context, *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error)
}

// Cases does what is due of the work on a claim; asking too often does nothing twice.
type Cases interface {
	AdvanceCase(context.Context, *claimsv1.AdvanceCaseRequest) (*claimsv1.AdvanceCaseResponse, error)
}

// Files knows files, and takes remittances made after a file was complete.
type Files interface {
	GetFile(context.Context, *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error)
	CompleteFile(context.Context, *claimsv1.CompleteFileRequest) (*claimsv1.CompleteFileResponse, error)
}

// Remittances makes the remittances of a run over a file, once a request id.
type Remittances interface {
	CreateRemittances(context.Context, *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error)
}

// Activities are the workflow's hands.
type Activities struct {
	Claims      Claims
	Cases       Cases
	Files       Files
	Remittances Remittances
}

// Register makes workflow and activities known to a worker.
func Register(w worker.Registry, a *Activities) {
	Hook(a).Register(w)
	AppealHook(a).Register(w)
}

// Resolve hands a reviewer's answer to the claims service.
func (a *Activities) Resolve(ctx context.Context, q *claimsv1.ResolveClaimRequest) (*claimsv1.ResolveClaimResponse, error) {
	r, err := a.Claims.ResolveClaim(ctx, q)
	return r, failure.FromRPC(err)
}

// Advance has what is due of the case done and returns how it then stands.
func (a *Activities) Advance(ctx context.Context, claimID string) (*claimsv1.AdvanceCaseResponse, error) {
	r, err := a.Cases.AdvanceCase(ctx, &claimsv1.AdvanceCaseRequest{ClaimId: claimID})
	return r, failure.FromRPC(err)
}

// RemitAppeal remits what an appeal has changed, as Remit does.
func (a *Activities) RemitAppeal(ctx context.Context, in AppealInput) error {
	return a.remit(ctx, in.ClaimID, "remit:"+in.AppealID)
}

// Status reads how the claim stands.
func (a *Activities) Status(ctx context.Context, claimID string) (claimsv1.ClaimStatus, error) {
	r, err := a.Claims.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: claimID})
	return r.GetClaim().GetStatus(), failure.FromRPC(err)
}

// Remit has a claim remitted that was decided after its file had been: by a
// run of its own over the file. While the file's own run is to come the claim
// may yet be in that one, so it is waited for. A claim that came in no file
// has none to be remitted with.
func (a *Activities) Remit(ctx context.Context, claimID string) error {
	return a.remit(ctx, claimID, "remit:"+claimID)
}

func (a *Activities) remit(ctx context.Context, claimID, requestID string) error {
	r, err := a.Claims.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: claimID})
	if err != nil {
		return failure.FromRPC(err)
	}
	fileID := r.GetClaim().GetFileId()
	if fileID == "" || r.GetClaim().GetRemittanceId() != "" {
		return nil
	}
	f, err := a.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: fileID})
	if err != nil {
		return failure.FromRPC(err)
	}
	switch f.GetFile().GetState() {
	case claimsv1.FileState_FILE_STATE_COMPLETE, claimsv1.FileState_FILE_STATE_CANCELED:
	default:
		return failure.Refuse(problem.Unavailable, problem.Problem{
			RuleID: "review.file-open", Message: "the claim's file is not complete yet", Fix: "nothing: it is tried again",
		})
	}
	made, err := a.Remittances.CreateRemittances(ctx, &claimsv1.CreateRemittancesRequest{FileId: fileID, RequestId: requestID})
	if err != nil {
		return failure.FromRPC(err)
	}
	ids := make([]string, len(made.GetRemittances()))
	for i, m := range made.GetRemittances() {
		ids[i] = m.GetRemittanceId()
	}
	_, err = a.Files.CompleteFile(ctx, &claimsv1.CompleteFileRequest{FileId: fileID, RemittanceIds: ids})
	return failure.FromRPC(err)
}
